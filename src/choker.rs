//! All of fairness: who is served next, who gives way, and why.
//!
//! Owns upload slots, credit, the order of terms and the idle peers. It learns what happened from
//! its callers, who carry out the [`Verdict`]s that it answers.
//!
//! 1. A peer that is interested joins the back of one queue; a free slot goes to the head of it.
//! 2. A slot is held for a *term*: `credit_bytes` of blocks or `max_unchoked_ms`, whichever ends
//!    first. A term also ends after `unused_slot_ms` without a request or a byte sent.
//! 3. When a term ends and somebody has been waiting, the slot goes to the head of the queue and the
//!    peer to the back of it. At capacity the peer is disconnected instead, so that its connection
//!    goes to a peer that cannot even connect.
//! 4. When a term ends and nobody waits, the next term begins at once and the peer notices nothing.
//!    With as many slots as peers, all are served all the time.
//! 5. A peer that neither asked nor took anything in a whole term while others waited, and then again
//!    in its next, is disconnected; at capacity already after the first. A peer that asked and was
//!    held up, by its own link or by our disk, only loses its term.
//! 6. A peer that is not interested is *idle*. At capacity the peer that has been idle longest is
//!    disconnected once that is `idle_ms`, unless it holds a slot: then rule 5 decides.
//! 7. A peer gets a free slot as soon as it has connected, though it is not interested yet: its
//!    first request comes one round trip earlier.
//!
//! ```text
//!               interested; connected                 a slot is free
//!               while a slot is free
//!   idle ───────────────────────▶ waiting ─────────────────────────────▶ unchoked ──┐ term over,
//!    │ ▲                           │    ▲                                 │  │  ▲    │ nobody waits
//!    │ │      not interested       │    │  term over, somebody waits      │  │  └────┘
//!    │ ├───────────────────────────┘    └────────────── Choke ────────────┘  │
//!    │ └── not interested ───────────────────────────────────────────────────┤
//!    └─────────── at capacity, idle for long: Disconnect      term over: Disconnect
//! ```
//!
//! The cost of [`Choker::rebalance`] is that of what has changed: a term that ends by credit is
//! remembered when the bytes are sent, and one that may end by time waits in an ordered set.

use std::collections::{BTreeMap, BTreeSet};

use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::timers::Time;

/// Terms in a row without use after which a peer is disconnected. One is forgiven: the peer may
/// have been busy with others when it came.
const UNUSED_TERMS_LIMIT: u8 = 2;

/// The bounds of a term, and of being idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokerConfig {
    /// Peers that are unchoked at the same time, at most.
    pub max_unchoked: usize,
    /// Bytes of blocks in one term, at least 1.
    pub credit_bytes: u64,
    /// The longest term, in milliseconds.
    pub max_unchoked_ms: u64,
    /// Milliseconds for which a slot may be held without a request or a byte sent.
    pub unused_slot_ms: u64,
    /// Milliseconds for which a peer may be idle at capacity. Clients that need something say so
    /// within a second; with a magnet link they need the metadata first.
    pub idle_ms: u64,
}

/// What the caller must do to a peer. The choker has already counted it as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The peer has a slot.
    Unchoke(PeerKey),
    /// The peer has lost its slot, and waits for its next term.
    Choke(PeerKey),
    /// Close the peer for this reason. [`Choker::disconnected`] need not be called.
    Disconnect(PeerKey, CloseReason),
}

/// What is known of one connected peer.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// Since when the peer is idle: its entry in `Choker::idle`. [`Time::NEVER`] otherwise, since
    /// an `Option` would cost eight bytes more for each peer.
    idle_since: Time,
    service: Service,
}

#[derive(Clone, Copy, Debug)]
enum Service {
    /// Neither in the queue nor in a slot.
    None,
    /// In the queue; a lower ticket is served first.
    Waiting {
        ticket: u64,
        unused_terms: u8,
    },
    Unchoked(Term),
}

#[derive(Clone, Copy, Debug)]
struct Term {
    credit_bytes: u64,
    began: Time,
    /// The last request or byte sent, or the beginning.
    used_at: Time,
    /// When the clocks are to be checked: its entry in `Choker::clocks`.
    check_at: Time,
    /// Something was asked for or sent in this term.
    is_used: bool,
    /// How many terms just before this one were not used.
    unused_terms: u8,
}

