//! What is served, by the paths of metainfo files: a snapshot with an overlay.
//!
//! Owns the ids of torrents, and what becomes of a torrent when its path is examined again. The
//! library's thread owns it: every function may wait for a disk.

mod affected;
mod duplicates;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::overlay::{
    Added, Change, Examined, FileState, Key, Merged, OverlayEntry, Override, Removed, Snapshot,
    is_served,
};
use crate::library::index::format::State;
use crate::library::index::{Counts, Entry, IndexError};
use crate::library::scan::inspect::Inspection;
use crate::library::scan::walk::is_away;
use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::id::TorrentId;
use crate::torrent::reader::Reader;
use crate::torrent::refusal::is_metainfo_name;
use crate::wire::message::InfoHash;

/// A snapshot, and the last state of each path that was examined since it was made.
pub(super) struct Contents {
    snapshot: Snapshot,
    /// Where all content lies, unless beside each metainfo file.
    content: Option<PathBuf>,
    /// Metainfo files that are configured by themselves, by any name.
    files: Vec<PathBuf>,
    overlay: BTreeMap<Key, OverlayEntry>,
    /// The paths in `overlay` of each info-hash.
    by_hash: HashMap<InfoHash, Vec<Key>>,
    /// The ids in `overlay`.
    ids: HashSet<TorrentId>,
    next_id: TorrentId,
    counts: Counts,
    epoch: u32,
    reader: Reader,
    /// Whether somebody else makes the index: only what it has is served then.
    is_given: bool,
}

/// What inspecting a path has found.
enum Inspected {
    File(Inspection),
    Absent,
    Postponed,
}

impl Contents {
    /// A snapshot with nothing over it. `files` are metainfo files that count by any name.
    pub(super) fn new(
        snapshot: Snapshot,
        content: Option<PathBuf>,
        files: Vec<PathBuf>,
        is_given: bool,
    ) -> Self {
        Contents {
            next_id: snapshot.ids.end(),
            counts: snapshot.index.counts(),
            content: content.or_else(|| snapshot.content()),
            snapshot,
            files,
            overlay: BTreeMap::new(),
            by_hash: HashMap::new(),
            ids: HashSet::new(),
            epoch: 0,
            reader: Reader::default(),
            is_given,
        }
    }

    /// What the overlay lies over.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The last state of each path that was examined since the snapshot was made.
    pub(super) fn overlay(&self) -> &BTreeMap<Key, OverlayEntry> {
        &self.overlay
    }

    /// How much is served and refused.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many refreshes have begun. An overlay entry of this epoch may be newer than what the
    /// refresh under way has read.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// A refresh begins: what is examined from now on stays over its result.
    pub(super) fn begin_refresh(&mut self) {
        self.epoch += 1;
    }

    /// Takes other settings for what is examined from now on.
    pub(super) fn configure(&mut self, content: Option<PathBuf>, files: Vec<PathBuf>) {
        self.content = content;
        self.files = files;
    }

    /// Puts another snapshot and overlay in place. Torrents keep their ids.
    pub(super) fn replace(&mut self, merged: Merged) {
        self.snapshot = merged.snapshot;
        self.next_id = merged.next_id;
        self.counts = merged.counts;
        self.by_hash.clear();
        self.ids.clear();
        for (key, entry) in &merged.overlay {
            let Some(file) = &entry.file else { continue };
            self.ids.extend(file.id);
            if file.facts.state != State::Unusable {
                let keys = self.by_hash.entry(file.facts.info_hash).or_default();
                keys.push(key.clone());
            }
        }
        self.overlay = merged.overlay;
    }

    /// The overlay as the loop needs it, by info-hash.
    pub(super) fn overrides(&self) -> Result<BTreeMap<InfoHash, Override>, IndexError> {
        let mut overrides = BTreeMap::new();
        for (key, entry) in &self.overlay {
            if let Some(indexed) = self.snapshot.index.at(&key.path())?
                && is_served(&indexed)
            {
                // Another path of the overlay may serve it.
                let override_ = overrides.entry(indexed.facts.info_hash);
                override_.or_insert(Override::Tombstone);
            }
            if let Some(file) = &entry.file
                && let Some(id) = file.id
            {
                let served = Override::Served(id, key.path().into());
                overrides.insert(file.facts.info_hash, served);
            }
        }
        Ok(overrides)
    }

    /// Whether a configured directory, or one above it, is or was at this path.
    pub(super) fn is_input(&self, path: &Path) -> bool {
        self.inputs().any(|input| input.starts_with(path)) && !path.is_file()
    }

    /// The configured directory that a directory lies below.
    fn input_of(&self, directory: &Path) -> PathBuf {
        let input = self.inputs().find(|input| directory.starts_with(input));
        input.unwrap_or_else(|| directory.to_path_buf())
    }

