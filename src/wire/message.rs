//! The vocabulary of the wire: identities, requests and the messages a peer may send.
//!
//! Owns the types only. It must not know how they are framed.

use std::fmt;

/// The SHA-1 of the raw `info` dictionary, which names a torrent (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl InfoHash {
    /// Reads forty hexadecimal digits.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let mut bytes = [0; 20];
        if hex.len() != 2 * bytes.len() || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a client calls itself in its handshake (BEP 3, BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerId(pub [u8; 20]);

/// One requested range, a *block* (BEP 3). Units: `begin` and `length` are bytes in piece `index`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Request {
    /// The piece.
    pub index: u32,
    /// The first byte in that piece.
    pub begin: u32,
    /// How many bytes.
    pub length: u32,
}

/// What a peer sent. Bodies a seeder has no use for are not kept: they are skipped as they arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// The first 48 bytes of the handshake: enough to answer it (BEP 3).
    Handshake {
        /// The eight bytes that announce extensions.
        reserved: [u8; 8],
        /// The torrent that is asked for.
        info_hash: InfoHash,
    },
    /// The last 20 bytes of the handshake.
    PeerId(PeerId),
    /// A message of length zero.
    KeepAlive,
    /// The peer will not serve us: no matter to a seeder.
    Choke,
    /// The peer would serve us: no matter to a seeder.
    Unchoke,
    /// The peer wants blocks.
    Interested,
    /// The peer wants none for now; it stays connected.
    NotInterested,
    /// The peer has completed this piece.
    Have(u32),
    /// A whole bitfield has passed; only its size and its sum are kept.
    Bitfield {
        /// Its body's length in bytes.
        length_bytes: u32,
        /// How many of its bits are set.
        ones: u32,
    },
    /// The peer wants a block.
    Request(Request),
    /// The peer no longer wants a block.
    Cancel(Request),
    /// The peer has everything (BEP 6).
    HaveAll,
    /// The peer has nothing (BEP 6).
    HaveNone,
    /// A message of the extension protocol (BEP 10).
    Extended {
        /// 0 for the handshake, else a number that we advertised.
        id: u8,
        /// What follows the number.
        payload: &'a [u8],
    },
    /// A message that a seeder has no use for, already skipped.
    Ignored {
        /// Its message id.
        id: u8,
    },
}
