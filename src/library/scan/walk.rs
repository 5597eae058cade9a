//! Finding metainfo files, in the order of an index.
//!
//! The order is by the components of paths, in each directory the files before the subdirectories.
//!
//! `descent` reads the directories. Blocks.

mod descent;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(in crate::library) use self::descent::{DescriptorWait, LINKS_MAX, Walk};
use super::probe::Probed;
use crate::torrent::catalogue::Refusal;

/// Files of one directory, in the order of their names.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::library) struct Batch {
    /// As it was reached: symlinks below the start are not resolved.
    pub(in crate::library) directory: PathBuf,
    pub(in crate::library) names: Vec<OsString>,
}

/// One step of a walk.
#[derive(Debug)]
pub(in crate::library) enum Step {
    Batch(Batch),
    Refused(Refusal),
    /// A directory that may be away: an absent start, a directory that cannot be read or is empty, a
    /// dangling symlink. The entries of an index below it are to be kept.
    Away(PathBuf),
    /// A directory that hangs. The entries below it are to be kept as they are.
    Hung(PathBuf),
}

/// Which files of a directory are wanted.
#[derive(PartialEq, Eq, Debug)]
enum Start {
    /// All below it.
    All,
    /// These files of it.
    Names(BTreeSet<OsString>),
    /// None: it is absent or empty.
    Away,
    /// None: it hangs.
    Hung,
}

/// Where a walk starts.
#[derive(Debug)]
pub(in crate::library) struct Starts {
    directories: BTreeMap<PathBuf, Start>,
    /// Files that were given by themselves below a directory that is walked.
    within: Vec<PathBuf>,
    /// Directories that are not entered, since they hang.
    hung: Arc<BTreeSet<PathBuf>>,
    /// Inputs that could not be found.
    pub(in crate::library) refusals: Vec<Refusal>,
}

impl Starts {
    /// Resolves the inputs: directories, or metainfo files of any name. An absent one is refused.
    pub(in crate::library) fn new(inputs: &[PathBuf]) -> Self {
        Self::resolve(inputs, &Probed::default(), |_| false)
    }

    /// The same, but an absent or empty directory, like that of a disk that is not mounted, stays a
    /// start, and so does one that hangs.
    pub(in crate::library) fn patient(inputs: &[PathBuf], probed: &Probed) -> Self {
        Self::resolve(inputs, probed, is_away)
    }

    fn resolve(inputs: &[PathBuf], probed: &Probed, is_away: impl Fn(&Path) -> bool) -> Self {
        let mut starts = Starts {
            directories: BTreeMap::new(),
            within: Vec::new(),
            hung: Arc::clone(probed.hung_directories()),
            refusals: Vec::new(),
        };
        let mut files = Vec::new();
        for input in inputs {
            if let Some(path) = probed.hung(input) {
                starts.directories.insert(path.to_path_buf(), Start::Hung);
                continue;
            }
            match input.canonicalize() {
                _ if is_away(input) => {
                    let path = resolved(input);
                    starts.directories.insert(path, Start::Away);
                }
                Ok(path) if path.is_dir() => {
                    starts.directories.insert(path, Start::All);
                }
                Ok(path) => files.push(path),
                Err(error) => starts.refusals.push(Refusal {
                    path: input.clone(),
                    reason: error.into(),
                }),
            }
        }
        let all = starts.directories.iter();
        let all: Vec<PathBuf> = all
            .filter(|(_, start)| **start == Start::All)
            .map(|(directory, _)| directory.clone())
            .collect();
        let is_within = |path: &Path| {
            let mut above = path.ancestors().skip(1);
            above.any(|directory| all.iter().any(|other| other == directory))
        };
        starts.directories.retain(|path, _| !is_within(path));
        for file in files {
            if is_within(&file) {
                starts.within.push(file);
            } else if let (Some(directory), Some(name)) = (file.parent(), file.file_name()) {
                let start = starts.directories.entry(directory.to_path_buf());
                let start = start.or_insert_with(|| Start::Names(BTreeSet::new()));
                if let Start::Names(names) = start {
                    names.insert(name.to_owned());
                }
            }
        }
        starts
    }

    /// The deepest directory that holds all of them; `None` when there are none.
    pub(in crate::library) fn common_directory(&self) -> Option<PathBuf> {
        let mut directories = self.directories.keys();
        let mut common = directories.next()?.clone();
        for directory in directories {
            while !directory.starts_with(&common) {
                common.pop();
            }
        }
        Some(common)
    }

