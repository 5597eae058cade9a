//! The attacks: what each of a crowd says, when, and whether it reads the answers.
//!
//! Pure: bytes and times. `crowd` plays them.

use std::time::Duration;

use crate::leecher::{FAST_AND_EXTENDED, cancel, handshake, interested, message, request};

/// What the attackers know of the seeder's torrents.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The torrent that honest peers download too.
    pub(crate) info_hash: [u8; 20],
    pub(crate) pieces: u32,
    /// A torrent whose info dictionary is long.
    pub(crate) long_info_hash: [u8; 20],
    pub(crate) long_info_bytes: usize,
}

/// Makes what is sent.
pub(crate) type Bytes = fn(&Target) -> Vec<u8>;

/// How much of the answers an attacker reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reads {
    All,
    /// So many bytes a second.
    Slowly(u32),
    Nothing,
}

/// What one attacker does. It comes again when it is disconnected, with all of it from the beginning.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// Times the usual number of connections.
    pub(crate) times: usize,
    /// Sent first, handshake included.
    pub(crate) opening: Bytes,
    /// Sent each time it is unchoked; only who reads knows when that is.
    pub(crate) when_unchoked: Bytes,
    /// Sent again after each of these intervals.
    pub(crate) again: Option<(Duration, Bytes)>,
    /// Sent without a pause, as fast as the crowd's line and the seeder take it.
    pub(crate) flood: Bytes,
    pub(crate) reads: Reads,
    /// The flood goes by UDP, a datagram each; nothing else is sent.
    pub(crate) datagrams: bool,
    /// Leaves after so long, and comes again.
    pub(crate) stays: Option<Duration>,
    /// Options of the daemon beside the defaults.
    pub(crate) options: &'static [&'static str],
}

/// So few that the crowd can take them all: in attacks on slots, and in those on places, where there
/// are twice as many attackers as places.
const FEW_SLOTS: &[&str] = &["-N", "50"];
const FEW_PLACES: &[&str] = &["--max-peers", "500"];
const INTERVAL: Duration = Duration::from_secs(20);
const BLOCK: u32 = 16 * 1024;

const SILENCE: Attack = Attack {
    name: "",
    times: 1,
    opening: nothing,
    when_unchoked: nothing,
    again: None,
    flood: nothing,
    reads: Reads::All,
    datagrams: false,
    stays: None,
    options: &[],
};

