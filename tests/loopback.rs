//! The daemon as a process, asked over loopback by a leecher that says exactly what it is told to.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use support::daemon::Daemon;
use support::leecher::{self, FAST, FAST_AND_EXTENDED, Leecher, PLAIN, Seen};
use support::torrent::{Sample, TorrentBuilder};
use support::wait_until;

/// The usual request.
const BLOCK: u32 = 16 * 1024;

/// A multi-file torrent with everything odd about it: tiny files that share a block, an empty one,
/// padding, a name in UTF-8, a short last piece.
fn odd_torrent(dir: &Path) -> Sample {
    let mut builder = TorrentBuilder::new(1).name("odd").piece_length(BLOCK * 2);
    for number in 0..40 {
        builder = builder.file(format!("tiny/{number}"), 100 + number);
    }
    builder
        .file("empty", 0)
        .file("größer.bin", 300_001)
        .padding(7_777)
        .file("deep/er/last.bin", 65_537)
        .write(dir)
        .unwrap()
}

/// Asks for every block in order and compares it.
fn download(leecher: &mut Leecher, sample: &Sample) {
    for (index, begin, length) in blocks(sample) {
        let block = leecher.block(index, begin, length);
        assert!(
            block == sample.block(index, begin, length),
            "{index}/{begin} differs"
        );
    }
}

fn blocks(sample: &Sample) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
    (0..sample.pieces).flat_map(|index| {
        let start = u64::from(index) * u64::from(sample.piece_length);
        let left = sample.total_length - start;
        let piece = u32::try_from(left.min(u64::from(sample.piece_length))).unwrap();
        (0..piece.div_ceil(BLOCK)).map(move |number| {
            let begin = number * BLOCK;
            (index, begin, BLOCK.min(piece - begin))
        })
    })
}

fn expect_full_bitfield(sample: &Sample, bitfield: &[u8]) {
    let ones: u32 = bitfield.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(bitfield.len(), sample.pieces.div_ceil(8) as usize);
    assert_eq!(ones, sample.pieces, "spare bits are zero, all others one");
    let trailing = bitfield.last().unwrap().trailing_zeros();
    assert_eq!(trailing, (8 - sample.pieces % 8) % 8);
}

#[test]
fn a_plain_peer_gets_every_byte_of_an_odd_torrent() {
    let dir = tempfile::tempdir().unwrap();
    let sample = odd_torrent(dir.path());
    let daemon = Daemon::seed(dir.path());
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, PLAIN);
    match leecher.receive() {
        Seen::Bitfield(bitfield) => expect_full_bitfield(&sample, &bitfield),
        other => panic!("a bitfield comes first, not {other:?}"),
    }
    leecher.send(&leecher::interested());
    leecher.until_unchoked();
    download(&mut leecher, &sample);
}

#[test]
fn a_fast_peer_gets_have_all_and_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let sample = odd_torrent(dir.path());
    let daemon = Daemon::seed(dir.path());
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    assert_eq!(leecher.receive(), Seen::HaveAll);
    leecher.send(&leecher::interested());
    leecher.until_unchoked();
    download(&mut leecher, &sample);
}

#[test]
fn reserved_bits_are_never_echoed() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(2).write(dir.path()).unwrap();
    let daemon = Daemon::seed(dir.path());
    let leecher = Leecher::connect(daemon.address, sample.info_hash, [0xff; 8]);
    assert_eq!(&leecher.handshake[20..28], &FAST_AND_EXTENDED);
    assert_eq!(&leecher.handshake[48..51], b"-HK");
}

#[test]
fn forty_eight_bytes_are_enough_for_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(3).write(dir.path()).unwrap();
    let daemon = Daemon::seed(dir.path());
    let mut stream = leecher::dial(daemon.address);
    let handshake = leecher::handshake(PLAIN, sample.info_hash, b"-TE0000-abcdefghijkl");
    stream.write_all(&handshake[..48]).unwrap();
    let mut answer = [0; 68];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[28..48], &sample.info_hash);
}

