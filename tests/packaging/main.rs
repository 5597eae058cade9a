//! What is installed, as an administrator meets it: the package, the init.d script, the unit, the
//! static file, the dashboard.
//!
//! All but the dashboard is tried in a copy of the system that is thrown away, see `place`.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod booted;
mod dashboard;
mod image;
mod init;
mod machine;
mod package;
#[path = "../support/mod.rs"]
mod support;
mod unit;
