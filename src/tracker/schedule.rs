//! Which torrent is announced to which tracker, and when.
//!
//! There is one queue for each tracker. A tracker that can take an announce is asked for its next
//! torrent, and the outcome comes back as a value. Info-hashes of an index are read by the caller for
//! the torrents that are announced next.
//!
//! ```text
//!             add                take                  finish
//!   (none) ───────▶ first chain ──────▶ under way ─────────────▶ chain of its second ─┐
//!      │               ▲                   ▲  │ returned                │            │
//!      │               │ it has peers, and │  ▼ (back to the front)     │ stage      │
//!      │               │ is due            │                            ▼            │
//!      │               │                   └──────────────────────── on stage        │
//!      │               └──────────────────────────────────────────────────────────────┤
//!      └───────────────────────────────────────────────────────────────────────────────┘
//!         add_indexed: torrents of an index are due when they are added
//! ```

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::access::Access;
use super::announce::{Announce, Event, Retry, Terms};
use super::entries::{Entries, EntryId, EntryState, Owner};
use super::family::Family;
use super::lists::{ListId, PerTracker, SkippedUrl, TrackerId, TrackerLists};
use super::queue::{LEAD_MS, Queue, Upcoming};
use super::runs::run_of;
use super::torrents::{Ending, Hash, Record, Torrents};
use super::url::Site;
use crate::timers::Time;
use crate::torrent::id::TorrentId;
use crate::wire::message::InfoHash;

/// An announce that failed while its tracker answers others is tried again after this time, at the
/// earliest.
pub(super) const RETRY_S: u32 = 300;

/// By less than this it is later, so that many that failed together do not come back together.
const RETRY_JITTER_S: u32 = RETRY_S / 4;

/// How an announce ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The tracker knows the torrent now.
    Accepted(Terms),
    /// The tracker refuses it.
    Refused(Retry),
    /// This announce was not answered.
    Failed,
    /// It was not sent, or its connection broke: it is sent again.
    Returned,
}

/// An announce that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The family that it was sent by.
    pub family: Family,
    /// The event that it reported.
    pub event: Event,
    /// How it ended.
    pub outcome: Outcome,
}

/// An announce that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// Its content.
    pub announce: Announce,
    /// Path and query at its tracker.
    pub path: Arc<str>,
}

/// Every torrent at every tracker.
#[derive(Debug, Default)]
pub struct Schedule {
    torrents: Torrents,
    entries: Entries,
    queues: PerTracker<Queue>,
    /// Torrents that are being removed.
    ending: HashMap<InfoHash, TorrentId>,
    /// Torrents of an index whose info-hashes are to be read.
    unread: VecDeque<TorrentId>,
    /// While an index is being added: torrents that were removed before they were added.
    gone: Option<BTreeSet<TorrentId>>,
    stopping: bool,
}

impl Schedule {
    /// The lists of trackers.
    #[must_use]
    pub fn lists(&self) -> &TrackerLists {
        &self.torrents.lists
    }

    /// The lists of trackers, to hold or release one, or to replace an unlisted tracker.
    pub fn lists_mut(&mut self) -> &mut TrackerLists {
        &mut self.torrents.lists
    }

    /// The id of a list of trackers. See [`TrackerLists::intern`].
    pub fn intern(
        &mut self,
        tiers: &Arc<[Vec<String>]>,
        access: &Access,
        skipped: &mut Vec<SkippedUrl>,
    ) -> ListId {
        let list = self.torrents.lists.intern(tiers, access, skipped);
        self.add_queues();
        list
    }

    /// Adds a tracker that no list names. See [`TrackerLists::add_unlisted`].
    pub fn add_unlisted(&mut self, site: &Site, access: &Access) -> Option<TrackerId> {
        let tracker = self.torrents.lists.add_unlisted(site, access);
        self.add_queues();
        tracker
    }

    /// Each tracker has a queue.
    fn add_queues(&mut self) {
        while self.queues.len() < self.torrents.lists.sites().len() {
            self.queues.push(Queue::default());
        }
    }

