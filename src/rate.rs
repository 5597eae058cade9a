//! Rate limits: a token bucket that serves the global upload limit and the announces of each tracker.
//!
//! One token is a thousandth of a unit (a byte or an announce), because time comes in milliseconds
//! and rates in units a second: slow limits and short intervals lose nothing to rounding.

use crate::timers::Time;

/// Tokens in one unit.
const TOKENS_PER_UNIT: i128 = 1000;

/// How much may pass at once after a pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Burst {
    /// As a time at the full rate, in milliseconds.
    pub ms: u64,
    /// The least burst in units, whatever the rate.
    pub min_units: u64,
}

/// The burst of the upload limit, in bytes. A tenth of a second is short enough for the limit to hold
/// in every second and long enough for deep writes at high rates. 64 KiB are four blocks of the usual
/// 16 KiB: less would cut every block of a slow limit in pieces.
pub const UPLOAD_BURST: Burst = Burst {
    ms: 100,
    min_units: 64 * 1024,
};

/// A token bucket: fills at a steady rate up to a burst, and is emptied by what passes.
#[derive(Debug)]
pub struct RateLimiter {
    /// Units a second. `None` is no limit.
    per_second: Option<u64>,
    burst: Burst,
    /// Negative after more has passed than was available.
    tokens: i128,
    filled: Time,
}

impl RateLimiter {
    /// A full bucket. `None` and zero mean no limit, as in the options of other clients.
    #[must_use]
    pub fn new(per_second: Option<u64>, burst: Burst, now: Time) -> Self {
        let per_second = per_second.filter(|rate| *rate > 0);
        let mut limiter = Self {
            per_second,
            burst,
            tokens: 0,
            filled: now,
        };
        limiter.tokens = per_second.map_or(0, |rate| limiter.burst_tokens(rate));
        limiter
    }

    /// How many units may pass now: `u64::MAX` without a limit.
    pub fn available(&mut self, now: Time) -> u64 {
        let Some(rate) = self.per_second else {
            return u64::MAX;
        };
        let earned = i128::from(rate).saturating_mul(now.since(self.filled).into());
        self.filled = self.filled.max(now);
        let filled = self.tokens.saturating_add(earned);
        self.tokens = filled.min(self.burst_tokens(rate));
        u64::try_from(self.tokens.max(0) / TOKENS_PER_UNIT).expect("a burst is a number of units")
    }

    /// Counts units that have passed. More than were available is a debt that delays what follows.
    pub fn take(&mut self, units: u64) {
        if self.per_second.is_some() {
            self.tokens -= i128::from(units) * TOKENS_PER_UNIT;
        }
    }

    /// When `wanted` units, or a whole burst if that is less, will be available; `None` if they are
    /// now.
    pub fn poll_at(&mut self, now: Time, wanted: u64) -> Option<Time> {
        self.available(now);
        let rate = self.per_second?;
        let wanted = i128::from(wanted) * TOKENS_PER_UNIT;
        let missing = wanted.min(self.burst_tokens(rate)) - self.tokens;
        let missing = u128::try_from(missing).ok().filter(|tokens| *tokens > 0)?;
        let wait_ms = missing.div_ceil(u128::from(rate));
        Some(now.after(u64::try_from(wait_ms).unwrap_or(u64::MAX)))
    }

