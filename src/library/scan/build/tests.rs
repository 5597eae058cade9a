//! A tree of torrents becomes an index.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{BuildError, Depth, Plan, Previous, Progress, Summary, build, refresh};
use crate::library::index::format::State;
use crate::library::index::{Entry, Index};
use crate::torrent::metainfo::samples::{s, single};
use crate::torrent::reader::FileStamp;
use crate::wire::message::InfoHash;

/// A directory for an index, and one for torrents.
struct Place {
    _directory: TempDir,
    previous: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let previous = directory.path().canonicalize().unwrap();
        fs::create_dir(previous.join("lib")).unwrap();
        Place {
            _directory: directory,
            previous,
        }
    }

    fn index(&self) -> PathBuf {
        self.previous.join("index")
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.previous.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A torrent of the file `name` with its content beside it.
    fn torrent(&self, directory: &str, name: &str, length: usize) {
        let raw = single(length as u64, "").replace("4:name1:n", &(s("name") + &s(name)));
        let raw = raw.replacen('d', &("d".to_owned() + &s("announce") + &s("http://t/")), 1);
        self.write(&format!("{directory}/{name}.torrent"), raw);
        self.write(&format!("{directory}/{name}"), vec![1; length]);
    }

    fn plan(&self) -> Plan {
        Plan {
            inputs: vec![self.previous.join("lib")],
            content: None,
            target: self.index(),
            threads: 2,
        }
    }

    fn build(&self) -> (Summary, Vec<String>) {
        let plan = self.plan();
        let mut lines = Vec::new();
        let previous = format!("{}/lib/", self.previous.display());
        let progress = Progress::default();
        let summary = build(&plan, &progress, |refusal| {
            lines.push(refusal.to_string().replace(&previous, ""));
        });
        (summary.unwrap(), lines)
    }
}

fn entries(index: &Index) -> Vec<Entry> {
    index.entries().map(Result::unwrap).collect()
}

fn paths(index: &Index) -> Vec<PathBuf> {
    let path = |entry: Entry| entry.directory.join(entry.name);
    entries(index).into_iter().map(path).collect()
}

fn lookup(index: &Index, info_hash: InfoHash) -> Option<Entry> {
    index.entry(index.find(&info_hash)?, &info_hash).unwrap()
}

