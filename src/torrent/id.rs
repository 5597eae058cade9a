//! The id of a torrent within the process.

use std::fmt;

/// The id of a torrent that is or was served. A torrent that changes on disk gets another id. A free
/// id is used again only after all below [`FIRST_ALIAS`] were used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct TorrentId(pub u32);

/// Ids from this one on are second ids of torrents, see [`crate::tracker::announcer::Announcer::relist`].
pub const FIRST_ALIAS: TorrentId = TorrentId(u32::MAX << 24);

impl TorrentId {
    /// The next id; the last one is followed by the first.
    #[must_use]
    pub fn following(self) -> Self {
        match TorrentId(self.0.saturating_add(1)) {
            id if id < FIRST_ALIAS => id,
            _ => TorrentId(0),
        }
    }

    /// The next second id; the last one is followed by the first.
    #[must_use]
    pub fn following_alias(self) -> Self {
        TorrentId(self.0.checked_add(1).unwrap_or(FIRST_ALIAS.0))
    }
}

impl fmt::Display for TorrentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
