//! Content on disk: mappings, the answer to "would this block?", and the readers that may block.
//!
//! Owns which files are mapped, which failed and who waits for what. It must not know sockets or
//! the protocol: a [`PeerKey`] is carried and handed back, no more. Every function of [`Storage`]
//! is for the loop and never waits for a disk; what would goes to the readers, whose answers
//! [`Storage::collect`] hands out after they have woken the loop.
//!
//! That includes hints: `madvise(MADV_WILLNEED)` waits for the file's extents and for room in the
//! device's queue, which on a busy disk takes as long as a read.

mod checking;
pub mod content;
mod hashing;
mod jobs;
mod ledger;
mod readers;
mod remembering;
mod residency;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use lru::LruCache;
use mio::Waker;

use self::checking::Checking;
pub use self::checking::{BadPiece, Trust};
use self::content::{Content, ReadError};
use self::jobs::{Job, Outcome};
pub use self::readers::QueueFull;
use self::readers::{Crew, IDLE, Pool};
use self::residency::Residency;
use crate::library::served::{LoadError, Query};
use crate::metrics::StorageCounters;
use crate::peer::PeerKey;
use crate::timers::Time;
use crate::torrent::catalogue::Torrent;
use crate::torrent::layout::Source;
use crate::wire::message::InfoHash;

/// How long a mapping is believed to be of the file that its path leads to.
pub const REVALIDATE_MS: u64 = 10_000;

/// How long a file that could not be read is not tried again, so that no peer can make a disk seek
/// at will for what is not there.
pub const FAILED_RETRY_MS: u64 = 2_000;

/// Most failed files remembered, in some 400 KiB. When more fail at once, as those of a disk that
/// is gone may, the first are tried again sooner.
const FAILED_FILES_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// The number under which a torrent's metainfo file is remembered: no torrent has so many files.
const METAINFO_FILE: u32 = u32::MAX;

/// Names one file of one torrent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileKey {
    /// [`Torrent::id`].
    pub torrent: u32,
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
    /// Most threads that may wait for a disk at a time.
    pub readers: usize,
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

/// What the readers have done.
#[derive(Debug)]
pub enum Completion {
    /// A range of a file is in memory, or cannot be brought there. Blocks within the range may be
    /// sent from this content without asking again: under memory pressure, asking could go round in
    /// circles.
    Read {
        /// All who asked for a range that starts there, once for each time they did.
        peers: Vec<PeerKey>,
        /// The file.
        key: FileKey,
        /// What was read, in bytes of the file. It may end before what a later peer asked for.
        range: Range<u64>,
        /// The file, mapped.
        result: Result<Arc<Content>, ReadError>,
    },
    /// A block was copied together.
    Gathered {
        /// Who asked.
        peer: PeerKey,
        /// In bytes of the torrent.
        offset: u64,
        /// In bytes.
        length: u32,
        /// Exactly that many bytes.
        result: Result<Box<[u8]>, ReadError>,
    },
    /// A piece of the info dictionary was read (BEP 9).
    Metadata {
        /// Who asked.
        peer: PeerKey,
        /// Its number.
        piece: u32,
        /// 16 KiB, or less for the last one.
        result: Result<Vec<u8>, ReadError>,
    },
    /// A piece was hashed.
    Piece {
        /// All who asked.
        peers: Vec<PeerKey>,
        /// What it is a piece of.
        torrent: Arc<Torrent>,
        /// Its number.
        piece: u32,
        /// Whether it has the right hash.
        result: Result<bool, ReadError>,
    },
    /// A torrent was loaded, or there is none to load.
    Torrent {
        /// All who asked for it.
        peers: Vec<PeerKey>,
        /// What they asked for.
        info_hash: InfoHash,
        /// `None` when the library does not have it after all.
        result: Result<Option<Arc<Torrent>>, LoadError>,
    },
}

impl Completion {
    /// What went wrong with content, if anything did that was not reported before.
    #[must_use]
    pub fn failure(&self) -> Option<&ReadError> {
        let error = match self {
            Self::Read { result, .. } => result.as_ref().err(),
            Self::Gathered { result, .. } => result.as_ref().err(),
            Self::Metadata { result, .. } => result.as_ref().err(),
            Self::Piece { result, .. } => result.as_ref().err(),
            Self::Torrent { .. } => None,
        };
        // Neither of these says anything new of the content, and they may come by the thousand.
        error.filter(|e| !matches!(e, ReadError::FailedBefore | ReadError::QueueFull(_)))
    }
}

