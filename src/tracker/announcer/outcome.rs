//! From the transports to the schedule: what answers, failures and redirects bring about.

use std::net::{IpAddr, SocketAddr};

use super::transport::TransportEvent;
use super::{Announcer, Tracker};
use crate::timers::Time;
use crate::tracker::access::Refusal;
use crate::tracker::announce::{self, Answer};
use crate::tracker::lists::TrackerId;
use crate::tracker::peers;
use crate::tracker::redirects::{MAX_REDIRECTS, TargetChoice};
use crate::tracker::request::{RedirectTarget, Request, RouteId};
use crate::tracker::response::Response;
use crate::tracker::route::Health;
use crate::tracker::schedule::{Ended, Outcome, RETRY_S};
use crate::tracker::url::{Site, TrackerUrl, UrlError};

/// Peers that wait to be fetched. They are fetched each turn, so that only a flood of answers is cut.
const MAX_PEERS_WAITING: usize = 4096;

/// The longest `Retry-After` that is honoured: an hour.
const MAX_RETRY_AFTER_S: u64 = 3600;

/// The back-off of a tracker whose redirect was of no use, unless it is known to answer other
/// requests. It does not double: the next request may have another path, and one a second does no
/// harm.
const REDIRECT_BACKOFF_MS: u64 = 1000;

/// A tracker is known to answer if it did within this time: a third of a usual interval.
const ANSWERS_MS: u64 = 10 * 60 * 1000;

/// Why a redirect is not followed: what follows on "redirects".
#[derive(Debug, thiserror::Error)]
pub(super) enum RedirectError {
    #[error("to what is no tracker: {0}")]
    Url(#[from] UrlError),
    #[error("more than {MAX_REDIRECTS} times")]
    Loop,
    #[error("to {0}, which is not a public address")]
    Private(IpAddr),
    #[error("to {0}, which is not allowed: {1}")]
    NotAllowed(Site, Refusal),
    #[error("to {0}, which does not answer")]
    Silent(Site),
    #[error("to an address that does not answer")]
    Unanswered,
    #[error("to too many sites")]
    TooMany,
}

impl Announcer {
    /// Handles everything that has happened on the transports.
    pub(super) fn handle_transport_events(&mut self, now: Time) {
        while let Some(event) = self.http.poll_event(now) {
            self.handle_transport_event(event, now);
        }
        while let Some(event) = self.udp.poll_event(now) {
            self.handle_transport_event(event, now);
        }
    }

    fn handle_transport_event(&mut self, event: TransportEvent, now: Time) {
        match event {
            TransportEvent::Responded(request, response) => {
                self.handle_response(request, &response, now);
            }
            TransportEvent::Answered(request, answer, peers) => {
                self.keep_peers(&request, peers);
                self.handle_answer(request, answer, now);
            }
            TransportEvent::Unanswered(request) => self.finish(request, Outcome::Failed, now),
            TransportEvent::Again(route, requests) => {
                self.route(route).again.extend(requests);
                self.wakes.wake_now(route.tracker);
            }
            TransportEvent::Failed {
                route,
                blamed,
                returned,
                why,
            } => {
                for request in returned {
                    self.finish(request, Outcome::Returned, now);
                }
                self.fail(route, blamed, &why, now);
            }
            TransportEvent::Silent(route) => {
                let resend_ms = self.config.limits.resend_ms;
                let state = self.route(route);
                state.fall_silent(now);
                let wait_s = state.connect_timeout_ms(resend_ms) / 1000;
                self.abandon(route, None, now);
                let family = route.family;
                let what = format_args!("{family}: does not answer; waiting {wait_s} s from now");
                self.report.warn(route.tracker, what, now);
            }
            TransportEvent::Resent(route) => {
                self.report.count(route.tracker, |sums| &mut sums.sent);
            }
            TransportEvent::Room(route) => self.wakes.wake_now(route.tracker),
        }
    }

