//! A tree of torrents becomes an index.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{BuildError, Depth, Plan, Previous, Progress, Summary, build, count_files, refresh};
use crate::library::fixture::DiskLibrary;
use crate::library::index::format::State;
use crate::library::index::{Entry, Index, MetainfoPath};
use crate::library::scan::probe::Probed;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::reader::FileStamp;
use crate::wire::message::InfoHash;

fn built(library: &DiskLibrary) -> (Summary, Vec<String>) {
    let mut lines = Vec::new();
    let prefix = library.path("").to_str().unwrap().to_owned();
    let summary = build(&library.plan(), &Progress::default(), |refusal| {
        lines.push(refusal.to_string().replace(&prefix, ""));
    });
    (summary.unwrap(), lines)
}

fn entries(index: &Index) -> Vec<Entry> {
    index.entries().map(Result::unwrap).collect()
}

fn paths(index: &Index) -> Vec<PathBuf> {
    let path = |entry: Entry| {
        let path = entry.path.to_path_buf();
        path.strip_prefix(&index.origin().root)
            .unwrap()
            .to_path_buf()
    };
    entries(index).into_iter().map(path).collect()
}

fn lookup(index: &Index, info_hash: InfoHash) -> Option<Entry> {
    index.entry(index.find(&info_hash)?, &info_hash).unwrap()
}

#[test]
fn a_tree_of_torrents_becomes_an_index() {
    let library = DiskLibrary::new();
    library.torrent("b", "two");
    library.torrent("a/deep", "one");
    library.torrent("", "top");
    library.torrent("b", "gone");
    fs::remove_file(library.path("b/gone")).unwrap();
    library.write("b/bad.torrent", "no bencode");
    library.write("b/notes.txt", "");
    fs::create_dir(library.path("c")).unwrap();
    fs::copy(library.path("top.torrent"), library.path("c/again.torrent")).unwrap();
    library.write("c/top", [1; 7]);
    let (summary, lines) = built(&library);
    assert_eq!(
        lines,
        [
            "b/bad.torrent: malformed bencode: unexpected byte at offset 0",
            "b/gone.torrent: content gone is missing",
        ]
    );
    let expected = Summary {
        torrents: 4,
        withdrawn: 1,
        refused: 2,
        bytes: fs::metadata(library.target()).unwrap().len(),
    };
    assert_eq!(summary, expected);
    let index = Index::open(&library.target()).unwrap();
    index.check().unwrap();
    let expected = [
        "top.torrent",
        "a/deep/one.torrent",
        "b/bad.torrent",
        "b/gone.torrent",
        "b/two.torrent",
        "c/again.torrent",
    ];
    assert_eq!(paths(&index), expected.map(PathBuf::from));
    for entry in entries(&index) {
        let path = entry.path.to_path_buf();
        let state = match entry.path.name.to_str().unwrap() {
            "bad.torrent" => State::Unusable,
            "gone.torrent" => State::Withdrawn,
            _ => State::Served,
        };
        assert_eq!(entry.facts.state, state, "{path:?}");
        assert_eq!(entry.facts.stamp, FileStamp::new(&path.metadata().unwrap()));
        let tiers = index.trackers(entry.trackers).unwrap();
        assert_eq!(tiers.is_empty(), entry.facts.state == State::Unusable);
        if entry.facts.state != State::Unusable {
            assert_eq!(tiers, [["http://t/"]]);
            assert!(lookup(&index, entry.facts.info_hash).is_some());
        }
    }
    // An unusable file has no info-hash under which it could be asked for.
    assert_eq!(lookup(&index, InfoHash([0; 20])), None);
}

#[test]
fn directories_that_overlap_hold_a_torrent_once() {
    let library = DiskLibrary::new();
    library.torrent("a", "one");
    symlink("a", library.path("alias")).unwrap();
    let (summary, lines) = built(&library);
    assert_eq!((summary.torrents, summary.refused), (1, 0), "{lines:?}");
}

/// Every entry, found by its path.
fn assert_each_is_found(index: &Index) {
    let all = entries(index);
    assert!(all.is_sorted_by(|one, other| one.path < other.path));
    for entry in all {
        let found = index.at(&entry.path).unwrap();
        assert_eq!(found.as_ref(), Some(&entry));
        let within = index.within(&entry.path.directory);
        assert!(within.unwrap().contains(&entry.record.0), "{entry:?}");
    }
}

#[test]
fn files_behind_symlinks_are_in_the_order_of_paths() {
    let library = DiskLibrary::new();
    library.torrent("../mnt/x", "y");
    library.torrent("../mnt/x/deep", "z");
    library.torrent("a", "one");
    library.torrent("c", "two");
    library.torrent("", "top");
    library.torrent("", "a-first");
    let links = ["lib/b", "lib/d", "lib/a/n", "lib/k.torrents"];
    for link in links {
        symlink(library.base.join("mnt/x"), library.base.join(link)).unwrap();
    }
    symlink(library.path("top.torrent"), library.path("m.torrent")).unwrap();
    built(&library);
    let index = Index::open(&library.target()).unwrap();
    assert_each_is_found(&index);
    assert_eq!(entries(&index).len(), 5 + 2 * links.len());
    let previous = Previous {
        index: &index,
        depth: Depth::Metainfo,
        quiet: false,
        gone: &[],
    };
    // The same again, with one more between them.
    library.torrent("b2", "new");
    let plan = library.plan();
    let probed = Probed::default();
    refresh(&plan, Some(previous), &probed, &Progress::default(), |_| ()).unwrap();
    let index = Index::open(&library.target()).unwrap();
    assert_each_is_found(&index);
    assert_eq!(entries(&index).len(), 6 + 2 * links.len());
}

