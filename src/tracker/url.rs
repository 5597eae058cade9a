//! The URL of a tracker, and the URLs that its redirects lead to.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use idna::AsciiDenyList;
use thiserror::Error;

use crate::torrent::printable::Printable;

/// The longest URL in the form in which it is requested, with bytes escaped: keys of private trackers
/// take a hundred bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// The protocol of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scheme {
    /// BEP 3 over TCP.
    Http,
    /// The same inside TLS.
    Https,
    /// BEP 15.
    Udp,
}

impl Scheme {
    /// The scheme in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Udp => "udp",
        }
    }

    /// The port that need not be named; UDP trackers have none.
    fn default_port(self) -> Option<u16> {
        match self {
            Scheme::Http => Some(80),
            Scheme::Https => Some(443),
            Scheme::Udp => None,
        }
    }
}

/// Where a tracker listens. URLs of one site share connections and a rate limit. It may be shown, since
/// keys of private trackers are in the path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Site {
    /// The protocol.
    pub scheme: Scheme,
    /// Lower case; an IPv6 address without its brackets.
    pub host: Box<str>,
    /// Never 0.
    pub port: u16,
}

impl Site {
    /// The value of the header `Host`: without the port if it is the default of the scheme.
    #[must_use]
    pub fn authority(&self) -> String {
        let bracketed = self.host.contains(':');
        let (open, close) = if bracketed { ("[", "]") } else { ("", "") };
        let host = &self.host;
        if self.scheme.default_port() == Some(self.port) {
            format!("{open}{host}{close}")
        } else {
            format!("{open}{host}{close}:{}", self.port)
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// A tracker's URL.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TrackerUrl {
    /// The server.
    pub site: Site,
    /// Path and query, printable ASCII without blanks. Starts with `/`, or is empty for UDP. If the URL
    /// names a user, the credentials of Basic (RFC 7617) and a blank come before: they belong to a URL as
    /// a passkey does, and not to the site. See [`split_credentials`].
    pub path: Box<str>,
}

/// Why a URL is not that of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UrlError {
    /// Longer than [`MAX_URL_BYTES`].
    #[error("longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// Neither `http`, `https` nor `udp`, or not a URL.
    #[error("not an http, https or udp URL")]
    Scheme,
    /// Empty, or with characters that no host name has.
    #[error("invalid host name")]
    Host,
    /// Not a number from 1 to 65535, or missing where the scheme has no default.
    #[error("missing or invalid port")]
    Port,
    /// A redirect to another kind of tracker, or out of TLS.
    #[error("redirected from {} to {}", from.as_str(), to.as_str())]
    Downgrade {
        /// The scheme that was asked.
        from: Scheme,
        /// The scheme that it leads to.
        to: Scheme,
    },
}

impl TrackerUrl {
    /// Parses an announce URL of a torrent or an option.
    ///
    /// # Errors
    /// A [`UrlError`] if nothing can be announced to it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "udp" => Scheme::Udp,
            _ => return Err(UrlError::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // A password may have an unescaped `@`; a host has none.
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let mut path = printable_path(path, scheme);
        // UDP has no place for it.
        if let Some(user) = user.filter(|user| !user.is_empty() && scheme != Scheme::Udp) {
            path = format!("{} {path}", basic(user)).into();
        }
        Self::new(parse_authority(scheme, authority)?, path)
    }

    /// Bounds the URL as it is requested: escaping makes a path up to three times as long.
    fn new(site: Site, path: Box<str>) -> Result<Self, UrlError> {
        if site.to_string().len() + path.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        Ok(Self { site, path })
    }

    /// The URL that the `Location` of a redirect leads to, which answered a request for this URL
    /// (RFC 9110, section 10.2.2). The parameters of an announce are cut off. User and password stay with
    /// the site.
    ///
    /// # Errors
    /// A [`UrlError`] if it is not a URL, or leads out of TLS.
    pub fn redirect(&self, location: &str) -> Result<Self, UrlError> {
        let location = location.trim();
        let from = self.site.scheme;
        let Self { site, path } = if let Some(rest) = location.strip_prefix("//") {
            Self::parse(&format!("{}://{rest}", from.as_str()))?
        } else if location.contains("://") {
            Self::parse(location)?
        } else {
            Self {
                site: self.site.clone(),
                path: printable_path(&self.absolute(location), from),
            }
        };
        let (own, _) = split_credentials(&self.path);
        let (named, path) = split_credentials(&path);
        let credentials = named.or(own.filter(|_| site == self.site));
        let to = site.scheme;
        if to == Scheme::Udp || (from == Scheme::Https && to == Scheme::Http) {
            return Err(UrlError::Downgrade { from, to });
        }
        let path = if location.starts_with('?') {
            path.to_owned()
        } else {
            without_dot_segments(path)
        };
        let path = without_parameters(&path);
        let path = match credentials {
            Some(credentials) => format!("{credentials} {path}"),
            None => path.to_owned(),
        };
        Self::new(site, path.into())
    }