#[test]
fn a_magnet_link_gets_the_metadata() {
    let dir = tempfile::tempdir().unwrap();
    // More than two metadata pieces of 16 KiB.
    let sample = TorrentBuilder::new(4)
        .length(16 * 1024 * 1800)
        .unsorted()
        .write(dir.path())
        .unwrap();
    assert!(sample.info.len() > 2 * 16 * 1024);
    let daemon = Daemon::seed(dir.path());
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST_AND_EXTENDED);
    let greeting = leecher.until(|seen| matches!(seen, Seen::Extended { id: 0, .. }));
    let Seen::Extended { payload, .. } = greeting else {
        unreachable!()
    };
    assert!(payload.len() < 1000, "rtorrent's buffer is small");
    let text = String::from_utf8_lossy(&payload).into_owned();
    assert!(text.contains(&format!("13:metadata_sizei{}e", sample.info.len())));
    assert!(text.contains("11:upload_onlyi1e") && text.contains("4:reqqi2000e"));

    leecher.send(&leecher::message(20, b"\0d1:md11:ut_metadatai7eee"));
    let mut info: Vec<u8> = Vec::new();
    for piece in 0..sample.info.len().div_ceil(16 * 1024) {
        let ask = format!("\x01d8:msg_typei0e5:piecei{piece}ee");
        leecher.send(&leecher::message(20, ask.as_bytes()));
        let Seen::Extended { payload, .. } =
            leecher.until(|seen| matches!(seen, Seen::Extended { id: 7, .. }))
        else {
            unreachable!()
        };
        let header = format!(
            "d8:msg_typei1e5:piecei{piece}e10:total_sizei{}ee",
            sample.info.len()
        );
        info.extend(
            payload
                .strip_prefix(header.as_bytes())
                .expect("a data message"),
        );
    }
    assert!(
        info == sample.info,
        "the raw info dictionary, as it is in the file"
    );

    leecher.send(&leecher::message(20, b"\x01d8:msg_typei0e5:piecei999ee"));
    let seen = leecher.until(|seen| matches!(seen, Seen::Extended { id: 7, .. }));
    let reject = b"d8:msg_typei2e5:piecei999ee".to_vec();
    assert_eq!(
        seen,
        Seen::Extended {
            id: 7,
            payload: reject
        }
    );
}

#[test]
fn ipv6_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let sample = odd_torrent(dir.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command
        .args(["seed", "-6", "--bind", "::1", "-p", "0"])
        .arg(dir.path());
    let daemon = Daemon::start(command);
    assert!(daemon.address.is_ipv6());
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    download(&mut leecher, &sample);
}

#[test]
fn a_request_before_interested_counts_as_interested() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(5).write(dir.path()).unwrap();
    let daemon = Daemon::seed_with(dir.path(), &["-N", "1"]);
    let mut first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    first.until_unchoked();
    // The only slot is taken: the second is not unchoked by its handshake, and asks all the same.
    let mut second = Leecher::connect(daemon.address, sample.info_hash, FAST);
    second.send(&leecher::request(0, 0, BLOCK));
    let rejected = Seen::Reject {
        index: 0,
        begin: 0,
        length: BLOCK,
    };
    second.until(|seen| *seen == rejected);
    drop(first);
    second.until_unchoked();
}

#[test]
fn slots_rotate_when_credit_is_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(6)
        .length(2_000_000)
        .write(dir.path())
        .unwrap();
    let daemon = Daemon::seed_with(dir.path(), &["-N", "1", "-C", "64K"]);
    let mut first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    first.until_unchoked();
    let mut second = Leecher::connect(daemon.address, sample.info_hash, FAST);
    second.send(&leecher::interested());
    for index in 0..64 {
        first.send(&leecher::request(index, 0, BLOCK));
    }
    // While the first has used no more than its credit, the second waits; then it has the slot.
    let mut served = 0;
    first.until(|seen| {
        served += usize::from(matches!(seen, Seen::Piece { .. }));
        *seen == Seen::Choke
    });
    assert!(
        (4..=36).contains(&served),
        "{served} blocks in a turn of four"
    );
    second.until_unchoked();
    assert_eq!(second.block(1, 0, BLOCK), sample.block(1, 0, BLOCK));
}

