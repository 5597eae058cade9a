//! The torrents of an index that are announced, in runs of 64 ids, and where their entries are.
//!
//! A run takes 24 bytes and a torrent nothing: id, entry and list of trackers follow from one another
//! by counting bits.

use std::collections::BTreeMap;
use std::slice;

use super::entries::EntryId;
use super::lists::{ListId, TrackerLists};
use crate::torrent::id::TorrentId;

/// Ids in one run.
pub const RUN_IDS: u32 = 64;

/// In place of a list: the run has one for each torrent. No list has this id, since there are fewer
/// lists than torrents.
const MIXED: ListId = ListId(u32::MAX);

/// The number of the run that an id is in.
pub(super) fn run_of(id: TorrentId) -> u32 {
    id.0 / RUN_IDS
}

/// The bit of an id in its run, the lowest for the first.
fn bit_of(id: TorrentId) -> u64 {
    1 << (id.0 % RUN_IDS)
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

    /// Adds a run that there is not yet, in the order of ids. Its entries start at `first`. Returns its
    /// lists of trackers: one if all its torrents have the same.
    pub(super) fn insert(&mut self, run: &[(TorrentId, ListId)], first: EntryId) -> &[ListId] {
        let members = run.iter().fold(0, |bits, (id, _)| bits | bit_of(*id));
        let &(id, list) = run.first().expect("a run has members");
        let number = run_of(id);
        let is_mixed = run.iter().any(|(_, other)| *other != list);
        if is_mixed {
            let lists = run.iter().map(|(_, list)| *list).collect();
            self.mixed.insert(number, lists);
        }
        let end = number as usize + 1;
        if self.all.len() < end {
            self.all.resize(end, VACANT);
        }
        let state = self.all.get_mut(number as usize);
        let state = state.expect("there is a state for each run");
        *state = RunState {
            allocated: members,
            live: members,
            first,
            list: if is_mixed { MIXED } else { list },
        };
        self.count += run.len();
        let mixed = self.mixed.get(&number);
        mixed.map_or(slice::from_ref(&state.list), |lists| lists)
    }

    /// The list of trackers of a torrent and the first of its entries, while it is announced.
    pub(super) fn find(
        &self,
        torrent: TorrentId,
        lists: &TrackerLists,
    ) -> Option<(ListId, EntryId)> {
        let (of, bit) = (run_of(torrent), bit_of(torrent));
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
        let mut members = state.allocated;
        for _ in 0..rank {
            members &= members - 1;
        }
        TorrentId(of * RUN_IDS + members.trailing_zeros())
    }

    /// Removes a torrent. Returns what its run leaves behind if it was the last one.
    pub(super) fn remove(&mut self, torrent: TorrentId, lists: &TrackerLists) -> Option<Leftover> {
        let (of, bit) = (run_of(torrent), bit_of(torrent));
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
    use crate::tracker::access::Access;
    use std::sync::Arc;

    /// Lists with one, two and three trackers.
    fn lists() -> TrackerLists {
        let mut lists = TrackerLists::default();
        for count in 1..=3 {
            let urls = (0..count).map(|number| format!("udp://t{number}:1"));
            lists.intern(
                &Arc::from([urls.collect()]),
                &Access::default(),
                &mut Vec::new(),
            );
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
            let same = random.bool().then(|| ListId(random.u32(..3)));
            let run: Vec<(TorrentId, ListId)> = (0..RUN_IDS)
                .filter(|bit| members >> bit & 1 == 1)
                .map(|bit| TorrentId(number * RUN_IDS + bit))
                .map(|id| (id, same.unwrap_or_else(|| ListId(random.u32(..3)))))
                .collect();
            let held = by_id.insert(&run, EntryId(first)).len();
            for &(id, list) in &run {
                assert_eq!(by_id.find(id, &lists), Some((list, EntryId(first))));
                for _ in 0..lists.count(list) {
                    assert_eq!(by_id.torrent(number, EntryId(first), &lists), id);
                    first += 1;
                }
            }
            runs.push((run, held));
        }
        let (mut count, mut released) = (by_id.len(), 0);
        for (run, held) in runs {
            let mut left = run.len();
            for (id, _) in run {
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
    fn a_run_has_one_list_if_all_its_torrents_have_the_same() {
        let held = |lists: &[u32]| {
            let members = (0..).zip(lists);
            let run: Vec<_> = members
                .map(|(id, list)| (TorrentId(id), ListId(*list)))
                .collect();
            Runs::default().insert(&run, EntryId(0)).len()
        };
        assert_eq!((held(&[7]), held(&[7, 7, 7]), held(&[7, 7, 8])), (1, 1, 3));
    }
}
