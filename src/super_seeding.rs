//! Super-seeding (BEP 16): while nobody else has a torrent, each of its pieces is sent once.
//!
//! Owns what is known of the leechers of one torrent: which pieces they have, and which they were
//! shown. A leecher that is shown a few pieces asks for these, so that the seeder decides who gets
//! what:
//!
//! 1. Nothing is hidden from the first leecher. Those that come while others are there are told
//!    that we have nothing, and are shown one piece at once, so that they are interested.
//! 2. For each term of a slot a leecher is shown as many pieces as the term lasts.
//! 3. Pieces come first that no leecher has and none was shown; then those that no leecher has;
//!    then those that the fewest have or were shown. Among equals the one that was shown last comes
//!    first, since older ones are on their way among the leechers.
//! 4. When the leechers together have each piece, or another complete peer is known, the seeder is one
//!    source among others: every piece is shown to everybody, and the knowledge is dropped. So it
//!    is when there are more than [`LEECHERS_MAX`]. With [`SuperSeedingMode::On`] other complete peers
//!    change nothing.
//! 5. A leecher that this confuses is shown every piece: one that asks for what it was not shown, or
//!    for nothing in two terms.
//!
//! A leecher that leaves takes its pieces along, and what it was shown is shown to others.
//!
//! ```text
//!             two leechers               each piece is at a leecher; another seed is known
//!  Waiting ───────────────▶ Spreading ────────────────────────────────────────────────────▶ Over
//! ```
//!
//! The cost: twelve bytes for each piece while spreading, and for each leecher that has a piece one bit
//! for each, and up to 256 pieces that it has begun. [`PIECES_MAX`] and [`LEECHERS_MAX`] bound
//! them for a torrent: 12 bytes and 100 bits for each of 65,536 pieces are 1.6 MB. The caller bounds what all torrents
//! take together, by `may_begin`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;

use fastrand::Rng;

use crate::peer::key::PeerKey;
use crate::torrent::layout::Shape;

/// The most pieces of a torrent that is super-seeded. Each leecher gets a `have` of nine bytes for
/// each piece at the end: 576 KiB for so many. With 4 MiB pieces it is a torrent of 256 GiB.
pub const PIECES_MAX: u32 = 64 * 1024;

/// With more leechers than these, every piece is shown to everybody: thousands that are idle, or come
/// and go, must cost neither memory nor time.
pub const LEECHERS_MAX: usize = 100;

/// The most pieces of a leecher that are counted as begun. It takes 64 of the shortest usual ones in a
/// term; one that begins pieces by the thousand must not make each block slower.
const OPEN_MAX: usize = 256;

/// Terms in a row without a block after which a leecher is shown every piece.
const UNUSED_TERMS_LIMIT: u8 = 2;

/// Which torrents are super-seeded: none that is private, and none with fewer than two leechers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuperSeedingMode {
    /// Those of which no other complete peer is known, from its connection or from a tracker.
    Auto,
    /// All.
    On,
    /// None.
    Off,
}

/// What is known of the leechers of one torrent.
#[derive(Debug)]
pub struct SuperSeeding {
    ends_with_seeds: bool,
    phase: Phase,
    piece_length: u32,
    total_length: u64,
    pieces: u32,
    /// Connected leechers, also those without an entry below.
    connected: usize,
    /// Those that have or were shown anything, or from whom pieces are hidden.
    leechers: HashMap<PeerKey, Leecher>,
    /// Those that are to be shown every piece.
    to_reveal: Vec<PeerKey>,
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Spreading(Spreading),
    Over,
}

#[derive(Debug)]
struct Spreading {
    copies: Vec<Copies>,
    /// The pieces that nobody has and nobody was shown, in random order; some of them may have come
    /// to a leecher since.
    fresh: Vec<u32>,
    /// How many pieces no leecher has.
    absent: u32,
    /// Counts what was shown, which tells the older from the younger.
    shows: u32,
}

/// Where a piece is.
#[derive(Clone, Copy, Default, Debug)]
struct Copies {
    /// Leechers that have it.
    had: u16,
    /// Leechers that were shown it and do not have it yet.
    shown: u16,
    /// The value of `Spreading::shows` when it was shown last.
    shown_at: u32,
}

