//! All of fairness: who is served next, who gives way, and why.
//!
//! Owns upload slots, credit, the order of terms and the idle peers. It learns what happened from
//! its callers, who carry out the [`Verdict`]s that it answers.
//!
//! 1. A peer that is interested joins the back of one queue; a free slot goes to the head of it.
//! 2. A slot is held for a *term*: `credit_bytes` of blocks or `max_unchoked_ms`, whichever ends
//!    first. A term also ends after `unused_slot_ms` without a request or a byte sent. The caller may
//!    lengthen a term to that of a piece, and end it early ([`Choker::set_term`], [`Choker::end_term`]).
//! 3. When a term ends and somebody has been waiting, the slot goes to the head of the queue and the
//!    peer to the back of it. At capacity the peer is disconnected instead, so that its connection
//!    goes to a peer that cannot even connect.
//! 4. When a term ends and nobody waits, the next term begins at once and the peer notices nothing.
//!    With as many slots as peers, all are served all the time.
//!    A term of several times `credit_bytes` is followed by as many rounds of the queue without one,
//!    so that long terms bring nobody more than others get.
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

pub mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use slab::Slab;

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
    pub unused_slot_ms: u32,
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
    /// The peer keeps its slot for another term, which the caller sets again.
    Renew(PeerKey),
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
    /// In the queue.
    Waiting { ticket: Ticket, unused_terms: u8 },
    /// The index of its term.
    Unchoked(usize),
}

/// An order in the queue: by round, then by arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Ticket {
    round: u64,
    arrival: u64,
}

/// The term that a caller sets for a peer, in place of the configured one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TermLength {
    /// Bytes of blocks.
    pub credit_bytes: u64,
    /// Milliseconds for which the slot may be held without a request or a byte sent. In 32 bits, since
    /// every slot has one.
    pub unused_slot_ms: u32,
    /// When nobody waits, the next term begins with [`Verdict::Renew`].
    pub tells_renewal: bool,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    length: TermLength,
    /// Bytes of blocks that were sent in it.
    sent_bytes: u64,
    /// It ends now, and what was not used of it is no fault of the peer.
    is_ended: bool,
    /// The round in which it began.
    round: u64,
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
    terms: Slab<Term>,
    /// The waiting peers.
    queue: BTreeMap<Ticket, PeerKey>,
    arrivals: u64,
    /// The round of the queue: that of the last peer that left it for a slot.
    round: u64,
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
            terms: Slab::new(),
            queue: BTreeMap::new(),
            arrivals: 0,
            round: 0,
            spent: Vec::new(),
            clocks: BTreeSet::new(),
            idle: BTreeSet::new(),
        }
    }

    /// Replaces the bounds. Slots above a lower number are given back as terms end.
    pub fn configure(&mut self, config: ChokerConfig) {
        self.config = config;
    }

    /// Replaces the number of slots. Those above a lower number are given back as terms end.
    pub fn set_slots(&mut self, max_unchoked: usize) {
        self.config.max_unchoked = max_unchoked;
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
            let somebody_waits = waiting > 0 || self.terms.len() > self.config.max_unchoked;
            match self.after_term(key, term, somebody_waits, at_capacity) {
                None => {
                    self.begin_term(key, term.round, Some(term.length), 0, now);
                    if term.length.tells_renewal {
                        verdicts.push(Verdict::Renew(key));
                    }
                }
                Some(verdict) => {
                    verdicts.push(verdict);
                    waiting = waiting.saturating_sub(1);
                    self.fill_free_slots(now, verdicts);
                }
            }
        }
        debug_assert_eq!(self.clocks.len(), self.terms.len(), "a clock for each slot");
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
        while self.terms.len() < self.config.max_unchoked {
            let Some((ticket, key)) = self.queue.pop_first() else {
                return;
            };
            self.round = self.round.max(ticket.round);
            let unused_terms = match self.member(key).service {
                Service::Waiting { unused_terms, .. } => unused_terms,
                other => unreachable!("a peer of the queue is {other:?}"),
            };
            self.begin_term(key, ticket.round, None, unused_terms, now);
            verdicts.push(Verdict::Unchoke(key));
        }
    }

    /// What becomes of a peer whose term is over. None: its next term begins at once.
    fn after_term(
        &mut self,
        key: PeerKey,
        term: Term,
        somebody_waits: bool,
        at_capacity: bool,
    ) -> Option<Verdict> {
        // Of a renewal the caller is told, so it is his to see that a term was not used.
        let unused_terms = if term.is_used || term.is_ended || term.length.tells_renewal {
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
            let rounds = term.sent_bytes / self.config.credit_bytes.max(1);
            self.join_queue(
                key,
                term.round.max(self.round) + rounds.max(1),
                unused_terms,
            );
            Some(Verdict::Choke(key))
        }
    }

    /// The peers whose term is over, by credit or by time.
    fn ended_terms(&mut self, now: Time) -> Vec<(PeerKey, Term)> {
        let mut ended = Vec::new();
        for key in mem::take(&mut self.spent) {
            // Since then it may have left, and even come back with new credit.
            match self.term(key) {
                Some(term) if term.is_over() => ended.push((key, *term)),
                _ => {}
            }
        }
        while let Some(&(check_at, key)) = self.clocks.first()
            && check_at <= now
        {
            let longest_ms = self.config.max_unchoked_ms;
            let term = self.term(key).expect("a clock runs for an unchoked peer");
            let ends = term.end_by_time(longest_ms);
            if ends > now {
                term.check_at = ends;
                self.clocks.pop_first();
                self.clocks.insert((ends, key));
            } else {
                let term = *term;
                self.clocks.pop_first();
                if !term.is_over() {
                    ended.push((key, term));
                }
            }
        }
        ended
    }
}