    /// How many torrents there are, those that are being removed included.
    #[must_use]
    pub fn torrents(&self) -> usize {
        self.torrents.len()
    }

    /// How many torrents are announced to a tracker.
    #[must_use]
    pub fn members(&self, tracker: TrackerId) -> u32 {
        self.queues[tracker].members
    }

    /// The list of trackers of a torrent.
    #[must_use]
    pub fn list_of(&self, torrent: TorrentId) -> Option<ListId> {
        let record = self.torrents.find(torrent);
        record.map(|record| record.list)
    }

    /// Begins to announce a torrent to the trackers of a list. An id that is announced is ignored.
    ///
    /// If a torrent with the same info-hash is being removed, their common trackers are not sent
    /// `stopped`: it might arrive after the `started` of the new one.
    pub fn add(&mut self, torrent: TorrentId, info_hash: InfoHash, list: ListId, now: Time) {
        let length = self.torrents.lists.count(list);
        if self.torrents.find(torrent).is_some() {
            return;
        }
        // The torrent that it replaces may be the last other one with this list.
        self.torrents.lists.hold(list);
        self.replace(info_hash, list);
        let Some(first) = self.entries.allocate(Owner::Torrent(torrent), length) else {
            self.torrents.lists.release(list);
            return;
        };
        self.torrents.insert(torrent, info_hash, list, first);
        for (entry, tracker) in self.entries_of(list, first) {
            self.entries.set_due_s(entry, seconds(now));
            let queue = &mut self.queues[tracker];
            queue.members += 1;
            queue.push_new(&mut self.entries, entry);
        }
    }

    fn replace(&mut self, info_hash: InfoHash, list: ListId) {
        let Some(&old) = self.ending.get(&info_hash) else {
            return;
        };
        let record = self.torrents.record_mut(old);
        let record = record.expect("a torrent that is being removed has a record");
        record.ending = Ending::Replaced;
        let (old_list, first) = (record.list, record.first);
        let new = self.torrents.lists.trackers(list).iter();
        let new: HashSet<TrackerId> = new.map(|listed| listed.tracker).collect();
        for (entry, tracker) in self.entries_of(old_list, first) {
            let is_common = new.contains(&tracker);
            match self.entries.state(entry) {
                EntryState::First | EntryState::Later if is_common => {
                    self.unlink(tracker, entry);
                    self.entries.forget_started(entry);
                    self.requeue(tracker, entry);
                }
                EntryState::Prefetched if is_common => self.entries.forget_started(entry),
                _ => {}
            }
        }
        self.forget_when_done(old);
    }

    /// Ends announcing a torrent: trackers that know it are sent `stopped`.
    pub fn remove(&mut self, torrent: TorrentId, info_hash: InfoHash) {
        let Some(record) = self.torrents.find_mut(torrent) else {
            if let Some(gone) = &mut self.gone {
                gone.insert(torrent);
            }
            return;
        };
        record.ending = Ending::Removed;
        record.hash = Hash::Known(info_hash);
        let Record { list, first, .. } = *record;
        self.ending.insert(info_hash, torrent);
        for (entry, tracker) in self.entries_of(list, first) {
            if self.entries.is_busy(entry) {
                continue;
            }
            self.unlink(tracker, entry);
            self.requeue(tracker, entry);
        }
        self.forget_when_done(torrent);
    }

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
        if self.torrents.runs.has(number) {
            return;
        }
        let total = run
            .iter()
            .map(|(_, list)| self.torrents.lists.count(*list))
            .sum();
        let Some(first) = self.entries.allocate(Owner::Run(number), total) else {
            return;
        };
        let mut entries = first.following();
        for (_, list) in run {
            for (target, entry) in self.torrents.lists.trackers(*list).iter().zip(&mut entries) {
                self.entries.set_due_s(entry, now_s);
                let queue = &mut self.queues[target.tracker];
                queue.members += 1;
                queue.push_due(&mut self.entries, entry);
            }
        }
        self.torrents.insert_run(run, first);
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

