//! How the daemon starts, which privileges it drops, and what it reports to a service manager.
//!
//! Each step of a start has a file of its own; `main` has their order.

pub mod activation;
pub mod background;
pub mod identity;
pub mod notify;
pub mod pid_file;
pub mod rights;
pub mod sandbox;
pub mod sizing;
pub mod socket;
