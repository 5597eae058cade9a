//! Peers that are broken, rude or hostile: each loses its own connection at most.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hekate::choker::ChokerConfig;
use hekate::config::{Config, LimitsConfig, StatusListen};
use hekate::library::catalogue::live::Settings;
use hekate::library::catalogue::lookup::Library;
use hekate::library::catalogue::refresh;
use hekate::reactor::{Bound, Host};
use hekate::super_seeding::SuperSeedingMode;
use hekate::timers::Timeouts;
use hekate::torrent::content_directories::ContentDirectories;
use support::daemon::Daemon;
use support::leecher::{self, DEADLINE, FAST, FAST_AND_EXTENDED, Leecher, PLAIN, Seen};
use support::strace::{self, Injection};
use support::torrent::{Sample, TorrentBuilder};
use support::wait_until;

const BLOCK: u32 = 16 * 1024;

struct Scene {
    _dir: tempfile::TempDir,
    sample: Sample,
    daemon: Daemon,
}

fn scene(arguments: &[&str]) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(1)
        .length(4 << 20)
        .write(dir.path())
        .unwrap();
    let daemon = Daemon::seed_with(dir.path(), arguments);
    Scene {
        _dir: dir,
        sample,
        daemon,
    }
}

impl Scene {
    fn leecher(&self, reserved: [u8; 8]) -> Leecher {
        Leecher::connect(self.daemon.address, self.sample.info_hash, reserved)
    }

    /// Another peer is served as if nothing had happened.
    fn serves(&mut self) {
        self.daemon.assert_alive();
        let mut leecher = self.leecher(FAST);
        leecher.until_unchoked();
        assert_eq!(leecher.block(7, 0, BLOCK), self.sample.block(7, 0, BLOCK));
    }
}

#[test]
fn bytes_that_come_one_by_one_mean_the_same() {
    let mut scene = scene(&[]);
    let handshake = leecher::handshake(FAST, scene.sample.info_hash, b"-TE0000-abcdefghijkl");
    let requests = [
        leecher::message(5, &[0; 32]),
        leecher::request(1, 100, 1000),
        leecher::request(2, 200, 2000),
    ];
    let mut stream = leecher::dial(scene.daemon.address);
    // Each byte is a write of its own, and a segment of its own.
    let trickle = |stream: &mut std::net::TcpStream, bytes: &[u8]| {
        for byte in bytes {
            stream.write_all(&[*byte]).unwrap();
        }
    };
    trickle(&mut stream, &handshake);
    let mut handshake = [0; 68];
    stream.read_exact(&mut handshake).unwrap();
    let mut leecher = Leecher { stream, handshake };
    leecher.until_unchoked();
    trickle(&mut leecher.stream, &requests.concat());
    for (index, begin, length) in [(1, 100, 1000), (2, 200, 2000)] {
        let seen = leecher.until(|seen| matches!(seen, Seen::Piece { .. }));
        let block = scene.sample.block(index, begin, length);
        assert_eq!(
            seen,
            Seen::Piece {
                index,
                begin,
                block
            }
        );
    }
    scene.serves();
}

#[test]
fn a_message_may_be_split_at_every_byte() {
    let scene = scene(&[]);
    let mut leecher = scene.leecher(FAST);
    leecher.until_unchoked();
    let request = leecher::request(3, 5, 321);
    for at in 0..=request.len() {
        let (head, tail) = request.split_at(at);
        leecher.send(head);
        // The halves arrive apart: an answer to something else comes in between.
        if at == 0 || at == request.len() {
            leecher.send(tail);
        } else {
            std::thread::yield_now();
            leecher.send(tail);
        }
        let block = scene.sample.block(3, 5, 321);
        let seen = leecher.until(|seen| matches!(seen, Seen::Piece { .. }));
        assert_eq!(
            seen,
            Seen::Piece {
                index: 3,
                begin: 5,
                block
            }
        );
    }
}

