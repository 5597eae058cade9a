//! The changes of the machine's network: whether an address or a route has come (rtnetlink(7)).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
};

/// Addresses and routes of both families.
const GROUPS: libc::c_int = libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;

/// The kernel puts one message into a packet, of some hundred bytes.
const PACKET_BYTES: usize = 4096;

/// Packets read at once. Only a router that exchanges whole tables of routes sends as many.
const PACKETS_AT_ONCE: usize = 1024;

/// An address that is older than this was only renewed, in hundredths of a second. IPv6 searches for
/// duplicates of a new one for a second or two before it may be used.
const NEW_ADDRESS_CS: u32 = 500;

/// Parts of messages, in bytes (netlink(7), rtnetlink(7)).
const HEADER_BYTES: usize = 16;
const IFADDRMSG_BYTES: usize = 8;
const RTMSG_BYTES: usize = 12;
const ATTRIBUTE_BYTES: usize = 4;

/// Tells of addresses and routes that come.
#[derive(Debug)]
pub struct NetworkChanges {
    socket: OwnedFd,
}

impl NetworkChanges {
    /// Begins to watch. Any process may, unless it is denied such sockets.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE, which is 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let address = netlink::SocketAddrNetlink::new(0, GROUPS.cast_unsigned());
        bind(&socket, &address)?;
        Ok(Self { socket })
    }

    /// Returns true if an address or a route has come since the last call. What is left unread has
    /// another event with the next packet.
    pub fn have_come(&mut self) -> bool {
        let mut buffer = [0; PACKET_BYTES];
        let mut has_news = false;
        for _ in 0..PACKETS_AT_ONCE {
            match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((length, _)) => {
                    let (packet, _) = buffer.split_at(length);
                    has_news |= has_come(packet);
                }
                Err(Errno::INTR) => {}
                // More has changed than the socket holds.
                Err(Errno::NOBUFS) => has_news = true,
                Err(_) => return has_news,
            }
        }
        true
    }
}

impl AsRawFd for NetworkChanges {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Returns true if one of the messages of a packet says that an address or a route has come.
fn has_come(mut packet: &[u8]) -> bool {
    while let Some((header, rest)) = packet.split_at_checked(HEADER_BYTES) {
        let Some(body) = body_length(header).and_then(|length| rest.get(..length)) else {
            return false;
        };
        let kind = u16_at(header, 4);
        let is_news = match kind {
            Some(libc::RTM_NEWADDR) => is_new_address(body),
            Some(libc::RTM_NEWROUTE) => is_new_route(header, body),
            _ => None,
        };
        if is_news == Some(true) {
            return true;
        }
        // Messages begin at multiples of four.
        packet = rest.get(body.len().next_multiple_of(4)..).unwrap_or(&[]);
    }
    false
}

fn body_length(header: &[u8]) -> Option<usize> {
    let length = usize::try_from(u32_at(header, 0)?).ok()?;
    length.checked_sub(HEADER_BYTES)
}

/// An address by which other networks are reached, that may be used. One that is renewed, as by DHCP,
/// is sent again.
fn is_new_address(body: &[u8]) -> Option<bool> {
    let (message, attributes) = body.split_at_checked(IFADDRMSG_BYTES)?;
    let [_family, _prefix, flags, scope, ..] = *message else {
        return None;
    };
    let is_tentative = u32::from(flags) & libc::IFA_F_TENTATIVE != 0;
    if scope != libc::RT_SCOPE_UNIVERSE || is_tentative {
        return Some(false);
    }
    // struct ifa_cacheinfo: preferred and valid time, when it was made and when it was renewed.
    let Some(times) = attribute(attributes, libc::IFA_CACHEINFO) else {
        return Some(true);
    };
    let age_cs = u32_at(times, 12)?.wrapping_sub(u32_at(times, 8)?);
    Some(age_cs < NEW_ADDRESS_CS)
}

/// A route to other networks: those to neighbours come and go with containers.
fn is_new_route(header: &[u8], body: &[u8]) -> Option<bool> {
    let (message, attributes) = body.split_at_checked(RTMSG_BYTES)?;
    let [_family, prefix, _, _, table, _protocol, _scope, kind, ..] = *message else {
        return None;
    };
    let is_replaced = i32::from(u16_at(header, 6)?) & libc::NLM_F_REPLACE != 0;
    let is_unicast = kind == libc::RTN_UNICAST && table != libc::RT_TABLE_LOCAL;
    let leads_away = prefix == 0 || attribute(attributes, libc::RTA_GATEWAY).is_some();
    Some(is_unicast && leads_away && !is_replaced)
}

/// The value of the first attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let kind = u16_at(attributes, 2)?;
        if kind == wanted {
            return attributes.get(ATTRIBUTE_BYTES..length);
        }
        // One without a length would be followed by itself.
        let next = length.max(ATTRIBUTE_BYTES).next_multiple_of(4);
        attributes = attributes.get(next..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn with_attribute(head: &[u8], kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).unwrap();
        let head = [head, &length.to_ne_bytes(), &kind.to_ne_bytes()].concat();
        [&head, value].concat()
    }