#[derive(Default, Debug)]
struct Leecher {
    has: Bits,
    /// What it was shown, or has begun to take, and does not have.
    open: Vec<Open>,
    is_hidden: bool,
    has_used_term: bool,
    unused_terms: u8,
}

#[derive(Debug)]
struct Open {
    piece: u32,
    /// Bytes of it that were sent to the leecher.
    sent_bytes: u32,
}

/// What a leecher is shown for a term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The pieces. The leecher is to be shown them, or if nothing is hidden from it, they are to be
    /// suggested.
    pub pieces: Vec<u32>,
    /// What is to be sent of all that it was shown.
    pub bytes: u64,
    /// Other pieces are hidden from it.
    pub is_hidden: bool,
}

/// Connecting and leaving.
impl SuperSeeding {
    /// Without leechers.
    #[must_use]
    pub fn new(shape: &Shape, mode: SuperSeedingMode) -> Self {
        let is_possible = !shape.private && shape.pieces <= PIECES_MAX;
        Self {
            ends_with_seeds: mode == SuperSeedingMode::Auto,
            phase: match mode != SuperSeedingMode::Off && is_possible {
                true => Phase::Waiting,
                false => Phase::Over,
            },
            piece_length: shape.piece_length,
            total_length: shape.total_length,
            pieces: shape.pieces,
            connected: 0,
            leechers: HashMap::new(),
            to_reveal: Vec::new(),
        }
    }

    /// Returns true if the next leecher is to be told that we have nothing.
    #[must_use]
    pub fn hides(&self) -> bool {
        match self.phase {
            Phase::Waiting => self.connected > 0,
            Phase::Spreading(_) => self.connected < LEECHERS_MAX,
            Phase::Over => false,
        }
    }

    /// The pieces that are counted: all of the torrent while it is spreading, else none.
    #[must_use]
    pub fn counted_pieces(&self) -> u32 {
        match self.phase {
            Phase::Spreading(_) => self.pieces,
            Phase::Waiting | Phase::Over => 0,
        }
    }

    /// Returns true if what leechers have is of interest.
    #[must_use]
    pub fn wants_pieces(&self) -> bool {
        !matches!(self.phase, Phase::Over)
    }

    /// A leecher has connected. `is_hidden`: it was told that we have nothing. `may_begin`: there is
    /// memory for one more torrent that is spreading. Returns a piece to show the leecher.
    pub fn connected(
        &mut self,
        key: PeerKey,
        is_hidden: bool,
        may_begin: bool,
        random: &mut Rng,
    ) -> Option<u32> {
        self.connected += 1;
        if self.connected > LEECHERS_MAX {
            self.end();
        }
        if matches!(self.phase, Phase::Waiting) && self.connected > 1 {
            match may_begin {
                true => self.begin(random),
                false => self.end(),
            }
        }
        if !is_hidden {
            return None;
        }
        if !matches!(self.phase, Phase::Spreading(_)) {
            // The others have gone, or have everything, since it was told that we have nothing.
            self.to_reveal.push(key);
            return None;
        }
        let leecher = Leecher {
            is_hidden,
            ..Leecher::default()
        };
        let before = self.leechers.insert(key, leecher);
        assert!(before.is_none(), "a leecher connects once");
        self.keep_interested(key)
    }

    /// There are two leechers.
    fn begin(&mut self, random: &mut Rng) {
        let mut copies = vec![Copies::default(); self.pieces as usize];
        for leecher in self.leechers.values() {
            for piece in leecher.has.ones() {
                at(&mut copies, piece).had += 1;
            }
        }
        let numbered = || (0_u32..).zip(&copies);
        let absent = numbered().filter(|(_, copies)| copies.had == 0);
        let mut fresh: Vec<u32> = absent.map(|(piece, _)| piece).collect();
        random.shuffle(&mut fresh);
        let absent = u32::try_from(fresh.len()).expect("no more than there are pieces");
        self.phase = Phase::Spreading(Spreading {
            copies,
            fresh,
            absent,
            shows: 0,
        });
        self.end_when_spread();
    }

