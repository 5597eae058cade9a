//! All connections of a loop, and the one door to each.
//!
//! Owns the slab, the run queue and who is to be closed. [`Connections::visit`] is how anything
//! reaches a connection: it finds it by its key, and sees to its alarm, its place in the run queue
//! and its end afterwards. Closing waits for the end of the turn, so that keys stay valid all turn.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use slab::Slab;

use super::connection::Connection;
use super::run_queue::RunQueue;
use super::shared::Shared;
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::peer::session::Phase;

/// The connections.
pub(super) struct Connections {
    slab: Slab<Connection>,
    /// How many there have been: the generation of the next one.
    generation: u32,
    per_address: HashMap<IpAddr, usize>,
    /// How many there may be.
    pub(super) max: usize,
    /// How many there may be from one address.
    pub(super) max_per_address: usize,
    pub(super) run_queue: RunQueue,
    /// Those whose session is closing.
    closing: VecDeque<PeerKey>,
}

impl Connections {
    /// None yet.
    pub(super) fn new(max: usize, max_per_address: usize) -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
            per_address: HashMap::new(),
            max,
            max_per_address,
            run_queue: RunQueue::default(),
            closing: VecDeque::new(),
        }
    }

    /// Does something with the connection that has this key, unless it is gone, replaced or about to
    /// be closed. Whatever its deadlines, its readiness and its queues have become by that is then
    /// acted on; an error closes it at the end of the turn.
    pub(super) fn visit(
        &mut self,
        key: PeerKey,
        shared: &mut Shared,
        work: impl FnOnce(&mut Connection, &mut Shared) -> Result<(), CloseReason>,
    ) {
        let Some(connection) = self.slab.get_mut(key.index as usize) else {
            return;
        };
        if connection.key != key || connection.session.is_closing() {
            return;
        }
        if let Err(reason) = work(connection, shared) {
            if let Phase::Loading(asked) = connection.session.phase() {
                shared.loads.leave(&asked.info_hash, key);
            }
            connection.session.close(reason);
            self.closing.push_back(key);
            return;
        }
        let at = connection.session.poll_at(&shared.timeouts);
        connection.alarm.arm(at, key, &mut shared.wheel);
        self.run_queue.enqueue(connection, shared.now);
    }

    /// Adds a connection that `make` makes of its key. It is visited before anything else happens.
    pub(super) fn insert(
        &mut self,
        shared: &mut Shared,
        make: impl FnOnce(PeerKey) -> Option<Connection>,
    ) -> Option<PeerKey> {
        let entry = self.slab.vacant_entry();
        let key = PeerKey {
            index: u32::try_from(entry.key()).expect("4 billion descriptors do not exist"),
            generation: self.generation,
        };
        self.generation = self.generation.wrapping_add(1);
        let connection = make(key)?;
        *(self.per_address)
            .entry(connection.transport.address())
            .or_default() += 1;
        entry.insert(connection);
        self.visit(key, shared, |_, _| Ok(()));
        Some(key)
    }

    /// Whether the next to receive from can wait for its turn to send. It is off the list then.
    pub(super) fn defer(&mut self, key: PeerKey) -> bool {
        let may_defer = self.run_queue.may_defer();
        match self.slab.get_mut(key.index as usize) {
            Some(connection) if connection.key == key => {
                connection.queued.to_receive = false;
                may_defer && connection.may_defer()
            }
            _ => true,
        }
    }

    /// Takes out one connection whose session is closing.
    pub(super) fn take_closing(&mut self) -> Option<Connection> {
        let key = self.closing.pop_front()?;
        let connection = self.slab.remove(key.index as usize);
        assert_eq!(connection.key, key, "a closing connection stays until now");
        debug_assert!(matches!(connection.session.phase(), Phase::Closing { .. }));
        let address = connection.transport.address();
        let count = self.per_address.get_mut(&address);
        let count = count.expect("every connection is counted");
        *count -= 1;
        if *count == 0 {
            self.per_address.remove(&address);
        }
        Some(connection)
    }

    /// The keys of all.
    pub(super) fn keys(&self) -> Vec<PeerKey> {
        let all = self.slab.iter();
        all.map(|(_, connection)| connection.key).collect()
    }

    /// All, by their index in the slab.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slab.iter().map(|(_, connection)| connection)
    }

    /// The connection at this index of the slab.
    pub(super) fn at(&self, index: usize) -> Option<&Connection> {
        self.slab.get(index)
    }

    /// Indexes are below this.
    pub(super) fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// How many there are, those that are closing included.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Whether no further connection may be made, also when those that are closing have gone.
    pub(super) fn is_at_capacity(&self) -> bool {
        self.slab.len() - self.closing.len() >= self.max
    }

    /// How many connections come from an address.
    pub(super) fn count_from(&self, address: IpAddr) -> usize {
        self.per_address.get(&address).copied().unwrap_or(0)
    }
}
