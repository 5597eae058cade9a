//! Encrypted connections (MSE) to a running seeder: what it selects, and peers that are broken or hostile.
//!
//! The peer's side is that of the program, which the tests of real clients hold to be right. `tests/clients`
//! has those.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use hekate::mse::cipher::Cipher;
use hekate::mse::dh::{KEY_LENGTH, PRIVATE_LENGTH, PrivateKey, PublicKey};
use hekate::mse::dialling::{Dialling, Offer, Progress};
use hekate::mse::{Ciphers, PADDING_MAX};
use hekate::wire::message::InfoHash;
use support::daemon::Daemon;
use support::leecher::{self, FAST, Leecher, Seen};
use support::torrent::{Sample, TorrentBuilder};
use support::wait_until;

const BLOCK: u32 = 16 * 1024;

struct Scene {
    dir: tempfile::TempDir,
    sample: Sample,
    daemon: Daemon,
}

fn scene(arguments: &[&str]) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(16)
        .length(12 << 20)
        .write(dir.path())
        .unwrap();
    let status = dir.path().join("status");
    let status = format!("unix:{}", status.display());
    // Leechers that have left may still be connected: they must not hide pieces from the next.
    let fixed = ["-t", "--super-seeding", "off", "--status", &status];
    let arguments = [&fixed, arguments].concat();
    let daemon = Daemon::seed_with(dir.path(), &arguments);
    Scene {
        dir,
        sample,
        daemon,
    }
}

/// How a peer encrypts its connection.
#[derive(Clone, Copy)]
struct How {
    plaintext: bool,
    /// The handshake is the initial payload, or comes behind the answer.
    payload: bool,
    /// The most bytes in one write.
    step: usize,
}

const RC4: How = How {
    plaintext: false,
    payload: true,
    step: usize::MAX,
};

const BOTH: How = How {
    plaintext: true,
    ..RC4
};

fn write(stream: &mut TcpStream, bytes: &[u8], step: usize) {
    bytes
        .chunks(step)
        .for_each(|part| stream.write_all(part).unwrap());
}

/// Goes through the handshake. Returns the streams behind it and what came already.
fn dial(
    address: SocketAddr,
    info_hash: &InfoHash,
    payload: &[u8],
    how: How,
) -> (TcpStream, Option<Box<Ciphers>>, Vec<u8>) {
    let offer = Offer {
        info_hash,
        plaintext: how.plaintext,
        payload,
    };
    let mut stream = leecher::dial(address);
    let (mut dialling, mut bytes) = Dialling::new([7; PRIVATE_LENGTH], &[9; 300]);
    loop {
        write(&mut stream, &bytes, how.step);
        bytes.clear();
        let mut received = vec![0; dialling.wanted().min(how.step)];
        let count = stream.read(&mut received).unwrap();
        assert_ne!(count, 0, "closed in the handshake");
        match dialling
            .receive(&received[..count], &offer, &mut bytes)
            .unwrap()
        {
            Progress::Bytes => {}
            Progress::Done(done) => return (stream, done.ciphers, done.received),
        }
    }
}

impl Scene {
    fn info_hash(&self) -> InfoHash {
        InfoHash(self.sample.info_hash)
    }

