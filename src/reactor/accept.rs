//! Accepting: who gets a place, and what happens when there is none.
//!
//! Owns the pace of accepting and the refusals. Sockets are `listener`'s matter; it must not know
//! what is said over a connection.

use std::io;
use std::net::IpAddr;

use mio::Interest;

use super::Reactor;
use super::connection::Connection;
use super::listener::{self, Accepted};
use super::tokens::Source;
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;

/// Connections accepted in one turn, so that a flash crowd does not starve those who are in.
const ACCEPTS_PER_TURN: usize = 256;

/// How long accepting paused when descriptors or memory have run out.
const ACCEPT_REST_MS: u64 = 100;

/// How often the log says so: it may last for days.
const ACCEPT_REST_SAID_MS: u64 = 60_000;

impl Reactor {
    /// Takes what waits at the listeners, within the limits.
    pub(super) fn accept(&mut self) {
        if self
            .accept_rests_until
            .is_some_and(|until| self.shared.now < until)
        {
            return;
        }
        self.accept_rests_until = None;
        for number in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(listener) = self.listeners.get_mut(number) else {
                    break;
                };
                if !listener.readable {
                    break;
                }
                match listener.accept() {
                    Accepted::Peer(stream, address) => self.admit(stream, address),
                    Accepted::Gone => {}
                    Accepted::Drained => break,
                    Accepted::Exhausted(error) => {
                        self.rest(&error);
                        return;
                    }
                }
            }
        }
    }

    /// Leaves those who want to connect in the backlog for a moment.
    fn rest(&mut self, error: &io::Error) {
        let now = self.shared.now;
        self.accept_rests_until = Some(now.after(ACCEPT_REST_MS));
        let said = self.accept_rest_said;
        if said.is_none_or(|said| now.since(said) >= ACCEPT_REST_SAID_MS) {
            self.accept_rest_said = Some(now);
            log::warn!("accepting paused: {error}");
        }
    }

    /// Needs no descriptors, so it does not rest.
    pub(super) fn refuse_utp(&mut self) {
        for listener in &mut self.listeners {
            listener.refuse_utp();
        }
    }

    /// Gives a new connection its place, or drops it: a peer that is refused at once can go
    /// elsewhere, one that is left in the backlog waits for nothing.
    fn admit(&mut self, stream: mio::net::TcpStream, address: IpAddr) {
        let from_address = self.peers_from.get(&address).copied().unwrap_or(0);
        let refusal = if self.connections.len() >= self.max_peers {
            Some(CloseReason::AtCapacity)
        } else if from_address >= self.max_peers_per_ip {
            Some(CloseReason::TooManyFromAddress)
        } else {
            None
        };
        if let Some(reason) = refusal {
            log::debug!("{address}: {reason}");
            self.shared.counters.ended(reason);
            return;
        }
        let Some(key) = self.seat(stream, address) else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(key.index as usize) {
            // The handshake is often there already; asking costs less than another turn.
            connection.latches.readable = true;
            self.run_queue.enqueue(connection, key);
        }
        self.shared.counters.accepted += 1;
    }

    /// Gives a connection its place, whoever has called.
    pub(super) fn seat(
        &mut self,
        mut stream: mio::net::TcpStream,
        address: IpAddr,
    ) -> Option<PeerKey> {
        let connected = self.connections.len();
        let entry = self.connections.vacant_entry();
        let index = u32::try_from(entry.key()).ok()?;
        let key = PeerKey {
            index,
            generation: self.generation,
        };
        self.generation = self.generation.wrapping_add(1);
        listener::prepare(&stream, connected);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Source::Peer(key).token();
        if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
            log::warn!("{address}: cannot be polled: {error}");
            return None;
        }
        let mut connection = Connection::new(stream, address, key.generation, self.shared.now);
        connection
            .deadlines
            .arm(key, &self.shared.timeouts, &mut self.shared.wheel);
        entry.insert(connection);
        *self.peers_from.entry(address).or_default() += 1;
        Some(key)
    }
}
