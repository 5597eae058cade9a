//! What is served: answered from memory, loaded when it is asked for.
//!
//! Owns which torrents are loaded, and the answer "unknown" from memory alone, so that a stranger
//! cannot make the disk seek. It must not know who asks. Only [`Query::load`] blocks; the rest is for
//! the loop.

use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use thiserror::Error;

use super::index::{Candidates, Index, IndexError};
use crate::timers::Time;
use crate::torrent::catalogue::{Catalogue, Refusal, RefusalReason, Torrent};
use crate::torrent::load::{self, Source};
use crate::torrent::printable::Printable;
use crate::wire::message::InfoHash;

/// Loaded torrents that are kept when nobody uses them: one of few files takes half a kilobyte.
pub const LOADED_MAX: usize = 1024;

/// Loaded torrents that are looked at to find one that nobody uses. When all of these are in use the
/// bound is exceeded by one, and those in use are bounded by the connected peers.
const LOOKED_AT_MAX: usize = 8;

/// How long a torrent that could not be loaded is not tried again.
pub const FAILED_RETRY_MS: u64 = 2_000;

/// Most torrents remembered that could not be loaded. When more fail, as those of a disk that is
/// gone may, the first are tried again sooner.
const FAILED_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Why a torrent of the index is not served.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The index is damaged or cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The metainfo file or the content is not right.
    #[error("{0}")]
    Refused(Refusal),
    /// The metainfo file is that of another torrent.
    #[error("{}: holds another torrent than when it was indexed", show(.0))]
    Replaced(PathBuf),
    /// A defect of ours.
    #[error("a reader panicked")]
    Panicked,
}

impl LoadError {
    /// Whether the metainfo file is right and its content is not.
    #[must_use]
    pub fn is_of_content(&self) -> bool {
        let content = |refusal: &Refusal| matches!(refusal.reason, RefusalReason::Content(_));
        matches!(self, Self::Refused(refusal) if content(refusal))
    }
}

fn show(path: &Path) -> Printable<'_> {
    Printable(path.as_os_str().as_bytes())
}

/// What is known of an info-hash from memory.
#[derive(Debug)]
pub enum Answer {
    /// It is not served, or could not be loaded less than [`FAILED_RETRY_MS`] ago.
    Unknown,
    /// It is loaded.
    Loaded(Arc<Torrent>),
    /// It is to be loaded; it may turn out to be unknown.
    Known(Query),
}

/// A torrent that is to be loaded.
#[derive(Debug)]
pub struct Query {
    index: Arc<Index>,
    candidates: Candidates,
    content: Option<PathBuf>,
    info_hash: InfoHash,
    id: u32,
}

impl Query {
    /// What was asked for.
    #[must_use]
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// Reads the torrent from disk. `None` when the index does not have it after all.
    ///
    /// # Errors
    /// A [`LoadError`] when it is not as it was indexed.
    pub fn load(&self) -> Result<Option<Arc<Torrent>>, LoadError> {
        let entry = self.index.entry(self.candidates.clone(), &self.info_hash)?;
        let Some(entry) = entry else { return Ok(None) };
        let origin = self.index.origin();
        let metainfo = origin.root.join(entry.directory).join(entry.name);
        // What is absolute replaces what it is joined to.
        let indexed = (origin.content.as_ref()).map(|content| origin.root.join(content));
        let source = Source {
            metainfo,
            content: self.content.clone().or(indexed),
        };
        match load::load(self.id, &source, self.info_hash) {
            Ok(Some(torrent)) => Ok(Some(Arc::new(torrent))),
            Ok(None) => Err(LoadError::Replaced(source.metainfo)),
            Err(reason) => Err(LoadError::Refused(Refusal {
                path: source.metainfo,
                reason,
            })),
        }
    }
}

/// Where torrents come from.
enum Known {
    /// All of them are in memory.
    Catalogue(Arc<Catalogue>),
    /// They are read when they are asked for.
    Index {
        index: Arc<Index>,
        content: Option<PathBuf>,
    },
}

/// See the module's text.
pub struct Library {
    known: Known,
    loaded: LruCache<InfoHash, Arc<Torrent>>,
    failed: LruCache<InfoHash, Time>,
    /// No loaded torrent has or had this id or a higher one.
    next_id: u32,
}

