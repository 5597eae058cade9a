//! All of fairness: who is served next, who gives way, and why.
//!
//! Owns upload slots, credit, the order of terms and the idle peers. It learns what happened from
//! its callers, who carry out the [`Verdict`]s that it answers.
//!
//! 1. A peer that is interested joins the back of one queue; a free slot goes to the head of it.
//! 2. A slot is held for a *term*: `credit_bytes` of blocks or `max_unchoked_ms`, whichever ends
//!    first. A small block costs as much as [`BLOCK_CHARGE_BYTES`]. A term also ends after
//!    `unused_slot_ms` in which the peer neither took nor asked for [`USE_BYTES`]. Requests do not count
//!    while the peer does not read, and the time in which it waits for us counts as use. The caller may
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
//! 6. A peer that is not interested is *idle*. Only what costs us something (a block, metadata) starts
//!    its time again.
//! 7. A peer gets a free slot as soon as it has connected, though it is not interested yet: its
//!    first request comes one round trip earlier. Few have such an early slot at a time, and it is
//!    taken back if no interest follows.
//! 8. Addresses take turns, whatever the number of their peers: in a round of the queue an address has
//!    one term and a network [`origin::NETWORK_SHARE`], see [`Origin`]. A peer whose address has few
//!    slots takes one from an address or a network that has more than its share.
//! 9. At capacity, a peer that wants to connect takes the place ([`Choker::give_way`]) of one that does
//!    not complete its handshake, else of one whose address or network has more than its share of
//!    places, else of the one that has been idle longest, if that is `idle_ms`. If there is none, it
//!    is refused. An address that gave way or was refused rests ([`origin::REST_MS`]): meanwhile it
//!    can take a place from a crowd only, so that addresses take turns, however often they connect.
//!
//! ```text
//!               interested; connected                 a slot is free
//!               while a slot is free
//!   idle ───────────────────────▶ waiting ─────────────────────────────▶ unchoked ──┐ term over,
//!    │ ▲                           │    ▲                                 │  │  ▲    │ nobody waits
//!    │ │      not interested       │    │  term over, somebody waits      │  │  └────┘
//!    │ ├───────────────────────────┘    └────────────── Choke ────────────┘  │
//!    │ └── not interested ───────────────────────────────────────────────────┤
//!    └─────────── at capacity: give_way                       term over: Disconnect
//! ```
//!
//! The cost of [`Choker::rebalance`] is that of what has changed: a term that ends by credit is
//! remembered when the bytes are sent, and one that may end by time waits in an ordered set. Only where
//! a slot is taken from a crowd, all slots are sorted once.

pub mod origin;
pub mod slots;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::mem;

use slab::Slab;

use self::origin::{Crowd, Crowds, Origin, Rests, Rounds};
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::timers::Time;

/// Terms in a row without use after which a peer is disconnected. One is forgiven: the peer may
/// have been busy with others when its turn came.
const UNUSED_TERMS_LIMIT: u8 = 2;

/// What a block costs at least, of the credit of a term. A block of one byte costs us a message each way,
/// and half a page of the disk. Usual blocks have four times as many bytes.
pub const BLOCK_CHARGE_BYTES: u64 = 4096;

/// The bytes that a peer must take or ask for within `unused_slot_ms` to keep its slot: a usual block.
pub const USE_BYTES: u64 = 16 * 1024;

/// Slots that are given to peers that are not interested yet, at most: enough for those that connect
/// within a round trip, while peers that want nothing cost no term.
const EARLY_SLOTS_MAX: usize = 64;

/// How long a peer may take for its handshake, at capacity: several round trips to the other side of the
/// earth. It is [`Timeouts::handshake_ms`](crate::timers::Timeouts::handshake_ms) otherwise.
const HANDSHAKE_AT_CAPACITY_MS: u64 = 1_000;

/// Slots taken from crowds in one call, at most, and waiting peers that are inspected for each: the head
/// of the queue is entitled to one before those behind it.
const TAKEN_FROM_CROWDS_MAX: usize = 16;
const INSPECTED_WAITERS: usize = 16;

/// Members that are inspected to find one of a crowd. A crowd that matters has one among so many.
const SEARCHED_MEMBERS: usize = 2048;

