//! The schedule's part for the torrents of an index.
//!
//! The schedule's part for torrents of an index: they are added in stretches, and the info-hash of
//! each is asked for shortly before it is announced.
//!
//! Owns when an info-hash is wanted and when it is forgotten. It must not know where it is read.

use std::collections::BTreeSet;

use super::{RETRY_S, Schedule, queue_mut, seconds};
use crate::timers::Time;
use crate::torrent::id::TorrentId;
use crate::tracker::blocks::{self, BLOCK, Lists, Stretch};
use crate::tracker::entries::Owner;
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

    /// Begins to announce torrents of an index; the lists are those of [`Schedule::sets`]. Numbers
    /// in a block that is there are ignored.
    pub fn add_stretch(&mut self, stretch: &Stretch, now: Time) {
        if self.stopping || self.torrents.has_block(stretch.block) {
            return;
        }
        let gone = self
            .gone
            .as_ref()
            .map_or(0, |gone| members(gone, stretch.block));
        let stretch = stretch.map(!gone, |set| set);
        let total: u32 = (stretch.members())
            .map(|(_, set)| blocks::length(&self.sets, set))
            .sum();
        if stretch.members == 0 {
            return;
        }
        let owner = Owner::Block(stretch.block);
        let Some(first) = self.entries.allocate(owner, total) else {
            return;
        };
        let held: &[u32] = match &stretch.lists {
            Lists::Same(set) => &[*set],
            Lists::Each(sets) => sets,
        };
        for set in held {
            self.sets.hold(*set);
        }
        let (mut entry, now_s) = (first, seconds(now));
        for (_, set) in stretch.members() {
            for target in self.sets.trackers(set) {
                self.entries.set_due_s(entry, now_s);
                if let Some(queue) = queue_mut(&mut self.queues, target.tracker) {
                    queue.members += 1;
                    queue.push_due(&mut self.entries, entry);
                }
                entry += 1;
            }
        }
        self.torrents.insert_block(stretch, first);
    }

    /// Torrents whose info-hashes are wanted, in the order in which they are announced: so many at
    /// most. Each is answered with [`Schedule::learn`].
    pub fn unread(&mut self, most: usize) -> Vec<TorrentId> {
        let count = self.unread.len().min(most);
        self.unread.drain(..count).collect()
    }

    /// The info-hash of a torrent, or that it could not be read. Answers its list of trackers when
    /// they may wait for it.
    pub fn learn(&mut self, torrent: TorrentId, info_hash: Option<InfoHash>) -> Option<u32> {
        let record = self.torrents.record_mut(torrent)?;
        if record.hash != Hash::Asked {
            return None;
        }
        record.hash = info_hash.map_or(Hash::Unreadable, Hash::Known);
        Some(record.set)
    }

    /// Reads ahead: the next entries of a tracker go on the stage.
    pub(super) fn stage(&mut self, tracker: u32, now: Time) {
        loop {
            let Some(queue) = self.queues.get_mut(tracker as usize) else {
                return;
            };
            // What is urgent and at hand needs no stage.
            if let Some(urgent) = queue.urgent()
                && self.hash_wanted(urgent).is_none()
            {
                return;
            }
            let queue = self.queues.get_mut(tracker as usize);
            let staged = queue.and_then(|queue| queue.stage(&mut self.entries, now, self.stopping));
            let Some(entry) = staged else {
                return;
            };
            if let Some((torrent, Hash::Unread)) = self.hash_wanted(entry)
                && let Some(record) = self.torrents.find_mut(torrent, &self.sets)
            {
                record.hash = Hash::Asked;
                self.unread.push_back(torrent);
            }
        }
    }

    /// What is missing before an entry can be announced: the info-hash of its torrent.
    pub(super) fn hash_wanted(&self, entry: u32) -> Option<(TorrentId, Hash)> {
        let torrent = self.torrent(entry)?;
        let record = self.torrents.find(torrent, &self.sets)?;
        let is_over = (self.stopping || record.ending != Ending::No)
            && !self.entries.is_started_anywhere(entry);
        let is_known = matches!(record.hash, Hash::Known(_));
        (!is_known && !is_over).then_some((torrent, record.hash))
    }

    /// An entry whose info-hash cannot be read waits, as one whose announce has failed.
    pub(super) fn put_off(&mut self, tracker: u32, entry: u32, now: Time) {
        if self.stopping {
            self.forget_started(entry);
        } else {
            let due_s = seconds(now).saturating_add(RETRY_S);
            self.entries.pend(entry, due_s, true);
        }
        self.settle(tracker, entry);
    }

    /// Forgets what was known of a torrent of an index, when nothing is under way of it.
    pub(super) fn rest(&mut self, torrent: TorrentId) {
        let Some(record) = self.torrents.record_mut(torrent) else {
            return;
        };
        let (set, first) = (record.set, record.first);
        let mut entries = first..first + blocks::length(&self.sets, set);
        if !entries.any(|entry| self.entries.is_busy(entry)) {
            self.torrents.settle(torrent);
        }
    }
}

/// The bits of a block for numbers in a set.
fn members(numbers: &BTreeSet<TorrentId>, block: u32) -> u64 {
    let within = numbers.range(blocks::ids(block));
    within.fold(0, |bits, id| bits | 1 << (id.0 % BLOCK))
}

#[cfg(test)]
mod tests;
