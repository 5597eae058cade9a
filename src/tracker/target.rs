//! Where a tracker is: its site, whether it has moved to TLS, and when its name is resolved.

use std::net::IpAddr;

use super::redirects::REDIRECT_MS;
use super::url::{Site, is_global};
use crate::timers::Time;

/// A name is resolved again after this time: the system's resolver does not tell its time to live.
pub(super) const RESOLVED_MS: u64 = 15 * 60 * 1000;

/// The same if it could not be resolved again, while older addresses are still used.
const UNRESOLVED_MS: u64 = 60 * 1000;

/// Why a tracker cannot be reached.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("its name has no usable address")]
    NoAddress,
    #[error("cannot resolve its name: {0}")]
    Resolver(String),
}

/// Whether the name is resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Unknown,
    Resolving,
    Known {
        until: Time,
    },
    /// Older addresses are used while it is resolved again.
    Renewing,
}

/// Where a tracker is.
#[derive(Debug)]
pub(super) struct Target {
    origin: Site,
    /// The origin, or its site in TLS once it has moved there.
    site: Site,
    moved_at: Time,
    /// Every address is one of the Internet, so that redirects must not lead into a private network.
    is_global: bool,
    /// Changes with the site, to recognise answers of the resolver for a former one.
    pub(super) generation: u32,
    name: Name,
}

impl Target {
    /// A tracker whose name is not resolved. The generation is one that no other site with its id has
    /// had.
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

    /// The site that is asked now.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// Returns true if a redirect of this tracker may lead to that address: into a private network only
    /// if the tracker is in one too.
    pub(super) fn may_lead_to(&self, address: IpAddr) -> bool {
        !self.is_global || is_global(address)
    }

    /// Returns true if the name is to be resolved now, by the caller. Ends a move that is too old.
    pub(super) fn ask(&mut self, now: Time) -> bool {
        if now.since(self.moved_at) >= REDIRECT_MS {
            self.reset();
        }
        match self.name {
            Name::Unknown => self.name = Name::Resolving,
            Name::Known { until } if until <= now => self.name = Name::Renewing,
            _ => return false,
        }
        true
    }

    /// Returns true if there are addresses.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.name, Name::Known { .. } | Name::Renewing)
    }

    /// The name was resolved to addresses of both families.
    ///
    /// # Errors
    /// Why there is no usable address. Unless older ones are still used, [`Target::ask`] asks again.
    pub(super) fn resolved(
        &mut self,
        addresses: Result<Vec<IpAddr>, String>,
        now: Time,
    ) -> Result<Vec<IpAddr>, TargetError> {
        let usable = match addresses {
            Ok(addresses) if addresses.is_empty() => Err(TargetError::NoAddress),
            addresses => addresses.map_err(TargetError::Resolver),
        };
        self.name = match &usable {
            Ok(addresses) => {
                self.is_global = addresses.iter().all(|address| is_global(*address));
                let until = now.after(RESOLVED_MS);
                Name::Known { until }
            }
            Err(_) if self.name == Name::Renewing => {
                let until = now.after(UNRESOLVED_MS);
                Name::Known { until }
            }
            Err(_) => Name::Unknown,
        };
        usable
    }

    /// The name was resolved, and no address of it is allowed. It is resolved again later.
    pub(super) fn refused(&mut self, now: Time) {
        let until = now.after(RESOLVED_MS);
        self.name = Name::Known { until };
    }

    /// Moves the tracker to another site.
    pub(super) fn move_to(&mut self, site: Site, now: Time) {
        self.site = site;
        self.moved_at = now;
        self.change();
    }

    /// Ends a move of the tracker.
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
    fn a_name_is_resolved_once_and_again_after_its_time() {
        let mut target = target("http://a/");
        assert!(target.ask(Time(0)) && !target.ask(Time(0)));
        assert!(target.resolved(addresses(&["1.1.1.1"]), Time(0)).is_ok());
        assert!(!target.ask(Time(RESOLVED_MS - 1)));
        assert!(target.ask(Time(RESOLVED_MS)) && target.is_known());
        // Old addresses are used while there are no new ones.
        assert!(
            target
                .resolved(Err("no".into()), Time(RESOLVED_MS))
                .is_err()
        );
        assert!(target.is_known() && !target.ask(Time(RESOLVED_MS)));
        assert!(target.ask(Time(RESOLVED_MS + UNRESOLVED_MS)));
    }

    #[test]
    fn a_name_without_addresses_is_resolved_again() {
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
        // The name of a tracker that has not moved is not resolved again.
        target
            .resolved(addresses(&["1.1.1.1"]), Time(REDIRECT_MS))
            .unwrap();
        assert!(!target.ask(Time(REDIRECT_MS + 1)));
        target.reset();
        assert_eq!((target.is_known(), target.generation), (true, 2));
    }

    #[test]
    fn a_redirect_leads_into_a_private_network_only_from_a_tracker_in_one() {
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
            // The tracker of a torrent may be anywhere.
            target.resolved(addresses(own), Time(0)).unwrap();
            let to = to.parse().unwrap();
            assert_eq!(target.may_lead_to(to), allowed, "{own:?} to {to}");
        }
        assert!(!target("http://a/").may_lead_to("127.0.0.1".parse().unwrap()));
    }
}
