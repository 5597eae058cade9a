//! The announcer's part for an index: which lists of trackers it has, and whose info-hashes are read.
//!
//! Owns what the numbers of lists mean while an index is added. It must not know files.

use std::sync::Arc;

use super::Announcer;
use crate::timers::Time;
use crate::torrent::id::TorrentId;
use crate::tracker::lists::ListId;
use crate::tracker::runs::{self, Run};
use crate::wire::message::InfoHash;

impl Announcer {
    /// An index is going to be added: first each list of trackers, before what has it. What is
    /// removed meanwhile may come yet, and is not announced then.
    pub fn begin_index(&mut self) {
        self.schedule.begin_index();
    }

    /// The next list of trackers: they are numbered from 0.
    pub fn add_list(&mut self, announce: &Arc<[Vec<String>]>, now: Time) {
        let list = self.intern(announce, &"the index", now);
        // It may be nobody's for a while, and is needed.
        self.schedule.lists_mut().hold(list);
        self.index_lists.push(list);
    }

    /// Begins to announce torrents of an index.
    pub fn add_run(&mut self, run: &Run<u32>, now: Time) {
        if self.stops_at.is_some() {
            return;
        }
        let list = |position: u32| {
            let list = self.index_lists.get(position as usize);
            *list.expect("an index sends each list before the torrents that have it")
        };
        let run = run.map(u64::MAX, list);
        self.schedule.add_run(&run, now);
        let numbers = runs::ids(run.number);
        for (torrent, info_hash) in self.with_peers.range(numbers) {
            self.schedule.joined(*torrent, *info_hash, now);
        }
        let mut woken = None;
        for (_, list) in run.members() {
            if woken.replace(list) != Some(list) {
                self.wake_trackers_of(list, now);
            }
        }
    }

    /// The index is there.
    pub fn end_index(&mut self) {
        self.schedule.end_index();
        for list in std::mem::take(&mut self.index_lists) {
            self.schedule.lists_mut().release(list);
        }
    }

    /// Torrents of an index that are announced next, and whose info-hashes are wanted: so many at
    /// most. [`Announcer::learn`] answers it.
    pub fn unread(&mut self, most: usize) -> Vec<TorrentId> {
        self.schedule.unread(most)
    }

    /// The info-hashes of torrents, or `None` where they cannot be read.
    pub fn learn(&mut self, info_hashes: &[(TorrentId, Option<InfoHash>)], now: Time) {
        let mut lists: Vec<ListId> = Vec::new();
        for &(torrent, info_hash) in info_hashes {
            let list = self.schedule.learn(torrent, info_hash);
            lists.extend(list.filter(|list| lists.last() != Some(list)));
        }
        lists.sort_unstable();
        lists.dedup();
        for list in lists {
            self.wake_trackers_of(list, now);
        }
    }
}
