//! A snapshot for programs and for people: JSON, and lines of text. Pure.

use std::cmp::Reverse;

use serde_json::{Value, json};

use crate::metrics::table::{METRICS, Read};
use crate::metrics::trackers::{TrackerFigures, TrackerState, TrackerSums, Trackers};
use crate::metrics::{Counters, Peers, Snapshot};
use crate::peer::close::CloseReason;
use crate::torrent::printable::Printable;
use crate::wire::message::InfoHash;

/// Most bad pieces in the text; the log names all.
const LINES_MAX: usize = 10;
/// Most trackers with a line of their own in the text.
const TRACKERS_IN_TEXT: usize = 10;

/// `/status.json`: the metrics at their paths, and a few more values.
#[must_use]
pub fn json(snapshot: &Snapshot) -> String {
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": snapshot.phase.as_str(),
        "indexed_files": snapshot.indexed_files,
        "up_seconds": snapshot.up_ms / 1000,
        "payload_bytes_per_second": snapshot.rate_bytes,
    });
    for metric in METRICS.iter().filter(|metric| !metric.json.is_empty()) {
        let path = metric.json;
        match metric.read {
            Read::Value(read) => *at(&mut status, path) = read(snapshot).into(),
            Read::Labelled(_, read) => {
                let values = read(snapshot).into_iter();
                let values = values.map(|(value, count)| (value.to_owned(), count.into()));
                *at(&mut status, path) = Value::Object(values.collect());
            }
            Read::Disks(read) => {
                let values = read(snapshot).iter();
                let values = values.map(|(disk, value)| (disk.clone(), (*value).into()));
                *at(&mut status, path) = Value::Object(values.collect());
            }
            Read::Durations(read) => {
                let histogram = read(snapshot);
                let mut put =
                    |name, us: u64| *at(&mut status, &format!("{path}{name}")) = us.into();
                put("median_us", histogram.quantile_us(0.5));
                put("p99_us", histogram.quantile_us(0.99));
                put("longest_us", histogram.longest_us());
            }
            Read::Version | Read::Tracker(_) | Read::TrackerUp | Read::Outcomes => {}
        }
    }
    *at(&mut status, "turn.count") = snapshot.counters.turns.count().into();
    let bad = snapshot
        .bad_pieces
        .iter()
        .map(|(info_hash, piece)| json!({ "info_hash": info_hash.to_string(), "piece": piece }));
    match snapshot.storage.pieces {
        Some(_) => *at(&mut status, "pieces.first_bad") = bad.collect(),
        None => *at(&mut status, "pieces") = Value::Null,
    }
    *at(&mut status, "trackers") = snapshot.trackers.named.iter().map(tracker).collect();
    let mut others = json!({ "trackers": snapshot.trackers.others });
    add_sums(&mut others, &snapshot.trackers.other);
    *at(&mut status, "trackers_others") = others;
    let unusable = snapshot.trackers.unusable_first.iter();
    let unusable = unusable.map(|(url, why)| json!({ "tracker": url, "why": why }));
    *at(&mut status, "trackers_unusable.first") = unusable.collect();
    status.to_string()
}

/// The value at a path, with the objects that lead to it.
fn at<'a>(object: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(object, |object, key| &mut object[key])
}

fn tracker(tracker: &TrackerFigures) -> Value {
    let (trouble, ago_s) = tracker.trouble.clone().unzip();
    let mut object = json!({
        "tracker": tracker.site,
        "state": tracker.state.as_str(),
        "rests_seconds": match tracker.state {
            TrackerState::Resting(rests_s) => rests_s,
            TrackerState::New
            | TrackerState::Up
            | TrackerState::Probing
            | TrackerState::NotAllowed => 0,
        },
        "trouble": trouble,
        "trouble_seconds_ago": ago_s,
    });
    add_sums(&mut object, &tracker.sums);
    object
}

fn add_sums(object: &mut Value, sums: &TrackerSums) {
    for (outcome, count) in sums.outcomes() {
        *at(object, outcome) = count.into();
    }
    for metric in METRICS {
        if let Read::Tracker(read) = metric.read {
            *at(object, metric.json) = read(sums).into();
        }
    }
}

