//! Framing: received bytes to messages (BEP 3, BEP 6, BEP 10).
//!
//! The decoder keeps a few bytes for each peer and no heap. Small messages are taken whole from the
//! caller's buffer. Bitfields are handed on in parts, and bodies that a seeder does not need are
//! skipped as they arrive, so that a megabyte of them costs no memory.

use thiserror::Error;

use super::{
    extension::{HANDSHAKE_ID, OUR_UPLOAD_ONLY, OUR_UT_METADATA},
    handshake::PROTOCOL,
    message::{InfoHash, Message, PeerId, Request, id},
};

/// The longest message accepted, without its length prefix: the bitfield of eight million pieces.
/// Unit: bytes.
pub const MAX_MESSAGE_LENGTH: u32 = 1024 * 1024;

/// The longest extended message that is kept whole, without its length prefix. Handshakes are about
/// 300 bytes, some clients send up to a few thousand. Unit: bytes.
pub const MAX_EXTENDED_LENGTH: u32 = 16 * 1024;

/// The caller never has to keep this many unconsumed bytes for one peer.
pub const MAX_TAIL: usize = LENGTH_PREFIX + MAX_EXTENDED_LENGTH as usize;

/// Every message begins with its length (BEP 3). Unit: bytes.
const LENGTH_PREFIX: usize = 4;

/// Why a peer's bytes cannot be decoded. After an error the decoder must not be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// The handshake does not name the protocol.
    #[error("not a plain BitTorrent handshake")]
    NotBitTorrent,
    /// Longer than [`MAX_MESSAGE_LENGTH`], or than [`MAX_EXTENDED_LENGTH`] where it is kept whole.
    #[error("message {id} of {length} bytes is too long")]
    MessageTooLong {
        /// The length prefix. Unit: bytes.
        length: u32,
        /// The message id.
        id: u8,
    },
    /// A message of fixed length has another one.
    #[error("message {id} has the wrong length of {length} bytes")]
    BadLength {
        /// The length prefix. Unit: bytes.
        length: u32,
        /// The message id.
        id: u8,
    },
}

/// One step of decoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded<'a> {
    /// More bytes are needed: drop the first `consumed`, keep the others (fewer than [`MAX_TAIL`])
    /// and append what arrives next.
    Incomplete {
        /// How many bytes of the input are done with.
        consumed: usize,
    },
    /// A message; decode again from `consumed` on.
    Message {
        /// How many bytes of the input are done with.
        consumed: usize,
        /// The message, which may borrow from the input.
        message: Message<'a>,
    },
}

impl<'a> Decoded<'a> {
    fn message(consumed: usize, message: Message<'a>) -> Self {
        Self::Message { consumed, message }
    }
}

const INCOMPLETE: Decoded<'static> = Decoded::Incomplete { consumed: 0 };

/// The position of a peer in its stream of bytes.
#[derive(Default, Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Default, Debug)]
enum State {
    /// The first 48 bytes.
    #[default]
    Handshake,
    /// The last 20 bytes of the handshake.
    PeerId,
    /// At the start of a message.
    Message,
    /// Inside a bitfield or a message that is skipped.
    Body(Body),
}

/// A body of which bytes are not kept.
#[derive(Clone, Copy, Debug)]
struct Body {
    id: u8,
    length_bytes: u32,
    remaining_bytes: u32,
    /// Bits that were set so far; counted in bitfields only.
    ones: u32,
}