    /// A leecher has gone. `is_complete`: it is a seed now.
    pub fn left(&mut self, key: PeerKey, is_complete: bool) {
        self.connected -= 1;
        let leecher = self.leechers.remove(&key);
        if is_complete {
            self.seed_known();
        }
        if matches!(self.phase, Phase::Spreading(_)) && self.connected < 2 {
            self.phase = Phase::Waiting;
            self.reveal_all();
            let leechers = self.leechers.values_mut();
            leechers.for_each(|leecher| leecher.open = Vec::new());
        }
        let (Some(leecher), Phase::Spreading(spreading)) = (leecher, &mut self.phase) else {
            return;
        };
        for piece in leecher.has.ones() {
            let copies = at(&mut spreading.copies, piece);
            copies.had -= 1;
            spreading.absent += u32::from(copies.had == 0);
            spreading.renew(piece);
        }
        for open in leecher.open {
            at(&mut spreading.copies, open.piece).shown -= 1;
            spreading.renew(open.piece);
        }
    }

    /// Another complete peer of the torrent is known.
    pub fn seed_known(&mut self) {
        if self.ends_with_seeds {
            self.end();
        }
    }

    /// The seeder is one source among others.
    fn end(&mut self) {
        self.phase = Phase::Over;
        self.reveal_all();
        self.leechers = HashMap::new();
    }

    fn reveal_all(&mut self) {
        for (key, leecher) in &mut self.leechers {
            if mem::take(&mut leecher.is_hidden) {
                self.to_reveal.push(*key);
            }
        }
    }

    fn end_when_spread(&mut self) {
        if matches!(&self.phase, Phase::Spreading(spreading) if spreading.absent == 0) {
            self.end();
        }
    }

    /// Takes the leechers that are to be shown every piece.
    pub fn take_to_reveal(&mut self) -> Vec<PeerKey> {
        mem::take(&mut self.to_reveal)
    }
}

/// What leechers have and take.
impl SuperSeeding {
    /// The leecher has said that it has these pieces; the highest bit is for `first`.
    pub fn has_pieces(&mut self, key: PeerKey, first: u32, bits: u64) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        let mut left = bits;
        while left != 0 {
            let bit = left.leading_zeros();
            left &= !(1 << (u64::BITS - 1 - bit));
            self.has(key, first + bit);
        }
        self.end_when_spread();
    }

    fn has(&mut self, key: PeerKey, piece: u32) {
        let Some(leecher) = entry(&mut self.leechers, key) else {
            return;
        };
        if !leecher.has.insert(piece, self.pieces) {
            return;
        }
        let was_open = leecher.open.iter().position(|open| open.piece == piece);
        if let Some(at) = was_open {
            leecher.open.swap_remove(at);
        }
        if let Phase::Spreading(spreading) = &mut self.phase {
            let copies = at(&mut spreading.copies, piece);
            copies.shown -= u16::from(was_open.is_some());
            copies.had += 1;
            spreading.absent -= u32::from(copies.had == 1);
        }
    }

    /// A block of the piece was sent to the leecher. A piece that was sent whole counts as had: some
    /// clients do not say that they have a piece to a peer that has it too.
    pub fn sent(&mut self, key: PeerKey, piece: u32, bytes: u32) {
        let Phase::Spreading(spreading) = &mut self.phase else {
            return;
        };
        let length = self.total_length - u64::from(piece) * u64::from(self.piece_length);
        let length = length.min(self.piece_length.into());
        let Some(leecher) = entry(&mut self.leechers, key) else {
            return;
        };
        leecher.has_used_term = true;
        leecher.unused_terms = 0;
        if leecher.has.contains(piece) {
            return;
        }
        let open = leecher.open.iter().position(|open| open.piece == piece);
        if open.is_none() && mem::take(&mut leecher.is_hidden) {
            self.to_reveal.push(key);
        }
        if open.is_none() && leecher.open.len() >= OPEN_MAX {
            return;
        }
        let open = open.unwrap_or_else(|| {
            at(&mut spreading.copies, piece).shown += 1;
            let sent_bytes = 0;
            leecher.open.push(Open { piece, sent_bytes });
            leecher.open.len() - 1
        });
        let open = leecher.open.get_mut(open).expect("it was found or added");
        open.sent_bytes = open.sent_bytes.saturating_add(bytes);
        if u64::from(open.sent_bytes) >= length {
            self.has(key, piece);
            self.end_when_spread();
        }
    }
}

