//! The announcer's part for redirects: a request goes where its own path leads, and no other does.
//!
//! Owns which requests are at a site other than their tracker's, or on a path other than their own,
//! and how many may be. Such a request is on a detour: its *home* is the tracker in whose queue its
//! entry is, its *host* the one that is asked. It must not know how a request travels.

use std::fmt;
use std::net::IpAddr;

use super::{Announcer, Tracker};
use crate::timers::Time;
use crate::tracker::announce::Request;
use crate::tracker::family::Family;
use crate::tracker::lists::TrackerId;
use crate::tracker::redirects::MAX_REDIRECTS;
use crate::tracker::route::Health;
use crate::tracker::schedule::Outcome;
use crate::tracker::url::{Site, TrackerUrl, UrlError};

/// Requests of one tracker on a detour: as many as one connection carries. The others wait, so that
/// a host that is slow is not given a whole library to hold.
const MAX_AWAY: usize = 128;

/// Requests on a detour in all. Each holds a path of up to two kilobytes, so these are eight
/// megabytes where every tracker is hostile.
const MAX_DETOURS: usize = 4096;

/// Sites that no torrent names and that the redirects of one tracker may lead to at the same time.
/// One is usual, a service with several machines names a few. A site that nobody is at gives way to
/// the next one.
const MAX_GUESTS: usize = 8;

/// How long a tracker rests that has led a request astray, when nothing else shows that it is well.
/// It does not double: the next request may be one of another path, and one a second does no harm.
const ASTRAY_MS: u64 = 1000;

/// What shows that it is well is an answer within this time: a third of a usual interval.
const ANSWERS_MS: u64 = 10 * 60 * 1000;

/// A request that was redirected, until it has ended.
#[derive(Debug)]
pub(super) struct Detour {
    home: TrackerId,
    host: TrackerId,
    path: Box<str>,
    hops: u32,
}

/// Why a redirect is not followed.
#[derive(Debug, thiserror::Error)]
enum DeadEnd {
    #[error("redirects: {0}")]
    Url(#[from] UrlError),
    #[error("redirects more than {MAX_REDIRECTS} times")]
    Loop,
    #[error("redirects to {0}, which is not a public address")]
    Private(IpAddr),
    #[error("redirects to {0}, which does not answer")]
    Silent(Site),
    #[error("redirects to too many sites")]
    TooMany,
}

impl Announcer {
    /// The tracker in whose queue a request is that `number` is asked.
    pub(super) fn home(&self, number: TrackerId, request: Request) -> TrackerId {
        self.detour(request).map_or(number, |detour| detour.home)
    }

    /// The path of a request that is on a detour.
    pub(super) fn detour_path(&self, request: Request) -> Option<&str> {
        self.detour(request).map(|detour| &*detour.path)
    }

    fn detour(&self, request: Request) -> Option<&Detour> {
        self.detours.get(request.detour?)
    }

    /// Whether a tracker's queue waits for requests that were redirected. Where it is not known that
    /// any is answered, the first finds it out.
    pub(super) fn waits_for_detours(&self, number: TrackerId) -> bool {
        let tracker = &self.trackers[number];
        let mut routes = tracker.routes.iter();
        let is_up = routes.any(|route| route.health == Health::Up);
        tracker.away >= if is_up { MAX_AWAY } else { 1 }
    }

    /// Sends a request where its path is known to lead. Whether it is known to lead anywhere.
    pub(super) fn is_redirected(
        &mut self,
        number: TrackerId,
        family: Family,
        request: Request,
        now: Time,
    ) -> bool {
        let tracker = &mut self.trackers[number];
        if request.detour.is_some() || tracker.redirects.is_empty() {
            return false;
        }
        let due = self.schedule.due(request.entry, family);
        let to = due.and_then(|due| tracker.redirects.find(due.path, now).cloned());
        let Some(to) = to else {
            return false;
        };
        self.follow(number, family, request, to, 1, now);
        true
    }

