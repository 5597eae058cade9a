//! The catalogue: which torrents are served, while directories change.
//!
//! The served torrents are a snapshot (an index and the ids of its records) with an overlay of later
//! changes. A refresh makes a new index in the background; a merge then replaces the snapshot
//! and drops what it contains from the overlay.
//!
//! - `live`: the thread `hekate-library`, as the loop sees it; `messages`: what goes between them.
//! - `worker`: that thread: it opens the library, examines changes and refreshes.
//! - `retries`: when the files of a torrent that could not be loaded are examined again.
//! - `overlay`: the types: snapshot, overlay entry, tombstone, change.
//! - `contents`: the snapshot with its overlay, and the changes by examining a path. In it, `affected`:
//!   which files a change affects.
//! - `merge`: the changes by a new index.
//! - `source`: the settings. `refresh`, `index_cache`: where indexes are kept; making them.
//! - `lookup`: what the loop asks: an info-hash is unknown, loaded or to be loaded.
//! - `listing`: the served torrents, page by page.

mod contents;
mod index_cache;
pub mod listing;
pub mod live;
pub mod lookup;
mod merge;
mod messages;
pub mod overlay;
pub mod refresh;
mod retries;
pub mod source;
mod worker;
