//! What is announced of each torrent, by its id.
//!
//! A torrent of an index has a record only while it is being announced, has peers, or is being removed.
//! Maps are trees, since a hash table that grows is copied whole.

use std::collections::BTreeMap;

use super::entries::{EntryId, Owner};
use super::lists::{ListId, TrackerLists};
use super::runs::{Leftover, Runs};
use crate::torrent::id::TorrentId;
use crate::wire::message::InfoHash;

/// Whether an info-hash has been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hash {
    /// No.
    Unread,
    /// It is being read.
    Asked,
    /// It could not be read.
    Unreadable,
    /// Yes.
    Known(InfoHash),
}

/// One torrent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) hash: Hash,
    /// Its list of trackers.
    pub(super) list: ListId,
    /// The first of its entries: there is one for each tracker of the list.
    pub(super) first: EntryId,
    /// Entries at trackers that do not have to be sent `stopped` no longer count.
    pub(super) live: u16,
    pub(super) ending: Ending,
    /// Whether it is one of an index.
    pub(super) indexed: bool,
}

/// Whether a torrent is served no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// It is served.
    No,
    /// It was removed, and its trackers are sent `stopped`.
    Removed,
    /// Another torrent has its info-hash, so that common trackers are not sent `stopped`.
    Replaced,
}

/// Every torrent that is announced.
#[derive(Debug, Default)]
pub(super) struct Torrents {
    pub(super) lists: TrackerLists,
    pub(super) runs: Runs,
    records: BTreeMap<TorrentId, Record>,
    /// Uploaded bytes, where there are any.
    uploaded: BTreeMap<TorrentId, u64>,
    /// Torrents that have peers, known here or not.
    pub(super) with_peers: BTreeMap<TorrentId, InfoHash>,
    singles: usize,
}

impl Torrents {
    pub(super) fn len(&self) -> usize {
        self.singles + self.runs.len()
    }

    /// How many records there are.
    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        self.records.len()
    }

    pub(super) fn find(&self, torrent: TorrentId) -> Option<Record> {
        match self.records.get(&torrent) {
            Some(record) => Some(*record),
            None => self.quiet(torrent),
        }
    }

    /// A torrent of an index of which there is no record.
    fn quiet(&self, torrent: TorrentId) -> Option<Record> {
        let (list, first) = self.runs.find(torrent, &self.lists)?;
        Some(Record {
            hash: Hash::Unread,
            list,
            first,
            live: self.live(list),
            ending: Ending::No,
            indexed: true,
        })
    }

    /// The record of a torrent, which is made when there is none.
    pub(super) fn find_mut(&mut self, torrent: TorrentId) -> Option<&mut Record> {
        if !self.records.contains_key(&torrent) {
            let quiet = self.quiet(torrent)?;
            self.records.insert(torrent, quiet);
        }
        self.records.get_mut(&torrent)
    }

    /// The record of a torrent, if there is one.
    pub(super) fn record_mut(&mut self, torrent: TorrentId) -> Option<&mut Record> {
        self.records.get_mut(&torrent)
    }

    /// Adds a torrent, whose id is not announced and whose list is held.
    pub(super) fn insert(
        &mut self,
        torrent: TorrentId,
        info_hash: InfoHash,
        list: ListId,
        first: EntryId,
    ) {
        self.singles += 1;
        let record = Record {
            hash: Hash::Known(info_hash),
            list,
            first,
            live: self.live(list),
            ending: Ending::No,
            indexed: false,
        };
        self.records.insert(torrent, record);
    }

    /// The entries of a torrent at first: one for each tracker.
    fn live(&self, list: ListId) -> u16 {
        let count = self.lists.count(list);
        u16::try_from(count).expect("a list has at most MAX_TRACKERS")
    }

    /// Adds a run that there is not yet, and holds its lists.
    pub(super) fn insert_run(&mut self, run: &[(TorrentId, ListId)], first: EntryId) {
        for list in self.runs.insert(run, first) {
            self.lists.hold(*list);
        }
    }

    /// The torrent that an entry belongs to.
    pub(super) fn torrent(&self, owner: Owner, entry: EntryId) -> TorrentId {
        match owner {
            Owner::Torrent(torrent) => torrent,
            Owner::Run(run) => self.runs.torrent(run, entry, &self.lists),
        }
    }

    /// Bytes of a torrent that were uploaded.
    pub(super) fn uploaded(&self, torrent: TorrentId) -> u64 {
        self.uploaded.get(&torrent).copied().unwrap_or(0)
    }

    /// Bytes of a torrent were uploaded.
    pub(super) fn add_uploaded(&mut self, torrent: TorrentId, bytes: u64) {
        let uploaded = self.uploaded.entry(torrent).or_default();
        *uploaded = uploaded.saturating_add(bytes);
    }

    /// Forgets the record of a torrent of an index that is like all others again.
    pub(super) fn drop_quiet(&mut self, torrent: TorrentId) {
        let record = self.records.get(&torrent);
        if record.is_some_and(|record| record.indexed && record.ending == Ending::No)
            && !self.with_peers.contains_key(&torrent)
        {
            self.records.remove(&torrent);
        }
    }

    /// Forgets a torrent that has a record, and releases what it held. Returns the first of the entries
    /// that nobody has any more, and how many they are.
    pub(super) fn remove(&mut self, torrent: TorrentId) -> Option<(EntryId, u32)> {
        let record = self.records.remove(&torrent)?;
        self.uploaded.remove(&torrent);
        let leftover = if record.indexed {
            self.runs.remove(torrent, &self.lists)?
        } else {
            self.singles -= 1;
            Leftover {
                first: record.first,
                length: self.lists.count(record.list),
                lists: vec![record.list],
            }
        };
        for list in leftover.lists {
            self.lists.release(list);
        }
        Some((leftover.first, leftover.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::access::Access;
    use std::sync::Arc;

    #[test]
    fn a_record_of_an_index_comes_and_goes_and_what_was_uploaded_stays() {
        let mut torrents = Torrents::default();
        let list = Arc::from([vec!["udp://a:1".to_owned()]]);
        let list = torrents
            .lists
            .intern(&list, &Access::default(), &mut Vec::new());
        let run = [64, 65, 66].map(|id| (TorrentId(id), list));
        torrents.insert_run(&run, EntryId(32));
        assert_eq!((torrents.len(), torrents.records.len()), (3, 0));
        let found = torrents.find(TorrentId(65)).unwrap();
        assert_eq!((found.first, found.hash), (EntryId(33), Hash::Unread));
        assert!(torrents.find(TorrentId(67)).is_none() && torrents.find(TorrentId(1)).is_none());

        torrents.find_mut(TorrentId(65)).unwrap();
        torrents.add_uploaded(TorrentId(65), 7);
        torrents.with_peers.insert(TorrentId(65), InfoHash([7; 20]));
        torrents.drop_quiet(TorrentId(65));
        assert_eq!(torrents.records.len(), 1);
        torrents.with_peers.clear();
        torrents.drop_quiet(TorrentId(65));
        assert_eq!(torrents.records.len(), 0);
        torrents.add_uploaded(TorrentId(65), 1);
        assert_eq!(torrents.uploaded(TorrentId(65)), 8);

        for torrent in 64..67 {
            torrents.find_mut(TorrentId(torrent)).unwrap();
            let leftover = torrents.remove(TorrentId(torrent));
            assert_eq!(leftover.is_some(), torrent == 66);
        }
        assert_eq!((torrents.len(), torrents.uploaded.len()), (0, 0));
        assert!(torrents.find(TorrentId(65)).is_none());
    }
}
