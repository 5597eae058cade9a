//! All of fairness: who is served next, and why.
//!
//! Owns upload slots, credit and the order of turns. It must not know what a peer asks for, how it
//! is sent, or the socket: it is told what happened and answers with [`Verdict`]s.
//!
//! 1. A peer that is interested joins the back of one queue, and a free slot goes to the head of it.
//! 2. A slot is a *turn*: `credit_bytes` of blocks, or `max_unchoked_ms`, whichever ends first. A
//!    slot on which nothing moves for `unused_slot_ms`, neither a request nor a byte, ends its turn
//!    as well.
//! 3. When a turn ends and somebody has been waiting, the slot goes to the head of the queue and the
//!    peer to the back of it; in a full house it is disconnected, so that its place goes to whoever
//!    cannot even connect.
//! 4. When a turn ends and nobody waits, the next turn begins at once and the peer notices nothing.
//!    So when there are as many slots as peers, all are served all the time.
//! 5. A peer that neither asked nor took anything in its whole turn while others waited, and then
//!    again in its next, is disconnected; in a full house already after the first. One that asked
//!    and was held up, by its own link or by our disk, only loses its turn.
//!
//! ```text
//!                interested                      a slot is free
//!   (unknown) ───────────────▶ waiting ─────────────────────────────▶ unchoked ──┐ turn over,
//!       ▲                      │     ▲                                │  │  ▲    │ nobody waits
//!       │   not interested,    │     │  turn over, somebody waits     │  │  └────┘
//!       ├──── disconnected ────┘     └────────────── Choke ───────────┘  │
//!       └──── not interested, disconnected; turn over: Disconnect ───────┘
//! ```
//!
//! Nothing is looked at that has not changed: a turn that ends by credit is noted when the bytes are
//! sent, and one that may end by time waits in an ordered set until then.

use std::collections::{BTreeMap, BTreeSet};

use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::timers::Time;

/// After how many turns in a row without use a peer is disconnected. One is forgiven: the peer may
/// have been busy with others when it came.
const UNUSED_TURNS_LIMIT: u8 = 2;

/// What a turn is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokerConfig {
    /// How many peers are unchoked at a time, at most.
    pub max_unchoked: usize,
    /// Bytes of blocks in one turn, at least 1.
    pub credit_bytes: u64,
    /// The longest turn.
    pub max_unchoked_ms: u64,
    /// How long a slot may be held without a request or a byte sent.
    pub unused_slot_ms: u64,
}

/// What is to be done to a peer. The choker has already counted it as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It has a slot.
    Unchoke(PeerKey),
    /// It has no slot any more, and waits for its next turn.
    Choke(PeerKey),
    /// It is to be closed for this reason. [`Choker::disconnected`] need not be called.
    Disconnect(PeerKey, CloseReason),
}

/// One peer's place. Peers that are not interested have none.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// It waits; a lower ticket is served first.
    Waiting {
        ticket: u64,
        unused_turns: u8,
    },
    Unchoked(Turn),
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    credit_bytes: u64,
    began: Time,
    /// The last request or byte sent, or the beginning.
    used_at: Time,
    /// When the clocks are to be looked at: its entry in `Choker::clocks`.
    look_at: Time,
    /// Something was asked for or sent in this turn.
    is_used: bool,
    /// How many turns just before this one were not used.
    unused_turns: u8,
}

/// The policy and its state.
#[derive(Debug)]
pub struct Choker {
    config: ChokerConfig,
    /// By [`PeerKey::index`], which is dense; the generation tells whose place it is.
    places: Vec<Option<(u32, Place)>>,
    /// The waiting peers by ticket.
    queue: BTreeMap<u64, PeerKey>,
    next_ticket: u64,
    unchoked: usize,
    /// Whose credit has been used up since the last [`Choker::rebalance`].
    spent: Vec<PeerKey>,
    /// Every unchoked peer once, at a time that is not after the end of its turn. Use of a slot
    /// does not move its entry: it is looked at early instead, and put back.
    clocks: BTreeSet<(Time, PeerKey)>,
}

/// The policy.
impl Choker {
    /// No peers yet.
    #[must_use]
    pub fn new(config: ChokerConfig) -> Self {
        Self {
            config,
            places: Vec::new(),
            queue: BTreeMap::new(),
            next_ticket: 0,
            unchoked: 0,
            spent: Vec::new(),
            clocks: BTreeSet::new(),
        }
    }

