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
use super::extended::MetadataQueue;
use super::queue::{BlockQueue, ControlBuffer};
use crate::timers::Timer;
use crate::torrent::layout::Shape;
use crate::wire::encoder;
use crate::wire::handshake::{self, Extensions, HANDSHAKE_LENGTH};
use crate::wire::message::{InfoHash, Message, PeerId, Request};

/// Unsent control bytes, beyond the opening bitfield, at which no more is to be read from the
/// peer: each request that is refused costs as many bytes as it brought.
pub const CONTROL_LIMIT_BYTES: usize = 64 * 1024;

/// What a message has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing that others must know.
    None,
    /// The peer wants blocks.
    Interested,
    /// The peer wants no blocks.
    NotInterested,
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

/// One peer's protocol state.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) blocks: BlockQueue,
    pub(super) control: ControlBuffer,
    pub(super) metadata: Option<Box<MetadataQueue>>,
    /// How many pieces the peer has, by its own word.
    have: u32,
    /// How many pieces of the info dictionary the peer has been promised.
    pub(super) metadata_promised: u32,
    /// Requests answered by a reject, until they are taken account of.
    rejected: u32,
    /// Control bytes that the opening put into the buffer; zero once these are sent.
    pub(super) opening_bytes: u32,
    /// Bytes of our 68-byte handshake that are not sent.
    pub(super) handshake_unsent: u8,
    /// The number the peer gave to `ut_metadata`; zero for none.
    pub(super) ut_metadata: u8,
    fast: bool,
    extended: bool,
    upload: Upload,
}

/// Opening, and what the peer says.
impl Peer {
    /// A connection on which nothing was said.
    pub(super) fn new() -> Self {
        Self::default()
    }

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

    /// What the peer's handshake says it can do; ours is sent.
    pub(super) fn handle_extensions(&mut self, reserved: [u8; 8]) {
        let extensions = Extensions::from_reserved(reserved);
        self.fast = extensions.fast;
        self.extended = extensions.extended;
    }

    /// We have called the peer: queues our handshake, before anything was heard.
    pub(super) fn open(&mut self, info_hash: InfoHash, ours: PeerId) {
        let bytes = handshake::encode(info_hash, ours);
        self.control.out().extend_from_slice(&bytes);
        self.handshake_unsent = u8::try_from(HANDSHAKE_LENGTH).expect("68");
    }

    /// The handshake is complete: queues exactly one of have-all and bitfield, then
    /// `extension_handshake`, which is a whole encoded message, if the peer speaks BEP 10.
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
        if self.fast {
            encoder::have_all(control.out());
        } else {
            let ones = encoder::bitfield_full_head(control.out(), shape.pieces);
            control.append_ones(ones);
            encoder::bitfield_full_tail(control.out(), shape.pieces);
        }
        if self.extended {
            control.out().extend_from_slice(extension_handshake);
        }
        self.opening_bytes = u32::try_from(control.unsent_bytes()).unwrap_or(u32::MAX);
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
                Ok(Effect::None)
            }
            Message::Interested => {
                self.set_interested(true);
                Ok(Effect::Interested)
            }
            Message::NotInterested => {
                self.set_interested(false);
                Ok(Effect::NotInterested)
            }
            Message::Have(index) if index >= shape.pieces => {
                Err(CloseReason::IllegalMessage("have of a piece that is not"))
            }
            Message::Have(_) => self.has(self.have.saturating_add(1), shape),
            Message::Bitfield { length_bytes, ones } => {
                if length_bytes != shape.pieces.div_ceil(8) || ones > shape.pieces {
                    return Err(CloseReason::IllegalMessage("bitfield of another torrent"));
                }
                self.has(ones, shape)
            }
            Message::HaveAll | Message::HaveNone if !self.fast => Err(CloseReason::IllegalMessage(
                "have-all or have-none without Fast",
            )),
            Message::HaveAll => self.has(shape.pieces, shape),
            Message::HaveNone => self.has(0, shape),
            Message::Extended { id, payload } => self.handle_extended(id, payload, shape),
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
        Ok(if newly_interested {
            Effect::Interested
        } else {
            Effect::None
        })
    }

    fn set_interested(&mut self, interested: bool) {
        self.upload = Upload::new(self.upload.is_unchoked(), interested);
    }

    /// The peer has `count` pieces. One that has them all has no use for us.
    fn has(&mut self, count: u32, shape: &Shape) -> Result<Effect, CloseReason> {
        self.have = count;
        if count >= shape.pieces {
            return Err(CloseReason::PeerIsSeed);
        }
        Ok(Effect::None)
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
            fast,
            ..
        } = self;
        // BEP 6 wants the choke first, then the rejects.
        encoder::choke(control.out());
        blocks.drain_unbegun(|request| {
            if *fast {
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
            if !self.fast {
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
        if self.fast {
            encoder::reject(self.control.out(), request);
            self.rejected = self.rejected.saturating_add(1);
        }
    }

    /// How many requests were rejected since this was asked last.
    pub(super) fn take_rejected(&mut self) -> u32 {
        std::mem::take(&mut self.rejected)
    }
}

/// What may be asked about it.
impl Peer {
    /// Control bytes wait to be sent.
    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Blocks wait to be sent, or the rest of one. A choked peer has at most the latter.
    pub(super) fn has_blocks(&self) -> bool {
        !self.blocks.is_empty()
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

    /// So many control bytes wait that nothing more is to be read from the peer until it takes some.
    pub(super) fn is_backlogged(&self) -> bool {
        let opening = usize::try_from(self.opening_bytes).unwrap_or(usize::MAX);
        self.control.unsent_bytes() > CONTROL_LIMIT_BYTES.saturating_add(opening)
    }
}

#[cfg(test)]
mod tests;
