//! Bounds of the connections to all trackers, on listeners that never answer.

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;

use mio::{Poll, Token, Waker};

use super::*;
use crate::torrent::id::TorrentId;
use crate::tracker::announce::Identity;
use crate::tracker::announcer::{AnnouncerConfig, Limits};
use crate::tracker::callees::Callees;
use crate::wire::message::{InfoHash, PeerId};

const NOW: Time = Time(1000);

#[test]
fn two_families_of_a_tracker_do_not_exceed_the_most_connections() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let config = AnnouncerConfig {
        identity: Identity {
            peer_id: PeerId([1; 20]),
            key: 1,
            port: 6969,
            ip: None,
        },
        sources: ["0.0.0.0", "::"].map(|source| source.parse().ok()),
        max_per_second: None,
        override_with: None,
        callees: Callees::default(),
        limits: Limits::default(),
    };
    let token = |number| Token(1 + number);
    let mut announcer = Announcer::new(config, poll.registry(), token, waker, NOW).unwrap();
    // All but one of the connections are taken by trackers of one family, the last tracker has two.
    for torrent in 1..=u32::try_from(MAX_CONNECTIONS).unwrap() {
        let list = Arc::from([vec![format!("http://127.0.0.{torrent}:{port}/")]]);
        announcer.add(TorrentId(torrent), InfoHash([7; 20]), &list, NOW);
    }
    let last = announcer.trackers.ids().last().unwrap();
    for tracker in announcer.trackers.ids() {
        let host = announcer.trackers[tracker].site.host.parse().unwrap();
        let own: [IpAddr; 2] = [host, "::1".parse().unwrap()];
        let count = if tracker == last { 2 } else { 1 };
        let target = &mut announcer.trackers[tracker].target;
        target.ask(NOW);
        target.resolved(Ok(own[..count].to_vec()), NOW).unwrap();
        for (family, address) in Family::ALL.into_iter().zip(&own[..count]) {
            announcer
                .route(tracker, family)
                .set_addresses(vec![*address]);
        }
    }
    announcer.wakes.clear();
    for tracker in announcer.trackers.ids() {
        announcer.trackers[tracker].wake = None;
        announcer.pump(tracker, NOW);
    }
    assert_eq!(announcer.connections.len(), MAX_CONNECTIONS);
    assert_eq!(announcer.counters.most_connections, MAX_CONNECTIONS);
    let waiting = Family::ALL.map(|family| announcer.route(last, family).again.len());
    assert_eq!(waiting, [0, 1]);
    assert_eq!(announcer.counters.failed, 0);
    let retry = (NOW.after(NO_ROOM_MS), last);
    assert!(announcer.wakes.contains(&retry), "{:?}", announcer.wakes);
}
