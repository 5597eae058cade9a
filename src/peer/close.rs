//! Why a connection ends: one list for every layer, so that each end is counted and logged once.
//!
//! Owns the names only. It must not know who noticed, or what is to be done about it.

use thiserror::Error;

use crate::wire::decoder::DecodeError;

/// What ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CloseReason {
    /// The first bytes were no BitTorrent handshake: another protocol, or an encrypted one.
    #[error("not a BitTorrent handshake")]
    NotBitTorrent,
    /// The handshake named a torrent that is not served here.
    #[error("asks for a torrent that is not served")]
    UnknownTorrent,
    /// The peer's id is ours: we have connected to ourselves.
    #[error("is this very process")]
    OurselvesConnected,
    /// Bytes that are no message.
    #[error("sent bytes that are no message: {0}")]
    BadMessage(DecodeError),
    /// A message that is not allowed now, or not with this content.
    #[error("sent an illegal message: {0}")]
    IllegalMessage(&'static str),
    /// A request outside the torrent, or of a length that is not served.
    #[error("asked for a block that cannot be")]
    IllegalRequest,
    /// The peer has the whole torrent and needs nothing from a seeder.
    #[error("has become a seed")]
    PeerIsSeed,
    /// The peer says that it wants nothing (BEP 21).
    #[error("only uploads")]
    PeerUploadOnly,
    /// The handshake was not completed in time.
    #[error("did not complete the handshake in time")]
    HandshakeTimeout,
    /// A message was begun and not completed in time.
    #[error("did not complete a message in time")]
    MessageTimeout,
    /// Nothing came from the peer for too long.
    #[error("was silent for too long")]
    IdleTimeout,
    /// The peer took nothing of what waited for it for too long.
    #[error("did not read for too long")]
    WriteTimeout,
    /// There is no place for another connection.
    #[error("found the house full")]
    HouseFull,
    /// Its address holds as many connections as one may.
    #[error("has too many connections from its address")]
    TooManyFromAddress,
    /// The house is full, others wait, and the peer has had its turn.
    #[error("has had its turn while others wait")]
    TurnOver,
    /// The peer held upload slots and asked for nothing.
    #[error("held an upload slot without asking for anything")]
    SlotUnused,
    /// The house is full and the peer has wanted nothing for a while.
    #[error("wanted nothing while the house was full")]
    Bystander,
    /// The peer closed the connection.
    #[error("closed the connection")]
    PeerClosed,
    /// The socket failed.
    #[error("socket failed: {0}")]
    SocketError(std::io::ErrorKind),
    /// The content could not be read, and the peer cannot be told in another way.
    #[error("asked for content that could not be read")]
    ContentFailed,
    /// The torrent is no longer served.
    #[error("was on a torrent that is no longer served")]
    TorrentRemoved,
    /// The program ends.
    #[error("was served until the program ended")]
    Shutdown,
}

impl CloseReason {
    /// The names under which they are counted: constant, lower case, words joined by `_`.
    pub const NAMES: [&'static str; 22] = [
        "not_bittorrent",
        "unknown_torrent",
        "ourselves_connected",
        "bad_message",
        "illegal_message",
        "illegal_request",
        "peer_is_seed",
        "peer_upload_only",
        "handshake_timeout",
        "message_timeout",
        "idle_timeout",
        "write_timeout",
        "house_full",
        "too_many_from_address",
        "turn_over",
        "slot_unused",
        "peer_closed",
        "socket_error",
        "content_failed",
        "torrent_removed",
        "shutdown",
        "bystander",
    ];

    /// The place among [`CloseReason::NAMES`].
    #[must_use]
    pub fn number(&self) -> usize {
        match self {
            Self::NotBitTorrent => 0,
            Self::UnknownTorrent => 1,
            Self::OurselvesConnected => 2,
            Self::BadMessage(_) => 3,
            Self::IllegalMessage(_) => 4,
            Self::IllegalRequest => 5,
            Self::PeerIsSeed => 6,
            Self::PeerUploadOnly => 7,
            Self::HandshakeTimeout => 8,
            Self::MessageTimeout => 9,
            Self::IdleTimeout => 10,
            Self::WriteTimeout => 11,
            Self::HouseFull => 12,
            Self::TooManyFromAddress => 13,
            Self::TurnOver => 14,
            Self::SlotUnused => 15,
            Self::PeerClosed => 16,
            Self::SocketError(_) => 17,
            Self::ContentFailed => 18,
            Self::TorrentRemoved => 19,
            Self::Shutdown => 20,
            Self::Bystander => 21,
        }
    }

    /// The name under which it is counted.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        Self::NAMES.get(self.number()).copied().unwrap_or("unknown")
    }
}

impl From<DecodeError> for CloseReason {
    /// A handshake of another protocol has its own name: it says nothing against the peer.
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::NotBitTorrent => Self::NotBitTorrent,
            other => Self::BadMessage(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_protocol_is_not_counted_as_a_bad_message() {
        let reason = CloseReason::from(DecodeError::NotBitTorrent);
        assert_eq!(reason, CloseReason::NotBitTorrent);
        assert_eq!(reason.as_str(), "not_bittorrent");
    }

    #[test]
    fn each_reason_has_its_own_name() {
        let mut names = CloseReason::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CloseReason::NAMES.len());
        assert_eq!(CloseReason::HouseFull.as_str(), "house_full");
        assert_eq!(
            CloseReason::Bystander.number() + 1,
            CloseReason::NAMES.len()
        );
    }

    #[test]
    fn a_reason_reads_as_the_end_of_a_line_about_the_peer() {
        let reason = CloseReason::SocketError(std::io::ErrorKind::ConnectionReset);
        assert_eq!(reason.to_string(), "socket failed: connection reset");
        assert_eq!(
            CloseReason::IllegalMessage("have-all without Fast").to_string(),
            "sent an illegal message: have-all without Fast"
        );
    }
}
