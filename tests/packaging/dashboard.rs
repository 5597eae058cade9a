//! The dashboard and the alerts: they name the metrics that a running daemon has, and the dashboard
//! leaves out none.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use super::machine::wait_for;
use super::support::daemon::Daemon;
use super::support::leecher;
use super::support::torrent::TorrentBuilder;

/// Words of a text that are names of metrics.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_letter(c))
        .filter(|word| word.starts_with("hekate_"))
        .map(str::to_owned)
        .collect()
}

fn dist(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("dist")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// The names at the beginning of the lines that a running daemon answers with.
fn served() -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens there, but a tracker has figures from the start.
    let tracker = "http://127.0.0.1:9/announce";
    let torrent = TorrentBuilder::new(81).announce(&[tracker]);
    torrent.write(dir.path()).unwrap();
    let mut daemon = Daemon::seed_with(dir.path(), &["--status", "127.0.0.1:0"]);
    let line = daemon.wait_for_line("status at http://");
    let (_, address) = line.split_once("http://").unwrap();
    let address = address.trim_end_matches('/').parse().unwrap();
    let mut names = BTreeSet::new();
    wait_for("figures of the tracker", || {
        names = samples(address);
        names.iter().any(|name| name.starts_with("hekate_tracker_"))
    });
    names
}

/// The names of the samples in one answer.
fn samples(status: SocketAddr) -> BTreeSet<String> {
    let mut stream = leecher::dial(status);
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let samples = answer.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .filter(|name| name.starts_with("hekate_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_dashboard_uses_exported_metrics() {
    let shown = metrics(&dist("grafana.json"));
    let served = served();
    assert!(served.len() > 20, "{served:?}");
    let invented: Vec<_> = shown.difference(&served).collect();
    assert!(invented.is_empty(), "nobody serves {invented:?}");
    // Of a histogram the buckets are enough.
    let is_needed = |name: &&String| !name.ends_with("_sum") && !name.ends_with("_count");
    let left_out: Vec<_> = served.difference(&shown).filter(is_needed).collect();
    assert!(left_out.is_empty(), "no panel shows {left_out:?}");
}

#[test]
fn alerts_use_exported_metrics() {
    let named = metrics(&dist("alerts.yml"));
    let served = served();
    assert!(named.len() > 5 && named.is_subset(&served), "{named:?}");
}
