//! Content on disk: mappings, the answer to "would this block?", and the readers that may block.
//!
//! Owns which files are mapped, which failed and who waits for what. A [`PeerKey`] is carried and
//! returned, no more. Every function of [`Storage`] is for the loop and does not wait for a disk: work
//! that may block goes to the readers, whose results [`Storage::collect`] returns after they have woken
//! the loop.
//!
//! That includes hints: `madvise(MADV_WILLNEED)` waits for the file's extents and for room in the
//! device's queue, which on a busy disk takes as long as a read.

mod checking;
pub mod content;
mod hashing;
mod jobs;
pub(crate) mod ledger;
mod ledger_writer;
mod mappings;
mod residency;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

pub use self::checking::BadPiece;
use self::checking::Checking;
use self::content::{Content, ReadError};
pub use self::jobs::Completion;
use self::jobs::{Outcome, attempt};
pub use self::ledger::PieceStatus;
use self::ledger::Stamps;
pub use self::mappings::{IDLE_MS, REVALIDATE_MS};
use self::mappings::{MappingLookup, Mappings};
use self::residency::Residency;
use crate::disks::{Disk, Disks};
use crate::metrics::StorageCounters;
use crate::peer::key::PeerKey;
use crate::timers::Time;
use crate::torrent::catalogue::Torrent;
use crate::torrent::id::TorrentId;
use crate::torrent::layout::ExtentSource;
pub use crate::workers::{FAILED_RETRY_MS, QueueFull};
use crate::workers::{Failures, Pool, PoolConfig, contained};

/// Most jobs that wait for a reader. A peer waits for one block at a time, so this is one for each of
/// many peers whose content is all cold; it costs some 2 MiB.
const READS_MAX: usize = 16 * 1024;

/// Idle mappings that are let go in one turn of the loop; the others follow in the next.
const RELEASED_AT_ONCE: usize = 64;

/// The number under which a torrent's metainfo file is remembered: no torrent has so many files.
const METAINFO_FILE: u32 = u32::MAX;

/// Names one file of one torrent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileKey {
    /// [`Torrent::id`].
    pub torrent: TorrentId,
    /// The index in the torrent.
    pub file: u32,
}

impl FileKey {
    fn new(torrent: &Torrent, file: u32) -> Self {
        Self {
            torrent: torrent.id,
            file,
        }
    }
}

/// The bounds of a [`Storage`]. Zero is taken as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StorageLimits {
    /// Most files mapped at a time, apart from those that a job or a batch still holds. They cost
    /// no descriptors; the kernel allows `vm.max_map_count`, by default 65,530.
    pub mappings: usize,
    /// Most threads that may wait for one disk at a time.
    pub readers: usize,
}

impl StorageLimits {
    /// Half of the kernel's default of `vm.max_map_count`, which counts every mapping of the
    /// process. A disk profits from many reads in its queue, and each thread costs a few pages.
    pub const DEFAULT: Self = Self {
        mappings: 32_765,
        readers: 24,
    };
}

/// What is known of a file without looking at it.
#[derive(Debug)]
pub enum Lookup {
    /// It is mapped. Whether its bytes are in memory is another question.
    Mapped(Arc<Content>),
    /// It is not mapped: [`Storage::read`] maps it.
    Absent,
    /// It could not be read less than [`FAILED_RETRY_MS`] ago; the reason came as a [`Completion`].
    Failed,
}

/// One read, for any number of peers.
struct PendingRead {
    peers: Vec<PeerKey>,
    /// The torrent was removed meanwhile: a file that is opened for it is not kept.
    is_gone: bool,
}

/// The mapped content of all torrents, as the loop sees it.
pub struct Storage {
    files: Mappings,
    failed: Failures<FileKey>,
    /// Who waits for the range of a file that starts at this byte: one job, however many peers.
    reads: HashMap<(FileKey, u64), PendingRead>,
    /// Answers that needed no reader.
    ready: Vec<Completion>,
    residency: Residency,
    pool: Pool<Disk, Outcome>,
    disks: Disks,
    /// Which pieces may be served, when not all may.
    checking: Option<Checking>,
    /// The time of the latest look-up or collection.
    now: Time,
    /// Questions answered by yes, and ranges handed to a reader.
    resident: u64,
    absent: u64,
}