/// The policy and its state.
#[derive(Debug)]
pub struct Choker {
    config: ChokerConfig,
    /// By [`PeerKey::index`], which is dense; the generation tells whose entry it is.
    members: Vec<Option<(u32, Member)>>,
    /// The waiting peers by ticket.
    queue: BTreeMap<u64, PeerKey>,
    next_ticket: u64,
    unchoked: usize,
    /// Whose credit has been used up since the last [`Choker::rebalance`].
    spent: Vec<PeerKey>,
    /// Every unchoked peer once, at a time that is not after the end of its term. Use of a slot
    /// does not move its entry: it is checked early instead, and put back.
    clocks: BTreeSet<(Time, PeerKey)>,
    /// Every idle peer, with the time since when.
    idle: BTreeSet<(Time, PeerKey)>,
}

/// The policy.
impl Choker {
    /// No peers yet.
    #[must_use]
    pub fn new(config: ChokerConfig) -> Self {
        Self {
            config,
            members: Vec::new(),
            queue: BTreeMap::new(),
            next_ticket: 0,
            unchoked: 0,
            spent: Vec::new(),
            clocks: BTreeSet::new(),
            idle: BTreeSet::new(),
        }
    }

    /// Replaces the bounds. Slots above a lower number are given back as terms end.
    pub fn configure(&mut self, config: ChokerConfig) {
        self.config = config;
    }

    /// Gives away free slots, ends the terms that are over, and `at_capacity`, when no further
    /// connection can be accepted, disconnects at most one idle peer.
    pub fn rebalance(&mut self, now: Time, at_capacity: bool, verdicts: &mut Vec<Verdict>) {
        if at_capacity && let Some(key) = self.longest_idle(now) {
            self.disconnected(key);
            verdicts.push(Verdict::Disconnect(key, CloseReason::IdleAtCapacity));
        }
        self.fill_free_slots(now, verdicts);

        // Only peers that waited before this round may take a slot in it: else two peers whose terms
        // end together would take each other's.
        let mut waiting = self.queue.len();
        for (key, term) in self.ended_terms(now) {
            // Slots that no longer exist are as good as waited for.
            let somebody_waits = waiting > 0 || self.unchoked > self.config.max_unchoked;
            match self.end_term(key, term, somebody_waits, at_capacity) {
                None => self.unchoke(key, now),
                Some(verdict) => {
                    verdicts.push(verdict);
                    waiting = waiting.saturating_sub(1);
                    self.fill_free_slots(now, verdicts);
                }
            }
        }
        debug_assert_eq!(self.clocks.len(), self.unchoked, "a clock for each slot");
    }

    /// The peer without a slot that has been idle longest, when that is long enough.
    fn longest_idle(&mut self, now: Time) -> Option<PeerKey> {
        while let Some(&(since, key)) = self.idle.first()
            && now.since(since) >= self.config.idle_ms
        {
            if self.term(key).is_none() {
                return Some(key);
            }
            self.set_idle(key, Some(now));
        }
        None
    }

    /// Unchokes from the head of the queue.
    fn fill_free_slots(&mut self, now: Time, verdicts: &mut Vec<Verdict>) {
        while self.unchoked < self.config.max_unchoked {
            let Some((_, key)) = self.queue.pop_first() else {
                return;
            };
            self.unchoke(key, now);
            verdicts.push(Verdict::Unchoke(key));
        }
    }

    /// What becomes of a peer whose term is over. None: its next term begins at once.
    fn end_term(
        &mut self,
        key: PeerKey,
        term: Term,
        somebody_waits: bool,
        at_capacity: bool,
    ) -> Option<Verdict> {
        let unused_terms = if term.is_used {
            0
        } else {
            term.unused_terms.saturating_add(1)
        };
        let unused_limit = if at_capacity { 1 } else { UNUSED_TERMS_LIMIT };

        if unused_terms >= unused_limit && (somebody_waits || at_capacity) {
            self.disconnected(key);
            Some(Verdict::Disconnect(key, CloseReason::SlotUnused))
        } else if !somebody_waits {
            None
        } else if at_capacity {
            self.disconnected(key);
            Some(Verdict::Disconnect(key, CloseReason::TurnOver))
        } else {
            self.stop_service(key);
            self.join_queue(key, unused_terms);
            Some(Verdict::Choke(key))
        }
    }

