//! Reading an index file, none of which is trusted.
//!
//! Every read is within its section, every path stays below the root, and damage is an error with a
//! name. The file is read, not mapped: a load from a mapping kills the process if the file was
//! truncated.
//!
//! Blocks, except [`Index::find`] and [`Index::find_obfuscated`], which search in memory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use sha1::{Digest, Sha1};

use super::error::{Fault, IndexError};
use super::format::{
    self, Counts, DUPLICATE_BYTES, Directory, Facts, HEADER_BYTES, Header, MetainfoPath,
    OBFUSCATED_BYTES, POSITION_BYTES, PREFIX_BYTES, Part, RECORD_BYTES, Record, RecordNo, Section,
    State, TrackerListNo,
};
use super::obfuscated::{ObfuscatedHash, Table, TableBuilder};
use super::prefixes::Prefixes;
use super::writer::{Origin, Tables};
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::metainfo::{METAINFO_MAX_BYTES, add_tiers};
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
const GAP_MAX: u32 = 80;

/// Records in one read at most: 256 KiB.
const READ_MAX: u32 = 5000;

/// An index file that is open.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    file: File,
    header: Header,
    prefixes: Prefixes,
    /// See [`Index::with_obfuscated`].
    obfuscated: Option<Table>,
    origin: Origin,
    /// Records with the info-hash of another record that is served instead, each with that record;
    /// ascending.
    duplicates: Vec<(RecordNo, RecordNo)>,
    /// The same with the served record first; ascending.
    duplicates_by_first: Vec<(RecordNo, RecordNo)>,
    counts: Counts,
}

/// Positions in the index where an info-hash may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidates(pub(in crate::library) Range<usize>);

/// Positions in the index where the torrent of an obfuscated hash may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObfuscatedCandidates(Range<usize>);

/// A metainfo file in the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The number of its record, in the order of paths.
    pub record: RecordNo,
    /// Its path.
    pub path: MetainfoPath,
    /// Its facts.
    pub facts: Facts,
    /// Another record with the same info-hash is served instead.
    pub duplicate: bool,
    /// Its announce URLs, see [`Index::trackers`].
    pub trackers: TrackerListNo,
}

impl Entry {
    /// Returns true if a torrent is served from this file.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.facts.state == State::Served && !self.duplicate
    }
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
    /// Other files have its info-hash, see [`Index::lists_of`].
    pub has_duplicates: bool,
}

