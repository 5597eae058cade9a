//! Connecting to peers: which, when, and which not again for a while.
//!
//! Owns the limits of calling and what is remembered of those who were called. A connection that was
//! made so is one like another once the handshakes are exchanged. It must not know trackers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use crate::peer::close::CloseReason;
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
    pub(super) info_hash: InfoHash,
    pub(super) address: SocketAddr,
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
    pub(super) fn forget_waiting(&mut self) {
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
    pub(super) fn poll(&mut self, now: Time) -> Option<(InfoHash, SocketAddr)> {
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

    /// A connection is being made.
    pub(super) fn began(&mut self, info_hash: InfoHash, peer: SocketAddr) {
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
    pub(super) fn rest(
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

#[cfg(test)]
mod tests;
