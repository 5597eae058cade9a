//! The receiving side of the handshake: what a peer that has dialled us says, and what it is answered.
//!
//! | state | waits for | then |
//! |---|---|---|
//! | key | a key | [`Progress::KeyReceived`]; [`Receiving::exchange`] answers with ours |
//! | padding | the hash of `req1` and the secret | |
//! | torrent | the hidden name of the torrent | [`Progress::TorrentWanted`]; [`Receiving::torrent_found`] |
//! | offer | `crypto_provide`, and the length of more padding | |
//! | more padding | that, and the length of the initial payload | |
//! | payload | the initial payload | [`Progress::Done`] with the answer |
//!
//! The caller hands in what it reads, no more than [`Receiving::wanted`]. Where the bytes are cut makes no
//! difference.

use std::mem;

use super::cipher::{Cipher, mask, synchronization};
use super::dh::{KEY_LENGTH, PRIVATE_LENGTH, PrivateKey, PublicKey, Shared};
use super::{Ciphers, Done, MseError, PADDING_MAX, PLAINTEXT, RC4, Selected, VERIFICATION};
use crate::wire::message::InfoHash;

/// The longest initial payload. It is empty or a handshake of 68 bytes in every client known. Unit: bytes.
pub const PAYLOAD_MAX: usize = 512;

const HASH: usize = 20;

/// Verification, `crypto_provide`, length of the padding.
const OFFER: usize = 8 + 4 + 2;

/// Verification, `crypto_select`, no padding: its constants alone look random.
const ANSWER: usize = 8 + 4 + 2;

/// The most that is held: all that may follow a key. Unit: bytes.
const HELD_MAX: usize = PADDING_MAX + 2 * HASH + OFFER + PADDING_MAX + 2 + PAYLOAD_MAX;

/// A handshake that is under way.
#[derive(Debug)]
pub struct Receiving {
    state: State,
    /// Received and not yet used.
    held: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Key,
    /// The peer's key has come.
    Exchange(PublicKey),
    Padding(Box<Shared>),
    Torrent(Box<Shared>),
    /// The torrent is known by its obfuscated hash.
    Named(Box<Shared>),
    Offer(Box<Ciphers>),
    MorePadding(Box<Ciphers>, Selected, usize),
    Payload(Box<Ciphers>, Selected, usize),
    /// It has ended, well or not.
    Over,
}

/// What comes next.
#[derive(Debug)]
pub enum Progress {
    /// More bytes: [`Receiving::wanted`] says how many may be read.
    Bytes,
    /// The peer's key has come: call [`Receiving::exchange`], at once or later. It costs as much as all
    /// else together.
    KeyReceived,
    /// The peer wants the torrent with this hash of `req2` and its info-hash: call
    /// [`Receiving::torrent_found`], at once or later, or end the connection.
    TorrentWanted([u8; 20]),
    /// The handshake is complete. The peer is to be sent these bytes first.
    Done(Done, [u8; ANSWER]),
}

/// Which streams we accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allowed {
    /// Plain text, which costs less and is selected where it is offered, and RC4.
    Both,
    /// RC4 only.
    Rc4,
}

