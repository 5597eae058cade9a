//! Torrents: what a metainfo file says, where its bytes lie, and why one is not served.
//!
//! `metainfo`, `layout`, `id` and `printable` are pure. `content`, `reader` and `load` look at the
//! file system.

pub mod catalogue;
pub mod content;
pub mod id;
pub mod layout;
pub mod load;
pub mod metainfo;
pub mod printable;
pub mod reader;
pub(crate) mod refusal;
