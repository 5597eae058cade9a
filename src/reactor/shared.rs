//! The parts that every connection works with: those of its loop, and those of the process.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use mio::{Registry, Waker};

use super::activity::{ActiveSlot, Activity};
use super::announcing::Announcing;
use super::dial::Dialer;
use super::key_exchanges::KeyExchanges;
use super::loading::Loads;
use super::metadata::MetadataLines;
use super::outbox::{Body, Outbox};
use super::transport::UNSENT_MAX;
use crate::choker::Choker;
use crate::config::{Config, Encryption, Verify};
use crate::disks::Disks;
use crate::library::catalogue::lookup::Library;
use crate::metrics::Counters;
use crate::metrics::history::History;
use crate::peer::key::PeerKey;
use crate::peer::session::Sent;
use crate::rate::{RateLimiter, UPLOAD_BURST};
use crate::storage::{Storage, StorageLimits};
use crate::super_seeding::SuperSeedingMode;
use crate::sys::copies::Copies;
use crate::timers::{Alarms, Time, Timeouts};
use crate::torrent::catalogue::Torrent;
use crate::wire::decoder::MAX_TAIL;
use crate::wire::handshake;
use crate::wire::message::PeerId;

/// Received from a peer at once: as many requests as bring 7 MB of blocks. More would let each flooding
/// peer take longer, and have longer answers. Unit: bytes.
pub(super) const RECEIVE_AT_ONCE_BYTES: usize = 8 * 1024;

/// The parts of one loop. A second loop would have its own, except for `process`.
pub(super) struct Shared {
    /// The time of this turn. The clock is read once, after the wait.
    pub(super) now: Time,
    pub(super) choker: Choker,
    pub(super) alarms: Alarms,
    pub(super) counters: Counters,
    pub(super) metadata: MetadataLines,
    pub(super) random: Rng,
    /// Where every socket is read; a connection keeps only the tail of a half-received message.
    pub(super) buffer: Box<[u8]>,
    pub(super) outbox: Outbox,
    /// Where bytes of mapped files are copied to be enciphered.
    pub(super) copies: Copies,
    pub(super) key_exchanges: KeyExchanges,
    /// The parts of the block that is being staged.
    pub(super) bodies: Vec<Body>,
    pub(super) process: Process,
}

/// The parts that a process has once, for any number of loops. ARCHITECTURE says why for each.
pub(super) struct Process {
    pub(super) library: Library,
    pub(super) disks: Disks,
    pub(super) loads: Loads,
    pub(super) storage: Storage,
    pub(super) announcing: Announcing,
    pub(super) dialer: Dialer,
    /// The upload limit (`--max-rate`).
    pub(super) bucket: RateLimiter,
    pub(super) activity: Activity,
    pub(super) history: History,
    pub(super) identity: PeerId,
    pub(super) super_seeding: SuperSeedingMode,
    pub(super) encryption: Encryption,
    /// The port that peers learn from our extension handshake.
    pub(super) port: u16,
    pub(super) timeouts: Timeouts,
}

impl Shared {
    /// Creates everything at time zero, without torrents. Threads wake the loop by `waker`.
    ///
    /// # Errors
    ///
    /// Those of the sockets to trackers, and of memory for copies.
    pub(super) fn new(
        config: &Config,
        registry: &Registry,
        waker: Arc<Waker>,
        port: u16,
    ) -> io::Result<Self> {
        let now = Time::default();
        Ok(Self {
            now,
            choker: Choker::new(config.limits.choker),
            alarms: Alarms::new(now),
            counters: Counters::default(),
            metadata: MetadataLines::default(),
            random: Rng::new(),
            buffer: vec![0; MAX_TAIL + RECEIVE_AT_ONCE_BYTES].into_boxed_slice(),
            outbox: Outbox::default(),
            copies: Copies::new(UNSENT_MAX)?,
            key_exchanges: KeyExchanges::new(Instant::now()),
            bodies: Vec::new(),
            process: Process::new(config, registry, waker, port)?,
        })
    }

    /// Counts what a peer was sent: for fairness, metrics and trackers.
    pub(super) fn record_sent(
        &mut self,
        key: PeerKey,
        torrent: &Torrent,
        active_slot: ActiveSlot,
        sent: Sent,
    ) {
        let bytes = sent.payload_bytes;
        self.choker.sent(key, bytes, sent.blocks, self.now);
        self.counters.payload_bytes += bytes;
        self.counters.blocks += u64::from(sent.blocks);
        self.process.activity.sent(active_slot, bytes, self.now);
        self.process.announcing.uploaded(torrent, bytes);
    }
}

impl Process {
    fn new(config: &Config, registry: &Registry, waker: Arc<Waker>, port: u16) -> io::Result<Self> {
        let disks = Disks::read();
        let mut storage = Storage::new(Arc::clone(&waker), StorageLimits::DEFAULT, disks.clone());
        if config.library.verify == Verify::Lazy {
            storage.check_pieces();
        }
        let identity = handshake::new_peer_id(std::array::from_fn(|_| fastrand::u8(..)));
        let loads = Loads::new(Arc::clone(&waker), disks.clone());
        let announcing = Announcing::new(config, registry, waker, identity, port)?;
        let max_rate = config.limits.max_rate;
        Ok(Self {
            library: Library::default(),
            disks,
            loads,
            storage,
            announcing,
            dialer: Dialer::new(config.network.encryption),
            bucket: RateLimiter::new(max_rate, UPLOAD_BURST, Time::default()),
            activity: Activity::default(),
            history: History::default(),
            identity,
            super_seeding: config.limits.super_seeding,
            encryption: config.network.encryption,
            port,
            timeouts: config.timeouts,
        })
    }
}
