//! Which metainfo files a change on disk may be about.
//!
//! Owns the way from a path that has changed to those files: itself, all below it, or those whose
//! content it is. It must not know what becomes of them, but for those that cannot be looked at: these
//! are withdrawn.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::{Key, View, is_absence};
use crate::library::index::IndexError;
use crate::library::index::format::ContentName;
use crate::library::scan::walk::{self, Step};
use crate::torrent::refusal::is_metainfo_name;

/// What a change of a path may be about.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::library::catalogue) enum Concerned {
    /// These metainfo files, those first that are gone.
    These(Vec<PathBuf>),
    /// More than were asked for, most of them not known.
    ManyNew,
    /// More than were asked for are known.
    ManyKnown,
}

impl View {
    /// The metainfo files that a change of this path may be about: itself, or all that are or were
    /// below it, unless they are more than `most`. Of content see [`View::with_content`].
    pub(in crate::library::catalogue) fn concerned(
        &mut self,
        path: &Path,
        most: usize,
    ) -> Result<Concerned, IndexError> {
        let metadata = path.metadata();
        let is_directory = metadata.as_ref().is_ok_and(fs::Metadata::is_dir);
        let mut concerned = match is_directory || metadata.is_err() {
            true => self.concerned_below(path, most)?,
            false => Concerned::These(Vec::new()),
        };
        if let Concerned::These(paths) = &mut concerned
            && !is_directory
            && self.is_wanted(path)
        {
            paths.push(path.to_path_buf());
        }
        Ok(concerned)
    }

    /// The metainfo files that are or were below a path.
    fn concerned_below(&mut self, path: &Path, most: usize) -> Result<Concerned, IndexError> {
        let records = self.base.index.below(path)?;
        if records.len() > most {
            return Ok(Concerned::ManyKnown);
        }
        let (mut found, mut away) = (Vec::new(), Vec::new());
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                for step in walk::below(path, &self.start_of(path)) {
                    match step {
                        Step::Batch(batch) => {
                            let path = |name: &OsString| batch.directory.join(name);
                            found.extend(batch.names.iter().map(path));
                        }
                        Step::Refused(refusal) if refusal.reason.is_lack_of_descriptors() => {
                            // What is below is not gone.
                            self.put_off(path, &refusal.reason);
                            return Ok(Concerned::These(Vec::new()));
                        }
                        Step::Refused(refusal) => self.refusals.push(refusal),
                        Step::Away(path) => away.push(path),
                    }
                    if found.len() > most {
                        return Ok(Concerned::ManyNew);
                    }
                }
            }
            Err(error) if !is_absence(&error) || path.is_symlink() => {
                // It may be there, or what a link leads to may be on a disk that is away.
                away.push(path.to_path_buf());
            }
            _ => {}
        }
        found.sort_unstable();
        let mut gone: Vec<PathBuf> = self.over_below(path).map(Key::path).collect();
        for entry in self.base.index.entries_of(records) {
            gone.push(self.base.index.path_of(&entry?));
        }
        gone.sort_unstable();
        gone.dedup();
        gone.retain(|path| found.binary_search(path).is_err());
        if !away.is_empty() {
            gone = self.withdraw_those_below(away, gone)?;
        }
        gone.append(&mut found);
        Ok(Concerned::These(gone))
    }

    /// Withdraws those of these files that are below a directory which is away. Answers the others.
    fn withdraw_those_below(
        &mut self,
        mut away: Vec<PathBuf>,
        files: Vec<PathBuf>,
    ) -> Result<Vec<PathBuf>, IndexError> {
        away.sort_unstable();
        let is_away = |above: &Path| {
            let place = away.binary_search_by(|other| other.as_path().cmp(above));
            place.is_ok()
        };
        let (below, others): (Vec<PathBuf>, Vec<PathBuf>) = files
            .into_iter()
            .partition(|file| file.ancestors().skip(1).any(is_away));
        for key in below.iter().filter_map(|file| Key::new(file)) {
            let before = self.at(&key)?;
            self.withdraw(key, before)?;
        }
        Ok(others)
    }

    fn over_below<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = &'a Key> {
        let first = Key {
            directory: directory.to_path_buf(),
            name: OsString::new(),
        };
        let after = self.over.range((Bound::Included(first), Bound::Unbounded));
        after
            .map(|(key, _)| key)
            .take_while(move |key| key.directory.starts_with(directory))
    }

    /// The metainfo files whose content these paths may be, where content lies beside metainfo files.
    pub(in crate::library::catalogue) fn with_content(
        &self,
        paths: &[PathBuf],
    ) -> Result<Vec<PathBuf>, IndexError> {
        let mut found = Vec::new();
        if self.content.is_some() {
            return Ok(found);
        }
        for (directory, names) in self.names_of_content(paths) {
            for record in self.base.index.tagged(directory, &names)? {
                found.push(self.base.index.metainfo_path(record)?);
            }
            let within = self.over_below(directory);
            let within = within.filter(|key| key.directory == directory);
            let named = within.filter(|key| {
                let there = self.over.get(*key).and_then(|seen| seen.there.as_ref());
                there.is_some_and(|there| names.contains(&there.facts.content_name))
            });
            found.extend(named.map(Key::path));
        }
        Ok(found)
    }

    /// Which names in which directories may be those of content that has changed.
    fn names_of_content<'a>(
        &self,
        paths: &'a [PathBuf],
    ) -> BTreeMap<&'a Path, HashSet<ContentName>> {
        let mut names: BTreeMap<&Path, HashSet<ContentName>> = BTreeMap::new();
        for path in paths {
            let mut below = path.as_path();
            if is_metainfo_name(path) && !path.is_dir() {
                // It is looked at itself; what it may be a part of is content.
                below = path.parent().unwrap_or(path);
            }
            while let (Some(directory), Some(name)) = (below.parent(), below.file_name()) {
                if !directory.starts_with(&self.base.index.origin().root) {
                    break;
                }
                let name = ContentName::new(name.as_encoded_bytes());
                names.entry(directory).or_default().insert(name);
                below = directory;
            }
        }
        names
    }
}