/// Terms.
impl SuperSeeding {
    /// A leecher begins a term of so many bytes. Returns what it is shown; None when it asks for what
    /// it likes.
    pub fn begin_term(&mut self, key: PeerKey, bytes: u64) -> Option<Shown> {
        if !matches!(self.phase, Phase::Spreading(_)) {
            return None;
        }
        entry(&mut self.leechers, key)?.has_used_term = false;
        Some(self.show(key, bytes))
    }

    /// A term of a leecher is over. Returns a piece to show it, so that it stays interested.
    pub fn end_term(&mut self, key: PeerKey) -> Option<u32> {
        let leecher = self.leechers.get_mut(&key)?;
        if !leecher.is_hidden {
            return None;
        }
        if !leecher.has_used_term {
            leecher.unused_terms += 1;
            if leecher.unused_terms >= UNUSED_TERMS_LIMIT {
                leecher.is_hidden = false;
                self.to_reveal.push(key);
                return None;
            }
        }
        self.keep_interested(key)
    }

    /// Returns a piece to show a leecher that has got all that it was shown, from whomever.
    pub fn keep_interested(&mut self, key: PeerKey) -> Option<u32> {
        let is_served = self.is_served(key);
        is_served.then(|| self.show(key, 1).pieces.first().copied())?
    }

    /// Returns true if pieces are hidden from the leecher and it has got all that it was shown.
    #[must_use]
    pub fn is_served(&self, key: PeerKey) -> bool {
        let leecher = self.leechers.get(&key);
        leecher.is_some_and(|leecher| leecher.is_hidden && leecher.open.is_empty())
    }

    /// Chooses pieces until what the leecher was shown and has not got is at least `bytes`.
    fn show(&mut self, key: PeerKey, bytes: u64) -> Shown {
        let mut shown = Shown {
            pieces: Vec::new(),
            bytes: 0,
            is_hidden: false,
        };
        let piece_length = u64::from(self.piece_length);
        let leecher = self.leechers.get_mut(&key);
        let leecher = leecher.expect("the leecher has an entry");
        shown.is_hidden = leecher.is_hidden;
        let open = leecher.open.iter();
        shown.bytes = open
            .map(|open| piece_length.saturating_sub(open.sent_bytes.into()))
            .sum();
        let Phase::Spreading(spreading) = &mut self.phase else {
            return shown;
        };
        while shown.bytes < bytes {
            let piece = spreading.next_fresh().or_else(|| {
                // One is enough: it was shown before, or somebody has it.
                (shown.bytes == 0).then(|| spreading.next_best(leecher))?
            });
            let Some(piece) = piece else { break };
            spreading.shows += 1;
            let copies = at(&mut spreading.copies, piece);
            copies.shown += 1;
            copies.shown_at = spreading.shows;
            let sent_bytes = 0;
            leecher.open.push(Open { piece, sent_bytes });
            shown.pieces.push(piece);
            shown.bytes += piece_length;
        }
        shown
    }
}

impl Spreading {
    /// A piece that nobody has and nobody was shown.
    fn next_fresh(&mut self) -> Option<u32> {
        while let Some(piece) = self.fresh.pop() {
            let copies = at(&mut self.copies, piece);
            if copies.had == 0 && copies.shown == 0 {
                return Some(piece);
            }
        }
        None
    }

