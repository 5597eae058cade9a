//! What all connections share, passed down to each in its turn.
//!
//! Owns the parts that the path of a block runs through, as plain fields. It must not know sockets
//! or which connections there are.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mio::{Registry, Waker};

use super::activity::Activity;
use super::announcing::Announcing;
use super::dial::Dialer;
use super::loading::Loads;
use super::outbox::{Body, Outbox};
use crate::choker::Choker;
use crate::config::{Config, Verify};
use crate::library::catalogue::lookup::Library;
use crate::metrics::Counters;
use crate::metrics::history::History;
use crate::peer::key::PeerKey;
use crate::peer::session::Sent;
use crate::rate::{RateLimiter, UPLOAD_BURST};
use crate::storage::{Storage, StorageLimits};
use crate::timers::{Time, Timeouts, Wheel};
use crate::torrent::catalogue::Torrent;
use crate::wire::extension::METADATA_PIECE_LENGTH;
use crate::wire::handshake;
use crate::wire::message::PeerId;

/// The one receive buffer: many thousand requests, or four blocks of what nobody asked for.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// What all connections share, passed down to each in its turn.
pub(super) struct Shared {
    pub(super) now: Time,
    pub(super) library: Library,
    pub(super) loads: Loads,
    pub(super) storage: Storage,
    pub(super) choker: Choker,
    pub(super) announcing: Announcing,
    pub(super) dialer: Dialer,
    pub(super) bucket: RateLimiter,
    /// Who waits until the rate limit has something for metadata, in the order of arrival.
    pub(super) metadata_waits: VecDeque<PeerKey>,
    /// Pieces of metadata that are being read: the rate limit does not know of them yet.
    pub(super) metadata_reading: u64,
    pub(super) wheel: Wheel,
    pub(super) timeouts: Timeouts,
    pub(super) identity: PeerId,
    pub(super) port: u16,
    pub(super) outbox: Outbox,
    /// The parts of the block that is being staged.
    pub(super) bodies: Vec<Body>,
    /// Where every socket is read; a connection keeps only the tail of a half-received message.
    pub(super) buffer: Box<[u8]>,
    pub(super) counters: Counters,
    pub(super) history: History,
    pub(super) activity: Activity,
}

impl Shared {
    /// Everything at its beginning, at time zero, without torrents. The readers wake the loop by
    /// `waker`; `port` is the one that peers are told.
    ///
    /// # Errors
    /// Those of the sockets to trackers.
    pub(super) fn new(
        config: &Config,
        registry: &Registry,
        waker: Arc<Waker>,
        port: u16,
    ) -> io::Result<Self> {
        let now = Time::default();
        let mut storage = Storage::new(Arc::clone(&waker), StorageLimits::DEFAULT);
        if config.library.verify == Verify::Lazy {
            storage.check_pieces();
        }
        let identity = handshake::new_peer_id(std::array::from_fn(|_| fastrand::u8(..)));
        let loads = Loads::new(Arc::clone(&waker));
        let announcing = Announcing::new(config, registry, waker, identity, port)?;
        Ok(Self {
            now,
            library: Library::default(),
            loads,
            storage,
            choker: Choker::new(config.limits.choker),
            bucket: RateLimiter::new(config.limits.max_rate, UPLOAD_BURST, now),
            metadata_waits: VecDeque::new(),
            metadata_reading: 0,
            wheel: Wheel::new(now),
            timeouts: config.timeouts,
            announcing,
            dialer: Dialer::default(),
            identity,
            port,
            outbox: Outbox::default(),
            bodies: Vec::new(),
            buffer: vec![0; RECEIVE_BUFFER_BYTES].into_boxed_slice(),
            counters: Counters::default(),
            history: History::default(),
            activity: Activity::default(),
        })
    }
}

impl Shared {
    /// Enters what a peer was sent, once for all who count it: fairness, the torrent, trackers and
    /// the process.
    pub(super) fn record_sent(
        &mut self,
        key: PeerKey,
        torrent: &Torrent,
        active_slot: u32,
        sent: Sent,
    ) {
        let bytes = sent.payload_bytes;
        self.choker.sent(key, bytes, self.now);
        self.activity.sent(active_slot, bytes, self.now);
        self.announcing.uploaded(torrent, bytes);
        self.counters.payload_bytes += bytes;
        self.counters.blocks += u64::from(sent.blocks);
    }

    /// Whether the rate limit has something for another piece of metadata.
    pub(super) fn metadata_may_go(&mut self) -> bool {
        let pieces = self.metadata_reading.saturating_add(1);
        let bytes = pieces.saturating_mul(METADATA_PIECE_LENGTH.into());
        self.bucket.available(self.now) >= bytes
    }
}
