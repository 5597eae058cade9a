//! The whole daemon with an index: nothing of a torrent is in memory, and every torrent is announced.
//!
//! Owns what trackers see of it. It must not know the announcer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hekate::wire::message::InfoHash;
use tempfile::TempDir;

use crate::real::{self, Server};
use crate::scripted::{Udp, honest, is_connect};
use crate::support::daemon::Daemon;
use crate::support::leecher::{FAST, Leecher};
use crate::support::poll_until;
use crate::support::torrent::TorrentBuilder;

/// More than two blocks of 64, and no multiple of that.
const TORRENTS: u64 = 150;

/// Seconds after which a tracker wants to hear of a torrent again: the least that is heeded.
const INTERVAL_S: i32 = 60;

/// What is waited for comes sooner.
const PATIENCE: Duration = Duration::from_secs(20);

const STARTED: u32 = 2;
const STOPPED: u32 = 3;

struct Library {
    directory: TempDir,
    hashes: Vec<InfoHash>,
}

/// Torrents of one byte each, and an index of them. Some have a second metainfo file, some no
/// content.
fn library(url: Option<&str>) -> Library {
    let torrent = |seed: u64, name: &str| {
        let torrent = TorrentBuilder::new(seed).name(name).length(1);
        url.into_iter()
            .fold(torrent, |torrent, url| torrent.announce(&[url]))
    };
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let mut hashes = Vec::new();
    for seed in 0..TORRENTS {
        let written = torrent(seed, &format!("torrent {seed:03}")).write(&tree);
        hashes.push(InfoHash(written.unwrap().info_hash));
    }
    let copies = tree.join("copies");
    std::fs::create_dir(&copies).unwrap();
    for seed in [3, 77] {
        let written = torrent(seed, &format!("torrent {seed:03}")).write(&copies);
        assert!(hashes.contains(&InfoHash(written.unwrap().info_hash)));
    }
    let absent = tree.join("absent");
    std::fs::create_dir(&absent).unwrap();
    torrent(1000, "absent").write(&absent).unwrap();
    std::fs::remove_file(absent.join("absent")).unwrap();
    let library = Library { directory, hashes };
    let made = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .arg("index")
        .arg(&tree)
        .arg("-o")
        .arg(library.index())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    library
}

impl Library {
    fn index(&self) -> PathBuf {
        self.directory.path().join("index")
    }

    fn daemon(&self, arguments: &[&str]) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command
            .args(["seed", "-v", "--bind", "127.0.0.1", "--port", "0"])
            .args(arguments)
            .arg("--index")
            .arg(self.index());
        Daemon::start(command)
    }
}

/// An announce as a tracker reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Announce {
    info_hash: InfoHash,
    event: u32,
    port: u16,
}

/// A tracker that remembers every announce, in the order of arrival.
struct Memory {
    server: Udp,
    seen: Arc<Mutex<Vec<Announce>>>,
}

impl Memory {
    fn new() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&seen);
        let server = Udp::new(move |socket, from: SocketAddr, packet| {
            if !is_connect(packet) {
                memory.lock().unwrap().push(Announce {
                    info_hash: InfoHash(*packet[16..].first_chunk().unwrap()),
                    event: u32::from_be_bytes(*packet[80..].first_chunk().unwrap()),
                    port: u16::from_be_bytes(*packet[96..].first_chunk().unwrap()),
                });
            }
            socket.send_to(&honest(packet, INTERVAL_S), from).unwrap();
        });
        Self { server, seen }
    }

    fn seen(&self) -> Vec<Announce> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until `count` torrents have been started.
    fn started(&self, count: usize) {
        poll_until(PATIENCE, || {
            let seen = self.seen();
            let started = seen.iter().filter(|announce| announce.event == STARTED);
            let started = started.count();
            let all = (started >= count).then_some(());
            all.ok_or(format!("{started} of {count} were started"))
        });
    }
}

fn of(seen: &[Announce], event: u32) -> HashMap<InfoHash, usize> {
    let mut counts = HashMap::new();
    for announce in seen.iter().filter(|announce| announce.event == event) {
        *counts.entry(announce.info_hash).or_default() += 1;
    }
    counts
}

fn once(hashes: &[InfoHash]) -> HashMap<InfoHash, usize> {
    hashes.iter().map(|info_hash| (*info_hash, 1)).collect()
}

