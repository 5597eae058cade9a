//! Who waits for metadata, in a line for each disk, and how much of it is read at the same time.

use std::collections::{BTreeMap, VecDeque};

use crate::disks::Disk;
use crate::peer::key::PeerKey;
use crate::wire::extension::METADATA_PIECE_LENGTH;

/// Pieces of metadata that are being read from one disk, at most: 1 MiB of answers for the loop to hand on.
/// More would only wait in memory.
const READING_MAX: usize = 64;

/// A line for each disk that metadata is read from: one that hangs holds up no other.
#[derive(Default)]
pub(super) struct MetadataLines(BTreeMap<Disk, Line>);

#[derive(Default)]
struct Line {
    /// For whom a piece is being read, once for each piece.
    reading: Vec<PeerKey>,
    /// Who waits until a piece may be read, in the order of arrival.
    waiting: VecDeque<PeerKey>,
}

impl Line {
    /// Whether another piece may be read, with so many bytes left by the rate limit, which has not been
    /// charged yet for those that are being read. If several disks answer at once, the rest is a debt.
    fn has_budget(&self, available_bytes: u64) -> bool {
        let pieces = self.reading.len() + 1;
        pieces <= READING_MAX && available_bytes >= pieces as u64 * u64::from(METADATA_PIECE_LENGTH)
    }
}

impl MetadataLines {
    /// Begins to read a piece. False if the peer has to wait.
    pub(super) fn begin(&mut self, disk: &Disk, peer: PeerKey, available_bytes: u64) -> bool {
        let line = self.0.entry(disk.clone()).or_default();
        let has_budget = line.has_budget(available_bytes);
        if has_budget {
            line.reading.push(peer);
        }
        has_budget
    }

    /// A piece was read for this peer.
    pub(super) fn end(&mut self, peer: PeerKey) {
        let found = self.0.values_mut().find_map(|line| {
            let position = line.reading.iter().position(|reading| *reading == peer)?;
            Some(line.reading.swap_remove(position))
        });
        assert_eq!(found, Some(peer), "a piece that was read was begun");
        self.tidy();
    }

    /// A peer waits.
    pub(super) fn wait(&mut self, disk: &Disk, peer: PeerKey) {
        let line = self.0.entry(disk.clone()).or_default();
        line.waiting.push_back(peer);
    }

    /// A peer that waits has closed.
    pub(super) fn leave(&mut self, peer: PeerKey) {
        for line in self.0.values_mut() {
            line.waiting.retain(|waiting| *waiting != peer);
        }
        self.tidy();
    }

    /// Takes the next peer out of a line in which another piece may be read.
    pub(super) fn take_next(&mut self, available_bytes: u64) -> Option<PeerKey> {
        let mut lines = self.0.values_mut();
        lines.find_map(|line| match line.has_budget(available_bytes) {
            true => line.waiting.pop_front(),
            false => None,
        })
    }

    /// Whether anybody waits.
    pub(super) fn is_waited_for(&self) -> bool {
        self.0.values().any(|line| !line.waiting.is_empty())
    }

    /// Removes the lines of disks that nothing is read from, as disks come and go.
    fn tidy(&mut self) {
        self.0
            .retain(|_, line| !line.reading.is_empty() || !line.waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::Disks;
    use std::path::Path;

    const PLENTY: u64 = u64::MAX;

    fn key(index: usize) -> PeerKey {
        PeerKey {
            index: u32::try_from(index).unwrap(),
            generation: 0,
        }
    }

    fn disks() -> [Disk; 2] {
        let disks = Disks::read();
        ["/", "/proc"].map(|path| disks.of(Path::new(path)))
    }

    #[test]
    fn few_pieces_are_read_at_a_time_and_a_disk_that_hangs_holds_up_no_other() {
        let (mut lines, [hung, other]) = (MetadataLines::default(), disks());
        assert_eq!(READING_MAX, 64);
        assert!((0..READING_MAX).all(|peer| lines.begin(&hung, key(peer), PLENTY)));
        assert!(!lines.begin(&hung, key(100), PLENTY));
        lines.wait(&hung, key(100));
        assert_eq!(lines.take_next(PLENTY), None);
        for peer in 0..READING_MAX {
            assert!(lines.begin(&other, key(200 + peer), PLENTY));
        }
        assert!(!lines.begin(&other, key(300), PLENTY));
        lines.wait(&other, key(300));
        lines.end(key(200));
        assert_eq!(lines.take_next(PLENTY), Some(key(300)));
        assert!(lines.is_waited_for());
        // What has closed is not kept until the disk answers.
        lines.leave(key(100));
        assert!(!lines.is_waited_for());
        (0..READING_MAX).for_each(|peer| lines.end(key(peer)));
        (1..READING_MAX).for_each(|peer| lines.end(key(200 + peer)));
        assert!(lines.0.is_empty());
    }

    #[test]
    fn no_more_is_read_than_the_rate_limit_has_left() {
        let (mut lines, [disk, _]) = (MetadataLines::default(), disks());
        let piece = u64::from(METADATA_PIECE_LENGTH);
        assert!(!lines.begin(&disk, key(1), piece - 1));
        assert!(lines.begin(&disk, key(1), piece));
        assert!(!lines.begin(&disk, key(2), 2 * piece - 1));
        lines.wait(&disk, key(2));
        assert_eq!(lines.take_next(2 * piece - 1), None);
        assert_eq!(lines.take_next(2 * piece), Some(key(2)));
    }
}
