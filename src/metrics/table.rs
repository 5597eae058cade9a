//! The one table of metrics: `/metrics`, `/status.json` and the manual are made from it.
//!
//! To add a metric, add an entry here and count it in a field of [`Snapshot`]. Names and JSON keys
//! are an interface: dashboards and scripts of others use them.

use super::trackers::TrackerSums;
use super::{Histogram, Snapshot};
use crate::peer::close::CloseReason;

/// One metric.
pub struct Metric {
    /// Its name, without the prefix `hekate_`, the unit, and the suffix of a counter.
    pub name: &'static str,
    /// The unit of its values, which the full name ends with.
    pub unit: Option<&'static str>,
    /// What it is, without a stop at the end.
    pub help: &'static str,
    /// What in it asks an operator for action; empty when nothing does.
    pub action: &'static str,
    /// Its path in `/status.json`, or in the object of a tracker there; of a histogram, what the
    /// paths of its quantiles start with. `None` when it is not there.
    pub json: Option<&'static str>,
    /// Its kind.
    pub kind: Kind,
    /// Its values.
    pub read: Read,
}

/// What a metric is to Prometheus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A constant 1 with labels.
    Info,
    /// A sum since the start.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution of durations.
    Histogram,
}

/// How the values of a metric are read from a snapshot.
pub enum Read {
    /// The version of the program, as a label.
    Version,
    /// One value.
    Value(fn(&Snapshot) -> u64),
    /// A value for each value of a label.
    Labelled(&'static str, fn(&Snapshot) -> Vec<(&'static str, u64)>),
    /// A distribution of microseconds.
    Histogram(fn(&Snapshot) -> &Histogram),
    /// A value for each tracker.
    Tracker(fn(&TrackerSums) -> u64),
    /// For each tracker, whether it answers.
    TrackerUp,
    /// For each tracker, how many announces ended in each way.
    Outcomes,
}

/// A gauge without a unit, to be filled in.
const fn gauge(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric {
        name,
        unit: None,
        help,
        action: "",
        json: None,
        kind: Kind::Gauge,
        read,
    }
}

/// A counter without a unit, to be filled in.
const fn counter(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric {
        kind: Kind::Counter,
        ..gauge(name, help, read)
    }
}

/// A histogram of seconds, to be filled in.
const fn histogram(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric {
        unit: Some("seconds"),
        kind: Kind::Histogram,
        ..gauge(name, help, read)
    }
}

