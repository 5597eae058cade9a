//! What is legal, and what is answered.

use super::*;
use crate::peer::fixture::{
    INFO_HASH, OURS, SHAPE, THEIRS, block, open_peer, reserved, served_peer, take_control,
};
use crate::peer::queue::REQQ;

const CHOKE: &[u8] = &[0, 0, 0, 1, 0];
const UNCHOKE: &[u8] = &[0, 0, 0, 1, 1];

fn rejects(requests: &[Request]) -> Vec<u8> {
    let mut out = Vec::new();
    for request in requests {
        encoder::reject(&mut out, *request);
    }
    out
}

fn say(peer: &mut Peer, message: Message<'_>) -> Result<Effect, CloseReason> {
    peer.handle_message(&message, &SHAPE)
}

fn illegal(says: Result<Effect, CloseReason>) -> bool {
    matches!(says, Err(CloseReason::IllegalMessage(_)))
}

#[test]
fn a_peer_is_small() {
    assert!(size_of::<Peer>() <= 128, "{}", size_of::<Peer>());
    let mut peer = served_peer(true, 5);
    peer.choke();
    take_control(&mut peer);
    assert_eq!(peer.control.out().capacity(), 0);
}

#[test]
fn the_handshake_is_answered_before_the_peer_id_is_known() {
    let mut peer = Peer::default();
    peer.handle_handshake(reserved(true), INFO_HASH, OURS);
    assert_eq!(take_control(&mut peer), handshake::encode(INFO_HASH, OURS));
}

#[test]
fn have_all_is_for_peers_with_fast_and_a_bitfield_for_the_others() {
    for (fast, opening) in [
        (true, &b"\0\0\0\x01\x0ebep10"[..]),
        (false, b"\0\0\0\x04\x05\xff\xff\xf0bep10"),
    ] {
        let mut peer = Peer::default();
        peer.handle_handshake(reserved(fast), INFO_HASH, OURS);
        take_control(&mut peer);
        peer.handle_peer_id(THEIRS, OURS, &SHAPE, b"bep10").unwrap();
        assert_eq!(take_control(&mut peer), opening);
    }
    let mut plain = Peer::default();
    plain.handle_handshake([0; 8], INFO_HASH, OURS);
    take_control(&mut plain);
    plain
        .handle_peer_id(THEIRS, OURS, &SHAPE, b"bep10")
        .unwrap();
    assert_eq!(take_control(&mut plain).len(), 8, "no BEP 10 unasked");
}

#[test]
fn we_do_not_serve_ourselves() {
    let mut peer = Peer::default();
    peer.handle_handshake(reserved(true), INFO_HASH, OURS);
    let end = peer.handle_peer_id(OURS, OURS, &SHAPE, b"");
    assert_eq!(end, Err(CloseReason::OurselvesConnected));
}

#[test]
fn a_seed_is_closed_however_it_becomes_one() {
    let seed = Err(CloseReason::PeerIsSeed);
    let bitfield = |ones| Message::Bitfield {
        length_bytes: 3,
        at: 0,
        bytes: 3,
        bits: 0,
        ones,
    };
    assert_eq!(say(&mut open_peer(true), Message::HaveAll), seed);
    assert_eq!(say(&mut open_peer(false), bitfield(20)), seed);
    let mut peer = open_peer(false);
    assert_eq!(say(&mut peer, bitfield(18)), Ok(Effect::None));
    assert_eq!(say(&mut peer, Message::Have(3)), Ok(Effect::None));
    assert_eq!(say(&mut peer, Message::Have(4)), seed);
    let mut peer = open_peer(true);
    assert_eq!(say(&mut peer, bitfield(19)), Ok(Effect::None));
    assert_eq!(say(&mut peer, Message::HaveNone), Ok(Effect::None));
    assert_eq!(say(&mut peer, Message::Have(4)), Ok(Effect::None));
}

#[test]
fn illegal_messages_end_the_peer() {
    let bitfield = |length_bytes, ones| Message::Bitfield {
        length_bytes,
        at: 0,
        bytes: length_bytes,
        bits: 0,
        ones,
    };
    assert!(illegal(say(&mut open_peer(true), Message::Have(20))));
    assert!(illegal(say(&mut open_peer(true), bitfield(2, 1))));
    assert!(illegal(say(&mut open_peer(true), bitfield(4, 1))));
    assert!(illegal(say(&mut open_peer(true), bitfield(3, 21))));
    assert!(illegal(say(&mut open_peer(false), Message::HaveAll)));
    assert!(illegal(say(&mut open_peer(false), Message::HaveNone)));
    assert!(illegal(say(&mut open_peer(true), Message::PeerId(THEIRS))));
    let outside = Request {
        index: 19,
        begin: 1,
        length: 16 * 1024,
    };
    for unchoked in [false, true] {
        let mut peer = open_peer(true);
        if unchoked {
            peer.unchoke();
        }
        let end = say(&mut peer, Message::Request(outside));
        assert_eq!(end, Err(CloseReason::IllegalRequest));
    }
}

