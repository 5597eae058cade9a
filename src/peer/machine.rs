//! The protocol of one peer (BEP 3, 6, 9, 10, 21): what is legal now, and what must be sent next.
//!
//! With the Fast extension every request is answered exactly once: by its block, or by a reject
//! when it comes while choked, is cancelled, exceeds the queue, is queued when we choke, or cannot
//! be read. Without it such requests are dropped, as BEP 3 has it. A block whose first byte is sent
//! can be neither cancelled nor rejected.
//!
//! Sending is in two steps. [`Peer::poll_transmit`] shows what is to be sent, in the order of the
//! wire: the rest of a partially sent block, control bytes, blocks. [`Peer::handle_sent`] takes the
//! number of bytes of exactly that which went out. Nothing else is remembered of what is in flight.

use super::close::CloseReason;
use super::extended::Extended;
use super::queue::{BlockQueue, Blocks, ControlBuffer, Sent};
use crate::timers::Timer;
use crate::torrent::layout::Shape;
use crate::wire::encoder;
use crate::wire::handshake::{self, Extensions, HANDSHAKE_LENGTH};
use crate::wire::message::{InfoHash, Message, PeerId, Request};

/// Unsent control bytes, beyond the opening bitfield, at which no more is to be read from the
/// peer: each request that is refused costs as many bytes as it brought.
pub const CONTROL_LIMIT_BYTES: usize = 16 * 1024;

/// Futile messages, after which a peer is closed: those that bring nobody anything, such as requests that are
/// refused, cancels, changes of interest, extended messages other than a request for metadata that is served.
/// A block that is sent starts the count again. Clients send as many as a full queue when they are choked, and
/// some hundred changes of interest in their life.
const FUTILE_MAX: u16 = 10_000;

/// The `have` messages that are queued together, 2 KiB: what a peer costs that does not read them.
const SHOWN_AT_ONCE: u32 = 256;

/// What a peer learns of our pieces when its handshake is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Opening {
    /// We have every piece.
    #[default]
    Everything,
    /// We have none. The peer is shown pieces later, see [`super::session::Session::show`].
    Nothing,
}

/// What a message has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing that others must know.
    None,
    /// The peer wants blocks.
    Interested,
    /// The peer wants no blocks.
    NotInterested,
    /// The peer has said that it has these pieces; the highest bit is for `first`. Only while
    /// [`Peer::report_pieces`] is on.
    HasPieces {
        /// The piece of the highest bit.
        first: u32,
        /// One bit for each piece.
        bits: u64,
    },
    /// A block was queued.
    Requested {
        /// The peer never said that it is interested; this request says so.
        newly_interested: bool,
    },
    /// [`Peer::poll_metadata`] may have something.
    MetadataRequested,
}

/// Whether a peer is served. Interest is the peer's word and a slot is ours, so that a peer that is
/// unchoked before it says that it is interested is served as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Upload {
    /// Without a slot, and not interested.
    #[default]
    Choked,
    /// Interested, without a slot.
    Waiting,
    /// With a slot: requests are queued.
    Unchoked {
        /// Whether the peer wants blocks.
        interested: bool,
    },
}

impl Upload {
    fn is_unchoked(self) -> bool {
        matches!(self, Self::Unchoked { .. })
    }

    fn is_interested(self) -> bool {
        matches!(self, Self::Waiting | Self::Unchoked { interested: true })
    }

    fn new(unchoked: bool, interested: bool) -> Self {
        match (unchoked, interested) {
            (true, interested) => Self::Unchoked { interested },
            (false, true) => Self::Waiting,
            (false, false) => Self::Choked,
        }
    }
}

/// What is to be sent, in this order.
#[derive(Clone, Debug)]
pub struct Transmit<'a> {
    /// A block whose message (header and body) is sent as far as this many bytes, at least one.
    pub partial: Option<(Request, u32)>,
    /// Encoded messages. No blocks follow while only a part of them is shown.
    pub control: &'a [u8],
    /// The blocks that follow. A caller that cannot send one of them must stop before it.
    pub blocks: Blocks<'a>,
}

/// One peer's protocol state.
#[derive(Debug, Default)]
pub(super) struct Peer {
    blocks: BlockQueue,
    control: ControlBuffer,
    extended: Extended,
    /// How many pieces the peer has, by its own account.
    have: u32,
    /// Requests answered by a reject since [`Peer::take_rejected`].
    rejected: u16,
    /// Messages that brought nobody anything since the last block: see [`FUTILE_MAX`].
    futile: u16,
    /// Control bytes that the opening put into the buffer; zero once these are sent.
    opening_bytes: u32,
    /// Bytes of our 68-byte handshake that are not sent.
    handshake_unsent: u8,
    has_fast: bool,
    has_extended: bool,
    /// What the peer has is handed on, not only counted.
    reports_pieces: bool,
    opening: Opening,
    upload: Upload,
    /// How many pieces are still to be shown, see [`Peer::show_all`]: those below this number.
    unshown: u32,
}

