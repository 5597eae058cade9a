//! What the loop asks: whether an info-hash is served, and the torrent if it is loaded.
//!
//! Info-hashes that are not served are refused from memory, so a stranger cannot make the disk seek.
//! A load blocks: [`Query::locate`], [`Located::read`] and [`ReadTorrent::check`], each for the disk of its
//! file, and so does [`ObfuscatedQuery::info_hash`]. Everything else is for the loop.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use thiserror::Error;

use super::listing::Listing;
use super::overlay::{Override, Overrides, Snapshot};
use crate::library::index::format::State;
use crate::library::index::obfuscated::ObfuscatedHash;
use crate::library::index::{Candidates, Index, IndexError, ObfuscatedCandidates};
use crate::timers::Time;
use crate::torrent::catalogue::{Refusal, RefusalReason, Torrent, UncheckedTorrent};
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::id::TorrentId;
use crate::torrent::printable::Printable;
use crate::wire::message::InfoHash;
use crate::workers::{Failures, QueueFull};

/// Loaded torrents that are kept while nobody uses them. One with few files takes half a kilobyte.
pub const LOADED_MAX: usize = 1024;

/// Torrents whose obfuscated hash is known without a read, those that were loaded last: some 100 KB.
const OBFUSCATED_MAX: NonZeroUsize = NonZeroUsize::new(LOADED_MAX).expect("some torrents are kept");

/// What the lists of files of loaded torrents may take while nobody uses them: those of millions of files.
/// Unit: bytes.
const LOADED_BYTES_MAX: usize = 32 << 20;

/// What the lists of files of all loaded torrents may take, since peers decide which are in use. Beyond that
/// no torrent is loaded whose list takes more than [`SMALL_BYTES`]. Unit: bytes.
const IN_USE_BYTES_MAX: usize = 256 << 20;

/// The list of some thousand files. Those that take less are bounded by the connected peers. Unit: bytes.
const SMALL_BYTES: usize = 64 << 10;

/// Loaded torrents that are examined to find one that nobody uses. When all of these are in use the
/// bound is exceeded by one, and those in use are bounded by the connected peers.
const EVICTION_TRIES: usize = 8;

/// Why a known torrent is not served.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The index is damaged or cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The metainfo file or the content is not right.
    #[error("{0}")]
    Refused(Refusal),
    /// The metainfo file is that of another torrent.
    #[error("{}: holds a different torrent than when it was indexed", Printable::path(.0))]
    Replaced(PathBuf),
    /// Its content was not right when it was last examined.
    #[error("{}: waits for its content to be checked again", Printable::path(.0))]
    Withdrawn(PathBuf),
    /// Too much waits for the disk of its metainfo file or its content.
    #[error("{0} for the disk of a torrent")]
    Busy(#[from] QueueFull),
    /// A defect of ours.
    #[error("a reader panicked")]
    Panicked,
}

impl LoadError {
    /// The metainfo file that is to be examined again.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Refused(refusal) => Some(&refusal.path),
            Self::Replaced(path) | Self::Withdrawn(path) => Some(path),
            Self::Index(_) | Self::Busy(_) | Self::Panicked => None,
        }
    }

    /// Returns true if the torrent could not be examined because no descriptor was left.
    #[must_use]
    pub fn is_lack_of_descriptors(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.reason.is_lack_of_descriptors())
    }

    /// Returns true if the metainfo file is right and its content is not.
    #[must_use]
    pub fn is_of_content(&self) -> bool {
        let content = |refusal: &Refusal| matches!(refusal.reason, RefusalReason::Content(_));
        matches!(self, Self::Refused(refusal) if content(refusal))
    }
}

/// What is known in memory about an info-hash.
#[derive(Debug)]
pub enum Answer {
    /// It is not served, or could not be loaded less than [`FAILED_RETRY_MS`](crate::workers::FAILED_RETRY_MS)
    /// ago.
    Unknown,
    /// It is loaded.
    Loaded(Arc<Torrent>),
    /// It has to be loaded, and may turn out to be unknown.
    Known(Query),
}

/// What is known in memory about the obfuscated hash by which a peer names a torrent that encrypts its
/// connection.
#[derive(Debug)]
pub enum ObfuscatedAnswer {
    /// No torrent in the index has it.
    Unknown,
    /// The torrent with this info-hash has it. [`Library::find`] says whether that is served.
    Known(InfoHash),
    /// The index has to be asked, which may turn out not to have it.
    Query(ObfuscatedQuery),
}

