//! Reading an index file, none of which is trusted.
//!
//! Every read is within its section, every path stays below the root, and damage is an error with a
//! name. The file is read, not mapped: a load from a mapping kills the process if the file was
//! truncated.
//!
//! Blocks, except [`Index::find`], which searches in memory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use sha1::{Digest, Sha1};
use thiserror::Error;

use crate::library::index::format::{
    self, DIRECTORY_BYTES, Directory, Facts, HEADER_BYTES, Header, HeaderError, OFFSET_BYTES,
    POSITION_BYTES, PREFIX_BYTES, Part, RECORD_BYTES, Record, RecordNo, Section, State,
    TrackerListNo,
};
use crate::library::index::prefixes::Prefixes;
use crate::library::index::section_reader::SectionReader;
use crate::library::index::writer::Origin;
use crate::torrent::metainfo::METAINFO_MAX_BYTES;
use crate::torrent::printable::Printable;
use crate::wire::message::InfoHash;

/// Bytes of one read if a whole section is read.
pub(super) const READ_BYTES: usize = 1 << 20;

/// The longest path of a directory that is accepted (`PATH_MAX`).
const MAX_PATH_BYTES: u64 = 4096;

/// The longest list of announce URLs that is accepted: a metainfo file cannot have a longer one.
const MAX_TRACKERS_BYTES: u64 = METAINFO_MAX_BYTES;

/// Records between two wanted ones that are read too, instead of making another read: a page holds as
/// many, and a read of two pages costs hardly more than that of one.
const GAP: u32 = 80;

/// Records in one read at most: 256 KiB.
const RUN: u32 = 5000;

/// Why an index cannot be used. One line that names the file.
#[derive(Debug, Error)]
#[error("index {}: {fault}", Printable::path(&path))]
pub struct IndexError {
    /// The index file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with an index file.
#[derive(Debug, Error)]
pub enum Fault {
    /// The file system refuses to read it.
    #[error("unreadable: {0}")]
    Unreadable(#[from] io::Error),
    /// It does not start like an index.
    #[error("not an index file of hekate")]
    NotAnIndex,
    /// Written by another version of the program.
    #[error("has format {0}, this version reads format {version}: make it again with `hekate index`",
            version = format::VERSION)]
    Version(u32),
    /// It is shorter than its header says.
    #[error("truncated: {found} bytes of {expected}")]
    Truncated {
        /// Bytes that the header calls for.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The bytes are not those that were written.
    #[error("damaged ({0}): make it again with `hekate index`")]
    Damaged(&'static str),
}

/// An index file that is open.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    file: File,
    header: Header,
    prefixes: Prefixes,
    origin: Origin,
    /// Records with the info-hash of another record that is served instead, each with that record;
    /// ascending.
    duplicates: Vec<(RecordNo, RecordNo)>,
    /// The same with the served record first; ascending.
    duplicates_by_first: Vec<(RecordNo, RecordNo)>,
    counts: Counts,
}

/// The number of torrents in an index.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Torrents whose content was right.
    pub served: u64,
    /// Metainfo files and directories that are refused.
    pub refused: u64,
}

/// Positions in the index where an info-hash may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidates(pub(in crate::library) Range<usize>);

/// A metainfo file in the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The number of its record, in the order of paths.
    pub record: RecordNo,
    /// Of its directory, relative to the root.
    pub directory: PathBuf,
    /// Of the file.
    pub name: OsString,
    /// What is known of it.
    pub facts: Facts,
    /// Whether another record with the same info-hash is served instead.
    pub duplicate: bool,
    /// Its announce URLs, see [`Index::trackers`].
    pub trackers: TrackerListNo,
}

/// A torrent of an index that is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    /// The number of its record.
    pub record: RecordNo,
    /// Its info-hash.
    pub info_hash: InfoHash,
    /// Its announce URLs, see [`Index::trackers`].
    pub trackers: TrackerListNo,
}

