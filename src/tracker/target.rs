//! Where a tracker really is: its name, its addresses, and the redirects it has sent.
//!
//! Owns which addresses may be spoken to. It must not know how, nor whether they answer.

use std::collections::HashMap;
use std::net::IpAddr;

use super::url::{Site, TrackerUrl, is_global};
use crate::timers::Time;

/// Redirects in a row, as browsers bound them only more strictly: trackers need one.
const MAX_REDIRECTS: u32 = 5;

/// A redirect is forgotten after an hour, so that one that was temporary does not last.
const REDIRECT_MS: u64 = 60 * 60 * 1000;

/// Paths that are remembered to have become others.
const MAX_PATHS: usize = 64;

/// Addresses are asked for again after this time: what the name's record says is not known.
const RESOLVED_MS: u64 = 15 * 60 * 1000;

/// The same when there was no answer and older addresses are still used.
const UNRESOLVED_MS: u64 = 60 * 1000;

/// Why a tracker cannot be spoken to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("redirected more than {MAX_REDIRECTS} times")]
    Loop,
    #[error("redirected to {0}, which is no address of the Internet")]
    Private(IpAddr),
    #[error("its name has no address that can be used")]
    NoAddress,
    #[error("its name cannot be resolved: {0}")]
    Resolver(String),
}

/// What is known of the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Unknown,
    Asked,
    Known {
        until: Time,
    },
    /// Known from before, and asked for again.
    Renewing,
}

/// Where a tracker is.
#[derive(Debug)]
pub(super) struct Target {
    origin: Site,
    /// Where it has been redirected to, or the origin.
    site: Site,
    /// What a torrent's path has become, and after how many redirects in a row.
    paths: HashMap<Box<str>, (Box<str>, u32)>,
    redirected_at: Time,
    /// Every address of the origin was one of the Internet: redirects must not lead elsewhere.
    origin_is_global: bool,
    /// Grows with each change of the site: answers of older connections are told by it.
    pub(super) generation: u32,
    name: Name,
}

impl Target {
    pub(super) fn new(site: &Site) -> Self {
        Self {
            origin: site.clone(),
            site: site.clone(),
            paths: HashMap::new(),
            redirected_at: Time::default(),
            origin_is_global: true,
            generation: 0,
            name: Name::Unknown,
        }
    }

    /// Who is spoken to now.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// The URL that a torrent's path means now.
    pub(super) fn url(&self, path: &str) -> TrackerUrl {
        let path = self.paths.get(path).map_or(path, |(path, _)| path);
        TrackerUrl {
            site: self.site.clone(),
            path: path.into(),
        }
    }

    /// Whether the addresses are to be asked for now. The question counts as asked then.
    pub(super) fn ask(&mut self, now: Time) -> bool {
        if self.is_redirected() && now.since(self.redirected_at) >= REDIRECT_MS {
            self.reset();
        }
        match self.name {
            Name::Unknown => self.name = Name::Asked,
            Name::Known { until } if until <= now => self.name = Name::Renewing,
            _ => return false,
        }
        true
    }

