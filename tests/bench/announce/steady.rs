//! A daemon whose library is announced all the time, beside peers that download; and its end.
//!
//! Owns a library of small torrents that all have the same content. It must not know the announcer.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hekate::wire::message::InfoHash;
use sha1::{Digest, Sha1};

use crate::real::{self, Server};

/// 66,000 torrents at ten trackers, every 60 s, are 11,000 announces a second.
const TRACKERS: u32 = 10;
const TORRENTS: u32 = 66_000;
pub(crate) const INTERVAL_S: u32 = 60;

/// Until every announce has been made and they are spread.
pub(crate) const SETTLE: Duration = Duration::from_secs(100);
/// One whole interval.
const MEASURE: Duration = Duration::from_secs(60);
const PEERS_S: u64 = 20;

/// Torrents whose end is told.
const STOPPED: u32 = 20_000;

pub(crate) struct Daemon {
    child: Child,
    port: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Daemon {
    fn start(library: &Path, arguments: &[&str]) -> Self {
        Self::seed(&[library.as_os_str()], arguments)
    }

    /// Serves what is named by these arguments.
    pub(crate) fn seed(what: &[&OsStr], arguments: &[&str]) -> Self {
        let mut child = Command::new(built("hekate"))
            .args(["seed", "--config", "/dev/null", "--status", "off"])
            .args(["--bind", "127.0.0.1", "--port", "0"])
            .args(arguments)
            .args(what)
            .stderr(Stdio::piped())
            .spawn()
            .expect("hekate is built");
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let port =
            lines.find_map(|line| line.rsplit_once("listening on 127.0.0.1:")?.1.parse().ok());
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            port: port.expect("it listens"),
        }
    }

    /// Bytes of memory that the kernel could not drop.
    pub(crate) fn anonymous_bytes(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        let kib: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        kib * 1024.0
    }

    /// What it uses of a core, and announces a second of the whole machine, over one interval.
    pub(crate) fn steady(&self) -> (f64, f64) {
        let (before, packets, started) = (self.cpu_s(), udp_packets(), Instant::now());
        std::thread::sleep(MEASURE);
        let elapsed_s = started.elapsed().as_secs_f64();
        let share = (self.cpu_s() - before) / elapsed_s;
        // An announce and its answer are one packet each.
        (share, (udp_packets() - packets) / 2.0 / elapsed_s)
    }

    /// Processor time so far, in seconds.
    fn cpu_s(&self) -> f64 {
        real::cpu(self.child.id()).as_secs_f64()
    }
}

/// A program that was built with this one.
pub(crate) fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join(name)
}

/// Torrents of one byte, and one of 64 MiB that peers download.
fn library(directory: &Path, torrents: u32, urls: &[String]) -> Vec<InfoHash> {
    fs::write(directory.join("byte"), "x").unwrap();
    let tiers: String = urls
        .iter()
        .map(|url| format!("l{}:{url}e", url.len()))
        .collect();
    let byte: [u8; 20] = Sha1::digest("x").into();
    (0..torrents)
        .map(|number| {
            let mut info = b"d6:lengthi1e4:name4:byte1:n".to_vec();
            info.extend(format!("i{number}e12:piece lengthi16384e6:pieces20:").bytes());
            info.extend(byte);
            info.push(b'e');
            let mut file = format!("d13:announce-listl{tiers}e4:info").into_bytes();
            file.extend(&info);
            file.push(b'e');
            fs::write(directory.join(format!("{number}.torrent")), file).unwrap();
            InfoHash(Sha1::digest(&info).into())
        })
        .collect()
}

/// A torrent that peers download; its pieces need not be right, since nobody looks.
pub(crate) fn large(directory: &Path) -> PathBuf {
    const LENGTH: usize = 64 << 20;
    fs::write(directory.join("large"), vec![7; LENGTH]).unwrap();
    let pieces = vec![b'p'; 20 * (LENGTH >> 18)];
    let mut file = format!(
        "d4:infod6:lengthi{LENGTH}e4:name5:large12:piece lengthi262144e6:pieces{}:",
        pieces.len()
    )
    .into_bytes();
    file.extend(pieces);
    file.extend(b"ee");
    let path = directory.join("large.torrent");
    fs::write(&path, file).unwrap();
    path
}

