//! Finding metainfo files.
//!
//! Owns the order in which they are found, which is that of the index: directories by their
//! components, and in each the files before the directories. It must not know what is in them. It
//! blocks.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::scan::{is_metainfo_name, walk_refusal};

/// Files of one directory that are handed on together: enough that handing on costs nothing beside
/// reading them, and few enough that all cores have some.
const BATCH_NAMES: usize = 64;

/// Files of one directory, in the order of their names.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Batch {
    /// As it was reached: symlinks below the start are not resolved.
    pub(super) directory: PathBuf,
    pub(super) names: Vec<OsString>,
}

/// What is found on the way.
#[derive(Debug)]
pub(super) enum Step {
    Batch(Batch),
    Refused(Refusal),
}

/// Where a walk starts.
#[derive(Debug)]
pub(super) struct Starts {
    /// Each directory with the names that are wanted of it; all below it when there are none.
    directories: BTreeMap<PathBuf, Vec<OsString>>,
    /// Files that were given by themselves below a directory that is walked.
    within: Vec<PathBuf>,
    /// What could not be found.
    pub(super) refusals: Vec<Refusal>,
}

impl Starts {
    /// Resolves what was given: directories, or metainfo files of any name.
    pub(super) fn new(inputs: &[PathBuf]) -> Self {
        let mut starts = Starts {
            directories: BTreeMap::new(),
            within: Vec::new(),
            refusals: Vec::new(),
        };
        let mut files = Vec::new();
        for input in inputs {
            match input.canonicalize() {
                Ok(path) if path.is_dir() => {
                    starts.directories.insert(path, Vec::new());
                }
                Ok(path) => files.push(path),
                Err(error) => starts.refusals.push(Refusal {
                    path: input.clone(),
                    reason: error.into(),
                }),
            }
        }
        let all: Vec<PathBuf> = starts.directories.keys().cloned().collect();
        let is_within = |path: &Path| {
            let mut above = path.ancestors().skip(1);
            above.any(|directory| all.iter().any(|other| other == directory))
        };
        starts.directories.retain(|path, _| !is_within(path));
        for file in files {
            if is_within(&file) {
                starts.within.push(file);
            } else if let (Some(directory), Some(name)) = (file.parent(), file.file_name()) {
                let names = starts.directories.entry(directory.to_path_buf());
                names.or_default().push(name.to_owned());
            }
        }
        for names in starts.directories.values_mut() {
            names.sort_unstable();
            names.dedup();
        }
        starts
    }

    /// The deepest directory that holds all of them; `None` when there are none.
    pub(super) fn common_directory(&self) -> Option<PathBuf> {
        let mut directories = self.directories.keys();
        let mut common = directories.next()?.clone();
        for directory in directories {
            while !directory.starts_with(&common) {
                common.pop();
            }
        }
        Some(common)
    }

    /// The directories and files, without what lies within another.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.directories.iter().flat_map(|(directory, names)| {
            let files = names.iter().map(|name| directory.join(name));
            let whole = names.is_empty().then(|| directory.clone());
            whole.into_iter().chain(files).collect::<Vec<_>>()
        })
    }

    /// Walks from all of them.
    pub(super) fn walk(self) -> impl Iterator<Item = Step> + Send {
        let refused = self.refusals.into_iter().map(Step::Refused);
        let within = self.within;
        let steps = self
            .directories
            .into_iter()
            .flat_map(move |(directory, names)| match names.is_empty() {
                true => Walk::new(&directory, within.clone()),
                false => Walk::only(Batch { directory, names }),
            });
        refused.chain(steps)
    }
}

/// A walk from one start.
struct Walk {
    entries: Option<walkdir::IntoIter>,
    within: Vec<PathBuf>,
    batch: Option<Batch>,
}

impl Walk {
    fn new(directory: &Path, within: Vec<PathBuf>) -> Self {
        let entries = WalkDir::new(directory).follow_links(true).sort_by(compare);
        Walk {
            entries: Some(entries.into_iter()),
            within,
            batch: None,
        }
    }

    fn only(batch: Batch) -> Self {
        Walk {
            entries: None,
            within: Vec::new(),
            batch: Some(batch),
        }
    }

    /// What an entry of the walk is for us.
    fn judge(&self, entry: Result<DirEntry, walkdir::Error>) -> Option<Result<DirEntry, Refusal>> {
        match entry {
            Err(error) => walk_refusal(error).map(Err),
            Ok(entry) => {
                let path = entry.path();
                let wanted =
                    is_metainfo_name(path) || self.within.iter().any(|other| other == path);
                if !wanted || entry.file_type().is_dir() {
                    return None;
                }
                Some(match entry.file_type().is_file() {
                    true => Ok(entry),
                    false => Err(Refusal {
                        path: entry.into_path(),
                        reason: RefusalReason::NotRegular,
                    }),
                })
            }
        }
    }