impl Index {
    /// Opens an index. Reads and verifies its header, the prefixes (8 bytes for each torrent) and a few
    /// small sections; the rest is read on demand, see [`Index::check`].
    ///
    /// # Errors
    /// An [`IndexError`] for a file that is not an index, or damaged.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        Self::open_inner(path).map_err(|fault| IndexError {
            path: path.to_path_buf(),
            fault,
        })
    }

    /// Where the library of an index lies, without reading the rest of the index.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn origin_of(path: &Path) -> Result<Origin, IndexError> {
        let origin = || {
            let (file, header) = open_header(path)?;
            read_origin(&file, &header.section(Part::Origin))
        };
        origin().map_err(|fault| IndexError {
            path: path.to_path_buf(),
            fault,
        })
    }

    fn open_inner(path: &Path) -> Result<Self, Fault> {
        let (file, header) = open_header(path)?;
        let prefixes = read_prefixes(&file, &header.section(Part::Prefixes))?;
        let origin = read_origin(&file, &header.section(Part::Origin))?;
        let raw = read_checked(&file, &header.section(Part::Counts), Part::Counts)?;
        let mut counts = raw.as_chunks().0.iter().map(|raw| u64::from_le_bytes(*raw));
        let counts = Counts {
            served: counts.next().unwrap_or(0),
            refused: counts.next().unwrap_or(0),
        };
        let raw = read_checked(&file, &header.section(Part::Duplicates), Part::Duplicates)?;
        let numbers = raw.as_chunks().0.iter();
        let mut records = numbers.map(|raw| RecordNo(u32::from_le_bytes(*raw)));
        let pairs = std::iter::from_fn(|| Some((records.next()?, records.next()?)));
        let duplicates: Vec<(RecordNo, RecordNo)> = pairs.collect();
        let mut duplicates_by_first: Vec<(RecordNo, RecordNo)> = duplicates
            .iter()
            .map(|(later, first)| (*first, *later))
            .collect();
        duplicates_by_first.sort_unstable();
        if !duplicates.is_sorted() {
            return Err(Fault::Damaged(Part::Duplicates.name()));
        }
        Ok(Index {
            duplicates,
            duplicates_by_first,
            counts,
            path: path.to_path_buf(),
            file,
            header,
            prefixes,
            origin,
        })
    }

    /// Reads the whole file and compares it with its checksums.
    ///
    /// # Errors
    /// An [`IndexError`] that names the damaged section.
    pub fn check(&self) -> Result<(), IndexError> {
        for part in Part::ALL {
            let section = self.header.section(part);
            let mut digest = Sha1::new();
            each_read(&self.file, &section, |bytes| digest.update(bytes))
                .map_err(|error| self.error(error.into()))?;
            if section.checksum != <[u8; 20]>::from(digest.finalize()) {
                return Err(self.damaged(part));
            }
        }
        Ok(())
    }

    /// The number of different info-hashes in the index.
    #[must_use]
    pub fn torrents(&self) -> u64 {
        self.header.section(Part::Prefixes).entries(PREFIX_BYTES)
    }

    /// The number of metainfo files in the index, duplicates and unusable ones included.
    #[must_use]
    pub fn records(&self) -> u32 {
        u32::try_from(self.header.records()).expect("the header is checked")
    }

    /// The number of served and of refused torrents.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The same index with another root.
    #[must_use]
    pub fn at_root(mut self, root: PathBuf) -> Self {
        self.origin.root = root;
        self
    }

    /// The root, and the directories that were searched.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where an info-hash may be; `None` if it is not in the index. Searches in memory.
    #[must_use]
    pub fn find(&self, info_hash: &InfoHash) -> Option<Candidates> {
        let found = self.prefixes.find(format::prefix(info_hash));
        (!found.is_empty()).then_some(Candidates(found))
    }

    /// The entry of an info-hash, if it is at one of these positions.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn entry(
        &self,
        candidates: Candidates,
        info_hash: &InfoHash,
    ) -> Result<Option<Entry>, IndexError> {
        for position in candidates.0 {
            let number = self.record_at(position)?;
            let raw = self.fixed(Part::Records, number.0.into())?;
            let record = Record::decode(&raw);
            if record.facts.info_hash == *info_hash {
                let entry = self.complete(number, &record, &mut self.readers(0));
                return entry.map(Some);
            }
        }
        Ok(None)
    }

    /// The path of the metainfo file of a record.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn metainfo_path(&self, record: RecordNo) -> Result<PathBuf, IndexError> {
        Ok(self.path_of(&self.record(record)?))
    }

    /// The absolute path of the metainfo file of an entry.
    #[must_use]
    pub fn path_of(&self, entry: &Entry) -> PathBuf {
        let directory = self.origin.root.join(&entry.directory);
        directory.join(&entry.name)
    }

    /// The entry of a record.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn record(&self, record: RecordNo) -> Result<Entry, IndexError> {
        let raw = self.fixed(Part::Records, record.0.into())?;
        self.complete(record, &Record::decode(&raw), &mut self.readers(0))
    }

    /// All entries in the order of their paths.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        self.entries_ahead(0..u32::MAX, READ_BYTES)
    }

    /// The entries of some records, with reads of this many bytes.
    pub(super) fn entries_ahead(&self, records: Range<u32>, ahead_bytes: usize) -> Entries<'_> {
        let all = self.records();
        Entries {
            index: self,
            records: self.reader(Part::Records, ahead_bytes),
            readers: self.readers(ahead_bytes),
            next: records.start,
            end: records.end.min(all),
        }
    }

    /// Announce URLs in tiers (BEP 12).
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn trackers(&self, list: TrackerListNo) -> Result<Vec<Vec<String>>, IndexError> {
        let offset = |number| {
            let raw = self.fixed(Part::TrackerOffsets, number)?;
            Ok(u64::from_le_bytes(raw))
        };
        let lists = self.header.section(Part::TrackerLists);
        let number = u64::from(list.0);
        let offsets = self.header.section(Part::TrackerOffsets);
        let start = offset(number)?;
        let end = match number + 1 < offsets.entries(OFFSET_BYTES) {
            true => offset(number + 1)?,
            false => lists.length,
        };
        let length = end.wrapping_sub(start);
        if length > MAX_TRACKERS_BYTES {
            return Err(self.damaged(Part::TrackerOffsets));
        }
        let mut reader = SectionReader::new(&self.file, lists, 0);
        let raw = reader.at(start, length);
        let raw = raw.map_err(|error| self.failed(Part::TrackerLists, error))?;
        format::decode_trackers(raw).ok_or_else(|| self.damaged(Part::TrackerLists))
    }

    /// Every torrent that is served, once, in the order of records.
    pub fn served(&self) -> impl Iterator<Item = Result<Served, IndexError>> + '_ {
        let mut records = self.reader(Part::Records, READ_BYTES);
        let mut duplicates = self.duplicates.iter().map(|(later, _)| *later).peekable();
        let count = self.records();
        (0..count).filter_map(move |number| {
            let mut is_duplicate = false;
            while duplicates
                .next_if(|next| *next <= RecordNo(number))
                .is_some()
            {
                is_duplicate = true;
            }
            if is_duplicate {
                return None;
            }
            match records.entry(number.into()) {
                Ok(raw) => {
                    let record = Record::decode(raw);
                    (record.facts.state == State::Served).then_some(Ok(Served {
                        record: RecordNo(number),
                        info_hash: record.facts.info_hash,
                        trackers: record.trackers,
                    }))
                }
                Err(error) => Some(Err(self.failed(Part::Records, error))),
            }
        })
    }

    /// The torrents after an info-hash, in the order of info-hashes, in any state.
    pub fn following(
        &self,
        after: Option<&InfoHash>,
    ) -> impl Iterator<Item = Result<Entry, IndexError>> {
        let after = after.copied();
        let mut position = after.map_or(0, |after| self.prefixes.first(format::prefix(&after)));
        // Those with the same prefix, whose positions have no order, the last first.
        let mut alike: Vec<Entry> = Vec::new();
        std::iter::from_fn(move || {
            while alike.is_empty() {
                let positions = self.prefixes.alike(position);
                if positions.is_empty() {
                    return None;
                }
                position = positions.end;
                for position in positions {
                    let entry = (self.record_at(position)).and_then(|number| self.record(number));
                    match entry {
                        Ok(entry) => alike.push(entry),
                        Err(error) => return Some(Err(error)),
                    }
                }
                alike.retain(|entry| after.is_none_or(|after| entry.facts.info_hash > after));
                alike.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.facts.info_hash));
            }
            alike.pop().map(Ok)
        })
    }

    /// The record at a position in the order of prefixes.
    fn record_at(&self, position: usize) -> Result<RecordNo, IndexError> {
        let raw = self.fixed::<POSITION_BYTES>(Part::Positions, position as u64)?;
        Ok(RecordNo(u32::from_le_bytes(raw)))
    }

    /// Records with the info-hash of this one, which is served instead of them.
    pub fn duplicates_of(&self, record: RecordNo) -> impl Iterator<Item = RecordNo> {
        let pairs = &self.duplicates_by_first;
        let first = pairs.partition_point(|pair| pair.0 < record);
        let pairs = pairs.iter().skip(first);
        let pairs = pairs.take_while(move |pair| pair.0 == record);
        pairs.map(|pair| pair.1)
    }

    /// The open file, to be locked.
    pub(in crate::library) fn file(&self) -> &File {
        &self.file
    }

    /// The record that is served instead of this one, if another is.
    pub fn first_of(&self, record: RecordNo) -> Option<RecordNo> {
        let found = self.duplicates.binary_search_by_key(&record, |pair| pair.0);
        Some(self.duplicates.get(found.ok()?)?.1)
    }

    /// The info-hashes of records, which must ascend, in few reads. `None` for a record that does not
    /// exist.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn info_hashes(&self, records: &[RecordNo]) -> Result<Vec<Option<InfoHash>>, IndexError> {
        let section = self.section(Part::Records);
        let mut info_hashes = Vec::with_capacity(records.len());
        let mut rest = records;
        while let Some(&first) = rest.first() {
            let in_a_run = |pair: &&[RecordNo]| match pair {
                [one, other] => {
                    other.0.saturating_sub(one.0) <= GAP && other.0.saturating_sub(first.0) < RUN
                }
                _ => false,
            };
            let count = 1 + rest.windows(2).take_while(in_a_run).count();
            let (run, behind) = rest.split_at(count);
            rest = behind;
            let known = run.partition_point(|record| record.0 < self.records());
            let (run, beyond) = run.split_at(known);
            let last = run.last().copied().unwrap_or(first);
            let ahead_bytes = (last.0.saturating_sub(first.0) as usize + 1) * RECORD_BYTES;
            let mut reader = SectionReader::new(&self.file, section, ahead_bytes);
            for record in run {
                let raw = reader.entry(record.0.into());
                let raw = raw.map_err(|error| self.failed(Part::Records, error))?;
                info_hashes.push(Some(Record::decode(raw).facts.info_hash));
            }
            info_hashes.extend(beyond.iter().map(|_| None));
        }
        Ok(info_hashes)
    }

    pub(super) fn section(&self, part: Part) -> Section {
        self.header.section(part)
    }

    pub(super) fn reader(&self, part: Part, ahead_bytes: usize) -> SectionReader<'_> {
        SectionReader::new(&self.file, self.section(part), ahead_bytes)
    }

    fn readers(&self, ahead_bytes: usize) -> EntryReaders<'_> {
        EntryReaders {
            names: self.reader(Part::Names, ahead_bytes),
            directories: self.reader(Part::Directories, ahead_bytes),
            paths: self.reader(Part::DirectoryPaths, ahead_bytes),
        }
    }

    /// The name of the metainfo file of a record.
    pub(super) fn name_of(&self, record: RecordNo) -> Result<OsString, IndexError> {
        let raw = self.fixed(Part::Records, record.0.into())?;
        self.name(&Record::decode(&raw), &mut self.readers(0))
    }

    /// The path of a directory by its index, relative to the root.
    pub(super) fn directory_path(&self, index: u64) -> Result<PathBuf, IndexError> {
        self.directory(index, &mut self.readers(0))
    }

    fn name(
        &self,
        record: &Record,
        readers: &mut EntryReaders<'_>,
    ) -> Result<OsString, IndexError> {
        let name = readers
            .names
            .at(record.name_offset, record.name_length.into());
        let name = OsStr::from_bytes(name.map_err(|error| self.failed(Part::Names, error))?);
        if !is_plain(Path::new(name)) || Path::new(name).components().count() != 1 {
            return Err(self.damaged(Part::Names));
        }
        Ok(name.to_owned())
    }

    fn complete(
        &self,
        number: RecordNo,
        record: &Record,
        readers: &mut EntryReaders<'_>,
    ) -> Result<Entry, IndexError> {
        Ok(Entry {
            facts: record.facts,
            record: number,
            directory: self.directory(record.directory.into(), readers)?,
            name: self.name(record, readers)?,
            duplicate: self.is_duplicate(number),
            trackers: record.trackers,
        })
    }

    fn is_duplicate(&self, record: RecordNo) -> bool {
        let found = self.duplicates.binary_search_by_key(&record, |pair| pair.0);
        found.is_ok()
    }

    fn directory(&self, index: u64, readers: &mut EntryReaders<'_>) -> Result<PathBuf, IndexError> {
        let section = self.header.section(Part::Directories);
        let mut start_of = |index: u64| {
            let raw = readers.directories.entry(index);
            let raw = raw.map_err(|error| self.failed(Part::Directories, error))?;
            Ok(Directory::decode(raw).path_offset)
        };
        let start = start_of(index)?;
        let end = match index + 1 < section.entries(DIRECTORY_BYTES) {
            true => start_of(index + 1)?,
            false => self.header.section(Part::DirectoryPaths).length,
        };
        let length = end.wrapping_sub(start);
        if length > MAX_PATH_BYTES {
            return Err(self.damaged(Part::Directories));
        }
        let path = readers.paths.at(start, length);
        let path = path.map_err(|error| self.failed(Part::DirectoryPaths, error))?;
        let path = Path::new(OsStr::from_bytes(path));
        if !is_plain(path) {
            return Err(self.damaged(Part::DirectoryPaths));
        }
        Ok(path.to_path_buf())
    }

    /// The bytes of one fixed-width entry.
    pub(super) fn fixed<const N: usize>(
        &self,
        part: Part,
        index: u64,
    ) -> Result<[u8; N], IndexError> {
        let mut reader = self.reader(part, 0);
        let raw = reader.entry(index);
        raw.copied().map_err(|error| self.failed(part, error))
    }

    /// A read beyond a section means that a number in another section is damaged.
    pub(super) fn failed(&self, part: Part, error: io::Error) -> IndexError {
        match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => self.damaged(part),
            _ => self.error(error.into()),
        }
    }

    fn damaged(&self, part: Part) -> IndexError {
        self.error(Fault::Damaged(part.name()))
    }

    fn error(&self, fault: Fault) -> IndexError {
        IndexError {
            path: self.path.clone(),
            fault,
        }
    }
}

