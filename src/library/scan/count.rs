//! Counting metainfo files by their names, ahead of the scan that reads them, to show progress.
//!
//! Blocks.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::library::scan::walk::{Starts, Step};

/// Counts metainfo files below these directories, and those that are named themselves. `None` when it
/// was told to stop before the end.
#[must_use]
pub fn count(inputs: &[PathBuf], stop: &AtomicBool) -> Option<u64> {
    let mut files = 0;
    for step in Starts::new(inputs).walk() {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        if let Step::Batch(batch) = step {
            files += batch.names.len() as u64;
        }
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_until_it_is_told_to_stop() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.torrent", "b.torrent", "notes", "named"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let inputs = [directory.path().to_path_buf()];
        let stop = AtomicBool::new(false);
        assert_eq!(count(&inputs, &stop), Some(2));
        assert_eq!(count(&[directory.path().join("named")], &stop), Some(1));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(count(&inputs, &stop), None);
    }
}
