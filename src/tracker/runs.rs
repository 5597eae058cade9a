//! The torrents of an index that are announced, in runs of 64 ids, and where their entries are.
//!
//! A run takes 24 bytes and a torrent nothing: id, entry and list of trackers follow from one another
//! by counting bits.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::entries::EntryId;
use super::lists::{ListId, TrackerLists};
use crate::torrent::id::TorrentId;

/// Ids in one run.
pub const RUN_IDS: u32 = 64;

/// In place of a list: the run has one for each torrent. No list has this id, since there are fewer
/// lists than torrents.
const MIXED: ListId = ListId(u32::MAX);

/// The lists of trackers of the torrents in a run. `L` names a list: [`ListId`], or its position in an
/// index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunLists<L> {
    /// All torrents have the same one.
    Same(L),
    /// One for each member, in the order of ids.
    Each(Box<[L]>),
}

/// Those of 64 consecutive torrent ids that are announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run<L> {
    /// The first id divided by [`RUN_IDS`].
    pub number: u32,
    /// A bit for each id that is announced, the lowest for the first.
    pub members: u64,
    /// Their lists of trackers.
    pub lists: RunLists<L>,
}

impl<L: Copy + PartialEq> Run<L> {
    /// The id and the list of each member.
    pub fn members(&self) -> impl Iterator<Item = (TorrentId, L)> {
        bits(self.members)
            .enumerate()
            .map(|(rank, bit)| (id_at(self.number, bit), self.list(rank)))
    }

    fn list(&self, rank: usize) -> L {
        match &self.lists {
            RunLists::Same(list) => *list,
            RunLists::Each(lists) => *lists.get(rank).expect("each member has a list"),
        }
    }

    /// The run without the members that are not wanted, and with each list replaced by another.
    #[must_use]
    pub fn map<M: Copy + PartialEq>(&self, wanted: u64, replace: impl Fn(L) -> M) -> Run<M> {
        let members = self.members & wanted;
        let ranks = bits(self.members).enumerate();
        let kept = ranks.filter(|(_, bit)| members >> bit & 1 == 1);
        let lists: Box<[M]> = kept.map(|(rank, _)| replace(self.list(rank))).collect();
        let same = lists
            .first()
            .copied()
            .filter(|first| lists.iter().all(|list| list == first));
        Run {
            number: self.number,
            members,
            lists: same.map_or(RunLists::Each(lists), RunLists::Same),
        }
    }
}

/// The ids of a run, whose number is at most that of the last id.
pub(super) fn ids(number: u32) -> RangeInclusive<TorrentId> {
    id_at(number, 0)..=id_at(number, RUN_IDS - 1)
}

fn id_at(number: u32, bit: u32) -> TorrentId {
    TorrentId(number * RUN_IDS + bit)
}

/// The number of the run that an id is in, and the bit of the id in it.
fn position_of(id: TorrentId) -> (u32, u64) {
    (id.0 / RUN_IDS, 1 << (id.0 % RUN_IDS))
}

/// The positions of the bits that are set, ascending.
fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros());
        set &= set.wrapping_sub(1);
        bit
    })
}

#[derive(Clone, Copy, Debug)]
struct RunState {
    /// Ids that have entries, also after their torrents were removed. 0: there is no such run.
    allocated: u64,
    /// Ids that are announced.
    live: u64,
    first: EntryId,
    list: ListId,
}

const _: () = assert!(
    size_of::<RunState>() == 24,
    "there may be hundreds of thousands"
);

const VACANT: RunState = RunState {
    allocated: 0,
    live: 0,
    first: EntryId(0),
    list: MIXED,
};

/// Every torrent of an index that is announced.
#[derive(Debug, Default)]
pub(super) struct Runs {
    all: Vec<RunState>,
    /// The lists of runs that have more than one, by rank.
    mixed: BTreeMap<u32, Box<[ListId]>>,
    count: usize,
}

/// What a run leaves behind whose last torrent is gone, to be released.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Leftover {
    pub(super) first: EntryId,
    pub(super) length: u32,
    pub(super) lists: Vec<ListId>,
}

impl Runs {
    /// How many torrents are announced.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Returns true if there is such a run: its members are fixed as long as one of them is announced.
    pub(super) fn has(&self, number: u32) -> bool {
        (self.all.get(number as usize)).is_some_and(|state| state.allocated != 0)
    }

    /// Adds a run that there is not yet. Its entries start at `first`.
    pub(super) fn insert(&mut self, run: Run<ListId>, first: EntryId) {
        let index = run.number as usize;
        if self.all.len() <= index {
            self.all.resize(index + 1, VACANT);
        }
        let list = match run.lists {
            RunLists::Same(list) => list,
            RunLists::Each(lists) => {
                self.mixed.insert(run.number, lists);
                MIXED
            }
        };
        if let Some(state) = self.all.get_mut(index) {
            *state = RunState {
                allocated: run.members,
                live: run.members,
                first,
                list,
            };
            self.count += run.members.count_ones() as usize;
        }
    }

