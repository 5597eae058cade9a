//! Torrents: parsing metainfo files, mapping bytes to files, and the reasons for refusals.
//!
//! `metainfo`, `layout`, `id` and `printable` are pure. `content`, `reader` and `catalogue` read the
//! file system.

pub mod catalogue;
mod cleaning;
pub mod content;
pub mod content_directories;
pub mod id;
pub mod layout;
pub mod metainfo;
pub mod names;
pub mod printable;
pub mod reader;
pub(crate) mod refusal;
