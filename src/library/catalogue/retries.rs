//! When the files of torrents that could not be loaded are examined again.
//!
//! Often no event says that they have been mended.
//!
//! Pure: time is a parameter.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The pause between the first two examinations: whoever has just mended something waits for it.
const FIRST: Duration = Duration::from_secs(5);

/// The longest pause. Each is twice the last.
const LONGEST: Duration = Duration::from_secs(600);

/// Files that wait at most: at the longest pause, fewer than two examinations a second.
const WAITING_MAX: usize = 1024;

/// Examinations in a row: a disk takes less than a second for them, and other changes are examined in
/// between.
const AT_ONCE: usize = 64;

/// One file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Retry {
    pub(super) path: PathBuf,
    due: Instant,
    /// The pause after the next examination.
    pause: Duration,
}

/// The files that wait.
#[derive(Default)]
pub(super) struct Retries {
    waiting: Vec<Retry>,
}

impl Retries {
    /// Adds a file that was examined now and is not right, unless it waits already.
    pub(super) fn add_again(&mut self, path: PathBuf, now: Instant) {
        self.add(path, now + FIRST);
    }

    /// Adds a file, due now. If too many wait, the one that failed most often is
    /// left to the next rescan.
    pub(super) fn add(&mut self, path: PathBuf, now: Instant) {
        if self.waiting.iter().any(|retry| retry.path == path) {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            let retries = (0..).zip(&self.waiting);
            let longest = retries.max_by_key(|(_, retry)| retry.pause);
            if let Some((index, _)) = longest {
                self.waiting.swap_remove(index);
            }
        }
        self.waiting.push(Retry {
            path,
            due: now,
            pause: FIRST,
        });
    }

    /// Takes out some of those that are due.
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

    /// When the next one is due.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.waiting.iter().map(|retry| retry.due).min()
    }

    /// Forgets all, after a scan of everything.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_due_at_once_and_then_after_growing_pauses() {
        let start = Instant::now();
        let mut retries = Retries::default();
        retries.add("/a".into(), start);
        retries.add("/a".into(), start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let due = retries.take_due(now);
            assert_eq!(due.len(), 1);
            assert_eq!(retries.poll_at(), None);
            retries.again(due[0].clone(), now);
            let next = retries.poll_at().unwrap();
            assert_eq!(retries.take_due(next - Duration::from_millis(1)), []);
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        retries.clear();
        assert_eq!(retries.poll_at(), None);
    }

    #[test]
    fn the_number_that_waits_and_is_taken_at_once_is_bounded() {
        let now = Instant::now();
        let mut retries = Retries::default();
        retries.add("/old".into(), now);
        let old = retries.take_due(now).remove(0);
        retries.again(old, now);
        for number in 0..WAITING_MAX {
            retries.add(format!("/{number}").into(), now);
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
