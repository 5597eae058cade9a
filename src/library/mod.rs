//! The library as it is kept on disk: an index of tens of millions of torrents.
//!
//! `format` and `prefixes` say what an index holds and are pure. `write` and `index` write and read
//! the file; `walk`, `parallel` and `build` make one from a tree of torrents, and
//! `verify` with `hash` compares content with it. `watch` tells what changes on disk.
//! `served` is what the loop asks: but for it and [`index::Index::find`] everything may wait for a disk.

pub mod build;
mod compare;
pub mod count;
mod hash;
pub mod index;
mod known;
pub mod listing;
pub mod live;
mod look;
pub mod parallel;
pub mod refresh;
pub mod report;
pub mod served;
pub mod verify;
mod view;
mod walk;
pub mod watch;