#[test]
fn a_connection_that_is_not_bittorrent_is_closed_at_once() {
    // Else it may be a key.
    let mut scene = scene(&["--encryption", "off"]);
    for opening in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 100_000],
        // As an encrypted handshake begins: with something random.
        vec![0x37, 0x9a, 0x11],
        b"\x13BitTorrent protocoX".to_vec(),
    ] {
        let mut stream = leecher::dial(scene.daemon.address);
        // The end may come while there is more to write.
        stream.write_all(&opening).ok();
        assert_closed(&mut stream);
    }
    scene.serves();
}

fn assert_closed(stream: &mut std::net::TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn a_handshake_for_an_unknown_torrent_is_closed_without_an_answer() {
    let mut scene = scene(&[]);
    let mut stream = leecher::dial(scene.daemon.address);
    let handshake = leecher::handshake(FAST, [9; 20], b"-TE0000-abcdefghijkl");
    stream.write_all(&handshake).unwrap();
    assert_closed(&mut stream);
    scene.serves();
}

#[test]
fn illegal_messages_end_the_connection() {
    let mut scene = scene(&[]);
    let pieces = scene.sample.pieces;
    for (what, bytes) in [
        ("a huge length", vec![0xff, 0xff, 0xff, 0xff, 6]),
        (
            "a request outside the torrent",
            leecher::request(pieces, 0, BLOCK),
        ),
        ("a request past its piece", leecher::request(0, 1, BLOCK)),
        (
            "a request that overflows",
            leecher::request(u32::MAX, u32::MAX, u32::MAX),
        ),
        ("a request for nothing", leecher::request(0, 0, 0)),
        (
            "a request over 128 KiB",
            leecher::request(0, 0, 128 * 1024 + 1),
        ),
        ("a have with three bytes", leecher::message(4, &[0, 0, 0])),
        (
            "a have outside the torrent",
            leecher::message(4, &pieces.to_be_bytes()),
        ),
        (
            "a bitfield of the wrong length",
            leecher::message(5, &[0; 3]),
        ),
        ("a malformed ut_metadata", leecher::message(20, b"\x01i1e")),
        (
            "a handshake too long to hold",
            leecher::message(20, &[0; 17_000]),
        ),
    ] {
        let mut leecher = scene.leecher(FAST_AND_EXTENDED);
        // The end may come while there is more to write.
        leecher.stream.write_all(&bytes).ok();
        leecher.until_closed();
        println!("{what}: closed");
    }
    scene.serves();
}

#[test]
fn a_malformed_extension_handshake_is_survived() {
    let scene = scene(&[]);
    let mut leecher = scene.leecher(FAST_AND_EXTENDED);
    leecher.until_unchoked();
    leecher.send(&leecher::message(20, b"\0i1e"));
    leecher.send(&leecher::message(
        20,
        &[[0].as_slice(), &[b'l'; 9000]].concat(),
    ));
    let block = scene.sample.block(5, 0, BLOCK);
    assert!(leecher.block(5, 0, BLOCK) == block);
}

#[test]
fn a_peer_that_is_a_seed_is_closed() {
    let mut scene = scene(&[]);
    let pieces = scene.sample.pieces;
    assert_eq!(pieces % 8, 0);
    let full = vec![0xff; pieces as usize / 8];
    let by_one = |index: u32| leecher::message(4, &index.to_be_bytes());
    for bytes in [
        leecher::message(5, &full),
        leecher::message(14, &[]),
        (0..pieces).flat_map(by_one).collect(),
        leecher::message(20, b"\0d11:upload_onlyi1ee"),
    ] {
        let mut leecher = scene.leecher(FAST_AND_EXTENDED);
        leecher.stream.write_all(&bytes).ok();
        leecher.until_closed();
    }
    scene.serves();
}

#[test]
fn every_one_of_five_thousand_requests_is_answered_once() {
    let mut scene = scene(&[]);
    let mut leecher = scene.leecher(FAST);
    leecher.until_unchoked();
    let wanted = 5000;
    let mut flood = Vec::new();
    for number in 0..wanted {
        flood.extend(leecher::request(number % scene.sample.pieces, number, 1));
    }
    let mut writer = leecher.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&flood));
    let mut answered = vec![0; wanted as usize];
    for _ in 0..wanted {
        let seen = leecher.until(|seen| matches!(seen, Seen::Piece { .. } | Seen::Reject { .. }));
        match seen {
            Seen::Piece { begin, .. } | Seen::Reject { begin, .. } => {
                answered[begin as usize] += 1;
            }
            _ => unreachable!(),
        }
    }
    writing.join().unwrap().unwrap();
    assert!(answered.iter().all(|&times| times == 1));
    scene.serves();
}