/// Opening, and what the peer says.
impl Peer {
    /// The first 48 bytes named a torrent that we serve: queues our handshake, which trackers that
    /// test for NAT wait for before they send their id.
    pub(super) fn handle_handshake(
        &mut self,
        reserved: [u8; 8],
        info_hash: InfoHash,
        ours: PeerId,
    ) {
        self.handle_extensions(reserved);
        self.open(info_hash, ours);
    }

    /// What the peer is to learn of our pieces when its handshake is complete.
    pub(super) fn set_opening(&mut self, opening: Opening) {
        self.opening = opening;
    }

    /// What the peer's handshake says it can do; ours is sent.
    pub(super) fn handle_extensions(&mut self, reserved: [u8; 8]) {
        let extensions = Extensions::from_reserved(reserved);
        self.has_fast = extensions.fast;
        self.has_extended = extensions.extended;
    }

    /// We have dialled the peer: queues our handshake, before anything has come from it.
    pub(super) fn open(&mut self, info_hash: InfoHash, ours: PeerId) {
        let bytes = handshake::encode(info_hash, ours);
        self.control.out().extend_from_slice(&bytes);
        self.handshake_unsent = u8::try_from(HANDSHAKE_LENGTH).expect("68");
    }

    /// The handshake is complete: queues exactly one of have-all and bitfield, or what says that we
    /// have nothing, then `extension_handshake`, which is a whole encoded message, if the peer speaks
    /// BEP 10.
    pub(super) fn handle_peer_id(
        &mut self,
        id: PeerId,
        ours: PeerId,
        shape: &Shape,
        extension_handshake: &[u8],
    ) -> Result<(), CloseReason> {
        if id == ours {
            return Err(CloseReason::OurselvesConnected);
        }
        let control = &mut self.control;
        match (self.opening, self.has_fast) {
            (Opening::Everything, true) => encoder::have_all(control.out()),
            (Opening::Everything, false) => {
                let ones = encoder::bitfield_full_head(control.out(), shape.pieces);
                control.append_ones(ones);
                encoder::bitfield_full_tail(control.out(), shape.pieces);
            }
            (Opening::Nothing, true) => encoder::have_none(control.out()),
            // BEP 3: a bitfield without ones may be left out.
            (Opening::Nothing, false) => {}
        }
        if self.has_extended {
            control.out().extend_from_slice(extension_handshake);
        }
        let opening_bytes = u32::try_from(control.unsent_bytes());
        self.opening_bytes = opening_bytes.expect("2^32 pieces have a bitfield of 2^29 bytes");
        Ok(())
    }

    /// A message after the handshake. An error ends the connection.
    pub(super) fn handle_message(
        &mut self,
        message: &Message<'_>,
        shape: &Shape,
    ) -> Result<Effect, CloseReason> {
        match *message {
            Message::Request(request) => self.handle_request(request, shape),
            Message::Cancel(request) => {
                if self.blocks.remove(&request) {
                    self.reject_when_fast(request);
                }
                self.was_futile()?;
                Ok(Effect::None)
            }
            Message::Interested => {
                self.was_futile()?;
                self.set_interested(true);
                Ok(Effect::Interested)
            }
            Message::NotInterested => {
                self.was_futile()?;
                self.set_interested(false);
                Ok(Effect::NotInterested)
            }
            Message::Have(index) if index >= shape.pieces => {
                Err(CloseReason::IllegalMessage("have of a piece that is not"))
            }
            Message::Have(index) => {
                self.has(self.have.saturating_add(1), shape)?;
                Ok(self.has_pieces(index, 1 << (u64::BITS - 1), shape))
            }
            Message::Bitfield {
                length_bytes,
                at,
                bytes,
                bits,
                ones,
            } => {
                if length_bytes != shape.pieces.div_ceil(8) || ones > shape.pieces {
                    return Err(CloseReason::IllegalMessage("bitfield of another torrent"));
                }
                if at + bytes == length_bytes {
                    self.has(ones, shape)?;
                }
                Ok(self.has_pieces(at * 8, bits, shape))
            }
            Message::HaveAll | Message::HaveNone if !self.has_fast => Err(
                CloseReason::IllegalMessage("have-all or have-none without Fast"),
            ),
            Message::HaveAll => self.has(shape.pieces, shape).map(|()| Effect::None),
            Message::HaveNone => self.has(0, shape).map(|()| Effect::None),
            Message::Extended { id, payload } => {
                let out = self.control.out();
                match self.extended.handle_message(id, payload, shape, out)? {
                    true => Ok(Effect::MetadataRequested),
                    false => self.was_futile().map(|()| Effect::None),
                }
            }
            Message::Handshake { .. } | Message::PeerId(_) => {
                Err(CloseReason::IllegalMessage("second handshake"))
            }
            Message::KeepAlive | Message::Choke | Message::Unchoke | Message::Ignored { .. } => {
                Ok(Effect::None)
            }
        }
    }