    /// An HTTP server has responded to a request.
    fn handle_response(&mut self, request: Request, response: &Response, now: Time) {
        let (route, status) = (request.route(), response.status);
        if matches!(status, 301 | 302 | 303 | 307 | 308)
            && let Some(location) = &response.location
        {
            let is_permanent = matches!(status, 301 | 308);
            self.handle_redirect(request, location, is_permanent, now);
            return;
        }
        let error = match announce::parse_answer(&response.body) {
            Ok(answer) => {
                if request.wants_peers {
                    self.keep_peers(&request, peers::from_answer(&response.body));
                }
                self.handle_answer(request, answer, now);
                return;
            }
            Err(error) => error,
        };
        let is_busy = matches!(status, 429 | 503);
        if is_busy && let Some(wait_s) = response.retry_after_s {
            let wait_s = wait_s.clamp(1, MAX_RETRY_AFTER_S);
            self.route(route).pause(now, wait_s * 1000);
            self.finish(request, Outcome::Returned, now);
            self.abandon(route, None, now);
            let family = route.family;
            let wait_s = self.next_try_s(route.tracker, now.after(wait_s * 1000), now);
            let why = format!("{family}: is busy");
            self.report.warn_of_rest(route.tracker, &why, wait_s, now);
            return;
        }
        let why = match status {
            200..300 => error.to_string(),
            _ => format!("status {status}"),
        };
        if self.route(route).strike() || is_busy {
            self.fail(route, Some(request), &why, now);
        } else {
            let (family, minutes) = (route.family, RETRY_S / 60);
            let what = format_args!(
                "{family}: {why}; this announce is made again in {minutes} min or later"
            );
            self.report.warn(route.tracker, what, now);
            self.finish(request, Outcome::Failed, now);
        }
    }

    /// Keeps the peers of an answer that may be dialled, while the torrent is served.
    fn keep_peers(&mut self, request: &Request, peers: Vec<SocketAddr>) {
        let address = self.route(request.route()).address();
        let (Some(address), true) = (
            address,
            self.schedule.has_due(request.entry, request.origin.family),
        ) else {
            return;
        };
        let room = MAX_PEERS_WAITING.saturating_sub(self.peers.len());
        let info_hash = request.announce.info_hash;
        let peers = peers.into_iter();
        let peers = peers.filter(|peer| peers::may_be_dialled(*peer, address));
        self.peers
            .extend(peers.map(|peer| (info_hash, peer)).take(room));
    }

    /// A tracker has answered an announce.
    fn handle_answer(&mut self, request: Request, answer: Answer, now: Time) {
        let (origin, route) = (request.origin, request.route());
        let answered_at = std::mem::replace(&mut self.answered_at, now);
        let had_failed = self.route(route).failures > 0;
        let ends_outage = had_failed && now.since(answered_at) >= self.config.limits.silence_ms;
        if origin != route {
            self.route(route).handle_answer(now);
        }
        let tracker = &mut self.trackers[origin.tracker];
        let was_up = tracker.is_up();
        if tracker.routes[origin.family].handle_answer(now) && !was_up {
            let torrents = self.schedule.members(origin.tracker);
            let site = self.report.site(origin.tracker);
            log::info!("tracker {site}: answers; it has {torrents} torrents");
        }
        let outcome = match answer {
            Answer::Accepted {
                terms,
                tracker_id,
                warning,
                seeds,
            } => {
                self.report.count(origin.tracker, |sums| &mut sums.accepted);
                if let Some(id) = tracker_id {
                    self.http.set_tracker_id(route.tracker, id);
                }
                if let Some(warning) = warning {
                    let family = origin.family;
                    let what = format_args!("{family}: warns: {warning}");
                    self.report.warn(origin.tracker, what, now);
                }
                let with_other = self.schedule.count_seeds(request.entry, seeds);
                self.seeded.extend(with_other);
                Outcome::Accepted(terms)
            }
            Answer::Refused { reason, retry } => {
                self.report.count(origin.tracker, |sums| &mut sums.refused);
                let torrent = request.announce.info_hash;
                let family = origin.family;
                let what = format_args!("{family}: refuses {torrent}: {reason}");
                self.report.warn(origin.tracker, what, now);
                Outcome::Refused(retry)
            }
        };
        self.finish(request, outcome, now);
        if ends_outage {
            self.wake_after(answered_at, now);
        }
    }

