//! The index: one file that holds every torrent of a library.
//!
//! - `format`: the bytes of the file; drawn in `docs/INDEX.md`.
//! - `writer`, `sort`: writing it, with an external sort. A reader sees the old file or the new one.
//! - `reader`: opening and reading it. Nothing in the file is trusted.
//! - `prefixes`: the section that is held in memory. It tells whether an info-hash may be in the index.
//! - `paths`: the paths of metainfo files; finding records by them.
//! - `section_reader`: reads within one section of the file.
//! - `id_map`: the map between torrent ids and records, while indexes replace each other.

pub mod format;
pub mod id_map;
mod paths;
pub mod prefixes;
mod reader;
mod section_reader;
mod sort;
pub mod writer;

pub use format::Counts;
pub use paths::MetainfoPath;
pub use reader::{Candidates, Entries, Entry, Fault, Index, IndexError, Served};
