//! The packets of a UDP tracker (BEP 15), with the path of its URL (BEP 41).

use std::net::IpAddr;

use thiserror::Error;

use super::announce::{Announce, Event, Identity, Terms, shown};

/// The first eight bytes of a connect request.
const PROTOCOL: u64 = 0x0417_2710_1980;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const ERROR: u32 = 3;

/// The option that holds a part of path and query (BEP 41).
const OPTION_URL: u8 = 2;

/// The length of an announce without options.
const ANNOUNCE_BYTES: usize = 98;

/// Bytes of path and query in one option.
const OPTION_BYTES: usize = 255;

/// Options that are sent. A longer path is cut, so that a packet fits every network.
const MAX_OPTIONS: usize = 2;

/// A packet of a tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    /// A connection id was granted, for a minute.
    Connected {
        /// The connection id, to be repeated in announces.
        connection: u64,
    },
    /// The announce was accepted.
    Announced {
        /// When the tracker wants the next announce.
        terms: Terms,
        /// Complete peers, ourselves included.
        seeds: u32,
    },
    /// The request was refused.
    Failed {
        /// The reason, with unprintable bytes escaped.
        reason: String,
    },
}

/// Why a datagram is no packet of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PacketError {
    /// It is too short for its action.
    #[error("the packet is cut short")]
    Truncated,
    /// Its action is unknown.
    #[error("the packet has the unknown action {0}")]
    Action(u32),
}

/// The packet that requests a connection id.
#[must_use]
pub fn connect_request(transaction: u32) -> [u8; 16] {
    let packet = u128::from(PROTOCOL) << 64 | u128::from(CONNECT) << 32 | u128::from(transaction);
    packet.to_be_bytes()
}

/// Replaces `out` by an announce. `path` is path and query of the tracker's URL.
pub fn write_announce(
    out: &mut Vec<u8>,
    connection: u64,
    transaction: u32,
    identity: &Identity,
    (announce, peers_wanted): (&Announce, u32),
    path: &str,
) {
    out.clear();
    out.extend_from_slice(&connection.to_be_bytes());
    out.extend_from_slice(&ANNOUNCE.to_be_bytes());
    out.extend_from_slice(&transaction.to_be_bytes());
    out.extend_from_slice(&announce.info_hash.0);
    out.extend_from_slice(&identity.peer_id.0);
    // Downloaded and left are both zero for a seeder.
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&announce.uploaded.to_be_bytes());
    let event: u32 = match announce.event {
        Event::None => 0,
        Event::Started => 2,
        Event::Stopped => 3,
    };
    out.extend_from_slice(&event.to_be_bytes());
    // The field holds an IPv4 address only; zero means the one the packet comes from.
    let ip = match identity.ip {
        Some(IpAddr::V4(ip)) => ip.octets(),
        _ => [0; 4],
    };
    out.extend_from_slice(&ip);
    out.extend_from_slice(&identity.key.to_be_bytes());
    out.extend_from_slice(&peers_wanted.to_be_bytes());
    out.extend_from_slice(&identity.port.to_be_bytes());
    debug_assert_eq!(out.len(), ANNOUNCE_BYTES);
    for part in path.as_bytes().chunks(OPTION_BYTES).take(MAX_OPTIONS) {
        out.extend_from_slice(&[
            OPTION_URL,
            u8::try_from(part.len()).expect("OPTION_BYTES fit a byte"),
        ]);
        out.extend_from_slice(part);
    }
}

/// Parses a datagram: the transaction id of the request, and the answer. Bytes behind the needed ones,
/// such as peers, are ignored.
///
/// # Errors
/// A [`PacketError`] if it is no packet of a tracker.
pub fn parse(datagram: &[u8]) -> Result<(u32, Packet), PacketError> {
    let mut rest = datagram;
    let action = read_u32(&mut rest)?;
    let transaction = read_u32(&mut rest)?;
    let packet = match action {
        CONNECT => {
            let high = u64::from(read_u32(&mut rest)?);
            Packet::Connected {
                connection: high << 32 | u64::from(read_u32(&mut rest)?),
            }
        }
        ANNOUNCE => {
            // The interval is signed. Leechers and seeders follow and are required.
            let interval = read_u32(&mut rest)?.cast_signed();
            read_u32(&mut rest)?;
            let seeds = read_u32(&mut rest)?;
            Packet::Announced {
                seeds,
                terms: Terms::new(Some(interval.into()), None),
            }
        }
        ERROR => Packet::Failed {
            reason: shown(rest.trim_ascii_end()),
        },
        action => return Err(PacketError::Action(action)),
    };
    Ok((transaction, packet))
}

