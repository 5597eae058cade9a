//! Measures the index of a library: making it, opening it, asking it, serving it, and verifying
//! content.
//!
//! Owns the measurements and the table. What is measured is made by `make-library` and
//! `make-index`; `docs/BENCHMARKS.md` has the commands.

mod live;
mod processor;
mod served;

use std::ffi::OsStr;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use hekate::library::index::Index;
use hekate::library::scan::build::{self, Plan, Progress};
use hekate::library::scan::parallel;
use hekate::library::verify::{self, Subject};
use hekate::torrent::content_directories::ContentDirectories;
use hekate::torrent::reader::Reader;
use hekate::wire::message::InfoHash;

use served::Daemon;

/// Questions for each measurement.
const QUESTIONS: usize = 1_000_000;

/// Questions that go to the file: each is a handful of reads.
const FILE_QUESTIONS: usize = 20_000;

/// Handshakes of each kind: a loopback address has ports for twice as many.
const HANDSHAKES: usize = 10_000;

/// Measures the index of a library.
#[derive(Parser)]
struct Options {
    /// A library that is indexed twice; the second run finds it in the page cache
    #[arg(long, value_name = "DIR")]
    library: Option<PathBuf>,
    /// An index that is opened and asked
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// A library whose content is hashed twice
    #[arg(long, value_name = "DIR")]
    verify: Option<PathBuf>,
    /// A library with content, which is served while another changes
    #[arg(long, value_name = "DIR")]
    live: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    if let Some(library) = &options.library {
        measure_build(library)?;
    }
    if let Some(index) = &options.index {
        measure_index(index)?;
    }
    if let Some(library) = options.verify {
        measure_verify(&library)?;
    }
    if let Some(content) = &options.live {
        live::measure(content)?;
    }
    Ok(())
}

fn row(what: &str, value: &str) -> io::Result<()> {
    writeln!(io::stdout(), "| {what} | {value} |")
}

fn measure_build(library: &Path) -> io::Result<()> {
    let plan = Plan {
        inputs: vec![library.to_path_buf()],
        content: ContentDirectories::default(),
        target: std::env::temp_dir().join(format!("bench-{}.index", std::process::id())),
        threads: parallel::cores(),
    };
    for run in ["first", "second"] {
        let progress = Progress::default();
        let start = Instant::now();
        let summary = build::build(&plan, &progress, |_| ()).map_err(io::Error::other)?;
        let seconds = start.elapsed().as_secs_f64();
        let torrents = to_f64(summary.torrents);
        let bytes = to_f64(progress.bytes.load(Ordering::Relaxed));
        row(
            &format!("index, {run} run"),
            &format!(
                "{} torrents of {:.1} KB in {seconds:.2} s: {:.0} a second; {:.1} bytes each",
                summary.torrents,
                bytes / torrents / 1000.0,
                torrents / seconds,
                to_f64(summary.bytes) / torrents,
            ),
        )?;
    }
    fs::remove_file(&plan.target)
}

fn measure_index(path: &Path) -> io::Result<()> {
    let before = anonymous_bytes("self")?;
    for state in ["cold", "warm"] {
        if state == "cold" {
            evict(path)?;
        }
        let start = Instant::now();
        let index = Index::open(path).map_err(io::Error::other)?;
        let elapsed = start.elapsed();
        row(&format!("open, {state}"), &format!("{elapsed:.0?}"))?;
        if state == "warm" {
            let each = to_f64(anonymous_bytes("self")? - before) / to_f64(index.torrents());
            let torrents = index.torrents();
            row(
                "anonymous memory",
                &format!("{each:.1} bytes for each of {torrents}"),
            )?;
        }
    }
    let index = Index::open(path).map_err(io::Error::other)?;
    let mut random = fastrand::Rng::with_seed(5);
    let made_up: Vec<InfoHash> = (0..QUESTIONS)
        .map(|_| InfoHash(std::array::from_fn(|_| random.u8(..))))
        .collect();
    row("unknown info-hash", &each(&index, &made_up))?;
    let known = known(&index, &mut random)?;
    row("known info-hash", &each(&index, &known))?;

    evict(path)?;
    for state in ["cold", "warm"] {
        let mut times = Vec::new();
        for info_hash in known.iter().take(FILE_QUESTIONS) {
            let start = Instant::now();
            if let Some(candidates) = index.find(info_hash) {
                black_box(
                    index
                        .entry(candidates, info_hash)
                        .map_err(io::Error::other)?,
                );
            }
            times.push(start.elapsed());
        }
        row(&format!("entry of a torrent, {state}"), &percentiles(times))?;
    }
    let real = real(&index, &known)?;
    match real.is_empty() {
        true => Ok(()),
        false => measure_served(path, index.torrents(), &real, &made_up),
    }
}

