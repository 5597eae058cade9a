//! Crowds of attackers beside honest peers, in short: each honest peer gets a block, and none is
//! refused. `make attack` measures the same attacks at full size.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "the options of the full run are not for so few")]
mod attacks;
mod crowd;
mod frames;
mod honest;
#[path = "../support/mod.rs"]
mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use attacks::{ATTACKS, Attack, Target};
use crowd::Stats;
use honest::Visit;
use support::daemon::Daemon;
use support::torrent::TorrentBuilder;
use support::{leecher, wait_until};

/// So many slots and places, and a crowd that could take them all.
const SLOTS: usize = 4;
const PLACES: usize = 40;
const ATTACKERS: usize = 48;
/// Honest peers that arrive together.
const HONEST: u8 = 3;
/// Longer than anything takes, unless it never comes.
const DEADLINE: Duration = Duration::from_secs(20);

/// Every address of 127.0.0.0/8 is this machine.
fn one_address(_: usize) -> IpAddr {
    IpAddr::from([127, 1, 0, 1])
}

fn one_subnet(number: usize) -> IpAddr {
    IpAddr::from([127, 2, 0, number as u8])
}

fn honest_address(number: u8) -> IpAddr {
    IpAddr::from([127, 100 + number, 1, 1])
}

struct Scene {
    _dir: tempfile::TempDir,
    target: Target,
    daemon: Daemon,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let plain = TorrentBuilder::new(1).name("plain").length(4 << 20);
    let plain = plain.piece_length(256 * 1024).write(dir.path()).unwrap();
    let long = TorrentBuilder::new(2).name("long").piece_length(16);
    let long = long.length(16 * 52_000).write(dir.path()).unwrap();
    let (slots, places) = (SLOTS.to_string(), PLACES.to_string());
    let options = ["-N", &slots, "--max-peers", &places, "--no-tracker"];
    Scene {
        daemon: Daemon::seed_with(dir.path(), &options),
        target: Target {
            info_hash: plain.info_hash,
            pieces: plain.pieces,
            long_info_hash: long.info_hash,
            long_info_bytes: long.info.len(),
        },
        _dir: dir,
    }
}

/// Each honest peer gets its first block while the crowd does this.
fn honest_peers_are_served_during(attack: &Attack, source: fn(usize) -> IpAddr) {
    let mut scene = scene();
    let seeder: SocketAddr = scene.daemon.address;
    let target = &scene.target;
    let sources: Vec<IpAddr> = (0..ATTACKERS * attack.times).map(source).collect();
    let stats = Stats::default();
    let stop = AtomicBool::new(false);
    let outcomes = thread::scope(|scope| {
        scope.spawn(|| crowd::attack(attack, target, |_| seeder, &sources, &stop, &stats).unwrap());
        // The attack goes on, and what has been refused a connection has come again.
        wait_until(DEADLINE, "the crowd connects", || {
            let datagrams = stats.sent_bytes.load(Ordering::Relaxed) / 20;
            let connects = stats.connects.load(Ordering::Relaxed);
            (connects + datagrams) as usize >= sources.len()
        });
        let visit = Visit {
            patience: DEADLINE,
            until: Instant::now(),
            counted_from: Instant::now(),
        };
        let peers: Vec<_> = (0..HONEST)
            .map(|number| {
                let source = honest_address(number);
                scope.spawn(move || honest::visit(source, seeder, target, visit))
            })
            .collect();
        let outcomes: Vec<_> = peers.into_iter().map(|peer| peer.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        outcomes
    });
    scene.daemon.assert_alive();
    for outcome in outcomes {
        let got = outcome.first_byte;
        assert!(
            got.is_ok(),
            "{}: {got:?}\n{}",
            attack.name,
            scene.daemon.log()
        );
    }
}

/// Makes a test of each attack, from one address and from one subnet.
macro_rules! attacked {
    ($($name:ident: $attack:literal),* $(,)?) => {
        /// The names of the attacks that have a test.
        const TESTED: &[&str] = &[$($attack),*];

        $(mod $name {
            #[test]
            fn from_one_address() {
                super::honest_peers_are_served_during(super::attack($attack), super::one_address);
            }

            #[test]
            fn from_one_subnet() {
                super::honest_peers_are_served_during(super::attack($attack), super::one_subnet);
            }
        })*
    };
}

fn attack(name: &str) -> &'static Attack {
    ATTACKS.iter().find(|attack| attack.name == name).unwrap()
}

attacked! {
    nothing: "nothing",
    download_like_anybody: "download like anybody",
    ask_for_one_byte_each_20_s: "ask for one byte each 20 s",
    ask_and_never_read: "ask and never read",
    ask_and_read_1_kb_s: "ask and read 1 KB/s",
    interested_never_ask: "interested, never ask",
    flood_requests_for_one_byte: "flood requests for one byte",
    say_nothing: "say nothing",
    half_a_handshake_and_again: "half a handshake, and again",
    shake_hands_leave_and_again: "shake hands, leave, and again",
    not_interested_each_20_s: "not interested each 20 s",
    toggle_interest: "toggle interest",
    ask_for_metadata: "ask for metadata",
    ask_for_metadata_4_times_as_many: "ask for metadata, 4 times as many",
    ask_for_metadata_never_read: "ask for metadata, never read",
    flood_requests_never_read: "flood requests, never read",
    flood_cancels_and_the_same_request: "flood cancels and the same request",
    flood_haves: "flood haves",
    flood_bitfields: "flood bitfields",
    flood_keep_alives_and_unknown_messages: "flood keep-alives and unknown messages",
    flood_extension_handshakes: "flood extension handshakes",
    begin_long_messages_drip_a_byte_each_second: "begin long messages, drip a byte each second",
    illegal_requests_and_again: "illegal requests, and again",
    unknown_torrents_and_again: "unknown torrents, and again",
    flood_utp_syns: "flood uTP SYNs",
}

#[test]
fn every_attack_has_a_test() {
    let names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
    assert_eq!(names, TESTED);
}
