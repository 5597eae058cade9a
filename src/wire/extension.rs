//! The dictionaries of the extension protocol (BEP 10) and of metadata exchange (BEP 9).
//!
//! Our handshake, the peer's, and the three metadata messages. We send sorted keys and read leniently.

use std::net::IpAddr;

use thiserror::Error;

use super::encoder;
use crate::bencode::{BencodeError, Dictionary, Value};

/// The extended id of the handshake itself (BEP 10).
pub const HANDSHAKE_ID: u8 = 0;
/// The id we give to metadata messages (BEP 9).
pub const OUR_UT_METADATA: u8 = 1;
/// The id we give to `upload_only`, by which libtorrent says that it has become a seed.
pub const OUR_UPLOAD_ONLY: u8 = 2;

/// All metadata pieces but the last have this length (BEP 9). Unit: bytes.
pub const METADATA_PIECE_LENGTH: u32 = 16 * 1024;

/// Why an extended message cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ExtensionError {
    /// It is not a dictionary.
    #[error(transparent)]
    Bencode(#[from] BencodeError),
    /// A metadata message without an integer `msg_type` (BEP 9).
    #[error("a metadata message without its type")]
    NoType,
    /// A metadata message without a `piece` that fits 32 bits (BEP 9).
    #[error("a metadata message without a valid piece")]
    NoPiece,
}

/// Our handshake (BEP 10).
#[derive(Clone, Copy, Debug)]
pub struct OurHandshake<'a> {
    /// Length of the raw info dictionary (BEP 9). Unit: bytes.
    pub metadata_size: u32,
    /// The number of requests we queue for one peer.
    pub reqq: u32,
    /// We download nothing (BEP 21).
    pub upload_only: bool,
    /// Client and version, well below 500 bytes.
    pub version: &'a str,
    /// The peer's address as we see it.
    pub your_ip: IpAddr,
    /// The port we listen on.
    pub port: u16,
}

impl OurHandshake<'_> {
    /// Appends the whole message, framing included: below 1 KB, because rtorrent's buffer for it
    /// is hardly larger.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self {
            metadata_size,
            reqq,
            version,
            port,
            ..
        } = self;
        let upload_only = u8::from(self.upload_only);
        let version_length = version.len();
        let mut dictionary = format!(
            "d1:md11:upload_onlyi{OUR_UPLOAD_ONLY}e11:ut_metadatai{OUR_UT_METADATA}ee\
             13:metadata_sizei{metadata_size}e1:pi{port}e4:reqqi{reqq}e11:upload_onlyi{upload_only}e\
             1:v{version_length}:{version}6:yourip"
        )
        .into_bytes();
        // A peer on a dual-stack socket means its IPv4 address to itself.
        match self.your_ip.to_canonical() {
            IpAddr::V4(ip) => dictionary.extend([b"4:", &ip.octets()[..]].concat()),
            IpAddr::V6(ip) => dictionary.extend([b"16:", &ip.octets()[..]].concat()),
        }
        dictionary.push(b'e');
        encoder::extended(out, HANDSHAKE_ID, &dictionary);
    }
}

/// What a seeder needs of a peer's handshake (BEP 10).
///
/// A later handshake changes the first one; keys that it leaves out are unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TheirHandshake {
    /// The id the peer gave to metadata messages; `None` if it gave none, or zero.
    pub ut_metadata: Option<u8>,
    /// The peer downloads nothing (BEP 21).
    pub upload_only: bool,
}

/// Reads a peer's handshake of BEP 10: the payload after the extended id.
///
/// Unknown keys and known keys of the wrong type are ignored; only bytes that are not a dictionary
/// are an error.
pub fn parse_handshake(payload: &[u8]) -> Result<TheirHandshake, ExtensionError> {
    let mut theirs = TheirHandshake::default();
    for entry in Dictionary::open(payload)? {
        match entry? {
            (b"m", Value::Dictionary(names)) => {
                for name in Dictionary::open(names)? {
                    if let (b"ut_metadata", Value::Integer(id)) = name? {
                        theirs.ut_metadata =
                            u8::try_from(id.saturated()).ok().filter(|id| *id != 0);
                    }
                }
            }
            (b"upload_only", Value::Integer(flag)) => theirs.upload_only = flag.saturated() != 0,
            _ => {}
        }
    }
    Ok(theirs)
}