#[test]
fn a_flood_of_requests_while_choked_is_rejected_one_by_one() {
    let scene = scene(&["-N", "1"]);
    let mut first = scene.leecher(FAST);
    first.until_unchoked();
    let mut choked = scene.leecher(FAST);
    let wanted = 9_000;
    let flood: Vec<u8> = (0..wanted)
        .flat_map(|begin| leecher::request(1, begin % 9999, 9))
        .collect();
    let mut writer = choked.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&flood));
    for number in 0..wanted {
        let seen = choked.until(|seen| matches!(seen, Seen::Piece { .. } | Seen::Reject { .. }));
        assert_eq!(
            seen,
            Seen::Reject {
                index: 1,
                begin: number % 9999,
                length: 9
            }
        );
    }
    writing.join().unwrap().unwrap();
}

#[test]
fn a_peer_whose_requests_are_refused_and_that_goes_on_is_closed() {
    let mut scene = scene(&["-N", "1"]);
    let mut first = scene.leecher(FAST);
    first.until_unchoked();
    let mut choked = scene.leecher(FAST);
    let flood: Vec<u8> = (0..20_000)
        .flat_map(|_| leecher::request(0, 0, BLOCK))
        .collect();
    let mut writer = choked.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&flood));
    choked.until_closed();
    // All of it may have been in flight when the connection was closed.
    drop(writing.join().unwrap());
    drop(first);
    scene.serves();
}

#[test]
fn a_peer_that_floods_and_never_reads_is_not_read_from() {
    let mut scene = scene(&[]);
    let mut deaf = scene.leecher(FAST);
    deaf.stream.set_nonblocking(true).unwrap();
    let flood: Vec<u8> = (0..4000)
        .flat_map(|_| leecher::request(0, 0, BLOCK))
        .collect();
    // In the end the kernel takes no more of the flood either: that is the back-pressure.
    let until = Instant::now() + DEADLINE;
    let mut refusals = 0;
    while refusals < 200 {
        match deaf.stream.write(&flood) {
            Ok(_) => refusals = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            // It may also be closed before, for the requests that are refused.
            Err(_) => break,
        }
        assert!(Instant::now() < until, "the flood is taken without end");
    }
    scene.serves();
}

#[test]
fn a_cancelled_request_is_answered_too() {
    let scene = scene(&["--max-rate", "200K"]);
    let mut leecher = scene.leecher(FAST);
    leecher.until_unchoked();
    for index in 0..40 {
        leecher.send(&leecher::request(index, 0, BLOCK));
    }
    leecher.send(&leecher::cancel(39, 0, BLOCK));
    let rejected = Seen::Reject {
        index: 39,
        begin: 0,
        length: BLOCK,
    };
    let mut pieces = 0;
    leecher.until(|seen| {
        pieces += usize::from(matches!(seen, Seen::Piece { .. }));
        *seen == rejected
    });
    assert!(pieces < 39, "the reject does not wait for its turn");
}

