//! Frames what a seeder sends, without seeing the bodies.
//!
//! How many header bytes to read next, and how many body bytes follow that may be discarded. Pure. The
//! reader calls [`Framing::want`], reads at most that much, and reports it, so that a body passes
//! through memory only when it is sampled.

use hekate::wire::handshake::{HANDSHAKE_LENGTH, PROTOCOL};
use hekate::wire::message::{InfoHash, Request};

/// The fixed part of a `piece` message: length, id, index, begin (BEP 3).
const BLOCK_HEADER_BYTES: usize = 13;
/// The whole of a `reject` message: length, id, index, begin, length (BEP 6).
const REJECT_BYTES: usize = 17;
/// Longest message taken from a seeder: a bitfield of sixty million pieces. More means that framing is lost.
const MAX_MESSAGE_BYTES: u32 = 8 << 20;

/// The bit of the last reserved byte that announces the fast extension (BEP 6).
const FAST_BIT: u8 = 0x04;

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const PIECE: u8 = 7;
const REJECT: u8 = 16;

/// What the reader does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    /// Read at most [`Framing::room`] into it.
    Header,
    /// Take at most this many bytes of a body, which never exceed the body.
    Body(usize),
}

/// A message, or the part of one that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// The seeder's handshake.
    Handshake {
        /// The torrent it serves.
        info_hash: InfoHash,
        /// Whether it speaks the fast extension (BEP 6).
        fast: bool,
    },
    /// Choke.
    Choke,
    /// Unchoke.
    Unchoke,
    /// The seeder rejected this request (BEP 6).
    Reject(Request),
    /// A block begins; its body follows.
    Block(Request),
    /// The block ends.
    BlockEnd(Request),
    /// Anything else, skipped: keep-alive, bitfield, have, extended.
    Other,
}

/// Why a stream cannot be parsed any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FramingError {
    /// The first bytes are not a handshake.
    #[error("not a BitTorrent handshake")]
    NotBitTorrent,
    /// A message is longer than any that a seeder sends.
    #[error("a message of {0} bytes")]
    TooLong(u32),
    /// A message is too short for its id.
    #[error("message {id} of {length} bytes")]
    BadLength {
        /// The message id.
        id: u8,
        /// The length prefix.
        length: u32,
    },
}

#[derive(Clone, Copy)]
enum State {
    Handshake,
    Header,
    Body { request: Request, left: u32 },
    Skip { left: u32 },
}

/// The position of one connection in its stream.
pub(crate) struct Framing {
    state: State,
    held: [u8; HANDSHAKE_LENGTH],
    filled: usize,
}

impl Framing {
    /// Expects a handshake.
    pub(crate) fn new() -> Framing {
        Framing {
            state: State::Handshake,
            held: [0; HANDSHAKE_LENGTH],
            filled: 0,
        }
    }

    /// What to do next; call [`Framing::next_item`] until it has nothing before.
    pub(crate) fn want(&self) -> Want {
        match self.state {
            State::Handshake | State::Header => Want::Header,
            State::Body { left, .. } | State::Skip { left } => Want::Body(left as usize),
        }
    }

    /// True within the body of a block, false while another message is skipped.
    pub(crate) fn in_block(&self) -> bool {
        matches!(self.state, State::Body { .. })
    }

