//! One connection: what the loop keeps for a peer beside its session.

use std::net::IpAddr;
use std::sync::Arc;

use mio::net::TcpStream;

use super::activity::ActiveSlot;
use super::dial::Dialled;
use super::outbox::{BATCH_BLOCKS, Gathered};
use super::resident::ResidentRanges;
use super::shared::Shared;
use super::transport::Transport;
use crate::choker::TermLength;
use crate::peer::key::PeerKey;
use crate::peer::session::{Opening, Phase, Session};
use crate::timers::{Alarm, Time};
use crate::torrent::catalogue::Torrent;
use crate::wire::message::Request;

/// The longest piece for which a term lasts: with longer ones a peer would keep a slot for too long.
const PIECE_TERM_BYTES_MAX: u64 = 16 << 20;

/// How long a peer may keep a slot without a request for a piece that it was shown. Clients ask for it
/// within a round trip; the line must not wait for one that does not.
const SHOWN_UNUSED_MS: u32 = 2_000;

/// A connection in the slab. Idle, it costs its own size and nothing on the heap.
pub(super) struct Connection {
    pub(super) key: PeerKey,
    pub(super) transport: Transport,
    pub(super) session: Session,
    pub(super) alarm: Alarm,
    pub(super) queued: Queued,
    pub(super) wait: Wait,
    /// The peer's torrent, once it is loaded.
    pub(super) torrent: Option<Arc<Torrent>>,
    /// The peer that we have dialled, unless it has connected to us.
    pub(super) dialled: Option<Box<Dialled>>,
    /// The slot of its torrent, once the session is open.
    pub(super) active_slot: Option<ActiveSlot>,
    pub(super) accepted_at: Time,
    /// Bytes of blocks.
    pub(super) sent_bytes: u64,
    pub(super) resident: ResidentRanges,
    /// The last block that a reader gathered from many small extents.
    pub(super) gathered: Option<Arc<Gathered>>,
}

/// The lists that a connection is on, one bit each.
#[derive(Default)]
pub(super) struct Queued {
    /// It is on one of the lists of connections to receive from.
    pub(super) to_receive: bool,
    /// It filled the buffer when it was received from last.
    pub(super) has_filled_buffer: bool,
    /// It is on one of the lists of connections to send to.
    pub(super) to_send: bool,
    /// It is in line for metadata.
    pub(super) for_metadata: bool,
}

/// What the blocks of a connection wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Wait {
    /// Nothing.
    #[default]
    Nothing,
    /// A reader thread works for it. Control bytes go out meanwhile, but not inside a block.
    Reader,
    /// The readers' queue is full. It tries again when they have finished a job.
    ReaderRoom,
    /// The rate limit has nothing left.
    Rate,
}

impl Connection {
    /// A peer has connected to us.
    pub(super) fn accepted(key: PeerKey, stream: TcpStream, address: IpAddr, now: Time) -> Self {
        let transport = Transport::accepted(stream, address);
        Self::new(key, transport, Session::accepted(now), now)
    }

    /// A connection with nothing done yet.
    pub(super) fn new(key: PeerKey, transport: Transport, session: Session, now: Time) -> Self {
        Self {
            key,
            transport,
            session,
            alarm: Alarm::default(),
            queued: Queued::default(),
            wait: Wait::Nothing,
            torrent: None,
            dialled: None,
            active_slot: None,
            accepted_at: now,
            sent_bytes: 0,
            resident: ResidentRanges::default(),
            gathered: None,
        }
    }

    /// The peer has no slot any more. What is known of resident ranges is forgotten.
    pub(super) fn choke(&mut self) {
        self.session.choke();
        self.resident = ResidentRanges::default();
    }

    /// The session is open: what the peer has is of interest for super-seeding, and it may be shown a
    /// piece.
    pub(super) fn meet_swarm(&mut self, slot: ActiveSlot, shared: &mut Shared) {
        let is_hidden = self.session.opening() == Opening::Nothing;
        let (key, random) = (self.key, &mut shared.random);
        let may_begin = shared.process.activity.may_super_seed();
        let (wants_pieces, shown) = shared.process.activity.swarm(slot, |swarm| {
            let shown = swarm.connected(key, is_hidden, may_begin, random);
            (swarm.wants_pieces(), shown)
        });
        if wants_pieces {
            self.session.report_pieces();
        }
        if let Some(piece) = shown {
            self.session.show(piece);
        }
    }

    /// Begins the peer's term: as many bytes as are configured, or a piece, or the pieces that it is shown,
    /// whichever is most.
    pub(super) fn begin_term(&mut self, shared: &mut Shared) {
        let torrent = self.torrent.as_ref();
        let torrent = torrent.expect("only an open session has a slot");
        let slot = self.active_slot.expect("an open session has a slot");
        let config = shared.choker.config();
        let piece_bytes = u64::from(torrent.shape.piece_length).min(PIECE_TERM_BYTES_MAX);
        let mut length = TermLength {
            credit_bytes: config.credit_bytes.max(piece_bytes),
            unused_slot_ms: config.unused_slot_ms,
            tells_renewal: false,
        };
        let (key, bytes) = (self.key, length.credit_bytes);
        let shown = (shared.process.activity).swarm(slot, |swarm| swarm.begin_term(key, bytes));
        if let Some(shown) = shown {
            for &piece in &shown.pieces {
                match shown.is_hidden {
                    true => self.session.show(piece),
                    false => self.session.suggest(piece),
                }
            }
            length.credit_bytes = length.credit_bytes.max(shown.bytes);
            length.tells_renewal = true;
            if shown.is_hidden {
                length.unused_slot_ms = length.unused_slot_ms.min(SHOWN_UNUSED_MS);
            }
        }
        shared.choker.set_term(key, length);
    }