    /// From now on other bounds hold. Slots above a lower number are given back as turns end.
    pub fn configure(&mut self, config: ChokerConfig) {
        self.config = config;
    }

    /// Gives away free slots and ends the turns that are over. `house_full`: no further connection
    /// can be accepted. Costs what has changed, however many slots there are.
    pub fn rebalance(&mut self, now: Time, house_full: bool, verdicts: &mut Vec<Verdict>) {
        self.fill_free_slots(now, verdicts);

        // Only who waited before this round may take a slot in it: else two peers whose turns end
        // together would take each other's.
        let mut waiting = self.queue.len();
        for (key, turn) in self.ended_turns(now) {
            // Slots that are no longer there are as good as waited for.
            let somebody_waits = waiting > 0 || self.unchoked > self.config.max_unchoked;
            match self.end_turn(key, turn, somebody_waits, house_full) {
                None => self.unchoke(key, now),
                Some(verdict) => {
                    verdicts.push(verdict);
                    waiting = waiting.saturating_sub(1);
                    self.fill_free_slots(now, verdicts);
                }
            }
        }
    }

    /// The head of the queue is served next.
    fn fill_free_slots(&mut self, now: Time, verdicts: &mut Vec<Verdict>) {
        while self.unchoked < self.config.max_unchoked {
            let Some((_, key)) = self.queue.pop_first() else {
                return;
            };
            self.unchoke(key, now);
            verdicts.push(Verdict::Unchoke(key));
        }
    }

    /// What becomes of a peer whose turn is over. None: its next turn is to begin at once.
    fn end_turn(
        &mut self,
        key: PeerKey,
        turn: Turn,
        somebody_waits: bool,
        house_full: bool,
    ) -> Option<Verdict> {
        let unused_turns = if turn.is_used {
            0
        } else {
            turn.unused_turns + 1
        };
        let unused_limit = if house_full { 1 } else { UNUSED_TURNS_LIMIT };

        if unused_turns >= unused_limit && (somebody_waits || house_full) {
            self.disconnected(key);
            Some(Verdict::Disconnect(key, CloseReason::SlotUnused))
        } else if !somebody_waits {
            None
        } else if house_full {
            self.disconnected(key);
            Some(Verdict::Disconnect(key, CloseReason::TurnOver))
        } else {
            self.leave(key);
            self.join_queue(key, unused_turns);
            Some(Verdict::Choke(key))
        }
    }

    /// Whose turn is over, by credit or by time.
    fn ended_turns(&mut self, now: Time) -> Vec<(PeerKey, Turn)> {
        let mut ended = Vec::new();
        for key in std::mem::take(&mut self.spent) {
            // Since then it may have left, and even come back with new credit.
            match self.turn(key) {
                Some(turn) if turn.credit_bytes == 0 => ended.push((key, *turn)),
                _ => {}
            }
        }
        while let Some(&(look_at, key)) = self.clocks.first()
            && look_at <= now
        {
            self.clocks.pop_first();
            let config = self.config;
            let Some(turn) = self.turn(key) else {
                continue;
            };
            let ends = config.end_by_time(turn);
            if ends > now {
                turn.look_at = ends;
                self.clocks.insert((ends, key));
            } else if turn.credit_bytes > 0 {
                ended.push((key, *turn));
            }
        }
        ended
    }
}

impl ChokerConfig {
    fn end_by_time(&self, turn: &Turn) -> Time {
        let too_long = turn.began.after(self.max_unchoked_ms);
        too_long.min(turn.used_at.after(self.unused_slot_ms))
    }
}

/// What happens to peers.
impl Choker {
    /// It wants blocks. Joins the queue, unless it waits or is unchoked already.
    pub fn interested(&mut self, key: PeerKey) {
        if self.place(key).is_none() {
            self.join_queue(key, 0);
        }
    }

    /// It wants none. True when it held a slot: then it is to be choked.
    pub fn not_interested(&mut self, key: PeerKey) -> bool {
        let held = self.turn(key).is_some();
        self.leave(key);
        held
    }

    /// It is gone.
    pub fn disconnected(&mut self, key: PeerKey) {
        self.leave(key);
    }

