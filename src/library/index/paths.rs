//! Finding records by their paths: directories by components, then files by name.
//!
//! Both are binary searches. Blocks.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use super::error::IndexError;
use super::format::{
    ContentName, DIRECTORY_BYTES, Directory, MetainfoPath, Part, RECORD_BYTES, Record, RecordNo,
};
use super::reader::{Entries, Entry, Index, READ_BYTES};

/// Bytes of one read if few records in a row are wanted.
const NEAR_BYTES: usize = 16 * 1024;

impl Index {
    /// The entry of a metainfo file.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn at(&self, path: &MetainfoPath) -> Result<Option<Entry>, IndexError> {
        let Range { start, end } = self.within(&path.directory)?;
        let mut entries = self.entries_ahead(0..0, 0);
        let found = partition(start.into()..end.into(), |record| {
            Ok(entries.name_of(record)? < path.name)
        })?;
        let found = u32::try_from(found).expect("the header is checked");
        if found == end {
            return Ok(None);
        }
        let entry = self.record(RecordNo(found))?;
        Ok((entry.path.name == path.name).then_some(entry))
    }

    /// The records of the files in a directory, not of those in directories below it.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn within(&self, directory: &Path) -> Result<Range<u32>, IndexError> {
        self.records_of(directory, |other, wanted| other <= wanted)
    }

    /// The records of all files below a directory, at any depth.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn below(&self, directory: &Path) -> Result<Range<u32>, IndexError> {
        self.records_of(directory, |other, wanted| {
            other <= wanted || other.starts_with(wanted)
        })
    }

    /// Entries in the order of their paths.
    #[must_use]
    pub fn entries_of(&self, records: Range<u32>) -> Entries<'_> {
        let many = records.len() * RECORD_BYTES > NEAR_BYTES;
        self.entries_ahead(records, if many { READ_BYTES } else { NEAR_BYTES })
    }

    /// The records of the files in a directory whose content has one of these names.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn tagged(
        &self,
        directory: &Path,
        names: &HashSet<ContentName>,
    ) -> Result<Vec<RecordNo>, IndexError> {
        let mut found = Vec::new();
        let records = self.within(directory)?;
        let mut reader = self.reader(Part::Records, READ_BYTES.min(records.len() * RECORD_BYTES));
        for number in records {
            let record = Record::decode(reader.entry(number.into())?);
            if names.contains(&record.facts.content_name) {
                found.push(RecordNo(number));
            }
        }
        Ok(found)
    }

    /// The records of the directories from this one on, as long as `is_before_end`.
    fn records_of(
        &self,
        directory: &Path,
        is_before_end: impl Fn(&Path, &Path) -> bool,
    ) -> Result<Range<u32>, IndexError> {
        let Ok(wanted) = directory.strip_prefix(&self.origin().root) else {
            // All of the index may be below it.
            let all = self.origin().root.starts_with(directory)
                && is_before_end(&directory.join("x"), directory);
            return Ok(if all { 0..self.records() } else { 0..0 });
        };
        let directories = self.header().entries(Part::Directories);
        let mut entries = self.entries_ahead(0..0, 0);
        let first = partition(0..directories, |index| {
            Ok(*entries.directory(index)? < *wanted)
        })?;
        let end = partition(first..directories, |index| {
            Ok(is_before_end(&entries.directory(index)?, wanted))
        })?;
        Ok(self.first_record(first)?..self.first_record(end)?)
    }

    /// The first record of a directory; after the last directory, the number of records.
    fn first_record(&self, directory: u64) -> Result<u32, IndexError> {
        if directory >= self.header().entries(Part::Directories) {
            return Ok(self.records());
        }
        let raw = self.fixed::<DIRECTORY_BYTES>(Part::Directories, directory)?;
        Ok(Directory::decode(&raw).first_record.0.min(self.records()))
    }
}