    /// Whether there are addresses to be spoken to.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.name, Name::Known { .. } | Name::Renewing)
    }

    /// Addresses have come, of either family.
    ///
    /// # Errors
    /// Why none of them can be used. Unless older ones still can, they are asked for again when
    /// [`Target::ask`] is called next.
    pub(super) fn resolved(
        &mut self,
        addresses: Result<Vec<IpAddr>, String>,
        now: Time,
    ) -> Result<Vec<IpAddr>, TargetError> {
        let usable = addresses
            .map_err(TargetError::Resolver)
            .and_then(|addresses| self.allowed(addresses));
        match &usable {
            Ok(_) => {
                let until = now.after(RESOLVED_MS);
                self.name = Name::Known { until };
            }
            Err(_) if self.name == Name::Renewing => {
                let until = now.after(UNRESOLVED_MS);
                self.name = Name::Known { until };
            }
            Err(_) => self.name = Name::Unknown,
        }
        usable
    }

    fn allowed(&mut self, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, TargetError> {
        if !self.is_redirected() {
            self.origin_is_global = addresses.iter().all(|address| is_global(*address));
        } else if self.origin_is_global
            && let Some(address) = addresses.iter().find(|address| !is_global(**address))
        {
            return Err(TargetError::Private(*address));
        }
        if addresses.is_empty() {
            return Err(TargetError::NoAddress);
        }
        Ok(addresses)
    }

    fn is_redirected(&self) -> bool {
        !self.paths.is_empty()
    }

    /// The tracker has redirected a torrent's path to another URL. Whether that is at another site.
    ///
    /// # Errors
    /// When it does so again and again. Then everything begins at the origin again.
    pub(super) fn redirect(
        &mut self,
        path: &str,
        to: TrackerUrl,
        now: Time,
    ) -> Result<bool, TargetError> {
        let redirects = self.paths.get(path).map_or(0, |(_, redirects)| *redirects) + 1;
        if redirects > MAX_REDIRECTS {
            self.reset();
            return Err(TargetError::Loop);
        }
        if self.paths.len() >= MAX_PATHS {
            self.paths.clear();
        }
        self.paths.insert(path.into(), (to.path, redirects));
        self.redirected_at = now;
        self.generation = self.generation.wrapping_add(1);
        let moved = self.site != to.site;
        if moved {
            self.site = to.site;
            self.name = Name::Unknown;
        } else if self.name == Name::Renewing {
            // The answer will be one to the generation before, and is passed over.
            self.name = Name::Known { until: now };
        }
        Ok(moved)
    }

    /// Forgets every redirect.
    pub(super) fn reset(&mut self) {
        if self.is_redirected() {
            self.site = self.origin.clone();
            self.paths.clear();
            self.generation = self.generation.wrapping_add(1);
            self.name = Name::Unknown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target::new(&TrackerUrl::parse(url).unwrap().site)
    }

    fn addresses(list: &[&str]) -> Result<Vec<IpAddr>, String> {
        Ok(list
            .iter()
            .map(|address| address.parse().unwrap())
            .collect())
    }

    fn redirect(target: &mut Target, path: &str, to: &str) -> Result<bool, TargetError> {
        target.redirect(path, TrackerUrl::parse(to).unwrap(), Time(0))
    }

    #[test]
    fn addresses_are_asked_for_once_and_again_after_their_time() {
        let mut target = target("http://a/");
        assert!(target.ask(Time(0)) && !target.ask(Time(0)));
        assert!(target.resolved(addresses(&["1.1.1.1"]), Time(0)).is_ok());
        assert!(!target.ask(Time(RESOLVED_MS - 1)));
        assert!(target.ask(Time(RESOLVED_MS)) && target.is_known());
        // Old addresses are used on while there are no new ones.
        assert!(
            target
                .resolved(Err("no".into()), Time(RESOLVED_MS))
                .is_err()
        );
        assert!(target.is_known() && !target.ask(Time(RESOLVED_MS)));
        assert!(target.ask(Time(RESOLVED_MS + UNRESOLVED_MS)));
    }

    #[test]
    fn a_name_without_addresses_is_asked_for_again() {
        let mut target = target("http://a/");
        assert!(target.ask(Time(0)));
        assert_eq!(
            target.resolved(addresses(&[]), Time(0)),
            Err(TargetError::NoAddress)
        );
        assert!(!target.is_known() && target.ask(Time(0)));
    }

    #[test]
    fn a_redirect_holds_for_an_hour() {
        let mut target = target("http://a/");
        target.ask(Time(0));
        target.resolved(addresses(&["1.1.1.1"]), Time(0)).unwrap();
        redirect(&mut target, "/announce", "https://b/new").unwrap();
        assert_eq!(target.url("/announce").site.to_string(), "https://b");
        assert_eq!(&*target.url("/announce").path, "/new");
        assert_eq!(&*target.url("/other").path, "/other");
        assert!(!target.is_known() && target.ask(Time(0)));
        assert!(target.ask(Time(REDIRECT_MS)));
        assert_eq!(target.site().to_string(), "http://a");
        assert_eq!(target.generation, 2);
    }

    #[test]
    fn a_redirect_during_a_question_does_not_end_the_asking() {
        let mut target = target("http://a/");
        target.ask(Time(0));
        target.resolved(addresses(&["1.1.1.1"]), Time(0)).unwrap();
        assert!(target.ask(Time(RESOLVED_MS)));
        let asked = target.generation;
        assert_eq!(redirect(&mut target, "/", "http://a/new"), Ok(false));
        // The answer is one to a target that has been left, and is passed over.
        assert_ne!(target.generation, asked);
        assert!(target.is_known() && target.ask(Time(RESOLVED_MS)));
    }

    #[test]
    fn redirect_loops_end() {
        let mut target = target("http://a/");
        for _ in 0..MAX_REDIRECTS {
            assert_eq!(redirect(&mut target, "/", "http://a/"), Ok(false));
            assert_eq!(redirect(&mut target, "/other", "http://a/"), Ok(false));
        }
        assert_eq!(
            redirect(&mut target, "/", "http://a/"),
            Err(TargetError::Loop)
        );
        assert!(!target.is_redirected());
    }

    #[test]
    fn a_redirect_leads_home_only_when_the_tracker_was_there() {
        for (origin, to, allowed) in [
            ("1.1.1.1", "127.0.0.1", false),
            ("1.1.1.1", "8.8.8.8", true),
            ("127.0.0.1", "127.0.0.2", true),
            ("10.0.0.1", "192.168.0.1", true),
        ] {
            let mut target = target("http://a/");
            target.ask(Time(0));
            target.resolved(addresses(&[origin]), Time(0)).unwrap();
            redirect(&mut target, "/", "http://b/").unwrap();
            target.ask(Time(0));
            let resolved = target.resolved(addresses(&[to]), Time(0));
            assert_eq!(resolved.is_ok(), allowed, "{origin} to {to}");
        }
        let mut target = target("http://a/");
        target.ask(Time(0));
        // The torrent's own tracker may be anywhere.
        assert!(target.resolved(addresses(&["127.0.0.1"]), Time(0)).is_ok());
    }

    #[test]
    fn remembered_paths_are_bounded() {
        let mut target = target("http://a/");
        for number in 0..1000 {
            redirect(&mut target, &format!("/{number}"), "http://b/").unwrap();
        }
        assert!(target.paths.len() <= MAX_PATHS);
    }
}
