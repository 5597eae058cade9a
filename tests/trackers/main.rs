//! The announcer against real trackers, and against such as nobody should run.
//!
//! Owns what has to come of an announce. It must not know how the announcer is made.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a proof fails by panicking"
)]

mod driver;
mod real;

use driver::{Driver, config};

/// Torrents of one proof.
const TORRENTS: u32 = 2000;

#[test]
fn opentracker_over_udp_knows_every_torrent() {
    let tracker = real::opentracker(TORRENTS);
    let mut driver = Driver::new(config());
    driver.add(0..TORRENTS, &[&tracker.url("udp")]);
    driver.accepted(TORRENTS.into());
    assert_eq!(tracker.torrents(), TORRENTS.into());
}

#[test]
fn opentracker_closes_after_each_answer_and_knows_every_torrent() {
    let tracker = real::opentracker(TORRENTS);
    let mut driver = Driver::new(config());
    driver.add(0..TORRENTS, &[&tracker.url("http")]);
    driver.accepted(TORRENTS.into());
    assert_eq!(tracker.torrents(), TORRENTS.into());
    let counters = driver.announcer.counters();
    assert_eq!(counters.connections, TORRENTS.into());
    assert!(counters.most_connections <= 8, "{counters:?}");
}