/// The payload of libtorrent's `upload_only` message: one byte, zero or not.
pub fn parse_upload_only(payload: &[u8]) -> bool {
    payload.first().is_some_and(|flag| *flag != 0)
}

/// A message about the metadata (BEP 9). Pieces are 16 KiB each, counted from zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataMessage {
    /// The peer wants a piece.
    Request {
        /// Not checked against the metadata's size.
        piece: u32,
    },
    /// The peer sends a piece that we did not request. The bytes after the dictionary are ignored.
    Data {
        /// The piece.
        piece: u32,
    },
    /// The peer will not send a piece that we did not request.
    Reject {
        /// The piece.
        piece: u32,
    },
    /// A type that must be ignored (BEP 9).
    Unknown(i64),
}

/// Reads a metadata message: the payload after the extended id.
pub fn parse_metadata(payload: &[u8]) -> Result<MetadataMessage, ExtensionError> {
    let mut kind = None;
    let mut piece = None;
    for entry in Dictionary::open(payload)? {
        match entry? {
            (b"msg_type", Value::Integer(value)) => kind = Some(value.saturated()),
            (b"piece", Value::Integer(value)) => piece = u32::try_from(value.saturated()).ok(),
            _ => {}
        }
    }
    let piece = piece.ok_or(ExtensionError::NoPiece);
    match kind.ok_or(ExtensionError::NoType)? {
        0 => Ok(MetadataMessage::Request { piece: piece? }),
        1 => Ok(MetadataMessage::Data { piece: piece? }),
        2 => Ok(MetadataMessage::Reject { piece: piece? }),
        other => Ok(MetadataMessage::Unknown(other)),
    }
}

/// Appends the start of a data message (BEP 9); the caller appends `body_length` bytes of metadata.
///
/// `their_id` is the id that the *peer* gave to metadata messages, `total_size` the whole metadata's
/// length in bytes.
pub fn metadata_data_header(
    out: &mut Vec<u8>,
    their_id: u8,
    piece: u32,
    total_size: u32,
    body_length: u32,
) {
    let dictionary = format!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{total_size}ee");
    encoder::extended_header(out, their_id, dictionary.len() + body_length as usize);
    out.extend_from_slice(dictionary.as_bytes());
}

