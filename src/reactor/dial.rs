//! Connecting to peers: which, when, and which not again for a while.
//!
//! Owns the limits of calling and what is remembered of those who were called. A connection that was
//! made so is one like another once the handshakes are exchanged. It must not know trackers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::Reactor;
use super::connection::Connection;
use super::transport::Transport;
use crate::net;
use crate::peer::close::CloseReason;
use crate::peer::session::Session;
use crate::timers::Time;
use crate::wire::message::InfoHash;

/// Connections that are being made at the same time: most peers behind the addresses of a tracker
/// are gone, and each is waited for as long as a handshake may take.
const MAX_CONNECTING: usize = 32;

/// Connections that were made by calling, all torrents together. The other places are for those
/// who come by themselves.
const MAX_CALLED: usize = 256;

/// The same for one torrent.
const MAX_CALLED_PER_TORRENT: usize = 16;

/// Between two calls: 20 a second, which no router takes for an attack.
const BETWEEN_CALLS_MS: u64 = 50;

/// Peers that wait to be called.
const MAX_WAITING: usize = 4096;

/// The first rest of an address that could not be connected to. It doubles.
const FIRST_REST_MS: u64 = 60_000;

/// The longest, and that of those who want nothing from us: seeds, ourselves, other torrents.
const MAX_REST_MS: u64 = 60 * 60 * 1000;

/// Addresses that are remembered to rest. When these are used up, nobody new is called.
const MAX_RESTING: usize = 16_384;

/// Why somebody was called: kept until the connection ends.
pub(super) struct Called {
    info_hash: InfoHash,
    address: SocketAddr,
}

/// An address, for one torrent or for all.
type Resting = (Option<InfoHash>, SocketAddr);

/// Who is to be called.
#[derive(Default)]
pub(super) struct Dialer {
    waiting: VecDeque<(InfoHash, SocketAddr)>,
    /// The same, to be found at once: a tracker may name thousands again and again.
    offered: HashSet<(InfoHash, SocketAddr)>,
    open: HashSet<(InfoHash, SocketAddr)>,
    per_torrent: HashMap<InfoHash, usize>,
    /// Failures in a row, and until when nothing is tried.
    resting: HashMap<Resting, (u32, Time)>,
    connecting: usize,
    next_at: Time,
}

impl Dialer {
    /// A tracker has named a peer.
    pub(super) fn offer(&mut self, info_hash: InfoHash, peer: SocketAddr) {
        let candidate = (info_hash, peer);
        let has_room = self.waiting.len() < MAX_WAITING;
        if has_room && !self.open.contains(&candidate) && self.offered.insert(candidate) {
            self.waiting.push_back(candidate);
        }
    }

