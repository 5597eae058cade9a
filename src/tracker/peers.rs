//! The peers in an answer (BEP 3, 7, 23), and which of them may be dialled.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::url::is_global;
use crate::bencode::{BencodeError, Dictionary, List, Value};
use crate::wire::message::InfoHash;

/// Peers that are taken from one answer. Some trackers send more than was asked for.
pub const MAX_PEERS: usize = 200;

/// Bytes before the peers in the answer of a UDP tracker (BEP 15).
const PACKET_HEAD_BYTES: usize = 20;

/// Ports below are those of other services: a tracker must not make us connect to a mail server.
const MIN_PORT: u16 = 1024;

/// Torrents whose peers are dialled (`--connect`): all, some, or by default none.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DialledTorrents {
    all: bool,
    torrents: HashSet<InfoHash>,
}

impl DialledTorrents {
    /// Parses `all` and info-hashes in hexadecimal.
    ///
    /// # Errors
    /// When a value is neither.
    pub fn parse(values: &[String]) -> Result<Self, String> {
        let mut dialled = Self::default();
        for value in values {
            match InfoHash::from_hex(value) {
                Some(info_hash) => drop(dialled.torrents.insert(info_hash)),
                None if value == "all" => dialled.all = true,
                None => return Err("neither `all` nor an info-hash of 40 digits".to_owned()),
            }
        }
        Ok(dialled)
    }

    /// Returns true if peers of this torrent are dialled.
    #[must_use]
    pub fn has(&self, info_hash: &InfoHash) -> bool {
        self.all || self.torrents.contains(info_hash)
    }

    /// Returns true if no peers are dialled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.torrents.is_empty()
    }
}

/// Parses the peers in the dictionary of an HTTP tracker. Malformed parts are skipped.
#[must_use]
pub fn from_answer(body: &[u8]) -> Vec<SocketAddr> {
    let mut peers = Vec::new();
    let entries = Dictionary::open(body).into_iter().flatten();
    for entry in entries.map_while(Result::ok) {
        match entry {
            (b"peers", Value::Bytes(compact)) => peers.extend(compact_v4(compact)),
            (b"peers6", Value::Bytes(compact)) => peers.extend(compact_v6(compact)),
            (b"peers", Value::List(list)) => peers.extend(dictionaries(list)),
            _ => {}
        }
    }
    peers.truncate(MAX_PEERS);
    peers
}

/// Parses the peers in the announce response of a UDP tracker, whose format depends on the family.
#[must_use]
pub fn from_packet(datagram: &[u8], is_v6: bool) -> Vec<SocketAddr> {
    match (datagram.get(PACKET_HEAD_BYTES..), is_v6) {
        (None, _) => Vec::new(),
        (Some(compact), true) => compact_v6(compact).take(MAX_PEERS).collect(),
        (Some(compact), false) => compact_v4(compact).take(MAX_PEERS).collect(),
    }
}

/// Returns true if a peer that a tracker at this address has named may be dialled: one of the Internet,
/// or of a private network or this machine if the tracker is in one too.
#[must_use]
pub fn may_be_dialled(peer: SocketAddr, tracker: IpAddr) -> bool {
    let (peer_ip, tracker) = (peer.ip().to_canonical(), tracker.to_canonical());
    let is_no_host = match peer_ip {
        IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 224,
        IpAddr::V6(address) => address.is_unspecified() || address.is_multicast(),
    };
    let is_near =
        !is_no_host && !is_global(tracker) && (!peer_ip.is_loopback() || tracker.is_loopback());
    peer.port() >= MIN_PORT && (is_global(peer_ip) || is_near)
}

fn compact_v4(compact: &[u8]) -> impl Iterator<Item = SocketAddr> + '_ {
    let (peers, _) = compact.as_chunks::<6>();
    peers.iter().map(|[a, b, c, d, high, low]| {
        let address = Ipv4Addr::new(*a, *b, *c, *d);
        SocketAddr::new(address.into(), u16::from_be_bytes([*high, *low]))
    })
}

fn compact_v6(compact: &[u8]) -> impl Iterator<Item = SocketAddr> + '_ {
    let (peers, _) = compact.as_chunks::<18>();
    peers.iter().map(|[address @ .., high, low]| {
        let address = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
        SocketAddr::new(address, u16::from_be_bytes([*high, *low]))
    })
}

/// Peers as dictionaries, up to the first one that is malformed.
fn dictionaries(list: &[u8]) -> impl Iterator<Item = SocketAddr> + '_ {
    let peers = List::open(list).map_while(|peer| match peer {
        Ok(Value::Dictionary(peer)) => dictionary(peer).ok(),
        _ => None,
    });
    peers.flatten().take(MAX_PEERS)
}

