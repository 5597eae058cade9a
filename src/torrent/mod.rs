//! Torrents: what a metainfo file says, where its bytes lie, and which torrents are served.
//!
//! `metainfo`, `bencode` and `layout` are pure. `content` and `catalogue` look at the file system
//! while the library is read; none of them is used to look while peers are served.

pub mod bencode;
pub mod catalogue;
pub mod content;
pub mod layout;
pub mod metainfo;
