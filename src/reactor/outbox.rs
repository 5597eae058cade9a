//! The outbox: one batch of what a peer is sent, as a vectored write wants it.
//!
//! A loop has one, which is filled again for each peer. It keeps nothing of what a transport did not
//! take, since the session knows how far a peer has come. It owns the order of the parts, and keeps
//! the content that they lie in alive during the call.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::storage::content::Content;
use crate::sys::copies::Copies;
use crate::sys::{self, MAX_SLICES, Slice};
use crate::wire::encoder::PIECE_HEADER_LENGTH;

/// Extents that a block may have in an outbox; one with more is gathered by a reader, so that a
/// torrent of tiny files costs neither mappings nor slices by the thousand.
pub(super) const EXTENTS_PER_BLOCK: usize = 4;

/// Blocks that one peer is sent in one write: as many as the socket takes when it has drained. With
/// more, thousands of peers would wait longer for their turns and gain nothing.
pub(super) const BATCH_BLOCKS: usize = 16;

/// A block that a reader copied together from many small extents.
pub(super) struct Gathered {
    /// Where the block begins in the torrent, in bytes.
    pub(super) offset: u64,
    /// The length that was requested, in bytes.
    pub(super) length: u32,
    /// Its bytes; empty when they could not be read.
    pub(super) bytes: Box<[u8]>,
}

/// A part of the batch.
enum Part {
    /// What is left of the header of a piece message, from this byte on.
    Header([u8; PIECE_HEADER_LENGTH], usize),
    /// The control bytes, which stay with the peer until they are written.
    Control,
    /// A range of a mapped file.
    Mapped(Arc<Content>, Range<u64>),
    /// A range of a gathered block.
    Gathered(Arc<Gathered>, Range<usize>),
    /// Padding (BEP 47).
    Zeros(usize),
}

/// The batch.
#[derive(Default)]
pub(super) struct Outbox {
    parts: Vec<Part>,
    bytes: usize,
}

/// What one block lies in, in order.
pub(super) enum Body {
    /// A range of a mapped file.
    Mapped(Arc<Content>, Range<u64>),
    /// Padding (BEP 47).
    Zeros(u64),
    /// A block that a reader copied together.
    Gathered(Arc<Gathered>),
}

impl Outbox {
    /// Begins another batch.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
    }

    /// How many bytes the batch has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether `parts` more parts fit.
    pub(super) fn has_room_for(&self, parts: usize) -> bool {
        self.parts.len() + parts <= MAX_SLICES
    }

    /// Adds the peer's control bytes, which are handed to [`Outbox::write`] again.
    pub(super) fn push_control(&mut self, length: usize) {
        if length > 0 {
            self.parts.push(Part::Control);
            self.bytes += length;
        }
    }

    /// Adds a piece message without its first `sent` bytes.
    pub(super) fn push_block(
        &mut self,
        header: [u8; PIECE_HEADER_LENGTH],
        bodies: &mut Vec<Body>,
        sent: u32,
    ) {
        let sent = sent as usize;
        if sent < PIECE_HEADER_LENGTH {
            self.parts.push(Part::Header(header, sent));
            self.bytes += PIECE_HEADER_LENGTH - sent;
        }
        let mut skip = sent.saturating_sub(PIECE_HEADER_LENGTH) as u64;
        for body in bodies.drain(..) {
            let length = body.length();
            let skipped = skip.min(length);
            skip -= skipped;
            if skipped < length {
                self.push_body(body, skipped);
            }
        }
    }

    fn push_body(&mut self, body: Body, skipped: u64) {
        let narrow = |length| usize::try_from(length).expect("a block has at most 128 KiB");
        self.bytes += narrow(body.length() - skipped);
        self.parts.push(match body {
            Body::Mapped(content, range) => Part::Mapped(content, range.start + skipped..range.end),
            Body::Zeros(length) => Part::Zeros(narrow(length - skipped)),
            Body::Gathered(gathered) => {
                let length = gathered.bytes.len();
                Part::Gathered(gathered, narrow(skipped)..length)
            }
        });
    }

    /// Offers the whole batch to a socket in one system call and returns how much it took.
    pub(super) fn write(&self, socket: impl AsFd, control: &[u8]) -> io::Result<usize> {
        self.lend(control, |slices| sys::writev(socket.as_fd(), slices))
    }

    /// Has the beginning of the batch copied, at most `most` bytes.
    pub(super) fn copy<'c>(
        &self,
        control: &[u8],
        copies: &'c mut Copies,
        most: usize,
    ) -> io::Result<&'c mut [u8]> {
        self.lend(control, |slices| copies.fill(slices, most))
    }

    fn lend<R>(&self, control: &[u8], call: impl FnOnce(&[Slice<'_>]) -> R) -> R {
        let mut slices = [Slice::Bytes(&[]); MAX_SLICES];
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = match part {
                Part::Header(header, sent) => {
                    let rest = header.get(*sent..);
                    Slice::Bytes(rest.expect("a header that is sent is not pushed"))
                }
                Part::Control => Slice::Bytes(control),
                Part::Mapped(content, range) => content.slice(range.clone()),
                Part::Gathered(gathered, range) => {
                    let bytes = gathered.bytes.get(range.clone());
                    Slice::Bytes(bytes.expect("the range ends with the block"))
                }
                Part::Zeros(length) => Slice::Zeros { length: *length },
            };
        }
        let used = slices.get(..self.parts.len());
        call(used.expect("parts are pushed only while there is room"))
    }
}

impl Body {
    /// Units: bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Mapped(_, range) => range.end - range.start,
            Self::Zeros(length) => *length,
            Self::Gathered(gathered) => gathered.bytes.len() as u64,
        }
    }
}
