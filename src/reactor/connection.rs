//! One accepted connection: the socket's side of a peer.
//!
//! Owns the stream, the latches of its readiness and what is remembered between turns. It must
//! not know the protocol, which is [`Peer`]'s, nor fairness, which is the choker's.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use mio::net::TcpStream;

use super::dial::Called;
use super::stage::EXTENTS_PER_BLOCK;
use crate::peer::machine::Peer;
use crate::timers::{Deadlines, Time};
use crate::torrent::catalogue::Torrent;
use crate::wire::decoder::Decoder;
use crate::wire::message::InfoHash;

/// How long an answer "this range is resident" is believed: pages that were just there, or were
/// just read in for this peer, are not evicted sooner unless memory is desperately short.
const RESIDENT_BELIEVED_MS: u64 = 2_000;

/// A connection in the slab. Idle, it costs its own size and nothing on the heap.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) address: IpAddr,
    pub(super) generation: u32,
    pub(super) latches: Latches,
    pub(super) deadlines: Deadlines,
    pub(super) decoder: Decoder,
    /// Bytes of a message that is not complete; empty between messages.
    pub(super) tail: Box<[u8]>,
    pub(super) peer: Peer,
    pub(super) torrent: Option<Arc<Torrent>>,
    /// What the peer's handshake said, while its torrent is loaded: nothing is read meanwhile.
    pub(super) loading: Option<Box<Asked>>,
    /// Whom we have called it for, unless it has called us.
    pub(super) called: Option<Box<Called>>,
    /// Where its torrent is counted as active, once the handshake is complete.
    pub(super) place: Option<usize>,
    pub(super) accepted_at: Time,
    /// Bytes of blocks.
    pub(super) sent_bytes: u64,
    /// What was last seen resident, or read in, for this peer: at most one window for each file,
    /// and as many as the extents of a block that is sent from mappings.
    pub(super) windows: Vec<Window>,
    /// A block over many small extents, as the readers gathered it.
    pub(super) gathered: Option<Arc<Gathered>>,
    /// Blocks in a row that were refused because their content could not be read.
    pub(super) failed_blocks: u16,
}

/// What a handshake asks for.
pub(super) struct Asked {
    pub(super) reserved: [u8; 8],
    pub(super) info_hash: InfoHash,
}

/// Edge-triggered readiness and list membership, one bit each.
#[derive(Default)]
pub(super) struct Latches {
    /// The socket may have bytes; only `WouldBlock` or a short read clears it.
    pub(super) readable: bool,
    /// The peer has closed its side; reading on finds the end.
    pub(super) read_closed: bool,
    /// The socket may take bytes; only `WouldBlock` or a short write clears it.
    pub(super) writable: bool,
    /// It is on the list of connections to receive from.
    pub(super) to_receive: bool,
    /// It is on one of the lists of connections to send to.
    pub(super) to_send: bool,
    /// A reader thread works for it; its blocks wait.
    pub(super) parked: bool,
    /// The readers had too much to do for it; it asks again when they have done something.
    pub(super) stalled: bool,
    /// It is in line for metadata.
    pub(super) metadata_waits: bool,
    /// It is closed at the end of the turn.
    pub(super) closing: bool,
}

/// A range of one file that is resident, as of a moment.
pub(super) struct Window {
    pub(super) file: u32,
    pub(super) range: Range<u64>,
    pub(super) seen: Time,
}

impl Window {
    /// Whether the window vouches for this range of this file.
    fn covers(&self, file: u32, range: &Range<u64>, now: Time) -> bool {
        self.file == file
            && self.range.start <= range.start
            && range.end <= self.range.end
            && now.since(self.seen) <= RESIDENT_BELIEVED_MS
    }
}

/// Remembers that a range is resident, in place of what was known of its file, or of the file
/// that was looked at longest ago.
pub(super) fn remember(windows: &mut Vec<Window>, window: Window) {
    windows.retain(|known| known.file != window.file);
    if windows.len() >= EXTENTS_PER_BLOCK {
        windows.remove(0);
    }
    windows.push(window);
}

/// Whether the range is known to be resident.
pub(super) fn is_known(windows: &[Window], file: u32, range: &Range<u64>, now: Time) -> bool {
    windows.iter().any(|window| window.covers(file, range, now))
}

