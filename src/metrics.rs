//! The counters, and a snapshot of them.
//!
//! The loop adds to its own fields, without atomics or locks; a [`Snapshot`] is taken on request.

pub mod history;
pub mod prometheus;
pub mod table;
pub mod trackers;

use crate::peer::close::CloseReason;
use crate::wire::message::InfoHash;

/// Buckets of a [`Histogram`]: the first holds durations below a microsecond, each further one up to
/// twice as long, and the last all above four seconds.
const BUCKETS: usize = 24;

/// A distribution of durations, and the longest of them. Recording one is two additions and a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_us: u64,
    longest_us: u64,
}

impl Histogram {
    /// Records a duration in microseconds.
    pub fn record(&mut self, us: u64) {
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
        self.longest_us = self.longest_us.max(us);
    }

    /// Adds what another has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.longest_us = self.longest_us.max(other.longest_us);
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The longest of them in microseconds; zero without any.
    #[must_use]
    pub fn longest_us(&self) -> u64 {
        self.longest_us
    }

    /// For each bucket, its upper limit in microseconds (exclusive; `None` is no limit) and the
    /// durations in that bucket only.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.counts.iter().enumerate().map(|(bucket, count)| {
            let limit = (bucket + 1 < BUCKETS).then_some(1 << bucket);
            (limit, *count)
        })
    }

    /// An upper limit for this share (0 to 1) of the durations, in microseconds: that of a bucket. Zero
    /// without any durations.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count needs no more than 52 bits"
        )]
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (limit_us, count) in self.buckets() {
            seen += count;
            if seen >= wanted {
                return limit_us.unwrap_or(1 << (BUCKETS - 1)) * u64::from(wanted > 0);
            }
        }
        0
    }
}

/// Sums since the start, kept by the loop.
#[derive(Clone, Default, Debug)]
pub struct Counters {
    /// Connections that got a slot.
    pub accepted: u64,
    /// Peers that were dialled.
    pub called: u64,
    /// Dialled peers with which no handshakes were exchanged.
    pub calls_failed: u64,
    /// Bytes of blocks.
    pub payload_bytes: u64,
    /// Whole blocks.
    pub blocks: u64,
    /// Requests that were rejected.
    pub rejected: u64,
    /// Closed and refused connections by [`CloseReason::index`].
    pub closed: [u64; CloseReason::LABELS.len()],
    /// Connections that are open now.
    pub wires: Wires,
    /// Keys that were exchanged with peers that encrypt their connections.
    pub keys_exchanged: u64,
    /// How long a turn of the loop took, without waiting.
    pub turns: Histogram,
    /// How long the loop's thread had a processor for each turn.
    pub turns_cpu: Histogram,
}

impl Counters {
    /// Counts a connection that was closed or refused.
    pub fn ended(&mut self, reason: CloseReason) {
        // There is a counter for each reason.
        #[expect(clippy::indexing_slicing)]
        let count = &mut self.closed[reason.index()];
        *count += 1;
    }
}

/// Counters of the storage.
#[derive(Clone, Copy, Default, Debug)]
pub struct StorageCounters {
    /// Ranges that were in memory when a peer needed them.
    pub resident: u64,
    /// Ranges that were not, and were handed to a reader.
    pub absent: u64,
    /// Jobs that wait for a reader or a loader now.
    pub queued: u64,
    /// Reader and loader threads now.
    pub readers: u64,
    /// Durations of jobs, including their wait in the queue.
    pub jobs: Histogram,
    /// Mapped files.
    pub mappings: u64,
    /// Counters of hashing; `None` unless pieces are hashed before they are served.
    pub pieces: Option<PieceCounters>,
}

/// Results of hashing pieces before they are served.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PieceCounters {
    /// Hashes that were right.
    pub good: u64,
    /// Hashes that were wrong.
    pub bad: u64,
    /// Pieces that are not served because their hash was wrong.
    pub quarantined: u64,
    /// Pieces that wait to be hashed.
    pub queued: u64,
}

/// The size of the library.
#[derive(Clone, Copy, Default, Debug)]
pub struct LibrarySize {
    /// Torrents served.
    pub torrents: u64,
    /// Torrents and files refused.
    pub refused: u64,
}

/// Connected peers by state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Peers {
    /// Have not completed the handshake.
    pub handshaking: u64,
    /// Not interested.
    pub choked: u64,
    /// Wait for an upload slot.
    pub waiting: u64,
    /// Have an upload slot.
    pub unchoked: u64,
}

