//! Writing an index file, so that a reader sees the old one or the new one.
//!
//! Everything goes to a new file, which is renamed to the target when it is complete and on disk; or to
//! memory, where there is no disk for it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};
use sha1::{Digest, Sha1};

use super::format::{
    self, Counts, Directory, Facts, HEADER_BYTES, Header, MAX_RECORDS, Part, RECORD_BYTES, Record,
    RecordNo, Section, State, TrackerListNo,
};
use super::obfuscated::{self, ObfuscatedHash};
use crate::locked;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::printable::Printable;
use crate::wire::message::InfoHash;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// What is sorted at a time. The info-hashes of a library of two million torrents take one pass over its
/// records, those of 20 million take eight. Unit: bytes.
const SORTED_BYTES: usize = 64 << 20;

/// Different lists of announce URLs that are remembered, so that each is stored once. A library has
/// few; in one where every torrent has its own, the rest is stored as it comes (some 100 MiB here).
const MAX_REMEMBERED_LISTS: usize = 1 << 20;

/// The root of an index, and the directories that were searched.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Origin {
    /// All paths of the index are below it. Absolute.
    pub root: PathBuf,
    /// Where content is looked for, in this order, as [`ContentDirectories::record`] has it; empty means
    /// beside each metainfo file. Relative to the root when it is below.
    ///
    /// [`ContentDirectories::record`]: crate::torrent::content_directories::ContentDirectories::record
    pub content: Vec<PathBuf>,
    /// The directories that were searched, relative to the root.
    pub searched: Vec<PathBuf>,
}

impl Origin {
    /// What was recorded of the places of content, the roots absolute.
    #[must_use]
    pub fn record(&self) -> Vec<PathBuf> {
        // Joining an absolute path replaces the root.
        let absolute = |path: &Path| self.root.join(path);
        ContentDirectories::map_roots(self.content.iter().cloned(), absolute)
    }

    /// Where content lies, if it does not lie beside each metainfo file.
    #[must_use]
    pub fn content_roots(&self) -> Vec<PathBuf> {
        let record = self.record().into_iter();
        record
            .filter(|path| ContentDirectories::is_root(path))
            .collect()
    }
}

/// One metainfo file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewRecord<'a> {
    /// Of the directory, relative to the root. Directories come in ascending order of their
    /// components, each with all its files.
    pub directory: &'a Path,
    /// Of the file. Names ascend within a directory.
    pub name: &'a [u8],
    /// Its facts.
    pub facts: Facts,
    /// From [`Writer::trackers`].
    pub trackers: TrackerListNo,
}

/// The result of writing an index.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// Different info-hashes.
    pub torrents: u32,
    /// Torrents that are served: their content is right, and no other has their info-hash.
    pub served: u64,
    /// Records with the info-hash of another record that is served instead, each with that record.
    /// Ascending.
    pub duplicates: Vec<(RecordNo, RecordNo)>,
    /// The size of the file.
    pub bytes: u64,
}

/// An info-hash, and the number of its record.
type Pair = (InfoHash, u32);

/// What an index stores of an obfuscated hash, and the number of the record.
type ObfuscatedPair = (u64, u32);

/// Bytes of an [`ObfuscatedPair`] in a scratch file.
const OBFUSCATED_PAIR_BYTES: usize = 12;

/// An index that is being written.
pub struct Writer {
    /// The file that it replaces; `None` in memory.
    target: Option<PathBuf>,
    new: NewFile,
    streams: Streams,
    records: u32,
    /// Records that are [`State::Served`].
    served: u64,
    directories: u32,
    /// The directory of the last record.
    directory: Option<PathBuf>,
    /// The name of the last record.
    name: Vec<u8>,
    lists: u32,
    remembered: HashMap<Vec<u8>, TrackerListNo>,
}

