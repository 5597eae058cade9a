//! Which repeated lines of the log are suppressed.
//!
//! Owns the counts, by the place in the code that speaks. It is pure: time is a parameter. It must
//! not know where lines go.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use log::Level;

/// How long lines of one place are counted together. Unit: milliseconds.
const WINDOW_MS: u64 = 60_000;

/// Different lines of one place in a window: enough to see what they have in common, few enough
/// that a disk that dies under a hundred thousand files does not fill another with its log.
const LINES_PER_WINDOW: u32 = 10;

/// A place in the code: file and line.
pub(super) type Place = (&'static str, u32);

/// What became of lines that were held back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    pub(super) level: Level,
    pub(super) target: String,
    /// The last of them.
    pub(super) text: String,
    pub(super) count: u32,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Repeats {
    windows: HashMap<Place, Window>,
    hasher: RandomState,
}

struct Window {
    began_ms: u64,
    written: u32,
    /// The hash of the last line that was written: the same again is held back at once.
    last: u64,
    held: Option<Summary>,
}

impl Repeats {
    /// Whether the line is to be written. What was held back before and is over is in `summaries`.
    pub(super) fn admit(
        &mut self,
        place: Place,
        (level, target, text): (Level, &str, &str),
        now_ms: u64,
        summaries: &mut Vec<Summary>,
    ) -> bool {
        self.settle(now_ms, summaries);
        let hash = self.hasher.hash_one(text);
        let window = self.windows.entry(place).or_insert(Window {
            began_ms: now_ms,
            written: 0,
            last: !hash,
            held: None,
        });
        if window.last != hash && window.written < LINES_PER_WINDOW {
            window.written += 1;
            window.last = hash;
            return true;
        }
        let held = window.held.get_or_insert_with(|| Summary {
            level,
            target: target.to_owned(),
            text: String::new(),
            count: 0,
        });
        held.count = held.count.saturating_add(1);
        text.clone_into(&mut held.text);
        false
    }

    /// Moves out the summaries of windows that are over.
    pub(super) fn settle(&mut self, now_ms: u64, summaries: &mut Vec<Summary>) {
        self.windows.retain(|_, window| {
            let over = now_ms.saturating_sub(window.began_ms) >= WINDOW_MS;
            if over {
                summaries.extend(window.held.take());
            }
            !over
        });
    }

    /// Moves out every summary.
    pub(super) fn finish(&mut self, summaries: &mut Vec<Summary>) {
        self.settle(u64::MAX, summaries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = ("here.rs", 1);

    fn admit(repeats: &mut Repeats, place: Place, text: &str, now_ms: u64) -> (bool, Vec<Summary>) {
        let mut summaries = Vec::new();
        let line = (Level::Warn, "hekate::storage", text);
        let admitted = repeats.admit(place, line, now_ms, &mut summaries);
        (admitted, summaries)
    }

    #[test]
    fn the_same_line_is_written_once_and_counted_when_the_minute_is_over() {
        let mut repeats = Repeats::default();
        assert!(admit(&mut repeats, HERE, "no descriptors", 0).0);
        for now_ms in 1..=600 {
            assert!(!admit(&mut repeats, HERE, "no descriptors", now_ms).0);
        }
        let (admitted, summaries) = admit(&mut repeats, HERE, "no descriptors", 60_000);
        assert!(admitted);
        let [summary] = summaries.as_slice() else {
            panic!("{summaries:?}")
        };
        assert_eq!((summary.count, summary.level), (600, Level::Warn));
        assert_eq!(summary.text, "no descriptors");
    }

    #[test]
    fn different_lines_of_one_place_are_written_up_to_a_number() {
        let mut repeats = Repeats::default();
        let written = (0..50)
            .filter(|number| admit(&mut repeats, HERE, &format!("file {number}"), 5).0)
            .count();
        assert_eq!(written, LINES_PER_WINDOW as usize);
        assert!(
            admit(&mut repeats, ("here.rs", 2), "file 1", 5).0,
            "another place"
        );
        let mut summaries = Vec::new();
        repeats.settle(60_004, &mut summaries);
        assert!(summaries.is_empty(), "not over");
        repeats.finish(&mut summaries);
        assert_eq!(summaries.len(), 1);
        assert_eq!(
            (summaries[0].count, summaries[0].text.as_str()),
            (40, "file 49")
        );
    }

    #[test]
    fn nothing_is_remembered_of_a_minute_that_is_over() {
        let mut repeats = Repeats::default();
        assert!(admit(&mut repeats, HERE, "once", 0).0);
        let mut summaries = Vec::new();
        repeats.settle(60_000, &mut summaries);
        assert!(summaries.is_empty() && repeats.windows.is_empty());
    }
}