#[test]
fn messages_of_no_use_do_no_harm() {
    let mut peer = served_peer(true, 1);
    for message in [
        Message::KeepAlive,
        Message::Choke,
        Message::Unchoke,
        Message::Ignored { id: 200 },
    ] {
        assert_eq!(say(&mut peer, message), Ok(Effect::None));
    }
    assert_eq!((peer.queue_length(), peer.has_control()), (1, false));
}

#[test]
fn interest_is_reported_and_not_interested_is_no_goodbye() {
    let mut peer = open_peer(true);
    assert_eq!(say(&mut peer, Message::Interested), Ok(Effect::Interested));
    assert_eq!(peer.upload(), Upload::Waiting);
    let says = say(&mut peer, Message::NotInterested);
    assert_eq!(says, Ok(Effect::NotInterested));
    assert_eq!(peer.upload(), Upload::Choked);
}

#[test]
fn a_request_says_that_the_peer_is_interested() {
    let mut peer = open_peer(true);
    let request = block(0);
    let says = say(&mut peer, Message::Request(request));
    assert_eq!(says, Ok(Effect::Interested));
    assert_eq!(say(&mut peer, Message::Request(request)), Ok(Effect::None));
    let mut peer = open_peer(true);
    peer.unchoke();
    for newly_interested in [true, false] {
        assert_eq!(
            say(&mut peer, Message::Request(request)),
            Ok(Effect::Requested { newly_interested })
        );
    }
}

#[test]
fn a_request_while_choked_is_rejected_with_fast_and_dropped_without() {
    for (fast, answer) in [(true, rejects(&[block(0)])), (false, Vec::new())] {
        let mut peer = open_peer(fast);
        say(&mut peer, Message::Request(block(0))).unwrap();
        assert_eq!(take_control(&mut peer), answer);
        assert!(!peer.has_blocks());
    }
}

#[test]
fn a_request_beyond_the_bound_is_rejected_with_fast_and_dropped_without() {
    for (fast, answer) in [(true, rejects(&[block(9)])), (false, Vec::new())] {
        let mut peer = served_peer(fast, 2000);
        let says = say(&mut peer, Message::Request(block(9)));
        assert_eq!(says, Ok(Effect::None));
        assert_eq!(take_control(&mut peer), answer);
        assert_eq!(peer.queue_length(), REQQ);
    }
}

#[test]
fn a_cancel_is_answered_once_and_only_for_what_is_queued() {
    for (fast, answer) in [(true, rejects(&[block(1)])), (false, Vec::new())] {
        let mut peer = served_peer(fast, 3);
        peer.handle_sent(1);
        for number in [0, 1, 1, 9] {
            say(&mut peer, Message::Cancel(block(number))).unwrap();
        }
        peer.handle_sent(13 + 16 * 1024 - 1);
        assert_eq!(take_control(&mut peer), answer);
        assert_eq!(peer.queue_length(), 1);
    }
}

#[test]
fn choke_refuses_the_queue_and_unchoke_opens_it() {
    let queued = [block(0), block(1)];
    for (fast, answer) in [(true, rejects(&queued)), (false, Vec::new())] {
        let mut peer = served_peer(fast, 2);
        peer.choke();
        peer.choke();
        assert_eq!(take_control(&mut peer), [CHOKE, &answer].concat());
        assert!(peer.upload() == Upload::Waiting && !peer.has_blocks());
        peer.unchoke();
        peer.unchoke();
        assert_eq!(take_control(&mut peer), UNCHOKE);
    }
}

#[test]
fn a_block_that_cannot_be_read_is_rejected_where_that_can_be_said() {
    let mut peer = served_peer(true, 2);
    assert_eq!(peer.reject_block(block(1)), Ok(()));
    assert_eq!(peer.reject_block(block(1)), Ok(()), "it is gone");
    assert_eq!(take_control(&mut peer), rejects(&[block(1)]));
    assert_eq!((peer.take_rejected(), peer.take_rejected()), (1, 0));
    peer.handle_sent(1);
    let begun = peer.reject_block(block(0));
    assert_eq!(begun, Err(CloseReason::ContentFailed));
    let plain = served_peer(false, 1).reject_block(block(0));
    assert_eq!(plain, Err(CloseReason::ContentFailed));
}

