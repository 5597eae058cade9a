//! Writing an index file, so that a reader sees the old one or the new one.
//!
//! Everything goes to a new file, which is renamed to the target when it is complete and on disk.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use crate::library::index::format::{
    self, Directory, Facts, HEADER_BYTES, Header, MAX_RECORDS, Part, RECORD_BYTES, Record,
    RecordNo, Section, State, TrackerListNo,
};
use crate::library::index::sort::{Pair, Sorter};
use crate::locked;
use crate::torrent::printable::Printable;
use crate::wire::message::InfoHash;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Different lists of announce URLs that are remembered, so that each is stored once. A library has
/// few; in one where every torrent has its own, the rest is stored as it comes (some 100 MiB here).
const MAX_REMEMBERED_LISTS: usize = 1 << 20;

/// The root of an index, and the directories that were searched.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Origin {
    /// All paths of the index are below it. Absolute.
    pub root: PathBuf,
    /// Where all content lies; `None` means beside each metainfo file. Relative to the root when it
    /// is below.
    pub content: Option<PathBuf>,
    /// The directories that were searched, relative to the root.
    pub searched: Vec<PathBuf>,
}

/// One metainfo file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewRecord<'a> {
    /// Of the directory, relative to the root. Directories come in ascending order of their
    /// components, each with all its files.
    pub directory: &'a Path,
    /// Of the file. Names ascend within a directory.
    pub name: &'a [u8],
    /// What is known of it.
    pub facts: Facts,
    /// From [`Writer::trackers`].
    pub trackers: TrackerListNo,
}

/// What was written.
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

/// An index that is being written.
pub struct Writer {
    target: PathBuf,
    new: NewFile,
    records: Stream,
    names: Stream,
    directories: Stream,
    directory_paths: Stream,
    tracker_lists: Stream,
    tracker_offsets: Stream,
    sorter: Sorter,
    count: u32,
    /// Of these, those that are [`State::Served`].
    right: u64,
    /// The directory of the last record.
    directory: Option<PathBuf>,
    name: Vec<u8>,
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
        let file = create_locked(&path)?;
        let new = NewFile {
            _lock: file.try_clone()?,
            path,
            is_renamed: false,
        };
        let mut records = Stream::new(file);
        records.out.seek(io::SeekFrom::Start(HEADER_BYTES as u64))?;
        let scratch = || scratch(&new.path);
        Ok(Writer {
            target: target.to_path_buf(),
            records,
            names: Stream::new(scratch()?),
            directories: Stream::new(scratch()?),
            directory_paths: Stream::new(scratch()?),
            tracker_lists: Stream::new(scratch()?),
            tracker_offsets: Stream::new(scratch()?),
            sorter: Sorter::new(scratch()?),
            count: 0,
            right: 0,
            directory: None,
            name: Vec::new(),
            remembered: HashMap::new(),
            new,
        })
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
        let width = format::OFFSET_BYTES as u64;
        let number = u32::try_from(self.tracker_offsets.length / width);
        let number = TrackerListNo(number.map_err(io::Error::other)?);
        let offset = self.tracker_lists.length;
        self.tracker_offsets.write(&offset.to_le_bytes())?;
        self.tracker_lists.write(&raw)?;
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
        let number = self.count;
        if !self.is_next(new.directory, new.name) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if number >= MAX_RECORDS {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if self.directory.as_deref() != Some(new.directory) {
            let directory = Directory {
                path_offset: self.directory_paths.length,
                first_record: RecordNo(number),
            };
            self.directories.write(&directory.encode())?;
            let path = new.directory.as_os_str().as_bytes();
            self.directory_paths.write(path)?;
            self.directory = Some(new.directory.to_path_buf());
        }
        let directories = self.directories.length / format::DIRECTORY_BYTES as u64;
        let record = Record {
            facts: new.facts,
            directory: u32::try_from(directories - 1).map_err(io::Error::other)?,
            name_offset: self.names.length,
            name_length: u8::try_from(new.name.len()).map_err(io::Error::other)?,
            trackers: new.trackers,
        };
        self.names.write(new.name)?;
        self.name.clear();
        self.name.extend(new.name);
        self.records.write(&record.encode())?;
        if new.facts.state != State::Unusable {
            self.sorter
                .push((format::prefix(&new.facts.info_hash), number))?;
        }
        self.count += 1;
        self.right += u64::from(new.facts.state == State::Served);
        Ok(RecordNo(number))
    }

    /// Completes the file and replaces the old one by it. `refused` counts files and directories that
    /// are not in it. The old file stays whole until the end, also if this fails or the process is
    /// killed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self, origin: &Origin, refused: u64) -> io::Result<Written> {
        let mut header = Header::default();
        let mut written = Written::default();
        let mut right = self.right;
        let new = self.new;
        let scratch = || scratch(&new.path);
        let (mut prefixes, mut positions) = (Stream::new(scratch()?), Stream::new(scratch()?));
        let mut stored_origin = Stream::new(scratch()?);
        stored_origin.write(&encode_origin(origin))?;

