//! What a new index changes, compared with what is served.
//!
//! Owns which torrents keep their numbers. It must not know why there is a new index. Both are read
//! from their beginning to their end, which takes its time.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use std::sync::Arc;

use super::contents::{Key, Removed, Seen, There, View, is_served};
use super::lookup::Base;
use crate::library::index::format::State;
use crate::library::index::id_map::Numbers;
use crate::library::index::{Counts, Entries, Entry, Index, IndexError};
use crate::torrent::id::TorrentId;
use crate::wire::message::InfoHash;

/// What a new index changes.
pub(super) struct Difference {
    pub(super) base: Base,
    /// What was seen while it was made, which it may have missed.
    pub(super) over: BTreeMap<Key, Seen>,
    pub(super) counts: Counts,
    pub(super) next_number: TorrentId,
    pub(super) removed: Vec<Removed>,
    /// Records of torrents that were not served before.
    pub(super) added: Vec<u32>,
}

/// Compares. What was seen before refresh `epoch` was begun is in the new index; what was seen since
/// holds on.
///
/// What cannot be read of what was there before is unknown: it is removed, and what the new index has
/// of it is added.
///
/// # Errors
/// An [`IndexError`] when the new one is damaged or cannot be read.
pub(super) fn compare(
    view: &View,
    index: Arc<Index>,
    epoch: u32,
) -> Result<Difference, IndexError> {
    let is_newer = |(_, seen): &(&Key, &Seen)| seen.epoch >= epoch;
    let newer = view.over.iter().filter(is_newer);
    let over = newer.map(|(key, seen)| (key.clone(), seen.clone()));
    let over: BTreeMap<Key, Seen> = over.collect();
    let served = over.values().filter_map(|seen| seen.there.as_ref());
    let served = served.filter(|there| there.id.is_some());
    let mut comparison = Comparison {
        view,
        index: &index,
        epoch,
        served_over: served.map(|there| there.facts.info_hash).collect(),
        over,
        counts: index.counts(),
        numbers: Numbers::default(),
        next_number: view.next_number,
        removed: Vec::new(),
        added: Vec::new(),
    };
    let mut old = Old::new(view);
    let mut new = Keyed::of(&index).peekable();
    let mut next = old.next();
    loop {
        // What cannot be read comes first, and ends it.
        let order = match (&next, new.peek()) {
            (None, None) => break,
            (Some((one, _)), Some(Ok((other, _)))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) | (_, Some(Err(_))) => Ordering::Greater,
        };
        let was = match order.is_le() {
            true => std::mem::replace(&mut next, old.next()),
            false => None,
        };
        let is = if order.is_ge() { new.next() } else { None }.transpose()?;
        comparison.judge(was, is)?;
    }
    drop(new);
    comparison.lose(&old.lost);
    let Comparison {
        over,
        counts,
        numbers,
        next_number,
        removed,
        added,
        ..
    } = comparison;
    let numbering = Arc::new(numbers.finish());
    Ok(Difference {
        base: Base { index, numbering },
        over,
        counts,
        next_number,
        removed,
        added,
    })
}

struct Comparison<'a> {
    view: &'a View,
    index: &'a Index,
    epoch: u32,
    /// What is served from the paths in `over`, whatever the index says.
    served_over: HashSet<InfoHash>,
    over: BTreeMap<Key, Seen>,
    counts: Counts,
    numbers: Numbers,
    next_number: TorrentId,
    removed: Vec<Removed>,
    added: Vec<u32>,
}