    /// A tracker has answered a request with a redirect, which is permanent or not.
    pub(super) fn redirected(
        &mut self,
        number: TrackerId,
        family: Family,
        generation: u32,
        request: Request,
        (location, is_permanent): (&str, bool),
        now: Time,
    ) {
        let own = self.schedule.due(request.entry, family);
        let own: Option<Box<str>> = own.map(|due| due.path.into());
        let detour = self.detour(request);
        let detour = detour.map(|detour| (detour.path.clone(), detour.hops));
        let tracker = &mut self.trackers[number];
        // The answer of a site that has been left already says nothing new.
        if generation != tracker.target.generation {
            self.ask_again(number, family, request);
            return;
        }
        let (home, sent) = self.come_home(number, request);
        let Some(own) = own else {
            self.finish(home, family, sent, Outcome::Returned, now);
            return;
        };
        let (path, hops) = detour.unwrap_or((own.clone(), 0));
        let tracker = &mut self.trackers[number];
        let site = tracker.target.site().clone();
        let asked = TrackerUrl { site, path };
        let to = match asked.redirect(location) {
            Ok(to) => to,
            Err(error) => {
                self.dead_end(home, family, sent, &error.into(), now);
                return;
            }
        };
        log::debug!("tracker {}: redirects to {}", tracker.site, to.site);
        if asked.moves_to_tls(&to) {
            tracker.target.move_to(to.site, now);
            self.start_anew(number);
            match hops {
                0 => self.ask_again(number, family, sent),
                _ => self.follow(home, family, sent, asked, hops, now),
            }
            return;
        }
        let tracker = &mut self.trackers[home];
        if is_permanent && (hops == 0 || tracker.redirects.find(&own, now) == Some(&asked)) {
            // Redirects in a row are remembered by where they end.
            tracker.redirects.remember(&own, to.clone(), now);
        }
        self.follow(home, family, sent, to, hops + 1, now);
    }

    /// Puts a request that is not on a detour at the end of the requests of a host.
    fn follow(
        &mut self,
        home: TrackerId,
        family: Family,
        request: Request,
        to: TrackerUrl,
        hops: u32,
        now: Time,
    ) {
        let host = match self.host(home, family, &to, hops, now) {
            Ok(host) => host,
            Err(why) => {
                self.dead_end(home, family, request, &why, now);
                return;
            }
        };
        let detour = self.detours.insert(Detour {
            home,
            host,
            path: to.path,
            hops,
        });
        let tracker = &mut self.trackers[home];
        tracker.away += 1;
        let tracker = &mut self.trackers[host];
        tracker.visitors += 1;
        let request = Request {
            detour: Some(detour),
            ..request
        };
        self.ask_again(host, family, request);
    }

    fn ask_again(&mut self, number: TrackerId, family: Family, request: Request) {
        let route = self.route(number, family);
        route.again.push_back(request);
        self.touched.push(number);
    }

    /// The number of the site that a redirect leads to, if a request may be sent there now.
    fn host(
        &mut self,
        home: TrackerId,
        family: Family,
        to: &TrackerUrl,
        hops: u32,
        now: Time,
    ) -> Result<TrackerId, DeadEnd> {
        if hops > MAX_REDIRECTS {
            return Err(DeadEnd::Loop);
        }
        if self.detours.len() >= MAX_DETOURS {
            return Err(DeadEnd::TooMany);
        }
        let host = self.guest(home, &to.site, now).ok_or(DeadEnd::TooMany)?;
        let silent = || DeadEnd::Silent(to.site.clone());
        let tracker = &mut self.trackers[host];
        let route = &mut tracker.routes[family];
        let is_well = if tracker.target.is_known() {
            // One finds out whether it answers again, and nobody waits for that.
            route.wake(now) && (route.is_waited_for() || tracker.visitors == 0)
        } else {
            tracker.retry_at <= now
        };
        is_well.then_some(host).ok_or_else(silent)
    }

