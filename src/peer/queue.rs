//! What waits to be sent to one peer: control bytes, and the blocks it has requested.
//!
//! Owns the two buffers, their bounds and their memory.

use std::collections::{BTreeSet, VecDeque, vec_deque};

use crate::wire::encoder::PIECE_HEADER_LENGTH;
use crate::wire::message::Request;

/// How many requests a peer may have queued: what we advertise as `reqq` (BEP 10), the same as
/// libtorrent and Transmission.
pub const REQQ: usize = 2000;

/// Requests for which memory is kept while the queue is empty between one batch and the next, so
/// that the steady state allocates nothing. Two vectored writes send as many.
const KEPT_REQUESTS: usize = 32;

/// The longest queue that is scanned for a cancelled request, in some 50 ns; most clients' queues are
/// shorter. A longer one gets an index.
const SCANNED_MAX: usize = 64;

/// Sent control bytes that may lie before the unsent ones until these are moved to the front.
const COMPACT_BYTES: usize = 16 * 1024;

/// The blocks that a peer has requested, in the order of its requests. The head may be partially sent.
#[derive(Debug, Default)]
pub(super) struct BlockQueue {
    /// A length of 0, which no peer may request, marks a removed block. The head is never one.
    blocks: VecDeque<Request>,
    /// How many of `blocks` are removed, at most half.
    removed: u32,
    /// Bytes of the head's message, header included, that the transport has taken.
    head_sent_bytes: u32,
    /// The position of each block, while a peer cancels deep in the queue: without it, a read of
    /// 64 KiB of cancels would scan the queue some 4,000 times.
    index: Option<Box<Index>>,
}

/// Finds blocks by their request. Blocks that were sent since stay in it for a while.
#[derive(Debug)]
struct Index {
    /// With the position in the queue, counted from the head of the time when this was made.
    positions: BTreeSet<(Request, u32)>,
    /// How many heads have left the queue since.
    popped: u32,
}

/// The bytes of a piece message that do not belong to the block.
const HEADER_BYTES: u64 = PIECE_HEADER_LENGTH as u64;

/// Blocks in the order in which they are to be sent.
#[derive(Clone, Debug, Default)]
pub struct Blocks<'a>(vec_deque::Iter<'a, Request>);

impl<'a> Iterator for Blocks<'a> {
    type Item = &'a Request;

    fn next(&mut self) -> Option<&'a Request> {
        self.0.find(|block| block.length > 0)
    }
}

/// What a number of sent bytes was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Bytes of blocks, without the headers of their messages.
    pub payload_bytes: u64,
    /// Blocks whose last byte was among them.
    pub blocks: u32,
}

impl BlockQueue {
    /// Adds a block; false when the queue is full.
    pub(super) fn push(&mut self, request: Request) -> bool {
        let room = self.len() < REQQ;
        if room {
            if self.index.is_some() {
                self.index_last(request);
            }
            self.blocks.push_back(request);
        }
        room
    }

    fn index_last(&mut self, request: Request) {
        let length = self.blocks.len();
        if let Some(index) = &mut self.index
            && index.positions.len() < 2 * length + SCANNED_MAX
        {
            let position = u32::try_from(length).expect("the queue is bounded by REQQ");
            index.positions.insert((request, index.popped + position));
        } else {
            // Most of it was sent.
            self.index = None;
        }
    }

    /// Removes one block that has not been begun; false when there is no such block.
    pub(super) fn remove(&mut self, request: &Request) -> bool {
        if self.blocks.len() > SCANNED_MAX {
            return self.remove_by_index(request);
        }
        let begun = usize::from(self.head_sent_bytes > 0);
        let position = self.blocks.iter().skip(begun).position(|r| r == request);
        let found = position.and_then(|position| self.blocks.remove(position + begun));
        // Positions have moved.
        self.index = None;
        self.drop_removed();
        found.is_some()
    }