impl Comparison<'_> {
    /// Takes what was known of a path and what the new index has of it.
    fn judge(
        &mut self,
        was: Option<(Key, Option<There>)>,
        is: Option<(Key, Entry)>,
    ) -> Result<(), IndexError> {
        let key = (was.as_ref().map(|(key, _)| key)).or(is.as_ref().map(|(key, _)| key));
        let seen = key.and_then(|key| self.over.get(key));
        if let Some(seen) = seen {
            // It is as it was seen, and the number of the record, if there is one, is not used.
            let id = seen.there.as_ref().map(|there| there.id);
            if let Some((_, entry)) = is {
                *tally(&mut self.counts, is_served(&entry)) -= 1;
                self.fresh();
            }
            if let Some(id) = id {
                *tally(&mut self.counts, id.is_some()) += 1;
            }
            return Ok(());
        }
        let was = was.and_then(|(_, there)| there);
        let Some((key, entry)) = is else {
            self.remove(was.as_ref(), false);
            return Ok(());
        };
        let served = is_served(&entry);
        if served && self.served_over.contains(&entry.facts.info_hash) {
            // It came elsewhere meanwhile, where it is served already.
            self.remove(was.as_ref(), false);
            self.see(key, &entry, None);
            self.fresh();
            return Ok(());
        }
        if let Some(was) = was.as_ref().filter(|was| is_same(was, &entry))
            && let Some(id) = was.id
            && self.is_left_to_serve(&entry)?
        {
            self.see(key, &entry, Some(id));
            self.numbers.push(id);
            return Ok(());
        }
        let kept = was.as_ref().filter(|was| served && is_same(was, &entry));
        if let Some(id) = kept.and_then(|was| was.id) {
            self.numbers.push(id);
            return Ok(());
        }
        self.remove(was.as_ref(), entry.facts.state == State::Withdrawn);
        if served {
            self.added.push(entry.number);
        }
        match was.and_then(|was| was.reserved) {
            // Nobody was told of it yet.
            Some(id) => self.numbers.push(id),
            None => self.fresh(),
        }
        Ok(())
    }

    /// Whether a torrent that stands back in the index is not served from where the index says,
    /// since something else was seen there.
    fn is_left_to_serve(&self, entry: &Entry) -> Result<bool, IndexError> {
        if entry.facts.state != State::Served || self.served_over.contains(&entry.facts.info_hash) {
            return Ok(false);
        }
        match self.index.first_of(entry.number) {
            Some(first) => {
                let first = key(self.index, &self.index.record(first)?);
                Ok(self.over.contains_key(&first))
            }
            None => Ok(false),
        }
    }

    /// Lays over the index that a torrent is, or is not, served from one of its files.
    fn see(&mut self, key: Key, entry: &Entry, id: Option<TorrentId>) {
        *tally(&mut self.counts, is_served(entry)) -= 1;
        *tally(&mut self.counts, id.is_some()) += 1;
        if id.is_some() {
            self.served_over.insert(entry.facts.info_hash);
        }
        let there = There {
            facts: entry.facts,
            id,
            reserved: None,
        };
        let (there, epoch) = (Some(there), self.epoch);
        self.over.insert(key, Seen { there, epoch });
    }

    /// Removes torrents of which nothing but the number of their record is known.
    fn lose(&mut self, records: &[u32]) {
        let base = &self.view.base;
        for &record in records {
            let found = base.index.info_hashes(&[record]).unwrap_or_default();
            let info_hash = found.first().copied().flatten();
            if let Some(id) = base.numbering.number(record) {
                self.removed.push(Removed {
                    id,
                    info_hash: info_hash.unwrap_or(InfoHash([0; 20])),
                    of_content: false,
                });
            }
        }
    }

    fn remove(&mut self, was: Option<&There>, of_content: bool) {
        if let Some(was) = was
            && let Some(id) = was.id
        {
            self.removed.push(Removed {
                id,
                info_hash: was.facts.info_hash,
                of_content,
            });
        }
    }

    /// Gives the next record a number that nothing has.
    fn fresh(&mut self) {
        let number = self.view.unused(self.next_number);
        self.numbers.push(number);
        self.next_number = TorrentId(number.0.wrapping_add(1));
    }
}

fn tally(counts: &mut Counts, served: bool) -> &mut u64 {
    match served {
        true => &mut counts.served,
        false => &mut counts.refused,
    }
}

/// Whether a torrent may be served on by the same number.
fn is_same(was: &There, entry: &Entry) -> bool {
    was.facts.info_hash == entry.facts.info_hash && was.facts.stamp == entry.facts.stamp
}

fn key(index: &Index, entry: &Entry) -> Key {
    Key {
        directory: index.origin().root.join(&entry.directory),
        name: entry.name.clone(),
    }
}

/// What is known of each path, in their order.
struct Old<'a> {
    view: &'a View,
    base: Keyed<'a>,
    /// The next of the index.
    entry: Option<(Key, Entry)>,
    over: Peekable<btree_map::Iter<'a, Key, Seen>>,
    /// Records that cannot be read.
    lost: Vec<u32>,
}

impl<'a> Old<'a> {
    fn new(view: &'a View) -> Self {
        let mut old = Old {
            view,
            base: Keyed::of(&view.base.index),
            entry: None,
            over: view.over.iter().peekable(),
            lost: Vec::new(),
        };
        old.entry = old.readable();
        old
    }

    /// The next entry of the index that can be read.
    fn readable(&mut self) -> Option<(Key, Entry)> {
        for record in self.base.entries.upcoming()..u32::MAX {
            match self.base.next()? {
                Ok(entry) => return Some(entry),
                Err(error) => {
                    if self.lost.is_empty() {
                        log::warn!("{error}; this part of the index is ignored");
                    }
                    self.lost.push(record);
                }
            }
        }
        None
    }
}

impl Iterator for Old<'_> {
    type Item = (Key, Option<There>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (&self.entry, self.over.peek()) {
            (None, None) => return None,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let base = match order.is_le() {
            true => {
                let entry = self.readable();
                std::mem::replace(&mut self.entry, entry)
            }
            false => None,
        };
        if order.is_ge() {
            let (key, seen) = self.over.next()?;
            return Some((key.clone(), seen.there.clone()));
        }
        base.map(|(key, entry)| (key, Some(self.view.there(&entry))))
    }
}

/// The entries of an index with their paths.
struct Keyed<'a> {
    index: &'a Index,
    entries: Entries<'a>,
}

impl<'a> Keyed<'a> {
    fn of(index: &'a Index) -> Self {
        let entries = index.entries();
        Keyed { index, entries }
    }
}

impl Iterator for Keyed<'_> {
    type Item = Result<(Key, Entry), IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(entry.map(|entry| (key(self.index, &entry), entry)))
    }
}
