//! Torrents: what a metainfo file says, where its bytes lie, and why one is not served.
//!
//! `metainfo` with `info`, `bencode`, `layout` and `printable` are pure. `content`, `reader`
//! and `load` look at the file system.

pub mod bencode;
pub mod catalogue;
pub mod content;
pub mod id;
mod info;
pub mod layout;
pub mod load;
pub mod metainfo;
pub mod printable;
pub mod reader;
pub(crate) mod refusal;
