//! Accepting: which connections are kept, and what happens at capacity.
//!
//! Owns the pace of accepting and the refusals. Who gives way to others is the choker's decision.

use std::io;
use std::net::IpAddr;

use mio::Interest;
use mio::net::TcpStream;

use super::Reactor;
use super::connection::Connection;
use super::listener::{self, Accepted};
use super::tokens::Source;
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::timers::Time;

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

    /// Keeps a new connection, or drops it: a peer that is refused at once can go elsewhere, one that
    /// is left in the backlog waits for nothing.
    fn admit(&mut self, stream: TcpStream, address: IpAddr) {
        let connections = &self.connections;
        let refusal = if connections.len() >= connections.max {
            Some(CloseReason::AtCapacity)
        } else if connections.count_from(address) >= connections.max_per_address {
            Some(CloseReason::TooManyFromAddress)
        } else {
            None
        };
        if let Some(reason) = refusal {
            log::debug!("{address}: {reason}");
            self.shared.counters.ended(reason);
            return;
        }
        let registered = self.register(stream, |key, stream, now| {
            Connection::accepted(key, stream, address, now)
        });
        self.shared.counters.accepted += u64::from(registered);
    }

    /// Watches a stream, accepted or dialled, and keeps the connection that `make` makes of it. False
    /// when it cannot be watched.
    pub(super) fn register(
        &mut self,
        mut stream: TcpStream,
        make: impl FnOnce(PeerKey, TcpStream, Time) -> Connection,
    ) -> bool {
        listener::prepare(&stream, self.connections.len());
        let (registry, now) = (self.poll.registry(), self.shared.now);
        let key = self.connections.insert(&mut self.shared, |key| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            match registry.register(&mut stream, Source::Peer(key).token(), interest) {
                Ok(()) => Some(make(key, stream, now)),
                Err(error) => {
                    log::warn!("a connection cannot be polled: {error}");
                    None
                }
            }
        });
        key.is_some()
    }
}
