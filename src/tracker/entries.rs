//! What is remembered for each torrent and tracker, in sixteen bytes, and the chains that hold it.
//!
//! Owns the memory: a table of entries, runs of it for the trackers of one torrent, and doubly
//! linked chains through it, so that an entry leaves its chain at once from any place. It must not
//! know what the chains mean.

use std::collections::BTreeMap;

/// No entry: the end of a chain.
const NONE: u32 = 0xffff_ffef;

/// From here on `prev` says that the entry is in no chain; the low bits are the families on which
/// an announce is under way.
const DETACHED: u32 = 0xffff_fff0;

/// Seconds since the start of the process: seventeen years.
const DUE_MASK: u32 = (1 << 29) - 1;

/// In `due`: the entry is in the first chain of its queue, not in that of its second.
const IN_FIRST: u32 = 1 << 29;

/// In `due`: the tracker was told `started`, by IPv4; the next bit is for IPv6.
const STARTED: u32 = 1 << 30;

/// In a pending time: it is only that of a failure, which any answer overrides.
const WEAK: u32 = 1 << 31;

/// Which addresses an announce comes from: a tracker knows a peer by each (BEP 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order of their numbers.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    fn bit(self) -> u32 {
        match self {
            Family::V4 => 1,
            Family::V6 => 2,
        }
    }
}

/// One torrent at one tracker.
#[derive(Clone, Copy, Debug)]
struct Entry {
    prev: u32,
    /// While the entry is in no chain: when the next announce is due, or 0 when no answer said.
    next: u32,
    torrent: u32,
    due: u32,
}

const _: () = assert!(size_of::<Entry>() == 16, "there may be tens of millions");

const VACANT: Entry = Entry {
    prev: DETACHED,
    next: 0,
    torrent: u32::MAX,
    due: 0,
};

/// A chain of entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    head: u32,
    tail: u32,
    length: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            length: 0,
        }
    }
}

impl Chain {
    /// How many entries it holds.
    pub(super) fn len(&self) -> u32 {
        self.length
    }

    /// The first of them.
    pub(super) fn head(&self) -> Option<u32> {
        (self.length > 0).then_some(self.head)
    }

    /// The last of them.
    pub(super) fn tail(&self) -> Option<u32> {
        (self.length > 0).then_some(self.tail)
    }
}

/// Every entry.
#[derive(Debug, Default)]
pub(super) struct Entries {
    all: Vec<Entry>,
    /// Runs that are free again, by their length.
    free: BTreeMap<u32, Vec<u32>>,
}

impl Entries {
    /// A run of entries for the trackers of a torrent, in no chain. `None` when four thousand
    /// million are not enough.
    pub(super) fn allocate(&mut self, torrent: u32, length: u32) -> Option<u32> {
        let reused = self.free.get_mut(&length).and_then(Vec::pop);
        let first = match reused {
            Some(first) => first,
            None => {
                let first = u32::try_from(self.all.len()).ok()?;
                let end = first.checked_add(length).filter(|end| *end <= NONE)?;
                self.all.resize(end as usize, VACANT);
                first
            }
        };
        let fresh = Entry { torrent, ..VACANT };
        for entry in first..first + length {
            self.change(entry, |at| *at = fresh);
        }
        Some(first)
    }

    /// Gives a run back. All of it is in no chain.
    pub(super) fn release(&mut self, first: u32, length: u32) {
        for entry in first..first + length {
            debug_assert!(!self.is_linked(entry));
            self.change(entry, |at| *at = VACANT);
        }
        if length > 0 {
            self.free.entry(length).or_default().push(first);
        }
    }

    fn at(&self, entry: u32) -> Entry {
        self.all.get(entry as usize).copied().unwrap_or(VACANT)
    }

    fn change(&mut self, entry: u32, change: impl FnOnce(&mut Entry)) {
        if let Some(at) = self.all.get_mut(entry as usize) {
            change(at);
        }
    }

    pub(super) fn torrent(&self, entry: u32) -> u32 {
        self.at(entry).torrent
    }

