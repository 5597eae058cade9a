//! The hashes of MSE, and the RC4 streams that are keyed by them.

use std::fmt;

use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};

use super::dh::Shared;
use crate::wire::message::InfoHash;

/// What each stream begins with and nobody uses: it says something about the key. Unit: bytes.
const DISCARDED: usize = 1024;

/// SHA-1 over the parts.
fn hash<const N: usize>(parts: [&[u8]; N]) -> [u8; 20] {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The hash that ends the first padding.
pub(super) fn synchronization(shared: &Shared) -> [u8; 20] {
    hash([b"req1", shared])
}

/// What hides the name of the torrent.
pub(super) fn mask(shared: &Shared) -> [u8; 20] {
    hash([b"req3", shared])
}

/// One direction of a stream.
pub struct Cipher(Rc4);

impl Cipher {
    fn new(label: &[u8], shared: &Shared, info_hash: &InfoHash) -> Self {
        let key = hash([label, shared, &info_hash.0]);
        let mut rc4 = Rc4::new_from_slice(&key).expect("RC4 takes keys of 1 to 256 bytes");
        rc4.apply_keystream(&mut [0; DISCARDED]);
        Self(rc4)
    }

    /// What the side sends that has dialled.
    #[must_use]
    pub fn of_dialling_side(shared: &Shared, info_hash: &InfoHash) -> Self {
        Self::new(b"keyA", shared, info_hash)
    }

    /// What the side sends that was dialled.
    #[must_use]
    pub fn of_receiving_side(shared: &Shared, info_hash: &InfoHash) -> Self {
        Self::new(b"keyB", shared, info_hash)
    }

    /// Enciphers or deciphers the next bytes of the stream.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Cipher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_does_not_depend_on_how_it_is_cut() {
        let stream = || Cipher::of_dialling_side(&[7; 96], &InfoHash([8; 20]));
        let mut whole = [0; 100];
        stream().apply(&mut whole);
        let mut cut = [0; 100];
        let mut cipher = stream();
        for part in cut.chunks_mut(7) {
            cipher.apply(part);
        }
        assert_eq!(whole, cut);
        let mut other = [0; 100];
        Cipher::of_receiving_side(&[7; 96], &InfoHash([8; 20])).apply(&mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn a_stream_is_what_other_programs_compute() {
        let mut bytes = [0; 16];
        Cipher::of_receiving_side(&[1; 96], &InfoHash([2; 20])).apply(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "3357ab958ae7e1c7905f770ebb8fe62d");
    }
}
