//! The one table of metrics: `/metrics`, `/status.json` and the manual are made from it.
//!
//! To add a metric, add a row here and count it in a field of [`Snapshot`]. Names and JSON keys
//! are an interface: dashboards and scripts of others use them.

use super::trackers::TrackerSums;
use super::{Histogram, Snapshot};
use crate::peer::close::CloseReason;
use Read::{Disks, Durations, Labelled, Outcomes, Tracker, TrackerUp, Value, Version};

/// One metric.
pub struct Metric {
    /// Its type for Prometheus.
    pub kind: Kind,
    /// The name of the family: with the unit, without the suffix of its series.
    pub family: &'static str,
    /// Its path in `/status.json`, or in the object of a tracker there; of a histogram, what the
    /// paths of its quantiles start with. Empty when it is not there.
    pub json: &'static str,
    /// Its values.
    pub read: Read,
    /// Its meaning, without a stop at the end.
    pub help: &'static str,
    /// When an operator has to act, and on what; empty when never.
    pub action: &'static str,
}

/// The type of a metric for Prometheus.
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
    /// A value for each disk, by its mount point.
    Disks(fn(&Snapshot) -> &[(String, u64)]),
    /// A distribution of microseconds.
    Durations(fn(&Snapshot) -> &Histogram),
    /// A value for each tracker.
    Tracker(fn(&TrackerSums) -> u64),
    /// For each tracker, whether it answers.
    TrackerUp,
    /// For each tracker, how many announces ended in each way.
    Outcomes,
}

/// Makes the table. A row has the kind, the family, the path in `/status.json` and the values, then
/// the meaning, and when an operator has to act.
macro_rules! metrics {
    ($($kind:ident $family:literal, $json:literal, $read:expr, $help:literal, $action:literal;)*) => {
        /// Every metric, in the order of `/metrics` and the manual.
        pub const METRICS: &[Metric] = &[$(Metric {
            kind: Kind::$kind,
            family: $family,
            json: $json,
            read: $read,
            help: $help,
            action: $action,
        }),*];
    };
}

