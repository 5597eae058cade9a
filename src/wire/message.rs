//! The types of the wire: message ids, identities, requests and the messages a peer may send.

use std::fmt;

use sha1::{Digest, Sha1};

/// Message ids (BEP 3, BEP 6, BEP 10).
pub(super) mod id {
    pub(in crate::wire) const CHOKE: u8 = 0;
    pub(in crate::wire) const UNCHOKE: u8 = 1;
    pub(in crate::wire) const INTERESTED: u8 = 2;
    pub(in crate::wire) const NOT_INTERESTED: u8 = 3;
    pub(in crate::wire) const HAVE: u8 = 4;
    pub(in crate::wire) const BITFIELD: u8 = 5;
    pub(in crate::wire) const REQUEST: u8 = 6;
    pub(in crate::wire) const PIECE: u8 = 7;
    pub(in crate::wire) const CANCEL: u8 = 8;
    pub(in crate::wire) const SUGGEST: u8 = 13;
    pub(in crate::wire) const HAVE_ALL: u8 = 14;
    pub(in crate::wire) const HAVE_NONE: u8 = 15;
    pub(in crate::wire) const REJECT: u8 = 16;
    pub(in crate::wire) const EXTENDED: u8 = 20;
}

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

    /// The hash that names the torrent in the handshake of an encrypted connection (MSE): SHA-1 of `req2` and
    /// the info-hash.
    #[must_use]
    pub fn obfuscated(&self) -> [u8; 20] {
        let digest = Sha1::new().chain_update(b"req2").chain_update(self.0);
        digest.finalize().into()
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

/// The id of a client in its handshake (BEP 3, BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerId(pub [u8; 20]);

/// One requested range, a *block* (BEP 3). Units: `begin` and `length` are bytes in piece `index`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Request {
    /// The piece.
    pub index: u32,
    /// The first byte in that piece.
    pub begin: u32,
    /// Length in bytes.
    pub length: u32,
}

/// A message from a peer. Bodies that a seeder does not need are skipped as they arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// The first 48 bytes of the handshake: enough to answer it (BEP 3).
    Handshake {
        /// The eight bytes that announce extensions.
        reserved: [u8; 8],
        /// The torrent that the peer wants.
        info_hash: InfoHash,
    },
    /// The last 20 bytes of the handshake.
    PeerId(PeerId),
    /// A message of length zero.
    KeepAlive,
    /// The peer will not serve us, which a seeder ignores.
    Choke,
    /// The peer would serve us, which a seeder ignores.
    Unchoke,
    /// The peer wants blocks.
    Interested,
    /// The peer wants no blocks for now; it stays connected.
    NotInterested,
    /// The peer has completed this piece.
    Have(u32),
    /// Up to eight bytes of a bitfield; each such part is a message of its own.
    Bitfield {
        /// The length of the whole body in bytes.
        length_bytes: u32,
        /// The bytes before this part.
        at: u32,
        /// The bytes of this part.
        bytes: u32,
        /// Its bits: the highest is for the first piece, those behind the part are zero.
        bits: u64,
        /// The number of bits that are set up to the end of this part.
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
        /// 0 for the handshake, else an id that we advertised.
        id: u8,
        /// The bytes after the id.
        payload: &'a [u8],
    },
    /// A message that a seeder does not need, already skipped.
    Ignored {
        /// Its message id.
        id: u8,
    },
}
