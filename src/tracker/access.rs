//! Which trackers may be announced to: all, those of the Internet, or those that an operator has named.

use std::net::IpAddr;
use std::str::FromStr;

use super::url::{Site, TrackerUrl, UrlError, is_global, parse_host};

/// The trackers that are announced to (`--trackers`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AccessMode {
    /// All, wherever they are.
    #[default]
    Any,
    /// Those at addresses of the Internet, and those that are named.
    Public,
    /// Those that are named.
    List,
}

impl FromStr for AccessMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "public" => Ok(Self::Public),
            "list" => Ok(Self::List),
            _ => Err("must be any, public or list"),
        }
    }
}

/// A host that an operator has named (`--tracker-host`): `tracker.example`, or `.example` for all hosts
/// below that domain; with `:PORT` at that port only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedHost {
    /// As in [`Site`]; of a domain with the dot before it.
    host: Box<str>,
    /// `None` for any.
    port: Option<u16>,
}

impl NamedHost {
    /// The host of a site, at its port.
    #[must_use]
    pub fn of(site: &Site) -> Self {
        Self {
            host: site.host.clone(),
            port: Some(site.port),
        }
    }

    fn has(&self, site: &Site) -> bool {
        let is_below = || {
            // An address has no domains above it.
            self.host.starts_with('.')
                && site.host.ends_with(&*self.host)
                && site.host.parse::<IpAddr>().is_err()
        };
        self.port.is_none_or(|port| port == site.port) && (self.host == site.host || is_below())
    }
}

impl FromStr for NamedHost {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let host = address.to_string().into();
            return Ok(Self { host, port: None });
        }
        let (dot, name) = match text.strip_prefix('.') {
            Some(name) => (".", name),
            None => ("", text),
        };
        let (host, port) = parse_host(name)?;
        Ok(Self {
            host: format!("{dot}{host}").into(),
            port,
        })
    }
}

/// Why a tracker is not announced to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody has named its host.
    #[error("its host is not among those of --tracker-host")]
    NotNamed,
    /// All of its addresses are special, like this one.
    #[error("its address {0} is not public")]
    NotPublic(IpAddr),
}

/// Why nothing is announced to the URL of a torrent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unusable {
    /// It is not the URL of a tracker.
    #[error("cannot be used: {0}")]
    Invalid(#[from] UrlError),
    /// Its tracker may not be announced to.
    #[error("is not allowed: {0}")]
    Refused(#[from] Refusal),
}

/// Which trackers may be announced to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Access {
    /// All trackers, or some.
    pub mode: AccessMode,
    /// Hosts that may be announced to in every mode, at any address.
    pub named: Vec<NamedHost>,
}

impl Access {
    /// Returns true if an operator has named the host of a site.
    #[must_use]
    pub fn names(&self, site: &Site) -> bool {
        self.named.iter().any(|host| host.has(site))
    }

