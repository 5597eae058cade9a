//! Served torrents in the order of their info-hashes, a page at a time.

use std::path::PathBuf;

use super::overlay::{Override, Snapshot};
use crate::library::index::IndexError;
use crate::torrent::id::TorrentId;
use crate::wire::message::InfoHash;

/// Index entries read for one page, served or not. When most content is away, a short page comes soon
/// instead of a full one after millions of reads.
const ENTRIES_MAX: usize = 10_000;

/// A page to be read. [`Listing::read`] blocks.
#[derive(Debug)]
pub struct Listing {
    /// The served torrents, without `overrides`.
    pub snapshot: Snapshot,
    /// The info-hash that the page follows; `None` for the first page.
    pub after: Option<InfoHash>,
    /// At most this many torrents.
    pub limit: usize,
    /// Differences from the snapshot after `after`, in order, at most `limit`.
    pub overrides: Vec<(InfoHash, Override)>,
}

/// One page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// In the order of their info-hashes.
    pub torrents: Vec<Listed>,
    /// The info-hash that the next page follows; `None` after the last page.
    pub next: Option<InfoHash>,
}

/// A torrent in a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The info-hash.
    pub info_hash: InfoHash,
    /// See [`crate::torrent::catalogue::Torrent::id`].
    pub id: TorrentId,
    /// Its metainfo file.
    pub metainfo: PathBuf,
}

impl Listing {
    /// Reads the page. It may have fewer torrents than `limit`; only `next` says whether it is the
    /// last.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn read(&self) -> Result<Page, IndexError> {
        let Self {
            snapshot, limit, ..
        } = self;
        // Behind this, more may differ from the index than is known here.
        let last = self.overrides.last().map(|one| one.0);
        let mut next = last.filter(|_| self.overrides.len() >= *limit);
        let mut torrents = Vec::new();
        for (read, entry) in snapshot.index.following(self.after.as_ref()).enumerate() {
            let entry = entry?;
            let info_hash = entry.facts.info_hash;
            if next.is_some_and(|next| info_hash > next) {
                break;
            }
            let overrides = self.overrides.binary_search_by_key(&info_hash, |one| one.0);
            if let Some(id) = snapshot.ids.id(entry.record)
                && entry.is_served()
                && overrides.is_err()
            {
                torrents.push(Listed {
                    info_hash,
                    id,
                    metainfo: entry.path.to_path_buf(),
                });
            }
            if torrents.len() >= *limit || read >= ENTRIES_MAX {
                next = Some(info_hash);
                break;
            }
        }
        for (info_hash, overrides) in &self.overrides {
            if let Override::Served(id, metainfo) = overrides
                && next.is_none_or(|next| *info_hash <= next)
            {
                torrents.push(Listed {
                    info_hash: *info_hash,
                    id: *id,
                    metainfo: metainfo.to_path_buf(),
                });
            }
        }
        torrents.sort_unstable_by_key(|listed| listed.info_hash);
        if torrents.len() > *limit {
            torrents.truncate(*limit);
            next = torrents.last().map(|last| last.info_hash);
        }
        Ok(Page { torrents, next })
    }
}
