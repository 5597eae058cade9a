//! The decoder gives the same messages, and the same error, however its input is split.
//!
//! The first byte says whether a handshake is put in front; the second how many of the next bytes
//! are sizes of parts; the rest is what the peer sends.

use hekate::wire::{
    decoder::{DecodeError, Decoded, Decoder, MAX_TAIL},
    handshake,
    message::{InfoHash, Message, PeerId},
};

/// Messages in order, then why they ended, then how many bytes were left over.
type Outcome = (Vec<String>, Option<DecodeError>, usize);

fn feed<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    let mut bitfield = Vec::new();
    let mut tail = Vec::new();
    for part in parts {
        tail.extend_from_slice(part);
        let mut start = 0;
        loop {
            match decoder.decode(&tail[start..]) {
                Ok(Decoded::Message { consumed, message }) => {
                    assert!(consumed > 0);
                    start += consumed;
                    // The parts of a bitfield are as long as what has arrived.
                    if let Message::Bitfield {
                        length_bytes,
                        at,
                        bytes,
                        bits,
                        ones,
                    } = message
                    {
                        assert_eq!(at as usize, bitfield.len());
                        bitfield.extend_from_slice(&bits.to_be_bytes()[..bytes as usize]);
                        if at + bytes == length_bytes {
                            messages.push(format!("bitfield of {ones} ones: {bitfield:?}"));
                            bitfield.clear();
                        }
                    } else {
                        messages.push(format!("{message:?}"));
                    }
                }
                Ok(Decoded::Incomplete { consumed }) => {
                    start += consumed;
                    break;
                }
                Err(error) => return (messages, Some(error), 0),
            }
        }
        tail.drain(..start);
        assert!(tail.len() < MAX_TAIL);
        assert!(tail.is_empty() || !decoder.mid_body());
    }
    messages.push(format!("the first bytes of a bitfield: {bitfield:?}"));
    (messages, None, tail.len())
}

fn split<'a>(mut stream: &'a [u8], sizes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = sizes
            .next()
            .map_or(usize::MAX, |size| usize::from(*size) + 1);
        let (part, rest) = stream.split_at(size.min(stream.len()));
        stream = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// Panics when it does not hold for these bytes.
pub fn check(data: &[u8]) {
    let [greeted, sizes, rest @ ..] = data else {
        return;
    };
    let (sizes, sent) = rest.split_at(usize::from(*sizes).min(rest.len()));
    let mut stream = Vec::new();
    if greeted & 1 == 1 {
        stream.extend_from_slice(&handshake::encode(InfoHash([1; 20]), PeerId([2; 20])));
    }
    stream.extend_from_slice(sent);
    let whole = feed([&stream[..]].into_iter());
    assert_eq!(feed(split(&stream, sizes)), whole);
    assert_eq!(feed(stream.chunks(1)), whole);
}
