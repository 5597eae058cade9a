//! Watching the library's directories for changes.
//!
//! The kernel's events become [`Changes`]: paths that the catalogue examines again.
//!
//! - `watcher`: the inotify instance and the one call that blocks. It decides when to recrawl after
//!   events were lost.
//! - `follow`: what each event does to the watches, as directories come, go and move.
//! - `tree`: the watched directories by name.
//! - `pending`: changed paths until nothing has changed for the settle period.
//! - `resolve`: how a root's path leads there, symlink by symlink, when parts of it are missing.
//! - `presence`: directories of which only presence, emptiness and mounts matter.
//!
//! inotify does not report these changes, which only a rescan finds: those by another machine to a network
//! file system; the target of a symlink that comes or changes outside the roots; a file that is
//! written in place under another of its hard links; and a metainfo file that is changed through a
//! mapping or by truncate(2) without being opened.

mod follow;
mod pending;
mod presence;
mod resolve;
mod tree;
mod watcher;

pub use pending::Changes;
pub use watcher::{Waker, Watcher};
