//! Dialling peers: which, when, how, and which not again for a while.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::config::Encryption;
use crate::peer::close::CloseReason;
use crate::timers::Time;
use crate::wire::message::InfoHash;

/// Connections that are being made at the same time: most peers that a tracker names are gone, and each
/// is waited for as long as a handshake may take.
const MAX_CONNECTING: usize = 32;

/// Dialled connections of all torrents together. The other slots are for peers that connect to us.
const MAX_DIALLED: usize = 256;

/// The same for one torrent.
const MAX_DIALLED_PER_TORRENT: usize = 16;

/// Between two connections: 20 a second, which no router takes for an attack.
const DIAL_INTERVAL_MS: u64 = 50;

/// Peers that wait to be dialled.
const MAX_WAITING: usize = 4096;

/// The first back-off of an address that could not be connected to. It doubles.
const FIRST_BACKOFF_MS: u64 = 60_000;

/// The longest back-off, and that of peers that want nothing from us: seeds, ourselves, other torrents.
const MAX_BACKOFF_MS: u64 = 60 * 60 * 1000;

/// Back-offs that are remembered. When these are used up, no new peer is dialled.
const MAX_BACKOFFS: usize = 16_384;

/// A peer that was dialled: kept until the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Dialled {
    pub(super) info_hash: InfoHash,
    pub(super) address: SocketAddr,
    pub(super) attempt: Attempt,
}

/// How a peer is dialled. Most take plain text, and that costs both sides less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// In plain text.
    Plain,
    /// Encrypted, since the peer closed a plain connection without a byte, or since it is required.
    Encrypted,
    /// Encrypted with another key: libtorrent before 2.0.13 misunderstands one in 256.
    EncryptedAgain,
}

/// How far a dialled connection came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reached {
    /// Nothing was received.
    Nothing,
    /// The encryption handshake was begun.
    Keys,
    /// What the bytes are was known.
    Stream,
    /// The handshakes were exchanged.
    Open,
}

/// An address, for one torrent or for all.
type BackoffKey = (Option<InfoHash>, SocketAddr);

/// Why an address is not dialled for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BackoffReason {
    /// It could not be connected to: for all torrents, and each time for longer.
    Unreachable,
    /// It disconnected, and may want this torrent again soon.
    Disconnected,
    /// It wants nothing of this torrent.
    NotInterested,
}

/// Peers that are to be dialled.
#[derive(Default)]
pub(super) struct Dialer {
    encryption: Encryption,
    waiting: VecDeque<(InfoHash, SocketAddr)>,
    /// Those that are dialled once more, in another way.
    again: VecDeque<Dialled>,
    /// The same as a set, since a tracker may name thousands again and again.
    offered: HashSet<(InfoHash, SocketAddr)>,
    open: HashSet<(InfoHash, SocketAddr)>,
    per_torrent: HashMap<InfoHash, usize>,
    /// Failures in a row, and the end of the back-off.
    backoffs: HashMap<BackoffKey, (u32, Time)>,
    connecting: usize,
    next_at: Time,
}

impl Dialer {
    /// Nobody is dialled yet.
    pub(super) fn new(encryption: Encryption) -> Self {
        Self {
            encryption,
            ..Self::default()
        }
    }

    /// A tracker has named a peer.
    pub(super) fn offer(&mut self, info_hash: InfoHash, peer: SocketAddr) {
        let candidate = (info_hash, peer);
        let has_room = self.waiting.len() < MAX_WAITING;
        if has_room && !self.open.contains(&candidate) && self.offered.insert(candidate) {
            self.waiting.push_back(candidate);
        }
    }

