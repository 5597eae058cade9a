//! What examining a path changes, and what merging a new index does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::library::catalogue::merge::{Difference, merge};
use crate::library::catalogue::overlay::Affected;
use crate::library::fixture::DiskLibrary;
use crate::library::index::Index;
use crate::library::scan::build::Depth;
use crate::torrent::content_directories::ContentDirectories;

/// Torrents of a directory, and as many that come at once: a tag of 14 bits for each would be one of
/// another some ten times.
const MANY: usize = 400;

fn contents_of(library: &DiskLibrary) -> Contents {
    let snapshot = Snapshot::new(library.refresh(None, Depth::Content, &[]));
    Contents::new(snapshot, &ContentDirectories::default(), Vec::new(), false)
}

/// Makes an index over that of the contents.
fn next_index(library: &DiskLibrary, contents: &Contents) -> Arc<Index> {
    let before = Some(&*contents.snapshot.index);
    Arc::new(library.refresh(before, Depth::Content, &[]))
}

/// Examines what a change of this path affects. Returns the changes: info-hashes with their ids, removed
/// ones first in a step.
fn examine(contents: &mut Contents, path: &PathBuf) -> Vec<(char, InfoHash, u32)> {
    examine_into(contents, path, &mut Examined::default())
}

/// The same, with what was refused left in `examined`.
fn examine_into(
    contents: &mut Contents,
    path: &PathBuf,
    examined: &mut Examined,
) -> Vec<(char, InfoHash, u32)> {
    let affected = contents.affected(path, usize::MAX, examined).unwrap();
    let Affected::Files(files) = affected else {
        panic!("{path:?}");
    };
    for file in files {
        contents.examine(&file, examined).unwrap();
    }
    let paths = std::slice::from_ref(path);
    for file in contents.files_of_content(paths).unwrap() {
        contents.examine(&file, examined).unwrap();
    }
    let changes = std::mem::take(&mut examined.changes).into_iter();
    let changes = changes.filter_map(|change| match change {
        Change::Added(added) => Some(('+', added.info_hash, added.id.0)),
        Change::Removed(removed) if removed.of_content => {
            Some(('!', removed.info_hash, removed.id.0))
        }
        Change::Removed(removed) => Some(('-', removed.info_hash, removed.id.0)),
        Change::Relisted(_) => None,
    });
    changes.collect()
}

/// The trackers that a torrent has after a file was examined, which are one after the other; `None` if
/// nothing is said of them.
fn trackers_after(contents: &mut Contents, path: &Path) -> Option<String> {
    let mut examined = Examined::default();
    contents.examine(path, &mut examined).unwrap();
    let mut said = examined.changes.iter().filter_map(|change| match change {
        Change::Added(added) => Some(&added.announce),
        Change::Relisted(relisted) => Some(&relisted.announce),
        Change::Removed(_) => None,
    });
    said.next_back().map(|tiers| tiers.concat().join(" "))
}

