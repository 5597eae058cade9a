//! Reads how the slots use the line, for [`AutoSlots`].

use std::collections::HashMap;

use super::connection::{Connection, Wait};
use super::connections::Connections;
use super::shared::Shared;
use crate::choker::slots::{AutoSlots, Reading};
use crate::peer::key::PeerKey;
use crate::sys::TcpLoad;
use crate::timers::Time;

/// How long between two readings while slots are being opened: long enough for a peer to answer, and
/// short enough that a thousand slow peers are served within a third of a second.
const OPENING_MS: u64 = 25;

/// The same otherwise.
const STEADY_MS: u64 = 250;

/// With very many slots readings are rarer: each takes a system call for each slot, and may cost a
/// tenth of a core.
const SLOTS_FOR_EACH_MS: u64 = 50;

/// How long a peer may take from its unchoke to its first request: a round trip over a busy line.
const FIRST_REQUEST_MS: u64 = 300;

/// Decides the number of slots from readings.
#[derive(Default)]
pub(super) struct SlotControl {
    auto: AutoSlots,
    /// The last load of each slot, and of peers without one whose sockets hold something.
    loads: HashMap<PeerKey, TcpLoad>,
    read_at: Time,
}

impl SlotControl {
    /// When a reading is due; None while nobody waits for a slot.
    pub(super) fn poll_at(&self, shared: &Shared) -> Option<Time> {
        (shared.choker.waiting() > 0).then_some(self.read_at)
    }

    /// Takes a reading if one is due, and sets the number of slots.
    pub(super) fn run_due(&mut self, connections: &Connections, shared: &mut Shared) {
        let now = shared.now;
        if self.poll_at(shared).is_none_or(|at| at > now) {
            return;
        }
        let mut reading = Reading {
            waiting: shared.choker.waiting(),
            ..Reading::default()
        };
        let mut held_bytes = 0;
        let before = std::mem::take(&mut self.loads);
        for (key, began) in shared.choker.unchoked_since() {
            let Some((connection, load)) = load(connections, key) else {
                continue;
            };
            held_bytes += load.held_bytes;
            let age_ms = now.since(began);
            match classify(connection, age_ms, before.get(&key), &load) {
                Use::Filling => reading.filling += 1,
                Use::Starting => reading.starting += 1,
                Use::Slow => reading.slow += 1,
            }
            self.loads.insert(key, load);
        }
        for &key in before.keys() {
            if !self.loads.contains_key(&key)
                && let Some((_, load)) = load(connections, key)
                && load.held_bytes > 0
            {
                held_bytes += load.held_bytes;
                self.loads.insert(key, load);
            }
        }
        reading.left_bytes = shared.counters.payload_bytes.saturating_sub(held_bytes);
        let slots = self.auto.read(&reading, now);
        shared.choker.set_slots(slots);
        let pause_ms = match slots > shared.choker.unchoked() {
            true => OPENING_MS,
            false => STEADY_MS,
        };
        let longer_ms = self.loads.len() as u64 / SLOTS_FOR_EACH_MS;
        self.read_at = now.after(pause_ms.max(longer_ms));
    }
}

fn load(connections: &Connections, key: PeerKey) -> Option<(&Connection, TcpLoad)> {
    let connection = connections.at(key.index as usize)?;
    let load = (connection.key == key).then(|| connection.transport.load())?;
    // A socket that has failed is closed soon.
    Some((connection, load.ok()?))
}

/// How a slot uses the line.
enum Use {
    /// The peer would take more than it is sent.
    Filling,
    /// What the peer can take is not known yet.
    Starting,
    /// The peer is slow by itself, or asks for little, or waits for our disk.
    Slow,
}

/// `age_ms` is that of the term. Without a load before, that of the whole connection counts.
fn classify(connection: &Connection, age_ms: u64, before: Option<&TcpLoad>, load: &TcpLoad) -> Use {
    let (busy_us, limited_us) = match before {
        Some(before) => (
            load.busy_us.saturating_sub(before.busy_us),
            load.receiver_limited_us
                .saturating_sub(before.receiver_limited_us),
        ),
        None => (load.busy_us, load.receiver_limited_us),
    };
    let has_more = connection.session.has_blocks() || load.held_bytes > 0;
    let waits_for_disk = matches!(connection.wait, Wait::Reader | Wait::ReaderRoom);
    if limited_us > busy_us / 2 || waits_for_disk {
        Use::Slow
    } else if has_more && !load.is_in_slow_start {
        Use::Filling
    } else if has_more || age_ms < FIRST_REQUEST_MS {
        Use::Starting
    } else {
        Use::Slow
    }
}
