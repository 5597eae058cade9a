//! Loading torrents: the threads that do it, and which peers wait for which torrent.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;

use crate::disks::{Disk, Disks, Followed};
use crate::library::catalogue::lookup::{LoadError, ObfuscatedQuery, Query};
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

/// What loads may take at the same time, apart from one for each disk: metainfo files of 32 MiB together,
/// hundreds of usual ones. Unit: bytes.
const LOAD_BYTES_MAX: u64 = 128 << 20;

/// What a load takes for each byte of its metainfo file, if that names many small files: the file, and the
/// list of files that is made of it. Unit: bytes.
const LOAD_FACTOR: u64 = 4;

/// The torrents that are being loaded.
pub(super) struct Loads {
    budget: Arc<Budget>,
    pool: Pool<Disk, Finished>,
    disks: Disks,
    /// As many as the pool has jobs. Those that wait are bounded by the connections: each waits for one
    /// torrent at most, and leaves when it closes.
    pending: HashMap<InfoHash, PendingLoad>,
}

/// The result of a load, and what was asked for.
#[derive(Debug)]
pub(super) struct LoadOutcome {
    pub(super) info_hash: InfoHash,
    pub(super) result: Result<Option<Arc<Torrent>>, LoadError>,
}

/// What a loader has done.
#[derive(Debug)]
pub(super) enum Finished {
    /// A torrent is loaded, or cannot be.
    Load(LoadOutcome),
    /// The info-hash for which a peer has said another hash.
    Name(PeerKey, Result<Option<InfoHash>, LoadError>),
}

/// Reads where the metainfo file of a torrent is, on the disk of the index, and goes on there.
fn locate(
    query: Query,
    disks: Disks,
    budget: Arc<Budget>,
    on: Result<Disk, QueueFull>,
) -> Step<Disk, Finished> {
    let info_hash = query.info_hash();
    let end = move |result| Step::Done(Some(Finished::Load(LoadOutcome { info_hash, result })));
    let (on, located) = match attempt(|| Ok((on?, query.locate()?))) {
        Ok((on, Some(located))) => (on, located),
        Ok((_, None)) => return end(Ok(None)),
        Err(error) => return end(Err(error)),
    };
    let metainfo = located.path().to_path_buf();
    disks.clone().go(&on, metainfo, move |on| {
        let on = match on {
            Ok(on) => on,
            Err(full) => return end(Err(full.into())),
        };
        // A file that cannot be read takes nothing.
        let length = located.path().metadata().map_or(0, |found| found.len());
        let mut share = budget.take(&on, length.saturating_mul(LOAD_FACTOR));
        let read = match attempt(|| located.read()) {
            Ok(read) => read,
            Err(error) => return end(Err(error)),
        };
        let content = disks.follow(&read.content_path(), &on);
        if let Ok(Followed::Leaves(path)) = &content
            && let Err(full) = share.go_to(disks.of(path))
        {
            return end(Err(full.into()));
        }
        let check = move |on: Result<Disk, QueueFull>| {
            let result = attempt(|| {
                on?;
                read.check()
            });
            let result = result.map(Some);
            drop(share);
            end(result)
        };
        match content {
            Ok(Followed::Leaves(path)) => disks.go(&on, path, check),
            // If something is wrong with the path, the check will find it too.
            Ok(Followed::Ends(_)) | Err(_) => check(Ok(on)),
        }
    })
}

/// The memory of the loads that are under way, each for the disk that it waits for. A disk that hangs keeps
/// what it has, and the others have room for one load each at least.
#[derive(Default)]
struct Budget {
    disks: Mutex<HashMap<Disk, DiskBudget>>,
    freed: Condvar,
}

/// What the loads from one disk take. They wait in the order in which they come.
#[derive(Default)]
struct DiskBudget {
    bytes: u64,
    waiting: u64,
    served: u64,
}

impl Budget {
    /// Takes so many bytes. Waits until they are there.
    fn take(self: Arc<Self>, disk: &Disk, bytes: u64) -> BudgetShare {
        let bytes = bytes.min(LOAD_BYTES_MAX);
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let own = disks.entry(disk.clone()).or_default();
        let number = own.waiting;
        own.waiting += 1;
        let must_wait = |disks: &mut HashMap<Disk, DiskBudget>| {
            let all_bytes: u64 = disks.values().map(|disk| disk.bytes).sum();
            let own = disks.entry(disk.clone()).or_default();
            let has_room = own.bytes == 0 || all_bytes + bytes <= LOAD_BYTES_MAX;
            own.served != number || !has_room
        };
        let waited = self.freed.wait_while(disks, must_wait);
        disks = waited.unwrap_or_else(PoisonError::into_inner);
        let own = disks.entry(disk.clone()).or_default();
        own.served += 1;
        own.bytes += bytes;
        drop(disks);
        self.freed.notify_all();
        BudgetShare {
            budget: self,
            disk: disk.clone(),
            bytes,
        }
    }
}

/// A part of the budget, until this is dropped.
struct BudgetShare {
    budget: Arc<Budget>,
    disk: Disk,
    bytes: u64,
}