impl Index {
    /// Opens an index. Reads and verifies its header, the prefixes (8 bytes for each torrent) and a few
    /// small sections; the rest is read on demand, see [`Index::check`].
    ///
    /// # Errors
    /// An [`IndexError`] for a file that is not an index, or damaged.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        Self::open_inner(path).map_err(|fault| fault.of(path))
    }

    /// Where the library of an index lies, without reading the rest of the index.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn origin_of(path: &Path) -> Result<Origin, IndexError> {
        let origin = || {
            let file = File::open(path)?;
            read_origin(&file, &read_header(&file)?)
        };
        origin().map_err(|fault: Fault| fault.of(path))
    }

    /// Opens an index in memory, which a [`Writer::in_memory`] has written.
    ///
    /// # Errors
    /// As [`Index::open`].
    ///
    /// [`Writer::in_memory`]: super::writer::Writer::in_memory
    pub fn in_memory(file: &File) -> Result<Self, IndexError> {
        let path = Path::new("(in memory)");
        let opened = file.try_clone().map_err(Fault::from);
        let opened = opened.and_then(|file| Self::of_file(file, path));
        opened.map_err(|fault| fault.of(path))
    }

    fn open_inner(path: &Path) -> Result<Self, Fault> {
        Self::of_file(File::open(path)?, path)
    }

    fn of_file(file: File, path: &Path) -> Result<Self, Fault> {
        let header = read_header(&file)?;
        let Tables {
            prefixes,
            duplicates,
            counts,
        } = match read_tables(&file, &header) {
            Err(Fault::Damaged(part)) => make_tables(&file, &header, path, part)?,
            tables => tables?,
        };
        let prefixes = Prefixes::new(prefixes.into_boxed_slice());
        let by_first = duplicates.iter().map(|(later, first)| (*first, *later));
        let mut duplicates_by_first: Vec<_> = by_first.collect();
        duplicates_by_first.sort_unstable();
        Ok(Index {
            duplicates,
            duplicates_by_first,
            counts,
            path: path.to_path_buf(),
            obfuscated: None,
            prefixes: prefixes.ok_or(Fault::Damaged(Part::Prefixes.name()))?,
            origin: read_origin(&file, &header)?,
            file,
            header,
        })
    }

    /// Returns true if it is of the version before: nothing is known of obfuscated hashes, and every torrent
    /// counts as private.
    #[must_use]
    pub fn is_old(&self) -> bool {
        self.header.is_old()
    }

    /// Reads the obfuscated hashes into memory too, 4 bytes for each torrent. Where they are damaged,
    /// none is found, which is logged.
    #[must_use]
    pub fn with_obfuscated(mut self) -> Self {
        if self.is_old() {
            return self;
        }
        match read_obfuscated(&self.file, &self.header) {
            Ok(table) => self.obfuscated = Some(table),
            Err(fault) => {
                let error = fault.of(&self.path);
                log::warn!("{error}; until then encrypted connections find no torrent of it");
            }
        }
        self
    }

    /// Reads the whole file and compares it with its checksums.
    ///
    /// # Errors
    /// An [`IndexError`] that names the damaged section.
    pub fn check(&self) -> Result<(), IndexError> {
        for part in self.header.parts() {
            let checked = read_checked(&self.file, &self.header, part, |_| ());
            checked.map_err(|fault| fault.of(&self.path))?;
        }
        Ok(())
    }

    /// The number of different info-hashes in the index.
    #[must_use]
    pub fn torrents(&self) -> u64 {
        self.header.entries(Part::Prefixes)
    }

    /// The number of metainfo files in the index, duplicates and unusable ones included.
    #[must_use]
    pub fn records(&self) -> u32 {
        u32::try_from(self.header.entries(Part::Records)).expect("the header is checked")
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

    /// Where content lies: as it is named, or else as the index says. Links may lead where it was searched.
    #[must_use]
    pub fn content(&self, named: &ContentDirectories) -> ContentDirectories {
        let origin = &self.origin;
        let searched = origin.searched.iter().map(|path| origin.root.join(path));
        named.with_index(origin.record(), searched)
    }

    /// Where an info-hash may be; `None` if it is not in the index. Searches in memory.
    #[must_use]
    pub fn find(&self, info_hash: &InfoHash) -> Option<Candidates> {
        let found = self.prefixes.find(format::prefix(info_hash));
        (!found.is_empty()).then_some(Candidates(found))
    }

    /// Where the torrent of an obfuscated hash may be; `None` if it is not in the index, or if the
    /// index was opened without them. Searches in memory.
    #[must_use]
    pub fn find_obfuscated(&self, hash: &ObfuscatedHash) -> Option<ObfuscatedCandidates> {
        let found = self.obfuscated.as_ref()?.find(hash);
        (!found.is_empty()).then_some(ObfuscatedCandidates(found))
    }

    /// The info-hash of an obfuscated hash, if it is at one of these positions.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn info_hash_of(
        &self,
        candidates: ObfuscatedCandidates,
        hash: &ObfuscatedHash,
    ) -> Result<Option<InfoHash>, IndexError> {
        for position in candidates.0 {
            let record = self.number_at(Part::ObfuscatedPositions, position)?;
            let raw = self.fixed(Part::Records, record.0.into())?;
            let info_hash = Record::decode(&raw).facts.info_hash;
            if ObfuscatedHash::new(&info_hash) == *hash {
                return Ok(Some(info_hash));
            }
        }
        Ok(None)
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
            let entry = self.record(self.record_at(position)?)?;
            if entry.facts.info_hash == *info_hash {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The entry of a record.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn record(&self, record: RecordNo) -> Result<Entry, IndexError> {
        self.entries_ahead(0..0, 0).entry(record)
    }

    /// All entries in the order of their paths.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        self.entries_ahead(0..u32::MAX, READ_BYTES)
    }

    /// The entries of some records, with reads of this many bytes.
    pub(super) fn entries_ahead(&self, records: Range<u32>, ahead_bytes: usize) -> Entries<'_> {
        Entries {
            index: self,
            records: self.reader(Part::Records, ahead_bytes),
            names: self.reader(Part::Names, ahead_bytes),
            directories: self.reader(Part::Directories, ahead_bytes),
            paths: self.reader(Part::DirectoryPaths, ahead_bytes),
            range: records.start..records.end.min(self.records()),
        }
    }

    /// Announce URLs in tiers (BEP 12).
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn trackers(&self, list: TrackerListNo) -> Result<Vec<Vec<String>>, IndexError> {
        let mut offsets = self.reader(Part::TrackerOffsets, 0);
        let mut lists = self.reader(Part::TrackerLists, 0);
        let offset = |raw: &[u8; format::OFFSET_BYTES]| u64::from_le_bytes(*raw);
        let tables = (&mut offsets, &mut lists);
        let raw = self.between(tables, list.0.into(), MAX_TRACKERS_BYTES, offset)?;
        format::decode_trackers(raw).ok_or_else(|| self.damaged(Part::TrackerLists))
    }

    /// The lists of announce URLs of a served torrent: that of its record, and those of other files with its
    /// info-hash whose content is right. Each once.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn lists_of(
        &self,
        record: RecordNo,
        own: TrackerListNo,
    ) -> Result<Vec<TrackerListNo>, IndexError> {
        let mut lists = vec![own];
        for other in self.duplicates_of(record) {
            let other = Record::decode(&self.fixed(Part::Records, other.0.into())?);
            if other.facts.state == State::Served && !lists.contains(&other.trackers) {
                lists.push(other.trackers);
            }
        }
        Ok(lists)
    }

    /// Announce URLs of several lists in tiers, each URL once.
    ///
    /// # Errors
    /// As [`Index::trackers`].
    pub fn all_trackers(&self, lists: &[TrackerListNo]) -> Result<Vec<Vec<String>>, IndexError> {
        let mut tiers = Vec::new();
        for list in lists {
            add_tiers(&mut tiers, self.trackers(*list)?);
        }
        Ok(tiers)
    }

    /// The bytes of an entry without a fixed length: a table has the offset of each entry, which ends
    /// where the next one starts.
    fn between<'a, const N: usize>(
        &self,
        (table, section): (&mut SectionReader<'_>, &'a mut SectionReader<'_>),
        index: u64,
        max_bytes: u64,
        offset: impl Fn(&[u8; N]) -> u64,
    ) -> Result<&'a [u8], IndexError> {
        let start = offset(table.entry(index)?);
        let end = match index + 1 < self.header.entries(table.part) {
            true => offset(table.entry(index + 1)?),
            false => self.header.section(section.part).length,
        };
        let length = end.wrapping_sub(start);
        if length > max_bytes {
            return Err(self.damaged(table.part));
        }
        section.at(start, length)
    }

    /// Every torrent that is served, once, in the order of records.
    pub fn served(&self) -> impl Iterator<Item = Result<Served, IndexError>> + '_ {
        let mut records = self.reader(Part::Records, READ_BYTES);
        let mut duplicates = self.duplicates.iter().map(|(later, _)| *later).peekable();
        let firsts = self.duplicates_by_first.iter().map(|(first, _)| *first);
        let mut firsts = firsts.peekable();
        let count = self.records();
        (0..count).map(RecordNo).filter_map(move |number| {
            let is_duplicate = duplicates.next_if_eq(&number).is_some();
            let mut has_duplicates = false;
            while firsts.next_if(|first| *first <= number).is_some() {
                has_duplicates = true;
            }
            let record = match records.entry(number.0.into()) {
                Ok(raw) => Record::decode(raw),
                Err(error) => return Some(Err(error)),
            };
            let is_served = record.facts.state == State::Served && !is_duplicate;
            is_served.then_some(Ok(Served {
                record: number,
                info_hash: record.facts.info_hash,
                trackers: record.trackers,
                has_duplicates,
            }))
        })
    }

    /// The torrents after an info-hash, in the order of info-hashes, in any state.
    pub fn following(
        &self,
        after: Option<&InfoHash>,
    ) -> impl Iterator<Item = Result<Entry, IndexError>> {
        let after = after.copied();
        let first = after.map_or(0, |after| self.prefixes.first(format::prefix(&after)));
        let entries = (first..self.prefixes.len()).map(|position| {
            self.record_at(position)
                .and_then(|number| self.record(number))
        });
        let is_behind =
            move |entry: &Entry| after.is_none_or(|after| entry.facts.info_hash > after);
        entries.filter(move |entry| entry.as_ref().map_or(true, is_behind))
    }

    /// The record at a position in the order of prefixes.
    fn record_at(&self, position: usize) -> Result<RecordNo, IndexError> {
        self.number_at(Part::Positions, position)
    }

    fn number_at(&self, part: Part, position: usize) -> Result<RecordNo, IndexError> {
        let raw = self.fixed::<POSITION_BYTES>(part, position as u64)?;
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

    /// The records that are served in place of others with the same info-hash, ascending.
    pub(in crate::library) fn firsts_of_duplicates(&self) -> Vec<RecordNo> {
        let mut firsts: Vec<RecordNo> = Vec::new();
        firsts.extend(self.duplicates_by_first.iter().map(|(first, _)| *first));
        firsts.dedup();
        firsts
    }

    /// The index file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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
        let mut info_hashes = Vec::with_capacity(records.len());
        let distance = |one: &RecordNo, next: &RecordNo| next.0.saturating_sub(one.0);
        for near in records.chunk_by(|one, next| distance(one, next) <= GAP_MAX) {
            let span = near.first().zip(near.last());
            let span = span.map_or(0, |(first, last)| distance(first, last).min(READ_MAX));
            let mut reader = self.reader(Part::Records, (span as usize + 1) * RECORD_BYTES);
            for record in near {
                info_hashes.push(match record.0 < self.records() {
                    true => {
                        let record = Record::decode(reader.entry(record.0.into())?);
                        Some(record.facts.info_hash)
                    }
                    false => None,
                });
            }
        }
        Ok(info_hashes)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn reader(&self, part: Part, ahead_bytes: usize) -> SectionReader<'_> {
        SectionReader {
            file: &self.file,
            path: &self.path,
            part,
            section: self.header.section(part),
            ahead_bytes,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The bytes of one fixed-width entry.
    pub(super) fn fixed<const N: usize>(
        &self,
        part: Part,
        index: u64,
    ) -> Result<[u8; N], IndexError> {
        self.reader(part, 0).entry(index).copied()
    }

    fn damaged(&self, part: Part) -> IndexError {
        Fault::Damaged(part.name()).of(&self.path)
    }
}

/// Reads one section of the file. The bytes of the last read are kept, so reading in order costs few
/// system calls.
pub(super) struct SectionReader<'a> {
    file: &'a File,
    /// Of the file, for errors.
    path: &'a Path,
    part: Part,
    section: Section,
    /// The least number of bytes of a read, as far as the section goes.
    ahead_bytes: usize,
    /// The offset of `bytes` in the section.
    start: u64,
    bytes: Vec<u8>,
}

