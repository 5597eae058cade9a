//! The announcer's part for how announces end: for the schedule, for the tracker, and for the log.
//!
//! Owns what success and failure bring about. It must not know how an announce travelled.

use std::fmt;

use super::{Announcer, LOOK_MS};
use crate::timers::Time;
use crate::tracker::announce::Answer;
use crate::tracker::announce::Request;
use crate::tracker::family::Family;
use crate::tracker::lists::{ListId, TrackerId};
use crate::tracker::route::Health;
use crate::tracker::schedule::{Ended, Outcome};

/// A tracker that is announced to this much too late is worth a line in the log.
const LATE_S: u64 = 300;

/// A tracker is warned about no more often than this.
const WARN_MS: u64 = 10 * 60 * 1000;

impl Announcer {
    /// A tracker has answered an announce.
    pub(super) fn answered(
        &mut self,
        number: TrackerId,
        family: Family,
        request: Request,
        answer: Answer,
        now: Time,
    ) {
        let home = self.home(number, request);
        if home != number {
            self.route(number, family).answered(now);
        }
        let torrents = self.schedule.members(home);
        let tracker = &mut self.trackers[home];
        let was_up = tracker
            .routes
            .iter()
            .any(|route| route.health == Health::Up);
        let route = &mut tracker.routes[family];
        if route.answered(now) && !was_up {
            log::info!(
                "tracker {}: answers; it has {torrents} torrents",
                tracker.site
            );
        }
        let outcome = match answer {
            Answer::Accepted {
                terms,
                tracker_id,
                warning,
            } => {
                self.counters.accepted += 1;
                tracker.tally.accepted += 1;
                if tracker_id.is_some() {
                    self.trackers[number].tracker_id = tracker_id;
                }
                if let Some(warning) = warning {
                    self.warn_throttled(home, format_args!("warns: {warning}"), now);
                }
                Outcome::Accepted(terms)
            }
            Answer::Refused { reason, retry } => {
                self.counters.refused += 1;
                tracker.tally.refused += 1;
                let torrent = self.schedule.due(request.entry, family);
                if let Some(torrent) = torrent.map(|due| due.announce.info_hash) {
                    self.warn_throttled(home, format_args!("refuses {torrent}: {reason}"), now);
                }
                Outcome::Refused(retry)
            }
        };
        self.finish(number, family, request, outcome, now);
    }

    /// An announce has ended, one way or another. One that was redirected has had its try: it would
    /// be redirected again, and again.
    pub(super) fn finish(
        &mut self,
        number: TrackerId,
        family: Family,
        request: Request,
        mut outcome: Outcome,
        now: Time,
    ) {
        let was_redirected = request.detour.is_some();
        let (home, request) = self.come_home(number, request);
        if was_redirected && outcome == Outcome::Returned {
            outcome = Outcome::Failed;
        }
        if outcome == Outcome::Failed {
            self.counters.failed += 1;
            let tracker = &mut self.trackers[home];
            tracker.tally.failed += 1;
        }
        let ended = Ended {
            family,
            told: request.told,
            outcome,
        };
        let chance = self.random.u32(..);
        if was_redirected && outcome == Outcome::Failed {
            self.forget_redirect(home, family, request);
            let why = format_args!("redirects to an address that does not answer");
            self.astray(home, family, why, now);
        }
        self.schedule
            .finish(home, request.entry, ended, now, chance);
        self.touched.extend([home, number]);
    }

    /// Gives up all that is under way by one family; `blamed` is a request that brought it about.
    pub(super) fn abandon(
        &mut self,
        number: TrackerId,
        family: Family,
        blamed: Option<Request>,
        now: Time,
    ) {
        let route = self.route(number, family);
        let mut returned: Vec<Request> = route.again.drain(..).collect();
        for key in std::mem::take(&mut route.connections) {
            returned.extend(self.discard(key));
        }
        returned.extend(self.datagrams.withdraw(number, family));
        if let Some(request) = blamed {
            self.finish(number, family, request, Outcome::Failed, now);
        }
        for request in returned {
            self.finish(number, family, request, Outcome::Returned, now);
        }
        self.touched.push(number);
    }

    /// A tracker has failed by one family: it is left alone for a while.
    pub(super) fn fail(
        &mut self,
        number: TrackerId,
        family: Family,
        blamed: Option<Request>,
        why: &str,
        now: Time,
    ) {
        let first_ms = self.config.limits.backoff_ms;
        let chance = self.random.u32(..);
        let route = self.route(number, family);
        let backoff_ms = route.fail(now, first_ms, chance);
        self.warn_throttled(
            number,
            format_args!("{why}; retrying in {} s", backoff_ms.div_ceil(1000)),
            now,
        );
        self.abandon(number, family, blamed, now);
    }

    /// Says once in a while what is wrong with a tracker.
    pub(super) fn warn_throttled(
        &mut self,
        number: TrackerId,
        what: fmt::Arguments<'_>,
        now: Time,
    ) {
        let tracker = &mut self.trackers[number];
        tracker.tally.trouble = Some((what.to_string(), now));
        let due = tracker
            .warned_at
            .is_none_or(|before| now.since(before) >= WARN_MS);
        if due {
            tracker.warned_at = Some(now);
            log::warn!("tracker {}: {what}", tracker.site);
        } else {
            log::debug!("tracker {}: {what}", tracker.site);
        }
    }

    /// Finds trackers that are behind, and brings torrents with peers to the front there.
    pub(super) fn look(&mut self, now: Time) {
        if now.since(self.looked) < LOOK_MS {
            return;
        }
        self.looked = now;
        self.look_at_others(now);
        let mut any = false;
        for number in self.trackers.ids() {
            let tracker = &mut self.trackers[number];
            let late_s = self.schedule.lateness_s(number, now);
            any |= late_s > 0;
            if late_s >= LATE_S {
                if tracker
                    .late
                    .is_none_or(|before| now.since(before) >= WARN_MS)
                {
                    tracker.late = Some(now);
                    log::warn!(
                        "tracker {}: announces are {late_s} s late ({} torrents)",
                        tracker.site,
                        self.schedule.members(number)
                    );
                }
            } else if tracker.late.take().is_some() {
                log::info!("tracker {}: announces are on time again", tracker.site);
            }
        }
        if any && self.stops_at.is_none() {
            let joined = self.with_peers.iter();
            let waiting: Vec<ListId> = joined
                .filter_map(|(torrent, info_hash)| self.schedule.joined(*torrent, *info_hash, now))
                .collect();
            for list in waiting {
                self.wake_trackers_of(list, now);
            }
        }
    }
}