/// The sections that are read to make an [`Entry`] of a record.
struct EntryReaders<'a> {
    names: SectionReader<'a>,
    directories: SectionReader<'a>,
    paths: SectionReader<'a>,
}

/// The iterator of [`Index::entries`].
pub struct Entries<'a> {
    index: &'a Index,
    records: SectionReader<'a>,
    readers: EntryReaders<'a>,
    next: u32,
    end: u32,
}

impl Entries<'_> {
    /// The next record.
    pub(in crate::library) fn upcoming(&self) -> RecordNo {
        RecordNo(self.next)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next;
        if number >= self.end {
            return None;
        }
        self.next += 1;
        Some(match self.records.entry(number.into()) {
            Ok(raw) => {
                let record = Record::decode(raw);
                (self.index).complete(RecordNo(number), &record, &mut self.readers)
            }
            Err(error) => Err(self.index.failed(Part::Records, error)),
        })
    }
}

/// Returns true if a path is made of plain names, so that it stays below what it is joined to.
fn is_plain(path: &Path) -> bool {
    let plain = |component| matches!(component, Component::Normal(_));
    path.components().all(plain) && !path.as_os_str().as_bytes().contains(&0)
}

fn each_read(file: &File, section: &Section, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut offset, end) = (section.offset, section.offset + section.length);
    while offset < end {
        let length = usize::try_from(end - offset).unwrap_or(READ_BYTES);
        let (now, _) = buffer.split_at_mut(length.min(READ_BYTES));
        file.read_exact_at(now, offset)?;
        take(now);
        offset += now.len() as u64;
    }
    Ok(())
}