/// The bounds of a term, and of being idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokerConfig {
    /// Peers that are unchoked at the same time, at most.
    pub max_unchoked: usize,
    /// Bytes of blocks in one term, at least 1.
    pub credit_bytes: u64,
    /// The longest term, in milliseconds.
    pub max_unchoked_ms: u64,
    /// Milliseconds for which a slot may be held without use: rule 2.
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

/// What is known of one peer.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// The generation of its key.
    generation: u32,
    /// It has an entry in `Choker::idle`.
    is_idle: bool,
    origin: Origin,
    /// When it last took something, or connected.
    active_at: Time,
    service: Service,
}

#[derive(Clone, Copy, Debug)]
enum Service {
    /// Its handshake is not complete.
    Handshaking,
    /// Neither in the queue nor in a slot.
    None,
    /// In the queue.
    Waiting(Ticket),
    /// The index of its term.
    Unchoked(usize),
}

/// An order in the queue: by round, then by arrival. Those of an address that has had its turn in the
/// round come last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Ticket {
    round: u64,
    order: u64,
}

/// The bit of [`Ticket::order`] for an address that has had its turn.
const HAS_HAD_TURN: u64 = 1 << 63;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiter {
    key: PeerKey,
    /// How many terms just before were not used.
    unused_terms: u8,
}

/// The term that a caller sets for a peer, in place of the configured one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TermLength {
    /// Bytes of blocks.
    pub credit_bytes: u64,
    /// Milliseconds for which the slot may be held without use. In 32 bits, since every slot has one.
    pub unused_slot_ms: u32,
    /// When nobody waits, the next term begins with [`Verdict::Renew`].
    pub tells_renewal: bool,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    length: TermLength,
    /// Bytes of blocks that were sent in it, small blocks counted as larger ones.
    charged_bytes: u64,
    /// It ends now, and what was not used of it is no fault of the peer.
    is_ended: bool,
    /// The round in which it began.
    round: u64,
    began: Time,
    /// When it was last used: rule 2.
    used_at: Time,
    /// Bytes sent or asked for since.
    used_bytes: u32,
    /// When the clocks are to be checked: its entry in `Choker::clocks`.
    check_at: Time,
    /// Something was asked for or sent in this term.
    is_used: bool,
    /// Its peer has not been interested yet.
    is_early: bool,
    /// How many terms just before this one were not used.
    unused_terms: u8,
}

/// The policy and its state.
#[derive(Debug)]
pub struct Choker {
    config: ChokerConfig,
    /// By [`PeerKey::index`], which is dense.
    members: Vec<Option<Member>>,
    /// All members by their origin, and those with a slot.
    places: Crowds,
    slots: Crowds,
    /// Peers in the order of their arrival, from the first whose handshake is not complete. The time-out of
    /// the handshake bounds its length.
    handshaking: VecDeque<(Time, PeerKey)>,
    /// Where the next search for one of a crowd begins.
    search_from: usize,
    /// The addresses that have given way or were refused.
    rests: Rests,
    terms: Slab<Term>,
    /// Terms whose peers have not been interested yet.
    early_slots: usize,
    /// The waiting peers.
    queue: BTreeMap<Ticket, Waiter>,
    /// The turns of each address in the queue.
    rounds: Rounds,
    arrivals: u64,
    /// The round of the queue: that of the last peer that left it for a slot.
    round: u64,
    /// Whose credit has been used up since the last [`Choker::rebalance`].
    spent: Vec<PeerKey>,
    /// Every unchoked peer once, at a time that is not after the end of its term. Use of a slot
    /// does not move its entry: it is checked early instead, and put back.
    clocks: BTreeSet<(Time, PeerKey)>,
    /// Every idle peer, with the time at which it was last active.
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
            places: Crowds::default(),
            slots: Crowds::default(),
            handshaking: VecDeque::new(),
            search_from: 0,
            rests: Rests::default(),
            terms: Slab::new(),
            early_slots: 0,
            queue: BTreeMap::new(),
            rounds: Rounds::default(),
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

    /// Gives away free slots and ends the terms that are over. `at_capacity`: no further connection can be
    /// accepted.
    pub fn rebalance(&mut self, now: Time, at_capacity: bool, verdicts: &mut Vec<Verdict>) {
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
        self.take_from_crowds(now, verdicts);
        debug_assert_eq!(self.clocks.len(), self.terms.len(), "a clock for each slot");
    }