/// Appends the refusal of a metadata piece (BEP 9).
pub fn metadata_reject(out: &mut Vec<u8>, their_id: u8, piece: u32) {
    let dictionary = format!("d8:msg_typei2e5:piecei{piece}ee");
    encoder::extended(out, their_id, dictionary.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const OURS: OurHandshake<'_> = OurHandshake {
        metadata_size: 31235,
        reqq: 2000,
        upload_only: true,
        version: "Hekate 0.1.0",
        your_ip: IpAddr::V4(Ipv4Addr::new(1, 2, 3, 4)),
        port: 6881,
    };

    #[test]
    fn our_handshake_byte_for_byte() {
        let mut out = b"before".to_vec();
        OURS.encode(&mut out);
        let dictionary =
            b"d1:md11:upload_onlyi2e11:ut_metadatai1ee13:metadata_sizei31235e1:pi6881e\
            4:reqqi2000e11:upload_onlyi1e1:v12:Hekate 0.1.06:yourip4:\x01\x02\x03\x04e";
        let length = u8::try_from(dictionary.len() + 2).unwrap();
        let expected = [b"before\0\0\0", &[length, 20, 0][..], dictionary].concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn our_largest_handshake_is_below_one_kilobyte() {
        let version = "x".repeat(64);
        let largest = OurHandshake {
            metadata_size: u32::MAX,
            reqq: u32::MAX,
            version: &version,
            your_ip: IpAddr::V6(Ipv6Addr::from([0xff; 16])),
            port: u16::MAX,
            ..OURS
        };
        let mut out = Vec::new();
        largest.encode(&mut out);
        assert!(out.len() < 1000, "{} bytes", out.len());
    }

    #[test]
    fn our_keys_are_sorted_at_both_levels() {
        let mut out = Vec::new();
        OURS.encode(&mut out);
        let entries: Vec<_> = Dictionary::open(&out[6..])
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b));
        let Some((b"m", Value::Dictionary(names))) = entries.first() else {
            panic!("m comes first");
        };
        let names: Vec<_> = Dictionary::open(names)
            .unwrap()
            .map(|entry| entry.unwrap().0)
            .collect();
        assert_eq!(names, [&b"upload_only"[..], b"ut_metadata"]);
    }

    #[test]
    fn your_ip_is_four_or_sixteen_bytes() {
        let encoded = |ip: IpAddr| {
            let mut out = Vec::new();
            OurHandshake {
                your_ip: ip,
                ..OURS
            }
            .encode(&mut out);
            out
        };
        let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let expected = [&b"6:yourip16:"[..], &v6.octets(), b"e"].concat();
        assert!(encoded(v6.into()).ends_with(&expected));
        let mapped = Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped();
        assert_eq!(encoded(mapped.into()), encoded(OURS.your_ip));
    }

    /// Payload, `ut_metadata`, `upload_only`.
    type Sample = (&'static [u8], Option<u8>, bool);

    #[test]
    fn handshakes_of_real_clients() {
        let samples: [Sample; 7] = [
            (
                b"d12:complete_agoi-1e1:md11:lt_donthavei7e10:share_modei8e11:upload_onlyi3e\
                12:ut_holepunchi4e11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e4:reqqi2000e\
                11:upload_onlyi1e1:v18:libtorrent/2.0.9.06:yourip4:\x7f\0\0\x01e",
                Some(2),
                true,
            ),
            (
                b"d1:ei1e1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e1:pi51413e\
                4:reqqi512e11:upload_onlyi0e1:v17:Transmission 3.00e",
                Some(3),
                false,
            ),
            (
                b"d1:ei0e4:ipv616:\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x011:md6:ut_pexi1ee1:pi51413e\
                4:reqqi2000e1:v18:Transmission 4.0.56:yourip4:\x0a\0\0\x01e",
                None,
                false,
            ),
            (
                b"d1:ei0e1:md11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei0e1:pi6881e4:reqqi2048e\
                1:v17:libTorrent 0.13.8e",
                Some(2),
                false,
            ),
            (
                b"d1:md11:ut_metadatai9e6:ut_pexi8ee1:pi6881e1:v12:aria2/1.36.0e",
                Some(9),
                false,
            ),
            // The example of BEP 10 (its length of the second name corrected).
            (
                b"d1:md11:LT_metadatai1e7:\xc2\xb5T_PEXi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e",
                None,
                false,
            ),
            // The example of BEP 9.
            (
                b"d1:md11:ut_metadatai3ee13:metadata_sizei31235ee",
                Some(3),
                false,
            ),
        ];
        for (payload, ut_metadata, upload_only) in samples {
            let theirs = parse_handshake(payload).unwrap();
            assert_eq!(theirs.ut_metadata, ut_metadata);
            assert_eq!(theirs.upload_only, upload_only);
        }
    }

    #[test]
    fn unsorted_unknown_and_mistyped_entries_are_ignored() {
        let theirs = parse_handshake(
            b"d1:v3:abc11:upload_only3:yes3:zzzlli1eed1:ai1eee1:md1:xle11:ut_metadatai5eee trailing",
        )
        .unwrap();
        assert_eq!(theirs.ut_metadata, Some(5));
        assert!(!theirs.upload_only);
        assert_eq!(
            parse_handshake(b"d1:mi1e1:vi2ee"),
            Ok(TheirHandshake::default())
        );
        assert_eq!(parse_handshake(b"de"), Ok(TheirHandshake::default()));
    }

    #[test]
    fn ids_of_zero_or_out_of_range_mean_unsupported() {
        for id in ["0", "-1", "256", "99999999999999999999999999"] {
            let payload = format!("d1:md11:ut_metadatai{id}eee");
            assert_eq!(
                parse_handshake(payload.as_bytes()),
                Ok(TheirHandshake::default()),
                "{id}"
            );
        }
        let last = parse_handshake(b"d1:md11:ut_metadatai255eee").unwrap();
        assert_eq!(last.ut_metadata, Some(255));
    }

    #[test]
    fn hostile_handshakes_are_errors() {
        let deep = [b"d1:a".to_vec(), b"d1:a".repeat(4000)].concat();
        assert_eq!(
            parse_handshake(&deep),
            Err(ExtensionError::Bencode(BencodeError::TooDeep(4 + 99 * 4)))
        );
        // The inside of `m` is read as a dictionary only when it is opened.
        for payload in [&b""[..], b"i1e", b"d1:mdi1ei2eee", b"d1:v999999:abce"] {
            assert!(parse_handshake(payload).is_err());
        }
        let whole = b"d1:md11:ut_metadatai3ee13:metadata_sizei31235ee";
        for length in 0..whole.len() {
            assert!(parse_handshake(&whole[..length]).is_err());
        }
    }

    #[test]
    fn upload_only_is_one_byte() {
        assert!(parse_upload_only(&[1]));
        assert!(!parse_upload_only(&[0]));
        assert!(!parse_upload_only(&[]));
    }

    #[test]
    fn metadata_messages_are_read() {
        assert_eq!(
            parse_metadata(b"d8:msg_typei0e5:piecei7ee"),
            Ok(MetadataMessage::Request { piece: 7 })
        );
        assert_eq!(
            parse_metadata(b"d5:piecei7e8:msg_typei0ee"),
            Ok(MetadataMessage::Request { piece: 7 })
        );
        assert_eq!(
            parse_metadata(b"d8:msg_typei1e5:piecei0e10:total_sizei3425eexxxxxxxx"),
            Ok(MetadataMessage::Data { piece: 0 })
        );
        assert_eq!(
            parse_metadata(b"d8:msg_typei2e5:piecei4294967295ee"),
            Ok(MetadataMessage::Reject { piece: u32::MAX })
        );
        assert_eq!(
            parse_metadata(b"d8:msg_typei3ee"),
            Ok(MetadataMessage::Unknown(3))
        );
    }

    #[test]
    fn metadata_messages_without_type_or_piece_are_errors() {
        assert_eq!(parse_metadata(b"d5:piecei0ee"), Err(ExtensionError::NoType));
        assert_eq!(
            parse_metadata(b"d8:msg_type1:05:piecei0ee"),
            Err(ExtensionError::NoType)
        );
        for piece in ["", "5:piece1:0", "5:piecei-1e", "5:piecei4294967296e"] {
            let payload = format!("d8:msg_typei0e{piece}e");
            assert_eq!(
                parse_metadata(payload.as_bytes()),
                Err(ExtensionError::NoPiece)
            );
        }
        assert!(parse_metadata(b"d8:msg_typei0e5:piecei0e").is_err());
        assert!(parse_metadata(b"").is_err());
    }

    #[test]
    fn a_data_header_counts_the_body_that_follows() {
        let mut out = Vec::new();
        metadata_data_header(&mut out, 3, 0, 3425, 3425);
        let dictionary = b"d8:msg_typei1e5:piecei0e10:total_sizei3425ee";
        let length = u32::try_from(2 + dictionary.len() + 3425).unwrap();
        let expected = [&length.to_be_bytes()[..], &[20, 3], dictionary].concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn a_metadata_reject_byte_for_byte() {
        let mut out = Vec::new();
        metadata_reject(&mut out, 2, 0);
        assert_eq!(out, b"\0\0\0\x1b\x14\x02d8:msg_typei2e5:piecei0ee");
    }
}
