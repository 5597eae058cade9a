//! Announcing a library to its trackers.
//!
//! Formats, schedule, health and redirects are pure. Sockets are driven by the loop's one `mio::Poll`,
//! through a range of tokens.

pub mod access;
pub mod announce;
pub mod announcer;
mod connection;
mod datagrams;
pub mod entries;
pub mod family;
pub mod http;
pub mod lists;
pub mod peers;
mod pipelining;
mod queue;
mod redirects;
mod request;
mod resolver;
pub mod response;
mod route;
pub mod runs;
pub mod schedule;
pub mod shard;
mod target;
mod tls;
mod torrents;
pub mod udp;
pub mod url;
mod window;
