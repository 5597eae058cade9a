//! The dialling side of the handshake: what we say to a peer that we dial, and what it answers.
//!
//! | state | waits for | then |
//! |---|---|---|
//! | key | a key | an [`Offer`] is sent |
//! | padding | the verification constant | |
//! | selection | `crypto_select`, and the length of more padding | |
//! | more padding | that | [`Progress::Done`] |
//!
//! The caller hands in what it reads, no more than [`Dialling::wanted`]. Where the bytes are cut makes no
//! difference.

use std::mem;

use super::cipher::{Cipher, mask, synchronization};
use super::dh::{KEY_LENGTH, PRIVATE_LENGTH, PrivateKey, PublicKey};
use super::{Ciphers, Done, MseError, PADDING_MAX, PLAINTEXT, RC4, Selected, VERIFICATION};
use crate::wire::message::InfoHash;

/// `crypto_select` and the length of the padding behind it.
const SELECTION: usize = 4 + 2;

/// The most that is held: all that may follow a key. Unit: bytes.
const HELD_MAX: usize = PADDING_MAX + VERIFICATION.len() + SELECTION + PADDING_MAX;

/// A handshake that is under way.
#[derive(Debug)]
pub struct Dialling {
    state: State,
    /// Received and not yet used.
    held: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Key(PrivateKey),
    /// Behind the padding comes what the constant is enciphered to.
    Padding(Box<Ciphers>, [u8; VERIFICATION.len()]),
    Selection(Box<Ciphers>),
    MorePadding(Box<Ciphers>, Selected, usize),
    /// It has ended, well or not.
    Over,
}

/// What comes next.
#[derive(Debug)]
pub enum Progress {
    /// More bytes: [`Dialling::wanted`] says how many may be read.
    Bytes,
    /// The handshake is complete.
    Done(Done),
}

/// What we say to a peer behind our keys.
#[derive(Debug)]
pub struct Offer<'a> {
    /// The torrent, which the peer must have.
    pub info_hash: &'a InfoHash,
    /// Plain text is offered beside RC4.
    pub plaintext: bool,
    /// The beginning of our stream.
    pub payload: &'a [u8],
}

impl Dialling {
    /// Returns our key and this padding too, which the peer is to be sent first.
    #[must_use]
    pub fn new(random: [u8; PRIVATE_LENGTH], padding: &[u8]) -> (Self, Vec<u8>) {
        let private = PrivateKey::new(random);
        let key = [&private.public(), padding].concat();
        let dialling = Self {
            state: State::Key(private),
            held: Vec::new(),
        };
        (dialling, key)
    }

    /// Returns true if the peer's key has come.
    #[must_use]
    pub fn has_key(&self) -> bool {
        !matches!(self.state, State::Key(_))
    }

    /// How many more bytes may be read now.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let most = match self.state {
            State::Key(_) => KEY_LENGTH,
            State::Over => 0,
            State::Padding(..) | State::Selection(_) | State::MorePadding(..) => HELD_MAX,
        };
        most.saturating_sub(self.held.len())
    }

    /// Takes received bytes, and appends what the peer is to be sent at once to `answer`.
    ///
    /// # Errors
    /// An [`MseError`]: the connection must end.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        offer: &Offer<'_>,
        answer: &mut Vec<u8>,
    ) -> Result<Progress, MseError> {
        self.held.extend_from_slice(bytes);
        loop {
            match mem::replace(&mut self.state, State::Over) {
                State::Key(private) => match self.take::<KEY_LENGTH>() {
                    Some(theirs) => {
                        let theirs = PublicKey::new(&theirs).ok_or(MseError::WeakKey)?;
                        self.state = offer_to(&private, &theirs, offer, answer);
                    }
                    None => return self.wait(State::Key(private)),
                },
                State::Padding(ciphers, end) => {
                    let mut windows = self.held.windows(end.len()).take(PADDING_MAX + 1);
                    match windows.position(|window| window == end) {
                        Some(length) => {
                            self.held.drain(..length + end.len());
                            self.state = State::Selection(ciphers);
                        }
                        None if self.held.len() < PADDING_MAX + end.len() => {
                            return self.wait(State::Padding(ciphers, end));
                        }
                        None => return Err(MseError::NoSynchronization),
                    }
                }
                State::Selection(mut ciphers) => match self.take::<SELECTION>() {
                    Some(mut selection) => {
                        ciphers.receive.apply(&mut selection);
                        let [a, b, c, d, high, low] = selection;
                        let selected = match u32::from_be_bytes([a, b, c, d]) {
                            PLAINTEXT if offer.plaintext => Selected::Plaintext,
                            RC4 => Selected::Rc4,
                            _ => return Err(MseError::NoCommonMethod),
                        };
                        let length = usize::from(u16::from_be_bytes([high, low]));
                        if length > PADDING_MAX {
                            return Err(MseError::PaddingTooLong);
                        }
                        self.state = State::MorePadding(ciphers, selected, length);
                    }
                    None => return self.wait(State::Selection(ciphers)),
                },
                State::MorePadding(mut ciphers, selected, length) => {
                    if self.held.len() < length {
                        return self.wait(State::MorePadding(ciphers, selected, length));
                    }
                    let mut received = mem::take(&mut self.held);
                    let (padding, behind) = received.split_at_mut(length);
                    ciphers.receive.apply(padding);
                    let is_enciphered = selected == Selected::Rc4;
                    if is_enciphered {
                        ciphers.receive.apply(behind);
                    }
                    received.drain(..length);
                    return Ok(Progress::Done(Done {
                        received,
                        ciphers: is_enciphered.then_some(ciphers),
                    }));
                }
                State::Over => return Ok(Progress::Bytes),
            }
        }
    }

    fn wait(&mut self, state: State) -> Result<Progress, MseError> {
        self.state = state;
        Ok(Progress::Bytes)
    }

    /// Takes the first bytes, if so many are there.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.held.first_chunk::<N>()?;
        self.held.drain(..N);
        Some(taken)
    }
}

/// Says to the peer what we want, behind the keys.
fn offer_to(
    private: &PrivateKey,
    theirs: &PublicKey,
    offer: &Offer<'_>,
    answer: &mut Vec<u8>,
) -> State {
    let shared = private.shared(theirs);
    let mut ciphers = Box::new(Ciphers {
        receive: Cipher::of_receiving_side(&shared, offer.info_hash),
        send: Cipher::of_dialling_side(&shared, offer.info_hash),
    });
    answer.extend_from_slice(&synchronization(&shared));
    let name = offer.info_hash.obfuscated();
    answer.extend(
        name.iter()
            .zip(mask(&shared))
            .map(|(byte, mask)| byte ^ mask),
    );
    let provided = match offer.plaintext {
        true => PLAINTEXT | RC4,
        false => RC4,
    };
    let length = u16::try_from(offer.payload.len()).expect("a handshake has 68 bytes");
    let start = answer.len();
    answer.extend_from_slice(&VERIFICATION);
    answer.extend_from_slice(&provided.to_be_bytes());
    answer.extend_from_slice(&[0; 2]);
    answer.extend_from_slice(&length.to_be_bytes());
    answer.extend_from_slice(offer.payload);
    let (_, enciphered) = answer.split_at_mut(start);
    ciphers.send.apply(enciphered);
    let mut end = VERIFICATION;
    ciphers.receive.apply(&mut end);
    State::Padding(ciphers, end)
}
