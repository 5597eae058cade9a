//! A peer from its first byte to its last, as a pure state machine.
//!
//! A [`Session`] owns the decoder, the incomplete message, the deadlines, the protocol and the
//! [`Phase`] of one connection. It performs no I/O and reads no clock, so the simulation and the
//! fuzzers drive the same code as the event loop.
//!
//! The caller
//!
//! - reads bytes while [`Session::wants_bytes`], behind what [`Session::prepare`] puts into the
//!   buffer, and hands all of them to [`Session::receive`] until that has no [`Event`] left;
//! - carries out each event before the next: [`Event::TorrentWanted`] by
//!   [`Session::torrent_loaded`], at once or later, the others by notifying the choker;
//! - writes what [`Session::poll_transmit`] shows, from its beginning, and reports how many bytes were
//!   taken by [`Session::sent`], or by [`Session::write_blocked`] when none were;
//! - calls [`Session::timeout`] at [`Session::poll_at`] or later, after each of the above.
//!
//! Every method that can end the connection returns the reason. The session is then in
//! [`Phase::Closing`], and takes nothing more.
//!
//! Bounds: at most [`REQQ`] requests are queued, at most [`CONTROL_LIMIT_BYTES`] of control bytes
//! plus the answers to one buffer of input, and an incomplete message of at most [`MAX_TAIL`] bytes.

use std::mem;
use std::net::IpAddr;
use std::ops::Range;

use super::close::CloseReason;
pub use super::machine::{CONTROL_LIMIT_BYTES, Opening, Transmit, Upload};
use super::machine::{Effect, Peer};
pub use super::queue::{Blocks, REQQ, Sent};
use crate::timers::{Deadlines, Time, Timeouts};
use crate::torrent::layout::Shape;
use crate::wire::decoder::{Decoded, Decoder, MAX_TAIL};
use crate::wire::extension::OurHandshake;
use crate::wire::handshake::HANDSHAKE_LENGTH;
use crate::wire::message::{InfoHash, Message, PeerId, Request};

/// Blocks in a row that a peer may lose to unreadable content before it is closed. A torrent with one
/// bad file still serves the others; a peer that requests only the bad one is disconnected.
const UNREADABLE_BLOCKS_MAX: u16 = 64;

/// The same for blocks of pieces that failed their hash, which cost no read. Clients request a whole
/// piece at once, and most of them request rejected blocks again while other pieces are served.
const BAD_BLOCKS_MAX: u16 = 8192;

/// The unit in which requested bytes are counted.
const REQUESTED_UNIT_BYTES: u32 = 64;

/// Where a connection is. This is the state diagram of a peer:
///
/// ```text
///  accepted                                   dialled: our handshake is queued
///     │                                          │
///     ▼        first 48 bytes                    ▼
///  Handshake ◀───────────────────────────────────┘
///     │  Event::TorrentWanted
///     ▼        torrent_loaded: our handshake is queued unless it was dialled
///  Loading ──────────────▶ AwaitingPeerId
///                             │  peer id: have-all or bitfield, extension handshake
///                             ▼  Event::Opened
///                            Open ── requests, interest, metadata
///
///  within Open, see Upload:
///        interested, or a request         unchoke
///  Choked ───────────────▶ Waiting ───────────────▶ Unchoked { interested: true }
///    │ ▲                      │ ▲                      │ │  ▲
///    │ └─── not interested ───┘ └──────── choke ───────┘ │  │ interested, or a request
///    │                                                   ▼  │
///    └───────────────── unchoke ──────────▶ Unchoked { interested: false }
///
///  any ── an error, a time-out, or the caller's close ──▶ Closing
/// ```
#[derive(Debug)]
pub enum Phase {
    /// The first 48 bytes are awaited.
    Handshake {
        /// The only torrent that the peer may name, when we have dialled it.
        dialled: Option<InfoHash>,
    },
    /// The peer has named a torrent that is being loaded. Nothing is decoded meanwhile.
    Loading(Asked),
    /// The last 20 bytes of the handshake are awaited. Some trackers test for NAT without them.
    AwaitingPeerId {
        /// The shape of the peer's torrent.
        shape: Shape,
    },
    /// The handshakes are exchanged. [`Session::upload`] says whether the peer is served.
    Open {
        /// The shape of the peer's torrent.
        shape: Shape,
    },
    /// The connection is over.
    Closing {
        /// The first reason.
        reason: CloseReason,
        /// Whether [`Event::Opened`] was returned before.
        was_open: bool,
    },
}

