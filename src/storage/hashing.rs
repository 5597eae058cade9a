//! Hashing one piece, on a thread.
//!
//! Owns the reading of one piece and of its one hash. Everything here blocks. It must not know who
//! asked, nor what was found out before.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::content::{ReadError, open_file};
use super::ledger::{Hashed, HashesAt, Stamps};
use crate::torrent::catalogue::Torrent;
use crate::torrent::content::PieceHasher;
use crate::torrent::layout::ExtentSource;
use crate::torrent::metainfo;
use crate::torrent::reader::Stamp;

/// Bytes in the hash of a piece.
const HASH_BYTES: usize = 20;

/// The outcome of a job.
pub(super) struct HashOutcome {
    pub(super) torrent: Arc<Torrent>,
    pub(super) piece: u32,
    pub(super) found: Found,
}

/// What a job has found out about a piece.
pub(super) enum Found {
    /// Whether it is good.
    Hashed(Result<Hashed, ReadError>),
    /// The stamps of its files now.
    Stamps(Stamps),
}

/// The files of a piece, each once.
pub(super) fn files_of(torrent: &Torrent, piece: u32) -> impl Iterator<Item = u32> {
    let (start, length) = span(torrent, piece);
    let extents = torrent.layout.extents(start, length);
    extents.filter_map(|extent| match extent.source {
        ExtentSource::File(file) => Some(file),
        ExtentSource::Zeros => None,
    })
}

fn span(torrent: &Torrent, piece: u32) -> (u64, u64) {
    let piece_length = u64::from(torrent.shape.piece_length);
    (u64::from(piece) * piece_length, piece_length)
}

/// The hash that a piece should have, and where those of its torrent stand.
pub(super) type Wanted = (HashesAt, [u8; HASH_BYTES]);

/// Hashes a piece.
pub(super) fn hash(
    torrent: &Torrent,
    piece: u32,
    (hashes, wanted): Wanted,
) -> Result<Hashed, ReadError> {
    let mut hasher = PieceHasher::default();
    let mut stamps = Stamps::new();
    let (start, length) = span(torrent, piece);
    for extent in torrent.layout.extents(start, length) {
        let ExtentSource::File(number) = extent.source else {
            hasher.add_zeros(extent.length);
            continue;
        };
        let (described, file) = open_file(torrent, number)?;
        let path = || torrent.root.join(described.path);
        let unreadable = |error| ReadError::Unreadable(path(), error);
        let before = Stamp::of(&file).map_err(unreadable)?;
        let added = hasher.add(&file, extent.offset, extent.length);
        added.map_err(unreadable)?;
        if Stamp::of(&file).map_err(unreadable)? != before {
            return Err(ReadError::Changing(path()));
        }
        stamps.push((number, before));
    }
    Ok(Hashed {
        is_good: hasher.finish() == wanted,
        stamps,
        hashes,
    })
}

/// What can be found out about the files of a piece. Of one that is not there nothing can.
pub(super) fn inspect(torrent: &Torrent, piece: u32) -> Stamps {
    let stamped = |number| {
        let (_, file) = open_file(torrent, number).ok()?;
        Some((number, Stamp::of(&file).ok()?))
    };
    files_of(torrent, piece).filter_map(stamped).collect()
}

/// Reads the hash that a piece should have.
pub(super) fn wanted(
    torrent: &Torrent,
    piece: u32,
    known: Option<HashesAt>,
) -> Result<Wanted, ReadError> {
    let path = torrent.metainfo_path();
    let found = || -> io::Result<_> {
        // Should a pipe have taken the place of the file: opening it does not wait for a writer.
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(&path)?;
        let now = Stamp::of(&file)?;
        let hashes = match known.filter(|known| known.stamp == now) {
            Some(known) => known,
            None => HashesAt {
                offset: find_hashes(torrent, &file)?,
                stamp: now,
            },
        };
        let mut wanted = [0; HASH_BYTES];
        let offset = hashes.offset + u64::from(piece) * HASH_BYTES as u64;
        file.read_exact_at(&mut wanted, offset)?;
        Ok((hashes, wanted))
    };
    found().map_err(|error| ReadError::Metainfo(PathBuf::from(&path), error))
}

fn find_hashes(torrent: &Torrent, file: &File) -> io::Result<u64> {
    let mut raw = Vec::new();
    file.take(metainfo::METAINFO_MAX_BYTES)
        .read_to_end(&mut raw)?;
    match metainfo::piece_hashes_at(&raw, &torrent.info_hash) {
        Ok(Some(offset)) => Ok(offset),
        Ok(None) => Err(io::Error::new(
            ErrorKind::InvalidData,
            "it is that of another torrent now",
        )),
        Err(error) => Err(io::Error::new(ErrorKind::InvalidData, error)),
    }
}