impl Storage {
    /// Nothing is mapped and no thread is started yet. The readers wake the loop by `waker`.
    #[must_use]
    pub fn new(waker: Arc<Waker>, limits: StorageLimits, disks: Disks) -> Self {
        let mappings = NonZeroUsize::new(limits.mappings).unwrap_or(NonZeroUsize::MIN);
        let readers = PoolConfig::for_disks("reader", limits.readers.max(1), READS_MAX);
        Self {
            files: Mappings::new(mappings),
            failed: Failures::default(),
            reads: HashMap::new(),
            ready: Vec::new(),
            residency: Residency::new(),
            pool: Pool::new(waker, readers),
            disks,
            checking: None,
            now: Time::default(),
            resident: 0,
            absent: 0,
        }
    }

    /// Looks a file up, in memory only. A mapping not checked for [`REVALIDATE_MS`] is checked by a
    /// reader meanwhile; if its file has changed it is forgotten then, and the next read opens it again.
    pub fn lookup(&mut self, key: FileKey, now: Time) -> Lookup {
        self.now = now;
        match self.files.find(key, now) {
            MappingLookup::Usable(content) => Lookup::Mapped(content),
            MappingLookup::Due(content) => {
                let checked = Arc::clone(&content);
                let check = move || {
                    Some(Outcome::Checked {
                        key,
                        current: contained(|| checked.is_current()).unwrap_or(false),
                        content: checked,
                    })
                };
                // When the queue is full the next look-up tries again.
                if self.pool.submit(content.disk(), check).is_ok() {
                    self.files.checking(&key);
                }
                Lookup::Mapped(content)
            }
            MappingLookup::Stale(content) => {
                self.release(content);
                Lookup::Absent
            }
            MappingLookup::Absent if self.failed.contains(&key, now) => Lookup::Failed,
            MappingLookup::Absent => Lookup::Absent,
        }
    }

