//! The queue of one tracker: what it is announced, in which order.
//!
//! Owns two places. *First* is what goes before all else: torrents that were just added, and in
//! front of them torrents that have peers and are due. *Later* holds one chain for each second, so
//! that what is due is found without looking at the rest, and so that it is known how many
//! announces fall into each second. It must not know torrents, nor what an announce says.

use std::collections::BTreeMap;

use super::announce::Terms;
use super::entries::{Chain, Entries};
use crate::timers::Time;

/// Seconds that are compared when the usual one is crowded. Already two would level the load; see
/// "the power of two choices".
const CHOICES: u32 = 4;

/// An announce may come this part of its interval early, so that what was announced together
/// does not stay together.
const JITTER: u32 = 16;

/// Everything that one tracker is announced.
#[derive(Debug, Default)]
pub(super) struct Queue {
    first: Chain,
    later: BTreeMap<u32, Chain>,
    /// How many of this second's entries have been taken: they are spread over the second.
    current: (u32, u32),
    /// Entries of this tracker, those under way included.
    pub(super) members: u32,
}

impl Queue {
    /// Puts an entry before all others.
    pub(super) fn push_urgent(&mut self, entries: &mut Entries, entry: u32) {
        entries.set_in_first(entry, true);
        entries.push_front(&mut self.first, entry);
    }

    /// Puts an entry behind those that go first.
    pub(super) fn push_new(&mut self, entries: &mut Entries, entry: u32) {
        entries.set_in_first(entry, true);
        entries.push_back(&mut self.first, entry);
    }

    /// Puts an entry where it is due.
    pub(super) fn push_due(&mut self, entries: &mut Entries, entry: u32) {
        entries.set_in_first(entry, false);
        let chain = self.later.entry(entries.due_s(entry)).or_default();
        entries.push_back(chain, entry);
    }

    /// Takes an entry out, wherever it is.
    pub(super) fn unlink(&mut self, entries: &mut Entries, entry: u32) {
        if entries.is_in_first(entry) {
            entries.unlink(&mut self.first, entry);
            return;
        }
        let due_s = entries.due_s(entry);
        if let Some(chain) = self.later.get_mut(&due_s) {
            entries.unlink(chain, entry);
            if chain.len() == 0 {
                self.later.remove(&due_s);
            }
        }
    }

    /// Takes the entry that is to be announced next, if there is one to be announced by now.
    /// `all` is for the end, when nothing waits for its time.
    pub(super) fn take(&mut self, entries: &mut Entries, now: Time, all: bool) -> Option<u32> {
        if !all && self.next(now)? > now {
            return None;
        }
        let entry = match self.first.head() {
            Some(entry) => entry,
            None => {
                let (&second, chain) = self.later.first_key_value()?;
                if u64::from(second) == now.0 / 1000 {
                    let taken = self.taken_in(second);
                    self.current = (second, taken + 1);
                }
                chain.head()?
            }
        };
        self.unlink(entries, entry);
        Some(entry)
    }

    fn taken_in(&self, second: u32) -> u32 {
        match self.current {
            (current, taken) if current == second => taken,
            _ => 0,
        }
    }

    /// When something is due. Those of one second are spread evenly over it.
    pub(super) fn next(&self, now: Time) -> Option<Time> {
        if self.first.len() > 0 {
            return Some(now);
        }
        let (&second, chain) = self.later.first_key_value()?;
        let taken = u64::from(self.taken_in(second));
        let whole = taken + u64::from(chain.len());
        Some(Time(u64::from(second) * 1000 + taken * 1000 / whole.max(1)))
    }

    /// By how many seconds the entry that waits longest is late.
    pub(super) fn lateness_s(&self, entries: &Entries, now: Time) -> u64 {
        let first = [self.first.head(), self.first.tail()];
        let first = first
            .into_iter()
            .flatten()
            .map(|entry| entries.due_s(entry));
        let later = self.later.first_key_value().map(|(&second, _)| second);
        let earliest = first.chain(later).min();
        earliest.map_or(0, |due_s| (now.0 / 1000).saturating_sub(due_s.into()))
    }

    /// Chooses the second of the next announce, within what the tracker asked for: as late as it
    /// allows while that second is not crowded, else the emptiest of a few. So a library that was
    /// started at once is spread evenly over the interval after some rounds.
    pub(super) fn choose_s(&self, now: Time, terms: Terms, chance: u32) -> u32 {
        let now_s = u32::try_from(now.0 / 1000).unwrap_or(u32::MAX);
        // A part of a second must not make it too early.
        let soonest = u32::try_from(now.0.div_ceil(1000)).unwrap_or(u32::MAX);
        let earliest = soonest.saturating_add(terms.min_interval_s);
        let latest = now_s.saturating_add(terms.interval_s).max(earliest);
        let load = |second: &u32| self.later.get(second).map_or(0, Chain::len);
        let jitter = (chance % (terms.interval_s / JITTER + 1)).min(latest - earliest);
        let usual = latest - jitter;
        // A quarter more than even, since less than all of it can be evened out by choosing.
        let fair = self.members / terms.interval_s.max(1) * 5 / 4 + 1;
        if load(&usual) < fair {
            return usual;
        }
        let range = latest - earliest + 1;
        let choices = (1..=CHOICES).map(|number| {
            let drawn = chance.rotate_left(7 * number).wrapping_mul(0x9e37_79b9);
            earliest + drawn % range
        });
        // Of equal ones the later.
        let emptiest = choices.min_by_key(|second| (load(second), u32::MAX - second));
        emptiest.unwrap_or(usual)
    }
}