/// One block that was copied together from many small extents.
pub(super) struct Gathered {
    /// Where the block begins in the torrent, in bytes.
    pub(super) offset: u64,
    pub(super) length: u32,
    /// Its bytes; empty when they could not be read.
    pub(super) bytes: Box<[u8]>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, address: IpAddr, generation: u32, now: Time) -> Self {
        Self {
            stream,
            address,
            generation,
            latches: Latches {
                writable: true,
                ..Latches::default()
            },
            deadlines: Deadlines::new(now),
            decoder: Decoder::new(),
            tail: Box::default(),
            peer: Peer::new(),
            torrent: None,
            loading: None,
            called: None,
            place: None,
            accepted_at: now,
            sent_bytes: 0,
            windows: Vec::new(),
            gathered: None,
            failed_blocks: 0,
        }
    }

    /// The peer has no slot any more, and nothing needs to be known for it.
    pub(super) fn choke(&mut self) {
        self.peer.choke();
        self.windows = Vec::new();
    }

    /// Whether what the peer has sent may be read now: not while it does not take its answers, so
    /// that its backlog is bounded, nor before it is known what it talks about.
    pub(super) fn wants_to_receive(&self) -> bool {
        self.latches.readable && !self.peer.is_backlogged() && self.loading.is_none()
    }

    /// Whether there is something that the socket could be offered now.
    pub(super) fn wants_to_send(&self) -> bool {
        self.latches.writable && (self.has_control_to_send() || self.has_blocks_to_send())
    }

    /// Whether there are words that may go out now: not in the middle of a block that is waited for.
    pub(super) fn has_control_to_send(&self) -> bool {
        let inside_block = self.latches.parked && self.peer.poll_transmit().partial.is_some();
        self.peer.has_control() && !inside_block
    }

    /// Whether that would be blocks.
    pub(super) fn has_blocks_to_send(&self) -> bool {
        self.peer.has_blocks() && !self.latches.parked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::layout::Shape;
    use crate::wire::message::{Message, PeerId, Request};

    /// A connection whose peer has said its handshake, is unchoked and waits for one block.
    fn connection() -> Connection {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let mut connection = Connection::new(stream, address.ip(), 0, Time(0));
        let shape = Shape {
            piece_length: 16 * 1024,
            pieces: 2,
            total_length: 32 * 1024,
            metadata_length: 100,
            private: false,
        };
        let peer = &mut connection.peer;
        peer.handle_handshake([0; 8], InfoHash([1; 20]), PeerId([2; 20]));
        peer.handle_sent(68);
        peer.handle_peer_id(PeerId([3; 20]), PeerId([2; 20]), &shape, &[])
            .unwrap();
        peer.unchoke();
        let request = Request {
            index: 0,
            begin: 0,
            length: 16 * 1024,
        };
        peer.handle_message(&Message::Request(request), &shape)
            .unwrap();
        let control = peer.poll_transmit().control.len();
        peer.handle_sent(control);
        connection
    }

    fn window(file: u32, range: Range<u64>) -> Window {
        let seen = Time(1000);
        Window { file, range, seen }
    }

    #[test]
    fn every_file_of_a_block_is_remembered() {
        // Else, where the kernel cannot be asked, reading one would make us forget the other.
        let mut windows = Vec::new();
        for file in 1..=4 {
            remember(&mut windows, window(file, 0..100));
        }
        let known = |windows: &[Window], file| is_known(windows, file, &(10..100), Time(3000));
        assert!((1..=4).all(|file| known(&windows, file)));
        remember(&mut windows, window(2, 5..100));
        remember(&mut windows, window(5, 0..100));
        assert_eq!(windows.len(), 4);
        assert!(!known(&windows, 1) && (2..=5).all(|file| known(&windows, file)));
        assert!(!is_known(&windows, 2, &(4..100), Time(3000)), "before it");
        assert!(!is_known(&windows, 2, &(5..101), Time(3000)), "behind it");
        assert!(
            !is_known(&windows, 2, &(5..100), Time(3001)),
            "too long ago"
        );
    }

    #[test]
    fn a_parked_connection_sends_what_does_not_wait_for_content() {
        let mut connection = connection();
        assert!(connection.wants_to_send());
        connection.latches.parked = true;
        assert!(!connection.wants_to_send());
        connection.choke();
        assert!(connection.wants_to_send());
    }

    #[test]
    fn behind_a_begun_block_that_is_parked_nothing_is_tried() {
        let mut connection = connection();
        connection.peer.handle_sent(1000);
        connection.latches.parked = true;
        connection.choke();
        assert!(connection.peer.has_control());
        assert!(!connection.wants_to_send(), "the loop would spin");
        connection.latches.parked = false;
        assert!(connection.wants_to_send());
    }
}
