//! The cache of mapped files.
//!
//! Owns the bound on mappings, when one is compared with its path again, and when one is evicted: when
//! it is the least recently used, when it was idle for [`IDLE_MS`], when its torrent is removed. No I/O:
//! evicted mappings are returned, so that a reader unmaps them.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::FileKey;
use super::content::Content;
use crate::timers::Time;
use crate::torrent::id::TorrentId;

/// How long a mapping is believed to be of the file that its path leads to.
pub const REVALIDATE_MS: u64 = 10_000;

/// How long a mapping stays that nobody uses. It keeps a deleted file's room on the disk, and the
/// disk from being unmounted; opening it again is one job of a reader.
pub const IDLE_MS: u64 = 300_000;

/// The mapped files, by use.
pub(super) struct Mappings {
    /// The longest unused is the first to go.
    files: LruCache<FileKey, Mapped>,
    /// After how long a mapping is checked, and after how long it is used no more.
    revalidate_ms: u64,
    stale_ms: u64,
}

struct Mapped {
    content: Arc<Content>,
    /// When its path last led to it.
    current_at: Time,
    /// When it was last asked for.
    used_at: Time,
    /// Whether a reader is looking again.
    checking: bool,
}

/// A mapping that was asked for.
pub(super) enum MappingLookup {
    /// It may be used.
    Usable(Arc<Content>),
    /// It may be used, and is to be checked. [`Mappings::checking`] says that it is.
    Due(Arc<Content>),
    /// It was not checked for so long that it is let go.
    Stale(Arc<Content>),
    /// There is none.
    Absent,
}

impl Mappings {
    /// At most so many.
    pub(super) fn new(most: NonZeroUsize) -> Self {
        Self {
            files: LruCache::sparse(most),
            revalidate_ms: REVALIDATE_MS,
            stale_ms: u64::MAX,
        }
    }

    /// From now on a mapping is checked after so long, and used no more after so much longer.
    pub(super) fn set_ages(&mut self, revalidate_ms: u64, stale_ms: u64) {
        self.revalidate_ms = revalidate_ms;
        self.stale_ms = stale_ms;
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Asks for a mapping in order to use it.
    pub(super) fn find(&mut self, key: FileKey, now: Time) -> MappingLookup {
        let Some(mapped) = self.files.get_mut(&key) else {
            return MappingLookup::Absent;
        };
        mapped.used_at = now;
        let unchecked_ms = now.since(mapped.current_at);
        if unchecked_ms >= self.stale_ms {
            return self
                .remove(key)
                .map_or(MappingLookup::Absent, MappingLookup::Stale);
        }
        let content = Arc::clone(&mapped.content);
        match !mapped.checking && unchecked_ms >= self.revalidate_ms {
            true => MappingLookup::Due(content),
            false => MappingLookup::Usable(content),
        }
    }

    /// Looks at a mapping without using it.
    pub(super) fn peek(&self, key: &FileKey) -> Option<&Arc<Content>> {
        self.files.peek(key).map(|mapped| &mapped.content)
    }

    /// A mapping is being checked, and not due again before that has ended.
    pub(super) fn checking(&mut self, key: &FileKey) {
        if let Some(mapped) = self.files.peek_mut(key) {
            mapped.checking = true;
        }
    }

    /// A mapping was checked. Answers it when it is let go, as it is not current.
    pub(super) fn checked(
        &mut self,
        key: FileKey,
        content: &Arc<Content>,
        current: bool,
        now: Time,
    ) -> Option<Arc<Content>> {
        let mapped = self.files.peek_mut(&key)?;
        if !Arc::ptr_eq(&mapped.content, content) {
            return None;
        }
        mapped.checking = false;
        if current {
            mapped.current_at = now;
            return None;
        }
        self.remove(key)
    }

    /// Keeps a file that was just opened. Answers the one that is let go for it.
    pub(super) fn keep(
        &mut self,
        key: FileKey,
        content: &Arc<Content>,
        now: Time,
    ) -> Option<Arc<Content>> {
        if let Some(mapped) = self.files.get_mut(&key)
            && mapped.content.is_same(content)
        {
            // Two readers have opened it at once. The first mapping stays.
            mapped.current_at = now;
            return None;
        }
        let mapped = Mapped {
            content: Arc::clone(content),
            current_at: now,
            used_at: now,
            checking: false,
        };
        let (_, replaced) = self.files.push(key, mapped)?;
        Some(replaced.content)
    }

    /// Lets a mapping go.
    pub(super) fn remove(&mut self, key: FileKey) -> Option<Arc<Content>> {
        Some(self.files.pop(&key)?.content)
    }

    /// Lets go what is mapped of these torrents.
    pub(super) fn remove_torrents(&mut self, torrents: &HashSet<TorrentId>) -> Vec<Arc<Content>> {
        let keys = self.files.iter().map(|(key, _)| *key);
        let keys: Vec<FileKey> = keys.filter(|key| torrents.contains(&key.torrent)).collect();
        keys.into_iter()
            .filter_map(|key| self.remove(key))
            .collect()
    }

    /// The longest unused mapping, let go when that is long enough.
    pub(super) fn remove_idle(&mut self, now: Time) -> Option<Arc<Content>> {
        let (key, mapped) = self.files.peek_lru()?;
        let (key, idle) = (*key, now.since(mapped.used_at) >= IDLE_MS);
        idle.then(|| self.remove(key)).flatten()
    }

    /// When the next mapping is to be let go as idle, if it is not used until then.
    pub(super) fn next_idle(&self) -> Option<Time> {
        let (_, mapped) = self.files.peek_lru()?;
        Some(mapped.used_at.after(IDLE_MS))
    }

    #[cfg(test)]
    pub(super) fn is_being_checked(&self, key: &FileKey) -> bool {
        self.files.peek(key).is_some_and(|mapped| mapped.checking)
    }
}
