//! The torrents of an index: which are announced, and where their entries are.
//!
//! Owns 24 bytes for each block of 64 numbers, and nothing for a torrent: number, entry and list of
//! trackers follow from one another by counting bits. It must not know info-hashes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::sets::Sets;
use crate::torrent::id::TorrentId;

/// Numbers in one block.
pub const BLOCK: u32 = 64;

/// Instead of a set: the block has one for each torrent.
const MIXED: u32 = u32::MAX;

/// The lists of trackers of the torrents in a stretch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lists {
    /// All have the same one.
    Same(u32),
    /// One for each member, in the order of numbers.
    Each(Box<[u32]>),
}

/// Torrents of an index whose numbers are in one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// The first number of the block, divided by [`BLOCK`].
    pub block: u32,
    /// A bit for each number that is announced.
    pub members: u64,
    /// Their lists of trackers.
    pub lists: Lists,
}

impl Stretch {
    /// Each member's number and list.
    pub fn members(&self) -> impl Iterator<Item = (TorrentId, u32)> {
        bits(self.members)
            .enumerate()
            .map(|(rank, bit)| (id_at(self.block, bit), self.list(rank)))
    }

    fn list(&self, rank: usize) -> u32 {
        match &self.lists {
            Lists::Same(list) => *list,
            Lists::Each(lists) => lists.get(rank).copied().unwrap_or(MIXED),
        }
    }

    /// The same with those members alone that are wanted, and each list replaced by another.
    #[must_use]
    pub fn map(&self, wanted: u64, replace: impl Fn(u32) -> u32) -> Self {
        let members = self.members & wanted;
        let ranks = bits(self.members).enumerate();
        let kept = ranks.filter(|(_, bit)| members >> bit & 1 == 1);
        let lists: Box<[u32]> = kept.map(|(rank, _)| replace(self.list(rank))).collect();
        let same = lists
            .first()
            .copied()
            .filter(|first| lists.iter().all(|list| list == first));
        Self {
            block: self.block,
            members,
            lists: same.map_or(Lists::Each(lists), Lists::Same),
        }
    }
}

/// The ids in a block, the number of which is at most that of the block of the last id.
pub(super) fn ids(block: u32) -> RangeInclusive<TorrentId> {
    id_at(block, 0)..=id_at(block, BLOCK - 1)
}

fn id_at(block: u32, bit: u32) -> TorrentId {
    TorrentId(block * BLOCK + bit)
}

/// The block that an id is in, and its bit there.
fn place_of(id: TorrentId) -> (u32, u64) {
    (id.0 / BLOCK, 1 << (id.0 % BLOCK))
}

/// The places of the bits that are set, ascending.
fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros());
        set &= set.wrapping_sub(1);
        bit
    })
}

#[derive(Clone, Copy, Default, Debug)]
struct Block {
    /// Numbers that have entries, also when they are gone.
    placed: u64,
    /// Numbers that are announced.
    live: u64,
    first: u32,
    set: u32,
}

const _: () = assert!(
    size_of::<Block>() == 24,
    "there may be hundreds of thousands"
);

/// Every torrent of an index that is announced.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    all: Vec<Block>,
    /// The sets of blocks that have more than one, by rank.
    mixed: BTreeMap<u32, Box<[u32]>>,
    count: usize,
}

/// What is left behind by a block whose last torrent is gone.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Leftover {
    pub(super) first: u32,
    pub(super) length: u32,
    pub(super) sets: Vec<u32>,
}

impl Blocks {
    /// How many torrents are announced.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether there is such a block: its members are fixed as long as one of them is announced.
    pub(super) fn has(&self, block: u32) -> bool {
        (self.all.get(block as usize)).is_some_and(|block| block.placed != 0)
    }

    /// Adds a block that is not there. Its entries start at `first`.
    pub(super) fn insert(&mut self, stretch: Stretch, first: u32) {
        let place = stretch.block as usize;
        if self.all.len() <= place {
            self.all.resize(place + 1, Block::default());
        }
        let set = match stretch.lists {
            Lists::Same(set) => set,
            Lists::Each(sets) => {
                self.mixed.insert(stretch.block, sets);
                MIXED
            }
        };
        if let Some(block) = self.all.get_mut(place) {
            *block = Block {
                placed: stretch.members,
                live: stretch.members,
                first,
                set,
            };
            self.count += stretch.members.count_ones() as usize;
        }
    }

    /// The list of trackers of a torrent and the first of its entries, while it is announced.
    pub(super) fn find(&self, torrent: TorrentId, sets: &Sets) -> Option<(u32, u32)> {
        let (of, bit) = place_of(torrent);
        let block = self.all.get(of as usize)?;
        if block.live & bit == 0 {
            return None;
        }
        let rank = (block.placed & (bit - 1)).count_ones();
        if block.set != MIXED {
            return Some((block.set, block.first + rank * length(sets, block.set)));
        }
        let mixed = self.mixed.get(&of)?;
        let before = mixed.iter().take(rank as usize);
        let offset: u32 = before.map(|set| length(sets, *set)).sum();
        Some((*mixed.get(rank as usize)?, block.first + offset))
    }

