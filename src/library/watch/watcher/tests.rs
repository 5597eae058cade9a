//! The watcher on real directories.

mod random;

use super::*;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use tempfile::TempDir;

/// Nothing in these tests takes longer, unless it never comes.
const DEADLINE: Duration = Duration::from_secs(20);

struct Scene {
    watcher: Watcher,
    base: PathBuf,
    /// Markers so far.
    markers: u32,
    _directory: TempDir,
}

impl Scene {
    /// Makes directories and files below `root`, and watches it. What ends with `/` is a directory.
    fn new(paths: &[&str]) -> Self {
        Self::with_roots(paths, &["root"], NODES_MAX)
    }

    fn with_roots(paths: &[&str], roots: &[&str], bound: usize) -> Self {
        Self::with(paths, roots, &[], bound)
    }

    fn with(paths: &[&str], roots: &[&str], presence_roots: &[&str], bound: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir(base.join("away")).unwrap();
        for path in paths {
            make(&base.join(path), path.ends_with('/'));
        }
        let below =
            |paths: &[&str]| -> Vec<PathBuf> { paths.iter().map(|path| base.join(path)).collect() };
        let (roots, presence_roots) = (below(roots), below(presence_roots));
        Scene {
            watcher: Watcher::with_bound(&roots, &presence_roots, bound).unwrap(),
            base,
            markers: 0,
            _directory: directory,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    fn write(&self, path: &str) {
        make(&self.path(path), false);
    }

    fn make_directory(&self, path: &str) {
        make(&self.path(path), true);
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn link(&self, target: &str, path: &str) {
        symlink(self.path(target), self.path(path)).unwrap();
    }

    /// All changes up to one that is made now, and how many batches they came in.
    fn changes(&mut self) -> (Changes, usize) {
        self.markers += 1;
        let marker = self.path(&format!("root/marker-{}", self.markers));
        File::create(&marker).unwrap();
        let (mut paths, mut everything, mut batches) = (BTreeSet::new(), false, 0);
        let start = Instant::now();
        while !paths.remove(&marker) {
            assert!(start.elapsed() < DEADLINE, "only {paths:?}");
            let changes = self.watcher.wait(Some(DEADLINE)).unwrap();
            batches += usize::from(!changes.is_empty());
            paths.extend(changes.paths);
            everything |= changes.everything;
            if paths.contains(&self.path("root")) || everything {
                // The marker is below it, or not reported for itself.
                paths.insert(marker.clone());
            }
        }
        let paths = paths.into_iter().collect();
        (Changes { paths, everything }, batches)
    }

    /// The paths that have changed, from `root`.
    fn reported(&mut self) -> Vec<String> {
        let (changes, _) = self.changes();
        assert!(!changes.everything);
        let relative = |path: &PathBuf| {
            let path = path.strip_prefix(&self.base).unwrap();
            path.to_str().unwrap().to_owned()
        };
        changes.paths.iter().map(relative).collect()
    }

    /// The paths of the next batch, where no marker can be made.
    fn next(&mut self) -> Changes {
        let start = Instant::now();
        loop {
            let changes = self.watcher.wait(Some(DEADLINE)).unwrap();
            if !changes.is_empty() {
                return changes;
            }
            assert!(start.elapsed() < DEADLINE, "no change is reported");
        }
    }
}

fn make(path: &Path, is_directory: bool) {
    if is_directory {
        fs::create_dir_all(path).unwrap();
    } else {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
}

#[test]
fn a_file_is_reported_when_it_comes_changes_or_goes() {
    let mut scene = Scene::new(&["root/a/", "root/old.torrent", "away/x.torrent"]);
    assert_eq!(
        scene.reported(),
        [""; 0],
        "what was there before is not reported"
    );
    scene.write("root/a/written.torrent");
    scene.rename("away/x.torrent", "root/a/renamed.torrent");
    fs::hard_link(
        scene.path("root/old.torrent"),
        scene.path("root/linked.torrent"),
    )
    .unwrap();
    scene.link("root/old.torrent", "root/a/symlinked.torrent");
    let expected = [
        "root/a/renamed.torrent",
        "root/a/symlinked.torrent",
        "root/a/written.torrent",
        "root/linked.torrent",
    ];
    assert_eq!(scene.reported(), expected);
    fs::remove_file(scene.path("root/linked.torrent")).unwrap();
    scene.rename("root/a/renamed.torrent", "away/renamed.torrent");
    scene.rename("root/a/written.torrent", "root/written.torrent");
    fs::remove_file(scene.path("root/a/symlinked.torrent")).unwrap();
    let expected = [
        "root/a/renamed.torrent",
        "root/a/symlinked.torrent",
        "root/a/written.torrent",
        "root/linked.torrent",
        "root/written.torrent",
    ];
    assert_eq!(scene.reported(), expected);
    // Content, and times: a rename over it, a write in place, a truncation, and touch(1).
    scene.write("away/new");
    scene.rename("away/new", "root/a/content");
    assert_eq!(scene.reported(), ["root/a/content"]);
    let content = File::options()
        .write(true)
        .open(scene.path("root/a/content"));
    content.as_ref().unwrap().write_all(b"y").unwrap();
    assert_eq!(scene.reported(), ["root/a/content"], "while it is open");
    content.as_ref().unwrap().set_len(0).unwrap();
    assert_eq!(scene.reported(), ["root/a/content"]);
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    content.as_ref().unwrap().set_times(times).unwrap();
    assert_eq!(scene.reported(), ["root/a/content"]);
}

#[test]
fn a_metainfo_file_is_reported_when_it_is_closed() {
    let mut scene = Scene::new(&["root/"]);
    let mut file = File::create(scene.path("root/slow.torrent")).unwrap();
    file.write_all(b"half").unwrap();
    assert_eq!(scene.reported(), [""; 0]);
    file.write_all(b"whole").unwrap();
    drop(file);
    assert_eq!(scene.reported(), ["root/slow.torrent"]);
}

#[test]
fn files_in_new_directories_are_reported() {
    let mut scene = Scene::new(&["root/", "away/d/e/x.torrent"]);
    scene.make_directory("root/n/o/p");
    scene.write("root/n/o/p/x.torrent");
    assert_eq!(scene.reported(), ["root/n"]);
    // They are watched from now on, at every depth, and a directory that was moved in as well.
    scene.write("root/n/o/p/y.torrent");
    assert_eq!(scene.reported(), ["root/n/o/p/y.torrent"]);
    scene.rename("away/d", "root/n/d");
    assert_eq!(scene.reported(), ["root/n/d"]);
    scene.write("root/n/d/e/y.torrent");
    assert_eq!(scene.reported(), ["root/n/d/e/y.torrent"]);
    assert_eq!(scene.watcher.watched(), 6);
}

#[test]
fn a_directory_that_moves_is_reported_at_both_paths() {
    let mut scene = Scene::new(&["root/d/e/x.torrent", "root/f/"]);
    scene.rename("root/d", "root/f/d");
    assert_eq!(scene.reported(), ["root/d", "root/f/d"]);
    scene.write("root/f/d/e/y.torrent");
    assert_eq!(scene.reported(), ["root/f/d/e/y.torrent"]);
    assert_eq!(scene.watcher.watched(), 4);
    // Moved away it is not watched any more.
    scene.rename("root/f/d", "away/d");
    assert_eq!(scene.reported(), ["root/f/d"]);
    scene.write("away/d/e/z.torrent");
    assert_eq!(scene.reported(), [""; 0]);
    assert_eq!(scene.watcher.watched(), 2);
    // In and out faster than anybody looks.
    scene.rename("away/d", "root/d");
    scene.rename("root/d", "root/f/g");
    scene.rename("root/f/g", "root/h");
    scene.write("root/h/e/z.torrent");
    let reported = scene.reported();
    assert!(reported.contains(&"root/h".to_owned()), "{reported:?}");
    scene.write("root/h/e/w.torrent");
    assert_eq!(scene.reported(), ["root/h/e/w.torrent"]);
    fs::remove_dir_all(scene.path("root/h")).unwrap();
    assert_eq!(scene.reported(), ["root/h"]);
    assert_eq!(scene.watcher.watched(), 2);
}

#[test]
fn directories_that_are_exchanged_are_distinguished() {
    let mut scene = Scene::new(&["root/a/in-a/", "root/b/in-b/"]);
    scene.rename("root/a", "root/c");
    scene.rename("root/b", "root/a");
    scene.rename("root/c", "root/b");
    assert_eq!(scene.reported(), ["root/a", "root/b", "root/c"]);
    scene.write("root/a/in-b/x");
    scene.write("root/b/in-a/y");
    assert_eq!(scene.reported(), ["root/a/in-b/x", "root/b/in-a/y"]);
    assert_eq!(scene.watcher.watched(), 5);
}

#[test]
fn a_directory_behind_symlinks_is_reported_at_each_path() {
    let mut scene = Scene::new(&["root/farm/", "away/store/sub/x.torrent"]);
    scene.link("away/store", "root/farm/one");
    scene.link("away/store", "root/two");
    assert_eq!(scene.reported(), ["root/farm/one", "root/two"]);
    scene.write("away/store/sub/y.torrent");
    let expected = ["root/farm/one/sub/y.torrent", "root/two/sub/y.torrent"];
    assert_eq!(scene.reported(), expected);
    // Without one of the symlinks it is still reported at the other.
    fs::remove_file(scene.path("root/two")).unwrap();
    assert_eq!(scene.reported(), ["root/two"]);
    scene.write("away/store/sub/z.torrent");
    assert_eq!(scene.reported(), ["root/farm/one/sub/z.torrent"]);
    // The symlink is replaced by another, and then its target goes.
    scene.make_directory("away/other");
    scene.link("away/other", "root/farm/new");
    scene.rename("root/farm/new", "root/farm/one");
    assert_eq!(scene.reported(), ["root/farm/new", "root/farm/one"]);
    scene.write("away/store/sub/w.torrent");
    scene.write("away/other/v.torrent");
    assert_eq!(scene.reported(), ["root/farm/one/v.torrent"]);
    fs::remove_dir_all(scene.path("away/other")).unwrap();
    assert_eq!(scene.reported(), ["root/farm/one"]);
    assert_eq!(scene.watcher.watched(), 2);
}

#[test]
fn a_symlink_to_a_directory_above_is_no_way_down() {
    let mut scene = Scene::new(&["root/a/b/"]);
    scene.link("root", "root/a/b/up");
    scene.link("root/a", "root/a/self");
    assert_eq!(scene.reported(), ["root/a/b/up", "root/a/self"]);
    assert_eq!(scene.watcher.watched(), 3);
    scene.write("root/a/x");
    assert_eq!(scene.reported(), ["root/a/x"]);
}

#[test]
fn ten_thousand_files_at_once_are_one_batch() {
    let mut scene = Scene::new(&["root/a/"]);
    for number in 0..10_000 {
        fs::write(scene.path(&format!("away/{number}.torrent")), "").unwrap();
    }
    let start = Instant::now();
    for number in 0..10_000 {
        let name = format!("{number}.torrent");
        scene.rename(&format!("away/{name}"), &format!("root/a/{name}"));
    }
    let took = start.elapsed();
    let (changes, batches) = scene.changes();
    assert_eq!(changes.paths.len(), 10_000);
    assert!(!changes.everything);
    // A machine that takes a second to rename them has reported of the first by then.
    let longest = Duration::from_millis(500);
    assert!(batches == 1 || took > longest, "{batches} in {took:?}");
}

#[test]
fn changes_that_never_end_are_reported_within_a_second() {
    let mut scene = Scene::new(&["root/"]);
    let path = scene.path("root/content");
    let (stop, stopped) = mpsc::channel::<()>();
    let writer = thread::spawn(move || {
        let wait = Duration::from_millis(20);
        while stopped.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
            fs::write(&path, "x").unwrap();
        }
    });
    scene.next();
    let start = Instant::now();
    let changes = scene.next();
    let took = start.elapsed();
    drop(stop);
    writer.join().unwrap();
    assert_eq!(changes.paths, [scene.path("root/content")]);
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn lost_events_are_everything_and_watching_goes_on() {
    let mut scene = Scene::new(&["root/a/", "root/b/"]);
    let bound = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let bound: usize = bound.trim().parse().unwrap();
    // Each is an event of its own, and so many that the last are not reported.
    for number in 0..bound {
        fs::write(scene.path(&format!("root/a/{}", number % 1000)), "").unwrap();
    }
    scene.rename("root/b", "root/c");
    assert!(scene.next().everything);
    let (changes, _) = scene.changes();
    assert!(!changes.everything);
    scene.write("root/c/x.torrent");
    assert_eq!(scene.reported(), ["root/c/x.torrent"]);
    assert_eq!(scene.watcher.watched(), 3);
}

#[test]
fn more_directories_than_can_be_watched_are_left_to_a_rescan() {
    let mut scene = Scene::with_roots(&["root/a/b/", "root/c/"], &["root"], 3);
    assert_eq!(scene.watcher.watched(), 3);
    scene.write("root/a/x");
    scene.write("root/c/y");
    scene.write("root/a/b/z");
    assert_eq!(scene.reported(), ["root/a/x", "root/c/y"]);
    // A new directory is reported, though it is not watched itself.
    scene.make_directory("root/d");
    assert_eq!(scene.reported(), ["root/d"]);
}

#[test]
fn a_presence_root_is_reported_when_it_comes_goes_or_is_filled() {
    let mut scene = Scene::with(&["root/", "m/full/x"], &["root"], &["m/full"], NODES_MAX);
    scene.write("m/full/y");
    scene.make_directory("m/full/d");
    scene.write("m/other");
    assert_eq!(scene.reported(), [""; 0]);
    scene.rename("m", "m-away");
    assert!(scene.next().everything);
    scene.make_directory("m/full");
    assert!(scene.next().everything);
    scene.write("m/full/z");
    assert!(scene.next().everything);
    scene.write("m/full/a");
    assert_eq!(scene.reported(), [""; 0]);
    assert_eq!(scene.watcher.watched(), 1);
}

#[test]
fn a_root_that_is_absent_is_waited_for() {
    let mut scene = Scene::with_roots(&["root/"], &["root", "m/n/lib"], NODES_MAX);
    scene.make_directory("m");
    scene.make_directory("m/n");
    assert_eq!(scene.reported(), [""; 0]);
    scene.write("m/n/lib/x.torrent");
    assert_eq!(scene.reported(), ["m/n/lib"]);
    scene.write("m/n/lib/y.torrent");
    assert_eq!(scene.reported(), ["m/n/lib/y.torrent"]);
    // It goes, by a rename of any directory above it, and comes back.
    scene.rename("m", "m-away");
    assert_eq!(scene.reported(), ["m/n/lib"]);
    scene.write("m-away/n/lib/z.torrent");
    assert_eq!(scene.reported(), [""; 0]);
    scene.rename("m-away", "m");
    assert_eq!(scene.reported(), ["m/n/lib"]);
    fs::remove_dir_all(scene.path("m")).unwrap();
    assert_eq!(scene.reported(), ["m/n/lib"]);
    // A whole tree at once.
    scene.write("away/n/lib/x.torrent");
    scene.rename("away", "m");
    assert_eq!(scene.reported(), ["m/n/lib"]);
    scene.write("m/n/lib/y.torrent");
    assert_eq!(scene.reported(), ["m/n/lib/y.torrent"]);
}

#[test]
fn a_root_behind_symlinks_is_reported_by_its_real_path() {
    let mut scene = Scene::with_roots(&["root/", "away/one/"], &["root", "lib/one"], NODES_MAX);
    scene.link("away", "lib");
    assert_eq!(scene.reported(), ["away/one"]);
    scene.write("away/one/x.torrent");
    assert_eq!(scene.reported(), ["away/one/x.torrent"]);
    scene.rename("away/one", "away/two");
    assert_eq!(scene.reported(), ["away/one"]);
    scene.make_directory("away/one");
    assert_eq!(scene.reported(), ["away/one"]);
    // Somewhere else it is another root.
    scene.make_directory("elsewhere/one");
    scene.link("elsewhere", "new");
    scene.rename("new", "lib");
    assert!(scene.changes().0.everything);
    scene.write("elsewhere/one/x.torrent");
    assert_eq!(scene.reported(), ["elsewhere/one/x.torrent"]);
}

#[test]
fn a_file_can_be_a_root() {
    let mut scene = Scene::with_roots(&["root/", "m/"], &["root", "m/x.meta"], NODES_MAX);
    scene.write("m/y.meta");
    assert_eq!(scene.reported(), [""; 0]);
    scene.write("m/x.meta");
    assert_eq!(scene.reported(), ["m/x.meta"]);
    scene.write("m/x.meta");
    assert_eq!(scene.reported(), ["m/x.meta"]);
    fs::remove_file(scene.path("m/x.meta")).unwrap();
    assert_eq!(scene.reported(), ["m/x.meta"]);
}

#[test]
fn a_root_can_go_and_come_back_itself() {
    let mut scene = Scene::new(&["root/a/x.torrent"]);
    scene.rename("root", "away/root");
    assert_eq!(scene.next().paths, [scene.path("root")]);
    scene.write("away/root/a/y.torrent");
    assert_eq!(scene.watcher.watched(), 0);
    scene.rename("away/root", "root");
    assert_eq!(scene.next().paths, [scene.path("root")]);
    scene.write("root/a/z.torrent");
    assert_eq!(scene.reported(), ["root/a/z.torrent"]);
    fs::remove_dir_all(scene.path("root")).unwrap();
    assert_eq!(scene.next().paths, [scene.path("root")]);
    scene.make_directory("root");
    assert_eq!(scene.next().paths, [scene.path("root")]);
}

#[test]
fn another_thread_wakes_it() {
    let mut scene = Scene::new(&["root/"]);
    let waker = scene.watcher.waker();
    waker.wake();
    assert!(scene.watcher.wait(None).unwrap().is_empty());
    let thread = thread::spawn(move || waker.wake());
    assert!(scene.watcher.wait(None).unwrap().is_empty());
    thread.join().unwrap();
    let none = scene.watcher.wait(Some(Duration::ZERO)).unwrap();
    assert_eq!(none, Changes::default());
}