    /// When it is to be announced, in seconds. It must not be changed in a chain of its second.
    pub(super) fn due_s(&self, entry: u32) -> u32 {
        self.at(entry).due & DUE_MASK
    }

    pub(super) fn set_due_s(&mut self, entry: u32, due_s: u32) {
        self.change(entry, |at| {
            at.due = (at.due & !DUE_MASK) | due_s.min(DUE_MASK);
        });
    }

    pub(super) fn is_linked(&self, entry: u32) -> bool {
        self.at(entry).prev < DETACHED
    }

    pub(super) fn is_in_first(&self, entry: u32) -> bool {
        self.is_linked(entry) && self.at(entry).due & IN_FIRST != 0
    }

    pub(super) fn set_in_first(&mut self, entry: u32, first: bool) {
        let bit = if first { IN_FIRST } else { 0 };
        self.change(entry, |at| at.due = (at.due & !IN_FIRST) | bit);
    }

    /// Whether the tracker believes that we are there, by this family.
    pub(super) fn is_started(&self, entry: u32, family: Family) -> bool {
        self.at(entry).due & self.started_bit(family) != 0
    }

    pub(super) fn is_started_anywhere(&self, entry: u32) -> bool {
        Family::ALL
            .iter()
            .any(|family| self.is_started(entry, *family))
    }

    pub(super) fn set_started(&mut self, entry: u32, family: Family, started: bool) {
        let bit = self.started_bit(family);
        self.change(entry, |at| {
            at.due = if started { at.due | bit } else { at.due & !bit };
        });
    }

    fn started_bit(&self, family: Family) -> u32 {
        STARTED * family.bit()
    }

    /// Whether an announce is under way.
    pub(super) fn is_busy(&self, entry: u32) -> bool {
        !self.is_linked(entry) && self.at(entry).prev != DETACHED
    }

    /// An announce is under way, or no longer. The entry is in no chain.
    pub(super) fn set_busy(&mut self, entry: u32, family: Family, busy: bool) {
        debug_assert!(!self.is_linked(entry));
        self.change(entry, |at| {
            at.prev = if busy {
                at.prev | family.bit()
            } else {
                at.prev & !family.bit()
            };
        });
    }

    /// When answers asked for the next announce: the earliest of them, or of failures when there
    /// was no answer. The entry is in no chain.
    pub(super) fn pending_s(&self, entry: u32) -> Option<u32> {
        let next = self.at(entry).next;
        (!self.is_linked(entry) && next != 0).then_some(next & DUE_MASK)
    }

    /// An answer asked for an announce at that time; `weak` when only a failure did.
    pub(super) fn pend(&mut self, entry: u32, due_s: u32, weak: bool) {
        debug_assert!(!self.is_linked(entry));
        let due_s = due_s.clamp(1, DUE_MASK);
        self.change(entry, |at| {
            let empty = at.next == 0;
            let overridden = at.next & WEAK != 0 && !weak;
            if empty || overridden {
                at.next = if weak { due_s | WEAK } else { due_s };
            } else if !weak || at.next & WEAK != 0 {
                at.next = at.next.min(if weak { due_s | WEAK } else { due_s });
            }
        });
    }

    pub(super) fn push_back(&mut self, chain: &mut Chain, entry: u32) {
        let tail = chain.tail;
        debug_assert!(!self.is_linked(entry));
        self.change(entry, |at| (at.prev, at.next) = (tail, NONE));
        self.change(tail, |at| at.next = entry);
        chain.tail = entry;
        if chain.length == 0 {
            chain.head = entry;
        }
        chain.length += 1;
    }

    pub(super) fn push_front(&mut self, chain: &mut Chain, entry: u32) {
        let head = chain.head;
        debug_assert!(!self.is_linked(entry));
        self.change(entry, |at| (at.prev, at.next) = (NONE, head));
        self.change(head, |at| at.prev = entry);
        chain.head = entry;
        if chain.length == 0 {
            chain.tail = entry;
        }
        chain.length += 1;
    }

