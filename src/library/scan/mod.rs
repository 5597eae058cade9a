//! The scan: from directories of metainfo files to an index.
//!
//! - `walk`: metainfo files below directories, in the order of the index. Symlinks are followed.
//! - `merge_walk`: the same beside an earlier index, each file with its entry.
//! - `probe`: which of the directories hang.
//! - `inspect`: one metainfo file and its content.
//! - `build`: all of it, on all cores, written to an index file. It counts files first, to show progress.
//! - `parallel`: work on all cores with results in order.

pub mod build;
pub(in crate::library) mod inspect;
mod merge_walk;
pub mod parallel;
pub(in crate::library) mod probe;
pub(in crate::library) mod walk;
