//! Which repeated lines of the log are suppressed.
//!
//! Lines are counted by their line of source. The time is a parameter.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use log::Level;

/// How long lines of one origin are counted together. Unit: milliseconds.
const WINDOW_MS: u64 = 60_000;

/// Different lines of one origin in a window: enough to see what they have in common, few enough
/// that a disk that dies under a hundred thousand files does not fill another with its log.
const LINES_PER_WINDOW: u32 = 10;

/// Where a line is logged: source file and line.
pub(super) type Origin = (&'static str, u32);

/// Lines that were suppressed in a window that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    pub(super) level: Level,
    pub(super) target: String,
    /// The last of them.
    pub(super) text: String,
    pub(super) count: u32,
}

/// The windows that have not ended.
#[derive(Default)]
pub(super) struct Repeats {
    windows: HashMap<Origin, Window>,
    hasher: RandomState,
}

struct Window {
    began_ms: u64,
    written: u32,
    /// The hash of the last line that was written; the same line again is suppressed.
    last_hash: u64,
    suppressed: Option<Summary>,
}

impl Repeats {
    /// Returns true if the line is to be written. Appends the summaries that are due to `summaries`.
    pub(super) fn admit(
        &mut self,
        origin: Origin,
        (level, target, text): (Level, &str, &str),
        now_ms: u64,
        summaries: &mut Vec<Summary>,
    ) -> bool {
        self.take_due(now_ms, summaries);
        let hash = self.hasher.hash_one(text);
        let window = self.windows.entry(origin).or_insert(Window {
            began_ms: now_ms,
            written: 0,
            last_hash: !hash,
            suppressed: None,
        });
        if window.last_hash != hash && window.written < LINES_PER_WINDOW {
            window.written += 1;
            window.last_hash = hash;
            return true;
        }
        let summary = window.suppressed.get_or_insert_with(|| Summary {
            level,
            target: target.to_owned(),
            text: String::new(),
            count: 0,
        });
        summary.count = summary.count.saturating_add(1);
        text.clone_into(&mut summary.text);
        false
    }

    /// Appends the summaries of windows that are over to `summaries`.
    pub(super) fn take_due(&mut self, now_ms: u64, summaries: &mut Vec<Summary>) {
        self.windows.retain(|_, window| {
            let over = now_ms.saturating_sub(window.began_ms) >= WINDOW_MS;
            if over {
                summaries.extend(window.suppressed.take());
            }
            !over
        });
    }

    /// Appends every summary to `summaries`.
    pub(super) fn take_all(&mut self, summaries: &mut Vec<Summary>) {
        self.take_due(u64::MAX, summaries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Origin = ("here.rs", 1);

    fn admit(
        repeats: &mut Repeats,
        origin: Origin,
        text: &str,
        now_ms: u64,
    ) -> (bool, Vec<Summary>) {
        let mut summaries = Vec::new();
        let line = (Level::Warn, "hekate::storage", text);
        let admitted = repeats.admit(origin, line, now_ms, &mut summaries);
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
    fn ten_different_lines_of_one_origin_are_written_a_minute() {
        let mut repeats = Repeats::default();
        let written = (0..50)
            .filter(|number| admit(&mut repeats, HERE, &format!("file {number}"), 5).0)
            .count();
        assert_eq!(written, LINES_PER_WINDOW as usize);
        assert!(
            admit(&mut repeats, ("here.rs", 2), "file 1", 5).0,
            "another origin"
        );
        let mut summaries = Vec::new();
        repeats.take_due(60_004, &mut summaries);
        assert!(summaries.is_empty(), "not over");
        repeats.take_all(&mut summaries);
        assert_eq!(summaries.len(), 1);
        assert_eq!(
            (summaries[0].count, summaries[0].text.as_str()),
            (40, "file 49")
        );
    }

    #[test]
    fn a_window_that_is_over_is_removed() {
        let mut repeats = Repeats::default();
        assert!(admit(&mut repeats, HERE, "once", 0).0);
        let mut summaries = Vec::new();
        repeats.take_due(60_000, &mut summaries);
        assert!(summaries.is_empty() && repeats.windows.is_empty());
    }
}
