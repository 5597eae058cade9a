//! What looking at a path again changes, and what a new index does.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::library::catalogue::merge::compare;
use crate::library::index::Index;
use crate::library::scan::build::{self, Look, Plan, Progress};
use crate::torrent::metainfo::Metainfo;
use crate::torrent::metainfo::samples::{s, single};

/// Torrents of a directory, and as many that come at once: a tag of 14 bits for each would be one of
/// another some ten times.
const MANY: usize = 400;

/// A library on disk.
struct Place {
    _directory: TempDir,
    base: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir(base.join("lib")).unwrap();
        Place {
            _directory: directory,
            base,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.base.join("lib").join(path)
    }

    /// A torrent of the file `name` with its content beside it.
    fn torrent(&self, directory: &str, name: &str) -> InfoHash {
        let raw = single(7, "").replace("4:name1:n", &(s("name") + &s(name)));
        let directory = self.path(directory);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), [1; 7]).unwrap();
        fs::write(directory.join(format!("{name}.torrent")), &raw).unwrap();
        Metainfo::parse(raw.as_bytes()).unwrap().info_hash
    }

    fn remove(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        fs::remove_file(&path).unwrap();
        path
    }

    /// Makes an index over the one before.
    fn index(&self, before: Option<&Index>) -> Index {
        self.index_without(before, &[])
    }

    /// The same, while these were seen to go.
    fn index_without(&self, before: Option<&Index>, gone: &[PathBuf]) -> Index {
        let plan = Plan {
            inputs: vec![self.path("")],
            content: None,
            target: self.base.join("index"),
            threads: 1,
        };
        let base = before.map(|index| build::Base {
            index,
            look: Look::Content,
            quiet: true,
            gone,
        });
        build::refresh(&plan, base, &Progress::default(), |_| ()).unwrap();
        Index::open(&plan.target).unwrap()
    }

    fn view(&self) -> View {
        View::new(Base::new(self.index(None)), None, Vec::new())
    }
}

/// What has come of looking: info-hashes with their numbers, removed ones first in a step.
fn changes(view: &mut View) -> Vec<(char, InfoHash, u32)> {
    let changes = std::mem::take(&mut view.changes).into_iter();
    let told = changes.map(|change| match change {
        Change::Added(added) => ('+', added.info_hash, added.id.0),
        Change::Removed(removed) if removed.of_content => ('!', removed.info_hash, removed.id.0),
        Change::Removed(removed) => ('-', removed.info_hash, removed.id.0),
    });
    told.collect()
}

fn look(view: &mut View, path: &PathBuf) -> Vec<(char, InfoHash, u32)> {
    let Concerned::These(paths) = view.concerned(path, usize::MAX).unwrap() else {
        panic!("{path:?}");
    };
    for path in paths {
        view.look_at(&path).unwrap();
    }
    for path in view.with_content(std::slice::from_ref(path)).unwrap() {
        view.look_at(&path).unwrap();
    }
    changes(view)
}

/// Takes up a new index. Answers the numbers of what is gone, and of what has come.
fn refresh(place: &Place, view: &mut View) -> (Vec<u32>, Vec<u32>) {
    view.epoch += 1;
    let index = place.index_without(Some(&view.base.index), &view.seen_to_go());
    let difference = compare(view, Arc::new(index), view.epoch).unwrap();
    let removed = difference.removed.iter().map(|removed| removed.id.0);
    let removed = removed.collect();
    let numbering = Arc::clone(&difference.base.numbering);
    let added = difference.added.iter();
    let added = added.map(|record| numbering.number(*record).unwrap().0);
    let added = added.collect();
    view.replace(difference);
    (removed, added)
}

/// By which number a path is served.
fn number(view: &View, path: &Path) -> Option<u32> {
    view.at(&Key::new(path).unwrap())
        .unwrap()?
        .id
        .map(|id| id.0)
}