fn end(mut daemon: Daemon) {
    daemon.signal("TERM");
    let started = Instant::now();
    assert!(daemon.wait().success());
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

fn seeded(tracker: &Server, hashes: &[InfoHash], count: usize) {
    poll_until(PATIENCE, || {
        let seeded = tracker.seeded_by_http(hashes);
        let all = (seeded == count).then_some(());
        all.ok_or(format!("{seeded} are seeded, not {count}"))
    });
}

#[test]
fn opentracker_knows_every_torrent_of_an_index_until_the_end() {
    let library = library(None);
    let Some(tracker) = real::opentracker(&library.hashes) else {
        return;
    };
    let daemon = library.daemon(&["--tracker-override", &tracker.url("udp")]);
    seeded(&tracker, &library.hashes, library.hashes.len());
    end(daemon);
    seeded(&tracker, &library.hashes, 0);
}

#[test]
fn each_torrent_of_an_index_is_started_once_and_stopped_once() {
    let tracker = Memory::new();
    let library = library(Some(&tracker.server.url()));
    let daemon = library.daemon(&["--max-announce-rate", "0"]);
    tracker.started(library.hashes.len());
    end(daemon);
    let seen = tracker.seen();
    assert_eq!(of(&seen, STARTED), once(&library.hashes));
    assert_eq!(of(&seen, STOPPED), once(&library.hashes));
    assert_eq!(seen.len(), 2 * library.hashes.len());
}

#[test]
fn at_the_end_torrents_with_peers_are_stopped_first() {
    let tracker = Memory::new();
    let library = library(Some(&tracker.server.url()));
    let daemon = library.daemon(&["--max-announce-rate", "300"]);
    tracker.started(library.hashes.len());
    let mut with_peers: Vec<InfoHash> = [149, 20, 90].map(|id| library.hashes[id]).into();
    let peers: Vec<Leecher> = with_peers
        .iter()
        .map(|info_hash| Leecher::connect(daemon.address, info_hash.0, FAST))
        .collect();
    end(daemon);
    let seen = tracker.seen();
    let stopped = seen.iter().filter(|announce| announce.event == STOPPED);
    let mut first: Vec<InfoHash> = stopped.take(3).map(|announce| announce.info_hash).collect();
    first.sort_unstable_by_key(|info_hash| info_hash.0);
    with_peers.sort_unstable_by_key(|info_hash| info_hash.0);
    assert_eq!(first, with_peers);
    assert_eq!(of(&seen, STOPPED), once(&library.hashes));
    drop(peers);
}

#[test]
fn machines_that_share_a_library_announce_each_torrent_once_and_serve_all() {
    let tracker = Memory::new();
    let library = library(Some(&tracker.server.url()));
    let shares = ["1/3", "2/3", "3/3"];
    let daemons = shares.map(|shard| library.daemon(&["--shard", shard]));
    tracker.started(library.hashes.len());
    for daemon in &daemons {
        for info_hash in library.hashes.iter().take(10) {
            Leecher::connect(daemon.address, info_hash.0, FAST);
        }
    }
    let ports = daemons.each_ref().map(|daemon| daemon.address.port());
    daemons.into_iter().for_each(end);
    let seen = tracker.seen();
    assert_eq!(of(&seen, STARTED), once(&library.hashes));
    assert_eq!(of(&seen, STOPPED), once(&library.hashes));
    for port in ports {
        let share = seen.iter().filter(|announce| announce.port == port);
        let share = share.count() / 2;
        assert!((20..=80).contains(&share), "{share} of {TORRENTS}");
    }
}

#[test]
fn added_and_removed_torrents_are_announced_and_the_rest_keeps_its_ids() {
    let tracker = Memory::new();
    let url = tracker.server.url();
    let library = library(Some(&url));
    let tree = library.directory.path().join("tree");
    let state = library.directory.path().join("state");
    let mut daemon = Daemon::seed_with(&tree, &["--state-dir", state.to_str().unwrap()]);
    tracker.started(library.hashes.len());

    // The new one is the first of all, so that every record gets another number.
    std::fs::remove_file(tree.join("torrent 020.torrent")).unwrap();
    let new = TorrentBuilder::new(999).name("a new one").length(1);
    let new = new.announce(&[&url]).write(&tree).unwrap();
    let new = InfoHash(new.info_hash);
    daemon.signal("HUP");
    daemon.wait_for_line("reloaded: ");
    let gone = library.hashes[20];
    poll_until(PATIENCE, || {
        let seen = tracker.seen();
        let stopped = of(&seen, STOPPED);
        if !of(&seen, STARTED).contains_key(&new) || !stopped.contains_key(&gone) {
            return Err(format!("{:?}", seen.last()));
        }
        assert_eq!(stopped.len(), 1);
        Ok(())
    });
    end(daemon);
    let mut all = library.hashes;
    all.push(new);
    let seen = tracker.seen();
    assert_eq!(of(&seen, STARTED), once(&all));
    assert_eq!(of(&seen, STOPPED), once(&all));
}
