//! The state of one torrent at one tracker, in twelve bytes, and the chains of entries.
//!
//! Entries stand in pages. The trackers of one torrent, or of a run of torrents, have neighbouring
//! entries, and an owner is stored for them. Chains are doubly linked, so that an entry leaves its
//! chain at once.

use std::collections::BTreeMap;

use super::family::Family;
use crate::torrent::id::TorrentId;

/// Entries in one page: a table of tens of millions grows without being copied, and by so little at
/// once that nobody waits for it.
const PAGE: u32 = 4096;

/// The entries of a run of torrents start at a multiple of this and fill it up, so that one owner is
/// stored for all of them: a quarter of a byte for each.
const GRANULE: u32 = 16;

/// One torrent at one tracker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryId(pub(super) u32);

impl EntryId {
    /// This entry and those behind it.
    pub(super) fn following(self) -> impl Iterator<Item = EntryId> {
        (self.0..).map(EntryId)
    }
}

/// No entry: the end of a chain.
const NONE: EntryId = EntryId(0xffff_ffef);

/// From here on `prev` says that the entry is in no chain; the low bits are the families by which an
/// announce is under way, and [`PREFETCHED`].
const DETACHED: EntryId = EntryId(0xffff_fff0);

/// In `prev` of an entry in no chain: it is about to be announced.
const PREFETCHED: u32 = 4;

/// Seconds since the start of the process: eight years.
const DUE_MASK: u32 = (1 << 28) - 1;

/// In `due`: the last answer of the tracker counted a complete peer beside us.
const HAS_OTHER_SEED: u32 = 1 << 28;

/// In `due`: the entry is in the first chain of its queue, not in that of its second.
const IN_FIRST: u32 = 1 << 29;

/// In `due`: the tracker has accepted `started` by IPv4; the next bit is for IPv6.
const STARTED: u32 = 1 << 30;
const STARTED_ANYWHERE: u32 = STARTED * 3;

/// In a pending time: it follows a failure, and any answer overrides it.
const WEAK: u32 = 1 << 31;

fn bit(family: Family) -> u32 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

/// What an entry belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// One torrent.
    Torrent(TorrentId),
    /// A run of torrents, by its number.
    Run(u32),
}

impl Owner {
    /// Entries for which one owner is stored.
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

/// Where an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryState {
    /// In the first chain of its queue.
    First,
    /// In the chain of its second.
    Later,
    /// In no chain: it is about to be announced.
    Prefetched,
    /// In no chain: announces by some families are under way.
    UnderWay,
    /// In no chain, on its way to one.
    Detached,
}

/// One torrent at one tracker.
#[derive(Clone, Copy, Debug)]
struct Entry {
    prev: EntryId,
    /// While the entry is in no chain, the second of the next announce, or 0 if no answer said.
    next: EntryId,
    due: u32,
}

const _: () = assert!(size_of::<Entry>() == 12, "there may be tens of millions");

