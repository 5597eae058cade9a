//! `--connect` dials the peers that trackers name, for the torrents that it names only.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use support::daemon::Daemon;
use support::leecher::{self, DEADLINE, FAST, Leecher};
use support::poll_until;
use support::torrent::{Sample, TorrentBuilder};

/// A tracker that names one peer in every answer, and passes on each request. With a gate, it answers
/// when that says so.
fn tracker(peer: SocketAddr, gate: Option<Receiver<()>>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let SocketAddr::V4(peer) = peer else {
        panic!("an IPv4 address");
    };
    let mut body = b"d8:intervali1800e5:peers6:".to_vec();
    body.extend(peer.ip().octets());
    body.extend(peer.port().to_be_bytes());
    body.push(b'e');
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                request.extend(byte);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            if let Some(gate) = &gate {
                gate.recv_timeout(DEADLINE).ok();
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                .ok();
            stream.write_all(&body).ok();
            drop(stream);
            sender.send(request).ok();
        }
    });
    (url, requests)
}

/// A library, its tracker and the leecher that it names.
struct Scene {
    dir: tempfile::TempDir,
    sample: Sample,
    requests: Receiver<String>,
    leecher: TcpListener,
}

impl Scene {
    fn new() -> Self {
        Self::with_tracker_behind(None)
    }

    fn with_tracker_behind(gate: Option<Receiver<()>>) -> Self {
        let leecher = TcpListener::bind("127.0.0.1:0").unwrap();
        leecher.set_nonblocking(true).unwrap();
        let (url, requests) = tracker(leecher.local_addr().unwrap(), gate);
        let dir = tempfile::tempdir().unwrap();
        let sample = TorrentBuilder::new(90).announce(&[&url]).write(dir.path());
        Self {
            sample: sample.unwrap(),
            dir,
            requests,
            leecher,
        }
    }

    fn seed(&self, whose: &[&str]) -> Daemon {
        let mut arguments = Vec::new();
        for whose in whose {
            arguments.extend(["--connect", whose]);
        }
        Daemon::seed_with(self.dir.path(), &arguments)
    }

    /// The next call.
    fn called(&self) -> TcpStream {
        let (stream, _) = poll_until(DEADLINE, || {
            let accepted = self.leecher.accept();
            if let Err(error) = &accepted {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
            accepted
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// The 68 bytes that a caller says first.
    fn greeted(&self) -> (TcpStream, [u8; 68]) {
        let mut stream = self.called();
        let mut handshake = [0; 68];
        stream.read_exact(&mut handshake).unwrap();
        (stream, handshake)
    }
}

fn ends(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn a_peer_named_by_a_tracker_is_dialled_and_served() {
    let scene = Scene::new();
    let mut daemon = scene.seed(&["all"]);
    let (stream, handshake) = scene.greeted();
    assert_eq!(&handshake[28..48], &scene.sample.info_hash);
    let request = scene.requests.recv_timeout(DEADLINE).unwrap();
    assert!(request.contains("&numwant=50&"), "{request}");
    let mut leecher = Leecher { stream, handshake };
    let answer = leecher::handshake(FAST, scene.sample.info_hash, b"-XX0000-abcdefghijkl");
    leecher.send(&answer);
    leecher.until_unchoked();
    for index in 0..scene.sample.pieces {
        let start = u64::from(index) * u64::from(scene.sample.piece_length);
        let left = scene.sample.total_length - start;
        let piece = u32::try_from(left)
            .unwrap_or(u32::MAX)
            .min(scene.sample.piece_length);
        for begin in (0..piece).step_by(16384) {
            let length = (piece - begin).min(16384);
            let block = leecher.block(index, begin, length);
            assert_eq!(block, scene.sample.block(index, begin, length));
        }
    }
    daemon.assert_alive();
}

#[test]
fn peers_are_dialled_only_with_the_option() {
    for whose in [&[][..], &["0123456789012345678901234567890123456789"]] {
        let scene = Scene::new();
        let mut daemon = scene.seed(whose);
        let request = scene.requests.recv_timeout(DEADLINE).unwrap();
        assert!(request.contains("&numwant=1&"), "{request}");
        daemon.wait_for_line("answers; it has 1 torrents");
        // Its answer has been dealt with long before it has stopped.
        daemon.signal("TERM");
        daemon.wait();
        let nobody = scene.leecher.accept().unwrap_err();
        assert_eq!(nobody.kind(), ErrorKind::WouldBlock, "{whose:?}");
    }
}

#[test]
fn one_torrent_is_selected_by_its_info_hash() {
    let scene = Scene::new();
    let other = "0123456789012345678901234567890123456789";
    let _daemon = scene.seed(&[other, &scene.sample.info_hash_hex()]);
    scene.greeted();
}

#[test]
fn a_dialled_peer_that_answers_for_another_torrent_or_not_at_all_is_closed() {
    let scene = Scene::new();
    let daemon = scene.seed(&["all"]);
    let (mut stream, _) = scene.greeted();
    stream
        .write_all(&leecher::handshake(FAST, [7; 20], b"-XX0000-abcdefghijkl"))
        .unwrap();
    assert!(ends(stream));
    drop(daemon);
    let _daemon = scene.seed(&["all"]);
    let (mut stream, _) = scene.greeted();
    stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
    assert!(ends(stream));
}

#[test]
fn the_process_itself_is_not_served() {
    let scene = Scene::new();
    let _daemon = scene.seed(&["all"]);
    let (mut stream, handshake) = scene.greeted();
    stream.write_all(&handshake).unwrap();
    assert!(ends(stream));
}

#[test]
fn a_connected_peer_is_not_dialled() {
    let (gate, gated) = mpsc::channel();
    let scene = Scene::with_tracker_behind(Some(gated));
    let mut daemon = scene.seed(&["all"]);
    let mut leecher = Leecher::connect(daemon.address, scene.sample.info_hash, FAST);
    leecher.until_unchoked();
    gate.send(()).unwrap();
    daemon.wait_for_line("answers; it has 1 torrents");
    leecher.block(0, 0, 16384);
    daemon.signal("TERM");
    daemon.wait();
    assert!(scene.leecher.accept().is_err(), "called a second time");
}
