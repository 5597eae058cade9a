//! The encryption of a leecher's connection (MSE): its handshake, and the ciphers behind it.

use crate::cli::Encrypt;
use hekate::mse::Ciphers;
use hekate::mse::MseError;
use hekate::mse::dialling::{Dialling, Offer, Progress};
use hekate::wire::message::InfoHash;

/// A connection that is encrypted, or was in its handshake.
pub(crate) enum Encryption {
    /// The handshake is under way. Our own is its initial payload.
    Handshake {
        dialling: Dialling,
        info_hash: InfoHash,
        plaintext: bool,
        payload: Vec<u8>,
    },
    /// RC4 is selected.
    Stream(Box<Ciphers>),
}

/// What is behind a handshake: ciphers, if there are any, and what came already.
pub(crate) type Behind = (Option<Encryption>, Vec<u8>);

impl Encryption {
    /// Begins with a key, which takes the place of our handshake in `out`.
    pub(crate) fn begin(
        method: Encrypt,
        info_hash: InfoHash,
        random: &mut fastrand::Rng,
        out: &mut Vec<u8>,
    ) -> Option<Self> {
        if method == Encrypt::None {
            return None;
        }
        let private = std::array::from_fn(|_| random.u8(..));
        let (dialling, key) = Dialling::new(private, &[]);
        Some(Self::Handshake {
            dialling,
            info_hash,
            plaintext: method == Encrypt::Both,
            payload: std::mem::replace(out, key),
        })
    }

    /// How many bytes the handshake wants; None behind it.
    pub(crate) fn wanted(&self) -> Option<usize> {
        match self {
            Self::Handshake { dialling, .. } => Some(dialling.wanted()),
            Self::Stream(_) => None,
        }
    }

    /// Takes bytes of the handshake, and appends what the seeder is to be sent. At its end it returns the
    /// ciphers, if there are any, and what came behind it.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Behind>, MseError> {
        let Self::Handshake {
            dialling,
            info_hash,
            plaintext,
            payload,
        } = self
        else {
            return Ok(None);
        };
        let offer = Offer {
            info_hash,
            plaintext: *plaintext,
            payload,
        };
        Ok(match dialling.receive(bytes, &offer, out)? {
            Progress::Bytes => None,
            Progress::Done(done) => Some((done.ciphers.map(Self::Stream), done.received)),
        })
    }
}