#[test]
fn what_comes_and_goes_is_told_once() {
    let place = Place::new();
    let [a, b] = ["a", "b"].map(|name| place.torrent("x", name));
    let mut view = place.view();
    assert_eq!(view.counts.served, 2);
    assert_eq!(look(&mut view, &place.path("x/a.torrent")), []);
    let path = place.remove("x/a.torrent");
    assert_eq!(look(&mut view, &path), [('-', a, 0)]);
    assert_eq!(look(&mut view, &path), []);
    let c = place.torrent("y", "c");
    assert_eq!(look(&mut view, &place.path("y")), [('+', c, 2)]);
    assert_eq!(look(&mut view, &place.path("y")), []);
    // What comes back is another, and all below a directory goes with it.
    place.torrent("x", "a");
    assert_eq!(look(&mut view, &path), [('+', a, 3)]);
    fs::remove_dir_all(place.path("x")).unwrap();
    let mut gone = look(&mut view, &place.path("x"));
    gone.sort_unstable();
    let mut wanted = [('-', a, 3), ('-', b, 1)];
    wanted.sort_unstable();
    assert_eq!(gone, wanted);
    assert_eq!(view.counts.served, 1);
    let differs = view.differs().unwrap();
    assert!(matches!(differs[&a], Differs::Gone) && matches!(differs[&b], Differs::Gone));
    assert!(
        matches!(&differs[&c], Differs::Here(TorrentId(2), at) if **at == *place.path("y/c.torrent"))
    );
}

#[test]
fn a_torrent_is_withdrawn_while_its_content_is_wrong() {
    let place = Place::new();
    let a = place.torrent("x", "a");
    let mut view = place.view();
    let content = place.path("x/a");
    fs::write(&content, [1; 3]).unwrap();
    assert_eq!(look(&mut view, &content), [('!', a, 0)]);
    assert_eq!((view.counts.served, view.counts.refused), (0, 1));
    assert_eq!(view.refusals.len(), 1);
    fs::write(&content, [1; 7]).unwrap();
    assert_eq!(look(&mut view, &content), [('+', a, 1)]);
    assert_eq!((view.counts.served, view.counts.refused), (1, 0));
    // The same for one that is not in the index.
    let b = place.torrent("x", "b");
    assert_eq!(look(&mut view, &place.path("x/b.torrent")), [('+', b, 2)]);
    let content = place.remove("x/b");
    assert_eq!(look(&mut view, &content), [('!', b, 2)]);
}

#[test]
fn a_directory_that_is_empty_at_once_is_waited_for() {
    let place = Place::new();
    let a = place.torrent("d/deep", "a");
    place.torrent("e", "b");
    let mut view = place.view();
    let (disk, aside) = (place.path("d"), place.base.join("aside"));
    fs::rename(&disk, &aside).unwrap();
    fs::create_dir(&disk).unwrap();
    assert_eq!(look(&mut view, &disk), [('!', a, 0)]);
    assert_eq!(look(&mut view, &disk), []);
    assert_eq!((view.counts.served, view.counts.refused), (1, 1));
    assert_eq!(refresh(&place, &mut view), (vec![], vec![]));
    assert_eq!((view.counts.served, view.counts.refused), (1, 1));
    assert!(view.refusals.is_empty());
    fs::remove_dir(&disk).unwrap();
    fs::rename(&aside, &disk).unwrap();
    let told = look(&mut view, &disk);
    assert_eq!((told.len(), told[0].0, told[0].1), (1, '+', a));
    // Neither is lost what the file system has an error for: a link to itself.
    fs::rename(&disk, &aside).unwrap();
    std::os::unix::fs::symlink(&disk, &disk).unwrap();
    assert_eq!(look(&mut view, &disk).len(), 1);
    assert!(view.seen_to_go().is_empty());
    fs::remove_file(&disk).unwrap();
    fs::rename(&aside, &disk).unwrap();
    assert_eq!(look(&mut view, &disk)[0].0, '+');
    // One that was emptied file by file is not.
    for path in ["d/deep/a", "d/deep/a.torrent"] {
        let path = place.remove(path);
        look(&mut view, &path);
    }
    refresh(&place, &mut view);
    assert_eq!((view.counts.served, view.counts.refused), (1, 0));
    assert_eq!(view.base.index.records(), 1);
}