fn read_prefixes(file: &File, section: &Section) -> Result<Prefixes, Fault> {
    let count = usize::try_from(section.entries(PREFIX_BYTES));
    let count = count.map_err(|_| Fault::Damaged("prefixes"))?;
    let mut numbers = Vec::with_capacity(count);
    let mut digest = Sha1::new();
    each_read(file, section, |bytes| {
        digest.update(bytes);
        let (prefixes, _) = bytes.as_chunks::<PREFIX_BYTES>();
        numbers.extend(prefixes.iter().map(|raw| u64::from_le_bytes(*raw)));
    })?;
    if section.checksum != <[u8; 20]>::from(digest.finalize()) {
        return Err(Fault::Damaged("prefixes"));
    }
    Prefixes::new(numbers.into_boxed_slice()).ok_or(Fault::Damaged("prefixes"))
}

/// A section that is kept in memory.
fn read_checked(file: &File, section: &Section, part: Part) -> Result<Vec<u8>, Fault> {
    let mut raw = Vec::new();
    let mut digest = Sha1::new();
    each_read(file, section, |bytes| {
        digest.update(bytes);
        raw.extend_from_slice(bytes);
    })?;
    match section.checksum == <[u8; 20]>::from(digest.finalize()) {
        true => Ok(raw),
        false => Err(Fault::Damaged(part.name())),
    }
}

