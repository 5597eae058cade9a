//! Metainfo files with the same info-hash: one of them is served.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Contents, Inspected};
use crate::library::catalogue::overlay::{Examined, FileState, Key, is_served};
use crate::library::index::IndexError;
use crate::library::index::format::State;
use crate::wire::message::InfoHash;

impl Contents {
    /// The metainfo file from which a torrent is served, unless it is `but`.
    pub(super) fn serving_file(
        &self,
        info_hash: &InfoHash,
        but: Option<&Key>,
    ) -> Result<Option<PathBuf>, IndexError> {
        for key in self.by_hash.get(info_hash).into_iter().flatten() {
            let file = self.overlay.get(key).and_then(|entry| entry.file.as_ref());
            if Some(key) != but && file.is_some_and(|file| file.id.is_some()) {
                return Ok(Some(key.path()));
            }
        }
        let index = &self.snapshot.index;
        let Some(candidates) = index.find(info_hash) else {
            return Ok(None);
        };
        let Some(entry) = index.entry(candidates, info_hash)? else {
            return Ok(None);
        };
        let key = Key::of(index, &entry);
        let is_in_force = Some(&key) != but && !self.overlay.contains_key(&key);
        Ok((is_in_force && is_served(&entry)).then(|| key.path()))
    }

    /// Serves a torrent that was just removed from another file with the same info-hash.
    pub(super) fn promote(
        &mut self,
        info_hash: &InfoHash,
        examined: &mut Examined,
    ) -> Result<(), IndexError> {
        let keys = self.by_hash.get(info_hash);
        let mut keys: Vec<Key> = keys.cloned().unwrap_or_default();
        let index = &self.snapshot.index;
        if let Some(candidates) = index.find(info_hash)
            && let Some(entry) = index.entry(candidates, info_hash)?
        {
            for record in index.duplicates_of(entry.record) {
                keys.push(Key::of(index, &index.record(record)?));
            }
        }
        for key in keys {
            if let Some(file) = self.file(&key)?
                && file.facts.info_hash == *info_hash
                && file.id.is_none()
                && let path = key.path()
                && let Inspected::File(inspection) = self.inspect(&path, examined)
                && inspection.facts.state == State::Served
                && inspection.facts.info_hash == *info_hash
            {
                self.forget(&key, Some(file), false, examined);
                let id = Some(self.add(&path, &inspection, examined));
                let promoted = FileState {
                    facts: inspection.facts,
                    id,
                    reserved: None,
                };
                self.keep(key, promoted);
                break;
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
        for (key, entry) in &self.overlay {
            if let Some(file) = &entry.file
                && file.facts.state == State::Served
                && file.id.is_none()
            {
                info_hashes.insert(file.facts.info_hash);
            }
            if let Some(indexed) = index.at(&key.path())?
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