impl SectionReader<'_> {
    /// The bytes at an offset of the section.
    ///
    /// # Errors
    /// [`Fault::Damaged`] beyond the section: then a number in another section is wrong.
    /// [`Fault::Unreadable`] with an error of pread(2).
    fn at(&mut self, offset: u64, length: u64) -> Result<&[u8], IndexError> {
        let (path, part) = (self.path, self.part);
        self.read(offset, length).map_err(|error| {
            let fault = match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => Fault::Damaged(part.name()),
                _ => Fault::Unreadable(error),
            };
            fault.of(path)
        })
    }

    fn read(&mut self, offset: u64, length: u64) -> io::Result<&[u8]> {
        let end = offset.saturating_add(length);
        if end > self.section.length {
            return Err(ErrorKind::InvalidInput.into());
        }
        let held = self.start..self.start + self.bytes.len() as u64;
        if offset < held.start || end > held.end {
            let wanted = length.max(self.ahead_bytes as u64);
            let wanted = wanted.min(self.section.length - offset);
            let wanted = usize::try_from(wanted).map_err(|_| ErrorKind::InvalidInput)?;
            self.start = offset;
            self.bytes.resize(wanted, 0);
            let in_file = self.section.offset.saturating_add(offset);
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, in_file) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let narrow = |bytes| usize::try_from(bytes).expect("the range is in memory");
        let from = narrow(offset - self.start);
        let bytes = self.bytes.get(from..from + narrow(length));
        Ok(bytes.expect("the range is in memory"))
    }

    /// The fixed-width entry of this index.
    ///
    /// # Errors
    /// As [`SectionReader::at`].
    pub(super) fn entry<const N: usize>(&mut self, index: u64) -> Result<&[u8; N], IndexError> {
        let bytes = self.at(index.saturating_mul(N as u64), N as u64)?;
        Ok(bytes.try_into().expect("as many bytes were read"))
    }
}