    /// Unchokes from the head of the queue.
    fn fill_free_slots(&mut self, now: Time, verdicts: &mut Vec<Verdict>) {
        while self.terms.len() < self.config.max_unchoked {
            let Some((&ticket, _)) = self.queue.first_key_value() else {
                return;
            };
            self.round = self.round.max(ticket.round);
            self.unchoke(ticket, now, verdicts);
        }
    }

    /// Gives a slot to a peer of the queue. Only the head of the queue moves the round on.
    fn unchoke(&mut self, ticket: Ticket, now: Time, verdicts: &mut Vec<Verdict>) {
        let waiter = self.queue.remove(&ticket).expect("it is in the queue");
        self.rounds.leave(self.origin(waiter.key));
        self.begin_term(waiter.key, ticket.round, None, waiter.unused_terms, now);
        verdicts.push(Verdict::Unchoke(waiter.key));
    }

    /// Gives slots of crowds to waiting peers that are entitled to one.
    fn take_from_crowds(&mut self, now: Time, verdicts: &mut Vec<Verdict>) {
        let mut candidates = None;
        for _ in 0..TAKEN_FROM_CROWDS_MAX {
            let mut waiters = self.queue.iter().take(INSPECTED_WAITERS);
            let entitled = waiters.find_map(|(&ticket, waiter)| {
                let crowd = self.slots.larger_than(self.origin(waiter.key))?;
                Some((ticket, crowd))
            });
            let Some((ticket, crowd)) = entitled else {
                return;
            };
            let candidates: &mut Vec<(PeerKey, Origin)> =
                candidates.get_or_insert_with(|| self.slots_to_take(verdicts));
            let of_crowd = |&(_, origin): &(PeerKey, Origin)| crowd.has(origin);
            let Some(at) = candidates.iter().position(of_crowd) else {
                return;
            };
            let (key, _) = candidates.remove(at);
            let term = *self.term(key).expect("it has a slot");
            self.stop_service(key);
            verdicts.push(Verdict::Choke(key));
            if !term.is_early {
                self.join_queue(key, term.round.max(self.round) + 1, 0, term.unused_terms);
            }
            self.unchoke(ticket, now, verdicts);
        }
    }

    /// The peers whose slot may be taken: one that is not used before one that is, and the oldest first.
    /// Those whose term begins in this call are not among them, since the caller carries out the verdicts
    /// in their order, and sets the length of a term when it begins.
    fn slots_to_take(&self, verdicts: &[Verdict]) -> Vec<(PeerKey, Origin)> {
        let begun = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Unchoke(key) => Some(*key),
            _ => None,
        });
        let begun: HashSet<PeerKey> = begun.collect();
        let keys = self.clocks.iter().map(|&(_, key)| key);
        let mut terms: Vec<_> = keys
            .filter(|key| !begun.contains(key))
            .map(|key| {
                let term = self.term(key).expect("a clock runs for a term");
                (term.is_used, term.began, key)
            })
            .collect();
        terms.sort_unstable();
        let of_origin = |(_, _, key)| (key, self.origin(key));
        terms.into_iter().map(of_origin).collect()
    }

    /// What becomes of a peer whose term is over. None: its next term begins at once.
    fn after_term(
        &mut self,
        key: PeerKey,
        term: Term,
        somebody_waits: bool,
        at_capacity: bool,
    ) -> Option<Verdict> {
        // The caller is told of a renewal, and notices itself that a term was not used.
        let unused_terms = if term.is_used || term.is_ended || term.length.tells_renewal {
            0
        } else {
            term.unused_terms.saturating_add(1)
        };
        let unused_limit = if at_capacity { 1 } else { UNUSED_TERMS_LIMIT };

        if term.is_early {
            self.stop_service(key);
            Some(Verdict::Choke(key))
        } else if unused_terms >= unused_limit && (somebody_waits || at_capacity) {
            self.disconnected(key);
            Some(Verdict::Disconnect(key, CloseReason::SlotUnused))
        } else if !somebody_waits {
            None
        } else if at_capacity {
            self.disconnected(key);
            Some(Verdict::Disconnect(key, CloseReason::TurnOver))
        } else {
            self.stop_service(key);
            let rounds = term.charged_bytes / self.config.credit_bytes.max(1);
            // It may join the round that it has just missed: others of its address may be in the queue for
            // that one already, and a peer that is alone at its address would have fewer turns than they.
            let round = term.round.max(self.round.saturating_sub(1)) + 1;
            self.join_queue(key, round, rounds.saturating_sub(1), unused_terms);
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
            let term = self
                .term_mut(key)
                .expect("a clock runs for an unchoked peer");
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
    fn used(&mut self, bytes: u32, now: Time) {
        self.used_bytes = self.used_bytes.saturating_add(bytes);
        if u64::from(self.used_bytes) >= USE_BYTES {
            self.used_at = now;
            self.used_bytes = 0;
        }
    }

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
                .saturating_sub(self.charged_bytes),
        }
    }

    /// Its credit is used up, or the caller has ended it.
    fn is_over(&self) -> bool {
        self.credit_bytes() == 0
    }
}

