//! One mapped file of content.
//!
//! Owns how a file is opened, read in and recognised again. All of that blocks and is for the
//! readers; the loop only lends the ranges of a [`Content`] to the kernel.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use thiserror::Error;

use super::residency::ResidencyProbe;
use crate::disks::Disk;
use crate::sys::{self, Mapping, Slice};
use crate::torrent::catalogue::{ContentFile, Torrent};
use crate::torrent::content::{self, ContentError};
use crate::torrent::printable::Printable;
use crate::torrent::reader::Stamp;
use crate::workers::QueueFull;

/// The kernel cuts a hint to what the device reads at once, which is this much on nearly all.
const HINT_BYTES: u64 = 512 * 1024;

/// Where bytes go that are only wanted in the page cache. Kernels before Linux 5.14 need it.
const SCRATCH_BYTES: usize = 128 * 1024;

/// Why something could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file is not what the metainfo file describes, or not where, below this content root.
    #[error("{}, below {}", .1, Printable::path(.0))]
    Content(PathBuf, #[source] ContentError),
    /// The torrent has no such file, or the file, the torrent or its metadata no such range.
    #[error("the requested range does not exist")]
    NoSuchRange,
    /// Address space, or the number of mappings, is used up.
    #[error("content {} cannot be mapped: {}", Printable::path(.0), .1)]
    Unmappable(PathBuf, #[source] io::Error),
    /// The file is shorter than it was when it was opened.
    #[error("content {} was truncated while it was served", Printable::path(.0))]
    Truncated(PathBuf),
    /// The device does not give the bytes.
    #[error("content {} cannot be read: {}", Printable::path(.0), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// The metainfo file is gone, or shorter than it was.
    #[error("metainfo file {} cannot be read: {}", Printable::path(.0), .1)]
    Metainfo(PathBuf, #[source] io::Error),
    /// The file was written to while it was read.
    #[error("content {} changed while it was read", Printable::path(.0))]
    Changing(PathBuf),
    /// It is not tried again so soon, see [`super::FAILED_RETRY_MS`].
    #[error("reading it failed a moment ago")]
    FailedBefore,
    /// The readers have too much to do.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
    /// A defect of ours.
    #[error("a reader panicked")]
    Panicked,
}

/// A file of content, mapped. It outlives its place in the cache of mappings as long as a job or a
/// batch of blocks holds it; the descriptor is closed once the file is mapped.
#[derive(Debug)]
pub struct Content {
    mapping: Mapping,
    probe: ResidencyProbe,
    device: u64,
    disk: Disk,
    length: u64,
    stamp: Stamp,
    /// As the torrent names it, symlinks unresolved.
    path: PathBuf,
}

impl Content {
    /// Opens, checks and maps a file of a torrent, which is on this disk.
    pub(super) fn open(torrent: &Torrent, file: u32, disk: &Disk) -> Result<Self, ReadError> {
        let (ContentFile { path, length, .. }, file) = open_file(torrent, file)?;
        let path = torrent.root.join(path);
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| ReadError::Unreadable(path.clone(), error))?;
        let mapping = sys::map(&file, length);
        let mapping = mapping.map_err(|error| ReadError::Unmappable(path.clone(), error))?;
        Ok(Self {
            mapping,
            probe: ResidencyProbe::for_file(&file, &metadata),
            device: metadata.dev(),
            disk: disk.clone(),
            length: metadata.len(),
            stamp: Stamp::new(&metadata),
            path,
        })
    }

    /// The bytes of a range, to be lent to the kernel.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Slice<'_> {
        Slice::Mapped {
            mapping: &self.mapping,
            offset: range.start,
            length: usize::try_from(range.end - range.start).expect("it is within a mapping"),
        }
    }

    /// Bytes in the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) fn probe(&self) -> ResidencyProbe {
        self.probe
    }

    pub(super) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Returns true if both were opened from the same file, and it had not changed in between.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// Returns true if the path still leads to this file, unchanged.
    pub(super) fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| {
            let found = (metadata.dev(), metadata.len(), Stamp::new(&metadata));
            found == self.identity()
        })
    }

    fn identity(&self) -> (u64, u64, Stamp) {
        (self.device, self.length, self.stamp)
    }

    /// Starts reading the range, and nothing but the range: populating alone reads around each
    /// fault by the device's whole read-ahead, which may be many times what is wanted.
    pub(super) fn will_need(&self, range: &Range<u64>) {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + HINT_BYTES);
            // A hint that fails has cost nothing; who reads the range will know why.
            let _ = self.mapping.will_need(start..end);
            start = end;
        }
    }

    /// Waits until the whole range is in memory and in our page table.
    pub(super) fn read_in(&self, range: &Range<u64>) -> Result<(), ReadError> {
        if range.start > range.end || range.end > self.length() {
            return Err(ReadError::NoSuchRange);
        }
        self.will_need(range);
        match self.mapping.populate(range.clone()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::InvalidInput => self.read_through(range),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Brings the range into the page cache without the mapping.
    fn read_through(&self, range: &Range<u64>) -> Result<(), ReadError> {
        let failure = |error| self.failure(error);
        let file = File::open(&self.path).map_err(failure)?;
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut start = range.start;
        while start < range.end {
            let left = usize::try_from(range.end - start).unwrap_or(SCRATCH_BYTES);
            let (part, _) = scratch.split_at_mut(left.min(SCRATCH_BYTES));
            file.read_exact_at(part, start).map_err(failure)?;
            start += part.len() as u64;
        }
        Ok(())
    }

    /// A mapping only knows that bytes are not to be had; the file tells why.
    fn failure(&self, error: io::Error) -> ReadError {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() < self.length() => {
                ReadError::Truncated(self.path.clone())
            }
            _ => ReadError::Unreadable(self.path.clone(), error),
        }
    }
}