fn read_u32(rest: &mut &[u8]) -> Result<u32, PacketError> {
    let (bytes, tail) = rest.split_first_chunk().ok_or(PacketError::Truncated)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{InfoHash, PeerId};

    fn announce(event: Event, ip: Option<&str>, path: &str) -> Vec<u8> {
        let mut out = vec![9; 3];
        let identity = Identity {
            peer_id: PeerId([b'p'; 20]),
            key: 0x0102_0304,
            port: 0x1b39,
            ip: ip.map(|ip| ip.parse().unwrap()),
        };
        let announce = Announce {
            info_hash: InfoHash([b'h'; 20]),
            uploaded: 5,
            event,
        };
        write_announce(
            &mut out,
            0x1122_3344_5566_7788,
            0xa0b0_c0d0,
            &identity,
            (&announce, 1),
            path,
        );
        out
    }

    #[test]
    fn requests_have_the_bytes_of_bep_15() {
        let connect = connect_request(0x0a0b_0c0d);
        assert_eq!(
            connect,
            *b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00\x0a\x0b\x0c\x0d"
        );
        let expected = [
            &b"\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x01\xa0\xb0\xc0\xd0"[..],
            &[b'h'; 20],
            &[b'p'; 20],
            &[0; 16],
            b"\x00\x00\x00\x00\x00\x00\x00\x05",
            b"\x00\x00\x00\x02",
            b"\x00\x00\x00\x00",
            b"\x01\x02\x03\x04",
            b"\x00\x00\x00\x01",
            b"\x1b\x39",
        ];
        assert_eq!(announce(Event::Started, None, ""), expected.concat());
    }

    #[test]
    fn events_and_addresses_have_their_fields() {
        assert_eq!(announce(Event::None, None, "")[80..84], [0, 0, 0, 0]);
        assert_eq!(announce(Event::Stopped, None, "")[80..84], [0, 0, 0, 3]);
        assert_eq!(
            announce(Event::None, Some("1.2.3.4"), "")[84..88],
            [1, 2, 3, 4]
        );
        assert_eq!(announce(Event::None, Some("::1"), "")[84..88], [0; 4]);
    }

    #[test]
    fn the_path_of_the_url_goes_along() {
        let packet = announce(Event::None, None, "/announce?x=y");
        assert_eq!(packet[98..], *b"\x02\x0d/announce?x=y");
        let packet = announce(Event::None, None, &"a".repeat(300));
        assert_eq!(
            (packet[98], packet[99], packet[355], packet[356]),
            (2, 255, 2, 45)
        );
        assert_eq!(packet.len(), 98 + 2 + 255 + 2 + 45);
        let longest = ANNOUNCE_BYTES + MAX_OPTIONS * (2 + OPTION_BYTES);
        assert_eq!(
            announce(Event::None, None, &"a".repeat(5000)).len(),
            longest
        );
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(
            parse(b"\0\0\0\0\0\0\0\x07\x01\x02\x03\x04\x05\x06\x07\x08"),
            Ok((
                7,
                Packet::Connected {
                    connection: 0x0102_0304_0506_0708
                }
            ))
        );
        assert_eq!(
            parse(b"\0\0\0\x01\0\0\0\x07\0\0\x07\x08\0\0\0\x02\0\0\0\x03peers!"),
            Ok((
                7,
                Packet::Announced {
                    seeds: 3,
                    terms: Terms::new(Some(1800), None)
                }
            ))
        );
        assert_eq!(
            parse(b"\0\0\0\x03\0\0\0\x07no\nway\0"),
            Ok((
                7,
                Packet::Failed {
                    reason: "no\\nway\\u{0}".to_owned()
                }
            ))
        );
    }

    #[test]
    fn intervals_of_zero_and_of_a_century_are_bounded() {
        for (interval, expected) in [(0, 1800), (-1, 1800), (i32::MAX, 86400), (1, 60)] {
            let packet = [
                &b"\0\0\0\x01\0\0\0\x07"[..],
                &interval.to_be_bytes(),
                &[0; 8],
            ]
            .concat();
            let Ok((_, Packet::Announced { terms, .. })) = parse(&packet) else {
                panic!("no answer");
            };
            assert_eq!(terms.interval_s, expected);
        }
    }

    #[test]
    fn truncated_and_unknown_packets_are_refused() {
        let connected = [0; 16];
        let announced = [&[0, 0, 0, 1][..], &[0; 16]].concat();
        for packet in [&connected[..], &announced] {
            assert!(parse(packet).is_ok());
            for length in 0..packet.len() {
                assert_eq!(parse(&packet[..length]), Err(PacketError::Truncated));
            }
        }
        assert_eq!(parse(b"\0\0\0\x03\0\0\0"), Err(PacketError::Truncated));
        assert_eq!(parse(b"\0\0\0\x02\0\0\0\0"), Err(PacketError::Action(2)));
    }
}
