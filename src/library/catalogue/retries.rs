//! Metainfo files that are looked at again later, since nothing tells when they are right.
//!
//! Owns when that is, and how many there are at most. It is pure: time is a parameter. It must not
//! know what is looked at.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long after the first look the second is. Whoever has just mended something waits for it.
const FIRST: Duration = Duration::from_secs(5);

/// It is twice as long each time, up to this.
const LONGEST: Duration = Duration::from_secs(600);

/// Files that are waited for at most: with the longest pause, less than two looks a second.
const WAITING_MAX: usize = 1024;

/// Looks in a row: a disk takes less than a second for them, and whatever else has changed is looked
/// at in between.
const AT_ONCE: usize = 64;

/// One file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Retry {
    pub(super) path: PathBuf,
    due: Instant,
    /// How long after the next look the one after that is.
    pause: Duration,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Retries {
    waiting: Vec<Retry>,
}

impl Retries {
    /// Adds a file that is to be looked at now. When there are too many, the one that was looked at
    /// most often in vain is found by a rescan.
    pub(super) fn note(&mut self, path: PathBuf, now: Instant) {
        if self.waiting.iter().any(|retry| retry.path == path) {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            let places = (0..).zip(&self.waiting);
            let longest = places.max_by_key(|(_, retry)| retry.pause);
            if let Some((place, _)) = longest {
                self.waiting.swap_remove(place);
            }
        }
        self.waiting.push(Retry {
            path,
            due: now,
            pause: FIRST,
        });
    }

    /// Takes some of those that are due out.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Retry> {
        let due = self.waiting.extract_if(.., |retry| retry.due <= now);
        due.take(AT_ONCE).collect()
    }

    /// Puts one back that is not right yet.
    pub(super) fn again(&mut self, retry: Retry, now: Instant) {
        let Retry { path, pause, .. } = retry;
        self.waiting.push(Retry {
            path,
            due: now + pause,
            pause: (pause * 2).min(LONGEST),
        });
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.iter().map(|retry| retry.due).min()
    }

    /// Forgets all: everything was looked at.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_at_at_once_and_then_less_and_less_often() {
        let start = Instant::now();
        let mut retries = Retries::default();
        retries.note("/a".into(), start);
        retries.note("/a".into(), start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let due = retries.take_due(now);
            assert_eq!(due.len(), 1);
            assert_eq!(retries.next(), None);
            retries.again(due[0].clone(), now);
            let next = retries.next().unwrap();
            assert_eq!(retries.take_due(next - Duration::from_millis(1)), []);
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        retries.clear();
        assert_eq!(retries.next(), None);
    }

    #[test]
    fn there_are_never_too_many_and_few_are_taken_at_once() {
        let now = Instant::now();
        let mut retries = Retries::default();
        retries.note("/old".into(), now);
        let old = retries.take_due(now).remove(0);
        retries.again(old, now);
        for number in 0..WAITING_MAX {
            retries.note(format!("/{number}").into(), now);
        }
        let later = now + LONGEST;
        let mut taken = Vec::new();
        loop {
            let due = retries.take_due(later);
            assert!(due.len() <= AT_ONCE);
            if due.is_empty() {
                break;
            }
            taken.extend(due.into_iter().map(|retry| retry.path));
        }
        assert_eq!(taken.len(), WAITING_MAX);
        assert!(!taken.contains(&PathBuf::from("/old")));
    }
}