#[test]
fn connected_peers_are_served_while_descriptors_are_exhausted() {
    let mut scene = scene(&[]);
    // Making the index took more than serving it does, so the limit comes when that is done.
    scene.daemon.leave_no_descriptor();
    // Should a thread have closed something since, some are accepted all the same.
    let waiting: Vec<_> = (0..16)
        .map(|_| leecher::dial(scene.daemon.address))
        .collect();
    scene.daemon.wait_for_line("accepting paused");
    // What needs no descriptor is still done: a latch that is left alone would make the loop spin.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut syn = [0; 20];
    syn[0] = 0x41;
    socket.send_to(&syn, scene.daemon.address).unwrap();
    let (length, _) = socket.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(length, 20);
    // SIGTERM is heard as well.
    scene.daemon.signal("TERM");
    assert!(scene.daemon.wait().success());
    drop(waiting);
}

#[test]
fn a_reader_thread_that_cannot_be_started_is_retried() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(1)
        .length(4 << 20)
        .write(dir.path())
        .unwrap();
    let mut daemon = strace::seed(dir.path(), &[]);
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    // A limit on memory would not do: the stack of a thread that has ended is used again.
    let injection = Injection::begin(&daemon, "clone,clone3", "error=EAGAIN");
    leecher.send(&leecher::request(3, 0, BLOCK));
    daemon.wait_for_line("cannot start a reader thread");
    injection.end();
    let seen = leecher.until(|seen| matches!(seen, Seen::Piece { .. }));
    let block = sample.block(3, 0, BLOCK);
    let (index, begin) = (3, 0);
    assert!(
        seen == Seen::Piece {
            index,
            begin,
            block
        }
    );
}

/// A reactor in this process, with time-outs that a test can wait for.
fn impatient(timeouts: Timeouts, max_unchoked: usize) -> (tempfile::TempDir, Sample, SocketAddr) {
    let choker = ChokerConfig {
        max_unchoked,
        ..LimitsConfig::default().choker
    };
    let limits = LimitsConfig {
        choker,
        auto_slots: false,
        max_peers: Some(100),
        ..LimitsConfig::default()
    };
    limited(timeouts, limits)
}

/// A seeder with these time-outs and limits.
fn limited(timeouts: Timeouts, limits: LimitsConfig) -> (tempfile::TempDir, Sample, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(2)
        .length(8 << 20)
        .write(dir.path())
        .unwrap();
    let mut config = Config {
        timeouts,
        limits,
        ..Config::default()
    };
    config.library.dirs = vec![dir.path().to_owned()];
    config.network.port = 0;
    config.network.bind = vec!["127.0.0.1".parse().unwrap()];
    config.status.listen = StatusListen::Off;
    let index = refresh::make_nowhere(&Settings::from(&config.library), |refusal| {
        panic!("{refusal}")
    });
    let index = index.unwrap();
    let counts = index.counts();
    let library = Library::of_index(index, &ContentDirectories::default());
    let bound = Bound::bind(&config, Host::default()).unwrap();
    let mut reactor = bound.serve(library, counts).unwrap();
    let address = reactor.addresses()[0];
    // It turns until the test process ends.
    std::thread::spawn(move || reactor.run());
    (dir, sample, address)
}

/// Longer than any test: each test shortens the one it is about.
fn patient() -> Timeouts {
    let hour = 3_600_000;
    Timeouts {
        handshake_ms: hour,
        message_ms: hour,
        idle_ms: hour,
        write_ms: hour,
        keep_alive_ms: hour,
        waiting_keep_alive_ms: hour,
    }
}

#[test]
fn a_connection_without_a_handshake_is_closed() {
    let timeouts = Timeouts {
        handshake_ms: 100,
        ..patient()
    };
    let (_dir, sample, address) = impatient(timeouts, 10);
    let mut silent = leecher::dial(address);
    let mut halting = leecher::dial(address);
    let handshake = leecher::handshake(FAST, sample.info_hash, b"-TE0000-abcdefghijkl");
    halting.write_all(&handshake[..67]).unwrap();
    let mut answer = [0; 68];
    halting.read_exact(&mut answer).unwrap();
    assert_closed(&mut silent);
    assert_closed(&mut halting);
}