/// The content of the first 48 bytes of a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The torrent that the peer wants.
    pub info_hash: InfoHash,
    reserved: [u8; 8],
    is_dialled: bool,
}

/// An event that the caller must carry out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The peer has named this torrent: call [`Session::torrent_loaded`] or [`Session::close`].
    TorrentWanted(InfoHash),
    /// The handshakes are exchanged.
    Opened,
    /// The peer wants blocks.
    Interested,
    /// The peer wants no blocks: it must lose its slot, by [`Session::choke`] if it has one.
    NotInterested,
    /// The peer has these pieces, if [`Session::report_pieces`] was called.
    HasPieces {
        /// The piece of the highest bit.
        first: u32,
        /// One bit for each piece.
        bits: u64,
    },
    /// Blocks were queued. It comes once, behind all other events of the bytes received.
    Requested {
        /// Bytes of these blocks, rounded, 4 MiB at most.
        bytes: u32,
    },
    /// [`Session::poll_metadata`] may have something.
    MetadataRequested,
}

/// Facts about us that a peer learns.
#[derive(Clone, Copy, Debug)]
pub struct Introduction {
    /// Our peer id.
    pub peer_id: PeerId,
    /// The port that we listen on.
    pub port: u16,
    /// The peer's address as we see it (BEP 10, `yourip`).
    pub your_ip: IpAddr,
}

/// Why a block cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockFailure {
    /// Its content cannot be read.
    Unreadable,
    /// Its piece does not have the hash that the torrent says.
    BadPiece,
}

/// One connection's protocol, framing and deadlines.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    decoder: Decoder,
    /// Bytes of a message that is not complete; empty between messages.
    tail: Box<[u8]>,
    deadlines: Deadlines,
    peer: Peer,
    /// Blocks in a row that could not be sent.
    failed_blocks: u16,
    /// Units of [`REQUESTED_UNIT_BYTES`] in blocks that were queued since [`Event::Requested`] was
    /// returned, each block rounded up. In 16 bits, since every peer has it.
    requested: u16,
}

/// Opening.
impl Session {
    /// A peer has connected to us.
    #[must_use]
    pub fn accepted(now: Time) -> Self {
        Self {
            phase: Phase::Handshake { dialled: None },
            decoder: Decoder::new(),
            tail: Box::default(),
            deadlines: Deadlines::new(now),
            peer: Peer::default(),
            failed_blocks: 0,
            requested: 0,
        }
    }

    /// We connect to a peer, for this torrent: our handshake is queued at once.
    #[must_use]
    pub fn dialled(now: Time, info_hash: InfoHash, peer_id: PeerId) -> Self {
        let mut session = Self::accepted(now);
        session.phase = Phase::Handshake {
            dialled: Some(info_hash),
        };
        session.peer.open(info_hash, peer_id);
        session
    }

    /// The torrent of [`Event::TorrentWanted`] is loaded. Returns the bytes behind the info-hash, which
    /// must be handed to [`Session::receive`] next. They are empty while that has not returned None.
    ///
    /// # Panics
    ///
    /// When no torrent is awaited: the caller has mixed up its connections.
    pub fn torrent_loaded(&mut self, shape: Shape, opening: Opening, peer_id: PeerId) -> Box<[u8]> {
        let Phase::Loading(asked) = self.phase else {
            unreachable!("no torrent is awaited in {:?}", self.phase);
        };
        if asked.is_dialled {
            self.peer.handle_extensions(asked.reserved);
        } else {
            (self.peer).handle_handshake(asked.reserved, asked.info_hash, peer_id);
        }
        self.peer.set_opening(opening);
        self.phase = Phase::AwaitingPeerId { shape };
        mem::take(&mut self.tail)
    }

    /// Ends the session. The first reason stays.
    pub fn close(&mut self, reason: CloseReason) {
        if !self.is_closing() {
            let was_open = matches!(self.phase, Phase::Open { .. });
            self.phase = Phase::Closing { reason, was_open };
        }
    }

    fn closed_on_error<T>(&mut self, outcome: Result<T, CloseReason>) -> Result<T, CloseReason> {
        if let Err(reason) = &outcome {
            self.close(*reason);
        }
        outcome
    }
}

