//! A snapshot in the text format of `OpenMetrics` 1.0, which Prometheus reads.

use super::table::{Kind, METRICS, Metric, Read};
use super::{Histogram, Snapshot};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text for a snapshot.
#[must_use]
pub fn text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let (family, kind, help) = (metric.family, kind(metric.kind), metric.help);
        text.push_str(&format!("# HELP {family} {help}\n# TYPE {family} {kind}\n"));
        if let Some(unit) = metric.unit() {
            text.push_str(&format!("# UNIT {family} {unit}\n"));
        }
        samples(&mut text, metric, snapshot);
    }
    text + "# EOF\n"
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Info => "info",
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn samples(text: &mut String, metric: &Metric, snapshot: &Snapshot) {
    let name = metric.full_name();
    let mut sample = |labels: &[(&str, &str)], value: u64| {
        let labels = written(labels);
        text.push_str(&format!("{name}{labels} {value}\n"));
    };
    match metric.read {
        Read::Version => sample(&[("version", env!("CARGO_PKG_VERSION"))], 1),
        Read::Value(read) => sample(&[], read(snapshot)),
        Read::Labelled(label, read) => {
            for (value, count) in read(snapshot) {
                sample(&[(label, value)], count);
            }
        }
        Read::Disks(read) => {
            for (disk, value) in read(snapshot) {
                sample(&[("disk", disk)], *value);
            }
        }
        Read::Durations(read) => histogram(text, &name, read(snapshot)),
        Read::Tracker(read) => {
            for (host, _, sums) in snapshot.trackers.by_host() {
                sample(&[("tracker", host)], read(&sums));
            }
        }
        Read::TrackerUp => {
            for (host, is_up, _) in snapshot.trackers.by_host() {
                sample(&[("tracker", host)], is_up.into());
            }
        }
        Read::Outcomes => {
            for (host, _, sums) in snapshot.trackers.by_host() {
                for (outcome, count) in sums.outcomes() {
                    sample(&[("tracker", host), ("outcome", outcome)], count);
                }
            }
        }
    }
}

/// Labels in braces; nothing when there are none.
fn written(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        value.replace('\n', "\\n")
    };
    let labels = labels.iter();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    format!("{{{}}}", labels.join(","))
}

fn histogram(text: &mut String, name: &str, histogram: &Histogram) {
    let (sum, count) = (seconds(histogram.sum_us()), histogram.count());
    text.push_str(&format!("{name}_sum {sum}\n{name}_count {count}\n"));
    let mut below = 0;
    for (limit_us, count) in histogram.buckets() {
        below += count;
        let limit = limit_us.map_or_else(|| "+Inf".to_owned(), seconds);
        text.push_str(&format!("{name}_bucket{{le=\"{limit}\"}} {below}\n"));
    }
}

/// Seconds as a canonical number: with a decimal point and without superfluous zeros.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let trimmed = text.trim_end_matches('0');
    match trimmed.strip_suffix('.') {
        Some(whole) => format!("{whole}.0"),
        None => trimmed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Peers;
    use crate::peer::close::CloseReason;

    #[test]
    fn seconds_have_a_decimal_point() {
        for (us, text) in [
            (0, "0.0"),
            (1, "0.000001"),
            (1_500_000, "1.5"),
            (2_000_000, "2.0"),
            (30_000_000, "30.0"),
        ] {
            assert_eq!(seconds(us), text);
        }
    }

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
        let text = text(&snapshot);
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
}
