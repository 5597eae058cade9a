//! Names, keys and values that dashboards and scripts use, compared with files.

use super::report;
use crate::metrics::trackers::{TrackerFigures, TrackerState, TrackerSums, Trackers};
use crate::metrics::{LibrarySize, Peers, Phase, PieceCounters, Snapshot, Wires, prometheus};
use crate::wire::message::InfoHash;

/// A snapshot in which every figure differs from the others.
fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot {
        phase: Phase::Serving,
        started_unix_s: 1_700_000_000,
        up_ms: 90_061_000,
        bad_pieces: vec![(InfoHash([0xab; 20]), 5), (InfoHash([0xcd; 20]), 77)],
        library: LibrarySize {
            torrents: 1201,
            refused: 13,
        },
        active_torrents: 41,
        peers: Peers {
            handshaking: 3,
            choked: 19,
            waiting: 7,
            unchoked: 29,
        },
        peers_max: 500,
        slots: 50,
        late_faults: 6,
        rate_bytes: 123_456,
        minutes_bytes: [1, 2048, 3 << 20, 5, 4 << 30],
        peak_bytes: 9 << 20,
        trackers: Trackers {
            not_allowed: 9,
            unannounced: 10,
            unusable: 11,
            unusable_first: vec![(
                "wss://d.example/…".to_owned(),
                "cannot be used: why".to_owned(),
            )],
            named: vec![
                tracker("udp://b.example:6969", "b.example", TrackerState::Up, 100),
                tracker(
                    "http://a.example",
                    "a.example",
                    TrackerState::Resting(61),
                    200,
                ),
                tracker("http://b.example", "b.example", TrackerState::Probing, 300),
                tracker(
                    "http://c\"\\.example",
                    "c\"\\.example",
                    TrackerState::New,
                    400,
                ),
            ],
            others: 2,
            other: sums(500),
        },
        ..Snapshot::default()
    };
    count(&mut snapshot);
    snapshot
}

fn count(snapshot: &mut Snapshot) {
    let counters = &mut snapshot.counters;
    counters.accepted = 1001;
    counters.called = 1002;
    counters.calls_failed = 1003;
    counters.payload_bytes = 3 << 29;
    counters.blocks = 1005;
    counters.rejected = 1006;
    counters.keys_exchanged = 1007;
    counters.wires = Wires {
        plain: 51,
        mse_plaintext: 52,
        rc4: 53,
    };
    for (number, closed) in counters.closed.iter_mut().enumerate() {
        *closed = 2000 + number as u64;
    }
    for us in [0, 3, 900, 1 << 19, 1 << 23] {
        counters.turns.record(us);
        counters.turns_cpu.record(us / 2);
    }
    snapshot.hung_disks = vec![("/mnt/\"a".to_owned(), 3661), ("/mnt/b".to_owned(), 17)];
    let storage = &mut snapshot.storage;
    storage.resident = 3001;
    storage.absent = 3002;
    storage.queued = 33;
    storage.readers = 34;
    storage.mappings = 3005;
    for us in [7, 7, 7, 1_234_567] {
        storage.jobs.record(us);
    }
    storage.pieces = Some(PieceCounters {
        good: 4001,
        bad: 4002,
        quarantined: 43,
        queued: 4004,
    });
}

fn sums(base: u64) -> TrackerSums {
    TrackerSums {
        torrents: base + 1,
        late_s: base + 2,
        sent: base + 3,
        accepted: base + 4,
        refused: base + 5,
        failed: base + 6,
        connections: base + 7,
        in_flight: base + 8,
    }
}

fn tracker(site: &str, host: &str, state: TrackerState, base: u64) -> TrackerFigures {
    TrackerFigures {
        site: site.to_owned(),
        host: host.to_owned(),
        state,
        trouble: (base == 200).then(|| ("connection \"refused\"".to_owned(), 62)),
        sums: sums(base),
    }
}

fn with_version(text: &str) -> String {
    text.replace("VERSION", env!("CARGO_PKG_VERSION"))
}

#[test]
fn the_metrics_are_those_of_the_file() {
    let samples = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("# HELP "));
        lines.map(str::to_owned).collect()
    };
    let text = prometheus::text(&snapshot());
    let expected = with_version(include_str!("tests/metrics.txt"));
    assert_eq!(samples(&text), samples(&expected));
}

#[test]
fn the_json_is_that_of_the_file() {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let expected = with_version(include_str!("tests/status.json"));
    assert_eq!(parse(&report::json(&snapshot())), parse(&expected));
}

#[test]
fn the_text_is_that_of_the_file() {
    let expected = with_version(include_str!("tests/status.txt"));
    assert_eq!(report::text(&snapshot()), expected);
}