/// Receiving.
impl Session {
    /// Copies the incomplete message to the front of `buffer`, and returns the range for the next
    /// bytes. During the handshake it ends with the handshake, so that later bytes stay in the socket
    /// while the torrent is loaded.
    ///
    /// # Panics
    ///
    /// When the buffer has no more than [`MAX_TAIL`] bytes.
    pub fn prepare(&self, buffer: &mut [u8]) -> Range<usize> {
        assert!(buffer.len() > MAX_TAIL, "the buffer holds any message");
        let held = self.tail.len();
        let (front, _) = buffer.split_at_mut(held);
        front.copy_from_slice(&self.tail);
        let end = match self.phase {
            Phase::Handshake { .. } => HANDSHAKE_LENGTH,
            _ => buffer.len(),
        };
        held..end
    }

    /// Decodes bytes that begin with the incomplete message, see [`Session::prepare`], up to the next
    /// event, and leaves the bytes behind it in `bytes`. Call it until it returns None: then all bytes
    /// are taken, and the session keeps an incomplete message.
    pub fn receive(
        &mut self,
        bytes: &mut &[u8],
        now: Time,
        ours: &Introduction,
    ) -> Result<Option<Event>, CloseReason> {
        let outcome = self.decode(bytes, now, ours);
        self.closed_on_error(outcome)
    }

    fn decode(
        &mut self,
        bytes: &mut &[u8],
        now: Time,
        ours: &Introduction,
    ) -> Result<Option<Event>, CloseReason> {
        // Its bytes are in front of `bytes`.
        self.tail = Box::default();
        let mut completed = false;
        while !matches!(self.phase, Phase::Loading(_)) {
            match self.decoder.decode(bytes)? {
                Decoded::Incomplete { consumed } => {
                    *bytes = behind(bytes, consumed);
                    break;
                }
                Decoded::Message { consumed, message } => {
                    *bytes = behind(bytes, consumed);
                    // A part of a bitfield is no sign of life: it may be one byte.
                    completed |= !self.decoder.mid_body();
                    if let Some(event) = self.handle(&message, now, ours)? {
                        let mid_message = self.decoder.mid_body();
                        self.deadlines.received(now, completed, mid_message);
                        return Ok(Some(event));
                    }
                }
            }
        }
        let requested = mem::take(&mut self.requested);
        if requested > 0 {
            self.deadlines.received(now, completed, false);
            let bytes = u32::from(requested) * REQUESTED_UNIT_BYTES;
            return Ok(Some(Event::Requested { bytes }));
        }
        let rest = mem::take(bytes);
        assert!(rest.len() <= MAX_TAIL, "more was read than was asked for");
        if !rest.is_empty() {
            self.tail = rest.into();
        }
        let mid_message = !rest.is_empty() || self.decoder.mid_body();
        self.deadlines.received(now, completed, mid_message);
        Ok(None)
    }

    fn handle(
        &mut self,
        message: &Message<'_>,
        now: Time,
        ours: &Introduction,
    ) -> Result<Option<Event>, CloseReason> {
        match (&self.phase, message) {
            (
                Phase::Handshake { dialled },
                &Message::Handshake {
                    reserved,
                    info_hash,
                },
            ) => {
                if dialled.is_some_and(|wanted| wanted != info_hash) {
                    return Err(CloseReason::UnknownTorrent);
                }
                self.phase = Phase::Loading(Asked {
                    info_hash,
                    reserved,
                    is_dialled: dialled.is_some(),
                });
                Ok(Some(Event::TorrentWanted(info_hash)))
            }
            (&Phase::AwaitingPeerId { shape }, Message::PeerId(id)) => {
                let opening = self.peer.opening();
                let mut extensions = Vec::new();
                extension_handshake(&shape, opening, ours).encode(&mut extensions);
                self.peer
                    .handle_peer_id(*id, ours.peer_id, &shape, &extensions)?;
                self.deadlines.handshake_done(now);
                self.phase = Phase::Open { shape };
                Ok(Some(Event::Opened))
            }
            (Phase::Open { shape }, message) => {
                let effect = self.peer.handle_message(message, shape)?;
                if let (Effect::Requested { .. }, Message::Request(request)) = (effect, message) {
                    let units = request.length.div_ceil(REQUESTED_UNIT_BYTES);
                    let units = u16::try_from(units).unwrap_or(u16::MAX);
                    self.requested = self.requested.saturating_add(units);
                }
                let event = match effect {
                    Effect::None
                    | Effect::Requested {
                        newly_interested: false,
                    } => return Ok(None),
                    Effect::Interested
                    | Effect::Requested {
                        newly_interested: true,
                    } => Event::Interested,
                    Effect::NotInterested => Event::NotInterested,
                    Effect::HasPieces { first, bits } => Event::HasPieces { first, bits },
                    Effect::MetadataRequested => Event::MetadataRequested,
                };
                self.update_waiting();
                Ok(Some(event))
            }
            (phase, message) => {
                unreachable!("the decoder yields {message:?} in {phase:?}")
            }
        }
    }

