//! Which ranges of files were lately resident, or read in, for one peer, and how far it is worth reading on.

use std::ops::Range;

use crate::timers::Time;

/// How long an answer "this range is resident" is believed: pages that were just in memory, or were
/// just read in for this peer, are not evicted sooner unless memory is desperately short.
const BELIEVED_MS: u64 = 2_000;

/// Ranges kept: one for each file of a block that is sent from mappings.
const RANGES_MAX: usize = super::outbox::EXTENTS_PER_BLOCK;

/// The most bytes that may be read ahead. Unit: bytes.
const CREDIT_MAX: u64 = 1 << 20;

/// The ranges, at most one for each file, the newest first. Peers that are not served have none, so
/// these are on the heap: a connection pays for one pointer.
#[derive(Default)]
pub(super) struct ResidentRanges(Option<Box<Ranges>>);

#[derive(Default)]
struct Ranges {
    ranges: [Option<ResidentRange>; RANGES_MAX],
    /// How much may be read ahead for the peer: as much as it was sent, less what was read ahead so far. So at
    /// most twice as much is read as is sent, whatever it requests.
    credit_bytes: u64,
}

/// A range of one file, in bytes, and when it was seen in memory.
struct ResidentRange {
    file: u32,
    range: Range<u64>,
    seen: Time,
    /// All before this byte was sent, from the start of the range on.
    sent_up_to: u64,
}

impl ResidentRanges {
    /// Adds a range in place of the one of its file, or of the oldest.
    pub(super) fn insert(&mut self, file: u32, range: Range<u64>, seen: Time) {
        let Ranges { ranges, .. } = &mut **self.0.get_or_insert_default();
        let is_replaced =
            |kept: &Option<ResidentRange>| kept.as_ref().is_none_or(|kept| kept.file == file);
        let replaced = ranges.iter().position(is_replaced);
        let newer = ranges.get_mut(..=replaced.unwrap_or(RANGES_MAX - 1));
        newer.expect("a position is inside").rotate_right(1);
        let [newest, ..] = ranges;
        let sent_up_to = range.start;
        *newest = Some(ResidentRange {
            file,
            range,
            seen,
            sent_up_to,
        });
    }

    fn iter(&self) -> impl Iterator<Item = &ResidentRange> {
        self.0.iter().flat_map(|kept| kept.ranges.iter().flatten())
    }

    /// Returns true if all of `wanted`, which is sent next, may be believed to be in memory.
    pub(super) fn contain(&mut self, file: u32, wanted: &Range<u64>, now: Time) -> bool {
        let Some(Ranges {
            ranges,
            credit_bytes,
        }) = self.0.as_deref_mut()
        else {
            return false;
        };
        let found = ranges.iter_mut().flatten().find(|resident| {
            resident.file == file
                && resident.range.start <= wanted.start
                && wanted.end <= resident.range.end
                && now.since(resident.seen) <= BELIEVED_MS
        });
        let Some(resident) = found else { return false };
        // A batch may be staged more than once: only what is new counts.
        if wanted.start <= resident.sent_up_to && resident.sent_up_to < wanted.end {
            let earned_bytes = wanted.end - resident.sent_up_to;
            resident.sent_up_to = wanted.end;
            *credit_bytes = (*credit_bytes + earned_bytes).min(CREDIT_MAX);
        }
        true
    }

    /// How many bytes may be read ahead from `offset` of a file on: none, unless that is where a piece
    /// begins or a range ends, however old it is, so that the peer may be expected to read on.
    pub(super) fn ahead_bytes(&self, file: u32, offset: u64, begins_piece: bool) -> u64 {
        let reads_on =
            |resident: &ResidentRange| resident.file == file && resident.range.end == offset;
        match begins_piece || self.iter().any(reads_on) {
            true => self.0.as_ref().map_or(0, |kept| kept.credit_bytes),
            false => 0,
        }
    }