#[test]
fn entries_that_cannot_be_read_are_kept_as_withdrawn() {
    let library = DiskLibrary::new();
    library.torrent("disk", "a");
    library.torrent("disk/deep", "b");
    library.torrent("other", "c");
    library.torrent("../far", "d");
    symlink(library.base.join("far"), library.path("far")).unwrap();
    built(&library);
    let again = |gone: &[MetainfoPath]| {
        let index = Index::open(&library.target()).unwrap();
        let previous = Previous {
            index: &index,
            depth: Depth::Metainfo,
            quiet: false,
            gone,
        };
        let mut lines = 0;
        let summary = refresh(
            &library.plan(),
            Some(previous),
            &Probed::default(),
            &Progress::default(),
            |_| {
                lines += 1;
            },
        );
        let summary = summary.unwrap();
        assert_each_is_found(&Index::open(&library.target()).unwrap());
        (summary.torrents, summary.withdrawn, lines)
    };
    let disk = library.path("disk");
    let aside = library.base.join("aside");
    fs::rename(&disk, &aside).unwrap();
    // An error of the file system: a link to itself.
    symlink(&disk, &disk).unwrap();
    assert_eq!(again(&[]), (4, 2, 1));
    fs::remove_file(&disk).unwrap();
    // An empty library to mount something at, and a link to nowhere.
    fs::create_dir(&disk).unwrap();
    fs::rename(library.base.join("far"), library.base.join("farther")).unwrap();
    assert_eq!(again(&[]), (4, 3, 0));
    fs::remove_dir(&disk).unwrap();
    fs::rename(&aside, &disk).unwrap();
    fs::rename(library.base.join("farther"), library.base.join("far")).unwrap();
    assert_eq!(again(&[]), (4, 0, 0));
    // What was seen to go is not waited for, nor what is in a directory with something else in it.
    fs::remove_dir_all(disk.join("deep")).unwrap();
    fs::remove_dir_all(&disk).unwrap();
    fs::create_dir(&disk).unwrap();
    assert_eq!(
        again(&[MetainfoPath::new(&disk.join("a.torrent")).unwrap()]),
        (3, 1, 0)
    );
    fs::write(disk.join("lost+found"), "").unwrap();
    assert_eq!(again(&[]), (2, 0, 0));
}

#[test]
fn content_may_have_its_own_directory_and_nothing_to_index_is_an_error() {
    let library = DiskLibrary::new();
    library.torrent("", "n");
    fs::rename(library.path("n"), library.base.join("n")).unwrap();
    let mut plan = Plan {
        inputs: vec![library.path("")],
        content: ContentDirectories::below(library.base.clone()),
        target: library.target(),
        threads: 1,
    };
    let run = |plan: &Plan| build(plan, &Progress::default(), |_| ());
    assert_eq!(run(&plan).unwrap().withdrawn, 0);
    let index = Index::open(&library.target()).unwrap();
    assert_eq!(index.origin().content, std::slice::from_ref(&library.base));
    assert_eq!(index.origin().root, library.path(""));
    plan.content = ContentDirectories::below(library.base.join("nowhere"));
    assert!(matches!(run(&plan), Err(BuildError::Content(..))));
    plan.inputs = vec![library.base.join("nowhere")];
    plan.content = ContentDirectories::default();
    assert!(matches!(run(&plan), Err(BuildError::Nothing(Some(_)))));
    plan.inputs = vec![library.path("")];
    plan.target = library.base.join("no/such/directory/index");
    assert!(matches!(run(&plan), Err(BuildError::Write(..))));
}

#[test]
fn symlink_loops_and_names_in_no_encoding_are_indexed() {
    let library = DiskLibrary::new();
    library.torrent("x", "a");
    symlink(library.path(""), library.path("x/up")).unwrap();
    symlink("again", library.path("again")).unwrap();
    let name = OsStr::from_bytes(b"\xff\xfe.torrent");
    let odd = library.path("x").join(name);
    fs::rename(library.path("x/a.torrent"), &odd).unwrap();
    built(&library);
    let index = Index::open(&library.target()).unwrap();
    let entries = entries(&index);
    let states: Vec<State> = entries.iter().map(|entry| entry.facts.state).collect();
    assert_eq!(states, [State::Served]);
    assert_eq!(entries[0].path.to_path_buf(), odd);
}

#[test]
fn files_are_counted_until_stop_is_set() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.torrent", "b.torrent", "notes", "named"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    let inputs = [directory.path().to_path_buf()];
    let stop = AtomicBool::new(false);
    assert_eq!(count_files(&inputs, &stop), Some(2));
    assert_eq!(
        count_files(&[directory.path().join("named")], &stop),
        Some(1)
    );
    stop.store(true, Relaxed);
    assert_eq!(count_files(&inputs, &stop), None);
}

#[test]
fn a_metainfo_file_over_the_limit_is_refused_without_being_read() {
    let library = DiskLibrary::new();
    library.torrent("", "a");
    let huge = fs::File::create(library.path("b.torrent")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let (summary, lines) = built(&library);
    assert_eq!((summary.torrents, summary.refused), (1, 1), "{lines:?}");
    assert!(lines[0].starts_with("b.torrent: "), "{lines:?}");
}
