//! A disk that hangs: a FUSE program (bindfs) that is stopped. What is on other disks is served as if it
//! were not there.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::mounts::Apart;
use crate::scene::torrent;
use crate::support::leecher::{self, FAST_AND_EXTENDED, Leecher, PLAIN, Seen};
use crate::support::torrent::{Sample, TorrentBuilder};
use crate::support::wait_until;

/// More than the threads that one disk may keep, and than the metadata that is read at the same time.
const CROWD: u32 = 70;

/// Two disks, `lib/sound` and `lib/hung`, the second of a program that can be stopped.
struct Disks {
    apart: Apart,
    program: Program,
    status: SocketAddr,
}

/// The program of a FUSE file system.
struct Program(Child);

impl Program {
    fn signal(&self, name: &str) {
        let process = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &process]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The requests that wait for it fail then.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Disks {
    /// What `prepare` puts into `away` is what is on the second disk.
    fn new(prepare: impl FnOnce(&std::path::Path)) -> Self {
        let arguments = [
            "--status",
            "127.0.0.1:0",
            "--max-unchoked",
            "200",
            "{base}/lib/sound",
            "{base}/lib/hung",
        ];
        let mut apart = Apart::bare(&arguments, |base| {
            for directory in ["lib/sound", "lib/hung"] {
                fs::create_dir_all(base.join(directory)).unwrap();
            }
            torrent(0, &base.join("lib/sound"));
            prepare(base);
        });
        let line = apart.scene.daemon.wait_for_line("status at http://");
        let (_, address) = line.split_once("http://").unwrap();
        let status = address.trim_end_matches('/').parse().unwrap();
        let process = apart.scene.daemon.pid().to_string();
        let program = Command::new("nsenter")
            .args(["--target", &process, "--user", "--mount"])
            .args(["--preserve-credentials", "bindfs", "-f"])
            .args([apart.scene.path("away"), apart.scene.path("lib/hung")])
            .stdin(Stdio::null())
            .spawn()
            .expect("nsenter and bindfs are installed, see `make test-deps`");
        Disks {
            apart,
            program: Program(program),
            status,
        }
    }

    fn until_served(&self, sample: &Sample) {
        wait_until(leecher::DEADLINE, "served", || {
            self.apart.scene.is_served(sample)
        });
    }

    fn connect(&self, sample: &Sample) -> Leecher {
        Leecher::connect(
            self.apart.scene.daemon.address,
            sample.info_hash,
            FAST_AND_EXTENDED,
        )
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.status).unwrap();
        stream.set_read_timeout(Some(leecher::DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Asks for the first piece of the metadata.
fn ask_for_metadata(leecher: &mut Leecher) {
    leecher.send(&leecher::message(20, b"\0d1:md11:ut_metadatai7eee"));
    leecher.send(&leecher::message(20, b"\x01d8:msg_typei0e5:piecei0ee"));
}

/// All of a small torrent, and its metadata.
fn assert_serves(peer: &mut Leecher, sample: &Sample) {
    peer.send(&leecher::interested());
    peer.until_unchoked();
    ask_for_metadata(peer);
    peer.until(|seen| matches!(seen, Seen::Extended { id: 7, .. }));
    let length = u32::try_from(sample.total_length).unwrap();
    assert!(peer.block(0, 0, length) == sample.block(0, 0, length));
}

#[test]
fn a_disk_that_hangs_takes_nothing_else_with_it() {
    let (mut on_hung, mut large) = (Vec::new(), None);
    let mut disks = Disks::new(|base| {
        let away = base.join("away");
        on_hung.extend((0..CROWD).map(|seed| torrent(100 + u64::from(seed), &away)));
        let pieces = TorrentBuilder::new(99).piece_length(1 << 18);
        let length = u64::from(CROWD) << 18;
        large = Some(pieces.length(length).write(&away).unwrap());
    });
    let large = large.unwrap();
    let base = disks.apart.scene.path("lib/sound");
    let [loaded, unloaded, gathered] = [1, 2, 3].map(|seed| match seed {
        // One block of it lies in many files.
        3 => {
            let many = (0..60).fold(TorrentBuilder::new(seed), |builder, file| {
                builder.file(format!("{file}"), 100)
            });
            many.write(&base).unwrap()
        }
        _ => torrent(seed, &base),
    });
    // It comes last, so that the others are known too; and only what is asked for is loaded.
    for sample in [&loaded, &large, &on_hung[0]] {
        disks.until_served(sample);
    }
    let mut readers: Vec<Leecher> = (0..CROWD).map(|_| disks.connect(&large)).collect();
    for reader in &mut readers {
        reader.send(&leecher::interested());
        reader.until_unchoked();
    }
    disks.program.signal("STOP");

    let address = disks.apart.scene.daemon.address;
    for (reader, piece) in readers.iter_mut().zip(0..) {
        reader.send(&leecher::request(piece, 0, 16 * 1024));
        ask_for_metadata(reader);
    }
    let _waiting: Vec<TcpStream> = on_hung[1..]
        .iter()
        .map(|sample| {
            let mut stream = leecher::dial(address);
            let handshake = leecher::handshake(PLAIN, sample.info_hash, b"-TE0000-abcdefghijkl");
            stream.write_all(&handshake).unwrap();
            stream
        })
        .collect();

    for sample in [&unloaded, &loaded, &gathered] {
        assert_serves(&mut disks.connect(sample), sample);
    }

    let daemon = &mut disks.apart.scene.daemon;
    let line = daemon.wait_for_line("hangs: what is on it is not served");
    assert!(line.contains("/lib/hung hangs"), "{line}");
    let metrics = disks.get("/metrics");
    assert!(metrics.contains("/lib/hung\"} "), "{metrics}");
    let named = disks.get("/status.json").contains("/lib/hung\":");
    assert!(named && disks.get("/status.txt").contains("\nhung      "));

    disks.program.signal("CONT");
    let daemon = &mut disks.apart.scene.daemon;
    daemon.wait_for_line("/lib/hung answers again");
    assert!(!disks.get("/status.txt").contains("\nhung "));
    for (reader, piece) in readers.iter_mut().zip(0..) {
        let wanted = Seen::Piece {
            index: piece,
            begin: 0,
            block: large.block(piece, 0, 16 * 1024),
        };
        reader.until(|seen| *seen == wanted);
    }
    for sample in &on_hung[1..] {
        assert_serves(&mut disks.connect(sample), sample);
    }
}

#[test]
fn a_rescan_leaves_out_a_disk_that_hangs() {
    let mut on_hung = Vec::new();
    let mut disks = Disks::new(|base| {
        on_hung.extend((0..3).map(|seed| torrent(100 + seed, &base.join("away"))));
    });
    let base = disks.apart.scene.path("lib/sound");
    on_hung.iter().for_each(|sample| disks.until_served(sample));
    disks.program.signal("STOP");
    disks.apart.scene.daemon.signal("HUP");
    // What is new elsewhere is found before the scan, by it, and after it.
    let new = torrent(1, &base);
    disks.apart.scene.until_served(&new);
    let daemon = &mut disks.apart.scene.daemon;
    daemon.wait_for_line("hangs: it is searched when it answers");
    let line = daemon.wait_for_line("reloaded: ");
    assert!(line.contains(" 5 torrents, "), "{line}");
    let later = torrent(2, &base);
    disks.apart.scene.until_served(&later);
    // What was on that disk is still there, and what has come to it is found.
    let more = torrent(200, &disks.apart.scene.path("away"));
    disks.program.signal("CONT");
    for sample in on_hung.iter().chain([&more]) {
        disks.until_served(sample);
    }
}
