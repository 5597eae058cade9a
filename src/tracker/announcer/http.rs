//! The announcer's part for HTTP trackers: connections, what a response means, what a break means.
//!
//! Owns when connections are opened and closed. It must not know how bytes become responses.

use std::net::SocketAddr;

use mio::Interest;

use super::{Announcer, FIRST_CONNECTION, MAX_CONNECTIONS};
use crate::timers::Time;
use crate::tracker::announce::Request;
use crate::tracker::announce::{self, Announce};
use crate::tracker::connection::{Connection, End, Progress};
use crate::tracker::family::Family;
use crate::tracker::http;
use crate::tracker::lists::TrackerId;
use crate::tracker::peers;
use crate::tracker::response::Response;
use crate::tracker::route::ConnectionMode;
use crate::tracker::schedule::Outcome;
use crate::tracker::url::TrackerUrl;

/// `Retry-After` is heeded up to an hour.
const MAX_RETRY_AFTER_S: u64 = 3600;

/// How long the rest of the first batch is waited for, once its first answer has come.
const TRIAL_MS: u64 = 2000;

/// A connection that is closed this long after its last answer was closed for resting.
const RESTED_MS: u64 = 1000;

/// When a tracker is looked at again that found no room for its connection.
const NO_ROOM_MS: u64 = 1000;

impl Announcer {
    /// Has a connection looked at in the next turn.
    pub(super) fn list(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.listed
        {
            connection.listed = true;
            self.ready.push(key);
        }
    }

    /// Whether there is room for a request, on a connection or for one.
    pub(super) fn can_send_request(
        &mut self,
        number: TrackerId,
        family: Family,
        now: Time,
    ) -> bool {
        if self.find_room(number, family).is_some() {
            return true;
        }
        let route = self.route(number, family);
        if route.connections.len() >= route.max_connections() {
            return false;
        }
        let room = self.may_open();
        if !room {
            self.wake_at(number, now.after(NO_ROOM_MS));
        }
        room
    }

    /// Returns true if another connection may be opened. Closes an idle one if that takes it.
    fn may_open(&mut self) -> bool {
        self.connections.len() < MAX_CONNECTIONS || self.make_room()
    }

    /// The least loaded connection that can take one more.
    fn find_room(&self, number: TrackerId, family: Family) -> Option<usize> {
        let tracker = &self.trackers[number];
        let route = &tracker.routes[family];
        let keys = route.connections.iter().copied();
        let usable = keys.filter_map(|key| Some((key, self.connections.get(key)?)));
        let usable = usable.filter(|(_, connection)| {
            connection.generation == tracker.target.generation && connection.has_room()
        });
        let least = usable.min_by_key(|(_, connection)| connection.in_flight.len());
        least.map(|(key, _)| key)
    }

    /// Closes a connection without requests, if there is one.
    fn make_room(&mut self) -> bool {
        let mut idle = self.connections.iter();
        let idle = idle.find(|(_, connection)| connection.in_flight.is_empty());
        match idle.map(|(key, _)| key) {
            Some(key) => {
                self.forget(key);
                true
            }
            None => false,
        }
    }

    /// Puts a request on a connection, for which [`Announcer::can_send_request`] has said that there
    /// is room.
    pub(super) fn send_request(
        &mut self,
        number: TrackerId,
        family: Family,
        request: Request,
        now: Time,
    ) {
        let found = self.find_room(number, family);
        if found.is_none() && !self.may_open() {
            // Both families were asked before either opened the last connection.
            self.route(number, family).again.push_back(request);
            self.wake_at(number, now.after(NO_ROOM_MS));
            return;
        }
        let key = match found.map_or_else(|| self.open(number, family, now), Ok) {
            Ok(key) => key,
            Err(why) => {
                self.finish(number, family, request, Outcome::Returned, now);
                self.fail(number, family, None, &why, now);
                return;
            }
        };
        let identity = &self.config.identity;
        let Some(due) = self.schedule.due(request.entry, family) else {
            // It was given up at the end, when nothing but `stopped` is said.
            let (home, request) = self.come_home(number, request);
            self.finish(home, family, request, Outcome::Returned, now);
            return;
        };
        let announce = Announce {
            event: request.told,
            ..due.announce
        };
        let peers_wanted = self.peers_wanted(&announce.info_hash);
        let tracker = &self.trackers[number];
        let url = TrackerUrl {
            site: tracker.target.site().clone(),
            path: self.detour_path(request).unwrap_or(due.path).into(),
        };
        let tracker_id = tracker.tracker_id.as_deref();
        if let Some(connection) = self.connections.get_mut(key) {
            if connection.in_flight.is_empty() && connection.connected {
                connection.deadline = now.after(self.config.limits.answer_ms);
                self.check_at = self.check_at.into_iter().chain([connection.deadline]).min();
            }
            connection.push(request, now, |out| {
                http::write_request(out, &url, identity, &announce, peers_wanted, tracker_id);
            });
        }
        self.list(key);
    }

