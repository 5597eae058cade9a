//! A leecher in a test's hands: it says exactly what it is told to, and shows what came back.
//!
//! Owns one blocking socket with a deadline on every read. It speaks the bytes of BEP 3, 6 and 10
//! by itself, so that a mistake in the product's encoder cannot hide behind the same mistake here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::torrent::Sample;

/// Nothing in these tests takes longer, unless it never comes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A message from the seeder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    KeepAlive,
    Choke,
    Unchoke,
    Bitfield(Vec<u8>),
    Have(u32),
    HaveAll,
    HaveNone,
    Piece {
        index: u32,
        begin: u32,
        block: Vec<u8>,
    },
    Reject {
        index: u32,
        begin: u32,
        length: u32,
    },
    Extended {
        id: u8,
        payload: Vec<u8>,
    },
    Other {
        id: u8,
        payload: Vec<u8>,
    },
    /// The seeder has closed the connection.
    Closed,
}

pub(crate) struct Leecher {
    pub(crate) stream: TcpStream,
    /// The 68 bytes that the seeder answered with.
    pub(crate) handshake: [u8; 68],
}

/// Reserved bits of the handshake.
pub(crate) const PLAIN: [u8; 8] = [0; 8];
pub(crate) const FAST: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0x04];
pub(crate) const FAST_AND_EXTENDED: [u8; 8] = [0, 0, 0, 0, 0, 0x10, 0, 0x04];

pub(crate) fn handshake(reserved: [u8; 8], info_hash: [u8; 20], peer_id: &[u8; 20]) -> Vec<u8> {
    let mut bytes = b"\x13BitTorrent protocol".to_vec();
    bytes.extend(reserved);
    bytes.extend(info_hash);
    bytes.extend(peer_id);
    bytes
}

pub(crate) fn message(id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (1 + payload.len() as u32).to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend(payload);
    bytes
}

pub(crate) fn request(index: u32, begin: u32, length: u32) -> Vec<u8> {
    let fields = [index, begin, length].map(u32::to_be_bytes).concat();
    message(6, &fields)
}

pub(crate) fn cancel(index: u32, begin: u32, length: u32) -> Vec<u8> {
    let fields = [index, begin, length].map(u32::to_be_bytes).concat();
    message(8, &fields)
}

pub(crate) fn interested() -> Vec<u8> {
    message(2, &[])
}

/// Connects without saying anything.
pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Gets all of a torrent that is no longer than a block, by a connection of its own.
pub(crate) fn download(address: SocketAddr, sample: &Sample) {
    let mut leecher = Leecher::connect(address, sample.info_hash, FAST);
    // Pieces are hidden if the leecher before is still connected; asking for them reveals them.
    let opening = leecher.receive();
    assert!(
        matches!(opening, Seen::HaveAll | Seen::HaveNone),
        "{opening:?}"
    );
    leecher.send(&interested());
    leecher.until_unchoked();
    let length = u32::try_from(sample.total_length).unwrap();
    assert!(leecher.block(0, 0, length) == sample.block(0, 0, length));
}

impl Leecher {
    /// Connects and exchanges handshakes.
    pub(crate) fn connect(address: SocketAddr, info_hash: [u8; 20], reserved: [u8; 8]) -> Self {
        let mut stream = dial(address);
        let ours = handshake(reserved, info_hash, b"-TE0000-abcdefghijkl");
        stream.write_all(&ours).unwrap();
        let mut handshake = [0; 68];
        stream.read_exact(&mut handshake).expect("a handshake");
        assert_eq!(&handshake[..20], b"\x13BitTorrent protocol");
        assert_eq!(&handshake[28..48], &info_hash);
        Self { stream, handshake }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// The next message; panics when none comes before the deadline.
    pub(crate) fn receive(&mut self) -> Seen {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if is_close(&error) => return Seen::Closed,
            Err(error) => panic!("no message came: {error}"),
        }
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 {
            return Seen::KeepAlive;
        }
        let mut body = vec![0; length];
        match self.stream.read_exact(&mut body) {
            Ok(()) => {}
            Err(error) if is_close(&error) => return Seen::Closed,
            Err(error) => panic!("half a message came: {error}"),
        }
        parse(&body)
    }

    /// Messages until `wanted` accepts one, which is returned; panics when the seeder closes.
    pub(crate) fn until(&mut self, mut wanted: impl FnMut(&Seen) -> bool) -> Seen {
        loop {
            let seen = self.receive();
            if wanted(&seen) {
                return seen;
            }
            assert_ne!(seen, Seen::Closed, "closed while something was awaited");
        }
    }

    pub(crate) fn until_unchoked(&mut self) {
        self.until(|seen| *seen == Seen::Unchoke);
    }

    /// Reads on until the seeder closes; panics when it does not.
    pub(crate) fn until_closed(&mut self) {
        while self.receive() != Seen::Closed {}
    }

    /// The block, which must be the next piece message.
    pub(crate) fn block(&mut self, index: u32, begin: u32, length: u32) -> Vec<u8> {
        self.send(&request(index, begin, length));
        match self.until(|seen| matches!(seen, Seen::Piece { .. } | Seen::Reject { .. })) {
            Seen::Piece {
                index: i,
                begin: b,
                block,
            } if (i, b) == (index, begin) => {
                assert_eq!(block.len(), length as usize);
                block
            }
            other => panic!("asked for {index}/{begin}+{length}, got {other:?}"),
        }
    }
}

fn is_close(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn word(payload: &[u8], number: usize) -> u32 {
    let bytes = payload[4 * number..4 * number + 4].try_into().unwrap();
    u32::from_be_bytes(bytes)
}

fn parse(body: &[u8]) -> Seen {
    let (id, payload) = (body[0], &body[1..]);
    match id {
        0 => Seen::Choke,
        1 => Seen::Unchoke,
        5 => Seen::Bitfield(payload.to_vec()),
        7 => Seen::Piece {
            index: word(payload, 0),
            begin: word(payload, 1),
            block: payload[8..].to_vec(),
        },
        4 => Seen::Have(word(payload, 0)),
        14 => Seen::HaveAll,
        15 => Seen::HaveNone,
        16 => Seen::Reject {
            index: word(payload, 0),
            begin: word(payload, 1),
            length: word(payload, 2),
        },
        20 => Seen::Extended {
            id: payload[0],
            payload: payload[1..].to_vec(),
        },
        _ => Seen::Other {
            id,
            payload: payload.to_vec(),
        },
    }
}
