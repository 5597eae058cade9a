//! Announcing a library to its trackers.
//!
//! Owns everything between a torrent's list of trackers and the answers of those trackers. Formats
//! and schedule are pure; sockets are driven by the loop's one `mio::Poll`, through a range of
//! tokens. It must not know peers: which torrents have some is told to it as a value.

pub mod announce;
pub mod announcer;
pub mod callees;
mod connection;
mod datagrams;
pub mod entries;
pub mod family;
pub mod http;
pub mod lists;
pub mod peers;
mod queue;
mod redirects;
mod resolver;
pub mod response;
mod route;
pub mod runs;
pub mod schedule;
pub mod shard;
mod target;
mod torrents;
pub mod udp;
pub mod url;
mod window;
