//! `hekate seed --index` as it is run: torrents that nobody has read before a peer asks for them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;

use support::daemon::Daemon;
use support::leecher::{self, FAST, Leecher, PLAIN};
use support::torrent::{Sample, TorrentBuilder};
use tempfile::TempDir;

/// Handshakes of a flood.
const FLOOD: u32 = 2_000;

/// Reads of any file in a flood that have other reasons: the library is looked at after the start. One
/// for each handshake is ten times as many.
const OTHER_READS: u64 = 200;

/// What the memory of a process may vary by. A hundred bytes for each handshake are more.
const MEMORY_VARIES_KB: u64 = 150;

struct Fixture {
    directory: TempDir,
    samples: Vec<Sample>,
}

impl Fixture {
    /// A library with an index.
    fn new(torrents: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut fixture = Fixture {
            directory,
            samples: Vec::new(),
        };
        for seed in 0..torrents {
            fixture.add(seed);
        }
        fixture.index();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn add(&mut self, seed: u64) {
        let builder = TorrentBuilder::new(seed).length(1000 + seed);
        self.samples.push(builder.write(&self.path("lib")).unwrap());
    }

    fn index(&self) {
        let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
            .args(["index", "lib", "-o", "index"])
            .current_dir(self.directory.path())
            .output();
        assert!(output.unwrap().status.success());
    }

    fn seed(&self) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command.args([
            "seed",
            "-v",
            "--bind",
            "127.0.0.1",
            "--port",
            "0",
            "--index",
        ]);
        command.arg(self.path("index"));
        Daemon::start(command)
    }
}

/// Says a handshake and is let go without an answer.
fn expect_refused(daemon: &Daemon, info_hash: [u8; 20]) {
    let mut stream = leecher::dial(daemon.address);
    let handshake = leecher::handshake(PLAIN, info_hash, b"-TE0000-abcdefghijkl");
    // The seeder may have gone before all of it is written.
    let _ = stream.write_all(&handshake);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
}

/// A figure of the daemon's process, from a file of the kernel.
fn figure(daemon: &Daemon, file: &str, name: &str) -> u64 {
    let figures = fs::read_to_string(format!("/proc/{}/{file}", daemon.pid())).unwrap();
    let line = figures.lines().find_map(|line| line.strip_prefix(name));
    let number = line.unwrap().split_whitespace().next();
    number.unwrap().parse().unwrap()
}

/// How often any thread of the daemon has read from a file; what is read from sockets does not count.
fn reads(daemon: &Daemon) -> u64 {
    figure(daemon, "io", "syscr:")
}

#[test]
fn a_reload_opens_a_new_index() {
    let mut fixture = Fixture::new(2);
    let mut daemon = fixture.seed();
    let mut leaves = Leecher::connect(daemon.address, fixture.samples[0].info_hash, FAST);
    leaves.until_unchoked();
    fs::remove_file(&fixture.samples[0].metainfo_path).unwrap();
    fixture.add(7);
    fixture.index();
    daemon.signal("HUP");
    daemon.wait_for_line("reloaded: 2 torrents, 2 before");
    leaves.until_closed();
    expect_refused(&daemon, fixture.samples[0].info_hash);
    leecher::download(daemon.address, &fixture.samples[1]);
    leecher::download(daemon.address, &fixture.samples[2]);
    fs::write(fixture.path("index"), "rubbish").unwrap();
    daemon.signal("HUP");
    daemon.wait_for_line("reload failed, still serving the old library: ");
    leecher::download(daemon.address, &fixture.samples[2]);
}

#[test]
fn every_torrent_of_an_index_is_served_and_no_other() {
    let mut fixture = Fixture::new(20);
    fixture.add(20);
    let mut daemon = fixture.seed();
    daemon.wait_for_line("serving 20 torrents");
    for sample in &fixture.samples[..20] {
        leecher::download(daemon.address, sample);
    }
    expect_refused(&daemon, fixture.samples[20].info_hash);
}

#[test]
fn torrents_are_read_only_when_requested() {
    let fixture = Fixture::new(3);
    fs::rename(fixture.path("lib"), fixture.path("away")).unwrap();
    let daemon = fixture.seed();
    fs::rename(fixture.path("away"), fixture.path("lib")).unwrap();
    leecher::download(daemon.address, &fixture.samples[1]);
}

#[test]
fn a_flood_of_unknown_info_hashes_makes_no_disk_work_and_no_growth() {
    let fixture = Fixture::new(2);
    let daemon = fixture.seed();
    let flood = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let mut info_hash = [0; 20];
            info_hash[..4].copy_from_slice(&number.to_be_bytes());
            expect_refused(&daemon, info_hash);
        }
    };
    // What is kept for the next peer is there then.
    flood(0..FLOOD / 10);
    let before = (reads(&daemon), figure(&daemon, "status", "RssAnon:"));
    flood(FLOOD..2 * FLOOD);
    let after = (reads(&daemon), figure(&daemon, "status", "RssAnon:"));
    assert!(after.0 < before.0 + OTHER_READS, "{before:?} {after:?}");
    assert!(
        after.1 < before.1 + MEMORY_VARIES_KB,
        "{before:?} {after:?}"
    );
    leecher::download(daemon.address, &fixture.samples[0]);
    assert!(reads(&daemon) > after.0, "reads are not seen");
}