impl Decoder {
    /// At the start of a connection: expects a handshake.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns true inside a body that is not kept: a message is pending although there is no tail.
    pub fn mid_body(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// Takes the first message from the bytes that were received and not yet consumed.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        match self.state {
            State::Message => self.decode_message(input),
            State::Body(body) => Ok(self.pass_body(body, input, 0)),
            State::Handshake => self.decode_handshake(input),
            State::PeerId => Ok(self.decode_peer_id(input)),
        }
    }

    /// Who begins with something else may wait for an answer, so the first byte that differs ends it.
    fn decode_handshake(&mut self, input: &[u8]) -> Result<Decoded<'static>, DecodeError> {
        if input
            .iter()
            .zip(PROTOCOL)
            .any(|(byte, expected)| byte != expected)
        {
            return Err(DecodeError::NotBitTorrent);
        }
        let Some((_, input)) = input.split_first_chunk::<{ PROTOCOL.len() }>() else {
            return Ok(INCOMPLETE);
        };
        let Some((reserved, input)) = input.split_first_chunk::<8>() else {
            return Ok(INCOMPLETE);
        };
        let Some(info_hash) = input.first_chunk::<20>() else {
            return Ok(INCOMPLETE);
        };
        self.state = State::PeerId;
        let message = Message::Handshake {
            reserved: *reserved,
            info_hash: InfoHash(*info_hash),
        };
        Ok(Decoded::message(48, message))
    }

    fn decode_peer_id(&mut self, input: &[u8]) -> Decoded<'static> {
        let Some(peer_id) = input.first_chunk::<20>() else {
            return INCOMPLETE;
        };
        self.state = State::Message;
        Decoded::message(20, Message::PeerId(PeerId(*peer_id)))
    }

    fn decode_message<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        let Some((prefix, frame)) = input.split_first_chunk::<LENGTH_PREFIX>() else {
            return Ok(INCOMPLETE);
        };
        let length = u32::from_be_bytes(*prefix);
        if length == 0 {
            return Ok(Decoded::message(LENGTH_PREFIX, Message::KeepAlive));
        }
        let Some((&id, fields)) = frame.split_first() else {
            return Ok(INCOMPLETE);
        };
        if length > MAX_MESSAGE_LENGTH {
            return Err(DecodeError::MessageTooLong { length, id });
        }
        let bad_length = DecodeError::BadLength { length, id };
        let bare = |message| match length {
            1 => Ok(Decoded::message(LENGTH_PREFIX + 1, message)),
            _ => Err(bad_length),
        };
        match id {
            id::CHOKE => bare(Message::Choke),
            id::UNCHOKE => bare(Message::Unchoke),
            id::INTERESTED => bare(Message::Interested),
            id::NOT_INTERESTED => bare(Message::NotInterested),
            id::HAVE_ALL => bare(Message::HaveAll),
            id::HAVE_NONE => bare(Message::HaveNone),
            id::HAVE if length != 5 => Err(bad_length),
            id::HAVE => Ok(fields.first_chunk().map_or(INCOMPLETE, |index| {
                Decoded::message(9, Message::Have(u32::from_be_bytes(*index)))
            })),
            id::REQUEST | id::CANCEL if length != 13 => Err(bad_length),
            id::REQUEST => Ok(fields.first_chunk().map_or(INCOMPLETE, |fields| {
                Decoded::message(17, Message::Request(request(fields)))
            })),
            id::CANCEL => Ok(fields.first_chunk().map_or(INCOMPLETE, |fields| {
                Decoded::message(17, Message::Cancel(request(fields)))
            })),
            id::EXTENDED if length < 2 => Err(bad_length),
            id::EXTENDED => self.decode_extended(length, input),
            _ => Ok(self.start_body(id, length, input)),
        }
    }

    fn decode_extended<'a>(
        &mut self,
        length: u32,
        input: &'a [u8],
    ) -> Result<Decoded<'a>, DecodeError> {
        let Some([_, _, _, _, id, extended_id]) = input.first_chunk() else {
            return Ok(INCOMPLETE);
        };
        if !matches!(
            *extended_id,
            HANDSHAKE_ID | OUR_UT_METADATA | OUR_UPLOAD_ONLY
        ) {
            return Ok(self.start_body(*id, length, input));
        }
        if length > MAX_EXTENDED_LENGTH {
            return Err(DecodeError::MessageTooLong { length, id: *id });
        }
        let whole = LENGTH_PREFIX + length as usize;
        Ok(input.get(6..whole).map_or(INCOMPLETE, |payload| {
            let message = Message::Extended {
                id: *extended_id,
                payload,
            };
            Decoded::message(whole, message)
        }))
    }

    fn start_body(&mut self, id: u8, length: u32, input: &[u8]) -> Decoded<'static> {
        let length_bytes = length.saturating_sub(1);
        let body = Body {
            id,
            length_bytes,
            remaining_bytes: length_bytes,
            ones: 0,
        };
        self.pass_body(body, input, LENGTH_PREFIX + 1)
    }

    /// Takes the part of the body that follows `header` bytes. Ends the message with its last byte.
    fn pass_body(&mut self, mut body: Body, input: &[u8], header: usize) -> Decoded<'static> {
        let available = input.get(header..).expect("the header was read");
        let is_bitfield = body.id == id::BITFIELD;
        let most = match is_bitfield {
            true => body.remaining_bytes.min(u64::BITS / 8),
            false => body.remaining_bytes,
        };
        let part = available.get(..most as usize).unwrap_or(available);
        let consumed = header + part.len();
        let at = body.length_bytes - body.remaining_bytes;
        let bytes = u32::try_from(part.len()).expect("it is at most what remained");
        body.remaining_bytes -= bytes;
        let is_over = body.remaining_bytes == 0;
        if is_bitfield && (bytes > 0 || is_over) {
            let bits = bits(part);
            body.ones += bits.count_ones();
            self.continue_body(body);
            let message = Message::Bitfield {
                length_bytes: body.length_bytes,
                at,
                bytes,
                bits,
                ones: body.ones,
            };
            return Decoded::message(consumed, message);
        }
        self.continue_body(body);
        match is_over {
            true => Decoded::message(consumed, Message::Ignored { id: body.id }),
            false => Decoded::Incomplete { consumed },
        }
    }

    fn continue_body(&mut self, body: Body) {
        self.state = match body.remaining_bytes {
            0 => State::Message,
            _ => State::Body(body),
        };
    }
}

fn request(fields: &[u8; 12]) -> Request {
    let [i0, i1, i2, i3, b0, b1, b2, b3, l0, l1, l2, l3] = *fields;
    Request {
        index: u32::from_be_bytes([i0, i1, i2, i3]),
        begin: u32::from_be_bytes([b0, b1, b2, b3]),
        length: u32::from_be_bytes([l0, l1, l2, l3]),
    }
}

/// The first eight bytes as bits, the highest first.
fn bits(bytes: &[u8]) -> u64 {
    let shifts = (0..64_u32).step_by(8).rev();
    bytes
        .iter()
        .zip(shifts)
        .fold(0, |bits, (byte, shift)| bits | u64::from(*byte) << shift)
}

#[cfg(test)]
mod tests;