/// An obfuscated hash to be looked up in the index, by a thread that may block.
#[derive(Debug)]
pub struct ObfuscatedQuery {
    index: Arc<Index>,
    candidates: ObfuscatedCandidates,
    hash: ObfuscatedHash,
}

impl ObfuscatedQuery {
    /// The index file, which is read.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.index.path()
    }

    /// The info-hash of the torrent; `None` when the index does not have it after all.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn info_hash(self) -> Result<Option<InfoHash>, IndexError> {
        self.index.info_hash_of(self.candidates, &self.hash)
    }
}

/// The result of loading a torrent.
#[derive(Debug)]
pub enum Loaded {
    /// It is served.
    Torrent(Arc<Torrent>),
    /// It is not served.
    Gone,
    /// Its content is not right.
    ContentFailed,
    /// Those in use leave no memory for its list of files.
    NoMemory,
    /// Too much waits for its disk.
    Busy,
}

/// A load to be made, by a thread that may block.
#[derive(Debug)]
pub struct Query {
    snapshot: Snapshot,
    origin: Origin,
    content: ContentDirectories,
    info_hash: InfoHash,
}

/// Where a torrent is recorded.
#[derive(Debug)]
enum Origin {
    /// In the index, at one of these positions.
    Index(Candidates),
    /// In the overlay: the index does not have it, or at another path.
    Overlay { id: TorrentId, metainfo: Arc<Path> },
}

impl Query {
    /// The info-hash that was asked for.
    #[must_use]
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The file that [`Query::locate`] reads, if it reads one: the index; else the metainfo file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.origin {
            Origin::Overlay { metainfo, .. } => metainfo,
            Origin::Index(_) => self.snapshot.index.path(),
        }
    }

    /// Finds the metainfo file. `None` when the index does not have the torrent after all.
    ///
    /// # Errors
    /// A [`LoadError`] when the torrent is not served.
    pub fn locate(self) -> Result<Option<Located>, LoadError> {
        let index = &self.snapshot.index;
        let (id, path) = match self.origin {
            Origin::Overlay { id, metainfo } => (id, metainfo.to_path_buf()),
            Origin::Index(candidates) => {
                let entry = index.entry(candidates, &self.info_hash)?;
                let Some(entry) = entry else { return Ok(None) };
                let path = entry.path.to_path_buf();
                if entry.facts.state != State::Served {
                    return Err(LoadError::Withdrawn(path));
                }
                let id = self.snapshot.ids.id(entry.record);
                (id.expect("each record has an id"), path)
            }
        };
        Ok(Some(Located {
            id,
            path,
            content: self.content,
            info_hash: self.info_hash,
        }))
    }
}

/// A torrent whose metainfo file is known and not yet read.
#[derive(Debug)]
pub struct Located {
    id: TorrentId,
    path: PathBuf,
    content: ContentDirectories,
    info_hash: InfoHash,
}

impl Located {
    /// The metainfo file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the metainfo file.
    ///
    /// # Errors
    /// A [`LoadError`] when it is not as it was indexed.
    pub fn read(self) -> Result<ReadTorrent, LoadError> {
        match UncheckedTorrent::read(&self.path, self.info_hash) {
            Ok(Some(torrent)) => Ok(ReadTorrent {
                located: self,
                torrent,
            }),
            Ok(None) => Err(LoadError::Replaced(self.path)),
            Err(reason) => Err(self.refused(reason)),
        }
    }

    fn refused(self, reason: RefusalReason) -> LoadError {
        let path = self.path;
        LoadError::Refused(Refusal { path, reason })
    }
}

/// A torrent whose metainfo file is read.
#[derive(Debug)]
pub struct ReadTorrent {
    located: Located,
    torrent: UncheckedTorrent,
}

impl ReadTorrent {
    /// Where its content is, or the first file of it.
    #[must_use]
    pub fn content_path(&self) -> PathBuf {
        self.torrent.content_path(&self.located.content)
    }

    /// Checks its content.
    ///
    /// # Errors
    /// A [`LoadError`] when it is not as it was indexed.
    pub fn check(self) -> Result<Arc<Torrent>, LoadError> {
        let located = self.located;
        match self.torrent.check(located.id, &located.content) {
            Ok(torrent) => Ok(Arc::new(torrent)),
            Err(reason) => Err(located.refused(reason)),
        }
    }
}

