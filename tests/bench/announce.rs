//! Measures announcing to real trackers, and prints a table: one line for each bar.
//!
//! Owns the scenarios and the figures. The trackers and the loop are those of the tests.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends by panicking"
)]

#[path = "announce/delay.rs"]
mod delay;
#[path = "../trackers/driver.rs"]
mod driver;
#[path = "announce/indexed.rs"]
mod indexed;
#[path = "../trackers/real.rs"]
mod real;
#[path = "announce/steady.rs"]
mod steady;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driver::{Driver, config, counters, info_hash};
use hekate::wire::message::InfoHash;
use real::Server;

/// A library as large as the bars say.
const TORRENTS: u32 = 20_000;

/// So many by UDP, or the measurement is over before it has begun.
const UDP_TORRENTS: u32 = 300_000;

/// The cap while a library starts with trackers that are dead or slow.
const RESTART_CAP: u32 = 2000;

type Scenario = (&'static str, fn() -> Option<String>);

const SCENARIOS: &[Scenario] = &[
    ("nginx", nginx),
    ("bittorrent-tracker", bittorrent_tracker),
    ("delay", delayed),
    ("aquatic-http", aquatic_http),
    ("closing", closing),
    ("opentracker-udp", opentracker_udp),
    ("aquatic-udp", aquatic_udp),
    ("steady", steady::figures),
    ("restart", restart),
    ("stop", steady::stop),
    ("index-memory", indexed::memory),
    ("index-sweep", indexed::sweep),
    ("index-scattered", indexed::scattered),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut out = std::io::stdout();
    writeln!(out, "| scenario | figures |\n|---|---|").ok();
    for (name, measure) in SCENARIOS {
        if wanted.is_empty() || wanted.iter().any(|other| other == name) {
            let figures = measure().unwrap_or_else(|| "the tracker is not installed".to_owned());
            writeln!(out, "| {name} | {figures} |").ok();
        }
    }
    ExitCode::SUCCESS
}

fn hashes(torrents: u32) -> Vec<InfoHash> {
    (0..torrents).map(info_hash).collect()
}

/// What came of announcing a library without a cap.
fn figures(url: &str, torrents: u32, known: impl FnOnce() -> usize) -> String {
    let mut driver = Driver::new(config());
    let before = real::cpu(std::process::id());
    driver.add(0..torrents, &[url]);
    let took = driver.accepted(torrents.into());
    let used = real::cpu(std::process::id()) - before;
    let counters = counters(&driver.announcer);
    format!(
        "{:.0} announces a second, {:.1} µs of processor time for each; {} requests, {} connections, at most {} at \
         once; {} of {torrents} known",
        f64::from(torrents) / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / f64::from(torrents),
        counters.sent,
        counters.connections,
        counters.most_connections,
        known()
    )
}

fn by_http(server: &Server, asked: &Server, torrents: u32) -> String {
    figures(&server.url("http"), torrents, || {
        asked.seeded_by_http(&hashes(torrents))
    })
}

fn nginx() -> Option<String> {
    let tracker = real::opentracker(&hashes(TORRENTS))?;
    let nginx = real::nginx(&tracker, None)?;
    Some(by_http(&nginx, &tracker, TORRENTS))
}

fn bittorrent_tracker() -> Option<String> {
    let tracker = real::bittorrent_tracker()?;
    let (before, started) = (tracker.cpu(), Instant::now());
    let mut share = 0.0;
    let url = tracker.url("http");
    let figures = figures(&url, TORRENTS, || {
        share = (tracker.cpu() - before).as_secs_f64() / started.elapsed().as_secs_f64();
        tracker.seeded_by_http(&hashes(TORRENTS))
    });
    Some(format!(
        "{figures}; the tracker used {:.0} % of a core",
        100.0 * share
    ))
}

fn delayed() -> Option<String> {
    let tracker = real::opentracker(&hashes(TORRENTS))?;
    let nginx = real::nginx(&tracker, None)?;
    let proxy = delay::start(nginx.address, Duration::from_millis(50));
    let url = format!("http://{proxy}/announce");
    Some(figures(&url, TORRENTS, || {
        tracker.seeded_by_http(&hashes(TORRENTS))
    }))
}

fn aquatic_http() -> Option<String> {
    let tracker = real::aquatic_http()?;
    Some(by_http(&tracker, &tracker, TORRENTS))
}

fn closing() -> Option<String> {
    let tracker = real::opentracker(&hashes(TORRENTS))?;
    Some(by_http(&tracker, &tracker, TORRENTS))
}

fn opentracker_udp() -> Option<String> {
    let hashes = hashes(UDP_TORRENTS);
    let tracker = real::opentracker(&hashes)?;
    let known = || tracker.seeded_by_http(&hashes);
    Some(figures(&tracker.url("udp"), UDP_TORRENTS, known))
}

fn aquatic_udp() -> Option<String> {
    let tracker = real::aquatic_udp(900)?;
    let known = || tracker.seeded_by_udp(&hashes(UDP_TORRENTS));
    Some(figures(&tracker.url("udp"), UDP_TORRENTS, known))
}

/// One tracker is dead, one answers after a second, one is well.
fn restart() -> Option<String> {
    let well = real::opentracker(&hashes(TORRENTS))?;
    let behind = real::opentracker(&hashes(TORRENTS))?;
    let slow = delay::start(behind.address, Duration::from_secs(1));
    let slow = format!("http://{slow}/announce");
    let dead = "http://127.0.0.1:9/announce";
    let mut config = config();
    config.max_per_second = Some(RESTART_CAP);
    let mut driver = Driver::new(config);
    driver.add(0..TORRENTS, &[dead, &slow, &well.url("udp")]);
    let (mut most, mut seconds, mut known) = (0, 0, 0);
    let hashes = hashes(TORRENTS);
    while known < hashes.len() {
        let before = counters(&driver.announcer).sent;
        let second = driver.now().after(1000);
        while driver.now() < second {
            driver.turn(second);
        }
        most = most.max(counters(&driver.announcer).sent - before);
        seconds += 1;
        // Asking takes time in which nothing is announced, so it is done at the end.
        if counters(&driver.announcer).accepted >= u64::from(TORRENTS) {
            known = well.seeded_by_http(&hashes);
        }
    }
    Some(format!(
        "{known} of {TORRENTS} known to the live one after {seconds} s, at the cap of {RESTART_CAP} a second; at most \
         {most} requests in a second to all three"
    ))
}
