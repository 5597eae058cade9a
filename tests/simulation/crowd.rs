//! Crowds against the choker alone, from thousands of seeds: whatever its peers do, a crowd gets no
//! more terms than its share of the addresses. A network counts as [`NETWORK_SHARE`] addresses.
//!
//! Honest peers, each from a network of its own, always want blocks and take them as fast as their lines
//! allow. The crowd has as many connections as it likes.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use fastrand::Rng;
use hekate::choker::origin::{NETWORK_SHARE, Origin};
use hekate::choker::{Choker, ChokerConfig, TermLength, Verdict};
use hekate::peer::key::PeerKey;
use hekate::timers::Time;

const SEEDS: u64 = 10_000;
const STEP_MS: u64 = 100;
/// Until everybody has had a turn, and how long terms are counted for then.
const SETTLED_MS: u64 = 5_000;
const COUNTED_MS: u64 = 20_000;
const BLOCK_BYTES: u32 = 16 * 1024;

/// What a peer of the crowd does in each step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// Takes blocks as fast as this many bytes a step.
    Downloads(u64),
    /// Is interested and never asks.
    NeverAsks,
    /// Asks for blocks and reads nothing.
    NeverReads,
    /// Asks for a byte at a time.
    AsksForBytes,
    /// Is interested in one step and not in the next.
    Toggles,
    /// Leaves when it is choked, and comes again.
    Returns,
    /// Any of these, in each step another.
    Random,
}

struct Peer {
    origin: Origin,
    key: Option<PeerKey>,
    is_unchoked: bool,
    /// None: it is honest.
    habit: Option<Habit>,
    /// Bytes in a step.
    rate: u64,
    interested: bool,
}

fn any_habit(random: &mut Rng) -> Habit {
    match random.u8(..6) {
        0 => Habit::Downloads(1 << random.u32(0..18)),
        1 => Habit::NeverAsks,
        2 => Habit::NeverReads,
        3 => Habit::AsksForBytes,
        4 => Habit::Toggles,
        _ => Habit::Returns,
    }
}

