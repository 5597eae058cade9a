//! Which block a leecher requests next.
//!
//! Whole pieces at random, single blocks at random, or in sequence; each block once per round. Pure,
//! with a few words of memory for each leecher whatever the torrent's size: a random order is a
//! permutation computed as needed.

use crate::cli::Order;
use hekate::torrent::layout::Shape;
use hekate::wire::message::Request;

/// The position of one leecher in a torrent.
pub(crate) struct Picker {
    shape: Shape,
    block_bytes: u32,
    order: Order,
    seed: u64,
    /// How many units (pieces or blocks) were started.
    begun: u64,
    piece: u32,
    /// The next byte of `piece` to request, and the end of the unit.
    begin: u32,
    end: u32,
}

impl Picker {
    /// At the start of a round in `order`; `seed` makes rounds of leechers different.
    pub(crate) fn new(shape: Shape, block_bytes: u32, order: Order, seed: u64) -> Picker {
        Picker {
            shape,
            block_bytes: block_bytes.max(1),
            order,
            seed,
            begun: 0,
            piece: 0,
            begin: 0,
            end: 0,
        }
    }

    /// The next block, or `None` when all were requested.
    pub(crate) fn next_request(&mut self) -> Option<Request> {
        if self.begin >= self.end {
            self.next_unit()?;
        }
        let length = self.block_bytes.min(self.end - self.begin);
        let request = Request {
            index: self.piece,
            begin: self.begin,
            length,
        };
        self.begin += length;
        Some(request)
    }

    /// Starts another round in another order of the same kind.
    pub(crate) fn restart(&mut self, seed: u64) {
        *self = Picker::new(self.shape, self.block_bytes, self.order, seed);
    }

    fn next_unit(&mut self) -> Option<()> {
        let shape = self.shape;
        let blocks_in_piece = shape.piece_length.div_ceil(self.block_bytes);
        let last = shape.piece_length_of(shape.pieces.checked_sub(1)?)?;
        let pieces = u64::from(shape.pieces);
        let blocks =
            (pieces - 1) * u64::from(blocks_in_piece) + u64::from(last.div_ceil(self.block_bytes));
        let units = if self.order == Order::Blocks {
            blocks
        } else {
            pieces
        };
        if self.begun >= units {
            return None;
        }
        let unit = match self.order {
            Order::Sequential => (self.seed % units + self.begun) % units,
            Order::Pieces | Order::Blocks => permute(self.begun, units, self.seed),
        };
        self.begun += 1;
        let (piece, block) = if self.order == Order::Blocks {
            let per_piece = u64::from(blocks_in_piece);
            (unit / per_piece, Some(unit % per_piece))
        } else {
            (unit, None)
        };
        self.piece = u32::try_from(piece).ok()?;
        self.end = shape.piece_length_of(self.piece)?;
        self.begin = 0;
        if let Some(block) = block {
            self.begin = u32::try_from(block).ok()? * self.block_bytes;
            self.end = self.end.min(self.begin.saturating_add(self.block_bytes));
        }
        Some(())
    }
}

/// The `value`-th element of a permutation of `0..count` that `seed` chooses.
///
/// A Feistel network permutes the smallest even power of two that holds `count`; a value that falls
/// outside is permuted again until it falls inside, which takes less than four rounds on average.
fn permute(value: u64, count: u64, seed: u64) -> u64 {
    let bits = (u64::BITS - count.saturating_sub(1).leading_zeros()).max(2);
    let half = bits.div_ceil(2);
    let mask = (1u64 << half) - 1;
    let mut value = value;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for round in 0..4 {
            (left, right) = (
                right,
                left ^ (mix(right ^ seed.rotate_left(round * 16)) & mask),
            );
        }
        value = left << half | right;
        if value < count {
            return value;
        }
    }
}

/// The finaliser of `SplitMix64`: every bit of the input reaches every bit of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SHAPE: Shape = Shape {
        piece_length: 40_000,
        pieces: 26,
        total_length: 25 * 40_000 + 17_000,
        metadata_length: 0,
        private: false,
    };

    fn round(order: Order, seed: u64) -> Vec<Request> {
        let mut picker = Picker::new(SHAPE, 16384, order, seed);
        std::iter::from_fn(|| picker.next_request()).collect()
    }

    #[test]
    fn every_byte_comes_once_in_every_order() {
        for order in [Order::Pieces, Order::Blocks, Order::Sequential] {
            for seed in 0..50 {
                let mut requests = round(order, seed);
                requests.sort_by_key(|request| SHAPE.offset_of(request));
                let mut expected = 0;
                for request in &requests {
                    assert_eq!(SHAPE.offset_of(request), expected);
                    assert!(request.length <= 16384 && request.length > 0);
                    expected += u64::from(request.length);
                }
                assert_eq!(expected, SHAPE.total_length);
            }
        }
    }

    #[test]
    fn pieces_stay_whole_and_blocks_do_not() {
        let switches = |requests: &[Request]| {
            requests
                .windows(2)
                .filter(|pair| pair[0].index != pair[1].index)
                .count()
        };
        assert_eq!(switches(&round(Order::Pieces, 7)), 25);
        assert!(switches(&round(Order::Blocks, 7)) > 50);
    }

    #[test]
    fn leechers_differ_and_rounds_repeat() {
        let first: HashSet<u32> = (0..20)
            .map(|seed| round(Order::Pieces, seed)[0].index)
            .collect();
        assert!(first.len() > 8);
        let mut picker = Picker::new(SHAPE, 16384, Order::Pieces, 3);
        while picker.next_request().is_some() {}
        picker.restart(3);
        assert_eq!(picker.next_request(), Some(round(Order::Pieces, 3)[0]));
    }

    #[test]
    fn a_permutation_is_one() {
        for count in [1, 2, 3, 5, 16, 17, 1000] {
            let seen: HashSet<u64> = (0..count).map(|value| permute(value, count, 9)).collect();
            assert_eq!(seen.len() as u64, count);
        }
    }

    #[test]
    fn an_empty_torrent_has_no_blocks() {
        let shape = Shape {
            pieces: 0,
            total_length: 0,
            ..SHAPE
        };
        assert_eq!(
            Picker::new(shape, 16384, Order::Pieces, 1).next_request(),
            None
        );
    }
}
