//! What the integration tests share.
//!
//! Owns nothing but the list of its parts. A test takes the parts that it needs.

#![allow(dead_code, reason = "each test uses some parts of its own choice")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

pub(crate) mod daemon;
pub(crate) mod leecher;
pub(crate) mod strace;
pub(crate) mod torrent;
