//! All connections of a loop, and the one door to each.
//!
//! [`Connections::visit`] is the only way to change a connection: it finds the connection by its key,
//! and afterwards arms its alarm, and puts it into the run queue or marks it as closing. Closing
//! connections are removed at the end of the turn, so that keys stay valid throughout it.

use std::collections::VecDeque;
use std::net::IpAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use slab::Slab;

use super::connection::Connection;
use super::listener;
use super::run_queue::RunQueue;
use super::shared::Shared;
use super::tokens::Source;
use crate::choker::Choker;
use crate::choker::origin::Origin;
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::peer::session::Phase;
use crate::wire::message::InfoHash;

/// Connections that may be closing while others have taken their places: they keep their descriptors for
/// some turns when many close at the same time.
pub(super) const CLOSING_MAX: usize = 64;

/// The connections.
pub(super) struct Connections {
    slab: Slab<Connection>,
    /// The generation of the next one.
    generation: u32,
    /// The most connections (`--max-peers`, as far as descriptors allow).
    pub(super) max: usize,
    /// The most connections with one [`Origin`].
    pub(super) max_per_address: usize,
    pub(super) run_queue: RunQueue,
    /// Connections whose session is closing.
    closing: VecDeque<PeerKey>,
}

impl Connections {
    /// Creates it without connections.
    pub(super) fn new(max: usize, max_per_address: usize) -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
            max,
            max_per_address,
            run_queue: RunQueue::default(),
            closing: VecDeque::new(),
        }
    }

    /// Runs `work` on the connection with this key, unless it has ended or is closing, and then updates
    /// its alarm and its entry in the run queue. An error closes it at the end of the turn.
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
                shared.process.loads.leave(&asked.info_hash, key);
            }
            if connection.queued.for_metadata {
                shared.metadata.leave(key);
            }
            connection.session.close(reason);
            shared.choker.disconnected(key);
            self.closing.push_back(key);
            return;
        }
        let at = connection.session.poll_at(&shared.process.timeouts);
        connection.alarm.arm(at, key, &mut shared.alarms);
        self.run_queue.enqueue(connection, shared.now);
    }

    /// Registers a stream, accepted or dialled, and adds and visits the connection that `make` creates
    /// for it. Returns its key; None if the stream cannot be polled.
    pub(super) fn register(
        &mut self,
        shared: &mut Shared,
        registry: &Registry,
        mut stream: TcpStream,
        make: impl FnOnce(PeerKey, TcpStream) -> Connection,
    ) -> Option<PeerKey> {
        listener::prepare(&stream, self.slab.len());
        let entry = self.slab.vacant_entry();
        let key = PeerKey {
            index: u32::try_from(entry.key()).expect("4 billion descriptors do not exist"),
            generation: self.generation,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut stream, Source::Peer(key).token(), interest) {
            log::warn!("a connection cannot be polled: {error}");
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let connection = make(key, stream);
        let origin = Origin::of(connection.transport.address());
        shared.choker.begun(key, origin, shared.now);
        entry.insert(connection);
        self.visit(key, shared, |_, _| Ok(()));
        Some(key)
    }

    /// Takes a connection off the list to receive from. Returns true if receiving can wait until it
    /// sends next, or if it has ended.
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
        Some(connection)
    }

    /// All keys.
    pub(super) fn keys(&self) -> Vec<PeerKey> {
        let all = self.slab.iter();
        all.map(|(_, connection)| connection.key).collect()
    }

    /// All connections, by their index in the slab.
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

    /// The number of connections, closing ones included.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Returns true if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Returns true if some connections are closing.
    pub(super) fn has_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// Returns true if no further connection is possible even without the closing ones.
    pub(super) fn is_at_capacity(&self) -> bool {
        self.slab.len() - self.closing.len() >= self.max
    }

    /// Returns true if a peer at this address is connected for this torrent, accepted or dialled.
    pub(super) fn has_peer(&self, ip: IpAddr, info_hash: &InfoHash, choker: &Choker) -> bool {
        choker.connections_from(Origin::of(ip)) > 0
            && self.iter().any(|connection| {
                let dialled = connection.dialled.as_ref().map(|peer| &peer.info_hash);
                let torrent = connection.torrent.as_ref();
                let loaded = torrent.map(|torrent| &torrent.info_hash);
                connection.transport.address() == ip
                    && (dialled == Some(info_hash) || loaded == Some(info_hash))
            })
    }

    /// Makes room for one more connection with this address, or returns why it is to be refused.
    pub(super) fn make_room(
        &mut self,
        address: IpAddr,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        if self.has_too_many_from(address, &shared.choker) {
            return Err(CloseReason::TooManyFromAddress);
        }
        if self.slab.len() >= self.max + CLOSING_MAX {
            return Err(CloseReason::AtCapacity);
        }
        if self.is_at_capacity() {
            let loser = shared.choker.give_way(Origin::of(address), shared.now);
            let (key, reason) = loser.ok_or(CloseReason::AtCapacity)?;
            self.visit(key, shared, |_, _| Err(reason));
        }
        Ok(())
    }

    /// Returns true if there are as many connections with this address as there may be.
    pub(super) fn has_too_many_from(&self, address: IpAddr, choker: &Choker) -> bool {
        choker.connections_from(Origin::of(address)) >= self.max_per_address
    }
}
