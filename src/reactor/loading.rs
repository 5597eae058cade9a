//! From an info-hash to a torrent: at once when it is loaded, else by a loader thread.
//!
//! Owns the threads that load torrents, and who waits for which torrent.

use std::collections::HashMap;
use std::sync::Arc;

use mio::Waker;

use crate::library::catalogue::lookup::{LoadOutcome, Query};
use crate::metrics::StorageCounters;
use crate::peer::key::PeerKey;
use crate::wire::message::InfoHash;
use crate::workers::{IDLE, Pool, PoolConfig, QueueFull};

/// Threads that load torrents. A disk profits from several reads in its queue; each thread needs up
/// to two descriptors.
pub(super) const LOADERS: usize = 16;

/// Most torrents that wait to be loaded, in some 3 MiB: many times more than peers that connect in the time of one read.
const LOADS_MAX: usize = 16 * 1024;

/// The torrents that are being loaded.
pub(super) struct Loads {
    pool: Pool<Query>,
    /// Bounded by the connections: each waits for one torrent at most, and leaves when it closes.
    under_way: HashMap<InfoHash, UnderWay>,
}

/// One job, however many peers wait for it.
#[derive(Default)]
pub(super) struct UnderWay {
    pub(super) waiting: Vec<PeerKey>,
    /// The torrent was added or removed since: the result is of no use.
    pub(super) is_stale: bool,
}

impl Loads {
    /// Starts no thread yet.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let config = PoolConfig {
            role: "loader",
            threads_max: LOADERS,
            queued_max: LOADS_MAX,
            idle: IDLE,
            niceness: 0,
        };
        Self {
            pool: Pool::new(waker, config),
            under_way: HashMap::new(),
        }
    }

    /// Has a torrent loaded for a peer, which joins those who wait for it already.
    pub(super) fn request(&mut self, peer: PeerKey, query: Query) -> Result<(), QueueFull> {
        let info_hash = query.info_hash();
        if !self.under_way.contains_key(&info_hash) {
            self.pool.submit(query)?;
        }
        self.under_way
            .entry(info_hash)
            .or_default()
            .waiting
            .push(peer);
        Ok(())
    }

    /// Forgets a peer that does not wait any longer. The load goes on: another may ask soon.
    pub(super) fn leave(&mut self, info_hash: &InfoHash, peer: PeerKey) {
        if let Some(load) = self.under_way.get_mut(info_hash) {
            load.waiting.retain(|key| *key != peer);
        }
    }

    /// A torrent was added or removed: its load, if one is under way, has to be repeated.
    pub(super) fn outdate(&mut self, info_hash: &InfoHash) {
        if let Some(load) = self.under_way.get_mut(info_hash) {
            load.is_stale = true;
        }
    }

    /// The snapshot of the library was replaced, from which all loads under way come.
    pub(super) fn outdate_all(&mut self) {
        self.under_way
            .values_mut()
            .for_each(|load| load.is_stale = true);
    }

    /// Takes the loads that have ended, each with those who wait for it.
    pub(super) fn take_finished(&mut self) -> Vec<(LoadOutcome, UnderWay)> {
        let outcomes = self.pool.take_outcomes().into_iter();
        outcomes
            .map(|outcome| {
                let load = self.under_way.remove(&outcome.info_hash);
                let load = load.expect("an entry stays until its only job has ended");
                (outcome, load)
            })
            .collect()
    }

    /// Counts the loads among the jobs that read from a disk.
    pub(super) fn add_to(&self, counters: &mut StorageCounters) {
        let load = self.pool.load();
        counters.queued += load.queued;
        counters.readers += load.threads;
        counters.jobs.add(&load.durations);
    }
}