        let (mut file, section) = self.records.finish(HEADER_BYTES as u64)?;
        header.set_section(Part::Records, section);
        let mut end = section.offset + section.length;
        let mut sorted = self.sorter.finish()?;
        let mut alike: Vec<Pair> = Vec::new();
        loop {
            let pair = sorted.pop()?;
            let ends = alike
                .first()
                .is_some_and(|(key, _)| pair.is_none_or(|(next, _)| next != *key));
            if ends {
                distinguish(&file, &mut alike, &mut written.duplicates)?;
                for (prefix, position) in alike.drain(..) {
                    prefixes.write(&prefix.to_le_bytes())?;
                    positions.write(&position.to_le_bytes())?;
                    written.torrents += 1;
                }
            }
            match pair {
                Some(pair) => alike.push(pair),
                None => break,
            }
        }
        drop(sorted);
        written.duplicates.sort_unstable();
        let mut duplicates = Stream::new(scratch()?);
        let mut raw = [0; RECORD_BYTES];
        for &(later, first) in &written.duplicates {
            duplicates.write(&later.0.to_le_bytes())?;
            duplicates.write(&first.0.to_le_bytes())?;
            read_record(&file, later, &mut raw)?;
            right -= u64::from(Record::decode(&raw).facts.state == State::Served);
        }
        written.served = right;
        let refused = refused + u64::from(self.count) - right;
        let mut counts = Stream::new(scratch()?);
        counts.write(&right.to_le_bytes())?;
        counts.write(&refused.to_le_bytes())?;

        file.seek(io::SeekFrom::Start(end))?;
        for (part, stream) in [
            (Part::Names, self.names),
            (Part::Directories, self.directories),
            (Part::DirectoryPaths, self.directory_paths),
            (Part::TrackerLists, self.tracker_lists),
            (Part::TrackerOffsets, self.tracker_offsets),
            (Part::Duplicates, duplicates),
            (Part::Counts, counts),
            (Part::Origin, stored_origin),
            (Part::Prefixes, prefixes),
            (Part::Positions, positions),
        ] {
            let (mut scratch, section) = stream.finish(end)?;
            scratch.rewind()?;
            io::copy(&mut scratch, &mut file)?;
            header.set_section(part, section);
            end += section.length;
        }
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        new.rename_to(&self.target)?;
        written.bytes = end;
        Ok(written)
    }
}

/// The file that is being written. It is removed if it is not completed: it may have filled the disk.
struct NewFile {
    path: PathBuf,
    /// Holds the lock until it is closed.
    _lock: File,
    is_renamed: bool,
}

impl NewFile {
    /// Replaces `target`.
    fn rename_to(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.is_renamed = true;
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
        if !self.is_renamed {
            let _ = fs::remove_file(&self.path);
        }
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

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        self.out.write_all(bytes)
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

fn read_record(file: &File, number: RecordNo, raw: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
    let offset = u64::from(number.0) * RECORD_BYTES as u64;
    file.read_exact_at(raw, HEADER_BYTES as u64 + offset)
}

/// Keeps one record of each info-hash: the first that is served, or else the first. All of them have
/// the same prefix.
fn distinguish(
    file: &File,
    alike: &mut Vec<Pair>,
    duplicates: &mut Vec<(RecordNo, RecordNo)>,
) -> io::Result<()> {
    if alike.len() < 2 {
        return Ok(());
    }
    let mut records = Vec::with_capacity(alike.len());
    for &(prefix, number) in alike.iter() {
        let mut raw = [0; RECORD_BYTES];
        read_record(file, RecordNo(number), &mut raw)?;
        let record = Record::decode(&raw);
        records.push((
            record.facts.state != State::Served,
            number,
            prefix,
            record.facts.info_hash,
        ));
    }
    records.sort_unstable_by_key(|(wrong, number, ..)| (*wrong, *number));
    alike.clear();
    let mut seen: HashMap<InfoHash, u32> = HashMap::new();
    for (_, number, prefix, info_hash) in records {
        match seen.entry(info_hash) {
            std::collections::hash_map::Entry::Occupied(first) => {
                duplicates.push((RecordNo(number), RecordNo(*first.get())));
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(number);
                alike.push((prefix, number));
            }
        }
    }
    Ok(())
}

fn encode_origin(origin: &Origin) -> Vec<u8> {
    let mut out = Vec::new();
    let content = origin.content.as_deref().unwrap_or(Path::new(""));
    let paths = [origin.root.as_path(), content].into_iter();
    let paths = paths.chain(origin.searched.iter().map(PathBuf::as_path));
    format::encode_strings(paths.map(|path| path.as_os_str().as_bytes()), &mut out);
    out
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut longer = path.as_os_str().to_owned();
    longer.push(suffix);
    longer.into()
}

/// Opens the file empty and locks it.
fn create_locked(path: &Path) -> io::Result<File> {
    let file = locked::open(path)?;
    file.set_len(0)?;
    Ok(file)
}

/// An empty file without a name, beside `new`, which is locked.
fn scratch(new: &Path) -> io::Result<File> {
    let path = with_suffix(new, ".scratch");
    // An existing one was left by a process that was killed. Opening it would follow a link.
    let _ = fs::remove_file(&path);
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Makes a rename survive a power cut.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}
