//! The id of a torrent within the process.

use std::fmt;

/// The id of a torrent that is or was served. A torrent that changes on disk gets another id. A free
/// id is used again only after all 2³² were used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct TorrentId(pub u32);

impl TorrentId {
    /// The next id; the last one is followed by the first.
    #[must_use]
    pub fn following(self) -> Self {
        TorrentId(self.0.wrapping_add(1))
    }
}

impl fmt::Display for TorrentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