#[test]
fn a_torrent_has_the_trackers_of_all_its_files() {
    let library = DiskLibrary::new();
    let a = library.torrent("x", "a");
    library.metainfo("x/second.torrent", "a", "http://two/");
    library.metainfo("x/third.torrent", "a", "http://t/");
    let mut contents = contents_of(&library);
    let index = Arc::clone(&contents.snapshot.index);
    let served: Vec<_> = index.served().map(Result::unwrap).collect();
    assert_eq!((served.len(), served[0].has_duplicates), (1, true));
    let lists = index
        .lists_of(served[0].record, served[0].trackers)
        .unwrap();
    let tiers = index.all_trackers(&lists).unwrap();
    assert_eq!(tiers.concat(), ["http://t/", "http://two/"]);
    // One comes.
    library.metainfo("x/z.torrent", "a", "http://z/");
    let after = trackers_after(&mut contents, &library.path("x/z.torrent"));
    assert_eq!(after.as_deref(), Some("http://t/ http://two/ http://z/"));
    // One that says nothing new goes, and one that did.
    let after = trackers_after(&mut contents, &library.remove("x/third.torrent"));
    assert_eq!(after.as_deref(), Some("http://t/ http://two/ http://z/"));
    let after = trackers_after(&mut contents, &library.remove("x/second.torrent"));
    assert_eq!(after.as_deref(), Some("http://t/ http://z/"));
    // The served one goes, and comes back.
    let after = trackers_after(&mut contents, &library.remove("x/a.torrent"));
    assert_eq!(after.as_deref(), Some("http://z/"));
    library.metainfo("x/a.torrent", "a", "http://new/");
    let after = trackers_after(&mut contents, &library.path("x/a.torrent"));
    assert_eq!(after.as_deref(), Some("http://z/ http://new/"));
    assert_eq!(contents.in_several_files().unwrap(), BTreeSet::from([a]));
    // One whose content is not right has no say.
    library.metainfo("y/a.torrent", "a", "http://other/");
    assert_eq!(
        trackers_after(&mut contents, &library.path("y/a.torrent")),
        None
    );
    // Where all is as the files say, the next index says the same.
    refresh(&library, &mut contents);
    let mut examined = Examined::default();
    contents.relist(&a, &mut examined).unwrap();
    let Change::Relisted(relisted) = &examined.changes[0] else {
        panic!("it has trackers");
    };
    let mut trackers = relisted.announce.concat();
    trackers.sort();
    assert_eq!(trackers, ["http://new/", "http://z/"]);
}

/// Merges an index that was made from now on.
fn merge_in(contents: &mut Contents, index: Arc<Index>) -> Difference {
    let (merged, difference) = merge(contents, index, contents.epoch).unwrap();
    contents.replace(merged);
    difference
}

/// Makes and merges a new index. Returns the ids of what has gone and of what has come.
fn refresh(library: &DiskLibrary, contents: &mut Contents) -> (Vec<u32>, Vec<u32>) {
    contents.begin_refresh();
    let before = Some(&*contents.snapshot.index);
    let index = library.refresh(before, Depth::Content, &contents.tombstones());
    let difference = merge_in(contents, Arc::new(index));
    let removed = difference.removed.iter().map(|removed| removed.id.0);
    let ids = &contents.snapshot.ids;
    let added = difference.added.iter();
    let added = added.map(|record| ids.id(*record).unwrap().0);
    (removed.collect(), added.collect())
}

/// The id under which a path is served.
fn number(contents: &Contents, path: &Path) -> Option<u32> {
    let file = contents.file(&MetainfoPath::new(path).unwrap());
    file.unwrap()?.id.map(|id| id.0)
}

#[test]
fn a_file_that_comes_or_goes_is_reported_once() {
    let library = DiskLibrary::new();
    let [a, b] = ["a", "b"].map(|name| library.torrent("x", name));
    let mut contents = contents_of(&library);
    assert_eq!(contents.counts.served, 2);
    assert_eq!(examine(&mut contents, &library.path("x/a.torrent")), []);
    let path = library.remove("x/a.torrent");
    assert_eq!(examine(&mut contents, &path), [('-', a, 0)]);
    assert_eq!(examine(&mut contents, &path), []);
    let c = library.torrent("y", "c");
    assert_eq!(examine(&mut contents, &library.path("y")), [('+', c, 2)]);
    assert_eq!(examine(&mut contents, &library.path("y")), []);
    // What comes back is another, and all below a directory goes with it.
    library.torrent("x", "a");
    assert_eq!(examine(&mut contents, &path), [('+', a, 3)]);
    fs::remove_dir_all(library.path("x")).unwrap();
    let mut gone = examine(&mut contents, &library.path("x"));
    gone.sort_unstable();
    let mut wanted = [('-', a, 3), ('-', b, 1)];
    wanted.sort_unstable();
    assert_eq!(gone, wanted);
    assert_eq!(contents.counts.served, 1);
    let overrides = contents.overrides().unwrap();
    assert!(
        matches!(overrides.get(&a), Some(Override::Tombstone))
            && matches!(overrides.get(&b), Some(Override::Tombstone))
    );
    assert!(
        matches!(overrides.get(&c), Some(Override::Served(TorrentId(2), at)) if **at == *library.path("y/c.torrent"))
    );
}

