//! The served torrents by the paths of metainfo files: a snapshot with an overlay.
//!
//! Owns the ids of torrents, and decides what changes when a path is examined again. The
//! library's thread owns it: every function may wait for a disk.

mod affected;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::overlay::{
    Added, Change, Examined, FileState, Merged, OverlayEntry, Override, Overrides, Relisted,
    Removed, Snapshot,
};
use crate::library::index::format::State;
use crate::library::index::{Counts, Entry, IndexError, MetainfoPath};
use crate::library::scan::inspect::{ContentRoots, Inspection};
use crate::library::scan::walk::is_away;
use crate::torrent::catalogue::RefusalReason;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::id::TorrentId;
use crate::torrent::metainfo::add_tiers;
use crate::torrent::reader::Reader;
use crate::torrent::refusal::is_metainfo_name;
use crate::wire::message::InfoHash;

/// A snapshot, and the last state of each path that was examined since it was made.
pub(super) struct Contents {
    snapshot: Snapshot,
    /// Where content lies.
    content: ContentDirectories,
    /// Metainfo files that are configured by themselves, by any name.
    files: Vec<PathBuf>,
    overlay: BTreeMap<MetainfoPath, OverlayEntry>,
    /// The paths in `overlay` of each info-hash.
    by_hash: HashMap<InfoHash, Vec<MetainfoPath>>,
    /// The ids in `overlay`.
    ids: HashSet<TorrentId>,
    next_id: TorrentId,
    counts: Counts,
    epoch: u32,
    reader: Reader,
    /// The index is made by somebody else: only the torrents in it are served.
    is_given: bool,
}

/// The result of inspecting a path.
enum Inspected {
    File(Inspection),
    Absent,
    Postponed,
}

