//! Hashing one piece, on a thread.
//!
//! Owns the reading of one piece and of its one hash. Everything here blocks. It must not know who
//! asked, nor what was found out before.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::content::{ReadError, open_file};
use super::ledger::{Hashed, HashesAt, Stamp, Stamps};
use crate::torrent::catalogue::Torrent;
use crate::torrent::layout::ExtentSource;
use crate::torrent::metainfo;

/// Bytes that are read and hashed at a time: they stay in the processor's cache in between.
const STEP_BYTES: usize = 128 * 1024;

/// Bytes in the hash of a piece.
const HASH_BYTES: usize = 20;

/// The result of a job.
pub(super) enum HashOutcome {
    Hashed {
        torrent: Arc<Torrent>,
        piece: u32,
        result: Result<Hashed, ReadError>,
    },
    Inspected {
        torrent: Arc<Torrent>,
        piece: u32,
        stamps: Stamps,
    },
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

/// Hashes a piece.
pub(super) fn hash(
    torrent: &Torrent,
    piece: u32,
    hashes: Option<HashesAt>,
) -> Result<Hashed, ReadError> {
    let (hashes, wanted) = wanted(torrent, piece, hashes)?;
    let mut digest = Sha1::new();
    let mut buffer = vec![0; STEP_BYTES];
    let mut stamps = Stamps::new();
    let (start, length) = span(torrent, piece);
    for extent in torrent.layout.extents(start, length) {
        let ExtentSource::File(number) = extent.source else {
            buffer.fill(0);
            steps(&mut buffer, extent.length, |part, _| {
                digest.update(part);
                Ok(())
            })?;
            continue;
        };
        let (described, file) = open_file(torrent, number)?;
        let path = || torrent.root.join(described.path);
        let unreadable = |error| ReadError::Unreadable(path(), error);
        let before = stamp(&file).map_err(unreadable)?;
        steps(&mut buffer, extent.length, |part, at| {
            file.read_exact_at(part, extent.offset + at)
                .map_err(unreadable)?;
            digest.update(part);
            Ok(())
        })?;
        if stamp(&file).map_err(unreadable)? != before {
            return Err(ReadError::Changing(path()));
        }
        stamps.push((number, before));
    }
    let found: [u8; HASH_BYTES] = digest.finalize().into();
    Ok(Hashed {
        is_good: found == wanted,
        stamps,
        hashes,
    })
}

/// Hands parts of the buffer to `take`, with where they begin, until they make up the length.
fn steps(
    buffer: &mut [u8],
    length: u64,
    mut take: impl FnMut(&mut [u8], u64) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut at = 0;
    while at < length {
        let step = usize::try_from(length - at).unwrap_or(usize::MAX);
        let (part, _) = buffer.split_at_mut(step.min(buffer.len()));
        take(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// What a file is stamped with now.
pub(super) fn stamp(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    let seconds = metadata.mtime().saturating_mul(1_000_000_000);
    Ok(Stamp {
        inode: metadata.ino(),
        modified_ns: seconds.saturating_add(metadata.mtime_nsec()),
    })
}

/// What can be found out about the files of a piece. Of one that is not there nothing can.
pub(super) fn inspect(torrent: &Torrent, piece: u32) -> Stamps {
    let stamped = |number| {
        let (_, file) = open_file(torrent, number).ok()?;
        Some((number, stamp(&file).ok()?))
    };
    files_of(torrent, piece).filter_map(stamped).collect()
}

/// The hash that a piece should have, and where it stands.
fn wanted(
    torrent: &Torrent,
    piece: u32,
    known: Option<HashesAt>,
) -> Result<(HashesAt, [u8; HASH_BYTES]), ReadError> {
    let path = torrent.metainfo_path();
    let found = || -> io::Result<_> {
        // Should a pipe have taken the place of the file: opening it does not wait for a writer.
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(&path)?;
        let now = stamp(&file)?;
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
