//! A walk over metainfo files beside an earlier index: each file with its entry there.
//!
//! Both have the same order, so one pass over both is enough.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use super::walk::{Batch, Step};
use crate::library::index::{Entries, Entry, Index, MetainfoPath};
use crate::torrent::catalogue::Refusal;

/// Entries that are handed on together where they are kept as they are.
const BATCH_KEPT: usize = 64;

/// One item of the walk.
pub(in crate::library) enum Work {
    /// Files of a directory, each with its entry in the index.
    Inspect(Batch, Vec<Option<Entry>>),
    /// Entries below a directory that is away.
    Withdraw(Vec<Entry>),
    /// Entries below a directory that hangs.
    Keep(Vec<Entry>),
    Refused(Refusal),
}

/// A walk, and the entries of an index beside it, which come in the same order.
pub(in crate::library) struct MergeWalk<'a, W> {
    steps: W,
    entries: Option<Peekable<Entries<'a>>>,
    /// Metainfo files that were seen to go; ascending.
    gone: &'a [MetainfoPath],
    /// The directory whose entries are being kept, and whether it hangs.
    kept: Option<(PathBuf, bool)>,
}

impl<'a, W: Iterator<Item = Step>> MergeWalk<'a, W> {
    /// `gone` ascends.
    pub(in crate::library) fn new(
        steps: W,
        index: Option<&'a Index>,
        gone: &'a [MetainfoPath],
    ) -> Self {
        MergeWalk {
            steps,
            gone,
            entries: index.map(|index| index.entries().peekable()),
            kept: None,
        }
    }

    /// The next entry, if it is the one that is searched for. Entries before that one are dropped. From
    /// a damaged entry on, the index is not used.
    fn advance(&mut self, order: impl Fn(&MetainfoPath) -> Ordering) -> Option<Entry> {
        let entries = self.entries.as_mut()?;
        loop {
            let Ok(entry) = entries.peek()? else {
                self.entries = None;
                return None;
            };
            match order(&entry.path) {
                Ordering::Less => drop(entries.next()),
                Ordering::Equal => return entries.next()?.ok(),
                Ordering::Greater => return None,
            }
        }
    }

    /// Some of the entries at or below this path.
    fn keep(&mut self, start: &Path) -> Vec<Entry> {
        let order = |path: &MetainfoPath| match path.directory.starts_with(start) {
            true => Ordering::Equal,
            false if path.to_path_buf() == start => Ordering::Equal,
            false => path.directory.as_path().cmp(start),
        };
        let mut kept = Vec::new();
        while kept.len() < BATCH_KEPT
            && let Some(entry) = self.advance(order)
        {
            if self.gone.binary_search(&entry.path).is_err() {
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
            if let Some((start, hangs)) = self.kept.take() {
                let kept = self.keep(&start);
                if !kept.is_empty() {
                    self.kept = Some((start, hangs));
                    return Some(match hangs {
                        true => Work::Keep(kept),
                        false => Work::Withdraw(kept),
                    });
                }
            }
            match self.steps.next()? {
                Step::Refused(refusal) => return Some(Work::Refused(refusal)),
                Step::Away(start) => self.kept = Some((start, false)),
                Step::Hung(start) => self.kept = Some((start, true)),
                Step::Batch(batch) => {
                    let known = batch.names.iter().map(|name| {
                        self.advance(|path| {
                            (&path.directory, &path.name).cmp(&(&batch.directory, name))
                        })
                    });
                    let known = known.collect();
                    return Some(Work::Inspect(batch, known));
                }
            }
        }
    }
}
