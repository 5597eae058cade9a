//! Why a connection ends: the one table of reasons, for the log, the metrics and the manual.

use thiserror::Error;

use crate::mse::MseError;
use crate::wire::decoder::DecodeError;

/// Makes [`CloseReason`] from a table: variant, label of the metric, text of the log, and what
/// causes it, for the manual. Labels are an interface: they never change.
macro_rules! close_reasons {
    ($($(#[$doc:meta])* $variant:ident $(($value:ty))?, $label:literal, $text:literal, $cause:literal;)*) => {
        /// What ended a connection.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
        #[expect(missing_docs, reason = "the text says it")]
        pub enum CloseReason {
            $($(#[$doc])* #[error($text)] $variant $(($value))?,)*
        }

        /// The rows of the table by their position.
        enum Row { $($variant),* }

        impl CloseReason {
            /// The labels under which reasons are counted, in the order of the table.
            pub const LABELS: &[&str] = &[$($label),*];

            /// The position in [`CloseReason::LABELS`].
            #[must_use]
            pub fn index(&self) -> usize {
                match self {
                    $(Self::$variant { .. } => Row::$variant as usize,)*
                }
            }
        }

        /// Label, text and cause of each reason.
        const TABLE: &[(&str, &str, &str)] = &[$(($label, $text, $cause)),*];
    };
}

close_reasons! {
    NotBitTorrent, "not_bittorrent", "not a BitTorrent handshake",
        "a port scan; with `--encryption off` also a client that encrypts its connection (it then tries plain text)";
    UnknownTorrent, "unknown_torrent", "asked for a torrent that is not served",
        "the peer has an old address, or the torrent is refused or was removed";
    /// The peer's id is ours.
    OurselvesConnected, "ourselves_connected", "is this process itself",
        "a tracker or a peer passed on Hekate's own address";
    /// Bytes that are not a message.
    BadMessage(DecodeError), "bad_message", "sent a malformed message: {0}",
        "a broken or hostile peer";
    /// A message that is not allowed in this state, or not with this content.
    IllegalMessage(&'static str), "illegal_message", "sent an illegal message: {0}",
        "a broken or hostile peer";
    /// A request outside the torrent, or of a length that is not served.
    IllegalRequest, "illegal_request", "sent an invalid request",
        "a broken or hostile peer";
    PeerIsSeed, "peer_is_seed", "has become a seed", "none: the peer is done";
    /// BEP 21.
    PeerUploadOnly, "peer_upload_only", "only uploads", "none: the peer is done";
    HandshakeTimeout, "handshake_timeout", "did not complete the handshake in time",
        "a port scan, a dead connection, or an attack";
    /// A message was begun and not completed in time.
    MessageTimeout, "message_timeout", "did not complete a message in time",
        "a dead connection, or an attack";
    IdleTimeout, "idle_timeout", "was silent for too long",
        "a dead connection, or a peer that has stopped";
    WriteTimeout, "write_timeout", "stopped reading",
        "a dead connection, or a peer that has stopped";
    AtCapacity, "house_full", "found no free connection slot",
        "as many peers are connected as may be: `--max-peers`";
    TooManyFromAddress, "too_many_from_address", "has too many connections from its address",
        "`--max-peers-per-ip`";
    /// Hekate is at capacity, others wait, and the peer has had its turn.
    TurnOver, "turn_over", "used up its turn while others were waiting to connect",
        "as many peers are connected as may be; the peer may come back: `--max-peers`";
    SlotUnused, "slot_unused", "held an upload slot without asking for anything",
        "an idle or broken peer";
    /// Hekate is at capacity, and the peer has not been interested for a while.
    IdleAtCapacity, "bystander", "wanted nothing while no connection slot was free",
        "the peer needed nothing for 10 s, and its connection slot goes to another: `--max-peers`";
    /// Hekate is at capacity, and a connection from elsewhere has a better claim.
    GaveWay, "gave_way", "gave its connection slot to another peer",
        "as many peers are connected as may be; the peer did not complete its handshake, or its address or network has more connections than others: `--max-peers`";
    /// Too many messages that brought nobody anything.
    Flooded, "flooded", "sent too many futile messages", "a broken or hostile peer";
    PeerClosed, "peer_closed", "closed the connection", "the peer left";
    SocketError(std::io::ErrorKind), "socket_error", "socket failed: {0}",
        "the network; a reset by the peer is the usual case";
    /// Content could not be read, and the peer does not support rejects (BEP 6).
    ContentFailed, "content_failed", "asked for content that could not be read",
        "the disk: look for warnings about the content";
    TorrentRemoved, "torrent_removed", "was connected for a torrent that is no longer served",
        "the torrent was removed, or is refused now";
    Shutdown, "shutdown", "was connected when the daemon stopped", "the program was stopped";
    /// The encryption handshake cannot go on (MSE).
    EncryptionFailed(MseError), "encryption_failed", "began no encrypted connection: {0}",
        "a broken or hostile peer, or a port scan";
    NotEncrypted, "not_encrypted", "did not encrypt its connection",
        "`--encryption require`, and a client that does not encrypt, or tries plain text first";
    /// Of those that wait for an exchange of keys.
    TooManyKeys, "too_many_keys", "encrypted its connection while too many others did",
        "an attack, or a great crowd; clients that only prefer encryption then try plain text";
}

impl CloseReason {
    /// The label under which it is counted.
    #[must_use]
    pub fn label(&self) -> &'static str {
        // The macro makes an index for each label.
        #[expect(clippy::indexing_slicing)]
        Self::LABELS[self.index()]
    }
}

/// The table of the manual, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut table = String::from("| `reason` | line of the log | cause |\n|---|---|---|\n");
    for (label, text, cause) in TABLE {
        let text = text.trim_end_matches(": {0}");
        table.push_str(&format!("| `{label}` | `{text}` | {cause} |\n"));
    }
    table
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
        assert_eq!(reason.label(), "not_bittorrent");
    }

    #[test]
    fn each_reason_has_its_own_label() {
        let mut labels = CloseReason::LABELS.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::LABELS.len());
        assert_eq!(CloseReason::AtCapacity.label(), "house_full");
        assert_eq!(CloseReason::IdleAtCapacity.label(), "bystander");
        assert_eq!(CloseReason::Shutdown.label(), "shutdown");
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
