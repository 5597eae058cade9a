//! Reading an index for whoever announces or lists it: every torrent once, info-hashes by the batch,
//! and the torrents in the order of their info-hashes.
//!
//! Owns the order of reads, which is that of the file. It must not know who is told.

use std::fs::File;

use super::{Entries, Entry, Index, IndexError, READ_BYTES};
use crate::library::format::{self, POSITION_BYTES, Part, RECORD_BYTES, Record, State};
use crate::library::window::Window;
use crate::wire::message::InfoHash;

/// Records that are skipped rather than read as well, when the next one wanted is behind them: a
/// page holds as many, and a read of two pages costs hardly more than that of one.
const GAP: u32 = 80;

/// Records in one read at most: 256 KiB.
const RUN: u32 = 5000;

/// A torrent of an index that is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    /// The number of its record.
    pub record: u32,
    /// Which.
    pub info_hash: InfoHash,
    /// For [`Index::trackers`].
    pub trackers: u32,
}

impl Index {
    /// Every torrent whose content was right when it was looked at, once, in the order of records.
    pub fn served(&self) -> impl Iterator<Item = Result<Served, IndexError>> + '_ {
        let mut records = self.window(Part::Records, READ_BYTES);
        let mut duplicates = self.duplicates.iter().map(|(number, _)| *number).peekable();
        let count = u32::try_from(self.records()).unwrap_or(u32::MAX);
        (0..count).filter_map(move |number| {
            let mut is_duplicate = false;
            while duplicates.next_if(|next| *next <= number).is_some() {
                is_duplicate = true;
            }
            if is_duplicate {
                return None;
            }
            let width = RECORD_BYTES as u64;
            match records.at(u64::from(number) * width, width) {
                Ok(raw) => {
                    let record = Record::decode(raw.try_into().unwrap_or(&[0; RECORD_BYTES]));
                    (record.state == State::Served).then_some(Ok(Served {
                        record: number,
                        info_hash: record.info_hash,
                        trackers: record.trackers,
                    }))
                }
                Err(error) => Some(Err(self.failed(Part::Records, error))),
            }
        })
    }

    /// The torrents behind an info-hash in the order of info-hashes, whatever their state.
    pub fn following(
        &self,
        after: Option<&InfoHash>,
    ) -> impl Iterator<Item = Result<Entry, IndexError>> {
        let after = after.copied();
        let mut place = after.map_or(0, |after| self.prefixes.first(format::prefix(&after)));
        // Those that begin alike, which have no order among each other, the last first.
        let mut alike: Vec<Entry> = Vec::new();
        std::iter::from_fn(move || {
            while alike.is_empty() {
                let places = self.prefixes.alike(place);
                if places.is_empty() {
                    return None;
                }
                place = places.end;
                for place in places {
                    match self.entry_at(place) {
                        Ok(entry) => alike.push(entry),
                        Err(error) => return Some(Err(error)),
                    }
                }
                alike.retain(|entry| after.is_none_or(|after| entry.info_hash > after));
                alike.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.info_hash));
            }
            alike.pop().map(Ok)
        })
    }

    /// The torrent at a place in the order of prefixes.
    fn entry_at(&self, place: usize) -> Result<Entry, IndexError> {
        let raw = self.fixed::<POSITION_BYTES>(Part::Positions, place as u64)?;
        self.record(u32::from_le_bytes(raw))
    }

    /// Records with the info-hash of this one, which is served in place of them.
    pub fn duplicates_of(&self, record: u32) -> impl Iterator<Item = u32> {
        let first = self.in_place_of.partition_point(|pair| pair.0 < record);
        let behind = self.in_place_of.get(first..).unwrap_or_default();
        let of = behind.iter().take_while(move |pair| pair.0 == record);
        of.map(|pair| pair.1)
    }

    /// The open file, to be locked.
    pub(in crate::library) fn file(&self) -> &File {
        &self.file
    }

    /// The record that is served in place of this one, if another is.
    pub fn first_of(&self, record: u32) -> Option<u32> {
        let found = self.duplicates.binary_search_by_key(&record, |pair| pair.0);
        Some(self.duplicates.get(found.ok()?)?.1)
    }

    /// The info-hashes of records, which must ascend, in few reads. `None` for a record that there is
    /// not.
    ///
    /// # Errors
    /// An [`IndexError`] when the index is damaged or cannot be read.
    pub fn info_hashes(&self, records: &[u32]) -> Result<Vec<Option<InfoHash>>, IndexError> {
        let section = self.section(Part::Records);
        let mut info_hashes = Vec::with_capacity(records.len());
        let mut rest = records;
        while let Some(&first) = rest.first() {
            let in_a_run = |pair: &&[u32]| match pair {
                [one, other] => {
                    other.saturating_sub(*one) <= GAP && other.saturating_sub(first) < RUN
                }
                _ => false,
            };
            let count = 1 + rest.windows(2).take_while(in_a_run).count();
            let (run, behind) = rest.split_at(count);
            rest = behind;
            let known = run.partition_point(|record| u64::from(*record) < self.records());
            let (run, beyond) = run.split_at(known);
            let last = run.last().copied().unwrap_or(first);
            let width = RECORD_BYTES as u64;
            let ahead_bytes = (last.saturating_sub(first) as usize + 1) * RECORD_BYTES;
            let mut window = Window::new(&self.file, section, ahead_bytes);
            for record in run {
                let raw = window.at(u64::from(*record) * width, width);
                let raw = raw.map_err(|error| self.failed(Part::Records, error))?;
                let info_hash = raw.first_chunk().copied().map(InfoHash);
                info_hashes.push(info_hash);
            }
            info_hashes.extend(beyond.iter().map(|_| None));
        }
        Ok(info_hashes)
    }
}

impl Entries<'_> {
    /// The number of the next record.
    pub(in crate::library) fn upcoming(&self) -> u32 {
        self.next
    }
}
