//! As much HTTP as a status listener needs: one GET or HEAD, one response, then the connection closes.
//!
//! Bounds the request head and checks its Host. Pure.

use std::net::IpAddr;

use crate::torrent::printable::Printable;

/// The longest request head: a browser with large cookies of its other sites on localhost fits.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Most header fields of a request.
const MAX_HEADERS: usize = 64;

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The target without the query.
    pub path: String,
    query: String,
}

impl Request {
    /// The raw value of a field of the query; no value in use here needs escapes.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        let mut fields = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        fields
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }
}

/// The result of parsing received bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// The head is not complete yet.
    Incomplete,
    /// A complete request.
    Request(Request),
    /// To be answered with this status.
    Refused(Status),
    /// It names this host, as it may be shown, which is not accepted. To be answered with [`misdirected`].
    Misdirected(String),
}

/// The code and the phrase of a response (RFC 9110).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(&'static str);

#[expect(missing_docs, reason = "the names are those of RFC 9110")]
impl Status {
    pub const OK: Self = Self("200 OK");
    pub const BAD_REQUEST: Self = Self("400 Bad Request");
    pub const NOT_FOUND: Self = Self("404 Not Found");
    pub const METHOD_NOT_ALLOWED: Self = Self("405 Method Not Allowed");
    pub const MISDIRECTED_REQUEST: Self = Self("421 Misdirected Request");
    pub const HEADER_FIELDS_TOO_LARGE: Self = Self("431 Request Header Fields Too Large");
    pub const INTERNAL_SERVER_ERROR: Self = Self("500 Internal Server Error");
    pub const SERVICE_UNAVAILABLE: Self = Self("503 Service Unavailable");
}

impl Status {
    /// The code and the phrase.
    #[must_use]
    pub fn line(self) -> &'static str {
        self.0
    }
}

/// The host names that requests may carry.
///
/// A foreign page can make a browser resolve the page's own name to 127.0.0.1 and read the response
/// (DNS rebinding). The browser still sends that name as Host, so only names are accepted that no
/// foreign page can have: addresses, `localhost`, and those configured.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Hosts {
    /// The configured names.
    pub names: Vec<String>,
    /// Accept any name, as on a Unix socket: only a proxy connects to it, and passes the name on.
    pub any: bool,
}

impl Hosts {
    fn allows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        self.any
            || address.unwrap_or(name).parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || (self.names.iter()).any(|allowed| name.eq_ignore_ascii_case(allowed))
    }
}