/// Every metric, in the order of the page and the manual.
pub const METRICS: &[Metric] = &[
    Metric {
        kind: Kind::Info,
        ..gauge("build", "The version, as a label", Read::Version)
    },
    Metric {
        unit: Some("seconds"),
        action: "it changes without a restart that you asked for",
        json: Some("started"),
        ..gauge(
            "start_time",
            "When the process started, in seconds since 1970",
            Read::Value(|snapshot| snapshot.started_unix_s),
        )
    },
    Metric {
        action: "99 % above 50 ms: something blocks the loop",
        json: Some("turn."),
        ..histogram(
            "turn",
            "Duration of a turn of the loop, without waiting",
            Read::Histogram(|snapshot| &snapshot.counters.turns),
        )
    },
    Metric {
        unit: Some("bytes"),
        action: "it stands still while peers are unchoked",
        json: Some("payload_bytes"),
        ..counter(
            "payload",
            "Bytes of blocks sent",
            Read::Value(|snapshot| snapshot.counters.payload_bytes),
        )
    },
    Metric {
        json: Some("blocks"),
        ..counter(
            "blocks",
            "Whole blocks sent",
            Read::Value(|snapshot| snapshot.counters.blocks),
        )
    },
    Metric {
        json: Some("requests_rejected"),
        ..counter(
            "requests_rejected",
            "Requests rejected (BEP 6): the peer was choked, asked for too much at once, or the \
             content failed",
            Read::Value(|snapshot| snapshot.counters.rejected),
        )
    },
    Metric {
        json: Some("connections"),
        ..counter(
            "connections",
            "Connections that got a slot",
            Read::Value(|snapshot| snapshot.counters.accepted),
        )
    },
    Metric {
        json: Some("calls.called"),
        ..counter(
            "peers_called",
            "With `--connect`: peers that were dialled",
            Read::Value(|snapshot| snapshot.counters.called),
        )
    },
    Metric {
        action: "nearly all fail: the tracker's peers are gone, or a firewall is in the way",
        json: Some("calls.failed"),
        ..counter(
            "calls_failed",
            "With `--connect`: dialled peers with which no handshakes were exchanged",
            Read::Value(|snapshot| snapshot.counters.calls_failed),
        )
    },
    Metric {
        action: "`content_failed` grows: a disk; `house_full` grows: `--max-peers`",
        json: Some("connections_closed"),
        ..counter(
            "connections_closed",
            "Connections closed or refused, by `reason`",
            Read::Labelled("reason", |snapshot| {
                let counts = snapshot.counters.closed.iter().copied();
                CloseReason::LABELS.iter().copied().zip(counts).collect()
            }),
        )
    },
    Metric {
        action: "many `waiting` for long: more slots, or a shorter turn",
        json: Some("peers"),
        ..gauge(
            "peers",
            "Connected peers by `state`: `handshaking`, `choked` (not interested), `waiting` (for \
             an upload slot), `unchoked` (in an upload slot)",
            Read::Labelled("state", |snapshot| snapshot.peers.named().to_vec()),
        )
    },
    Metric {
        action: "`hekate_peers` reaches it",
        json: Some("peers_max"),
        ..gauge(
            "peers_max",
            "How many peers may be connected",
            Read::Value(|snapshot| snapshot.peers_max),
        )
    },
    Metric {
        json: Some("slots"),
        ..gauge(
            "slots",
            "Upload slots",
            Read::Value(|snapshot| snapshot.slots),
        )
    },
    Metric {
        action: "it falls and you removed nothing",
        json: Some("library.torrents"),
        ..gauge(
            "torrents",
            "Torrents served",
            Read::Value(|snapshot| snapshot.library.torrents),
        )
    },
    Metric {
        action: "above what you know of",
        json: Some("library.refused"),
        ..gauge(
            "torrents_refused",
            "Torrent files and directories that are refused",
            Read::Value(|snapshot| snapshot.library.refused),
        )
    },
    Metric {
        json: Some("library.active"),
        ..gauge(
            "torrents_active",
            "Torrents with a connected peer",
            Read::Value(|snapshot| snapshot.active_torrents),
        )
    },
    Metric {
        json: Some("storage.residency_hits"),
        ..counter(
            "residency_hits",
            "Ranges that were in memory when a peer needed them",
            Read::Value(|snapshot| snapshot.storage.resident),
        )
    },
    Metric {
        action: "as many as hits: more memory, or a faster disk",
        json: Some("storage.residency_misses"),
        ..counter(
            "residency_misses",
            "Ranges that were not in memory and that a reader thread had to fetch",
            Read::Value(|snapshot| snapshot.storage.absent),
        )
    },
    Metric {
        action: "it grows steadily: memory is desperately short",
        json: Some("storage.late_faults"),
        ..counter(
            "late_faults",
            "Page faults for which the loop waited for a disk",
            Read::Value(|snapshot| snapshot.late_faults),
        )
    },
    Metric {
        action: "it does not come down: the disk is the limit",
        json: Some("storage.jobs_queued"),
        ..gauge(
            "reader_jobs_queued",
            "Reads that wait for a reader thread",
            Read::Value(|snapshot| snapshot.storage.queued),
        )
    },
    Metric {
        json: Some("storage.readers"),
        ..gauge(
            "readers",
            "Reader threads",
            Read::Value(|snapshot| snapshot.storage.readers),
        )
    },
    Metric {
        json: Some("storage.job_"),
        ..histogram(
            "reader_job",
            "Duration of a read, including its wait for a reader thread",
            Read::Histogram(|snapshot| &snapshot.storage.jobs),
        )
    },
    Metric {
        action: "near 32,765: files are mapped again and again",
        json: Some("storage.mappings"),
        ..gauge(
            "mappings",
            "Content files that are mapped",
            Read::Value(|snapshot| snapshot.storage.mappings),
        )
    },
    Metric {
        json: Some("pieces.verified"),
        ..counter(
            "pieces_verified",
            "With `--verify=lazy`: pieces whose hash was right",
            Read::Value(|snapshot| snapshot.storage.pieces.unwrap_or_default().good),
        )
    },
    Metric {
        action: "it grows",
        json: Some("pieces.failed"),
        ..counter(
            "pieces_failed",
            "With `--verify=lazy`: pieces whose hash was wrong",
            Read::Value(|snapshot| snapshot.storage.pieces.unwrap_or_default().bad),
        )
    },
    Metric {
        action: "it is not 0: look for `is bad` in the log",
        json: Some("pieces.bad"),
        ..gauge(
            "pieces_bad",
            "With `--verify=lazy`: pieces that are not served because their hash is wrong",
            Read::Value(|snapshot| snapshot.storage.pieces.unwrap_or_default().quarantined),
        )
    },
    Metric {
        action: "it does not come down: the disk is the limit",
        json: Some("pieces.hash_jobs_queued"),
        ..gauge(
            "hash_jobs_queued",
            "With `--verify=lazy`: pieces that wait to be hashed",
            Read::Value(|snapshot| snapshot.storage.pieces.unwrap_or_default().queued),
        )
    },
    Metric {
        action: "`accepted` stands still for longer than the interval",
        ..counter(
            "announces",
            "Announces by `tracker` (its host) and `outcome`: `accepted`, `refused` (the tracker \
             does not want the torrent), `failed` (no valid answer)",
            Read::Outcomes,
        )
    },
    Metric {
        action: "it grows much faster than `hekate_announces_total`",
        json: Some("requests"),
        ..counter(
            "announce_requests",
            "Requests sent to the `tracker`, including repeated ones",
            Read::Tracker(|sums| sums.sent),
        )
    },
    Metric {
        unit: Some("seconds"),
        action: "above some minutes: `--max-announce-rate`, or a dead tracker",
        json: Some("late_seconds"),
        ..gauge(
            "announce_lateness",
            "How late the most overdue announce to the `tracker` is",
            Read::Tracker(|sums| sums.late_s),
        )
    },
    Metric {
        action: "0 for hours",
        ..gauge(
            "tracker_up",
            "1 when the `tracker` answers",
            Read::TrackerUp,
        )
    },
    Metric {
        json: Some("torrents"),
        ..gauge(
            "tracker_torrents",
            "Torrents announced to the `tracker`",
            Read::Tracker(|sums| sums.torrents),
        )
    },
    Metric {
        json: Some("connections"),
        ..gauge(
            "tracker_connections",
            "Open connections to the `tracker`",
            Read::Tracker(|sums| sums.connections),
        )
    },
    Metric {
        json: Some("requests_in_flight"),
        ..gauge(
            "tracker_requests_in_flight",
            "Requests to the `tracker` that are not answered yet",
            Read::Tracker(|sums| sums.in_flight),
        )
    },
];

