//! How many announces one tracker may be sent now.
//!
//! Owns the cap on requests a second. It must not know what is announced.

use crate::timers::Time;

/// Announces leave in small batches, since a turn of the loop for each would cost more than the
/// announce. This is also all that may be made up for at once, so that there is no burst.
pub const BATCH_MS: u64 = 10;

/// Units of allowance in one announce: thousandths, because time comes in milliseconds.
const ONE: u64 = 1000;

/// Fills at a steady rate, up to one batch.
#[derive(Debug)]
pub struct Pace {
    /// `None` is no cap.
    per_second: Option<u64>,
    allowance: u64,
    filled: Time,
}

impl Pace {
    /// One batch may leave at once. `None` is no cap.
    #[must_use]
    pub fn new(per_second: Option<u32>, now: Time) -> Self {
        let per_second = per_second.map(u64::from);
        Self {
            per_second,
            allowance: per_second.map_or(0, batch),
            filled: now,
        }
    }

    /// How many may leave now.
    pub fn available(&mut self, now: Time) -> u64 {
        let Some(rate) = self.per_second else {
            return u64::MAX;
        };
        let earned = rate.saturating_mul(now.since(self.filled));
        self.filled = self.filled.max(now);
        self.allowance = self.allowance.saturating_add(earned).min(batch(rate));
        self.allowance / ONE
    }

    /// Counts one that left.
    pub fn take(&mut self) {
        self.allowance = self.allowance.saturating_sub(ONE);
    }

    /// When the next may leave, at least a batch after `now` where more than one is allowed.
    #[must_use]
    pub fn next(&self, now: Time) -> Time {
        match self.per_second {
            None => now,
            Some(rate) => {
                let missing = ONE.saturating_sub(self.allowance);
                now.after(missing.div_ceil(rate.max(1)).max(BATCH_MS))
            }
        }
    }
}

fn batch(per_second: u64) -> u64 {
    per_second.saturating_mul(BATCH_MS).max(ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many leave in each of ten seconds, when a turn comes at every millisecond.
    fn sent(rate: u32) -> Vec<u64> {
        let mut pace = Pace::new(Some(rate), Time(7000));
        let mut seconds = vec![0; 10];
        for ms in 0..10_000 {
            let now = Time(7000 + ms);
            while pace.available(now) > 0 {
                pace.take();
                seconds[usize::try_from(ms / 1000).unwrap()] += 1;
            }
        }
        seconds
    }

    #[test]
    fn the_cap_holds_in_every_second_and_is_reached() {
        for rate in [1, 7, 100, 3000, 100_000] {
            let most = u64::from(rate) + (u64::from(rate) / 100).max(1);
            let sent = sent(rate);
            assert!(sent.iter().all(|count| *count <= most), "{rate}: {sent:?}");
            assert!(
                sent.iter().sum::<u64>() >= 10 * u64::from(rate),
                "{rate}: {sent:?}"
            );
        }
    }

    #[test]
    fn a_pause_earns_no_burst() {
        let mut pace = Pace::new(Some(1000), Time(0));
        assert_eq!(pace.available(Time(3_600_000)), 10);
    }

    #[test]
    fn the_next_turn_is_when_one_may_leave() {
        let mut pace = Pace::new(Some(2), Time(0));
        assert_eq!(pace.available(Time(0)), 1);
        pace.take();
        let next = pace.next(Time(0));
        assert_eq!(next, Time(500));
        assert_eq!((pace.available(Time(499)), pace.available(next)), (0, 1));
        let fast = Pace::new(Some(11_000), Time(0));
        assert_eq!(fast.next(Time(3)), Time(13));
    }

    #[test]
    fn without_a_cap_all_may_leave() {
        let mut pace = Pace::new(None, Time(0));
        pace.take();
        assert_eq!(
            (pace.available(Time(0)), pace.next(Time(5))),
            (u64::MAX, Time(5))
        );
    }
}
