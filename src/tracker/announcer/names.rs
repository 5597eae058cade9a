//! The announcer's part for names: where each tracker is, and what when that cannot be found.
//!
//! Owns what an answer of the resolver means for a tracker. It must not know connections.

use std::net::IpAddr;

use super::Announcer;
use crate::timers::Time;
use crate::tracker::entries::Family;
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
            let Some(tracker) = self.trackers.get_mut(number as usize) else {
                continue;
            };
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
                    tracker.troubles = 0;
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
    fn place(&mut self, number: u32, family: Family, addresses: Vec<IpAddr>, now: Time) {
        let is_nowhere = addresses.is_empty();
        if let Some(route) = self.route(number, family) {
            route.set_addresses(addresses);
        }
        if is_nowhere {
            self.abandon(number, family, None, now);
        }
    }

    /// The tracker as a whole cannot be spoken to.
    pub(super) fn trouble(&mut self, number: u32, error: &TargetError, now: Time) {
        let first_ms = self.config.limits.rest_ms;
        let Some(tracker) = self.trackers.get_mut(number as usize) else {
            return;
        };
        tracker.troubles = tracker.troubles.saturating_add(1);
        let rest_ms = (first_ms << (tracker.troubles - 1).min(16)).min(route::MAX_REST_MS);
        let rest_ms = rest_ms + self.random.u64(0..=rest_ms / 4);
        tracker.rests_until = now.after(rest_ms);
        self.complain(
            number,
            format_args!("{error}; retrying in {} s", rest_ms / 1000),
            now,
        );
        if let Some(tracker) = self.trackers.get_mut(number as usize) {
            tracker.target.reset();
        }
        for family in Family::ALL {
            self.place(number, family, Vec::new(), now);
        }
        self.touched.push(number);
    }
}
