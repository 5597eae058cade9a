//! Applying changes of the library, in one place.
//!
//! Owns what a torrent that comes or goes means for peers, mappings, announces and figures. It must
//! not know how changes are found.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Reactor, RunError};
use crate::library::catalogue::live::{Change, NewSnapshot, Removed, Update};
use crate::library::catalogue::lookup::Library;
use crate::library::index::Counts;
use crate::metrics::LibrarySize;
use crate::peer::close::CloseReason;
use crate::torrent::id::TorrentId;
use crate::workers;

impl Reactor {
    /// Takes up one update, so that peers do not wait for many.
    pub(super) fn update(&mut self) -> Result<(), RunError> {
        let update = match &self.live {
            Some(live) if self.stop_until.is_none() => live.update(),
            _ => None,
        };
        self.updates_wait = update.is_some();
        match update {
            None => {}
            Some(Update::Failed(message)) => return Err(RunError::Library(message)),
            Some(Update::Snapshot(new)) => self.apply_snapshot(new)?,
            Some(Update::Changes {
                changes,
                in_snapshot,
                counts,
            }) => {
                self.count(counts);
                self.apply_changes(changes, in_snapshot);
            }
        }
        Ok(())
    }

    /// Serves another index, and listens when it is the first.
    fn apply_snapshot(&mut self, new: NewSnapshot) -> Result<(), RunError> {
        let NewSnapshot {
            snapshot,
            content,
            overrides,
            counts,
        } = new;
        if self.listeners.is_empty() {
            self.shared.announcing.add_index(&snapshot);
            let mut library = Library::default();
            drop(library.replace(snapshot, content, overrides));
            return self.open(library, counts);
        }
        self.shared.announcing.replace_index(snapshot.clone());
        let old = self.shared.library.replace(snapshot, content, overrides);
        self.shared.loads.outdate_all();
        self.count(counts);
        // Millions of torrents take their time to be forgotten. Without a thread, the loop takes it.
        if let Err(error) = workers::spawn("drop", move || drop(old)) {
            log::warn!("the loop dropped an index itself: {error}");
        }
        Ok(())
    }

    fn apply_changes(&mut self, changes: Vec<Change>, in_snapshot: bool) {
        let now = self.shared.now;
        let mut removed: Vec<Removed> = Vec::new();
        for change in changes {
            let library = &mut self.shared.library;
            match change {
                Change::Removed(one) => {
                    if !in_snapshot {
                        library.remove(one.info_hash);
                    }
                    library.forget(&one.info_hash, one.id);
                    self.shared.loads.outdate(&one.info_hash);
                    self.shared.announcing.remove(one.id, one.info_hash, now);
                    removed.push(one);
                }
                Change::Added(one) => {
                    let metainfo = one.metainfo.as_ref().filter(|_| !in_snapshot);
                    library.add(one.info_hash, one.id, metainfo.map(Arc::clone));
                    self.shared.loads.outdate(&one.info_hash);
                    self.shared.announcing.add(&one, now);
                }
            }
        }
        if !removed.is_empty() {
            self.close_those_of(&removed);
            let numbers = removed.iter().map(|removed| removed.id);
            self.shared.storage.forget(&numbers.collect());
        }
    }

    /// Closes the peers of torrents that are gone.
    fn close_those_of(&mut self, removed: &[Removed]) {
        let activity = &self.shared.activity;
        let active = removed
            .iter()
            .filter(|removed| activity.find(removed.id).is_some());
        // By number: each of thousands of connections is inspection up in it.
        let reasons: HashMap<TorrentId, CloseReason> = active
            .map(|removed| match removed.of_content {
                true => (removed.id, CloseReason::ContentFailed),
                false => (removed.id, CloseReason::TorrentRemoved),
            })
            .collect();
        if reasons.is_empty() {
            return;
        }
        for key in self.connections.keys() {
            self.connections
                .visit(key, &mut self.shared, |connection, _| {
                    let torrent = connection.torrent.as_ref();
                    match torrent.and_then(|torrent| reasons.get(&torrent.id)) {
                        Some(reason) => Err(*reason),
                        None => Ok(()),
                    }
                });
        }
    }

    /// Takes up how much there is.
    pub(super) fn count(&mut self, counts: Counts) {
        self.library = LibrarySize {
            torrents: counts.served,
            refused: counts.refused,
        };
    }
}