    /// A torrent has peers.
    ///
    /// Returns its list of trackers if they may wait for the info-hash, which is known now.
    pub fn joined(&mut self, torrent: TorrentId, info_hash: InfoHash, now: Time) -> Option<ListId> {
        self.torrents.with_peers.insert(torrent, info_hash);
        self.bring_forward(torrent, info_hash, now)
    }

    /// Brings the torrents with peers that are due to the front. Returns their lists of trackers, as
    /// [`Schedule::joined`] does.
    pub fn bring_all_forward(&mut self, now: Time) -> Vec<ListId> {
        let with_peers = self.torrents.with_peers.clone().into_iter();
        with_peers
            .filter_map(|(torrent, info_hash)| self.bring_forward(torrent, info_hash, now))
            .collect()
    }

    fn bring_forward(
        &mut self,
        torrent: TorrentId,
        info_hash: InfoHash,
        now: Time,
    ) -> Option<ListId> {
        let record = self.torrents.find_mut(torrent)?;
        let was_asked = record.hash == Hash::Asked;
        record.hash = Hash::Known(info_hash);
        let (list, first) = (record.list, record.first);
        if record.ending == Ending::No {
            for (entry, tracker) in self.entries_of(list, first) {
                if self.entries.due_s(entry) <= seconds(now) {
                    self.move_to_front(tracker, entry);
                }
            }
        }
        was_asked.then_some(list)
    }

    /// A tracker that failed is to be tried soon: its next announce is brought forward if it may be one
    /// that has failed there. One that has not is early by no more than the time for which those wait.
    pub fn hasten(&mut self, tracker: TrackerId, now: Time) {
        let last = now.after(1000 * u64::from(RETRY_S + RETRY_JITTER_S));
        let next = self.queues[tracker].upcoming(now);
        if let Some(Upcoming { entry, at }) = next
            && at > now
            && at <= last
        {
            self.move_to_front(tracker, entry);
        }
    }

    /// Puts an entry before all others of its queue, if it waits there.
    fn move_to_front(&mut self, tracker: TrackerId, entry: EntryId) {
        if self.entries.is_linked(entry) {
            let queue = &mut self.queues[tracker];
            queue.unlink(&mut self.entries, entry);
            queue.push_urgent(&mut self.entries, entry);
        }
    }

    /// Returns true if a torrent has peers.
    #[must_use]
    pub fn has_peers(&self, torrent: TorrentId) -> bool {
        self.torrents.with_peers.contains_key(&torrent)
    }

    /// A torrent has no peers any more.
    pub fn left(&mut self, torrent: TorrentId) {
        self.torrents.with_peers.remove(&torrent);
        // At the end its info-hash is still needed, and soon.
        if !self.stopping {
            self.forget_quiet(torrent);
        }
    }

    /// Bytes were uploaded.
    pub fn uploaded(&mut self, torrent: TorrentId, bytes: u64) {
        if self.gone.is_some() || self.torrents.find(torrent).is_some() {
            self.torrents.add_uploaded(torrent, bytes);
        }
    }

    /// Announces nothing but `stopped` from now on: torrents with peers first, the others in any order.
    pub fn stop(&mut self) {
        self.stopping = true;
        for queue in self.queues.rows_mut() {
            while let Some(entry) = queue.take_prefetched(&mut self.entries) {
                queue.push_new(&mut self.entries, entry);
            }
        }
        let with_peers = self.torrents.with_peers.keys();
        let with_peers: Vec<Record> = with_peers
            .filter_map(|torrent| self.torrents.find(*torrent))
            .collect();
        for Record { list, first, .. } in with_peers {
            for (entry, tracker) in self.entries_of(list, first) {
                self.move_to_front(tracker, entry);
            }
        }
    }