    /// Returns true if the peer may be read from: not while it does not take its answers, so that they
    /// are bounded, nor while its torrent is being loaded.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        !matches!(self.phase, Phase::Loading(_) | Phase::Closing { .. })
            && !self.peer.is_backlogged()
    }
}

/// Sending.
impl Session {
    /// What to write next, in the order of the wire.
    #[must_use]
    pub fn poll_transmit(&self) -> Transmit<'_> {
        self.peer.poll_transmit()
    }

    /// The transport took `bytes` of what [`Session::poll_transmit`] showed, from its beginning.
    /// `is_full`: it has no room for more.
    pub fn sent(&mut self, bytes: usize, is_full: bool, now: Time) -> Sent {
        let sent = self.peer.handle_sent(bytes);
        self.deadlines.sent(now, is_full);
        if sent.blocks > 0 {
            self.failed_blocks = 0;
        }
        sent
    }

    /// The transport took nothing, since it has no room.
    pub fn write_blocked(&mut self, now: Time) {
        self.deadlines.blocked(now);
    }

    /// Nothing is offered to the transport any more: what it did not take was cancelled.
    pub fn nothing_to_write(&mut self) {
        self.deadlines.nothing_waits();
    }

    /// A block cannot be sent: it is rejected. Ends the session of a peer that cannot be notified, or
    /// loses too many in a row.
    pub fn block_failed(
        &mut self,
        request: Request,
        failure: BlockFailure,
    ) -> Result<(), CloseReason> {
        let outcome = self
            .count_failure(failure)
            .and_then(|()| self.peer.reject_block(request));
        self.closed_on_error(outcome)
    }

    /// A file of a block was truncated while the block was written. It is tried again, up to a limit.
    pub fn write_failed(&mut self) -> Result<(), CloseReason> {
        let outcome = self.count_failure(BlockFailure::Unreadable);
        self.closed_on_error(outcome)
    }

    fn count_failure(&mut self, failure: BlockFailure) -> Result<(), CloseReason> {
        self.failed_blocks = self.failed_blocks.saturating_add(1);
        let limit = match failure {
            BlockFailure::Unreadable => UNREADABLE_BLOCKS_MAX,
            BlockFailure::BadPiece => BAD_BLOCKS_MAX,
        };
        match self.failed_blocks > limit {
            true => Err(CloseReason::ContentFailed),
            false => Ok(()),
        }
    }
}

/// Time.
impl Session {
    /// When [`Session::timeout`] is due. Any other call may move it, earlier or later.
    #[must_use]
    pub fn poll_at(&self, timeouts: &Timeouts) -> Time {
        self.deadlines.poll_at(timeouts)
    }

    /// Does what is due: queues a keep-alive, or ends the session.
    pub fn timeout(&mut self, now: Time, timeouts: &Timeouts) -> Result<(), CloseReason> {
        let Some(timer) = self.deadlines.expired(now, timeouts) else {
            return Ok(());
        };
        let outcome = self.peer.handle_timeout(timer);
        self.closed_on_error(outcome)
    }

    /// A peer that waits for a slot gets keep-alives more often.
    fn update_waiting(&mut self) {
        let is_waiting = self.peer.upload() == Upload::Waiting;
        self.deadlines.waiting(is_waiting);
    }
}

/// What the choker has decided, and what readers have read.
impl Session {
    /// The peer has a slot: its requests are queued from now on.
    pub fn unchoke(&mut self) {
        self.peer.unchoke();
        self.update_waiting();
    }