#[test]
fn a_term_lasts_for_a_whole_piece() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(61)
        .piece_length(32 * BLOCK)
        .length(64 * u64::from(BLOCK))
        .write(dir.path())
        .unwrap();
    let daemon = Daemon::seed_with(
        dir.path(),
        &["-N", "1", "-C", "64K", "--super-seeding", "off"],
    );
    let mut first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    first.until_unchoked();
    let mut second = Leecher::connect(daemon.address, sample.info_hash, FAST);
    second.send(&leecher::interested());
    for number in 0..64 {
        first.send(&leecher::request(number / 32, number % 32 * BLOCK, BLOCK));
    }
    let mut served = 0;
    first.until(|seen| {
        served += usize::from(matches!(seen, Seen::Piece { .. }));
        *seen == Seen::Choke
    });
    assert!(
        (32..64).contains(&served),
        "{served} blocks, of 32 in a piece"
    );
}

/// Reads on until each of `pieces` was shown.
fn until_shown(leecher: &mut Leecher, pieces: &BTreeSet<u32>) {
    let mut missing = pieces.clone();
    while !missing.is_empty() {
        let shown = leecher.until(|seen| matches!(seen, Seen::Have(_)));
        let Seen::Have(piece) = shown else {
            unreachable!()
        };
        missing.remove(&piece);
    }
}

#[test]
fn pieces_are_hidden_from_further_leechers_until_the_leechers_together_have_all() {
    let dir = tempfile::tempdir().unwrap();
    let sample = odd_torrent(dir.path());
    let daemon = Daemon::seed(dir.path());
    let mut first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    assert_eq!(first.receive(), Seen::HaveAll);
    let mut second = Leecher::connect(daemon.address, sample.info_hash, FAST);
    assert_eq!(second.receive(), Seen::HaveNone);
    let Seen::Have(shown) = second.until(|seen| matches!(seen, Seen::Have(_))) else {
        unreachable!()
    };
    let begin_and_length = |wanted| move |&(index, ..): &(u32, u32, u32)| index == wanted;
    for (index, begin, length) in blocks(&sample).filter(begin_and_length(shown)) {
        let block = second.block(index, begin, length);
        assert!(block == sample.block(index, begin, length));
    }
    // All others are at the first leecher.
    let others: BTreeSet<u32> = (0..sample.pieces).filter(|piece| *piece != shown).collect();
    for piece in &others {
        first.send(&leecher::message(4, &piece.to_be_bytes()));
    }
    until_shown(&mut second, &others);
    let mut third = Leecher::connect(daemon.address, sample.info_hash, FAST);
    assert_eq!(third.receive(), Seen::HaveAll);
}

#[test]
fn a_leecher_that_asks_for_what_it_was_not_shown_is_shown_everything() {
    let dir = tempfile::tempdir().unwrap();
    let sample = odd_torrent(dir.path());
    let daemon = Daemon::seed(dir.path());
    let _first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    let mut second = Leecher::connect(daemon.address, sample.info_hash, FAST);
    second.until_unchoked();
    download(&mut second, &sample);
    until_shown(&mut second, &(0..sample.pieces).collect());
}

#[test]
fn with_super_seeding_off_nothing_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let sample = odd_torrent(dir.path());
    let daemon = Daemon::seed_with(dir.path(), &["--super-seeding", "off"]);
    let _first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    let mut second = Leecher::connect(daemon.address, sample.info_hash, FAST);
    assert_eq!(second.receive(), Seen::HaveAll);
}

/// A tracker that knows one more complete peer than us. It answers each announce when it is told to.
fn tracker_with_another_seed() -> (String, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let (sender, gate) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            gate.recv().unwrap();
            let answer = "HTTP/1.0 200 OK\r\n\r\nd8:completei2e8:intervali1800e5:peers0:e";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, sender)
}