impl Contents {
    /// A snapshot with nothing over it. `files` are metainfo files that count by any name.
    pub(super) fn new(
        snapshot: Snapshot,
        content: &ContentDirectories,
        files: Vec<PathBuf>,
        is_given: bool,
    ) -> Self {
        Contents {
            next_id: snapshot.ids.end(),
            counts: snapshot.index.counts(),
            content: snapshot.content(content),
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

    /// The snapshot below the overlay.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The last state of each path that was examined since the snapshot was made.
    pub(super) fn overlay(&self) -> &BTreeMap<MetainfoPath, OverlayEntry> {
        &self.overlay
    }

    /// How much is served and refused.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The number of refreshes that have begun. An overlay entry of this epoch may be newer than what the
    /// refresh under way has read.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// A refresh begins: paths that are examined from now on stay in the overlay of its result.
    pub(super) fn begin_refresh(&mut self) {
        self.epoch += 1;
    }

    /// Takes other settings for paths that are examined from now on.
    pub(super) fn configure(&mut self, content: &ContentDirectories, files: Vec<PathBuf>) {
        self.content = self.snapshot.content(content);
        self.files = files;
    }

    /// Puts another snapshot and overlay in place. Torrents keep their ids.
    pub(super) fn replace(&mut self, merged: Merged) {
        self.snapshot = merged.snapshot;
        self.next_id = merged.next_id;
        self.counts = merged.counts;
        self.by_hash.clear();
        self.ids.clear();
        for (path, entry) in &merged.overlay {
            entry.file.iter().for_each(|file| self.link(path, file));
        }
        self.overlay = merged.overlay;
    }

    /// The overlay as the loop needs it, by info-hash.
    pub(super) fn overrides(&self) -> Result<Overrides, IndexError> {
        let mut overrides = Overrides::default();
        for (path, entry) in &self.overlay {
            if let Some(indexed) = self.snapshot.index.at(path)?
                && indexed.is_served()
                // Another path of the overlay may serve it.
                && overrides.get(&indexed.facts.info_hash).is_none()
            {
                overrides.insert(indexed.facts.info_hash, Override::Tombstone);
            }
            if let Some(file) = &entry.file
                && let Some(id) = file.id
            {
                let served = Override::Served(id, path.to_path_buf().into());
                overrides.insert(file.facts.info_hash, served);
            }
        }
        Ok(overrides)
    }

    /// Returns true if a configured directory, or one above it, is or was at this path.
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

    /// Returns true if the disk of a metainfo file, or each of those where its content may lie, is not mounted.
    pub(super) fn is_away(&self, path: &Path) -> bool {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let roots = self.content.roots_of(directory);
        is_away(&self.input_of(directory)) || roots.iter().all(|root| is_away(root))
    }

    /// Returns true if a metainfo file and its content were right when last examined.
    pub(super) fn is_intact(&self, path: &Path) -> Result<bool, IndexError> {
        let file = match MetainfoPath::new(path) {
            Some(path) => self.file(&path)?,
            None => None,
        };
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
    fn file(&self, path: &MetainfoPath) -> Result<Option<FileState>, IndexError> {
        if let Some(entry) = self.overlay.get(path) {
            return Ok(entry.file.clone());
        }
        let entry = self.snapshot.index.at(path)?;
        Ok(entry.map(|entry| self.file_state(&entry)))
    }

    /// The state of a file as the snapshot has it.
    pub(super) fn file_state(&self, entry: &Entry) -> FileState {
        let id = self.snapshot.ids.id(entry.record);
        FileState {
            facts: entry.facts,
            id: id.filter(|_| entry.is_served()),
            reserved: id.filter(|_| !entry.is_served()),
        }
    }

    /// Metainfo files of the snapshot that are gone, ascending.
    pub(super) fn tombstones(&self) -> Vec<MetainfoPath> {
        let gone = self
            .overlay
            .iter()
            .filter(|(_, entry)| entry.file.is_none());
        gone.map(|(path, _)| path.clone()).collect()
    }

    fn is_wanted(&self, path: &Path) -> bool {
        is_metainfo_name(path) || self.files.iter().any(|file| file == path)
    }

    /// Examines one metainfo file.
    pub(super) fn examine(
        &mut self,
        file: &Path,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        let Some(path) = MetainfoPath::new(file) else {
            return Ok(());
        };
        let before = self.file(&path)?;
        let inspection = match self.inspect(file, examined) {
            Inspected::File(inspection) if !self.is_foreign(&path, &inspection)? => inspection,
            Inspected::File(_) | Inspected::Absent => {
                return self.set(path, before, None, None, examined);
            }
            Inspected::Postponed => return Ok(()),
        };
        let state_before = before.as_ref().map(|before| before.facts.state);
        if let Some(RefusalReason::Unreadable(_)) = inspection.refusal
            && let Some(state @ (State::Served | State::Withdrawn)) = state_before
        {
            if let Some(reason) = inspection.refusal.filter(|_| state == State::Served) {
                examined.refuse(file, reason);
            }
            return self.withdraw(path, before, examined);
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
        let mut added = None;
        if inspection.facts.state == State::Served {
            let info_hash = &inspection.facts.info_hash;
            if self.serving_file(info_hash, Some(&path))?.is_none() {
                added = Some(self.added(&path, &inspection)?);
            }
        }
        let after = FileState {
            facts: inspection.facts,
            id: added.as_ref().map(|added| added.id),
            reserved: None,
        };
        if let Some(reason) = inspection.refusal {
            examined.refuse(file, reason);
        }
        self.set(path, before, Some(after), added, examined)
    }

    /// Returns true if the index is given and does not have this torrent in this file.
    fn is_foreign(&self, path: &MetainfoPath, inspection: &Inspection) -> Result<bool, IndexError> {
        if !self.is_given {
            return Ok(false);
        }
        let entry = self.snapshot.index.at(path)?;
        Ok(entry.is_none_or(|entry| entry.facts.info_hash != inspection.facts.info_hash))
    }

    /// Reads a metainfo file and checks its content.
    fn inspect(&mut self, path: &Path, examined: &mut Examined) -> Inspected {
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => {}
            Ok(metadata) if metadata.is_dir() => return Inspected::Absent,
            Err(error) if is_absence(&error) => return Inspected::Absent,
            Ok(_) => return Inspected::File(Inspection::refused(RefusalReason::NotRegular)),
            Err(error) => return Inspected::File(Inspection::refused(error.into())),
        }
        let roots = ContentRoots::new(self.content.clone());
        let roots = roots.of(path.parent().unwrap_or(Path::new("/")));
        match Inspection::of(&mut self.reader, path, roots.as_ref()) {
            Ok(inspection) => Inspected::File(inspection),
            Err(reason) => {
                examined.postpone(path, &reason);
                Inspected::Postponed
            }
        }
    }

    /// A torrent under a new id.
    fn added(&mut self, path: &MetainfoPath, inspection: &Inspection) -> Result<Added, IndexError> {
        let id = self.unused_id(self.next_id);
        self.next_id = id.following();
        let info_hash = inspection.facts.info_hash;
        let mut announce = inspection.announce.clone();
        self.add_announce(&mut announce, &info_hash, path)?;
        Ok(Added {
            id,
            info_hash,
            announce: announce.into(),
            metainfo: Some(path.to_path_buf().into()),
        })
    }

    /// Appends the announce URLs of the other files with an info-hash whose content is right.
    fn add_announce(
        &mut self,
        announce: &mut Vec<Vec<String>>,
        info_hash: &InfoHash,
        but: &MetainfoPath,
    ) -> Result<(), IndexError> {
        for path in self.files_of(info_hash)? {
            if path != *but {
                add_tiers(announce, self.announce_of(&path, info_hash)?);
            }
        }
        Ok(())
    }

    /// The announce URLs of a file; none if its content is not right, or if it is that of another torrent.
    fn announce_of(
        &mut self,
        path: &MetainfoPath,
        info_hash: &InfoHash,
    ) -> Result<Vec<Vec<String>>, IndexError> {
        if let Some(entry) = self.overlay.get(path) {
            let is_right = |file: &FileState| file.facts.state == State::Served;
            if !entry.file.as_ref().is_some_and(is_right) {
                return Ok(Vec::new());
            }
            // The overlay does not have them. If the file is gone, its change is under way.
            let read = self.reader.read(&path.to_path_buf()).ok();
            let read = read.filter(|read| read.metainfo.info_hash == *info_hash);
            return Ok(read.map_or_else(Vec::new, |read| read.metainfo.announce));
        }
        let index = &self.snapshot.index;
        match index.at(path)? {
            Some(entry) if entry.facts.state == State::Served => index.trackers(entry.trackers),
            _ => Ok(Vec::new()),
        }
    }

    /// The files with an info-hash, in any state.
    fn files_of(&self, info_hash: &InfoHash) -> Result<Vec<MetainfoPath>, IndexError> {
        let mut paths = self.by_hash.get(info_hash).cloned().unwrap_or_default();
        let index = &self.snapshot.index;
        if let Some(entry) = self.indexed(info_hash)? {
            for record in index.duplicates_of(entry.record) {
                paths.push(index.record(record)?.path);
            }
            paths.push(entry.path);
        }
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }

    /// Tells the trackers of a torrent again which files name them, if it is served.
    pub(super) fn relist(
        &mut self,
        info_hash: &InfoHash,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        for path in self.files_of(info_hash)? {
            if let Some(file) = self.file(&path)?
                && file.facts.info_hash == *info_hash
                && let Some(id) = file.id
            {
                let mut announce = self.announce_of(&path, info_hash)?;
                self.add_announce(&mut announce, info_hash, &path)?;
                examined.changes.push(Change::Relisted(Relisted {
                    id,
                    info_hash: *info_hash,
                    announce: announce.into(),
                }));
                break;
            }
        }
        Ok(())
    }

    /// The torrents that are in several files.
    pub(super) fn in_several_files(&self) -> Result<BTreeSet<InfoHash>, IndexError> {
        let index = &self.snapshot.index;
        let found = index.info_hashes(&index.firsts_of_duplicates())?;
        let mut several: BTreeSet<InfoHash> = found.into_iter().flatten().collect();
        for (path, entry) in &self.overlay {
            if let Some(file) = &entry.file
                && file.facts.state == State::Served
                && file.id.is_none()
            {
                several.insert(file.facts.info_hash);
            }
            // It may hide one of several.
            if let Some(file) = &entry.file
                && self
                    .indexed(&file.facts.info_hash)?
                    .is_some_and(|other| other.path != *path)
            {
                several.insert(file.facts.info_hash);
            }
        }
        Ok(several)
    }

    /// Stops serving a file that cannot be read now, and keeps its facts.
    fn withdraw(
        &mut self,
        path: MetainfoPath,
        before: Option<FileState>,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        match before.clone() {
            Some(mut after) if after.facts.state == State::Served => {
                after.facts.state = State::Withdrawn;
                after.id = None;
                self.set(path, before, Some(after), None, examined)
            }
            _ => Ok(()),
        }
    }

    /// Replaces the state of a path, by a tombstone if `after` is `None`. `added` is the torrent that is
    /// served from it. The one that was served from it is served from another file, if there is one.
    fn set(
        &mut self,
        path: MetainfoPath,
        before: Option<FileState>,
        after: Option<FileState>,
        added: Option<Added>,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        if before.is_none() && after.is_none() {
            return Ok(());
        }
        let is_withdrawn = |file: &FileState| file.facts.state == State::Withdrawn;
        // Trackers that only this file names come or go.
        let is_one_of_several =
            |file: &&FileState| file.facts.state == State::Served && file.id.is_none();
        let several = [&before, &after].map(|file| {
            let file = file.as_ref().filter(is_one_of_several);
            file.map(|file| file.facts.info_hash)
        });
        let removed = before.and_then(|before| {
            self.unlink(&path, &before);
            Some(Removed {
                id: before.id?,
                info_hash: before.facts.info_hash,
                of_content: after.as_ref().is_some_and(is_withdrawn),
            })
        });
        if let Some(file) = &after {
            self.link(&path, file);
            self.counts.add(file.facts.state, file.id.is_some());
        }
        let (file, epoch) = (after, self.epoch);
        self.overlay.insert(path, OverlayEntry { file, epoch });
        let added_hash = added.as_ref().map(|added| added.info_hash);
        (examined.changes).extend(removed.map(Change::Removed));
        examined.changes.extend(added.map(Change::Added));
        match removed.map(|removed| removed.info_hash) {
            Some(info_hash) if Some(info_hash) != added_hash => {
                self.promote(&info_hash, examined)?;
            }
            _ => {}
        }
        for info_hash in several.into_iter().flatten() {
            if Some(info_hash) != added_hash {
                self.relist(&info_hash, examined)?;
            }
        }
        Ok(())
    }

    /// Takes the state of a path out of `by_hash`, `ids` and the counts.
    fn unlink(&mut self, path: &MetainfoPath, file: &FileState) {
        let info_hash = &file.facts.info_hash;
        if let Some(paths) = self.by_hash.get_mut(info_hash) {
            paths.retain(|other| other != path);
            if paths.is_empty() {
                self.by_hash.remove(info_hash);
            }
        }
        if let Some(id) = file.id {
            self.ids.remove(&id);
        }
        // Of a refused directory an index counts one too many.
        self.counts.remove(file.facts.state, file.id.is_some());
    }

    /// Adds the state of a path in the overlay to `by_hash` and `ids`.
    fn link(&mut self, path: &MetainfoPath, file: &FileState) {
        self.ids.extend(file.id);
        if file.facts.state != State::Unusable {
            let paths = self.by_hash.entry(file.facts.info_hash).or_default();
            paths.push(path.clone());
        }
    }

    /// The metainfo file from which a torrent is served, unless it is `but`.
    fn serving_file(
        &self,
        info_hash: &InfoHash,
        but: Option<&MetainfoPath>,
    ) -> Result<Option<PathBuf>, IndexError> {
        for path in self.by_hash.get(info_hash).into_iter().flatten() {
            let file = self.overlay.get(path).and_then(|entry| entry.file.as_ref());
            if Some(path) != but && file.is_some_and(|file| file.id.is_some()) {
                return Ok(Some(path.to_path_buf()));
            }
        }
        let Some(entry) = self.indexed(info_hash)? else {
            return Ok(None);
        };
        let is_in_force = Some(&entry.path) != but && !self.overlay.contains_key(&entry.path);
        Ok((is_in_force && entry.is_served()).then(|| entry.path.to_path_buf()))
    }

    /// The entry of the snapshot from which a torrent is served.
    fn indexed(&self, info_hash: &InfoHash) -> Result<Option<Entry>, IndexError> {
        match self.snapshot.index.find(info_hash) {
            Some(candidates) => self.snapshot.index.entry(candidates, info_hash),
            None => Ok(None),
        }
    }

    /// Serves a torrent that was just removed from another file with the same info-hash.
    fn promote(&mut self, info_hash: &InfoHash, examined: &mut Examined) -> Result<(), IndexError> {
        for path in self.files_of(info_hash)? {
            let file = path.to_path_buf();
            if let Some(before) = self.file(&path)?
                && before.facts.info_hash == *info_hash
                && before.id.is_none()
                && let Inspected::File(inspection) = self.inspect(&file, examined)
                && inspection.facts.state == State::Served
                && inspection.facts.info_hash == *info_hash
            {
                let added = self.added(&path, &inspection)?;
                let after = FileState {
                    facts: inspection.facts,
                    id: Some(added.id),
                    reserved: None,
                };
                return self.set(path, Some(before), Some(after), Some(added), examined);
            }
        }
        Ok(())
    }

    /// Serves each torrent that no file serves although one could. That happens when a snapshot is
    /// replaced: the overlay may hide the one of several files that the new index serves.
    pub(super) fn promote_duplicates(&mut self, examined: &mut Examined) -> Result<(), IndexError> {
        let mut info_hashes = BTreeSet::new();
        let index = &self.snapshot.index;
        for (path, entry) in &self.overlay {
            if let Some(file) = &entry.file
                && file.facts.state == State::Served
                && file.id.is_none()
            {
                info_hashes.insert(file.facts.info_hash);
            }
            if let Some(indexed) = index.at(path)?
                && index.duplicates_of(indexed.record).next().is_some()
            {
                info_hashes.insert(indexed.facts.info_hash);
            }
        }
        for info_hash in info_hashes {
            if self.serving_file(&info_hash, None)?.is_none() {
                self.promote(&info_hash, examined)?;
            }
        }
        Ok(())
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
