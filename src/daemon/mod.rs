//! What makes a program a daemon: how it is started, what it gives up, whom it tells.
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