#[test]
fn a_seed_that_a_tracker_counts_ends_hiding_unless_it_is_turned_on() {
    let (url, gate) = tracker_with_another_seed();
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(8).piece_length(BLOCK).length(400_000);
    let sample = sample.announce(&[&url]).write(dir.path()).unwrap();
    let everything: BTreeSet<u32> = (0..sample.pieces).collect();
    for mode in ["auto", "on"] {
        let mut daemon = Daemon::seed_with(dir.path(), &["--super-seeding", mode]);
        let _first = Leecher::connect(daemon.address, sample.info_hash, FAST);
        let mut second = Leecher::connect(daemon.address, sample.info_hash, FAST);
        assert_eq!(second.receive(), Seen::HaveNone, "nothing is known yet");
        gate.send(()).unwrap();
        daemon.wait_for_line(": answers;");
        let expected = match mode {
            "auto" => {
                until_shown(&mut second, &everything);
                Seen::HaveAll
            }
            _ => Seen::HaveNone,
        };
        let mut third = Leecher::connect(daemon.address, sample.info_hash, FAST);
        assert_eq!(third.receive(), expected);
        daemon.signal("TERM");
        gate.send(()).unwrap();
        assert!(daemon.wait().success());
    }
}

#[test]
fn a_seed_that_a_tracker_has_counted_is_known_when_leechers_come() {
    let (url, gate) = tracker_with_another_seed();
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(8).announce(&[&url]);
    let sample = sample.write(dir.path()).unwrap();
    gate.send(()).unwrap();
    let mut daemon = Daemon::seed(dir.path());
    daemon.wait_for_line(": answers;");
    let mut first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    assert_eq!(first.receive(), Seen::HaveAll);
    let mut second = Leecher::connect(daemon.address, sample.info_hash, FAST);
    assert_eq!(second.receive(), Seen::HaveAll);
}

#[test]
fn the_upload_limit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let length = 2 << 20;
    let sample = TorrentBuilder::new(7)
        .length(length)
        .write(dir.path())
        .unwrap();
    let daemon = Daemon::seed_with(dir.path(), &["--max-rate", "1M"]);
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    let began = Instant::now();
    download(&mut leecher, &sample);
    // Two seconds at this rate, less the burst; without the limit it takes milliseconds.
    assert!(
        began.elapsed() > Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn control_bytes_do_not_wait_for_the_upload_limit() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(20)
        .length(2_000_000)
        .write(dir.path())
        .unwrap();
    // One block a second, and two dozen peers that want twenty each.
    let daemon = Daemon::seed_with(dir.path(), &["--max-rate", "16K", "-N", "50"]);
    let mut leechers: Vec<Leecher> = (0..24)
        .map(|_| {
            let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
            leecher.until_unchoked();
            for index in 0..20 {
                leecher.send(&leecher::request(index, 0, BLOCK));
            }
            leecher
        })
        .collect();
    let mut last = leechers.pop().unwrap();
    // When some newcomers have been answered, all requests have been looked at and wait.
    for _ in 0..20 {
        Leecher::connect(daemon.address, sample.info_hash, FAST).until_unchoked();
    }
    let began = Instant::now();
    last.send(&leecher::cancel(19, 0, BLOCK));
    let seen = last.until(|seen| matches!(seen, Seen::Piece { .. } | Seen::Reject { .. }));
    assert!(matches!(seen, Seen::Reject { .. }), "a block came first");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn metadata_counts_against_the_upload_limit() {
    let dir = tempfile::tempdir().unwrap();
    // A dictionary of six pieces of 16 KiB.
    let sample = TorrentBuilder::new(19)
        .length(16 * 1024 * 4600)
        .write(dir.path())
        .unwrap();
    assert!(sample.info.len() > 5 * 16 * 1024);
    let daemon = Daemon::seed_with(dir.path(), &["--max-rate", "64K"]);
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST_AND_EXTENDED);
    leecher.send(&leecher::message(20, b"\0d1:md11:ut_metadatai7eee"));
    leecher.until_unchoked();
    let began = Instant::now();
    for number in 0..10 {
        let ask = format!("\x01d8:msg_typei0e5:piecei{}ee", number % 5);
        leecher.send(&leecher::message(20, ask.as_bytes()));
        leecher.until(|seen| matches!(seen, Seen::Extended { id: 7, .. }));
    }
    leecher.block(0, 0, BLOCK);
    // 160 KiB before the block, of which the burst is 64.
    assert!(
        began.elapsed() > Duration::from_millis(1000),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn peers_are_refused_at_capacity_and_accepted_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(8).write(dir.path()).unwrap();
    let mut daemon = Daemon::seed_with(dir.path(), &["--max-peers", "1"]);
    let first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    let mut refused = leecher::dial(daemon.address);
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
    daemon.wait_for_line("found no free connection slot");
    drop(first);
    // Until the daemon has seen the first one go, the house is still full.
    let handshake = leecher::handshake(FAST, sample.info_hash, b"-TE0000-abcdefghijkl");
    wait_until(leecher::DEADLINE, "the slot is free again", || {
        let mut next = leecher::dial(daemon.address);
        next.write_all(&handshake).ok();
        next.read(&mut [0]).unwrap_or(0) > 0
    });
}

#[test]
fn connections_from_one_address_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(9).write(dir.path()).unwrap();
    let daemon = Daemon::seed_with(dir.path(), &["--max-peers-per-ip", "2"]);
    let _first = Leecher::connect(daemon.address, sample.info_hash, FAST);
    let _second = Leecher::connect(daemon.address, sample.info_hash, FAST);
    let mut refused = leecher::dial(daemon.address);
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_utp_connection_request_is_reset_at_once() {
    let dir = tempfile::tempdir().unwrap();
    TorrentBuilder::new(10).write(dir.path()).unwrap();
    let daemon = Daemon::seed(dir.path());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(leecher::DEADLINE)).unwrap();
    let mut syn = [0; 20];
    syn[0] = 0x41;
    syn[2..4].copy_from_slice(&77_u16.to_be_bytes());
    syn[16..18].copy_from_slice(&1_u16.to_be_bytes());
    socket.send_to(&syn, daemon.address).unwrap();
    let mut answer = [0; 64];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((length, from), (20, daemon.address));
    assert_eq!(answer[0], 0x31, "ST_RESET, version 1");
    assert_eq!(answer[2..4], 77_u16.to_be_bytes());
}

