//! The map between torrent ids and the records of an index.
//!
//! Records are in the order of their paths, so one that comes or goes shifts all after it. The map is
//! therefore made of runs in which record numbers and ids count up together: at most two more for each
//! change of the library since the start, however many torrents it has.

use crate::library::index::format::RecordNo;
use crate::torrent::id::TorrentId;

/// Consecutive records with consecutive ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    first_record: RecordNo,
    /// The id of the first record.
    first_id: TorrentId,
    /// The number of records; never zero.
    count: u32,
}

/// A map between records and ids.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct IdMap {
    /// From record 0 without gaps.
    runs: Vec<Run>,
    /// Indexes into `runs`, in the order of ids.
    by_id: Vec<u32>,
}

impl IdMap {
    /// A map of `records` records; the id of each is its number.
    #[must_use]
    pub fn identity(records: u32) -> Self {
        let run = Run {
            first_record: RecordNo(0),
            first_id: TorrentId(0),
            count: records,
        };
        Self::of_runs((records > 0).then_some(run).into_iter().collect())
    }

    fn of_runs(runs: Vec<Run>) -> Self {
        let mut by_id: Vec<(TorrentId, u32)> = (0..)
            .zip(&runs)
            .map(|(index, run)| (run.first_id, index))
            .collect();
        by_id.sort_unstable();
        IdMap {
            by_id: by_id.into_iter().map(|(_, index)| index).collect(),
            runs,
        }
    }

    /// The least id above all in the map.
    #[must_use]
    pub fn end(&self) -> TorrentId {
        let last = self.by_id.last().map(|index| self.run(*index));
        TorrentId(last.map_or(0, |run| run.first_id.0.saturating_add(run.count)))
    }

    /// The id of a record; `None` when there is no such record.
    #[must_use]
    pub fn id(&self, record: RecordNo) -> Option<TorrentId> {
        let after = self.runs.partition_point(|run| run.first_record <= record);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let within = record.0 - run.first_record.0;
        (within < run.count).then(|| TorrentId(run.first_id.0 + within))
    }

    /// The record of an id; `None` when it has none.
    #[must_use]
    pub fn record(&self, id: TorrentId) -> Option<RecordNo> {
        let starts_before = |index: &u32| self.run(*index).first_id <= id;
        let after = self.by_id.partition_point(starts_before);
        let run = self.run(*self.by_id.get(after.checked_sub(1)?)?);
        let within = id.0 - run.first_id.0;
        (within < run.count).then(|| RecordNo(run.first_record.0 + within))
    }

    fn run(&self, index: u32) -> Run {
        *(self.runs.get(index as usize)).expect("`by_id` has the indexes of `runs`")
    }
}

/// Makes an [`IdMap`], record by record. No id may come twice.
#[derive(Default, Debug)]
pub struct IdMapBuilder(Vec<Run>);

impl IdMapBuilder {
    /// The id of the next record.
    pub fn push(&mut self, id: TorrentId) {
        let first_record = match self.0.last_mut() {
            Some(run) if run.first_id.0.checked_add(run.count) == Some(id.0) => {
                run.count += 1;
                return;
            }
            Some(run) => RecordNo(run.first_record.0 + run.count),
            None => RecordNo(0),
        };
        self.0.push(Run {
            first_record,
            first_id: id,
            count: 1,
        });
    }

    /// The map of all that was pushed.
    #[must_use]
    pub fn finish(self) -> IdMap {
        IdMap::of_runs(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(numbers: &[TorrentId]) -> IdMap {
        let mut made = IdMapBuilder::default();
        numbers.iter().for_each(|number| made.push(*number));
        made.finish()
    }

    /// Every record and every number against the plain list.
    fn check(numbers: &[u32]) -> IdMap {
        let numbers: Vec<TorrentId> = numbers.iter().copied().map(TorrentId).collect();
        let numbers = numbers.as_slice();
        let map = map(numbers);
        for (record, number) in (0..).zip(numbers) {
            assert_eq!(map.id(RecordNo(record)), Some(*number));
            assert_eq!(map.record(*number), Some(RecordNo(record)));
        }
        let records = u32::try_from(numbers.len()).unwrap();
        for beyond in [records, records + 1, u32::MAX] {
            assert_eq!(map.id(RecordNo(beyond)), None);
        }
        let end = TorrentId(numbers.iter().max().map_or(0, |most| most.0 + 1));
        assert_eq!(map.end(), end);
        for number in (0..end.0 + 3).chain([u32::MAX]).map(TorrentId) {
            assert_eq!(
                map.record(number).is_some(),
                numbers.contains(&number),
                "{number}"
            );
        }
        map
    }

    #[test]
    fn at_the_start_each_record_has_its_number_as_id() {
        assert_eq!(check(&[0, 1, 2, 3]), IdMap::identity(4));
        assert_eq!(check(&[]), IdMap::identity(0));
        let all = IdMap::identity(20_000_000);
        assert_eq!(all.runs.len(), 1);
        assert_eq!(
            all.record(TorrentId(19_999_999)),
            Some(RecordNo(19_999_999))
        );
        assert_eq!(all.record(TorrentId(20_000_000)), None);
    }

    #[test]
    fn records_that_come_and_go_shift_the_rest() {
        // The second is gone, two have come in front and one behind.
        let map = check(&[5, 6, 0, 2, 3, 4, 7]);
        assert_eq!(map.runs.len(), 4);
    }

    #[test]
    fn any_order_of_ids_is_mapped_both_ways() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..200 {
            let mut numbers: Vec<u32> = (0..60).filter(|_| random.u8(..3) > 0).collect();
            for _ in 0..random.usize(..20) {
                let (one, other) = (random.usize(..numbers.len()), random.usize(..numbers.len()));
                numbers.swap(one, other);
            }
            check(&numbers);
        }
    }

    #[test]
    fn ids_have_32_bits() {
        let map = map(&[TorrentId(u32::MAX - 1), TorrentId(u32::MAX), TorrentId(0)]);
        assert_eq!(map.record(TorrentId(u32::MAX)), Some(RecordNo(1)));
        assert_eq!(map.record(TorrentId(0)), Some(RecordNo(2)));
        assert_eq!(map.id(RecordNo(1)), Some(TorrentId(u32::MAX)));
        assert_eq!(map.end(), TorrentId(u32::MAX));
    }
}