/// What happens to peers.
impl Choker {
    /// A connection with a peer has begun, by us or by the peer.
    pub fn begun(&mut self, key: PeerKey, origin: Origin, now: Time) {
        let index = key.index as usize;
        if index >= self.members.len() {
            self.members.resize(index + 1, None);
        }
        let entry = self
            .members
            .get_mut(index)
            .expect("it was made long enough");
        assert!(entry.is_none(), "the last peer here has gone");
        *entry = Some(Member {
            generation: key.generation,
            is_idle: false,
            origin,
            active_at: now,
            service: Service::Handshaking,
        });
        self.places.add(origin);
        self.forget_shaken_hands();
        self.handshaking.push_back((now, key));
    }

    /// A peer has completed its handshake. It is idle, and takes a free slot if there is one.
    pub fn connected(&mut self, key: PeerKey, now: Time) {
        self.known(key).service = Service::None;
        self.active(key, now);
        self.set_idle(key, true);
        if self.terms.len() + self.queue.len() < self.config.max_unchoked
            && self.early_slots + self.queue.len() < EARLY_SLOTS_MAX
        {
            self.join_queue(key, self.round + 1, 0, 0);
        }
    }

    /// The peer wants blocks. Joins the queue, unless it waits or is unchoked already.
    pub fn interested(&mut self, key: PeerKey) {
        self.set_idle(key, false);
        match self.known(key).service {
            Service::None => self.join_queue(key, self.round + 1, 0, 0),
            Service::Unchoked(_) => self.set_early(key, false),
            Service::Waiting(_) => {}
            Service::Handshaking => unreachable!("interest comes behind the handshake"),
        }
    }

    /// The peer wants no blocks, and is idle. True when it held a slot: the caller must choke it.
    pub fn not_interested(&mut self, key: PeerKey) -> bool {
        let held = self.term(key).is_some();
        self.stop_service(key);
        self.set_idle(key, true);
        held
    }

    /// The peer was given something at this time.
    pub fn active(&mut self, key: PeerKey, at: Time) {
        let was_idle = self.known(key).is_idle;
        self.set_idle(key, false);
        self.known(key).active_at = at;
        self.set_idle(key, was_idle);
    }

    /// The peer is gone. A peer that is not known is ignored.
    pub fn disconnected(&mut self, key: PeerKey) {
        let Some(member) = self.member(key) else {
            return;
        };
        self.stop_service(key);
        self.set_idle(key, false);
        self.places.remove(member.origin);
        *self.members.get_mut(key.index as usize).expect("a member") = None;
    }

    /// The peer asked for blocks of so many bytes. `reads`: it takes what it is sent.
    pub fn requested(&mut self, key: PeerKey, bytes: u32, reads: bool, now: Time) {
        if let Some(term) = self.term_mut(key) {
            if !term.is_used {
                term.used_at = now;
            }
            term.is_used = true;
            if reads {
                term.used(bytes, now);
            }
        }
    }

    /// The peer waits for us: for a disk, or for the rate limit.
    pub fn held_up(&mut self, key: PeerKey, now: Time) {
        if let Some(term) = self.term_mut(key) {
            term.used_at = now;
        }
    }

    /// The peer took `bytes` of blocks, and so many whole `blocks`. Its credit does not fall below zero.
    pub fn sent(&mut self, key: PeerKey, bytes: u64, blocks: u32, now: Time) {
        let Some(term) = self.term_mut(key) else {
            return;
        };
        let was_over = term.is_over();
        term.is_used = true;
        term.used(u32::try_from(bytes).unwrap_or(u32::MAX), now);
        term.charged_bytes += bytes.max(u64::from(blocks) * BLOCK_CHARGE_BYTES);
        if term.is_over() && !was_over {
            self.spent.push(key);
        }
    }