    /// Of the pieces that the leecher neither has nor was shown, the one that it is best shown.
    fn next_best(&self, leecher: &Leecher) -> Option<u32> {
        let pieces = (0_u32..).zip(&self.copies);
        let lacking = pieces
            .filter(|(piece, _)| !leecher.has.contains(*piece))
            .filter(|(piece, _)| leecher.open.iter().all(|open| open.piece != *piece));
        let best = lacking.min_by_key(|(_, copies)| {
            let others = u32::from(copies.had) + u32::from(copies.shown);
            (copies.had > 0, others, u32::MAX - copies.shown_at)
        });
        best.map(|(piece, _)| piece)
    }

    /// A copy of the piece has gone.
    fn renew(&mut self, piece: u32) {
        let copies = at(&mut self.copies, piece);
        if copies.had == 0 && copies.shown == 0 {
            self.fresh.push(piece);
        }
    }
}

/// The leecher's entry, which is made if there is none and there are not too many.
fn entry(leechers: &mut HashMap<PeerKey, Leecher>, key: PeerKey) -> Option<&mut Leecher> {
    let has_room = leechers.len() < LEECHERS_MAX;
    match leechers.entry(key) {
        Entry::Occupied(entry) => Some(entry.into_mut()),
        Entry::Vacant(entry) if has_room => Some(entry.insert(Leecher::default())),
        Entry::Vacant(_) => None,
    }
}

fn at(copies: &mut [Copies], piece: u32) -> &mut Copies {
    let copies = copies.get_mut(piece as usize);
    copies.expect("the session refuses pieces that the torrent does not have")
}

/// A set of pieces. Without pieces it takes no memory on the heap.
#[derive(Default, Debug)]
struct Bits(Box<[u64]>);

