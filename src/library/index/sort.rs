//! External sort of pairs: sorted runs in a scratch file, and their merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

/// Pairs in memory before they are written: 64 MiB. A library of a few million torrents never
/// touches the disk for it, and 20 million make five runs.
const PAIRS_IN_MEMORY: usize = 4 << 20;

/// Pairs of one read from a run: 64 KiB.
const PAIRS_IN_READ: usize = 4 << 10;

/// Units: bytes of a pair in the scratch file.
const PAIR_BYTES: usize = 12;

/// A key and a number.
pub(super) type Pair = (u64, u32);

/// Takes pairs in any order.
pub(super) struct Sorter {
    scratch: File,
    pairs: Vec<Pair>,
    capacity: usize,
    /// Where each run ends in the scratch file, counted in pairs.
    ends: Vec<u64>,
}

impl Sorter {
    /// Sorts with this empty file for pairs that exceed memory.
    pub(super) fn new(scratch: File) -> Self {
        Self::with_capacity(scratch, PAIRS_IN_MEMORY)
    }

    fn with_capacity(scratch: File, capacity: usize) -> Self {
        Sorter {
            scratch,
            pairs: Vec::new(),
            capacity,
            ends: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, pair: Pair) -> io::Result<()> {
        self.pairs.push(pair);
        if self.pairs.len() < self.capacity {
            return Ok(());
        }
        self.pairs.sort_unstable();
        let mut out = BufWriter::new(&self.scratch);
        for (key, number) in &self.pairs {
            out.write_all(&key.to_le_bytes())?;
            out.write_all(&number.to_le_bytes())?;
        }
        out.flush()?;
        let end = self.ends.last().copied().unwrap_or(0) + self.pairs.len() as u64;
        self.ends.push(end);
        self.pairs.clear();
        Ok(())
    }

    /// All pairs in ascending order.
    pub(super) fn finish(mut self) -> io::Result<Sorted> {
        self.pairs.sort_unstable();
        // The pairs in memory are a run like the others.
        self.pairs.reverse();
        let mut runs = vec![Run {
            next: 0,
            end: 0,
            descending: self.pairs,
        }];
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        runs.extend(starts.zip(&self.ends).map(|(next, &end)| Run {
            next,
            end,
            descending: Vec::new(),
        }));
        let mut sorted = Sorted {
            scratch: self.scratch,
            runs,
            heap: BinaryHeap::new(),
        };
        for run in 0..sorted.runs.len() {
            sorted.refill(run)?;
        }
        Ok(sorted)
    }
}

struct Run {
    /// The next pair to be read and where the run ends, counted in pairs.
    next: u64,
    end: u64,
    /// The pairs that were read, the least last.
    descending: Vec<Pair>,
}

/// Returns the pairs in ascending order.
pub(super) struct Sorted {
    scratch: File,
    runs: Vec<Run>,
    /// The least pair of each run that has any left, with the index of the run.
    heap: BinaryHeap<Reverse<(Pair, usize)>>,
}

impl Sorted {
    /// Removes the least pair.
    pub(super) fn pop(&mut self) -> io::Result<Option<Pair>> {
        let Some(Reverse((pair, run))) = self.heap.pop() else {
            return Ok(None);
        };
        self.refill(run)?;
        Ok(Some(pair))
    }

    fn refill(&mut self, index: usize) -> io::Result<()> {
        let run = self.runs.get_mut(index).expect("runs are never removed");
        if run.descending.is_empty() {
            run.read(&self.scratch)?;
        }
        if let Some(pair) = run.descending.pop() {
            self.heap.push(Reverse((pair, index)));
        }
        Ok(())
    }
}

impl Run {
    fn read(&mut self, scratch: &File) -> io::Result<()> {
        let end = self.end.min(self.next + PAIRS_IN_READ as u64);
        let count = usize::try_from(end - self.next).expect("a read is small");
        let mut raw = vec![0; count * PAIR_BYTES];
        scratch.read_exact_at(&mut raw, self.next * PAIR_BYTES as u64)?;
        let (pairs, _) = raw.as_chunks::<PAIR_BYTES>();
        self.descending.extend(pairs.iter().rev().map(|pair| {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *pair;
            let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            (key, u32::from_le_bytes([i, j, k, l]))
        }));
        self.next = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(pairs: &[Pair], capacity: usize) -> Vec<Pair> {
        let mut sorter = Sorter::with_capacity(tempfile::tempfile().unwrap(), capacity);
        for pair in pairs {
            sorter.push(*pair).unwrap();
        }
        let mut sorted = sorter.finish().unwrap();
        std::iter::from_fn(|| sorted.pop().unwrap()).collect()
    }

    #[test]
    fn pairs_are_sorted_with_any_number_of_runs() {
        let mut random = fastrand::Rng::with_seed(3);
        let pairs: Vec<Pair> = (0..20_000)
            .map(|number| (random.u64(..5000), number))
            .collect();
        let mut expected = pairs.clone();
        expected.sort_unstable();
        for capacity in [1000, 6000, 20_000, 20_001] {
            assert!(sort(&pairs, capacity) == expected, "{capacity}");
        }
        assert!(sort(&[], 10).is_empty());
        assert_eq!(sort(&[(5, 1)], 1), [(5, 1)]);
    }
}