    /// Returns true if a redirect of this URL to another only moves the host to TLS: the path is the
    /// same, and the port is one that only the owner of the host can use.
    #[must_use]
    pub fn moves_to_tls(&self, to: &Self) -> bool {
        let (from, into) = (&self.site, &to.site);
        let schemes = (from.scheme, into.scheme) == (Scheme::Http, Scheme::Https);
        let usual = Scheme::Https.default_port() == Some(into.port);
        let [path, new] = [self, to].map(|url| split_credentials(&url.path).1);
        schemes && usual && from.host == into.host && path == new
    }

    /// The path of a relative reference.
    fn absolute(&self, reference: &str) -> String {
        let (_, path) = split_credentials(&self.path);
        let path = path.split('?').next().unwrap_or_default();
        if reference.starts_with('/') {
            reference.to_owned()
        } else if reference.starts_with('?') {
            format!("{path}{reference}")
        } else {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{directory}/{reference}")
        }
    }
}

fn parse_authority(scheme: Scheme, authority: &str) -> Result<Site, UrlError> {
    let (host, port) = parse_host(authority)?;
    let port = port.or(scheme.default_port()).ok_or(UrlError::Port)?;
    Ok(Site { scheme, host, port })
}

/// Parses a host as [`Site`] keeps it, and the port behind it, which may be missing.
pub(super) fn parse_host(text: &str) -> Result<(Box<str>, Option<u16>), UrlError> {
    let (host, port) = if let Some((host, port)) = text.split_once(']') {
        let host = host.strip_prefix('[').ok_or(UrlError::Host)?;
        let address: Ipv6Addr = host.parse().map_err(|_| UrlError::Host)?;
        (address.to_string(), port)
    } else {
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        // Nearly all are ASCII; a name of the DNS may have an underscore, which IDNA does not know.
        let host = match host.is_ascii() {
            true => Cow::Borrowed(host),
            false => idna::domain_to_ascii_cow(host.as_bytes(), AsciiDenyList::URL)
                .map_err(|_| UrlError::Host)?,
        };
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        // A name in the DNS has at most 253 bytes (RFC 1035, section 2.3.4).
        if host.is_empty() || host.len() > 253 || !host.bytes().all(letter) {
            return Err(UrlError::Host);
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port {
        "" | ":" => None,
        _ => {
            let digits = port.strip_prefix(':').ok_or(UrlError::Port)?;
            let number = digits.parse().ok().filter(|port: &u16| *port != 0);
            Some(number.ok_or(UrlError::Port)?)
        }
    };
    Ok((host.into(), port))
}

/// A text that is not the URL of a tracker, for the log: at most its scheme, host and port, since a
/// passkey may follow and a password may come before. Hidden characters are escaped.
#[must_use]
pub fn masked(text: &str) -> String {
    let text = text.trim();
    let (scheme, rest) = match text.find("://") {
        Some(at) => text.split_at(at + 3),
        None => ("", text),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let more = if path.len() > 1 { "/…" } else { path };
    Printable(format!("{scheme}{host}{more}").as_bytes()).to_string()
}

/// The credentials of Basic in the path of a [`TrackerUrl`], if there are any, and the rest.
#[must_use]
pub fn split_credentials(path: &str) -> (Option<&str>, &str) {
    match path.split_once(' ') {
        Some((credentials, path)) => (Some(credentials), path),
        None => (None, path),
    }
}

/// The credentials of Basic for `USER:PASSWORD` of a URL, where bytes may be escaped (RFC 7617).
fn basic(user: &str) -> String {
    let mut bytes = Vec::with_capacity(user.len());
    let mut rest = user.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => tail.get(2..).unwrap_or_default(),
            None => tail,
        };
    }
    // The password may be missing, its colon not.
    if !bytes.contains(&b':') {
        bytes.push(b':');
    }
    STANDARD.encode(bytes)
}

/// Path and query as they are requested: without the fragment, and with all bytes escaped that would
/// end the request line.
fn printable_path(path: &str, scheme: Scheme) -> Box<str> {
    let path = path.split('#').next().unwrap_or_default();
    let mut printable = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') && (scheme != Scheme::Udp || !path.is_empty()) {
        printable.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_graphic() {
            printable.push(char::from(byte));
        } else {
            printable.push_str(&format!("%{byte:02X}"));
        }
    }
    printable.into()
}

/// Removes the segments `.` and `..` of a path that may have a query (RFC 3986, section 5.2.4).
fn without_dot_segments(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.find('?') {
        Some(at) => path_and_query.split_at(at),
        None => (path_and_query, ""),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            kept.pop();
        } else if segment != "." {
            kept.push(segment);
            continue;
        }
        // A path that ends with such a segment names a directory.
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}

/// Cuts the query where the parameters of an announce begin: most redirects repeat them.
fn without_parameters(path: &str) -> &str {
    let keys = ["?info_hash=", "&info_hash="];
    let at = keys.iter().filter_map(|key| path.find(key)).min();
    let (kept, _) = path.split_at(at.unwrap_or(path.len()));
    kept.trim_end_matches(['?', '&'])
}

/// Returns true if an address is one of the Internet: neither of this machine, nor of a private
/// network, nor in a range for other uses (RFC 6890 and IANA's registries of special addresses), nor
/// that of a cloud's services, which all are special but one. An IPv4 address inside an IPv6 address
/// counts, where the prefix says that there is one: a network's own prefix for NAT64 is not known.
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_global_v4(mapped),
            // Only 2000::/3 is assigned; 64:ff9b::/96 and 2002::/16 carry an IPv4 address.
            None => match address.segments() {
                [0x2002, high, low, ..] => is_global_v4(joined(high, low)),
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_global_v4(joined(high, low)),
                // Documentation; then protocols like Teredo, whose addresses lead to any IPv4 address.
                [0x2001, 0xdb8, ..] => false,
                [0x3fff, second, ..] if second < 0x1000 => false,
                [0x2001, second, ..] if second < 0x200 => false,
                [first, ..] => first & 0xe000 == 0x2000,
            },
        },
    }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let shared = first == 100 && second & 0xc0 == 64;
    let special = first == 192 && second == 0 && third == 0;
    let benchmark = first == 198 && second & 0xfe == 18;
    let relay = (first, second, third) == (192, 88, 99);
    // Services of the host to a virtual machine in Azure.
    let azure = address == Ipv4Addr::new(168, 63, 129, 16);
    !(first == 0
        || first >= 224
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || shared
        || special
        || benchmark
        || relay
        || azure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Result<(Scheme, String, u16, String), UrlError> {
        let url = TrackerUrl::parse(text)?;
        let host = url.site.host.into_string();
        Ok((url.site.scheme, host, url.site.port, url.path.into()))
    }

    fn is(
        scheme: Scheme,
        host: &str,
        port: u16,
        path: &str,
    ) -> Result<(Scheme, String, u16, String), UrlError> {
        Ok((scheme, host.to_owned(), port, path.to_owned()))
    }

    #[test]
    fn usual_urls_are_read() {
        for (text, expected) in [
            (
                "http://a.example/announce",
                is(Scheme::Http, "a.example", 80, "/announce"),
            ),
            (
                "HTTPS://A.Example:8443/x?key=1#f",
                is(Scheme::Https, "a.example", 8443, "/x?key=1"),
            ),
            (
                " udp://t.example:1337 ",
                is(Scheme::Udp, "t.example", 1337, ""),
            ),
            (
                "udp://t.example:80/announce",
                is(Scheme::Udp, "t.example", 80, "/announce"),
            ),
            (
                "http://[2001:DB8::1]:6969/a",
                is(Scheme::Http, "2001:db8::1", 6969, "/a"),
            ),
            ("http://10.0.0.1", is(Scheme::Http, "10.0.0.1", 80, "/")),
            (
                "http://a?passkey=x",
                is(Scheme::Http, "a", 80, "/?passkey=x"),
            ),
            ("http://a:/b", is(Scheme::Http, "a", 80, "/b")),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_tracker_is_refused() {
        for (text, error) in [
            ("", UrlError::Scheme),
            ("announce", UrlError::Scheme),
            ("wss://a/", UrlError::Scheme),
            ("dht://a", UrlError::Scheme),
            ("http://", UrlError::Host),
            ("http:///announce", UrlError::Host),
            ("http://a b/", UrlError::Host),
            ("http://a\r\nX: y/", UrlError::Host),
            ("http://[::1/", UrlError::Host),
            ("http://[fe80::1%25eth0]/", UrlError::Host),
            ("http://me:word@/", UrlError::Host),
            ("http://a\u{2024}b:/\u{0}", UrlError::Host),
            ("http://\u{fdd0}/", UrlError::Host),
            ("http://xn--a-\u{e4}/", UrlError::Host),
            ("http://a:0/", UrlError::Port),
            ("http://a:65536/", UrlError::Port),
            ("http://[::1]x/", UrlError::Port),
            ("http://::1/", UrlError::Host),
            ("udp://a/announce", UrlError::Port),
        ] {
            assert_eq!(parts(text), Err(error), "{text}");
        }
        let long = format!("http://a/{}", "x".repeat(MAX_URL_BYTES));
        assert_eq!(parts(&long), Err(UrlError::TooLong));
    }

    #[test]
    fn names_of_all_scripts_are_those_of_the_dns() {
        for (url, host) in [
            ("http://bücher.example/a", "xn--bcher-kva.example"),
            ("http://BÜCHER.Example/a", "xn--bcher-kva.example"),
            ("http://трекер.рф:80/a", "xn--e1aaowdh.xn--p1ai"),
            ("udp://猫。example:9/a", "xn--z7x.example"),
            ("http://a_b.example/", "a_b.example"),
            // Letters that only look like one are another name.
            ("http://\u{ff41}.example/", "a.example"),
        ] {
            assert_eq!(&*TrackerUrl::parse(url).unwrap().site.host, host, "{url}");
        }
    }

    #[test]
    fn what_is_shown_of_an_unusable_url_has_no_passkey_or_password() {
        for (text, shown) in [
            ("wss://t.example:443/secret?x", "wss://t.example:443/…"),
            ("dht://secret@t.example", "dht://t.example"),
            (" udp://t.example/ ", "udp://t.example/"),
            ("t.example/secret", "t.example/…"),
            ("http://a\u{202e}b?secret", "http://a\\u{202e}b/…"),
            ("", ""),
        ] {
            assert_eq!(masked(text), shown);
        }
        assert!(masked(&"x".repeat(1000)).len() < 210);
    }

    #[test]
    fn user_and_password_belong_to_the_url_and_stay_with_its_site() {
        let url = |text: &str| TrackerUrl::parse(text).unwrap();
        for (text, credentials, path) in [
            ("http://a/x", None, "/x"),
            ("http://@a/x", None, "/x"),
            // The example of RFC 7617.
            (
                "http://Aladdin:open%20sesame@a/x",
                Some("QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
                "/x",
            ),
            ("https://u@a/x", Some("dTo="), "/x"),
            ("https://u:p@q@a", Some("dTpwQHE="), "/"),
            ("http://u:%+1%4@a/", Some("dTolKzElNA=="), "/"),
            ("udp://u:p@a:1/x", None, "/x"),
        ] {
            let url = url(text);
            assert_eq!(split_credentials(&url.path), (credentials, path), "{text}");
            assert_eq!(&*url.site.host, "a");
            assert!(!url.site.to_string().contains('@'));
        }
        let from = url("http://u:p@a/d/x?k=1");
        for (location, credentials, path) in [
            ("/y", Some("dTpw"), "/y"),
            ("y", Some("dTpw"), "/d/y"),
            ("?k=2", Some("dTpw"), "/d/x?k=2"),
            ("http://a/y", Some("dTpw"), "/y"),
            ("http://b/y", None, "/y"),
            ("https://a/y", None, "/y"),
            ("http://v:q@b/../y", Some("djpx"), "/y"),
        ] {
            let to = from.redirect(location).unwrap();
            assert_eq!(
                split_credentials(&to.path),
                (credentials, path),
                "{location}"
            );
        }
        assert!(from.moves_to_tls(&url("https://a/d/x?k=1")));
    }

    #[test]
    fn nothing_in_a_path_ends_the_request_line() {
        let path = TrackerUrl::parse("http://a/x y\r\nEvil: é").unwrap().path;
        assert_eq!(&*path, "/x%20y%0D%0AEvil:%20%C3%A9");
    }

    #[test]
    fn a_site_is_shown_without_its_path() {
        for (text, shown) in [
            ("http://a:80/secret", "http://a"),
            ("https://a:80/secret", "https://a:80"),
            ("http://[::1]:80/", "http://[::1]"),
            ("udp://[::1]:9/", "udp://[::1]:9"),
        ] {
            assert_eq!(TrackerUrl::parse(text).unwrap().site.to_string(), shown);
        }
    }

    #[test]
    fn redirects_are_relative_or_absolute_and_lose_our_query() {
        let from = TrackerUrl::parse("http://a:1/dir/announce?key=k").unwrap();
        for (location, site, path) in [
            ("/b?info_hash=%01&port=1", "http://a:1", "/b"),
            ("/b?key=k&info_hash=%01&port=1", "http://a:1", "/b?key=k"),
            ("b?my_info_hash=x", "http://a:1", "/dir/b?my_info_hash=x"),
            ("?k=2&info_hash=x", "http://a:1", "/dir/announce?k=2"),
            ("//b/c", "http://b", "/c"),
            ("../b", "http://a:1", "/b"),
            ("./b/./c/..", "http://a:1", "/dir/b/"),
            ("../../../b/.", "http://a:1", "/b/"),
            ("/x/../b?to=../c", "http://a:1", "/b?to=../c"),
            ("http://b/x/../../c/%2e%2e/", "http://b", "/c/%2e%2e/"),
            ("..b/...", "http://a:1", "/dir/..b/..."),
            ("https://b/c", "https://b", "/c"),
            ("http://b", "http://b", "/"),
        ] {
            let to = from.redirect(location).unwrap();
            assert_eq!(
                (to.site.to_string().as_str(), &*to.path),
                (site, path),
                "{location}"
            );
        }
    }

    #[test]
    fn a_url_is_bounded_in_the_form_that_is_requested() {
        let from = TrackerUrl::parse("http://a/d/announce").unwrap();
        let most = "x".repeat(MAX_URL_BYTES - "http://a/".len());
        let to = from.redirect(&format!("/{most}")).unwrap();
        let shown = format!("{}{}", to.site, to.path);
        assert_eq!(shown.len(), MAX_URL_BYTES);
        assert_eq!(TrackerUrl::parse(&shown), Ok(to));
        let escaped = format!("http://a/{}", "é".repeat(557));
        assert_eq!(TrackerUrl::parse(&escaped), Err(UrlError::TooLong));
        for location in [format!("/{most}x"), most, "é".repeat(MAX_URL_BYTES / 3)] {
            assert_eq!(from.redirect(&location), Err(UrlError::TooLong));
        }
        // What is just as long as it may be is taken.
        let longest = format!("http://a/{}", "x".repeat(MAX_URL_BYTES - 9));
        assert!(TrackerUrl::parse(&longest).is_ok());
        // The same of a host, as the DNS bounds it.
        let host = |length: usize| TrackerUrl::parse(&format!("http://{}/", "h".repeat(length)));
        assert!(host(253).is_ok());
        assert_eq!(host(254), Err(UrlError::Host));
    }

    #[test]
    fn a_redirect_does_not_leave_tls_or_http() {
        let from = TrackerUrl::parse("https://a/announce").unwrap();
        let (https, http, udp) = (Scheme::Https, Scheme::Http, Scheme::Udp);
        for (location, to) in [("http://a/announce", http), ("udp://a:1/announce", udp)] {
            let error = UrlError::Downgrade { from: https, to };
            assert_eq!(from.redirect(location), Err(error));
        }
        assert!(from.redirect("javascript://x").is_err());
        assert!(from.redirect(&"x".repeat(MAX_URL_BYTES + 1)).is_err());
    }

    #[test]
    fn a_host_moves_to_tls_only_as_a_whole() {
        for (from, to, moves) in [
            ("http://a/x", "https://a/x", true),
            ("http://a:6969/x", "https://A:443/x", true),
            ("http://a/x", "https://a:8443/x", false),
            ("http://a/x", "https://a/y", false),
            ("http://a/x", "https://b/x", false),
            ("http://a/x", "http://a:443/x", false),
            ("https://a:8443/x", "https://a/x", false),
        ] {
            let [from, to] = [from, to].map(|url| TrackerUrl::parse(url).unwrap());
            assert_eq!(from.moves_to_tls(&to), moves, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn only_addresses_of_the_internet_are_global() {
        let global = |text: &str| is_global(text.parse().unwrap());
        for text in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1",
            "2002:101:101::1",
            "64:ff9b::101:101",
            "168.63.129.17",
            "2001:200::1",
            "3fff:1000::1",
        ] {
            assert!(global(text), "{text}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "10.1.1.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::1",
            "64:ff9b::7f00:1",
            "2001:db8::1",
            "::127.0.0.1",
            "2002:a9fe:a9fe::1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::101:101",
            "2001::1",
            "2001:1ff::1",
            "3fff:fff::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "192.0.0.192",
            "192.88.99.1",
            "168.63.129.16",
            "5f00::1",
        ] {
            assert!(!global(text), "{text}");
        }
    }
}
