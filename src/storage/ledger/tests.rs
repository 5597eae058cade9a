//! The ledger against real torrents, without their content.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::id::TorrentId;
use crate::torrent::metainfo::Metainfo;

/// Three files in pieces of 16 KiB: the first ends in piece 1, the second lies in it, the third
/// begins there and reaches to piece 200.
const LENGTHS: [u64; 3] = [20_000, 1000, 200 * 16_384];

pub(in crate::storage) fn torrent(name: &str) -> (Arc<Torrent>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let total: u64 = LENGTHS.iter().sum();
    let mut list = String::new();
    fs::create_dir(directory.path().join(name)).unwrap();
    for (number, length) in LENGTHS.iter().enumerate() {
        list += &format!("d6:lengthi{length}e4:pathl1:{number}ee");
        let path = directory.path().join(name).join(number.to_string());
        fs::File::create(path).unwrap().set_len(*length).unwrap();
    }
    let hashes = "x".repeat(usize::try_from(total.div_ceil(16_384) * 20).unwrap());
    let raw = format!(
        "d4:infod5:filesl{list}e4:name{}:{name}12:piece lengthi16384e6:pieces{}:{hashes}ee",
        name.len(),
        hashes.len()
    );
    let info_hash = Metainfo::parse(raw.as_bytes()).unwrap().info_hash;
    let path = directory.path().join("t.torrent");
    fs::write(&path, raw).unwrap();
    let torrent = Torrent::load(
        TorrentId(0),
        &path,
        &ContentDirectories::default(),
        info_hash,
    )
    .unwrap();
    (Arc::new(torrent.unwrap()), directory)
}

fn stamp(number: i64) -> Stamp {
    Stamp {
        inode: 7,
        modified_ns: number,
    }
}

pub(in crate::storage) fn hashed(is_good: bool, files: &[u32]) -> Hashed {
    Hashed {
        is_good,
        stamps: files.iter().map(|file| (*file, stamp(0))).collect(),
        hashes: HashesAt {
            offset: 99,
            stamp: stamp(1),
        },
    }
}

#[test]
fn what_was_hashed_is_known_and_nothing_else_is() {
    let (torrent, _directory) = torrent("t");
    let mut ledger = Ledger::new(1 << 20);
    assert_eq!(ledger.hashes_at(&torrent.info_hash), None);
    ledger.settle(&torrent, 0, &hashed(true, &[0]));
    ledger.settle(&torrent, 1, &hashed(false, &[0, 1, 2]));
    ledger.settle(&torrent, 200, &hashed(true, &[2]));
    let standing = |ledger: &mut Ledger, piece| ledger.status(&torrent.info_hash, piece);
    assert_eq!(standing(&mut ledger, 0), PieceStatus::Good);
    assert_eq!(standing(&mut ledger, 1), PieceStatus::Bad);
    assert_eq!(standing(&mut ledger, 2), PieceStatus::Unknown);
    assert_eq!(standing(&mut ledger, 200), PieceStatus::Good);
    assert_eq!(standing(&mut ledger, u32::MAX), PieceStatus::Unknown);
    assert_eq!(ledger.bad_pieces(), 1);
    assert_eq!(ledger.bad().collect::<Vec<_>>(), [(torrent.info_hash, 1)]);
    assert_eq!(ledger.hashes_at(&torrent.info_hash).unwrap().offset, 99);
    // It was mended.
    ledger.settle(&torrent, 1, &hashed(true, &[0, 1, 2]));
    assert_eq!(standing(&mut ledger, 1), PieceStatus::Good);
    assert_eq!((ledger.bad_pieces(), ledger.bad().count()), (0, 0));
}