/// The served torrents: a snapshot, what overrides it, and those that are loaded.
pub struct Library {
    snapshot: Option<Snapshot>,
    content: ContentDirectories,
    overrides: Overrides,
    loaded: LruCache<InfoHash, Arc<Torrent>>,
    /// What their lists of files take.
    loaded_bytes: usize,
    /// The torrents that were loaded last. What this says is true of each info-hash for ever.
    obfuscated: LruCache<ObfuscatedHash, InfoHash>,
    /// Torrents that could not be loaded.
    failed: Failures<InfoHash>,
    /// A bit for each position in the index: the torrents that were found to be withdrawn there. Ends
    /// after the last of them.
    withdrawn: Vec<u64>,
}

impl Default for Library {
    /// Without torrents.
    fn default() -> Self {
        Self {
            snapshot: None,
            content: ContentDirectories::default(),
            overrides: Overrides::default(),
            loaded: LruCache::unbounded(),
            loaded_bytes: 0,
            obfuscated: LruCache::new(OBFUSCATED_MAX),
            failed: Failures::default(),
            withdrawn: Vec::new(),
        }
    }
}

impl Library {
    /// The library of an index. Content lies in these places, or else where the index says.
    #[must_use]
    pub fn of_index(index: Index, content: &ContentDirectories) -> Self {
        let mut library = Self::default();
        library.replace(Snapshot::new(index), content, Overrides::default());
        library
    }

