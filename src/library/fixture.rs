//! A library on disk, for the tests of this room.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::index::{Index, MetainfoPath};
use super::scan::build::{self, Depth, Plan, Previous, Progress};
use super::scan::probe::Probed;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::metainfo::Metainfo;
use crate::torrent::metainfo::samples::{s, single};
use crate::wire::message::InfoHash;

/// Torrents below `lib`, and room beside it.
pub(in crate::library) struct DiskLibrary {
    _directory: TempDir,
    /// Without symlinks.
    pub(in crate::library) base: PathBuf,
}

impl DiskLibrary {
    pub(in crate::library) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir(base.join("lib")).unwrap();
        DiskLibrary {
            _directory: directory,
            base,
        }
    }

    pub(in crate::library) fn path(&self, path: &str) -> PathBuf {
        self.base.join("lib").join(path)
    }

    /// The file in which the index is made.
    pub(in crate::library) fn target(&self) -> PathBuf {
        self.base.join("index")
    }

    pub(in crate::library) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A torrent of the file `name` of seven bytes, with its content beside it.
    pub(in crate::library) fn torrent(&self, directory: &str, name: &str) -> InfoHash {
        let path = Path::new(directory).join(name);
        let path = path.to_str().unwrap();
        self.write(path, [1; 7]);
        self.metainfo(&format!("{path}.torrent"), name, "http://t/")
    }

    /// Only its metainfo file, at a path and with a tracker.
    pub(in crate::library) fn metainfo(&self, path: &str, name: &str, tracker: &str) -> InfoHash {
        let raw = single(7, "").replace("4:name1:n", &(s("name") + &s(name)));
        let raw = raw.replacen('d', &("d".to_owned() + &s("announce") + &s(tracker)), 1);
        self.write(path, &raw);
        Metainfo::parse(raw.as_bytes()).unwrap().info_hash
    }

    pub(in crate::library) fn remove(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        fs::remove_file(&path).unwrap();
        path
    }

    pub(in crate::library) fn plan(&self) -> Plan {
        Plan {
            inputs: vec![self.path("")],
            content: ContentDirectories::default(),
            target: self.target(),
            threads: 2,
        }
    }

    /// Makes an index over the one before, after `gone` were seen to go.
    pub(in crate::library) fn refresh(
        &self,
        before: Option<&Index>,
        depth: Depth,
        gone: &[MetainfoPath],
    ) -> Index {
        let previous = before.map(|index| Previous {
            index,
            depth,
            quiet: true,
            gone,
        });
        build::refresh(
            &self.plan(),
            previous,
            &Probed::default(),
            &Progress::default(),
            |_| (),
        )
        .unwrap();
        Index::open(&self.target()).unwrap()
    }
}
