//! The encoding of verified pieces in their file.
//!
//! A checksum tells whole entries from those that a crash has cut. Only good pieces are saved, as a bad
//! one has to be inspected again anyway. The last of several entries of a torrent supersedes the others.

use sha1::{Digest, Sha1};

use super::{Bits, Record, Stamps};
use crate::torrent::reader::Stamp;
use crate::wire::message::InfoHash;

/// The longest entry: 40 million pieces, or 700,000 files. A longer one is not kept.
const ENTRY_BYTES_MAX: usize = 16 << 20;

/// Its length and the checksum.
const HEAD_BYTES: usize = 4 + CHECKSUM_BYTES;

const CHECKSUM_BYTES: usize = 8;

/// Info-hash and number of files.
const BODY_BYTES_MIN: usize = 20 + 4;

/// Of one file: its number, inode and time.
const FILE_BYTES: usize = 4 + 8 + 8;

/// What is kept of one torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LedgerEntry {
    pub(crate) info_hash: InfoHash,
    pub(super) stamps: Stamps,
    pub(super) good: Bits,
}

/// Appends an entry for what is known of a torrent.
pub(super) fn encode(info_hash: &InfoHash, record: &Record, out: &mut Vec<u8>) {
    let words = &record.good.words;
    // What holds for no good piece is not worth its bytes.
    let stamps: &[(u32, Stamp)] = match words.is_empty() {
        true => &[],
        false => &record.stamps,
    };
    let length = BODY_BYTES_MIN + stamps.len() * FILE_BYTES + size_of_val(words.as_slice());
    let (Ok(short), true) = (u32::try_from(length), length <= ENTRY_BYTES_MAX) else {
        return;
    };
    out.reserve(HEAD_BYTES + length);
    out.extend(short.to_le_bytes());
    let checksum_at = out.len();
    out.extend([0; CHECKSUM_BYTES]);
    let body_at = out.len();
    out.extend(info_hash.0);
    let files = u32::try_from(stamps.len()).expect("they fit into ENTRY_BYTES_MAX");
    out.extend(files.to_le_bytes());
    for (file, stamp) in stamps {
        out.extend(file.to_le_bytes());
        out.extend(stamp.inode.to_le_bytes());
        out.extend(stamp.modified_ns.to_le_bytes());
    }
    for word in words {
        out.extend(word.to_le_bytes());
    }
    let (head, body) = out.split_at_mut(body_at);
    let (_, field) = head.split_at_mut(checksum_at);
    field.copy_from_slice(&checksum(body));
}

/// The entry that the bytes begin with, and how many it has. `None` when there is no whole one.
pub(crate) fn decode(bytes: &[u8]) -> Option<(LedgerEntry, usize)> {
    let mut rest = bytes;
    let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
    let wanted: [u8; CHECKSUM_BYTES] = take(&mut rest)?;
    let mut body = rest.get(..length).filter(|_| length <= ENTRY_BYTES_MAX)?;
    if checksum(body) != wanted {
        return None;
    }
    let info_hash = InfoHash(take(&mut body)?);
    let files = u32::from_le_bytes(take(&mut body)?);
    let mut stamps = Stamps::new();
    for _ in 0..files {
        let file = u32::from_le_bytes(take(&mut body)?);
        let stamp = Stamp {
            inode: u64::from_le_bytes(take(&mut body)?),
            modified_ns: i64::from_le_bytes(take(&mut body)?),
        };
        // They are looked up by halving.
        if stamps.last().is_some_and(|(before, _)| *before >= file) {
            return None;
        }
        stamps.push((file, stamp));
    }
    let mut words = Vec::with_capacity(body.len() / 8);
    while !body.is_empty() {
        words.push(u64::from_le_bytes(take(&mut body)?));
    }
    let good = Bits::of(words);
    let kept = LedgerEntry {
        info_hash,
        stamps,
        good,
    };
    Some((kept, HEAD_BYTES + length))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// What a torn or overwritten entry does not have but by one chance in 2^64. It is no defence
/// against who may write to the file: they might as well change the content.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 20] = Sha1::digest(body).into();
    *(digest.first_chunk()).expect("SHA-1 is longer")
}

#[cfg(test)]
pub(in crate::storage) mod samples {
    use super::*;

    /// The entry of a torrent with this name, of which the piece with this number is good.
    pub(in crate::storage) fn entry(name: u8, piece: u32) -> Vec<u8> {
        let mut record = Record::default();
        record.good.set(piece, piece + 1);
        let mut bytes = Vec::new();
        encode(&InfoHash([name; 20]), &record, &mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pieces: &[u32], files: u32) -> Record {
        let mut record = Record::default();
        for piece in pieces {
            record.good.set(*piece, 300);
        }
        let stamp = |file| Stamp {
            inode: 1000 + u64::from(file),
            modified_ns: -5,
        };
        record.stamps = (0..files).map(|file| (file * 2, stamp(file))).collect();
        record
    }

    const NAME: InfoHash = InfoHash([7; 20]);

    #[test]
    fn an_encoded_entry_decodes_to_the_same() {
        for record in [record(&[0, 64, 299], 3), record(&[5], 0)] {
            let mut bytes = b"before".to_vec();
            encode(&NAME, &record, &mut bytes);
            let (kept, length) = decode(&bytes[6..]).unwrap();
            assert_eq!((kept.info_hash, length), (NAME, bytes.len() - 6));
            assert_eq!((kept.stamps, kept.good), (record.stamps, record.good));
        }
    }

    #[test]
    fn bad_pieces_and_stamps_without_good_pieces_are_not_encoded() {
        let mut record = record(&[], 3);
        record.bad.set(5, 300);
        let mut bytes = Vec::new();
        encode(&NAME, &record, &mut bytes);
        assert_eq!(bytes.len(), HEAD_BYTES + BODY_BYTES_MIN);
        let (kept, _) = decode(&bytes).unwrap();
        assert_eq!((kept.stamps, kept.good), (Stamps::new(), Bits::default()));
    }

    #[test]
    fn an_entry_that_is_cut_or_changed_is_refused() {
        let mut bytes = Vec::new();
        encode(&NAME, &record(&[3], 2), &mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None);
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            assert_eq!(decode(&bytes), None, "{at}");
        }
    }

    #[test]
    fn an_entry_that_is_too_long_is_not_encoded() {
        let mut record = record(&[], 0);
        record.good = Bits::of(vec![1; ENTRY_BYTES_MAX / 8]);
        let mut bytes = Vec::new();
        encode(&NAME, &record, &mut bytes);
        assert!(bytes.is_empty());
    }
}
