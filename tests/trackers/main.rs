//! The announcer against real trackers, and against such as nobody should run.
//!
//! Owns what has to come of an announce. It must not know how the announcer is made.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a proof fails by panicking"
)]

mod access;
mod daemon;
mod driver;
mod figures;
mod hostile;
mod indexed;
mod network;
mod real;
mod scripted;
#[path = "../support/mod.rs"]
mod support;

use driver::{Counters, Driver, config, counters, info_hash};
use hekate::wire::message::InfoHash;

/// Torrents of one proof.
const TORRENTS: u32 = 2000;

fn hashes() -> Vec<InfoHash> {
    (0..TORRENTS).map(info_hash).collect()
}

/// Announces the library until each torrent was accepted once.
fn announce(url: &str) -> Counters {
    let mut driver = Driver::new(config());
    driver.add(0..TORRENTS, &[url]);
    driver.accepted(TORRENTS.into());
    let counters = counters(&driver.announcer);
    assert_eq!(counters.accepted, u64::from(TORRENTS), "{counters:?}");
    assert_eq!((counters.refused, counters.failed), (0, 0), "{counters:?}");
    counters
}

#[test]
fn opentracker_over_udp_knows_every_torrent() {
    let Some(tracker) = real::opentracker(&hashes()) else {
        return;
    };
    announce(&tracker.url("udp"));
    assert_eq!(tracker.seeded_by_http(&hashes()), TORRENTS as usize);
}

#[test]
fn opentracker_closes_after_each_answer_and_knows_every_torrent() {
    let Some(tracker) = real::opentracker(&hashes()) else {
        return;
    };
    let counters = announce(&tracker.url("http"));
    assert_eq!(tracker.seeded_by_http(&hashes()), TORRENTS as usize);
    assert_eq!(counters.connections, u64::from(TORRENTS));
    assert!(counters.most_connections <= 8, "{counters:?}");
}

#[test]
fn nginx_before_opentracker_takes_all_on_one_connection_at_a_time() {
    let Some(tracker) = real::opentracker(&hashes()) else {
        return;
    };
    let Some(nginx) = real::nginx(&tracker, None) else {
        return;
    };
    let counters = announce(&nginx.url("http"));
    assert_eq!(tracker.seeded_by_http(&hashes()), TORRENTS as usize);
    assert_eq!(counters.most_connections, 1);
    // nginx ends a connection after 1000 requests.
    assert!((2..=3).contains(&counters.connections), "{counters:?}");
}

#[test]
fn bittorrent_tracker_takes_all_on_one_connection() {
    let Some(tracker) = real::bittorrent_tracker() else {
        return;
    };
    let counters = announce(&tracker.url("http"));
    assert_eq!(counters.connections, 1, "{counters:?}");
    assert_eq!(counters.sent, u64::from(TORRENTS), "{counters:?}");
    assert_eq!(tracker.seeded_by_http(&hashes()), TORRENTS as usize);
}

#[test]
fn bittorrent_tracker_over_udp_knows_every_torrent() {
    let Some(tracker) = real::bittorrent_tracker() else {
        return;
    };
    announce(&tracker.url("udp"));
    assert_eq!(tracker.seeded_by_http(&hashes()), TORRENTS as usize);
}

#[test]
fn aquatic_http_is_detected_as_non_pipelining_at_the_first_break() {
    let Some(tracker) = real::aquatic_http() else {
        return;
    };
    let counters = announce(&tracker.url("http"));
    // Two requests were on the connection that broke, and both were made again.
    assert!(counters.connections <= 1 + 4, "{counters:?}");
    assert!(counters.sent <= u64::from(TORRENTS) + 2, "{counters:?}");
    assert_eq!(tracker.seeded_by_http(&hashes()), TORRENTS as usize);
}

#[test]
fn aquatic_udp_knows_every_torrent() {
    let Some(tracker) = real::aquatic_udp(900) else {
        return;
    };
    announce(&tracker.url("udp"));
    assert_eq!(tracker.seeded_by_udp(&hashes()), TORRENTS as usize);
}