    /// Takes the next entry of a tracker, if one is to be announced by now. It has to be given to
    /// [`Schedule::begin`] for some families, then to [`Schedule::dispatched`].
    pub fn take(&mut self, tracker: TrackerId, now: Time) -> Option<EntryId> {
        loop {
            self.prefetch(tracker, now);
            if let Some(urgent) = self.urgent(tracker) {
                self.unlink(tracker, urgent);
                return Some(urgent);
            }
            let next = self.queues[tracker].prefetched()?;
            if next.at > now && !self.stopping {
                return None;
            }
            let wanted = self.hash_wanted(next.entry);
            let queue = &mut self.queues[tracker];
            if matches!(wanted, Some((_, Hash::Asked))) {
                queue.starved();
                return None;
            }
            let entry = queue.take_prefetched(&mut self.entries)?;
            if wanted.is_none() {
                return Some(entry);
            }
            // The info-hash of a prefetched entry was asked for, and its record stays until then.
            assert!(matches!(wanted, Some((_, Hash::Unreadable))), "{wanted:?}");
            self.put_off(tracker, entry, now);
        }
    }

    /// When the next announce to a tracker is due. `None` also while an info-hash is read.
    #[must_use]
    pub fn poll_at(&self, tracker: TrackerId, now: Time) -> Option<Time> {
        let queue = &self.queues[tracker];
        let at = if self.urgent(tracker).is_some() {
            now
        } else if let Some(prefetched) = queue.prefetched() {
            match self.hash_wanted(prefetched.entry) {
                Some((_, Hash::Asked)) => return None,
                _ => prefetched.at,
            }
        } else {
            let next = queue.upcoming(now)?;
            match self.hash_wanted(next.entry) {
                None => next.at,
                Some(_) => Time(next.at.0.saturating_sub(LEAD_MS)),
            }
        };
        Some(if self.stopping { now } else { at })
    }

    /// Returns true if nothing is to be announced to a tracker, now or later. Announces that are under
    /// way do not count.
    #[must_use]
    pub fn is_idle(&self, tracker: TrackerId) -> bool {
        self.queues[tracker].is_empty()
    }

    /// By how many seconds the torrent that waits longest is late at a tracker.
    #[must_use]
    pub fn lateness_s(&self, tracker: TrackerId, now: Time) -> u64 {
        self.queues[tracker].lateness_s(&self.entries, now)
    }

    /// Begins an announce by one family. `None` if there is nothing to announce.
    pub fn begin(&mut self, entry: EntryId, family: Family) -> Option<Due> {
        let due = self.due(entry, family)?;
        self.entries.set_busy(entry, family, true);
        Some(due)
    }

    /// Returns true if an entry has something to announce by one family.
    #[must_use]
    pub fn has_due(&self, entry: EntryId, family: Family) -> bool {
        self.due(entry, family).is_some()
    }

    /// What is to be announced of an entry by one family.
    #[must_use]
    pub fn due(&self, entry: EntryId, family: Family) -> Option<Due> {
        let (torrent, record) = self.torrent(entry);
        let Hash::Known(info_hash) = record.hash else {
            return None;
        };
        let is_started = self.entries.is_started(entry, family);
        let event = match (self.is_ending(&record), is_started) {
            (true, false) => return None,
            (true, true) => Event::Stopped,
            (false, false) => Event::Started,
            (false, true) => Event::None,
        };
        let position = (entry.0 - record.first.0) as usize;
        let listed = self.torrents.lists.trackers(record.list).get(position);
        let listed = listed.expect("a torrent has an entry for each tracker of its list");
        Some(Due {
            announce: Announce {
                info_hash,
                uploaded: self.torrents.uploaded(torrent),
                event,
            },
            path: Arc::clone(&listed.path),
        })
    }

    /// All announces of an entry have begun. It goes back to its queue if none did.
    pub fn dispatched(&mut self, tracker: TrackerId, entry: EntryId) {
        if self.entries.is_busy(entry) {
            return;
        }
        let (torrent, record) = self.torrent(entry);
        if self.is_ending(&record) {
            // A tracker that cannot be reached now is not sent `stopped`.
            self.entries.forget_started(entry);
        }
        self.requeue(tracker, entry);
        self.forget_when_done(torrent);
    }

