//! Redirects without a network: where trackers are, and what they answer, is said by the test.

use std::sync::Arc;

use mio::{Poll, Token, Waker};

use super::*;
use crate::torrent::id::TorrentId;
use crate::tracker::announce::{Event, Identity};
use crate::tracker::announcer::{AnnouncerConfig, Limits};
use crate::tracker::callees::Callees;
use crate::wire::message::{InfoHash, PeerId};

const NOW: Time = Time(1000);
const V4: Family = Family::V4;

/// An announcer of one torrent, and the request that tells the tracker of it, which answers at a
/// public address.
fn announcer(url: &str) -> (Poll, Announcer, Request) {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let config = AnnouncerConfig {
        identity: Identity {
            peer_id: PeerId([1; 20]),
            key: 1,
            port: 6969,
            ip: None,
        },
        sources: [Some("127.0.0.1".parse().unwrap()), None],
        max_per_second: None,
        override_with: None,
        callees: Callees::default(),
        limits: Limits::default(),
    };
    let token = |number| Token(1 + number);
    let mut announcer = Announcer::new(config, poll.registry(), token, waker, NOW).unwrap();
    let list = Arc::from([vec![url.to_owned()]]);
    announcer.add(TorrentId(0), InfoHash([7; 20]), &list, NOW);
    place(&mut announcer, 0, "1.1.1.1");
    let entry = announcer.schedule.take(TrackerId(0), NOW).unwrap();
    announcer.schedule.begin(entry, V4).unwrap();
    announcer.schedule.dispatched(TrackerId(0), entry);
    let request = Request {
        entry,
        told: Event::Started,
        renewed: false,
        detour: None,
    };
    (poll, announcer, request)
}

/// The name of a tracker means this address.
fn place(announcer: &mut Announcer, number: u32, address: &str) {
    let address: IpAddr = address.parse().unwrap();
    let tracker = &mut announcer.trackers[TrackerId(number)];
    tracker.target.ask(NOW);
    let addresses = tracker.target.resolved(Ok(vec![address]), NOW).unwrap();
    tracker.routes[V4].set_addresses(addresses);
}

fn redirect(announcer: &mut Announcer, request: Request, location: &str) {
    announcer.redirected(TrackerId(0), V4, 0, request, (location, true), NOW);
}

fn waiting(announcer: &mut Announcer, number: u32) -> Option<Request> {
    announcer.trackers[TrackerId(number)].routes[V4]
        .again
        .pop_front()
}

#[test]
fn a_redirect_to_another_host_leaves_the_tracker_where_it_is() {
    let (_poll, mut announcer, request) = announcer("http://a.example/key");
    redirect(&mut announcer, request, "https://b.example/key");
    assert_eq!(announcer.trackers[TrackerId(0)].target.generation, 0);
    assert_eq!(
        announcer.trackers[TrackerId(1)].site.to_string(),
        "https://b.example"
    );
    let sent = waiting(&mut announcer, 1).unwrap();
    assert_eq!(announcer.detour_path(sent), Some("/key"));
    assert_eq!(announcer.home(TrackerId(1), sent), TrackerId(0));
    assert!(
        announcer.waits_for_detours(TrackerId(0)),
        "the first finds it out"
    );
    // What is known is not asked for again.
    let (home, request) = announcer.come_home(TrackerId(1), sent);
    assert!(!announcer.waits_for_detours(TrackerId(0)));
    assert!(announcer.is_redirected(home, V4, request, NOW));
    assert!(waiting(&mut announcer, 1).is_some());
}

#[test]
fn a_redirect_of_the_same_path_to_tls_moves_the_tracker() {
    let (_poll, mut announcer, request) = announcer("http://a.example/key");
    redirect(&mut announcer, request, "https://a.example/key");
    let tracker = &announcer.trackers[TrackerId(0)];
    assert_eq!(tracker.target.site().to_string(), "https://a.example");
    assert!(!tracker.target.is_known() && tracker.routes[V4].addresses.is_empty());
    assert_eq!(waiting(&mut announcer, 0), Some(request));
    assert_eq!(announcer.trackers.len(), 1);
}

