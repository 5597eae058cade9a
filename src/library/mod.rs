//! The library as it is kept on disk: an index of tens of millions of torrents.
//!
//! `format` and `prefixes` say what an index holds and are pure. `write` and `index` write and read
//! the file. Everything but [`index::Index::find`] may wait for a disk, so the loop must not call it.

pub mod format;
pub mod index;
pub mod prefixes;
mod sort;
mod window;
pub mod write;