#[test]
fn a_torrent_is_withdrawn_while_its_content_is_wrong() {
    let library = DiskLibrary::new();
    let a = library.torrent("x", "a");
    let mut contents = contents_of(&library);
    let content = library.path("x/a");
    fs::write(&content, [1; 3]).unwrap();
    let mut examined = Examined::default();
    let changes = examine_into(&mut contents, &content, &mut examined);
    assert_eq!(changes, [('!', a, 0)]);
    assert_eq!((contents.counts.served, contents.counts.refused), (0, 1));
    assert_eq!(examined.refused.len(), 1);
    fs::write(&content, [1; 7]).unwrap();
    assert_eq!(examine(&mut contents, &content), [('+', a, 1)]);
    assert_eq!((contents.counts.served, contents.counts.refused), (1, 0));
    // The same for one that is not in the index.
    let b = library.torrent("x", "b");
    assert_eq!(
        examine(&mut contents, &library.path("x/b.torrent")),
        [('+', b, 2)]
    );
    let content = library.remove("x/b");
    assert_eq!(examine(&mut contents, &content), [('!', b, 2)]);
}

#[test]
fn a_directory_that_is_suddenly_empty_counts_as_away() {
    let library = DiskLibrary::new();
    let a = library.torrent("d/deep", "a");
    library.torrent("e", "b");
    let mut contents = contents_of(&library);
    let (disk, aside) = (library.path("d"), library.base.join("aside"));
    fs::rename(&disk, &aside).unwrap();
    fs::create_dir(&disk).unwrap();
    let mut examined = Examined::default();
    let changes = examine_into(&mut contents, &disk, &mut examined);
    assert_eq!(changes, [('!', a, 0)]);
    assert_eq!(examine_into(&mut contents, &disk, &mut examined), []);
    assert_eq!((contents.counts.served, contents.counts.refused), (1, 1));
    assert_eq!(refresh(&library, &mut contents), (vec![], vec![]));
    assert_eq!((contents.counts.served, contents.counts.refused), (1, 1));
    assert!(examined.refused.is_empty());
    fs::remove_dir(&disk).unwrap();
    fs::rename(&aside, &disk).unwrap();
    let changes = examine(&mut contents, &disk);
    assert_eq!((changes.len(), changes[0].0, changes[0].1), (1, '+', a));
    // Neither is lost what the file system has an error for: a link to itself.
    fs::rename(&disk, &aside).unwrap();
    std::os::unix::fs::symlink(&disk, &disk).unwrap();
    assert_eq!(examine(&mut contents, &disk).len(), 1);
    assert!(contents.tombstones().is_empty());
    fs::remove_file(&disk).unwrap();
    fs::rename(&aside, &disk).unwrap();
    assert_eq!(examine(&mut contents, &disk)[0].0, '+');
    // One that was emptied file by file is not.
    for path in ["d/deep/a", "d/deep/a.torrent"] {
        let path = library.remove(path);
        examine(&mut contents, &path);
    }
    refresh(&library, &mut contents);
    assert_eq!((contents.counts.served, contents.counts.refused), (1, 0));
    assert_eq!(contents.snapshot.index.records(), 1);
}

#[test]
fn content_of_the_right_size_keeps_the_id_of_its_torrent() {
    let library = DiskLibrary::new();
    library.torrent("x", "a");
    let mut contents = contents_of(&library);
    let content = library.path("x/a");
    fs::write(&content, [2; 7]).unwrap();
    assert_eq!(examine(&mut contents, &content), []);
    fs::rename(library.path("x/a.torrent"), library.path("aside")).unwrap();
    fs::write(library.path("x/new"), [3; 7]).unwrap();
    fs::rename(library.path("x/new"), &content).unwrap();
    fs::rename(library.path("aside"), library.path("x/a.torrent")).unwrap();
    assert_eq!(examine(&mut contents, &content), []);
    assert_eq!(refresh(&library, &mut contents), (vec![], vec![]));
    assert_eq!(number(&contents, &library.path("x/a.torrent")), Some(0));
}