    /// The peers whose term is over, by credit or by time.
    fn ended_terms(&mut self, now: Time) -> Vec<(PeerKey, Term)> {
        let mut ended = Vec::new();
        for key in std::mem::take(&mut self.spent) {
            // Since then it may have left, and even come back with new credit.
            match self.term(key) {
                Some(term) if term.credit_bytes == 0 => ended.push((key, *term)),
                _ => {}
            }
        }
        while let Some(&(check_at, key)) = self.clocks.first()
            && check_at <= now
        {
            let config = self.config;
            let term = self.term(key).expect("a clock runs for an unchoked peer");
            let ends = config.end_by_time(term);
            if ends > now {
                term.check_at = ends;
                self.clocks.pop_first();
                self.clocks.insert((ends, key));
            } else {
                let term = *term;
                self.clocks.pop_first();
                if term.credit_bytes > 0 {
                    ended.push((key, term));
                }
            }
        }
        ended
    }
}

impl ChokerConfig {
    fn end_by_time(&self, term: &Term) -> Time {
        let too_long = term.began.after(self.max_unchoked_ms);
        too_long.min(term.used_at.after(self.unused_slot_ms))
    }
}

/// What happens to peers.
impl Choker {
    /// A peer has completed its handshake. It is idle, and takes a free slot if there is one.
    pub fn connected(&mut self, key: PeerKey, now: Time) {
        self.set_idle(key, Some(now));
        if self.unchoked + self.queue.len() < self.config.max_unchoked {
            self.join_queue(key, 0);
        }
    }

    /// The peer wants blocks. Joins the queue, unless it waits or is unchoked already.
    pub fn interested(&mut self, key: PeerKey) {
        self.set_idle(key, None);
        if matches!(self.member(key).service, Service::None) {
            self.join_queue(key, 0);
        }
    }

    /// The peer wants no blocks, and is idle. True when it held a slot: the caller must choke it.
    pub fn not_interested(&mut self, key: PeerKey, now: Time) -> bool {
        if !self.is_member(key) {
            return false;
        }
        let held = self.term(key).is_some();
        self.stop_service(key);
        self.set_idle(key, Some(now));
        held
    }

    /// The peer asked for something that needs no slot. If it is idle, its time starts again.
    pub fn active(&mut self, key: PeerKey, now: Time) {
        if self.member(key).idle_since != Time::NEVER {
            self.set_idle(key, Some(now));
        }
    }

    /// The peer is gone. A peer that never connected is ignored.
    pub fn disconnected(&mut self, key: PeerKey) {
        self.stop_service(key);
        self.set_idle(key, None);
        if self.is_member(key)
            && let Some(entry) = self.members.get_mut(key.index as usize)
        {
            *entry = None;
        }
    }

    /// The peer asked for a block.
    pub fn requested(&mut self, key: PeerKey, now: Time) {
        if let Some(term) = self.term(key) {
            term.used_at = now;
            term.is_used = true;
        }
    }

    /// The peer took `bytes` of blocks. Its credit does not fall below zero.
    pub fn sent(&mut self, key: PeerKey, bytes: u64, now: Time) {
        let Some(term) = self.term(key) else {
            return;
        };
        term.used_at = now;
        term.is_used = true;
        if term.credit_bytes > 0 {
            term.credit_bytes = term.credit_bytes.saturating_sub(bytes);
            if term.credit_bytes == 0 {
                self.spent.push(key);
            }
        }
    }
}

/// Queries.
impl Choker {
    /// Bytes of blocks that may still be sent in this term; zero without a slot. A batch that
    /// begins below it may end above it.
    #[must_use]
    pub fn credit_bytes(&self, key: PeerKey) -> u64 {
        match self.member(key).service {
            Service::Unchoked(term) => term.credit_bytes,
            Service::None | Service::Waiting { .. } => 0,
        }
    }