impl Peers {
    /// Each count with its label.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("handshaking", self.handshaking),
            ("choked", self.choked),
            ("waiting", self.waiting),
            ("unchoked", self.unchoked),
        ]
    }

    /// The sum of all.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.handshaking + self.choked + self.waiting + self.unchoked
    }
}

/// What the bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// Plain text from the first byte.
    Plain,
    /// Plain text behind an encryption handshake (MSE).
    MsePlaintext,
    /// RC4 behind an encryption handshake (MSE).
    Rc4,
}

/// Connections by wire, once that is known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wires {
    /// See [`Wire::Plain`].
    pub plain: u64,
    /// See [`Wire::MsePlaintext`].
    pub mse_plaintext: u64,
    /// See [`Wire::Rc4`].
    pub rc4: u64,
}

impl Wires {
    /// One more.
    pub fn add(&mut self, wire: Wire) {
        *self.count(wire) += 1;
    }

    /// One less.
    pub fn remove(&mut self, wire: Wire) {
        *self.count(wire) -= 1;
    }

    fn count(&mut self, wire: Wire) -> &mut u64 {
        match wire {
            Wire::Plain => &mut self.plain,
            Wire::MsePlaintext => &mut self.mse_plaintext,
            Wire::Rc4 => &mut self.rc4,
        }
    }

    /// Each count with its label.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 3] {
        [
            ("tcp", self.plain),
            ("tcp_mse_plaintext", self.mse_plaintext),
            ("tcp_mse_rc4", self.rc4),
        ]
    }
}

/// The phase of the process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Phase {
    /// The library is being opened; no peer is served yet.
    #[default]
    Starting,
    /// The first index is being made; no peer is served yet.
    Indexing,
    /// Peers are served.
    Serving,
    /// A stop was requested.
    Stopping,
}

impl Phase {
    /// Its name in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Indexing => "indexing",
            Self::Serving => "serving",
            Self::Stopping => "stopping",
        }
    }
}

/// All figures at one moment. The cost does not depend on the number of peers, torrents and trackers.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// The phase of the process.
    pub phase: Phase,
    /// Metainfo files in the first index so far, while it is made.
    pub indexed_files: Option<u64>,
    /// When the process started, in seconds since 1970.
    pub started_unix_s: u64,
    /// Milliseconds since then.
    pub up_ms: u64,
    /// Sums of the loop.
    pub counters: Counters,
    /// Sums of the storage.
    pub storage: StorageCounters,
    /// The first of the pieces that are not served because their hash was wrong.
    pub bad_pieces: Vec<(InfoHash, u32)>,
    /// The disks that hang, by their mount points, each with seconds since then.
    pub hung_disks: Vec<(String, u64)>,
    /// The size of the library.
    pub library: LibrarySize,
    /// Torrents with a peer.
    pub active_torrents: u64,
    /// Connected peers.
    pub peers: Peers,
    /// Most peers that may be connected.
    pub peers_max: u64,
    /// Upload slots.
    pub slots: u64,
    /// Page faults for which the loop waited for a disk.
    pub late_faults: u64,
    /// Bytes a second in the last seconds.
    pub rate_bytes: u64,
    /// Bytes a second in each of the last minutes, oldest first.
    pub minutes_bytes: [u64; history::MINUTES],
    /// Bytes in the second with the most.
    pub peak_bytes: u64,
    /// The trackers; empty when nothing is announced.
    pub trackers: trackers::Trackers,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_bucket_that_ends_above_it() {
        let mut histogram = Histogram::default();
        for us in [0, 1, 2, 3, 4, 1000, u64::MAX] {
            histogram.record(us);
        }
        let filled: Vec<_> = histogram
            .buckets()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(
            filled,
            [
                (Some(1), 1),
                (Some(2), 1),
                (Some(4), 2),
                (Some(8), 1),
                (Some(1024), 1),
                (None, 1),
            ]
        );
        assert_eq!((histogram.count(), histogram.sum_us()), (7, u64::MAX));
    }

    #[test]
    fn a_quantile_is_the_limit_of_its_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_us(0.99), 0);
        for _ in 0..99 {
            histogram.record(3);
        }
        histogram.record(5000);
        assert_eq!(histogram.quantile_us(0.5), 4);
        assert_eq!(histogram.quantile_us(0.99), 4);
        assert_eq!(histogram.quantile_us(1.0), 8192);
    }
}
