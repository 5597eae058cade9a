//! `make attack`: every attack against a real daemon, with honest peers beside it, as a table.
//!
//! Owns the arguments, the order of the runs and the bars. `testbed` has the daemon and the networks.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends by panicking"
)]

mod attacks;
mod crowd;
mod frames;
mod honest;
#[path = "../support/leecher.rs"]
#[allow(dead_code, reason = "what the tests use")]
mod leecher;
mod testbed;
#[path = "../support/torrent.rs"]
#[allow(dead_code, reason = "what the tests use")]
mod torrent;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use attacks::{ATTACKS, Attack};
use clap::{Parser, ValueEnum};
use crowd::Stats;
use honest::{Failure, Outcome, Visit};
use testbed::{Content, Seeder};

/// Honest peers that arrive during each attack.
const ARRIVALS: u32 = 50;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(200);
/// How long an honest peer waits for its first block.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until the crowd has what it can have.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long shares of slots are counted for.
const COUNTED: Duration = Duration::from_secs(20);

/// The daemon is asked four times a second for what honest peers measure to the microsecond.
const SAMPLED: f64 = 0.95;
/// Of processor time: what the crowd takes from the daemon on a processor that they share is not the daemon's.
const LONGEST_TURN_MS: f64 = 10.0;
const PROCESS_MIB: f64 = 32.0;
const KERNEL_MIB: f64 = 256.0;

/// Attack a daemon with its default options, and print what honest peers saw.
#[derive(Parser, Debug)]
struct Options {
    /// The daemon.
    #[arg(long, default_value = "target/release/hekate")]
    hekate: PathBuf,
    /// Only attacks whose name contains this; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Only from there; may be repeated.
    #[arg(long, value_enum)]
    from: Vec<Origin>,
    /// Further options of the daemon.
    #[arg(long, allow_hyphen_values = true)]
    option: Vec<String>,
    /// Print the daemon's log.
    #[arg(long)]
    log: bool,
    /// List the attacks.
    #[arg(long)]
    list: bool,
    /// This process has a network of its own already.
    #[arg(long, hide = true)]
    inside: bool,
}

/// Where the attackers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Origin {
    /// One address.
    One,
    /// 256 addresses of an IPv4 /24.
    Slash24,
    /// Random addresses of an IPv6 /64.
    Slash64,
    /// Addresses that have nothing in common.
    Many,
}

impl Origin {
    const ALL: [Origin; 4] = [Origin::One, Origin::Slash24, Origin::Slash64, Origin::Many];

    fn name(self) -> &'static str {
        match self {
            Origin::One => "one address",
            Origin::Slash24 => "a /24",
            Origin::Slash64 => "a /64",
            Origin::Many => "unrelated",
        }
    }

    fn sources(self, times: usize) -> Vec<IpAddr> {
        let count = times * if self == Origin::One { 500 } else { 450 };
        (0..count)
            .map(|number| match self {
                Origin::One => IpAddr::from([16, 0, 0, 1]),
                Origin::Slash24 => IpAddr::from([16, 1, 1, (number % 256) as u8]),
                Origin::Slash64 => {
                    let host = fastrand::u64(..).to_be_bytes();
                    let mut address =
                        [0x20, 1, 0x0d, 0xb8, 0xba, 0xd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                    address[8..].copy_from_slice(&host);
                    IpAddr::from(address)
                }
                // Each from a /16 of its own.
                Origin::Many => {
                    let (first, second) = (17 + number / 256, number % 256);
                    IpAddr::from([
                        first as u8,
                        second as u8,
                        fastrand::u8(..),
                        fastrand::u8(1..255),
                    ])
                }
            })
            .collect()
    }

    /// Median and longest time to the first byte, in seconds.
    fn bars(self) -> (f64, f64) {
        match self {
            Origin::One => (0.1, 2.0),
            Origin::Slash24 | Origin::Slash64 => (1.0, 5.0),
            // As many as that have a right to as much each.
            Origin::Many => (f64::INFINITY, f64::INFINITY),
        }
    }
}