/// What peers see of a daemon that serves the index, over loopback.
fn measure_served(
    path: &Path,
    torrents: u64,
    real: &[InfoHash],
    made_up: &[InfoHash],
) -> io::Result<()> {
    let Some((first, others)) = real.split_first() else {
        return Ok(());
    };
    evict(path)?;
    let arguments = [OsStr::new("--index"), path.as_os_str()];
    let (daemon, elapsed) = Daemon::start(&arguments, first)?;
    row("start to first handshake, cold", &format!("{elapsed:.0?}"))?;
    drop(daemon);
    let (daemon, elapsed) = Daemon::start(&arguments, first)?;
    row("start to first handshake, warm", &format!("{elapsed:.0?}"))?;
    let before = daemon.anonymous_bytes()?;
    let each = to_f64(before) / to_f64(torrents);
    row(
        "anonymous memory of the daemon",
        &format!("{each:.1} bytes for each of {torrents}"),
    )?;

    let mut times = Vec::new();
    for info_hash in others.iter().take(HANDSHAKES) {
        let start = Instant::now();
        if daemon.ask(info_hash)? {
            times.push(start.elapsed());
        }
    }
    row("handshake for a torrent not loaded", &percentiles(times))?;
    let (before, read_before) = (daemon.anonymous_bytes()?, daemon.read_bytes()?);
    let mut times = Vec::new();
    for info_hash in made_up.iter().take(HANDSHAKES) {
        let start = Instant::now();
        daemon.ask(info_hash)?;
        times.push(start.elapsed());
    }
    row("handshake for an unknown torrent", &percentiles(times))?;
    let grown = daemon.anonymous_bytes()?.saturating_sub(before);
    let read = daemon.read_bytes()? - read_before;
    row(
        "memory grown, read from disk meanwhile",
        &format!("{grown} bytes, {read} bytes"),
    )
}

/// What a first handshake costs a reader: the entry, then the metainfo file and its content. Answers
/// the torrents that have both.
fn real(index: &Index, known: &[InfoHash]) -> io::Result<Vec<InfoHash>> {
    let mut reader = Reader::default();
    let (mut times, mut real) = (Vec::new(), Vec::new());
    for info_hash in known {
        let start = Instant::now();
        let Some(candidates) = index.find(info_hash) else {
            continue;
        };
        let entry = index
            .entry(candidates, info_hash)
            .map_err(io::Error::other)?;
        let Some(entry) = entry else { continue };
        let Ok(mut found) = reader.read(&entry.path.to_path_buf()) else {
            continue;
        };
        let roots = [&*entry.path.directory];
        let checked = reader.check(&ContentDirectories::default(), &roots, &mut found.metainfo);
        if checked.is_ok() {
            times.push(start.elapsed());
            real.push(*info_hash);
        }
    }
    if !times.is_empty() {
        row("entry, metainfo file and content", &percentiles(times))?;
    }
    Ok(real)
}

/// Info-hashes from all over the index.
fn known(index: &Index, random: &mut fastrand::Rng) -> io::Result<Vec<InfoHash>> {
    let mut known: Vec<InfoHash> = Vec::with_capacity(QUESTIONS);
    for (number, entry) in index.entries().enumerate() {
        let entry = entry.map_err(io::Error::other)?;
        if known.len() < QUESTIONS {
            known.push(entry.facts.info_hash);
        } else if let Some(sample) = known.get_mut(random.usize(..=number)) {
            *sample = entry.facts.info_hash;
        }
    }
    random.shuffle(&mut known);
    Ok(known)
}

fn each(index: &Index, questions: &[InfoHash]) -> String {
    let start = Instant::now();
    let found = questions
        .iter()
        .filter(|info_hash| black_box(index.find(info_hash)).is_some())
        .count();
    let each = start.elapsed().as_secs_f64() * 1e9 / to_f64(questions.len() as u64);
    format!("{each:.0} ns; {found} of {} may be known", questions.len())
}

fn measure_verify(library: &Path) -> io::Result<()> {
    for run in ["first", "second"] {
        let progress = Progress::default();
        let start = Instant::now();
        let mut bad = 0;
        let paths = [library.to_path_buf()];
        verify::verify(
            &Subject::Paths(&paths),
            &ContentDirectories::default(),
            parallel::cores(),
            &progress,
            |finding| {
                bad += u32::from(
                    !matches!(finding, verify::Finding::Torrent(report) if report.is_good()),
                );
                ControlFlow::Continue(())
            },
        )?;
        let seconds = start.elapsed().as_secs_f64();
        let bytes = to_f64(progress.bytes.load(Ordering::Relaxed));
        let torrents = progress.files.load(Ordering::Relaxed);
        row(
            &format!("verify, {run} run"),
            &format!(
                "{torrents} torrents, {bad} bad: {:.2} GB a second",
                bytes / seconds / 1e9
            ),
        )?;
    }
    Ok(())
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |per_mille: usize| {
        let rank = times.len() * per_mille / 1000;
        let time = times.get(rank).or(times.last()).copied();
        time.unwrap_or_default().as_secs_f64() * 1e6
    };
    format!(
        "p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs of {}",
        at(500),
        at(990),
        at(999),
        times.len()
    )
}

/// Drops a file from the page cache; `dd` has an option for it.
fn evict(path: &Path) -> io::Result<()> {
    let status = Command::new("dd")
        .arg(format!("if={}", path.display()))
        .args(["iflag=nocache", "count=0", "status=none"])
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(
            "dd cannot drop the file from the page cache",
        )),
    }
}

fn anonymous_bytes(process: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a table")]
fn to_f64(number: u64) -> f64 {
    number as f64
}