#[test]
fn a_tree_of_torrents_becomes_an_index() {
    let place = Place::new();
    place.torrent("lib/b", "two", 5);
    place.torrent("lib/a/deep", "one", 6);
    place.torrent("lib", "top", 7);
    place.torrent("lib/b", "gone", 8);
    fs::remove_file(place.previous.join("lib/b/gone")).unwrap();
    place.write("lib/b/bad.torrent", "no bencode");
    place.write("lib/b/notes.txt", "");
    fs::create_dir(place.previous.join("lib/c")).unwrap();
    fs::copy(
        place.previous.join("lib/top.torrent"),
        place.previous.join("lib/c/again.torrent"),
    )
    .unwrap();
    place.write("lib/c/top", [1; 7]);
    let (summary, lines) = place.build();
    assert_eq!(
        lines,
        [
            "b/bad.torrent: malformed bencode: unexpected byte at offset 0",
            "b/gone.torrent: content gone is missing",
            "c/again.torrent: the same info-hash as top.torrent",
        ]
    );
    let expected = Summary {
        torrents: 4,
        withdrawn: 1,
        refused: 3,
        bytes: fs::metadata(place.index()).unwrap().len(),
    };
    assert_eq!(summary, expected);
    let index = Index::open(&place.index()).unwrap();
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
        let path = place
            .previous
            .join("lib")
            .join(&entry.directory)
            .join(&entry.name);
        let state = match entry.name.to_str().unwrap() {
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
    let place = Place::new();
    place.torrent("lib/a", "one", 5);
    symlink("a", place.previous.join("lib/alias")).unwrap();
    let (summary, lines) = place.build();
    assert_eq!((summary.torrents, summary.refused), (1, 0), "{lines:?}");
}

/// Every entry, found by its path.
fn assert_each_is_found(index: &Index) {
    let all = entries(index);
    let place = |entry: &Entry| (entry.directory.clone(), entry.name.clone());
    assert!(all.is_sorted_by(|one, other| place(one) < place(other)));
    for entry in all {
        let found = index.at(&index.path_of(&entry)).unwrap();
        assert_eq!(found.as_ref(), Some(&entry));
        let within = index.within(&index.origin().root.join(&entry.directory));
        assert!(within.unwrap().contains(&entry.record.0), "{entry:?}");
    }
}

#[test]
fn what_is_behind_links_has_its_place_in_the_order() {
    let place = Place::new();
    place.torrent("mnt/x", "y", 5);
    place.torrent("mnt/x/deep", "z", 6);
    place.torrent("lib/a", "one", 7);
    place.torrent("lib/c", "two", 8);
    place.torrent("lib", "top", 9);
    place.torrent("lib", "a-first", 10);
    let links = ["lib/b", "lib/d", "lib/a/n", "lib/k.torrents"];
    for link in links {
        symlink(place.previous.join("mnt/x"), place.previous.join(link)).unwrap();
    }
    symlink(
        place.previous.join("lib/top.torrent"),
        place.previous.join("lib/m.torrent"),
    )
    .unwrap();
    place.build();
    let index = Index::open(&place.index()).unwrap();
    assert_each_is_found(&index);
    assert_eq!(entries(&index).len(), 5 + 2 * links.len());
    let previous = Previous {
        index: &index,
        depth: Depth::Metainfo,
        quiet: false,
        gone: &[],
    };
    // The same again, with one more between them.
    place.torrent("lib/b2", "new", 11);
    let plan = place.plan();
    refresh(&plan, Some(previous), &Progress::default(), |_| ()).unwrap();
    let index = Index::open(&place.index()).unwrap();
    assert_each_is_found(&index);
    assert_eq!(entries(&index).len(), 6 + 2 * links.len());
}

#[test]
fn what_cannot_be_read_is_kept_until_it_can() {
    let place = Place::new();
    place.torrent("lib/disk", "a", 5);
    place.torrent("lib/disk/deep", "b", 6);
    place.torrent("lib/other", "c", 7);
    place.torrent("far", "d", 8);
    symlink(place.previous.join("far"), place.previous.join("lib/far")).unwrap();
    place.build();
    let again = |gone: &[PathBuf]| {
        let index = Index::open(&place.index()).unwrap();
        let previous = Previous {
            index: &index,
            depth: Depth::Metainfo,
            quiet: false,
            gone,
        };
        let mut lines = 0;
        let summary = refresh(&place.plan(), Some(previous), &Progress::default(), |_| {
            lines += 1;
        });
        let summary = summary.unwrap();
        assert_each_is_found(&Index::open(&place.index()).unwrap());
        (summary.torrents, summary.withdrawn, lines)
    };
    let disk = place.previous.join("lib/disk");
    let aside = place.previous.join("aside");
    fs::rename(&disk, &aside).unwrap();
    // An error of the file system: a link to itself.
    symlink(&disk, &disk).unwrap();
    assert_eq!(again(&[]), (4, 2, 1));
    fs::remove_file(&disk).unwrap();
    // An empty place to mount something at, and a link to nowhere.
    fs::create_dir(&disk).unwrap();
    fs::rename(place.previous.join("far"), place.previous.join("farther")).unwrap();
    assert_eq!(again(&[]), (4, 3, 0));
    fs::remove_dir(&disk).unwrap();
    fs::rename(&aside, &disk).unwrap();
    fs::rename(place.previous.join("farther"), place.previous.join("far")).unwrap();
    assert_eq!(again(&[]), (4, 0, 0));
    // What was seen to go is not waited for, nor what is in a directory with something else in it.
    fs::remove_dir_all(disk.join("deep")).unwrap();
    fs::remove_dir_all(&disk).unwrap();
    fs::create_dir(&disk).unwrap();
    assert_eq!(again(&[disk.join("a.torrent")]), (3, 1, 0));
    fs::write(disk.join("lost+found"), "").unwrap();
    assert_eq!(again(&[]), (2, 0, 0));
}

#[test]
fn content_may_lie_elsewhere_and_nothing_to_index_is_an_error() {
    let place = Place::new();
    place.torrent("lib", "n", 5);
    fs::rename(place.previous.join("lib/n"), place.previous.join("n")).unwrap();
    let mut plan = Plan {
        inputs: vec![place.previous.join("lib")],
        content: Some(place.previous.clone()),
        target: place.index(),
        threads: 1,
    };
    let run = |plan: &Plan| build(plan, &Progress::default(), |_| ());
    assert_eq!(run(&plan).unwrap().withdrawn, 0);
    let index = Index::open(&place.index()).unwrap();
    assert_eq!(index.origin().content.as_ref(), Some(&place.previous));
    assert_eq!(index.origin().root, place.previous.join("lib"));
    plan.content = Some(place.previous.join("nowhere"));
    assert!(matches!(run(&plan), Err(BuildError::Content(..))));
    plan.inputs = vec![place.previous.join("nowhere")];
    plan.content = None;
    assert!(matches!(run(&plan), Err(BuildError::Nothing(Some(_)))));
    plan.inputs = vec![place.previous.join("lib")];
    plan.target = place.previous.join("no/such/directory/index");
    assert!(matches!(run(&plan), Err(BuildError::Write(..))));
}

#[test]
fn links_in_a_circle_and_names_in_no_encoding_are_no_trouble() {
    let place = Place::new();
    place.torrent("lib/x", "a", 3);
    symlink(place.previous.join("lib"), place.previous.join("lib/x/up")).unwrap();
    symlink("again", place.previous.join("lib/again")).unwrap();
    let name = OsStr::from_bytes(b"\xff\xfe.torrent");
    let odd = place.previous.join("lib/x").join(name);
    fs::rename(place.previous.join("lib/x/a.torrent"), &odd).unwrap();
    place.build();
    let index = Index::open(&place.index()).unwrap();
    let entries = entries(&index);
    let states: Vec<State> = entries.iter().map(|entry| entry.facts.state).collect();
    assert_eq!(states, [State::Served]);
    assert_eq!(index.path_of(&entries[0]), odd);
}

#[test]
fn a_metainfo_file_over_the_limit_is_refused_without_being_read() {
    let place = Place::new();
    place.torrent("lib", "a", 3);
    let huge = fs::File::create(place.previous.join("lib/b.torrent")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let (summary, lines) = place.build();
    assert_eq!((summary.torrents, summary.refused), (1, 1), "{lines:?}");
    assert!(lines[0].starts_with("b.torrent: "), "{lines:?}");
}