    fn handle_request(&mut self, request: Request, shape: &Shape) -> Result<Effect, CloseReason> {
        if !shape.accepts(&request) {
            return Err(CloseReason::IllegalRequest);
        }
        let newly_interested = !self.upload.is_interested();
        self.set_interested(true);
        if self.upload.is_unchoked() && self.blocks.push(request) {
            return Ok(Effect::Requested { newly_interested });
        }
        self.reject_when_fast(request);
        self.was_futile()?;
        Ok(if newly_interested {
            Effect::Interested
        } else {
            Effect::None
        })
    }

    /// A message brought nobody anything.
    fn was_futile(&mut self) -> Result<(), CloseReason> {
        self.futile += 1;
        match self.futile > FUTILE_MAX {
            true => Err(CloseReason::Flooded),
            false => Ok(()),
        }
    }

    fn set_interested(&mut self, interested: bool) {
        self.upload = Upload::new(self.upload.is_unchoked(), interested);
    }

    /// The peer has `count` pieces. One that has them all has no use for us.
    fn has(&mut self, count: u32, shape: &Shape) -> Result<(), CloseReason> {
        self.have = count;
        match count >= shape.pieces {
            true => Err(CloseReason::PeerIsSeed),
            false => Ok(()),
        }
    }

    fn has_pieces(&self, first: u32, bits: u64, shape: &Shape) -> Effect {
        // The last byte of a bitfield may have bits for no piece.
        let behind_last = u64::MAX.checked_shr(shape.pieces - first).unwrap_or(0);
        let bits = bits & !behind_last;
        match self.reports_pieces && bits != 0 {
            true => Effect::HasPieces { first, bits },
            false => Effect::None,
        }
    }

    /// A time-out is due: a keep-alive is queued, anything else ends the connection.
    pub(super) fn handle_timeout(&mut self, timer: Timer) -> Result<(), CloseReason> {
        match timer {
            Timer::Handshake => Err(CloseReason::HandshakeTimeout),
            Timer::Message => Err(CloseReason::MessageTimeout),
            Timer::Idle => Err(CloseReason::IdleTimeout),
            Timer::Write => Err(CloseReason::WriteTimeout),
            Timer::KeepAlive => {
                // Whatever waits will show that we are alive; one after another would pile up.
                if self.control.is_empty() && self.blocks.partial().is_none() {
                    encoder::keep_alive(self.control.out());
                }
                Ok(())
            }
        }
    }
}

/// What the rest of the program decides.
impl Peer {
    /// From now on the peer's pieces are reported by [`Effect::HasPieces`].
    pub(super) fn report_pieces(&mut self) {
        self.reports_pieces = true;
    }

    /// Shows the peer a piece: it may ask for it from now on.
    pub(super) fn show(&mut self, piece: u32) {
        encoder::have(self.control.out(), piece);
    }

    /// Suggests a piece to a peer that may ask for any.
    pub(super) fn suggest(&mut self, piece: u32) {
        if self.has_fast {
            encoder::suggest(self.control.out(), piece);
        }
    }

    /// Shows the peer every piece, in parts, each when the one before is sent: together they may have
    /// some hundred KiB.
    pub(super) fn show_all(&mut self, shape: &Shape) {
        self.unshown = shape.pieces;
        self.show_more();
    }

    fn show_more(&mut self) {
        let rest = self.unshown.saturating_sub(SHOWN_AT_ONCE);
        for piece in rest..self.unshown {
            encoder::have(self.control.out(), piece);
        }
        self.unshown = rest;
    }

    /// The peer has a slot: its requests are queued from now on.
    pub(super) fn unchoke(&mut self) {
        if !self.upload.is_unchoked() {
            self.upload = Upload::new(true, self.upload.is_interested());
            encoder::unchoke(self.control.out());
        }
    }

    /// The peer has no slot any more: what it has queued is refused, but for a block already begun.
    pub(super) fn choke(&mut self) {
        if !self.upload.is_unchoked() {
            return;
        }
        self.upload = Upload::new(false, self.upload.is_interested());
        let Self {
            blocks,
            control,
            rejected,
            has_fast,
            ..
        } = self;
        // BEP 6 wants the choke first, then the rejects.
        encoder::choke(control.out());
        blocks.drain_unbegun(|request| {
            if *has_fast {
                encoder::reject(control.out(), request);
                *rejected = rejected.saturating_add(1);
            }
        });
    }