    /// Nobody waits any more.
    fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.offered.clear();
    }

    /// When somebody may be called next, if anybody waits for it.
    pub(super) fn next(&self) -> Option<Time> {
        let may = !self.waiting.is_empty() && self.has_room();
        may.then_some(self.next_at)
    }

    fn has_room(&self) -> bool {
        self.connecting < MAX_CONNECTING && self.open.len() < MAX_CALLED
    }

    /// Whom to call now. Who rests, or whose torrent has been called for enough, is forgotten until
    /// a tracker names him again.
    fn poll(&mut self, now: Time) -> Option<(InfoHash, SocketAddr)> {
        if self.waiting.is_empty() || now < self.next_at || !self.has_room() {
            return None;
        }
        if self.resting.len() >= MAX_RESTING {
            self.resting.retain(|_, (_, until)| *until > now);
        }
        if self.resting.len() >= MAX_RESTING {
            // To look through all of them costs more than a call: not in every turn of the loop.
            self.next_at = now.after(BETWEEN_CALLS_MS);
            self.forget_waiting();
            return None;
        }
        while let Some((info_hash, peer)) = self.waiting.pop_front() {
            self.offered.remove(&(info_hash, peer));
            let rests = [None, Some(info_hash)].into_iter().any(|torrent| {
                let rest = self.resting.get(&(torrent, peer));
                rest.is_some_and(|(_, until)| *until > now)
            });
            let called = self.per_torrent.get(&info_hash).copied().unwrap_or(0);
            let is_open = self.open.contains(&(info_hash, peer));
            if !rests && !is_open && called < MAX_CALLED_PER_TORRENT {
                self.next_at = now.after(BETWEEN_CALLS_MS);
                return Some((info_hash, peer));
            }
        }
        None
    }

    fn began(&mut self, info_hash: InfoHash, peer: SocketAddr) {
        self.open.insert((info_hash, peer));
        *self.per_torrent.entry(info_hash).or_default() += 1;
        self.connecting += 1;
    }

    /// The handshakes are exchanged.
    pub(super) fn connected(&mut self, called: &Called) {
        self.connecting -= 1;
        self.resting.remove(&(None, called.address));
    }

    /// A connection that was called for has ended; `named` when the handshakes were exchanged.
    pub(super) fn ended(&mut self, called: &Called, named: bool, reason: CloseReason, now: Time) {
        let (info_hash, address) = (called.info_hash, called.address);
        self.open.remove(&(info_hash, address));
        if let Some(count) = self.per_torrent.get_mut(&info_hash) {
            *count -= 1;
            if *count == 0 {
                self.per_torrent.remove(&info_hash);
            }
        }
        if !named {
            self.connecting -= 1;
        }
        let unreachable = matches!(
            reason,
            CloseReason::SocketError(_) | CloseReason::HandshakeTimeout | CloseReason::PeerClosed
        );
        self.rest(
            info_hash,
            address,
            !named && unreachable,
            named && unreachable,
            now,
        );
    }

    /// Leaves an address alone: for all torrents when it could not be connected to, else for this
    /// one; for long unless it may come to want us again soon.
    fn rest(
        &mut self,
        info_hash: InfoHash,
        address: SocketAddr,
        for_all: bool,
        briefly: bool,
        now: Time,
    ) {
        let key = ((!for_all).then_some(info_hash), address);
        let failures = self.resting.get(&key).map_or(0, |(failures, _)| *failures);
        let rest_ms = match (for_all, briefly) {
            (true, _) => (FIRST_REST_MS << failures.min(16)).min(MAX_REST_MS),
            (false, true) => FIRST_REST_MS,
            (false, false) => MAX_REST_MS,
        };
        let failures = failures.saturating_add(u32::from(for_all));
        self.resting.insert(key, (failures, now.after(rest_ms)));
    }
}

impl Called {
    /// Whether this is the torrent that somebody was called for.
    pub(super) fn is_for(&self, info_hash: &InfoHash) -> bool {
        self.info_hash == *info_hash
    }
}

impl Reactor {
    /// Calls peers that trackers have named, as far as the limits allow.
    pub(super) fn dial(&mut self) {
        for (info_hash, peer) in self.shared.announcing.take_peers() {
            self.shared.dialer.offer(info_hash, peer);
        }
        if self.stop_until.is_some() {
            self.shared.dialer.forget_waiting();
        }
        let now = self.shared.now;
        while let Some((info_hash, peer)) = self.shared.dialer.poll(now) {
            self.call(info_hash, peer);
        }
    }

    fn call(&mut self, info_hash: InfoHash, address: SocketAddr) {
        let shared = &mut self.shared;
        let source = shared.announcing.source(address.is_ipv6());
        let Some(source) = source else { return };
        let ip = address.ip();
        let from_address = self.connections.count_from(ip);
        let is_at_capacity = self.connections.len() >= self.connections.max;
        let is_here = from_address > 0 && self.has_peer(ip, &info_hash);
        if is_at_capacity || is_here || from_address >= self.connections.max_per_address {
            return;
        }
        self.shared.counters.called += 1;
        let called = Called { info_hash, address };
        let stream = match net::connect(source, address) {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!("{address}: {error}");
                self.shared.counters.calls_failed += 1;
                let now = self.shared.now;
                self.shared
                    .dialer
                    .rest(info_hash, address, true, false, now);
                return;
            }
        };
        let identity = self.shared.identity;
        let registered = self.register(stream, |key, stream, now| {
            let session = Session::dialled(now, info_hash, identity);
            let transport = Transport::connecting(stream, ip);
            let mut connection = Connection::new(key, transport, session, now);
            connection.called = Some(Box::new(called));
            connection
        });
        if registered {
            self.shared.dialer.began(info_hash, address);
        }
    }

    /// Whether somebody at this address is connected for this torrent, whoever has called.
    fn has_peer(&self, ip: IpAddr, info_hash: &InfoHash) -> bool {
        self.connections.iter().any(|connection| {
            let called = connection.called.as_ref();
            let torrent = connection.torrent.as_ref();
            let is_called = called.is_some_and(|called| called.is_for(info_hash));
            let is_here = torrent.is_some_and(|torrent| torrent.info_hash == *info_hash);
            connection.transport.address() == ip && (is_called || is_here)
        })
    }
}

#[cfg(test)]
mod tests;