#[test]
fn too_many_files_below_a_directory_are_not_examined_one_by_one() {
    let library = DiskLibrary::new();
    for name in ["a", "b", "c"] {
        library.torrent("x", name);
    }
    let mut contents = contents_of(&library);
    for name in ["d", "e", "f", "g"] {
        library.torrent("y", name);
    }
    let mut examined = Examined::default();
    let affected = contents
        .affected(&library.path("x"), 2, &mut examined)
        .unwrap();
    assert_eq!(affected, Affected::TooMany(Depth::Content));
    let affected = contents
        .affected(&library.path("y"), 3, &mut examined)
        .unwrap();
    assert_eq!(affected, Affected::TooMany(Depth::Metainfo));
    library.remove("x/b.torrent");
    fs::rename(library.path("y/d.torrent"), library.path("x/0.torrent")).unwrap();
    let affected = contents
        .affected(&library.path("x"), 4, &mut examined)
        .unwrap();
    // What is gone comes first, so that what has its info-hash elsewhere is no duplicate.
    let expected = ["b", "0", "a", "c"].map(|name| library.path(&format!("x/{name}.torrent")));
    assert_eq!(affected, Affected::Files(expected.to_vec()));
}

#[test]
fn new_content_in_a_large_directory_affects_no_other_torrent() {
    let library = DiskLibrary::new();
    for number in 0..MANY {
        library.torrent("x", &format!("old-{number}"));
    }
    let contents = contents_of(&library);
    let new = (0..MANY).map(|number| library.path(&format!("x/new-{number}")));
    let metainfo = (0..MANY).map(|number| library.path(&format!("x/new-{number}.torrent")));
    let mut paths: Vec<PathBuf> = new.chain(metainfo).collect();
    assert!(contents.files_of_content(&paths).unwrap().is_empty());
    paths.push(library.path("x/old-7"));
    assert_eq!(
        contents.files_of_content(&paths).unwrap(),
        [library.path("x/old-7.torrent")]
    );
}

#[test]
fn a_file_that_a_given_index_does_not_name_is_not_served() {
    let library = DiskLibrary::new();
    let [a, b] = ["a", "b"].map(|name| library.torrent("x", name));
    let mut contents = contents_of(&library);
    contents.is_given = true;
    library.torrent("y", "c");
    assert_eq!(examine(&mut contents, &library.path("y/c.torrent")), []);
    let path = library.path("x/a.torrent");
    fs::rename(&path, library.path("aside")).unwrap();
    fs::rename(library.path("y/c.torrent"), &path).unwrap();
    assert_eq!(examine(&mut contents, &path), [('-', a, 0)]);
    assert_eq!(examine(&mut contents, &path), []);
    fs::rename(library.path("aside"), &path).unwrap();
    assert_eq!(examine(&mut contents, &path), [('+', a, 2)]);
    let gone = library.remove("x/b.torrent");
    assert_eq!(examine(&mut contents, &gone), [('-', b, 1)]);
}

#[test]
fn a_duplicate_is_promoted_when_the_served_file_goes() {
    let library = DiskLibrary::new();
    for directory in ["x", "y", "z"] {
        library.torrent(directory, "a");
    }
    let mut contents = contents_of(&library);
    let a = library.torrent("w", "a");
    // One that comes while another is served stands back, wherever it is.
    assert_eq!(examine(&mut contents, &library.path("w/a.torrent")), []);
    assert_eq!(contents.counts.served, 1);
    let first = library.remove("x/a.torrent");
    let changes = examine(&mut contents, &first);
    assert_eq!(changes[0], ('-', a, 0));
    assert_eq!((changes.len(), changes[1].0, changes[1].1), (2, '+', a));
    // One after the other, until none is left.
    let mut left = ["w", "y", "z"]
        .map(|at| library.path(at).join("a.torrent"))
        .to_vec();
    for rest in (0..3).rev() {
        let served = left
            .iter()
            .position(|path| number(&contents, path).is_some());
        let path = left.remove(served.unwrap());
        fs::remove_file(&path).unwrap();
        let changes: Vec<char> = examine(&mut contents, &path)
            .iter()
            .map(|changes| changes.0)
            .collect();
        assert_eq!(changes, if rest > 0 { vec!['-', '+'] } else { vec!['-'] });
    }
    assert_eq!(contents.counts, Counts::default());
}

