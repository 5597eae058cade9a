//! Throughput over the last minutes, second by second.
//!
//! Owns the ring of samples. It is told the time and a sum whenever the loop turns, which may be
//! never for hours: what lies between is filled in then.

use crate::timers::Time;

/// Five minutes: what somebody wants to see who has just opened the page.
pub const SECONDS: usize = 300;

/// What [`History::minutes`] looks back on.
pub const MINUTES: usize = SECONDS / 60;

/// How many seconds "of late" is. Long enough for turns at a rate limit to even out.
const LATE_SECONDS: usize = 5;

/// See the module's text.
#[derive(Debug)]
pub struct History {
    /// Bytes in each whole second, that second modulo [`SECONDS`].
    samples: Box<[u64]>,
    /// The second that is not over.
    second: u64,
    /// The sum at its beginning.
    before: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            samples: vec![0; SECONDS].into_boxed_slice(),
            second: 0,
            before: 0,
        }
    }
}

impl History {
    /// The sum was this at that time. Cheap in all turns but the first of each second.
    pub fn note(&mut self, now: Time, sum: u64) {
        let second = now.0 / 1000;
        if second == self.second {
            return;
        }
        // What was sent since the last turn, was sent in the second of that turn.
        self.put(self.second, sum.saturating_sub(self.before));
        let oldest = second.saturating_sub(SECONDS as u64);
        for silent in (self.second + 1).max(oldest)..second {
            self.put(silent, 0);
        }
        self.second = second;
        self.before = sum;
    }

    fn put(&mut self, second: u64, bytes: u64) {
        let place = usize::try_from(second % SECONDS as u64).unwrap_or(0);
        if let Some(sample) = self.samples.get_mut(place) {
            *sample = bytes;
        }
    }

    /// Bytes in each of the last seconds that are over, oldest first.
    pub fn seconds(&self) -> impl Iterator<Item = u64> {
        let place = usize::try_from(self.second % SECONDS as u64).unwrap_or(0);
        let (newest, oldest) = self.samples.split_at_checked(place).unwrap_or_default();
        // The place of the second that is not over still has the oldest one.
        oldest.iter().skip(1).chain(newest).copied()
    }

    /// Bytes a second in each of the last minutes, oldest first.
    #[must_use]
    pub fn minutes(&self) -> [u64; MINUTES] {
        // The second that is not over belongs to the last minute: the first one is a second short.
        let mut minutes = [0; MINUTES];
        for (place, bytes) in self.seconds().enumerate() {
            if let Some(minute) = minutes.get_mut((place + 1) / 60) {
                *minute += bytes;
            }
        }
        minutes.map(|bytes| bytes / 60)
    }

    /// Bytes in the second that had the most.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.seconds().max().unwrap_or(0)
    }

    /// Bytes a second, of late.
    #[must_use]
    pub fn rate_bytes(&self) -> u64 {
        let late = self.seconds().skip(SECONDS - 1 - LATE_SECONDS);
        late.sum::<u64>() / LATE_SECONDS as u64
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
            history.note(Time(ms), sum);
        }
        assert_eq!(last(&history, 3), [0, 7, 23]);
    }

    #[test]
    fn seconds_without_a_turn_are_silent() {
        let mut history = History::default();
        history.note(Time(0), 0);
        history.note(Time(5_000), 100);
        assert_eq!(last(&history, 6), [0, 100, 0, 0, 0, 0]);
        assert_eq!(history.rate_bytes(), 20);
        history.note(Time(86_400_000), 300);
        assert_eq!(history.seconds().sum::<u64>(), 0, "a day later");
        history.note(Time(86_401_000), 400);
        assert_eq!(last(&history, 2), [0, 100]);
    }

    #[test]
    fn minutes_are_told_as_bytes_a_second_with_the_peak() {
        let mut history = History::default();
        // Two minutes of nothing, one of 600 a second, and one of a single burst.
        history.note(Time(120_000), 0);
        for second in 121..=180 {
            history.note(Time(second * 1000), (second - 120) * 600);
        }
        history.note(Time(210_000), 36_000);
        history.note(Time(211_000), 36_000 + 6_000);
        history.note(Time(240_000), 36_000 + 6_000);
        assert_eq!(history.minutes(), [0, 0, 0, 600, 100]);
        assert_eq!(history.peak_bytes(), 6_000);
        assert_eq!(History::default().minutes(), [0; MINUTES]);
    }

    #[test]
    fn all_the_minutes_are_there() {
        let mut history = History::default();
        for second in 0..1000 {
            history.note(Time(second * 1000), second * 10);
        }
        assert_eq!(history.seconds().count(), SECONDS - 1);
        assert_eq!(history.seconds().sum::<u64>(), 10 * (SECONDS as u64 - 1));
    }
}
