//! Who is called when, told with invented peers. It must not know sockets.

use super::*;

fn hash(number: u8) -> InfoHash {
    InfoHash([number; 20])
}

fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 2000 + number))
}

/// Calls whoever may be called within so many milliseconds.
fn calls(dialer: &mut Dialer, from: Time, ms: u64) -> Vec<(InfoHash, SocketAddr)> {
    let mut called = Vec::new();
    for at in 0..ms {
        while let Some((info_hash, peer)) = dialer.poll(from.after(at)) {
            dialer.began(info_hash, peer);
            called.push((info_hash, peer));
        }
    }
    called
}

#[test]
fn calls_are_spread_and_bounded_for_each_torrent_and_in_all() {
    let mut dialer = Dialer::default();
    for number in 0..40 {
        dialer.offer(hash(1), peer(number));
        dialer.offer(hash(1), peer(number));
    }
    assert_eq!(dialer.waiting.len(), 40, "nobody waits twice");
    assert_eq!(
        calls(&mut dialer, Time(0), 1000).len(),
        MAX_CALLED_PER_TORRENT
    );
    assert!(dialer.waiting.is_empty(), "the others are named again");
    for number in 0..400 {
        let torrent = u8::try_from(2 + number / 10).unwrap();
        dialer.offer(hash(torrent), peer(number));
    }
    let second = calls(&mut dialer, Time(1000), 100);
    assert_eq!(second.len(), 2);
    calls(&mut dialer, Time(2000), 10_000);
    assert_eq!(dialer.connecting, MAX_CONNECTING);
    assert_eq!(dialer.next(), None, "the loop does not spin");
    for round in 2..22 {
        dialer.connecting = 0;
        calls(&mut dialer, Time(round * 10_000), 10_000);
    }
    assert_eq!(dialer.open.len(), MAX_CALLED);
}

#[test]
fn whoever_cannot_be_connected_to_rests_for_all_torrents_twice_as_long_each_time() {
    let mut dialer = Dialer::default();
    let mut now = Time(0);
    for rest_ms in [60_000, 120_000, 240_000] {
        dialer.rest(hash(1), peer(1), true, false, now);
        now = now.after(rest_ms - 1);
        dialer.offer(hash(2), peer(1));
        assert_eq!(dialer.poll(now), None);
        now = now.after(1);
        dialer.offer(hash(2), peer(1));
        assert_eq!(dialer.poll(now), Some((hash(2), peer(1))));
    }
}

#[test]
fn whoever_wants_nothing_rests_for_that_torrent_alone() {
    let mut dialer = Dialer::default();
    dialer.rest(hash(1), peer(1), false, false, Time(0));
    dialer.offer(hash(1), peer(1));
    assert_eq!(dialer.poll(Time(MAX_REST_MS - 1)), None);
    dialer.offer(hash(2), peer(1));
    assert!(dialer.poll(Time(MAX_REST_MS - 1)).is_some());
    dialer.offer(hash(1), peer(1));
    assert!(dialer.poll(Time(2 * MAX_REST_MS)).is_some());
}