    /// An announce that had begun has ended. `chance` is any number, another each time.
    pub fn finish(
        &mut self,
        tracker: TrackerId,
        entry: EntryId,
        ended: Ended,
        now: Time,
        chance: u32,
    ) {
        let Ended {
            family,
            event,
            outcome,
        } = ended;
        let (torrent, _) = self.torrent(entry);
        let now_s = seconds(now);
        match outcome {
            // `stopped` is sent once, and again only if it was not sent.
            _ if event == Event::Stopped && outcome != Outcome::Returned => {
                self.entries.set_started(entry, family, false);
            }
            Outcome::Accepted(terms) => {
                self.entries.set_started(entry, family, true);
                let owner = self.entries.owner(entry);
                let due_s = self.queues[tracker].choose_s(now, terms, chance, owner);
                self.entries.pend(entry, due_s, false);
            }
            Outcome::Refused(retry) => {
                let wait_s = match retry {
                    Retry::After(wait_s) => wait_s,
                    Retry::Unsaid => Terms::default().interval_s,
                    Retry::Never => u32::MAX,
                };
                self.entries
                    .pend(entry, now_s.saturating_add(wait_s), false);
            }
            Outcome::Failed => {
                let wait_s = RETRY_S + chance % RETRY_JITTER_S;
                self.entries.pend(entry, now_s.saturating_add(wait_s), true);
            }
            Outcome::Returned => {}
        }
        self.entries.set_busy(entry, family, false);
        if !self.entries.is_busy(entry) {
            self.requeue(tracker, entry);
            self.forget_when_done(torrent);
        }
    }

    /// A tracker has counted the complete peers of an entry whose announce is under way; it counts us
    /// once for each family. Returns the torrent if there is another and it has peers.
    pub fn count_seeds(&mut self, entry: EntryId, seeds: u32) -> Option<TorrentId> {
        let has_other = seeds > self.entries.families(entry);
        self.entries.set_has_other_seed(entry, has_other);
        let (torrent, _) = self.torrent(entry);
        (has_other && self.torrents.with_peers.contains_key(&torrent)).then_some(torrent)
    }

    /// Returns true if a tracker has counted another complete peer of a torrent when it answered last.
    #[must_use]
    pub fn has_other_seed(&self, torrent: TorrentId) -> bool {
        let Some(Record { list, first, .. }) = self.torrents.find(torrent) else {
            return false;
        };
        let length = self.torrents.lists.count(list) as usize;
        let mut entries = first.following().take(length);
        entries.any(|entry| self.entries.has_other_seed(entry))
    }

    /// The torrent of an entry that is in a queue or under way.
    fn torrent(&self, entry: EntryId) -> (TorrentId, Record) {
        let owner = self.entries.owner(entry);
        let torrent = self.torrents.torrent(owner, entry);
        let record = self.torrents.find(torrent);
        (
            torrent,
            record.expect("it is announced while it has entries"),
        )
    }

    /// Returns true if nothing but `stopped` is announced of a torrent.
    fn is_ending(&self, record: &Record) -> bool {
        self.stopping || record.ending != Ending::No
    }

    /// The entry that goes before all others of a tracker, if its info-hash is known.
    fn urgent(&self, tracker: TrackerId) -> Option<EntryId> {
        let urgent = self.queues[tracker].urgent();
        urgent.filter(|entry| self.hash_wanted(*entry).is_none())
    }

    fn unlink(&mut self, tracker: TrackerId, entry: EntryId) {
        if self.entries.is_linked(entry) {
            let queue = &mut self.queues[tracker];
            queue.unlink(&mut self.entries, entry);
        }
    }

