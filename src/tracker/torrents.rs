//! What is announced of each torrent, found by its number.
//!
//! Owns forty bytes for each torrent, in pages that are freed when their torrents are gone: numbers
//! only grow, so that a library that changes for years leaves no more behind than empty pages.

use crate::wire::message::InfoHash;

/// Torrents in one page.
const PAGE: usize = 64;

/// One torrent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) uploaded: u64,
    pub(super) info_hash: InfoHash,
    /// Its list of trackers.
    pub(super) set: u32,
    /// The first of its entries: there is one for each tracker of the list.
    pub(super) first: u32,
    /// How many of them are still needed.
    pub(super) live: u16,
    pub(super) has_peers: bool,
    pub(super) ending: Ending,
}

/// Whether a torrent is served no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// It is served.
    No,
    /// It is not, and its trackers are being told.
    Told,
    /// Another one has taken its info-hash, so nobody is told that it has gone.
    Replaced,
}

const _: () = assert!(size_of::<Record>() == 40, "there may be tens of millions");

#[derive(Debug)]
struct Page {
    used: usize,
    records: Vec<Option<Record>>,
}

/// Every torrent that is announced.
#[derive(Debug, Default)]
pub(super) struct Torrents {
    pages: Vec<Option<Page>>,
    count: usize,
}

impl Torrents {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn find(&self, torrent: u32) -> Option<&Record> {
        let (page, slot) = place(torrent);
        self.pages.get(page)?.as_ref()?.records.get(slot)?.as_ref()
    }

    pub(super) fn find_mut(&mut self, torrent: u32) -> Option<&mut Record> {
        let (page, slot) = place(torrent);
        let page = self.pages.get_mut(page)?.as_mut()?;
        page.records.get_mut(slot)?.as_mut()
    }

    /// There is none with this number.
    pub(super) fn insert(&mut self, torrent: u32, record: Record) {
        let (page, slot) = place(torrent);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let Some(page) = self.pages.get_mut(page) else {
            return;
        };
        let page = page.get_or_insert_with(|| Page {
            used: 0,
            records: vec![None; PAGE],
        });
        if let Some(place) = page.records.get_mut(slot)
            && place.replace(record).is_none()
        {
            page.used += 1;
            self.count += 1;
        }
    }

    pub(super) fn remove(&mut self, torrent: u32) -> Option<Record> {
        let (page, slot) = place(torrent);
        let place = self.pages.get_mut(page)?;
        let page = place.as_mut()?;
        let record = page.records.get_mut(slot)?.take()?;
        page.used -= 1;
        self.count -= 1;
        if page.used == 0 {
            *place = None;
        }
        Some(record)
    }
}

fn place(torrent: u32) -> (usize, usize) {
    let torrent = torrent as usize;
    (torrent / PAGE, torrent % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(set: u32) -> Record {
        Record {
            uploaded: 0,
            info_hash: InfoHash([1; 20]),
            set,
            first: 0,
            live: 0,
            has_peers: false,
            ending: Ending::No,
        }
    }

    #[test]
    fn records_are_found_by_number_and_pages_are_freed() {
        let mut torrents = Torrents::default();
        for torrent in [0, 1, 1000] {
            torrents.insert(torrent, record(torrent));
        }
        assert_eq!(torrents.len(), 3);
        assert_eq!(torrents.find(1000).map(|record| record.set), Some(1000));
        assert!(torrents.find(2).is_none() && torrents.find(100_000).is_none());
        torrents.find_mut(1).unwrap().uploaded = 7;
        assert_eq!(torrents.remove(1).map(|record| record.uploaded), Some(7));
        assert!(torrents.remove(1).is_none());
        assert!(torrents.pages[0].is_some());
        torrents.remove(0);
        assert!(torrents.pages[0].is_none());
        assert_eq!(torrents.len(), 1);
    }
}
