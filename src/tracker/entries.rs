//! The state of one torrent at one tracker, in twelve bytes, and the chains of entries.
//!
//! Owns the memory: pages of entries, runs of it for the trackers of one torrent or of a block of
//! torrents, whose each run is, and doubly linked chains through it, so that an entry leaves its
//! chain at once from any place. It must not know what the chains mean.

use super::family::Family;
use crate::torrent::id::TorrentId;
use std::collections::BTreeMap;

/// Entries in one page: a table of tens of millions grows without being copied, and by so little at
/// once that nobody waits for it.
const PAGE: u32 = 4096;

/// The run of a block starts at a multiple of this and fills it up, so that one owner is noted for
/// so many entries: a quarter of a byte for each.
const GRANULE: u32 = 16;

/// No entry: the end of a chain.
const NONE: u32 = 0xffff_ffef;

/// From here on `prev` says that the entry is in no chain; the low bits are the families on which
/// an announce is under way, and [`PREFETCHED`].
const DETACHED: u32 = 0xffff_fff0;

/// In `prev` of an entry in no chain: it is about to be announced.
const PREFETCHED: u32 = 4;

/// Seconds since the start of the process: seventeen years.
const DUE_MASK: u32 = (1 << 29) - 1;

/// In `due`: the entry is in the first chain of its queue, not in that of its second.
const IN_FIRST: u32 = 1 << 29;

/// In `due`: the tracker was told `started`, by IPv4; the next bit is for IPv6.
const STARTED: u32 = 1 << 30;

/// In a pending time: it is only that of a failure, which any answer overrides.
const WEAK: u32 = 1 << 31;

fn bit(family: Family) -> u32 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

/// Whose entries these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// One torrent.
    Torrent(TorrentId),
    /// A run of torrents, by its number.
    Run(u32),
}

impl Owner {
    /// Entries for which one owner is noted.
    fn granule(self) -> u32 {
        match self {
            Owner::Torrent(_) => 1,
            Owner::Run(_) => GRANULE,
        }
    }

    fn number(self) -> u32 {
        match self {
            Owner::Torrent(TorrentId(number)) | Owner::Run(number) => number,
        }
    }
}

/// One torrent at one tracker.
#[derive(Clone, Copy, Debug)]
struct Entry {
    prev: u32,
    /// While the entry is in no chain: when the next announce is due, or 0 when no answer said.
    next: u32,
    due: u32,
}

const _: () = assert!(size_of::<Entry>() == 12, "there may be tens of millions");

const VACANT: Entry = Entry {
    prev: DETACHED,
    next: 0,
    due: 0,
};

/// Entries whose owners are of one kind.
#[derive(Debug)]
struct Page {
    entries: Box<[Entry]>,
    owners: Box<[u32]>,
}

impl Page {
    fn new(granule: u32) -> Self {
        Self {
            entries: vec![VACANT; PAGE as usize].into(),
            owners: vec![u32::MAX; (PAGE / granule) as usize].into(),
        }
    }

    fn granule(&self) -> u32 {
        let is_of_torrents = self.owners.len() == self.entries.len();
        if is_of_torrents { 1 } else { GRANULE }
    }
}

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
    pages: Vec<Page>,
    /// Where the next run of torrents and the next of blocks may start.
    ends: [u32; 2],
    /// Runs that are free again, by granule and length.
    free: BTreeMap<(u32, u32), Vec<u32>>,
}

impl Entries {
    /// A run of entries, in no chain. `None` when four thousand million are not enough.
    pub(super) fn allocate(&mut self, owner: Owner, length: u32) -> Option<u32> {
        let granule = owner.granule();
        let length = length.checked_next_multiple_of(granule)?;
        let reused = self.free.get_mut(&(granule, length)).and_then(Vec::pop);
        let first = match reused {
            Some(first) => first,
            None => self.extend(granule, length)?,
        };
        for entry in first..first + length {
            self.change(entry, |at| *at = VACANT);
            let page = self.pages.get_mut((entry / PAGE) as usize);
            let place =
                page.and_then(|page| page.owners.get_mut((entry % PAGE / granule) as usize));
            if let Some(place) = place {
                *place = owner.number();
            }
        }
        Some(first)
    }

    /// Makes room behind what there is, in pages of one kind.
    fn extend(&mut self, granule: u32, length: u32) -> Option<u32> {
        let end = self.ends.get_mut(usize::from(granule > 1))?;
        let all = u32::try_from(self.pages.len()).ok()?.checked_mul(PAGE)?;
        let page_end = end.checked_next_multiple_of(PAGE)?;
        let fits = end.checked_add(length)? <= page_end || page_end == all;
        let first = if fits { *end } else { all };
        *end = first.checked_add(length).filter(|end| *end < NONE - PAGE)?;
        while self.pages.len() < end.div_ceil(PAGE) as usize {
            self.pages.push(Page::new(granule));
        }
        Some(first)
    }

