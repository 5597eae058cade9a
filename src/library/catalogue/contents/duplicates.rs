//! Metainfo files with the same info-hash, one of which is served.
//!
//! Owns which one that is. It must not know what has changed. It blocks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Key, Read, There, View, is_served};
use crate::library::index::IndexError;
use crate::library::index::format::State;
use crate::torrent::refusal::RefusalReason;
use crate::wire::message::InfoHash;

impl View {
    /// The other metainfo file from which a torrent is served.
    pub(super) fn server_of(
        &self,
        info_hash: &InfoHash,
        but: Option<&Key>,
    ) -> Result<Option<PathBuf>, IndexError> {
        for key in self.by_hash.get(info_hash).into_iter().flatten() {
            let seen = self.over.get(key).and_then(|seen| seen.there.as_ref());
            if Some(key) != but && seen.is_some_and(|there| there.id.is_some()) {
                return Ok(Some(key.path()));
            }
        }
        let index = &self.base.index;
        let Some(candidates) = index.find(info_hash) else {
            return Ok(None);
        };
        let Some(entry) = index.entry(candidates, info_hash)? else {
            return Ok(None);
        };
        let path = index.path_of(&entry);
        let holds =
            Key::new(&path).is_some_and(|key| Some(&key) != but && !self.over.contains_key(&key));
        Ok((holds && is_served(&entry)).then_some(path))
    }

    /// Serves a torrent that has just been removed from another file that has the same.
    pub(super) fn promote(&mut self, info_hash: &InfoHash) -> Result<(), IndexError> {
        let mut paths: Vec<PathBuf> = Vec::new();
        let keys = self.by_hash.get(info_hash).into_iter().flatten();
        paths.extend(keys.map(Key::path));
        let index = &self.base.index;
        if let Some(candidates) = index.find(info_hash)
            && let Some(entry) = index.entry(candidates, info_hash)?
        {
            for record in index.duplicates_of(entry.number) {
                paths.push(index.metainfo_path(record)?);
            }
        }
        for path in paths {
            let Some(key) = Key::new(&path) else { continue };
            if let Some(there) = self.at(&key)?
                && there.facts.info_hash == *info_hash
                && there.id.is_none()
                && let Read::Found(looked) = self.read(&path)
                && looked.facts.state == State::Served
                && looked.facts.info_hash == *info_hash
            {
                self.forget(&key, Some(there), false);
                let there = There {
                    facts: looked.facts,
                    id: Some(self.added(&path, info_hash, &looked.announce)),
                    reserved: None,
                };
                self.keep(key, there);
                break;
            }
        }
        Ok(())
    }

    /// Serves what nobody serves although it is there, after an index has taken the place of another:
    /// what was seen over it may have been the one of several that it goes by.
    pub(in crate::library::catalogue) fn settle_equals(&mut self) -> Result<(), IndexError> {
        let mut info_hashes = BTreeSet::new();
        let index = &self.base.index;
        for (key, seen) in &self.over {
            if let Some(there) = &seen.there
                && there.facts.state == State::Served
                && there.id.is_none()
            {
                info_hashes.insert(there.facts.info_hash);
            }
            if let Some(entry) = index.at(&key.path())?
                && index.duplicates_of(entry.number).next().is_some()
            {
                info_hashes.insert(entry.facts.info_hash);
            }
        }
        for info_hash in info_hashes {
            if self.server_of(&info_hash, None)?.is_none() {
                self.promote(&info_hash)?;
            }
        }
        Ok(())
    }
}

/// What is refused; nothing when both paths lead to one file.
pub(super) fn duplicate(path: &Path, first: &Path) -> Option<RefusalReason> {
    let same = path.canonicalize().ok() == first.canonicalize().ok();
    (!same).then(|| RefusalReason::Duplicate(first.to_path_buf()))
}