#[test]
fn a_new_index_keeps_the_ids_of_unchanged_torrents() {
    let library = DiskLibrary::new();
    for name in ["b", "d", "f"] {
        library.torrent("x", name);
    }
    let mut contents = contents_of(&library);
    // One has been seen to come, one not; one is gone, unseen.
    library.torrent("x", "c");
    examine(&mut contents, &library.path("x/c.torrent"));
    library.torrent("x", "a");
    library.remove("x/d.torrent");
    let (removed, added) = refresh(&library, &mut contents);
    assert_eq!(removed, [1]);
    let path = |name: &str| library.path("x").join(format!("{name}.torrent"));
    let numbers = ["b", "c", "f"].map(|name| number(&contents, &path(name)));
    assert_eq!(numbers, [Some(0), Some(3), Some(2)]);
    let new = number(&contents, &path("a")).unwrap();
    assert_eq!(added, [new]);
    assert!(![0, 1, 2, 3].contains(&new), "{new}");
    assert_eq!(number(&contents, &path("d")), None);
    assert!(
        contents.overlay.is_empty() && contents.overrides().unwrap().after(None).next().is_none()
    );
    assert_eq!(contents.counts.served, 4);
    assert_eq!(refresh(&library, &mut contents), (vec![], vec![]));
}

#[test]
fn paths_examined_during_a_refresh_stay_in_the_overlay() {
    let library = DiskLibrary::new();
    for name in ["a", "b"] {
        library.torrent("x", name);
    }
    let mut contents = contents_of(&library);
    contents.begin_refresh();
    let index = next_index(&library, &contents);
    let gone = library.remove("x/a.torrent");
    examine(&mut contents, &gone);
    let c = library.torrent("x", "c");
    examine(&mut contents, &library.path("x/c.torrent"));
    let difference = merge_in(&mut contents, index);
    assert!(difference.removed.is_empty() && difference.added.is_empty());
    assert_eq!(number(&contents, &gone), None);
    assert_eq!(number(&contents, &library.path("x/b.torrent")), Some(1));
    assert_eq!(number(&contents, &library.path("x/c.torrent")), Some(2));
    assert_eq!(contents.counts.served, 2);
    let overrides = contents.overrides().unwrap();
    assert_eq!(overrides.after(None).count(), 2);
    let served = overrides.get(&c);
    assert!(matches!(served, Some(Override::Served(TorrentId(2), _))));
}

/// Which paths are served, and whether each info-hash has one of them.
fn assert_one_server(contents: &Contents, paths: &[PathBuf], info_hash: &InfoHash) {
    let served: Vec<&PathBuf> = paths
        .iter()
        .filter(|path| number(contents, path).is_some())
        .collect();
    assert_eq!(served.len(), 1, "{served:?}");
    let numbers = paths.iter().filter_map(|path| number(contents, path));
    let overrides = contents.overrides().unwrap();
    match overrides.get(info_hash) {
        Some(Override::Served(number, at)) => {
            assert_eq!(**at, **served[0]);
            assert_eq!(numbers.collect::<Vec<u32>>(), [number.0]);
        }
        Some(Override::Tombstone) => panic!("it is served and said to be gone"),
        None => {
            // The loop goes by the index.
            let index = &contents.snapshot.index;
            let entry = index.entry(index.find(info_hash).unwrap(), info_hash);
            let entry = entry.unwrap().unwrap();
            assert_eq!(entry.path.to_path_buf(), *served[0]);
        }
    }
}

#[test]
fn a_duplicate_that_comes_while_an_index_is_made_leaves_one_that_serves() {
    let library = DiskLibrary::new();
    let hash = library.torrent("m", "x");
    let mut contents = contents_of(&library);
    contents.begin_refresh();
    // It sorts before the one that is served, and both looks see it.
    library.torrent("a", "x");
    let paths = ["a/x.torrent", "m/x.torrent"].map(|path| library.path(path));
    assert_eq!(examine(&mut contents, &paths[0]), []);
    let index = next_index(&library, &contents);
    merge_in(&mut contents, index);
    assert_one_server(&contents, &paths, &hash);
    assert_eq!(
        contents.counts,
        Counts {
            served: 1,
            refused: 0
        }
    );
}

