//! From queued requests to a batch in the outbox: where each block lies, and whether it is resident.
//!
//! Owns the order of questions: is the piece good, is the file mapped, is the range resident? A reader
//! thread works on the first that is not; the peer's blocks wait meanwhile.

use std::ops::Range;
use std::sync::Arc;

use super::connection::Wait;
use super::outbox::{BATCH_BLOCKS, Body, EXTENTS_PER_BLOCK, Gathered};
use super::resident::ResidentRanges;
use super::shared::{Process, Shared};
use crate::peer::key::PeerKey;
use crate::peer::session::{BlockFailure, Session};
use crate::storage::{FileKey, Lookup, PieceStatus, Storage};
use crate::timers::Time;
use crate::torrent::catalogue::Torrent;
use crate::torrent::layout::{Extent, ExtentSource};
use crate::wire::encoder::piece_header;
use crate::wire::message::Request;

/// The longest read: a disk does it in one sweep, and it is short enough for many peers to take turns.
/// Unit: bytes.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The outcome of staging.
pub(super) enum Staged<'a> {
    /// There is nothing to send now.
    Nothing,
    /// The outbox has a batch, to be sent with these control bytes.
    Batch(&'a [u8]),
    /// This block is the first and cannot be sent.
    Failed(Request, BlockFailure),
}

/// A connection's part in staging.
pub(super) struct Stage<'a> {
    pub(super) key: PeerKey,
    pub(super) torrent: Option<&'a Arc<Torrent>>,
    pub(super) resident: &'a mut ResidentRanges,
    pub(super) gathered: Option<&'a Arc<Gathered>>,
    pub(super) wait: &'a mut Wait,
}

/// A range of a file that is worth reading.
struct WorthReading {
    start: u64,
    /// Where what the peer has requested ends. What follows is read ahead.
    requested_end: u64,
    end: u64,
}

impl WorthReading {
    fn whole(&self) -> Range<u64> {
        self.start..self.end
    }
}

enum Located {
    Ready,
    Wait,
    Failed(BlockFailure),
}

impl Stage<'_> {
    /// Fills the outbox with control bytes and as many blocks as are ready and fit the budget.
    ///
    /// The budget never cuts a block, so one byte allows one block.
    pub(super) fn fill<'s>(
        &mut self,
        session: &'s Session,
        shared: &mut Shared,
        budget_bytes: u64,
    ) -> Staged<'s> {
        let Shared {
            outbox,
            bodies,
            process: Process { storage, .. },
            now,
            ..
        } = shared;
        outbox.clear();
        let transmit = session.poll_transmit();
        let control = transmit.control;
        let Some(torrent) = self.torrent else {
            outbox.push_control(control.len());
            return match outbox.bytes() {
                0 => Staged::Nothing,
                _ => Staged::Batch(control),
            };
        };
        let mut locator = Locator {
            key: self.key,
            torrent,
            resident: self.resident,
            gathered: self.gathered,
            wait: self.wait,
            storage,
            now: *now,
            trusted: None,
            bodies,
        };
        let mut budget_bytes = budget_bytes;
        if let Some((request, sent)) = transmit.partial {
            match locator.locate(&request, &transmit.blocks) {
                Located::Ready => outbox.push_block(piece_header(request), locator.bodies, sent),
                Located::Wait => return Staged::Nothing,
                Located::Failed(failure) => return Staged::Failed(request, failure),
            }
            budget_bytes = budget_bytes.saturating_sub(u64::from(request.length));
        }
        outbox.push_control(control.len());
        let mut blocks = transmit.blocks;
        for _ in 0..BATCH_BLOCKS {
            if budget_bytes == 0 || !outbox.has_room_for(1 + EXTENTS_PER_BLOCK) {
                break;
            }
            let Some(&request) = blocks.next() else {
                break;
            };
            match locator.locate(&request, &blocks) {
                Located::Ready => outbox.push_block(piece_header(request), locator.bodies, 0),
                Located::Failed(failure) if outbox.bytes() == 0 => {
                    return Staged::Failed(request, failure);
                }
                Located::Failed(_) | Located::Wait => break,
            }
            budget_bytes = budget_bytes.saturating_sub(u64::from(request.length));
        }
        match outbox.bytes() {
            0 => Staged::Nothing,
            _ => Staged::Batch(control),
        }
    }
}

/// Finds where blocks lie, for one connection.
struct Locator<'a> {
    key: PeerKey,
    torrent: &'a Arc<Torrent>,
    resident: &'a mut ResidentRanges,
    gathered: Option<&'a Arc<Gathered>>,
    wait: &'a mut Wait,
    storage: &'a mut Storage,
    now: Time,
    /// The piece that was last found to be good: blocks of one follow each other.
    trusted: Option<u32>,
    bodies: &'a mut Vec<Body>,
}

