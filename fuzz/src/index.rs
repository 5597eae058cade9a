//! Nothing in an index file is believed: whatever its bytes say, reading it answers or is refused.
//!
//! The input is a file without the padding behind its header. Its checksums are made right first:
//! a fuzzer does not find them.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use hekate::library::index::Index;
use hekate::library::index::format::RecordNo;
use hekate::library::index::obfuscated::ObfuscatedHash;
use sha1::{Digest, Sha1};

use super::configuration::scratch;

const HEADER_BYTES: usize = 4096;
/// Sections of a version.
fn sections(version: u8) -> usize {
    if version == 3 { 11 } else { 14 }
}

/// Offset, length, checksum.
const SECTION_BYTES: usize = 8 + 8 + 20;
/// Entries and tracker lists that are read of one input.
const READ_MAX: usize = 64;

/// Panics when it does not hold for these bytes.
pub fn check(input: &[u8]) {
    let Some(file) = sealed(input) else {
        return;
    };
    let path = scratch("index");
    fs::write(&path, file).expect("the directory for temporary files can be written to");
    let Ok(index) = Index::open(&path) else {
        return;
    };
    let _ = Index::origin_of(&path).expect("it was read as a part of the index");
    let mut found = Vec::new();
    for (number, entry) in index.entries().take(READ_MAX).enumerate() {
        let Ok(entry) = entry else {
            break;
        };
        assert_eq!(entry.record.0 as usize, number);
        let _ = index.trackers(entry.trackers);
        let _ = index.at(&entry.path);
        let _ = index.first_of(entry.record);
        let _ = index.duplicates_of(entry.record).count();
        found.push(entry);
    }
    for entry in &found {
        if let Some(candidates) = index.find(&entry.facts.info_hash) {
            let _ = index.entry(candidates, &entry.facts.info_hash);
        }
        let _ = index.within(&entry.path.directory);
        let _ = index.below(&entry.path.directory);
        assert!(!entry.path.name.as_bytes().contains(&b'/'));
    }
    let records = index.records();
    for served in index.served().take(READ_MAX).flatten() {
        assert!(served.record.0 < records);
    }
    let numbers: Vec<_> = (0..records.min(READ_MAX as u32)).map(RecordNo).collect();
    let _ = index.info_hashes(&numbers);
    let _ = index.check();
    let index = index.with_obfuscated();
    for entry in &found {
        let hash = ObfuscatedHash::new(&entry.facts.info_hash);
        if let Some(candidates) = index.find_obfuscated(&hash) {
            let _ = index.info_hash_of(candidates, &hash);
        }
    }
}

/// The file that the input stands for: padding behind the header, and every checksum right. `None` when
/// there is no whole header.
fn sealed(input: &[u8]) -> Option<Vec<u8>> {
    let sections = sections(*input.get(8)?);
    let used_bytes = 8 + 4 + sections * SECTION_BYTES;
    let (header, body) = input.split_at_checked(used_bytes)?;
    let mut file = header.to_vec();
    file.resize(HEADER_BYTES, 0);
    file.extend_from_slice(body);
    for section in 0..sections {
        let at = 8 + 4 + section * SECTION_BYTES;
        let number =
            |at: usize| usize::try_from(u64::from_le_bytes(*file[at..].first_chunk()?)).ok();
        let (offset, length) = (number(at)?, number(at + 8)?);
        let end = offset.saturating_add(length);
        let digest = Sha1::digest(file.get(offset..end).unwrap_or_default());
        file[at + 16..at + SECTION_BYTES].copy_from_slice(&digest);
    }
    let digest = Sha1::digest(&file[..used_bytes]);
    file[used_bytes..used_bytes + 20].copy_from_slice(&digest);
    Some(file)
}
