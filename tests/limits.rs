//! What is bounded: the rate of metadata, and places in a full house.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::{Duration, Instant};

use support::daemon::Daemon;
use support::leecher::{self, FAST_AND_EXTENDED, Leecher, Seen};
use support::torrent::TorrentBuilder;

#[test]
fn metadata_waits_for_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    // A megabyte of hashes.
    let builder = TorrentBuilder::new(26).piece_length(16);
    let sample = builder.length(16 * 52_000).write(dir.path()).unwrap();
    let daemon = Daemon::seed_with(dir.path(), &["--max-rate", "256K"]);
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST_AND_EXTENDED);
    let begun = Instant::now();
    leecher.send(&leecher::message(20, b"\0d1:md11:ut_metadatai7eee"));
    let pieces = sample.info.len().div_ceil(16 * 1024);
    assert!(pieces > 60);
    for piece in 0..pieces {
        let ask = format!("\x01d8:msg_typei0e5:piecei{piece}ee");
        leecher.send(&leecher::message(20, ask.as_bytes()));
    }
    let mut bytes = 0;
    while bytes < sample.info.len() {
        if let Seen::Extended { id: 7, payload } = leecher.next() {
            assert!(payload.starts_with(b"d8:msg_typei1e"), "it is data");
            let body = payload.windows(2).position(|pair| pair == b"ee").unwrap() + 2;
            bytes += payload.len() - body;
        }
    }
    // All but the burst of 64 KiB, at the rate; the clock of the test is another.
    assert!(
        begun.elapsed() > Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}