#[test]
fn a_redirect_into_a_private_network_is_not_followed() {
    for (own, to, is_followed) in [
        ("1.1.1.1", "127.0.0.1", false),
        ("10.0.0.1", "127.0.0.1", true),
        ("1.1.1.1", "8.8.8.8", true),
    ] {
        let (_poll, mut announcer, request) = announcer("http://a.example/key");
        place(&mut announcer, 0, own);
        redirect(&mut announcer, request, "http://b.example/key");
        place(&mut announcer, 1, to);
        let sent = waiting(&mut announcer, 1).unwrap();
        assert_eq!(
            announcer.may_be_sent(TrackerId(1), V4, sent, NOW),
            is_followed
        );
        assert_eq!(announcer.detours.is_empty(), !is_followed);
        let health = announcer.trackers[TrackerId(0)].routes[V4].health;
        assert_eq!(matches!(health, Health::BackingOff(_)), !is_followed);
        // It is asked again where the path leads, when its rest is over.
        assert_eq!(
            announcer.trackers[TrackerId(0)].redirects.is_empty(),
            !is_followed
        );
    }
}

#[test]
fn redirects_in_a_row_are_bounded_and_remembered_by_their_end() {
    let (_poll, mut announcer, mut request) = announcer("http://a.example/0");
    for number in 1..=MAX_REDIRECTS {
        redirect(&mut announcer, request, &format!("/{number}"));
        request = waiting(&mut announcer, 0).unwrap();
    }
    assert_eq!(announcer.detour_path(request), Some("/5"));
    let known = announcer.trackers[TrackerId(0)]
        .redirects
        .find("/0", NOW)
        .cloned();
    assert_eq!(&*known.unwrap().path, "/5");
    redirect(&mut announcer, request, "/6");
    assert!(announcer.detours.is_empty());
    let health = announcer.trackers[TrackerId(0)].routes[V4].health;
    assert!(matches!(health, Health::BackingOff(_)));
}

#[test]
fn what_is_redirected_at_the_same_time_is_bounded() {
    let (_poll, mut announcer, request) = announcer("http://a.example/key");
    announcer.trackers[TrackerId(0)].routes[V4].answered(NOW);
    for _ in 0..MAX_AWAY {
        assert!(!announcer.waits_for_detours(TrackerId(0)));
        redirect(&mut announcer, request, "http://b.example/key");
    }
    assert!(announcer.waits_for_detours(TrackerId(0)));
    for _ in MAX_AWAY..=MAX_DETOURS {
        redirect(&mut announcer, request, "http://b.example/key");
    }
    assert_eq!(announcer.detours.len(), MAX_DETOURS);
}

#[test]
fn sites_that_nobody_is_at_give_way() {
    let (_poll, mut announcer, request) = announcer("http://a.example/key");
    announcer.trackers[TrackerId(0)].routes[V4].answered(NOW);
    for number in 0..=MAX_GUESTS {
        redirect(
            &mut announcer,
            request,
            &format!("http://b{number}.example/"),
        );
    }
    assert_eq!(announcer.trackers.len(), 1 + MAX_GUESTS);
    // All were in use, so the first are there. One that is left becomes another.
    let sent = waiting(&mut announcer, 3).unwrap();
    announcer.come_home(TrackerId(3), sent);
    redirect(&mut announcer, request, "http://c.example/");
    let sites = announcer
        .trackers
        .iter()
        .map(|(_, tracker)| tracker.site.to_string());
    let sites: Vec<String> = sites.collect();
    assert_eq!(sites[3], "http://c.example");
    assert_eq!(sites[4], "http://b3.example");
    assert_eq!(announcer.trackers[TrackerId(3)].target.generation, 1);
    assert!(waiting(&mut announcer, 3).is_some());
}