    /// An address where a plain peer is connected to the seeder by an encrypted connection. Answers one.
    fn encrypted(&self, how: How) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seeder, info_hash) = (self.daemon.address, self.info_hash());
        thread::spawn(move || {
            let (mut plain, _) = listener.accept().unwrap();
            let mut handshake = [0; 68];
            plain.read_exact(&mut handshake).unwrap();
            let (payload, rest) = handshake.split_at(68 * usize::from(how.payload));
            let (mut stream, ciphers, received) = dial(seeder, &info_hash, payload, how);
            let (mut send, mut receive) = match ciphers.map(|ciphers| *ciphers) {
                Some(Ciphers { send, receive }) => (Some(send), Some(receive)),
                None => (None, None),
            };
            plain.write_all(&received).unwrap();
            let mut rest = rest.to_vec();
            send.iter_mut().for_each(|cipher| cipher.apply(&mut rest));
            write(&mut stream, &rest, how.step);
            let (from, to) = (stream.try_clone().unwrap(), plain.try_clone().unwrap());
            thread::spawn(move || pass(from, to, &mut receive, usize::MAX));
            pass(plain, stream, &mut send, how.step);
        });
        address
    }

    fn metric(&self, name: &str) -> String {
        let socket = self.dir.path().join("status");
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned()
    }

    fn count(&self, wire: &str) -> String {
        self.metric(&format!("hekate_peers_by_wire{{wire=\"{wire}\"}}"))
    }

    fn closed(&self, reason: &str) -> String {
        self.metric(&format!(
            "hekate_connections_closed_total{{reason=\"{reason}\"}}"
        ))
    }

    /// Waits until a connection has ended for this reason.
    fn ends_with(&self, reason: &str) {
        wait_until(leecher::DEADLINE, reason, || self.closed(reason) == "1");
    }

    fn serves(&self, address: SocketAddr) {
        let mut leecher = Leecher::connect(address, self.sample.info_hash, FAST);
        leecher.until_unchoked();
        for (index, begin, length) in [(0, 0, BLOCK), (7, 5, 1000), (2, 0, BLOCK)] {
            let block = leecher.block(index, begin, length);
            assert!(block == self.sample.block(index, begin, length));
        }
    }

    /// The keys are exchanged. Returns the stream, behind the seeder's padding too, and both ciphers of
    /// the peer.
    fn keyed(&self) -> (TcpStream, Vec<u8>, [u8; KEY_LENGTH]) {
        let mut stream = leecher::dial(self.daemon.address);
        let private = PrivateKey::new([5; PRIVATE_LENGTH]);
        stream.write_all(&private.public()).unwrap();
        let mut theirs = [0; KEY_LENGTH];
        stream.read_exact(&mut theirs).unwrap();
        let shared = private.shared(&PublicKey::new(&theirs).unwrap());
        let mut bytes = hash(&[b"req1", &shared]).to_vec();
        let name = hash(&[b"req2", &self.sample.info_hash]);
        let mask = hash(&[b"req3", &shared]);
        bytes.extend(name.iter().zip(mask).map(|(name, mask)| name ^ mask));
        (stream, bytes, shared)
    }

    /// Sends an offer behind the keys, and waits for the end of the connection. Nothing but padding came
    /// before.
    fn refuses(&self, offer: &[u8], reason: &str) {
        let (mut stream, mut bytes, shared) = self.keyed();
        let mut offer = offer.to_vec();
        Cipher::of_dialling_side(&shared, &self.info_hash()).apply(&mut offer);
        bytes.extend(offer);
        stream.write_all(&bytes).unwrap();
        let mut padding = Vec::new();
        read_to_end(&mut stream, &mut padding);
        assert!(padding.len() <= PADDING_MAX, "{}", padding.len());
        self.ends_with(reason);
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 20] {
    use sha1::{Digest, Sha1};
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// A reset is an end too.
fn read_to_end(stream: &mut TcpStream, bytes: &mut Vec<u8>) {
    let read = stream.read_to_end(bytes);
    let reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
    assert!(
        read.as_ref().is_ok() || read.as_ref().is_err_and(reset),
        "{read:?}"
    );
}

fn pass(mut from: TcpStream, mut to: TcpStream, cipher: &mut Option<Cipher>, step: usize) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
    {
        let bytes = &mut buffer[..count];
        cipher.iter_mut().for_each(|cipher| cipher.apply(bytes));
        if bytes
            .chunks(step)
            .try_for_each(|part| to.write_all(part))
            .is_err()
        {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}

#[test]
fn both_methods_serve_blocks_however_the_bytes_are_cut() {
    let scene = scene(&[]);
    for plaintext in [true, false] {
        for payload in [true, false] {
            for step in [1, usize::MAX] {
                let how = How {
                    plaintext,
                    payload,
                    step,
                };
                scene.serves(scene.encrypted(how));
            }
        }
    }
    assert_eq!(scene.metric("hekate_keys_exchanged_total"), "8");
}

#[test]
fn connections_are_counted_by_wire() {
    let scene = scene(&[]);
    let connect = |address| {
        let mut leecher = Leecher::connect(address, scene.sample.info_hash, FAST);
        leecher.until_unchoked();
        leecher
    };
    let peers = [
        connect(scene.daemon.address),
        connect(scene.encrypted(BOTH)),
        connect(scene.encrypted(RC4)),
        connect(scene.encrypted(RC4)),
    ];
    let counts = || ["tcp", "tcp_mse_plaintext", "tcp_mse_rc4"].map(|wire| scene.count(wire));
    assert_eq!(counts(), ["1", "1", "2"]);
    drop(peers);
    wait_until(leecher::DEADLINE, "all have left", || {
        counts() == ["0", "0", "0"]
    });
}

/// A reader that stops and goes on: the seeder keeps enciphered bytes that the socket does not take.
#[test]
fn a_slow_reader_gets_every_enciphered_byte() {
    let scene = scene(&[]);
    let mut leecher = Leecher::connect(scene.encrypted(RC4), scene.sample.info_hash, FAST);
    leecher.until_unchoked();
    let length = scene.sample.piece_length;
    let blocks = || {
        let pieces = u32::try_from(scene.sample.total_length / u64::from(length)).unwrap();
        (0..pieces)
            .flat_map(move |piece| (0..length / BLOCK).map(move |block| (piece, block * BLOCK)))
    };
    let requests: Vec<u8> = blocks()
        .flat_map(|(piece, begin)| leecher::request(piece, begin, BLOCK))
        .collect();
    leecher.send(&requests);
    for (count, (index, begin)) in blocks().enumerate() {
        if count % 100 == 0 {
            thread::sleep(Duration::from_millis(30));
        }
        let block = scene.sample.block(index, begin, BLOCK);
        let seen = leecher.until(|seen| matches!(seen, Seen::Piece { .. }));
        assert!(
            seen == Seen::Piece {
                index,
                begin,
                block
            },
            "{index}/{begin}"
        );
    }
}

#[test]
fn content_that_is_gone_is_rejected_to_an_encrypted_peer() {
    let scene = scene(&[]);
    let mut leecher = Leecher::connect(scene.encrypted(RC4), scene.sample.info_hash, FAST);
    leecher.until_unchoked();
    let first = leecher.block(0, 0, BLOCK);
    assert!(first == scene.sample.block(0, 0, BLOCK));
    let content = &scene.sample.files[0].path;
    let content = std::fs::File::options().write(true).open(content);
    content.unwrap().set_len(1 << 20).unwrap();
    leecher.send(&leecher::request(100, 0, BLOCK));
    let seen = leecher.until(|seen| matches!(seen, Seen::Piece { .. } | Seen::Reject { .. }));
    assert!(matches!(seen, Seen::Reject { index: 100, .. }), "{seen:?}");
}

#[test]
fn an_encrypted_connection_may_be_required() {
    let scene = scene(&["--encryption", "require"]);
    let mut plain = leecher::dial(scene.daemon.address);
    let handshake = leecher::handshake(FAST, scene.sample.info_hash, b"-TE0000-abcdefghijkl");
    plain.write_all(&handshake).unwrap();
    let mut answer = Vec::new();
    read_to_end(&mut plain, &mut answer);
    assert!(answer.is_empty());
    scene.ends_with("not_encrypted");
    scene.serves(scene.encrypted(RC4));
    // Plain text is not selected, though it is offered.
    scene.serves(scene.encrypted(BOTH));
    let only_plaintext = [&[0; 8][..], &[0, 0, 0, 1], &[0; 4]].concat();
    scene.refuses(&only_plaintext, "encryption_failed");
}

#[test]
fn encryption_may_be_off() {
    let scene = scene(&["--encryption", "off"]);
    let mut stream = leecher::dial(scene.daemon.address);
    stream.write_all(&[0x42]).unwrap();
    let mut answer = Vec::new();
    read_to_end(&mut stream, &mut answer);
    assert!(answer.is_empty());
    scene.ends_with("not_bittorrent");
    scene.serves(scene.daemon.address);
}

#[test]
fn a_key_that_begins_like_a_plain_handshake_is_a_key() {
    let scene = scene(&[]);
    let mut keys = (0_u32..).map(|number| {
        let mut private = [1; PRIVATE_LENGTH];
        private[..4].copy_from_slice(&number.to_be_bytes());
        (private, PrivateKey::new(private).public())
    });
    let (private, key) = keys.find(|(_, key)| key[0] == 0x13).unwrap();
    let mut stream = leecher::dial(scene.daemon.address);
    write(&mut stream, &key, 1);
    let mut theirs = [0; KEY_LENGTH];
    stream.read_exact(&mut theirs).unwrap();
    let theirs = PublicKey::new(&theirs).unwrap();
    assert_ne!(PrivateKey::new(private).shared(&theirs), [0; KEY_LENGTH]);
    scene.serves(scene.daemon.address);
}

#[test]
fn a_weak_key_gets_no_answer() {
    let mut one = [0; KEY_LENGTH];
    one[KEY_LENGTH - 1] = 1;
    for key in [[0; KEY_LENGTH], one, [0xff; KEY_LENGTH]] {
        let scene = scene(&[]);
        let mut stream = leecher::dial(scene.daemon.address);
        stream.write_all(&key).unwrap();
        let mut answer = Vec::new();
        read_to_end(&mut stream, &mut answer);
        assert!(answer.is_empty());
        scene.ends_with("encryption_failed");
    }
}

#[test]
fn behind_our_key_comes_padding_and_nothing_else() {
    let scene = scene(&[]);
    let mut lengths = Vec::new();
    for _ in 0..20 {
        let mut stream = leecher::dial(scene.daemon.address);
        stream
            .write_all(&PrivateKey::new([5; PRIVATE_LENGTH]).public())
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        read_to_end(&mut stream, &mut answer);
        lengths.push(answer.len());
    }
    // A peer that has left already gets none.
    let all = KEY_LENGTH..=KEY_LENGTH + PADDING_MAX;
    assert!(
        lengths
            .iter()
            .all(|length| *length == 0 || all.contains(length)),
        "{lengths:?}"
    );
    let (mut stream, _, _) = scene.keyed();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut padding = Vec::new();
    let silent = stream.read_to_end(&mut padding).unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::WouldBlock);
    assert!(padding.len() <= PADDING_MAX);
}

#[test]
fn offers_that_make_no_sense_end_the_connection() {
    let no_method = [&[0; 8][..], &[0; 4], &[0; 4]].concat();
    let unknown_method = [&[0; 8][..], &[0xff, 0xff, 0xff, 0xfc], &[0; 4]].concat();
    let long_padding = [&[0; 8][..], &[0, 0, 0, 3], &[0xff, 0xff]].concat();
    let long_payload = [&[0; 8][..], &[0, 0, 0, 3], &[0, 0, 0xff, 0xff]].concat();
    let wrong_key = [&[1; 8][..], &[0, 0, 0, 3], &[0; 4]].concat();
    for offer in [
        no_method,
        unknown_method,
        long_padding,
        long_payload,
        wrong_key,
    ] {
        scene(&[]).refuses(&offer, "encryption_failed");
    }
}

#[test]
fn a_torrent_that_is_not_served_ends_the_connection() {
    let scene = scene(&[]);
    let (mut stream, mut bytes, _) = scene.keyed();
    *bytes.last_mut().unwrap() ^= 1;
    stream.write_all(&bytes).unwrap();
    read_to_end(&mut stream, &mut Vec::new());
    scene.ends_with("unknown_torrent");
}

#[test]
fn padding_without_an_end_is_not_read_for_long() {
    let scene = scene(&[]);
    let (mut stream, _, _) = scene.keyed();
    // It may be closed, and the rest be lost, while it is still written.
    stream.write_all(&[7; PADDING_MAX + 20]).ok();
    read_to_end(&mut stream, &mut Vec::new());
    scene.ends_with("encryption_failed");
}

#[test]
fn a_second_key_inside_an_encrypted_connection_is_no_handshake() {
    for how in [BOTH, RC4] {
        let scene = scene(&[]);
        let (mut stream, ciphers, _) = dial(scene.daemon.address, &scene.info_hash(), b"", how);
        let mut key = PrivateKey::new([3; PRIVATE_LENGTH]).public();
        if let Some(mut ciphers) = ciphers {
            ciphers.send.apply(&mut key);
        }
        stream.write_all(&key).unwrap();
        read_to_end(&mut stream, &mut Vec::new());
        scene.ends_with("not_bittorrent");
    }
}