impl Writer {
    /// Starts the file that will replace `target`. It has the same name with `.new` appended; scratch
    /// files have no name.
    ///
    /// # Errors
    /// Those of the file system; `WouldBlock` while another process writes the same index.
    pub fn create(target: &Path) -> io::Result<Self> {
        let path = with_suffix(target, ".new");
        let mut file = locked::open(&path)?;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
        let mut streams = vec![Stream::new(file.try_clone()?)];
        let new = NewFile {
            file,
            path: Some(path.clone()),
        };
        for _ in Part::all().iter().skip(1) {
            streams.push(Stream::new(scratch(&path)?));
        }
        Ok(Self::new(Some(target.to_path_buf()), new, streams))
    }

    /// Starts an index in the file of [`memory`], which is empty.
    ///
    /// # Errors
    /// Those of `memfd_create`(2).
    pub fn in_memory(file: &File) -> io::Result<Self> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
        let mut streams = vec![Stream::new(file.try_clone()?)];
        for _ in Part::all().iter().skip(1) {
            streams.push(Stream::new(memory()?));
        }
        Ok(Self::new(None, NewFile { file, path: None }, streams))
    }

    fn new(target: Option<PathBuf>, new: NewFile, streams: Vec<Stream>) -> Self {
        Writer {
            target,
            new,
            streams: Streams(streams),
            records: 0,
            served: 0,
            directories: 0,
            directory: None,
            name: Vec::new(),
            lists: 0,
            remembered: HashMap::new(),
        }
    }

    /// Writes a list of announce URLs, unless it was written before.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn trackers(&mut self, tiers: &[Vec<String>]) -> io::Result<TrackerListNo> {
        let mut raw = Vec::new();
        format::encode_trackers(tiers, &mut raw);
        if let Some(&number) = self.remembered.get(&raw) {
            return Ok(number);
        }
        let number = TrackerListNo(self.lists);
        self.lists = self.lists.checked_add(1).ok_or(ErrorKind::FileTooLarge)?;
        let offset = self.streams.of(Part::TrackerLists).length;
        self.streams
            .write(Part::TrackerOffsets, &offset.to_le_bytes())?;
        self.streams.write(Part::TrackerLists, &raw)?;
        if self.remembered.len() < MAX_REMEMBERED_LISTS {
            self.remembered.insert(raw, number);
        }
        Ok(number)
    }

    /// Returns true if a record comes after the last one. A reader finds paths by binary search.
    #[must_use]
    pub fn is_next(&self, directory: &Path, name: &[u8]) -> bool {
        let last = self.directory.as_deref();
        last.is_none_or(|last| (last, &*self.name) < (directory, name))
    }

    /// Writes the record of a metainfo file.
    ///
    /// # Errors
    /// Those of the file system; `FileTooLarge` for more than [`MAX_RECORDS`], `InvalidInput` for
    /// one that does not come after the last.
    pub fn record(&mut self, new: &NewRecord<'_>) -> io::Result<RecordNo> {
        let number = RecordNo(self.records);
        if !self.is_next(new.directory, new.name) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if number.0 >= MAX_RECORDS {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if self.directory.as_deref() != Some(new.directory) {
            let directory = Directory {
                path_offset: self.streams.of(Part::DirectoryPaths).length,
                first_record: number,
            };
            self.streams.write(Part::Directories, &directory.encode())?;
            let path = new.directory.as_os_str().as_bytes();
            self.streams.write(Part::DirectoryPaths, path)?;
            self.directory = Some(new.directory.to_path_buf());
            self.directories += 1;
        }
        let record = Record {
            facts: new.facts,
            directory: self.directories - 1,
            name_offset: self.streams.of(Part::Names).length,
            name_length: u8::try_from(new.name.len()).map_err(io::Error::other)?,
            trackers: new.trackers,
        };
        self.streams.write(Part::Names, new.name)?;
        self.name.clear();
        self.name.extend(new.name);
        self.streams.write(Part::Records, &record.encode())?;
        self.records += 1;
        self.served += u64::from(new.facts.state == State::Served);
        Ok(number)
    }

    /// Completes the file and replaces the old one by it. `refused` counts files and directories that
    /// are not in it. The old file stays whole until the end, also if this fails or the process is
    /// killed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self, origin: &Origin, refused: u64) -> io::Result<Written> {
        let Writer {
            new, mut streams, ..
        } = self;
        let mut written = Written {
            served: self.served,
            ..Written::default()
        };
        // Records are read back from the file.
        streams.of(Part::Records).out.flush()?;
        let scratch = new.path.as_deref().map_or_else(memory, scratch);
        let mut obfuscated = BufWriter::with_capacity(BUFFER_BYTES, scratch?);
        find_torrents(
            &new.file,
            self.records,
            &mut written,
            |(info_hash, record)| {
                let prefix = format::prefix(&info_hash);
                streams.write(Part::Prefixes, &prefix.to_le_bytes())?;
                streams.write(Part::Positions, &record.to_le_bytes())?;
                streams.write(Part::Suffixes, &format::suffix(&info_hash))?;
                let stored = ObfuscatedHash::new(&info_hash).stored();
                obfuscated.write_all(&stored.to_le_bytes())?;
                obfuscated.write_all(&record.to_le_bytes())
            },
        )?;
        sort_obfuscated(
            &obfuscated.into_inner()?,
            written.torrents,
            |(stored, record)| {
                streams.write(Part::Obfuscated, &obfuscated::encode(stored))?;
                streams.write(Part::ObfuscatedPositions, &record.to_le_bytes())
            },
        )?;
        for pair in &written.duplicates {
            streams.write(Part::Duplicates, &format::encode_duplicate(*pair))?;
        }
        let counts = Counts {
            served: written.served,
            refused: refused + u64::from(self.records) - self.served,
        };
        streams.write(Part::Counts, &counts.encode())?;
        streams.write(Part::Origin, &encode_origin(origin))?;

        let mut header = Header::default();
        written.bytes = HEADER_BYTES as u64;
        for (part, stream) in Part::all().into_iter().zip(streams.0) {
            let (mut scratch, section) = stream.finish(written.bytes)?;
            header.set_section(part, section);
            written.bytes += section.length;
            if part == Part::Records {
                // They are in the file already; what follows comes after them.
                scratch.seek(SeekFrom::Start(written.bytes))?;
            } else {
                scratch.rewind()?;
                io::copy(&mut scratch, &mut &new.file)?;
            }
        }
        new.file.write_all_at(&header.encode(), 0)?;
        if let Some(target) = &self.target {
            new.file.sync_all()?;
            new.rename_to(target)?;
        }
        Ok(written)
    }
}

