//! The handshake of BEP 3: what opens a connection, and the extensions announced in it.
//!
//! Our 68 bytes, the meaning of the reserved bits, and our peer id. The decoder reads the other side's
//! bytes.

use super::message::{InfoHash, PeerId};

/// The first 20 bytes of every handshake (BEP 3).
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// Protocol, reserved bits, info-hash and peer id (BEP 3). Unit: bytes.
pub const HANDSHAKE_LENGTH: usize = 68;

/// Byte 5: the extension protocol (BEP 10).
const EXTENDED_BIT: u8 = 0x10;
/// Byte 7: the Fast extension (BEP 6).
const FAST_BIT: u8 = 0x04;

/// Client letters and version as in BEP 20, with the crate's version as four digits.
const PEER_ID_PREFIX: &[u8; 8] = b"-HK0100-";

/// The extensions a peer announces with its reserved bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Extensions {
    /// Have-all, have-none and reject are understood (BEP 6).
    pub fast: bool,
    /// Extended messages are understood (BEP 10).
    pub extended: bool,
}

impl Extensions {
    /// Reads the eight reserved bytes and ignores bits that are unknown to us.
    pub fn from_reserved(reserved: [u8; 8]) -> Self {
        let [_, _, _, _, _, byte_5, _, byte_7] = reserved;
        Self {
            fast: byte_7 & FAST_BIT != 0,
            extended: byte_5 & EXTENDED_BIT != 0,
        }
    }
}

/// Our handshake.
///
/// The reserved bits are built here and never echoed: a bit that is set without being meant, such
/// as the one for v2 torrents, makes libtorrent drop the connection.
pub fn encode(info_hash: InfoHash, peer_id: PeerId) -> [u8; HANDSHAKE_LENGTH] {
    let reserved = [0, 0, 0, 0, 0, EXTENDED_BIT, 0, FAST_BIT];
    let mut bytes = [0; HANDSHAKE_LENGTH];
    let parts = PROTOCOL
        .iter()
        .chain(&reserved)
        .chain(&info_hash.0)
        .chain(&peer_id.0);
    for (byte, part) in bytes.iter_mut().zip(parts) {
        *byte = *part;
    }
    bytes
}

/// Our peer id: client and version, then twelve printable characters made of `random` (BEP 20).
///
/// Letters and digits survive every tracker's handling of URLs and every log.
pub fn new_peer_id(random: [u8; 12]) -> PeerId {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut id = [0; 20];
    let suffix = random.iter().map(|byte| {
        let letter = ALPHABET.get(usize::from(*byte) % ALPHABET.len());
        *letter.expect("a remainder is less than the divisor")
    });
    for (byte, part) in id
        .iter_mut()
        .zip(PEER_ID_PREFIX.iter().copied().chain(suffix))
    {
        *byte = part;
    }
    PeerId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_handshake_byte_for_byte() {
        let bytes = encode(
            InfoHash(*b"aaaaaaaaaaaaaaaaaaaa"),
            PeerId(*b"-HK0100-bbbbbbbbbbbb"),
        );
        assert_eq!(
            &bytes,
            b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04aaaaaaaaaaaaaaaaaaaa-HK0100-bbbbbbbbbbbb"
        );
    }

    #[test]
    fn reserved_bits_are_read_one_by_one() {
        let none = Extensions::default();
        assert_eq!(Extensions::from_reserved([0; 8]), none);
        assert_eq!(
            Extensions::from_reserved([0, 0, 0, 0, 0, 0x10, 0, 0]),
            Extensions {
                extended: true,
                ..none
            }
        );
        assert_eq!(
            Extensions::from_reserved([0, 0, 0, 0, 0, 0, 0, 0x04]),
            Extensions { fast: true, ..none }
        );
    }

    #[test]
    fn unknown_reserved_bits_are_ignored() {
        let noise = [0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0xff, 0xfa];
        assert_eq!(Extensions::from_reserved(noise), Extensions::default());
        // What libtorrent 2 sends for a hybrid torrent: DHT, Fast, v2, extension protocol.
        let libtorrent = Extensions::from_reserved([0, 0, 0, 0, 0, 0x10, 0, 0x15]);
        assert!(libtorrent.fast && libtorrent.extended);
    }

    #[test]
    fn a_peer_id_is_printable_and_follows_the_random_bytes() {
        let id = new_peer_id([0, 1, 9, 10, 35, 36, 61, 62, 127, 128, 254, 255]);
        assert_eq!(&id.0, b"-HK0100-019AZaz03467");
        for byte in 0..=255 {
            assert!(new_peer_id([byte; 12]).0.iter().all(u8::is_ascii_graphic));
        }
        assert_ne!(new_peer_id([1; 12]), new_peer_id([2; 12]));
    }

    #[test]
    fn the_peer_id_carries_the_version_of_the_crate() {
        let digits: String = [
            env!("CARGO_PKG_VERSION_MAJOR"),
            env!("CARGO_PKG_VERSION_MINOR"),
            env!("CARGO_PKG_VERSION_PATCH"),
        ]
        .concat();
        let expected = format!("-HK{digits}0-");
        assert_eq!(PEER_ID_PREFIX, expected.as_bytes());
    }
}