    /// Takes an entry out of the chain that it is in.
    pub(super) fn unlink(&mut self, chain: &mut Chain, entry: u32) {
        let Entry { prev, next, .. } = self.at(entry);
        debug_assert!(self.is_linked(entry));
        self.change(prev, |at| at.next = next);
        self.change(next, |at| at.prev = prev);
        if chain.head == entry {
            chain.head = next;
        }
        if chain.tail == entry {
            chain.tail = prev;
        }
        chain.length = chain.length.saturating_sub(1);
        self.change(entry, |at| (at.prev, at.next) = (DETACHED, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(entries: &Entries, chain: &Chain) -> Vec<u32> {
        let mut found = Vec::new();
        let mut next = chain.head().unwrap_or(NONE);
        while next != NONE {
            found.push(next);
            next = entries.at(next).next;
        }
        let mut backwards = Vec::new();
        let mut prev = chain.tail().unwrap_or(NONE);
        while prev != NONE {
            backwards.insert(0, prev);
            prev = entries.at(prev).prev;
        }
        assert_eq!(found, backwards);
        assert_eq!(found.len(), chain.len() as usize);
        found
    }

    #[test]
    fn a_chain_gives_up_any_of_its_entries() {
        let mut entries = Entries::default();
        let mut chain = Chain::default();
        assert_eq!(entries.allocate(1, 5), Some(0));
        for entry in [1, 2, 3] {
            entries.push_back(&mut chain, entry);
        }
        entries.push_front(&mut chain, 0);
        assert_eq!(content(&entries, &chain), [0, 1, 2, 3]);
        for (gone, left) in [(1, &[0, 2, 3][..]), (3, &[0, 2]), (0, &[2]), (2, &[])] {
            entries.unlink(&mut chain, gone);
            assert!(!entries.is_linked(gone));
            assert_eq!(content(&entries, &chain), left);
        }
        entries.push_front(&mut chain, 4);
        assert_eq!(content(&entries, &chain), [4]);
    }

    #[test]
    fn runs_are_used_again_by_torrents_with_as_many_trackers() {
        let mut entries = Entries::default();
        assert_eq!(entries.allocate(1, 2), Some(0));
        assert_eq!(entries.allocate(2, 3), Some(2));
        entries.set_started(1, Family::V6, true);
        entries.release(0, 2);
        assert_eq!(entries.allocate(3, 3), Some(5));
        assert_eq!(entries.allocate(4, 2), Some(0));
        assert_eq!(
            (entries.torrent(1), entries.is_started_anywhere(1)),
            (4, false)
        );
    }

    #[test]
    fn what_is_remembered_does_not_disturb_the_rest() {
        let mut entries = Entries::default();
        entries.allocate(9, 1);
        entries.set_started(0, Family::V6, true);
        entries.set_busy(0, Family::V4, true);
        entries.set_due_s(0, u32::MAX);
        assert_eq!(entries.due_s(0), DUE_MASK);
        assert!(entries.is_started(0, Family::V6) && !entries.is_started(0, Family::V4));
        assert!(entries.is_busy(0) && !entries.is_linked(0));
        entries.set_busy(0, Family::V4, false);
        entries.set_due_s(0, 5);
        entries.set_in_first(0, true);
        assert!(!entries.is_busy(0) && !entries.is_in_first(0));
        assert_eq!((entries.due_s(0), entries.torrent(0)), (5, 9));
    }

    #[test]
    fn an_answer_counts_more_than_a_failure_and_the_earlier_answer_counts() {
        let mut entries = Entries::default();
        entries.allocate(9, 1);
        assert_eq!(entries.pending_s(0), None);
        for (due_s, weak, expected) in [
            (300, true, 300),
            (200, true, 200),
            (1800, false, 1800),
            (100, true, 1800),
            (900, false, 900),
            (1000, false, 900),
        ] {
            entries.pend(0, due_s, weak);
            assert_eq!(entries.pending_s(0), Some(expected));
        }
        let mut chain = Chain::default();
        entries.push_back(&mut chain, 0);
        assert_eq!(entries.pending_s(0), None);
    }
}