    fn inputs(&self) -> impl Iterator<Item = PathBuf> {
        let origin = self.snapshot.index.origin();
        let searched = origin.searched.iter();
        searched.map(|input| origin.root.join(input))
    }

    /// Whether the disk of a metainfo file, or that of all content, is not mounted.
    pub(super) fn is_away(&self, path: &Path) -> bool {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let content = self.content.as_ref();
        is_away(&self.input_of(directory)) || content.is_some_and(|content| is_away(content))
    }

    /// Whether a metainfo file and its content were right when last examined.
    pub(super) fn is_intact(&self, path: &Path) -> Result<bool, IndexError> {
        let Some(key) = Key::new(path) else {
            return Ok(true);
        };
        let file = self.file(&key)?;
        Ok(file.is_some_and(|file| file.facts.state == State::Served))
    }

    /// The first id that [`Contents::unused_id`] is asked for.
    pub(super) fn next_id(&self) -> TorrentId {
        self.next_id
    }

    /// The first id from this one on that is not in use. Ids wrap around: a disk of twenty million
    /// torrents that comes and goes uses all of them up after two hundred times.
    pub(super) fn unused_id(&self, mut id: TorrentId) -> TorrentId {
        while self.snapshot.ids.record(id).is_some() || self.ids.contains(&id) {
            id = id.following();
        }
        id
    }

    /// The last state of a path; `None` when there is no file.
    fn file(&self, key: &Key) -> Result<Option<FileState>, IndexError> {
        if let Some(entry) = self.overlay.get(key) {
            return Ok(entry.file.clone());
        }
        let entry = self.snapshot.index.at(&key.path())?;
        Ok(entry.map(|entry| self.file_state(&entry)))
    }

    /// The state of a file as the snapshot has it.
    pub(super) fn file_state(&self, entry: &Entry) -> FileState {
        let id = self.snapshot.ids.id(entry.record);
        FileState {
            facts: entry.facts,
            id: id.filter(|_| is_served(entry)),
            reserved: id.filter(|_| !is_served(entry)),
        }
    }

    /// Metainfo files of the snapshot that are gone, ascending.
    pub(super) fn tombstones(&self) -> Vec<PathBuf> {
        let gone = self
            .overlay
            .iter()
            .filter(|(_, entry)| entry.file.is_none());
        let mut gone: Vec<PathBuf> = gone.map(|(key, _)| key.path()).collect();
        gone.sort_unstable();
        gone
    }

    fn is_wanted(&self, path: &Path) -> bool {
        is_metainfo_name(path) || self.files.iter().any(|file| file == path)
    }

    /// Examines one metainfo file.
    pub(super) fn examine(
        &mut self,
        path: &Path,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        let Some(key) = Key::new(path) else {
            return Ok(());
        };
        let before = self.file(&key)?;
        let mut inspection = match self.inspect(path, examined) {
            Inspected::File(inspection) if self.is_foreign(path, &inspection)? => {
                return self.remove(key, before, examined);
            }
            Inspected::File(inspection) => inspection,
            Inspected::Absent => return self.remove(key, before, examined),
            Inspected::Postponed => return Ok(()),
        };
        let is_unreadable = matches!(inspection.refusal, Some(RefusalReason::Unreadable(_)));
        let known = before
            .as_ref()
            .map_or(State::Unusable, |before| before.facts.state);
        if is_unreadable && known != State::Unusable {
            if let Some(reason) = inspection.refusal.filter(|_| known == State::Served) {
                let path = path.to_path_buf();
                examined.refused.push(Refusal { path, reason });
            }
            return self.withdraw(key, before, examined);
        }
        let is_same = before.as_ref().is_some_and(|before| {
            let (before, now) = (&before.facts, &inspection.facts);
            before.state == now.state
                && before.stamp == now.stamp
                && (before.state == State::Unusable || before.info_hash == now.info_hash)
        });
        if is_same {
            return Ok(());
        }
        let of_content = inspection.facts.state == State::Withdrawn;
        let removed = self.forget(&key, before, of_content, examined);
        let mut file = FileState {
            facts: inspection.facts,
            id: None,
            reserved: None,
        };
        if file.facts.state == State::Served {
            match self.serving_file(&file.facts.info_hash, Some(&key))? {
                Some(first) => inspection.refusal = duplicate(path, &first),
                None => file.id = Some(self.add(path, &inspection, examined)),
            }
        }
        if let Some(reason) = inspection.refusal {
            let path = path.to_path_buf();
            examined.refused.push(Refusal { path, reason });
        }
        let again = file.id.map(|_| file.facts.info_hash);
        self.keep(key, file);
        match removed.filter(|removed| Some(*removed) != again) {
            Some(removed) => self.promote(&removed, examined),
            None => Ok(()),
        }
    }

