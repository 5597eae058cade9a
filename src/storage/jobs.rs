//! The jobs of reader threads, their outcomes, and these as the loop takes them.
//!
//! Every function here may block.

use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::FileKey;
use super::content::{Content, ReadError, open_file};
use super::ledger::Stamps;
use crate::peer::key::PeerKey;
use crate::torrent::catalogue::Torrent;
use crate::torrent::id::TorrentId;
use crate::torrent::layout::ExtentSource;
use crate::torrent::reader::{FileStamp, Stamp};
use crate::wire::extension::METADATA_PIECE_LENGTH;
use crate::workers::contained;

/// What the readers have done.
#[derive(Debug)]
pub enum Completion {
    /// A range of a file is in memory, or cannot be brought there. Blocks within the range may be
    /// sent from this content without asking again: under memory pressure, asking could go round in
    /// circles.
    Read {
        /// All who asked for a range that starts there, once for each time they did.
        peers: Vec<PeerKey>,
        /// The file.
        key: FileKey,
        /// What was read, in bytes of the file. It may end before what a later peer asked for.
        range: Range<u64>,
        /// The file, mapped.
        result: Result<Arc<Content>, ReadError>,
    },
    /// A block was copied together.
    Gathered {
        /// Who asked.
        peer: PeerKey,
        /// In bytes of the torrent.
        offset: u64,
        /// In bytes.
        length: u32,
        /// Exactly that many bytes.
        result: Result<Box<[u8]>, ReadError>,
    },
    /// A piece of the info dictionary was read (BEP 9).
    Metadata {
        /// Who asked.
        peer: PeerKey,
        /// Its number.
        piece: u32,
        /// 16 KiB, or less for the last one.
        result: Result<Vec<u8>, ReadError>,
    },
    /// A piece was hashed.
    Piece {
        /// All who asked.
        peers: Vec<PeerKey>,
        /// What it is a piece of.
        torrent: Arc<Torrent>,
        /// Its number.
        piece: u32,
        /// Whether it has the right hash.
        result: Result<bool, ReadError>,
    },
}

impl Completion {
    /// What went wrong with content, if anything did that was not reported before.
    #[must_use]
    pub fn failure(&self) -> Option<&ReadError> {
        let error = match self {
            Self::Read { result, .. } => result.as_ref().err(),
            Self::Gathered { result, .. } => result.as_ref().err(),
            Self::Metadata { result, .. } => result.as_ref().err(),
            Self::Piece { result, .. } => result.as_ref().err(),
        };
        // Neither of these says anything new of the content, and they may come by the thousand.
        error.filter(|e| !matches!(e, ReadError::FailedBefore | ReadError::QueueFull(_)))
    }
}

/// The outcome of a job, with what the storage notes before the loop has it.
pub(super) enum Outcome {
    Read {
        torrent: Arc<Torrent>,
        key: FileKey,
        range: Range<u64>,
        /// Whether the mapping is new.
        opened: bool,
        result: Result<Arc<Content>, ReadError>,
    },
    Gathered {
        peer: PeerKey,
        offset: u64,
        length: u32,
        torrent: Arc<Torrent>,
        /// Those of the files that it was copied from.
        stamps: Stamps,
        /// The file that an error is about.
        to_blame: Option<FileKey>,
        result: Result<Box<[u8]>, ReadError>,
    },
    Metadata {
        torrent: TorrentId,
        completion: Completion,
    },
    Checked {
        key: FileKey,
        content: Arc<Content>,
        current: bool,
    },
}

/// Does the work of a job. A panic is an error like another.
pub(super) fn attempt<T>(work: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    contained(work).unwrap_or(Err(ReadError::Panicked))
}

/// Brings a range of a file into memory.
pub(super) fn read(content: Arc<Content>, range: &Range<u64>) -> Result<Arc<Content>, ReadError> {
    content.read_in(range)?;
    Ok(content)
}

/// Copies a range of the torrent, and notes the stamps of its files. `current` is the file that is
/// read, while one is.
pub(super) fn gather(
    torrent: &Torrent,
    offset: u64,
    length: u32,
    stamps: &mut Stamps,
    current: &mut Option<u32>,
) -> Result<Box<[u8]>, ReadError> {
    let mut bytes = vec![0; length as usize].into_boxed_slice();
    let mut rest: &mut [u8] = &mut bytes;
    for extent in torrent.layout.extents(offset, u64::from(length)) {
        let wide = usize::try_from(extent.length).map_err(|_| ReadError::NoSuchRange)?;
        let (part, behind) = (rest.split_at_mut_checked(wide)).ok_or(ReadError::NoSuchRange)?;
        if let ExtentSource::File(file) = extent.source {
            *current = Some(file);
            let (described, opened) = open_file(torrent, file)?;
            let read = Stamp::of(&opened).and_then(|stamp| {
                stamps.push((file, stamp));
                opened.read_exact_at(part, extent.offset)
            });
            if let Err(error) = read {
                let path = torrent.root.join(described.path);
                return Err(ReadError::Unreadable(path, error));
            }
            *current = None;
        }
        rest = behind;
    }
    match rest.is_empty() {
        true => Ok(bytes),
        false => Err(ReadError::NoSuchRange),
    }
}

/// Reads a piece of the info dictionary.
pub(super) fn read_metadata(torrent: &Torrent, piece: u32) -> Result<Vec<u8>, ReadError> {
    let start = u64::from(piece) * u64::from(METADATA_PIECE_LENGTH);
    let left = u64::from(torrent.shape.metadata_length).saturating_sub(start);
    if left == 0 {
        return Err(ReadError::NoSuchRange);
    }
    let length = left.min(METADATA_PIECE_LENGTH.into());
    let path = torrent.metainfo_path();
    let mut bytes = vec![0; usize::try_from(length).expect("a piece is short")];
    match read_info(torrent, &path, &mut bytes, start) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(ReadError::Metainfo(path, error)),
    }
}

/// Reads bytes of the info dictionary. A file that was changed since its torrent was loaded may have it
/// still, at the same place: its hash tells.
fn read_info(torrent: &Torrent, path: &Path, bytes: &mut [u8], start: u64) -> io::Result<()> {
    // Should a pipe have taken the place of the file: opening it does not wait for a writer.
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if FileStamp::new(&file.metadata()?) != torrent.metainfo_stamp {
        let mut info = vec![0; torrent.shape.metadata_length as usize];
        file.read_exact_at(&mut info, torrent.info_offset)?;
        if <[u8; 20]>::from(Sha1::digest(&info)) != torrent.info_hash.0 {
            let changed = "it is that of another torrent now";
            return Err(io::Error::new(io::ErrorKind::InvalidData, changed));
        }
    }
    file.read_exact_at(bytes, torrent.info_offset + start)
}
