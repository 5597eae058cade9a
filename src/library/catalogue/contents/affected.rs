//! Which metainfo files a change on disk may affect.
//!
//! They are the path itself, all files below it, and those whose content it is.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::{Contents, is_absence};
use crate::library::catalogue::overlay::{Affected, Examined, OverlayEntry};
use crate::library::index::format::ContentName;
use crate::library::index::{IndexError, MetainfoPath};
use crate::library::scan::build::Depth;
use crate::library::scan::walk::{Step, Walk};
use crate::torrent::refusal::is_metainfo_name;

impl Contents {
    /// The metainfo files that a change of this path may affect: itself, or at most `most` that are
    /// or were below it. See [`Contents::files_of_content`] for content.
    ///
    /// Files below a directory that cannot be reached are withdrawn at once.
    pub(in crate::library::catalogue) fn affected(
        &mut self,
        path: &Path,
        most: usize,
        examined: &mut Examined,
    ) -> Result<Affected, IndexError> {
        let metadata = path.metadata();
        let is_directory = metadata.as_ref().is_ok_and(fs::Metadata::is_dir);
        // Itself, unless it is a directory.
        let mut itself = Vec::new();
        if !is_directory && self.is_wanted(path) {
            itself.push(path.to_path_buf());
        }
        if metadata.is_ok() && !is_directory {
            return Ok(Affected::Files(itself));
        }
        let records = self.snapshot.index.below(path)?;
        if records.len() > most {
            return Ok(Affected::TooMany(Depth::Content));
        }
        let (mut found, mut away) = (Vec::new(), Vec::new());
        match metadata {
            Ok(_) => {
                for step in Walk::below(path, &self.input_of(path)) {
                    match step {
                        Step::Batch(batch) => {
                            let path = |name: &OsString| batch.directory.join(name);
                            found.extend(batch.names.iter().map(path));
                        }
                        Step::Refused(refusal) if refusal.reason.is_lack_of_descriptors() => {
                            // The files below are not gone.
                            examined.postpone(path, &refusal.reason);
                            return Ok(Affected::Files(Vec::new()));
                        }
                        Step::Refused(refusal) => examined.refused.push(refusal),
                        Step::Away(path) | Step::Hung(path) => away.push(path),
                    }
                    if found.len() > most {
                        // A scan reads files that are not in the index at any depth.
                        return Ok(Affected::TooMany(Depth::Metainfo));
                    }
                }
            }
            Err(error) if !is_absence(&error) || path.is_symlink() => {
                // It may exist, or be a link to a disk that is not mounted.
                away.push(path.to_path_buf());
            }
            Err(_) => {}
        }
        found.sort_unstable();
        let overlay = self.overlay_below(path);
        let mut gone: Vec<PathBuf> = overlay.map(|(path, _)| path.to_path_buf()).collect();
        for entry in self.snapshot.index.entries_of(records) {
            gone.push(entry?.path.to_path_buf());
        }
        gone.sort_unstable();
        gone.dedup();
        gone.retain(|path| found.binary_search(path).is_err());
        if !away.is_empty() {
            gone = self.withdraw_below(away, gone, examined)?;
        }
        gone.append(&mut found);
        gone.append(&mut itself);
        Ok(Affected::Files(gone))
    }

    /// Withdraws those of these files that are below a directory which is away. Returns the others.
    fn withdraw_below(
        &mut self,
        mut away: Vec<PathBuf>,
        files: Vec<PathBuf>,
        examined: &mut Examined,
    ) -> Result<Vec<PathBuf>, IndexError> {
        away.sort_unstable();
        let is_away = |above: &Path| {
            let found = away.binary_search_by(|other| other.as_path().cmp(above));
            found.is_ok()
        };
        let (below, others): (Vec<PathBuf>, Vec<PathBuf>) = files
            .into_iter()
            .partition(|file| file.ancestors().skip(1).any(is_away));
        for path in below.iter().filter_map(|file| MetainfoPath::new(file)) {
            let before = self.file(&path)?;
            self.withdraw(path, before, examined)?;
        }
        Ok(others)
    }

    fn overlay_below<'a>(
        &'a self,
        directory: &'a Path,
    ) -> impl Iterator<Item = (&'a MetainfoPath, &'a OverlayEntry)> {
        let first = MetainfoPath {
            directory: directory.to_path_buf(),
            name: OsString::new(),
        };
        let rest = (self.overlay).range((Bound::Included(first), Bound::Unbounded));
        rest.take_while(move |(path, _)| path.directory.starts_with(directory))
    }

    /// The metainfo files whose content may be at these paths, where content lies beside metainfo
    /// files.
    pub(in crate::library::catalogue) fn files_of_content(
        &self,
        paths: &[PathBuf],
    ) -> Result<Vec<PathBuf>, IndexError> {
        let mut found = Vec::new();
        if !self.content.named().roots.is_empty() {
            return Ok(found);
        }
        for (directory, names) in self.names_of_content(paths) {
            for record in self.snapshot.index.tagged(directory, &names)? {
                found.push(self.snapshot.index.record(record)?.path.to_path_buf());
            }
            for (path, entry) in self.overlay_below(directory) {
                if path.directory == directory
                    && let Some(file) = &entry.file
                    && names.contains(&file.facts.content_name)
                {
                    found.push(path.to_path_buf());
                }
            }
        }
        Ok(found)
    }

    /// The names, by directory, that may be those of changed content.
    fn names_of_content<'a>(
        &self,
        paths: &'a [PathBuf],
    ) -> BTreeMap<&'a Path, HashSet<ContentName>> {
        let mut names: BTreeMap<&Path, HashSet<ContentName>> = BTreeMap::new();
        for path in paths {
            let mut below = path.as_path();
            if is_metainfo_name(path) && !path.is_dir() {
                // The file itself is examined as a metainfo file; its directories may be content.
                below = path.parent().unwrap_or(path);
            }
            while let (Some(directory), Some(name)) = (below.parent(), below.file_name()) {
                if !directory.starts_with(&self.snapshot.index.origin().root) {
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