impl Term {
    fn end_by_time(&self, longest_ms: u64) -> Time {
        let too_long = self.began.after(longest_ms);
        too_long.min(self.used_at.after(self.length.unused_slot_ms.into()))
    }

    /// Bytes that may still be sent.
    fn credit_bytes(&self) -> u64 {
        match self.is_ended {
            true => 0,
            // A term of no bytes would never be used.
            false => self
                .length
                .credit_bytes
                .max(1)
                .saturating_sub(self.sent_bytes),
        }
    }

    /// Its credit is used up, or the caller has ended it.
    fn is_over(&self) -> bool {
        self.credit_bytes() == 0
    }
}

/// What happens to peers.
impl Choker {
    /// A peer has completed its handshake. It is idle, and takes a free slot if there is one.
    pub fn connected(&mut self, key: PeerKey, now: Time) {
        self.set_idle(key, Some(now));
        if self.terms.len() + self.queue.len() < self.config.max_unchoked {
            self.join_queue(key, self.round + 1, 0);
        }
    }

    /// The peer wants blocks. Joins the queue, unless it waits or is unchoked already.
    pub fn interested(&mut self, key: PeerKey) {
        self.set_idle(key, None);
        if matches!(self.member(key).service, Service::None) {
            self.join_queue(key, self.round + 1, 0);
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
        let was_over = term.is_over();
        term.used_at = now;
        term.is_used = true;
        term.sent_bytes += bytes;
        if term.is_over() && !was_over {
            self.spent.push(key);
        }
    }

    /// Sets the length of the term that has just begun, and of those that follow it without a wait.
    pub fn set_term(&mut self, key: PeerKey, length: TermLength) {
        let longest_ms = self.config.max_unchoked_ms;
        let term = self.term(key).expect("its term has just begun");
        term.length = length;
        let (before, after) = (term.check_at, term.end_by_time(longest_ms));
        term.check_at = after;
        self.clocks.remove(&(before, key));
        self.clocks.insert((after, key));
    }

    /// Ends the term of a peer that has got what its term was for. Without a slot nothing happens.
    pub fn end_term(&mut self, key: PeerKey) {
        if let Some(term) = self.term(key) {
            let was_over = term.is_over();
            term.is_ended = true;
            if !was_over {
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
            Service::Unchoked(term) => self.at(term).credit_bytes(),
            Service::None | Service::Waiting { .. } => 0,
        }
    }

    /// When [`Choker::rebalance`] is due though nothing happens before: `Time(0)` when it is due now,
    /// None when only an event can make it due.
    #[must_use]
    pub fn poll_at(&self, at_capacity: bool) -> Option<Time> {
        let free = self.terms.len() < self.config.max_unchoked;
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
        self.terms.len()
    }

    /// The peers with a slot, each with the beginning of its term.
    pub fn unchoked_since(&self) -> impl Iterator<Item = (PeerKey, Time)> {
        let keys = self.clocks.iter().map(|&(_, key)| key);
        keys.map(|key| match self.member(key).service {
            Service::Unchoked(term) => (key, self.at(term).began),
            other => unreachable!("a clock runs for {other:?}"),
        })
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
        match self.member(key).service {
            Service::Unchoked(term) => {
                let term = self.terms.get_mut(term);
                Some(term.expect("a slot has a term"))
            }
            Service::None | Service::Waiting { .. } => None,
        }
    }

    fn at(&self, term: usize) -> &Term {
        self.terms.get(term).expect("a slot has a term")
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

    fn join_queue(&mut self, key: PeerKey, round: u64, unused_terms: u8) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        let ticket = Ticket { round, arrival };
        self.queue.insert(ticket, key);
        self.member_mut(key).service = Service::Waiting {
            ticket,
            unused_terms,
        };
    }

    /// Begins a term, the peer's first or its next; it is not in the queue any more.
    fn begin_term(
        &mut self,
        key: PeerKey,
        round: u64,
        length: Option<TermLength>,
        unused_terms: u8,
        now: Time,
    ) {
        self.release_slot(key);
        let length = length.unwrap_or(TermLength {
            credit_bytes: self.config.credit_bytes,
            unused_slot_ms: self.config.unused_slot_ms,
            tells_renewal: false,
        });
        let mut term = Term {
            length,
            sent_bytes: 0,
            is_ended: false,
            round,
            began: now,
            used_at: now,
            check_at: now,
            is_used: false,
            unused_terms,
        };
        term.check_at = term.end_by_time(self.config.max_unchoked_ms);
        self.clocks.insert((term.check_at, key));
        self.member_mut(key).service = Service::Unchoked(self.terms.insert(term));
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
        if let Service::Unchoked(term) = self.member(key).service {
            let term = self.terms.remove(term);
            self.clocks.remove(&(term.check_at, key));
            self.member_mut(key).service = Service::None;
        }
    }
}

#[cfg(test)]
mod tests;
