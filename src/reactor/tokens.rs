//! The tokens of the poll: fixed sources, or one connection.

use mio::Token;

use crate::peer::key::PeerKey;

/// The source of a readiness event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A thread has published results.
    Waker,
    /// A signal has come.
    Signals,
    /// The mount table has changed.
    Mounts,
    /// The machine's addresses or routes have changed.
    Network,
    /// The listener with this number.
    Listener(usize),
    /// The UDP socket with this number, where uTP is refused.
    Utp(usize),
    /// A socket to a tracker, by the number that the announcer gave it.
    Tracker(usize),
    /// The status listener.
    Status,
    /// A client of the status listener, by its slot.
    StatusClient(usize),
    /// A peer.
    Peer(PeerKey),
}

/// A slab index that no connection can have: 4 billion descriptors do not exist.
const FIXED: u32 = u32::MAX;
/// Another one, for sockets to trackers.
const TRACKER: u32 = u32::MAX - 1;
const WAKER: usize = 0;
const SIGNALS: usize = 1;
const MOUNTS: usize = 2;
const NETWORK: usize = 3;
const FIRST_LISTENER: usize = 4;
/// Listeners that `--bind` may name; the UDP sockets are numbered after them.
pub(super) const MAX_LISTENERS: usize = 64;
const FIRST_UTP: usize = FIRST_LISTENER + MAX_LISTENERS;
const STATUS: usize = FIRST_UTP + MAX_LISTENERS;
const FIRST_STATUS_CLIENT: usize = STATUS + 1;

impl Source {
    /// The token to register this source with.
    pub(super) fn token(self) -> Token {
        let (high, low) = match self {
            Self::Waker => (WAKER, FIXED),
            Self::Signals => (SIGNALS, FIXED),
            Self::Mounts => (MOUNTS, FIXED),
            Self::Network => (NETWORK, FIXED),
            Self::Listener(number) => (FIRST_LISTENER + number, FIXED),
            Self::Utp(number) => (FIRST_UTP + number, FIXED),
            Self::Tracker(number) => (number, TRACKER),
            Self::Status => (STATUS, FIXED),
            Self::StatusClient(number) => (FIRST_STATUS_CLIENT + number, FIXED),
            Self::Peer(key) => (key.generation as usize, key.index),
        };
        Token(high << 32 | low as usize)
    }

    /// The source that was registered with this token.
    pub(super) fn of(token: Token) -> Self {
        let high = token.0 >> 32;
        // The low half is 32 bits wide.
        #[expect(clippy::cast_possible_truncation)]
        let (index, generation) = (token.0 as u32, high as u32);
        match (index, high) {
            (FIXED, WAKER) => Self::Waker,
            (FIXED, SIGNALS) => Self::Signals,
            (FIXED, MOUNTS) => Self::Mounts,
            (FIXED, NETWORK) => Self::Network,
            (FIXED, STATUS) => Self::Status,
            (FIXED, number) if number >= FIRST_STATUS_CLIENT => {
                Self::StatusClient(number - FIRST_STATUS_CLIENT)
            }
            (FIXED, number) if number >= FIRST_UTP => Self::Utp(number - FIRST_UTP),
            (FIXED, number) => Self::Listener(number.saturating_sub(FIRST_LISTENER)),
            (TRACKER, number) => Self::Tracker(number),
            _ => Self::Peer(PeerKey { index, generation }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::server::MAX_CLIENTS;

    #[test]
    fn every_source_comes_back_from_its_token() {
        let key = PeerKey {
            index: 7,
            generation: u32::MAX,
        };
        let first = PeerKey {
            index: 0,
            generation: 0,
        };
        for source in [
            Source::Waker,
            Source::Signals,
            Source::Mounts,
            Source::Network,
            Source::Listener(0),
            Source::Listener(MAX_LISTENERS - 1),
            Source::Utp(0),
            Source::Utp(5),
            Source::Tracker(0),
            Source::Tracker(200),
            Source::Utp(MAX_LISTENERS - 1),
            Source::Status,
            Source::StatusClient(0),
            Source::StatusClient(MAX_CLIENTS - 1),
            Source::Peer(key),
            Source::Peer(first),
        ] {
            assert_eq!(Source::of(source.token()), source);
        }
    }
}