/// See the module's text.
pub struct Storage {
    files: LruCache<FileKey, Mapped>,
    /// When a file failed last.
    failed: LruCache<FileKey, Time>,
    /// Who waits for the range of a file that starts at this byte: one job, however many peers.
    reads: HashMap<(FileKey, u64), Vec<PeerKey>>,
    /// Who waits for a torrent: one job, however many peers.
    loads: HashMap<InfoHash, Vec<PeerKey>>,
    /// Answers that needed no reader.
    ready: Vec<Completion>,
    residency: Residency,
    pool: Pool<Job>,
    /// Which pieces may be served, when not all may.
    checking: Option<Checking>,
    /// After how long a mapping is checked, and after how long it is used no more.
    revalidate_ms: u64,
    stale_ms: u64,
    /// The time of the latest look-up or collection.
    now: Time,
    /// Questions answered by yes, and ranges handed to a reader.
    resident: u64,
    absent: u64,
}

struct Mapped {
    content: Arc<Content>,
    /// When its path last led to it.
    current_at: Time,
    /// Whether a reader is looking again.
    checking: bool,
}

impl Storage {
    /// Nothing is mapped and no thread is started yet. The readers wake the loop by `waker`.
    #[must_use]
    pub fn new(waker: Arc<Waker>, limits: StorageLimits) -> Self {
        let mappings = NonZeroUsize::new(limits.mappings).unwrap_or(NonZeroUsize::MIN);
        Self {
            files: LruCache::sparse(mappings),
            failed: LruCache::sparse(FAILED_FILES_MAX),
            reads: HashMap::new(),
            loads: HashMap::new(),
            ready: Vec::new(),
            residency: Residency::new(),
            pool: Pool::new(
                waker,
                Crew {
                    role: "reader",
                    threads_max: limits.readers.max(1),
                    idle: IDLE,
                    niceness: 0,
                },
            ),
            checking: None,
            revalidate_ms: REVALIDATE_MS,
            stale_ms: u64::MAX,
            now: Time::default(),
            resident: 0,
            absent: 0,
        }
    }

    /// Looks a file up, in memory only. A mapping not checked for [`REVALIDATE_MS`] is checked by a
    /// reader meanwhile; if its file has changed it is forgotten then, and opened anew when asked for.
    pub fn lookup(&mut self, key: FileKey, now: Time) -> Lookup {
        self.now = now;
        let Some(mapped) = self.files.get_mut(&key) else {
            return match self.has_failed(key) {
                true => Lookup::Failed,
                false => Lookup::Absent,
            };
        };
        let unchecked_ms = now.since(mapped.current_at);
        if unchecked_ms >= self.stale_ms {
            self.invalidate(key);
            return Lookup::Absent;
        }
        if !mapped.checking && unchecked_ms >= self.revalidate_ms {
            let content = Arc::clone(&mapped.content);
            // When the queue is full the next look-up tries again.
            mapped.checking = self.pool.submit(Job::Check { key, content }).is_ok();
        }
        Lookup::Mapped(Arc::clone(&mapped.content))
    }

    /// Whether sending this range would *not* wait for a disk. In doubt the answer is no.
    #[must_use]
    pub fn is_resident(&mut self, content: &Content, range: Range<u64>) -> bool {
        let (witness, mapping) = (content.witness(), content.mapping());
        let resident = self.residency.is_resident(witness, mapping, range);
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
        if let Some(peers) = self.reads.get_mut(&start) {
            peers.push(peer);
            return Ok(());
        }
        let mapped = self.files.peek(&key);
        self.pool.submit(Job::Read {
            torrent: Arc::clone(torrent),
            file,
            range,
            content: mapped.map(|mapped| Arc::clone(&mapped.content)),
        })?;
        self.reads.insert(start, vec![peer]);
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
        let keys = extents.filter_map(|extent| match extent.source {
            Source::File(file) => Some(FileKey::new(torrent, file)),
            Source::Zeros => None,
        });
        for key in keys {
            if self.has_failed(key) {
                self.answer(Completion::Gathered {
                    peer,
                    offset,
                    length,
                    result: Err(ReadError::FailedBefore),
                });
                return Ok(());
            }
        }
        self.pool.submit(Job::Gather {
            peer,
            torrent: Arc::clone(torrent),
            offset,
            length,
        })
    }