metrics! {
    Info "hekate_build", "", Version,
        "The version, as a label", "";
    Gauge "hekate_start_time_seconds", "started", Value(|s| s.started_unix_s),
        "When the process started, in seconds since 1970",
        "it changes without a restart that you asked for";
    Histogram "hekate_turn_seconds", "turn.", Durations(|s| &s.counters.turns),
        "Duration of a turn of the loop, without waiting",
        "99 % above 50 ms: something blocks the loop";
    Histogram "hekate_turn_cpu_seconds", "turn_cpu.", Durations(|s| &s.counters.turns_cpu),
        "Processor time of a turn of the loop",
        "99 % far below those of `hekate_turn_seconds`: others take the processor";
    Counter "hekate_payload_bytes", "payload_bytes", Value(|s| s.counters.payload_bytes),
        "Bytes of blocks sent", "it does not grow while peers are unchoked";
    Counter "hekate_blocks", "blocks", Value(|s| s.counters.blocks),
        "Whole blocks sent", "";
    Counter "hekate_requests_rejected", "requests_rejected", Value(|s| s.counters.rejected),
        "Requests rejected (BEP 6): the peer was choked, asked for too much at once, or the content failed",
        "";
    Counter "hekate_connections", "connections", Value(|s| s.counters.accepted),
        "Connections that got a slot", "";
    Counter "hekate_peers_called", "calls.called", Value(|s| s.counters.called),
        "With `--connect`: peers that were dialled", "";
    Counter "hekate_calls_failed", "calls.failed", Value(|s| s.counters.calls_failed),
        "With `--connect`: dialled peers with which no handshakes were exchanged",
        "nearly all fail: the tracker's peers are gone, or a firewall is in the way";
    Counter "hekate_connections_closed", "connections_closed",
        Labelled("reason", |s| CloseReason::LABELS.iter().copied().zip(s.counters.closed).collect()),
        "Connections closed or refused, by `reason`",
        "`content_failed` grows: a disk; `house_full` grows: `--max-peers`";
    Gauge "hekate_peers", "peers", Labelled("state", |s| s.peers.named().to_vec()),
        "Connected peers by `state`: `handshaking`, `choked` (not interested), `waiting` (for an upload slot), `unchoked` (in an upload slot)",
        "many `waiting` for long: raise `--max-unchoked`, or lower `--credit`";
    Gauge "hekate_peers_by_wire", "wires", Labelled("wire", |s| s.counters.wires.named().to_vec()),
        "Connected peers by `wire`, once it is known: `tcp` (plain), `tcp_mse_plaintext` (plain behind an encrypted handshake), `tcp_mse_rc4` (encrypted)",
        "";
    Counter "hekate_keys_exchanged", "keys_exchanged", Value(|s| s.counters.keys_exchanged),
        "Keys exchanged with peers that encrypt their connection", "thousands a second: an attack";
    Gauge "hekate_peers_max", "peers_max", Value(|s| s.peers_max),
        "How many peers may be connected", "`hekate_peers` reaches it";
    Gauge "hekate_slots", "slots", Value(|s| s.slots),
        "Upload slots", "";
    Gauge "hekate_torrents", "library.torrents", Value(|s| s.library.torrents),
        "Torrents served", "it falls and you removed nothing";
    Gauge "hekate_torrents_refused", "library.refused", Value(|s| s.library.refused),
        "Torrent files and directories that are refused", "it is higher than you expect";
    Gauge "hekate_torrents_active", "library.active", Value(|s| s.active_torrents),
        "Torrents with a connected peer", "";
    Counter "hekate_residency_hits", "storage.residency_hits", Value(|s| s.storage.resident),
        "Ranges that were in memory when a peer needed them", "";
    Counter "hekate_residency_misses", "storage.residency_misses", Value(|s| s.storage.absent),
        "Ranges that were not in memory and that a reader thread had to fetch",
        "as many as hits: more memory, or a faster disk";
    Counter "hekate_late_faults", "storage.late_faults", Value(|s| s.late_faults),
        "Page faults for which the loop waited for a disk",
        "it grows steadily: far too little memory";
    Gauge "hekate_reader_jobs_queued", "storage.jobs_queued", Value(|s| s.storage.queued),
        "Reads that wait for a reader thread", "it stays high: the disk is the limit";
    Gauge "hekate_readers", "storage.readers", Value(|s| s.storage.readers),
        "Reader threads", "";
    Histogram "hekate_reader_job_seconds", "storage.job_", Durations(|s| &s.storage.jobs),
        "Duration of a read, including its wait for a reader thread", "";
    Gauge "hekate_mappings", "storage.mappings", Value(|s| s.storage.mappings),
        "Content files that are mapped", "near 32,765: files are mapped again and again";
    Gauge "hekate_disk_hung_seconds", "storage.hung_disks", Disks(|s| &s.hung_disks),
        "For how long the `disk`, named by its mount point, has answered nothing; without a value when none hangs",
        "it is there: the disk, its cable, its server or its FUSE program";
    Counter "hekate_pieces_verified", "pieces.verified", Value(|s| s.storage.pieces.unwrap_or_default().good),
        "With `--verify=lazy`: pieces whose hash was right", "";
    Counter "hekate_pieces_failed", "pieces.failed", Value(|s| s.storage.pieces.unwrap_or_default().bad),
        "With `--verify=lazy`: pieces whose hash was wrong", "it grows";
    Gauge "hekate_pieces_bad", "pieces.bad", Value(|s| s.storage.pieces.unwrap_or_default().quarantined),
        "With `--verify=lazy`: pieces that are not served because their hash is wrong",
        "it is not 0: look for `is bad` in the log";
    Gauge "hekate_hash_jobs_queued", "pieces.hash_jobs_queued",
        Value(|s| s.storage.pieces.unwrap_or_default().queued),
        "With `--verify=lazy`: pieces that wait to be hashed",
        "it stays high: the disk is the limit";
    Counter "hekate_announces", "", Outcomes,
        "Announces by `tracker` (its host) and `outcome`: `accepted`, `refused` (the tracker does not want the torrent), `failed` (no valid answer)",
        "`accepted` does not grow for longer than the interval";
    Counter "hekate_announce_requests", "requests", Tracker(|sums| sums.sent),
        "Requests sent to the `tracker`, including repeated ones",
        "it grows much faster than `hekate_announces_total`";
    Gauge "hekate_announce_lateness_seconds", "late_seconds", Tracker(|sums| sums.late_s),
        "How late the most overdue announce to the `tracker` is",
        "above some minutes: `--max-announce-rate`, or a dead tracker";
    Gauge "hekate_tracker_up", "", TrackerUp,
        "1 when the `tracker` answers", "0 for hours";
    Gauge "hekate_torrents_unannounced", "library.unannounced", Value(|s| s.trackers.unannounced),
        "Torrents that are announced to nobody: they name no tracker, or none that can be used and is allowed",
        "it is not 0, and you expect trackers: `hekate seed --list` names them";
    Gauge "hekate_trackers_unusable", "trackers_unusable.count", Value(|s| s.trackers.unusable),
        "Tracker URLs of torrents that cannot be used or are not allowed, each server once, 1,000 at most", "";
    Gauge "hekate_trackers_not_allowed", "trackers_not_allowed", Value(|s| s.trackers.not_allowed),
        "Trackers that torrents name or that redirects lead to, and that `--trackers` does not allow", "";
    Gauge "hekate_tracker_torrents", "torrents", Tracker(|sums| sums.torrents),
        "Torrents announced to the `tracker`", "";
    Gauge "hekate_tracker_connections", "connections", Tracker(|sums| sums.connections),
        "Open connections to the `tracker`", "";
    Gauge "hekate_tracker_requests_in_flight", "requests_in_flight", Tracker(|sums| sums.in_flight),
        "Requests to the `tracker` that are not answered yet", "";
}

impl Metric {
    /// The unit of its values, with which the name of the family ends.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| self.family.ends_with(unit))
    }

    /// The name that queries use. Those of a histogram's series start with it.
    #[must_use]
    pub fn full_name(&self) -> String {
        let suffix = match self.kind {
            Kind::Info => "_info",
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{suffix}", self.family)
    }
}

/// The table of the manual, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut table = String::from("| metric | meaning | when to act |\n|---|---|---|\n");
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
        let shown = METRICS.iter().filter(|metric| !metric.json.is_empty());
        let paths: Vec<_> = shown
            .map(|metric| (matches!(metric.read, Tracker(_)), metric.json))
            .collect();
        assert_eq!(BTreeSet::from_iter(&paths).len(), paths.len());
    }
}