    fn open(&mut self, number: TrackerId, family: Family, now: Time) -> Result<usize, String> {
        let source = self.source(family).ok_or("there is no such family")?;
        let tracker = &mut self.trackers[number];
        let site = tracker.target.site();
        let route = &mut tracker.routes[family];
        let address = route.address().ok_or("there is no address")?;
        let address = SocketAddr::new(address, site.port);
        let opened = Connection::open(site, source, address, self.tls.as_ref());
        let mut connection = opened.map_err(|error| error.to_string())?;
        connection.tracker = number;
        connection.family = family;
        connection.generation = tracker.target.generation;
        connection.depth = route.first_depth();
        connection.proven = route.is_proven();
        connection.deadline = now.after(self.config.limits.connect_ms);
        self.check_at = self.check_at.into_iter().chain([connection.deadline]).min();
        let place = self.connections.vacant_entry();
        let key = place.key();
        assert!(key < MAX_CONNECTIONS, "`may_open` was not asked");
        let token = (self.token)(FIRST_CONNECTION + key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(&mut connection.stream, token, interest)
            .map_err(|error| error.to_string())?;
        place.insert(connection);
        route.connections.push(key);
        self.counters.connections += 1;
        let open = self.connections.len();
        self.counters.most_connections = self.counters.most_connections.max(open);
        Ok(key)
    }

    /// Closes a connection, and answers what was on it.
    pub(super) fn discard(&mut self, key: usize) -> Vec<Request> {
        let Some(mut connection) = self.connections.try_remove(key) else {
            return Vec::new();
        };
        self.registry.deregister(&mut connection.stream).ok();
        self.ready.retain(|listed| *listed != key);
        connection.in_flight.into()
    }

    /// Closes a connection that its route is to know nothing of any more.
    fn forget(&mut self, key: usize) -> Vec<Request> {
        if let Some(connection) = self.connections.get(key) {
            let (number, family) = (connection.tracker, connection.family);
            let route = self.route(number, family);
            route.connections.retain(|open| *open != key);
        }
        self.discard(key)
    }

    /// Reads and writes where something is to be done.
    pub(super) fn drive_connections(&mut self, now: Time) {
        let mut answers = Vec::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        for key in std::mem::take(&mut self.ready) {
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            connection.listed = false;
            if connection.connects() {
                connection.deadline = now.after(self.config.limits.answer_ms);
            }
            let mut progress = connection.receive(&mut buffer, &mut answers);
            if !matches!(progress, Progress::Ended(_))
                && let Err(end) = connection.send()
            {
                progress = Progress::Ended(end);
            }
            let (number, family) = (connection.tracker, connection.family);
            let generation = connection.generation;
            for (request, response) in answers.drain(..) {
                self.progress(key, &response, now);
                self.response(number, family, generation, request, &response, now);
            }
            match progress {
                Progress::Blocked => self.list_if_ready(key),
                Progress::More => self.list(key),
                Progress::Ended(end) => self.ended(key, &end, now),
            }
        }
        self.buffer = buffer;
    }

    fn list_if_ready(&mut self, key: usize) {
        if self.connections.get(key).is_some_and(Connection::is_ready) {
            self.list(key);
        }
    }

    /// Writes the requests of this turn.
    pub(super) fn send_requests(&mut self, now: Time) {
        for key in std::mem::take(&mut self.ready) {
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            connection.listed = false;
            match connection.send() {
                Ok(()) => self.list_if_ready(key),
                Err(end) => self.ended(key, &end, now),
            }
        }
    }

    /// A connection has brought an answer, and may carry more now.
    fn progress(&mut self, key: usize, response: &Response, now: Time) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let waits = !connection.in_flight.is_empty();
        let limits = &self.config.limits;
        let wait_ms = match (waits, connection.proven) {
            (true, true) => limits.answer_ms,
            // Whoever answers the first of a batch and forgets the rest is not waited for.
            (true, false) => {
                let first_ms = now.since(connection.pushed_at);
                TRIAL_MS.max(2 * first_ms).min(limits.answer_ms)
            }
            (false, _) => limits.idle_ms,
        };
        connection.answered_at = now;
        connection.deadline = now.after(wait_ms);
        self.check_at = self.check_at.into_iter().chain([connection.deadline]).min();
        let (number, family) = (connection.tracker, connection.family);
        {
            let route = &mut self.trackers[number].routes[family];
            let before = route.mode;
            let batch = connection.whole_batch();
            if response.keep_alive {
                connection.depth = route.deepen(connection.depth, batch, response.may_pipeline);
                connection.proven = route.is_proven();
            }
            if route.mode != before {
                self.log_mode(number, family);
            }
        }
        self.touched.push(number);
    }