    /// The torrent that an entry of a block belongs to.
    pub(super) fn torrent(&self, of: u32, entry: u32, sets: &Sets) -> Option<TorrentId> {
        let block = self.all.get(of as usize)?;
        let offset = entry.checked_sub(block.first)?;
        let rank = match self.mixed.get(&of) {
            None => offset.checked_div(length(sets, block.set))? as usize,
            Some(mixed) => {
                let mut end = 0;
                mixed.iter().position(|set| {
                    end += length(sets, *set);
                    offset < end
                })?
            }
        };
        Some(id_at(of, bits(block.placed).nth(rank)?))
    }

    /// Removes a torrent. What its block leaves behind, when it was the last one.
    pub(super) fn remove(&mut self, torrent: TorrentId, sets: &Sets) -> Option<Leftover> {
        let (of, bit) = place_of(torrent);
        let block = self.all.get_mut(of as usize)?;
        if block.live & bit == 0 {
            return None;
        }
        block.live &= !bit;
        self.count -= 1;
        if block.live != 0 {
            return None;
        }
        let Block {
            placed, first, set, ..
        } = std::mem::take(block);
        let (length, sets) = match self.mixed.remove(&of) {
            None => (placed.count_ones() * length(sets, set), vec![set]),
            Some(mixed) => {
                let length = mixed.iter().map(|set| length(sets, *set)).sum();
                (length, mixed.into_vec())
            }
        };
        Some(Leftover {
            first,
            length,
            sets,
        })
    }
}

/// Entries of a torrent with this list of trackers.
pub(super) fn length(sets: &Sets, set: u32) -> u32 {
    u32::try_from(sets.trackers(set).len()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Sets with one, two and three trackers.
    fn sets() -> Sets {
        let mut sets = Sets::default();
        for count in 1..=3 {
            let urls = (0..count).map(|number| format!("udp://t{number}:1"));
            sets.intern(&Arc::from([urls.collect()]), &mut Vec::new());
        }
        sets
    }

    #[test]
    fn numbers_and_entries_lead_to_each_other() {
        let sets = sets();
        let mut random = fastrand::Rng::with_seed(3);
        let mut blocks = Blocks::default();
        let mut first = 0;
        let mut stretches = Vec::new();
        for block in 0..200 {
            let members = match random.u8(..3) {
                0 => u64::MAX,
                1 => random.u64(1..),
                _ => 1 << random.u8(..64),
            };
            let each = (0..members.count_ones()).map(|_| random.u32(..3)).collect();
            let lists = match random.bool() {
                true => Lists::Same(random.u32(..3)),
                false => Lists::Each(each),
            };
            let stretch = Stretch {
                block,
                members,
                lists,
            };
            blocks.insert(stretch.clone(), first);
            for (number, set) in stretch.members() {
                assert_eq!(blocks.find(number, &sets), Some((set, first)));
                for _ in 0..length(&sets, set) {
                    assert_eq!(blocks.torrent(block, first, &sets), Some(number));
                    first += 1;
                }
            }
            stretches.push(stretch);
        }
        let (mut count, mut released) = (blocks.len(), 0);
        for stretch in stretches {
            let held = match &stretch.lists {
                Lists::Same(_) => 1,
                Lists::Each(each) => each.len(),
            };
            let mut left = stretch.members.count_ones();
            for (number, _) in stretch.members() {
                let leftover = blocks.remove(number, &sets);
                assert_eq!(blocks.find(number, &sets), None);
                (count, left) = (count - 1, left - 1);
                assert_eq!(blocks.len(), count);
                assert_eq!(leftover.is_some(), left == 0);
                if let Some(leftover) = leftover {
                    assert_eq!(leftover.sets.len(), held);
                    released += leftover.length;
                }
                assert_eq!(blocks.remove(number, &sets), None);
            }
        }
        assert_eq!((count, released, blocks.mixed.len()), (0, first, 0));
    }

    #[test]
    fn a_stretch_is_narrowed_with_its_lists() {
        let stretch = Stretch {
            block: 2,
            members: 0b1011,
            lists: Lists::Each([7, 8, 9].into()),
        };
        let members = |stretch: &Stretch| {
            let members = stretch.members().map(|(torrent, list)| (torrent.0, list));
            members.collect::<Vec<_>>()
        };
        assert_eq!(members(&stretch), [(128, 7), (129, 8), (131, 9)]);
        let narrowed = stretch.map(!0b10, |list| list * 10);
        assert_eq!(members(&narrowed), [(128, 70), (131, 90)]);
        let alike = stretch.map(u64::MAX, |_| 5);
        assert_eq!(alike.lists, Lists::Same(5));
        assert_eq!(stretch.map(0, |list| list).members, 0);
    }
}
