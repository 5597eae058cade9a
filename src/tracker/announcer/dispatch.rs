//! From the schedule to the transports: each tracker is given as many announces as it can take.

use std::net::IpAddr;

use super::http::HttpSlot;
use super::outcome::RedirectError;
use super::transport::Full;
use super::{Announcer, BATCH_MS};
use crate::timers::Time;
use crate::tracker::access::Refusal;
use crate::tracker::entries::EntryId;
use crate::tracker::family::{Family, PerFamily};
use crate::tracker::lists::TrackerId;
use crate::tracker::request::{Request, RouteId};
use crate::tracker::route::backoff_ms;
use crate::tracker::schedule::Outcome;
use crate::tracker::target::{RESOLVED_MS, TargetError};
use crate::tracker::url::Scheme;

/// Announces that one tracker is given in one turn; the rest waits for the next.
const DISPATCH_PER_TURN: usize = 512;

/// The same at the end, when most torrents have nothing to announce.
const STOPS_PER_TURN: usize = 4096;

/// Room for one request on a transport.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Http(HttpSlot),
    Udp,
}

/// What became of the next announce of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It was sent, or it had nothing to say.
    Done,
    /// None is due.
    NothingDue,
    /// The tracker can take none now, and is woken when it can.
    Blocked,
}

impl Announcer {
    /// Gives a tracker as much as it can take now, and makes sure that it is woken for the rest.
    pub(super) fn pump(&mut self, id: TrackerId, now: Time) {
        let stopping = self.stops_at.is_some();
        let steps = if stopping {
            STOPS_PER_TURN
        } else {
            DISPATCH_PER_TURN
        };
        let mut is_stuck = false;
        for step in 0..steps {
            if self.trackers[id].refusal.is_some() && !stopping {
                // It is allowed when its name leads elsewhere.
                self.resolve_when_due(id, now);
                self.wakes.wake_at(id, now.after(RESOLVED_MS));
                return;
            }
            let due = self.schedule.poll_at(id, now);
            let tracker = &mut self.trackers[id];
            let again = !is_stuck && tracker.has_again();
            let Some(mut at) = (if again { Some(now) } else { due }) else {
                return;
            };
            if step > 0 && at > now {
                tracker.gathers_until = now.after(BATCH_MS);
            }
            if !again && !stopping {
                at = at.max(tracker.gathers_until);
            }
            if !tracker.target.is_known() && !stopping {
                at = at.max(tracker.retry_at);
            }
            if at > now {
                self.wakes.wake_at(id, at);
                return;
            }
            self.resolve_when_due(id, now);
            match self.dispatch(id, now) {
                Step::Done => {}
                // The requests that go first have to wait, and an event says when they need not.
                Step::NothingDue => is_stuck = true,
                Step::Blocked => return,
            }
        }
        self.wakes.wake_now(id);
    }

    /// Sets why a tracker may not be announced to.
    fn set_refusal(&mut self, id: TrackerId, refusal: Option<Refusal>, now: Time) {
        let before = std::mem::replace(&mut self.trackers[id].refusal, refusal);
        self.not_allowed -= u64::from(before.is_some());
        self.not_allowed += u64::from(refusal.is_some());
        if let (None, Some(why)) = (before, refusal) {
            self.report.refuse(id, why, now);
        }
    }

    /// Asks for the addresses of a tracker when they are not known, or old.
    fn resolve_when_due(&mut self, id: TrackerId, now: Time) {
        let target = &mut self.trackers[id].target;
        let before = target.generation;
        if target.ask(now) {
            let generation = target.generation;
            let site = target.site();
            let is_https = site.scheme == Scheme::Https;
            self.resolver.ask(id, generation, &site.host, is_https);
            if generation != before {
                self.reset_routes(id);
            }
        }
    }

    /// Takes the answers of the resolver.
    pub(super) fn collect_names(&mut self, now: Time) {
        for answer in self.resolver.collect() {
            if let Some(tls) = answer.tls {
                self.http.set_tls(tls);
            }
            let target = &self.trackers[answer.tracker].target;
            if target.generation == answer.generation {
                self.resolved(answer.tracker, answer.addresses, now);
            }
        }
    }

