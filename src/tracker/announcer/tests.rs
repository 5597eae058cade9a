//! Redirects and the bound of connections, with trackers whose addresses and answers the test says.

use std::net::TcpListener;

use mio::Poll;

use super::*;
use crate::tracker::access::AccessMode;
use crate::tracker::redirects::{
    MAX_REDIRECTED, MAX_REDIRECTED_IN_ALL, MAX_REDIRECTS, MAX_TARGETS,
};
use crate::tracker::request::Request;
use crate::tracker::target::RESOLVED_MS;
use crate::tracker::url::TrackerUrl;
use crate::wire::message::PeerId;

const NOW: Time = Time(1000);
const FIRST: TrackerId = TrackerId(0);

fn announcer(sources: [&str; 2]) -> (Poll, Announcer) {
    announcer_with(sources, Access::default())
}

fn announcer_with(sources: [&str; 2], access: Access) -> (Poll, Announcer) {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let config = AnnouncerConfig {
        identity: Identity {
            peer_id: PeerId([1; 20]),
            key: 1,
            port: 6969,
            ip: None,
        },
        sources: sources.map(|source| source.parse().ok()).into(),
        max_per_second: None,
        override_with: None,
        access,
        dialled: DialledTorrents::default(),
        certificates: None,
        limits: Limits::default(),
    };
    let token = |number| Token(1 + number);
    let announcer = Announcer::new(config, poll.registry(), token, waker, NOW).unwrap();
    (poll, announcer)
}

fn add(announcer: &mut Announcer, torrent: u32, url: &str) {
    let list = Arc::from([vec![url.to_owned()]]);
    announcer.add(TorrentId(torrent), InfoHash([7; 20]), &list, NOW);
}

/// A tracker by IPv4.
fn v4(tracker: u32) -> RouteId {
    RouteId {
        tracker: TrackerId(tracker),
        family: Family::V4,
    }
}

/// An announcer of one torrent, and the request that announces it to a tracker with a public address.
fn with_request(url: &str) -> (Poll, Announcer, Request) {
    let (poll, mut announcer) = announcer(["127.0.0.1", "none"]);
    add(&mut announcer, 0, url);
    resolve(&mut announcer, 0, &["1.1.1.1"]);
    let entry = announcer.schedule.take(FIRST, NOW).unwrap();
    let request = announcer.begin(entry, v4(0)).unwrap();
    announcer.schedule.dispatched(FIRST, entry);
    (poll, announcer, request)
}

/// The same request, as if it were another one.
fn another(request: &Request) -> Request {
    Request {
        path: Arc::clone(&request.path),
        redirect: None,
        ..*request
    }
}

/// The name of a tracker means these addresses.
fn resolve(announcer: &mut Announcer, tracker: u32, addresses: &[&str]) {
    let addresses = addresses.iter().map(|address| address.parse().unwrap());
    let tracker = &mut announcer.trackers[TrackerId(tracker)];
    tracker.target.ask(NOW);
    let addresses = tracker.target.resolved(Ok(addresses.collect()), NOW);
    for address in addresses.unwrap() {
        tracker.routes[Family::of(address)].set_addresses(vec![address]);
    }
}

fn redirect(announcer: &mut Announcer, request: Request, location: &str) {
    announcer.handle_redirect(request, location, true, NOW);
}

fn waiting(announcer: &mut Announcer, tracker: u32) -> Option<Request> {
    announcer.route(v4(tracker)).again.pop_front()
}

fn is_backing_off(announcer: &mut Announcer) -> bool {
    matches!(announcer.route(v4(0)).health, Health::BackingOff(_))
}

#[test]
fn a_redirect_to_another_host_leaves_the_tracker_where_it_is() {
    let (_poll, mut announcer, request) = with_request("http://a.example/key");
    redirect(&mut announcer, request, "https://b.example/key");
    assert_eq!(announcer.trackers[FIRST].target.generation, 0);
    let target = announcer.report.site(TrackerId(1)).to_string();
    assert_eq!(target, "https://b.example");
    let sent = waiting(&mut announcer, 1).unwrap();
    assert_eq!((sent.target_path(), sent.origin), ("/key", v4(0)));
    assert!(
        announcer.redirects.is_full(FIRST, false),
        "the first finds out whether the target answers"
    );
    // The tracker is not asked again.
    let request = announcer.redirects.end(sent);
    assert!(!announcer.redirects.is_full(FIRST, false));
    let to = announcer.redirects.find(FIRST, &request.path, NOW).cloned();
    announcer.follow(request, to.unwrap(), 1, NOW);
    assert!(waiting(&mut announcer, 1).is_some());
}

