//! What is bounded: the rate of metadata, and what the kernel bounds too narrowly.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::daemon::Daemon;
use support::leecher::{self, FAST_AND_EXTENDED, Leecher, Seen};
use support::torrent::TorrentBuilder;

#[test]
fn metadata_waits_for_the_upload_limit() {
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
        if let Seen::Extended { id: 7, payload } = leecher.receive() {
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

#[test]
fn low_kernel_limits_are_logged_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    TorrentBuilder::new(27).write(dir.path()).unwrap();
    // The limit is that of a network, so one of its own is made.
    let limit = "echo 128 >/proc/sys/net/core/somaxconn && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "sh",
            "-c",
            limit,
            "sh",
        ])
        .arg(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "--bind", "127.0.0.1", "--port", "0", "--no-tracker"])
        .arg(dir.path());
    let mut daemon = Daemon::start(command);
    let line = daemon.wait_for_line("net.core.somaxconn is 128, set it to 4096");
    assert!(line.contains("WARN"), "{line}");
}
