//! The file of verified pieces: what is read is whole entries, one behind the other.
//!
//! The checksums of the entries are made right first: a fuzzer does not find them.

use hekate::fuzzing;
use sha1::{Digest, Sha1};

/// Length and checksum.
const HEAD_BYTES: usize = 4 + 8;
/// Info-hash and number of files.
const BODY_BYTES_MIN: usize = 20 + 4;

/// Panics when it does not hold for these bytes.
pub fn check(input: &[u8]) {
    let entries = sealed(input);
    let mut rest = &entries[..];
    while let Some((info_hash, length)) = fuzzing::verified_entry(rest) {
        assert!(length >= HEAD_BYTES + BODY_BYTES_MIN && length <= rest.len());
        assert_eq!(info_hash.0, rest[HEAD_BYTES..HEAD_BYTES + 20]);
        // One that is cut off is none.
        assert!(fuzzing::verified_entry(&rest[..length - 1]).is_none());
        rest = &rest[length..];
    }
}

fn sealed(input: &[u8]) -> Vec<u8> {
    let mut entries = input.to_vec();
    let mut at = 0;
    while let Some(length) = entries[at..].first_chunk().copied().map(u32::from_le_bytes) {
        let body = at + HEAD_BYTES;
        let end = body.saturating_add(length as usize);
        let Some(bytes) = entries.get(body..end) else {
            break;
        };
        let digest = Sha1::digest(bytes);
        entries[at + 4..body].copy_from_slice(&digest[..8]);
        at = end;
    }
    entries
}