#[test]
fn a_redirect_of_the_same_path_to_tls_moves_the_tracker() {
    let (_poll, mut announcer, request) = with_request("http://a.example/key");
    let same = another(&request);
    redirect(&mut announcer, request, "https://a.example/key");
    let tracker = &announcer.trackers[FIRST];
    assert_eq!(tracker.target.site().to_string(), "https://a.example");
    assert!(!tracker.target.is_known() && tracker.routes[Family::V4].address().is_none());
    assert_eq!(waiting(&mut announcer, 0), Some(same));
    assert_eq!(announcer.trackers.len(), 1);
}

#[test]
fn a_redirect_into_a_private_network_is_not_followed() {
    for (own, to, is_followed) in [
        ("1.1.1.1", "127.0.0.1", false),
        ("10.0.0.1", "127.0.0.1", true),
        ("1.1.1.1", "8.8.8.8", true),
    ] {
        let (_poll, mut announcer, request) = with_request("http://a.example/key");
        resolve(&mut announcer, 0, &[own]);
        redirect(&mut announcer, request, "http://b.example/key");
        resolve(&mut announcer, 1, &[to]);
        let sent = waiting(&mut announcer, 1).unwrap();
        match announcer.refused_address(&sent) {
            Some(error) => announcer.dead_end(sent, &error, NOW),
            None => announcer.route(v4(1)).again.push_back(sent),
        }
        assert_eq!(announcer.redirects.has_requests(TrackerId(1)), is_followed);
        assert_eq!(is_backing_off(&mut announcer), !is_followed);
        // When the back-off is over, the tracker is asked again where the path leads.
        let known = announcer.redirects.find(FIRST, "/key", NOW);
        assert_eq!(known.is_some(), is_followed);
    }
}

#[test]
fn redirects_in_a_row_are_bounded_and_remembered_by_their_end() {
    let (_poll, mut announcer, mut request) = with_request("http://a.example/0");
    for number in 1..=MAX_REDIRECTS {
        redirect(&mut announcer, request, &format!("/{number}"));
        request = waiting(&mut announcer, 0).unwrap();
    }
    assert_eq!(request.target_path(), "/5");
    let known = announcer.redirects.find(FIRST, "/0", NOW).cloned();
    let end = TrackerUrl::parse("http://a.example/5").unwrap();
    assert_eq!(known, Some(end));
    redirect(&mut announcer, request, "/6");
    assert!(!announcer.redirects.has_requests(FIRST));
    assert!(is_backing_off(&mut announcer));
}

#[test]
fn requests_that_are_redirected_at_the_same_time_are_bounded() {
    let (_poll, mut announcer, request) = with_request("http://a.example/key");
    announcer.route(v4(0)).handle_answer(NOW);
    let redirect = |announcer: &mut Announcer| {
        let request = another(&request);
        redirect(announcer, request, "http://b.example/key");
    };
    for _ in 0..MAX_REDIRECTED {
        assert!(!announcer.redirects.is_full(FIRST, true));
        redirect(&mut announcer);
    }
    assert!(announcer.redirects.is_full(FIRST, true));
    for _ in MAX_REDIRECTED..=MAX_REDIRECTED_IN_ALL {
        redirect(&mut announcer);
    }
    assert_eq!(announcer.route(v4(1)).again.len(), MAX_REDIRECTED_IN_ALL);
    assert_eq!(announcer.figures(NOW).other.failed, 1);
}

#[test]
fn targets_without_requests_give_way_to_new_ones() {
    let (_poll, mut announcer, request) = with_request("http://a.example/key");
    announcer.route(v4(0)).handle_answer(NOW);
    for number in 0..=MAX_TARGETS {
        let site = format!("http://b{number}.example/");
        redirect(&mut announcer, another(&request), &site);
    }
    assert_eq!(announcer.trackers.len(), 1 + MAX_TARGETS);
    // All have requests, so the first ones are kept. One without requests becomes another.
    let sent = waiting(&mut announcer, 3).unwrap();
    announcer.redirects.end(sent);
    redirect(&mut announcer, request, "http://c.example/");
    let site = |tracker: u32| announcer.report.site(TrackerId(tracker)).to_string();
    assert_eq!(site(3), "http://c.example");
    assert_eq!(site(4), "http://b3.example");
    assert_eq!(announcer.trackers[TrackerId(3)].target.generation, 1);
    assert!(waiting(&mut announcer, 3).is_some());
}