    fn log_mode(&self, number: TrackerId, family: Family) {
        let tracker = &self.trackers[number];
        let what = match tracker.routes[family].mode {
            ConnectionMode::OneAtATime => "accepts only one request at a time",
            ConnectionMode::Closing => "closes the connection after each response",
            _ => return,
        };
        log::info!("tracker {}: {what}", tracker.site);
    }

    fn response(
        &mut self,
        number: TrackerId,
        family: Family,
        generation: u32,
        request: Request,
        response: &Response,
        now: Time,
    ) {
        if matches!(response.status, 301 | 302 | 303 | 307 | 308)
            && let Some(location) = &response.location
        {
            let is_permanent = matches!(response.status, 301 | 308);
            let redirect = (location.as_str(), is_permanent);
            self.redirected(number, family, generation, request, redirect, now);
            return;
        }
        match announce::parse_answer(&response.body) {
            Ok(answer) => {
                self.named_peers(number, family, request, || {
                    peers::from_answer(&response.body)
                });
                self.answered(number, family, request, answer, now);
            }
            Err(error) => {
                let ok = (200..300).contains(&response.status);
                let why = if ok {
                    error.to_string()
                } else {
                    format!("status {}", response.status)
                };
                self.senseless(number, family, request, response, &why, now);
            }
        }
    }

    /// A response came that no tracker sends: a busy server, another server, a broken one.
    fn senseless(
        &mut self,
        number: TrackerId,
        family: Family,
        request: Request,
        response: &Response,
        why: &str,
        now: Time,
    ) {
        let busy = matches!(response.status, 429 | 503);
        let route = self.route(number, family);
        if let (true, Some(wait_s)) = (busy, response.retry_after_s) {
            let wait_s = wait_s.clamp(1, MAX_RETRY_AFTER_S);
            route.back_off(now, wait_s * 1000);
            self.warn_throttled(number, format_args!("is busy; retrying in {wait_s} s"), now);
            self.finish(number, family, request, Outcome::Returned, now);
            self.abandon(number, family, None, now);
        } else if route.strike() || busy {
            self.fail(number, family, Some(request), why, now);
        } else {
            self.warn_throttled(number, format_args!("{why}; this announce failed"), now);
            self.finish(number, family, request, Outcome::Failed, now);
        }
    }

    /// A connection is of no more use.
    fn ended(&mut self, key: usize, end: &End, now: Time) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let (number, family) = (connection.tracker, connection.family);
        let (answered, said) = (connection.answered, connection.closing);
        let (connected, batch) = (connection.connected, connection.batch);
        let rested = answered > 0 && now.since(connection.answered_at) > RESTED_MS;
        let mut lost = self.forget(key);
        self.touched.push(number);
        let route = self.route(number, family);
        // Whoever closes a connection that rests shows nothing by it.
        if lost.is_empty() && rested {
            return;
        }
        let changed = route.ended(answered, lost.len(), batch, said);
        // A break is the fault of pipelining, or of nobody where something had been answered.
        let broke = matches!(end, End::Closed | End::Io(_));
        let piped = changed && route.mode == ConnectionMode::OneAtATime;
        let excused = said || piped || (answered > 0 && broke);
        if excused || lost.is_empty() {
            route.again.extend(lost);
        } else {
            let blamed = connected.then(|| lost.remove(0));
            for request in lost {
                self.finish(number, family, request, Outcome::Returned, now);
            }
            self.fail(number, family, blamed, &end.to_string(), now);
        }
        if changed {
            self.log_mode(number, family);
        }
    }

    /// Closes connections that wait for too long, or that nobody needs.
    pub(super) fn close_late_connections(&mut self, now: Time) {
        if self.check_at.is_none_or(|at| at > now) {
            return;
        }
        let late = |connection: &Connection| connection.deadline <= now;
        let keys = self.connections.iter();
        let keys = keys
            .filter(|(_, connection)| late(connection))
            .map(|(key, _)| key);
        for key in keys.collect::<Vec<_>>() {
            self.ended(key, &End::TimedOut, now);
        }
        let deadlines = self
            .connections
            .iter()
            .map(|(_, connection)| connection.deadline);
        self.check_at = deadlines.min();
    }
}

#[cfg(test)]
mod tests;
