//! Throughput in each of the last seconds.
//!
//! The loop reports the time and a sum whenever it turns, which may be hours apart; the seconds between
//! two turns are filled in then.

use std::collections::VecDeque;
use std::iter;

use crate::timers::Time;

/// Five minutes: enough for somebody who has just opened the page.
pub const SECONDS: usize = 300;

/// The minutes in [`SECONDS`].
pub const MINUTES: usize = SECONDS / 60;

/// The seconds that the current rate is the mean of. Long enough for turns at a rate limit to even out.
const RATE_SECONDS: usize = 5;

/// Bytes sent in each of the last whole seconds.
#[derive(Debug)]
pub struct History {
    /// Oldest first; always `SECONDS - 1`.
    seconds: VecDeque<u64>,
    /// The current second.
    second: u64,
    /// The sum at its beginning.
    before: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            seconds: vec![0; SECONDS - 1].into(),
            second: 0,
            before: 0,
        }
    }
}

impl History {
    /// Records the sum of all bytes sent so far. Cheap in all turns but the first of each second.
    pub fn record(&mut self, now: Time, sum: u64) {
        let second = now.0 / 1000;
        if second == self.second {
            return;
        }
        // Bytes sent since the last turn were sent in the second of that turn.
        let sent = iter::once(sum.saturating_sub(self.before));
        let silent = (self.second + 1..second).take(SECONDS).map(|_| 0);
        for bytes in sent.chain(silent) {
            self.seconds.pop_front();
            self.seconds.push_back(bytes);
        }
        self.second = second;
        self.before = sum;
    }

    /// Bytes in each of the last whole seconds, oldest first.
    pub fn seconds(&self) -> impl Iterator<Item = u64> + Clone {
        self.seconds.iter().copied()
    }

    /// Bytes a second in each of the last minutes, oldest first.
    #[must_use]
    pub fn minutes(&self) -> [u64; MINUTES] {
        // The current second belongs to the last minute, so the first one is a second short.
        let seconds = iter::once(0).chain(self.seconds());
        std::array::from_fn(|minute| seconds.clone().skip(60 * minute).take(60).sum::<u64>() / 60)
    }

    /// Bytes in the second with the most.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.seconds().max().unwrap_or(0)
    }

    /// Bytes a second in the last `RATE_SECONDS`.
    #[must_use]
    pub fn rate_bytes(&self) -> u64 {
        let last = self.seconds().skip(SECONDS - 1 - RATE_SECONDS);
        last.sum::<u64>() / RATE_SECONDS as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(history: &History, count: usize) -> Vec<u64> {
        history.seconds().skip(SECONDS - 1 - count).collect()
    }

    #[test]
    fn bytes_are_of_the_second_in_which_they_were_sent() {
        let mut history = History::default();
        for (ms, sum) in [
            (10, 0),
            (900, 5),
            (999, 7),
            (1000, 7),
            (1999, 20),
            (2000, 30),
        ] {
            history.record(Time(ms), sum);
        }
        assert_eq!(last(&history, 3), [0, 7, 23]);
    }

    #[test]
    fn seconds_without_a_turn_are_silent() {
        let mut history = History::default();
        history.record(Time(0), 0);
        history.record(Time(5_000), 100);
        assert_eq!(last(&history, 6), [0, 100, 0, 0, 0, 0]);
        assert_eq!(history.rate_bytes(), 20);
        history.record(Time(86_400_000), 300);
        assert_eq!(history.seconds().sum::<u64>(), 0, "a day later");
        history.record(Time(86_401_000), 400);
        assert_eq!(last(&history, 2), [0, 100]);
    }

    #[test]
    fn minutes_are_in_bytes_a_second_and_the_peak_is_of_one_second() {
        let mut history = History::default();
        // Two minutes of nothing, one of 600 a second, and one of a single burst.
        history.record(Time(120_000), 0);
        for second in 121..=180 {
            history.record(Time(second * 1000), (second - 120) * 600);
        }
        history.record(Time(210_000), 36_000);
        history.record(Time(211_000), 36_000 + 6_000);
        history.record(Time(240_000), 36_000 + 6_000);
        assert_eq!(history.minutes(), [0, 0, 0, 600, 100]);
        assert_eq!(history.peak_bytes(), 6_000);
        assert_eq!(History::default().minutes(), [0; MINUTES]);
    }

    #[test]
    fn the_last_five_minutes_are_kept() {
        let mut history = History::default();
        for second in 0..1000 {
            history.record(Time(second * 1000), second * 10);
        }
        assert_eq!(history.seconds().count(), SECONDS - 1);
        assert_eq!(history.seconds().sum::<u64>(), 10 * (SECONDS as u64 - 1));
    }
}