/// The iterator of [`Index::entries`]: readers of the sections that an entry is in.
pub struct Entries<'a> {
    index: &'a Index,
    records: SectionReader<'a>,
    names: SectionReader<'a>,
    directories: SectionReader<'a>,
    paths: SectionReader<'a>,
    range: Range<u32>,
}

impl Entries<'_> {
    fn entry(&mut self, number: RecordNo) -> Result<Entry, IndexError> {
        let mut record = Record::decode(self.records.entry(number.0.into())?);
        record.facts.private |= self.index.is_old();
        let directory = self.directory(record.directory.into())?;
        Ok(Entry {
            facts: record.facts,
            record: number,
            path: MetainfoPath {
                directory: self.index.origin.root.join(directory),
                name: self.name(&record)?,
            },
            duplicate: self.index.first_of(number).is_some(),
            trackers: record.trackers,
        })
    }

    /// The name of the metainfo file of a record.
    pub(super) fn name_of(&mut self, record: u64) -> Result<OsString, IndexError> {
        let record = Record::decode(self.records.entry(record)?);
        self.name(&record)
    }

    fn name(&mut self, record: &Record) -> Result<OsString, IndexError> {
        let raw = self
            .names
            .at(record.name_offset, record.name_length.into())?;
        let name = OsStr::from_bytes(raw);
        if !is_plain(Path::new(name)) || Path::new(name).file_name() != Some(name) {
            return Err(self.index.damaged(Part::Names));
        }
        Ok(name.to_owned())
    }

    /// The path of a directory by its index, relative to the root.
    pub(super) fn directory(&mut self, index: u64) -> Result<PathBuf, IndexError> {
        let tables = (&mut self.directories, &mut self.paths);
        let offset = |raw: &_| Directory::decode(raw).path_offset;
        let path = self.index.between(tables, index, MAX_PATH_BYTES, offset)?;
        let path = Path::new(OsStr::from_bytes(path));
        if !is_plain(path) {
            return Err(self.index.damaged(Part::DirectoryPaths));
        }
        Ok(path.to_path_buf())
    }

    /// The record that comes next.
    pub(in crate::library) fn upcoming(&self) -> RecordNo {
        RecordNo(self.range.start)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.range.next()?;
        Some(self.entry(RecordNo(number)))
    }
}