impl Library {
    fn new(known: Known) -> Self {
        Self {
            known,
            loaded: LruCache::unbounded(),
            failed: LruCache::sparse(FAILED_MAX),
            next_id: 0,
        }
    }

    /// A library that is in memory whole.
    #[must_use]
    pub fn of_catalogue(catalogue: Arc<Catalogue>) -> Self {
        Self::new(Known::Catalogue(catalogue))
    }

    /// A library that is in an index. All content lies below `content`, or else where the index
    /// says.
    #[must_use]
    pub fn of_index(index: Index, content: Option<PathBuf>) -> Self {
        let index = Arc::new(index);
        Self::new(Known::Index { index, content })
    }

    /// The catalogue, when all torrents are in memory.
    #[must_use]
    pub fn catalogue(&self) -> Option<&Arc<Catalogue>> {
        match &self.known {
            Known::Catalogue(catalogue) => Some(catalogue),
            Known::Index { .. } => None,
        }
    }

    /// Takes the place of a library of the same kind. What both have keeps its id.
    #[must_use]
    pub fn following(mut self, previous: &Self) -> Self {
        self.next_id = previous.next_id;
        self
    }

    /// Whether a torrent that was served is served on.
    #[must_use]
    pub fn has(&self, torrent: &Torrent) -> bool {
        match &self.known {
            Known::Catalogue(catalogue) => {
                (catalogue.find(&torrent.info_hash)).is_some_and(|known| known.id == torrent.id)
            }
            Known::Index { index, .. } => index.find(&torrent.info_hash).is_some(),
        }
    }

    /// How many torrents it has.
    #[must_use]
    pub fn torrents(&self) -> u64 {
        match &self.known {
            Known::Catalogue(catalogue) => catalogue.len() as u64,
            Known::Index { index, .. } => index.torrents(),
        }
    }

    /// The torrents that are in memory whether anybody asks for them or not.
    pub fn in_memory(&self) -> impl Iterator<Item = &Arc<Torrent>> {
        self.catalogue()
            .into_iter()
            .flat_map(|catalogue| catalogue.iter())
    }

    /// What is known of an info-hash, from memory.
    pub fn find(&mut self, info_hash: &InfoHash, now: Time) -> Answer {
        let (index, content) = match &self.known {
            Known::Catalogue(catalogue) => {
                let found = catalogue.find(info_hash).map(Arc::clone);
                return found.map_or(Answer::Unknown, Answer::Loaded);
            }
            Known::Index { index, content } => (index, content),
        };
        if let Some(torrent) = self.loaded.get(info_hash) {
            return Answer::Loaded(Arc::clone(torrent));
        }
        let Some(candidates) = index.find(info_hash) else {
            return Answer::Unknown;
        };
        if let Some(&at) = self.failed.peek(info_hash) {
            if now.since(at) < FAILED_RETRY_MS {
                return Answer::Unknown;
            }
            self.failed.pop(info_hash);
        }
        let id = self.next_id;
        // Ids come round only after four thousand million loads.
        self.next_id = self.next_id.wrapping_add(1);
        Answer::Known(Query {
            index: Arc::clone(index),
            candidates,
            content: content.clone(),
            info_hash: *info_hash,
            id,
        })
    }

    /// Takes up what came of [`Query::load`].
    pub fn keep(&mut self, info_hash: InfoHash, loaded: Option<&Arc<Torrent>>, now: Time) {
        match loaded {
            Some(torrent) => {
                self.make_room();
                self.loaded.put(info_hash, Arc::clone(torrent));
            }
            None => {
                self.failed.put(info_hash, now);
            }
        }
    }

    /// Forgets the torrent that was asked for longest ago, of those that nobody uses.
    fn make_room(&mut self) {
        for _ in 0..LOOKED_AT_MAX {
            if self.loaded.len() < LOADED_MAX {
                return;
            }
            if let Some((info_hash, torrent)) = self.loaded.pop_lru()
                && Arc::strong_count(&torrent) > 1
            {
                // A second copy would be mapped a second time.
                self.loaded.put(info_hash, torrent);
            }
        }
    }
}

#[cfg(test)]
mod tests;