    /// An address with the times when it was made and renewed.
    fn address(flags: u8, scope: u8, times: Option<[u32; 2]>) -> Vec<u8> {
        let mut body = with_attribute(&[2, 24, flags, scope, 1, 0, 0, 0], 1, &[10, 0, 0, 1]);
        if let Some([made, renewed]) = times {
            let times = [u32::MAX, u32::MAX, made, renewed].map(u32::to_ne_bytes);
            body = with_attribute(&body, libc::IFA_CACHEINFO, &times.concat());
        }
        message(libc::RTM_NEWADDR, 0, &body)
    }

    fn route(flags: u16, prefix: u8, table: u8, kind: u8, gateway: bool) -> Vec<u8> {
        let body = [2, prefix, 0, 0, table, 3, 0, kind, 0, 0, 0, 0];
        let body = match gateway {
            true => with_attribute(&body, libc::RTA_GATEWAY, &[10, 0, 0, 1]),
            false => body.to_vec(),
        };
        message(libc::RTM_NEWROUTE, flags, &body)
    }

    #[test]
    fn new_addresses_of_other_networks_count() {
        for (packet, expected) in [
            (address(0, 0, Some([7, 7])), true),
            (address(0, 0, Some([7, 207])), true),
            (address(0, 0, None), true),
            // Renewed, even over the end of the clock.
            (address(0, 0, Some([7, 507])), false),
            (address(0, 0, Some([u32::MAX, 499])), false),
            // Tentative; of this link, of this machine.
            (address(0x40, 0, Some([7, 7])), false),
            (address(0, 253, Some([7, 7])), false),
            (address(0, 254, Some([7, 7])), false),
        ] {
            assert_eq!(has_come(&packet), expected, "{packet:?}");
        }
    }

    #[test]
    fn new_routes_to_other_networks_count() {
        for (packet, expected) in [
            (route(0x400, 0, 254, 1, true), true),
            (route(0x400, 0, 200, 1, false), true),
            (route(0x400, 8, 254, 1, true), true),
            // A neighbour, an address of this machine, a route that was replaced or forbids.
            (route(0x400, 32, 254, 1, false), false),
            (route(0x400, 32, 255, 2, false), false),
            (route(0x100, 0, 254, 1, true), false),
            (route(0x400, 0, 254, 7, true), false),
        ] {
            assert_eq!(has_come(&packet), expected, "{packet:?}");
        }
        let gone = message(
            libc::RTM_DELROUTE,
            0,
            &[2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0],
        );
        assert!(!has_come(&gone));
        let both = [gone, route(0x400, 0, 254, 1, true)].concat();
        assert!(has_come(&both));
    }

    #[test]
    fn what_is_cut_off_or_wrong_says_nothing() {
        let packets = [address(0, 0, Some([7, 7])), route(0x400, 8, 254, 1, true)];
        for packet in packets {
            for length in 0..packet.len() {
                let (part, _) = packet.split_at(length);
                assert!(!has_come(part), "{length} bytes");
            }
            for at in 0..packet.len() {
                for value in [0, 1, 0xff] {
                    let mut packet = packet.clone();
                    packet[at] = value;
                    has_come(&packet);
                }
            }
        }
    }
}
