//! The announcer's part for names: where each tracker is, and what when that cannot be found.
//!
//! Owns what an answer of the resolver means for a tracker. It must not know connections.

use std::net::IpAddr;

use super::Announcer;
use crate::timers::Time;
use crate::tracker::family::Family;
use crate::tracker::lists::TrackerId;
use crate::tracker::route;
use crate::tracker::target::TargetError;

impl Announcer {
    pub(super) fn collect_names(&mut self, now: Time) {
        for answer in self.resolver.collect() {
            let number = answer.tracker;
            if answer.tls.is_some() {
                self.tls = answer.tls;
            }
            let can_speak = Family::ALL
                .map(|family| self.source(family).is_some() && self.datagrams.has(family));
            let tracker = &mut self.trackers[number];
            if tracker.target.generation != answer.generation {
                continue;
            }
            self.touched.push(number);
            let addresses = answer.addresses.map(|mut addresses| {
                let [v4, v6] = can_speak;
                addresses.retain(|address| if address.is_ipv4() { v4 } else { v6 });
                addresses
            });
            match tracker.target.resolved(addresses, now) {
                Ok(addresses) => {
                    tracker.failures = 0;
                    let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
                    for (family, addresses) in Family::ALL.into_iter().zip([v4, v6]) {
                        self.place(number, family, addresses, now);
                    }
                }
                Err(error) if !tracker.target.is_known() => self.trouble(number, &error, now),
                // The addresses from before are used on.
                Err(_) => {}
            }
        }
    }

    /// Takes over where a tracker is by one family. What waited for it there waits no more when it
    /// has no such address.
    fn place(&mut self, number: TrackerId, family: Family, addresses: Vec<IpAddr>, now: Time) {
        let is_nowhere = addresses.is_empty();
        let route = self.route(number, family);
        route.set_addresses(addresses);
        if is_nowhere {
            self.abandon(number, family, None, now);
        }
    }

    /// The tracker as a whole cannot be spoken to.
    pub(super) fn trouble(&mut self, number: TrackerId, error: &TargetError, now: Time) {
        let first_ms = self.config.limits.backoff_ms;
        let tracker = &mut self.trackers[number];
        tracker.failures = tracker.failures.saturating_add(1);
        let backoff_ms = (first_ms << (tracker.failures - 1).min(16)).min(route::MAX_BACKOFF_MS);
        let backoff_ms = backoff_ms + self.random.u64(0..=backoff_ms / 4);
        tracker.retry_at = now.after(backoff_ms);
        self.warn_throttled(
            number,
            format_args!("{error}; retrying in {} s", backoff_ms / 1000),
            now,
        );
        let tracker = &mut self.trackers[number];
        tracker.target.reset();
        for family in Family::ALL {
            self.place(number, family, Vec::new(), now);
        }
        self.touched.push(number);
    }
}
