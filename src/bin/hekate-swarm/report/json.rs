//! The report for programs.

use super::{Outcome, Process};
use crate::cli::Load;
use crate::measure::{Ending, Times, jain};
use serde_json::{Value, json};

/// The quantiles that are reported, dense towards one.
const QUANTILES: [f64; 16] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999,
    1.0,
];

/// All measurements, with the options of the run.
pub(crate) fn json(outcome: &Outcome, options: &Load) -> Value {
    let (measure, counts) = (&outcome.measure, &outcome.measure.counts);
    let (active, all) = outcome.rates();
    json!({
        "label": options.label,
        "options": options_json(options, outcome.torrents),
        "window_seconds": outcome.seconds(),
        "throughput": {
            "gb_per_second": all,
            "active_gb_per_second": active,
            "bytes": counts.window_bytes,
            "blocks": counts.window_blocks,
        },
        "seeder": seeder_json(outcome),
        "generator": {
            "cpu_seconds_per_gb": outcome.per_gigabyte(outcome.own_cpu()),
            "cpu_share": outcome.own_cpu() / outcome.seconds(),
        },
        "others": { "cpu_share": outcome.others() },
        "kernel": {
            "socket_bytes_before": outcome.before.socket_bytes,
            "socket_bytes_end": outcome.end.socket_bytes,
            "socket_bytes_most": outcome.most_socket_bytes,
        },
        "latency_us": times_json(&measure.latency),
        "time_to_us": {
            "connect": times_json(&measure.to_connect),
            "handshake": times_json(&measure.to_handshake),
            "unchoke": times_json(&measure.to_unchoke),
            "first_byte": times_json(&measure.to_first_byte),
        },
        "fairness": {
            "jain": jain(outcome.shares.iter().copied()),
            "peers": outcome.shares.len(),
            "least_bytes": outcome.shares.iter().min(),
            "most_bytes": outcome.shares.iter().max(),
        },
        "peers": peers_json(outcome),
        "ended": endings_json(outcome),
        "blocks": {
            "all": counts.blocks,
            "verified": counts.verified,
            "mismatched": counts.mismatched,
            "unreadable": counts.unreadable,
            "rejected": counts.rejected,
            "unexpected": counts.unexpected,
            "chokes": counts.chokes,
        },
    })
}

fn seeder_json(outcome: &Outcome) -> Value {
    let cpu = outcome.cpu();
    let seconds = cpu.map(|(user, system)| user + system);
    let anonymous = |process: &Process| process.seeder.map(|seeder| seeder.anonymous_bytes);
    json!({
        "cpu_seconds_per_gb": seconds.and_then(|seconds| outcome.per_gigabyte(seconds)),
        "cpu_share": seconds.map(|seconds| seconds / outcome.seconds()),
        "user_seconds": cpu.map(|(user, _)| user),
        "system_seconds": cpu.map(|(_, system)| system),
        "anonymous_bytes_before": anonymous(&outcome.before),
        "anonymous_bytes_end": anonymous(&outcome.end),
        "anonymous_bytes_most": outcome.most_anonymous_bytes,
        "anonymous_bytes_per_peer": outcome.bytes_per_peer(),
        "resident_bytes_end": outcome.end.seeder.map(|seeder| seeder.resident_bytes),
        "threads": outcome.end.seeder.map(|seeder| seeder.threads),
    })
}

fn peers_json(outcome: &Outcome) -> Value {
    let counts = &outcome.measure.counts;
    let (asking, unchoked, served) = outcome.standing;
    json!({
        "started": counts.started,
        "connected": counts.connected,
        "shaken": counts.shaken,
        "unchoked": counts.unchoked,
        "most_connected": outcome.most_connected,
        "connected_at_end": outcome.connected,
        "asking_at_end": asking,
        "unchoked_at_end": unchoked,
        "served_at_end": served,
    })
}

fn endings_json(outcome: &Outcome) -> Value {
    let measure = &outcome.measure;
    json!({
        "refused": measure.endings(Ending::Refused),
        "timed_out": measure.endings(Ending::TimedOut),
        "dropped": measure.endings(Ending::Dropped),
        "broken": measure.endings(Ending::Broken),
        "no_socket": measure.endings(Ending::NoSocket),
        "completed": measure.endings(Ending::Completed),
        "replaced": measure.endings(Ending::Replaced),
    })
}

fn options_json(options: &Load, torrents: usize) -> Value {
    json!({
        "peers": options.peers,
        "slow": options.slow,
        "slow_rate": options.slow_rate,
        "stalled": options.stalled,
        "idle": options.idle,
        "connect_rate": options.connect_rate,
        "churn": options.churn,
        "leave": options.leave,
        "order": format!("{:?}", options.order).to_lowercase(),
        "pipeline": options.pipeline,
        "refill": options.refill,
        "block_bytes": options.block,
        "torrents": torrents,
        "zipf": options.zipf,
        "fast": !options.no_fast,
        "encryption": format!("{:?}", options.encryption).to_lowercase(),
        "verify": options.verify,
        "seconds": options.seconds,
        "warm_up": options.warm_up,
        "seed": options.seed,
        "command": options.command,
    })
}

fn times_json(times: &Times) -> Value {
    let points: Vec<Value> = QUANTILES
        .iter()
        .filter_map(|share| times.quantile(*share).map(|time| json!([share, time])))
        .collect();
    json!({
        "count": times.count(),
        "p50": times.quantile(0.5),
        "p99": times.quantile(0.99),
        "p999": times.quantile(0.999),
        "max": times.max(),
        "points": points,
    })
}
