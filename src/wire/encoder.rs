//! Messages to bytes: what a seeder sends (BEP 3, BEP 6, BEP 10).
//!
//! Each function appends a framed message to a peer's control buffer. Of a block, only the header is
//! made here.

use super::message::{Request, id};

/// Length prefix, id, index and begin: the bytes before a block (BEP 3). Unit: bytes.
pub const PIECE_HEADER_LENGTH: usize = 13;

/// A message of length zero, which shows that we are alive.
pub fn keep_alive(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
}

/// From now on requests are refused.
pub fn choke(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0, 1, id::CHOKE]);
}

/// From now on requests are answered.
pub fn unchoke(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0, 1, id::UNCHOKE]);
}

/// We have every piece: five bytes in place of a bitfield, for peers with the Fast bit (BEP 6).
pub fn have_all(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0, 1, id::HAVE_ALL]);
}

/// We have nothing (BEP 6).
pub fn have_none(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0, 1, id::HAVE_NONE]);
}

/// We have this piece (BEP 3).
pub fn have(out: &mut Vec<u8>, piece: u32) {
    out.extend_from_slice(&[0, 0, 0, 5, id::HAVE]);
    out.extend_from_slice(&piece.to_be_bytes());
}

/// The peer had best ask for this piece (BEP 6).
pub fn suggest(out: &mut Vec<u8>, piece: u32) {
    out.extend_from_slice(&[0, 0, 0, 5, id::SUGGEST]);
    out.extend_from_slice(&piece.to_be_bytes());
}

/// A whole bitfield, which is sent in parts: head, ones, tail.
#[cfg(test)]
pub(crate) fn bitfield_full(out: &mut Vec<u8>, pieces: u32) {
    let ones = bitfield_full_head(out, pieces);
    let end = out.len() + ones;
    out.resize(end, 0xff);
    bitfield_full_tail(out, pieces);
}

/// We have every piece, for a peer without the Fast bit: `pieces` ones, spare bits zero (BEP 3).
///
/// Appends what precedes the bytes that are all ones. Returns the number of these bytes.
pub fn bitfield_full_head(out: &mut Vec<u8>, pieces: u32) -> usize {
    out.extend_from_slice(&(1 + pieces.div_ceil(8)).to_be_bytes());
    out.push(id::BITFIELD);
    pieces as usize / 8
}

/// Appends the last byte of a full bitfield, if it has spare bits.
pub fn bitfield_full_tail(out: &mut Vec<u8>, pieces: u32) {
    if !pieces.is_multiple_of(8) {
        out.push(!(0xff_u8 >> (pieces % 8)));
    }
}

/// The block will not be sent (BEP 6): only for peers with the Fast bit.
pub fn reject(out: &mut Vec<u8>, request: Request) {
    out.extend_from_slice(&[0, 0, 0, 13, id::REJECT]);
    out.extend_from_slice(&request.index.to_be_bytes());
    out.extend_from_slice(&request.begin.to_be_bytes());
    out.extend_from_slice(&request.length.to_be_bytes());
}

/// A whole extended message (BEP 10); `extended_id` is the id that the *peer* gave to it.
pub fn extended(out: &mut Vec<u8>, extended_id: u8, payload: &[u8]) {
    extended_header(out, extended_id, payload.len());
    out.extend_from_slice(payload);
}

/// The first six bytes of an extended message whose payload the caller appends.
pub(super) fn extended_header(out: &mut Vec<u8>, extended_id: u8, payload_length_bytes: usize) {
    let length = u32::try_from(payload_length_bytes.saturating_add(2))
        .expect("our own dictionaries and 16 KiB metadata pieces are far below 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[id::EXTENDED, extended_id]);
}

/// The bytes before a block (BEP 3). `request.length` is at most 128 KiB, which the layout has
/// checked.
pub fn piece_header(request: Request) -> [u8; PIECE_HEADER_LENGTH] {
    let [l0, l1, l2, l3] = (request.length + 9).to_be_bytes();
    let [i0, i1, i2, i3] = request.index.to_be_bytes();
    let [b0, b1, b2, b3] = request.begin.to_be_bytes();
    [l0, l1, l2, l3, id::PIECE, i0, i1, i2, i3, b0, b1, b2, b3]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Request = Request {
        index: 0x0102_0304,
        begin: 0x0000_4000,
        length: 0x0000_4000,
    };

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = b"before".to_vec();
        encode(&mut out);
        out.split_off(6)
    }

    #[test]
    fn the_short_messages_byte_for_byte() {
        assert_eq!(encoded(keep_alive), [0, 0, 0, 0]);
        assert_eq!(encoded(choke), [0, 0, 0, 1, 0]);
        assert_eq!(encoded(unchoke), [0, 0, 0, 1, 1]);
        assert_eq!(encoded(have_all), [0, 0, 0, 1, 0x0e]);
        assert_eq!(encoded(have_none), [0, 0, 0, 1, 0x0f]);
        assert_eq!(
            encoded(|out| have(out, 0x0102_0304)),
            [0, 0, 0, 5, 4, 1, 2, 3, 4]
        );
        assert_eq!(
            encoded(|out| suggest(out, 0x0102_0304)),
            [0, 0, 0, 5, 0x0d, 1, 2, 3, 4]
        );
    }

    #[test]
    fn reject_repeats_the_request() {
        assert_eq!(
            encoded(|out| reject(out, BLOCK)),
            [0, 0, 0, 13, 0x10, 1, 2, 3, 4, 0, 0, 0x40, 0, 0, 0, 0x40, 0]
        );
    }

    #[test]
    fn a_piece_header_counts_nine_bytes_and_the_block() {
        assert_eq!(
            piece_header(BLOCK),
            [0, 0, 0x40, 9, 7, 1, 2, 3, 4, 0, 0, 0x40, 0]
        );
    }

    #[test]
    fn a_full_bitfield_has_the_exact_length_and_clear_spare_bits() {
        let bitfield = |pieces| encoded(|out| bitfield_full(out, pieces));
        assert_eq!(bitfield(1), [0, 0, 0, 2, 5, 0x80]);
        assert_eq!(bitfield(7), [0, 0, 0, 2, 5, 0xfe]);
        assert_eq!(bitfield(8), [0, 0, 0, 2, 5, 0xff]);
        assert_eq!(bitfield(9), [0, 0, 0, 3, 5, 0xff, 0x80]);
        for pieces in 1..200_u32 {
            let message = bitfield(pieces);
            let body = message.get(5..).unwrap();
            assert_eq!(body.len(), pieces.div_ceil(8) as usize);
            let ones: u32 = body.iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(ones, pieces);
        }
    }

    #[test]
    fn an_extended_message_counts_both_ids() {
        assert_eq!(
            encoded(|out| extended(out, 3, b"d1:ei0ee")),
            b"\0\0\0\x0a\x14\x03d1:ei0ee"
        );
    }
}