#[test]
fn content_that_has_its_size_keeps_the_number_of_its_torrent() {
    let place = Place::new();
    place.torrent("x", "a");
    let mut view = place.view();
    let content = place.path("x/a");
    fs::write(&content, [2; 7]).unwrap();
    assert_eq!(look(&mut view, &content), []);
    fs::rename(place.path("x/a.torrent"), place.path("aside")).unwrap();
    fs::write(place.path("x/new"), [3; 7]).unwrap();
    fs::rename(place.path("x/new"), &content).unwrap();
    fs::rename(place.path("aside"), place.path("x/a.torrent")).unwrap();
    assert_eq!(look(&mut view, &content), []);
    assert_eq!(refresh(&place, &mut view), (vec![], vec![]));
    assert_eq!(number(&view, &place.path("x/a.torrent")), Some(0));
}

#[test]
fn many_below_a_directory_are_counted_before_they_are_looked_at() {
    let place = Place::new();
    for name in ["a", "b", "c"] {
        place.torrent("x", name);
    }
    let mut view = place.view();
    for name in ["d", "e", "f", "g"] {
        place.torrent("y", name);
    }
    let concerned = view.concerned(&place.path("x"), 2).unwrap();
    assert_eq!(concerned, Concerned::ManyKnown);
    let concerned = view.concerned(&place.path("y"), 3).unwrap();
    assert_eq!(concerned, Concerned::ManyNew);
    place.remove("x/b.torrent");
    fs::rename(place.path("y/d.torrent"), place.path("x/0.torrent")).unwrap();
    let concerned = view.concerned(&place.path("x"), 4).unwrap();
    // What is gone comes first, so that what has its info-hash elsewhere is no duplicate.
    let expected = ["b", "0", "a", "c"].map(|name| place.path(&format!("x/{name}.torrent")));
    assert_eq!(concerned, Concerned::These(expected.to_vec()));
}

#[test]
fn new_content_in_a_large_directory_is_no_reason_to_read_its_torrents() {
    let place = Place::new();
    for number in 0..MANY {
        place.torrent("x", &format!("old-{number}"));
    }
    let view = place.view();
    let new = (0..MANY).map(|number| place.path(&format!("x/new-{number}")));
    let metainfo = (0..MANY).map(|number| place.path(&format!("x/new-{number}.torrent")));
    let mut paths: Vec<PathBuf> = new.chain(metainfo).collect();
    assert!(view.with_content(&paths).unwrap().is_empty());
    paths.push(place.path("x/old-7"));
    assert_eq!(
        view.with_content(&paths).unwrap(),
        [place.path("x/old-7.torrent")]
    );
}

#[test]
fn what_a_given_index_does_not_name_is_not_served() {
    let place = Place::new();
    let [a, b] = ["a", "b"].map(|name| place.torrent("x", name));
    let mut view = place.view();
    view.is_given = true;
    place.torrent("y", "c");
    assert_eq!(look(&mut view, &place.path("y/c.torrent")), []);
    let path = place.path("x/a.torrent");
    fs::rename(&path, place.path("aside")).unwrap();
    fs::rename(place.path("y/c.torrent"), &path).unwrap();
    assert_eq!(look(&mut view, &path), [('-', a, 0)]);
    assert_eq!(look(&mut view, &path), []);
    fs::rename(place.path("aside"), &path).unwrap();
    assert_eq!(look(&mut view, &path), [('+', a, 2)]);
    let gone = place.remove("x/b.torrent");
    assert_eq!(look(&mut view, &gone), [('-', b, 1)]);
}

#[test]
fn a_duplicate_takes_over_from_what_goes_and_gives_way_to_nothing() {
    let place = Place::new();
    for directory in ["x", "y", "z"] {
        place.torrent(directory, "a");
    }
    let mut view = place.view();
    let a = place.torrent("w", "a");
    // One that comes while another is served stands back, wherever it is.
    assert_eq!(look(&mut view, &place.path("w/a.torrent")), []);
    assert_eq!(view.counts.served, 1);
    let first = place.remove("x/a.torrent");
    let told = look(&mut view, &first);
    assert_eq!(told[0], ('-', a, 0));
    assert_eq!((told.len(), told[1].0, told[1].1), (2, '+', a));
    // One after the other, until none is left.
    let mut left = ["w", "y", "z"]
        .map(|at| place.path(at).join("a.torrent"))
        .to_vec();
    for rest in (0..3).rev() {
        let served = left.iter().position(|path| number(&view, path).is_some());
        let path = left.remove(served.unwrap());
        fs::remove_file(&path).unwrap();
        let told: Vec<char> = look(&mut view, &path).iter().map(|told| told.0).collect();
        assert_eq!(told, if rest > 0 { vec!['-', '+'] } else { vec!['-'] });
    }
    assert_eq!(view.counts, Counts::default());
}

