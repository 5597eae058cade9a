//! The decoder against whole conversations in every split, wrong lengths, and garbage.

use std::mem;

use super::*;
use crate::wire::{encoder, handshake};

/// Messages without their borrow, so that different splits can be compared.
fn seen<'a>(messages: impl IntoIterator<Item = Message<'a>>) -> Vec<String> {
    let messages = messages.into_iter();
    messages.map(|message| format!("{message:?}")).collect()
}

/// A bitfield, however many parts it came in.
fn whole_bitfield(bytes: &[u8], ones: u32) -> String {
    format!("bitfield of {ones} ones: {bytes:?}")
}

/// Feeds the parts as a connection would: consumed bytes are dropped, the others kept.
fn feed<'p>(
    decoder: &mut Decoder,
    parts: impl IntoIterator<Item = &'p [u8]>,
) -> Result<Vec<String>, DecodeError> {
    let mut messages = Vec::new();
    let mut buffer = Vec::new();
    let mut bitfield = Vec::new();
    for part in parts {
        buffer.extend_from_slice(part);
        let mut start = 0;
        loop {
            match decoder.decode(&buffer[start..])? {
                Decoded::Incomplete { consumed } => {
                    start += consumed;
                    break;
                }
                Decoded::Message { consumed, message } => {
                    assert!(consumed > 0);
                    start += consumed;
                    if let Message::Bitfield {
                        length_bytes,
                        at,
                        bytes,
                        bits,
                        ones,
                    } = message
                    {
                        assert_eq!(at as usize, bitfield.len(), "parts follow each other");
                        bitfield.extend_from_slice(&bits.to_be_bytes()[..bytes as usize]);
                        if bitfield.len() == length_bytes as usize {
                            messages.push(whole_bitfield(&mem::take(&mut bitfield), ones));
                        }
                    } else {
                        messages.extend(seen([message]));
                    }
                }
            }
        }
        buffer.drain(..start);
        assert!(buffer.len() < MAX_TAIL);
    }
    assert!(buffer.is_empty(), "{} bytes are left", buffer.len());
    Ok(messages)
}

fn after_handshake() -> Decoder {
    Decoder {
        state: State::Message,
    }
}

fn decode_all(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
    feed(&mut after_handshake(), [bytes])
}

fn framed(id: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[id], body].concat()
}

fn block(index: u32) -> Request {
    Request {
        index,
        begin: 0x0001_0203,
        length: 0x4000,
    }
}

fn fields(request: Request) -> Vec<u8> {
    [request.index, request.begin, request.length]
        .map(u32::to_be_bytes)
        .concat()
}

fn extended(id: u8, payload: &[u8]) -> Vec<u8> {
    framed(20, &[&[id], payload].concat())
}

/// Every kind of message, a handshake first, with what must come of it.
fn conversation() -> (Vec<u8>, Vec<String>) {
    let info_hash = InfoHash([7; 20]);
    let peer_id = PeerId(*b"-TR3000-abcdefghijkl");
    let ours = handshake::encode(info_hash, peer_id);
    let (first, last) = ours.split_at(48);
    let reserved = [0, 0, 0, 0, 0, 0x10, 0, 0x04];
    let kept = |id, payload| (extended(id, payload), Message::Extended { id, payload });
    let ignored = |id| Message::Ignored { id };
    let (bytes, messages): (Vec<_>, Vec<_>) = [
        (
            first.to_vec(),
            Message::Handshake {
                reserved,
                info_hash,
            },
        ),
        (last.to_vec(), Message::PeerId(peer_id)),
        kept(0, b"d1:md11:ut_metadatai3eee"),
        (vec![0; 4], Message::KeepAlive),
        (framed(0, &[]), Message::Choke),
        (framed(1, &[]), Message::Unchoke),
        (framed(2, &[]), Message::Interested),
        (framed(3, &[]), Message::NotInterested),
        (framed(4, &[0, 1, 2, 3]), Message::Have(0x0001_0203)),
        (framed(6, &fields(block(1))), Message::Request(block(1))),
        (framed(6, &fields(block(2))), Message::Request(block(2))),
        (framed(8, &fields(block(2))), Message::Cancel(block(2))),
        (framed(7, &[9; 40]), ignored(7)),
        (framed(9, &[0x1a, 0xe1]), ignored(9)),
        (framed(13, &[0, 0, 0, 1]), ignored(13)),
        (framed(14, &[]), Message::HaveAll),
        (framed(15, &[]), Message::HaveNone),
        (framed(16, &fields(block(3))), ignored(16)),
        (framed(17, &[0, 0, 0, 1]), ignored(17)),
        (framed(21, &[5; 9]), ignored(21)),
        (framed(99, &[]), ignored(99)),
        kept(1, b"d8:msg_typei0e5:piecei0ee"),
        kept(2, &[1]),
        (extended(3, b"d5:added0:e"), ignored(20)),
    ]
    .into_iter()
    .unzip();
    let bitfield = [0b1010_0000, 0xff, 0x01];
    let bytes = [bytes.concat(), framed(5, &bitfield)].concat();
    let mut messages = seen(messages);
    messages.push(whole_bitfield(&bitfield, 11));
    (bytes, messages)
}

