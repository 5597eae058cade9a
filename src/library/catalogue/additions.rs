//! The torrents of an index as the loop is told of them.
//!
//! Owns reading each list of announce URLs once. It must not know who is told.

use std::collections::HashMap;
use std::sync::Arc;

use super::contents::{Added, Change};
use crate::library::catalogue::contents::is_served;
use crate::library::catalogue::lookup::Base;
use crate::library::index::{Entry, IndexError};

/// The torrents of an index as they are told, with each list of announce URLs read once.
pub(super) struct Teller<'a> {
    base: &'a Base,
    lists: HashMap<u32, Arc<[Vec<String>]>>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(base: &'a Base) -> Self {
        let lists = HashMap::new();
        Teller { base, lists }
    }

    /// `None` when it is not served, or the index is damaged there.
    pub(super) fn added(&mut self, entry: Result<Entry, IndexError>) -> Option<Change> {
        let entry = entry.inspect_err(pass_over).ok()?;
        if !is_served(&entry) {
            return None;
        }
        let announce = match self.lists.get(&entry.trackers) {
            Some(known) => Arc::clone(known),
            None => {
                let list = self.base.index.trackers(entry.trackers);
                let list = list.inspect_err(pass_over).ok()?;
                let list: Arc<[Vec<String>]> = list.into();
                self.lists.insert(entry.trackers, Arc::clone(&list));
                list
            }
        };
        Some(Change::Added(Added {
            id: self.base.numbering.number(entry.number)?,
            info_hash: entry.facts.info_hash,
            announce,
            metainfo: None,
        }))
    }
}

/// The rest of the library is told nevertheless.
fn pass_over(error: &IndexError) {
    log::error!("skipping a torrent of the index: {error}");
}