    /// Whether the index is given and does not have this torrent in this file.
    fn is_foreign(&self, path: &Path, inspection: &Inspection) -> Result<bool, IndexError> {
        if !self.is_given {
            return Ok(false);
        }
        let entry = self.snapshot.index.at(path)?;
        Ok(entry.is_none_or(|entry| entry.facts.info_hash != inspection.facts.info_hash))
    }

    /// Reads a metainfo file and looks for its content.
    fn inspect(&mut self, path: &Path, examined: &mut Examined) -> Inspected {
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => {}
            Ok(metadata) if metadata.is_dir() => return Inspected::Absent,
            Err(error) if is_absence(&error) => return Inspected::Absent,
            Ok(_) => return Inspected::File(Inspection::refused(RefusalReason::NotRegular)),
            Err(error) => return Inspected::File(Inspection::refused(error.into())),
        }
        let root = match &self.content {
            Some(content) if is_away(content) => None,
            Some(content) => Some(content.clone()),
            None => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                let real = directory.canonicalize();
                Some(real.unwrap_or_else(|_| directory.to_path_buf()))
            }
        };
        match Inspection::of(&mut self.reader, path, root.as_deref()) {
            Ok(inspection) => Inspected::File(inspection),
            Err(reason) => {
                postpone(path, &reason, examined);
                Inspected::Postponed
            }
        }
    }

    /// Serves a torrent under a new id.
    fn add(&mut self, path: &Path, inspection: &Inspection, examined: &mut Examined) -> TorrentId {
        let id = self.unused_id(self.next_id);
        self.next_id = id.following();
        examined.changes.push(Change::Added(Added {
            id,
            info_hash: inspection.facts.info_hash,
            announce: inspection.announce.as_slice().into(),
            metainfo: Some(path.into()),
        }));
        id
    }

    /// Leaves a tombstone for a file that is gone.
    fn remove(
        &mut self,
        key: Key,
        before: Option<FileState>,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        if before.is_none() {
            return Ok(());
        }
        let removed = self.forget(&key, before, false, examined);
        let epoch = self.epoch;
        self.overlay.insert(key, OverlayEntry { file: None, epoch });
        match removed {
            Some(removed) => self.promote(&removed, examined),
            None => Ok(()),
        }
    }

    /// Stops serving a file that cannot be read now, and keeps what is known of it.
    fn withdraw(
        &mut self,
        key: Key,
        before: Option<FileState>,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        let Some(mut file) = before.filter(|before| before.facts.state == State::Served) else {
            return Ok(());
        };
        let removed = self.forget(&key, Some(file.clone()), true, examined);
        file.facts.state = State::Withdrawn;
        file.id = None;
        self.keep(key, file);
        match removed {
            Some(removed) => self.promote(&removed, examined),
            None => Ok(()),
        }
    }

    /// Drops the last state of a path. Returns the info-hash that is no longer served, if one is.
    fn forget(
        &mut self,
        key: &Key,
        before: Option<FileState>,
        of_content: bool,
        examined: &mut Examined,
    ) -> Option<InfoHash> {
        let before = before?;
        let info_hash = before.facts.info_hash;
        if let Some(keys) = self.by_hash.get_mut(&info_hash) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_hash.remove(&info_hash);
            }
        }
        let Some(id) = before.id else {
            // A directory counts as refused until a refresh, so this may be one too many.
            self.counts.refused = self.counts.refused.saturating_sub(1);
            return None;
        };
        self.ids.remove(&id);
        self.counts.served = self.counts.served.saturating_sub(1);
        examined.changes.push(Change::Removed(Removed {
            id,
            info_hash,
            of_content,
        }));
        Some(info_hash)
    }

    /// Takes the state of a path into the overlay.
    fn keep(&mut self, key: Key, file: FileState) {
        match file.id {
            Some(id) => {
                self.ids.insert(id);
                self.counts.served += 1;
            }
            None => self.counts.refused += 1,
        }
        if file.facts.state != State::Unusable {
            let keys = self.by_hash.entry(file.facts.info_hash).or_default();
            keys.push(key.clone());
        }
        let (file, epoch) = (Some(file), self.epoch);
        self.overlay.insert(key, OverlayEntry { file, epoch });
    }
}

/// Leaves a path for later, because no descriptor was left.
fn postpone(path: &Path, reason: &RefusalReason, examined: &mut Examined) {
    log::warn!("rescan postponed: {reason}");
    examined.postponed.push(path.to_path_buf());
}

/// The refusal of a duplicate; `None` when both paths lead to one file.
fn duplicate(path: &Path, first: &Path) -> Option<RefusalReason> {
    let is_one_file = path.canonicalize().ok() == first.canonicalize().ok();
    (!is_one_file).then(|| RefusalReason::Duplicate(first.to_path_buf()))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
