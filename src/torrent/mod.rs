//! Torrents: what a metainfo file says, where its bytes lie, and which torrents are served.
//!
//! `metainfo` with `info`, `bencode`, `layout` and `printable` are pure. `content` and `scan` look
//! at the file system; of these only `content` is used while peers are served, to open a file.

pub mod bencode;
pub mod catalogue;
pub mod content;
mod info;
pub mod layout;
pub mod metainfo;
pub mod printable;
mod scan;
