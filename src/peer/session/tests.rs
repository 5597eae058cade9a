//! The session state by state, and what hostile peers make of it.

use super::*;
use crate::peer::fixture::{INFO_HASH, OURS, SHAPE, THEIRS, block, reserved};
use crate::wire::encoder;
use crate::wire::handshake::{self, PROTOCOL};

const TIMEOUTS: Timeouts = Timeouts {
    handshake_ms: 10_000,
    message_ms: 60_000,
    idle_ms: 300_000,
    write_ms: 120_000,
    keep_alive_ms: 100_000,
    waiting_keep_alive_ms: 8_000,
};

const INTERESTED: [u8; 5] = [0, 0, 0, 1, 2];
const NOT_INTERESTED: [u8; 5] = [0, 0, 0, 1, 3];

fn introduction() -> Introduction {
    Introduction {
        peer_id: OURS,
        port: 6881,
        your_ip: "192.0.2.7".parse().unwrap(),
    }
}

fn handshake_for(info_hash: InfoHash, id: PeerId) -> Vec<u8> {
    [
        &PROTOCOL[..],
        &reserved(true)[..],
        &info_hash.0[..],
        &id.0[..],
    ]
    .concat()
}

fn handshake_bytes() -> Vec<u8> {
    handshake_for(INFO_HASH, THEIRS)
}

fn request(number: u32) -> Vec<u8> {
    let block = block(number);
    let mut bytes = vec![0, 0, 0, 13, 6];
    for field in [block.index, block.begin, block.length] {
        bytes.extend(field.to_be_bytes());
    }
    bytes
}

/// Hands over bytes as the loop does, and loads a torrent at once if `loads`. Returns the events.
fn feed(
    session: &mut Session,
    bytes: &[u8],
    now: Time,
    loads: bool,
) -> Result<Vec<Event>, CloseReason> {
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Vec::new();
    let mut bytes = bytes;
    while !bytes.is_empty() && session.wants_bytes() {
        let free = session.prepare(&mut buffer);
        let held = free.start;
        let taken = bytes.len().min(free.len());
        buffer[held..held + taken].copy_from_slice(&bytes[..taken]);
        bytes = &bytes[taken..];
        let mut received = &buffer[..held + taken];
        while let Some(event) = session.receive(&mut received, now, &introduction())? {
            events.push(event);
            if loads && matches!(event, Event::TorrentWanted(_)) {
                assert!(
                    session
                        .torrent_loaded(SHAPE, Opening::Everything, OURS)
                        .is_empty()
                );
            }
        }
        assert!(received.is_empty(), "all bytes are taken");
    }
    Ok(events)
}

/// Writes everything there is but blocks, and returns it.
fn drain_control(session: &mut Session, now: Time) -> Vec<u8> {
    let mut written = Vec::new();
    while session.has_control() {
        let control = session.poll_transmit().control.to_vec();
        session.sent(control.len(), false, now);
        written.extend(control);
    }
    written
}

fn open_session() -> Session {
    let mut session = Session::accepted(Time(0));
    let events = feed(&mut session, &handshake_bytes(), Time(0), true).unwrap();
    assert_eq!(events, [Event::TorrentWanted(INFO_HASH), Event::Opened]);
    drain_control(&mut session, Time(0));
    session
}

fn closing(session: &Session) -> Option<(CloseReason, bool)> {
    match *session.phase() {
        Phase::Closing { reason, was_open } => Some((reason, was_open)),
        _ => None,
    }
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 240, "{}", size_of::<Session>());
}

#[test]
fn an_accepted_connection_passes_through_every_phase_at_every_split() {
    let bytes = [&handshake_bytes()[..], &INTERESTED].concat();
    for cut in 0..=bytes.len() {
        let mut session = Session::accepted(Time(0));
        assert!(matches!(
            session.phase(),
            Phase::Handshake { dialled: None }
        ));
        let mut events = feed(&mut session, &bytes[..cut], Time(1), true).unwrap();
        events.extend(feed(&mut session, &bytes[cut..], Time(2), true).unwrap());
        assert_eq!(
            events,
            [
                Event::TorrentWanted(INFO_HASH),
                Event::Opened,
                Event::Interested
            ],
            "cut at {cut}"
        );
        assert!(matches!(session.phase(), Phase::Open { .. }));
        assert_eq!(session.label(), "waiting");
    }
}

#[test]
fn our_handshake_answers_the_info_hash_before_the_peer_id_comes() {
    let mut session = Session::accepted(Time(0));
    feed(&mut session, &handshake_bytes()[..48], Time(0), true).unwrap();
    assert!(matches!(session.phase(), Phase::AwaitingPeerId { .. }));
    let control = drain_control(&mut session, Time(0));
    assert_eq!(control, handshake::encode(INFO_HASH, OURS));
}

