//! How many UDP packets may be in flight to one tracker.
//!
//! Owns a window that grows with answers and shrinks with losses, as TCP's does. It must not know what
//! is in the packets.

use crate::timers::Time;

/// The window of UDP packets under way at first, at least, and at most: 4096 answers fit our receive
/// buffer.
const FIRST_WINDOW: u32 = 32;
const MIN_WINDOW: u32 = 8;
const MAX_WINDOW: u32 = 4096;

/// Packets that the receive buffer of a tracker surely holds: with Linux's default 93 announces were
/// seen to fit.
const BUFFERED: u32 = 64;

/// Packets that may be on their way for each millisecond of it, besides.
const UNDER_WAY_PER_MS: u32 = 50;

/// How many UDP packets may be under way: it grows with answers and shrinks with losses, so that a
/// burst does not overflow the tracker's receive buffer, where packets vanish without a word and are
/// missed only seconds later. More than that buffer holds is for the way alone, whose length is the
/// shortest time that an answer took.
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    nearest_ms: Option<u64>,
    /// From here on it grows slowly.
    threshold: u32,
    /// Answers since it last grew slowly.
    counted: u32,
    pub(super) under_way: u32,
    shrunk: Time,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: FIRST_WINDOW,
            nearest_ms: None,
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

    /// Some packet was answered after this time.
    pub(super) fn took(&mut self, ms: u64) {
        self.nearest_ms = Some(self.nearest_ms.map_or(ms, |nearest| nearest.min(ms)));
    }

    fn most(&self) -> u32 {
        let way_ms = u32::try_from(self.nearest_ms.unwrap_or(0)).unwrap_or(u32::MAX);
        way_ms
            .saturating_mul(UNDER_WAY_PER_MS)
            .saturating_add(BUFFERED)
            .min(MAX_WINDOW)
    }

    /// A packet was answered that still counted as under way.
    pub(super) fn answered(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.size >= self.most() {
            self.size = self.most();
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
        self.under_way = self.under_way.saturating_sub(1);
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
    fn the_window_fits_the_way_and_the_buffer_at_its_end() {
        for (times_ms, most) in [(&[3, 0, 9][..], 64), (&[50], 2564), (&[500], MAX_WINDOW)] {
            let mut window = Window::default();
            times_ms.iter().for_each(|ms| window.took(*ms));
            for _ in 0..10_000 {
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
        for _ in 0..96 {
            window.answered();
        }
        assert_eq!(window.size, 128);
        for ms in [5000, 5001, 5999] {
            window.sent();
            window.lost(Time(ms));
        }
        assert_eq!((window.size, window.under_way), (64, 0));
        // From there on it grows by one for each round.
        for _ in 0..63 {
            window.answered();
        }
        assert_eq!(window.size, 64);
        window.answered();
        assert_eq!(window.size, 65);
        (0..100).for_each(|second| window.lost(Time(10_000 + 1000 * second)));
        assert_eq!(window.size, MIN_WINDOW);
    }
}
