//! The library as it is kept on disk: an index of tens of millions of torrents.
//!
//! `format` and `prefixes` say what an index holds and are pure. `write` and `index` write and read
//! the file; `walk`, `parallel` and `build` make one from a tree of torrents, and
//! `verify` with `hash` compares content with it. Everything but
//! [`index::Index::find`] may wait for a disk, so the loop must not call it.

pub mod build;
pub mod format;
mod hash;
pub mod index;
pub mod parallel;
pub mod prefixes;
pub mod report;
mod sort;
pub mod verify;
mod walk;
mod window;
pub mod write;
