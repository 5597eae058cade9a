//! The catalogue: which torrents are served, while directories change.
//!
//! What is served is a snapshot (an index and the ids of its records) with an overlay of what has
//! changed since. A refresh makes a new index in the background; a merge then replaces the snapshot
//! and drops what it contains from the overlay.
//!
//! - `live`: the thread `hekate-library`, as the loop sees it.
//! - `worker`: what that thread does: it opens the library, examines changes and refreshes.
//! - `watching`, `retries`: when paths are examined again.
//! - `contents`: the snapshot with its overlay, and what examining a path changes.
//! - `affected`, `duplicates`: which files a change affects; which of several equal ones is served.
//! - `merge`: what a new index changes. `additions`: its torrents as updates for the loop.
//! - `refresh`, `index_cache`: where indexes are kept; making one.
//! - `lookup`: what the loop asks: an info-hash is unknown, loaded or to be loaded.
//! - `listing`: what is served, page by page.

mod additions;
mod contents;
mod index_cache;
pub mod listing;
pub mod live;
pub mod lookup;
mod merge;
pub mod refresh;
mod retries;
mod watching;
mod worker;