    /// A connection from `origin` wants to be accepted at capacity: the peer that must be disconnected
    /// for it, and why. None: it is to be refused. [`Choker::disconnected`] need not be called.
    pub fn give_way(&mut self, origin: Origin, now: Time) -> Option<(PeerKey, CloseReason)> {
        let loser = self.least_claim(origin, now);
        let rests = loser.map_or(origin, |(key, _)| self.origin(key));
        self.rests.begin(rests, now);
        if let Some((key, _)) = loser {
            self.disconnected(key);
        }
        loser
    }

    fn least_claim(&mut self, origin: Origin, now: Time) -> Option<(PeerKey, CloseReason)> {
        self.forget_shaken_hands();
        let rests = self.rests.has(origin, now);
        if let Some(&(began, key)) = self.handshaking.front()
            && now.since(began) >= HANDSHAKE_AT_CAPACITY_MS
            && !rests
        {
            return Some((key, CloseReason::GaveWay));
        }
        if let Some(crowd) = self.places.larger_than(origin)
            && let Some(key) = self.search(crowd)
        {
            return Some((key, CloseReason::GaveWay));
        }
        let &(active_at, key) = self.idle.first()?;
        let is_idle_long = now.since(active_at) >= self.config.idle_ms;
        (is_idle_long && !rests).then_some((key, CloseReason::IdleAtCapacity))
    }

    /// The one of a crowd that loses least, among the next members of the table.
    fn search(&mut self, crowd: Crowd) -> Option<PeerKey> {
        let count = self.members.len().min(SEARCHED_MEMBERS);
        let first = self.search_from;
        self.search_from = (first + count) % self.members.len().max(1);
        let indexes = (first..self.members.len()).chain(0..first);
        let found = indexes.take(count).filter_map(|index| {
            let member = self.members.get(index).copied().flatten()?;
            let loss = match member.service {
                Service::Handshaking => 0,
                Service::None => 1,
                Service::Waiting(_) => 2,
                Service::Unchoked(_) => 3,
            };
            crowd
                .has(member.origin)
                .then_some((loss, index, member.generation))
        });
        let (_, index, generation) = found.min()?;
        let index = u32::try_from(index).expect("an index of a key");
        Some(PeerKey { index, generation })
    }

    /// Takes those from the front of `handshaking` whose handshake is complete, or that have gone.
    fn forget_shaken_hands(&mut self) {
        while let Some(&(_, key)) = self.handshaking.front()
            && !self
                .member(key)
                .is_some_and(|member| matches!(member.service, Service::Handshaking))
        {
            self.handshaking.pop_front();
        }
    }

    /// Sets the length of the term that has just begun, and of those that follow it without a wait.
    pub fn set_term(&mut self, key: PeerKey, length: TermLength) {
        let longest_ms = self.config.max_unchoked_ms;
        let term = self.term_mut(key).expect("its term has just begun");
        term.length = length;
        let (before, after) = (term.check_at, term.end_by_time(longest_ms));
        term.check_at = after;
        self.clocks.remove(&(before, key));
        self.clocks.insert((after, key));
    }

