//! The types of a snapshot and its overlay.
//!
//! A [`Snapshot`] is immutable: an index, and the ids of its records. Later changes are an
//! overlay, which exists twice: by path in the library's thread (`OverlayEntry`), and by info-hash
//! in the loop ([`Overrides`]).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::library::index::format::Facts;
use crate::library::index::id_map::IdMap;
use crate::library::index::obfuscated::ObfuscatedHash;
use crate::library::index::{Counts, Index, MetainfoPath};
use crate::library::scan::build::Depth;
use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::id::TorrentId;
use crate::wire::message::InfoHash;

/// An index, and the ids of the torrents in it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The index.
    pub index: Arc<Index>,
    /// The id of each record.
    pub ids: Arc<IdMap>,
}

impl Snapshot {
    /// An index in which the id of each torrent is the number of its record.
    #[must_use]
    pub fn new(index: Index) -> Self {
        let records = index.records();
        Snapshot {
            index: Arc::new(index),
            ids: Arc::new(IdMap::identity(records)),
        }
    }

    /// Where content lies: as it is named, or else according to the index.
    #[must_use]
    pub fn content(&self, named: &ContentDirectories) -> ContentDirectories {
        self.index.content(named)
    }
}

/// A torrent that is served from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// Not in use before.
    pub id: TorrentId,
    /// The info-hash.
    pub info_hash: InfoHash,
    /// Announce URLs in tiers (BEP 12).
    pub announce: Arc<[Vec<String>]>,
    /// Its metainfo file; `None` when the snapshot has it.
    pub metainfo: Option<Arc<Path>>,
}

/// A torrent that is no longer served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed {
    /// Its id so far.
    pub id: TorrentId,
    /// The info-hash.
    pub info_hash: InfoHash,
    /// Its metainfo file still exists and its content is not right.
    pub of_content: bool,
}

/// The trackers of a torrent that is in several metainfo files, which may be those that it has already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relisted {
    /// Its id.
    pub id: TorrentId,
    /// The info-hash.
    pub info_hash: InfoHash,
    /// Announce URLs of all files in tiers (BEP 12).
    pub announce: Arc<[Vec<String>]>,
}

/// A change of the served torrents. A torrent that is replaced is removed and added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// See [`Relisted`].
    Relisted(Relisted),
    /// See [`Added`].
    Added(Added),
    /// See [`Removed`].
    Removed(Removed),
}

/// How an info-hash differs from the snapshot, as the loop needs it.
#[derive(Clone, Debug)]
pub enum Override {
    /// It is not served.
    Tombstone,
    /// It is served from this metainfo file, under this id.
    Served(TorrentId, Arc<Path>),
}

/// All that differs from a snapshot, by info-hash.
#[derive(Clone, Default, Debug)]
pub struct Overrides {
    by_info_hash: BTreeMap<InfoHash, Override>,
    /// The torrents that are served.
    by_obfuscated: HashMap<ObfuscatedHash, InfoHash>,
}

impl Overrides {
    /// How an info-hash differs, if it does.
    #[must_use]
    pub fn get(&self, info_hash: &InfoHash) -> Option<&Override> {
        self.by_info_hash.get(info_hash)
    }

    /// The torrent with this obfuscated hash, if one that is served has it.
    #[must_use]
    pub fn find_obfuscated(&self, hash: &ObfuscatedHash) -> Option<InfoHash> {
        self.by_obfuscated.get(hash).copied()
    }

    /// Replaces what differed before.
    pub fn insert(&mut self, info_hash: InfoHash, override_: Override) {
        self.remove(&info_hash);
        if matches!(override_, Override::Served(..)) {
            let hash = ObfuscatedHash::new(&info_hash);
            self.by_obfuscated.insert(hash, info_hash);
        }
        self.by_info_hash.insert(info_hash, override_);
    }

    /// An info-hash is again as the snapshot has it.
    pub fn remove(&mut self, info_hash: &InfoHash) {
        if let Some(Override::Served(..)) = self.by_info_hash.remove(info_hash) {
            self.by_obfuscated.remove(&ObfuscatedHash::new(info_hash));
        }
    }

    /// Those after an info-hash, ascending; all if that is `None`.
    pub fn after(
        &self,
        info_hash: Option<InfoHash>,
    ) -> impl Iterator<Item = (&InfoHash, &Override)> {
        let behind = info_hash.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_info_hash.range((behind, Bound::Unbounded))
    }
}

/// A metainfo file that exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FileState {
    pub(super) facts: Facts,
    /// The id under which it is served; `None` when it is not, or when another file with its
    /// info-hash is.
    pub(super) id: Option<TorrentId>,
    /// The id of its record, when it is not served from there.
    pub(super) reserved: Option<TorrentId>,
}

/// The last state of a path since the snapshot was made.
#[derive(Clone, Debug)]
pub(super) struct OverlayEntry {
    /// `None` is a tombstone: the file is gone.
    pub(super) file: Option<FileState>,
    /// The refresh after which it was examined, see [`super::contents::Contents::epoch`].
    pub(super) epoch: u32,
}

/// The files that a change on disk may affect.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Affected {
    /// These metainfo files; those that are gone come first.
    Files(Vec<PathBuf>),
    /// Too many files: a scan of this depth finds the changes.
    TooMany(Depth),
}

/// The results of examining paths. Each examination adds to them, so that results before an error are
/// not lost.
#[derive(Default)]
pub(super) struct Examined {
    pub(super) changes: Vec<Change>,
    pub(super) refused: Vec<Refusal>,
    /// Paths that could not be examined because no file descriptor was left.
    pub(super) postponed: Vec<PathBuf>,
}

impl Examined {
    pub(super) fn refuse(&mut self, path: &Path, reason: RefusalReason) {
        let path = path.to_path_buf();
        self.refused.push(Refusal { path, reason });
    }

    /// Leaves a path for later, because no descriptor is left.
    pub(super) fn postpone(&mut self, path: &Path, reason: &RefusalReason) {
        log::warn!("rescan postponed: {reason}");
        self.postponed.push(path.to_path_buf());
    }
}

/// The contents of the catalogue after a new index was merged.
pub(super) struct Merged {
    pub(super) snapshot: Snapshot,
    /// Paths that were examined while the index was made, since it may have missed their changes.
    pub(super) overlay: BTreeMap<MetainfoPath, OverlayEntry>,
    pub(super) counts: Counts,
    pub(super) next_id: TorrentId,
}