#[test]
fn a_file_with_another_stamp_makes_its_own_pieces_unknown() {
    let (torrent, _directory) = torrent("t");
    // The pieces that each file has bytes of.
    for (file, its) in [(0, 0..=1), (1, 1..=1), (2, 1..=u32::MAX)] {
        let mut ledger = Ledger::new(1 << 20);
        for piece in 0..torrent.shape.pieces {
            let files: &[u32] = match piece {
                0 => &[0],
                1 => &[0, 1, 2],
                _ => &[2],
            };
            ledger.settle(&torrent, piece, &hashed(piece % 3 != 0, files));
        }
        assert!(!ledger.seen(&torrent, file, stamp(0)), "it is the same");
        let bad = ledger.bad_pieces();
        assert!(ledger.seen(&torrent, file, stamp(5)));
        assert!(!ledger.seen(&torrent, file, stamp(5)), "that is known now");
        for piece in 0..torrent.shape.pieces {
            let known = ledger.status(&torrent.info_hash, piece) != PieceStatus::Unknown;
            assert_eq!(known, !its.contains(&piece), "file {file}, piece {piece}");
        }
        let still_bad = ledger.bad().count() as u64;
        assert_eq!(ledger.bad_pieces(), still_bad);
        assert!(still_bad <= bad);
    }
}

#[test]
fn the_stamps_of_pieces_are_merged_in_the_order_of_files() {
    let (torrent, _directory) = torrent("t");
    for order in [[200, 1, 0], [0, 1, 200], [1, 200, 0]] {
        let mut ledger = Ledger::new(1 << 20);
        for piece in order {
            let files: &[u32] = match piece {
                0 => &[0],
                1 => &[0, 1, 2],
                _ => &[2],
            };
            ledger.settle(&torrent, piece, &hashed(true, files));
        }
        let record = ledger.records.peek(&torrent.info_hash).unwrap();
        let expected: Stamps = (0..3).map(|file| (file, stamp(0))).collect();
        assert_eq!(record.stamps, expected, "{order:?}");
    }
}

#[test]
fn a_file_that_was_never_hashed_changes_nothing() {
    let (torrent, _directory) = torrent("t");
    let mut ledger = Ledger::new(1 << 20);
    assert!(!ledger.seen(&torrent, 0, stamp(3)));
    ledger.settle(&torrent, 5, &hashed(true, &[2]));
    assert!(!ledger.seen(&torrent, 0, stamp(3)));
    assert_eq!(ledger.status(&torrent.info_hash, 5), PieceStatus::Good);
}

#[test]
fn memory_is_bounded_and_the_longest_unused_is_forgotten() {
    let torrents: Vec<_> = (0..10)
        .map(|number| torrent(&format!("t{number}")))
        .collect();
    let mut ledger = Ledger::new(5 * (RECORD_BYTES + 4 * 8 + 24));
    for (torrent, _) in &torrents {
        ledger.settle(torrent, 5, &hashed(false, &[2]));
        ledger.status(&torrents[0].0.info_hash, 5);
        assert!(ledger.bytes <= ledger.bytes_max);
    }
    let known: Vec<bool> = torrents
        .iter()
        .map(|(torrent, _)| ledger.status(&torrent.info_hash, 5) == PieceStatus::Bad)
        .collect();
    let kept = known.iter().filter(|known| **known).count() as u64;
    assert!(known[0] && known[9] && !known[1], "{known:?}");
    assert_eq!(ledger.bad_pieces(), kept);
    // One that is larger than the bound alone is kept all the same.
    let mut ledger = Ledger::new(1);
    ledger.settle(&torrents[0].0, 5, &hashed(true, &[2]));
    let standing = ledger.status(&torrents[0].0.info_hash, 5);
    assert_eq!(standing, PieceStatus::Good);
}