    /// This block cannot be read. A peer without the Fast extension cannot be told, and neither can
    /// one that has begun to receive it: these are to be closed.
    pub(super) fn reject_block(&mut self, request: Request) -> Result<(), CloseReason> {
        let begun = self
            .blocks
            .partial()
            .is_some_and(|(head, _)| head == request);
        if self.blocks.remove(&request) {
            if !self.has_fast {
                return Err(CloseReason::ContentFailed);
            }
            self.reject_when_fast(request);
        } else if begun {
            return Err(CloseReason::ContentFailed);
        }
        // Otherwise it was cancelled, or refused with a choke, while it was being read.
        Ok(())
    }

    fn reject_when_fast(&mut self, request: Request) {
        if self.has_fast {
            encoder::reject(self.control.out(), request);
            self.rejected = self.rejected.saturating_add(1);
        }
    }

    /// How many requests were rejected since this was asked last.
    pub(super) fn take_rejected(&mut self) -> u32 {
        std::mem::take(&mut self.rejected).into()
    }
}

/// Sending, and the metadata that is read for it.
impl Peer {
    /// What is to be sent next. Our handshake is shown without what follows until all of it is sent:
    /// some clients lose bytes that arrive in one segment with it.
    pub(super) fn poll_transmit(&self) -> Transmit<'_> {
        let mut control = self.control.unsent();
        let mut blocks = self.blocks.unbegun();
        if self.handshake_unsent > 0 {
            let handshake = control.get(..usize::from(self.handshake_unsent));
            control = handshake.expect("the handshake is the first to be sent");
        }
        if self.handshake_unsent > 0 || self.control.is_cut() {
            blocks = Blocks::default();
        }
        Transmit {
            partial: self.blocks.partial(),
            control,
            blocks,
        }
    }

    /// The transport took `bytes` of what [`Peer::poll_transmit`] showed, from its beginning, with
    /// nothing skipped.
    ///
    /// # Panics
    ///
    /// When that showed fewer bytes.
    pub(super) fn handle_sent(&mut self, bytes: usize) -> Sent {
        let mut sent = Sent::default();
        let shown_control = self.poll_transmit().control.len();
        let left = self.blocks.finish_partial(bytes as u64, &mut sent);
        let control = shown_control.min(usize::try_from(left).expect("it was a usize before"));
        if control > 0 {
            self.control.advance(control);
            if self.handshake_unsent > 0 {
                let handshake = u8::try_from(control).expect("no more than it was shown");
                self.handshake_unsent -= handshake;
            }
            if self.control.is_empty() {
                self.opening_bytes = 0;
                self.show_more();
            }
        }
        let left = self.blocks.advance(left - control as u64, &mut sent);
        assert_eq!(left, 0, "more was sent than there was");
        if sent.blocks > 0 {
            self.futile = 0;
        }
        sent
    }

    /// Returns true if [`Peer::poll_metadata`] has a piece: not while control bytes wait, so that a peer that
    /// does not read has no more than one piece in our memory.
    pub(super) fn wants_metadata(&self) -> bool {
        self.extended.wants_metadata() && self.control.is_empty()
    }

    /// The next piece of the info dictionary to read for the peer, if any. To be called again after
    /// each [`Peer::handle_metadata`] and whenever control bytes have been sent.
    pub(super) fn poll_metadata(&mut self) -> Option<u32> {
        match self.control.is_empty() {
            true => self.extended.poll_metadata(),
            false => None,
        }
    }

    /// A piece of the info dictionary that [`Peer::poll_metadata`] gave out: its bytes, or None when
    /// it could not be read.
    pub(super) fn handle_metadata(&mut self, piece: u32, shape: &Shape, body: Option<&[u8]>) {
        let out = self.control.out();
        self.extended.handle_metadata(piece, shape, body, out);
    }
}

/// Queries.
impl Peer {
    /// Returns true if control bytes wait to be sent.
    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Returns true if blocks wait to be sent, or the rest of one. A choked peer has at most the
    /// latter.
    pub(super) fn has_blocks(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// What the peer has learned of our pieces.
    pub(super) fn opening(&self) -> Opening {
        self.opening
    }

    /// Whether the peer is served.
    pub(super) fn upload(&self) -> Upload {
        self.upload
    }

    /// How many blocks wait, the partially sent one included: at most
    /// [`REQQ`](super::queue::REQQ).
    pub(super) fn queue_length(&self) -> usize {
        self.blocks.len()
    }

    /// Returns true if nothing more is to be read from the peer until it takes some control bytes.
    pub(super) fn is_backlogged(&self) -> bool {
        let limit = CONTROL_LIMIT_BYTES + self.opening_bytes as usize;
        self.control.unsent_bytes() > limit
    }
}

#[cfg(test)]
mod tests;