/// Opens an index and checks its length.
fn open_header(path: &Path) -> Result<(File, Header), Fault> {
    let file = File::open(path)?;
    let found = file.metadata()?.len();
    let mut raw = [0; HEADER_BYTES];
    match file.read_exact_at(&mut raw, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(match raw.starts_with(b"hekatidx") {
                true => Fault::Truncated {
                    expected: HEADER_BYTES as u64,
                    found,
                },
                false => Fault::NotAnIndex,
            });
        }
        other => other?,
    }
    let header = Header::decode(&raw).map_err(|error| match error {
        HeaderError::NotAnIndex => Fault::NotAnIndex,
        HeaderError::Version(version) => Fault::Version(version),
        HeaderError::Checksum | HeaderError::Inconsistent => Fault::Damaged("header"),
    })?;
    let expected = header.end();
    if found < expected {
        return Err(Fault::Truncated { expected, found });
    }
    Ok((file, header))
}

fn read_origin(file: &File, section: &Section) -> Result<Origin, Fault> {
    let raw = read_checked(file, section, Part::Origin)?;
    let strings = format::decode_strings(&raw).unwrap_or_default();
    let mut paths = strings
        .iter()
        .map(|path| PathBuf::from(OsStr::from_bytes(path)));
    match (paths.next(), paths.next()) {
        (Some(root), Some(content)) => Ok(Origin {
            root,
            content: Some(content).filter(|path| !path.as_os_str().is_empty()),
            searched: paths.collect(),
        }),
        _ => Err(Fault::Damaged("origin")),
    }
}

#[cfg(test)]
mod tests;
