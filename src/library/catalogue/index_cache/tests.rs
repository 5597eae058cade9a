//! Indexes of other directories are of use, and do not stay for ever.

use std::fs::{self, File, FileTimes};
use std::path::PathBuf;
use std::time::SystemTime;

use super::*;
use crate::library::catalogue::live::{Settings, Source};
use crate::library::catalogue::refresh::{first, open, state_path};
use crate::library::fixture::DiskLibrary;
use crate::library::index::format::State;
use crate::library::scan::build::Progress;
use crate::library::scan::probe::Probed;
use crate::torrent::content_directories::ContentDirectories;

fn settings(library: &DiskLibrary, directories: &[&str]) -> Settings {
    let inputs = directories.iter().map(|path| library.path(path));
    let inputs: Vec<PathBuf> = inputs.collect();
    let state = state_path(
        &library.base.join("state"),
        &inputs,
        &ContentDirectories::default(),
    );
    Settings {
        source: Source::Inputs { inputs, state },
        content: ContentDirectories::default(),
        rescan: None,
    }
}

fn indexes(library: &DiskLibrary) -> Vec<PathBuf> {
    let entries = fs::read_dir(library.base.join("state")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Changes the bytes of a file and nothing else that is seen from outside.
fn spoil(path: &PathBuf) {
    let metadata = path.metadata().unwrap();
    let rubbish = vec![b'x'; fs::read(path).unwrap().len()];
    fs::write(path, rubbish).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    let times = FileTimes::new().set_modified(metadata.modified().unwrap());
    file.set_times(times).unwrap();
}

#[test]
fn one_more_directory_reuses_the_index_of_the_others() {
    let library = DiskLibrary::new();
    library.torrent("a", "one");
    let known = library.path("a/one.torrent");
    let makes = |directories: &[&str]| {
        let settings = settings(&library, directories);
        assert!(open(&settings).unwrap().is_none());
        first(&settings, &Probed::default(), &Progress::default()).unwrap()
    };
    drop(makes(&["a"]));
    drop(makes(&["c"]));
    spoil(&known);
    library.torrent("b", "two");
    let index = makes(&["a", "b"]);
    let states: Vec<State> = index
        .entries()
        .map(|entry| entry.unwrap().facts.state)
        .collect();
    assert_eq!(states, [State::Served, State::Served]);
    assert_eq!(indexes(&library).len(), 3);
}

#[test]
fn an_index_that_was_not_used_for_long_is_removed() {
    let library = DiskLibrary::new();
    library.torrent("a", "one");
    let [old, held, young] = ["x", "y", "z"].map(|name| {
        library.torrent(name, name);
        let settings = settings(&library, &[name]);
        first(&settings, &Probed::default(), &Progress::default()).unwrap()
    });
    let path = |name| {
        let Source::Inputs { state, .. } = settings(&library, &[name]).source else {
            panic!("there are inputs");
        };
        state
    };
    let long_ago = SystemTime::now() - UNUSED_MAX - Duration::from_secs(60);
    for name in ["x", "y"] {
        let file = File::options().write(true).open(path(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(long_ago))
            .unwrap();
    }
    let left = path("q").with_extension(NEW);
    fs::write(&left, "by one who was killed").unwrap();
    fs::write(library.base.join("state/notes.index"), "not ours").unwrap();
    drop((old, young));
    drop(
        first(
            &settings(&library, &["a"]),
            &Probed::default(),
            &Progress::default(),
        )
        .unwrap(),
    );
    let mut wanted = vec![path("y"), path("z"), path("a")];
    wanted.push(library.base.join("state/notes.index"));
    wanted.sort();
    assert_eq!(indexes(&library), wanted);
    drop(held);
    drop(
        first(
            &settings(&library, &["a", "x"]),
            &Probed::default(),
            &Progress::default(),
        )
        .unwrap(),
    );
    assert!(!path("y").exists());
}