/// A peer. A name in place of its address is not resolved.
fn dictionary(peer: &[u8]) -> Result<Option<SocketAddr>, BencodeError> {
    let (mut ip, mut port) = (None, None);
    for entry in Dictionary::open(peer)? {
        match entry? {
            (b"ip", Value::Bytes(text)) => ip = text_address(text),
            (b"port", Value::Integer(number)) => port = u16::try_from(number.saturated()).ok(),
            _ => {}
        }
    }
    Ok(ip.zip(port).map(SocketAddr::from))
}

fn text_address(text: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(peers: &[SocketAddr]) -> Vec<String> {
        peers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn peers_are_read_in_every_form() {
        let body = b"d8:intervali60e5:peers13:\x0a\x01\x02\x03\x1a\xe1\x0a\x01\x02\x04\x1a\xe1!6:peers618:\
            \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e";
        let expected = ["10.1.2.3:6881", "10.1.2.4:6881", "[2001:db8::1]:6881"];
        assert_eq!(shown(&from_answer(body)), expected);
        let body = b"d5:peersld2:ip8:10.1.2.37:peer id1:x4:porti6881eed2:ip3:::14:porti5000ee\
            d2:ip9:a.example4:porti1eed2:ip8:10.1.2.34:porti-1eeee";
        assert_eq!(shown(&from_answer(body)), ["10.1.2.3:6881", "[::1]:5000"]);
        let mut packet = vec![0; 20];
        packet.extend(b"\x0a\x01\x02\x03\x1a\xe1\x0a");
        assert_eq!(shown(&from_packet(&packet, false)), ["10.1.2.3:6881"]);
        assert!(from_packet(&packet, true).is_empty());
        packet.extend([0; 11]);
        assert_eq!(from_packet(&packet, true).len(), 1);
    }

    #[test]
    fn an_answer_names_only_so_many() {
        let many = [1; 6 * (MAX_PEERS + 1)];
        let body = [format!("d5:peers{}:", many.len()).as_bytes(), &many, b"e"].concat();
        assert_eq!(from_answer(&body).len(), MAX_PEERS);
        let packet = [&[0; 20][..], &many].concat();
        assert_eq!(from_packet(&packet, false).len(), MAX_PEERS);
        let one = "d2:ip8:10.1.2.34:porti6881ee";
        let body = format!("d5:peersl{}ee", one.repeat(MAX_PEERS + 1));
        assert_eq!(from_answer(body.as_bytes()).len(), MAX_PEERS);
        for broken in [
            "",
            "d",
            "d5:peers6:",
            "d5:peersld2:ip",
            "d5:peersli1eee",
            "le",
        ] {
            assert!(from_answer(broken.as_bytes()).is_empty(), "{broken}");
        }
    }

    #[test]
    fn nobody_is_called_where_the_tracker_is_not() {
        let may = |peer: &str, tracker: &str| {
            may_be_dialled(peer.parse().unwrap(), tracker.parse().unwrap())
        };
        for (peer, from_the_internet, from_private, from_loopback) in [
            ("8.8.8.8:6881", true, true, true),
            ("[2606:4700::1]:6881", true, true, true),
            ("8.8.8.8:25", false, false, false),
            ("8.8.8.8:0", false, false, false),
            ("10.0.0.9:6881", false, true, true),
            ("[fd00::9]:6881", false, true, true),
            ("127.0.0.1:6881", false, false, true),
            ("[::ffff:127.0.0.1]:6881", false, false, true),
            ("0.0.0.0:6881", false, false, false),
            ("224.0.0.1:6881", false, false, false),
            ("255.255.255.255:6881", false, false, false),
            ("[::]:6881", false, false, false),
        ] {
            assert_eq!(may(peer, "9.9.9.9"), from_the_internet, "{peer}");
            assert_eq!(may(peer, "192.168.0.1"), from_private, "{peer}");
            assert_eq!(may(peer, "127.0.0.1"), from_loopback, "{peer}");
        }
    }

    #[test]
    fn dialled_torrents_are_all_or_some_by_info_hash() {
        let parse = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            DialledTorrents::parse(&values)
        };
        let (one, other) = (InfoHash([0x1a; 20]), InfoHash([0x2b; 20]));
        assert!(parse(&[]).unwrap().is_empty());
        assert!(!parse(&[]).unwrap().has(&one));
        assert!(parse(&["all"]).unwrap().has(&one));
        let some = parse(&[&one.to_string(), &one.to_string().to_uppercase()]).unwrap();
        assert!(some.has(&one) && !some.has(&other) && !some.is_empty());
        for wrong in [
            "",
            "All",
            "/srv/library",
            "1a1a",
            "+a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