    /// When [`Choker::rebalance`] is due though nothing happens before: `Time(0)` when it is due now,
    /// None when only an event can make it due.
    #[must_use]
    pub fn poll_at(&self, at_capacity: bool) -> Option<Time> {
        let free = self.unchoked < self.config.max_unchoked;
        if !self.spent.is_empty() || free && !self.queue.is_empty() {
            return Some(Time(0));
        }
        let term_ends = self.clocks.first().map(|&(at, _)| at);
        let idle = self.idle.first().filter(|_| at_capacity);
        let idle_ends = idle.map(|(since, _)| since.after(self.config.idle_ms));
        [term_ends, idle_ends].into_iter().flatten().min()
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

    /// How many peers wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// A peer of which nothing is known.
const STRANGER: Member = Member {
    idle_since: Time::NEVER,
    service: Service::None,
};

/// Keeps the members, and the sets over them, in step.
impl Choker {
    fn is_member(&self, key: PeerKey) -> bool {
        let entry = self.members.get(key.index as usize).copied().flatten();
        entry.is_some_and(|(generation, _)| generation == key.generation)
    }

    fn member(&self, key: PeerKey) -> Member {
        match self.members.get(key.index as usize) {
            Some(Some((generation, member))) if *generation == key.generation => *member,
            _ => STRANGER,
        }
    }

    /// The entry of a peer, which is made if there is none.
    fn member_mut(&mut self, key: PeerKey) -> &mut Member {
        let index = key.index as usize;
        if index >= self.members.len() {
            self.members.resize(index + 1, None);
        }
        let entry = self
            .members
            .get_mut(index)
            .expect("it was made long enough");
        let (generation, member) = entry.get_or_insert((key.generation, STRANGER));
        assert_eq!(*generation, key.generation, "the last peer here has gone");
        member
    }

    fn term(&mut self, key: PeerKey) -> Option<&mut Term> {
        match self.members.get_mut(key.index as usize) {
            Some(Some((generation, member))) if *generation == key.generation => {
                match &mut member.service {
                    Service::Unchoked(term) => Some(term),
                    Service::None | Service::Waiting { .. } => None,
                }
            }
            _ => None,
        }
    }

    fn set_idle(&mut self, key: PeerKey, since: Option<Time>) {
        let before = self.member(key).idle_since;
        let since = since.unwrap_or(Time::NEVER);
        if before == since {
            return;
        }
        if before != Time::NEVER {
            let was_idle = self.idle.remove(&(before, key));
            assert!(was_idle, "an idle peer without its entry");
        }
        if since != Time::NEVER {
            self.idle.insert((since, key));
        }
        self.member_mut(key).idle_since = since;
    }

    fn join_queue(&mut self, key: PeerKey, unused_terms: u8) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.insert(ticket, key);
        self.member_mut(key).service = Service::Waiting {
            ticket,
            unused_terms,
        };
    }

    /// Begins a term, the peer's first or its next; it is not in the queue any more.
    fn unchoke(&mut self, key: PeerKey, now: Time) {
        let unused_terms = match self.member(key).service {
            Service::Waiting { unused_terms, .. } => unused_terms,
            Service::None | Service::Unchoked(_) => 0,
        };
        self.release_slot(key);
        let mut term = Term {
            credit_bytes: self.config.credit_bytes.max(1),
            began: now,
            used_at: now,
            check_at: now,
            is_used: false,
            unused_terms,
        };
        term.check_at = self.config.end_by_time(&term);
        self.unchoked += 1;
        self.clocks.insert((term.check_at, key));
        self.member_mut(key).service = Service::Unchoked(term);
    }

    /// Out of the queue or the slot.
    fn stop_service(&mut self, key: PeerKey) {
        match self.member(key).service {
            Service::None => return,
            Service::Waiting { ticket, .. } => {
                let removed = self.queue.remove(&ticket);
                assert_eq!(removed, Some(key), "a waiting peer is in the queue");
            }
            Service::Unchoked(_) => self.release_slot(key),
        }
        self.member_mut(key).service = Service::None;
    }

    fn release_slot(&mut self, key: PeerKey) {
        if let Some(term) = self.term(key) {
            let clock = (term.check_at, key);
            self.clocks.remove(&clock);
            assert!(self.unchoked > 0, "a term without a slot");
            self.unchoked -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
