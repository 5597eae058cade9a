//! The counters, and a snapshot of them.
//!
//! Owns plain numbers: the loop adds to its own fields, without atomics or locks, and a
//! [`Snapshot`] is taken when somebody asks. It must not know where the numbers come from.

pub mod history;
pub mod prometheus;
pub mod table;
pub mod trackers;

use crate::peer::close::CloseReason;
use crate::wire::message::InfoHash;

/// Buckets of a [`Histogram`]: the first holds what took less than a microsecond, each further one
/// up to twice as long, and the last whatever took longer than four seconds.
const BUCKETS: usize = 24;

/// How often something took how long. Recording is two additions and an increment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Histogram {
    /// Counts something that took so many microseconds.
    pub fn record(&mut self, us: u64) {
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Adds what another has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// How much was counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Microseconds in all.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Each bucket with what took less than so many microseconds; `None` is no limit. The counts
    /// are of each bucket alone.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.counts.iter().enumerate().map(|(bucket, count)| {
            let limit = (bucket + 1 < BUCKETS).then_some(1 << bucket);
            (limit, *count)
        })
    }

    /// Below how many microseconds this share of all stayed, to the next bucket's limit. Zero when
    /// nothing was counted.
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

/// Sums since the start, which the loop adds to.
#[derive(Clone, Default, Debug)]
pub struct Counters {
    /// Connections that were given a place.
    pub accepted: u64,
    /// Peers that were called.
    pub called: u64,
    /// Calls that did not come to an exchange of handshakes.
    pub calls_failed: u64,
    /// Bytes of blocks.
    pub payload_bytes: u64,
    /// Whole blocks.
    pub blocks: u64,
    /// Requests that were answered by a reject.
    pub rejected: u64,
    /// Ends of connections, as [`CloseReason::index`] numbers them; among them the refusals of
    /// those that were given no place.
    pub closed: [u64; CloseReason::LABELS.len()],
    /// How long a turn of the loop took, without waiting.
    pub turns: Histogram,
}

impl Counters {
    /// A connection has ended, or was given no place.
    pub fn ended(&mut self, reason: CloseReason) {
        // There is a counter for each reason.
        #[expect(clippy::indexing_slicing)]
        let count = &mut self.closed[reason.index()];
        *count += 1;
    }
}

/// What the storage counts.
#[derive(Clone, Copy, Default, Debug)]
pub struct StorageCounters {
    /// Questions whether a range is in memory that were answered by yes.
    pub resident: u64,
    /// Ranges that were handed to a reader.
    pub absent: u64,
    /// Jobs that wait for a reader or a loader now.
    pub queued: u64,
    /// Reader and loader threads now.
    pub readers: u64,
    /// How long a job took, from being queued to being done.
    pub jobs: Histogram,
    /// Files that are mapped now.
    pub mappings: u64,
    /// What is counted when pieces are hashed before they are served.
    pub pieces: Option<PieceCounters>,
}

/// What hashing pieces before they are served has found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PieceCounters {
    /// How often a piece had the right hash.
    pub good: u64,
    /// How often it had another.
    pub bad: u64,
    /// Pieces that are not served because of that now.
    pub quarantined: u64,
    /// Pieces that wait to be hashed.
    pub queued: u64,
}

/// What is served.
#[derive(Clone, Copy, Default, Debug)]
pub struct LibrarySize {
    /// Torrents that are served.
    pub torrents: u64,
    /// Torrents and files that are refused.
    pub refused: u64,
}

/// Connected peers by what they are doing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Peers {
    /// Have not completed the handshake.
    pub handshaking: u64,
    /// Want nothing now.
    pub choked: u64,
    /// Wait for an upload slot.
    pub waiting: u64,
    /// Have an upload slot.
    pub unchoked: u64,
}

impl Peers {
    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("handshaking", self.handshaking),
            ("choked", self.choked),
            ("waiting", self.waiting),
            ("unchoked", self.unchoked),
        ]
    }

    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.handshaking + self.choked + self.waiting + self.unchoked
    }
}

/// What is going on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Phase {
    /// The library is being opened; nobody is served yet.
    #[default]
    Starting,
    /// There was no index, and it is being made; nobody is served yet.
    Indexing,
    /// Peers are served.
    Serving,
    /// A stop was asked for.
    Stopping,
}

impl Phase {
    /// One word for it.
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

/// Everything at one moment. Taking it costs the same however many peers, torrents and
/// trackers there are.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// What is going on.
    pub phase: Phase,
    /// Metainfo files that are in the index so far, while it is being made at the start.
    pub indexed_files: Option<u64>,
    /// Seconds since 1970 when the process started.
    pub started_unix_s: u64,
    /// Milliseconds since then.
    pub up_ms: u64,
    /// Sums of the loop.
    pub counters: Counters,
    /// Sums of the storage.
    pub storage: StorageCounters,
    /// The first of the pieces that are not served because they are not what their hashes say.
    pub bad_pieces: Vec<(InfoHash, u32)>,
    /// What is served.
    pub library: LibrarySize,
    /// Torrents with a peer.
    pub active_torrents: u64,
    /// Connected peers.
    pub peers: Peers,
    /// How many may be connected.
    pub peers_max: u64,
    /// How many may be served at the same time.
    pub slots: u64,
    /// How often the loop itself has waited for a page.
    pub late_faults: u64,
    /// Bytes a second, of late.
    pub rate_bytes: u64,
    /// Bytes a second in each of the last minutes, oldest first.
    pub minutes_bytes: [u64; history::MINUTES],
    /// Bytes in that second of them that had the most.
    pub peak_bytes: u64,
    /// How the trackers do; nothing when none is told.
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
