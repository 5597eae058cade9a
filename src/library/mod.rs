//! The library as it is kept on disk: an index of tens of millions of torrents.
//!
//! `format` and `prefixes` say what an index holds and are pure. `write` and `index` write and read
//! the file; `walk`, `parallel` and `build` make one from a tree of torrents, and
//! `verify` with `hash` compares content with it. `watch` tells what changes on disk.
//! `served` is what the loop asks: but for it and [`index::Index::find`] everything may wait for a disk.

mod compare;
mod hash;
pub mod index;
pub mod listing;
pub mod live;
pub mod refresh;
pub mod report;
pub mod scan;
pub mod served;
pub mod verify;
mod view;
pub mod watch;
