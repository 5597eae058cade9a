//! The figures of each tracker, and the sums of those not shown by name.
//!
//! Owns the figures of each tracker that is shown by its name, and the sums of all others: torrents
//! may name as many trackers as they like, and a page or a monitoring system takes only so many.
//! Pure.

use std::collections::BTreeMap;

/// Trackers with figures of their own: nearly all torrents name some of a few dozen.
pub const MAX_NAMED: usize = 64;

/// Under this name stand all others. No host is called so.
pub const OTHERS: &str = "(others)";

/// What is counted of one tracker, or of several together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TrackerSums {
    /// Torrents that it is announced; of several trackers, each counts its own.
    pub torrents: u64,
    /// By how many seconds the torrent that waits longest is late.
    pub late_s: u64,
    /// Requests that were sent, repeated ones included.
    pub sent: u64,
    /// Announces that were accepted.
    pub accepted: u64,
    /// Announces that were refused.
    pub refused: u64,
    /// Announces without an answer that makes sense.
    pub failed: u64,
    /// Connections that are open.
    pub connections: u64,
    /// Requests that are not answered yet.
    pub in_flight: u64,
}

impl TrackerSums {
    /// Takes another tracker in: all is added, but for lateness, of which the worse one counts.
    pub fn add(&mut self, other: &Self) {
        self.torrents += other.torrents;
        self.late_s = self.late_s.max(other.late_s);
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.failed += other.failed;
        self.connections += other.connections;
        self.in_flight += other.in_flight;
    }

    /// How announces ended, each with its name.
    #[must_use]
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        [
            ("accepted", self.accepted),
            ("refused", self.refused),
            ("failed", self.failed),
        ]
    }
}

/// Whether a tracker is well.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TrackerState {
    /// Nothing is known yet.
    #[default]
    New,
    /// It answers.
    Up,
    /// It failed, and is left alone for so many seconds.
    Resting(u64),
    /// It failed, and one announce finds out whether it answers again.
    Probing,
}

impl TrackerState {
    /// One word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up => "up",
            Self::Resting(_) => "resting",
            Self::Probing => "probing",
        }
    }
}

/// One tracker.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TrackerFigures {
    /// How it is spoken to and where, without the path, which may hold a key.
    pub site: String,
    /// Where alone.
    pub host: String,
    /// Whether it is well.
    pub state: TrackerState,
    /// What was last wrong there, and how many seconds ago.
    pub trouble: Option<(String, u64)>,
    /// What is counted.
    pub sums: TrackerSums,
}

/// All trackers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Trackers {
    /// Those with figures of their own, at most [`MAX_NAMED`].
    pub named: Vec<TrackerFigures>,
    /// How many others there are.
    pub others: u64,
    /// What is counted of these. Torrents, lateness and requests in flight are some seconds old.
    pub other: TrackerSums,
}

impl Trackers {
    /// What is counted of each host, and whether it answers in any way that it is spoken to; all
    /// others at the end.
    #[must_use]
    pub fn by_host(&self) -> Vec<(&str, bool, TrackerSums)> {
        let mut hosts: BTreeMap<&str, (bool, TrackerSums)> = BTreeMap::new();
        for tracker in &self.named {
            let (up, sums) = hosts.entry(&tracker.host).or_default();
            *up |= tracker.state == TrackerState::Up;
            sums.add(&tracker.sums);
        }
        let mut all: Vec<_> = hosts
            .into_iter()
            .map(|(host, (up, sums))| (host, up, sums))
            .collect();
        if self.others > 0 {
            all.push((OTHERS, true, self.other));
        }
        all
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> TrackerSums {
        let mut sum = self.other;
        for tracker in &self.named {
            sum.add(&tracker.sums);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_spoken_to_in_two_ways_has_one_row() {
        let tracker = |site: &str, state, accepted, late_s| TrackerFigures {
            site: site.to_owned(),
            host: site.rsplit('/').next().unwrap().to_owned(),
            state,
            sums: TrackerSums {
                accepted,
                late_s,
                ..TrackerSums::default()
            },
            ..TrackerFigures::default()
        };
        let mut trackers = Trackers {
            named: vec![
                tracker("udp://b", TrackerState::Up, 5, 3),
                tracker("http://a", TrackerState::Probing, 1, 0),
                tracker("http://b", TrackerState::Resting(9), 2, 70),
            ],
            ..Trackers::default()
        };
        let rows = |trackers: &Trackers| -> Vec<(String, bool, u64, u64)> {
            let rows = trackers.by_host().into_iter();
            rows.map(|(host, up, sums)| (host.to_owned(), up, sums.accepted, sums.late_s))
                .collect()
        };
        let (a, b) = (("a".into(), false, 1, 0), ("b".into(), true, 7, 70));
        assert_eq!(rows(&trackers), [a, b]);
        trackers.others = 2;
        trackers.other.accepted = 40;
        assert_eq!(rows(&trackers)[2], (OTHERS.to_owned(), true, 40, 0));
        assert_eq!(trackers.sum().accepted, 48);
    }
}
