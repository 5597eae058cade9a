//! Changed paths that wait until nothing more changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Changes have settled when none has come for this long: a program that writes many files takes less
/// from one to the next, and a person does not notice the delay.
const SETTLE_PERIOD: Duration = Duration::from_millis(200);

/// They count as settled this long after the first, whatever happens: a change should be served
/// within two seconds, and reading the changed files takes some of them.
const SETTLE_MAX: Duration = Duration::from_millis(800);

/// Beyond this many paths, of about a hundred bytes each, a scan of everything costs no more.
pub(super) const MAX_PATHS: usize = 100_000;

/// Changes that have not settled.
#[derive(Default)]
pub(super) struct Pending {
    paths: BTreeSet<PathBuf>,
    everything: bool,
    /// When the first and the last change came.
    times: Option<(Instant, Instant)>,
}

impl Pending {
    /// Adds a path.
    pub(super) fn add(&mut self, path: PathBuf, now: Instant) {
        self.touch(now);
        if !self.everything {
            self.paths.insert(path);
            if self.paths.len() > MAX_PATHS {
                self.add_everything(now);
            }
        }
    }

    /// Something has changed that no path names.
    pub(super) fn add_everything(&mut self, now: Instant) {
        self.touch(now);
        self.everything = true;
        self.paths.clear();
    }

    /// Removes a path, if it was added: another event will follow for it.
    pub(super) fn forget(&mut self, path: &Path) {
        if self.paths.remove(path) && self.paths.is_empty() && !self.everything {
            self.times = None;
        }
    }

    fn touch(&mut self, now: Instant) {
        let first = self.times.map_or(now, |(first, _)| first);
        self.times = Some((first, now));
    }

    /// When the changes have settled; `None` when there are none.
    pub(super) fn settled_at(&self) -> Option<Instant> {
        self.times
            .map(|(first, last)| (last + SETTLE_PERIOD).min(first + SETTLE_MAX))
    }

    /// Takes all changes out. A path that lies below another is left out.
    pub(super) fn take(&mut self) -> Changes {
        let pending = std::mem::take(self);
        Changes {
            paths: outermost(pending.paths),
            everything: pending.everything,
        }
    }
}

/// Changes on disk.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Files, and directories with everything below them; each may be new, changed or gone. Paths are
    /// absolute, start with a root without symlinks, and go through symlinks below it as a walk does.
    /// None lies below another.
    pub paths: Vec<PathBuf>,
    /// Something was missed or cannot be watched: only a rescan will find it.
    pub everything: bool,
}

impl Changes {
    /// Returns true if nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.everything
    }

    /// Adds later changes. Beyond `MAX_PATHS` paths, they become `everything`.
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

/// Of paths in ascending order, those that do not lie below another.
fn outermost(ascending: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in ascending {
        // In the order of paths, everything below a path follows directly.
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
    fn changes_settle_after_a_quiet_period_or_at_most_after_the_longest() {
        let start = Instant::now();
        let mut pending = Pending::default();
        assert_eq!(pending.settled_at(), None);
        pending.add("/a".into(), start);
        assert_eq!(pending.settled_at(), Some(start + SETTLE_PERIOD));
        for step in 1..10 {
            pending.add("/b".into(), start + STEP * step);
        }
        assert_eq!(pending.settled_at(), Some(start + SETTLE_MAX));
        let paths = pending.take().paths;
        assert_eq!(paths, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(pending.settled_at(), None);
        pending.add_everything(start);
        assert_eq!(pending.settled_at(), Some(start + SETTLE_PERIOD));
    }

    #[test]
    fn a_path_stands_for_all_below_it() {
        let now = Instant::now();
        let mut pending = Pending::default();
        for path in ["/a/b", "/a-b", "/a/b/c/d", "/a/bc", "/a/b/e", "/z/y"] {
            pending.add(path.into(), now);
        }
        let expected = ["/a/b", "/a/bc", "/a-b", "/z/y"].map(PathBuf::from);
        assert_eq!(pending.take().paths, expected);
    }

    #[test]
    fn too_many_paths_become_everything() {
        let now = Instant::now();
        let mut pending = Pending::default();
        for number in 0..=MAX_PATHS {
            pending.add(format!("/{number}").into(), now);
        }
        pending.add("/x".into(), now);
        let changes = pending.take();
        assert!(changes.everything);
        assert_eq!(changes.paths.len(), 0);
    }

    #[test]
    fn changes_that_are_merged_keep_the_outermost_paths() {
        let mut changes = Changes::default();
        let reported = |paths: &[&str]| Changes {
            paths: paths.iter().map(PathBuf::from).collect(),
            everything: false,
        };
        changes.merge(reported(&["/a/b", "/c"]));
        changes.merge(reported(&["/a", "/b", "/c"]));
        assert_eq!(changes, reported(&["/a", "/b", "/c"]));
        changes.merge(Changes {
            paths: (0..MAX_PATHS)
                .map(|number| format!("/{number}").into())
                .collect(),
            everything: false,
        });
        assert!(changes.everything && changes.paths.is_empty());
    }

    #[test]
    fn a_forgotten_path_is_not_reported() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.add("/a".into(), now);
        pending.forget(Path::new("/b"));
        assert!(pending.settled_at().is_some());
        pending.forget(Path::new("/a"));
        assert_eq!(pending.settled_at(), None);
    }
}