impl Metric {
    /// The name of the family: with the prefix and the unit.
    #[must_use]
    pub fn family(&self) -> String {
        match self.unit {
            Some(unit) => format!("hekate_{}_{unit}", self.name),
            None => format!("hekate_{}", self.name),
        }
    }

    /// The name that queries use. Those of a histogram's series start with it.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.family()
            + match self.kind {
                Kind::Info => "_info",
                Kind::Counter => "_total",
                Kind::Gauge | Kind::Histogram => "",
            }
    }
}

/// The table of the manual, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut table = String::from("| metric | meaning | what asks for action |\n|---|---|---|\n");
    for metric in METRICS {
        let (name, help, action) = (metric.full_name(), metric.help, metric.action);
        let kind = match metric.kind {
            Kind::Histogram => "; a histogram",
            Kind::Info | Kind::Counter | Kind::Gauge => "",
        };
        table.push_str(&format!("| `{name}` | {help}{kind} | {action} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_metrics_share_a_name_or_a_path() {
        let names: BTreeSet<String> = METRICS.iter().map(Metric::full_name).collect();
        assert_eq!(names.len(), METRICS.len());
        let path = |metric: &Metric| {
            let is_of_tracker = matches!(metric.read, Read::Tracker(_));
            Some((is_of_tracker, metric.json?))
        };
        let paths: Vec<_> = METRICS.iter().filter_map(path).collect();
        assert_eq!(BTreeSet::from_iter(&paths).len(), paths.len());
    }
}