    /// The list of trackers of a torrent and the first of its entries, while it is announced.
    pub(super) fn find(
        &self,
        torrent: TorrentId,
        lists: &TrackerLists,
    ) -> Option<(ListId, EntryId)> {
        let (of, bit) = position_of(torrent);
        let state = self.all.get(of as usize)?;
        if state.live & bit == 0 {
            return None;
        }
        let rank = (state.allocated & (bit - 1)).count_ones();
        if state.list != MIXED {
            let first = state.first.0 + rank * lists.count(state.list);
            return Some((state.list, EntryId(first)));
        }
        let mixed = self.mixed.get(&of).expect("a run has lists");
        let list = mixed.get(rank as usize);
        let before = mixed.iter().take(rank as usize);
        let offset: u32 = before.map(|list| lists.count(*list)).sum();
        let first = EntryId(state.first.0 + offset);
        Some((*list.expect("each member has a list"), first))
    }

    /// The torrent that an entry of a run belongs to.
    pub(super) fn torrent(&self, of: u32, entry: EntryId, lists: &TrackerLists) -> TorrentId {
        let state = self.all.get(of as usize).expect("an entry is of a run");
        let offset = entry.0 - state.first.0;
        let rank = match self.mixed.get(&of) {
            None => (offset / lists.count(state.list)) as usize,
            Some(mixed) => {
                let mut end = 0;
                let rank = mixed.iter().position(|list| {
                    end += lists.count(*list);
                    offset < end
                });
                rank.expect("an entry is of a member")
            }
        };
        let bit = bits(state.allocated).nth(rank);
        id_at(of, bit.expect("an entry is of a member"))
    }

    /// Removes a torrent. Returns what its run leaves behind if it was the last one.
    pub(super) fn remove(&mut self, torrent: TorrentId, lists: &TrackerLists) -> Option<Leftover> {
        let (of, bit) = position_of(torrent);
        let state = self.all.get_mut(of as usize)?;
        if state.live & bit == 0 {
            return None;
        }
        state.live &= !bit;
        self.count -= 1;
        if state.live != 0 {
            return None;
        }
        let RunState {
            allocated,
            first,
            list,
            ..
        } = std::mem::replace(state, VACANT);
        let (length, lists) = match self.mixed.remove(&of) {
            None => (allocated.count_ones() * lists.count(list), vec![list]),
            Some(mixed) => {
                let length = mixed.iter().map(|list| lists.count(*list)).sum();
                (length, mixed.into_vec())
            }
        };
        Some(Leftover {
            first,
            length,
            lists,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Lists with one, two and three trackers.
    fn lists() -> TrackerLists {
        let mut lists = TrackerLists::default();
        for count in 1..=3 {
            let urls = (0..count).map(|number| format!("udp://t{number}:1"));
            lists.intern(&Arc::from([urls.collect()]), &mut Vec::new());
        }
        lists
    }

    #[test]
    fn ids_and_entries_lead_to_each_other() {
        let lists = lists();
        let mut random = fastrand::Rng::with_seed(3);
        let mut by_id = Runs::default();
        let mut first = 0;
        let mut runs = Vec::new();
        for number in 0..200 {
            let members = match random.u8(..3) {
                0 => u64::MAX,
                1 => random.u64(1..),
                _ => 1 << random.u8(..64),
            };
            let each = (0..members.count_ones())
                .map(|_| ListId(random.u32(..3)))
                .collect();
            let of_run = match random.bool() {
                true => RunLists::Same(ListId(random.u32(..3))),
                false => RunLists::Each(each),
            };
            let run = Run {
                number,
                members,
                lists: of_run,
            };
            by_id.insert(run.clone(), EntryId(first));
            for (id, list) in run.members() {
                assert_eq!(by_id.find(id, &lists), Some((list, EntryId(first))));
                for _ in 0..lists.count(list) {
                    assert_eq!(by_id.torrent(run.number, EntryId(first), &lists), id);
                    first += 1;
                }
            }
            runs.push(run);
        }
        let (mut count, mut released) = (by_id.len(), 0);
        for run in runs {
            let held = match &run.lists {
                RunLists::Same(_) => 1,
                RunLists::Each(each) => each.len(),
            };
            let mut left = run.members.count_ones();
            for (id, _) in run.members() {
                let leftover = by_id.remove(id, &lists);
                assert_eq!(by_id.find(id, &lists), None);
                (count, left) = (count - 1, left - 1);
                assert_eq!(by_id.len(), count);
                assert_eq!(leftover.is_some(), left == 0);
                if let Some(leftover) = leftover {
                    assert_eq!(leftover.lists.len(), held);
                    released += leftover.length;
                }
                assert_eq!(by_id.remove(id, &lists), None);
            }
        }
        assert_eq!((count, released, by_id.mixed.len()), (0, first, 0));
    }

    #[test]
    fn a_run_is_narrowed_with_its_lists() {
        let run = Run {
            number: 2,
            members: 0b1011,
            lists: RunLists::Each([7, 8, 9].into()),
        };
        let members = |run: &Run<u32>| {
            let members = run.members().map(|(torrent, list)| (torrent.0, list));
            members.collect::<Vec<_>>()
        };
        assert_eq!(members(&run), [(128, 7), (129, 8), (131, 9)]);
        let narrowed = run.map(!0b10, |list| list * 10);
        assert_eq!(members(&narrowed), [(128, 70), (131, 90)]);
        let alike = run.map(u64::MAX, |_| 5);
        assert_eq!(alike.lists, RunLists::Same(5));
        assert_eq!(run.map(0, |list| list).members, 0);
    }
}
