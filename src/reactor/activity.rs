//! Which torrents have peers, how much was sent of each, and what its leechers have.
//!
//! A connection keeps the slot of its torrent's entry, so that counting costs an addition.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use slab::Slab;

use crate::peer::key::PeerKey;
use crate::super_seeding::{SuperSeeding, SuperSeedingMode};
use crate::timers::Time;
use crate::torrent::catalogue::Torrent;
use crate::torrent::id::TorrentId;

/// Rates are averages over a window of this length.
const WINDOW_MS: u64 = 10_000;

/// The most pieces that are counted for super-seeding, of all torrents together: 48 MiB. A torrent whose second
/// leecher comes when there are so many is not super-seeded.
const COUNTED_PIECES_MAX: u64 = 4 << 20;

/// The slot of a torrent with peers in [`Activity`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ActiveSlot(u32);

/// A torrent with peers.
pub(super) struct Active {
    pub(super) torrent: Arc<Torrent>,
    pub(super) peers: u32,
    /// Bytes of blocks since its first peer came.
    pub(super) sent_bytes: u64,
    swarm: SuperSeeding,
    window: u64,
    window_bytes: u64,
    last_window_bytes: u64,
}

impl Active {
    /// Bytes a second, in the last window or in the current one.
    pub(super) fn rate_bytes(&self, now: Time) -> u64 {
        let bytes = match (now.0 / WINDOW_MS).saturating_sub(self.window) {
            // A window that has just begun has less than the one before.
            0 => self.last_window_bytes.max(self.window_bytes),
            1 => self.window_bytes,
            _ => 0,
        };
        bytes / (WINDOW_MS / 1000)
    }
}

/// The torrents with peers.
#[derive(Default)]
pub(super) struct Activity {
    torrents: Slab<Active>,
    slots: HashMap<TorrentId, ActiveSlot>,
    peers: u64,
    /// Leechers that are to be shown every piece.
    to_reveal: Vec<PeerKey>,
    /// The pieces that are counted for super-seeding, of all torrents.
    counted_pieces: u64,
}

impl Activity {
    /// A peer has come for this torrent. Returns the torrent's slot, and whether the peer is its only
    /// one.
    pub(super) fn join(
        &mut self,
        torrent: &Arc<Torrent>,
        mode: SuperSeedingMode,
    ) -> (ActiveSlot, bool) {
        let torrents = &mut self.torrents;
        let slot = *self.slots.entry(torrent.id).or_insert_with(|| {
            let slot = torrents.insert(Active {
                torrent: Arc::clone(torrent),
                peers: 0,
                sent_bytes: 0,
                swarm: SuperSeeding::new(&torrent.shape, mode),
                window: 0,
                window_bytes: 0,
                last_window_bytes: 0,
            });
            ActiveSlot(u32::try_from(slot).expect("there are fewer torrents than peers"))
        });
        let active = self.active(slot);
        active.peers += 1;
        let is_only = active.peers == 1;
        self.peers += 1;
        (slot, is_only)
    }

    /// The entry in a slot that a connected peer keeps.
    fn active(&mut self, slot: ActiveSlot) -> &mut Active {
        let active = self.torrents.get_mut(slot.0 as usize);
        active.expect("an entry stays while it has peers")
    }

    /// Returns true if the next peer of the torrent is to be told that we have nothing.
    pub(super) fn hides(&self, torrent: &Torrent) -> bool {
        self.find(torrent.id)
            .is_some_and(|active| active.swarm.hides())
    }

    /// Does something with what is known of the leechers of the torrent in this slot.
    pub(super) fn swarm<T>(
        &mut self,
        slot: ActiveSlot,
        work: impl FnOnce(&mut SuperSeeding) -> T,
    ) -> T {
        let swarm = &mut self.active(slot).swarm;
        let before = swarm.counted_pieces();
        let answer = work(swarm);
        let (after, to_reveal) = (swarm.counted_pieces(), swarm.take_to_reveal());
        self.counted_pieces += u64::from(after);
        self.counted_pieces -= u64::from(before);
        self.to_reveal.extend(to_reveal);
        answer
    }

    /// A tracker knows another complete peer of the torrent.
    pub(super) fn seed_known(&mut self, torrent: TorrentId) {
        if let Some(slot) = self.slots.get(&torrent) {
            self.swarm(*slot, SuperSeeding::seed_known);
        }
    }

    /// Returns true if there is memory for one more torrent that is super-seeded.
    pub(super) fn may_super_seed(&self) -> bool {
        self.counted_pieces < COUNTED_PIECES_MAX
    }

    /// Returns true if what is sent of the torrent in this slot is of interest for super-seeding.
    pub(super) fn is_super_seeded(&mut self, slot: ActiveSlot) -> bool {
        self.active(slot).swarm.counted_pieces() > 0
    }

    /// Takes the leechers that are to be shown every piece.
    pub(super) fn take_to_reveal(&mut self) -> Vec<PeerKey> {
        mem::take(&mut self.to_reveal)
    }

    /// A peer of the torrent in this slot has gone. Returns the torrent when it was the last one.
    pub(super) fn leave(&mut self, slot: ActiveSlot) -> Option<Arc<Torrent>> {
        let active = self.active(slot);
        active.peers -= 1;
        let has_peers = active.peers > 0;
        self.peers -= 1;
        if has_peers {
            return None;
        }
        let active = self.torrents.remove(slot.0 as usize);
        self.slots.remove(&active.torrent.id);
        Some(active.torrent)
    }

    /// A peer of the torrent in this slot was sent bytes.
    pub(super) fn sent(&mut self, slot: ActiveSlot, bytes: u64, now: Time) {
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
        self.torrents.get(self.slots.get(&id)?.0 as usize)
    }

    /// The torrents with the highest rates.
    pub(super) fn busiest(&self, now: Time, limit: usize) -> Vec<&Active> {
        let mut busiest: Vec<&Active> = self.torrents.iter().map(|(_, active)| active).collect();
        let key = |active: &&Active| Reverse((active.rate_bytes(now), active.sent_bytes));
        // A few of very many: selecting them first is cheaper than sorting all.
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
