//! The bytes of an announce to an HTTP tracker (BEP 3, 7, 23).

use std::fmt::{self, Write};

use super::announce::{Announce, Event, Identity};
use super::url::{Scheme, Site, split_credentials};

/// Some trackers answer only clients that name themselves.
const USER_AGENT: &str = concat!("hekate/", env!("CARGO_PKG_VERSION"));

/// Appends the request of one announce to `out`. `path` is that of a [`TrackerUrl`] at the site.
///
/// [`TrackerUrl`]: super::url::TrackerUrl
pub fn write_request(
    out: &mut Vec<u8>,
    (site, path): (&Site, &str),
    identity: &Identity,
    announce: &Announce,
    peers_wanted: u32,
    tracker_id: Option<&[u8]>,
) {
    debug_assert_ne!(site.scheme, Scheme::Udp);
    let (credentials, path) = split_credentials(path);
    let first = if path.contains('?') { '&' } else { '?' };
    push(out, format_args!("GET {path}{first}info_hash="));
    escape(out, &announce.info_hash.0);
    out.extend_from_slice(b"&peer_id=");
    escape(out, &identity.peer_id.0);
    push(
        out,
        format_args!(
            "&port={}&uploaded={}&downloaded=0&left=0&compact=1&numwant={peers_wanted}&key={:08X}",
            identity.port, announce.uploaded, identity.key
        ),
    );
    match announce.event {
        Event::None => {}
        Event::Started => out.extend_from_slice(b"&event=started"),
        Event::Stopped => out.extend_from_slice(b"&event=stopped"),
    }
    if let Some(ip) = identity.ip {
        // The colons of an IPv6 address may stand in a query (RFC 3986, section 3.4).
        push(out, format_args!("&ip={ip}"));
    }
    if let Some(id) = tracker_id {
        out.extend_from_slice(b"&trackerid=");
        escape(out, id);
    }
    push(
        out,
        format_args!(
            " HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAccept-Encoding: identity\r\n",
            site.authority()
        ),
    );
    if let Some(credentials) = credentials {
        push(out, format_args!("Authorization: Basic {credentials}\r\n"));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends text to bytes.
struct Append<'a>(&'a mut Vec<u8>);

impl Write for Append<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn push(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    Append(out)
        .write_fmt(text)
        .expect("a vector takes every byte");
}

/// Percent-encodes all but the unreserved characters (RFC 3986, section 2.3).
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |value: u8| {
                let letter = if value < 10 { b'0' } else { b'A' - 10 };
                letter + value
            };
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::url::TrackerUrl;
    use crate::wire::message::{InfoHash, PeerId};

    fn request(url: &str, event: Event, ip: Option<&str>, id: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        let mut info_hash = [b'a'; 20];
        info_hash[..4].copy_from_slice(b"\x00\xff ~");
        let url = TrackerUrl::parse(url).unwrap();
        write_request(
            &mut out,
            (&url.site, &url.path),
            &Identity {
                peer_id: PeerId(*b"-HK0100-abcdefghijkl"),
                key: 0xab,
                port: 6969,
                ip: ip.map(|ip| ip.parse().unwrap()),
            },
            &Announce {
                info_hash: InfoHash(info_hash),
                uploaded: 12,
                event,
            },
            super::super::announce::PEERS_WANTED,
            id,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_says_all_that_a_tracker_wants() {
        let expected = "GET /announce?info_hash=%00%FF%20~aaaaaaaaaaaaaaaa\
            &peer_id=-HK0100-abcdefghijkl&port=6969&uploaded=12&downloaded=0&left=0\
            &compact=1&numwant=1&key=000000AB&event=started HTTP/1.1\r\n\
            Host: a.example:6969\r\nUser-Agent: hekate/0.1.0\r\nAccept-Encoding: identity\r\n\r\n";
        let text = request("http://a.example:6969/announce", Event::Started, None, None);
        assert_eq!(text, expected);
    }

    #[test]
    fn a_key_in_the_url_stays_in_front() {
        let text = request("http://a/announce?key=k", Event::None, None, None);
        assert!(text.starts_with("GET /announce?key=k&info_hash=%00"));
        assert!(!text.contains("event="));
        assert!(text.contains("\r\nHost: a\r\n"));
    }

    #[test]
    fn user_and_password_are_sent_as_basic_credentials() {
        let text = request("http://u:p@a/x", Event::None, None, None);
        assert!(text.starts_with("GET /x?info_hash="), "{text}");
        let end = "identity\r\nAuthorization: Basic dTpw\r\n\r\n";
        assert!(
            text.contains("\r\nHost: a\r\n") && text.ends_with(end),
            "{text}"
        );
    }

    #[test]
    fn what_is_said_only_sometimes() {
        let text = request(
            "http://a/",
            Event::Stopped,
            Some("2001:db8::1"),
            Some(b"\0x"),
        );
        assert!(text.contains("&event=stopped&ip=2001:db8::1&trackerid=%00x HTTP/1.1\r\n"));
    }
}