    /// The directories and files that do not lie within another.
    pub(in crate::library) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.directories
            .iter()
            .flat_map(|(directory, start)| match start {
                Start::All | Start::Away | Start::Hung => vec![directory.clone()],
                Start::Names(names) => names.iter().map(|name| directory.join(name)).collect(),
            })
    }

    /// Walks from all of them.
    pub(in crate::library) fn walk(self) -> impl Iterator<Item = Step> + Send {
        let refused = self.refusals.into_iter().map(Step::Refused);
        let (within, hung) = (self.within, self.hung);
        let steps = self
            .directories
            .into_iter()
            .flat_map(move |(directory, start)| match start {
                Start::All => Walk::new(&directory, within.clone(), Arc::clone(&hung)),
                Start::Names(names) => {
                    let names = names.into_iter().collect();
                    Walk::only(Step::Batch(Batch { directory, names }))
                }
                Start::Away => Walk::only(Step::Away(directory)),
                Start::Hung => Walk::only(Step::Hung(directory)),
            });
        refused.chain(steps)
    }
}

/// Returns true if a start is absent, or an empty directory.
pub(in crate::library) fn is_away(path: &Path) -> bool {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => match path.read_dir() {
            Ok(mut entries) => entries.next().is_none(),
            // It exists and cannot be read, which is reported as such.
            Err(_) => false,
        },
        Ok(_) => false,
        Err(_) => true,
    }
}