/// `/history.json`: bytes in each of the last seconds, oldest first.
pub fn history(seconds: impl Iterator<Item = u64>) -> String {
    let bytes: Vec<u64> = seconds.collect();
    json!({ "payload_bytes": bytes }).to_string()
}

/// A line for each disk that hangs.
fn hung_lines(snapshot: &Snapshot) -> String {
    let hung = snapshot.hung_disks.iter();
    hung.map(|(disk, hung_s)| format!("hung      {disk} for {}\n", duration(*hung_s)))
        .collect()
}

/// The lines on hashed pieces: none when pieces are not hashed.
fn piece_lines(snapshot: &Snapshot) -> String {
    let Some(pieces) = snapshot.storage.pieces else {
        return String::new();
    };
    let mut lines = format!(
        "pieces    {} verified, {} bad, {} waiting to be hashed\n",
        pieces.good, pieces.quarantined, pieces.queued
    );
    for (info_hash, piece) in snapshot.bad_pieces.iter().take(LINES_MAX) {
        lines.push_str(&format!("bad       {info_hash} piece {piece}\n"));
    }
    lines
}

/// A torrent with peers.
pub struct Busy<'a> {
    /// Its info-hash.
    pub info_hash: InfoHash,
    /// The name of its file or directory, which its author chose.
    pub name: &'a str,
    /// Its peers.
    pub peers: u32,
    /// Bytes sent to them.
    pub payload_bytes: u64,
    /// Bytes a second in the last seconds.
    pub rate_bytes: u64,
}

/// A line of `/torrents.txt`, which `hekate status` prints after `/status.txt`.
#[must_use]
pub fn busy_line(torrent: &Busy<'_>) -> String {
    format!(
        "busiest   {rate}/s to {peers} peers, {sent} sent: {hash} {name}\n",
        rate = bytes(torrent.rate_bytes),
        peers = torrent.peers,
        sent = bytes(torrent.payload_bytes),
        hash = torrent.info_hash,
        name = Printable(torrent.name.as_bytes()),
    )
}

/// The throughput of the last minutes.
fn minutes(snapshot: &Snapshot) -> String {
    let minutes = snapshot
        .minutes_bytes
        .map(|rate| format!("{}/s", bytes(rate)));
    let peak = bytes(snapshot.peak_bytes);
    format!("minutes   {}, peak {peak}/s\n", minutes.join(", "))
}

/// Reasons for which connections ended, the most frequent first.
fn ends(counters: &Counters) -> String {
    let reasons = CloseReason::LABELS.iter().zip(counters.closed);
    let mut reasons: Vec<_> = reasons.filter(|(_, count)| *count > 0).collect();
    reasons.sort_by_key(|(_, count)| Reverse(*count));
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(name, count)| format!("{count} {}", name.replace('_', " ")))
        .collect();
    match reasons.is_empty() {
        true => "ended     no connection yet\n".to_owned(),
        false => format!("ended     {}\n", reasons.join(", ")),
    }
}

/// `/status.txt`, which `hekate status` prints.
#[must_use]
pub fn text(snapshot: &Snapshot) -> String {
    let Snapshot {
        counters,
        storage,
        library,
        ..
    } = snapshot;
    let Peers {
        handshaking,
        choked,
        waiting,
        unchoked,
    } = snapshot.peers;
    let asked = storage.resident + storage.absent;
    let found = match (storage.resident * 100).checked_div(asked) {
        Some(percent) => format!("{percent} % found in memory"),
        None => "nothing asked yet".to_owned(),
    };
    let figures = format!(
        "Hekate {version} is {phase}, up {up}\n\
         sent      {sent} in {blocks} blocks, {rate}/s now, {rejected} requests rejected\n\
         {minutes}\
         peers     {peers} of {peers_max}: {unchoked} in {slots} slots, {waiting} waiting, \
         {choked} idle, {handshaking} in handshake\n\
         encrypted {rc4} peers by RC4, {mse_plaintext} in the handshake only\n\
         {ended}\
         library   {torrents} torrents, {active} with peers, {refused} refused\n\
         disk      {found}, {queued} reads queued for {readers} readers, 99 % done in {job}, \
         {late} late faults\n\
         {hung}{pieces}\
         loop      99 % of turns within {turn}\n",
        version = env!("CARGO_PKG_VERSION"),
        phase = phase(snapshot),
        up = duration(snapshot.up_ms / 1000),
        sent = bytes(counters.payload_bytes),
        blocks = counters.blocks,
        rate = bytes(snapshot.rate_bytes),
        rejected = counters.rejected,
        minutes = minutes(snapshot),
        ended = ends(counters),
        peers = snapshot.peers.sum(),
        peers_max = snapshot.peers_max,
        slots = snapshot.slots,
        rc4 = counters.wires.rc4,
        mse_plaintext = counters.wires.mse_plaintext,
        torrents = library.torrents,
        active = snapshot.active_torrents,
        refused = library.refused,
        queued = storage.queued,
        readers = storage.readers,
        job = microseconds(storage.jobs.quantile_us(0.99)),
        late = snapshot.late_faults,
        hung = hung_lines(snapshot),
        pieces = piece_lines(snapshot),
        turn = microseconds(counters.turns.quantile_us(0.99)),
    );
    figures + &tracker_lines(&snapshot.trackers)
}