#[test]
fn a_new_index_keeps_the_numbers_of_what_is_the_same() {
    let place = Place::new();
    for name in ["b", "d", "f"] {
        place.torrent("x", name);
    }
    let mut view = place.view();
    // One has been seen to come, one not; one is gone, unseen.
    place.torrent("x", "c");
    look(&mut view, &place.path("x/c.torrent"));
    place.torrent("x", "a");
    place.remove("x/d.torrent");
    let (removed, added) = refresh(&place, &mut view);
    assert_eq!(removed, [1]);
    let path = |name: &str| place.path("x").join(format!("{name}.torrent"));
    let numbers = ["b", "c", "f"].map(|name| number(&view, &path(name)));
    assert_eq!(numbers, [Some(0), Some(3), Some(2)]);
    let new = number(&view, &path("a")).unwrap();
    assert_eq!(added, [new]);
    assert!(![0, 1, 2, 3].contains(&new), "{new}");
    assert_eq!(number(&view, &path("d")), None);
    assert!(view.over.is_empty() && view.differs().unwrap().is_empty());
    assert_eq!(view.counts.served, 4);
    assert_eq!(refresh(&place, &mut view), (vec![], vec![]));
}

#[test]
fn what_is_seen_while_an_index_is_made_holds() {
    let place = Place::new();
    for name in ["a", "b"] {
        place.torrent("x", name);
    }
    let mut view = place.view();
    view.epoch += 1;
    let index = Arc::new(place.index(Some(&view.base.index)));
    let gone = place.remove("x/a.torrent");
    look(&mut view, &gone);
    let c = place.torrent("x", "c");
    look(&mut view, &place.path("x/c.torrent"));
    let difference = compare(&view, index, view.epoch).unwrap();
    assert!(difference.removed.is_empty() && difference.added.is_empty());
    view.replace(difference);
    assert_eq!(number(&view, &gone), None);
    assert_eq!(number(&view, &place.path("x/b.torrent")), Some(1));
    assert_eq!(number(&view, &place.path("x/c.torrent")), Some(2));
    assert_eq!(view.counts.served, 2);
    let differs = view.differs().unwrap();
    assert_eq!(differs.len(), 2);
    assert!(matches!(differs[&c], Differs::Here(TorrentId(2), _)));
}

/// Which paths are served, and whether each info-hash has one of them.
fn assert_one_server(view: &View, paths: &[PathBuf], info_hash: &InfoHash) {
    let served: Vec<&PathBuf> = paths
        .iter()
        .filter(|path| number(view, path).is_some())
        .collect();
    assert_eq!(served.len(), 1, "{served:?}");
    let numbers = paths.iter().filter_map(|path| number(view, path));
    let told = view.differs().unwrap().remove(info_hash);
    match told {
        Some(Differs::Here(number, at)) => {
            assert_eq!(*at, **served[0]);
            assert_eq!(numbers.collect::<Vec<u32>>(), [number.0]);
        }
        Some(Differs::Gone) => panic!("it is served and said to be gone"),
        None => {
            // The loop goes by the index.
            let index = &view.base.index;
            let entry = index.entry(index.find(info_hash).unwrap(), info_hash);
            let entry = entry.unwrap().unwrap();
            assert_eq!(index.path_of(&entry), *served[0]);
        }
    }
}

#[test]
fn a_duplicate_that_comes_while_an_index_is_made_leaves_one_that_serves() {
    let place = Place::new();
    let hash = place.torrent("m", "x");
    let mut view = place.view();
    view.epoch += 1;
    // It sorts before the one that is served, and both looks see it.
    place.torrent("a", "x");
    let paths = ["a/x.torrent", "m/x.torrent"].map(|path| place.path(path));
    assert_eq!(look(&mut view, &paths[0]), []);
    let index = Arc::new(place.index(Some(&view.base.index)));
    let difference = compare(&view, index, view.epoch).unwrap();
    view.replace(difference);
    assert_one_server(&view, &paths, &hash);
    assert_eq!(
        view.counts,
        Counts {
            served: 1,
            refused: 1
        }
    );
}

