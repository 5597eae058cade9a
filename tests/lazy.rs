//! `--verify=lazy`: what is not what its hash says is never delivered, and everything else is.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use support::daemon::Daemon;
use support::leecher::{self, FAST, Leecher, PLAIN, Seen, request};
use support::strace::{self, Injection};
use support::torrent::{Sample, TorrentBuilder};
use support::{poll_until, wait_until};

/// With slots for peers that have not said that they are interested, and nothing sent but answers.
const LAZY: &[&str] = &["--verify", "lazy", "-N", "50", "--super-seeding", "off"];

/// Three files, of which piece 1 has the end of the first and the second whole.
fn three_files() -> TorrentBuilder {
    TorrentBuilder::new(80)
        .piece_length(64 * 1024)
        .file("first", 100_000)
        .file("second", 10_000)
        .file("third", 300_000)
}

/// A peer that comes back when it is let go, as all are when the content of their torrent changes.
struct Peer {
    address: SocketAddr,
    info_hash: [u8; 20],
    leecher: Option<Leecher>,
}

fn connect(daemon: &Daemon, sample: &Sample) -> Peer {
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    Peer {
        address: daemon.address,
        info_hash: sample.info_hash,
        leecher: Some(leecher),
    }
}

impl Peer {
    /// The answer to a request, over as many connections as it takes.
    fn ask(&mut self, index: u32, begin: u32, length: u32) -> Seen {
        poll_until(leecher::DEADLINE, || {
            let seen = self.try_to_ask(index, begin, length);
            if seen.is_none() {
                self.leecher = None;
            }
            seen.ok_or("no connection is answered")
        })
    }

    fn try_to_ask(&mut self, index: u32, begin: u32, length: u32) -> Option<Seen> {
        if self.leecher.is_none() {
            let mut stream = leecher::dial(self.address);
            let ours = leecher::handshake(FAST, self.info_hash, b"-TE0000-abcdefghijkl");
            stream.write_all(&ours).ok()?;
            let mut handshake = [0; 68];
            stream.read_exact(&mut handshake).ok()?;
            let mut leecher = Leecher { stream, handshake };
            loop {
                match leecher.receive() {
                    Seen::Unchoke => break,
                    Seen::Closed => return None,
                    _ => {}
                }
            }
            self.leecher = Some(leecher);
        }
        let leecher = self.leecher.as_mut()?;
        leecher
            .stream
            .write_all(&request(index, begin, length))
            .ok()?;
        loop {
            match leecher.receive() {
                Seen::Closed => return None,
                seen @ (Seen::Piece { .. } | Seen::Reject { .. }) => return Some(seen),
                _ => {}
            }
        }
    }
}

/// Turns a byte over; twice is as it was. The time of the change is a new one.
fn spoil(path: &Path, offset: u64) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
    file.set_modified(before + Duration::from_secs(1)).unwrap();
}

fn is_served(leecher: &mut Peer, sample: &Sample, index: u32) -> bool {
    match leecher.ask(index, 0, 16 * 1024) {
        Seen::Piece { block, .. } => {
            assert!(
                block == sample.block(index, 0, 16 * 1024),
                "wrong bytes of piece {index}"
            );
            true
        }
        _ => false,
    }
}

/// Asks again and again until the piece is served or, as `wanted` says, is not.
fn ask_until(leecher: &mut Peer, sample: &Sample, index: u32, wanted: bool) {
    wait_until(leecher::DEADLINE, &format!("served = {wanted}"), || {
        is_served(leecher, sample, index) == wanted
    });
}

/// Where the daemon answers for its figures.
fn status_of(daemon: &mut Daemon) -> SocketAddr {
    let line = daemon.wait_for_line("status at http://");
    let (_, address) = line.split_once("http://").unwrap();
    address.trim_end_matches('/').parse().unwrap()
}