/// All of them, in the order of the table.
pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "nothing",
        times: 0,
        ..SILENCE
    },
    Attack {
        name: "download like anybody",
        options: FEW_SLOTS,
        opening: |target| [hello(target), interested()].concat(),
        when_unchoked: |target| blocks(target, 8),
        again: Some((Duration::from_millis(200), |target| blocks(target, 8))),
        ..SILENCE
    },
    Attack {
        name: "ask for one byte each 20 s",
        options: FEW_SLOTS,
        opening: |target| [hello(target), interested()].concat(),
        when_unchoked: |_| request(0, 0, 1),
        again: Some((INTERVAL, |_| request(0, 0, 1))),
        ..SILENCE
    },
    Attack {
        name: "ask and never read",
        options: FEW_SLOTS,
        opening: |target| [hello(target), interested()].concat(),
        again: Some((Duration::from_secs(1), |target| blocks(target, 64))),
        reads: Reads::Nothing,
        ..SILENCE
    },
    Attack {
        name: "ask and read 1 KB/s",
        options: FEW_SLOTS,
        opening: |target| [hello(target), interested()].concat(),
        when_unchoked: |target| blocks(target, 64),
        again: Some((INTERVAL, |target| blocks(target, 2))),
        reads: Reads::Slowly(1000),
        ..SILENCE
    },
    Attack {
        name: "interested, never ask",
        options: FEW_SLOTS,
        opening: |target| [hello(target), interested()].concat(),
        ..SILENCE
    },
    Attack {
        name: "flood requests for one byte",
        options: FEW_SLOTS,
        opening: |target| [hello(target), interested()].concat(),
        flood: |target| {
            (0..64)
                .flat_map(|n| request(n % target.pieces, n, 1))
                .collect()
        },
        ..SILENCE
    },
    Attack {
        name: "say nothing",
        options: FEW_PLACES,
        times: 2,
        ..SILENCE
    },
    Attack {
        name: "half a handshake, and again",
        opening: |target| hello(target)[..40].to_vec(),
        stays: Some(Duration::from_secs(1)),
        options: FEW_PLACES,
        times: 2,
        ..SILENCE
    },
    Attack {
        name: "shake hands, leave, and again",
        opening: |target| [hello(target), interested()].concat(),
        stays: Some(Duration::from_millis(200)),
        options: FEW_PLACES,
        times: 2,
        ..SILENCE
    },
    Attack {
        name: "not interested each 20 s",
        opening: |target| [hello(target), not_interested()].concat(),
        again: Some((INTERVAL, |_| not_interested())),
        options: FEW_PLACES,
        times: 2,
        ..SILENCE
    },
    Attack {
        name: "toggle interest",
        opening: hello,
        flood: |_| [interested(), not_interested()].concat().repeat(64),
        ..SILENCE
    },
    Attack {
        name: "ask for metadata",
        opening: long_hello,
        flood: metadata,
        ..SILENCE
    },
    Attack {
        name: "ask for metadata, 4 times as many",
        times: 4,
        opening: long_hello,
        flood: metadata,
        ..SILENCE
    },
    Attack {
        name: "ask for metadata, never read",
        opening: long_hello,
        flood: metadata,
        reads: Reads::Nothing,
        ..SILENCE
    },
    Attack {
        name: "flood requests, never read",
        opening: |target| [hello(target), interested()].concat(),
        flood: |target| blocks(target, 64),
        reads: Reads::Nothing,
        ..SILENCE
    },
    Attack {
        name: "flood cancels and the same request",
        options: FEW_SLOTS,
        opening: |target| [hello(target), interested()].concat(),
        flood: |_| {
            [request(0, 0, BLOCK), cancel(0, 0, BLOCK)]
                .concat()
                .repeat(64)
        },
        ..SILENCE
    },
    Attack {
        name: "flood haves",
        opening: hello,
        flood: |target| {
            // All but the last piece, or it would be a seed.
            let pieces = 0..target.pieces - 1;
            pieces
                .flat_map(|index| message(4, &index.to_be_bytes()))
                .collect()
        },
        ..SILENCE
    },
    Attack {
        name: "flood bitfields",
        opening: hello,
        flood: |target| message(5, &vec![0x55; target.pieces.div_ceil(8) as usize]).repeat(64),
        ..SILENCE
    },
    Attack {
        name: "flood keep-alives and unknown messages",
        opening: hello,
        flood: |_| {
            let unknown = [9, 13, 21, 23, 99].map(|id| message(id, &[0; 48]));
            [
                [0; 4].as_slice(),
                &unknown.concat(),
                &message(20, &[77; 200]),
            ]
            .concat()
            .repeat(16)
        },
        ..SILENCE
    },
    Attack {
        name: "flood extension handshakes",
        opening: long_hello,
        flood: |_| {
            let names = (0..700).map(|n| format!("6:ut_{n:03}i{}e", n % 256));
            let names: String = names.collect();
            message(
                20,
                format!("\0d1:md{names}e1:v200:{}e", "x".repeat(200)).as_bytes(),
            )
        },
        ..SILENCE
    },
    Attack {
        name: "begin long messages, drip a byte each second",
        opening: |target| {
            let begun = message(20, &[b'd'; 16_000]);
            [hello(target), begun[..15_000].to_vec()].concat()
        },
        again: Some((Duration::from_secs(1), |_| vec![b'e'])),
        ..SILENCE
    },
    Attack {
        name: "illegal requests, and again",
        opening: |target| [hello(target), request(target.pieces, 0, BLOCK)].concat(),
        ..SILENCE
    },
    Attack {
        name: "unknown torrents, and again",
        opening: |_| {
            let unknown = std::array::from_fn(|_| fastrand::u8(..));
            handshake(FAST_AND_EXTENDED, unknown, b"-AT0000-abcdefghijkl")
        },
        ..SILENCE
    },
    Attack {
        name: "flood uTP SYNs",
        flood: |_| {
            // BEP 29: ST_SYN of version 1, a connection id, times, a window, a sequence number.
            let syn = [
                0x41, 0, 0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 1, 0, 0,
            ];
            syn.to_vec()
        },
        datagrams: true,
        ..SILENCE
    },
];

fn nothing(_: &Target) -> Vec<u8> {
    Vec::new()
}

fn not_interested() -> Vec<u8> {
    message(3, &[])
}

/// A handshake, and that the peer has nothing yet.
fn hello(target: &Target) -> Vec<u8> {
    let shaken = handshake(FAST_AND_EXTENDED, target.info_hash, b"-AT0000-abcdefghijkl");
    [shaken, message(15, &[])].concat()
}

/// A handshake for the torrent with the long info dictionary, and an extension handshake (BEP 10).
fn long_hello(target: &Target) -> Vec<u8> {
    let shaken = handshake(
        FAST_AND_EXTENDED,
        target.long_info_hash,
        b"-AT0000-abcdefghijkl",
    );
    [shaken, message(20, b"\0d1:md11:ut_metadatai1eee")].concat()
}

/// Requests for whole blocks.
fn blocks(target: &Target, count: u32) -> Vec<u8> {
    let begin = |n: u32| n % 16 * BLOCK;
    (0..count)
        .flat_map(|n| request(fastrand::u32(..target.pieces), begin(n), BLOCK))
        .collect()
}

/// Requests for each piece of the long info dictionary (BEP 9).
fn metadata(target: &Target) -> Vec<u8> {
    (0..target.long_info_bytes.div_ceil(16 * 1024))
        .flat_map(|piece| {
            let ask = format!("\u{1}d8:msg_typei0e5:piecei{piece}ee");
            message(20, ask.as_bytes())
        })
        .collect()
}
