//! The first eight bytes of all info-hashes, in memory.
//!
//! They tell whether an info-hash may be in the index, without a read. Eight bytes are enough: with 20
//! million torrents, one foreign info-hash in 10^12 passes by chance, which costs a read. To make one on
//! purpose needs the info-hash of a served torrent, and asking for that costs as much.

use std::ops::Range;

/// Numbers in ascending order.
#[derive(Clone, Default, Debug)]
pub struct Prefixes(Box<[u64]>);

impl Prefixes {
    /// Takes the numbers, which must ascend; `None` when they do not.
    #[must_use]
    pub fn new(ascending: Box<[u64]>) -> Option<Self> {
        ascending.is_sorted().then_some(Prefixes(ascending))
    }

    /// The positions of the number; empty if it is absent. More than one if info-hashes begin alike.
    #[must_use]
    pub fn find(&self, prefix: u64) -> Range<usize> {
        let first = self.first(prefix);
        let alike = self.0.iter().skip(first);
        first..first + alike.take_while(|other| **other == prefix).count()
    }

    /// The first position whose number is not less.
    #[must_use]
    pub fn first(&self, prefix: u64) -> usize {
        self.0.partition_point(|other| *other < prefix)
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks for that")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numbers: &[u64], wanted: impl IntoIterator<Item = u64>) {
        let prefixes = Prefixes::new(numbers.into()).unwrap();
        for number in wanted {
            let first = numbers.partition_point(|other| *other < number);
            let end = numbers.partition_point(|other| *other <= number);
            assert_eq!(prefixes.find(number), first..end, "{number}");
            assert_eq!(prefixes.first(number), first, "{number}");
        }
    }

    fn around(numbers: &[u64]) -> impl Iterator<Item = u64> {
        let near = |number: &u64| [number.wrapping_sub(1), *number, number.wrapping_add(1)];
        numbers.iter().flat_map(near)
    }

    #[test]
    fn every_number_is_found_and_no_other_is() {
        let mut random = fastrand::Rng::with_seed(1);
        for count in [0, 1, 2, 15, 16, 17, 100, 5000] {
            let mut numbers: Vec<u64> = (0..count).map(|_| random.u64(..)).collect();
            numbers.sort_unstable();
            check(&numbers, around(&numbers).chain([0, u64::MAX]));
            let others: Vec<u64> = (0..1000).map(|_| random.u64(..)).collect();
            check(&numbers, others);
        }
    }

    #[test]
    fn prefixes_that_are_not_uniform_are_found() {
        let mut random = fastrand::Rng::with_seed(2);
        let ends = [0, u64::MAX];
        let low: Vec<u64> = (0..3000).collect();
        let high: Vec<u64> = (u64::MAX - 3000..=u64::MAX).collect();
        let powers: Vec<u64> = (0..64).map(|bit| 1 << bit).collect();
        let equal = vec![7; 1000];
        let mut steps: Vec<u64> = (0..2000)
            .map(|_| random.u64(..) >> random.u8(..64))
            .collect();
        steps.sort_unstable();
        for numbers in [low, high, powers, equal, steps] {
            check(&numbers, around(&numbers).chain(ends));
        }
    }

    #[test]
    fn equal_numbers_are_all_found() {
        let prefixes = Prefixes::new([1, 5, 5, 5, 9].into()).unwrap();
        assert_eq!(prefixes.find(5), 1..4);
    }

    #[test]
    fn numbers_that_do_not_ascend_are_refused() {
        assert!(Prefixes::new([1, 3, 2].into()).is_none());
    }
}