/// How many times a piece was hashed and was right.
fn verified(status: SocketAddr) -> u64 {
    let mut page = String::new();
    let mut stream = leecher::dial(status);
    let question = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    Write::write_all(&mut stream, question).unwrap();
    Read::read_to_string(&mut stream, &mut page).unwrap();
    let mut lines = page.lines();
    let count = lines.find_map(|line| line.strip_prefix("hekate_pieces_verified_total "));
    count.expect("it is counted").parse().unwrap()
}

#[test]
fn a_bad_piece_is_refused_and_named_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let sample = three_files().write(dir.path()).unwrap();
    spoil(&sample.files[1].path, 9_999);
    let mut daemon = Daemon::seed_with(dir.path(), LAZY);
    let mut leecher = connect(&daemon, &sample);
    for index in 0..sample.pieces - 1 {
        assert_eq!(is_served(&mut leecher, &sample, index), index != 1);
    }
    let line = daemon.wait_for_line(" is bad: ");
    let named = format!(
        "not served: piece 1 of {} is bad: {} or 2 files behind it",
        sample.info_hash_hex(),
        sample.files[0].path.canonicalize().unwrap().display()
    );
    assert!(line.ends_with(&named), "{line}");
    for _ in 0..100 {
        assert!(!is_served(&mut leecher, &sample, 1));
    }
    assert!(is_served(&mut leecher, &sample, 0));
    assert_eq!(daemon.count_lines(" is bad: "), 1);
}

#[test]
fn without_the_option_content_is_served_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let sample = three_files().write(dir.path()).unwrap();
    spoil(&sample.files[0].path, 0);
    let daemon = Daemon::seed(dir.path());
    let mut leecher = connect(&daemon, &sample);
    match leecher.ask(0, 0, 16 * 1024) {
        Seen::Piece { block, .. } => assert!(block != sample.block(0, 0, 16 * 1024)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_without_rejects_is_closed_at_a_bad_piece() {
    let dir = tempfile::tempdir().unwrap();
    let sample = three_files().write(dir.path()).unwrap();
    spoil(&sample.files[0].path, 0);
    let mut daemon = Daemon::seed_with(dir.path(), LAZY);
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, PLAIN);
    leecher.until_unchoked();
    assert!(leecher.block(1, 0, 16 * 1024) == sample.block(1, 0, 16 * 1024));
    leecher.send(&request(0, 0, 16 * 1024));
    assert_eq!(leecher.receive(), Seen::Closed);
    daemon.wait_for_line("asked for content that could not be read");
}

#[test]
fn a_repaired_piece_is_served_again() {
    let dir = tempfile::tempdir().unwrap();
    let sample = three_files().write(dir.path()).unwrap();
    let file = &sample.files[2].path;
    spoil(file, 299_999);
    let daemon = Daemon::seed_with(dir.path(), LAZY);
    let mut leecher = connect(&daemon, &sample);
    let last = sample.pieces - 2;
    assert!(is_served(&mut leecher, &sample, last - 1));
    let bad = sample.total_length / 65536;
    let bad = u32::try_from(bad).unwrap();
    assert!(matches!(leecher.ask(bad, 0, 1024), Seen::Reject { .. }));
    spoil(file, 299_999);
    wait_until(
        leecher::DEADLINE,
        "the block is served again",
        || match leecher.ask(bad, 0, 1024) {
            Seen::Piece { block, .. } => {
                assert!(block == sample.block(bad, 0, 1024));
                true
            }
            Seen::Reject { .. } => false,
            other => panic!("{other:?}"),
        },
    );
}

#[test]
fn content_that_is_written_to_while_it_is_served_is_hashed_again() {
    let dir = tempfile::tempdir().unwrap();
    let sample = three_files().write(dir.path()).unwrap();
    let file = &sample.files[2].path;
    let daemon = Daemon::seed_with(dir.path(), LAZY);
    let mut leecher = connect(&daemon, &sample);
    assert!(is_served(&mut leecher, &sample, 3));
    // Behind the block that is asked for, so that a block that is served is always right.
    spoil(file, 4 * 65536 - 110_000 - 1);
    ask_until(&mut leecher, &sample, 3, false);
    assert!(is_served(&mut leecher, &sample, 4));
    spoil(file, 4 * 65536 - 110_000 - 1);
    ask_until(&mut leecher, &sample, 3, true);
}

#[test]
fn content_that_is_replaced_while_nobody_asks_is_hashed_before_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let sample = three_files().write(dir.path()).unwrap();
    let file = &sample.files[2].path;
    let daemon = Daemon::seed_with(dir.path(), LAZY);
    let mut leecher = connect(&daemon, &sample);
    assert!(is_served(&mut leecher, &sample, 3));
    let copy = file.with_extension("copy");
    fs::copy(file, &copy).unwrap();
    let times = fs::metadata(file).unwrap().modified().unwrap();
    spoil(&copy, 3 * 65536 - 110_000);
    File::options()
        .write(true)
        .open(&copy)
        .unwrap()
        .set_modified(times)
        .unwrap();
    fs::rename(copy, file).unwrap();
    // Longer than a mapping is used without being looked at.
    std::thread::sleep(Duration::from_secs(5));
    // Whatever is served is compared, so the first answer must be the refusal.
    assert!(!is_served(&mut leecher, &sample, 3));
    assert!(is_served(&mut leecher, &sample, 2));
}

