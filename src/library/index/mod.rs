//! The index: one file that holds every torrent of a library.
//!
//! - `format`: the bytes of the file; drawn in `docs/INDEX.md`.
//! - `writer`: writing it. A reader sees the old file or the new one.
//! - `reader`: opening and reading it. Nothing in the file is trusted.
//! - `prefixes`: the section that is held in memory. It tells whether an info-hash may be in the index.
//! - `obfuscated`: the section for encrypted connections, in memory where they are accepted.
//! - `paths`: finding records by their paths.
//! - `error`: why an index cannot be used.
//! - `id_map`: the map between torrent ids and records, while indexes replace each other.

mod error;
pub mod format;
pub mod id_map;
pub mod obfuscated;
mod paths;
pub mod prefixes;
mod reader;
pub mod writer;

pub use error::{Fault, IndexError};
pub use format::{Counts, MetainfoPath};
pub use reader::{Candidates, Entries, Entry, Index, ObfuscatedCandidates, Served};