#[test]
fn truncated_content_rejects_its_blocks_until_restored() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(11)
        .name("two")
        .file("broken", 1 << 20)
        .file("whole", 1 << 20)
        .write(dir.path())
        .unwrap();
    let broken = &sample.files[0].path;
    let content = fs::read(broken).unwrap();
    let mut daemon = seed_unwatched(dir.path());
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    // It is mapped, then cut: a load from the mapping would end the process.
    assert_eq!(leecher.block(0, 0, BLOCK), sample.block(0, 0, BLOCK));
    fs::File::options()
        .write(true)
        .open(broken)
        .unwrap()
        .set_len(10)
        .unwrap();
    leecher.send(&leecher::request(40, 0, BLOCK));
    let rejected = Seen::Reject {
        index: 40,
        begin: 0,
        length: BLOCK,
    };
    leecher.until(|seen| *seen == rejected);
    daemon.wait_for_line("broken");
    // The other file is served on, to the same peer.
    assert_eq!(leecher.block(100, 0, BLOCK), sample.block(100, 0, BLOCK));
    fs::write(broken, content).unwrap();
    until_served_again(&daemon, &sample, 40);
    daemon.assert_alive();
}

#[test]
fn a_batch_across_a_truncation_does_not_stall() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(18)
        .length(1 << 20)
        .piece_length(1 << 20)
        .write(dir.path())
        .unwrap();
    let daemon = seed_unwatched(dir.path());
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    // Now the whole piece is known to be in memory. Then the file is cut within it.
    assert_eq!(leecher.block(0, 0, BLOCK), sample.block(0, 0, BLOCK));
    fs::File::options()
        .write(true)
        .open(&sample.files[0].path)
        .unwrap()
        .set_len(u64::from(5 * BLOCK))
        .unwrap();
    // One write takes what is before the cut. The socket has room for more, so that no event will
    // ever say that it has.
    let requests: Vec<u8> = (1..20)
        .flat_map(|number| leecher::request(0, number * BLOCK, BLOCK))
        .collect();
    leecher.send(&requests);
    for number in 1..20 {
        match leecher.receive() {
            Seen::Piece { begin, block, .. } => {
                assert_eq!(begin, number * BLOCK);
                assert!(block == sample.block(0, begin, BLOCK), "{begin} differs");
            }
            Seen::Reject { .. } => assert!(number >= 5, "block {number} was there"),
            // A block was begun, that behind the cut or the last before it, since the kernel gives up parts
            // of a write that fails. When the file is found out to be wrong, it can be neither ended nor
            // rejected.
            Seen::Closed if (4..=5).contains(&number) => return,
            other => panic!("{other:?} for block {number}"),
        }
    }
}