#[test]
fn one_keep_alive_is_queued_and_no_other_time_out_is_survived() {
    let mut peer = open_peer(true);
    peer.handle_timeout(Timer::KeepAlive).unwrap();
    peer.handle_timeout(Timer::KeepAlive).unwrap();
    assert_eq!(take_control(&mut peer), [0; 4]);
    for (timer, reason) in [
        (Timer::Handshake, CloseReason::HandshakeTimeout),
        (Timer::Message, CloseReason::MessageTimeout),
        (Timer::Idle, CloseReason::IdleTimeout),
        (Timer::Write, CloseReason::WriteTimeout),
    ] {
        assert_eq!(peer.handle_timeout(timer), Err(reason));
    }
}

#[test]
fn a_peer_that_provokes_answers_and_takes_none_is_backlogged() {
    let mut peer = open_peer(true);
    for _ in 0..CONTROL_LIMIT_BYTES / 17 {
        say(&mut peer, Message::Request(block(0))).unwrap();
        assert!(!peer.is_backlogged());
    }
    say(&mut peer, Message::Request(block(0))).unwrap();
    assert!(peer.is_backlogged());
    peer.handle_sent(100);
    assert!(!peer.is_backlogged());
}

#[test]
fn every_kind_of_futile_message_ends_a_peer_in_the_end_and_a_block_forgives_all() {
    let kinds = [
        Message::Request(block(0)),
        Message::Cancel(block(0)),
        Message::Interested,
        Message::NotInterested,
        Message::Extended {
            id: 0,
            payload: b"de",
        },
    ];
    for message in kinds {
        let mut peer = open_peer(true);
        for _ in 0..FUTILE_MAX {
            say(&mut peer, message).unwrap();
            while peer.has_control() {
                take_control(&mut peer);
            }
        }
        assert_eq!(say(&mut peer, message), Err(CloseReason::Flooded));
    }

    let mut peer = open_peer(true);
    for _ in 0..FUTILE_MAX {
        say(&mut peer, Message::Interested).unwrap();
    }
    peer.unchoke();
    say(&mut peer, Message::Request(block(0))).unwrap();
    while peer.has_control() {
        take_control(&mut peer);
    }
    peer.handle_sent(13 + 16 * 1024);
    say(&mut peer, Message::Interested).unwrap();
}

#[test]
fn a_large_bitfield_of_ours_is_no_backlog() {
    let mut peer = Peer::default();
    peer.handle_handshake([0; 8], INFO_HASH, OURS);
    let mut shape = SHAPE;
    shape.pieces = 1_000_000;
    peer.handle_peer_id(THEIRS, OURS, &shape, b"").unwrap();
    assert!(!peer.is_backlogged());
    while peer.has_control() {
        take_control(&mut peer);
    }
    assert_eq!(peer.opening_bytes, 0);
}

#[test]
fn a_full_bitfield_of_millions_of_pieces_is_shared() {
    for pieces in [1_000_000, 4_000_000, 4_000_003] {
        let mut peer = Peer::default();
        peer.handle_handshake(reserved(false), INFO_HASH, OURS);
        take_control(&mut peer);
        let shape = Shape { pieces, ..SHAPE };
        peer.handle_peer_id(THEIRS, OURS, &shape, b"bep10").unwrap();
        peer.unchoke();
        peer.handle_message(&Message::Request(block(0)), &shape)
            .unwrap();
        assert!(peer.control.out().capacity() < 32 * 1024);
        let mut expected = Vec::new();
        encoder::bitfield_full(&mut expected, pieces);
        expected.extend_from_slice(b"bep10");
        expected.extend_from_slice(UNCHOKE);
        let mut sent = Vec::new();
        while peer.has_control() {
            let transmit = peer.poll_transmit();
            let shown = transmit.control.to_vec();
            let is_last = sent.len() + shown.len() == expected.len();
            assert_eq!(transmit.blocks.count(), usize::from(is_last), "in between");
            // The socket takes some of it.
            let taken = shown.len().min(50_001);
            sent.extend_from_slice(&shown[..taken]);
            peer.handle_sent(taken);
        }
        assert!(sent == expected);
        assert!(peer.has_blocks());
    }
}

// Sending.

const BLOCK_MESSAGE: usize = 13 + 16 * 1024;

fn blocks(peer: &Peer) -> Vec<Request> {
    peer.poll_transmit().blocks.copied().collect()
}

#[test]
fn our_handshake_goes_alone() {
    let mut peer = Peer::default();
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
