//! A daemon that announces an index of twenty million torrents.
//!
//! Owns the index, which is made once and kept. It must not know the announcer.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use hekate::library::index::Index;

use crate::real;
use crate::steady::{Daemon, INTERVAL_S, SETTLE, built, large, peers};

/// Made-up torrents of the index, beside one that peers download.
const TORRENTS: u32 = 20_000_000;

/// Twenty million torrents at half an hour.
const RATE: &str = "11000";

/// A share of the torrents that is scattered over the whole index and is announced as often, every
/// 60 s, as all of them every half an hour.
const SHARE: &str = "1/30";

/// Nothing grows for so long: the index has been added.
const QUIET: Duration = Duration::from_secs(3);

struct Library {
    index: PathBuf,
    torrent: PathBuf,
    report: PathBuf,
}

impl Library {
    fn make() -> Self {
        let target = built("hekate");
        let directory = target.ancestors().nth(2).unwrap().join("bench/announce");
        let library = Self {
            index: directory.join("large.index"),
            torrent: directory.join("small/large.torrent"),
            report: directory.join("report.json"),
        };
        // One of another version is made again.
        if Index::open(&library.index).is_err() {
            let (small, index) = (directory.join("small"), directory.join("small.index"));
            fs::create_dir_all(&small).unwrap();
            large(&small);
            let run = |command: &mut Command| {
                let output = command.output().unwrap();
                assert!(output.status.success(), "{output:?}");
            };
            run(Command::new(built("hekate"))
                .arg("index")
                .arg(&small)
                .arg("-o")
                .arg(&index));
            run(Command::new(built("examples/make-index"))
                .arg("--over")
                .arg(&index)
                .arg("--out")
                .arg(&library.index)
                .args(["--torrents", &TORRENTS.to_string()]));
        }
        library
    }

    fn daemon(&self, arguments: &[&str]) -> Daemon {
        Daemon::seed(&[OsStr::new("--index"), self.index.as_os_str()], arguments)
    }

    /// p99 of 50 peers without announcing, in milliseconds.
    fn without(&self) -> f64 {
        peers(&self.daemon(&["-t"]), &self.torrent, &self.report)
    }
}

/// Waits until the index has been added. Bytes of anonymous memory then, and how long it took.
fn added(daemon: &Daemon) -> (f64, Duration) {
    let started = Instant::now();
    let (mut bytes, mut grew) = (daemon.anonymous_bytes(), Duration::ZERO);
    while started.elapsed() - grew < QUIET {
        thread::sleep(Duration::from_millis(100));
        let now = daemon.anonymous_bytes();
        if now - bytes > 65536.0 {
            (bytes, grew) = (now, started.elapsed());
        }
    }
    (daemon.anonymous_bytes(), grew)
}

/// What is in memory of torrents that wait for their first announce.
pub(crate) fn memory() -> Option<String> {
    let tracker = real::aquatic_udp(1800)?;
    let library = Library::make();
    let daemon = library.daemon(&["-t"]);
    let (alone, _) = added(&daemon);
    drop(daemon);
    let url = tracker.url("udp");
    let daemon = library.daemon(&["--tracker-override", &url, "--max-announce-rate", "1"]);
    let (all, took) = added(&daemon);
    let torrents = f64::from(TORRENTS);
    Some(format!(
        "{:.2} bytes of anonymous memory for each of {TORRENTS}, {:.2} without trackers; all in the \
         queue after {:.1} s",
        all / torrents,
        alone / torrents,
        took.as_secs_f64()
    ))
}

/// The first sweep through the index, from its very start and then beside peers.
pub(crate) fn sweep() -> Option<String> {
    let tracker = real::aquatic_udp(1800)?;
    let library = Library::make();
    let url = tracker.url("udp");
    let arguments = ["--tracker-override", &url, "--max-announce-rate", RATE];
    let without = library.without();
    let daemon = library.daemon(&arguments);
    let adding = peers(&daemon, &library.torrent, &library.report);
    let (share, rate) = daemon.steady();
    let with = peers(&daemon, &library.torrent, &library.report);
    let again = library.without();
    Some(format!(
        "{:.1} % of a core for {rate:.0} announces a second, {:.2} bytes each; p99 of 50 peers \
         {with:.2} ms, {adding:.2} ms while the index is added, without trackers {without:.2} and \
         {again:.2} ms",
        share * 100.0,
        daemon.anonymous_bytes() / f64::from(TORRENTS)
    ))
}

/// Announces of torrents that are scattered over the index, as they are after years.
pub(crate) fn scattered() -> Option<String> {
    let tracker = real::aquatic_udp(INTERVAL_S)?;
    let library = Library::make();
    let url = tracker.url("udp");
    let arguments = ["--tracker-override", &url, "--max-announce-rate", "20000"];
    let without = library.without();
    let daemon = library.daemon(&[&arguments[..], &["--shard", SHARE]].concat());
    thread::sleep(SETTLE + SETTLE);
    let (share, rate) = daemon.steady();
    let with = peers(&daemon, &library.torrent, &library.report);
    let again = library.without();
    Some(format!(
        "{:.1} % of a core for {rate:.0} announces a second; p99 of 50 peers {with:.2} ms, without \
         trackers {without:.2} and {again:.2} ms",
        share * 100.0
    ))
}