    /// It asked for a block.
    pub fn requested(&mut self, key: PeerKey, now: Time) {
        if let Some(turn) = self.turn(key) {
            turn.used_at = now;
            turn.is_used = true;
        }
    }

    /// It took `bytes` of blocks. Its credit does not fall below zero.
    pub fn sent(&mut self, key: PeerKey, bytes: u64, now: Time) {
        let Some(turn) = self.turn(key) else {
            return;
        };
        turn.used_at = now;
        turn.is_used = true;
        if turn.credit_bytes > 0 {
            turn.credit_bytes = turn.credit_bytes.saturating_sub(bytes);
            if turn.credit_bytes == 0 {
                self.spent.push(key);
            }
        }
    }
}

/// What may be asked.
impl Choker {
    /// How many bytes of blocks may still be sent in this turn; zero without a slot. A batch that
    /// begins below it may end above it.
    #[must_use]
    pub fn credit_bytes(&self, key: PeerKey) -> u64 {
        match self.place(key) {
            Some(Place::Unchoked(turn)) => turn.credit_bytes,
            _ => 0,
        }
    }

    /// When [`Choker::rebalance`] may have something to do though nothing happens before: the past
    /// when it has already; None when no slot is held and nobody waits.
    #[must_use]
    pub fn poll_at(&self) -> Option<Time> {
        let free = self.unchoked < self.config.max_unchoked;
        if !self.spent.is_empty() || free && !self.queue.is_empty() {
            return Some(Time(0));
        }
        self.clocks.first().map(|&(at, _)| at)
    }

    /// The bounds that hold.
    #[must_use]
    pub fn config(&self) -> ChokerConfig {
        self.config
    }

    /// How many slots are held.
    #[must_use]
    pub fn unchoked(&self) -> usize {
        self.unchoked
    }

    /// Whether a peer that becomes interested now will be unchoked in this round.
    #[must_use]
    pub fn has_free_slot(&self) -> bool {
        self.unchoked + self.queue.len() < self.config.max_unchoked
    }

    /// How many peers wait for one.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// How places are kept.
impl Choker {
    fn place(&self, key: PeerKey) -> Option<&Place> {
        match self.places.get(key.index as usize) {
            Some(Some((generation, place))) if *generation == key.generation => Some(place),
            _ => None,
        }
    }

    fn turn(&mut self, key: PeerKey) -> Option<&mut Turn> {
        match self.places.get_mut(key.index as usize) {
            Some(Some((generation, Place::Unchoked(turn)))) if *generation == key.generation => {
                Some(turn)
            }
            _ => None,
        }
    }

    fn set_place(&mut self, key: PeerKey, place: Option<Place>) {
        let index = key.index as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, None);
        }
        if let Some(entry) = self.places.get_mut(index) {
            *entry = place.map(|place| (key.generation, place));
        }
    }

    fn join_queue(&mut self, key: PeerKey, unused_turns: u8) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.insert(ticket, key);
        self.set_place(
            key,
            Some(Place::Waiting {
                ticket,
                unused_turns,
            }),
        );
    }

    /// Begins a turn, the peer's first or its next; it is not in the queue any more.
    fn unchoke(&mut self, key: PeerKey, now: Time) {
        let unused_turns = match self.place(key) {
            Some(&Place::Waiting { unused_turns, .. }) => unused_turns,
            _ => 0,
        };
        self.release_slot(key);
        let mut turn = Turn {
            credit_bytes: self.config.credit_bytes.max(1),
            began: now,
            used_at: now,
            look_at: now,
            is_used: false,
            unused_turns,
        };
        turn.look_at = self.config.end_by_time(&turn);
        self.unchoked += 1;
        self.clocks.insert((turn.look_at, key));
        self.set_place(key, Some(Place::Unchoked(turn)));
    }

    /// Out of the queue or the slot.
    fn leave(&mut self, key: PeerKey) {
        if let Some(&Place::Waiting { ticket, .. }) = self.place(key) {
            self.queue.remove(&ticket);
        }
        self.release_slot(key);
        if self.place(key).is_some() {
            self.set_place(key, None);
        }
    }

    fn release_slot(&mut self, key: PeerKey) {
        if let Some(turn) = self.turn(key) {
            let clock = (turn.look_at, key);
            self.clocks.remove(&clock);
            self.unchoked -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