    /// The name of a tracker was resolved, or not.
    pub(super) fn resolved(
        &mut self,
        id: TrackerId,
        mut addresses: Result<Vec<IpAddr>, String>,
        now: Time,
    ) {
        self.wakes.wake_now(id);
        if let Ok(addresses) = &mut addresses {
            let is_usable = |family| self.config.sources[family].is_some() && self.udp.has(family);
            addresses.retain(|address| is_usable(Family::of(*address)));
            let site = self.trackers[id].target.site();
            let refusal = self.config.access.filter(site, addresses);
            self.set_refusal(id, refusal, now);
            if refusal.is_some() {
                self.trackers[id].target.refused(now);
                self.forget_addresses(id, now);
                return;
            }
        }
        let tracker = &mut self.trackers[id];
        match tracker.target.resolved(addresses, now) {
            Ok(addresses) => {
                tracker.failures = 0;
                for route in RouteId::all_of(id) {
                    let own = addresses.iter().copied();
                    let own = own.filter(|address| Family::of(*address) == route.family);
                    let own = own.collect();
                    self.set_addresses(route, own, now);
                }
            }
            Err(error) if !tracker.target.is_known() => self.fail_to_resolve(id, &error, now),
            // The addresses from before are still used.
            Err(_) => {}
        }
    }

    fn forget_addresses(&mut self, id: TrackerId, now: Time) {
        for route in RouteId::all_of(id) {
            self.set_addresses(route, Vec::new(), now);
        }
    }

    /// Takes the addresses of a tracker by one family. Without one, nothing waits there any more.
    fn set_addresses(&mut self, route: RouteId, addresses: Vec<IpAddr>, now: Time) {
        let is_nowhere = addresses.is_empty();
        if self.route(route).set_addresses(addresses) {
            self.udp.disconnect(route);
        }
        if is_nowhere {
            self.abandon(route, None, now);
        }
    }

    fn fail_to_resolve(&mut self, id: TrackerId, error: &TargetError, now: Time) {
        // Where the name led before says nothing.
        self.set_refusal(id, None, now);
        let chance = self.random.u32(..);
        let tracker = &mut self.trackers[id];
        tracker.failures = tracker.failures.saturating_add(1);
        let first_ms = self.config.limits.backoff_ms;
        let backoff_ms = backoff_ms(tracker.failures, first_ms, chance);
        tracker.retry_at = now.after(backoff_ms);
        tracker.target.reset();
        self.forget_addresses(id, now);
        let wait_s = self.next_try_s(id, now.after(backoff_ms), now);
        self.report
            .warn_of_rest(id, &error.to_string(), wait_s, now);
        self.wakes.wake_now(id);
    }

    /// Another server is at the site of a tracker: nothing that is known of the former one holds, and
    /// its requests are sent again.
    pub(super) fn reset_routes(&mut self, id: TrackerId) {
        for route in RouteId::all_of(id) {
            let requests = self.http.reset(route);
            let mut again = std::mem::take(self.route(route)).again;
            again.extend(requests);
            self.route(route).again = again;
        }
        self.wakes.wake_now(id);
    }

    /// Makes the next announce of a tracker, if one is due, by each family that can take it.
    fn dispatch(&mut self, id: TrackerId, now: Time) -> Step {
        let stopping = self.stops_at.is_some();
        let tracker = &mut self.trackers[id];
        if let Some(at) = tracker.limiter.poll_at(now, 1) {
            self.wakes.wake_at(id, at.max(now.after(BATCH_MS)));
            return Step::Blocked;
        }
        let mut slots: PerFamily<Option<Slot>> = PerFamily::default();
        let mut is_awaited = false;
        self.http.release_slots();
        for route in RouteId::all_of(id) {
            let Some(slot) = self.reserve(route, now) else {
                // The other family waits for it, so that each torrent is announced by both.
                let state = self.route(route);
                is_awaited |= state.is_usable(now) && state.is_awaited();
                continue;
            };
            if let Some(request) = self.route(route).again.pop_front() {
                self.send_again(slot, request, now);
                return Step::Done;
            }
            slots[route.family] = Some(slot);
        }
        // At the end, nothing waits for a tracker that cannot be reached.
        let is_open = stopping || slots.iter().any(Option::is_some);
        let is_full = self.redirects.is_full(id, self.trackers[id].is_up());
        if is_awaited || !is_open || is_full {
            return Step::Blocked;
        }
        // The entry that is prefetched may not be due yet.
        let Some(entry) = self.schedule.take(id, now) else {
            return Step::NothingDue;
        };
        let requests = RouteId::all_of(id).map(|route| {
            let slot = slots[route.family]?;
            Some((slot, self.begin(entry, route)?))
        });
        self.schedule.dispatched(id, entry);
        for (slot, request) in requests.into_iter().flatten() {
            self.send(slot, request, now);
        }
        Step::Done
    }