    /// Takes another snapshot, and what overrides it. Torrents keep their ids. Returns what is no longer
    /// needed, which may take long to drop.
    pub fn replace(
        &mut self,
        snapshot: Snapshot,
        content: &ContentDirectories,
        overrides: Overrides,
    ) -> impl Send + 'static {
        self.content = snapshot.content(content);
        let withdrawn = std::mem::take(&mut self.withdrawn);
        let old = self.snapshot.replace(snapshot);
        (
            old,
            withdrawn,
            std::mem::replace(&mut self.overrides, overrides),
        )
    }

    /// Serves a torrent from this metainfo file, or from where the index says. Forgets earlier failures.
    pub fn add(&mut self, info_hash: InfoHash, id: TorrentId, metainfo: Option<Arc<Path>>) {
        self.failed.remove(&info_hash);
        if let Some(metainfo) = metainfo {
            self.overrides
                .insert(info_hash, Override::Served(id, metainfo));
        }
    }

    /// A torrent is no longer served.
    pub fn remove(&mut self, info_hash: InfoHash) {
        let snapshot = self.snapshot.as_ref();
        match snapshot.and_then(|snapshot| snapshot.index.find(&info_hash)) {
            Some(_) => self.overrides.insert(info_hash, Override::Tombstone),
            None => self.overrides.remove(&info_hash),
        }
    }

    /// Drops a removed torrent if it is loaded.
    pub fn forget(&mut self, info_hash: &InfoHash, id: TorrentId) {
        let loaded = self.loaded.peek(info_hash);
        if loaded.is_some_and(|torrent| torrent.id == id)
            && let Some(torrent) = self.loaded.pop(info_hash)
        {
            self.loaded_bytes -= torrent.memory_bytes();
        }
    }

    /// A page of what is served; `None` before there is a snapshot.
    #[must_use]
    pub fn list(&self, after: Option<InfoHash>, limit: usize) -> Option<Listing> {
        let snapshot = self.snapshot.clone()?;
        let overrides = self.overrides.after(after).take(limit);
        Some(Listing {
            snapshot,
            after,
            limit,
            overrides: overrides
                .map(|(info_hash, overrides)| (*info_hash, overrides.clone()))
                .collect(),
        })
    }

    /// Looks an info-hash up, in memory. The result of an [`Answer::Known`] query goes to
    /// [`Library::finish_load`], unless the torrent was added or removed after the query was made.
    pub fn find(&mut self, info_hash: &InfoHash, now: Time) -> Answer {
        if let Some(torrent) = self.loaded.get(info_hash) {
            return Answer::Loaded(Arc::clone(torrent));
        }
        let Some(snapshot) = &self.snapshot else {
            return Answer::Unknown;
        };
        let origin = match self.overrides.get(info_hash) {
            Some(Override::Tombstone) => return Answer::Unknown,
            Some(Override::Served(id, metainfo)) => Origin::Overlay {
                id: *id,
                metainfo: Arc::clone(metainfo),
            },
            None => match snapshot.index.find(info_hash) {
                Some(candidates) if self.is_withdrawn(&candidates) => return Answer::Unknown,
                Some(candidates) => Origin::Index(candidates),
                None => return Answer::Unknown,
            },
        };
        if self.failed.contains(info_hash, now) {
            return Answer::Unknown;
        }
        Answer::Known(Query {
            snapshot: snapshot.clone(),
            origin,
            content: self.content.clone(),
            info_hash: *info_hash,
        })
    }

    /// Looks an obfuscated hash up, in memory. Who is answered with a torrent goes on with
    /// [`Library::find`].
    pub fn find_obfuscated(&mut self, hash: &ObfuscatedHash) -> ObfuscatedAnswer {
        let known = self.obfuscated.get(hash).copied();
        if let Some(info_hash) = known.or_else(|| self.overrides.find_obfuscated(hash)) {
            return ObfuscatedAnswer::Known(info_hash);
        }
        let index = self.snapshot.as_ref().map(|snapshot| &snapshot.index);
        let found = index.and_then(|index| Some((index, index.find_obfuscated(hash)?)));
        match found {
            Some((index, candidates)) => ObfuscatedAnswer::Query(ObfuscatedQuery {
                index: Arc::clone(index),
                candidates,
                hash: *hash,
            }),
            None => ObfuscatedAnswer::Unknown,
        }
    }

    /// Takes the result of a load.
    pub fn finish_load(
        &mut self,
        info_hash: InfoHash,
        result: Result<Option<Arc<Torrent>>, LoadError>,
        now: Time,
    ) -> Loaded {
        if let Ok(Some(torrent)) = result {
            let bytes = torrent.memory_bytes();
            self.make_room(bytes);
            if bytes > SMALL_BYTES && self.loaded_bytes + bytes > IN_USE_BYTES_MAX {
                self.failed.add(info_hash, now);
                return Loaded::NoMemory;
            }
            self.keep(info_hash, Arc::clone(&torrent));
            let hash = ObfuscatedHash::new(&info_hash);
            self.obfuscated.put(hash, info_hash);
            return Loaded::Torrent(torrent);
        }
        self.failed.add(info_hash, now);
        match result {
            Err(LoadError::Withdrawn(_)) => {
                self.withdraw(&info_hash);
                Loaded::Gone
            }
            Err(LoadError::Busy(_)) => Loaded::Busy,
            Err(error) if error.is_of_content() => Loaded::ContentFailed,
            _ => Loaded::Gone,
        }
    }

    /// Remembers that the index calls a torrent withdrawn, until it is added or the snapshot is
    /// replaced: it is not read again before that.
    fn withdraw(&mut self, info_hash: &InfoHash) {
        let snapshot = self.snapshot.as_ref().expect("a load is from a snapshot");
        let candidates = snapshot.index.find(info_hash).expect("it was found there");
        if let Some(position) = only(&candidates) {
            let words = position / 64 + 1;
            self.withdrawn.resize(words.max(self.withdrawn.len()), 0);
            let word = self.withdrawn.get_mut(position / 64);
            *word.expect("it was made long enough") |= 1 << (position % 64);
        }
    }

    fn is_withdrawn(&self, candidates: &Candidates) -> bool {
        only(candidates).is_some_and(|position| {
            let word = self.withdrawn.get(position / 64).copied();
            word.unwrap_or(0) >> (position % 64) & 1 == 1
        })
    }

    /// Drops the least recently used torrents that nobody holds, until there is room for one that takes so
    /// many bytes.
    fn make_room(&mut self, bytes: usize) {
        let mut tries = EVICTION_TRIES;
        while self.loaded.len() >= LOADED_MAX || self.loaded_bytes + bytes > LOADED_BYTES_MAX {
            let Some((info_hash, torrent)) = self.loaded.pop_lru() else {
                return;
            };
            self.loaded_bytes -= torrent.memory_bytes();
            if Arc::strong_count(&torrent) > 1 {
                // A second copy would be mapped a second time.
                self.keep(info_hash, torrent);
                tries -= 1;
                if tries == 0 {
                    return;
                }
            }
        }
    }

    fn keep(&mut self, info_hash: InfoHash, torrent: Arc<Torrent>) {
        self.loaded_bytes += torrent.memory_bytes();
        if let Some(before) = self.loaded.put(info_hash, torrent) {
            self.loaded_bytes -= before.memory_bytes();
        }
    }
}

/// The only candidate. Torrents whose info-hashes share their first eight bytes are not remembered as
/// withdrawn.
fn only(candidates: &Candidates) -> Option<usize> {
    (candidates.0.len() == 1).then_some(candidates.0.start)
}

#[cfg(test)]
mod tests;