/// The first of these numbers that is not before what is searched for.
fn partition(
    numbers: Range<u64>,
    mut is_before: impl FnMut(u64) -> Result<bool, IndexError>,
) -> Result<u64, IndexError> {
    let Range { mut start, mut end } = numbers;
    while start < end {
        let middle = start + (end - start) / 2;
        match is_before(middle)? {
            true => start = middle + 1,
            false => end = middle,
        }
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use crate::library::index::format::{ContentName, Facts, RecordNo, State, TrackerListNo};
    use crate::library::index::writer::{NewRecord, Origin, Writer};
    use crate::library::index::{Index, MetainfoPath};
    use crate::torrent::reader::FileStamp;
    use crate::wire::message::InfoHash;

    const PATHS: [&str; 8] = [
        "a.torrent",
        "b.torrent",
        "a/b.torrent",
        "a/z.torrent",
        "a/b/c.torrent",
        "a/b/d.torrent",
        "a-b/x.torrent",
        "c/y.torrent",
    ];

    fn index(root: &str) -> (tempfile::TempDir, Index) {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("index");
        let mut writer = Writer::create(&target).unwrap();
        for (number, path) in (0..).zip(PATHS.map(Path::new)) {
            let record = NewRecord {
                facts: Facts {
                    info_hash: InfoHash([number; 20]),
                    state: State::Served,
                    private: false,
                    content_name: ContentName {
                        tag: u16::from(number % 2),
                        hash: 7,
                    },
                    stamp: FileStamp::default(),
                },
                directory: path.parent().unwrap(),
                name: path.file_name().unwrap().as_encoded_bytes(),
                trackers: TrackerListNo(0),
            };
            writer.record(&record).unwrap();
        }
        let origin = Origin {
            root: root.into(),
            ..Origin::default()
        };
        writer.finish(&origin, 0).unwrap();
        (directory, Index::open(&target).unwrap())
    }

    #[test]
    fn every_file_is_found_by_its_path_and_no_other() {
        let (_directory, index) = index("/r");
        for (number, path) in (0..).zip(PATHS) {
            let path = MetainfoPath::new(&Path::new("/r").join(path)).unwrap();
            let found = index.at(&path).unwrap().unwrap();
            assert_eq!(found.record, RecordNo(number), "{path:?}");
            assert_eq!(found.path, path);
        }
        for other in [
            "/r/a",
            "/r/0",
            "/r/a/a",
            "/r/a/c",
            "/r/b/x",
            "/r/z/z",
            "/a.torrent",
            "/",
            "",
        ] {
            let path = MetainfoPath::new(Path::new(other));
            let found = path.and_then(|path| index.at(&path).unwrap());
            assert_eq!(found, None, "{other}");
        }
    }

    #[test]
    fn directories_have_the_records_of_their_files_and_of_all_below() {
        let (_directory, index) = index("/r/s");
        for (path, within, below) in [
            ("", 0..2, 0..8),
            ("a", 2..4, 2..6),
            ("a/b", 4..6, 4..6),
            ("a-b", 6..7, 6..7),
            ("c", 7..8, 7..8),
            ("b", 7..7, 7..7),
            ("0", 2..2, 2..2),
            ("z", 8..8, 8..8),
        ] {
            let path = Path::new("/r/s").join(path);
            assert_eq!(index.within(&path).unwrap(), within, "{path:?}");
            assert_eq!(index.below(&path).unwrap(), below, "{path:?}");
        }
        for above in ["/r", "/"].map(Path::new) {
            assert!(index.within(above).unwrap().is_empty());
            assert_eq!(index.below(above).unwrap(), 0..8);
        }
        assert!(index.below(Path::new("/other")).unwrap().is_empty());
        let paths: Vec<PathBuf> = index
            .entries_of(2..5)
            .map(|entry| entry.unwrap())
            .map(|entry| entry.path.to_path_buf())
            .collect();
        let expected = PATHS[2..5].iter().map(|path| Path::new("/r/s").join(path));
        assert_eq!(paths, expected.collect::<Vec<_>>());
    }

    #[test]
    fn files_are_found_by_the_tag_of_their_content() {
        let (_directory, index) = index("/r");
        let directory = Path::new("/r/a/b");
        let tagged = |names: &[(u16, u32)]| {
            let names = names.iter().map(|&(tag, hash)| ContentName { tag, hash });
            let names = names.collect();
            index.tagged(directory, &names).unwrap()
        };
        assert_eq!(tagged(&[(1, 7)]), [RecordNo(5)]);
        assert_eq!(tagged(&[(1, 7), (0, 7)]), [4, 5].map(RecordNo));
        assert!(tagged(&[(2, 7), (1, 8)]).is_empty());
    }
}
