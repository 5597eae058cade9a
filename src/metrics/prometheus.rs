//! A snapshot as Prometheus wants it: the text format of `OpenMetrics` 1.0.
//!
//! Owns the names, units and help of the metrics. Names are an interface: dashboards and alerts of
//! others are made of them. It must not know who asks.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::trackers::TrackerSums;
use super::{Histogram, Snapshot};
use crate::peer::close::CloseReason;

/// What the answer is called in HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text for a snapshot.
#[must_use]
pub fn text(snapshot: Snapshot) -> String {
    let mut registry = Registry::with_prefix("hekate");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        // A String takes everything.
        text.clear();
    }
    text
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.describe_process(&mut page)?;
        self.describe_peers(&mut page)?;
        self.describe_library(&mut page)?;
        self.describe_trackers(&mut page)
    }
}

impl Snapshot {
    fn describe_process(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.metric("build", "This program", None, MetricType::Info)?
            .encode_info(&version)?;
        let start = "When the process started, since 1970";
        page.gauge(
            "start_time",
            start,
            Some(&Unit::Seconds),
            self.started_unix_s,
        )?;
        let turns = "Time that a turn of the loop took, without waiting";
        page.histogram("turn", turns, &self.counters.turns)
    }

    fn describe_peers(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters = &self.counters;
        let payload = "Bytes of blocks sent";
        page.counter(
            "payload",
            payload,
            Some(&Unit::Bytes),
            counters.payload_bytes,
        )?;
        page.counter("blocks", "Whole blocks sent", None, counters.blocks)?;
        let rejected = "Requests answered by a reject (BEP 6)";
        page.counter("requests_rejected", rejected, None, counters.rejected)?;
        let accepted = "Connections that were given a place";
        page.counter("connections", accepted, None, counters.accepted)?;
        let called = "Peers that were called, as --connect allows";
        page.counter("peers_called", called, None, counters.called)?;
        let failed = "Calls that did not come to an exchange of handshakes";
        page.counter("calls_failed", failed, None, counters.calls_failed)?;
        let closed = "Connections that ended or were given no place";
        let mut family = page.metric("connections_closed", closed, None, MetricType::Counter)?;
        for (reason, count) in CloseReason::LABELS.iter().zip(&counters.closed) {
            let labels = [("reason", *reason)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        let mut family = page.metric("peers", "Connected peers", None, MetricType::Gauge)?;
        for (state, count) in self.peers.named() {
            let labels = [("state", state)];
            family
                .encode_family(&labels)?
                .encode_gauge(&signed(count))?;
        }
        let peers_max = "Peers that may be connected";
        page.gauge("peers_max", peers_max, None, self.peers_max)?;
        page.gauge("slots", "Upload slots", None, self.slots)
    }

    fn describe_library(&self, page: &mut Page<'_>) -> fmt::Result {
        let library = &self.library;
        page.gauge(
            "torrents",
            "Torrents that are served",
            None,
            library.torrents,
        )?;
        let refused = "Torrent files and directories that were refused";
        page.gauge("torrents_refused", refused, None, library.refused)?;
        let active = "Torrents with a connected peer";
        page.gauge("torrents_active", active, None, self.active_torrents)?;

        let storage = &self.storage;
        let resident = "Questions whether a range is in memory that were answered by yes";
        page.counter("residency_hits", resident, None, storage.resident)?;
        let absent = "Ranges that were not in memory and were handed to a reader";
        page.counter("residency_misses", absent, None, storage.absent)?;
        let late = "Page faults of the loop that waited for a disk";
        page.counter("late_faults", late, None, self.late_faults)?;
        let queued = "Jobs that wait for a reader thread";
        page.gauge("reader_jobs_queued", queued, None, storage.queued)?;
        page.gauge("readers", "Reader threads", None, storage.readers)?;
        let jobs = "Time from queueing a job for a reader to its end";
        page.histogram("reader_job", jobs, &storage.jobs)?;
        page.gauge(
            "mappings",
            "Content files that are mapped",
            None,
            storage.mappings,
        )?;
        let pieces = storage.pieces.unwrap_or_default();
        let good = "Times a piece was hashed before it was served, and was right";
        page.counter("pieces_verified", good, None, pieces.good)?;
        let bad = "Times a piece was hashed before it was served, and was not what its hash says";
        page.counter("pieces_failed", bad, None, pieces.bad)?;
        let quarantined = "Pieces that are not served because they are not what their hashes say";
        page.gauge("pieces_bad", quarantined, None, pieces.quarantined)?;
        let queued = "Pieces that wait to be hashed";
        page.gauge("hash_jobs_queued", queued, None, pieces.queued)
    }
}

impl Snapshot {
    fn describe_trackers(&self, page: &mut Page<'_>) -> fmt::Result {
        let hosts = self.trackers.by_host();
        let announces = "Announces by tracker and how they ended";
        let mut family = page.metric("announces", announces, None, MetricType::Counter)?;
        for (host, _, sums) in &hosts {
            for (outcome, count) in sums.outcomes() {
                let labels = [("tracker", *host), ("outcome", outcome)];
                let mut metric = family.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let requests = "Requests sent to trackers, repeated ones included";
        let mut family = page.metric("announce_requests", requests, None, MetricType::Counter)?;
        for (host, _, sums) in &hosts {
            let labels = [("tracker", *host)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&sums.sent, None)?;
        }
        let late = "By how much the announce that waits longest is late";
        let seconds = Some(&Unit::Seconds);
        let mut figure = |name, help, unit, figure: &dyn Fn(bool, &TrackerSums) -> u64| {
            let mut family = page.metric(name, help, unit, MetricType::Gauge)?;
            for (host, up, sums) in &hosts {
                family
                    .encode_family(&[("tracker", *host)])?
                    .encode_gauge(&signed(figure(*up, sums)))?;
            }
            Ok(())
        };
        figure("announce_lateness", late, seconds, &|_, sums| sums.late_s)?;
        let up = "Whether the tracker answers";
        figure("tracker_up", up, None, &|up, _| up.into())?;
        let torrents = "Torrents that are announced to the tracker";
        figure("tracker_torrents", torrents, None, &|_, sums| sums.torrents)?;
        let open = "Open connections to the tracker";
        figure("tracker_connections", open, None, &|_, sums| {
            sums.connections
        })?;
        let waiting = "Requests to the tracker that are not answered yet";
        figure("tracker_requests_in_flight", waiting, None, &|_, sums| {
            sums.in_flight
        })
    }
}

/// The encoder, with a word for each kind of metric.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn metric<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let mut metric = self.metric(name, help, unit, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let mut metric = self.metric(name, help, unit, MetricType::Gauge)?;
        metric.encode_gauge(&signed(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of a century fit 52 bits"
    )]
    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let seconds = |us: u64| us as f64 / 1e6;
        let limit = |limit_us: Option<u64>| limit_us.map_or(f64::INFINITY, seconds);
        let buckets: Vec<(f64, u64)> = histogram
            .buckets()
            .map(|(limit_us, count)| (limit(limit_us), count))
            .collect();
        let mut metric = self.metric(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let (sum, count) = (seconds(histogram.sum_us()), histogram.count());
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The names of all metrics, as they stand in the text.
#[must_use]
pub fn names() -> Vec<String> {
    let mut names = Vec::new();
    for line in text(Snapshot::default()).lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ")
            && let Some((name, kind)) = rest.split_once(' ')
        {
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Peers;

    #[test]
    fn figures_stand_under_their_names() {
        let mut snapshot = Snapshot {
            peers: Peers {
                waiting: 3,
                ..Peers::default()
            },
            started_unix_s: 1_700_000_000,
            ..Snapshot::default()
        };
        snapshot.counters.payload_bytes = 16384;
        snapshot.counters.turns.record(3);
        snapshot.counters.turns.record(900);
        let house_full = CloseReason::AtCapacity.index();
        snapshot.counters.closed[house_full] = 4;
        let text = text(snapshot);
        for line in [
            "# TYPE hekate_payload_bytes counter",
            "hekate_payload_bytes_total 16384",
            "hekate_peers{state=\"waiting\"} 3",
            "hekate_connections_closed_total{reason=\"house_full\"} 4",
            "hekate_connections_closed_total{reason=\"peer_closed\"} 0",
            "hekate_start_time_seconds 1700000000",
            "hekate_turn_seconds_count 2",
            "hekate_turn_seconds_bucket{le=\"0.000004\"} 1",
            "hekate_turn_seconds_bucket{le=\"0.001024\"} 2",
            "hekate_turn_seconds_bucket{le=\"+Inf\"} 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let build = format!(
            "hekate_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        assert!(text.contains(&build), "{text}");
    }

    #[test]
    fn the_names_are_those_in_the_text() {
        let names = names();
        let mut snapshot = Snapshot::default();
        snapshot.trackers.others = 1;
        let text = text(snapshot);
        assert!(names.len() > 20);
        for name in &names {
            assert!(text.contains(&format!("\n{name}")), "{name}");
        }
    }
}