    fn add(&mut self, entry: &DirEntry) -> Option<Batch> {
        let directory = entry.path().parent().unwrap_or(Path::new("/"));
        let name = entry.file_name().to_owned();
        match &mut self.batch {
            Some(batch)
                if batch.names.len() < BATCH_NAMES
                    && batch.directory.as_os_str() == directory.as_os_str() =>
            {
                batch.names.push(name);
                None
            }
            _ => self.batch.replace(Batch {
                directory: directory.to_path_buf(),
                names: vec![name],
            }),
        }
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        while let Some(entry) = self.entries.as_mut().and_then(Iterator::next) {
            match self.judge(entry) {
                None => {}
                Some(Ok(entry)) => {
                    if let Some(batch) = self.add(&entry) {
                        return Some(Step::Batch(batch));
                    }
                }
                Some(Err(refusal)) => return Some(Step::Refused(refusal)),
            }
        }
        self.batch.take().map(Step::Batch)
    }
}

/// Files before directories, each by name.
fn compare(one: &DirEntry, other: &DirEntry) -> Ordering {
    let key = |entry: &DirEntry| entry.file_type().is_dir();
    let by_kind = key(one).cmp(&key(other));
    by_kind.then_with(|| one.file_name().cmp(other.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn tree(paths: &[&str]) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        for path in paths {
            let path = base.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        (directory, base)
    }

    /// The files in the order in which they are found, below `base`.
    fn walked(base: &Path, inputs: &[&str]) -> Vec<String> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|input| base.join(input)).collect();
        let mut found = Vec::new();
        for step in Starts::new(&inputs).walk() {
            match step {
                Step::Batch(batch) => found.extend(batch.names.iter().map(|name| {
                    let path = batch.directory.join(name);
                    let path = path.strip_prefix(base).unwrap();
                    path.to_str().unwrap().to_owned()
                })),
                Step::Refused(refusal) => found.push(refusal.to_string()),
            }
        }
        found
    }

    #[test]
    fn files_come_before_directories_and_all_by_name() {
        let (_directory, base) = tree(&[
            "b.torrent",
            "a/z.torrent",
            "a/b/c.torrent",
            "a.torrent",
            "a-b/x.torrent",
            "notes.txt",
            "a/b.torrent",
        ]);
        let expected = [
            "a.torrent",
            "b.torrent",
            "a/b.torrent",
            "a/z.torrent",
            "a/b/c.torrent",
            "a-b/x.torrent",
        ];
        assert_eq!(walked(&base, &["."]), expected);
        // That is the order of directories as `Path` has it.
        assert!(Path::new("a/b") < Path::new("a-b"));
        // The order in which they are given does not matter.
        let some = [
            "a/b.torrent",
            "a/z.torrent",
            "a/b/c.torrent",
            "a-b/x.torrent",
        ];
        assert_eq!(walked(&base, &["a-b", "a"]), some);
        assert_eq!(walked(&base, &["a/b", "a-b", "a", "a"]), some);
    }

    #[test]
    fn files_given_by_themselves_may_have_any_name() {
        let (_directory, base) = tree(&["a/x.meta", "a/w.torrent", "a/b/y.torrent", "a/no"]);
        assert_eq!(walked(&base, &["a/x.meta"]), ["a/x.meta"]);
        assert_eq!(
            walked(&base, &["a/x.meta", "a/b", "a/w.torrent", "a/x.meta"]),
            ["a/w.torrent", "a/x.meta", "a/b/y.torrent"]
        );
        assert_eq!(
            walked(&base, &["a/x.meta", "a"]),
            ["a/w.torrent", "a/x.meta", "a/b/y.torrent"]
        );
    }

    #[test]
    fn a_large_directory_is_cut_into_batches() {
        let names: Vec<String> = (0..150).map(|n| format!("d/{n:03}.torrent")).collect();
        let paths: Vec<&str> = names.iter().map(String::as_str).collect();
        let (_directory, base) = tree(&paths);
        let sizes: Vec<usize> = Starts::new(std::slice::from_ref(&base))
            .walk()
            .map(|step| match step {
                Step::Batch(batch) => batch.names.len(),
                Step::Refused(refusal) => panic!("{refusal}"),
            })
            .collect();
        assert_eq!(sizes, [64, 64, 22]);
        assert_eq!(walked(&base, &["d"]), names);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let (_directory, base) = tree(&["a/x.torrent"]);
        let found = walked(&base, &["gone", "a"]);
        assert!(found[0].contains("gone: unreadable: "), "{found:?}");
        assert_eq!(found[1..], ["a/x.torrent"]);
    }

    #[test]
    fn the_common_directory_is_the_deepest() {
        let (_directory, base) = tree(&["a/b/x.torrent", "a/c/y.torrent"]);
        let common = |inputs: &[&str]| {
            let inputs: Vec<PathBuf> = inputs.iter().map(|input| base.join(input)).collect();
            Starts::new(&inputs).common_directory()
        };
        assert_eq!(common(&["a/b", "a/c"]), Some(base.join("a")));
        assert_eq!(common(&["a/b/x.torrent"]), Some(base.join("a/b")));
        assert_eq!(common(&["a/b/x.torrent", "a/c"]), Some(base.join("a")));
        assert_eq!(common(&["a/b", "a"]), Some(base.join("a")));
        assert_eq!(common(&["gone"]), None);
    }
}
