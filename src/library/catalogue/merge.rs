//! Merging a new index into the catalogue: which torrents come, go, or keep their ids.
//!
//! The old contents and the new index are read side by side, from their beginning to their end.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::iter;
use std::sync::Arc;

use super::contents::Contents;
use super::overlay::{FileState, Merged, OverlayEntry, Removed, Snapshot};
use crate::library::index::format::{RecordNo, State};
use crate::library::index::id_map::IdMapBuilder;
use crate::library::index::{Counts, Entry, Index, IndexError, MetainfoPath};
use crate::torrent::id::TorrentId;
use crate::wire::message::InfoHash;

/// How a merge changes the served torrents.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) removed: Vec<Removed>,
    /// Records of torrents that were not served before.
    pub(super) added: Vec<RecordNo>,
}

/// Merges a new index into the contents. The index contains all changes before refresh `epoch`
/// began; paths that were examined since stay in the overlay.
///
/// Where the old index cannot be read, its torrents are removed, and those of the new index added.
///
/// # Errors
/// An [`IndexError`] when the new index is damaged or cannot be read.
pub(super) fn merge(
    contents: &Contents,
    index: Arc<Index>,
    epoch: u32,
) -> Result<(Merged, Difference), IndexError> {
    let newer = contents.overlay().iter();
    let newer = newer.filter(|(_, entry)| entry.epoch >= epoch);
    let overlay: BTreeMap<MetainfoPath, OverlayEntry> = newer
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect();
    let files = overlay.values().filter_map(|entry| entry.file.as_ref());
    let served = files.filter(|file| file.id.is_some());
    let mut merging = Merging {
        contents,
        index: &index,
        epoch,
        served_by_overlay: served.map(|file| file.facts.info_hash).collect(),
        overlay,
        counts: index.counts(),
        ids: IdMapBuilder::default(),
        next_id: contents.next_id(),
        difference: Difference::default(),
    };
    let mut unreadable = Vec::new();
    let old_files = old_files(contents, &mut unreadable);
    let pairs = merge_join(old_files, index.entries(), |(old, _), new| match new {
        Ok(new) => old.cmp(&new.path),
        // An error of the new index comes first and ends the merge.
        Err(_) => Ordering::Greater,
    });
    for (old, new) in pairs {
        merging.merge_one(old, new.transpose()?)?;
    }
    merging.remove_unreadable(&unreadable);
    let (ids, difference) = (Arc::new(merging.ids.finish()), merging.difference);
    let (overlay, counts, next_id) = (merging.overlay, merging.counts, merging.next_id);
    let merged = Merged {
        snapshot: Snapshot { index, ids },
        overlay,
        counts,
        next_id,
    };
    Ok((merged, difference))
}

struct Merging<'a> {
    contents: &'a Contents,
    index: &'a Index,
    epoch: u32,
    /// Torrents that are served from paths in `overlay`, whatever the index says.
    served_by_overlay: HashSet<InfoHash>,
    overlay: BTreeMap<MetainfoPath, OverlayEntry>,
    counts: Counts,
    ids: IdMapBuilder,
    next_id: TorrentId,
    difference: Difference,
}