    /// Parses the URL of a tracker that may be announced to, as far as the URL tells.
    ///
    /// # Errors
    /// Why nothing is announced to it.
    pub fn parse(&self, text: &str) -> Result<TrackerUrl, Unusable> {
        let url = TrackerUrl::parse(text)?;
        match self.refuse(&url.site) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(url),
        }
    }

    /// Why a tracker at that site is refused, as far as the site tells: wherever its name leads, or
    /// because it is an address.
    #[must_use]
    pub fn refuse(&self, site: &Site) -> Option<Refusal> {
        if self.names(site) {
            return None;
        }
        match self.mode {
            AccessMode::Any => None,
            AccessMode::List => Some(Refusal::NotNamed),
            AccessMode::Public => {
                let address = site.host.parse().ok();
                let special = address.filter(|address| !is_global(*address));
                special.map(Refusal::NotPublic)
            }
        }
    }

    /// Removes the addresses of a site that are not used, to which its name was resolved. Returns why,
    /// if none remains of several.
    #[must_use]
    pub fn filter(&self, site: &Site, addresses: &mut Vec<IpAddr>) -> Option<Refusal> {
        if self.mode != AccessMode::Public || self.names(site) {
            return None;
        }
        let first = addresses.first().copied();
        addresses.retain(|address| is_global(*address));
        first
            .filter(|_| addresses.is_empty())
            .map(Refusal::NotPublic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::url::TrackerUrl;

    fn access(mode: AccessMode, named: &[&str]) -> Access {
        let named = named.iter().map(|host| host.parse().unwrap());
        Access {
            mode,
            named: named.collect(),
        }
    }

    fn site(url: &str) -> Site {
        TrackerUrl::parse(url).unwrap().site
    }

    fn filtered(access: &Access, url: &str, addresses: &[&str]) -> (Vec<String>, Option<Refusal>) {
        let parsed = addresses.iter().map(|address| address.parse().unwrap());
        let mut addresses: Vec<IpAddr> = parsed.collect();
        let refusal = access.filter(&site(url), &mut addresses);
        (addresses.iter().map(IpAddr::to_string).collect(), refusal)
    }

    #[test]
    fn a_list_has_hosts_domains_and_ports() {
        let named = [
            "Tracker.Example",
            ".lan",
            "10.0.0.1:6969",
            "fd00::1",
            "[fd00::2]:80",
        ];
        let list = access(AccessMode::List, &named);
        for (url, allowed) in [
            ("http://tracker.example/a", true),
            ("udp://tracker.example:9/a", true),
            ("http://x.tracker.example/", false),
            ("http://tracker.example.evil/", false),
            ("http://a.lan/", true),
            ("http://a.b.lan/", true),
            ("http://lan/", false),
            ("http://evillan/", false),
            ("http://10.0.0.1:6969/", true),
            ("http://10.0.0.1/", false),
            ("https://[fd00::1]:8443/", true),
            ("http://[fd00:0::2]/", true),
            ("http://[fd00::2]:81/", false),
        ] {
            let expected = (!allowed).then_some(Refusal::NotNamed);
            assert_eq!(list.refuse(&site(url)), expected, "{url}");
        }
        // The last part of an address is no domain.
        let list = access(AccessMode::List, &[".1"]);
        assert!(list.refuse(&site("http://10.0.0.1/")).is_some());
        for mode in [AccessMode::Any, AccessMode::Public] {
            assert_eq!(access(mode, &[]).refuse(&site("http://a/")), None);
        }
    }

    #[test]
    fn an_address_is_judged_without_a_resolver() {
        let public = access(AccessMode::Public, &["10.0.0.1"]);
        for (url, refused) in [
            ("http://10.0.0.2/", Some("10.0.0.2")),
            ("http://[::1]/", Some("::1")),
            ("http://10.0.0.1/", None),
            ("http://1.1.1.1/", None),
            // Only the system's resolver knows that it is an address.
            ("http://0x7f.1/", None),
        ] {
            let refused = refused.map(|address| Refusal::NotPublic(address.parse().unwrap()));
            assert_eq!(public.refuse(&site(url)), refused, "{url}");
            let any = access(AccessMode::Any, &[]);
            assert_eq!(any.refuse(&site(url)), None, "{url}");
        }
    }

    #[test]
    fn only_public_addresses_remain_unless_the_host_is_named() {
        let public = access(AccessMode::Public, &["b"]);
        let kept = |addresses: &[&str]| addresses.iter().map(ToString::to_string).collect();
        let private = "10.0.0.1".parse().unwrap();
        for (url, addresses, left, refusal) in [
            (
                "http://a/",
                &["1.1.1.1", "10.0.0.1"][..],
                &["1.1.1.1"][..],
                None,
            ),
            (
                "http://a/",
                &["10.0.0.1", "::1"],
                &[],
                Some(Refusal::NotPublic(private)),
            ),
            ("http://a/", &[], &[], None),
            ("http://b/", &["10.0.0.1"], &["10.0.0.1"], None),
        ] {
            assert_eq!(filtered(&public, url, addresses), (kept(left), refusal));
        }
        let any = access(AccessMode::Any, &[]);
        assert_eq!(
            filtered(&any, "http://a/", &["::1"]),
            (kept(&["::1"]), None)
        );
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "a b",
            "http://a/",
            "a:0",
            "a:x",
            "[::1",
            "*.lan",
            "a/b",
            "me@a",
        ] {
            assert!(text.parse::<NamedHost>().is_err(), "{text}");
        }
        assert!("all".parse::<AccessMode>().is_err());
    }
}