    /// Begins the announce of an entry on a route, if there is something to announce.
    pub(super) fn begin(&mut self, entry: EntryId, origin: RouteId) -> Option<Request> {
        let due = self.schedule.begin(entry, origin.family)?;
        Some(Request {
            entry,
            origin,
            wants_peers: self.config.dialled.has(&due.announce.info_hash),
            announce: due.announce,
            path: due.path,
            is_renewed: false,
            redirect: None,
        })
    }

    /// Reserves room for one request on a route.
    fn reserve(&mut self, route: RouteId, now: Time) -> Option<Slot> {
        let id = route.tracker;
        if !self.route(route).is_usable(now) {
            if let Some(until) = self.route(route).retry_at() {
                self.wakes.wake_at(id, until);
            }
            return None;
        }
        let tracker = &self.trackers[id];
        let endpoint = tracker.endpoint(route.family, &self.config.limits);
        let endpoint = endpoint.expect("a usable route has an address");
        let reserved = match endpoint.site.scheme {
            Scheme::Udp => {
                let reserved = self.udp.reserve(route, &endpoint, now);
                reserved.map(|()| Slot::Udp)
            }
            Scheme::Http | Scheme::Https => {
                self.http.reserve(route, &endpoint, now).map(Slot::Http)
            }
        };
        if let Err(Full::Until(at)) = reserved {
            self.wakes.wake_at(id, at);
        }
        reserved.ok()
    }

    /// Sends a request that has waited, unless there is nothing to announce any more.
    fn send_again(&mut self, slot: Slot, request: Request, now: Time) {
        let family = request.origin.family;
        if self.schedule.has_due(request.entry, family) {
            self.send(slot, request, now);
        } else {
            let request = self.redirects.end(request);
            self.finish(request, Outcome::Returned, now);
        }
    }

    /// Why a redirected request may not be sent to the address of its target.
    pub(super) fn refused_address(&self, request: &Request) -> Option<RedirectError> {
        let (origin, route) = (request.origin.tracker, request.route());
        let address = self.trackers[route.tracker].routes[route.family].address()?;
        let is_allowed =
            origin == route.tracker || self.trackers[origin].target.may_lead_to(address);
        (!is_allowed).then_some(RedirectError::Private(address))
    }

    /// Sends a request where its path leads.
    fn send(&mut self, slot: Slot, request: Request, now: Time) {
        let (origin, route) = (request.origin.tracker, request.route());
        if request.redirect.is_none()
            && let Some(to) = self.redirects.find(origin, &request.path, now).cloned()
        {
            self.follow(request, to, 1, now);
            return;
        }
        if let Some(error) = self.refused_address(&request) {
            self.dead_end(request, &error, now);
            return;
        }
        let tracker = &mut self.trackers[route.tracker];
        tracker.limiter.take(1);
        self.report.count(route.tracker, |sums| &mut sums.sent);
        let endpoint = tracker.endpoint(route.family, &self.config.limits);
        let endpoint = endpoint.expect("it has an address");
        match slot {
            Slot::Udp => self.udp.send(route, &endpoint, request, now),
            Slot::Http(slot) => {
                if let Err((request, why)) = self.http.send(slot, &endpoint, request, now) {
                    self.finish(request, Outcome::Returned, now);
                    self.fail(route, None, &why, now);
                }
            }
        }
    }
}
