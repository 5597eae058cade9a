//! What the tests of the peer machine share: a torrent, and a peer whose opening is over.

use super::machine::{Effect, Peer};
use crate::torrent::layout::Shape;
use crate::wire::message::{InfoHash, Message, PeerId, Request};

pub(super) const OURS: PeerId = PeerId(*b"-HK0100-abcdefghijkl");
pub(super) const THEIRS: PeerId = PeerId(*b"-XX0001-abcdefghijkl");
pub(super) const INFO_HASH: InfoHash = InfoHash([7; 20]);

/// 20 pieces of 256 KiB, the last of 16 KiB.
pub(super) const SHAPE: Shape = Shape {
    piece_length: 256 * 1024,
    pieces: 20,
    total_length: 19 * 256 * 1024 + 16 * 1024,
    metadata_length: 40_000,
    private: false,
};

/// The bits of BEP 10, and of BEP 6 if `fast`.
pub(super) fn reserved(fast: bool) -> [u8; 8] {
    [0, 0, 0, 0, 0, 0x10, 0, if fast { 0x04 } else { 0 }]
}

/// A peer whose handshakes are exchanged and sent.
pub(super) fn open_peer(fast: bool) -> Peer {
    let mut peer = Peer::default();
    peer.handle_handshake(reserved(fast), INFO_HASH, OURS);
    peer.handle_peer_id(THEIRS, OURS, &SHAPE, b"").unwrap();
    take_control(&mut peer);
    take_control(&mut peer);
    peer
}

/// A peer that is unchoked and has asked for `blocks` blocks.
pub(super) fn served_peer(fast: bool, blocks: u32) -> Peer {
    let mut peer = open_peer(fast);
    peer.handle_message(&Message::Interested, &SHAPE).unwrap();
    peer.unchoke();
    take_control(&mut peer);
    for number in 0..blocks {
        let request = block(number);
        let event = peer.handle_message(&Message::Request(request), &SHAPE);
        let newly_interested = false;
        assert_eq!(event, Ok(Effect::Requested { newly_interested }));
    }
    peer
}

/// The block of 16 KiB with this number.
pub(super) fn block(number: u32) -> Request {
    Request {
        index: number / 16 % 19,
        begin: number % 16 * 16 * 1024,
        length: 16 * 1024,
    }
}

/// Sends what control bytes are shown, and returns them.
pub(super) fn take_control(peer: &mut Peer) -> Vec<u8> {
    let control = peer.poll_transmit().control.to_vec();
    peer.handle_sent(control.len());
    control
}
