//! Random changes: the watcher reports every difference between two walks.

use super::{Scene, make};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

const ROUNDS: usize = 20;

/// Changes between two comparisons.
const ROUND: usize = 150;

/// Files and directories are kept to so many.
const PATHS: usize = 150;

/// And what lies behind each of the symlinks to so many.
const STORED: usize = 15;

/// Everything below the root through symlinks: inode, length and time of the last change.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64)> {
    WalkDir::new(root)
        .follow_links(true)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            // What a directory holds is reported by its entries, not by its times.
            let (length, time) = match metadata.is_dir() {
                true => (0, 0),
                false => (metadata.len(), metadata.mtime_nsec()),
            };
            Some((entry.into_path(), (metadata.ino(), length, time)))
        })
        .collect()
}

struct Chaos {
    random: fastrand::Rng,
    base: PathBuf,
}

impl Chaos {
    fn any(&mut self, below: &str, wanted: impl Fn(fs::FileType) -> bool) -> io::Result<PathBuf> {
        let root = self.base.join(below);
        let paths = WalkDir::new(&root)
            .sort_by_file_name()
            .into_iter()
            .flatten();
        let paths: Vec<PathBuf> = paths
            .filter(|entry| wanted(entry.file_type()))
            .map(walkdir::DirEntry::into_path)
            .filter(|path| *path != root)
            .collect();
        let missing = || io::ErrorKind::NotFound.into();
        self.random.choice(paths).ok_or_else(missing)
    }

    /// A new path in the root, in a directory below it, or in the store that symlinks lead to.
    fn target(&mut self) -> PathBuf {
        let below = ["root", "root", "store"][self.random.usize(..3)];
        let directory = self.any(below, |kind| kind.is_dir());
        let directory = directory.unwrap_or_else(|_| self.base.join(below));
        directory.join(format!("{:x}.torrent", self.random.u32(..)))
    }

    fn change(&mut self) -> io::Result<()> {
        let walk = |below| WalkDir::new(self.base.join(below)).into_iter().count();
        let (count, stored) = (walk("root"), walk("store"));
        if stored > STORED {
            // The store itself stays: that a target comes back would not be reported.
            for entry in fs::read_dir(self.base.join("store"))?.flatten() {
                let path = entry.path();
                fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path))?;
            }
        }
        let remove = count > PATHS && self.random.bool();
        match self.random.u8(..12) {
            _ if remove => fs::remove_dir_all(self.any("root", |kind| kind.is_dir())?),
            0..=1 => fs::write(self.target(), "new"),
            2 => fs::create_dir_all(self.target().join("a/b")),
            3 => fs::rename(self.any("root", |_| true)?, self.target()),
            4 => {
                let out = self.base.join("away").join(self.random.u32(..).to_string());
                fs::rename(self.any("root", |_| true)?, out)
            }
            5 => {
                let mut all: Vec<PathBuf> = fs::read_dir(self.base.join("away"))?
                    .flatten()
                    .map(|entry| entry.path())
                    .collect();
                all.sort();
                let back = self.random.choice(all);
                fs::rename(back.ok_or(io::ErrorKind::NotFound)?, self.target())
            }
            6 => {
                let path = self.any("root", |kind| kind.is_file())?;
                // Under its other names nobody is reported of it.
                match path.metadata()?.nlink() {
                    1 => fs::write(path, "longer"),
                    _ => fs::remove_file(path),
                }
            }
            7 => fs::remove_file(self.any("root", |kind| !kind.is_dir())?),
            8 => fs::hard_link(self.any("root", |kind| kind.is_file())?, self.target()),
            9 => {
                // To the whole store, which never moves, or to a directory above: a loop.
                let to = ["store", "root"][self.random.usize(..2)];
                symlink(self.base.join(to), self.target())
            }
            10 => fs::remove_file(self.any("store", |kind| kind.is_file())?),
            _ => fs::rename(self.any("store", |kind| kind.is_dir())?, self.target()),
        }
    }
}

#[test]
fn every_random_change_is_reported() {
    let mut scene = Scene::new(&["root/", "store/"]);
    let mut chaos = Chaos {
        random: fastrand::Rng::with_seed(7),
        base: scene.base.clone(),
    };
    let root = scene.path("root");
    let mut before = snapshot(&root);
    let mut differences = 0;
    for round in 0..ROUNDS {
        for _ in 0..ROUND {
            // What was chosen may not be possible.
            chaos.change().ok();
        }
        let after = snapshot(&root);
        let (changes, _) = scene.changes();
        assert!(!changes.everything, "round {round}");
        let reported: BTreeSet<&Path> = changes.paths.iter().map(PathBuf::as_path).collect();
        for path in before.keys().chain(after.keys()) {
            if before.get(path) != after.get(path) {
                differences += 1;
                let is_reported = path.ancestors().any(|above| reported.contains(above));
                assert!(
                    is_reported,
                    "round {round}: {} of {reported:?}",
                    path.display()
                );
            }
        }
        before = snapshot(&root);
    }
    assert!(differences > ROUNDS * ROUND / 2, "only {differences}");
    // As many directories are watched as there are, each at every place.
    let directories = WalkDir::new(&root).follow_links(true).into_iter();
    let directories = directories
        .flatten()
        .filter(|entry| entry.file_type().is_dir());
    assert_eq!(scene.watcher.watched(), directories.count());
    make(&root.join("last"), false);
    assert_eq!(scene.reported(), ["root/last"]);
}
