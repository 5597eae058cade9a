//! The updates from the library's thread to the loop: a bounded channel, and the loop's waker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

use thiserror::Error;

use super::overlay::{Change, Override, Snapshot};
use crate::library::index::Counts;
use crate::wire::message::InfoHash;

/// Changes in one update: the loop applies them in a fraction of a millisecond.
const CHANGES_IN_UPDATE: usize = 256;

/// Updates that wait for the loop. The library's thread waits for room.
pub(super) const UPDATES_WAITING: usize = 4;

/// An update for the loop.
#[derive(Debug)]
pub enum Update {
    /// A snapshot replaces the one before, if there was one.
    Snapshot(NewSnapshot),
    /// Torrents have come and gone.
    Changes {
        /// In this order.
        changes: Vec<Change>,
        /// The snapshot contains them already.
        in_snapshot: bool,
        /// The counts after them.
        counts: Counts,
    },
    /// There is nothing to serve, which ends the run.
    Failed(String),
}

/// See [`Update::Snapshot`].
#[derive(Debug)]
pub struct NewSnapshot {
    /// The index and its ids.
    pub snapshot: Snapshot,
    /// Where all content lies, unless the index says.
    pub content: Option<PathBuf>,
    /// Differences from the snapshot.
    pub overrides: BTreeMap<InfoHash, Override>,
    /// Its counts, with the overrides.
    pub counts: Counts,
}

/// The loop has ended.
#[derive(Debug, Error)]
#[error("the loop has ended")]
pub(super) struct Ended;

/// The sending end.
pub(super) struct Outbox {
    /// `None` only while this is dropped.
    updates: Option<SyncSender<Update>>,
    wake: Box<dyn Fn() + Send>,
}

impl Outbox {
    /// `wake` is called after each update, and when the thread ends.
    pub(super) fn new(updates: SyncSender<Update>, wake: impl Fn() + Send + 'static) -> Self {
        Outbox {
            updates: Some(updates),
            wake: Box::new(wake),
        }
    }

    pub(super) fn send(&self, update: Update) -> Result<(), Ended> {
        let updates = self.updates.as_ref().ok_or(Ended)?;
        updates.send(update).map_err(|_| Ended)?;
        (self.wake)();
        Ok(())
    }

    pub(super) fn send_changes(
        &self,
        changes: impl IntoIterator<Item = Change>,
        in_snapshot: bool,
        counts: Counts,
    ) -> Result<(), Ended> {
        let mut changes = changes.into_iter();
        loop {
            let changes: Vec<Change> = changes.by_ref().take(CHANGES_IN_UPDATE).collect();
            if changes.is_empty() {
                return Ok(());
            }
            self.send(Update::Changes {
                changes,
                in_snapshot,
                counts,
            })?;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // The loop has to find the channel closed when it wakes.
        self.updates = None;
        (self.wake)();
    }
}