impl BudgetShare {
    /// The load waits for another disk now. Does not wait itself: if that disk has half of what is left to
    /// it already, the load must end.
    fn go_to(&mut self, disk: Disk) -> Result<(), QueueFull> {
        if disk == self.disk {
            return Ok(());
        }
        let disks = self.budget.disks.lock();
        let mut disks = disks.unwrap_or_else(PoisonError::into_inner);
        let all_bytes: u64 = disks.values().map(|disk| disk.bytes).sum();
        let other = disks.entry(disk.clone()).or_default();
        let left_bytes = LOAD_BYTES_MAX.saturating_sub(all_bytes - other.bytes - self.bytes);
        if other.bytes > 0 && other.bytes + self.bytes > left_bytes / 2 {
            return Err(QueueFull);
        }
        other.bytes += self.bytes;
        self.give_back(disks);
        self.disk = disk;
        Ok(())
    }

    fn give_back(&self, mut disks: MutexGuard<'_, HashMap<Disk, DiskBudget>>) {
        if let Some(own) = disks.get_mut(&self.disk) {
            own.bytes -= self.bytes;
            if own.bytes == 0 && own.served == own.waiting {
                disks.remove(&self.disk);
            }
        }
        drop(disks);
        self.budget.freed.notify_all();
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        let disks = self.budget.disks.lock();
        self.give_back(disks.unwrap_or_else(PoisonError::into_inner));
    }
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
            budget: Arc::default(),
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
            let budget = Arc::clone(&self.budget);
            let load = move |on| locate(query, disks, budget, on);
            self.disks.submit_step(&self.pool, path, load)?;
        }
        self.pending
            .entry(info_hash)
            .or_default()
            .waiting
            .insert(peer);
        Ok(())
    }

    /// Has the index read for the torrent that a peer has named by its obfuscated hash.
    pub(super) fn name(&mut self, peer: PeerKey, query: ObfuscatedQuery) -> Result<(), QueueFull> {
        let path = query.path().to_path_buf();
        self.disks.submit(&self.pool, path, move |disk| {
            let found = attempt(|| {
                disk?;
                Ok(query.info_hash()?)
            });
            Some(Finished::Name(peer, found))
        })
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

    /// Takes what has ended.
    pub(super) fn take_finished(&mut self) -> Vec<Finished> {
        self.pool.take_outcomes()
    }

    /// Takes the peers that waited for a load that has ended.
    pub(super) fn take_pending(&mut self, info_hash: &InfoHash) -> PendingLoad {
        let load = self.pending.remove(info_hash);
        load.expect("an entry stays until its only job has ended")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn loads_wait_for_memory_in_their_order_and_those_of_another_disk_do_not() {
        let disks = Disks::read();
        let [one, other] = ["/", "/proc"].map(|path| disks.of(Path::new(path)));
        assert_ne!(one, other);
        let budget = Arc::new(Budget::default());
        let large = Arc::clone(&budget).take(&one, u64::MAX);
        let (sender, taken) = channel();
        for number in [1, 2] {
            let (budget, disk, ours) = (Arc::clone(&budget), one.clone(), sender.clone());
            let is_queued = |budget: &Budget| {
                let disks = budget.disks.lock().unwrap();
                disks
                    .get(&one)
                    .is_some_and(|disk| disk.waiting == number + 1)
            };
            let waits = Arc::clone(&budget);
            thread::spawn(move || {
                let share = budget.take(&disk, LOAD_BYTES_MAX / number);
                ours.send((number, share)).unwrap();
            });
            while !is_queued(&waits) {
                thread::yield_now();
            }
        }
        // The first of another disk has room whatever others take, the second has none.
        let first = Arc::clone(&budget).take(&other, LOAD_BYTES_MAX);
        let waited = taken.recv_timeout(Duration::from_millis(10));
        assert!(matches!(waited, Err(RecvTimeoutError::Timeout)));
        drop(first);
        drop(large);
        let (number, share) = taken.recv_timeout(DEADLINE).unwrap();
        assert_eq!(number, 1);
        drop(share);
        assert_eq!(taken.recv_timeout(DEADLINE).unwrap().0, 2);
        assert!(budget.disks.lock().unwrap().is_empty());
    }

    #[test]
    fn loads_that_wait_for_content_on_another_disk_leave_memory_to_their_first() {
        let disks = Disks::read();
        let [metainfo, content] = ["/", "/proc"].map(|path| disks.of(Path::new(path)));
        let budget = Arc::new(Budget::default());
        let ours = Arc::clone(&budget);
        let (sender, went) = channel();
        thread::spawn(move || {
            for _ in 0..100 {
                let mut share = Arc::clone(&budget).take(&metainfo, LOAD_BYTES_MAX / 8);
                let gone = share.go_to(content.clone());
                sender.send(gone.map(|()| share)).unwrap();
            }
        });
        let shares = (0..100).map(|_| went.recv_timeout(DEADLINE).unwrap());
        let shares: Vec<BudgetShare> = shares.flatten().collect();
        assert_eq!(shares.len(), 4, "half of all");
        drop(shares);
        assert!(ours.disks.lock().unwrap().is_empty());
    }
}