#[test]
fn missing_content_rejects_its_blocks_until_restored() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(12)
        .length(1 << 20)
        .write(dir.path())
        .unwrap();
    let mut daemon = seed_unwatched(dir.path());
    let away = dir.path().join("away");
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    fs::rename(&sample.files[0].path, &away).unwrap();
    leecher.send(&leecher::request(3, 0, BLOCK));
    let rejected = Seen::Reject {
        index: 3,
        begin: 0,
        length: BLOCK,
    };
    leecher.until(|seen| *seen == rejected);
    fs::rename(&away, &sample.files[0].path).unwrap();
    until_served_again(&daemon, &sample, 3);
    daemon.assert_alive();
}

/// Where content is said to lie elsewhere, nobody watches it: what has changed is found when it is read.
fn seed_unwatched(dir: &Path) -> Daemon {
    Daemon::seed_with(dir, &["--content".as_ref(), dir.as_os_str()])
}

/// Asks again until the block is served, over a new connection each time: too many rejected requests
/// close one.
fn until_served_again(daemon: &Daemon, sample: &Sample, index: u32) {
    wait_until(leecher::DEADLINE, "the block is served again", || {
        let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
        leecher.until_unchoked();
        leecher.send(&leecher::request(index, 0, BLOCK));
        match leecher.until(|seen| matches!(seen, Seen::Piece { .. } | Seen::Reject { .. })) {
            Seen::Piece { block, .. } => {
                assert!(block == sample.block(index, 0, BLOCK));
                true
            }
            _ => false,
        }
    });
}

#[test]
fn list_prints_valid_torrents_and_the_reasons_of_refusals() {
    let dir = tempfile::tempdir().unwrap();
    let good = TorrentBuilder::new(13).write(dir.path()).unwrap();
    let short = TorrentBuilder::new(14).write(dir.path()).unwrap();
    fs::write(&short.files[0].path, "short").unwrap();
    fs::write(dir.path().join("rubbish.torrent"), "rubbish").unwrap();
    let good_path = dir.path().join("a\nb.torrent");
    fs::rename(dir.path().join("sample-13.torrent"), good_path).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "--list"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let first = text.lines().next().unwrap();
    assert!(first.starts_with(&good.info_hash_hex()), "{text}");
    assert!(first.ends_with("/a\\nb.torrent"), "one line each: {text}");
    assert!(!text.contains(&short.info_hash_hex()), "{text}");
    let refused = |name: &str| {
        text.lines()
            .any(|line| line.starts_with("refused: ") && line.contains(name))
    };
    assert!(
        refused("sample-14.torrent") && refused("rubbish.torrent"),
        "{text}"
    );
    assert!(text.ends_with("1 valid, 2 refused\n"), "{text}");
}

#[test]
fn a_requested_stop_exits_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(15).write(dir.path()).unwrap();
    for signal in ["TERM", "INT"] {
        let mut daemon = Daemon::seed(dir.path());
        let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
        daemon.signal(signal);
        assert!(daemon.wait().success());
        leecher.until_closed();
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    TorrentBuilder::new(16).write(dir.path()).unwrap();
    let daemon = Daemon::seed(dir.path());
    let port = daemon.address.port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "--bind", "127.0.0.1", "-p", &port])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
}

#[test]
fn a_repeated_address_is_listened_on_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::seed_with(dir.path(), &["--bind", "127.0.0.1", "-N", "1"]);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    daemon.wait_for_line("stopped");
    assert_eq!(daemon.count_lines("listening on "), 1);
}

#[test]
fn addresses_only_of_an_absent_family_are_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "-6", "--bind", "127.0.0.1", "/nowhere"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("--bind has no address of the chosen family"),
        "{text}"
    );
}

#[test]
fn content_is_found_in_a_separate_directory() {
    let torrents = tempfile::tempdir().unwrap();
    let content = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(17)
        .write_apart(torrents.path(), content.path())
        .unwrap();
    let option = format!("--content={}", content.path().display());
    let daemon = Daemon::seed_with(torrents.path(), &[option]);
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    download(&mut leecher, &sample);
}
