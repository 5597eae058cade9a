//! When leechers arrive.
//!
//! Arrivals, returns and churn, and which torrent each leecher downloads. Pure: times are microseconds,
//! and the answers are how many leechers of which kind to start or to close.

use crate::cli::Load;
use crate::leecher::Class;
use std::collections::VecDeque;

/// The number of leechers of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) active: usize,
    pub(crate) slow: usize,
    pub(crate) stalled: usize,
    pub(crate) idle: usize,
}

impl Numbers {
    pub(crate) fn of(options: &Load) -> Numbers {
        Numbers {
            active: options.peers,
            slow: options.slow,
            stalled: options.stalled,
            idle: options.idle,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.active + self.slow + self.stalled + self.idle
    }
}

/// A number of events that is due at a steady rate, without drift.
struct Steady {
    per_second: u64,
    since_us: u64,
    done: u64,
}

impl Steady {
    fn due(&mut self, now_us: u64) -> u64 {
        let elapsed = u128::from(now_us.saturating_sub(self.since_us));
        let total = elapsed * u128::from(self.per_second) / 1_000_000;
        let due = u64::try_from(total).unwrap_or(u64::MAX) - self.done;
        self.done += due;
        due
    }
}

/// The timetable of a run.
pub(crate) struct Crowd {
    /// Leechers that have not arrived, the last first. Downloading ones come after the idle and stalled.
    waiting: Vec<Class>,
    /// A rate of zero means all at once.
    arrivals: Steady,
    churn: Steady,
    /// When closed leechers return; all have the same delay, so the queue is in order.
    returning: VecDeque<(u64, Class)>,
    return_after_us: Option<u64>,
}

impl Crowd {
    /// At time zero, with no leecher arrived.
    pub(crate) fn new(
        numbers: Numbers,
        arrivals_per_second: u64,
        churn_per_second: u64,
        return_after_us: Option<u64>,
    ) -> Crowd {
        let mut waiting = vec![Class::Active; numbers.active];
        waiting.extend(std::iter::repeat_n(Class::Slow, numbers.slow));
        waiting.extend(std::iter::repeat_n(Class::Stalled, numbers.stalled));
        waiting.extend(std::iter::repeat_n(Class::Idle, numbers.idle));
        let steady = |per_second| Steady {
            per_second,
            since_us: 0,
            done: 0,
        };
        Crowd {
            waiting,
            arrivals: steady(arrivals_per_second),
            churn: steady(churn_per_second),
            returning: VecDeque::new(),
            return_after_us,
        }
    }

    /// True when every leecher has arrived at least once.
    pub(crate) fn complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True when no further leecher will arrive.
    pub(crate) fn exhausted(&self) -> bool {
        self.complete() && self.returning.is_empty()
    }

    /// The leechers that arrive now.
    pub(crate) fn arriving(&mut self, now_us: u64) -> Vec<Class> {
        let due = if self.arrivals.per_second == 0 {
            self.waiting.len()
        } else {
            usize::try_from(self.arrivals.due(now_us)).unwrap_or(usize::MAX)
        };
        let left = self.waiting.len().saturating_sub(due);
        let mut now: Vec<Class> = self.waiting.drain(left..).rev().collect();
        if self.complete() && self.churn.since_us == 0 {
            self.churn.since_us = now_us;
        }
        while let Some((at_us, class)) = self.returning.front().copied()
            && at_us <= now_us
        {
            self.returning.pop_front();
            now.push(class);
        }
        now
    }

    /// How many leechers to replace now; none before all have arrived.
    pub(crate) fn leaving(&mut self, now_us: u64) -> u64 {
        if self.complete() {
            self.churn.due(now_us)
        } else {
            0
        }
    }

    /// A leecher was refused or closed; it returns if the options say so.
    pub(crate) fn lost(&mut self, class: Class, now_us: u64) {
        if let Some(delay_us) = self.return_after_us {
            self.returning.push_back((now_us + delay_us, class));
        }
    }
}

/// Chooses among ranks by Zipf's law: rank k has weight 1/k^s; s = 0 makes all equally likely.
pub(crate) struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^52")]
    pub(crate) fn new(ranks: usize, exponent: f64) -> Zipf {
        let mut sum = 0.0;
        let cumulative = (1..=ranks)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Zipf { cumulative }
    }

    /// The rank, from zero, for a random number of `0..1`.
    pub(crate) fn rank(&self, uniform: f64) -> usize {
        let sum = self.cumulative.last().copied().unwrap_or_default();
        let at = uniform * sum;
        let rank = self.cumulative.partition_point(|below| *below <= at);
        rank.min(self.cumulative.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Numbers = Numbers {
        active: 6,
        slow: 1,
        stalled: 2,
        idle: 1,
    };

    #[test]
    fn arrivals_keep_their_rate_and_their_order() {
        let mut crowd = Crowd::new(NUMBERS, 1000, 0, None);
        assert!(crowd.arriving(0).is_empty());
        assert_eq!(
            crowd.arriving(4_500),
            [Class::Idle, Class::Stalled, Class::Stalled, Class::Slow]
        );
        assert_eq!(crowd.arriving(5_000), [Class::Active]);
        assert!(!crowd.complete());
        assert_eq!(crowd.arriving(60_000_000).len(), 5);
        assert!(crowd.exhausted());
    }

    #[test]
    fn a_flash_crowd_comes_at_once() {
        let mut crowd = Crowd::new(NUMBERS, 0, 0, None);
        assert_eq!(crowd.arriving(0).len(), NUMBERS.total());
    }

    #[test]
    fn churn_begins_when_all_have_come_and_does_not_drift() {
        let mut crowd = Crowd::new(NUMBERS, 10, 3000, None);
        crowd.arriving(500_000);
        assert_eq!(crowd.leaving(500_000), 0);
        crowd.arriving(1_000_000);
        let left: u64 = (0..=1000)
            .map(|step| crowd.leaving(1_000_000 + step * 777))
            .sum();
        assert_eq!(left, 3000 * 777 / 1000);
    }

    #[test]
    fn the_lost_return_after_the_delay() {
        let mut crowd = Crowd::new(NUMBERS, 0, 0, Some(1_000_000));
        crowd.arriving(0);
        crowd.lost(Class::Slow, 5);
        assert!(!crowd.exhausted());
        assert!(crowd.arriving(1_000_004).is_empty());
        assert_eq!(crowd.arriving(1_000_005), [Class::Slow]);
        assert!(crowd.exhausted());
    }

    #[test]
    fn zipf_has_its_weights() {
        let zipf = Zipf::new(4, 1.0);
        let mut counts = [0_u32; 4];
        for step in 0..25_000_u32 {
            counts[zipf.rank(f64::from(step) / 25_000.0)] += 1;
        }
        let expected = [12_000, 6_000, 4_000, 3_000];
        assert!((0..4).all(|rank| counts[rank].abs_diff(expected[rank]) <= 1));
        assert_eq!(Zipf::new(3, 0.0).rank(0.5), 1);
        assert_eq!(Zipf::new(3, 0.0).rank(1.0), 2);
    }
}
