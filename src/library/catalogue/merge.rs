//! Merging a new index into the catalogue: what changes by it, and which torrents keep their ids.
//!
//! The old contents and the new index are read side by side, from their beginning to their end.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use std::sync::Arc;

use super::contents::Contents;
use super::overlay::{FileState, Key, Merged, OverlayEntry, Removed, Snapshot, is_served};
use crate::library::index::format::RecordNo;
use crate::library::index::format::State;
use crate::library::index::id_map::IdMapBuilder;
use crate::library::index::{Counts, Entries, Entry, Index, IndexError};
use crate::torrent::id::TorrentId;
use crate::wire::message::InfoHash;

/// What merging changes of what is served.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) removed: Vec<Removed>,
    /// Records of torrents that were not served before.
    pub(super) added: Vec<RecordNo>,
}

/// Merges a new index into the contents. The index contains what was examined before refresh `epoch`
/// began; what was examined since stays over it.
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
    let overlay: BTreeMap<Key, OverlayEntry> = newer
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
    let mut old_files = OldFiles::new(contents);
    let mut new_entries = KeyedEntries::of(&index).peekable();
    let mut next_old = old_files.next();
    loop {
        // An error of the new index comes first and ends the merge.
        let order = match (&next_old, new_entries.peek()) {
            (None, None) => break,
            (Some((old, _)), Some(Ok((new, _)))) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) | (_, Some(Err(_))) => Ordering::Greater,
        };
        let old = match order.is_le() {
            true => std::mem::replace(&mut next_old, old_files.next()),
            false => None,
        };
        let new = match order.is_ge() {
            true => new_entries.next().transpose()?,
            false => None,
        };
        merging.merge_one(old, new)?;
    }
    drop(new_entries);
    merging.drop_unreadable(&old_files.unreadable);
    let Merging {
        overlay,
        counts,
        ids,
        next_id,
        difference,
        ..
    } = merging;
    let ids = Arc::new(ids.finish());
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
    overlay: BTreeMap<Key, OverlayEntry>,
    counts: Counts,
    ids: IdMapBuilder,
    next_id: TorrentId,
    difference: Difference,
}