/// Returns true if a path is made of plain names, so that it stays below the root.
fn is_plain(path: &Path) -> bool {
    let plain = |component| matches!(component, Component::Normal(_));
    path.components().all(plain) && !path.as_os_str().as_bytes().contains(&0)
}

/// Reads a section and compares it with its checksum.
fn read_checked(
    file: &File,
    header: &Header,
    part: Part,
    mut take: impl FnMut(&[u8]),
) -> Result<(), Fault> {
    let Section {
        offset,
        length,
        checksum,
    } = header.section(part);
    let mut buffer = vec![0; READ_BYTES];
    let mut digest = Sha1::new();
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let step = usize::try_from(end - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let (now, _) = buffer.split_at_mut(step);
        file.read_exact_at(now, at)?;
        digest.update(&*now);
        take(now);
        at += step as u64;
    }
    match checksum == <[u8; 20]>::from(digest.finalize()) {
        true => Ok(()),
        false => Err(Fault::Damaged(part.name())),
    }
}

/// The tables that are kept in memory.
fn read_tables(file: &File, header: &Header) -> Result<Tables, Fault> {
    let count = usize::try_from(header.entries(Part::Prefixes));
    let mut prefixes = Vec::with_capacity(count.expect("the header is checked"));
    read_checked(file, header, Part::Prefixes, |bytes| {
        let (chunks, _) = bytes.as_chunks::<PREFIX_BYTES>();
        prefixes.extend(chunks.iter().map(|raw| u64::from_le_bytes(*raw)));
    })?;
    let raw = read_whole(file, header, Part::Counts)?;
    let counts = raw.as_slice().try_into().map(Counts::decode);
    let raw = read_whole(file, header, Part::Duplicates)?;
    let (pairs, _) = raw.as_chunks::<DUPLICATE_BYTES>();
    let duplicates: Vec<_> = pairs.iter().map(format::decode_duplicate).collect();
    if !duplicates.is_sorted_by(|(one, _), (next, _)| one < next) {
        return Err(Fault::Damaged(Part::Duplicates.name()));
    }
    Ok(Tables {
        prefixes,
        duplicates,
        counts: counts.expect("the header is checked"),
    })
}

