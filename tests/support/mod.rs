//! What the integration tests share.
//!
//! Owns nothing but the list of its parts. A test takes the parts that it needs.

#![allow(dead_code, reason = "each test uses some parts of its own choice")]

pub(crate) mod torrent;
