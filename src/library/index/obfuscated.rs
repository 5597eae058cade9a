//! The obfuscated hashes of all torrents, in memory.
//!
//! A peer that encrypts its connection (MSE) names a torrent by a hash of its info-hash. Four bytes of it
//! for each torrent, behind a table of where those that begin alike start, tell whether it may be
//! in the index, without a read. With 20 million torrents one foreign hash in 14 million passes by chance,
//! which costs two reads.

use std::ops::Range;

use super::format::OBFUSCATED_BYTES;
use crate::wire::message::InfoHash;

/// The most bits of a hash that the table of starts replaces: 65,537 starts, in 256 KiB.
const START_BITS_MAX: u32 = 16;

/// Bits that are stored of a hash: those of the largest table of starts, and the 32 behind them.
pub(super) const STORED_BITS: u32 = START_BITS_MAX + u32::BITS;

/// How a peer that encrypts its connection names a torrent, see [`InfoHash::obfuscated`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObfuscatedHash(pub [u8; 20]);

impl ObfuscatedHash {
    /// That of a torrent.
    #[must_use]
    pub fn new(info_hash: &InfoHash) -> Self {
        ObfuscatedHash(info_hash.obfuscated())
    }

    /// The bits of it that an index stores, as a number that sorts like them.
    pub(super) fn stored(&self) -> u64 {
        let [a, b, c, d, e, f, ..] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

/// The entry of a hash in an index.
pub(super) fn encode(stored: u64) -> [u8; OBFUSCATED_BYTES] {
    let bytes = stored.to_le_bytes().first_chunk().copied();
    bytes.expect("a number has eight bytes")
}

fn decode(entry: [u8; OBFUSCATED_BYTES]) -> u64 {
    let [a, b, c, d, e, f] = entry;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The hashes of an index in ascending order: the first bits are told by where those that have them start,
/// the next 32 are kept, the rest is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Table {
    /// The number of the first bits.
    start_bits: u32,
    /// For each value of the first bits, the position of the first hash that has them or more; then
    /// the number of hashes.
    starts: Box<[u32]>,
    next_bits: Box<[u32]>,
}

impl Table {
    /// The positions of hashes that begin like this one. With few exceptions none or one.
    pub(super) fn find(&self, hash: &ObfuscatedHash) -> Range<usize> {
        let (first, next) = split(hash.stored(), self.start_bits);
        let start = |first: usize| self.starts.get(first).map_or(0, |start| *start as usize);
        let alike = start(first)..start(first + 1);
        let bits = self.next_bits.get(alike.clone()).unwrap_or_default();
        let before = bits.partition_point(|other| *other < next);
        let equal = bits.iter().skip(before).take_while(|other| **other == next);
        alike.start + before..alike.start + before + equal.count()
    }
}

/// The first bits of a hash, and the next 32.
#[expect(clippy::cast_possible_truncation, reason = "the bits are picked")]
fn split(stored: u64, start_bits: u32) -> (usize, u32) {
    let first = stored >> (STORED_BITS - start_bits);
    let next = stored >> (START_BITS_MAX - start_bits);
    (first as usize, next as u32)
}

/// Makes a [`Table`] of the entries of an index, one after the other.
pub(super) struct TableBuilder {
    start_bits: u32,
    starts: Vec<u32>,
    next_bits: Vec<u32>,
    last: u64,
}

impl TableBuilder {
    /// For this many hashes. A few get a small table of starts.
    pub(super) fn new(count: u32) -> Self {
        let start_bits = count.max(1).ilog2().min(START_BITS_MAX);
        TableBuilder {
            start_bits,
            starts: Vec::with_capacity((1 << start_bits) + 1),
            next_bits: Vec::with_capacity(count as usize),
            last: 0,
        }
    }

    /// Takes the next entry. Returns false if it does not follow the one before.
    pub(super) fn push(&mut self, entry: [u8; OBFUSCATED_BYTES]) -> bool {
        let stored = decode(entry);
        let is_next = stored >= self.last;
        self.last = stored;
        let (first, next) = split(stored, self.start_bits);
        self.start_up_to(first);
        self.next_bits.push(next);
        is_next
    }

    /// The table of all that was pushed.
    pub(super) fn finish(mut self) -> Table {
        self.start_up_to(1 << self.start_bits);
        Table {
            start_bits: self.start_bits,
            starts: self.starts.into(),
            next_bits: self.next_bits.into(),
        }
    }

    /// What follows starts with these bits.
    fn start_up_to(&mut self, first: usize) {
        let position = u32::try_from(self.next_bits.len()).expect("records have 32 bits");
        while self.starts.len() <= first {
            self.starts.push(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(random: &mut fastrand::Rng) -> ObfuscatedHash {
        ObfuscatedHash(std::array::from_fn(|_| random.u8(..)))
    }

    fn table(hashes: &[ObfuscatedHash]) -> Table {
        let mut made = TableBuilder::new(u32::try_from(hashes.len()).unwrap());
        for hash in hashes {
            assert!(made.push(encode(hash.stored())));
        }
        made.finish()
    }

    #[test]
    fn a_torrent_has_the_obfuscated_hash_of_the_protocol() {
        // echo -n req2aaaaaaaaaaaaaaaaaaaa | sha1sum
        let hash = ObfuscatedHash::new(&InfoHash([b'a'; 20]));
        let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4d44ff5dc5bdcca34e457bfe7f00b6246ae5bfe2");
    }

    #[test]
    fn every_hash_is_found_and_no_other_is() {
        let mut random = fastrand::Rng::with_seed(1);
        for count in [0, 1, 2, 3, 255, 256, 5_000, 200_000] {
            let mut hashes: Vec<_> = (0..count).map(|_| hash(&mut random)).collect();
            hashes.sort_unstable();
            let table = table(&hashes);
            assert_eq!(table.starts.len(), (1 << table.start_bits) + 1);
            for (position, hash) in hashes.iter().enumerate() {
                assert_eq!(table.find(hash), position..position + 1);
            }
            for _ in 0..1000 {
                assert!(table.find(&hash(&mut random)).is_empty());
            }
        }
    }

    #[test]
    fn all_hashes_that_begin_alike_are_found() {
        for (first, last) in [(0, 0), (7, 0), (0xff, 0xff)] {
            let alike = |last: u8| {
                let mut hash = [first; 20];
                hash[19] = last;
                ObfuscatedHash(hash)
            };
            let mut hashes = vec![ObfuscatedHash([0; 20]); 3];
            hashes.extend([alike(last), alike(last), ObfuscatedHash([0xff; 20])]);
            let table = table(&hashes);
            let found = table.find(&alike(1));
            let expected = |position: &usize| hashes[*position].stored() == alike(1).stored();
            assert!(found.eq((0..hashes.len()).filter(expected)), "{first}");
        }
    }

    #[test]
    fn hashes_that_do_not_ascend_are_noticed() {
        let mut made = TableBuilder::new(3);
        assert!([1, 3].into_iter().all(|stored| made.push(encode(stored))));
        assert!(!made.push(encode(2)));
    }

    #[test]
    fn a_torrent_takes_four_bytes_beside_the_starts() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut hashes: Vec<_> = (0..100_000).map(|_| hash(&mut random)).collect();
        hashes.sort_unstable();
        let table = table(&hashes);
        assert_eq!(size_of_val(&*table.next_bits), 4 * hashes.len());
        assert_eq!(table.starts.len(), 65_537);
    }
}
