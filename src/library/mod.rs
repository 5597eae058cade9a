//! The library: up to tens of millions of torrents, indexed on disk.
//!
//! - `index`: the index file, written and read.
//! - `scan`: making an index from directories of metainfo files.
//! - `watch`: changes in those directories.
//! - `catalogue`: which torrents are served while directories change. The loop asks its `lookup`.
//! - `verify`: content compared with piece hashes.
//!
//! Everything may wait for a disk, except the functions of `catalogue::lookup` and `catalogue::live`
//! that say so, [`index::Index::find`] and [`index::Index::find_obfuscated`].

pub mod catalogue;
#[cfg(test)]
mod fixture;
pub mod index;
pub mod scan;
pub mod verify;
pub mod watch;