    /// Gives a run back. All of it is in no chain.
    pub(super) fn release(&mut self, first: u32, length: u32) {
        let page = self.pages.get((first / PAGE) as usize);
        let granule = page.map_or(1, Page::granule);
        let length = length.next_multiple_of(granule);
        for entry in first..first + length {
            debug_assert!(!self.is_linked(entry));
            self.change(entry, |at| *at = VACANT);
        }
        if length > 0 {
            self.free.entry((granule, length)).or_default().push(first);
        }
    }

    fn at(&self, entry: u32) -> Entry {
        let page = self.pages.get((entry / PAGE) as usize);
        let found = page.and_then(|page| page.entries.get((entry % PAGE) as usize));
        found.copied().unwrap_or(VACANT)
    }

    fn change(&mut self, entry: u32, change: impl FnOnce(&mut Entry)) {
        let page = self.pages.get_mut((entry / PAGE) as usize);
        if let Some(at) = page.and_then(|page| page.entries.get_mut((entry % PAGE) as usize)) {
            change(at);
        }
    }

    /// Whose an entry is.
    pub(super) fn owner(&self, entry: u32) -> Option<Owner> {
        let page = self.pages.get((entry / PAGE) as usize)?;
        let granule = page.granule();
        let number = *page.owners.get((entry % PAGE / granule) as usize)?;
        Some(if granule == 1 {
            Owner::Torrent(TorrentId(number))
        } else {
            Owner::Run(number)
        })
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
        STARTED * bit(family)
    }

    /// Whether it is about to be announced.
    pub(super) fn is_prefetched(&self, entry: u32) -> bool {
        !self.is_linked(entry) && self.at(entry).prev & PREFETCHED != 0
    }

    /// It is about to be announced, or no longer. The entry is in no chain.
    pub(super) fn set_prefetched(&mut self, entry: u32, prefetched: bool) {
        debug_assert!(!self.is_linked(entry));
        self.change(entry, |at| {
            at.prev = if prefetched {
                at.prev | PREFETCHED
            } else {
                at.prev & !PREFETCHED
            };
        });
    }

    /// Whether an announce is under way, or about to be.
    pub(super) fn is_busy(&self, entry: u32) -> bool {
        !self.is_linked(entry) && self.at(entry).prev != DETACHED
    }

    /// An announce is under way, or no longer. The entry is in no chain.
    pub(super) fn set_busy(&mut self, entry: u32, family: Family, busy: bool) {
        debug_assert!(!self.is_linked(entry));
        self.change(entry, |at| {
            at.prev = if busy {
                at.prev | bit(family)
            } else {
                at.prev & !bit(family)
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
        assert_eq!(entries.allocate(Owner::Torrent(TorrentId(1)), 5), Some(0));
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
        let allocate = |entries: &mut Entries, torrent, length| {
            entries.allocate(Owner::Torrent(torrent), length)
        };
        assert_eq!(allocate(&mut entries, TorrentId(1), 2), Some(0));
        assert_eq!(allocate(&mut entries, TorrentId(2), 3), Some(2));
        entries.set_started(1, Family::V6, true);
        entries.release(0, 2);
        assert_eq!(allocate(&mut entries, TorrentId(3), 3), Some(5));
        assert_eq!(allocate(&mut entries, TorrentId(4), 2), Some(0));
        assert_eq!(entries.owner(1), Some(Owner::Torrent(TorrentId(4))));
        assert!(!entries.is_started_anywhere(1));
    }

    #[test]
    fn every_entry_knows_its_owner_and_belongs_to_one() {
        let mut entries = Entries::default();
        let mut random = fastrand::Rng::with_seed(4);
        let mut all = std::collections::HashMap::new();
        let mut runs = Vec::new();
        for number in 0..3000 {
            let owner = match random.bool() {
                true => Owner::Torrent(TorrentId(number)),
                false => Owner::Run(number),
            };
            // Some are longer than a page.
            let length = match random.u8(..50) {
                0 => random.u32(4000..9000),
                _ => random.u32(0..70),
            };
            let first = entries.allocate(owner, length).unwrap();
            let length = length.next_multiple_of(owner.granule());
            for entry in first..first + length {
                assert_eq!(all.insert(entry, owner), None);
            }
            runs.push((first, length));
            if random.bool() {
                let (first, length) = runs.swap_remove(random.usize(..runs.len()));
                entries.release(first, length);
                all.retain(|entry, _| !(first..first + length).contains(entry));
            }
        }
        for (entry, owner) in all {
            assert_eq!(entries.owner(entry), Some(owner), "{entry}");
        }
    }

    #[test]
    fn what_is_remembered_does_not_disturb_the_rest() {
        let mut entries = Entries::default();
        entries.allocate(Owner::Torrent(TorrentId(9)), 1);
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
        assert_eq!(entries.due_s(0), 5);
        entries.set_prefetched(0, true);
        assert!(entries.is_prefetched(0) && entries.is_busy(0));
        entries.set_prefetched(0, false);
        assert!(!entries.is_prefetched(0) && !entries.is_busy(0));
    }

    #[test]
    fn an_answer_counts_more_than_a_failure_and_the_earlier_answer_counts() {
        let mut entries = Entries::default();
        entries.allocate(Owner::Torrent(TorrentId(9)), 1);
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