#[test]
fn a_torrent_that_moves_while_an_index_is_made_has_one_id() {
    let library = DiskLibrary::new();
    let hash = library.torrent("a", "x");
    library.torrent("m", "x");
    let mut contents = contents_of(&library);
    contents.begin_refresh();
    // The walk has been there; then the first goes, and the other takes over.
    let index = next_index(&library, &contents);
    let paths = ["a/x.torrent", "m/x.torrent"].map(|path| library.path(path));
    let content = library.remove("a/x");
    assert_eq!(examine(&mut contents, &content).len(), 2);
    assert!(number(&contents, &paths[1]).is_some());
    merge_in(&mut contents, index);
    assert_one_server(&contents, &paths, &hash);
    // The one that was seen to be right again while the next is made.
    contents.begin_refresh();
    let index = next_index(&library, &contents);
    library.torrent("a", "x");
    examine(&mut contents, &content);
    merge_in(&mut contents, index);
    assert_one_server(&contents, &paths, &hash);
    assert_eq!(
        contents.counts,
        Counts {
            served: 1,
            refused: 0
        }
    );
}

#[test]
fn records_of_a_damaged_old_index_are_removed_and_added() {
    let library = DiskLibrary::new();
    for name in ["aaa", "bbb", "ccc"] {
        library.torrent("x", name);
    }
    let mut contents = contents_of(&library);
    // The name of the second becomes a path.
    let path = library.target();
    let mut raw = fs::read(&path).unwrap();
    let at = raw.windows(11).position(|name| name == b"bbb.torrent");
    raw[at.unwrap()] = b'/';
    fs::write(&path, raw).unwrap();
    contents.begin_refresh();
    let index = next_index(&library, &contents);
    let before = contents.next_id;
    let difference = merge_in(&mut contents, index);
    assert_eq!(contents.counts.served, 3);
    let removed: Vec<u32> = difference.removed.iter().map(|gone| gone.id.0).collect();
    assert_eq!(removed, [1]);
    let number = |name: &str| {
        number(
            &contents,
            &library.path("x").join(format!("{name}.torrent")),
        )
        .unwrap()
    };
    assert_eq!((number("aaa"), number("ccc")), (0, 2));
    assert!(number("bbb") >= before.0);
}

#[test]
fn a_torrent_that_comes_and_goes_with_its_disk_uses_one_id_each_time() {
    let library = DiskLibrary::new();
    library.torrent("d", "a");
    library.torrent("e", "b");
    let mut contents = contents_of(&library);
    let (disk, aside) = (library.path("d"), library.base.join("aside"));
    let path = library.path("d/a.torrent");
    for time in 0..3 {
        fs::rename(&disk, &aside).unwrap();
        fs::create_dir(&disk).unwrap();
        assert_eq!(refresh(&library, &mut contents).0.len(), 1);
        assert_eq!(number(&contents, &path), None);
        fs::remove_dir(&disk).unwrap();
        fs::rename(&aside, &disk).unwrap();
        assert_eq!(refresh(&library, &mut contents), (vec![], vec![2 + time]));
        assert_eq!(number(&contents, &path), Some(2 + time));
        assert_eq!(contents.next_id, TorrentId(3 + time));
    }
    assert_eq!(number(&contents, &library.path("e/b.torrent")), Some(1));
}

#[test]
fn ids_that_wrap_around_skip_those_in_use() {
    let library = DiskLibrary::new();
    for name in ["a", "b"] {
        library.torrent("x", name);
    }
    let mut contents = contents_of(&library);
    library.torrent("y", "c");
    examine(&mut contents, &library.path("y"));
    contents.next_id = TorrentId(u32::MAX);
    for name in ["d", "e"] {
        library.torrent("z", name);
    }
    let mut changes: Vec<u32> = examine(&mut contents, &library.path("z"))
        .iter()
        .map(|changes| changes.2)
        .collect();
    changes.sort_unstable();
    assert_eq!(changes, [3, u32::MAX]);
    contents.next_id = TorrentId(u32::MAX);
    for name in ["f", "g"] {
        library.torrent("w", name);
    }
    let (_, mut added) = refresh(&library, &mut contents);
    added.sort_unstable();
    assert_eq!(added, [4, 5]);
}