#[test]
fn two_families_of_a_tracker_do_not_exceed_the_most_connections() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_poll, mut announcer) = announcer(["0.0.0.0", "::"]);
    // All but one of the connections are used by trackers of one family; the last tracker has two.
    let count = u32::try_from(MAX_CONNECTIONS).unwrap();
    for number in 1..=count {
        let host = format!("127.0.0.{number}");
        add(&mut announcer, number, &format!("http://{host}:{port}/"));
        let addresses = [&*host, "::1"];
        let families = if number == count { 2 } else { 1 };
        resolve(&mut announcer, number - 1, &addresses[..families]);
    }
    announcer.wakes.take_due(NOW);
    for tracker in announcer.trackers.ids() {
        announcer.pump(tracker, NOW);
    }
    let last = TrackerId(count - 1);
    // Both families are awaited, so that the announce waits until there is room for both.
    assert_eq!(announcer.http.open_count(), MAX_CONNECTIONS - 1);
    assert!(!announcer.schedule.is_idle(last));
    assert_eq!(announcer.figures(NOW).other.failed, 0);
    assert_eq!(
        announcer.wakes.take_due(NOW.after(http::NO_ROOM_MS)),
        [last].into()
    );
}

/// An announcer with `--trackers public`, and one torrent at a tracker whose name is being resolved.
fn with_public_trackers() -> (Poll, Announcer) {
    let access = Access {
        mode: AccessMode::Public,
        named: Vec::new(),
    };
    let (poll, mut announcer) = announcer_with(["127.0.0.1", "none"], access);
    add(&mut announcer, 0, "http://a.example/");
    assert!(announcer.trackers[FIRST].target.ask(NOW));
    (poll, announcer)
}

fn resolved_to(announcer: &mut Announcer, tracker: TrackerId, address: &str, now: Time) -> u64 {
    let address = address.parse().unwrap();
    announcer.resolved(tracker, Ok(vec![address]), now);
    announcer.figures(now).not_allowed
}

#[test]
fn a_name_is_allowed_when_it_leads_elsewhere() {
    let (_poll, mut announcer) = with_public_trackers();
    assert_eq!(resolved_to(&mut announcer, FIRST, "10.0.0.1", NOW), 1);
    announcer.wakes.take_due(NOW);
    announcer.pump(FIRST, NOW);
    let later = NOW.after(RESOLVED_MS);
    assert_eq!(announcer.wakes.poll_at(), Some(later));
    assert_eq!(announcer.lateness_s(FIRST, later), 0);
    assert!(announcer.trackers[FIRST].target.ask(later));
    assert_eq!(resolved_to(&mut announcer, FIRST, "1.1.1.1", later), 0);
    assert!(announcer.lateness_s(FIRST, later) > 0);
}

#[test]
fn a_name_that_was_not_allowed_and_cannot_be_resolved_is_not_asked_at_once() {
    let (_poll, mut announcer) = with_public_trackers();
    resolved_to(&mut announcer, FIRST, "10.0.0.1", NOW);
    let tls = TrackerUrl::parse("https://a.example/").unwrap().site;
    announcer.trackers[FIRST].target.move_to(tls, NOW);
    announcer.resolved(FIRST, Err("none".to_owned()), NOW);
    announcer.wakes.take_due(NOW);
    announcer.pump(FIRST, NOW);
    assert!(announcer.trackers[FIRST].target.ask(NOW), "it was asked");
    assert!(announcer.wakes.poll_at() > Some(NOW));
}

#[test]
fn a_replaced_tracker_is_not_counted_as_not_allowed() {
    let (_poll, mut announcer) = with_public_trackers();
    let [site, other] =
        ["http://b.example/", "http://c.example/"].map(|url| TrackerUrl::parse(url).unwrap().site);
    let id = announcer
        .schedule
        .add_unlisted(&site, &Access::default())
        .unwrap();
    announcer.add_trackers(None, NOW);
    assert_eq!(resolved_to(&mut announcer, id, "10.0.0.1", NOW), 1);
    announcer.replace_tracker(id, &other, NOW);
    assert_eq!(announcer.figures(NOW).not_allowed, 0);
}