    /// Whether sending this range would *not* wait for a disk. In doubt the answer is no.
    #[must_use]
    pub fn is_resident(&mut self, content: &Content, range: Range<u64>) -> bool {
        let (probe, mapping) = (content.probe(), content.mapping());
        let resident = self.residency.is_resident(probe, mapping, range);
        self.resident += u64::from(resident);
        resident
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> StorageCounters {
        let load = self.pool.load();
        StorageCounters {
            resident: self.resident,
            absent: self.absent,
            queued: load.queued,
            readers: load.threads,
            jobs: load.durations,
            mappings: self.files.len() as u64,
            pieces: self.piece_counters(),
        }
    }

    /// Has a range of a file brought into memory, mapping the file when it is not mapped. There is
    /// one job for each start of a range; later peers join those who wait for it.
    ///
    /// # Errors
    /// [`QueueFull`]; then no [`Completion`] follows.
    pub fn read(
        &mut self,
        peer: PeerKey,
        torrent: &Arc<Torrent>,
        file: u32,
        range: Range<u64>,
    ) -> Result<(), QueueFull> {
        let key = FileKey::new(torrent, file);
        let start = (key, range.start);
        self.absent += 1;
        if let Some(read) = self.reads.get_mut(&start) {
            read.peers.push(peer);
            return Ok(());
        }
        let content = self.files.peek(&key).cloned();
        let torrent = Arc::clone(torrent);
        let outcome = move |torrent, range, opened, result| {
            Some(Outcome::Read {
                torrent,
                key,
                range,
                opened,
                result,
            })
        };
        match content {
            Some(content) => self.pool.submit(&content.disk().clone(), move || {
                let result = attempt(|| jobs::read(content, &range));
                outcome(torrent, range, false, result)
            }),
            None => {
                let path = torrent.content_path(file);
                self.disks.submit(&self.pool, path, move |disk| {
                    let open = || Content::open(&torrent, file, &disk?).map(Arc::new);
                    let result = attempt(|| jobs::read(open()?, &range));
                    outcome(torrent, range, true, result)
                })
            }
        }?;
        let (peers, is_gone) = (vec![peer], false);
        self.reads.insert(start, PendingRead { peers, is_gone });
        Ok(())
    }

    /// Has a block copied together that lies in too many files to be sent from their mappings.
    /// Units: bytes of the torrent.
    ///
    /// # Errors
    /// [`QueueFull`]; then no [`Completion`] follows.
    pub fn gather(
        &mut self,
        peer: PeerKey,
        torrent: &Arc<Torrent>,
        offset: u64,
        length: u32,
    ) -> Result<(), QueueFull> {
        let extents = torrent.layout.extents(offset, u64::from(length));
        let mut keys = extents.filter_map(|extent| match extent.source {
            ExtentSource::File(file) => Some(FileKey::new(torrent, file)),
            ExtentSource::Zeros => None,
        });
        // The other files are near the first, as a rule.
        let path = torrent.content_path(keys.clone().next().map_or(0, |key| key.file));
        for key in keys.by_ref() {
            if self.failed.contains(&key, self.now) {
                self.answer(Completion::Gathered {
                    peer,
                    offset,
                    length,
                    result: Err(ReadError::FailedBefore),
                });
                return Ok(());
            }
        }
        let torrent = Arc::clone(torrent);
        self.disks.submit(&self.pool, path, move |disk| {
            let (mut stamps, mut file) = (Stamps::new(), None);
            let result = attempt(|| {
                disk?;
                jobs::gather(&torrent, offset, length, &mut stamps, &mut file)
            });
            Some(Outcome::Gathered {
                peer,
                offset,
                length,
                stamps,
                to_blame: file.map(|file| FileKey::new(&torrent, file)),
                torrent,
                result,
            })
        })
    }

    /// Has a piece of the info dictionary read (BEP 9). A [`Completion`] always follows.
    pub fn metadata(&mut self, peer: PeerKey, torrent: &Arc<Torrent>, piece: u32) {
        let file = FileKey::new(torrent, METAINFO_FILE);
        let refused = match self.failed.contains(&file, self.now) {
            true => Some(ReadError::FailedBefore),
            false => {
                let torrent = Arc::clone(torrent);
                let path = torrent.metainfo_path();
                let submitted = self.disks.submit(&self.pool, path, move |disk| {
                    let result = attempt(|| {
                        disk?;
                        jobs::read_metadata(&torrent, piece)
                    });
                    Some(Outcome::Metadata {
                        torrent: torrent.id,
                        completion: Completion::Metadata {
                            peer,
                            piece,
                            result,
                        },
                    })
                });
                submitted.err().map(ReadError::from)
            }
        };
        if let Some(error) = refused {
            self.answer(Completion::Metadata {
                peer,
                piece,
                result: Err(error),
            });
        }
    }

    /// Whether something waits for a disk.
    #[must_use]
    pub fn waits_for_disks(&self) -> bool {
        let hashers = self.checking.as_ref().map(|checking| &checking.pool);
        self.pool.is_busy() || hashers.is_some_and(Pool::is_busy)
    }

    /// The disks that something has been waiting for at least so long, while nothing has come from them.
    #[must_use]
    pub fn stuck_disks(&self, at_least: Duration) -> BTreeSet<Disk> {
        let hashers = self.checking.as_ref().map(|checking| &checking.pool);
        let hashers = hashers.map_or_else(Vec::new, |pool| pool.stuck(at_least));
        let readers = self.pool.stuck(at_least).into_iter();
        readers.chain(hashers).collect()
    }

    /// Appends the results that have arrived to `completions`. For the loop, after it was woken.
    pub fn collect(&mut self, now: Time, completions: &mut Vec<Completion>) {
        self.now = now;
        completions.append(&mut self.ready);
        for outcome in self.pool.take_outcomes() {
            completions.extend(self.settle(outcome));
        }
        self.collect_pieces(completions);
    }

    /// When [`Storage::run_due`] has something to do.
    #[must_use]
    pub fn poll_at(&self) -> Option<Time> {
        let checking = self.checking.as_ref().and_then(Checking::poll_at);
        [checking, self.files.next_idle()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due: releases mappings that nobody uses, and has the ledger's changes written. Never
    /// blocks.
    pub fn run_due(&mut self, now: Time) {
        for _ in 0..RELEASED_AT_ONCE {
            let Some(content) = self.files.remove_idle(now) else {
                break;
            };
            self.release(content);
        }
        if let Some(checking) = &mut self.checking {
            checking.save_due(now);
        }
    }

    /// Forgets the mapping of a file, for the loop that got EFAULT. The next read opens it again.
    pub fn invalidate(&mut self, key: FileKey) {
        if let Some(content) = self.files.remove(key) {
            self.release(content);
        }
    }

    /// Forgets every mapping of these torrents, by [`Torrent::id`], which are not served any more.
    pub fn forget(&mut self, torrents: &HashSet<TorrentId>) {
        for content in self.files.remove_torrents(torrents) {
            self.release(content);
        }
        for ((key, _), read) in &mut self.reads {
            read.is_gone |= torrents.contains(&key.torrent);
        }
    }

    fn settle(&mut self, outcome: Outcome) -> Option<Completion> {
        match outcome {
            Outcome::Read {
                torrent,
                key,
                range,
                opened,
                result,
            } => {
                let read = self.reads.remove(&(key, range.start));
                let PendingRead { peers, is_gone } =
                    read.expect("an entry stays until its only job has ended");
                match &result {
                    Ok(content) if opened && is_gone => self.release(Arc::clone(content)),
                    Ok(content) if opened => self.keep(&torrent, key, content),
                    Ok(_) => {}
                    Err(_) => {
                        self.failed.add(key, self.now);
                        self.invalidate(key);
                    }
                }
                Some(Completion::Read {
                    peers,
                    key,
                    range,
                    result,
                })
            }
            Outcome::Gathered {
                peer,
                offset,
                length,
                torrent,
                stamps,
                to_blame,
                mut result,
            } => {
                if self.seen(&torrent, &stamps) {
                    // It was hashed as it was before.
                    result = Err(ReadError::FailedBefore);
                }
                if let Some(key) = to_blame {
                    self.failed.add(key, self.now);
                }
                Some(Completion::Gathered {
                    peer,
                    offset,
                    length,
                    result,
                })
            }
            Outcome::Metadata {
                torrent,
                completion,
            } => {
                if let Some(ReadError::Metainfo(..)) = completion.failure() {
                    let file = METAINFO_FILE;
                    self.failed.add(FileKey { torrent, file }, self.now);
                }
                Some(completion)
            }
            Outcome::Checked {
                key,
                content,
                current,
            } => {
                let old = self.files.checked(key, &content, current, self.now);
                old.into_iter().for_each(|content| self.release(content));
                None
            }
        }
    }

    /// Keeps a file mapped that was just opened.
    fn keep(&mut self, torrent: &Torrent, key: FileKey, content: &Arc<Content>) {
        self.seen(torrent, &[(key.file, content.stamp())]);
        self.failed.remove(&key);
        if let Some(evicted) = self.files.keep(key, content, self.now) {
            self.release(evicted);
        }
    }

    /// Leaves the unmapping to a reader: 1.5 GiB took 5 to 12 ms.
    fn release(&self, content: Arc<Content>) {
        let disk = content.disk().clone();
        let release = move || {
            drop(content);
            None
        };
        // When the queue is full the loop must take the time.
        let _ = self.pool.submit(&disk, release);
    }

    /// Answers without a reader, by the same way.
    fn answer(&mut self, completion: Completion) {
        self.ready.push(completion);
        self.pool.wake();
    }
}

#[cfg(test)]
mod tests;
