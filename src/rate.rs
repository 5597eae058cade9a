//! The global upload limit, a token bucket.
//!
//! Owns how many bytes may be sent now. It must not know peers or sockets: who gets the bytes is
//! the choker's matter. One token is a thousandth of a byte, so that slow limits and short
//! intervals lose nothing to rounding.

use crate::timers::Time;

/// How much may go out at once after a pause, as a time at the full rate: short enough that the
/// limit holds in every second, long enough for deep writes at high rates. Unit: milliseconds.
const BURST_MS: u64 = 100;

/// The least burst, whatever the rate: four blocks of the usual 16 KiB, or slow limits would cut
/// every block in pieces. Unit: bytes.
const BURST_MIN_BYTES: u64 = 64 * 1024;

/// Tokens in one byte, because time comes in milliseconds and the rate in bytes for each second.
const TOKENS_PER_BYTE: u64 = 1000;

/// Fills at a steady rate up to a burst; sending empties it.
#[derive(Debug)]
pub struct TokenBucket {
    /// `None` is no limit.
    bytes_per_second: Option<u64>,
    tokens: u64,
    /// What was sent beyond the tokens, to be paid back first.
    debt: u64,
    filled: Time,
}

impl TokenBucket {
    /// A full bucket. `None` and zero mean no limit, as in the options of other clients.
    pub fn new(bytes_per_second: Option<u64>, now: Time) -> Self {
        let bytes_per_second = bytes_per_second.filter(|rate| *rate > 0);
        Self {
            bytes_per_second,
            tokens: bytes_per_second.map_or(0, burst_tokens),
            debt: 0,
            filled: now,
        }
    }

    /// How many bytes may be sent now: `u64::MAX` without a limit.
    pub fn available(&mut self, now: Time) -> u64 {
        let Some(rate) = self.bytes_per_second else {
            return u64::MAX;
        };
        let earned = rate.saturating_mul(now.since(self.filled));
        self.filled = self.filled.max(now);
        let repaid = earned.min(self.debt);
        self.debt -= repaid;
        self.tokens = self
            .tokens
            .saturating_add(earned - repaid)
            .min(burst_tokens(rate));
        self.tokens / TOKENS_PER_BYTE
    }

    /// Counts bytes that were sent. More than was available is a debt that delays what comes next.
    pub fn take(&mut self, bytes: u64) {
        if self.bytes_per_second.is_none() {
            return;
        }
        let taken = bytes.saturating_mul(TOKENS_PER_BYTE);
        self.debt = self.debt.saturating_add(taken.saturating_sub(self.tokens));
        self.tokens = self.tokens.saturating_sub(taken);
    }

    /// When `wanted` bytes, or a whole burst where that is less, will be available; `None` when
    /// they are now.
    pub fn next(&mut self, now: Time, wanted: u64) -> Option<Time> {
        self.available(now);
        let rate = self.bytes_per_second?;
        let wanted = wanted
            .saturating_mul(TOKENS_PER_BYTE)
            .min(burst_tokens(rate));
        let missing = wanted.saturating_sub(self.tokens).saturating_add(self.debt);
        (missing > 0).then(|| now.after(missing.div_ceil(rate)))
    }
}

fn burst_tokens(bytes_per_second: u64) -> u64 {
    let at_rate = bytes_per_second.saturating_mul(BURST_MS);
    at_rate.max(BURST_MIN_BYTES * TOKENS_PER_BYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(5000);
    const MEGABYTE: u64 = 1_000_000;

    fn empty(bucket: &mut TokenBucket) {
        let burst = bucket.available(START);
        bucket.take(burst);
    }

    #[test]
    fn without_a_limit_everything_is_available_at_once() {
        for rate in [None, Some(0)] {
            let mut bucket = TokenBucket::new(rate, START);
            bucket.take(u64::MAX);
            assert_eq!(bucket.available(START), u64::MAX);
            assert_eq!(bucket.next(START, u64::MAX), None);
        }
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second_and_at_least_64_kib() {
        let mut fast = TokenBucket::new(Some(100 * MEGABYTE), START);
        assert_eq!(fast.available(START), 10 * MEGABYTE);
        let mut slow = TokenBucket::new(Some(1000), START);
        assert_eq!(slow.available(START), 64 * 1024);
        // A long pause earns no more than that.
        assert_eq!(fast.available(START.after(3_600_000)), 10 * MEGABYTE);
        assert_eq!(slow.available(START.after(3_600_000)), 64 * 1024);
    }

    #[test]
    fn the_bucket_fills_at_the_rate() {
        let mut bucket = TokenBucket::new(Some(MEGABYTE), START);
        empty(&mut bucket);
        assert_eq!(bucket.available(START), 0);
        assert_eq!(bucket.available(START.after(50)), MEGABYTE * 50 / 1000);
    }

    #[test]
    fn slow_rates_lose_nothing_to_short_intervals() {
        let mut bucket = TokenBucket::new(Some(7), START);
        bucket.take(64 * 1024);
        for ms in 1..1000 {
            assert!(bucket.available(START.after(ms)) < 7);
        }
        assert_eq!(bucket.available(START.after(1000)), 7);
    }

    #[test]
    fn over_a_minute_the_rate_holds() {
        let rate = 3 * MEGABYTE;
        let mut bucket = TokenBucket::new(Some(rate), START);
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
        let mut bucket = TokenBucket::new(Some(MEGABYTE), START);
        let burst = bucket.available(START);
        bucket.take(burst + MEGABYTE);
        assert_eq!(bucket.available(START.after(1000)), 0);
        assert_eq!(bucket.next(START.after(1000), 1), Some(START.after(1001)));
        assert_eq!(bucket.available(START.after(1001)), MEGABYTE / 1000);
    }

    #[test]
    fn next_is_the_first_millisecond_at_which_enough_is_there() {
        let mut bucket = TokenBucket::new(Some(MEGABYTE), START);
        assert_eq!(bucket.next(START, 16 * 1024), None);
        empty(&mut bucket);
        let at = bucket.next(START, 16 * 1024).unwrap();
        assert_eq!(at, START.after(17));
        assert!(bucket.available(Time(at.0 - 1)) < 16 * 1024);
        assert!(bucket.available(at) >= 16 * 1024);
    }

    #[test]
    fn more_than_a_burst_is_never_waited_for() {
        let mut bucket = TokenBucket::new(Some(1000), START);
        assert_eq!(bucket.next(START, u64::MAX), None);
        bucket.take(1);
        assert_eq!(bucket.next(START, u64::MAX), Some(START.after(1)));
    }

    #[test]
    fn extreme_rates_and_times_do_not_overflow() {
        let mut bucket = TokenBucket::new(Some(u64::MAX), Time(0));
        bucket.take(u64::MAX);
        bucket.take(u64::MAX);
        assert!(bucket.next(Time(1), u64::MAX).is_some());
        bucket.available(Time(u64::MAX));
        // A clock that steps back earns nothing twice.
        let mut bucket = TokenBucket::new(Some(MEGABYTE), START);
        empty(&mut bucket);
        assert_eq!(bucket.available(Time(0)), 0);
        assert_eq!(bucket.available(START), 0);
    }
}
