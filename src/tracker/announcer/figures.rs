//! The announcer's part for showing how each tracker does.
//!
//! Owns which trackers are shown by their name, and the sums of the others, so that asking costs
//! the same however many there are. It must not know who asks.

use super::{Announcer, Tracker};
use crate::metrics::trackers::{MAX_NAMED, TrackerFigures, TrackerState, TrackerSums, Trackers};
use crate::timers::Time;
use crate::tracker::lists::TrackerId;
use crate::tracker::route::Health;

/// What is known of a tracker for showing it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    /// What was last wrong, and when.
    pub(super) trouble: Option<(String, Time)>,
}

/// Which trackers are shown by their name.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Their numbers.
    trackers: Vec<TrackerId>,
    /// So many trackers have had their chance, and so many of all have none.
    considered: (usize, usize),
    /// Of the others: torrents, lateness and requests, as they were at the last look.
    others: TrackerSums,
}

impl Announcer {
    /// How the trackers do. Costs the same however many there are.
    #[must_use]
    pub fn figures(&self, now: Time) -> Trackers {
        let named: Vec<TrackerFigures> = self
            .named
            .trackers
            .iter()
            .map(|number| self.figures_of(*number, now))
            .collect();
        let mut shown = TrackerSums::default();
        for tracker in &named {
            shown.add(&tracker.sums);
        }
        let all = &self.counters;
        Trackers {
            others: self.trackers.len().saturating_sub(named.len()) as u64,
            other: TrackerSums {
                sent: all.sent.saturating_sub(shown.sent),
                accepted: all.accepted.saturating_sub(shown.accepted),
                refused: all.refused.saturating_sub(shown.refused),
                failed: all.failed.saturating_sub(shown.failed),
                connections: (self.connections.len() as u64).saturating_sub(shown.connections),
                ..self.named.others
            },
            named,
        }
    }

    fn figures_of(&self, number: TrackerId, now: Time) -> TrackerFigures {
        let tracker = &self.trackers[number];
        let tally = &tracker.tally;
        let connections = tracker.routes.iter().map(|route| route.connections.len());
        let trouble = tally.trouble.as_ref();
        TrackerFigures {
            site: tracker.site.to_string(),
            host: tracker.site.host.to_string(),
            state: state(tracker, now),
            trouble: trouble.map(|(what, at)| (what.clone(), now.since(*at) / 1000)),
            sums: TrackerSums {
                torrents: self.schedule.members(number).into(),
                late_s: self.schedule.lateness_s(number, now),
                sent: tally.sent,
                accepted: tally.accepted,
                refused: tally.refused,
                failed: tally.failed,
                connections: connections.sum::<usize>() as u64,
                in_flight: self.in_flight(tracker),
            },
        }
    }

    /// Requests that are not answered. Packets that are taken for lost do not count.
    fn in_flight(&self, tracker: &Tracker) -> u64 {
        let routes = tracker.routes.iter();
        let of_route = routes.map(|route| {
            let connections = route.connections.iter();
            let open = connections.filter_map(|key| self.connections.get(*key));
            let requests: usize = open.map(|connection| connection.in_flight.len()).sum();
            requests as u64 + u64::from(route.window.under_way)
        });
        of_route.sum()
    }

    /// Gives trackers that are new a place among those that are shown, as long as there are some:
    /// those with the most torrents first. A tracker keeps its place, or its figures would jump. One
    /// that only redirects lead to gets none: it changes, and what is announced there counts where
    /// it was redirected from.
    pub(super) fn name_trackers(&mut self) {
        let lists = self.schedule.lists();
        let count = (self.trackers.len(), lists.unlisted_count());
        let free = MAX_NAMED.saturating_sub(self.named.trackers.len());
        if std::mem::replace(&mut self.named.considered, count) == count || free == 0 {
            return;
        }
        let named = &self.named.trackers;
        let mut new: Vec<TrackerId> = self
            .trackers
            .ids()
            .filter(|number| !named.contains(number) && !lists.is_unlisted(*number))
            .collect();
        new.sort_by_key(|number| std::cmp::Reverse(self.schedule.members(*number)));
        self.named.trackers.extend(new.into_iter().take(free));
    }

    /// Sums up what is not shown by name.
    pub(super) fn look_at_others(&mut self, now: Time) {
        let mut others = TrackerSums::default();
        if self.trackers.len() > self.named.trackers.len() {
            for (number, tracker) in self.trackers.iter() {
                if !self.named.trackers.contains(&number) {
                    others.in_flight += self.in_flight(tracker);
                    others.torrents += u64::from(self.schedule.members(number));
                    others.late_s = others.late_s.max(self.schedule.lateness_s(number, now));
                }
            }
        }
        self.named.others = others;
    }
}

/// The best that can be said of a tracker.
fn state(tracker: &Tracker, now: Time) -> TrackerState {
    let mut routes = tracker.routes.iter();
    if routes.clone().any(|route| route.health == Health::Up) {
        return TrackerState::Up;
    }
    if routes.clone().any(|route| route.health == Health::Probing) {
        return TrackerState::Probing;
    }
    let resting = routes.clone().filter_map(|route| match route.health {
        Health::BackingOff(until) => Some(until),
        _ => None,
    });
    let whole = Some(tracker.retry_at).filter(|until| *until > now && tracker.failures > 0);
    match whole.or_else(|| resting.min()) {
        Some(until) => TrackerState::Resting(until.since(now).div_ceil(1000)),
        None if routes.any(|route| route.failures > 0) => TrackerState::Probing,
        None => TrackerState::New,
    }
}
