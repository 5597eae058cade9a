//! Which torrents have peers, and how much was sent of each.
//!
//! Owns one entry for each such torrent. A connection keeps the slot of its torrent's entry, so that
//! counting costs an addition.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use crate::timers::Time;
use crate::torrent::catalogue::Torrent;
use crate::torrent::id::TorrentId;

/// What "of late" is: bytes are counted by windows of this length, and the last whole one tells.
const WINDOW_MS: u64 = 10_000;

/// A torrent with peers.
pub(super) struct Active {
    pub(super) torrent: Arc<Torrent>,
    pub(super) peers: u32,
    /// Since its first peer came.
    pub(super) sent_bytes: u64,
    window: u64,
    window_bytes: u64,
    last_window_bytes: u64,
}

impl Active {
    /// Bytes a second, of late.
    pub(super) fn rate_bytes(&self, now: Time) -> u64 {
        let bytes = match (now.0 / WINDOW_MS).saturating_sub(self.window) {
            // A window that has just begun tells less than the one before.
            0 => self.last_window_bytes.max(self.window_bytes),
            1 => self.window_bytes,
            _ => 0,
        };
        bytes / (WINDOW_MS / 1000)
    }
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Activity {
    torrents: Slab<Active>,
    /// By [`Torrent::id`].
    slots: HashMap<TorrentId, u32>,
    peers: u64,
}

impl Activity {
    /// A peer has come for this torrent. Returns the torrent's slot, and whether the peer is its only
    /// one.
    pub(super) fn join(&mut self, torrent: &Arc<Torrent>) -> (u32, bool) {
        let torrents = &mut self.torrents;
        let slot = *self.slots.entry(torrent.id).or_insert_with(|| {
            let slot = torrents.insert(Active {
                torrent: Arc::clone(torrent),
                peers: 0,
                sent_bytes: 0,
                window: 0,
                window_bytes: 0,
                last_window_bytes: 0,
            });
            u32::try_from(slot).expect("there are fewer torrents than peers")
        });
        let active = self.active(slot);
        active.peers += 1;
        let is_only = active.peers == 1;
        self.peers += 1;
        (slot, is_only)
    }

    /// The entry in a slot that a connected peer keeps.
    fn active(&mut self, slot: u32) -> &mut Active {
        let active = self.torrents.get_mut(slot as usize);
        active.expect("an entry stays while it has peers")
    }

    /// A peer of the torrent in this slot has gone. Returns the torrent when it was the last one.
    pub(super) fn leave(&mut self, slot: u32) -> Option<Arc<Torrent>> {
        let active = self.active(slot);
        active.peers -= 1;
        let has_peers = active.peers > 0;
        self.peers -= 1;
        if has_peers {
            return None;
        }
        let active = self.torrents.remove(slot as usize);
        self.slots.remove(&active.torrent.id);
        Some(active.torrent)
    }

    /// A peer of the torrent in this slot was sent bytes.
    pub(super) fn sent(&mut self, slot: u32, bytes: u64, now: Time) {
        let active = self.active(slot);
        active.sent_bytes += bytes;
        let window = now.0 / WINDOW_MS;
        if window != active.window {
            let follows = window == active.window + 1;
            active.last_window_bytes = if follows { active.window_bytes } else { 0 };
            active.window_bytes = 0;
            active.window = window;
        }
        active.window_bytes += bytes;
    }

    /// The torrent with this id, when it has peers.
    pub(super) fn find(&self, id: TorrentId) -> Option<&Active> {
        self.torrents.get(*self.slots.get(&id)? as usize)
    }

    /// The torrents that are sent the most of late.
    pub(super) fn busiest(&self, now: Time, limit: usize) -> Vec<&Active> {
        let mut busiest: Vec<&Active> = self.torrents.iter().map(|(_, active)| active).collect();
        let key = |active: &&Active| Reverse((active.rate_bytes(now), active.sent_bytes));
        // Few are wanted of very many, which need not be sorted for that.
        if limit < busiest.len() {
            busiest.select_nth_unstable_by_key(limit, key);
            busiest.truncate(limit);
        }
        busiest.sort_by_key(key);
        busiest
    }

    /// How many torrents have peers.
    pub(super) fn torrents(&self) -> u64 {
        self.torrents.len() as u64
    }

    /// How many peers have named their torrent.
    pub(super) fn peers(&self) -> u64 {
        self.peers
    }
}