    /// A term of the peer is over, whether it has lost its slot or begins another.
    pub(super) fn end_term(&mut self, shared: &mut Shared) {
        let slot = self.active_slot.expect("only an open session had a slot");
        let key = self.key;
        let shown = (shared.process.activity).swarm(slot, |swarm| swarm.end_term(key));
        if let Some(piece) = shown {
            self.session.show(piece);
        }
    }

    /// Blocks were sent. A peer that has got all that it was shown gives its slot to another.
    pub(super) fn blocks_sent<'a>(
        &self,
        slot: ActiveSlot,
        blocks: impl Iterator<Item = &'a Request>,
        shared: &mut Shared,
    ) {
        let key = self.key;
        let is_served = shared.process.activity.swarm(slot, |swarm| {
            blocks.for_each(|block| swarm.sent(key, block.index, block.length));
            swarm.is_served(key)
        });
        if is_served {
            shared.choker.end_term(key);
        }
    }

    /// Returns true if the peer may be read from now.
    pub(super) fn wants_to_receive(&self) -> bool {
        self.transport.is_readable()
            && self.session.wants_bytes()
            && !self.transport.is_handshake_waiting()
    }

    /// Returns true if the transport can be offered something now.
    pub(super) fn wants_to_send(&self) -> bool {
        self.transport.is_writable() && (self.has_control_to_send() || self.has_blocks_to_send())
    }

    /// Returns true if control bytes may go out now, not inside a block that waits for a reader, or what
    /// is left of enciphered bytes.
    pub(super) fn has_control_to_send(&self) -> bool {
        let inside_block =
            self.wait == Wait::Reader && self.session.poll_transmit().partial.is_some();
        let may_follow = !inside_block && !self.transport.is_in_handshake();
        self.session.has_control() && may_follow || self.has_unsent()
    }

    /// Returns true if there are enciphered bytes left. Behind an encryption handshake our own follows
    /// in the same write, once the torrent is loaded.
    pub(super) fn has_unsent(&self) -> bool {
        self.transport.has_unsent() && !matches!(self.session.phase(), Phase::Loading(_))
    }

    /// Returns true if there are blocks, and no reader works for them.
    pub(super) fn has_blocks_to_send(&self) -> bool {
        self.session.has_blocks() && self.wait != Wait::Reader
    }

    /// Returns true if receiving can wait until the connection sends next, since a whole batch is
    /// queued. Its next requests then come in one read instead of many.
    pub(super) fn may_defer(&self) -> bool {
        self.queued.to_send
            && !self.transport.is_read_closed()
            && self.has_blocks_to_send()
            && self.session.queue_length() >= BATCH_BLOCKS
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::peer::session::{Event, Introduction};
    use crate::torrent::layout::Shape;
    use crate::wire::handshake::PROTOCOL;
    use crate::wire::message::PeerId;

    /// A connection whose peer has said its handshake, is unchoked and waits for one block.
    pub(crate) fn connection() -> Connection {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let key = PeerKey {
            index: 0,
            generation: 0,
        };
        let mut connection = Connection::accepted(key, stream, address.ip(), Time(0));
        let shape = Shape {
            piece_length: 16 * 1024,
            pieces: 2,
            total_length: 32 * 1024,
            metadata_length: 100,
            private: false,
        };
        let ours = Introduction {
            peer_id: PeerId([2; 20]),
            port: 1,
            your_ip: address.ip(),
        };
        let mut bytes = PROTOCOL.to_vec();
        bytes.extend([0; 8]);
        bytes.extend([1; 20]);
        bytes.extend([3; 20]);
        bytes.extend([0, 0, 0, 13, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0]);
        let session = &mut connection.session;
        let mut bytes = bytes.as_slice();
        let mut unsent = 0;
        while let Some(event) = session.receive(&mut bytes, Time(0), &ours).unwrap() {
            match event {
                Event::TorrentWanted(_) => {
                    drop(session.torrent_loaded(shape, Opening::Everything, ours.peer_id));
                }
                Event::Opened => session.unchoke(),
                _ => {}
            }
            unsent += 1;
        }
        assert_eq!(unsent, 4, "wanted, opened, interested, requested");
        while session.has_control() {
            let control = session.poll_transmit().control.len();
            session.sent(control, false, Time(0));
        }
        connection
    }

    #[test]
    fn a_parked_connection_sends_what_does_not_wait_for_content() {
        let mut connection = connection();
        assert!(connection.wants_to_send());
        connection.wait = Wait::Reader;
        assert!(!connection.wants_to_send());
        connection.choke();
        assert!(connection.wants_to_send());
    }

    #[test]
    fn behind_a_begun_block_that_is_parked_nothing_is_tried() {
        let mut connection = connection();
        connection.session.sent(1000, false, Time(0));
        connection.wait = Wait::Reader;
        connection.choke();
        assert!(connection.session.has_control());
        assert!(!connection.wants_to_send(), "the loop would spin");
        connection.wait = Wait::Nothing;
        assert!(connection.wants_to_send());
    }
}