#[test]
fn many_files_in_one_piece_are_hashed_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = TorrentBuilder::new(81).piece_length(64 * 1024);
    for number in 0..200 {
        builder = builder.file(format!("{number:03}"), 1000);
    }
    let sample = builder
        .padding(10_000)
        .file("z", 5)
        .write(dir.path())
        .unwrap();
    spoil(&sample.files[70].path, 0);
    let daemon = Daemon::seed_with(dir.path(), LAZY);
    let mut leecher = connect(&daemon, &sample);
    let served: Vec<bool> = (0..3)
        .map(|index| is_served(&mut leecher, &sample, index))
        .collect();
    assert_eq!(served, [true, false, true]);
    spoil(&sample.files[70].path, 0);
    ask_until(&mut leecher, &sample, 1, true);
}

#[test]
fn many_peers_cause_one_hashing_of_a_large_piece() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(82)
        .piece_length(64 << 20)
        .length(65 << 20)
        .write(dir.path())
        .unwrap();
    let mut arguments = LAZY.to_vec();
    arguments.extend(["--status", "127.0.0.1:0"]);
    let mut daemon = Daemon::seed_with(dir.path(), &arguments);
    let status = status_of(&mut daemon);
    let mut crowd: Vec<Leecher> = (0..40)
        .map(|_| Leecher::connect(daemon.address, sample.info_hash, FAST))
        .collect();
    crowd.iter_mut().for_each(Leecher::until_unchoked);
    for leecher in &mut crowd {
        leecher.send(&request(0, 1 << 20, 1024));
    }
    for leecher in &mut crowd {
        match leecher.until(|seen| matches!(seen, Seen::Piece { .. } | Seen::Reject { .. })) {
            Seen::Piece { block, .. } => assert!(block == sample.block(0, 1 << 20, 1024)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(verified(status), 1);
}

#[test]
fn reading_does_not_wait_for_hashing() {
    let dir = tempfile::tempdir().unwrap();
    let read = three_files().write(dir.path()).unwrap();
    let hashed = TorrentBuilder::new(83)
        .piece_length(64 * 1024)
        .length(1 << 20)
        .write(dir.path())
        .unwrap();
    let daemon = strace::seed(dir.path(), LAZY);
    let mut reads = connect(&daemon, &read);
    assert!(is_served(&mut reads, &read, 0));
    let connect = |_| Leecher::connect(daemon.address, hashed.info_hash, FAST);
    let mut hashes: Vec<Leecher> = (0..16).map(connect).collect();
    hashes.iter_mut().for_each(Leecher::until_unchoked);
    // Longer than a mapping is used without being looked at: what is asked for next, a reader maps.
    std::thread::sleep(Duration::from_secs(5));
    let path = hashed.files[0].path.canonicalize().unwrap();
    let injection = Injection::begin_at(&daemon, &path, "pread64", "delay_enter=600s");
    for (index, leecher) in (0..).zip(&mut hashes) {
        leecher.send(&request(index, 0, 1024));
    }
    let hashers = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        let names = tasks.filter_map(|task| fs::read(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name == b"hekate-hasher\n").count()
    };
    wait_until(leecher::DEADLINE, "two threads hash", || hashers() == 2);
    assert!(is_served(&mut reads, &read, 0));
    // None of these was answered meanwhile.
    for leecher in &hashes {
        leecher.stream.set_nonblocking(true).unwrap();
        let error = leecher.stream.peek(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
    drop(injection);
}

/// A daemon that remembers what it has verified in a directory, and where it answers for its figures.
fn seed_with_state(dir: &Path, state: &Path) -> (Daemon, SocketAddr) {
    let mut arguments = LAZY.to_vec();
    arguments.extend(["--status", "127.0.0.1:0", "--state-dir"]);
    arguments.push(state.to_str().unwrap());
    let mut daemon = Daemon::seed_with(dir, &arguments);
    let status = status_of(&mut daemon);
    (daemon, status)
}

/// Has all of these pieces served; answers how many were hashed for it.
fn hashed_for(daemon: &Daemon, status: SocketAddr, sample: &Sample, pieces: &[u32]) -> u64 {
    let before = verified(status);
    let mut leecher = connect(daemon, sample);
    for piece in pieces {
        assert!(is_served(&mut leecher, sample, *piece));
    }
    verified(status) - before
}

#[test]
fn verified_pieces_are_not_hashed_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let [library, state] = ["library", "state"].map(|name| directory.path().join(name));
    fs::create_dir(&library).unwrap();
    let sample = three_files().write(&library).unwrap();
    let (mut daemon, status) = seed_with_state(&library, &state);
    assert_eq!(hashed_for(&daemon, status, &sample, &[0, 1, 2, 3]), 4);
    daemon.signal("TERM");
    assert!(daemon.wait().success());

    // Of the three files the last changes, which piece 0 has nothing of.
    spoil(&sample.files[2].path, 299_999);
    let (mut daemon, status) = seed_with_state(&library, &state);
    assert_eq!(hashed_for(&daemon, status, &sample, &[0]), 0);
    assert_eq!(hashed_for(&daemon, status, &sample, &[2, 3, 1]), 3);
    let mut leecher = connect(&daemon, &sample);
    assert!(!is_served(&mut leecher, &sample, sample.pieces - 1));
    daemon.signal("TERM");
    assert!(daemon.wait().success());

    // What was bad is hashed again, for it may have been mended.
    spoil(&sample.files[2].path, 299_999);
    let (daemon, status) = seed_with_state(&library, &state);
    let last = sample.pieces - 1;
    let mut leecher = connect(&daemon, &sample);
    ask_until(&mut leecher, &sample, last, true);
    assert!(verified(status) > 0);
}

#[test]
fn a_damaged_or_locked_file_of_verified_pieces_serves_no_bad_piece() {
    let directory = tempfile::tempdir().unwrap();
    let [library, state] = ["library", "state"].map(|name| directory.path().join(name));
    fs::create_dir(&library).unwrap();
    fs::create_dir(&state).unwrap();
    let sample = three_files().write(&library).unwrap();
    fs::write(state.join("verified"), "hekate verified 1\nrubbish").unwrap();
    let (mut first, status) = seed_with_state(&library, &state);
    assert_eq!(hashed_for(&first, status, &sample, &[0]), 1);

    let (mut second, status) = seed_with_state(&library, &state);
    second.wait_for_line("verified: another process has it: verified pieces are not saved");
    assert_eq!(hashed_for(&second, status, &sample, &[0]), 1);

    first.signal("TERM");
    assert!(first.wait().success());
    let (third, status) = seed_with_state(&library, &state);
    assert_eq!(hashed_for(&third, status, &sample, &[0]), 0);
}
