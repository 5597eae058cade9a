//! The announcer's part for giving each tracker as much as it can take, and no more.
//!
//! Owns when a tracker is looked at and which families an announce goes by. It must not know how an
//! announce travels, nor what comes of it.

use super::{Announcer, BATCH_MS};
use crate::timers::Time;
use crate::tracker::announce::Request;
use crate::tracker::family::Family;
use crate::tracker::lists::TrackerId;
use crate::tracker::url::Scheme;

/// Announces that one tracker is given in one turn; the rest waits for the next.
const DISPATCH_PER_TURN: usize = 512;

/// Torrents that are begun at the end in one turn, whether there is anything to be said or not.
const STOPS_PER_TURN: usize = 4096;

/// Whether a tracker can take an announce by one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    Some,
    /// It will soon: the others wait, so that each torrent is announced by both.
    NotYet,
    /// It cannot, and nobody waits for it.
    None,
}

/// What has come of making the next announce of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It has been made, or it was found that there is nothing to be said.
    Made,
    /// None is due.
    Nothing,
    /// The tracker can take none now, and is looked at again when it can.
    Blocked,
}

impl Announcer {
    /// Gives a tracker as much as it can take now, and sees to it that it is looked at again.
    pub(super) fn pump(&mut self, number: TrackerId, now: Time) {
        let stopping = self.stops_at.is_some();
        let steps = if stopping {
            STOPS_PER_TURN
        } else {
            DISPATCH_PER_TURN
        };
        let mut is_stuck = false;
        for step in 0..steps {
            let due = self.schedule.poll_at(number, now);
            let tracker = &mut self.trackers[number];
            let again = tracker.routes.iter().any(|route| !route.again.is_empty());
            let again = again && !is_stuck;
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
                self.wake_at(number, at);
                return;
            }
            let before = tracker.target.generation;
            if tracker.target.ask(now) {
                let generation = tracker.target.generation;
                let site = tracker.target.site();
                let is_https = site.scheme == Scheme::Https;
                self.resolver.ask(number, generation, &site.host, is_https);
                if generation != before {
                    self.start_anew(number);
                }
            }
            match self.dispatch(number, now) {
                Step::Made => {}
                // What goes first has to wait, and its route says when it need not any more.
                Step::Nothing => is_stuck = true,
                Step::Blocked => return,
            }
        }
        self.touched.push(number);
    }

    /// Makes the next announce of a tracker, if one is due, by each family that can take it.
    fn dispatch(&mut self, number: TrackerId, now: Time) -> Step {
        let stopping = self.stops_at.is_some();
        let tracker = &mut self.trackers[number];
        if let Some(at) = tracker.limiter.poll_at(now, 1) {
            self.wake_at(number, at.max(now.after(BATCH_MS)));
            return Step::Blocked;
        }
        let mut requests = [None; 2];
        let (mut open, mut is_waited_for) = ([false; 2], false);
        for (family, open) in Family::ALL.into_iter().zip(&mut open) {
            match self.room(number, family, now) {
                Room::Some => *open = true,
                Room::NotYet => is_waited_for = true,
                Room::None => {}
            }
            if *open && let Some(request) = self.route(number, family).again.pop_front() {
                self.send(number, family, request, now);
                return Step::Made;
            }
        }
        // At the end, nobody waits for a tracker that cannot be reached.
        let is_open = open.contains(&true) || stopping;
        if is_waited_for || !is_open || self.waits_for_detours(number) {
            return Step::Blocked;
        }
        // What was put on the stage may not be due yet.
        let Some(entry) = self.schedule.take(number, now) else {
            return Step::Nothing;
        };
        for ((family, open), request) in Family::ALL.into_iter().zip(open).zip(&mut requests) {
            let due = if open {
                self.schedule.begin(entry, family)
            } else {
                None
            };
            *request = due.map(|due| Request {
                entry,
                told: due.announce.event,
                renewed: false,
                detour: None,
            });
        }
        self.schedule.dispatched(number, entry);
        for (family, request) in Family::ALL.into_iter().zip(requests) {
            if let Some(request) = request {
                self.send(number, family, request, now);
            }
        }
        Step::Made
    }

    /// Whether a tracker can take an announce by one family.
    fn room(&mut self, number: TrackerId, family: Family, now: Time) -> Room {
        let tracker = &mut self.trackers[number];
        let scheme = tracker.target.site().scheme;
        let route = &mut tracker.routes[family];
        if !route.wake(now) {
            if let Some(until) = route.retry_at() {
                self.wake_at(number, until);
            }
            return Room::None;
        }
        let has_room = match scheme {
            Scheme::Udp => self.can_send_packet(number, family, now),
            Scheme::Http | Scheme::Https => self.can_send_request(number, family, now),
        };
        let is_waited_for = self.route(number, family).is_waited_for();
        match (has_room, is_waited_for) {
            (true, _) => Room::Some,
            (false, true) => Room::NotYet,
            (false, false) => Room::None,
        }
    }

    fn send(&mut self, number: TrackerId, family: Family, request: Request, now: Time) {
        if self.is_redirected(number, family, request, now)
            || !self.may_be_sent(number, family, request, now)
        {
            return;
        }
        let tracker = &mut self.trackers[number];
        tracker.limiter.take(1);
        self.counters.sent += 1;
        tracker.tally.sent += 1;
        match tracker.target.site().scheme {
            Scheme::Udp => self.send_packet(number, family, request, now),
            Scheme::Http | Scheme::Https => self.send_request(number, family, request, now),
        }
    }
}