    fn remove_by_index(&mut self, request: &Request) -> bool {
        let blocks = &self.blocks;
        let index = self.index.get_or_insert_with(|| {
            let positions = blocks.iter().copied().zip(0..);
            let positions = positions.filter(|(block, _)| block.length > 0).collect();
            Box::new(Index {
                positions,
                popped: 0,
            })
        });
        let first = index.popped + u32::from(self.head_sent_bytes > 0);
        let from = (*request, first);
        let found = index.positions.range(from..=(*request, u32::MAX)).next();
        let Some(&found) = found else {
            return false;
        };
        index.positions.remove(&found);
        let block = self.blocks.get_mut((found.1 - index.popped) as usize);
        block.expect("what is not sent is in the queue").length = 0;
        self.removed += 1;
        self.drop_removed();
        true
    }

    /// Drops removed blocks at the head, and all of them when they are more than half.
    fn drop_removed(&mut self) {
        while self.removed > 0 && self.blocks.front().is_some_and(|head| head.length == 0) {
            self.pop();
            self.removed -= 1;
        }
        if self.removed as usize * 2 > self.blocks.len() {
            self.blocks.retain(|block| block.length > 0);
            self.removed = 0;
            self.index = None;
        }
        self.release_when_empty();
    }

    fn pop(&mut self) {
        self.blocks.pop_front();
        if let Some(index) = &mut self.index {
            index.popped += 1;
        }
    }

    /// Removes every block that has not been begun, passing each to `removed`, and keeps memory only
    /// for the one that has.
    pub(super) fn drain_unbegun(&mut self, removed: impl FnMut(Request)) {
        let begun = usize::from(self.head_sent_bytes > 0);
        let blocks = self.blocks.drain(begun..);
        blocks.filter(|block| block.length > 0).for_each(removed);
        self.removed = 0;
        self.index = None;
        self.blocks.shrink_to_fit();
    }

    /// The head and how many bytes of its message are sent, at least one.
    pub(super) fn partial(&self) -> Option<(Request, u32)> {
        let head = *self.blocks.front()?;
        (self.head_sent_bytes > 0).then_some((head, self.head_sent_bytes))
    }

    /// The blocks that have not been begun.
    pub(super) fn unbegun(&self) -> Blocks<'_> {
        let begun = usize::from(self.head_sent_bytes > 0);
        Blocks(self.blocks.range(begun.min(self.blocks.len())..))
    }

    /// Counts up to `bytes` as sent of the partial head, if there is one. Returns the other bytes.
    pub(super) fn finish_partial(&mut self, bytes: u64, sent: &mut Sent) -> u64 {
        if self.head_sent_bytes > 0 {
            self.advance_head(bytes, sent)
        } else {
            bytes
        }
    }

    /// Counts `bytes` as sent from the head on. Returns those that are more than all blocks have.
    pub(super) fn advance(&mut self, mut bytes: u64, sent: &mut Sent) -> u64 {
        while bytes > 0 && !self.blocks.is_empty() {
            bytes = self.advance_head(bytes, sent);
        }
        bytes
    }

    fn advance_head(&mut self, bytes: u64, sent: &mut Sent) -> u64 {
        let head = self
            .blocks
            .front()
            .expect("only a queue with a head advances");
        let before = u64::from(self.head_sent_bytes);
        let whole = HEADER_BYTES + u64::from(head.length);
        let after = whole.min(before + bytes);
        sent.payload_bytes += after.max(HEADER_BYTES) - before.max(HEADER_BYTES);
        if after == whole {
            self.pop();
            self.head_sent_bytes = 0;
            sent.blocks += 1;
            self.drop_removed();
        } else {
            let after = u32::try_from(after);
            self.head_sent_bytes = after.expect("less than a message, which has 128 KiB at most");
        }
        bytes - (after - before)
    }

    /// Releases the memory of a burst when it is over.
    fn release_when_empty(&mut self) {
        if self.blocks.is_empty() {
            self.index = None;
            if self.blocks.capacity() > KEPT_REQUESTS {
                self.blocks.shrink_to(KEPT_REQUESTS);
            }
        }
    }

    /// How many blocks wait, the partial one included.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() - self.removed as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// Ones for full bitfields, shared by all peers.
static ONES: [u8; 16 * 1024] = [0xff; 16 * 1024];

/// Encoded messages that are not blocks. Its memory is released as soon as all of it is sent.
#[derive(Debug, Default)]
pub(super) struct ControlBuffer {
    bytes: Vec<u8>,
    /// How many of `bytes` the transport has taken.
    sent_bytes: usize,
    /// How many bytes of ones are to be sent before `bytes[ones_at..]`. They take no memory.
    ones_left: u32,
    ones_at: u32,
}