/// A path without symlinks, as far as it can be resolved.
pub(in crate::library) fn resolved(path: &Path) -> PathBuf {
    let real = path.canonicalize().or_else(|_| std::path::absolute(path));
    real.unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    use tempfile::TempDir;

    fn tree(paths: &[&str]) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let previous = directory.path().canonicalize().unwrap();
        for path in paths {
            let path = previous.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        (directory, previous)
    }

    /// The files in the order in which they are found, below `previous`.
    fn walked(previous: &Path, inputs: &[&str]) -> Vec<String> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|input| previous.join(input)).collect();
        let mut found = Vec::new();
        for step in Starts::new(&inputs).walk() {
            match step {
                Step::Batch(batch) => found.extend(batch.names.iter().map(|name| {
                    let path = batch.directory.join(name);
                    let path = path.strip_prefix(previous).unwrap();
                    path.to_str().unwrap().to_owned()
                })),
                Step::Refused(refusal) => found.push(refusal.to_string()),
                Step::Away(path) | Step::Hung(path) => {
                    let path = path.strip_prefix(previous).unwrap();
                    found.push(format!("away {}", path.display()));
                }
            }
        }
        found
    }

    #[test]
    fn files_come_before_directories_and_all_by_name() {
        let (_directory, previous) = tree(&[
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
        assert_eq!(walked(&previous, &["."]), expected);
        // That is the order of directories as `Path` has it.
        assert!(Path::new("a/b") < Path::new("a-b"));
        // The order in which they are given does not matter.
        let some = [
            "a/b.torrent",
            "a/z.torrent",
            "a/b/c.torrent",
            "a-b/x.torrent",
        ];
        assert_eq!(walked(&previous, &["a-b", "a"]), some);
        assert_eq!(walked(&previous, &["a/b", "a-b", "a", "a"]), some);
    }

    #[test]
    fn files_given_by_themselves_may_have_any_name() {
        let (_directory, previous) = tree(&["a/x.meta", "a/w.torrent", "a/b/y.torrent", "a/no"]);
        assert_eq!(walked(&previous, &["a/x.meta"]), ["a/x.meta"]);
        assert_eq!(
            walked(&previous, &["a/x.meta", "a/b", "a/w.torrent", "a/x.meta"]),
            ["a/w.torrent", "a/x.meta", "a/b/y.torrent"]
        );
        assert_eq!(
            walked(&previous, &["a/x.meta", "a"]),
            ["a/w.torrent", "a/x.meta", "a/b/y.torrent"]
        );
    }

    #[test]
    fn a_large_directory_is_cut_into_batches() {
        let names: Vec<String> = (0..150).map(|n| format!("d/{n:03}.torrent")).collect();
        let paths: Vec<&str> = names.iter().map(String::as_str).collect();
        let (_directory, previous) = tree(&paths);
        let sizes: Vec<usize> = Starts::new(std::slice::from_ref(&previous))
            .walk()
            .map(|step| match step {
                Step::Batch(batch) => batch.names.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, [64, 64, 22]);
        assert_eq!(walked(&previous, &["d"]), names);
    }

    #[test]
    fn an_absent_input_is_refused() {
        let (_directory, previous) = tree(&["a/x.torrent"]);
        let found = walked(&previous, &["gone", "a"]);
        assert!(found[0].contains("gone: unreadable: "), "{found:?}");
        assert_eq!(found[1..], ["a/x.torrent"]);
    }

    #[test]
    fn an_absent_or_empty_input_stays_a_start_of_a_refresh() {
        let (_directory, previous) = tree(&["b/x.torrent"]);
        fs::create_dir(previous.join("a")).unwrap();
        let inputs = ["b", "gone", "a"].map(|input| previous.join(input));
        let starts = Starts::patient(&inputs, &Probed::default());
        assert_eq!(starts.common_directory(), Some(previous.clone()));
        assert!(starts.refusals.is_empty());
        let steps: Vec<Step> = starts.walk().collect();
        let [Step::Away(first), Step::Batch(_), Step::Away(last)] = &steps[..] else {
            panic!("{steps:?}");
        };
        assert_eq!((first, last), (&inputs[2], &inputs[1]));
    }

    #[test]
    fn a_walk_from_below_finds_the_same_as_one_from_the_start() {
        let (_directory, previous) = tree(&["a/x.torrent", "a/b/y.torrent"]);
        std::os::unix::fs::symlink(&previous, previous.join("a/b/up")).unwrap();
        let found = |directory: &str| -> Vec<String> {
            let steps = Walk::below(&previous.join(directory), &previous);
            steps.map(|step| format!("{step:?}")).collect()
        };
        let steps = found("a/b");
        assert!(steps[0].contains("y.torrent") && !steps[0].contains("x.torrent"));
        assert!(steps.len() == 2 && steps[1].contains("Loop"), "{steps:?}");
        let steps = found("a/b/up");
        assert!(steps.len() == 1 && steps[0].contains("Loop"), "{steps:?}");
        assert_eq!(walked(&previous, &["."]).len(), 3);
    }

    #[test]
    fn a_link_counts_as_what_it_leads_to() {
        let (_directory, previous) = tree(&["lib/a/x.torrent", "lib/m.torrent", "mnt/y.torrent"]);
        let links = [
            ("lib/b", "mnt"),
            ("lib/a-link.torrent", "mnt/y.torrent"),
            ("lib/p.torrent", "mnt"),
            ("lib/nowhere", "gone"),
            ("lib/nowhere.torrent", "gone"),
        ];
        for (link, target) in links {
            std::os::unix::fs::symlink(previous.join(target), previous.join(link)).unwrap();
        }
        let mut found = walked(&previous, &["lib"]);
        let line = found.pop().unwrap();
        assert!(line.contains("lib/p.torrent/y.torrent"), "{line}");
        let line = found.pop().unwrap();
        assert!(line.contains("lib/nowhere.torrent: unreadable: "), "{line}");
        let expected = [
            "lib/a-link.torrent",
            "lib/m.torrent",
            "lib/a/x.torrent",
            "lib/b/y.torrent",
            "away lib/nowhere",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn links_between_all_directories_are_followed_up_to_the_limit() {
        let files = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{name}/x.torrent"));
        let (_directory, previous) = tree(&files.each_ref().map(String::as_str));
        for (from, to) in (0..36).map(|pair| (pair / 6, pair % 6)) {
            let at = |number: usize| previous.join(&files[number][..1]);
            if from != to {
                let link = at(from).join(format!("link-{to}"));
                std::os::unix::fs::symlink(at(to), link).unwrap();
            }
        }
        let found = walked(&previous, &["."]);
        assert!(found.iter().all(|line| !line.starts_with("away ")));
        let is_refused = |line: &&String| line.contains("symlinks to directories");
        let refused = found.iter().filter(is_refused).count();
        // Each way goes to those where it was not yet, and ends after four links with five more.
        assert_eq!(refused, 6 * 5 * 4 * 3 * 2 * 5);
        let files = 6 + 30 + 120 + 360 + 720;
        let loops = 30 + 120 * 2 + 360 * 3;
        assert_eq!(found.len() - refused, files + loops);
        let deepest = found.iter().filter(|line| line.ends_with("x.torrent"));
        let links = deepest.map(|line| line.matches("link-").count()).max();
        assert_eq!(links, Some(LINKS_MAX));
        // A walk from below says the same.
        let way = previous.join("a/link-1/link-2/link-3");
        let below: Vec<Step> = Walk::below(&way, &previous).collect();
        let within = found.iter();
        let within = within.filter(|line| line.contains("a/link-1/link-2/link-3/"));
        assert_eq!(within.count(), below.len());
    }

    #[test]
    fn the_common_directory_is_the_deepest() {
        let (_directory, previous) = tree(&["a/b/x.torrent", "a/c/y.torrent"]);
        let common = |inputs: &[&str]| {
            let inputs: Vec<PathBuf> = inputs.iter().map(|input| previous.join(input)).collect();
            Starts::new(&inputs).common_directory()
        };
        assert_eq!(common(&["a/b", "a/c"]), Some(previous.join("a")));
        assert_eq!(common(&["a/b/x.torrent"]), Some(previous.join("a/b")));
        assert_eq!(common(&["a/b/x.torrent", "a/c"]), Some(previous.join("a")));
        assert_eq!(common(&["a/b", "a"]), Some(previous.join("a")));
        assert_eq!(common(&["gone"]), None);
    }
}