    /// An announce has ended. If it was redirected it has had its try: sent again, it would be
    /// redirected again.
    pub(super) fn finish(&mut self, request: Request, mut outcome: Outcome, now: Time) {
        let route = request.route();
        let was_redirected = request.redirect.is_some();
        let request = self.redirects.end(request);
        let origin = request.origin;
        if was_redirected && outcome == Outcome::Returned {
            outcome = Outcome::Failed;
        }
        if outcome == Outcome::Failed {
            self.report.count(origin.tracker, |sums| &mut sums.failed);
            if was_redirected {
                self.redirects.forget(origin.tracker, &request.path);
                let target = &self.trackers[route.tracker];
                let why = target.refusal.map_or(RedirectError::Unanswered, |why| {
                    RedirectError::NotAllowed(target.target.site().clone(), why)
                });
                self.blame_redirect(origin, &why, now);
            }
        }
        let ended = Ended {
            family: origin.family,
            event: request.announce.event,
            outcome,
        };
        let chance = self.random.u32(..);
        self.schedule
            .finish(origin.tracker, request.entry, ended, now, chance);
        self.wakes.wake_now(origin.tracker);
        self.wakes.wake_now(route.tracker);
    }

    /// Gives up all that is under way on a route. `blamed` is a request that brought it about.
    pub(super) fn abandon(&mut self, route: RouteId, blamed: Option<Request>, now: Time) {
        let mut returned: Vec<Request> = self.route(route).again.drain(..).collect();
        returned.extend(self.http.abandon(route));
        returned.extend(self.udp.abandon(route));
        if let Some(request) = blamed {
            self.finish(request, Outcome::Failed, now);
        }
        for request in returned {
            self.finish(request, Outcome::Returned, now);
        }
        self.wakes.wake_now(route.tracker);
    }

    /// A tracker has failed by one family, which backs off.
    pub(super) fn fail(&mut self, route: RouteId, blamed: Option<Request>, why: &str, now: Time) {
        let first_ms = self.config.limits.backoff_ms;
        let chance = self.random.u32(..);
        let backoff_ms = self.route(route).fail(now, first_ms, chance);
        self.abandon(route, blamed, now);
        let wait_s = self.next_try_s(route.tracker, now.after(backoff_ms), now);
        let why = format!("{}: {why}", route.family);
        self.report.warn_of_rest(route.tracker, &why, wait_s, now);
    }

    /// In how many seconds a tracker is announced to that is not before `at`: an announce that has failed
    /// waits for longer, and there may be no other.
    pub(super) fn next_try_s(&self, tracker: TrackerId, at: Time, now: Time) -> u64 {
        let due = self.schedule.poll_at(tracker, now).unwrap_or(now);
        at.max(due).since(now).div_ceil(1000)
    }

    /// A request was answered with a redirect.
    pub(super) fn handle_redirect(
        &mut self,
        request: Request,
        location: &str,
        is_permanent: bool,
        now: Time,
    ) {
        let asked = request.route().tracker;
        let hops = request.hops();
        let from = TrackerUrl {
            site: self.trackers[asked].target.site().clone(),
            path: request.target_path().into(),
        };
        let request = self.redirects.end(request);
        let origin = request.origin;
        self.wakes.wake_now(origin.tracker);
        if !self.schedule.has_due(request.entry, origin.family) {
            self.finish(request, Outcome::Returned, now);
            return;
        }
        let to = match from.redirect(location) {
            Ok(to) => to,
            Err(error) => {
                self.dead_end(request, &error.into(), now);
                return;
            }
        };
        if let Some(why) = self.config.access.refuse(&to.site) {
            let why = RedirectError::NotAllowed(to.site, why);
            self.dead_end(request, &why, now);
            return;
        }
        log::debug!(
            "tracker {}: redirects to {}",
            self.report.site(asked),
            to.site
        );
        if from.moves_to_tls(&to) {
            self.trackers[asked].target.move_to(to.site, now);
            self.reset_routes(asked);
            match hops {
                0 => self.route(origin).again.push_back(request),
                _ => self.follow(request, from, hops, now),
            }
            return;
        }
        let is_remembered = |known: Option<&TrackerUrl>| known == Some(&from);
        let known = self.redirects.find(origin.tracker, &request.path, now);
        if is_permanent && (hops == 0 || is_remembered(known)) {
            // Redirects in a row are remembered by where they end.
            self.redirects
                .remember(origin.tracker, &request.path, to.clone(), now);
        }
        self.follow(request, to, hops + 1, now);
    }

