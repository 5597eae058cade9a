//! The queue of one tracker: which entries are announced to it, in which order.
//!
//! The *first* chain goes before all others: torrents that were just added, and in front of them
//! torrents that have peers and are due. *Later* holds one chain for each second, so that due entries
//! are found without walking the others, and the load of each second is known. *Prefetched* are the
//! next entries of both in the order in which they are announced, while their info-hashes are read.

use std::collections::{BTreeMap, VecDeque};

use super::announce::Terms;
use super::entries::{Chain, Entries, EntryId, EntryState, Owner};
use super::runs::RUN_IDS;
use crate::timers::Time;

/// Seconds that are compared when the usual one is crowded. Two would level the load already; see "the
/// power of two choices".
const CHOICES: u32 = 4;

/// An announce may be early by this part of its interval, so that torrents that were announced together
/// do not stay together.
const JITTER: u32 = 16;

/// How long before its time an entry is prefetched. Some hundred reads of a disk that seeks take as
/// long; at 11,000 announces a second it is 2,750 entries.
pub(super) const LEAD_MS: u64 = 250;

/// Prefetched entries at first.
const PREFETCH_MIN: usize = 64;

/// Prefetched entries at most. Their number grows only while a tracker takes entries faster than
/// info-hashes are read, so that it can have grown at few of many trackers.
const PREFETCH_MAX: usize = 4096;

/// An entry that is about to be announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upcoming {
    pub(super) entry: EntryId,
    /// It is not announced before.
    pub(super) at: Time,
}

/// A second holds at least this many groups of neighbours in an index, so that it can be filled evenly.
const SECOND_PARTS: u32 = 8;

/// Neighbours are announced within seconds of each other, and in the same second next time unless one
/// of these periods has ended meanwhile.
const PERIOD_S: u32 = 256;