impl Merging<'_> {
    /// Merges the old state and the new entry of one path. Each entry gets an id.
    fn merge_one(
        &mut self,
        old: Option<(MetainfoPath, Option<FileState>)>,
        new: Option<Entry>,
    ) -> Result<(), IndexError> {
        let path = old.as_ref().map(|(path, _)| path);
        let path = path.or(new.as_ref().map(|entry| &entry.path));
        if let Some(entry) = path.and_then(|path| self.overlay.get(path)) {
            // The overlay is in force. The id of the record, if there is one, is not used.
            if let Some(file) = &entry.file {
                self.counts.add(file.facts.state, file.id.is_some());
            }
            if let Some(entry) = new {
                self.counts.remove(entry.facts.state, entry.is_served());
                self.push_new_id();
            }
            return Ok(());
        }
        let old = old.and_then(|(_, file)| file);
        let Some(entry) = new else {
            self.remove(old.as_ref(), false);
            return Ok(());
        };
        let is_served = entry.is_served();
        if is_served && self.served_by_overlay.contains(&entry.facts.info_hash) {
            // It came at another path meanwhile, which serves it.
            self.remove(old.as_ref(), false);
            self.lay_over(entry, None);
            self.push_new_id();
            return Ok(());
        }
        let unchanged = old.as_ref().filter(|old| {
            let (old, new) = (&old.facts, &entry.facts);
            old.info_hash == new.info_hash && old.stamp == new.stamp
        });
        if let Some(id) = unchanged.and_then(|old| old.id) {
            let is_left_to_serve = self.is_left_to_serve(&entry)?;
            if is_left_to_serve || is_served {
                self.ids.push(id);
                if is_left_to_serve {
                    self.lay_over(entry, Some(id));
                }
                return Ok(());
            }
        }
        self.remove(old.as_ref(), entry.facts.state == State::Withdrawn);
        if is_served {
            self.difference.added.push(entry.record);
        }
        match old.and_then(|old| old.reserved) {
            // The loop has never had this id.
            Some(id) => self.ids.push(id),
            None => self.push_new_id(),
        }
        Ok(())
    }

    /// Returns true if no file serves the torrent of this duplicate: the overlay hides the one that
    /// does so in the index.
    fn is_left_to_serve(&self, entry: &Entry) -> Result<bool, IndexError> {
        if entry.facts.state != State::Served
            || self.served_by_overlay.contains(&entry.facts.info_hash)
        {
            return Ok(false);
        }
        match self.index.first_of(entry.record) {
            Some(first) => Ok(self.overlay.contains_key(&self.index.record(first)?.path)),
            None => Ok(false),
        }
    }

    /// Makes the overlay say whether a torrent is served from this file, against the index.
    fn lay_over(&mut self, entry: Entry, id: Option<TorrentId>) {
        self.counts.remove(entry.facts.state, entry.is_served());
        self.counts.add(entry.facts.state, id.is_some());
        if id.is_some() {
            self.served_by_overlay.insert(entry.facts.info_hash);
        }
        let file = Some(FileState {
            facts: entry.facts,
            id,
            reserved: None,
        });
        let epoch = self.epoch;
        self.overlay
            .insert(entry.path, OverlayEntry { file, epoch });
    }

    /// Removes the torrents of records that cannot be read.
    fn remove_unreadable(&mut self, records: &[RecordNo]) {
        let Snapshot { index, ids } = self.contents.snapshot();
        for &record in records {
            let info_hashes = index.info_hashes(&[record]).unwrap_or_default();
            // If that cannot be read either, the id is enough for announcing.
            let info_hash = info_hashes.first().copied().flatten();
            let id = ids.id(record).expect("each record has an id");
            self.difference.removed.push(Removed {
                id,
                info_hash: info_hash.unwrap_or(InfoHash([0; 20])),
                of_content: false,
            });
        }
    }

    fn remove(&mut self, old: Option<&FileState>, of_content: bool) {
        if let Some(old) = old
            && let Some(id) = old.id
        {
            self.difference.removed.push(Removed {
                id,
                info_hash: old.facts.info_hash,
                of_content,
            });
        }
    }

    /// Gives the next record an id that is not in use.
    fn push_new_id(&mut self) {
        let id = self.contents.unused_id(self.next_id);
        self.ids.push(id);
        self.next_id = id.following();
    }
}

/// The old state of each path, in the order of paths. Records that cannot be read are added to
/// `unreadable`.
fn old_files<'a>(
    contents: &'a Contents,
    unreadable: &'a mut Vec<RecordNo>,
) -> impl Iterator<Item = (MetainfoPath, Option<FileState>)> {
    let mut entries = contents.snapshot().index.entries();
    let readable = iter::from_fn(move || {
        loop {
            let record = entries.upcoming();
            match entries.next()? {
                Ok(entry) => return Some(entry),
                Err(error) => {
                    if unreadable.is_empty() {
                        log::warn!("{error}; this part of the index is ignored");
                    }
                    unreadable.push(record);
                }
            }
        }
    });
    let order = |entry: &Entry, over: &(&MetainfoPath, _)| entry.path.cmp(over.0);
    merge_join(readable, contents.overlay(), order).map(|(entry, over)| match over {
        Some((path, over)) => (path.clone(), over.file.clone()),
        None => {
            let entry = entry.expect("a pair has an item of one side at least");
            let file = contents.file_state(&entry);
            (entry.path, Some(file))
        }
    })
}

/// Joins two ascending sequences. Items that are equal come together, each other one without a partner.
fn merge_join<A, B>(
    left: impl IntoIterator<Item = A>,
    right: impl IntoIterator<Item = B>,
    order: impl Fn(&A, &B) -> Ordering,
) -> impl Iterator<Item = (Option<A>, Option<B>)> {
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(one), Some(other)) => order(one, other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let one = left.next_if(|_| order.is_le());
        Some((one, right.next_if(|_| order.is_ge())))
    })
}