    /// Puts a request that is not redirected yet behind the requests of the target of a redirect.
    pub(super) fn follow(&mut self, request: Request, to: TrackerUrl, hops: u32, now: Time) {
        let target = match self.redirect_target(request.origin, &to.site, hops, now) {
            Ok(tracker) => RedirectTarget {
                tracker,
                path: to.path,
                hops,
            },
            Err(error) => {
                self.dead_end(request, &error, now);
                return;
            }
        };
        match self.redirects.begin(request, target) {
            Ok(request) => {
                let route = request.route();
                self.route(route).again.push_back(request);
                self.wakes.wake_now(route.tracker);
            }
            Err(request) => self.dead_end(request, &RedirectError::TooMany, now),
        }
    }

    /// The tracker at a site that a redirect leads to, if a request may be sent there now.
    fn redirect_target(
        &mut self,
        origin: RouteId,
        site: &Site,
        hops: u32,
        now: Time,
    ) -> Result<TrackerId, RedirectError> {
        if hops > MAX_REDIRECTS {
            return Err(RedirectError::Loop);
        }
        let lists = self.schedule.lists();
        let choice = self.redirects.choose_target(origin.tracker, site, lists);
        let id = match choice.ok_or(RedirectError::TooMany)? {
            TargetChoice::Known(target) => target,
            TargetChoice::Add => {
                let target = self.schedule.add_unlisted(site, &self.config.access);
                let target = target.ok_or(RedirectError::TooMany)?;
                self.add_trackers(None, now);
                self.redirects.add_target(origin.tracker, target);
                target
            }
            TargetChoice::Replace(target) => {
                self.replace_tracker(target, site, now);
                self.redirects.add_target(origin.tracker, target);
                target
            }
        };
        let has_requests = self.redirects.has_requests(id);
        let tracker = &mut self.trackers[id];
        if let Some(why) = tracker.refusal {
            return Err(RedirectError::NotAllowed(site.clone(), why));
        }
        let route = &mut tracker.routes[origin.family];
        let is_well = if tracker.target.is_known() {
            // One request finds out whether it answers again, and nothing waits for that.
            route.is_usable(now) && (route.is_awaited() || !has_requests)
        } else {
            tracker.retry_at <= now
        };
        is_well
            .then_some(id)
            .ok_or_else(|| RedirectError::Silent(site.clone()))
    }

    /// Gives the id of a tracker that no torrent names, and that no request is at, to another site.
    pub(super) fn replace_tracker(&mut self, id: TrackerId, site: &Site, now: Time) {
        self.reset_routes(id);
        self.http.forget(id);
        self.schedule.lists_mut().replace_unlisted(id, site);
        let generation = self.trackers[id].target.generation.wrapping_add(1);
        self.not_allowed -= u64::from(self.trackers[id].refusal.is_some());
        self.trackers[id] = Tracker::new(site, generation, self.config.max_per_second, now);
        self.redirects.replace(id);
        self.report.replace(id, site);
    }

    /// The redirect of a request cannot be followed.
    pub(super) fn dead_end(&mut self, request: Request, why: &RedirectError, now: Time) {
        let request = self.redirects.end(request);
        let origin = request.origin;
        self.redirects.forget(origin.tracker, &request.path);
        self.finish(request, Outcome::Failed, now);
        self.blame_redirect(origin, why, now);
    }

    /// A redirect of a tracker was of no use. That does not hold up other requests of a tracker that
    /// is known to answer.
    fn blame_redirect(&mut self, origin: RouteId, why: &RedirectError, now: Time) {
        let route = self.route(origin);
        let answers = now.since(route.answered_at) < ANSWERS_MS;
        let backs_off = match route.health {
            Health::Up => !answers,
            Health::New | Health::Probing => true,
            Health::BackingOff(_) => return,
        };
        if backs_off {
            route.back_off(now, REDIRECT_BACKOFF_MS);
        }
        let what = format_args!("{}: redirects {why}", origin.family);
        self.report.warn(origin.tracker, what, now);
        if backs_off {
            self.abandon(origin, None, now);
        }
    }
}
