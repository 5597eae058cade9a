//! The index: one file that holds every torrent of a library.
//!
//! - `format`: the bytes of the file; drawn in `docs/INDEX.md`.
//! - `writer`, `sort`: writing it. Records are sorted outside of memory where they are many, and a
//!   reader sees the old file or the new one.
//! - `reader`: opening and reading it. Nothing in the file is trusted.
//! - `prefixes`: the part that is held in memory. It tells whether an info-hash may be in the index.
//! - `paths`: finding records by their paths.
//! - `section_reader`: reads within one section of the file.
//! - `id_map`: which torrent id stands for which record, while indexes replace each other.

pub mod format;
pub mod id_map;
mod paths;
pub mod prefixes;
mod reader;
mod section_reader;
mod sort;
pub mod writer;

pub use reader::{Candidates, Counts, Entries, Entry, Fault, Index, IndexError, Served};
