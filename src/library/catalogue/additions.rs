//! The torrents of a snapshot as changes for the loop, with each list of announce URLs read once.

use std::collections::HashMap;
use std::sync::Arc;

use super::overlay::{Added, Change, Snapshot};
use crate::library::index::format::TrackerListNo;
use crate::library::index::{Entry, IndexError};

pub(super) struct Additions<'a> {
    snapshot: &'a Snapshot,
    lists: HashMap<TrackerListNo, Arc<[Vec<String>]>>,
}

impl<'a> Additions<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let lists = HashMap::new();
        Additions { snapshot, lists }
    }

    /// The torrent of an entry. `None` when it is not served, or the index is damaged.
    pub(super) fn added(&mut self, entry: Result<Entry, IndexError>) -> Option<Change> {
        let entry = entry.inspect_err(log_skipped).ok()?;
        if !entry.is_served() {
            return None;
        }
        let announce = match self.lists.get(&entry.trackers) {
            Some(known) => Arc::clone(known),
            None => {
                let list = self.snapshot.index.trackers(entry.trackers);
                let list: Arc<[Vec<String>]> = list.inspect_err(log_skipped).ok()?.into();
                self.lists.insert(entry.trackers, Arc::clone(&list));
                list
            }
        };
        Some(Change::Added(Added {
            id: self.snapshot.ids.id(entry.record)?,
            info_hash: entry.facts.info_hash,
            announce,
            metainfo: None,
        }))
    }
}

fn log_skipped(error: &IndexError) {
    log::error!("skipping a torrent of the index: {error}");
}
