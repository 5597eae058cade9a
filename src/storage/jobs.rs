//! The jobs of reader threads and their results.
//!
//! Everything here may block.

use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::content::{Content, ReadError, open_file};
use super::ledger::Stamps;
use super::{FileKey, hashing};
use crate::peer::key::PeerKey;
use crate::torrent::catalogue::Torrent;
use crate::torrent::id::TorrentId;
use crate::torrent::layout::ExtentSource;
use crate::torrent::reader::FileStamp;
use crate::wire::extension::METADATA_PIECE_LENGTH;
use crate::workers::contained;

/// The result of a job.
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
        peer: PeerKey,
        torrent: TorrentId,
        piece: u32,
        result: Result<Vec<u8>, ReadError>,
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

/// Brings a range of a file into memory, mapping it first when there is no mapping.
pub(super) fn read(
    torrent: &Torrent,
    file: u32,
    range: &Range<u64>,
    content: Option<Arc<Content>>,
) -> Result<Arc<Content>, ReadError> {
    let content = match content {
        Some(content) => content,
        None => Arc::new(Content::open(torrent, file)?),
    };
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
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)].into_boxed_slice();
    let mut rest: &mut [u8] = &mut bytes;
    for extent in torrent.layout.extents(offset, u64::from(length)) {
        let wide = usize::try_from(extent.length).map_err(|_| ReadError::NoSuchRange)?;
        let (part, behind) = (rest.split_at_mut_checked(wide)).ok_or(ReadError::NoSuchRange)?;
        if let ExtentSource::File(file) = extent.source {
            *current = Some(file);
            let (described, opened) = open_file(torrent, file)?;
            let read = hashing::stamp(&opened).and_then(|stamp| {
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
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
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
        let length = usize::try_from(torrent.shape.metadata_length).unwrap_or(usize::MAX);
        let mut info = vec![0; length];
        file.read_exact_at(&mut info, torrent.info_offset)?;
        if <[u8; 20]>::from(Sha1::digest(&info)) != torrent.info_hash.0 {
            let changed = "it is that of another torrent now";
            return Err(io::Error::new(io::ErrorKind::InvalidData, changed));
        }
    }
    file.read_exact_at(bytes, torrent.info_offset + start)
}