#[test]
fn a_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 24);
}

#[test]
fn a_conversation_in_one_piece() {
    let (bytes, messages) = conversation();
    assert_eq!(feed(&mut Decoder::new(), [&bytes[..]]), Ok(messages));
}

#[test]
fn a_conversation_split_at_every_byte() {
    let (bytes, messages) = conversation();
    for middle in 0..=bytes.len() {
        let (first, second) = bytes.split_at(middle);
        let read = feed(&mut Decoder::new(), [first, second]);
        assert_eq!(read.as_ref(), Ok(&messages), "split at {middle}");
    }
}

#[test]
fn a_conversation_in_parts_of_every_size() {
    let (bytes, messages) = conversation();
    for size in 1..80 {
        let read = feed(&mut Decoder::new(), bytes.chunks(size));
        assert_eq!(read.as_ref(), Ok(&messages), "parts of {size}");
    }
}

#[test]
fn the_handshake_is_answered_after_48_bytes() {
    let bytes = handshake::encode(InfoHash([7; 20]), PeerId([1; 20]));
    for length in 0..48 {
        assert_eq!(Decoder::new().decode(&bytes[..length]), Ok(INCOMPLETE));
    }
    let mut decoder = Decoder::new();
    assert_eq!(
        decoder.decode(&bytes[..48]),
        Ok(Decoded::Message {
            consumed: 48,
            message: Message::Handshake {
                reserved: [0, 0, 0, 0, 0, 0x10, 0, 4],
                info_hash: InfoHash([7; 20]),
            },
        })
    );
    assert_eq!(decoder.decode(&[]), Ok(INCOMPLETE));
    assert_eq!(decoder.decode(&bytes[48..67]), Ok(INCOMPLETE));
}

#[test]
fn an_encrypted_or_foreign_handshake_is_refused_at_its_first_differing_byte() {
    let refused = Err(DecodeError::NotBitTorrent);
    assert_eq!(Decoder::new().decode(b"G"), refused);
    assert_eq!(Decoder::new().decode(&[0x7f; 96]), refused);
    for at in 0..PROTOCOL.len() {
        let mut bytes = *PROTOCOL;
        bytes[at] ^= 0x20;
        assert_eq!(Decoder::new().decode(&bytes[..at]), Ok(INCOMPLETE));
        assert_eq!(Decoder::new().decode(&bytes[..=at]), refused);
    }
}

#[test]
fn every_wrong_length_is_refused_with_the_first_five_bytes() {
    for (id, right) in [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 5),
        (6, 13),
        (8, 13),
        (14, 1),
        (15, 1),
    ] {
        let lengths = (1..40).chain([16384, MAX_MESSAGE_LENGTH]);
        for length in lengths.filter(|length| *length != right) {
            let header = [&length.to_be_bytes()[..], &[id]].concat();
            assert_eq!(
                after_handshake().decode(&header),
                Err(DecodeError::BadLength { length, id })
            );
        }
    }
    assert_eq!(
        after_handshake().decode(&[0, 0, 0, 1, 20]),
        Err(DecodeError::BadLength { length: 1, id: 20 })
    );
}

#[test]
fn huge_lengths_are_refused_with_the_first_five_bytes() {
    for id in 0..=u8::MAX {
        for length in [MAX_MESSAGE_LENGTH + 1, 0x4745_5420, u32::MAX] {
            let header = [&length.to_be_bytes()[..], &[id]].concat();
            assert_eq!(after_handshake().decode(&header[..4]), Ok(INCOMPLETE));
            assert_eq!(
                after_handshake().decode(&header),
                Err(DecodeError::MessageTooLong { length, id })
            );
        }
    }
}

