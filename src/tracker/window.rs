//! How many UDP packets may be in flight to one tracker.

use crate::timers::Time;

/// The window in packets at first, at least, and at most: 4096 answers fit our receive buffer.
const FIRST_WINDOW: u32 = 32;
const MIN_WINDOW: u32 = 8;
const MAX_WINDOW: u32 = 4096;

/// Packets that the receive buffer of a tracker holds: with Linux's default, 93 announces were measured
/// to fit.
const BUFFERED: u32 = 64;

/// Packets that may be in transit besides, for each millisecond of the round trip.
const IN_TRANSIT_PER_MS: u32 = 50;

/// A window that grows with answers and shrinks with losses, as TCP's does, so that a burst does not
/// overflow the tracker's receive buffer: a packet that is dropped there is missed only seconds later.
/// Packets beyond that buffer are in transit; the round trip is the shortest time that an answer took.
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    round_trip_ms: Option<u64>,
    /// From this size on it grows by one for each round trip.
    threshold: u32,
    /// Answers since it last grew above the threshold.
    counted: u32,
    pub(super) under_way: u32,
    shrunk: Time,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: FIRST_WINDOW,
            round_trip_ms: None,
            threshold: MAX_WINDOW,
            counted: 0,
            under_way: 0,
            shrunk: Time::default(),
        }
    }
}

impl Window {
    pub(super) fn has_room(&self) -> bool {
        self.under_way < self.size
    }

    pub(super) fn sent(&mut self) {
        self.under_way += 1;
    }

    fn arrived(&mut self) {
        let left = self.under_way.checked_sub(1);
        self.under_way = left.expect("a packet counts as under way once");
    }

    /// A packet was answered after this time.
    pub(super) fn took(&mut self, ms: u64) {
        self.round_trip_ms = Some(self.round_trip_ms.map_or(ms, |shortest| shortest.min(ms)));
    }

    fn max(&self) -> u32 {
        let round_trip_ms = u32::try_from(self.round_trip_ms.unwrap_or(0)).unwrap_or(u32::MAX);
        round_trip_ms
            .saturating_mul(IN_TRANSIT_PER_MS)
            .saturating_add(BUFFERED)
            .min(MAX_WINDOW)
    }

    /// A packet was answered that still counted as under way.
    pub(super) fn answered(&mut self) {
        self.arrived();
        if self.size >= self.max() {
            self.size = self.max();
            return;
        }
        if self.size < self.threshold {
            self.size += 1;
            return;
        }
        self.counted += 1;
        if self.counted >= self.size {
            self.counted = 0;
            self.size += 1;
        }
    }

    /// A packet no longer counts as under way. Losses within a second are one.
    pub(super) fn lost(&mut self, now: Time) {
        self.arrived();
        if now.since(self.shrunk) >= 1000 {
            self.shrunk = now;
            self.size = (self.size / 2).max(MIN_WINDOW);
            self.threshold = self.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_fits_the_round_trip_and_the_receive_buffer() {
        for (times_ms, most) in [(&[3, 0, 9][..], 64), (&[50], 2564), (&[500], MAX_WINDOW)] {
            let mut window = Window::default();
            times_ms.iter().for_each(|ms| window.took(*ms));
            for _ in 0..10_000 {
                window.sent();
                window.answered();
            }
            assert_eq!(window.size, most);
        }
    }

    #[test]
    fn the_window_grows_with_answers_and_is_halved_once_a_second() {
        let mut window = Window::default();
        window.took(50);
        for _ in 0..32 {
            assert!(window.has_room());
            window.sent();
        }
        assert!(!window.has_room());
        for answer in 0..96 {
            window.answered();
            if answer < 64 {
                window.sent();
            }
        }
        assert_eq!(window.size, 128);
        for ms in [5000, 5001, 5999] {
            window.sent();
            window.lost(Time(ms));
        }
        assert_eq!((window.size, window.under_way), (64, 0));
        // From there on it grows by one for each round.
        for _ in 0..63 {
            window.sent();
            window.answered();
        }
        assert_eq!(window.size, 64);
        window.sent();
        window.answered();
        assert_eq!(window.size, 65);
        for second in 0..100 {
            window.sent();
            window.lost(Time(10_000 + 1000 * second));
        }
        assert_eq!(window.size, MIN_WINDOW);
    }
}
