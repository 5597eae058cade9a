//! Verification: content compared with the piece hashes of its metainfo files.
//!
//! - `run`: all torrents, divided among the cores.
//! - `hash`: a run of pieces of one torrent, by one thread.
//! - `report`: findings as lines for a person or as JSON.

mod hash;
pub mod report;
mod run;

pub use run::*;