#[test]
fn a_torrent_whose_metainfo_file_was_replaced_is_refused_and_others_are_served() {
    let fixture = Fixture::new(3);
    let mut daemon = fixture.seed();
    let [replaced, other, third] = &fixture.samples[..] else {
        panic!();
    };
    fs::copy(&other.metainfo_path, &replaced.metainfo_path).unwrap();
    fs::remove_file(&third.files[0].path).unwrap();
    expect_refused(&daemon, replaced.info_hash);
    expect_refused(&daemon, third.info_hash);
    leecher::download(daemon.address, other);
    daemon.wait_for_line("holds a different torrent than when it was indexed");
    daemon.wait_for_line("content sample-2 is missing");
    daemon.wait_for_line("asked for a torrent that is not served");
}

/// How many lines of the log have a text.
fn lines_with(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

#[test]
fn read_errors_of_an_index_are_logged_once_and_counted() {
    let fixture = Fixture::new(12);
    let mut daemon = fixture.seed();
    let index = fs::File::options().write(true).open(fixture.path("index"));
    index.unwrap().set_len(4096).unwrap();
    for sample in &fixture.samples {
        expect_refused(&daemon, sample.info_hash);
    }
    daemon.signal("TERM");
    daemon.wait_for_line("(11 similar lines suppressed)");
    assert!(daemon.wait().success());
    assert_eq!(lines_with(&daemon.log(), "not served: "), 2);
}

#[test]
fn every_withdrawn_torrent_is_logged() {
    let fixture = Fixture::new(12);
    let mut daemon = fixture.seed();
    for sample in &fixture.samples {
        fs::remove_file(&sample.files[0].path).unwrap();
        expect_refused(&daemon, sample.info_hash);
    }
    // Peers can have the same said often, so these lines are held back; what comes of it is not.
    for sample in &fixture.samples {
        daemon.wait_for_line(&format!(
            "refused: {}: content",
            sample.metainfo_path.display()
        ));
    }
    assert_eq!(daemon.count_lines("refused: "), fixture.samples.len());
}

#[test]
fn a_metainfo_file_swapped_for_another_torrent_is_not_served() {
    let mut fixture = Fixture::new(2);
    let mut daemon = fixture.seed();
    fixture.add(2);
    let [replaced, stays, new] = &fixture.samples[..] else {
        panic!();
    };
    fs::copy(&new.metainfo_path, &replaced.metainfo_path).unwrap();
    expect_refused(&daemon, replaced.info_hash);
    daemon.wait_for_line("torrents added, 1 removed: 1 now");
    expect_refused(&daemon, new.info_hash);
    leecher::download(daemon.address, stays);
}

#[test]
fn a_file_that_is_no_index_is_an_error_in_one_line() {
    let fixture = Fixture::new(1);
    fs::write(fixture.path("index"), "d8:announce").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args([
            "seed",
            "--config",
            "/dev/null",
            "--status",
            "off",
            "--index",
        ])
        .arg(fixture.path("index"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = String::from_utf8(output.stderr).unwrap();
    let errors = lines.lines().filter(|line| line.contains("ERROR"));
    assert_eq!(errors.count(), 1, "{lines}");
    assert!(lines.ends_with("not an index file of hekate\n"), "{lines}");
}

#[test]
fn the_torrents_of_an_index_are_listed() {
    let fixture = Fixture::new(3);
    let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "--config", "/dev/null", "--list", "--index"])
        .arg(fixture.path("index"))
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let hash = fixture.samples[2].info_hash_hex();
    assert!(
        lines.contains(&hash) && lines.ends_with("3 valid, 0 refused\n"),
        "{lines}"
    );
}

/// Bytes that a process has had read from disks.
fn read_bytes(daemon: &Daemon) -> u64 {
    let figures = fs::read_to_string(format!("/proc/{}/io", daemon.pid())).unwrap();
    let line = figures.lines().find_map(|l| l.strip_prefix("read_bytes: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn cold_content_is_read_at_most_twice_as_much_as_it_is_sent() {
    const PIECES: u32 = 64;
    // Where temporary files lie may be in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sample = TorrentBuilder::new(1)
        .piece_length(1 << 20)
        .length(u64::from(PIECES) << 20)
        .write(directory.path())
        .unwrap();
    let file = fs::File::open(&sample.files[0].path).unwrap();
    file.sync_all().unwrap();
    let daemon = Daemon::seed(directory.path());
    // The first block of each piece, the first two, and some at random.
    let first = |piece| vec![(piece, 0)];
    let two = |piece| vec![(piece, 0), (piece, 1)];
    let scattered = |piece| [5, 40, 41, 17].map(|block| (piece, block)).to_vec();
    let patterns: [&dyn Fn(u32) -> Vec<(u32, u32)>; 3] = [&first, &two, &scattered];
    for pattern in patterns {
        let evicted = Command::new("dd")
            .args(["iflag=nocache", "count=0", "status=none"])
            .arg(format!("if={}", sample.files[0].path.display()))
            .status();
        assert!(evicted.unwrap().success());
        // One that was sent nothing yet has earned no reading ahead.
        let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
        leecher.send(&leecher::interested());
        leecher.until_unchoked();
        let before = read_bytes(&daemon);
        let mut sent = 0;
        for (piece, block) in (0..PIECES).flat_map(pattern) {
            let begin = block * 16 * 1024;
            assert!(
                leecher.block(piece, begin, 16 * 1024) == sample.block(piece, begin, 16 * 1024)
            );
            sent += 16 * 1024;
        }
        let read = read_bytes(&daemon) - before;
        assert!(read > 0, "the content is on a disk");
        // Beside the content, the kernel reads where it lies.
        assert!(read <= 2 * sent + (256 << 10), "{read} for {sent}");
    }
}