/// p99 of blocks for 50 peers, in milliseconds, and what the daemon used meanwhile.
pub(crate) fn peers(daemon: &Daemon, torrent: &Path, report: &Path) -> f64 {
    let status = Command::new(built("hekate-swarm"))
        .args([
            "load",
            "--quiet",
            "--peers",
            "50",
            "--seconds",
            &PEERS_S.to_string(),
        ])
        .args([
            "--address",
            &format!("127.0.0.1:{}", daemon.port),
            "--torrent",
        ])
        .arg(torrent)
        .arg("--json")
        .arg(report)
        .stdout(Stdio::null())
        .status()
        .expect("hekate-swarm is built");
    assert!(status.success());
    let text = fs::read_to_string(report).unwrap();
    let latency = text.split("\"latency_us\"").nth(1);
    let p99 = latency
        .and_then(|text| text.split("\"p99\":").nth(1))
        .unwrap();
    let number: String = p99
        .trim_start()
        .chars()
        .take_while(|c| "0123456789.e-".contains(*c))
        .collect();
    number.parse::<f64>().unwrap() / 1000.0
}

/// UDP packets that this machine has sent so far.
fn udp_packets() -> f64 {
    let text = fs::read_to_string("/proc/net/snmp").unwrap();
    let line = text
        .lines()
        .filter(|line| line.starts_with("Udp:"))
        .nth(1)
        .unwrap();
    line.split_whitespace().nth(4).unwrap().parse().unwrap()
}

/// 11,000 announces a second, beside 50 peers.
pub(crate) fn figures() -> Option<String> {
    let trackers: Option<Vec<Server>> = (0..TRACKERS)
        .map(|_| real::aquatic_udp(INTERVAL_S))
        .collect();
    let urls: Vec<String> = trackers
        .as_ref()?
        .iter()
        .map(|tracker| tracker.url("udp"))
        .collect();
    let directory = tempfile::tempdir().unwrap();
    library(directory.path(), TORRENTS, &urls);
    let torrent = large(directory.path());
    let report = directory.path().join("report.json");
    let silent = Daemon::start(directory.path(), &["-t"]);
    let without = peers(&silent, &torrent, &report);
    drop(silent);
    let daemon = Daemon::start(directory.path(), &["--max-announce-rate", "2200"]);
    std::thread::sleep(SETTLE);
    let (share, rate) = daemon.steady();
    let with = peers(&daemon, &torrent, &report);
    Some(format!(
        "{:.1} % of a core for {rate:.0} announces a second; p99 of 50 peers {with:.2} ms, without \
         {without:.2} ms",
        share * 100.0
    ))
}

/// SIGTERM with 20,000 torrents, capped and not.
pub(crate) fn stop() -> Option<String> {
    let mut figures = Vec::new();
    for (cap, settle) in [
        ("0", Duration::from_secs(5)),
        ("1000", Duration::from_secs(25)),
    ] {
        let tracker = real::aquatic_udp(900)?;
        let directory = tempfile::tempdir().unwrap();
        let hashes = library(directory.path(), STOPPED, &[tracker.url("udp")]);
        let mut daemon = Daemon::start(directory.path(), &["--max-announce-rate", cap]);
        std::thread::sleep(settle);
        let before = tracker.seeded_by_udp(&hashes);
        let status = Command::new("kill")
            .arg(daemon.child.id().to_string())
            .status();
        assert!(status.unwrap().success());
        let started = Instant::now();
        assert!(daemon.child.wait().unwrap().success());
        let took = started.elapsed().as_secs_f64();
        let after = tracker.seeded_by_udp(&hashes);
        figures.push(format!(
            "cap {cap}: {} of {before} stopped, exit after {took:.1} s",
            before - after
        ));
    }
    Some(figures.join("; "))
}
