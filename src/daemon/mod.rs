//! How the daemon starts, which privileges it drops, and what it reports to a service manager.
//!
//! Owns the steps of a start that have nothing to do with torrents, each in a file of its own; `main`
//! has their order. It must not know the loop.

pub mod activation;
pub mod background;
pub mod identity;
pub mod notify;
pub mod pid_file;
pub mod rights;
pub mod sandbox;
pub mod sizing;
pub mod socket;
