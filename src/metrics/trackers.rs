//! The figures of each tracker, and the sums of those not shown by name.
//!
//! Torrents may name any number of trackers; a page or a monitoring system takes a limited number. Pure.

use std::collections::BTreeMap;

/// Trackers with figures of their own: nearly all torrents name the same few dozen.
pub const MAX_NAMED: usize = 64;

/// The label of all others. It is no valid host.
pub const OTHERS: &str = "(others)";

/// Counters of one tracker, or of several together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TrackerSums {
    /// Torrents announced to it; a torrent with several trackers counts at each.
    pub torrents: u64,
    /// Lateness of the most overdue announce, in seconds.
    pub late_s: u64,
    /// Requests sent, including repeated ones.
    pub sent: u64,
    /// Announces accepted.
    pub accepted: u64,
    /// Announces refused.
    pub refused: u64,
    /// Announces without a valid answer.
    pub failed: u64,
    /// Open connections.
    pub connections: u64,
    /// Requests not answered yet.
    pub in_flight: u64,
}

impl TrackerSums {
    /// Adds another tracker. The lateness becomes the larger one.
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

    /// Results of announces, each with its label.
    #[must_use]
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        [
            ("accepted", self.accepted),
            ("refused", self.refused),
            ("failed", self.failed),
        ]
    }
}

/// The health of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TrackerState {
    /// Not announced to yet.
    #[default]
    New,
    /// It answers.
    Up,
    /// It failed; the next announce follows after this many seconds.
    Resting(u64),
    /// It failed, and one announce tests whether it answers again.
    Probing,
    /// It may not be announced to (`--trackers`).
    NotAllowed,
}

impl TrackerState {
    /// Its name in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up => "up",
            Self::Resting(_) => "resting",
            Self::Probing => "probing",
            Self::NotAllowed => "not allowed",
        }
    }
}

/// One tracker.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TrackerFigures {
    /// Scheme, host and port. The path may hold a passkey and is left out.
    pub site: String,
    /// The host only.
    pub host: String,
    /// Its health.
    pub state: TrackerState,
    /// The last failure, and its age in seconds.
    pub trouble: Option<(String, u64)>,
    /// Its counters.
    pub sums: TrackerSums,
}

/// All trackers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Trackers {
    /// Those with figures of their own, at most [`MAX_NAMED`].
    pub named: Vec<TrackerFigures>,
    /// The number of all that may not be announced to, with those of the URLs below.
    pub not_allowed: u64,
    /// Torrents without a tracker that can be used.
    pub unannounced: u64,
    /// The number of URLs that cannot be used or are not allowed, each server once.
    pub unusable: u64,
    /// Some of them without passkeys, and why not.
    pub unusable_first: Vec<(String, String)>,
    /// The number of all others.
    pub others: u64,
    /// Their counters. Torrents, lateness and requests in flight are some seconds old.
    pub other: TrackerSums,
}

impl Trackers {
    /// For each host, whether it answers by any protocol, and its counters; all others come last.
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

    /// The counters of all trackers together.
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
    fn a_host_with_two_protocols_has_one_row() {
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
