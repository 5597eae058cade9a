//! Loading torrents: the threads that do it, and which peers wait for which torrent.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

use crate::disks::{Disk, Disks};
use crate::library::catalogue::lookup::{LoadError, Query};
use crate::metrics::StorageCounters;
use crate::peer::key::PeerKey;
use crate::torrent::catalogue::Torrent;
use crate::wire::message::InfoHash;
use crate::workers::{Pool, PoolConfig, QueueFull, Step, contained};

/// Threads that load torrents from one disk. A disk profits from several reads in its queue; each thread
/// needs up to two descriptors.
pub(super) const LOADERS: usize = 8;

/// Torrents that may wait to be loaded, in some 3 MiB: many times more than peers that connect in the
/// time of one read.
const LOADS_MAX: usize = 16 * 1024;

/// The torrents that are being loaded.
pub(super) struct Loads {
    pool: Pool<Disk, LoadOutcome>,
    disks: Disks,
    /// Bounded by the connections: each waits for one torrent at most, and leaves when it closes.
    pending: HashMap<InfoHash, PendingLoad>,
}

/// The result of a load, and what was asked for.
#[derive(Debug)]
pub(super) struct LoadOutcome {
    pub(super) info_hash: InfoHash,
    pub(super) result: Result<Option<Arc<Torrent>>, LoadError>,
}

/// Reads where the metainfo file of a torrent is, on the disk of the index, and goes on there.
fn locate(query: Query, disks: Disks, on: &Disk) -> Step<Disk, LoadOutcome> {
    let info_hash = query.info_hash();
    let end = move |result| Step::Done(Some(LoadOutcome { info_hash, result }));
    let located = match attempt(|| query.locate()) {
        Ok(Some(located)) => located,
        Ok(None) => return end(Ok(None)),
        Err(error) => return end(Err(error)),
    };
    let metainfo = located.path().to_path_buf();
    disks.clone().go(on, metainfo, move |on| {
        let read = match attempt(|| located.read()) {
            Ok(read) => read,
            Err(error) => return end(Err(error)),
        };
        disks.go(&on, read.content_path(), move |_| {
            end(attempt(|| read.check()).map(Some))
        })
    })
}

/// A panic is an error like another.
fn attempt<T>(work: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    contained(work).unwrap_or(Err(LoadError::Panicked))
}

/// One load, for any number of peers.
#[derive(Default)]
pub(super) struct PendingLoad {
    pub(super) waiting: BTreeSet<PeerKey>,
    /// The torrent was added or removed meanwhile: the result is obsolete.
    pub(super) is_stale: bool,
}

impl Loads {
    /// Starts no thread yet.
    pub(super) fn new(waker: Arc<Waker>, disks: Disks) -> Self {
        let loaders = PoolConfig::for_disks("loader", LOADERS, LOADS_MAX);
        Self {
            pool: Pool::new(waker, loaders),
            disks,
            pending: HashMap::new(),
        }
    }

    /// Has a torrent loaded for a peer. Peers that request the same torrent share one load.
    pub(super) fn request(&mut self, peer: PeerKey, query: Query) -> Result<(), QueueFull> {
        let info_hash = query.info_hash();
        if !self.pending.contains_key(&info_hash) {
            let (disks, path) = (self.disks.clone(), query.path().to_path_buf());
            let load = move |disk| locate(query, disks, &disk);
            self.disks.submit_step(&self.pool, path, load)?;
        }
        self.pending
            .entry(info_hash)
            .or_default()
            .waiting
            .insert(peer);
        Ok(())
    }

    /// Removes a peer that does not wait any longer. The load continues: another may ask soon.
    pub(super) fn leave(&mut self, info_hash: &InfoHash, peer: PeerKey) {
        if let Some(load) = self.pending.get_mut(info_hash) {
            load.waiting.remove(&peer);
        }
    }

    /// Marks the load of a torrent that was added or removed, if there is one, as stale.
    pub(super) fn outdate(&mut self, info_hash: &InfoHash) {
        if let Some(load) = self.pending.get_mut(info_hash) {
            load.is_stale = true;
        }
    }

    /// Marks all loads as stale: the snapshot that they come from was replaced.
    pub(super) fn outdate_all(&mut self) {
        self.pending
            .values_mut()
            .for_each(|load| load.is_stale = true);
    }

    /// Takes the loads that have ended, each with the peers that wait for it.
    pub(super) fn take_finished(&mut self) -> Vec<(LoadOutcome, PendingLoad)> {
        let outcomes = self.pool.take_outcomes().into_iter();
        outcomes
            .map(|outcome| {
                let load = self.pending.remove(&outcome.info_hash);
                let load = load.expect("an entry stays until its only job has ended");
                (outcome, load)
            })
            .collect()
    }

    /// Whether something waits for a disk.
    pub(super) fn waits_for_disks(&self) -> bool {
        self.pool.is_busy()
    }

    /// The disks that something has been waiting for at least so long, while nothing has come from them.
    pub(super) fn stuck_disks(&self, at_least: Duration) -> BTreeSet<Disk> {
        self.pool.stuck(at_least).into_iter().collect()
    }

    /// Counts the loads among the jobs that read from a disk.
    pub(super) fn add_to(&self, counters: &mut StorageCounters) {
        let load = self.pool.load();
        counters.queued += load.queued;
        counters.readers += load.threads;
        counters.jobs.add(&load.durations);
    }
}