#[test]
fn ranges_of_bits_are_cleared_and_counted() {
    for (from, to) in [
        (0, 0),
        (0, 64),
        (3, 5),
        (60, 70),
        (64, 128),
        (1, 199),
        (0, 200),
    ] {
        let mut bits = Bits::default();
        for piece in 0..200 {
            bits.set(piece, 200);
            bits.set(piece, 200);
        }
        bits.clear(from..to);
        let left: Vec<u32> = (0..200)
            .filter(|piece| !(from..to).contains(piece))
            .collect();
        assert_eq!(bits.iter().collect::<Vec<_>>(), left);
        assert_eq!(bits.ones, left.len() as u64);
        assert_eq!(bits.words.is_empty(), left.is_empty());
    }
}

/// What was taken of a ledger, as another takes it up.
fn remembered(ledger: &mut Ledger, bytes_max: usize) -> (Ledger, usize) {
    let (mut bytes, mut other, mut entries) = (Vec::new(), Ledger::new(1 << 20), 0);
    ledger.take_changed(&mut bytes, bytes_max);
    let mut rest = bytes.as_slice();
    while let Some((kept, length)) = ledger_file::decode(rest) {
        other.restore(kept);
        rest = &rest[length..];
        entries += 1;
    }
    assert!(rest.is_empty());
    (other, entries)
}

#[test]
fn what_was_good_is_good_in_the_next_process_unless_its_file_has_changed() {
    let (torrent, _directory) = torrent("t");
    let mut ledger = Ledger::new(1 << 20);
    assert!(!ledger.has_changed());
    ledger.settle(&torrent, 0, &hashed(true, &[0]));
    ledger.settle(&torrent, 1, &hashed(false, &[0, 1, 2]));
    ledger.settle(&torrent, 200, &hashed(true, &[2]));
    assert!(ledger.has_changed());
    let (mut next, _) = remembered(&mut ledger, 1);
    assert!(!ledger.has_changed() && !next.has_changed());
    let standing = |ledger: &mut Ledger, piece| ledger.status(&torrent.info_hash, piece);
    assert_eq!(standing(&mut next, 0), PieceStatus::Good);
    assert_eq!(standing(&mut next, 1), PieceStatus::Unknown);
    assert_eq!(standing(&mut next, 200), PieceStatus::Good);
    // Pieces that are found good are remembered with those that were.
    next.settle(&torrent, 1, &hashed(true, &[0, 1, 2]));
    assert!(next.seen(&torrent, 2, stamp(3)));
    let (mut third, _) = remembered(&mut next, 1);
    assert_eq!(standing(&mut third, 0), PieceStatus::Good);
    assert_eq!(standing(&mut third, 1), PieceStatus::Unknown);
    assert_eq!(standing(&mut third, 200), PieceStatus::Unknown);
    assert!(third.seen(&torrent, 0, stamp(3)));
    assert_eq!(standing(&mut third, 0), PieceStatus::Unknown);
    // Nothing holds any more, which is remembered too.
    let (_, entries) = remembered(&mut third, 1);
    assert_eq!(entries, 1);
}

#[test]
fn only_what_changes_is_written_again_and_so_much_at_a_time() {
    let torrents: Vec<_> = (0..5)
        .map(|number| torrent(&format!("t{number}")))
        .collect();
    let mut ledger = Ledger::new(1 << 20);
    for (torrent, _) in &torrents {
        ledger.settle(torrent, 5, &hashed(true, &[2]));
    }
    assert_eq!(remembered(&mut ledger, 1).1, 1);
    assert_eq!(remembered(&mut ledger, usize::MAX).1, 4);
    ledger.settle(&torrents[0].0, 5, &hashed(true, &[2]));
    assert!(!ledger.has_changed());
    ledger.settle(&torrents[0].0, 6, &hashed(true, &[2]));
    assert_eq!(remembered(&mut ledger, usize::MAX).1, 1);
    // What is forgotten is nothing to remember.
    let mut ledger = Ledger::new(1);
    for (torrent, _) in &torrents {
        ledger.settle(torrent, 5, &hashed(true, &[2]));
    }
    assert_eq!(remembered(&mut ledger, usize::MAX).1, 1);
}
