//! A walk over metainfo files beside an earlier index: each file with what the index knows of it.
//!
//! Both have the same order, so one pass over both is enough.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use crate::library::index::{Entries, Entry, Index};
use crate::library::scan::walk::{Batch, Step};
use crate::torrent::catalogue::Refusal;

/// Entries that are handed on together where they are kept as they are.
const BATCH_KEPT: usize = 64;

/// What is to be examined.
pub(in crate::library) enum Work {
    /// Files of a directory, each with what the index had of it.
    Look(Batch, Vec<Option<Entry>>),
    /// What is kept as it was, absolute.
    Keep(Vec<(PathBuf, Entry)>),
    Refused(Refusal),
}

/// A walk, and the entries of an index beside it, which come in the same order.
pub(in crate::library) struct MergeWalk<'a, W> {
    steps: W,
    index: Option<&'a Index>,
    entries: Option<Peekable<Entries<'a>>>,
    /// Metainfo files that were seen to go.
    gone: &'a [PathBuf],
    /// The directory that is being kept.
    away: Option<PathBuf>,
}

impl<'a, W: Iterator<Item = Step>> MergeWalk<'a, W> {
    /// `gone` ascends.
    pub(in crate::library) fn new(steps: W, index: Option<&'a Index>, gone: &'a [PathBuf]) -> Self {
        MergeWalk {
            steps,
            index,
            gone,
            entries: index.map(|index| index.entries().peekable()),
            away: None,
        }
    }

    /// The next entry, when it is wanted; those before it are of no use. An index that is damaged
    /// helps no further.
    fn advance(&mut self, judge: impl Fn(&Path, &OsStr) -> Ordering) -> Option<(PathBuf, Entry)> {
        let (index, entries) = (self.index?, self.entries.as_mut()?);
        loop {
            let Ok(entry) = entries.peek()? else {
                self.entries = None;
                return None;
            };
            let directory = index.origin().root.join(&entry.directory);
            match judge(&directory, &entry.name) {
                Ordering::Less => drop(entries.next()),
                Ordering::Equal => return Some((directory, entries.next()?.ok()?)),
                Ordering::Greater => return None,
            }
        }
    }

    fn keep(&mut self, start: &Path) -> Vec<(PathBuf, Entry)> {
        let mut kept = Vec::new();
        while kept.len() < BATCH_KEPT
            && let Some(entry) = self.advance(|directory, name| {
                if directory.starts_with(start) || directory.join(name) == start {
                    Ordering::Equal
                } else {
                    directory.cmp(start)
                }
            })
        {
            let (directory, known) = &entry;
            if self
                .gone
                .binary_search(&directory.join(&known.name))
                .is_err()
            {
                kept.push(entry);
            }
        }
        kept
    }
}

impl<W: Iterator<Item = Step>> Iterator for MergeWalk<'_, W> {
    type Item = Work;

    fn next(&mut self) -> Option<Work> {
        loop {
            if let Some(start) = self.away.take() {
                let kept = self.keep(&start);
                if !kept.is_empty() {
                    self.away = Some(start);
                    return Some(Work::Keep(kept));
                }
            }
            match self.steps.next()? {
                Step::Refused(refusal) => return Some(Work::Refused(refusal)),
                Step::Away(start) => self.away = Some(start),
                Step::Batch(batch) => {
                    let mut known = Vec::with_capacity(batch.names.len());
                    for wanted in &batch.names {
                        let found = self.advance(|directory, name| {
                            (directory, name).cmp(&(batch.directory.as_path(), wanted))
                        });
                        known.push(found.map(|(_, entry)| entry));
                    }
                    return Some(Work::Look(batch, known));
                }
            }
        }
    }
}