    /// Ends the term of a peer that has got what its term was for. Without a slot nothing happens.
    pub fn end_term(&mut self, key: PeerKey) {
        if let Some(term) = self.term_mut(key) {
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
        self.term(key).map_or(0, Term::credit_bytes)
    }

    /// When [`Choker::rebalance`] is due though nothing happens before: `Time(0)` when it is due now,
    /// None when only an event can make it due.
    #[must_use]
    pub fn poll_at(&self) -> Option<Time> {
        let free = self.terms.len() < self.config.max_unchoked;
        if !self.spent.is_empty() || free && !self.queue.is_empty() {
            return Some(Time(0));
        }
        self.clocks.first().map(|&(at, _)| at)
    }

    /// How many connections there are with this address, handshakes that are not complete included.
    #[must_use]
    pub fn connections_from(&self, origin: Origin) -> usize {
        self.places.count(origin)
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
        keys.map(|key| {
            let term = self.term(key).expect("a clock runs for an unchoked peer");
            (key, term.began)
        })
    }

    /// How many peers wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// Keeps the members, and the sets over them, in step.
impl Choker {
    fn member(&self, key: PeerKey) -> Option<Member> {
        let member = self.members.get(key.index as usize).copied().flatten();
        member.filter(|member| member.generation == key.generation)
    }

    /// A peer that is connected.
    fn known(&mut self, key: PeerKey) -> &mut Member {
        let member = self
            .members
            .get_mut(key.index as usize)
            .and_then(Option::as_mut);
        let member = member.filter(|member| member.generation == key.generation);
        member.expect("a connection has begun before anything happens to it")
    }

    fn origin(&self, key: PeerKey) -> Origin {
        self.member(key).expect("a peer that is connected").origin
    }

    fn term(&self, key: PeerKey) -> Option<&Term> {
        match self.member(key)?.service {
            Service::Unchoked(term) => Some(self.terms.get(term).expect("a slot has a term")),
            Service::Handshaking | Service::None | Service::Waiting(_) => None,
        }
    }

    fn term_mut(&mut self, key: PeerKey) -> Option<&mut Term> {
        match self.member(key)?.service {
            Service::Unchoked(term) => Some(self.terms.get_mut(term).expect("a slot has a term")),
            Service::Handshaking | Service::None | Service::Waiting(_) => None,
        }
    }

    fn set_idle(&mut self, key: PeerKey, is_idle: bool) {
        let member = self.known(key);
        let (was_idle, active_at) = (member.is_idle, member.active_at);
        member.is_idle = is_idle;
        if was_idle && !is_idle {
            let was_idle = self.idle.remove(&(active_at, key));
            assert!(was_idle, "an idle peer without its entry");
        } else if is_idle && !was_idle {
            self.idle.insert((active_at, key));
        }
    }

    /// `extra_rounds`: how many turns of its address the peer must leave to others.
    fn join_queue(&mut self, key: PeerKey, round: u64, extra_rounds: u64, unused_terms: u8) {
        let turn = (self.rounds).join(self.origin(key), round, extra_rounds, self.round);
        let had_turn = if turn.is_first { 0 } else { HAS_HAD_TURN };
        let ticket = Ticket {
            round: turn.round,
            order: had_turn | self.arrivals,
        };
        self.arrivals += 1;
        self.queue.insert(ticket, Waiter { key, unused_terms });
        self.known(key).service = Service::Waiting(ticket);
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
            charged_bytes: 0,
            is_ended: false,
            round,
            began: now,
            used_at: now,
            used_bytes: 0,
            check_at: now,
            is_used: false,
            is_early: false,
            unused_terms,
        };
        term.check_at = term.end_by_time(self.config.max_unchoked_ms);
        self.clocks.insert((term.check_at, key));
        let term = self.terms.insert(term);
        let member = self.known(key);
        member.service = Service::Unchoked(term);
        let is_idle = member.is_idle;
        self.slots.add(self.origin(key));
        self.set_early(key, is_idle);
    }

    fn set_early(&mut self, key: PeerKey, is_early: bool) {
        let term = self.term_mut(key).expect("it has a slot");
        let was_early = mem::replace(&mut term.is_early, is_early);
        self.early_slots = self.early_slots + usize::from(is_early) - usize::from(was_early);
    }

    /// Takes a peer out of the queue, or takes its slot. The caller must choke it.
    pub fn stop_service(&mut self, key: PeerKey) {
        match self.known(key).service {
            Service::Handshaking | Service::None => return,
            Service::Waiting(ticket) => {
                let waiter = self
                    .queue
                    .remove(&ticket)
                    .expect("a waiting peer is in the queue");
                assert_eq!(waiter.key, key, "each peer has its own ticket");
                self.rounds.leave(self.origin(key));
            }
            Service::Unchoked(_) => self.release_slot(key),
        }
        self.known(key).service = Service::None;
    }

    /// The slot, if the peer has one, is free.
    fn release_slot(&mut self, key: PeerKey) {
        if let Service::Unchoked(term) = self.known(key).service {
            self.set_early(key, false);
            let term = self.terms.remove(term);
            self.clocks.remove(&(term.check_at, key));
            if term.charged_bytes > 0 {
                self.active(key, term.used_at);
            }
            self.slots.remove(self.origin(key));
            self.known(key).service = Service::None;
        }
    }
}

#[cfg(test)]
mod tests;
