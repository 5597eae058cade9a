//! The run queue: which connections are received from and sent to, in this turn and the next.
//!
//! A connection is on each kind of list at most once, which its
//! [`Queued`](super::connection::Queued) bits record.

use std::collections::VecDeque;

use super::connection::{Connection, Wait};
use crate::peer::key::PeerKey;
use crate::timers::Time;

/// The lists, each in order of arrival.
#[derive(Default)]
pub(super) struct RunQueue {
    to_receive: VecDeque<PeerKey>,
    /// Those that filled the buffer when they were received from last. They come after the others, so
    /// that peers that flood us keep nobody waiting.
    to_receive_more: VecDeque<PeerKey>,
    /// Those with only control bytes to send: handshakes, unchokes, rejects. They go before all blocks,
    /// since they cost next to nothing and a peer waits a round trip for each.
    control: VecDeque<PeerKey>,
    /// Those with blocks to send.
    blocks: VecDeque<PeerKey>,
    /// Those with [`Wait::Rate`].
    throttled: Vec<PeerKey>,
    /// Those with [`Wait::ReaderRoom`].
    stalled: Vec<PeerKey>,
    /// When those try again at the latest.
    stalled_until: Time,
}

/// How long a connection waits that found the readers' queue full, unless a job ends before. If no
/// reader thread could be started, none does.
const STALL_MS: u64 = 500;

impl RunQueue {
    /// Puts a connection on the lists that its state calls for.
    pub(super) fn enqueue(&mut self, connection: &mut Connection, now: Time) {
        let key = connection.key;
        if !connection.queued.to_send {
            let wants_to_send = connection.wants_to_send();
            connection.queued.to_send = true;
            match connection.wait {
                Wait::ReaderRoom => {
                    if self.stalled.is_empty() {
                        self.stalled_until = now.after(STALL_MS);
                    }
                    self.stalled.push(key);
                }
                Wait::Rate => self.throttled.push(key),
                Wait::Nothing | Wait::Reader if !wants_to_send => {
                    connection.queued.to_send = false;
                }
                Wait::Nothing | Wait::Reader if connection.has_blocks_to_send() => {
                    self.blocks.push_back(key);
                }
                Wait::Nothing | Wait::Reader => self.control.push_back(key),
            }
        }
        if connection.wants_to_receive() && !connection.queued.to_receive {
            connection.queued.to_receive = true;
            match connection.queued.has_filled_buffer {
                true => self.to_receive_more.push_back(key),
                false => self.to_receive.push_back(key),
            }
        }
    }

    /// Returns true if the next turn has no work yet.
    pub(super) fn is_empty(&self) -> bool {
        self.to_receive.is_empty()
            && self.to_receive_more.is_empty()
            && self.control.is_empty()
            && self.blocks.is_empty()
    }

    /// How many may be received from in this turn: those with little, and those with much.
    pub(super) fn receivers(&self) -> (usize, usize) {
        (self.to_receive.len(), self.to_receive_more.len())
    }

    /// The next to receive from.
    pub(super) fn next_receiver(&mut self) -> Option<PeerKey> {
        self.to_receive.pop_front()
    }

    /// The next to receive from that has much.
    pub(super) fn next_receiver_of_more(&mut self) -> Option<PeerKey> {
        self.to_receive_more.pop_front()
    }

    /// Returns true if every sender comes up soon: none waits for the rate limit or the readers' queue.
    pub(super) fn may_defer(&self) -> bool {
        self.throttled.is_empty() && self.stalled.is_empty()
    }

    /// The next with only control bytes.
    pub(super) fn next_control(&mut self) -> Option<PeerKey> {
        self.control.pop_front()
    }

    /// How many have blocks to send.
    pub(super) fn senders(&self) -> usize {
        self.blocks.len()
    }

    /// The next with blocks to send.
    pub(super) fn next_sender(&mut self) -> Option<PeerKey> {
        self.blocks.pop_front()
    }

    /// Returns true if a connection waits for the rate limit.
    pub(super) fn is_throttled(&self) -> bool {
        !self.throttled.is_empty()
    }

    /// Lets those continue that wait for the rate limit.
    pub(super) fn release_throttled(&mut self) {
        self.blocks.extend(self.throttled.drain(..));
    }

    /// When [`RunQueue::release_stalled`] is due at the latest.
    pub(super) fn stalled_until(&self) -> Option<Time> {
        (!self.stalled.is_empty()).then_some(self.stalled_until)
    }

    /// Lets those continue that found the readers' queue full, if a job has ended or it is time.
    pub(super) fn release_stalled(&mut self, readers_are_done: bool, now: Time) {
        if readers_are_done || now >= self.stalled_until {
            self.blocks.extend(self.stalled.drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::tests::connection;
    use super::*;

    #[test]
    fn connections_with_much_to_receive_come_after_all_others() {
        let mut queue = RunQueue::default();
        for (index, has_filled_buffer) in [(0, true), (1, false), (2, true), (3, false)] {
            let mut connection = connection();
            connection.key.index = index;
            connection.transport.set_readable();
            connection.queued.has_filled_buffer = has_filled_buffer;
            queue.enqueue(&mut connection, Time(0));
            queue.enqueue(&mut connection, Time(0));
        }
        assert_eq!(queue.receivers(), (2, 2));
        let little = [(); 3].map(|()| queue.next_receiver().map(|key| key.index));
        assert_eq!(little, [Some(1), Some(3), None]);
        let much = [(); 3].map(|()| queue.next_receiver_of_more().map(|key| key.index));
        assert_eq!(much, [Some(0), Some(2), None]);
    }
}