    /// So many bytes are read ahead.
    pub(super) fn read_ahead(&mut self, bytes: u64) {
        if let Some(kept) = &mut self.0 {
            kept.credit_bytes = kept.credit_bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_kept_for_each_of_four_files_for_two_seconds() {
        // Else, where the kernel cannot be asked, reading one file would make us forget another.
        let mut ranges = ResidentRanges::default();
        for file in 1..=4 {
            ranges.insert(file, 0..100, Time(1000));
        }
        let contains =
            |ranges: &mut ResidentRanges, file| ranges.contain(file, &(10..100), Time(3000));
        assert!((1..=4).all(|file| contains(&mut ranges, file)));
        ranges.insert(2, 5..100, Time(1000));
        ranges.insert(5, 0..100, Time(1000));
        assert_eq!(ranges.iter().count(), 4);
        assert!(!contains(&mut ranges, 1));
        assert!((2..=5).all(|file| contains(&mut ranges, file)));
        assert!(
            !ranges.contain(2, &(4..100), Time(3000)),
            "begins before it"
        );
        assert!(!ranges.contain(2, &(5..101), Time(3000)), "ends behind it");
        assert!(ranges.contain(2, &(5..100), Time(3000)));
        assert!(!ranges.contain(2, &(5..100), Time(3001)), "too long ago");
    }

    /// Blocks of a file that are in memory.
    struct Memory {
        blocks: Vec<bool>,
        read: usize,
    }

    const BLOCK: u64 = 16 * 1024;

    /// Has these blocks sent one by one to one peer, of which none is in memory at first, with pieces and
    /// reads of at most 64 blocks. Returns how many are read.
    fn read_for(wanted: impl IntoIterator<Item = u64>) -> usize {
        let mut memory = Memory {
            blocks: vec![false; 4096],
            read: 0,
        };
        let mut ranges = ResidentRanges::default();
        for block in wanted {
            let wanted = block * BLOCK..(block + 1) * BLOCK;
            if !ranges.contain(1, &wanted, Time(0)) {
                let left = (64 - block % 64) * BLOCK;
                let ahead = ranges.ahead_bytes(1, wanted.start, block % 64 == 0);
                let range = wanted.start..(wanted.end + ahead).min(wanted.start + left);
                ranges.read_ahead(range.end - wanted.end);
                for block in range.start / BLOCK..range.end / BLOCK {
                    let block = usize::try_from(block).unwrap();
                    memory.read += usize::from(!memory.blocks[block]);
                    memory.blocks[block] = true;
                }
                ranges.insert(1, range, Time(0));
                assert!(ranges.contain(1, &wanted, Time(0)));
            }
        }
        memory.read
    }

    #[test]
    fn as_much_is_read_ahead_as_was_sent() {
        assert_eq!(read_for([0]), 1);
        assert_eq!(read_for([0, 1]), 3);
        assert_eq!(read_for([0, 1, 2]), 3);
        assert_eq!(read_for([0, 1, 2, 3]), 6);
        // It does not go on where a range ends, nor where a piece begins.
        assert_eq!(read_for([1, 5, 9, 7]), 4);
        // Whole pieces earn the next one, even for its first block.
        assert_eq!(read_for(0..64), 64);
        assert_eq!(read_for((0..64).chain([640])), 64 + 12);
        assert_eq!(read_for((0..2048).chain([2048])), 2048 + 64);
        assert_eq!(read_for(0..4096), 4096);
    }

    #[test]
    fn no_pattern_makes_more_than_twice_as_much_be_read() {
        assert_eq!(read_for((0..64).map(|piece| piece * 64)), 2 * 64 - 1);
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut at = 0;
            let blocks = (0..400).map(|_| {
                at = match random.u32(..10) {
                    0 => random.u64(..4096),
                    1 => random.u64(..64) * 64,
                    2 => (at + 1 + random.u64(..8)) % 4096,
                    _ => (at + 1) % 4096,
                };
                at
            });
            let read = read_for(blocks);
            assert!(read <= 2 * 400, "seed {seed}: {read}");
        }
    }
}