#[test]
fn extended_messages_that_are_kept_whole_are_bounded() {
    let longest = vec![b'x'; MAX_EXTENDED_LENGTH as usize - 2];
    for extended_id in [0, OUR_UT_METADATA, OUR_UPLOAD_ONLY] {
        let bytes = extended(extended_id, &longest);
        let expected = seen([Message::Extended {
            id: extended_id,
            payload: &longest,
        }]);
        let read = feed(&mut after_handshake(), bytes.chunks(1000));
        assert_eq!(read, Ok(expected));

        let length = MAX_EXTENDED_LENGTH + 1;
        let header = [&length.to_be_bytes()[..], &[20, extended_id]].concat();
        assert_eq!(
            after_handshake().decode(&header),
            Err(DecodeError::MessageTooLong { length, id: 20 })
        );
    }
}

#[test]
fn a_foreign_extended_message_of_a_mebibyte_is_skipped_without_a_tail() {
    let mut bytes = framed(20, &vec![3; MAX_MESSAGE_LENGTH as usize - 1]);
    bytes.extend_from_slice(&[0, 0, 0, 1, 2]);
    let expected = seen([Message::Ignored { id: 20 }, Message::Interested]);
    assert_eq!(
        feed(&mut after_handshake(), bytes.chunks(4093)),
        Ok(expected)
    );
}

#[test]
fn a_bitfield_of_a_mebibyte_is_counted_in_odd_parts() {
    let body: Vec<u8> = (0..MAX_MESSAGE_LENGTH - 1)
        .map(|at| at.wrapping_mul(31).to_le_bytes()[0])
        .collect();
    let ones = body.iter().map(|byte| byte.count_ones()).sum();
    let bytes = framed(5, &body);
    for size in [7, 1021, 16384, 65537, bytes.len()] {
        let messages = feed(&mut after_handshake(), bytes.chunks(size));
        assert_eq!(messages, Ok(vec![whole_bitfield(&body, ones)]));
    }
}

#[test]
fn a_body_is_pending_until_its_last_byte() {
    let mut decoder = after_handshake();
    let bytes = framed(5, &[0xff; 10]);
    let part = |at, bytes, bits, ones| Message::Bitfield {
        length_bytes: 10,
        at,
        bytes,
        bits,
        ones,
    };
    assert_eq!(
        decoder.decode(&bytes[..14]),
        Ok(Decoded::message(13, part(0, 8, u64::MAX, 64)))
    );
    assert_eq!(
        decoder.decode(&bytes[13..14]),
        Ok(Decoded::message(1, part(8, 1, 0xff << 56, 72)))
    );
    assert!(decoder.mid_body());
    assert_eq!(decoder.decode(&[]), Ok(INCOMPLETE));
    assert!(decoder.mid_body());
    assert_eq!(
        decoder.decode(&bytes[14..]),
        Ok(Decoded::message(1, part(9, 1, 0xff << 56, 80)))
    );
    assert!(!decoder.mid_body());
}

#[test]
fn our_own_bitfield_reads_back_as_full() {
    for pieces in [1, 8, 9, 16_001, 8_000_000] {
        let mut bytes = Vec::new();
        encoder::bitfield_full(&mut bytes, pieces);
        let body = bytes.get(5..).unwrap();
        assert_eq!(decode_all(&bytes), Ok(vec![whole_bitfield(body, pieces)]));
    }
}

#[test]
fn a_burst_of_requests() {
    let burst: Vec<u8> = (0..5000)
        .flat_map(|index| framed(6, &fields(block(index))))
        .collect();
    let expected = seen((0..5000).map(|index| Message::Request(block(index))));
    assert_eq!(decode_all(&burst).as_ref(), Ok(&expected));
    let read = feed(&mut after_handshake(), burst.chunks(16384));
    assert_eq!(read.as_ref(), Ok(&expected));
}

#[test]
fn request_fields_are_handed_on_unchecked() {
    let extreme = Request {
        index: u32::MAX,
        begin: u32::MAX,
        length: u32::MAX,
    };
    assert_eq!(
        decode_all(&framed(6, &fields(extreme))),
        Ok(seen([Message::Request(extreme)]))
    );
}

#[test]
fn garbage_ends_in_a_message_or_an_error_and_never_in_a_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2000 {
        let mut decoder = after_handshake();
        let mut tail = Vec::new();
        'connection: for _ in 0..64 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // Small lengths, or nearly every message would be refused for its length alone.
            let [a, b, c, d, e, f, ..] = seed.to_le_bytes();
            tail.extend_from_slice(&[0, 0, 0, a & 0x1f, b & 0x1f, c, d, e, f]);
            loop {
                match decoder.decode(&tail) {
                    Ok(Decoded::Message { consumed, .. }) => drop(tail.drain(..consumed)),
                    Ok(Decoded::Incomplete { consumed }) => {
                        tail.drain(..consumed);
                        break;
                    }
                    Err(_) => break 'connection,
                }
            }
            assert!(tail.len() < MAX_TAIL);
        }
    }
}
