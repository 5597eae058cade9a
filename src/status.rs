//! The status listener: HTTP, JSON, a page, and a text for the terminal.
//!
//! `http` reads requests and frames responses, `report` writes their bodies; both are pure. `server` owns
//! the sockets.

pub mod http;
pub mod report;
pub mod server;
#[cfg(test)]
mod tests;

/// The page at `/`. It has no dependencies and sends requests to this listener only.
pub const PAGE: &str = include_str!("status/page.html");

/// The style of the page.
pub const STYLE: &str = include_str!("status/page.css");

/// The script of the page.
pub const SCRIPT: &str = include_str!("status/page.js");
