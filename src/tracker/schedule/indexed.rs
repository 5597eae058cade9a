//! The schedule's part for the torrents of an index.
//!
//! They are added in runs, and the info-hash of each is read by the caller shortly before it is
//! announced.

use super::{RETRY_S, Schedule, seconds};
use crate::timers::Time;
use crate::torrent::id::TorrentId;
use crate::tracker::entries::{EntryId, Owner};
use crate::tracker::lists::{ListId, TrackerId};
use crate::tracker::runs::{self, run_of};
use crate::tracker::torrents::{Ending, Hash};
use crate::wire::message::InfoHash;

impl Schedule {
    /// Begins to add an index: torrents that are removed meanwhile are not added.
    pub fn begin_index(&mut self) {
        self.gone.get_or_insert_default();
    }

    /// All of the index has been added.
    pub fn end_index(&mut self) {
        self.gone = None;
    }

    /// Begins to announce torrents of an index, in the order of ids, unless their run is announced
    /// already.
    pub fn add_indexed(&mut self, mut torrents: Vec<(TorrentId, ListId)>, now: Time) {
        if self.stopping {
            return;
        }
        if let Some(gone) = &self.gone {
            torrents.retain(|(torrent, _)| !gone.contains(torrent));
        }
        let (Some((first, _)), Some((last, _))) = (torrents.first(), torrents.last()) else {
            return;
        };
        let with_peers = self.torrents.with_peers.range(first..=last);
        let with_peers: Vec<_> = with_peers.map(|(id, hash)| (*id, *hash)).collect();
        for run in torrents.chunk_by(|(one, _), (next, _)| run_of(*one) == run_of(*next)) {
            self.add_run(run, seconds(now));
        }
        for (torrent, info_hash) in with_peers {
            self.bring_forward(torrent, info_hash, now);
        }
    }

    fn add_run(&mut self, run: &[(TorrentId, ListId)], now_s: u32) {
        let (torrent, _) = run.first().expect("a run has members");
        let number = run_of(*torrent);
        if self.torrents.has_run(number) {
            return;
        }
        let total = run.iter().map(|(_, list)| self.lists.count(*list)).sum();
        let Some(first) = self.entries.allocate(Owner::Run(number), total) else {
            return;
        };
        let lists = runs::lists_of(run);
        for list in &lists {
            self.lists.hold(*list);
        }
        let mut entries = first.following();
        for (_, list) in run {
            for (target, entry) in self.lists.trackers(*list).iter().zip(&mut entries) {
                self.entries.set_due_s(entry, now_s);
                let queue = &mut self.queues[target.tracker];
                queue.members += 1;
                queue.push_due(&mut self.entries, entry);
            }
        }
        self.torrents.insert_run(run, lists, first);
    }

    /// At most `most` torrents whose info-hashes are to be read, in the order in which they are
    /// announced. Each is answered with [`Schedule::learn`].
    pub fn unread(&mut self, most: usize) -> Vec<TorrentId> {
        let count = self.unread.len().min(most);
        self.unread.drain(..count).collect()
    }

    /// Takes the info-hash of a torrent; `None` if it could not be read. Returns its list of trackers
    /// if they may wait for it.
    pub fn learn(&mut self, torrent: TorrentId, info_hash: Option<InfoHash>) -> Option<ListId> {
        let record = self.torrents.record_mut(torrent)?;
        if record.hash != Hash::Asked {
            return None;
        }
        record.hash = info_hash.map_or(Hash::Unreadable, Hash::Known);
        Some(record.list)
    }

    /// Reads ahead: the next entries of a tracker are prefetched.
    pub(super) fn prefetch(&mut self, tracker: TrackerId, now: Time) {
        loop {
            let queue = &mut self.queues[tracker];
            // An urgent entry whose info-hash is known goes first.
            if let Some(urgent) = queue.urgent()
                && self.hash_wanted(urgent).is_none()
            {
                return;
            }
            let queue = &mut self.queues[tracker];
            let Some(entry) = queue.prefetch(&mut self.entries, now, self.stopping) else {
                return;
            };
            if let Some((torrent, Hash::Unread)) = self.hash_wanted(entry)
                && let Some(record) = self.torrents.find_mut(torrent, &self.lists)
            {
                record.hash = Hash::Asked;
                self.unread.push_back(torrent);
            }
        }
    }

    /// The torrent of an entry, if its info-hash has to be read before the entry can be announced.
    pub(super) fn hash_wanted(&self, entry: EntryId) -> Option<(TorrentId, Hash)> {
        let torrent = self.torrent(entry);
        let record = self.torrents.find(torrent, &self.lists)?;
        let is_over = (self.stopping || record.ending != Ending::No)
            && !self.entries.is_started_anywhere(entry);
        let is_known = matches!(record.hash, Hash::Known(_));
        (!is_known && !is_over).then_some((torrent, record.hash))
    }

    /// Puts an entry whose info-hash cannot be read back, like one whose announce has failed.
    pub(super) fn put_off(&mut self, tracker: TrackerId, entry: EntryId, now: Time) {
        if self.stopping {
            self.forget_started(entry);
        } else {
            let due_s = seconds(now).saturating_add(RETRY_S);
            self.entries.pend(entry, due_s, true);
        }
        self.requeue(tracker, entry);
    }

    /// Drops the record of a torrent of an index if nothing of it is under way.
    pub(super) fn forget_quiet(&mut self, torrent: TorrentId) {
        let Some(record) = self.torrents.record_mut(torrent) else {
            return;
        };
        let length = self.lists.count(record.list) as usize;
        let mut entries = record.first.following().take(length);
        if !entries.any(|entry| self.entries.is_busy(entry)) {
            self.torrents.drop_quiet(torrent);
        }
    }
}

#[cfg(test)]
mod tests;