fn phase(snapshot: &Snapshot) -> String {
    let phase = snapshot.phase.as_str();
    match snapshot.indexed_files {
        Some(files) => format!("{phase}, {files} files so far"),
        None => phase.to_owned(),
    }
}

/// The latest trackers first, since a terminal has few lines.
fn tracker_lines(trackers: &Trackers) -> String {
    let mut named: Vec<&TrackerFigures> = trackers.named.iter().collect();
    named.sort_by_key(|tracker| Reverse(tracker.sums.late_s));
    let (shown, hidden) = named
        .split_at_checked(TRACKERS_IN_TEXT)
        .unwrap_or((&named, &[]));
    let lines = shown.iter().map(|tracker| tracker_line(tracker));
    let mut lines: String = lines.collect();
    for (url, why) in trackers.unusable_first.iter().take(TRACKERS_IN_TEXT) {
        lines.push_str(&format!("tracker   {url} {why}\n"));
    }
    if trackers.unannounced > 0 {
        let torrents = trackers.unannounced;
        lines.push_str(&format!(
            "trackers  {torrents} torrents have none that can be used\n"
        ));
    }
    let others = trackers.others + hidden.len() as u64;
    if others > 0 {
        let mut sums = trackers.other;
        for tracker in hidden {
            sums.add(&tracker.sums);
        }
        lines += &format!(
            "trackers  {others} others: {} accepted, {} refused, {} failed\n",
            sums.accepted, sums.refused, sums.failed
        );
    }
    lines
}

fn tracker_line(tracker: &TrackerFigures) -> String {
    let sums = &tracker.sums;
    let state = match tracker.state {
        TrackerState::Resting(rests_s) => format!("backs off for {}", duration(rests_s)),
        state => format!("is {}", state.as_str()),
    };
    let late = match sums.late_s {
        0 => "on time".to_owned(),
        late_s => format!("{} late", duration(late_s)),
    };
    let trouble = match &tracker.trouble {
        Some((trouble, ago_s)) => format!("; {} ago: {trouble}", duration(*ago_s)),
        None => String::new(),
    };
    format!(
        "tracker   {} {state}, {late}: {} torrents, {} accepted, {} refused, {} failed{trouble}\n",
        tracker.site, sums.torrents, sums.accepted, sums.refused, sums.failed
    )
}