impl ControlBuffer {
    /// Where the encoders append.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends `count` bytes of ones, once for each peer. A few are copied, so that they go out in one
    /// write with what is around them.
    pub(super) fn append_ones(&mut self, count: usize) {
        let at = self.bytes.len();
        if count <= ONES.len() {
            self.bytes.resize(at + count, 0xff);
            return;
        }
        assert_eq!(self.ones_left, 0, "a peer gets one bitfield");
        self.ones_left = u32::try_from(count).expect("2^32 pieces have a bitfield of 2^29 bytes");
        self.ones_at = u32::try_from(at).expect("only our handshake is before the bitfield");
    }

    /// What is to be sent next. More may follow, see [`ControlBuffer::is_cut`].
    pub(super) fn unsent(&self) -> &[u8] {
        let (left, at) = (self.ones_left as usize, self.ones_at as usize);
        let unsent = match left {
            0 => self.bytes.get(self.sent_bytes..),
            _ if self.sent_bytes < at => self.bytes.get(self.sent_bytes..at),
            _ => ONES.get(..left.min(ONES.len())),
        };
        unsent.expect("no more is sent than there is")
    }

    /// Returns true if [`ControlBuffer::unsent`] is not all that there is.
    pub(super) fn is_cut(&self) -> bool {
        self.ones_left > 0
    }