#[test]
fn while_a_torrent_is_loaded_nothing_is_decoded_and_nothing_is_lost() {
    for extra in [0, 1, 20] {
        let bytes = [&handshake_bytes()[..], &INTERESTED].concat();
        let mut session = Session::accepted(Time(0));
        let events = feed(&mut session, &bytes[..48 + extra], Time(0), false).unwrap();
        assert_eq!(events, [Event::TorrentWanted(INFO_HASH)]);
        assert!(matches!(session.phase(), Phase::Loading(_)));
        assert!(!session.wants_bytes() && !session.has_control());
        let tail = session.torrent_loaded(SHAPE, Opening::Everything, OURS);
        assert_eq!(*tail, bytes[48..48 + extra]);
        let rest = [&tail[..], &bytes[48 + extra..]].concat();
        let events = feed(&mut session, &rest, Time(1), true).unwrap();
        assert_eq!(events, [Event::Opened, Event::Interested]);
    }
}

#[test]
fn no_more_than_a_handshake_is_read_before_the_torrent_is_known() {
    let mut buffer = vec![0; 64 * 1024];
    let mut session = Session::accepted(Time(0));
    assert_eq!(session.prepare(&mut buffer), 0..68);
    feed(&mut session, &handshake_bytes()[..10], Time(0), true).unwrap();
    assert_eq!(session.prepare(&mut buffer), 10..68);
    assert_eq!(&buffer[..10], &PROTOCOL[..10]);
    assert_eq!(open_session().prepare(&mut buffer), 0..64 * 1024);
}

#[test]
fn a_dialled_session_speaks_first_and_only_of_its_torrent() {
    let mut session = Session::dialled(Time(0), INFO_HASH, OURS);
    let control = drain_control(&mut session, Time(0));
    assert_eq!(control, handshake::encode(INFO_HASH, OURS));
    let events = feed(&mut session, &handshake_bytes(), Time(0), true).unwrap();
    assert_eq!(events, [Event::TorrentWanted(INFO_HASH), Event::Opened]);
    let control = drain_control(&mut session, Time(0));
    assert_eq!(
        control[..5],
        [0, 0, 0, 1, 14],
        "have-all, no second handshake"
    );

    let mut session = Session::dialled(Time(0), INFO_HASH, OURS);
    let other = handshake_for(InfoHash([8; 20]), THEIRS);
    let outcome = feed(&mut session, &other, Time(0), true);
    assert_eq!(outcome, Err(CloseReason::UnknownTorrent));
    assert_eq!(
        closing(&session),
        Some((CloseReason::UnknownTorrent, false))
    );
}

#[test]
fn another_protocol_and_ourselves_are_closed_before_they_are_open() {
    let mut session = Session::accepted(Time(0));
    let outcome = feed(&mut session, b"GET / HTTP/1.1", Time(0), true);
    assert_eq!(outcome, Err(CloseReason::NotBitTorrent));
    let mut session = Session::accepted(Time(0));
    let ours = handshake_for(INFO_HASH, OURS);
    let outcome = feed(&mut session, &ours, Time(0), true);
    assert_eq!(outcome, Err(CloseReason::OurselvesConnected));
    let end = Some((CloseReason::OurselvesConnected, false));
    assert_eq!(closing(&session), end);
    assert!(!session.wants_bytes());
}

#[test]
fn the_first_reason_to_close_stays() {
    let mut session = open_session();
    session.close(CloseReason::Shutdown);
    session.close(CloseReason::PeerClosed);
    assert_eq!(closing(&session), Some((CloseReason::Shutdown, true)));
    assert_eq!(session.label(), "closing");
}

#[test]
fn events_come_in_the_order_of_the_messages_and_requests_once_behind_them() {
    let mut session = open_session();
    session.unchoke();
    assert_eq!(session.upload(), Upload::Unchoked { interested: false });
    let bytes = [&request(0)[..], &request(1), &NOT_INTERESTED, &request(2)].concat();
    let events = feed(&mut session, &bytes, Time(1), true).unwrap();
    let expected = [
        Event::Interested,
        Event::NotInterested,
        Event::Interested,
        Event::Requested { bytes: 48 * 1024 },
    ];
    assert_eq!(events, expected);
    assert_eq!(session.queue_length(), 3, "the caller did not choke it");
    let events = feed(&mut session, &request(3), Time(2), true).unwrap();
    assert_eq!(events, [Event::Requested { bytes: 16 * 1024 }]);
}

#[test]
fn interest_and_slot_make_the_four_states_of_an_upload() {
    let mut session = open_session();
    assert_eq!(
        (session.upload(), session.label()),
        (Upload::Choked, "choked")
    );
    feed(&mut session, &INTERESTED, Time(1), true).unwrap();
    assert_eq!(session.upload(), Upload::Waiting);
    session.unchoke();
    assert_eq!(session.upload(), Upload::Unchoked { interested: true });
    assert_eq!(session.label(), "unchoked");
    session.choke();
    assert_eq!(session.upload(), Upload::Waiting);
    feed(&mut session, &NOT_INTERESTED, Time(1), true).unwrap();
    assert_eq!(session.upload(), Upload::Choked);
}

