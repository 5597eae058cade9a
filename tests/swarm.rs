//! The instrument against a tiny seeder that is told how to misbehave.
//!
//! Each run of `hekate-swarm load` measures one second. The seeder here has a thread for each
//! connection and serves from memory.

#![cfg(feature = "swarm")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::float_cmp,
    reason = "what fails in a test fails the test, in its helpers too"
)]

mod support;

use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use support::torrent::{Sample, TorrentBuilder};
use tempfile::TempDir;

const LENGTH: u64 = 700_000;

/// What the seeder does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Honest,
    /// Sends zeros.
    Corrupt,
    /// Closes without an answer.
    Refusing,
    /// Never unchokes.
    Choking,
}

struct Stage {
    directory: TempDir,
    sample: Arc<Sample>,
    address: SocketAddr,
}

fn stage(behaviour: Behaviour) -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let builder = TorrentBuilder::new(1).piece_length(65536);
    let sample = builder.file("a", 300_000).file("b", LENGTH - 300_000);
    let sample = Arc::new(sample.write(directory.path()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::clone(&sample);
    thread::spawn(move || {
        let content = served.bytes(0, usize::try_from(LENGTH).unwrap());
        let content: Arc<[u8]> = content.into();
        for (number, stream) in listener.incoming().enumerate() {
            let (content, info_hash) = (Arc::clone(&content), served.info_hash);
            // The first connection only looks whether somebody serves.
            if behaviour == Behaviour::Refusing && number > 0 {
                continue;
            }
            // A leecher that leaves is an error here and nowhere else.
            thread::spawn(move || serve(stream?, &content, info_hash, behaviour));
        }
    });
    Stage {
        directory,
        sample,
        address,
    }
}

fn serve(
    mut stream: TcpStream,
    content: &[u8],
    info_hash: [u8; 20],
    behaviour: Behaviour,
) -> io::Result<()> {
    let mut handshake = [0; 68];
    stream.read_exact(&mut handshake)?;
    let mut hello = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04".to_vec();
    hello.extend(info_hash);
    hello.extend(b"-TS0001-000000000000");
    hello.extend([0, 0, 0, 1, 14]);
    if behaviour != Behaviour::Choking {
        hello.extend([0, 0, 0, 1, 1]);
    }
    stream.write_all(&hello)?;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut message)?;
        if message.first() == Some(&6) {
            let word = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
            let (start, length) = ((word(1) * 65536 + word(5)) as usize, word(9));
            let mut answer = (length + 9).to_be_bytes().to_vec();
            answer.push(7);
            answer.extend(&message[1..9]);
            match behaviour {
                Behaviour::Corrupt => answer.resize(answer.len() + length as usize, 0),
                _ => answer.extend(&content[start..start + length as usize]),
            }
            stream.write_all(&answer)?;
        }
    }
}

fn load(stage: &Stage, options: &[&str]) -> Value {
    let json = stage.directory.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_hekate-swarm"))
        .args(["load", "--warm-up", "0", "--quiet"])
        .arg("--torrent")
        .arg(&stage.sample.metainfo_path)
        .args(["--address", &stage.address.to_string()])
        .arg("--json")
        .arg(&json)
        .args(options)
        .args(if options.contains(&"--seconds") {
            &[][..]
        } else {
            &["--seconds", "1"]
        })
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

fn number(report: &Value, path: &str) -> f64 {
    let found = report.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no {path} in {report:#}"))
}

#[test]
fn an_honest_seeder_is_measured_and_verified() {
    let stage = stage(Behaviour::Honest);
    let content = stage.sample.root.to_str().unwrap();
    for options in [
        &["--content", content, "--verify", "1", "--peers", "5"][..],
        &["--verify", "1", "--peers", "5", "--order", "sequential"],
        &[
            "--content",
            content,
            "--verify",
            "0.5",
            "--peers",
            "5",
            "--order",
            "blocks",
        ],
    ] {
        let report = load(&stage, options);
        assert!(number(&report, "/blocks/verified") > 10.0, "{report:#}");
        assert!(number(&report, "/throughput/bytes") > 0.0);
        assert!(number(&report, "/latency_us/p50") > 0.0);
        assert!(number(&report, "/fairness/jain") > 0.2);
        assert_eq!(number(&report, "/fairness/peers"), 5.0);
        assert_eq!(number(&report, "/time_to_us/unchoke/count"), 5.0);
        for zero in ["/blocks/mismatched", "/blocks/unexpected", "/ended/dropped"] {
            assert_eq!(number(&report, zero), 0.0, "{zero}");
        }
    }
}

#[test]
fn wrong_content_is_detected() {
    let stage = stage(Behaviour::Corrupt);
    let content = stage.sample.root.to_str().unwrap();
    for options in [
        &["--verify", "1"][..],
        &["--verify", "1", "--content", content],
    ] {
        let report = load(&stage, options);
        assert_eq!(number(&report, "/blocks/verified"), 0.0);
        assert!(number(&report, "/blocks/mismatched") > 10.0);
    }
}

#[test]
fn leechers_leave_when_they_are_complete() {
    let stage = stage(Behaviour::Honest);
    let report = load(&stage, &["--leave", "--peers", "7", "--seconds", "60"]);
    assert_eq!(number(&report, "/ended/completed"), 7.0);
    assert_eq!(number(&report, "/blocks/all"), 7.0 * 43.0);
    assert!(number(&report, "/window_seconds") < 30.0);
}

#[test]
fn active_slow_stalled_idle_and_replaced_peers_run_together() {
    let stage = stage(Behaviour::Honest);
    let crowd = "--peers 4 --slow 3 --slow-rate 100000 --stalled 2 --idle 6 --churn 50";
    let options: Vec<&str> = crowd.split(' ').collect();
    let report = load(&stage, &options);
    let replaced = number(&report, "/ended/replaced");
    assert!((40.0..=60.0).contains(&replaced), "{replaced}");
    // Each that went was replaced at once; the newest may still be connecting when the run ends.
    assert_eq!(number(&report, "/peers/started") - replaced, 15.0);
    let connected = number(&report, "/peers/connected_at_end");
    assert!((12.0..=15.0).contains(&connected), "{connected}");
    let slow = number(&report, "/throughput/bytes") / number(&report, "/window_seconds")
        - number(&report, "/throughput/active_gb_per_second") * 1e9;
    assert!((1.0..=4e5).contains(&slow), "{slow}");
}

#[test]
fn refused_and_choked_peers_are_counted() {
    let refusing = stage(Behaviour::Refusing);
    let report = load(&refusing, &["--peers", "5", "--return-after", "100"]);
    assert!(number(&report, "/ended/refused") >= 15.0);
    let choking = stage(Behaviour::Choking);
    let report = load(&choking, &["--peers", "5"]);
    assert_eq!(number(&report, "/peers/shaken"), 5.0);
    assert_eq!(number(&report, "/peers/unchoked"), 0.0);
    assert_eq!(number(&report, "/peers/served_at_end"), 0.0);
}

#[test]
fn an_unreachable_seeder_is_an_error_in_one_line() {
    let stage = stage(Behaviour::Honest);
    let output = Command::new(env!("CARGO_BIN_EXE_hekate-swarm"))
        .args(["load", "--ready", "0", "--address", "127.0.0.1:1"])
        .arg("--torrent")
        .arg(&stage.sample.metainfo_path)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.starts_with("hekate-swarm: 127.0.0.1:1 does not serve: "));
    assert_eq!(line.lines().count(), 1);
}