    /// The peer has no slot any more: its queue is rejected, except for a block already begun.
    pub fn choke(&mut self) {
        self.peer.choke();
        self.update_waiting();
    }

    /// From now on [`Event::HasPieces`] reports what the peer has.
    pub fn report_pieces(&mut self) {
        self.peer.report_pieces();
    }

    /// Shows the peer a piece that it may ask for, after [`Opening::Nothing`].
    pub fn show(&mut self, piece: u32) {
        self.peer.show(piece);
    }

    /// Suggests a piece to a peer that may ask for any (BEP 6), if it understands that.
    pub fn suggest(&mut self, piece: u32) {
        self.peer.suggest(piece);
    }

    /// Shows the peer every piece.
    ///
    /// # Panics
    ///
    /// When the session is not open.
    pub fn show_all(&mut self) {
        let Phase::Open { shape } = &self.phase else {
            unreachable!("nothing is shown in {:?}", self.phase);
        };
        self.peer.show_all(shape);
    }

    /// Returns true if [`Session::poll_metadata`] has a piece.
    #[must_use]
    pub fn wants_metadata(&self) -> bool {
        matches!(self.phase, Phase::Open { .. }) && self.peer.wants_metadata()
    }

    /// The next piece of the info dictionary (BEP 9) to read for the peer, if any.
    pub fn poll_metadata(&mut self) -> Option<u32> {
        self.peer.poll_metadata()
    }

    /// Answers with a piece of the info dictionary that [`Session::poll_metadata`] gave out: its bytes,
    /// or None when it could not be read.
    ///
    /// # Panics
    ///
    /// When the session is not open.
    pub fn metadata_loaded(&mut self, piece: u32, body: Option<&[u8]>) {
        let Phase::Open { shape } = &self.phase else {
            unreachable!("no metadata is read for a session in {:?}", self.phase);
        };
        self.peer.handle_metadata(piece, shape, body);
    }

    /// How many requests were rejected since the last call.
    pub fn take_rejected(&mut self) -> u32 {
        self.peer.take_rejected()
    }
}

/// Queries.
impl Session {
    /// Where the connection is.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Returns true if the session is over.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// What the peer learned of our pieces when the session opened.
    #[must_use]
    pub fn opening(&self) -> Opening {
        self.peer.opening()
    }

    /// Whether the peer is served, within [`Phase::Open`].
    #[must_use]
    pub fn upload(&self) -> Upload {
        self.peer.upload()
    }

    /// The state as the status page names it.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match (&self.phase, self.peer.upload()) {
            (Phase::Handshake { .. } | Phase::Loading(_) | Phase::AwaitingPeerId { .. }, _) => {
                "handshaking"
            }
            (Phase::Closing { .. }, _) => "closing",
            (Phase::Open { .. }, Upload::Choked) => "choked",
            (Phase::Open { .. }, Upload::Waiting) => "waiting",
            (Phase::Open { .. }, Upload::Unchoked { .. }) => "unchoked",
        }
    }

    /// Returns true if control bytes wait to be sent.
    #[must_use]
    pub fn has_control(&self) -> bool {
        self.peer.has_control()
    }

    /// Returns true if blocks wait to be sent, or the rest of one. A choked peer has at most the latter.
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        self.peer.has_blocks()
    }

    /// How many blocks wait, the partially sent one included: at most [`REQQ`].
    #[must_use]
    pub fn queue_length(&self) -> usize {
        self.peer.queue_length()
    }
}

/// The bytes behind the first `consumed`.
fn behind(bytes: &[u8], consumed: usize) -> &[u8] {
    bytes
        .get(consumed..)
        .expect("the decoder consumes no more than it was given")
}

/// The extension handshake (BEP 10) for a peer of this torrent.
fn extension_handshake(
    shape: &Shape,
    opening: Opening,
    ours: &Introduction,
) -> OurHandshake<'static> {
    OurHandshake {
        metadata_size: shape.metadata_length,
        reqq: u32::try_from(REQQ).expect("a constant of 2000"),
        // Clients that download leave a peer that only uploads and has nothing for them.
        upload_only: opening == Opening::Everything,
        version: concat!("Hekate ", env!("CARGO_PKG_VERSION")),
        your_ip: ours.your_ip,
        port: ours.port,
    }
}

#[cfg(test)]
mod tests;