impl Bits {
    /// Returns true if it was not there. `pieces` are possible.
    fn insert(&mut self, piece: u32, pieces: u32) -> bool {
        if self.0.is_empty() {
            self.0 = vec![0; pieces.div_ceil(64) as usize].into();
        }
        let word = self.0.get_mut(piece as usize / 64);
        let word = word.expect("the set has a bit for each piece");
        let bit = 1 << (piece % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn contains(&self, piece: u32) -> bool {
        let word = self.0.get(piece as usize / 64).copied().unwrap_or(0);
        word & 1 << (piece % 64) != 0
    }

    fn ones(&self) -> impl Iterator<Item = u32> {
        (self.0.iter().zip(0_u32..)).flat_map(|(&word, at)| {
            let bits = (0..64).filter(move |bit| word & 1 << bit != 0);
            bits.map(move |bit| at * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PIECE: u64 = 256 * 1024;

    fn shape(pieces: u32) -> Shape {
        Shape {
            piece_length: 256 * 1024,
            pieces,
            total_length: u64::from(pieces) * PIECE,
            metadata_length: 100,
            private: false,
        }
    }

    /// A swarm of hidden leechers, the first of which is not hidden. Each was shown a piece.
    fn swarm(pieces: u32, leechers: u32) -> (SuperSeeding, Vec<Option<u32>>) {
        let mut swarm = SuperSeeding::new(&shape(pieces), SuperSeedingMode::Auto);
        let mut random = Rng::with_seed(1);
        let shown = (0..leechers).map(|peer| {
            let is_hidden = swarm.hides();
            swarm.connected(key(peer), is_hidden, true, &mut random)
        });
        let shown = shown.collect();
        (swarm, shown)
    }

    fn key(index: u32) -> PeerKey {
        PeerKey {
            index,
            generation: 0,
        }
    }

    fn term(swarm: &mut SuperSeeding, peer: u32, bytes: u64) -> Vec<u32> {
        swarm.begin_term(key(peer), bytes).unwrap().pieces
    }

    fn bit(piece: u32) -> (u32, u64) {
        (piece / 64 * 64, 1 << (63 - piece % 64))
    }

    fn has(swarm: &mut SuperSeeding, peer: u32, piece: u32) {
        let (first, bits) = bit(piece);
        swarm.has_pieces(key(peer), first, bits);
    }

    fn send(swarm: &mut SuperSeeding, peer: u32, piece: u32) {
        for _ in 0..16 {
            swarm.sent(key(peer), piece, 16 * 1024);
        }
    }

    #[test]
    fn nothing_is_hidden_from_the_first_leecher_nor_where_it_is_not_allowed() {
        let (lone, shown) = swarm(10, 1);
        assert_eq!(shown, [None]);
        assert!(lone.hides() && lone.wants_pieces());
        let private = Shape {
            private: true,
            ..shape(10)
        };
        for (shape, mode) in [
            (private, SuperSeedingMode::On),
            (shape(10), SuperSeedingMode::Off),
            (shape(PIECES_MAX + 1), SuperSeedingMode::On),
        ] {
            let mut swarm = SuperSeeding::new(&shape, mode);
            swarm.connected(key(0), false, true, &mut Rng::with_seed(1));
            assert!(!swarm.hides() && !swarm.wants_pieces());
            assert_eq!(swarm.begin_term(key(0), PIECE), None);
        }
    }

    #[test]
    fn every_piece_is_shown_once_before_any_is_shown_twice() {
        let (mut swarm, first) = swarm(100, 10);
        let mut shown: BTreeSet<u32> = first.into_iter().flatten().collect();
        assert_eq!(shown.len(), 9);
        for turn in 0..25 {
            for piece in term(&mut swarm, turn % 10, 4 * PIECE) {
                assert!(shown.insert(piece), "{piece} was shown before");
            }
            let (open, peer) = (shown.clone(), turn % 10);
            open.into_iter()
                .filter(|piece| {
                    swarm.leechers[&key(peer)]
                        .open
                        .iter()
                        .any(|o| o.piece == *piece)
                })
                .collect::<Vec<_>>()
                .into_iter()
                .take(4)
                .for_each(|piece| send(&mut swarm, peer, piece));
        }
        assert_eq!(shown.len(), 100);
    }

    #[test]
    fn a_term_has_whole_pieces_and_at_least_one() {
        let (mut swarm, shown) = swarm(100, 2);
        // One that it was shown before counts.
        assert!(shown[1].is_some());
        assert_eq!(term(&mut swarm, 1, 1).len(), 0);
        assert_eq!(term(&mut swarm, 1, PIECE + 1).len(), 1);
        assert_eq!(term(&mut swarm, 1, 200 * PIECE).len(), 98);
        let again = swarm.begin_term(key(1), 300 * PIECE).unwrap();
        assert_eq!((again.pieces.len(), again.bytes), (0, 100 * PIECE));
        assert!(again.is_hidden);
    }

    #[test]
    fn when_every_piece_was_shown_a_term_has_one_that_nobody_has() {
        let (mut swarm, _) = swarm(4, 3);
        term(&mut swarm, 1, 4 * PIECE);
        let open: Vec<u32> = (swarm.leechers[&key(1)].open.iter())
            .map(|open| open.piece)
            .collect();
        assert_eq!(open.len(), 3, "one was shown to the third leecher");
        send(&mut swarm, 1, open[0]);
        let mine = swarm.leechers[&key(2)].open[0].piece;
        send(&mut swarm, 2, mine);
        assert!(swarm.is_served(key(2)));
        let shown = term(&mut swarm, 2, 4 * PIECE);
        assert_eq!(
            shown,
            [*open.last().unwrap()],
            "the youngest without a copy"
        );
    }

    #[test]
    fn a_leecher_is_served_when_it_was_sent_what_it_was_shown_or_says_that_it_has_it() {
        let (mut swarm, shown) = swarm(100, 2);
        let first = shown[1].unwrap();
        let [second] = term(&mut swarm, 1, 2 * PIECE).try_into().unwrap();
        for _ in 0..15 {
            swarm.sent(key(1), first, 16 * 1024);
        }
        assert!(!swarm.is_served(key(1)));
        swarm.sent(key(1), first, 16 * 1024);
        assert!(!swarm.is_served(key(1)));
        has(&mut swarm, 1, second);
        assert!(swarm.is_served(key(1)));
        assert!(!swarm.is_served(key(0)), "nothing is hidden from it");
        let next = swarm.end_term(key(1));
        assert!(next.is_some() && !swarm.is_served(key(1)));
    }

    #[test]
    fn everything_is_revealed_when_the_leechers_together_have_each_piece() {
        let (mut swarm, _) = swarm(130, 3);
        swarm.has_pieces(key(0), 0, u64::MAX);
        swarm.has_pieces(key(1), 64, u64::MAX);
        has(&mut swarm, 2, 128);
        assert_eq!(swarm.take_to_reveal(), []);
        has(&mut swarm, 0, 129);
        let revealed: BTreeSet<PeerKey> = swarm.take_to_reveal().into_iter().collect();
        assert_eq!(revealed, [key(1), key(2)].into());
        assert!(!swarm.hides() && !swarm.wants_pieces());
        assert_eq!(swarm.begin_term(key(1), PIECE), None);
        swarm.left(key(1), false);
    }

    #[test]
    fn everything_is_revealed_when_a_leecher_is_complete_or_only_one_is_left() {
        let (mut swarm, _) = swarm(10, 3);
        swarm.left(key(0), true);
        assert_eq!(swarm.take_to_reveal().len(), 2);
        assert!(!swarm.hides());
        let (mut swarm, _) = self::swarm(10, 2);
        swarm.left(key(0), false);
        assert_eq!(swarm.take_to_reveal(), [key(1)]);
        assert!(swarm.hides(), "from the next one");
    }

    #[test]
    fn who_was_told_that_we_have_nothing_when_that_was_over_is_shown_everything() {
        let (mut swarm, _) = swarm(10, 2);
        assert!(swarm.hides());
        swarm.left(key(0), true);
        swarm.take_to_reveal();
        let shown = swarm.connected(key(2), true, true, &mut Rng::with_seed(1));
        assert_eq!((shown, swarm.take_to_reveal()), (None, vec![key(2)]));
    }

    #[test]
    fn a_first_leecher_that_has_every_piece_by_its_own_account_hides_nothing_from_the_second() {
        let (mut swarm, _) = swarm(64, 1);
        swarm.has_pieces(key(0), 0, u64::MAX);
        assert!(swarm.hides());
        let shown = swarm.connected(key(1), true, true, &mut Rng::with_seed(1));
        assert_eq!((shown, swarm.take_to_reveal()), (None, vec![key(1)]));
        assert!(!swarm.hides());
        swarm.left(key(1), false);
    }

    #[test]
    fn a_leecher_that_gets_its_piece_from_another_is_shown_one_more() {
        let (mut swarm, shown) = swarm(10, 2);
        assert_eq!(swarm.keep_interested(key(0)), None, "nothing is hidden");
        assert_eq!(swarm.keep_interested(key(1)), None, "one is open");
        has(&mut swarm, 1, shown[1].unwrap());
        let next = swarm.keep_interested(key(1));
        assert!(next.is_some() && next != shown[1]);
    }

    #[test]
    fn without_memory_for_one_more_torrent_nothing_is_hidden() {
        let mut swarm = SuperSeeding::new(&shape(10), SuperSeedingMode::Auto);
        let mut random = Rng::with_seed(1);
        swarm.connected(key(0), false, true, &mut random);
        assert_eq!(swarm.connected(key(1), true, false, &mut random), None);
        assert_eq!(swarm.take_to_reveal(), [key(1)]);
        assert!(!swarm.hides());
        assert_eq!(swarm.counted_pieces(), 0);
        let (swarm, _) = self::swarm(10, 2);
        assert_eq!(swarm.counted_pieces(), 10);
    }

    #[test]
    fn pieces_that_a_leecher_begins_are_bounded() {
        let (mut swarm, _) = swarm(1000, 2);
        (0..1000).for_each(|piece| swarm.sent(key(0), piece, 16 * 1024));
        assert_eq!(swarm.leechers[&key(0)].open.len(), OPEN_MAX);
    }

    #[test]
    fn a_confused_leecher_is_shown_everything() {
        let (mut swarm, shown) = swarm(10, 3);
        let other = (0..10).find(|piece| Some(*piece) != shown[1]).unwrap();
        swarm.sent(key(1), other, 16 * 1024);
        assert_eq!(swarm.take_to_reveal(), [key(1)]);
        for _ in 0..2 {
            assert_eq!(swarm.take_to_reveal(), []);
            swarm.begin_term(key(2), PIECE);
            swarm.end_term(key(2));
        }
        assert_eq!(swarm.take_to_reveal(), [key(2)]);
    }

    #[test]
    fn a_leecher_that_leaves_takes_its_pieces_along() {
        let (mut swarm, _) = swarm(3, 3);
        let before: BTreeSet<u32> = [1, 2].map(|p| swarm.leechers[&key(p)].open[0].piece).into();
        send(&mut swarm, 2, *before.last().unwrap());
        swarm.left(key(2), false);
        let shown = term(&mut swarm, 0, 3 * PIECE);
        assert!(shown.contains(before.last().unwrap()) || swarm.leechers[&key(1)].open.len() == 1);
        assert_eq!(shown.len(), 2, "all but what the second leecher was shown");
    }

    #[test]
    fn other_seeds_change_nothing_when_it_is_turned_on() {
        for mode in [SuperSeedingMode::Auto, SuperSeedingMode::On] {
            for from_tracker in [true, false] {
                let mut swarm = SuperSeeding::new(&shape(10), mode);
                for peer in 0..4 {
                    let is_hidden = swarm.hides();
                    swarm.connected(key(peer), is_hidden, true, &mut Rng::with_seed(1));
                }
                match from_tracker {
                    true => swarm.seed_known(),
                    false => swarm.left(key(3), true),
                }
                assert_eq!(swarm.hides(), mode == SuperSeedingMode::On);
            }
        }
    }

    #[test]
    fn with_too_many_leechers_everything_is_revealed() {
        let count = u32::try_from(LEECHERS_MAX).unwrap();
        let (mut swarm, shown) = swarm(2000, count);
        assert!(shown.iter().skip(1).all(Option::is_some));
        assert!(!swarm.hides());
        swarm.connected(key(count), false, true, &mut Rng::with_seed(1));
        assert_eq!(swarm.take_to_reveal().len(), LEECHERS_MAX - 1);
        has(&mut swarm, count, 7);
        assert!(swarm.leechers.is_empty() && !swarm.wants_pieces());
    }

    #[test]
    fn the_counts_hold_over_random_changes() {
        let mut random = Rng::with_seed(7);
        let mut choice = Rng::with_seed(8);
        let (mut swarm, _) = swarm(70, 0);
        let mut present = BTreeSet::new();
        let mut spread = 0;
        for _ in 0..20_000 {
            let peer = random.u32(0..12);
            match random.u8(0..16) {
                0 if present.insert(peer) => {
                    let is_hidden = swarm.hides();
                    swarm.connected(key(peer), is_hidden, true, &mut choice);
                }
                1 if random.u8(0..6) == 0 && present.remove(&peer) => swarm.left(key(peer), false),
                3 if present.contains(&peer) => has(&mut swarm, peer, random.u32(0..70)),
                4..12 if present.contains(&peer) => {
                    swarm.sent(key(peer), random.u32(0..70), 128 * 1024);
                }
                12 if present.contains(&peer) => drop(swarm.end_term(key(peer))),
                13.. if present.contains(&peer) => drop(swarm.begin_term(key(peer), 2 * PIECE)),
                _ => {}
            }
            if !swarm.wants_pieces() {
                spread += 1;
                swarm = self::swarm(70, 0).0;
                present.clear();
            }
            let Phase::Spreading(spreading) = &swarm.phase else {
                continue;
            };
            let leechers = swarm.leechers.values();
            let mut absent = 0;
            for (piece, copies) in (0..).zip(&spreading.copies) {
                let had = leechers.clone().filter(|l| l.has.contains(piece)).count();
                let open = |l: &&Leecher| l.open.iter().any(|open| open.piece == piece);
                let shown = leechers.clone().filter(open).count();
                assert_eq!(
                    (usize::from(copies.had), usize::from(copies.shown)),
                    (had, shown)
                );
                absent += u32::from(had == 0);
            }
            assert_eq!(spreading.absent, absent);
        }
        assert!(spread > 0, "the pieces were never spread");
    }
}
