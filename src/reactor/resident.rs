//! Which ranges of files were lately resident, or read in, for one peer.

use std::ops::Range;

use crate::timers::Time;

/// How long an answer "this range is resident" is believed: pages that were just in memory, or were
/// just read in for this peer, are not evicted sooner unless memory is desperately short.
const BELIEVED_MS: u64 = 2_000;

/// Ranges kept: one for each file of a block that is sent from mappings.
const RANGES_MAX: usize = super::outbox::EXTENTS_PER_BLOCK;

/// The ranges, at most one for each file, the newest first. Peers that are not served have none, so
/// these are on the heap: a connection pays for one pointer.
#[derive(Default)]
pub(super) struct ResidentRanges(Option<Box<[Option<ResidentRange>; RANGES_MAX]>>);

/// A range of one file, in bytes, and when it was seen in memory.
struct ResidentRange {
    file: u32,
    range: Range<u64>,
    seen: Time,
}

impl ResidentRanges {
    /// Adds a range in place of the one of its file, or of the oldest.
    pub(super) fn insert(&mut self, file: u32, range: Range<u64>, seen: Time) {
        let ranges = self.0.get_or_insert_default();
        let is_replaced =
            |kept: &Option<ResidentRange>| kept.as_ref().is_none_or(|kept| kept.file == file);
        let replaced = ranges.iter().position(is_replaced);
        let newer = ranges.get_mut(..=replaced.unwrap_or(RANGES_MAX - 1));
        newer.expect("a position is inside").rotate_right(1);
        let [newest, ..] = &mut **ranges;
        *newest = Some(ResidentRange { file, range, seen });
    }

    fn iter(&self) -> impl Iterator<Item = &ResidentRange> {
        self.0.iter().flat_map(|ranges| ranges.iter().flatten())
    }

    /// Returns true if all of `wanted` may be believed to be in memory.
    pub(super) fn contain(&self, file: u32, wanted: &Range<u64>, now: Time) -> bool {
        self.iter().any(|resident| {
            resident.file == file
                && resident.range.start <= wanted.start
                && wanted.end <= resident.range.end
                && now.since(resident.seen) <= BELIEVED_MS
        })
    }

    /// Returns true if a range of this file ends at `offset`, however old it is: the peer reads on.
    pub(super) fn end_at(&self, file: u32, offset: u64) -> bool {
        self.iter()
            .any(|resident| resident.file == file && resident.range.end == offset)
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
        let contains = |ranges: &ResidentRanges, file| ranges.contain(file, &(10..100), Time(3000));
        assert!((1..=4).all(|file| contains(&ranges, file)));
        ranges.insert(2, 5..100, Time(1000));
        ranges.insert(5, 0..100, Time(1000));
        assert_eq!(ranges.iter().count(), 4);
        assert!(!contains(&ranges, 1) && (2..=5).all(|file| contains(&ranges, file)));
        assert!(
            !ranges.contain(2, &(4..100), Time(3000)),
            "begins before it"
        );
        assert!(!ranges.contain(2, &(5..101), Time(3000)), "ends behind it");
        assert!(ranges.contain(2, &(5..100), Time(3000)));
        assert!(!ranges.contain(2, &(5..100), Time(3001)), "too long ago");
        assert!(ranges.end_at(5, 100) && !ranges.end_at(4, 99));
    }
}