struct Run {
    random: Rng,
    choker: Choker,
    peers: Vec<Peer>,
    /// The peer at each index of a key.
    by_index: Vec<Option<usize>>,
    generation: u32,
    /// Shares of the crowd and of the honest peers.
    shares: (u64, u64),
    what: String,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let honest = random.u64(4..24);
        let slots = random.usize(1..=usize::try_from(honest / 2).unwrap());
        let config = ChokerConfig {
            max_unchoked: slots,
            credit_bytes: 1 << random.u32(16..20),
            max_unchoked_ms: 1_000,
            unused_slot_ms: 500,
            idle_ms: 10_000,
        };
        let addresses = random.u64(1..24);
        let (sources, crowd_share): (Vec<IpAddr>, u64) = match random.u8(..3) {
            0 => (vec![[16, 0, 0, 1].into()], 1),
            1 => {
                let one = |n: u64| Ipv4Addr::from(0x1001_0000 + u32::try_from(n).unwrap()).into();
                (
                    (0..addresses).map(one).collect(),
                    addresses.min(NETWORK_SHARE),
                )
            }
            _ => {
                let one =
                    |n: u64| Ipv4Addr::from(0x1100_0001 + (u32::try_from(n).unwrap() << 16)).into();
                ((0..addresses).map(one).collect(), addresses)
            }
        };
        let connections = sources.len().max(random.usize(1..60));
        let habit = match random.u8(..4) {
            0 => Habit::Random,
            _ => any_habit(&mut random),
        };
        let habit = Some(habit);
        let crowd = (0..connections).map(|n| Peer {
            origin: Origin::of(sources[n % sources.len()]),
            key: None,
            is_unchoked: false,
            habit,
            rate: 0,
            interested: false,
        });
        let crowd: Vec<Peer> = crowd.collect();
        let peers = (0..honest).map(|n| Peer {
            origin: Origin::of(
                Ipv4Addr::from(0x4000_0001 + (u32::try_from(n).unwrap() << 16)).into(),
            ),
            key: None,
            is_unchoked: false,
            habit: None,
            rate: 1 << random.u32(13..17),
            interested: false,
        });
        let mut peers: Vec<Peer> = peers.collect();
        peers.extend(crowd);
        let what = format!(
            "{honest} honest, {slots} slots; {connections} from {} addresses, {habit:?}, {config:?}",
            sources.len()
        );
        Self {
            by_index: vec![None; peers.len()],
            choker: Choker::new(config),
            generation: 0,
            shares: (crowd_share, honest),
            peers,
            random,
            what,
        }
    }

    /// Returns the terms that the crowd got, and all.
    fn run(&mut self) -> (u64, u64) {
        let (mut of_crowd, mut of_all) = (0, 0);
        let mut now = Time(0);
        while now < Time(SETTLED_MS + COUNTED_MS) {
            now = now.after(STEP_MS);
            for number in 0..self.peers.len() {
                self.step(number, now);
            }
            let mut verdicts = Vec::new();
            self.choker.rebalance(now, false, &mut verdicts);
            for verdict in verdicts {
                let is_crowd = self.carry_out(verdict);
                if matches!(verdict, Verdict::Unchoke(_)) && now > Time(SETTLED_MS) {
                    of_all += 1;
                    of_crowd += u64::from(is_crowd);
                }
            }
        }
        (of_crowd, of_all)
    }

    /// As the reactor does, in the order of the verdicts. Returns true if the peer is of the crowd.
    fn carry_out(&mut self, verdict: Verdict) -> bool {
        let (Verdict::Unchoke(key)
        | Verdict::Renew(key)
        | Verdict::Choke(key)
        | Verdict::Disconnect(key, _)) = verdict;
        let number = &mut self.by_index[key.index as usize];
        let peer = &mut self.peers[number.expect("the choker knows it")];
        peer.is_unchoked = matches!(verdict, Verdict::Unchoke(_) | Verdict::Renew(_));
        if let Verdict::Disconnect(..) = verdict {
            peer.key = None;
            *number = None;
        }
        if let Verdict::Unchoke(key) = verdict {
            let config = self.choker.config();
            let length = TermLength {
                credit_bytes: config.credit_bytes,
                unused_slot_ms: config.unused_slot_ms,
                tells_renewal: false,
            };
            self.choker.set_term(key, length);
        }
        peer.habit.is_some()
    }

    fn step(&mut self, number: usize, now: Time) {
        let Some(key) = self.peers[number].key else {
            return self.connect(number, now);
        };
        let mut habit = self.peers[number].habit;
        if habit == Some(Habit::Random) {
            habit = Some(any_habit(&mut self.random));
        }
        let peer = &mut self.peers[number];
        if peer.interested && habit == Some(Habit::Toggles) {
            peer.interested = false;
            if self.choker.not_interested(key) {
                peer.is_unchoked = false;
            }
        } else if !peer.interested {
            peer.interested = true;
            self.choker.interested(key);
        }
        match habit {
            None => {
                let rate = peer.rate;
                self.download(key, rate, now);
            }
            Some(Habit::Downloads(rate)) => self.download(key, rate, now),
            Some(Habit::AsksForBytes) => {
                self.choker.requested(key, 1, true, now);
                self.send(key, 1, now);
            }
            Some(Habit::NeverReads) => self.choker.requested(key, BLOCK_BYTES, false, now),
            Some(Habit::Returns) if !peer.is_unchoked => {
                self.choker.disconnected(key);
                peer.key = None;
                self.by_index[key.index as usize] = None;
                self.connect(number, now);
            }
            Some(_) => {}
        }
    }

    fn connect(&mut self, number: usize, now: Time) {
        let index = self
            .by_index
            .iter()
            .position(Option::is_none)
            .expect("there is a place for each");
        self.generation += 1;
        let key = PeerKey {
            index: u32::try_from(index).unwrap(),
            generation: self.generation,
        };
        self.by_index[index] = Some(number);
        let peer = &mut self.peers[number];
        peer.key = Some(key);
        peer.interested = true;
        peer.is_unchoked = false;
        self.choker.begun(key, peer.origin, now);
        self.choker.connected(key, now);
        self.choker.interested(key);
    }

    fn download(&mut self, key: PeerKey, rate: u64, now: Time) {
        self.choker.requested(key, BLOCK_BYTES, true, now);
        self.send(key, rate, now);
    }

    fn send(&mut self, key: PeerKey, bytes: u64, now: Time) {
        let bytes = bytes.min(self.choker.credit_bytes(key));
        if bytes > 0 {
            let blocks = bytes.div_ceil(u64::from(BLOCK_BYTES));
            self.choker
                .sent(key, bytes, u32::try_from(blocks).unwrap(), now);
        }
    }
}

#[test]
fn a_crowd_gets_no_more_terms_than_its_share_of_the_addresses() {
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    thread::scope(|scope| {
        for first in 1..=threads {
            let step = usize::try_from(threads).unwrap();
            scope.spawn(move || (first..=SEEDS).step_by(step).for_each(check));
        }
    });
}

fn check(seed: u64) {
    let mut run = Run::new(seed);
    let (of_crowd, of_all) = run.run();
    let (crowd, honest) = run.shares;
    // A tenth more, since honest peers with slow lines miss rounds that are shorter than their terms; and at
    // the beginning and at the end of the count a term of each address may be in or out.
    let share = (of_all * crowd * 11).div_ceil((crowd + honest) * 10) + crowd;
    assert!(
        of_crowd <= share,
        "seed {seed}: {of_crowd} of {of_all} terms for {crowd} of {}: {}",
        crowd + honest,
        run.what
    );
}