#[test]
fn every_phase_has_its_timeout() {
    let mut session = Session::accepted(Time(0));
    feed(&mut session, &handshake_bytes()[..48], Time(5000), false).unwrap();
    assert_eq!(
        session.poll_at(&TIMEOUTS),
        Time(10_000),
        "also while loading"
    );
    assert_eq!(session.timeout(Time(9999), &TIMEOUTS), Ok(()));
    let late = session.timeout(Time(10_000), &TIMEOUTS);
    assert_eq!(late, Err(CloseReason::HandshakeTimeout));
    assert_eq!(
        closing(&session),
        Some((CloseReason::HandshakeTimeout, false))
    );

    let mut session = open_session();
    feed(&mut session, &request(0)[..9], Time(1000), true).unwrap();
    assert_eq!(session.poll_at(&TIMEOUTS), Time(61_000));
    let late = session.timeout(Time(61_000), &TIMEOUTS);
    assert_eq!(late, Err(CloseReason::MessageTimeout));

    let mut session = open_session();
    session.write_blocked(Time(1000));
    let late = session.timeout(Time(121_000), &TIMEOUTS);
    assert_eq!(late, Err(CloseReason::WriteTimeout));

    let mut session = open_session();
    let late = session.timeout(Time(300_000), &TIMEOUTS);
    assert_eq!(late, Err(CloseReason::IdleTimeout));
}

#[test]
fn a_peer_that_waits_for_a_slot_gets_keep_alives_more_often() {
    let mut session = open_session();
    assert_eq!(session.poll_at(&TIMEOUTS), Time(100_000));
    feed(&mut session, &INTERESTED, Time(0), true).unwrap();
    assert_eq!(session.poll_at(&TIMEOUTS), Time(8000));
    session.timeout(Time(8000), &TIMEOUTS).unwrap();
    assert_eq!(drain_control(&mut session, Time(8000)), [0; 4]);
    session.unchoke();
    assert_eq!(session.poll_at(&TIMEOUTS), Time(108_000));
}

#[test]
fn a_dripped_message_is_late_though_events_come_before_it() {
    let mut session = open_session();
    let bytes = [&INTERESTED[..], &request(0)[..3]].concat();
    feed(&mut session, &bytes, Time(1000), true).unwrap();
    for second in 2..50 {
        let drip = &request(0)[3..4];
        if second == 2 {
            feed(&mut session, drip, Time(second * 1000), true).unwrap();
        }
        session.sent(0, false, Time(second * 1000));
    }
    let late = session.timeout(Time(61_000), &TIMEOUTS);
    assert_eq!(late, Err(CloseReason::MessageTimeout));
}

#[test]
fn blocks_that_fail_in_a_row_end_the_session_and_one_that_is_sent_forgives() {
    let unreadable = BlockFailure::Unreadable;
    let mut session = open_session();
    session.unchoke();
    drain_control(&mut session, Time(0));
    let fail = |session: &mut Session, times: u16| {
        (0..times).try_for_each(|_| session.block_failed(block(9), unreadable))
    };
    assert_eq!(fail(&mut session, UNREADABLE_BLOCKS_MAX), Ok(()));
    feed(&mut session, &request(0), Time(0), true).unwrap();
    drain_control(&mut session, Time(0));
    assert_eq!(session.sent(13 + 16 * 1024, false, Time(0)).blocks, 1);
    assert_eq!(fail(&mut session, UNREADABLE_BLOCKS_MAX), Ok(()));
    let outcome = session.block_failed(block(9), BlockFailure::BadPiece);
    assert_eq!(outcome, Ok(()), "a bad piece costs no read");
    assert_eq!(fail(&mut session, 1), Err(CloseReason::ContentFailed));
    assert!(session.is_closing());
}

#[test]
fn a_peer_that_does_not_take_its_answers_is_not_listened_to() {
    let mut session = open_session();
    let flood = request(0).repeat(60_000);
    feed(&mut session, &flood, Time(1), true).unwrap();
    assert!(!session.wants_bytes());
    let control = session.poll_transmit().control.len();
    assert!(control <= CONTROL_LIMIT_BYTES + 64 * 1024, "{control}");
    drain_control(&mut session, Time(2));
    assert!(session.wants_bytes());
}