    fn burst_tokens(&self, per_second: u64) -> i128 {
        let at_rate = i128::from(per_second) * i128::from(self.burst.ms);
        at_rate.max(i128::from(self.burst.min_units) * TOKENS_PER_UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(5000);
    const MEGABYTE: u64 = 1_000_000;

    fn limiter(bytes_per_second: Option<u64>) -> RateLimiter {
        RateLimiter::new(bytes_per_second, UPLOAD_BURST, START)
    }

    fn empty(bucket: &mut RateLimiter) {
        let burst = bucket.available(START);
        bucket.take(burst);
    }

    #[test]
    fn without_a_limit_everything_is_available_at_once() {
        for rate in [None, Some(0)] {
            let mut bucket = limiter(rate);
            bucket.take(u64::MAX);
            assert_eq!(bucket.available(START), u64::MAX);
            assert_eq!(bucket.poll_at(START, u64::MAX), None);
        }
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second_and_at_least_64_kib() {
        let mut fast = limiter(Some(100 * MEGABYTE));
        assert_eq!(fast.available(START), 10 * MEGABYTE);
        let mut slow = limiter(Some(1000));
        assert_eq!(slow.available(START), 64 * 1024);
        // A long pause earns no more than that.
        assert_eq!(fast.available(START.after(3_600_000)), 10 * MEGABYTE);
        assert_eq!(slow.available(START.after(3_600_000)), 64 * 1024);
    }

    #[test]
    fn the_bucket_fills_at_the_rate() {
        let mut bucket = limiter(Some(MEGABYTE));
        empty(&mut bucket);
        assert_eq!(bucket.available(START), 0);
        assert_eq!(bucket.available(START.after(50)), MEGABYTE * 50 / 1000);
    }

    #[test]
    fn slow_rates_lose_nothing_to_short_intervals() {
        let mut bucket = limiter(Some(7));
        bucket.take(64 * 1024);
        for ms in 1..1000 {
            assert!(bucket.available(START.after(ms)) < 7);
        }
        assert_eq!(bucket.available(START.after(1000)), 7);
    }

    #[test]
    fn over_a_minute_the_rate_holds() {
        let rate = 3 * MEGABYTE;
        let mut bucket = limiter(Some(rate));
        let mut sent: u64 = 0;
        for ms in 0..60_000 {
            // A sender that always takes whole blocks, a little more than there is.
            if bucket.available(START.after(ms)) > 0 {
                bucket.take(16 * 1024);
                sent += 16 * 1024;
            }
        }
        let expected = rate * 60;
        assert!(
            sent.abs_diff(expected) < expected / 100 + rate / 10,
            "{sent}"
        );
    }

    #[test]
    fn a_debt_is_paid_back_first() {
        let mut bucket = limiter(Some(MEGABYTE));
        let burst = bucket.available(START);
        bucket.take(burst + MEGABYTE);
        assert_eq!(bucket.available(START.after(1000)), 0);
        assert_eq!(
            bucket.poll_at(START.after(1000), 1),
            Some(START.after(1001))
        );
        assert_eq!(bucket.available(START.after(1001)), MEGABYTE / 1000);
    }

    #[test]
    fn poll_at_is_the_first_millisecond_at_which_enough_is_available() {
        let mut bucket = limiter(Some(MEGABYTE));
        assert_eq!(bucket.poll_at(START, 16 * 1024), None);
        empty(&mut bucket);
        let at = bucket.poll_at(START, 16 * 1024).unwrap();
        assert_eq!(at, START.after(17));
        assert!(bucket.available(Time(at.0 - 1)) < 16 * 1024);
        assert!(bucket.available(at) >= 16 * 1024);
    }

    #[test]
    fn more_than_a_burst_is_never_waited_for() {
        let mut bucket = limiter(Some(1000));
        assert_eq!(bucket.poll_at(START, u64::MAX), None);
        bucket.take(1);
        assert_eq!(bucket.poll_at(START, u64::MAX), Some(START.after(1)));
    }

    #[test]
    fn extreme_rates_and_times_do_not_overflow() {
        let mut bucket = RateLimiter::new(Some(u64::MAX), UPLOAD_BURST, Time(0));
        bucket.take(u64::MAX);
        bucket.take(u64::MAX);
        assert!(bucket.poll_at(Time(1), u64::MAX).is_some());
        bucket.available(Time(u64::MAX));
        // A clock that steps back earns nothing twice.
        let mut bucket = limiter(Some(MEGABYTE));
        empty(&mut bucket);
        assert_eq!(bucket.available(Time(0)), 0);
        assert_eq!(bucket.available(START), 0);
    }

    /// One announce, or what a tracker is sent in 10 ms.
    const SMALL_BURST: Burst = Burst {
        ms: 10,
        min_units: 1,
    };

    /// How many units pass in each of ten seconds when the loop turns every millisecond.
    fn passed(rate: u64) -> Vec<u64> {
        let mut limiter = RateLimiter::new(Some(rate), SMALL_BURST, START);
        let mut seconds = vec![0; 10];
        for ms in 0..10_000 {
            let now = START.after(ms);
            while limiter.available(now) > 0 {
                limiter.take(1);
                seconds[usize::try_from(ms / 1000).unwrap()] += 1;
            }
        }
        seconds
    }

    #[test]
    fn a_small_burst_holds_the_rate_in_every_second_and_reaches_it() {
        for rate in [1, 7, 100, 3000, 100_000] {
            let most = rate + (rate / 100).max(1);
            let passed = passed(rate);
            assert!(
                passed.iter().all(|count| *count <= most),
                "{rate}: {passed:?}"
            );
            assert!(
                passed.iter().sum::<u64>() >= 10 * rate,
                "{rate}: {passed:?}"
            );
        }
    }

    #[test]
    fn a_pause_earns_one_small_burst() {
        let mut limiter = RateLimiter::new(Some(1000), SMALL_BURST, Time(0));
        assert_eq!(limiter.available(Time(3_600_000)), 10);
    }

    #[test]
    fn one_unit_of_a_slow_rate_is_available_when_poll_at_says() {
        let mut limiter = RateLimiter::new(Some(2), SMALL_BURST, Time(0));
        assert_eq!(limiter.available(Time(0)), 1);
        limiter.take(1);
        let at = limiter.poll_at(Time(0), 1).unwrap();
        assert_eq!(at, Time(500));
        assert_eq!(
            (limiter.available(Time(499)), limiter.available(at)),
            (0, 1)
        );
    }
}
