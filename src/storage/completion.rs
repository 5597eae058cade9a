//! The results of reader threads, as the loop takes them.

use std::ops::Range;
use std::sync::Arc;

use super::FileKey;
use super::content::{Content, ReadError};
use crate::peer::key::PeerKey;
use crate::torrent::catalogue::Torrent;

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
