//! When the announcer has something to do for which tracker.

use std::collections::{BTreeSet, HashMap};

use crate::timers::Time;
use crate::tracker::lists::TrackerId;

/// One time for each tracker, the earliest that was asked for.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    by_time: BTreeSet<(Time, TrackerId)>,
    by_tracker: HashMap<TrackerId, Time>,
}

impl Wakes {
    /// Makes a tracker with news due in the next turn.
    pub(super) fn wake_now(&mut self, tracker: TrackerId) {
        self.wake_at(tracker, Time::default());
    }

    /// Makes a tracker due at that time, unless it is due before.
    pub(super) fn wake_at(&mut self, tracker: TrackerId, at: Time) {
        if let Some(&before) = self.by_tracker.get(&tracker) {
            if before <= at {
                return;
            }
            self.by_time.remove(&(before, tracker));
        }
        self.by_tracker.insert(tracker, at);
        self.by_time.insert((at, tracker));
    }

    /// Takes the trackers that are due, each once.
    pub(super) fn take_due(&mut self, now: Time) -> BTreeSet<TrackerId> {
        let mut due = BTreeSet::new();
        while let Some(&(at, tracker)) = self.by_time.first()
            && at <= now
        {
            self.by_time.pop_first();
            self.by_tracker.remove(&tracker);
            due.insert(tracker);
        }
        due
    }

    /// Returns true if a tracker has news.
    pub(super) fn has_news(&self) -> bool {
        self.poll_at() == Some(Time::default())
    }

    /// When a tracker is due. Time 0 is at once.
    pub(super) fn poll_at(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_due_once_at_the_earliest_time() {
        let [a, b, c] = [0, 1, 2].map(TrackerId);
        let mut wakes = Wakes::default();
        assert_eq!(wakes.poll_at(), None);
        for (tracker, at) in [(a, 9), (b, 5), (a, 7), (a, 8)] {
            wakes.wake_at(tracker, Time(at));
        }
        assert_eq!(wakes.poll_at(), Some(Time(5)));
        assert!(wakes.take_due(Time(4)).is_empty());
        wakes.wake_now(c);
        wakes.wake_now(b);
        assert_eq!(wakes.poll_at(), Some(Time(0)));
        assert_eq!(wakes.take_due(Time(6)), BTreeSet::from([b, c]));
        assert_eq!(wakes.take_due(Time(7)), BTreeSet::from([a]));
        assert_eq!(wakes.poll_at(), None);
    }
}