#[test]
fn a_message_that_is_never_completed_ends_the_connection() {
    let timeouts = Timeouts {
        message_ms: 100,
        ..patient()
    };
    let (_dir, sample, address) = impatient(timeouts, 10);
    for half in [&leecher::request(0, 0, BLOCK)[..9], &[0, 0, 0, 99, 5, 0, 0]] {
        let mut leecher = Leecher::connect(address, sample.info_hash, FAST);
        leecher.send(half);
        leecher.until_closed();
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let timeouts = Timeouts {
        idle_ms: 100,
        ..patient()
    };
    let (_dir, sample, address) = impatient(timeouts, 10);
    Leecher::connect(address, sample.info_hash, FAST).until_closed();
}

#[test]
fn an_idle_peer_is_closed_at_capacity_only() {
    let limits = LimitsConfig {
        choker: ChokerConfig {
            max_unchoked: 1,
            idle_ms: 200,
            ..LimitsConfig::default().choker
        },
        auto_slots: false,
        max_peers: Some(4),
        super_seeding: SuperSeedingMode::Off,
        ..LimitsConfig::default()
    };
    let (_dir, sample, address) = limited(patient(), limits);
    // It has the only slot, and those behind it get none.
    let mut served = Leecher::connect(address, sample.info_hash, FAST);
    served.until_unchoked();
    served.send(&leecher::interested());
    let mut waits = Leecher::connect(address, sample.info_hash, FAST);
    waits.send(&leecher::interested());
    let mut first = Leecher::connect(address, sample.info_hash, FAST);
    assert_eq!(first.receive(), Seen::HaveAll);
    first
        .stream
        .set_read_timeout(Some(Duration::from_millis(600)))
        .unwrap();
    let error = first.stream.peek(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "a place is left");
    first.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut last = Leecher::connect(address, sample.info_hash, FAST);
    last.send(&leecher::interested());
    // Now it is at capacity, so the one that has wanted nothing for long goes for the next.
    let mut next = Leecher::connect(address, sample.info_hash, FAST);
    first.until_closed();
    assert_eq!(next.receive(), Seen::HaveAll);
    assert_eq!(served.block(0, 0, BLOCK), sample.block(0, 0, BLOCK));
    waits.send(&leecher::request(0, 0, BLOCK));
    waits.until(|seen| matches!(seen, Seen::Reject { .. }));
}

#[test]
fn a_peer_that_never_reads_is_closed() {
    let timeouts = Timeouts {
        write_ms: 1500,
        ..patient()
    };
    let (_dir, sample, address) = impatient(timeouts, 10);
    let mut deaf = Leecher::connect(address, sample.info_hash, FAST);
    deaf.until_unchoked();
    // Far more than two socket buffers hold.
    for number in 0..1900 {
        deaf.send(&leecher::request(number % sample.pieces, 0, BLOCK));
    }
    wait_until(DEADLINE, "it is closed", || {
        deaf.stream.write(&[0, 0, 0, 0]).is_err()
    });
}

#[test]
fn keep_alives_are_sent() {
    let timeouts = Timeouts {
        keep_alive_ms: 100,
        ..patient()
    };
    let (_dir, sample, address) = impatient(timeouts, 10);
    let mut leecher = Leecher::connect(address, sample.info_hash, PLAIN);
    for _ in 0..2 {
        leecher.until(|seen| *seen == Seen::KeepAlive);
    }
}

#[test]
fn a_peer_that_waits_for_a_slot_gets_keep_alives_more_often() {
    let timeouts = Timeouts {
        waiting_keep_alive_ms: 100,
        ..patient()
    };
    let (_dir, sample, address) = impatient(timeouts, 1);
    let mut first = Leecher::connect(address, sample.info_hash, FAST);
    first.until_unchoked();
    let mut waiting = Leecher::connect(address, sample.info_hash, FAST);
    waiting.send(&leecher::interested());
    for _ in 0..2 {
        waiting.until(|seen| *seen == Seen::KeepAlive);
    }
}
