//! Where a tracker is: its name, its addresses, and whether it has moved to TLS.
//!
//! Owns which addresses may be spoken to. It must not know how, nor whether they answer.

use std::net::IpAddr;

use super::redirects::REDIRECT_MS;
use super::url::{Site, is_global};
use crate::timers::Time;

/// Addresses are asked for again after this time: what the name's record says is not known.
const RESOLVED_MS: u64 = 15 * 60 * 1000;

/// The same when there was no answer and older addresses are still used.
const UNRESOLVED_MS: u64 = 60 * 1000;

/// Why a tracker cannot be spoken to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("its name has no usable address")]
    NoAddress,
    #[error("cannot resolve its name: {0}")]
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
    /// The same in TLS once it has moved there, or the origin.
    site: Site,
    moved_at: Time,
    /// Every address is one of the Internet: redirects must not lead elsewhere.
    is_global: bool,
    /// Grows with each change of the site: answers of older connections are told by it.
    pub(super) generation: u32,
    name: Name,
}

impl Target {
    /// A tracker of which nothing is known. The generation is one that no other target with its
    /// number has had.
    pub(super) fn new(site: &Site, generation: u32) -> Self {
        Self {
            origin: site.clone(),
            site: site.clone(),
            moved_at: Time::default(),
            is_global: true,
            generation,
            name: Name::Unknown,
        }
    }

    /// Who is spoken to now.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// Whether a redirect of this tracker may lead to that address: into a network that is not the
    /// Internet only when the tracker is in one itself.
    pub(super) fn may_lead_to(&self, address: IpAddr) -> bool {
        !self.is_global || is_global(address)
    }

    /// Whether the addresses are to be asked for now. The question counts as asked then.
    pub(super) fn ask(&mut self, now: Time) -> bool {
        if now.since(self.moved_at) >= REDIRECT_MS {
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
            .and_then(|addresses| self.usable(addresses));
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

    fn usable(&mut self, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, TargetError> {
        if addresses.is_empty() {
            return Err(TargetError::NoAddress);
        }
        self.is_global = addresses.iter().all(|address| is_global(*address));
        Ok(addresses)
    }

    /// The tracker is at another site from now on.
    pub(super) fn move_to(&mut self, site: Site, now: Time) {
        self.site = site;
        self.moved_at = now;
        self.change();
    }

    /// Forgets that the tracker has moved.
    pub(super) fn reset(&mut self) {
        if self.site != self.origin {
            self.site = self.origin.clone();
            self.change();
        }
    }

    fn change(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.name = Name::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::url::TrackerUrl;

    fn site(url: &str) -> Site {
        TrackerUrl::parse(url).unwrap().site
    }

    fn target(url: &str) -> Target {
        Target::new(&site(url), 0)
    }

    fn addresses(list: &[&str]) -> Result<Vec<IpAddr>, String> {
        Ok(list
            .iter()
            .map(|address| address.parse().unwrap())
            .collect())
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
    fn a_move_holds_for_an_hour() {
        let mut target = target("http://a/");
        target.ask(Time(0));
        target.resolved(addresses(&["1.1.1.1"]), Time(0)).unwrap();
        target.move_to(site("https://a/"), Time(0));
        assert_eq!((target.site(), target.generation), (&site("https://a/"), 1));
        assert!(!target.is_known() && target.ask(Time(0)));
        target.resolved(addresses(&["1.1.1.1"]), Time(0)).unwrap();
        target.ask(Time(REDIRECT_MS - 1));
        assert_eq!(target.site(), &site("https://a/"));
        assert!(target.ask(Time(REDIRECT_MS)) && !target.is_known());
        assert_eq!((target.site(), target.generation), (&site("http://a/"), 2));
        // What has not moved is not asked for anew.
        target
            .resolved(addresses(&["1.1.1.1"]), Time(REDIRECT_MS))
            .unwrap();
        assert!(!target.ask(Time(REDIRECT_MS + 1)));
        target.reset();
        assert_eq!((target.is_known(), target.generation), (true, 2));
    }

    #[test]
    fn a_redirect_leads_home_only_when_the_tracker_is_there() {
        for (own, to, allowed) in [
            (&["1.1.1.1"][..], "127.0.0.1", false),
            (&["1.1.1.1"], "10.0.0.1", false),
            (&["1.1.1.1"], "8.8.8.8", true),
            (&["127.0.0.1"], "127.0.0.2", true),
            (&["10.0.0.1"], "192.168.0.1", true),
            (&["1.1.1.1", "10.0.0.1"], "192.168.0.1", true),
        ] {
            let mut target = target("http://a/");
            target.ask(Time(0));
            // The torrent's own tracker may be anywhere.
            target.resolved(addresses(own), Time(0)).unwrap();
            let to = to.parse().unwrap();
            assert_eq!(target.may_lead_to(to), allowed, "{own:?} to {to}");
        }
        assert!(!target("http://a/").may_lead_to("127.0.0.1".parse().unwrap()));
    }
}
