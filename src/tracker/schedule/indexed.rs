//! The schedule's part for the torrents of an index.
//!
//! They are added in runs, and the info-hash of each is asked for shortly before it is announced. The
//! caller reads it.

use std::collections::BTreeSet;

use super::{RETRY_S, Schedule, seconds};
use crate::timers::Time;
use crate::torrent::id::TorrentId;
use crate::tracker::entries::Owner;
use crate::tracker::lists::{ListId, TrackerId};
use crate::tracker::runs::{self, RUN_IDS, Run, RunLists};
use crate::tracker::torrents::{Ending, Hash};
use crate::wire::message::InfoHash;

impl Schedule {
    /// An index is going to be added: what is removed meanwhile is not added any more.
    pub fn begin_index(&mut self) {
        self.gone.get_or_insert_default();
    }

    /// The index is there.
    pub fn end_index(&mut self) {
        self.gone = None;
    }

    /// Begins to announce torrents of an index; the lists are those of [`Schedule::lists`]. Numbers
    /// in a run that there is are ignored.
    pub fn add_run(&mut self, run: &Run<ListId>, now: Time) {
        if self.stopping || self.torrents.has_run(run.number) {
            return;
        }
        let gone = self
            .gone
            .as_ref()
            .map_or(0, |gone| members(gone, run.number));
        let run = run.map(!gone, |list| list);
        let total: u32 = (run.members())
            .map(|(_, list)| self.lists.count(list))
            .sum();
        if run.members == 0 {
            return;
        }
        let owner = Owner::Run(run.number);
        let Some(first) = self.entries.allocate(owner, total) else {
            return;
        };
        let held: &[ListId] = match &run.lists {
            RunLists::Same(list) => &[*list],
            RunLists::Each(lists) => lists,
        };
        for list in held {
            self.lists.hold(*list);
        }
        let (mut entry, now_s) = (first, seconds(now));
        for (_, list) in run.members() {
            for target in self.lists.trackers(list) {
                self.entries.set_due_s(entry, now_s);
                let queue = &mut self.queues[target.tracker];
                queue.members += 1;
                queue.push_due(&mut self.entries, entry);
                entry += 1;
            }
        }
        self.torrents.insert_run(run, first);
    }

    /// Torrents whose info-hashes are wanted, in the order in which they are announced: so many at
    /// most. Each is answered with [`Schedule::learn`].
    pub fn unread(&mut self, most: usize) -> Vec<TorrentId> {
        let count = self.unread.len().min(most);
        self.unread.drain(..count).collect()
    }

    /// The info-hash of a torrent, or that it could not be read. Answers its list of trackers when
    /// they may wait for it.
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
            // What is urgent and at hand needs no stage.
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

    /// What is missing before an entry can be announced: the info-hash of its torrent.
    pub(super) fn hash_wanted(&self, entry: u32) -> Option<(TorrentId, Hash)> {
        let torrent = self.torrent(entry)?;
        let record = self.torrents.find(torrent, &self.lists)?;
        let is_over = (self.stopping || record.ending != Ending::No)
            && !self.entries.is_started_anywhere(entry);
        let is_known = matches!(record.hash, Hash::Known(_));
        (!is_known && !is_over).then_some((torrent, record.hash))
    }

    /// An entry whose info-hash cannot be read waits, as one whose announce has failed.
    pub(super) fn put_off(&mut self, tracker: TrackerId, entry: u32, now: Time) {
        if self.stopping {
            self.forget_started(entry);
        } else {
            let due_s = seconds(now).saturating_add(RETRY_S);
            self.entries.pend(entry, due_s, true);
        }
        self.requeue(tracker, entry);
    }

    /// Forgets what was known of a torrent of an index, when nothing is under way of it.
    pub(super) fn forget_quiet(&mut self, torrent: TorrentId) {
        let Some(record) = self.torrents.record_mut(torrent) else {
            return;
        };
        let (list, first) = (record.list, record.first);
        let mut entries = first..first + self.lists.count(list);
        if !entries.any(|entry| self.entries.is_busy(entry)) {
            self.torrents.drop_quiet(torrent);
        }
    }
}

/// The bits of a block for numbers in a list.
fn members(numbers: &BTreeSet<TorrentId>, run: u32) -> u64 {
    let within = numbers.range(runs::ids(run));
    within.fold(0, |bits, id| bits | 1 << (id.0 % RUN_IDS))
}

#[cfg(test)]
mod tests;