    /// Forgets the peers that wait.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.again.clear();
        self.offered.clear();
    }

    /// When to dial the next peer, if any waits.
    pub(super) fn poll_at(&self) -> Option<Time> {
        let waits = !self.waiting.is_empty() || !self.again.is_empty();
        let may = waits && self.has_room();
        may.then_some(self.next_at)
    }

    fn has_room(&self) -> bool {
        self.connecting < MAX_CONNECTING && self.open.len() < MAX_DIALLED
    }

    /// The peer to dial now. A peer that backs off, or whose torrent has enough connections, is
    /// forgotten until a tracker names it again.
    pub(super) fn poll(&mut self, now: Time) -> Option<Dialled> {
        if self.poll_at().is_none_or(|at| now < at) {
            return None;
        }
        if let Some(dialled) = self.again.pop_front() {
            self.next_at = now.after(DIAL_INTERVAL_MS);
            return Some(dialled);
        }
        if self.backoffs.len() >= MAX_BACKOFFS {
            self.backoffs.retain(|_, (_, until)| *until > now);
        }
        if self.backoffs.len() >= MAX_BACKOFFS {
            // Walking through all of them costs more than a connection: not in every turn of the loop.
            self.next_at = now.after(DIAL_INTERVAL_MS);
            self.forget_waiting();
            return None;
        }
        while let Some((info_hash, peer)) = self.waiting.pop_front() {
            self.offered.remove(&(info_hash, peer));
            let backs_off = [None, Some(info_hash)].into_iter().any(|torrent| {
                let backoff = self.backoffs.get(&(torrent, peer));
                backoff.is_some_and(|(_, until)| *until > now)
            });
            let dialled = self.per_torrent.get(&info_hash).copied().unwrap_or(0);
            let is_open = self.open.contains(&(info_hash, peer));
            if !backs_off && !is_open && dialled < MAX_DIALLED_PER_TORRENT {
                self.next_at = now.after(DIAL_INTERVAL_MS);
                return Some(Dialled {
                    info_hash,
                    address: peer,
                    attempt: match self.encryption {
                        Encryption::Require => Attempt::Encrypted,
                        Encryption::Accept | Encryption::Off => Attempt::Plain,
                    },
                });
            }
        }
        None
    }

    /// A connection is being made.
    pub(super) fn started(&mut self, info_hash: InfoHash, peer: SocketAddr) {
        self.open.insert((info_hash, peer));
        *self.per_torrent.entry(info_hash).or_default() += 1;
        self.connecting += 1;
    }

    /// The handshakes are exchanged.
    pub(super) fn connected(&mut self, peer: &Dialled) {
        self.connecting -= 1;
        self.backoffs.remove(&(None, peer.address));
    }

    /// A connection has ended.
    pub(super) fn ended(
        &mut self,
        peer: &Dialled,
        reached: Reached,
        reason: CloseReason,
        now: Time,
    ) {
        let Dialled {
            info_hash,
            address,
            attempt,
        } = *peer;
        let was_open = reached == Reached::Open;
        assert!(self.open.remove(&(info_hash, address)), "it was dialled");
        let count = self.per_torrent.get_mut(&info_hash);
        let count = count.expect("an open connection is counted");
        *count -= 1;
        if *count == 0 {
            self.per_torrent.remove(&info_hash);
        }
        if !was_open {
            self.connecting -= 1;
        }
        let is_closed = matches!(
            reason,
            CloseReason::PeerClosed | CloseReason::SocketError(ErrorKind::ConnectionReset)
        );
        let next = match (attempt, reached) {
            _ if self.encryption == Encryption::Off => None,
            (Attempt::Plain, Reached::Nothing) => Some(Attempt::Encrypted),
            (Attempt::Encrypted, Reached::Keys) => Some(Attempt::EncryptedAgain),
            _ => None,
        };
        if let Some(attempt) = next.filter(|_| is_closed && self.again.len() < MAX_WAITING) {
            self.again.push_back(Dialled { attempt, ..*peer });
            return;
        }
        let is_lost = matches!(
            reason,
            CloseReason::SocketError(_) | CloseReason::HandshakeTimeout | CloseReason::PeerClosed
        );
        let reason = match (is_lost, was_open) {
            (true, false) => BackoffReason::Unreachable,
            (true, true) => BackoffReason::Disconnected,
            (false, _) => BackoffReason::NotInterested,
        };
        self.back_off(info_hash, address, reason, now);
    }

    /// Does not dial an address for a while.
    pub(super) fn back_off(
        &mut self,
        info_hash: InfoHash,
        address: SocketAddr,
        reason: BackoffReason,
        now: Time,
    ) {
        let is_for_all = reason == BackoffReason::Unreachable;
        let key = ((!is_for_all).then_some(info_hash), address);
        let failures = self.backoffs.get(&key).map_or(0, |(failures, _)| *failures);
        let backoff_ms = match reason {
            BackoffReason::Unreachable => {
                (FIRST_BACKOFF_MS << failures.min(16)).min(MAX_BACKOFF_MS)
            }
            BackoffReason::Disconnected => FIRST_BACKOFF_MS,
            BackoffReason::NotInterested => MAX_BACKOFF_MS,
        };
        let failures = failures.saturating_add(u32::from(is_for_all));
        self.backoffs.insert(key, (failures, now.after(backoff_ms)));
    }
}

#[cfg(test)]
mod tests;
