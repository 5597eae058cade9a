//! The report for people.

use super::{Outcome, float};
use crate::measure::{Times, jain};

/// One line for each figure.
pub(crate) fn text(outcome: &Outcome) -> String {
    let measure = &outcome.measure;
    let lines = [
        ("throughput", throughput(outcome)),
        ("seeder", seeder(outcome)),
        ("generator", generator(outcome)),
        ("other processes", others(outcome)),
        ("socket memory", socket_memory(outcome)),
        ("request latency", times(&measure.latency)),
        ("to connection", times(&measure.to_connect)),
        ("to handshake", times(&measure.to_handshake)),
        ("to unchoke", times(&measure.to_unchoke)),
        ("to first byte", times(&measure.to_first_byte)),
        ("fairness", fairness(outcome)),
        ("peers", peers(outcome)),
        ("ended", endings(outcome)),
        ("blocks", blocks(outcome)),
    ];
    lines
        .iter()
        .map(|(name, value)| format!("{name:15}  {value}\n"))
        .collect()
}

fn throughput(outcome: &Outcome) -> String {
    let (_, all) = outcome.rates();
    format!(
        "{all:.3} GB/s, {} blocks in {:.1} s",
        outcome.measure.counts.window_blocks,
        outcome.seconds()
    )
}

fn seeder(outcome: &Outcome) -> String {
    let Some((user, system)) = outcome.cpu() else {
        return "no process to look at".to_owned();
    };
    let seconds = user + system;
    let before = outcome.before.seeder.unwrap_or_default();
    format!(
        "{} cpu-s/GB, {:.1} % of a core ({:.0} % of it user), {} B per peer above {:.1} MB",
        decimals(outcome.per_gigabyte(seconds), 3),
        seconds / outcome.seconds() * 100.0,
        user / seconds.max(0.01) * 100.0,
        decimals(outcome.bytes_per_peer(), 0),
        float(before.anonymous_bytes) / 1e6,
    )
}

fn generator(outcome: &Outcome) -> String {
    format!(
        "{} cpu-s/GB, {:.0} % of a core",
        decimals(outcome.per_gigabyte(outcome.own_cpu()), 3),
        outcome.own_cpu() / outcome.seconds() * 100.0
    )
}

fn others(outcome: &Outcome) -> String {
    let share = outcome.others().map(|share| share * 100.0);
    format!("{} % of a core", decimals(share, 0))
}

fn socket_memory(outcome: &Outcome) -> String {
    format!(
        "{:.1} MB before, {:.1} MB at most, {:.1} MB at the end",
        float(outcome.before.socket_bytes) / 1e6,
        float(outcome.most_socket_bytes) / 1e6,
        float(outcome.end.socket_bytes) / 1e6
    )
}

fn fairness(outcome: &Outcome) -> String {
    format!(
        "Jain {} over {} peers",
        decimals(jain(outcome.shares.iter().copied()), 4),
        outcome.shares.len()
    )
}

fn peers(outcome: &Outcome) -> String {
    let counts = &outcome.measure.counts;
    let (asking, unchoked, served) = outcome.standing;
    format!(
        "{} started, {} connected, {} shook hands; at the end {} connected, \
         of {asking} asking {unchoked} unchoked and {served} served",
        counts.started, counts.connected, counts.shaken, outcome.connected
    )
}

fn endings(outcome: &Outcome) -> String {
    let endings = outcome.measure.endings.iter();
    let words: Vec<String> = endings
        .map(|(ending, count)| format!("{count} {ending:?}"))
        .collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}

fn blocks(outcome: &Outcome) -> String {
    let counts = &outcome.measure.counts;
    format!(
        "{} verified, {} mismatched, {} unreadable, {} rejected, {} unexpected; {} chokes",
        counts.verified,
        counts.mismatched,
        counts.unreadable,
        counts.rejected,
        counts.unexpected,
        counts.chokes
    )
}

fn times(times: &Times) -> String {
    let milliseconds = |time: Option<u64>| decimals(time.map(|time| float(time) / 1e3), 2);
    format!(
        "p50 {} ms, p99 {} ms, p99.9 {} ms, most {} ms ({})",
        milliseconds(times.quantile(0.5)),
        milliseconds(times.quantile(0.99)),
        milliseconds(times.quantile(0.999)),
        milliseconds(times.max()),
        times.count()
    )
}

fn decimals(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
