//! Counters, histograms and the index of fairness of a run.
//!
//! Pure: times are microseconds since the run began.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// The longest time that is distinguished, in microseconds; longer ones count as this.
const LONGEST_US: u64 = 3_600_000_000;
/// Three significant digits: a thousandth of the value, well below the noise.
const DIGITS: u8 = 3;

/// Times in microseconds.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Times {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, DIGITS);
        Times(histogram.expect("the bounds are constants that the histogram accepts"))
    }

    pub(crate) fn record(&mut self, time_us: u64) {
        self.0.saturating_record(time_us);
    }

    /// The time that a `share` of all did not exceed, or `None` if none was recorded.
    pub(crate) fn quantile(&self, share: f64) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share))
    }

    pub(crate) fn max(&self) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.max())
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Ending {
    /// Refused, reset or closed before the seeder's handshake came.
    Refused,
    /// No handshake in time.
    TimedOut,
    /// Closed or reset by the seeder after its handshake.
    Dropped,
    /// The stream could not be parsed, or was for another torrent.
    Broken,
    /// The leecher is complete and leaves.
    Completed,
    /// The leecher was replaced by churn.
    Replaced,
    /// No socket could be created on this side.
    NoSocket,
}

/// Totals of the whole run, warm-up included, unless stated otherwise.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) started: u64,
    pub(crate) connected: u64,
    pub(crate) shaken: u64,
    pub(crate) unchoked: u64,
    pub(crate) chokes: u64,
    pub(crate) rejected: u64,
    pub(crate) unexpected: u64,
    pub(crate) verified: u64,
    pub(crate) mismatched: u64,
    /// Samples whose content could not be read here.
    pub(crate) unreadable: u64,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Bodies of whole blocks that arrived in the window.
    pub(crate) window_bytes: u64,
    pub(crate) window_blocks: u64,
    /// The same, of active leechers.
    pub(crate) window_active_bytes: u64,
}

/// Everything measured inside the swarm.
pub(crate) struct Measure {
    /// True within the window.
    pub(crate) window: bool,
    pub(crate) counts: Counts,
    pub(crate) endings: BTreeMap<Ending, u64>,
    /// From the first byte of the request being written to the last of its block being read.
    pub(crate) latency: Times,
    /// From the call of `connect` to the connection, the handshake, the first unchoke, the first block.
    pub(crate) to_connect: Times,
    pub(crate) to_handshake: Times,
    pub(crate) to_unchoke: Times,
    pub(crate) to_first_byte: Times,
}

impl Measure {
    pub(crate) fn new() -> Measure {
        Measure {
            window: false,
            counts: Counts::default(),
            endings: BTreeMap::new(),
            latency: Times::new(),
            to_connect: Times::new(),
            to_handshake: Times::new(),
            to_unchoke: Times::new(),
            to_first_byte: Times::new(),
        }
    }

    pub(crate) fn ended(&mut self, ending: Ending) {
        *self.endings.entry(ending).or_default() += 1;
    }

    pub(crate) fn endings(&self, ending: Ending) -> u64 {
        self.endings.get(&ending).copied().unwrap_or_default()
    }

    /// A whole block arrived `latency_us` after its request. Only active leechers measure the seeder's
    /// latency.
    pub(crate) fn block(&mut self, bytes: u32, latency_us: Option<u64>, active: bool) {
        let bytes = u64::from(bytes);
        self.counts.blocks += 1;
        self.counts.bytes += bytes;
        if self.window {
            self.counts.window_blocks += 1;
            self.counts.window_bytes += bytes;
            if active {
                self.counts.window_active_bytes += bytes;
                if let Some(latency_us) = latency_us {
                    self.latency.record(latency_us);
                }
            }
        }
    }
}

/// Jain's index of fairness, (Σx)² / (n Σx²): 1 when all have the same, 1/n when one has all.
/// `None` without leechers and without bytes.
#[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
pub(crate) fn jain(shares: impl IntoIterator<Item = u64>) -> Option<f64> {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for share in shares {
        let share = share as f64;
        count += 1.0;
        sum += share;
        squares += share * share;
    }
    (squares > 0.0).then(|| sum * sum / (count * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_knows_equal_and_greedy() {
        assert_eq!(jain([]), None);
        assert_eq!(jain([0, 0]), None);
        assert_eq!(jain([5, 5, 5, 5]), Some(1.0));
        assert_eq!(jain([8, 0, 0, 0]), Some(0.25));
        assert_eq!(jain([4, 4, 0, 0]), Some(0.5));
    }

    #[test]
    fn only_the_window_counts() {
        let mut measure = Measure::new();
        measure.block(1000, Some(5), true);
        measure.window = true;
        measure.block(300, Some(700), true);
        measure.block(30, Some(9_000_000), false);
        assert_eq!((measure.counts.bytes, measure.counts.blocks), (1330, 3));
        assert_eq!(measure.counts.window_bytes, 330);
        assert_eq!(measure.counts.window_active_bytes, 300);
        assert_eq!(measure.latency.count(), 1);
        assert_eq!(measure.latency.max(), Some(700));
    }

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut times = Times::new();
        assert_eq!(times.quantile(0.5), None);
        for time in 1..=100_000 {
            times.record(time);
        }
        for (share, exact) in [(0.5, 50_000_u64), (0.99, 99_000), (0.999, 99_900)] {
            let found = times.quantile(share).unwrap();
            assert!(found.abs_diff(exact) <= exact / 1000 + 1, "{found}");
        }
        times.record(u64::MAX);
        assert!(times.max() >= Some(LONGEST_US));
    }
}