impl Merging<'_> {
    /// Merges the old state and the new entry of one path. Each entry gets an id.
    fn merge_one(
        &mut self,
        old: Option<(Key, Option<FileState>)>,
        new: Option<(Key, Entry)>,
    ) -> Result<(), IndexError> {
        let key = (old.as_ref().map(|(key, _)| key)).or(new.as_ref().map(|(key, _)| key));
        if let Some(entry) = key.and_then(|key| self.overlay.get(key)) {
            // The overlay is in force. The id of the record, if there is one, is not used.
            let file = entry.file.as_ref().map(|file| file.id);
            if let Some((_, entry)) = new {
                *tally(&mut self.counts, is_served(&entry)) -= 1;
                self.push_new_id();
            }
            if let Some(id) = file {
                *tally(&mut self.counts, id.is_some()) += 1;
            }
            return Ok(());
        }
        let old = old.and_then(|(_, file)| file);
        let Some((key, entry)) = new else {
            self.remove(old.as_ref(), false);
            return Ok(());
        };
        let served = is_served(&entry);
        if served && self.served_by_overlay.contains(&entry.facts.info_hash) {
            // It came at another path meanwhile, which serves it.
            self.remove(old.as_ref(), false);
            self.lay_over(key, &entry, None);
            self.push_new_id();
            return Ok(());
        }
        if let Some(old) = old.as_ref().filter(|old| is_same(old, &entry))
            && let Some(id) = old.id
            && self.is_left_to_serve(&entry)?
        {
            self.lay_over(key, &entry, Some(id));
            self.ids.push(id);
            return Ok(());
        }
        let kept = old.as_ref().filter(|old| served && is_same(old, &entry));
        if let Some(id) = kept.and_then(|old| old.id) {
            self.ids.push(id);
            return Ok(());
        }
        self.remove(old.as_ref(), entry.facts.state == State::Withdrawn);
        if served {
            self.difference.added.push(entry.record);
        }
        match old.and_then(|old| old.reserved) {
            // The loop has not heard of this id.
            Some(id) => self.ids.push(id),
            None => self.push_new_id(),
        }
        Ok(())
    }

    /// Whether no file serves the torrent of this duplicate: the overlay hides the one that does so
    /// in the index.
    fn is_left_to_serve(&self, entry: &Entry) -> Result<bool, IndexError> {
        if entry.facts.state != State::Served
            || self.served_by_overlay.contains(&entry.facts.info_hash)
        {
            return Ok(false);
        }
        match self.index.first_of(entry.record) {
            Some(first) => {
                let first = Key::of(self.index, &self.index.record(first)?);
                Ok(self.overlay.contains_key(&first))
            }
            None => Ok(false),
        }
    }

    /// Makes the overlay say whether a torrent is served from this file, against the index.
    fn lay_over(&mut self, key: Key, entry: &Entry, id: Option<TorrentId>) {
        *tally(&mut self.counts, is_served(entry)) -= 1;
        *tally(&mut self.counts, id.is_some()) += 1;
        if id.is_some() {
            self.served_by_overlay.insert(entry.facts.info_hash);
        }
        let file = Some(FileState {
            facts: entry.facts,
            id,
            reserved: None,
        });
        let epoch = self.epoch;
        self.overlay.insert(key, OverlayEntry { file, epoch });
    }

    /// Removes the torrents of records that cannot be read.
    fn drop_unreadable(&mut self, records: &[RecordNo]) {
        let snapshot = self.contents.snapshot();
        for &record in records {
            let found = snapshot.index.info_hashes(&[record]).unwrap_or_default();
            let info_hash = found.first().copied().flatten();
            if let Some(id) = snapshot.ids.id(record) {
                self.difference.removed.push(Removed {
                    id,
                    info_hash: info_hash.unwrap_or(InfoHash([0; 20])),
                    of_content: false,
                });
            }
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

fn tally(counts: &mut Counts, served: bool) -> &mut u64 {
    match served {
        true => &mut counts.served,
        false => &mut counts.refused,
    }
}

/// Whether a torrent keeps its id.
fn is_same(old: &FileState, new: &Entry) -> bool {
    old.facts.info_hash == new.facts.info_hash && old.facts.stamp == new.facts.stamp
}

/// The old state of each path, in the order of paths.
struct OldFiles<'a> {
    contents: &'a Contents,
    snapshot: KeyedEntries<'a>,
    /// The next of the snapshot.
    entry: Option<(Key, Entry)>,
    overlay: Peekable<btree_map::Iter<'a, Key, OverlayEntry>>,
    /// Records of the snapshot that cannot be read.
    unreadable: Vec<RecordNo>,
}

impl<'a> OldFiles<'a> {
    fn new(contents: &'a Contents) -> Self {
        let mut old = OldFiles {
            contents,
            snapshot: KeyedEntries::of(&contents.snapshot().index),
            entry: None,
            overlay: contents.overlay().iter().peekable(),
            unreadable: Vec::new(),
        };
        old.entry = old.next_readable();
        old
    }

    /// The next entry of the snapshot that can be read.
    fn next_readable(&mut self) -> Option<(Key, Entry)> {
        loop {
            let record = self.snapshot.entries.upcoming();
            match self.snapshot.next()? {
                Ok(entry) => return Some(entry),
                Err(error) => {
                    if self.unreadable.is_empty() {
                        log::warn!("{error}; this part of the index is ignored");
                    }
                    self.unreadable.push(record);
                }
            }
        }
    }
}

impl Iterator for OldFiles<'_> {
    type Item = (Key, Option<FileState>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (&self.entry, self.overlay.peek()) {
            (None, None) => return None,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let entry = match order.is_le() {
            true => {
                let next = self.next_readable();
                std::mem::replace(&mut self.entry, next)
            }
            false => None,
        };
        if order.is_ge() {
            let (key, over) = self.overlay.next()?;
            return Some((key.clone(), over.file.clone()));
        }
        entry.map(|(key, entry)| (key, Some(self.contents.file_state(&entry))))
    }
}

/// The entries of an index with their keys.
struct KeyedEntries<'a> {
    index: &'a Index,
    entries: Entries<'a>,
}

impl<'a> KeyedEntries<'a> {
    fn of(index: &'a Index) -> Self {
        let entries = index.entries();
        KeyedEntries { index, entries }
    }
}

impl Iterator for KeyedEntries<'_> {
    type Item = Result<(Key, Entry), IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(entry.map(|entry| (Key::of(self.index, &entry), entry)))
    }
}
