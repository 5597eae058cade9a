//! `hekate-swarm load`: one run, from the first sample of the seeder to the report.
//!
//! Reads the torrents, starts the seeder and waits for it, runs the swarm and samples the seeder every
//! second, then reports.

use crate::cli::Load;
use crate::library::Library;
use crate::report::{Outcome, Process};
use crate::seeder::{self, Sample, Seeder};
use crate::swarm::{self, Phase, Swarm};
use hekate::sys;
use hekate::wire::handshake::PROTOCOL;
use mio::Events;
use std::io::{self, Error, Write};
use std::time::Duration;

/// Between two samples of the seeder and two lines of progress.
const SAMPLE_EVERY_US: u64 = 1_000_000;
const SELF_STAT: &str = "/proc/self/stat";

/// Samples of the seeder while the swarm runs.
struct Watch {
    next_us: u64,
    last: Option<Sample>,
    last_us: u64,
    last_bytes: u64,
    most_anonymous_bytes: u64,
    most_socket_bytes: u64,
    most_connected: usize,
}

/// Runs and reports.
pub(crate) fn run(options: &Load) -> io::Result<Outcome> {
    sys::raise_descriptor_limit()?;
    let library = Library::open(&options.torrents, options.zipf)?;
    if let Some(cpu) = options.cpu {
        seeder::bind_to(cpu)?;
    }
    let mut seeder = if options.command.is_empty() {
        Seeder::running(options.pid)
    } else {
        Seeder::spawn(&options.command, options.seeder_cpu, &options.seeder_log)?
    };
    let ready = Duration::from_secs(options.ready);
    seeder.wait_until_serving(options.address, &handshake(&library)?, ready)?;

    let before = sample(&seeder)?;
    let mut swarm = Swarm::new(options, &library)?;
    let mut watch = Watch {
        next_us: SAMPLE_EVERY_US,
        last: before.seeder,
        last_us: 0,
        last_bytes: 0,
        most_anonymous_bytes: before.seeder.unwrap_or_default().anonymous_bytes,
        most_socket_bytes: before.socket_bytes,
        most_connected: 0,
    };
    let mut events = swarm::events();
    turn_until(
        &mut swarm,
        &mut events,
        &mut watch,
        options,
        &seeder,
        |phase| matches!(phase, Phase::Window(_)),
    )?;
    let begin = sample(&seeder)?;
    turn_until(
        &mut swarm,
        &mut events,
        &mut watch,
        options,
        &seeder,
        |phase| phase == Phase::Over,
    )?;
    let window_us = swarm.window_us();
    let end = sample(&seeder)?;
    watch.note(&swarm, &end);
    Ok(Outcome {
        window_us,
        before,
        begin,
        end,
        most_anonymous_bytes: watch.most_anonymous_bytes,
        most_socket_bytes: watch.most_socket_bytes,
        most_connected: watch.most_connected,
        shares: swarm.shares().collect(),
        standing: swarm.standing(),
        connected: swarm.connected(),
        torrents: library.len(),
        measure: swarm.measure,
    })
}

fn turn_until(
    swarm: &mut Swarm<'_>,
    events: &mut Events,
    watch: &mut Watch,
    options: &Load,
    seeder: &Seeder,
    done: impl Fn(Phase) -> bool,
) -> io::Result<()> {
    while !done(swarm.phase) {
        swarm.turn(events)?;
        let now_us = swarm.now_us();
        if now_us >= watch.next_us {
            watch.next_us = now_us + SAMPLE_EVERY_US;
            let seen = sample(seeder)?;
            watch.note(swarm, &seen);
            if !options.quiet {
                watch.progress(swarm, &seen, now_us)?;
            }
            watch.last = seen.seeder;
            watch.last_us = now_us;
            watch.last_bytes = swarm.measure.counts.bytes;
        }
    }
    Ok(())
}

impl Watch {
    fn note(&mut self, swarm: &Swarm<'_>, seen: &Process) {
        if let Some(sample) = seen.seeder {
            self.most_anonymous_bytes = self.most_anonymous_bytes.max(sample.anonymous_bytes);
        }
        self.most_socket_bytes = self.most_socket_bytes.max(seen.socket_bytes);
        self.most_connected = self.most_connected.max(swarm.connected());
    }

    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    fn progress(&self, swarm: &Swarm<'_>, seen: &Process, now_us: u64) -> io::Result<()> {
        let seconds = (now_us - self.last_us) as f64 / 1e6;
        let bytes = swarm.measure.counts.bytes - self.last_bytes;
        let (active, unchoked, served) = swarm.standing();
        let phase = match swarm.phase {
            Phase::Arriving => "arriving",
            Phase::WarmUp(_) => "warm-up",
            Phase::Window(_) => "measuring",
            Phase::Over => "over",
        };
        let mut line = format!(
            "{:5.0} s {phase:9} {:6} connected {active:6} asking {unchoked:6} unchoked {served:6} served {:6.2} GB/s",
            now_us as f64 / 1e6,
            swarm.connected(),
            bytes as f64 / 1e9 / seconds,
        );
        if let (Some(now), Some(last)) = (seen.seeder, self.last) {
            line += &format!(
                "  cpu {:3.0} %  anon {:6.1} MB",
                (now.cpu_seconds() - last.cpu_seconds()) / seconds * 100.0,
                now.anonymous_bytes as f64 / 1e6
            );
        }
        line += &format!("  sockets {:6.1} MB", seen.socket_bytes as f64 / 1e6);
        writeln!(io::stderr(), "{line}")
    }
}

fn sample(seeder: &Seeder) -> io::Result<Process> {
    Ok(Process {
        seeder: seeder.sample(),
        socket_bytes: seeder::socket_memory_bytes()?,
        own_cpu_seconds: own_cpu_seconds()?,
        busy_seconds: seeder::busy_seconds()?,
    })
}

fn own_cpu_seconds() -> io::Result<f64> {
    let (user, system) = seeder::cpu_seconds(SELF_STAT)?;
    Ok(user + system)
}

/// A handshake for the most popular torrent, to see whether the seeder serves.
fn handshake(library: &Library) -> io::Result<Vec<u8>> {
    let target = library
        .target(0)
        .ok_or_else(|| Error::other("no torrent"))?;
    let mut handshake = PROTOCOL.to_vec();
    handshake.extend_from_slice(&[0; 8]);
    handshake.extend_from_slice(&target.info_hash.0);
    handshake.extend_from_slice(b"-HS0100-looks-around");
    Ok(handshake)
}