    /// Where to read the next header bytes: never more than the current header.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let end = self.header_bytes();
        self.held.get_mut(self.filled..end).unwrap_or_default()
    }

    /// `bytes` were read into [`Framing::room`].
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.filled = (self.filled + bytes).min(HANDSHAKE_LENGTH);
    }

    /// `bytes` of the body were read.
    pub(crate) fn passed(&mut self, bytes: usize) {
        if let State::Body { left, .. } | State::Skip { left } = &mut self.state {
            *left = left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// The next item, or `None` until more bytes arrive.
    pub(crate) fn next_item(&mut self) -> Result<Option<Item>, FramingError> {
        match self.state {
            State::Handshake => self.handshake(),
            State::Header => self.header(),
            State::Body { request, left: 0 } => {
                self.state = State::Header;
                Ok(Some(Item::BlockEnd(request)))
            }
            State::Skip { left: 0 } => {
                self.state = State::Header;
                Ok(Some(Item::Other))
            }
            State::Body { .. } | State::Skip { .. } => Ok(None),
        }
    }

    fn header_bytes(&self) -> usize {
        match self.state {
            State::Handshake => HANDSHAKE_LENGTH,
            _ if self.filled > 4 && self.held.get(4) == Some(&REJECT) => REJECT_BYTES,
            _ => BLOCK_HEADER_BYTES,
        }
    }

    fn handshake(&mut self) -> Result<Option<Item>, FramingError> {
        let seen = self.filled.min(PROTOCOL.len());
        if self.held.get(..seen) != PROTOCOL.get(..seen) {
            return Err(FramingError::NotBitTorrent);
        }
        if self.filled < HANDSHAKE_LENGTH {
            return Ok(None);
        }
        let mut info_hash = [0; 20];
        info_hash.copy_from_slice(self.held.get(28..48).unwrap_or(&[0; 20]));
        let fast = self.held.get(27).is_some_and(|bits| bits & FAST_BIT != 0);
        self.filled = 0;
        self.state = State::Header;
        Ok(Some(Item::Handshake {
            info_hash: InfoHash(info_hash),
            fast,
        }))
    }

    fn header(&mut self) -> Result<Option<Item>, FramingError> {
        if self.filled < 4 {
            return Ok(None);
        }
        let length = self.word(0);
        if length == 0 {
            self.consume(4);
            return Ok(Some(Item::Other));
        }
        if length > MAX_MESSAGE_BYTES {
            return Err(FramingError::TooLong(length));
        }
        if self.filled < 5 {
            return Ok(None);
        }
        let id = self.held.get(4).copied().unwrap_or_default();
        match (id, length) {
            (PIECE, 0..9) => Err(FramingError::BadLength { id, length }),
            (PIECE, _) => Ok(self.block(length - 9)),
            (REJECT, 13) => Ok(self.reject()),
            (REJECT, _) => Err(FramingError::BadLength { id, length }),
            (CHOKE, 1) => {
                self.consume(5);
                Ok(Some(Item::Choke))
            }
            (UNCHOKE, 1) => {
                self.consume(5);
                Ok(Some(Item::Unchoke))
            }
            _ => {
                self.skip(length - 1);
                self.next_item()
            }
        }
    }

    fn block(&mut self, body_bytes: u32) -> Option<Item> {
        if self.filled < BLOCK_HEADER_BYTES {
            return None;
        }
        let request = Request {
            index: self.word(5),
            begin: self.word(9),
            length: body_bytes,
        };
        self.consume(BLOCK_HEADER_BYTES);
        self.state = State::Body {
            request,
            left: body_bytes,
        };
        Some(Item::Block(request))
    }

    fn reject(&mut self) -> Option<Item> {
        if self.filled < REJECT_BYTES {
            return None;
        }
        let request = Request {
            index: self.word(5),
            begin: self.word(9),
            length: self.word(13),
        };
        self.consume(REJECT_BYTES);
        Some(Item::Reject(request))
    }

    /// Part of a skipped body may already be held, since a block's header is longer than its own.
    fn skip(&mut self, body_bytes: u32) {
        self.consume(5);
        let held = self.filled.min(body_bytes as usize);
        self.consume(held);
        self.state = State::Skip {
            left: body_bytes - u32::try_from(held).unwrap_or(body_bytes),
        };
    }

    fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.filled);
        self.held.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    fn word(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        if let Some(bytes) = self.held.get(at..at + 4) {
            word.copy_from_slice(bytes);
        }
        u32::from_be_bytes(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request {
        index: 3,
        begin: 16384,
        length: 1000,
    };

    fn message(id: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(payload.len() + 1)
            .unwrap()
            .to_be_bytes()
            .to_vec();
        out.push(id);
        out.extend_from_slice(payload);
        out
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn handshake() -> Vec<u8> {
        let mut out = PROTOCOL.to_vec();
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0x10, 0, 0x04]);
        out.extend_from_slice(&[7; 20]);
        out.extend_from_slice(&[1; 20]);
        out
    }

    /// Every message that a seeder may send, and the items for it.
    fn conversation() -> (Vec<u8>, Vec<Item>) {
        let mut bytes = handshake();
        let mut items = vec![Item::Handshake {
            info_hash: InfoHash([7; 20]),
            fast: true,
        }];
        let mut add = |message: Vec<u8>, expected: &[Item]| {
            bytes.extend(message);
            items.extend_from_slice(expected);
        };
        add(message(5, &[0xff; 300]), &[Item::Other]);
        add(vec![0; 4], &[Item::Other]);
        add(message(1, &[]), &[Item::Unchoke]);
        add(message(4, &words(&[9])), &[Item::Other]);
        for _ in 0..3 {
            let mut payload = words(&[REQUEST.index, REQUEST.begin]);
            payload.extend_from_slice(&[1; 1000]);
            add(
                message(7, &payload),
                &[Item::Block(REQUEST), Item::BlockEnd(REQUEST)],
            );
        }
        add(
            message(16, &words(&[3, 16384, 1000])),
            &[Item::Reject(REQUEST)],
        );
        add(message(0, &[]), &[Item::Choke]);
        add(message(20, b"\0d1:md6:ut_pexi1eee"), &[Item::Other]);
        add(message(14, &[]), &[Item::Other]);
        add(message(1, &[]), &[Item::Unchoke]);
        (bytes, items)
    }

    /// Acts as the reader: reads what is wanted in parts of `split` bytes.
    fn read(bytes: &[u8], mut split: impl FnMut() -> usize) -> Result<Vec<Item>, FramingError> {
        let (mut framing, mut items, mut rest) = (Framing::new(), Vec::new(), bytes);
        while !rest.is_empty() {
            let (mut now, later) = rest.split_at(split().clamp(1, rest.len()));
            rest = later;
            while !now.is_empty() {
                let taken = match framing.want() {
                    Want::Header => {
                        let room = framing.room();
                        let taken = room.len().min(now.len());
                        assert!(taken > 0);
                        room[..taken].copy_from_slice(&now[..taken]);
                        framing.filled(taken);
                        taken
                    }
                    Want::Body(left) => {
                        let taken = left.min(now.len());
                        assert!(taken > 0);
                        framing.passed(taken);
                        taken
                    }
                };
                now = &now[taken..];
                while let Some(item) = framing.next_item()? {
                    items.push(item);
                }
            }
        }
        Ok(items)
    }

    #[test]
    fn any_split_gives_the_same_items() {
        let (bytes, items) = conversation();
        assert_eq!(read(&bytes, || usize::MAX), Ok(items.clone()));
        for size in 1..100 {
            assert_eq!(read(&bytes, || size), Ok(items.clone()), "split by {size}");
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let at = random.usize(1..200);
            assert_eq!(read(&bytes, || random.usize(1..=at)), Ok(items.clone()));
        }
    }

    #[test]
    fn bodies_are_wanted_exactly() {
        let mut framing = Framing::new();
        let mut bytes = handshake();
        bytes.extend(message(7, &words(&[3, 16384])));
        bytes[71] = 9 + 100;
        for byte in bytes {
            framing.room()[0] = byte;
            framing.filled(1);
            framing.next_item().unwrap();
        }
        assert_eq!(framing.want(), Want::Body(100));
        framing.passed(99);
        assert_eq!(framing.next_item(), Ok(None));
        assert_eq!(framing.want(), Want::Body(1));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(
            read(b"HTTP/1.1 400 Bad Request\r\n", || 4),
            Err(FramingError::NotBitTorrent)
        );
        let with = |bytes: &[u8]| read(&[&handshake(), bytes].concat(), || 1);
        assert_eq!(with(&[255; 4]), Err(FramingError::TooLong(u32::MAX)));
        let short = FramingError::BadLength { id: 7, length: 8 };
        assert_eq!(with(&message(7, &[0; 7])), Err(short));
        let long = FramingError::BadLength { id: 16, length: 14 };
        assert_eq!(with(&message(16, &[0; 13])), Err(long));
    }
}
