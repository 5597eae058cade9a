//! What comes by UDP, from a tracker or from anybody: a packet or nothing.

use hekate::tracker::announce::{MAX_INTERVAL_S, MIN_INTERVAL_S};
use hekate::tracker::peers;
use hekate::tracker::udp::{self, Packet};

/// Panics when it does not hold for these bytes.
pub fn check(datagram: &[u8]) {
    for is_v6 in [false, true] {
        assert!(peers::from_packet(datagram, is_v6).len() <= peers::MAX_PEERS);
    }
    let Ok((transaction, packet)) = udp::parse(datagram) else {
        return;
    };
    assert_eq!(transaction.to_be_bytes(), datagram[4..8]);
    match packet {
        Packet::Connected { connection } => {
            assert_eq!(connection.to_be_bytes(), datagram[8..16]);
        }
        Packet::Announced { terms, .. } => {
            assert!((MIN_INTERVAL_S..=MAX_INTERVAL_S).contains(&terms.interval_s));
        }
        Packet::Failed { reason } => assert!(!reason.chars().any(char::is_control)),
    }
}
