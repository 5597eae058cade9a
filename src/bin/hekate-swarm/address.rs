//! The addresses that leechers connect from.
//!
//! Each leecher gets its own loopback address, since a seeder limits connections by address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Last octets in use: neither a network's own address nor its broadcast.
const LAST: u64 = 254;
/// Third octets.
const THIRD: u64 = 256;
/// Second octets: all but that of 127.0.x.y, where the seeders listen.
const SECOND: u64 = 254;

/// The address of leecher `number`, or `None` when `seeder` is not on the loopback: another machine is
/// reached only from the addresses that this one has. They repeat after sixteen million.
pub(crate) fn source(number: u64, seeder: SocketAddr) -> Option<SocketAddr> {
    let IpAddr::V4(address) = seeder.ip() else {
        return None;
    };
    if !address.is_loopback() {
        return None;
    }
    let octet = |value: u64| u8::try_from(value).unwrap_or_default();
    let fourth = octet(1 + number % LAST);
    let third = octet(number / LAST % THIRD);
    let second = octet(1 + number / (LAST * THIRD) % SECOND);
    Some(SocketAddr::from((
        Ipv4Addr::new(127, second, third, fourth),
        0,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn addresses_are_distinct_and_on_the_loopback() {
        let seeder = SocketAddr::from(([127, 0, 0, 1], 6881));
        let distinct: HashSet<_> = (0..100_000)
            .map(|number| source(number, seeder).unwrap())
            .collect();
        assert_eq!(distinct.len(), 100_000);
        assert!(distinct.iter().all(|address| address.ip().is_loopback()));
        assert!(!distinct.iter().any(|address| address.ip() == seeder.ip()));
    }

    #[test]
    fn elsewhere_the_machine_chooses() {
        assert_eq!(source(1, SocketAddr::from(([192, 0, 2, 1], 6881))), None);
    }
}