fn read_obfuscated(file: &File, header: &Header) -> Result<Table, Fault> {
    let part = Part::Obfuscated;
    let count = u32::try_from(header.entries(part)).expect("the header is checked");
    let mut table = TableBuilder::new(count);
    let mut is_ascending = true;
    // Reads end within an entry.
    let mut rest = Vec::new();
    read_checked(file, header, part, |bytes| {
        rest.extend_from_slice(bytes);
        let (entries, behind) = rest.as_chunks::<OBFUSCATED_BYTES>();
        for entry in entries {
            is_ascending &= table.push(*entry);
        }
        rest = behind.to_vec();
    })?;
    match is_ascending {
        true => Ok(table.finish()),
        false => Err(Fault::Damaged(part.name())),
    }
}

/// Makes the tables again, since this part of them is damaged. The positions in the file must still be
/// right for them.
fn make_tables(
    file: &File,
    header: &Header,
    path: &Path,
    damaged: &'static str,
) -> Result<Tables, Fault> {
    let records = u32::try_from(header.entries(Part::Records));
    let tables = Tables::of_records(file, records.expect("the header is checked"))?;
    if tables.prefixes.len() as u64 != header.entries(Part::Prefixes) {
        return Err(Fault::Damaged(damaged));
    }
    let path = Printable::path(&path);
    log::warn!("index {path}: damaged ({damaged}), which is made again in memory at each start");
    Ok(tables)
}

/// A section that is kept in memory.
fn read_whole(file: &File, header: &Header, part: Part) -> Result<Vec<u8>, Fault> {
    let mut raw = Vec::new();
    read_checked(file, header, part, |bytes| raw.extend_from_slice(bytes))?;
    Ok(raw)
}

/// Reads the header of an index and checks its length.
fn read_header(file: &File) -> Result<Header, Fault> {
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
    let header = Header::decode(&raw)?;
    let expected = header.end();
    if found < expected {
        return Err(Fault::Truncated { expected, found });
    }
    Ok(header)
}

fn read_origin(file: &File, header: &Header) -> Result<Origin, Fault> {
    let raw = read_whole(file, header, Part::Origin)?;
    let damaged = || Fault::Damaged(Part::Origin.name());
    let strings = format::decode_strings(&raw).ok_or_else(damaged)?;
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    match &*strings {
        [root, content, searched @ ..] => Ok(Origin {
            root: path(root),
            content: (content.split(|byte| *byte == 0))
                .filter(|part| !part.is_empty())
                .map(path)
                .collect(),
            searched: searched.iter().map(|bytes| path(bytes)).collect(),
        }),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests;
