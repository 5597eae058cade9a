//! What is to be done this turn and the next: who is received from, and who is sent to.
//!
//! Owns the lists of connections and their order. Each connection is on each kind of list at most
//! once, which its latches remember. It must not know what is said to whom.

use std::collections::VecDeque;

use super::connection::Connection;
use super::stage::BATCH_BLOCKS;
use crate::peer::key::PeerKey;
use crate::timers::Time;

/// The lists, each in the order of arrival.
#[derive(Default)]
pub(super) struct RunQueue {
    to_receive: VecDeque<PeerKey>,
    /// Those with control alone to send: handshakes, unchokes, rejects. They go before all blocks,
    /// since they cost next to nothing and somebody waits a round trip for each.
    control: VecDeque<PeerKey>,
    /// Those with blocks to send.
    blocks: VecDeque<PeerKey>,
    /// Those that wait for the rate limit.
    throttled: Vec<PeerKey>,
    /// Those that wait for room in the readers' queue.
    stalled: Vec<PeerKey>,
    /// When those ask again at the latest.
    stalled_until: Time,
}

/// How long a connection waits that found no room with the readers, unless they are done with
/// something before: they may not have been able to start a thread, and then are never done.
const STALL_MS: u64 = 500;

impl RunQueue {
    /// Puts a connection on the lists that its state calls for.
    pub(super) fn enqueue(&mut self, connection: &mut Connection, key: PeerKey) {
        let wants_to_send = connection.wants_to_send();
        let has_blocks = connection.has_blocks_to_send();
        let wants_to_receive = connection.wants_to_receive();
        let latches = &mut connection.latches;
        if wants_to_send && !latches.to_send {
            latches.to_send = true;
            match has_blocks {
                true => self.blocks.push_back(key),
                false => self.control.push_back(key),
            }
        }
        if wants_to_receive && !latches.to_receive {
            latches.to_receive = true;
            self.to_receive.push_back(key);
        }
    }

    /// Whether the next turn has work already.
    pub(super) fn is_empty(&self) -> bool {
        self.to_receive.is_empty() && self.control.is_empty() && self.blocks.is_empty()
    }

    /// How many may be received from in this turn.
    pub(super) fn receivers(&self) -> usize {
        self.to_receive.len()
    }

    /// The next to receive from.
    pub(super) fn next_receiver(&mut self) -> Option<PeerKey> {
        self.to_receive.pop_front()
    }

    /// Whether receiving can wait for the connection's turn to send, which is sure to come soon: it
    /// has a whole batch queued, and nobody waits for the rate limit or the readers. Its next
    /// requests then come in one read and not in many.
    pub(super) fn may_defer(&self, connection: &Connection) -> bool {
        self.throttled.is_empty()
            && self.stalled.is_empty()
            && connection.latches.to_send
            && !connection.latches.read_closed
            && connection.has_blocks_to_send()
            && connection.peer.queue_length() >= BATCH_BLOCKS
    }

    /// The next with control alone.
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

    /// Sets a connection aside until the rate limit has something for it.
    pub(super) fn throttle(&mut self, connection: &mut Connection, key: PeerKey) {
        connection.latches.to_send = true;
        self.throttled.push(key);
    }

    /// Whether anybody waits for the rate limit.
    pub(super) fn is_throttled(&self) -> bool {
        !self.throttled.is_empty()
    }

    /// The rate limit has something again.
    pub(super) fn release_throttled(&mut self) {
        self.blocks.extend(self.throttled.drain(..));
    }

    /// Sets a connection aside until the readers have done something, or [`STALL_MS`] have passed.
    pub(super) fn stall(&mut self, connection: &mut Connection, key: PeerKey, now: Time) {
        if self.stalled.is_empty() {
            self.stalled_until = now.after(STALL_MS);
        }
        connection.latches.to_send = true;
        self.stalled.push(key);
    }

    /// When those that were set aside for the readers are to be released at the latest.
    pub(super) fn stalled_until(&self) -> Option<Time> {
        (!self.stalled.is_empty()).then_some(self.stalled_until)
    }

    /// Lets those that were set aside ask the readers again, if these have done something or it is
    /// time.
    pub(super) fn release_stalled(&mut self, readers_are_done: bool, now: Time) {
        if readers_are_done || now >= self.stalled_until {
            self.blocks.extend(self.stalled.drain(..));
        }
    }
}
