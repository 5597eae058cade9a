//! Message Stream Encryption (MSE/PE): bytes ↔ what the other side chose. Randomness is a parameter.
//!
//! No BEP describes it; the name is that of the Vuze specification, which every client follows. Two sides
//! exchange Diffie-Hellman keys, the dialling side proves that it knows an info-hash, and both agree on
//! RC4 or plain text for what follows. It hides the protocol from those who only look on. It is no
//! protection against anybody who knows the info-hash.

pub mod cipher;
pub mod dh;
pub mod dialling;
pub mod receiving;

use thiserror::Error;

use self::cipher::Cipher;

/// The longest padding, of which each side may send two. Unit: bytes.
pub const PADDING_MAX: usize = 512;

/// What `crypto_provide` and `crypto_select` say by their bits.
const PLAINTEXT: u32 = 1;
const RC4: u32 = 2;

/// What both sides prove by: each is enciphered to the other at the beginning of its stream.
const VERIFICATION: [u8; 8] = [0; 8];

/// What the streams are enciphered with behind the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Selected {
    /// Nothing.
    Plaintext,
    /// RC4.
    Rc4,
}

/// Both directions of a stream.
#[derive(Debug)]
pub struct Ciphers {
    /// For what we receive.
    pub receive: Cipher,
    /// For what we send.
    pub send: Cipher,
}

/// The result of a handshake.
#[derive(Debug)]
pub struct Done {
    /// What was received already of the stream behind the handshake, deciphered.
    pub received: Vec<u8>,
    /// For all that follows, if RC4 is selected.
    pub ciphers: Option<Box<Ciphers>>,
}

/// Why a handshake cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MseError {
    /// A key that makes the secret known to everybody.
    #[error("a weak key")]
    WeakKey,
    /// [`PADDING_MAX`] bytes went by without it.
    #[error("the end of the padding is missing")]
    NoSynchronization,
    /// What was deciphered is no handshake, so the other side has another key.
    #[error("the verification constant is wrong")]
    BadVerification,
    /// More than [`PADDING_MAX`] bytes.
    #[error("the padding is too long")]
    PaddingTooLong,
    /// More than [`receiving::PAYLOAD_MAX`] bytes.
    #[error("the initial payload is too long")]
    PayloadTooLong,
    /// Nothing that both sides may use.
    #[error("no method that is allowed")]
    NoCommonMethod,
}
