//! The sending half of the protocol: shows what is next on the wire, and counts what went out.
//!
//! Nothing is remembered of what is in flight, except that the head of the queue may be partially
//! sent.

use super::machine::Peer;
use super::queue::{Blocks, Sent};
use crate::wire::message::Request;

/// What is to be sent, in this order.
#[derive(Clone, Debug)]
pub struct Transmit<'a> {
    /// A block whose message (header and body) is sent as far as this many bytes, more than none.
    pub partial: Option<(Request, u32)>,
    /// Encoded messages; while these are not all that there are, no blocks follow.
    pub control: &'a [u8],
    /// The blocks that follow. Whoever cannot send one of them must stop before it.
    pub blocks: Blocks<'a>,
}

impl Peer {
    /// What is to be sent next. Our handshake is shown alone until all of it is sent: some clients
    /// lose what arrives in one segment with it.
    pub(super) fn poll_transmit(&self) -> Transmit<'_> {
        let mut control = self.control.unsent();
        let mut blocks = self.blocks.unbegun();
        if self.handshake_unsent > 0 {
            control = control
                .get(..usize::from(self.handshake_unsent))
                .unwrap_or(control);
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

    /// The socket took `bytes` of what [`Peer::poll_transmit`] showed, from its beginning, with
    /// nothing skipped.
    pub(super) fn handle_sent(&mut self, bytes: usize) -> Sent {
        let mut sent = Sent::default();
        let mut left = self.blocks.finish_partial(bytes as u64, &mut sent);
        if left > 0 && !self.control.is_empty() {
            // No more than a usize went in, and no more than that is left.
            let control = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.control.unsent().len());
            self.control.advance(control);
            self.handshake_unsent = self
                .handshake_unsent
                .saturating_sub(u8::try_from(control).unwrap_or(u8::MAX));
            if self.control.is_empty() {
                self.opening_bytes = 0;
            }
            left -= control as u64;
        }
        self.blocks.advance(left, &mut sent);
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{
        INFO_HASH, OURS, SHAPE, THEIRS, block, open_peer, reserved, served_peer, take_control,
    };
    use super::*;
    use crate::wire::message::Message;

    const BLOCK_MESSAGE: usize = 13 + 16 * 1024;

    fn blocks(peer: &Peer) -> Vec<Request> {
        peer.poll_transmit().blocks.copied().collect()
    }

    #[test]
    fn our_handshake_goes_alone() {
        let mut peer = Peer::new();
        peer.handle_handshake(reserved(true), INFO_HASH, OURS);
        peer.handle_peer_id(THEIRS, OURS, &SHAPE, b"extensions")
            .unwrap();
        peer.unchoke();
        peer.handle_message(&Message::Request(block(0)), &SHAPE)
            .unwrap();
        assert_eq!(peer.poll_transmit().control.len(), 68);
        peer.handle_sent(60);
        assert_eq!(peer.poll_transmit().control.len(), 8);
        assert_eq!(blocks(&peer), []);
        peer.handle_sent(8);
        assert_eq!(
            peer.poll_transmit().control,
            b"\0\0\0\x01\x0eextensions\0\0\0\x01\x01"
        );
        assert_eq!(blocks(&peer), [block(0)]);
    }

    #[test]
    fn what_is_sent_is_accounted_in_the_order_of_the_wire() {
        let mut peer = served_peer(true, 3);
        peer.handle_sent(100);
        peer.handle_message(&Message::Cancel(block(2)), &SHAPE)
            .unwrap();
        let transmit = peer.poll_transmit();
        assert_eq!(transmit.partial, Some((block(0), 100)));
        assert_eq!(transmit.control.len(), 17);
        assert_eq!(blocks(&peer), [block(1)]);

        let rest = BLOCK_MESSAGE - 100;
        let sent = peer.handle_sent(rest + 16);
        assert_eq!((sent.payload_bytes, sent.blocks), (rest as u64, 1));
        assert_eq!(peer.poll_transmit().partial, None);
        assert_eq!(peer.poll_transmit().control.len(), 1);

        let sent = peer.handle_sent(1 + 13 + 5);
        assert_eq!((sent.payload_bytes, sent.blocks), (5, 0));
        assert!(!peer.has_control());
        assert_eq!(peer.poll_transmit().partial, Some((block(1), 18)));
        assert!(peer.has_blocks());
    }

    #[test]
    fn every_split_of_the_stream_accounts_for_the_same_bytes() {
        for step in [1, 7, 13, 14, 4096, BLOCK_MESSAGE - 1, BLOCK_MESSAGE, 50_000] {
            let mut peer = served_peer(true, 3);
            peer.handle_message(&Message::Cancel(block(1)), &SHAPE)
                .unwrap();
            let (mut left, mut payload_bytes, mut blocks) = (17 + 2 * BLOCK_MESSAGE, 0, 0);
            while left > 0 {
                let bytes = step.min(left);
                let sent = peer.handle_sent(bytes);
                payload_bytes += sent.payload_bytes;
                blocks += sent.blocks;
                left -= bytes;
            }
            assert_eq!((payload_bytes, blocks), (2 * 16 * 1024, 2), "step {step}");
            assert!(!peer.has_blocks() && !peer.has_control(), "step {step}");
        }
    }

    #[test]
    fn a_choked_peer_gets_the_rest_of_the_block_and_no_other() {
        let mut peer = served_peer(true, 3);
        peer.handle_sent(100);
        peer.choke();
        assert_eq!(peer.poll_transmit().partial, Some((block(0), 100)));
        assert_eq!(blocks(&peer), []);
        let sent = peer.handle_sent(BLOCK_MESSAGE - 100);
        assert_eq!(sent.blocks, 1);
        assert!(!peer.has_blocks());
        // One choke and two rejects follow it.
        assert_eq!(take_control(&mut peer).len(), 5 + 2 * 17);
    }

    #[test]
    fn an_idle_peer_shows_nothing() {
        let peer = open_peer(true);
        let transmit = peer.poll_transmit();
        assert_eq!(transmit.partial, None);
        assert!(transmit.control.is_empty() && transmit.blocks.count() == 0);
        assert!(!peer.has_control() && !peer.has_blocks());
    }
}