/// Honest peers have a /16 each.
fn honest_source(number: u32) -> IpAddr {
    IpAddr::from([64 + (number / 256) as u8, number as u8, 1, 1])
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for attack in ATTACKS {
            println!("{}", attack.name);
        }
        return ExitCode::SUCCESS;
    }
    if !options.inside {
        testbed::enter_network();
    }
    testbed::make_network();
    let content = Content::make();
    println!(
        "| attack | from | connections | refused | late | median | longest | honest share of slots, places, addresses | process | kernel | longest turn, its processor time | bars |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut missed = false;
    for attack in ATTACKS {
        if !options.only.is_empty() && !options.only.iter().any(|part| attack.name.contains(part)) {
            continue;
        }
        for from in Origin::ALL {
            let wanted = options.from.is_empty() || options.from.contains(&from);
            // Nobody is nowhere else.
            if wanted && (attack.times > 0 || from == Origin::One) {
                let row = run(attack, from, &content, &options);
                missed |= row.print(attack, from);
            }
        }
    }
    if missed {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

struct Row {
    connections: usize,
    outcomes: Vec<Outcome>,
    addresses: usize,
    peaks: testbed::Peaks,
}

fn run(attack: &Attack, from: Origin, content: &Content, options: &Options) -> Row {
    let extra: Vec<&str> = attack
        .options
        .iter()
        .copied()
        .chain(options.option.iter().map(String::as_str))
        .collect();
    let seeder = Seeder::start(&options.hekate, content, &extra, options.log);
    let sources = from.sources(attack.times);
    let stats = Stats::default();
    let stop = AtomicBool::new(false);
    let stays = from == Origin::Many;
    let target = &content.target;
    let mut row = Row {
        connections: sources.len(),
        outcomes: Vec::new(),
        addresses: sources.iter().collect::<HashSet<_>>().len(),
        peaks: testbed::Peaks::default(),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            testbed::be_nice();
            crowd::attack(attack, target, testbed::seeder_for, &sources, &stop, &stats).unwrap();
        });
        let watcher = scope.spawn(|| seeder.watch(&stop));
        std::thread::sleep(WARM_UP);
        let arriving = PAUSE * ARRIVALS;
        let counted_from = Instant::now() + arriving;
        let until = if stays {
            counted_from + COUNTED
        } else {
            Instant::now()
        };
        let visit = Visit {
            patience: PATIENCE,
            until,
            counted_from,
        };
        seeder.count_slots_from(counted_from);
        let peers: Vec<_> = (0..ARRIVALS)
            .map(|number| {
                let source = honest_source(number);
                let peer = scope.spawn(move || {
                    honest::visit(source, testbed::seeder_for(source), target, visit)
                });
                std::thread::sleep(PAUSE);
                peer
            })
            .collect();
        row.outcomes = peers.into_iter().map(|peer| peer.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        row.peaks = watcher.join().unwrap();
    });
    if options.log {
        println!(
            "crowd: {} connected, {} connects, {} closed by the seeder, {} MB sent, {} MB received",
            stats.connected.load(Ordering::Relaxed),
            stats.connects.load(Ordering::Relaxed),
            stats.closed.load(Ordering::Relaxed),
            stats.sent_bytes.load(Ordering::Relaxed) / 1_000_000,
            stats.received_bytes.load(Ordering::Relaxed) / 1_000_000,
        );
    }
    row
}

impl Row {
    /// Peers that got nothing, for this reason.
    fn failed(&self, failure: Failure) -> usize {
        let is = |outcome: &&Outcome| outcome.first_byte.as_ref().err() == Some(&failure);
        self.outcomes.iter().filter(is).count()
    }

    /// Median and longest time to the first byte, in seconds.
    fn times(&self) -> (f64, f64) {
        let mut times: Vec<f64> = self
            .outcomes
            .iter()
            .map(|outcome| match outcome.first_byte {
                Ok(time) => time.as_secs_f64(),
                Err(_) => f64::INFINITY,
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() - 1])
    }

    /// The share of honest peers of the slots, of the connections and of the addresses.
    fn shares(&self) -> [f64; 3] {
        let unchoked = |outcome: &Outcome| outcome.unchoked.as_secs_f64();
        let unchoked: f64 = self.outcomes.iter().map(unchoked).sum();
        let connected = |outcome: &Outcome| outcome.connected.as_secs_f64();
        let connected: f64 = self.outcomes.iter().map(connected).sum();
        let honest = self.outcomes.len() as f64;
        [
            unchoked / self.peaks.unchoked_seconds,
            connected / self.peaks.connected_seconds,
            honest / (honest + self.addresses as f64),
        ]
    }

    /// The bars that it misses.
    fn missed(&self, from: Origin) -> Vec<&'static str> {
        let (median, longest) = self.times();
        let (median_bar, longest_bar) = from.bars();
        let [of_slots, of_places, of_addresses] = self.shares();
        let crowd = from == Origin::Many;
        let missed = [
            ("the daemon has died", self.peaks.has_died),
            ("refused", self.failed(Failure::Refused) > 0 && !crowd),
            ("late", self.failed(Failure::Late) > 0 && !crowd),
            ("median", median > median_bar),
            ("longest", longest > longest_bar),
            ("slots", crowd && of_slots < of_addresses * SAMPLED),
            ("places", crowd && of_places < of_addresses * SAMPLED),
            ("turn", self.peaks.turn_cpu_ms > LONGEST_TURN_MS),
            ("process", self.peaks.process_mib > PROCESS_MIB),
            ("kernel", self.peaks.kernel_mib > KERNEL_MIB),
        ];
        missed
            .into_iter()
            .filter_map(|(bar, is_missed)| is_missed.then_some(bar))
            .collect()
    }

    /// Prints it; true when it misses a bar.
    fn print(&self, attack: &Attack, from: Origin) -> bool {
        let (median, longest) = self.times();
        let shares = self.shares().map(|share| format!("{:.0} %", 100.0 * share));
        let missed = self.missed(from);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {:.0} MiB | {:.0} MiB | {:.1} ms, {:.1} ms | {} |",
            attack.name,
            from.name(),
            self.connections,
            self.failed(Failure::Refused),
            self.failed(Failure::Late),
            seconds(median),
            seconds(longest),
            match from {
                Origin::Many => shares.join(", "),
                Origin::One | Origin::Slash24 | Origin::Slash64 => "".to_owned(),
            },
            self.peaks.process_mib,
            self.peaks.kernel_mib,
            self.peaks.turn_ms,
            self.peaks.turn_cpu_ms,
            match missed.as_slice() {
                [] => "kept".to_owned(),
                missed => format!("missed: {}", missed.join(", ")),
            },
        );
        !missed.is_empty()
    }
}

fn seconds(time: f64) -> String {
    if time.is_infinite() {
        "never".to_owned()
    } else if time < 1.0 {
        format!("{:.1} ms", time * 1e3)
    } else {
        format!("{time:.1} s")
    }
}