#[test]
fn random_bytes_behind_the_handshake_never_break_the_session() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..3000 {
        let mut session = open_session();
        if random.bool() {
            session.unchoke();
        }
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..8) {
            match random.u8(0..8) {
                0 => bytes.extend(INTERESTED),
                1 => bytes.extend(NOT_INTERESTED),
                2 => bytes.extend(request(random.u32(..))),
                3 => encoder::extended(&mut bytes, random.u8(0..4), b"d8:msg_typei0e5:piecei0ee"),
                4 => bytes.extend((0..random.usize(0..20)).map(|_| random.u8(..))),
                5 => bytes.extend([0, 0, 0, random.u8(0..40), random.u8(0..24)]),
                6 => bytes.extend([0; 4]),
                _ => bytes.extend(handshake_bytes()),
            }
        }
        let cut = random.usize(0..=bytes.len());
        let outcome = feed(&mut session, &bytes[..cut], Time(1), true)
            .and_then(|_| feed(&mut session, &bytes[cut..], Time(2), true));
        assert_eq!(outcome.is_err(), session.is_closing());
        assert!(session.queue_length() <= REQQ);
        while let Some(piece) = session.poll_metadata() {
            session.metadata_loaded(piece, None);
        }
    }
}

#[test]
#[should_panic(expected = "no torrent is awaited")]
fn a_torrent_that_was_not_wanted_is_a_defect_of_the_caller() {
    let _ = Session::accepted(Time(0)).torrent_loaded(SHAPE, Opening::Everything, OURS);
}

/// A session with a peer that was told that we have nothing.
fn hiding_session(fast: bool) -> (Session, Vec<u8>) {
    let mut session = Session::accepted(Time(0));
    let mut handshake = handshake_bytes();
    handshake[20..28].copy_from_slice(&reserved(fast));
    feed(&mut session, &handshake[..48], Time(0), false).unwrap();
    session.torrent_loaded(SHAPE, Opening::Nothing, OURS);
    feed(&mut session, &handshake[48..], Time(0), false).unwrap();
    assert_eq!(session.opening(), Opening::Nothing);
    let mut control = drain_control(&mut session, Time(0));
    let opening = control.split_off(HANDSHAKE_LENGTH);
    (session, opening)
}

#[test]
fn a_peer_from_which_pieces_are_hidden_learns_of_none() {
    let (_, opening) = hiding_session(true);
    assert!(opening.starts_with(&[0, 0, 0, 1, 15]), "have-none");
    let text = String::from_utf8_lossy(&opening);
    assert!(text.contains("11:upload_onlyi0e"), "it would leave: {text}");
    let (_, opening) = hiding_session(false);
    assert_eq!(opening.get(4), Some(&20), "no bitfield, BEP 10 only");
}

#[test]
fn shown_and_suggested_pieces_are_told_and_all_of_them_in_parts() {
    let (mut session, _) = hiding_session(true);
    session.show(7);
    session.suggest(8);
    let told = drain_control(&mut session, Time(0));
    assert_eq!(
        told,
        [0, 0, 0, 5, 4, 0, 0, 0, 7, 0, 0, 0, 5, 13, 0, 0, 0, 8]
    );
    let (mut plain, _) = hiding_session(false);
    plain.suggest(8);
    assert!(!plain.has_control(), "it does not know the message");
    session.show_all();
    let told = drain_control(&mut session, Time(0));
    let mut pieces: Vec<u8> = told.chunks(9).map(|have| have[8]).collect();
    pieces.sort_unstable();
    assert_eq!(pieces, (0..20).collect::<Vec<u8>>());
}

#[test]
fn what_a_peer_has_is_reported_when_it_was_asked_for() {
    let bitfield = [0, 0, 0, 4, 5, 0b1010_0000, 0, 0b1001_1111];
    let have = [0, 0, 0, 5, 4, 0, 0, 0, 18];
    for reports in [false, true] {
        let mut session = open_session();
        if reports {
            session.report_pieces();
        }
        let events = feed(&mut session, &bitfield, Time(0), true).unwrap();
        let expected = Event::HasPieces {
            first: 0,
            // The bits behind the last piece are dropped.
            bits: 0b1010_0000_0000_0000_1001 << 44,
        };
        assert_eq!(events, if reports { vec![expected] } else { vec![] });
        let events = feed(&mut session, &have, Time(0), true).unwrap();
        let expected = Event::HasPieces {
            first: 18,
            bits: 1 << 63,
        };
        assert_eq!(events, if reports { vec![expected] } else { vec![] });
    }
}

#[test]
fn a_bitfield_byte_by_byte_is_no_sign_of_life() {
    let mut session = open_session();
    feed(&mut session, &[0, 0, 0, 4, 5], Time(1000), true).unwrap();
    feed(&mut session, &[0], Time(40_000), true).unwrap();
    feed(&mut session, &[0], Time(60_000), true).unwrap();
    let due = session.poll_at(&TIMEOUTS);
    assert!(due <= Time(1000 + TIMEOUTS.message_ms), "{due:?}");
}
