//! Which invented peers are dialled when, without sockets.

use std::time::{Duration, Instant};

use super::*;

fn hash(number: u8) -> InfoHash {
    InfoHash([number; 20])
}

fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 2000 + number))
}

/// Dials all peers that may be dialled within this time.
fn dial(dialer: &mut Dialer, from: Time, ms: u64) -> Vec<Dialled> {
    let mut dialled = Vec::new();
    for at in 0..ms {
        while let Some(peer) = dialer.poll(from.after(at)) {
            dialer.started(peer.info_hash, peer.address);
            dialled.push(peer);
        }
    }
    dialled
}

#[test]
fn connections_are_spread_and_bounded_for_each_torrent_and_in_all() {
    let mut dialer = Dialer::default();
    for number in 0..40 {
        dialer.offer(hash(1), peer(number));
        dialer.offer(hash(1), peer(number));
    }
    assert_eq!(dialer.waiting.len(), 40, "no peer waits twice");
    assert_eq!(
        dial(&mut dialer, Time(0), 1000).len(),
        MAX_DIALLED_PER_TORRENT
    );
    assert!(dialer.waiting.is_empty(), "the others are named again");
    for number in 0..400 {
        let torrent = u8::try_from(2 + number / 10).unwrap();
        dialer.offer(hash(torrent), peer(number));
    }
    let second = dial(&mut dialer, Time(1000), 100);
    assert_eq!(second.len(), 2);
    dial(&mut dialer, Time(2000), 10_000);
    assert_eq!(dialer.connecting, MAX_CONNECTING);
    assert_eq!(dialer.poll_at(), None, "the loop does not spin");
    for round in 2..22 {
        dialer.connecting = 0;
        dial(&mut dialer, Time(round * 10_000), 10_000);
    }
    assert_eq!(dialer.open.len(), MAX_DIALLED);
}

#[test]
fn an_unreachable_address_backs_off_for_all_torrents_twice_as_long_each_time() {
    let mut dialer = Dialer::default();
    let mut now = Time(0);
    for backoff_ms in [60_000, 120_000, 240_000] {
        dialer.back_off(hash(1), peer(1), BackoffReason::Unreachable, now);
        now = now.after(backoff_ms - 1);
        dialer.offer(hash(2), peer(1));
        assert_eq!(dialer.poll(now), None);
        now = now.after(1);
        dialer.offer(hash(2), peer(1));
        let dialled = dialer.poll(now).unwrap();
        assert_eq!((dialled.info_hash, dialled.address), (hash(2), peer(1)));
    }
}

#[test]
fn a_peer_that_wants_nothing_backs_off_for_that_torrent_only() {
    let mut dialer = Dialer::default();
    dialer.back_off(hash(1), peer(1), BackoffReason::NotInterested, Time(0));
    dialer.offer(hash(1), peer(1));
    assert_eq!(dialer.poll(Time(MAX_BACKOFF_MS - 1)), None);
    dialer.offer(hash(2), peer(1));
    assert!(dialer.poll(Time(MAX_BACKOFF_MS - 1)).is_some());
    dialer.offer(hash(1), peer(1));
    assert!(dialer.poll(Time(2 * MAX_BACKOFF_MS)).is_some());
}

#[test]
fn a_flood_of_named_peers_costs_one_lookup_each() {
    let mut dialer = Dialer::default();
    let waiting: Vec<SocketAddr> = (0..MAX_WAITING)
        .map(|number| peer(u16::try_from(number).unwrap()))
        .collect();
    let begun = Instant::now();
    for _ in 0..100 {
        for peer in &waiting {
            dialer.offer(hash(1), *peer);
            dialer.offer(hash(2), *peer);
        }
    }
    assert_eq!(dialer.waiting.len(), MAX_WAITING);
    // A walk through all that wait for each of 800,000 names would take minutes.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn when_all_back_offs_are_used_they_are_walked_once_for_each_connection() {
    let mut dialer = Dialer::default();
    for number in 0..MAX_BACKOFFS {
        let address = peer(u16::try_from(number).unwrap());
        dialer.back_off(hash(1), address, BackoffReason::NotInterested, Time(0));
    }
    dialer.offer(hash(2), peer(1));
    assert_eq!(dialer.poll(Time(1)), None);
    dialer.offer(hash(2), peer(1));
    assert_eq!(dialer.poll_at(), Some(Time(1 + DIAL_INTERVAL_MS)));
    assert_eq!(dialer.poll(Time(DIAL_INTERVAL_MS)), None);
    assert!(dialer.poll(Time(MAX_BACKOFF_MS)).is_some());
}

/// Dials a peer; each connection ends for the next reason. Returns how it was dialled each time.
fn attempts(dialer: &mut Dialer, ends: &[(Reached, CloseReason)]) -> Vec<Attempt> {
    dialer.offer(hash(1), peer(1));
    let mut now = Time(0);
    let mut attempts = Vec::new();
    for (reached, reason) in ends {
        now = now.after(DIAL_INTERVAL_MS);
        let Some(dialled) = dialer.poll(now) else {
            break;
        };
        dialer.started(dialled.info_hash, dialled.address);
        attempts.push(dialled.attempt);
        dialer.ended(&dialled, *reached, *reason, now);
    }
    assert_eq!(dialer.connecting, 0);
    attempts
}

#[test]
fn a_peer_that_closes_without_a_byte_is_dialled_again_encrypted() {
    let closed = CloseReason::PeerClosed;
    let reset = CloseReason::SocketError(ErrorKind::ConnectionReset);
    let silent = [(Reached::Nothing, closed); 5];
    let both = [Attempt::Plain, Attempt::Encrypted];
    assert_eq!(attempts(&mut Dialer::default(), &silent), both);
    let unlucky = [(Reached::Nothing, reset), (Reached::Keys, reset)];
    let ends = [unlucky.as_slice(), &[(Reached::Keys, closed); 3]].concat();
    let all = [Attempt::Plain, Attempt::Encrypted, Attempt::EncryptedAgain];
    assert_eq!(attempts(&mut Dialer::default(), &ends), all);
    for end in [
        (Reached::Stream, closed),
        (Reached::Nothing, CloseReason::HandshakeTimeout),
        (
            Reached::Nothing,
            CloseReason::SocketError(ErrorKind::ConnectionRefused),
        ),
    ] {
        assert_eq!(
            attempts(&mut Dialer::default(), &[end; 3]),
            [Attempt::Plain]
        );
    }
    let required = attempts(&mut Dialer::new(Encryption::Require), &silent);
    assert_eq!(required, [Attempt::Encrypted]);
    let off = attempts(&mut Dialer::new(Encryption::Off), &silent);
    assert_eq!(off, [Attempt::Plain]);
}
