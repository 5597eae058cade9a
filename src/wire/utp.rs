//! uTP (BEP 29), only enough to refuse it.
//!
//! Many clients try uTP first. Where the UDP port is bound, silence costs them a time-out before
//! they turn to TCP; after a reset they turn at once.

/// A packet header without extensions. Unit: bytes.
pub const HEADER_LENGTH: usize = 20;

/// `ST_SYN` and version 1, as the two halves of the first byte.
const SYN_VERSION_1: u8 = 0x41;
/// `ST_RESET` and version 1.
const RESET_VERSION_1: u8 = 0x31;

/// No extension: the second byte of a header.
const NO_EXTENSION: u8 = 0;

/// The answer to a datagram: a reset for a connection attempt, nothing for anything else.
///
/// An attempt that carries an extension is ignored: Transmission 3.00, whose attempts have one,
/// takes a reset for a failed peer and tries uTP again 15 minutes later, for ever, where silence
/// makes it turn to TCP in the end. libtorrent's attempts have none, and turn to TCP at once.
///
/// A reset is never answered, or two such programs would talk for ever. The answer is never longer
/// than the datagram, so it is of no use as an amplifier.
///
/// The id goes back as it came, which is what the initiator expects in every answer to a SYN, and
/// `ack_nr` names the SYN: libtorrent checks both. There is no clock and no window here, so the
/// times and `wnd_size` are zero, which BEP 29 allows for a socket without samples.
pub fn reset_for(datagram: &[u8]) -> Option<[u8; HEADER_LENGTH]> {
    let [
        SYN_VERSION_1,
        NO_EXTENSION,
        id_high,
        id_low,
        ..,
        sequence_high,
        sequence_low,
        _ack_high,
        _ack_low,
    ] = *datagram.first_chunk::<HEADER_LENGTH>()?
    else {
        return None;
    };
    #[rustfmt::skip]
    let reset = [
        RESET_VERSION_1, 0, id_high, id_low,
        0, 0, 0, 0, // timestamp_microseconds
        0, 0, 0, 0, // timestamp_difference_microseconds
        0, 0, 0, 0, // wnd_size
        0, 0, sequence_high, sequence_low,
    ];
    Some(reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: [u8; 20] = [
        0x41, 0, 0xab, 0xcd, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x12, 0x34, 0x56, 0x78,
    ];

    #[test]
    fn a_syn_is_reset_byte_for_byte() {
        let expected = [
            0x31, 0, 0xab, 0xcd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34,
        ];
        assert_eq!(reset_for(&SYN), Some(expected));
    }

    #[test]
    fn a_syn_with_an_extension_is_ignored() {
        let mut datagram = SYN.to_vec();
        if let Some(extension) = datagram.get_mut(1) {
            *extension = 2;
        }
        datagram.extend_from_slice(&[0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reset_for(&datagram), None);
    }

    #[test]
    fn a_reset_is_never_answered() {
        let reset = reset_for(&SYN).unwrap();
        assert_eq!(reset_for(&reset), None);
    }

    #[test]
    fn every_other_type_and_version_is_ignored() {
        let mut datagram = SYN;
        for first in (0..=u8::MAX).filter(|byte| *byte != 0x41) {
            datagram[0] = first;
            assert_eq!(reset_for(&datagram), None, "first byte {first:#04x}");
        }
    }

    #[test]
    fn short_datagrams_and_dht_queries_are_ignored() {
        for length in 0..SYN.len() {
            assert_eq!(reset_for(&SYN[..length]), None);
        }
        assert_eq!(
            reset_for(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"),
            None
        );
    }
}