/// A chance that all of a group share in a period.
fn shared_chance(group: u32, now_s: u32) -> u32 {
    let mixed = group ^ (now_s / PERIOD_S).rotate_left(20);
    let mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

/// Every entry of one tracker that is to be announced.
#[derive(Debug, Default)]
pub(super) struct Queue {
    first: Chain,
    later: BTreeMap<u32, Chain>,
    prefetched: VecDeque<Upcoming>,
    /// How often the bound of prefetched entries has doubled, and entries taken since.
    doubled: u32,
    taken: usize,
    /// A second, and how many of its entries have been taken: they are spread over it.
    current: (u32, u32),
    /// Entries of this tracker, including those under way.
    pub(super) members: u32,
}

impl Queue {
    /// Puts an entry before all others.
    pub(super) fn push_urgent(&mut self, entries: &mut Entries, entry: EntryId) {
        entries.set_in_first(entry, true);
        entries.push_front(&mut self.first, entry);
    }

    /// Puts an entry behind the urgent ones.
    pub(super) fn push_new(&mut self, entries: &mut Entries, entry: EntryId) {
        entries.set_in_first(entry, true);
        entries.push_back(&mut self.first, entry);
    }

    /// Puts an entry into the chain of its second.
    pub(super) fn push_due(&mut self, entries: &mut Entries, entry: EntryId) {
        entries.set_in_first(entry, false);
        let chain = self.later.entry(entries.due_s(entry)).or_default();
        entries.push_back(chain, entry);
    }

    /// Takes an entry out of its chain.
    pub(super) fn unlink(&mut self, entries: &mut Entries, entry: EntryId) {
        if entries.state(entry) == EntryState::First {
            entries.unlink(&mut self.first, entry);
            return;
        }
        let due_s = entries.due_s(entry);
        let chain = self.later.get_mut(&due_s);
        let chain = chain.expect("a queued entry is in the chain of its second");
        entries.unlink(chain, entry);
        if chain.len() == 0 {
            self.later.remove(&due_s);
        }
    }

    /// The entry that goes before all others.
    pub(super) fn urgent(&self) -> Option<EntryId> {
        self.first.head()
    }

    /// The entry that is prefetched next, and when it is to be announced.
    pub(super) fn upcoming(&self, now: Time) -> Option<Upcoming> {
        if let Some(entry) = self.first.head() {
            return Some(Upcoming { entry, at: now });
        }
        let (&second, chain) = self.later.first_key_value()?;
        // Entries of one second are spread evenly over it.
        let taken = u64::from(self.taken_in(second));
        let whole = taken + u64::from(chain.len());
        let at = Time(u64::from(second) * 1000 + taken * 1000 / whole);
        let entry = chain.head().expect("an empty chain is removed");
        Some(Upcoming { entry, at })
    }

    fn taken_in(&self, second: u32) -> u32 {
        match self.current {
            (current, taken) if current == second => taken,
            _ => 0,
        }
    }

    /// Prefetches the next entry, if it is to be announced soon and there is room. `all` is for the
    /// end, when nothing waits for its time.
    pub(super) fn prefetch(
        &mut self,
        entries: &mut Entries,
        now: Time,
        all: bool,
    ) -> Option<EntryId> {
        if self.prefetched.len() >= self.prefetch_length() {
            return None;
        }
        let mut next = self.upcoming(now)?;
        if all {
            next.at = now;
        } else if next.at > now.after(LEAD_MS) {
            return None;
        }
        if self.first.len() == 0 {
            let second = entries.due_s(next.entry);
            self.current = (second, self.taken_in(second) + 1);
        }
        self.unlink(entries, next.entry);
        entries.set_prefetched(next.entry, true);
        self.prefetched.push_back(next);
        Some(next.entry)
    }

    fn prefetch_length(&self) -> usize {
        PREFETCH_MIN << self.doubled
    }

    /// A tracker waits for the info-hash of the first prefetched entry: more are prefetched from now
    /// on, if all were taken since the last time.
    pub(super) fn starved(&mut self) {
        let length = self.prefetch_length();
        if length < PREFETCH_MAX && self.taken >= length {
            self.doubled += 1;
            self.taken = 0;
        }
    }

    /// The first prefetched entry.
    pub(super) fn prefetched(&self) -> Option<Upcoming> {
        self.prefetched.front().copied()
    }

    /// Takes the first prefetched entry.
    pub(super) fn take_prefetched(&mut self, entries: &mut Entries) -> Option<EntryId> {
        let Upcoming { entry, .. } = self.prefetched.pop_front()?;
        entries.set_prefetched(entry, false);
        self.taken = self.taken.saturating_add(1);
        Some(entry)
    }

    /// Returns true if nothing is to be announced, now or later.
    pub(super) fn is_empty(&self) -> bool {
        self.first.len() == 0 && self.later.is_empty() && self.prefetched.is_empty()
    }

    /// By how many seconds the entry that waits longest is late.
    pub(super) fn lateness_s(&self, entries: &Entries, now: Time) -> u64 {
        let first = [self.first.head(), self.first.tail()];
        let prefetched = self.prefetched.iter().map(|upcoming| upcoming.entry);
        let waiting = first.into_iter().flatten().chain(prefetched);
        let waiting = waiting.map(|entry| entries.due_s(entry));
        let later = self.later.first_key_value().map(|(&second, _)| second);
        let earliest = waiting.chain(later).min();
        earliest.map_or(0, |due_s| (now.0 / 1000).saturating_sub(due_s.into()))
    }

    /// Chooses the second of the next announce, within the terms of the tracker: as late as possible
    /// if that second is not crowded, else the emptiest of a few. A library that was started at once
    /// is spread evenly over the interval after some rounds.
    ///
    /// Neighbours in an index go to the same second, as long as they are a small part of it: their
    /// info-hashes are read together.
    pub(super) fn choose_s(&self, now: Time, terms: Terms, chance: u32, owner: Owner) -> u32 {
        let now_s = u32::try_from(now.0 / 1000).unwrap_or(u32::MAX);
        // A part of a second must not make it too early.
        let soonest = u32::try_from(now.0.div_ceil(1000)).unwrap_or(u32::MAX);
        let earliest = soonest.saturating_add(terms.min_interval_s);
        let latest = now_s.saturating_add(terms.interval_s).max(earliest);
        let load = |second: &u32| self.later.get(second).map_or(0, Chain::len);
        // A quarter more than even: choosing does not level the load completely.
        let fair = self.members / terms.interval_s * 5 / 4 + 1;
        let neighbours = (fair / SECOND_PARTS / RUN_IDS).checked_ilog2();
        let chance = match (owner, neighbours) {
            (Owner::Run(run), Some(power)) => shared_chance(run >> power, now_s),
            _ => chance,
        };
        let jitter = (chance % (terms.interval_s / JITTER + 1)).min(latest - earliest);
        let usual = latest - jitter;
        if load(&usual) < fair {
            return usual;
        }
        let range = latest - earliest + 1;
        let choices = (1..=CHOICES).map(|number| {
            let drawn = chance.rotate_left(7 * number).wrapping_mul(0x9e37_79b9);
            earliest + drawn % range
        });
        // Of equally loaded seconds the later one.
        let emptiest = choices.min_by_key(|second| (load(second), u32::MAX - second));
        emptiest.expect("there are choices")
    }
}