impl Receiving {
    /// Nothing is received yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Key,
            held: Vec::new(),
        }
    }

    /// How many more bytes may be read now: none while the caller is to do something else.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let most = match self.state {
            State::Key => KEY_LENGTH,
            State::Exchange(_) | State::Named(_) | State::Over => 0,
            State::Padding(_)
            | State::Torrent(_)
            | State::Offer(_)
            | State::MorePadding(..)
            | State::Payload(..) => HELD_MAX,
        };
        most.saturating_sub(self.held.len())
    }

    /// Takes received bytes.
    ///
    /// # Errors
    /// An [`MseError`]: the connection must end.
    pub fn receive(&mut self, bytes: &[u8], allowed: Allowed) -> Result<Progress, MseError> {
        self.held.extend_from_slice(bytes);
        self.advance(allowed)
    }

    /// Answers the peer's key. Returns our key and this padding, which the peer is to be sent at once.
    ///
    /// # Panics
    /// When the last [`Progress`] was not [`Progress::KeyReceived`].
    pub fn exchange(&mut self, random: [u8; PRIVATE_LENGTH], padding: &[u8]) -> Vec<u8> {
        let State::Exchange(theirs) = mem::replace(&mut self.state, State::Over) else {
            unreachable!("no key is awaited in {:?}", self.state);
        };
        let ours = PrivateKey::new(random);
        self.state = State::Padding(Box::new(ours.shared(&theirs)));
        [&ours.public(), padding].concat()
    }

    /// The torrent of [`Progress::TorrentWanted`] has this info-hash.
    ///
    /// # Errors
    /// An [`MseError`]: the connection must end.
    ///
    /// # Panics
    /// When the last [`Progress`] was not [`Progress::TorrentWanted`].
    pub fn torrent_found(
        &mut self,
        info_hash: &InfoHash,
        allowed: Allowed,
    ) -> Result<Progress, MseError> {
        let State::Named(shared) = mem::replace(&mut self.state, State::Over) else {
            unreachable!("no torrent is awaited in {:?}", self.state);
        };
        self.state = State::Offer(Box::new(Ciphers {
            receive: Cipher::of_dialling_side(&shared, info_hash),
            send: Cipher::of_receiving_side(&shared, info_hash),
        }));
        self.advance(allowed)
    }

    /// Goes from state to state until bytes are missing, or the caller must do something.
    fn advance(&mut self, allowed: Allowed) -> Result<Progress, MseError> {
        loop {
            let state = mem::replace(&mut self.state, State::Over);
            let next = match state {
                State::Key => match self.take::<KEY_LENGTH>() {
                    Some(key) => {
                        let key = PublicKey::new(&key).ok_or(MseError::WeakKey)?;
                        self.state = State::Exchange(key);
                        return Ok(Progress::KeyReceived);
                    }
                    None => Err(State::Key),
                },
                State::Padding(shared) => self.synchronize(shared)?,
                State::Torrent(shared) => match self.take::<HASH>() {
                    Some(hidden) => {
                        let mask = mask(&shared);
                        let hash = std::array::from_fn(|at| {
                            hidden.get(at).copied().unwrap_or(0)
                                ^ mask.get(at).copied().unwrap_or(0)
                        });
                        self.state = State::Named(shared);
                        return Ok(Progress::TorrentWanted(hash));
                    }
                    None => Err(State::Torrent(shared)),
                },
                State::Offer(ciphers) => self.offer(ciphers, allowed)?,
                State::MorePadding(ciphers, selected, length) => {
                    self.more_padding(ciphers, selected, length)?
                }
                State::Payload(ciphers, selected, length) if self.held.len() >= length => {
                    return Ok(self.finish(ciphers, selected, length));
                }
                waiting => Err(waiting),
            };
            match next {
                Ok(state) => self.state = state,
                Err(state) => {
                    self.state = state;
                    return Ok(Progress::Bytes);
                }
            }
        }
    }

    /// Takes the first bytes, if so many are there.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.held.first_chunk::<N>()?;
        self.held.drain(..N);
        Some(taken)
    }

    /// `Ok` is the next state, `Err` this one if bytes are missing.
    fn synchronize(&mut self, shared: Box<Shared>) -> Result<Result<State, State>, MseError> {
        let end = synchronization(&shared);
        let mut windows = self.held.windows(HASH).take(PADDING_MAX + 1);
        if let Some(length) = windows.position(|window| window == end) {
            self.held.drain(..length + HASH);
            return Ok(Ok(State::Torrent(shared)));
        }
        match self.held.len() < PADDING_MAX + HASH {
            true => Ok(Err(State::Padding(shared))),
            false => Err(MseError::NoSynchronization),
        }
    }

    fn offer(
        &mut self,
        mut ciphers: Box<Ciphers>,
        allowed: Allowed,
    ) -> Result<Result<State, State>, MseError> {
        let Some(mut offer) = self.take::<OFFER>() else {
            return Ok(Err(State::Offer(ciphers)));
        };
        ciphers.receive.apply(&mut offer);
        let [verification @ .., a, b, c, d, high, low] = offer;
        if verification != VERIFICATION {
            return Err(MseError::BadVerification);
        }
        let provided = u32::from_be_bytes([a, b, c, d]);
        let selected = match allowed {
            Allowed::Both if provided & PLAINTEXT != 0 => Selected::Plaintext,
            _ if provided & RC4 != 0 => Selected::Rc4,
            _ => return Err(MseError::NoCommonMethod),
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match length <= PADDING_MAX {
            true => Ok(Ok(State::MorePadding(ciphers, selected, length))),
            false => Err(MseError::PaddingTooLong),
        }
    }

    fn more_padding(
        &mut self,
        mut ciphers: Box<Ciphers>,
        selected: Selected,
        length: usize,
    ) -> Result<Result<State, State>, MseError> {
        let Some(padding) = self.held.get_mut(..length + 2) else {
            return Ok(Err(State::MorePadding(ciphers, selected, length)));
        };
        ciphers.receive.apply(padding);
        let payload = padding.last_chunk::<2>();
        let payload = u16::from_be_bytes(*payload.expect("two bytes or more were taken"));
        self.held.drain(..length + 2);
        match usize::from(payload) {
            payload if payload <= PAYLOAD_MAX => Ok(Ok(State::Payload(ciphers, selected, payload))),
            _ => Err(MseError::PayloadTooLong),
        }
    }

    /// The initial payload is enciphered whatever is selected; what follows it only if that is.
    fn finish(&mut self, mut ciphers: Box<Ciphers>, selected: Selected, length: usize) -> Progress {
        let mut received = mem::take(&mut self.held);
        let (payload, behind) = received.split_at_mut(length);
        ciphers.receive.apply(payload);
        let method = match selected {
            Selected::Plaintext => PLAINTEXT,
            Selected::Rc4 => {
                ciphers.receive.apply(behind);
                RC4
            }
        };
        let mut answer = [0; ANSWER];
        let plain = VERIFICATION.iter().copied().chain(method.to_be_bytes());
        answer
            .iter_mut()
            .zip(plain)
            .for_each(|(to, from)| *to = from);
        ciphers.send.apply(&mut answer);
        let ciphers = (selected == Selected::Rc4).then_some(ciphers);
        Progress::Done(Done { received, ciphers }, answer)
    }
}

impl Default for Receiving {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
