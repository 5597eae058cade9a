//! What the status listener says: HTTP, JSON, a page, and a text for the terminal.
//!
//! `http` reads requests and frames answers, `report` writes them; both are pure.
//! `server` owns the sockets, `client` asks a running daemon.

pub mod client;
pub mod http;
pub mod report;
pub mod server;
#[cfg(test)]
mod tests;

/// The page at `/`: it has no dependency and asks this listener alone.
pub const PAGE: &str = include_str!("status/page.html");

/// Its looks.
pub const STYLE: &str = include_str!("status/page.css");

/// Its figures.
pub const SCRIPT: &str = include_str!("status/page.js");