    /// The number of a site, which it is given when it has none.
    fn guest(&mut self, home: TrackerId, site: &Site, now: Time) -> Option<TrackerId> {
        let known = self.schedule.lists().find(site);
        let guests = &mut self.trackers[home].guests;
        if let Some(number) = known {
            // Those that it was led to last are at the end.
            if let Some(place) = guests.iter().position(|guest| *guest == number) {
                guests.remove(place);
                guests.push(number);
            }
            return Some(number);
        }
        let lists = self.schedule.lists();
        guests.retain(|guest| lists.is_unlisted(*guest));
        let number = if guests.len() < MAX_GUESTS {
            let number = self.schedule.add_unlisted(site)?;
            self.know_trackers(now);
            number
        } else {
            let guests = self.trackers[home].guests.iter();
            let mut idle = guests.filter(|guest| self.trackers[**guest].visitors == 0);
            let number = *idle.next()?;
            self.replace_guest(number, site, now);
            number
        };
        let guests = &mut self.trackers[home].guests;
        guests.retain(|guest| *guest != number);
        guests.push(number);
        Some(number)
    }

    /// Gives the number of a site that nobody is at to another.
    fn replace_guest(&mut self, number: TrackerId, site: &Site, now: Time) {
        self.start_anew(number);
        self.schedule.lists_mut().replace_unlisted(number, site);
        let max_per_second = self.config.max_per_second;
        let tracker = &mut self.trackers[number];
        let generation = tracker.target.generation.wrapping_add(1);
        let wake = tracker.wake;
        *tracker = Tracker::new(site, generation, max_per_second, now);
        tracker.wake = wake;
    }

    /// Another server is where a tracker was: it may speak otherwise, and is asked all again.
    pub(super) fn start_anew(&mut self, number: TrackerId) {
        for family in Family::ALL {
            let route = self.route(number, family);
            let mut route = std::mem::take(route);
            for key in route.connections {
                route.again.extend(self.discard(key));
            }
            self.route(number, family).again = route.again;
        }
        self.touched.push(number);
    }

    /// Whether a request may be sent to the address of a host. It ends when it may not.
    pub(super) fn may_be_sent(
        &mut self,
        number: TrackerId,
        family: Family,
        request: Request,
        now: Time,
    ) -> bool {
        let home = self.home(number, request);
        let address = self.route(number, family).address();
        let tracker = &self.trackers[home];
        match address {
            Some(address) if home != number && !tracker.target.may_lead_to(address) => {
                let (home, request) = self.come_home(number, request);
                self.dead_end(home, family, request, &DeadEnd::Private(address), now);
                false
            }
            _ => true,
        }
    }

    /// Ends the detour of a request, and says in whose queue it is.
    pub(super) fn come_home(
        &mut self,
        number: TrackerId,
        request: Request,
    ) -> (TrackerId, Request) {
        let detour = request.detour.and_then(|key| self.detours.try_remove(key));
        let Some(Detour { home, host, .. }) = detour else {
            return (number, request);
        };
        let tracker = &mut self.trackers[host];
        tracker.visitors = tracker.visitors.saturating_sub(1);
        let tracker = &mut self.trackers[home];
        tracker.away = tracker.away.saturating_sub(1);
        self.touched.push(home);
        let request = Request {
            detour: None,
            ..request
        };
        (home, request)
    }

    /// A request, which is at home again, cannot go where its path leads.
    fn dead_end(
        &mut self,
        home: TrackerId,
        family: Family,
        request: Request,
        why: &DeadEnd,
        now: Time,
    ) {
        self.forget_redirect(home, family, request);
        self.finish(home, family, request, Outcome::Failed, now);
        self.astray(home, family, format_args!("{why}"), now);
    }

    /// Has a tracker asked itself where a path leads, the next time.
    pub(super) fn forget_redirect(&mut self, home: TrackerId, family: Family, request: Request) {
        let due = self.schedule.due(request.entry, family);
        if let Some(due) = due {
            self.trackers[home].redirects.forget(due.path);
        }
    }

    /// A tracker has led a request astray. What it answers otherwise is not held up by that.
    pub(super) fn astray(
        &mut self,
        home: TrackerId,
        family: Family,
        why: fmt::Arguments<'_>,
        now: Time,
    ) {
        let route = self.route(home, family);
        let answers = now.since(route.answered_at) < ANSWERS_MS;
        let rests = match route.health {
            Health::Up => !answers,
            Health::New | Health::Probing => true,
            Health::BackingOff(_) => return,
        };
        if rests {
            route.back_off(now, ASTRAY_MS);
        }
        self.warn_throttled(home, why, now);
        if rests {
            self.abandon(home, family, None, now);
        }
    }
}

#[cfg(test)]
mod tests;