const VACANT: Entry = Entry {
    prev: DETACHED,
    next: EntryId(0),
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
    head: EntryId,
    tail: EntryId,
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
    pub(super) fn head(&self) -> Option<EntryId> {
        (self.length > 0).then_some(self.head)
    }

    /// The last of them.
    pub(super) fn tail(&self) -> Option<EntryId> {
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
    free: BTreeMap<(u32, u32), Vec<EntryId>>,
}

impl Entries {
    /// Neighbouring entries, in no chain. `None` if four thousand million are not enough.
    pub(super) fn allocate(&mut self, owner: Owner, length: u32) -> Option<EntryId> {
        let granule = owner.granule();
        let length = length.checked_next_multiple_of(granule)?;
        let reused = self.free.get_mut(&(granule, length)).and_then(Vec::pop);
        let first = match reused {
            Some(first) => first,
            None => self.extend(granule, length)?,
        };
        for entry in first.following().take(length as usize) {
            *self.entry_mut(entry) = VACANT;
            let owners = &mut self.page_mut(entry).owners;
            let stored = owners.get_mut((entry.0 % PAGE / granule) as usize);
            *stored.expect("a page has an owner for each granule") = owner.number();
        }
        Some(first)
    }

    /// Makes room behind all entries, in pages of one kind.
    fn extend(&mut self, granule: u32, length: u32) -> Option<EntryId> {
        let [singles, runs] = &mut self.ends;
        let end = if granule > 1 { runs } else { singles };
        let all = u32::try_from(self.pages.len()).ok()?.checked_mul(PAGE)?;
        let page_end = end.checked_next_multiple_of(PAGE)?;
        let fits = end.checked_add(length)? <= page_end || page_end == all;
        let first = if fits { *end } else { all };
        *end = first
            .checked_add(length)
            .filter(|end| *end < NONE.0 - PAGE)?;
        while self.pages.len() < end.div_ceil(PAGE) as usize {
            self.pages.push(Page::new(granule));
        }
        Some(EntryId(first))
    }

    /// Frees neighbouring entries that were allocated together. All are in no chain.
    pub(super) fn release(&mut self, first: EntryId, length: u32) {
        if length == 0 {
            return;
        }
        let granule = self.page(first).granule();
        let length = length.next_multiple_of(granule);
        for entry in first.following().take(length as usize) {
            assert!(!self.is_linked(entry), "it is in a chain");
            *self.entry_mut(entry) = VACANT;
        }
        self.free.entry((granule, length)).or_default().push(first);
    }

    fn page(&self, entry: EntryId) -> &Page {
        let page = self.pages.get((entry.0 / PAGE) as usize);
        page.expect("an entry was allocated")
    }

    fn page_mut(&mut self, entry: EntryId) -> &mut Page {
        let page = self.pages.get_mut((entry.0 / PAGE) as usize);
        page.expect("an entry was allocated")
    }

    fn entry(&self, entry: EntryId) -> Entry {
        let found = self.page(entry).entries.get((entry.0 % PAGE) as usize);
        *found.expect("a page is full of entries")
    }

    fn entry_mut(&mut self, entry: EntryId) -> &mut Entry {
        let entries = &mut self.page_mut(entry).entries;
        let found = entries.get_mut((entry.0 % PAGE) as usize);
        found.expect("a page is full of entries")
    }

    /// What an entry belongs to.
    pub(super) fn owner(&self, entry: EntryId) -> Owner {
        let page = self.page(entry);
        let granule = page.granule();
        let number = page.owners.get((entry.0 % PAGE / granule) as usize);
        let number = *number.expect("a page has an owner for each granule");
        if granule == 1 {
            Owner::Torrent(TorrentId(number))
        } else {
            Owner::Run(number)
        }
    }

    /// The second in which it is to be announced. It must not be changed in the chain of that second.
    pub(super) fn due_s(&self, entry: EntryId) -> u32 {
        self.entry(entry).due & DUE_MASK
    }

    pub(super) fn set_due_s(&mut self, entry: EntryId, due_s: u32) {
        let due = &mut self.entry_mut(entry).due;
        *due = (*due & !DUE_MASK) | due_s.min(DUE_MASK);
    }

    /// Where it is.
    pub(super) fn state(&self, entry: EntryId) -> EntryState {
        let Entry { prev, due, .. } = self.entry(entry);
        match prev.0.checked_sub(DETACHED.0) {
            None if due & IN_FIRST != 0 => EntryState::First,
            None => EntryState::Later,
            Some(0) => EntryState::Detached,
            Some(PREFETCHED) => EntryState::Prefetched,
            Some(_) => EntryState::UnderWay,
        }
    }

    /// Returns true if it is in a chain.
    pub(super) fn is_linked(&self, entry: EntryId) -> bool {
        matches!(self.state(entry), EntryState::First | EntryState::Later)
    }

    pub(super) fn set_in_first(&mut self, entry: EntryId, first: bool) {
        let bit = if first { IN_FIRST } else { 0 };
        let due = &mut self.entry_mut(entry).due;
        *due = (*due & !IN_FIRST) | bit;
    }

    /// Returns true if the tracker has accepted `started` by this family, and no `stopped` since.
    pub(super) fn is_started(&self, entry: EntryId, family: Family) -> bool {
        self.entry(entry).due & (STARTED * bit(family)) != 0
    }

    pub(super) fn is_started_anywhere(&self, entry: EntryId) -> bool {
        self.entry(entry).due & STARTED_ANYWHERE != 0
    }

    /// The tracker no longer knows it.
    pub(super) fn forget_started(&mut self, entry: EntryId) {
        self.entry_mut(entry).due &= !STARTED_ANYWHERE;
    }

    pub(super) fn set_started(&mut self, entry: EntryId, family: Family, started: bool) {
        set_bits(
            &mut self.entry_mut(entry).due,
            STARTED * bit(family),
            started,
        );
    }

    /// The families by which the tracker may count us: those by which it has accepted `started`, or an
    /// announce is under way. The entry is in no chain.
    pub(super) fn families(&self, entry: EntryId) -> u32 {
        let Entry { prev, due, .. } = self.entry(entry);
        let under_way = prev.0.saturating_sub(DETACHED.0) & 3;
        (under_way | ((due & STARTED_ANYWHERE) / STARTED)).count_ones()
    }

    /// Returns true if the last answer of the tracker counted a complete peer beside us.
    pub(super) fn has_other_seed(&self, entry: EntryId) -> bool {
        self.entry(entry).due & HAS_OTHER_SEED != 0
    }

    pub(super) fn set_has_other_seed(&mut self, entry: EntryId, has: bool) {
        set_bits(&mut self.entry_mut(entry).due, HAS_OTHER_SEED, has);
    }

    /// It is about to be announced, or no longer. The entry is in no chain.
    pub(super) fn set_prefetched(&mut self, entry: EntryId, prefetched: bool) {
        self.set_detached(entry, PREFETCHED, prefetched);
    }

    /// Returns true if an announce is under way, or about to be.
    pub(super) fn is_busy(&self, entry: EntryId) -> bool {
        matches!(
            self.state(entry),
            EntryState::Prefetched | EntryState::UnderWay
        )
    }

    /// An announce is under way, or no longer. The entry is in no chain.
    pub(super) fn set_busy(&mut self, entry: EntryId, family: Family, busy: bool) {
        self.set_detached(entry, bit(family), busy);
    }

    fn set_detached(&mut self, entry: EntryId, bits: u32, on: bool) {
        assert!(!self.is_linked(entry), "it is in a chain");
        set_bits(&mut self.entry_mut(entry).prev.0, bits, on);
    }

    /// The second of the next announce: the earliest that an answer asked for, or the earliest after a
    /// failure if there was no answer.
    pub(super) fn pending_s(&self, entry: EntryId) -> Option<u32> {
        let EntryId(pending) = self.entry(entry).next;
        (!self.is_linked(entry) && pending != 0).then_some(pending & DUE_MASK)
    }

    /// An answer asked for an announce in that second, or only a failure did (`weak`). The entry is in
    /// no chain.
    pub(super) fn pend(&mut self, entry: EntryId, due_s: u32, weak: bool) {
        assert!(!self.is_linked(entry), "it is in a chain");
        let due_s = due_s.clamp(1, DUE_MASK) | if weak { WEAK } else { 0 };
        let EntryId(pending) = &mut self.entry_mut(entry).next;
        let is_weak = *pending & WEAK != 0;
        if *pending == 0 || (is_weak && !weak) {
            *pending = due_s;
        } else if is_weak == weak {
            *pending = due_s.min(*pending);
        }
    }

    /// Puts an entry, which is in no chain, at the end of a chain.
    pub(super) fn push_back(&mut self, chain: &mut Chain, entry: EntryId) {
        self.link(entry, chain.tail, NONE);
        match chain.tail() {
            Some(tail) => self.entry_mut(tail).next = entry,
            None => chain.head = entry,
        }
        chain.tail = entry;
        chain.length += 1;
    }

    /// Puts an entry, which is in no chain, before all others of a chain.
    pub(super) fn push_front(&mut self, chain: &mut Chain, entry: EntryId) {
        self.link(entry, NONE, chain.head);
        match chain.head() {
            Some(head) => self.entry_mut(head).prev = entry,
            None => chain.tail = entry,
        }
        chain.head = entry;
        chain.length += 1;
    }

    fn link(&mut self, entry: EntryId, prev: EntryId, next: EntryId) {
        assert!(!self.is_linked(entry), "it is in a chain");
        let found = self.entry_mut(entry);
        (found.prev, found.next) = (prev, next);
    }

    /// Takes an entry out of the chain that it is in.
    pub(super) fn unlink(&mut self, chain: &mut Chain, entry: EntryId) {
        assert!(self.is_linked(entry), "it is in no chain");
        let Entry { prev, next, .. } = self.entry(entry);
        if prev == NONE {
            chain.head = next;
        } else {
            self.entry_mut(prev).next = next;
        }
        if next == NONE {
            chain.tail = prev;
        } else {
            self.entry_mut(next).prev = prev;
        }
        chain.length -= 1;
        let found = self.entry_mut(entry);
        (found.prev, found.next) = (DETACHED, EntryId(0));
    }
}

fn set_bits(value: &mut u32, bits: u32, on: bool) {
    *value = if on { *value | bits } else { *value & !bits };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(entries: &Entries, chain: &Chain) -> Vec<u32> {
        let mut found = Vec::new();
        let mut next = chain.head().unwrap_or(NONE);
        while next != NONE {
            found.push(next.0);
            next = entries.entry(next).next;
        }
        let mut backwards = Vec::new();
        let mut prev = chain.tail().unwrap_or(NONE);
        while prev != NONE {
            backwards.insert(0, prev.0);
            prev = entries.entry(prev).prev;
        }
        assert_eq!(found, backwards);
        assert_eq!(found.len(), chain.len() as usize);
        found
    }

    #[test]
    fn a_chain_gives_up_any_of_its_entries() {
        let mut entries = Entries::default();
        let mut chain = Chain::default();
        let first = entries.allocate(Owner::Torrent(TorrentId(1)), 5);
        assert_eq!(first, Some(EntryId(0)));
        for entry in [1, 2, 3] {
            entries.push_back(&mut chain, EntryId(entry));
        }
        entries.push_front(&mut chain, EntryId(0));
        assert_eq!(content(&entries, &chain), [0, 1, 2, 3]);
        for (gone, left) in [(1, &[0, 2, 3][..]), (3, &[0, 2]), (0, &[2]), (2, &[])] {
            entries.unlink(&mut chain, EntryId(gone));
            assert!(!entries.is_linked(EntryId(gone)));
            assert_eq!(content(&entries, &chain), left);
        }
        entries.push_front(&mut chain, EntryId(4));
        assert_eq!(content(&entries, &chain), [4]);
    }

    #[test]
    fn runs_are_used_again_by_torrents_with_as_many_trackers() {
        let mut entries = Entries::default();
        let allocate = |entries: &mut Entries, torrent, length| {
            entries.allocate(Owner::Torrent(torrent), length).unwrap().0
        };
        assert_eq!(allocate(&mut entries, TorrentId(1), 2), 0);
        assert_eq!(allocate(&mut entries, TorrentId(2), 3), 2);
        entries.set_started(EntryId(1), Family::V6, true);
        entries.release(EntryId(0), 2);
        assert_eq!(allocate(&mut entries, TorrentId(3), 3), 5);
        assert_eq!(allocate(&mut entries, TorrentId(4), 2), 0);
        assert_eq!(entries.owner(EntryId(1)), Owner::Torrent(TorrentId(4)));
        assert!(!entries.is_started_anywhere(EntryId(1)));
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
            let EntryId(first) = entries.allocate(owner, length).unwrap();
            let length = length.next_multiple_of(owner.granule());
            for entry in first..first + length {
                assert_eq!(all.insert(entry, owner), None);
            }
            runs.push((first, length));
            if random.bool() {
                let (first, length) = runs.swap_remove(random.usize(..runs.len()));
                entries.release(EntryId(first), length);
                all.retain(|entry, _| !(first..first + length).contains(entry));
            }
        }
        for (entry, owner) in all {
            assert_eq!(entries.owner(EntryId(entry)), owner, "{entry}");
        }
    }

    #[test]
    fn the_bits_of_an_entry_do_not_disturb_each_other() {
        let mut entries = Entries::default();
        let entry = entries.allocate(Owner::Torrent(TorrentId(9)), 1).unwrap();
        entries.set_started(entry, Family::V6, true);
        entries.set_busy(entry, Family::V4, true);
        assert_eq!(entries.families(entry), 2);
        entries.set_due_s(entry, u32::MAX);
        assert!(!entries.has_other_seed(entry));
        entries.set_has_other_seed(entry, true);
        assert_eq!(entries.due_s(entry), DUE_MASK);
        assert!(entries.is_started(entry, Family::V6) && !entries.is_started(entry, Family::V4));
        assert_eq!(entries.state(entry), EntryState::UnderWay);
        entries.set_busy(entry, Family::V4, false);
        entries.set_due_s(entry, 5);
        entries.set_in_first(entry, true);
        assert_eq!(entries.state(entry), EntryState::Detached);
        assert_eq!(entries.due_s(entry), 5);
        entries.set_prefetched(entry, true);
        assert_eq!(entries.state(entry), EntryState::Prefetched);
        assert!(entries.is_busy(entry) && entries.has_other_seed(entry));
        assert_eq!(entries.families(entry), 1);
        entries.set_prefetched(entry, false);
        assert_eq!(entries.state(entry), EntryState::Detached);
    }

    #[test]
    fn an_answer_counts_more_than_a_failure_and_the_earlier_answer_counts() {
        let mut entries = Entries::default();
        let entry = entries.allocate(Owner::Torrent(TorrentId(9)), 1).unwrap();
        assert_eq!(entries.pending_s(entry), None);
        for (due_s, weak, expected) in [
            (300, true, 300),
            (200, true, 200),
            (1800, false, 1800),
            (100, true, 1800),
            (900, false, 900),
            (1000, false, 900),
        ] {
            entries.pend(entry, due_s, weak);
            assert_eq!(entries.pending_s(entry), Some(expected));
        }
        let mut chain = Chain::default();
        entries.push_back(&mut chain, entry);
        assert_eq!(entries.pending_s(entry), None);
    }
}
