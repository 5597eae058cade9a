//! Metainfo files with the same info-hash: one of them is served.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Contents, Inspected};
use crate::library::catalogue::overlay::{Examined, FileState};
use crate::library::index::format::State;
use crate::library::index::{Entry, IndexError, MetainfoPath};
use crate::wire::message::InfoHash;

impl Contents {
    /// The metainfo file from which a torrent is served, unless it is `but`.
    pub(super) fn serving_file(
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
    pub(super) fn promote(
        &mut self,
        info_hash: &InfoHash,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        let mut paths = self.by_hash.get(info_hash).cloned().unwrap_or_default();
        let index = &self.snapshot.index;
        if let Some(entry) = self.indexed(info_hash)? {
            for record in index.duplicates_of(entry.record) {
                paths.push(index.record(record)?.path);
            }
        }
        for path in paths {
            let file = path.to_path_buf();
            if let Some(before) = self.file(&path)?
                && before.facts.info_hash == *info_hash
                && before.id.is_none()
                && let Inspected::File(inspection) = self.inspect(&file, examined)
                && inspection.facts.state == State::Served
                && inspection.facts.info_hash == *info_hash
            {
                let added = self.added(&file, &inspection);
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
    pub(in crate::library::catalogue) fn promote_duplicates(
        &mut self,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
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