    /// Has a piece of the info dictionary read (BEP 9). A [`Completion`] always follows.
    pub fn metadata(&mut self, peer: PeerKey, torrent: &Arc<Torrent>, piece: u32) {
        let refused = match self.has_failed(FileKey::new(torrent, METAINFO_FILE)) {
            true => Some(ReadError::FailedBefore),
            false => {
                let torrent = Arc::clone(torrent);
                let job = Job::Metadata {
                    peer,
                    torrent,
                    piece,
                };
                self.pool.submit(job).err().map(ReadError::from)
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

    /// Has a torrent loaded. There is one job for each; later peers join those who wait for it.
    ///
    /// # Errors
    /// [`QueueFull`]; then no [`Completion`] follows.
    pub fn load(&mut self, peer: PeerKey, query: Query) -> Result<(), QueueFull> {
        let info_hash = query.info_hash();
        if let Some(peers) = self.loads.get_mut(&info_hash) {
            peers.push(peer);
            return Ok(());
        }
        self.pool.submit(Job::Load { query })?;
        self.loads.insert(info_hash, vec![peer]);
        Ok(())
    }

    /// Hands out what has been done since the last time. For the loop, after it was woken.
    pub fn collect(&mut self, now: Time, completions: &mut Vec<Completion>) {
        self.now = now;
        completions.append(&mut self.ready);
        for outcome in self.pool.take_outcomes() {
            completions.extend(self.settle(outcome));
        }
        self.collect_pieces(completions);
    }

    /// Forgets the mapping of a file, for the loop that was told EFAULT. The next read opens it anew.
    pub fn invalidate(&mut self, key: FileKey) {
        if let Some(mapped) = self.files.pop(&key) {
            self.release(mapped);
        }
    }

    /// Forgets every mapping of these torrents, by [`Torrent::id`].
    pub fn forget(&mut self, torrents: &HashSet<u32>) {
        let of = |(key, _): &(&FileKey, &Mapped)| torrents.contains(&key.torrent);
        let keys: Vec<FileKey> = self.files.iter().filter(of).map(|(key, _)| *key).collect();
        for key in keys {
            self.invalidate(key);
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
                self.settle_read(&torrent, key, opened, result.as_ref());
                let peers = self.reads.remove(&(key, range.start)).unwrap_or_default();
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
                if self.any_changed(&torrent, &stamps) {
                    // It was hashed as it was before.
                    result = Err(ReadError::FailedBefore);
                }
                if let Some(key) = to_blame {
                    self.failed.put(key, self.now);
                }
                Some(Completion::Gathered {
                    peer,
                    offset,
                    length,
                    result,
                })
            }
            Outcome::Metadata {
                peer,
                torrent,
                piece,
                result,
            } => {
                if let Err(ReadError::Metainfo(..)) = result {
                    let file = METAINFO_FILE;
                    self.failed.put(FileKey { torrent, file }, self.now);
                }
                Some(Completion::Metadata {
                    peer,
                    piece,
                    result,
                })
            }
            Outcome::Loaded { info_hash, result } => Some(Completion::Torrent {
                peers: self.loads.remove(&info_hash).unwrap_or_default(),
                info_hash,
                result,
            }),
            Outcome::Checked {
                key,
                content,
                current,
            } => {
                self.checked(key, &content, current);
                None
            }
        }
    }

    fn settle_read(
        &mut self,
        torrent: &Torrent,
        key: FileKey,
        opened: bool,
        result: Result<&Arc<Content>, &ReadError>,
    ) {
        match result {
            Ok(content) if opened => {
                self.seen(torrent, key.file, content.stamp());
                self.keep(key, content);
            }
            Ok(_) => {}
            Err(_) => {
                self.failed.put(key, self.now);
                self.invalidate(key);
            }
        }
    }

    /// Remembers a file that was just opened.
    fn keep(&mut self, key: FileKey, content: &Arc<Content>) {
        self.failed.pop(&key);
        if let Some(mapped) = self.files.get_mut(&key)
            && mapped.content.is_same(content)
        {
            // Two readers have opened it at once. The first mapping stays.
            mapped.current_at = self.now;
            return;
        }
        let mapped = Mapped {
            content: Arc::clone(content),
            current_at: self.now,
            checking: false,
        };
        if let Some((_, evicted)) = self.files.push(key, mapped) {
            self.release(evicted);
        }
    }

    fn checked(&mut self, key: FileKey, content: &Arc<Content>, current: bool) {
        let Some(mapped) = self.files.peek_mut(&key) else {
            return;
        };
        if !Arc::ptr_eq(&mapped.content, content) {
            return;
        }
        mapped.checking = false;
        if current {
            mapped.current_at = self.now;
        } else {
            self.invalidate(key);
        }
    }

    /// Leaves the unmapping to a reader: 1.5 GiB took 5 to 12 ms.
    fn release(&self, mapped: Mapped) {
        let content = mapped.content;
        // When the queue is full the loop must take the time.
        let _ = self.pool.submit(Job::Release { content });
    }

    /// Whether the file is one of those that are not tried again yet.
    fn has_failed(&mut self, key: FileKey) -> bool {
        let Some(&at) = self.failed.peek(&key) else {
            return false;
        };
        let waits = self.now.since(at) < FAILED_RETRY_MS;
        if !waits {
            self.failed.pop(&key);
        }
        waits
    }

    /// Answers without a reader, by the same way.
    fn answer(&mut self, completion: Completion) {
        self.ready.push(completion);
        self.pool.wake();
    }
}

#[cfg(test)]
mod tests;