    /// Puts an entry, which is in no chain and has nothing under way, into its queue.
    fn requeue(&mut self, tracker: TrackerId, entry: EntryId) {
        let (torrent, record) = self.torrent(entry);
        if record.ending == Ending::Replaced {
            // Nothing is announced of a replaced torrent but what was under way.
            self.entries.forget_started(entry);
        }
        let is_ending = self.is_ending(&record);
        let queue = &mut self.queues[tracker];
        if is_ending && self.entries.is_started_anywhere(entry) {
            if self.torrents.with_peers.contains_key(&torrent) {
                queue.push_urgent(&mut self.entries, entry);
            } else {
                queue.push_new(&mut self.entries, entry);
            }
            return;
        }
        if is_ending {
            queue.members -= 1;
            if let Some(record) = self.torrents.record_mut(torrent) {
                record.live -= 1;
            }
        } else if let Some(due_s) = self.entries.pending_s(entry) {
            self.entries.set_due_s(entry, due_s);
            queue.push_due(&mut self.entries, entry);
        } else {
            queue.push_urgent(&mut self.entries, entry);
        }
        self.forget_quiet(torrent);
    }

    fn forget_when_done(&mut self, torrent: TorrentId) {
        let record = self.torrents.record_mut(torrent).copied();
        let is_done = |record: &Record| record.live == 0 && self.is_ending(record);
        let Some(Record { hash, .. }) = record.filter(is_done) else {
            return;
        };
        if let Hash::Known(info_hash) = hash
            && self.ending.get(&info_hash) == Some(&torrent)
        {
            self.ending.remove(&info_hash);
        }
        if let Some((first, length)) = self.torrents.remove(torrent) {
            self.entries.release(first, length);
        }
    }

    /// The entries of a torrent, each with its tracker.
    fn entries_of(&self, list: ListId, first: EntryId) -> Vec<(EntryId, TrackerId)> {
        let trackers = self.torrents.lists.trackers(list).iter();
        let trackers = trackers.map(|target| target.tracker);
        first.following().zip(trackers).collect()
    }

    /// Reads ahead: the next entries of a tracker are prefetched.
    fn prefetch(&mut self, tracker: TrackerId, now: Time) {
        loop {
            // An urgent entry whose info-hash is known goes first.
            if self.urgent(tracker).is_some() {
                return;
            }
            let queue = &mut self.queues[tracker];
            let Some(entry) = queue.prefetch(&mut self.entries, now, self.stopping) else {
                return;
            };
            if let Some((torrent, Hash::Unread)) = self.hash_wanted(entry)
                && let Some(record) = self.torrents.find_mut(torrent)
            {
                record.hash = Hash::Asked;
                self.unread.push_back(torrent);
            }
        }
    }

    /// The torrent of an entry, if its info-hash has to be read before the entry can be announced.
    fn hash_wanted(&self, entry: EntryId) -> Option<(TorrentId, Hash)> {
        let (torrent, record) = self.torrent(entry);
        let is_over = self.is_ending(&record) && !self.entries.is_started_anywhere(entry);
        let is_known = matches!(record.hash, Hash::Known(_));
        (!is_known && !is_over).then_some((torrent, record.hash))
    }

    /// Puts an entry whose info-hash cannot be read back, like one whose announce has failed.
    fn put_off(&mut self, tracker: TrackerId, entry: EntryId, now: Time) {
        if self.stopping {
            self.entries.forget_started(entry);
        } else {
            let due_s = seconds(now).saturating_add(RETRY_S);
            self.entries.pend(entry, due_s, true);
        }
        self.requeue(tracker, entry);
    }

    /// Drops the record of a torrent of an index if nothing of it is under way.
    fn forget_quiet(&mut self, torrent: TorrentId) {
        let Some(&mut Record { list, first, .. }) = self.torrents.record_mut(torrent) else {
            return;
        };
        let length = self.torrents.lists.count(list) as usize;
        let mut entries = first.following().take(length);
        if !entries.any(|entry| self.entries.is_busy(entry)) {
            self.torrents.drop_quiet(torrent);
        }
    }
}

fn seconds(time: Time) -> u32 {
    u32::try_from(time.0 / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