impl Locator<'_> {
    /// Fills `bodies` with the parts of the block if all of it can be sent without waiting.
    ///
    /// The requests `following` it determine how far a reader reads.
    fn locate<'b, I>(&mut self, request: &Request, following: &I) -> Located
    where
        I: Iterator<Item = &'b Request> + Clone,
    {
        self.bodies.clear();
        if *self.wait == Wait::Reader {
            return Located::Wait;
        }
        let torrent = self.torrent;
        if self.trusted != Some(request.index) {
            match self.storage.piece_status(torrent, request.index, self.now) {
                PieceStatus::Good => self.trusted = Some(request.index),
                PieceStatus::Bad => return Located::Failed(BlockFailure::BadPiece),
                PieceStatus::Unknown => {
                    let queued = self.storage.hash(self.key, torrent, request.index);
                    return self.wait(queued.is_ok());
                }
            }
        }
        let offset = torrent.shape.offset_of(request);
        let mut extents = torrent.layout.extents(offset, u64::from(request.length));
        for extent in extents.by_ref().take(EXTENTS_PER_BLOCK) {
            let ExtentSource::File(file) = extent.source else {
                self.bodies.push(Body::Zeros(extent.length));
                continue;
            };
            match self.locate_extent(file, &extent, request, following) {
                Located::Ready => {}
                other => return other,
            }
        }
        if extents.next().is_some() {
            return self.locate_gathered(offset, request.length);
        }
        Located::Ready
    }

    fn locate_extent<'b, I>(
        &mut self,
        file: u32,
        extent: &Extent,
        request: &Request,
        following: &I,
    ) -> Located
    where
        I: Iterator<Item = &'b Request> + Clone,
    {
        let wanted = extent.offset..extent.offset + extent.length;
        let file_key = FileKey {
            torrent: self.torrent.id,
            file,
        };
        let content = match self.storage.lookup(file_key, self.now) {
            Lookup::Mapped(content) => content,
            Lookup::Failed => return Located::Failed(BlockFailure::Unreadable),
            Lookup::Absent => {
                let range = self.worth_reading(file, extent, request, following);
                return self.park(file, &range);
            }
        };
        if !self.resident.contain(file, &wanted, self.now) {
            let range = self.worth_reading(file, extent, request, following);
            if self.storage.is_resident(&content, range.whole()) {
                self.resident.insert(file, range.whole(), self.now);
                self.resident.contain(file, &wanted, self.now);
            } else if !self.storage.is_resident(&content, wanted.clone()) {
                return self.park(file, &range);
            }
        }
        self.bodies.push(Body::Mapped(content, wanted));
        Located::Ready
    }

    /// Hands the range to a reader thread. The peer's blocks wait until it is read.
    fn park(&mut self, file: u32, range: &WorthReading) -> Located {
        let queued = self
            .storage
            .read(self.key, self.torrent, file, range.whole())
            .is_ok();
        if queued {
            self.resident.read_ahead(range.end - range.requested_end);
        }
        self.wait(queued)
    }

    fn wait(&mut self, queued: bool) -> Located {
        *self.wait = match queued {
            true => Wait::Reader,
            false => Wait::ReaderRoom,
        };
        Located::Wait
    }

    /// The range of the file to read when this extent is not resident: what the peer has requested from
    /// there on, and, when it reads on, what it will request next in the piece.
    fn worth_reading<'b, I>(
        &self,
        file: u32,
        extent: &Extent,
        request: &Request,
        following: &I,
    ) -> WorthReading
    where
        I: Iterator<Item = &'b Request> + Clone,
    {
        let ends = request.begin.saturating_add(request.length);
        let run_end = (following.clone())
            .take_while(|next| next.index == request.index)
            .fold(ends, |end, next| match next.begin == end {
                true => end.saturating_add(next.length),
                false => end,
            });
        let run_bytes = u64::from(run_end.saturating_sub(request.begin));
        let piece_length = self.torrent.shape.piece_length_of(request.index);
        let piece_length = piece_length.expect("a queued request is legal");
        let piece_left = u64::from(piece_length.saturating_sub(request.begin));
        let begins_piece = request.begin == 0;
        let ahead_bytes = (self.resident).ahead_bytes(file, extent.offset, begins_piece);
        let content_file = self.torrent.file(file);
        let content_file = content_file.expect("an extent lies in a file of its torrent");
        let end_of = |bytes: u64| {
            let end = extent.offset + bytes.clamp(extent.length, READ_BYTES_MAX);
            end.min(content_file.length)
        };
        WorthReading {
            start: extent.offset,
            requested_end: end_of(run_bytes),
            end: end_of(piece_left.min(run_bytes + ahead_bytes)),
        }
    }

    fn locate_gathered(&mut self, offset: u64, length: u32) -> Located {
        self.bodies.clear();
        if let Some(gathered) = self.gathered
            && (gathered.offset, gathered.length) == (offset, length)
        {
            if gathered.bytes.is_empty() {
                return Located::Failed(BlockFailure::Unreadable);
            }
            self.bodies.push(Body::Gathered(Arc::clone(gathered)));
            return Located::Ready;
        }
        let queued = self
            .storage
            .gather(self.key, self.torrent, offset, length)
            .is_ok();
        self.wait(queued)
    }
}
