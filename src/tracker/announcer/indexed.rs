//! The announcer's part for an index: which lists of trackers it has, and whose info-hashes are read.
//!
//! Owns what the numbers of lists mean while an index is added. It must not know files.

use std::sync::Arc;

use super::Announcer;
use crate::timers::Time;
use crate::torrent::id::TorrentId;
use crate::tracker::blocks::{self, Stretch};
use crate::wire::message::InfoHash;

impl Announcer {
    /// An index is going to be added: first each list of trackers, before what has it. What is
    /// removed meanwhile may come yet, and is not announced then.
    pub fn begin_index(&mut self) {
        self.schedule.begin_index();
    }

    /// The next list of trackers: they are numbered from 0.
    pub fn add_list(&mut self, announce: &Arc<[Vec<String>]>, now: Time) {
        let set = self.intern(announce, &"the index", now);
        // It may be nobody's for a while, and is needed.
        self.schedule.sets().hold(set);
        self.lists.push(set);
    }

    /// Begins to announce torrents of an index.
    pub fn add_stretch(&mut self, stretch: &Stretch, now: Time) {
        if self.stops_at.is_some() {
            return;
        }
        let set = |list: u32| self.lists.get(list as usize).copied().unwrap_or(u32::MAX);
        let stretch = stretch.map(u64::MAX, set);
        self.schedule.add_stretch(&stretch, now);
        let numbers = blocks::ids(stretch.block);
        for (torrent, info_hash) in self.with_peers.range(numbers) {
            self.schedule.joined(*torrent, *info_hash, now);
        }
        let mut woken = None;
        for (_, set) in stretch.members() {
            if woken.replace(set) != Some(set) {
                self.wake_trackers_of(set, now);
            }
        }
    }

    /// The index is there.
    pub fn end_index(&mut self) {
        self.schedule.end_index();
        for set in std::mem::take(&mut self.lists) {
            self.schedule.sets().release(set);
        }
    }

    /// Torrents of an index that are announced next, and whose info-hashes are wanted: so many at
    /// most. [`Announcer::learn`] answers it.
    pub fn unread(&mut self, most: usize) -> Vec<TorrentId> {
        self.schedule.unread(most)
    }

    /// The info-hashes of torrents, or `None` where they cannot be read.
    pub fn learn(&mut self, info_hashes: &[(TorrentId, Option<InfoHash>)], now: Time) {
        let mut sets: Vec<u32> = Vec::new();
        for &(torrent, info_hash) in info_hashes {
            let set = self.schedule.learn(torrent, info_hash);
            sets.extend(set.filter(|set| sets.last() != Some(set)));
        }
        sets.sort_unstable();
        sets.dedup();
        for set in sets {
            self.wake_trackers_of(set, now);
        }
    }
}
