//! What has changed since it was last told.
//!
//! Owns when a batch is ripe, and its bound. It must not know where changes come from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Changes;

/// A batch is ripe when nothing has changed for this long: a program that writes many files takes
/// less from one to the next, and a person does not notice.
const QUIET: Duration = Duration::from_millis(200);

/// It is ripe this long after its first change, whatever happens: a change is to be served within
/// two seconds, and reading what has changed takes some of them.
const LONGEST: Duration = Duration::from_millis(800);

/// Beyond so many paths, of about a hundred bytes each, everything is looked at: that costs no more.
pub(super) const MAX_PATHS: usize = 100_000;

/// Changes that are gathered.
#[derive(Default)]
pub(super) struct Batch {
    paths: BTreeSet<PathBuf>,
    everything: bool,
    /// When the first and the last of them came.
    times: Option<(Instant, Instant)>,
}

impl Batch {
    /// Adds a path.
    pub(super) fn note(&mut self, path: PathBuf, now: Instant) {
        self.touch(now);
        if !self.everything {
            self.paths.insert(path);
            if self.paths.len() > MAX_PATHS {
                self.note_everything(now);
            }
        }
    }

    /// No path says enough.
    pub(super) fn note_everything(&mut self, now: Instant) {
        self.touch(now);
        self.everything = true;
        self.paths.clear();
    }

    /// Takes a path back, if it was added: something else will be told of it later.
    pub(super) fn forget(&mut self, path: &Path) {
        if self.paths.remove(path) && self.paths.is_empty() && !self.everything {
            self.times = None;
        }
    }

    fn touch(&mut self, now: Instant) {
        let first = self.times.map_or(now, |(first, _)| first);
        self.times = Some((first, now));
    }

    /// When it is ripe; `None` while it is empty.
    pub(super) fn due(&self) -> Option<Instant> {
        self.times
            .map(|(first, last)| (last + QUIET).min(first + LONGEST))
    }

    /// Empties it. What lies below another path of it is left out.
    pub(super) fn take(&mut self) -> Changes {
        let batch = std::mem::take(self);
        Changes {
            paths: outermost(batch.paths),
            everything: batch.everything,
        }
    }
}

impl Changes {
    /// Adds what was told later. Beyond a bound no path says enough.
    pub fn merge(&mut self, later: Changes) {
        self.everything |= later.everything;
        if self.paths.is_empty() {
            self.paths = later.paths;
            return;
        }
        let mut paths = std::mem::take(&mut self.paths);
        paths.extend(later.paths);
        paths.sort_unstable();
        match paths.len() > MAX_PATHS {
            true => self.everything = true,
            false => self.paths = outermost(paths),
        }
    }
}

/// Those of some paths in ascending order that do not lie below another.
fn outermost(ascending: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in ascending {
        // In the order of paths, all that lies below one follows it at once.
        if !paths.last().is_some_and(|above| path.starts_with(above)) {
            paths.push(path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(150);

    #[test]
    fn a_batch_is_ripe_when_it_is_quiet_and_never_later_than_the_longest() {
        let start = Instant::now();
        let mut batch = Batch::default();
        assert_eq!(batch.due(), None);
        batch.note("/a".into(), start);
        assert_eq!(batch.due(), Some(start + QUIET));
        for step in 1..10 {
            batch.note("/b".into(), start + STEP * step);
        }
        assert_eq!(batch.due(), Some(start + LONGEST));
        let paths = batch.take().paths;
        assert_eq!(paths, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(batch.due(), None);
        batch.note_everything(start);
        assert_eq!(batch.due(), Some(start + QUIET));
    }

    #[test]
    fn a_path_stands_for_all_below_it() {
        let now = Instant::now();
        let mut batch = Batch::default();
        for path in ["/a/b", "/a-b", "/a/b/c/d", "/a/bc", "/a/b/e", "/z/y"] {
            batch.note(path.into(), now);
        }
        let expected = ["/a/b", "/a/bc", "/a-b", "/z/y"].map(PathBuf::from);
        assert_eq!(batch.take().paths, expected);
    }

    #[test]
    fn too_many_paths_are_everything() {
        let now = Instant::now();
        let mut batch = Batch::default();
        for number in 0..=MAX_PATHS {
            batch.note(format!("/{number}").into(), now);
        }
        batch.note("/x".into(), now);
        let changes = batch.take();
        assert!(changes.everything);
        assert_eq!(changes.paths.len(), 0);
    }

    #[test]
    fn what_is_told_before_the_last_is_taken_becomes_one() {
        let mut changes = Changes::default();
        let told = |paths: &[&str]| Changes {
            paths: paths.iter().map(PathBuf::from).collect(),
            everything: false,
        };
        changes.merge(told(&["/a/b", "/c"]));
        changes.merge(told(&["/a", "/b", "/c"]));
        assert_eq!(changes, told(&["/a", "/b", "/c"]));
        changes.merge(Changes {
            paths: (0..MAX_PATHS)
                .map(|number| format!("/{number}").into())
                .collect(),
            everything: false,
        });
        assert!(changes.everything && changes.paths.is_empty());
    }

    #[test]
    fn what_is_taken_back_is_not_told() {
        let now = Instant::now();
        let mut batch = Batch::default();
        batch.note("/a".into(), now);
        batch.forget(Path::new("/b"));
        assert!(batch.due().is_some());
        batch.forget(Path::new("/a"));
        assert_eq!(batch.due(), None);
    }
}