/// Reads the head of a request.
#[must_use]
pub fn parse(received: &[u8], hosts: &Hosts) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(received) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if received.len() < MAX_REQUEST_BYTES => {
            return Parsed::Incomplete;
        }
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(Status::HEADER_FIELDS_TOO_LARGE);
        }
        Err(_) => return Parsed::Refused(Status::BAD_REQUEST),
    }
    let mut host = (head.headers.iter())
        .filter(|header| header.name.eq_ignore_ascii_case("host"))
        .map(|header| std::str::from_utf8(header.value).unwrap_or_default());
    match (host.next(), host.next(), head.version) {
        (Some(host), None, _) if hosts.allows(host.trim()) => {}
        (Some(host), None, _) => {
            return Parsed::Misdirected(Printable(host.trim().as_bytes()).to_string());
        }
        // HTTP/1.0 has no Host; every browser sends HTTP/1.1.
        (None, _, Some(0)) => {}
        _ => return Parsed::Refused(Status::BAD_REQUEST),
    }
    if !matches!(head.method, Some("GET" | "HEAD")) {
        return Parsed::Refused(Status::METHOD_NOT_ALLOWED);
    }
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Parsed::Request(Request {
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

/// A complete response.
#[must_use]
pub fn answer(status: Status, content_type: &str, body: &str) -> Vec<u8> {
    // The page may run its own script only and may not be framed. Responses are never cached.
    format!(
        "HTTP/1.1 {}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         {}Connection: close\r\n\r\n{body}",
        status.line(),
        body.len(),
        if status == Status::METHOD_NOT_ALLOWED {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        },
    )
    .into_bytes()
}

/// The response to a HEAD: that to a GET, without its body (RFC 9110, section 9.3.2).
pub fn cut_body(answer: &mut Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    answer.truncate(end.map_or(answer.len(), |end| end + 4));
}

/// The response to a request that names a host which is not accepted.
#[must_use]
pub fn misdirected(host: &str) -> Vec<u8> {
    let status = Status::MISDIRECTED_REQUEST;
    let body = format!(
        "{}\nThe host {host} is not one of this listener. If it should be, name it: \
         --status-host NAME, or status-host in the configuration file.\n",
        status.line()
    );
    answer(status, "text/plain; charset=utf-8", &body)
}

/// A response whose body is its own status.
#[must_use]
pub fn refusal(status: Status) -> Vec<u8> {
    answer(
        status,
        "text/plain; charset=utf-8",
        &format!("{}\n", status.line()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str, host: &str) -> Parsed {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n");
        let hosts = Hosts {
            names: vec!["seed.example".to_owned()],
            any: false,
        };
        parse(head.as_bytes(), &hosts)
    }

    #[test]
    fn a_path_and_its_query_are_read() {
        let Parsed::Request(request) = get("/torrents?after=ab&limit=5", "127.0.0.1:6970") else {
            panic!("a request")
        };
        assert_eq!(request.path, "/torrents");
        assert_eq!(request.query("limit"), Some("5"));
        assert_eq!(
            (request.query("after"), request.query("aft")),
            (Some("ab"), None)
        );
    }

    #[test]
    fn hosts_that_a_foreign_page_can_have_are_refused() {
        for host in [
            "127.0.0.1",
            "[::1]:6970",
            "localhost:6970",
            "LOCALHOST",
            "Seed.Example",
            "10.0.0.1:80",
        ] {
            assert!(matches!(get("/", host), Parsed::Request(_)), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:6970",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert_eq!(
                get("/", host),
                Parsed::Misdirected(host.to_owned()),
                "{host:?}"
            );
        }
        let any = Hosts {
            any: true,
            ..Hosts::default()
        };
        let head = b"GET / HTTP/1.1\r\nHost: whatever\r\n\r\n";
        assert!(matches!(parse(head, &any), Parsed::Request(_)));
    }

    #[test]
    fn only_a_get_or_head_with_one_host_is_accepted() {
        let hosts = Hosts::default();
        for (head, status) in [
            (
                "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                Status::METHOD_NOT_ALLOWED,
            ),
            ("GET / HTTP/1.1\r\n\r\n", Status::BAD_REQUEST),
            (
                "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
                Status::BAD_REQUEST,
            ),
            ("\x13BitTorrent protocol", Status::BAD_REQUEST),
        ] {
            assert_eq!(
                parse(head.as_bytes(), &hosts),
                Parsed::Refused(status),
                "{head:?}"
            );
        }
        let head = b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(matches!(parse(head, &hosts), Parsed::Request(_)));
        assert!(matches!(
            parse(b"GET / HTTP/1.0\r\n\r\n", &hosts),
            Parsed::Request(_)
        ));
    }

    #[test]
    fn a_request_head_is_bounded() {
        let hosts = Hosts::default();
        assert_eq!(parse(b"", &hosts), Parsed::Incomplete);
        assert_eq!(
            parse(b"GET / HTTP/1.1\r\nHost: local", &hosts),
            Parsed::Incomplete
        );
        let mut long = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
        long.resize(MAX_REQUEST_BYTES, b'x');
        let refused = Parsed::Refused(Status::HEADER_FIELDS_TOO_LARGE);
        assert_eq!(parse(&long, &hosts), refused);
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "X: y\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(parse(many.as_bytes(), &hosts), refused);
    }

    #[test]
    fn a_response_has_its_length_and_closes_the_connection() {
        let answer = String::from_utf8(answer(Status::OK, "text/plain", "größer")).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(
            answer.contains("\r\nContent-Length: 8\r\n")
                && answer.contains("\r\nConnection: close\r\n")
        );
        assert!(answer.ends_with("\r\n\r\ngrößer"));
        let refusal = String::from_utf8(refusal(Status::METHOD_NOT_ALLOWED)).unwrap();
        assert!(refusal.contains("\r\nAllow: GET, HEAD\r\n"));
        let mut answer = misdirected("a.example");
        let whole = String::from_utf8(answer.clone()).unwrap();
        assert!(whole.starts_with("HTTP/1.1 421 ") && whole.contains("The host a.example is"));
        cut_body(&mut answer);
        let head = String::from_utf8(answer).unwrap();
        assert!(whole.starts_with(&head) && head.ends_with("close\r\n\r\n"));
    }
}