/// Three digits and a unit of 1024.
fn bytes(bytes: u64) -> String {
    let mut unit = 0;
    while bytes >> (10 * unit) >= 1024 && unit < 5 {
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        .get(unit)
        .unwrap_or(&"");
    if unit == 0 {
        return format!("{bytes} {name}");
    }
    let tenths = (bytes >> (10 * (unit - 1))) * 10 / 1024;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    match (days, hours, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn microseconds(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{} ms", us / 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Phase, PieceCounters};

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot {
            phase: Phase::Serving,
            up_ms: 90_061_000,
            peers: Peers {
                unchoked: 2,
                waiting: 1,
                ..Peers::default()
            },
            peers_max: 500,
            slots: 50,
            ..Snapshot::default()
        };
        snapshot.counters.payload_bytes = 3 << 29;
        snapshot.storage.resident = 3;
        snapshot.storage.absent = 1;
        snapshot
    }

    #[test]
    fn the_text_shows_the_figures_with_units() {
        let text = text(&snapshot());
        assert!(text.contains(" is serving, up 1 d 1 h\n"), "{text}");
        assert!(text.contains("1.5 GiB in 0 blocks"), "{text}");
        assert!(
            text.contains("3 of 500: 2 in 50 slots, 1 waiting"),
            "{text}"
        );
        assert!(text.contains("75 % found in memory"), "{text}");
    }

    #[test]
    fn the_text_has_the_minutes_the_close_reasons_and_the_busiest() {
        let mut snapshot = snapshot();
        let quiet = text(&snapshot);
        assert!(quiet.contains("\nended     no connection yet\n"), "{quiet}");
        snapshot.minutes_bytes = [0, 0, 2048, 1 << 20, 1536];
        snapshot.peak_bytes = 3 << 20;
        snapshot.counters.closed[CloseReason::TurnOver.index()] = 2;
        snapshot.counters.closed[CloseReason::PeerIsSeed.index()] = 7;
        let text = text(&snapshot);
        let minutes = "\nminutes   0 B/s, 0 B/s, 2.0 KiB/s, 1.0 MiB/s, 1.5 KiB/s, peak 3.0 MiB/s\n";
        assert!(text.contains(minutes), "{text}");
        assert!(
            text.contains("\nended     7 peer is seed, 2 turn over\n"),
            "{text}"
        );
        let line = busy_line(&Busy {
            info_hash: InfoHash([0xab; 20]),
            name: "a\x1b[2Jb",
            peers: 3,
            payload_bytes: 3 << 29,
            rate_bytes: 1024,
        });
        let hash = "ab".repeat(20);
        let expected =
            format!("busiest   1.0 KiB/s to 3 peers, 1.5 GiB sent: {hash} a\\u{{1b}}[2Jb\n");
        assert_eq!(line, expected);
    }

    #[test]
    fn the_json_has_every_close_reason() {
        let json = json(&snapshot());
        assert!(json.contains(r#""phase":"serving""#) && json.contains(r#""waiting":1"#));
        for name in CloseReason::LABELS {
            assert!(json.contains(&format!("\"{name}\":0")), "{name}");
        }
        assert_eq!(history([1, 2].into_iter()), r#"{"payload_bytes":[1,2]}"#);
    }

    #[test]
    fn the_progress_of_the_first_index_is_shown() {
        assert!(json(&snapshot()).contains(r#""indexed_files":null"#));
        let snapshot = Snapshot {
            phase: Phase::Indexing,
            indexed_files: Some(1234),
            ..snapshot()
        };
        let expected = r#""phase":"indexing","indexed_files":1234"#;
        assert!(json(&snapshot).contains(expected));
        assert!(text(&snapshot).contains(" is indexing, 1234 files so far, up "));
    }

    #[test]
    fn bad_pieces_are_shown_when_pieces_are_hashed() {
        let mut snapshot = snapshot();
        assert!(json(&snapshot).contains(r#""pieces":null"#));
        assert!(!text(&snapshot).contains("pieces"));
        snapshot.storage.pieces = Some(PieceCounters {
            good: 7,
            bad: 3,
            quarantined: 2,
            queued: 1,
        });
        snapshot.bad_pieces = vec![(InfoHash([0xab; 20]), 5)];
        let text = text(&snapshot);
        let line = "pieces    7 verified, 2 bad, 1 waiting to be hashed\n";
        let hash = "ab".repeat(20);
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains(&format!("bad       {hash} piece 5\n")),
            "{text}"
        );
        let wanted = format!(r#""first_bad":[{{"info_hash":"{hash}","piece":5}}]"#);
        assert!(json(&snapshot).contains(&wanted));
    }

    #[test]
    fn sizes_and_times_have_the_unit_that_fits() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(7260), "2 h 1 min");
        assert_eq!(microseconds(2500), "2 ms");
    }
}