    /// How many bytes there are to be sent.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.bytes.len() - self.sent_bytes + self.ones_left as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Counts `bytes` as sent, no more than [`ControlBuffer::unsent`] has.
    pub(super) fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.unsent().len(), "only shown bytes are sent");
        if self.ones_left > 0 && self.sent_bytes >= self.ones_at as usize {
            self.ones_left -= u32::try_from(bytes).expect("no more than the ones that are left");
        } else {
            self.sent_bytes += bytes;
        }
        if self.ones_left > 0 {
            return;
        }
        if self.sent_bytes == self.bytes.len() {
            *self = Self::default();
        } else if self.sent_bytes >= COMPACT_BYTES && self.sent_bytes * 2 >= self.bytes.len() {
            // Without this, a peer that takes a little and provokes a little would make the buffer
            // grow without end. At least half of it is dropped, so each byte moves once on average.
            self.bytes.drain(..self.sent_bytes);
            self.sent_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(index: u32) -> Request {
        Request {
            index,
            begin: 0,
            length: 100,
        }
    }

    fn queue_of(count: u32) -> BlockQueue {
        let mut queue = BlockQueue::default();
        for index in 0..count {
            assert!(queue.push(block(index)));
        }
        queue
    }

    fn advance(queue: &mut BlockQueue, bytes: u64) -> (u64, u32) {
        let mut sent = Sent::default();
        queue.advance(bytes, &mut sent);
        (sent.payload_bytes, sent.blocks)
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = queue_of(2000);
        assert!(!queue.push(block(9)));
        assert_eq!(queue.len(), REQQ);
        advance(&mut queue, 113);
        assert!(queue.push(block(9)));
    }

    #[test]
    fn payload_is_counted_without_headers_wherever_a_write_stops() {
        let mut queue = queue_of(3);
        assert_eq!(advance(&mut queue, 5), (0, 0));
        assert_eq!(queue.partial(), Some((block(0), 5)));
        assert_eq!(advance(&mut queue, 8), (0, 0));
        assert_eq!(advance(&mut queue, 1), (1, 0));
        assert_eq!(advance(&mut queue, 99 + 13), (99, 1));
        assert_eq!(queue.partial(), Some((block(1), 13)));
        assert_eq!(advance(&mut queue, 100 + 113), (200, 2));
        assert!(queue.is_empty());
        assert_eq!(queue.partial(), None);
    }

    #[test]
    fn finishing_the_partial_block_does_not_begin_the_next() {
        let mut queue = queue_of(2);
        let mut sent = Sent::default();
        assert_eq!(queue.finish_partial(50, &mut sent), 50);
        queue.advance(50, &mut sent);
        assert_eq!(queue.finish_partial(70, &mut sent), 7);
        assert_eq!(queue.partial(), None);
        assert_eq!(queue.unbegun().copied().collect::<Vec<_>>(), [block(1)]);
    }

    #[test]
    fn a_begun_block_cannot_be_taken_back() {
        let mut queue = queue_of(3);
        advance(&mut queue, 1);
        assert!(!queue.remove(&block(0)));
        assert!(queue.remove(&block(1)));
        assert!(!queue.remove(&block(1)));
        let mut taken = Vec::new();
        queue.drain_unbegun(|request| taken.push(request));
        assert_eq!(taken, [block(2)]);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn one_of_two_equal_blocks_is_taken_back_though_the_other_is_begun() {
        let mut queue = queue_of(1);
        queue.push(block(0));
        advance(&mut queue, 1);
        assert!(queue.remove(&block(0)));
        assert_eq!(queue.len(), 1);
    }

    /// Whatever is asked for, cancelled and sent: the same as a plain list.
    #[test]
    fn an_indexed_queue_is_as_a_list() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut queue, mut list) = (BlockQueue::default(), Vec::new());
        let mut indexed = 0;
        for round in 0..60_000 {
            // It grows and shrinks, and half of what is asked for is asked for twice.
            let grows = round / 3000 % 2 == 0;
            match random.u32(0..10) {
                0..4 if grows => {
                    let request = block(random.u32(0..2000));
                    assert_eq!(queue.push(request), list.len() < REQQ);
                    if list.len() < REQQ {
                        list.push(request);
                    }
                }
                4..9 => {
                    let request = block(random.u32(0..2000));
                    let begun = usize::from(queue.head_sent_bytes > 0);
                    let position = list.iter().skip(begun).position(|r| *r == request);
                    assert_eq!(queue.remove(&request), position.is_some());
                    if let Some(position) = position {
                        list.remove(position + begun);
                    }
                }
                _ => {
                    let bytes = random.u64(0..300);
                    let before = u64::from(queue.head_sent_bytes);
                    let (_, blocks) = advance(&mut queue, bytes);
                    assert_eq!(
                        u64::from(blocks),
                        list.len().min(((before + bytes) / 113) as usize) as u64
                    );
                    list.drain(..blocks as usize);
                }
            }
            indexed += u32::from(queue.index.is_some());
            assert_eq!(
                (queue.len(), queue.is_empty()),
                (list.len(), list.is_empty())
            );
            assert!(queue.blocks.len() <= 2 * list.len() + 1);
            if round % 100 == 0 {
                let begun = usize::from(queue.head_sent_bytes > 0);
                assert!(queue.unbegun().eq(list.iter().skip(begun)));
            }
        }
        assert!(indexed > 1000, "{indexed}");
    }

    #[test]
    fn memory_for_a_batch_is_kept_and_memory_for_a_burst_is_not() {
        let mut queue = queue_of(8);
        advance(&mut queue, 8 * 113);
        let kept = queue.blocks.capacity();
        assert!((8..=KEPT_REQUESTS).contains(&kept));
        let mut queue = queue_of(2000);
        advance(&mut queue, 2000 * 113);
        assert!((1..=KEPT_REQUESTS).contains(&queue.blocks.capacity()));
        queue.drain_unbegun(|_| ());
        assert_eq!(queue.blocks.capacity(), 0);
    }

    #[test]
    fn a_drained_control_buffer_keeps_no_memory() {
        let mut control = ControlBuffer::default();
        control.out().extend_from_slice(b"choke");
        control.advance(2);
        assert_eq!(control.unsent(), b"oke");
        control.advance(3);
        assert!(control.is_empty());
        assert_eq!(control.bytes.capacity(), 0);
    }

    #[test]
    fn a_control_buffer_that_is_never_drained_does_not_grow() {
        let mut control = ControlBuffer::default();
        control.out().extend_from_slice(&[0; 1000]);
        for _ in 0..100_000 {
            control.out().extend_from_slice(&[0; 17]);
            control.advance(17);
        }
        assert_eq!(control.unsent().len(), 1000);
        assert!(control.bytes.len() <= 1000 + COMPACT_BYTES + 17);
    }
}