/// Opens a file of a torrent, of exactly the right length, below the content root.
pub(super) fn open_file(
    torrent: &Torrent,
    file: u32,
) -> Result<(ContentFile<'_>, File), ReadError> {
    let file = torrent.file(file).ok_or(ReadError::NoSuchRange)?;
    match content::open(&torrent.content, &torrent.root, file.path, file.length) {
        Ok(opened) => Ok((file, opened)),
        Err(error) => Err(ReadError::Content(torrent.root.to_path_buf(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::Disks;
    use std::io::Write;
    use std::path::Path;
    use tempfile::NamedTempFile;

    fn mapped(length: u64) -> (NamedTempFile, Content) {
        let mut named = NamedTempFile::new().unwrap();
        named
            .write_all(&vec![3; usize::try_from(length).unwrap()])
            .unwrap();
        let file = named.as_file();
        let metadata = file.metadata().unwrap();
        let content = Content {
            mapping: sys::map(file, length).unwrap(),
            probe: ResidencyProbe::PageCache,
            device: metadata.dev(),
            disk: Disks::read().of(Path::new("/")),
            length: metadata.len(),
            stamp: Stamp::new(&metadata),
            path: named.path().to_path_buf(),
        };
        (named, content)
    }

    #[test]
    fn old_kernels_read_through_the_file() {
        let scratch = SCRATCH_BYTES as u64;
        let length = scratch * 2 + 5;
        let (named, content) = mapped(length);
        content.read_through(&(0..length)).unwrap();
        content.read_through(&(length - 1..length)).unwrap();
        named.as_file().set_len(scratch + 1).unwrap();
        content.read_through(&(1..scratch)).unwrap();
        let error = content.read_through(&(0..length)).unwrap_err();
        assert!(matches!(error, ReadError::Truncated(_)), "{error}");
    }

    #[test]
    fn errors_name_the_path_on_one_line() {
        let error = ReadError::Unreadable(PathBuf::from("a\nb"), ErrorKind::TimedOut.into());
        assert_eq!(error.to_string(), "content a\\nb cannot be read: timed out");
    }
}