/// The file that is being written. It is removed if it is not completed: it may have filled the disk.
struct NewFile {
    /// `None` in memory, and when it was renamed.
    path: Option<PathBuf>,
    /// Locked until it is closed.
    file: File,
}

impl NewFile {
    /// Replaces `target`.
    fn rename_to(mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        // Only a power cut could bring the old file back.
        if let Err(error) = sync_directory(target) {
            let target = Printable::path(&target);
            log::warn!("{target} was replaced, but its directory cannot be synced: {error}");
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// One stream for each section, in the order of the parts.
struct Streams(Vec<Stream>);

impl Streams {
    fn of(&mut self, part: Part) -> &mut Stream {
        let stream = self.0.get_mut(part as usize);
        stream.expect("each section has a stream")
    }

    fn write(&mut self, part: Part, bytes: &[u8]) -> io::Result<()> {
        let stream = self.of(part);
        stream.digest.update(bytes);
        stream.length += bytes.len() as u64;
        stream.out.write_all(bytes)
    }
}

/// Bytes on their way to a file of their own, with their checksum.
struct Stream {
    out: BufWriter<File>,
    digest: Sha1,
    length: u64,
}

impl Stream {
    fn new(file: File) -> Self {
        Stream {
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            digest: Sha1::new(),
            length: 0,
        }
    }

    fn finish(self, offset: u64) -> io::Result<(File, Section)> {
        let section = Section {
            offset,
            length: self.length,
            checksum: self.digest.finalize().into(),
        };
        Ok((self.out.into_inner()?, section))
    }
}

/// Takes the pair of each different info-hash, ascending, and notes the duplicates. Those that are served
/// were counted.
fn find_torrents(
    file: &File,
    records: u32,
    written: &mut Written,
    mut take: impl FnMut(Pair) -> io::Result<()>,
) -> io::Result<()> {
    let passes = passes_of::<Pair>(records);
    for pass in 0..passes {
        let pairs = sorted_pairs(file, records, pass, passes)?;
        for alike in pairs.chunk_by(|one, next| one.0 == next.0) {
            take(without_duplicates(file, alike, written)?)?;
            written.torrents += 1;
        }
    }
    written.duplicates.sort_unstable();
    Ok(())
}

/// What an index says of its torrents beside their records.
pub(super) struct Tables {
    pub(super) prefixes: Vec<u64>,
    pub(super) duplicates: Vec<(RecordNo, RecordNo)>,
    pub(super) counts: Counts,
}

impl Tables {
    /// Makes them again from the records of an index. Files that were refused and have no record are not
    /// counted.
    pub(super) fn of_records(file: &File, records: u32) -> io::Result<Self> {
        let mut written = Written::default();
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        reader.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
        for _ in 0..records {
            let mut raw = [0; RECORD_BYTES];
            reader.read_exact(&mut raw)?;
            let is_served = Record::decode(&raw).facts.state == State::Served;
            written.served += u64::from(is_served);
        }
        let refused = u64::from(records).saturating_sub(written.served);
        let mut prefixes = Vec::new();
        find_torrents(file, records, &mut written, |(info_hash, _)| {
            prefixes.push(format::prefix(&info_hash));
            Ok(())
        })?;
        let Written {
            served, duplicates, ..
        } = written;
        Ok(Tables {
            prefixes,
            duplicates,
            counts: Counts { served, refused },
        })
    }
}

/// In how many passes so many are sorted.
fn passes_of<T>(count: u32) -> u32 {
    let at_a_time = SORTED_BYTES / size_of::<T>();
    count.div_ceil(u32::try_from(at_a_time).expect("it is a small number"))
}

/// In which pass a number of this many bits is sorted: each takes one of the equal ranges that all numbers
/// are divided into. Hashes are uniform, so each range has as many.
fn pass_of(number: u64, bits: u32, passes: u32) -> u32 {
    let pass = (u128::from(number) * u128::from(passes)) >> bits;
    u32::try_from(pass).expect("it is less than all passes")
}

/// Takes each pair in a scratch file, ascending.
fn sort_obfuscated(
    file: &File,
    count: u32,
    mut take: impl FnMut(ObfuscatedPair) -> io::Result<()>,
) -> io::Result<()> {
    let passes = passes_of::<ObfuscatedPair>(count);
    for pass in 0..passes {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        reader.rewind()?;
        let mut pairs: Vec<ObfuscatedPair> = Vec::new();
        for _ in 0..count {
            let mut raw = [0; OBFUSCATED_PAIR_BYTES];
            reader.read_exact(&mut raw)?;
            let [a, b, c, d, e, f, g, h, record @ ..] = raw;
            let stored = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            if pass_of(stored, obfuscated::STORED_BITS, passes) == pass {
                pairs.push((stored, u32::from_le_bytes(record)));
            }
        }
        pairs.sort_unstable();
        pairs.into_iter().try_for_each(&mut take)?;
    }
    Ok(())
}

/// The pairs of one pass, ascending.
fn sorted_pairs(file: &File, records: u32, pass: u32, passes: u32) -> io::Result<Vec<Pair>> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    reader.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
    let mut pairs = Vec::new();
    for number in 0..records {
        let mut raw = [0; RECORD_BYTES];
        reader.read_exact(&mut raw)?;
        let facts = Record::decode(&raw).facts;
        let prefix = format::prefix(&facts.info_hash);
        let is_its_pass = pass_of(prefix, u64::BITS, passes) == pass;
        if is_its_pass && facts.state != State::Unusable {
            pairs.push((facts.info_hash, number));
        }
    }
    pairs.sort_unstable();
    Ok(pairs)
}

/// The record of a torrent: the first that is served, or else the first. All pairs have its info-hash,
/// ascending; the others are noted as duplicates.
fn without_duplicates(file: &File, alike: &[Pair], written: &mut Written) -> io::Result<Pair> {
    let first = *alike.first().expect("a chunk has at least one");
    if alike.len() < 2 {
        return Ok(first);
    }
    let mut served = Vec::new();
    for pair in alike {
        let mut raw = [0; RECORD_BYTES];
        let offset = u64::from(pair.1) * RECORD_BYTES as u64;
        file.read_exact_at(&mut raw, HEADER_BYTES as u64 + offset)?;
        if Record::decode(&raw).facts.state == State::Served {
            served.push(*pair);
        }
    }
    written.served -= served.len().saturating_sub(1) as u64;
    let kept = served.first().copied().unwrap_or(first);
    let others = alike.iter().filter(|pair| **pair != kept);
    let others = others.map(|pair| (RecordNo(pair.1), RecordNo(kept.1)));
    written.duplicates.extend(others);
    Ok(kept)
}

fn encode_origin(origin: &Origin) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
    let content: Vec<Vec<u8>> = origin.content.iter().map(bytes).collect();
    let strings = [bytes(&origin.root), content.join(&0)].into_iter();
    let strings: Vec<Vec<u8>> = strings.chain(origin.searched.iter().map(bytes)).collect();
    format::encode_strings(strings.iter().map(Vec::as_slice), &mut out);
    out
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut longer = path.as_os_str().to_owned();
    longer.push(suffix);
    longer.into()
}

/// An empty file without a name, beside `new`, which is locked.
fn scratch(new: &Path) -> io::Result<File> {
    let path = with_suffix(new, ".scratch");
    // An existing one was left by a process that was killed. Opening it would follow a link.
    let _ = fs::remove_file(&path);
    let file = File::create_new(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// A file in memory. No file system and no sandbox has a say in it.
///
/// # Errors
/// Those of `memfd_create`(2).
pub fn memory() -> io::Result<File> {
    let descriptor = memfd_create("hekate-index", MemfdFlags::CLOEXEC)?;
    Ok(descriptor.into())
}

/// Makes a rename survive a power cut.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::index::format::ContentName;
    use crate::torrent::reader::FileStamp;

    #[test]
    fn pairs_are_sorted_in_any_number_of_passes() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut file = tempfile::tempfile().unwrap();
        file.seek(SeekFrom::Start(HEADER_BYTES as u64)).unwrap();
        let mut expected = Vec::new();
        for number in 0..5_000 {
            let mut info_hash = InfoHash([0; 20]);
            // A few are equal.
            random.fill(&mut info_hash.0[..2]);
            let state = match random.bool() {
                true => State::Withdrawn,
                false => State::Unusable,
            };
            if state == State::Withdrawn {
                expected.push((info_hash, number));
            }
            let record = Record {
                facts: Facts {
                    info_hash,
                    state,
                    private: false,
                    content_name: ContentName::default(),
                    stamp: FileStamp::default(),
                },
                directory: 0,
                name_offset: 0,
                name_length: 1,
                trackers: TrackerListNo(0),
            };
            file.write_all(&record.encode()).unwrap();
        }
        expected.sort_unstable();
        for passes in [1, 2, 3, 5, 1000] {
            let pairs = (0..passes).map(|pass| sorted_pairs(&file, 5_000, pass, passes).unwrap());
            assert!(pairs.flatten().eq(expected.iter().copied()), "{passes}");
        }
    }
}