#[test]
fn a_torrent_that_moves_while_an_index_is_made_has_one_number() {
    let place = Place::new();
    let hash = place.torrent("a", "x");
    place.torrent("m", "x");
    let mut view = place.view();
    view.epoch += 1;
    // The walk has been there; then the first goes, and the other takes over.
    let index = Arc::new(place.index(Some(&view.base.index)));
    let paths = ["a/x.torrent", "m/x.torrent"].map(|path| place.path(path));
    let content = place.remove("a/x");
    assert_eq!(look(&mut view, &content).len(), 2);
    assert!(number(&view, &paths[1]).is_some());
    let difference = compare(&view, index, view.epoch).unwrap();
    view.replace(difference);
    assert_one_server(&view, &paths, &hash);
    // The one that was seen to be right again while the next is made.
    view.epoch += 1;
    let index = Arc::new(place.index(Some(&view.base.index)));
    place.torrent("a", "x");
    look(&mut view, &content);
    let difference = compare(&view, index, view.epoch).unwrap();
    view.replace(difference);
    assert_one_server(&view, &paths, &hash);
    assert_eq!(
        view.counts,
        Counts {
            served: 1,
            refused: 1
        }
    );
}

#[test]
fn an_old_index_that_is_damaged_gives_way_to_the_new() {
    let place = Place::new();
    for name in ["aaa", "bbb", "ccc"] {
        place.torrent("x", name);
    }
    let mut view = place.view();
    // The name of the second becomes a path.
    let path = place.base.join("index");
    let mut raw = fs::read(&path).unwrap();
    let at = raw.windows(11).position(|name| name == b"bbb.torrent");
    raw[at.unwrap()] = b'/';
    fs::write(&path, raw).unwrap();
    view.epoch += 1;
    let index = Arc::new(place.index(Some(&view.base.index)));
    let before = view.next_number;
    let difference = compare(&view, index, view.epoch).unwrap();
    assert_eq!(difference.counts.served, 3);
    let removed: Vec<u32> = difference.removed.iter().map(|gone| gone.id.0).collect();
    assert_eq!(removed, [1]);
    view.replace(difference);
    let number =
        |name: &str| number(&view, &place.path("x").join(format!("{name}.torrent"))).unwrap();
    assert_eq!((number("aaa"), number("ccc")), (0, 2));
    assert!(number("bbb") >= before.0);
}

#[test]
fn a_torrent_that_comes_and_goes_with_its_disk_uses_one_number_each_time() {
    let place = Place::new();
    place.torrent("d", "a");
    place.torrent("e", "b");
    let mut view = place.view();
    let (disk, aside) = (place.path("d"), place.base.join("aside"));
    let path = place.path("d/a.torrent");
    for time in 0..3 {
        fs::rename(&disk, &aside).unwrap();
        fs::create_dir(&disk).unwrap();
        assert_eq!(refresh(&place, &mut view).0.len(), 1);
        assert_eq!(number(&view, &path), None);
        fs::remove_dir(&disk).unwrap();
        fs::rename(&aside, &disk).unwrap();
        assert_eq!(refresh(&place, &mut view), (vec![], vec![2 + time]));
        assert_eq!(number(&view, &path), Some(2 + time));
        assert_eq!(view.next_number, TorrentId(3 + time));
    }
    assert_eq!(number(&view, &place.path("e/b.torrent")), Some(1));
}

#[test]
fn numbers_that_come_round_pass_over_those_in_use() {
    let place = Place::new();
    for name in ["a", "b"] {
        place.torrent("x", name);
    }
    let mut view = place.view();
    place.torrent("y", "c");
    look(&mut view, &place.path("y"));
    view.next_number = TorrentId(u32::MAX);
    for name in ["d", "e"] {
        place.torrent("z", name);
    }
    let mut told: Vec<u32> = look(&mut view, &place.path("z"))
        .iter()
        .map(|told| told.2)
        .collect();
    told.sort_unstable();
    assert_eq!(told, [3, u32::MAX]);
    view.next_number = TorrentId(u32::MAX);
    for name in ["f", "g"] {
        place.torrent("w", name);
    }
    let (_, mut added) = refresh(&place, &mut view);
    added.sort_unstable();
    assert_eq!(added, [4, 5]);
}
