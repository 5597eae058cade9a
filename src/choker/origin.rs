//! The origins of peers, which keep a crowd of one origin from taking more than the share of one.
//!
//! One person or machine has an IPv4 address or an IPv6 /64, so an [`Origin`] is one share. A network, a
//! /24 or a /48, is cheap to rent as a whole, but its people may be strangers to each other as well: it
//! counts for a few.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;

use crate::timers::Time;

/// How many addresses a network counts for.
pub const NETWORK_SHARE: u64 = 4;

/// An IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin(u64);

/// The first 24 bits of an IPv4 address, or the first 48 of an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Network(u64);

/// Stands before the 32 bits of an IPv4 address: the reserved block `ff00::/8` of multicast addresses, from
/// which nobody connects.
const IPV4: u64 = 0xffff_ffff << 32;

impl Origin {
    /// The origin of a peer with this address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IPV4 | u64::from(address.to_bits())),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(
                    [a, b, c, d]
                        .iter()
                        .fold(0, |bits, &part| bits << 16 | u64::from(part)),
                )
            }
        }
    }

    /// The network of the address.
    #[must_use]
    pub fn network(self) -> Network {
        match self.0 >= IPV4 {
            true => Network(self.0 & !0xff),
            false => Network(self.0 & !0xffff),
        }
    }
}

/// A crowd that has more than its share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crowd {
    /// All of one address.
    Address(Origin),
    /// All of one network.
    Network(Network),
}

impl Crowd {
    /// Returns true if the origin belongs to the crowd.
    #[must_use]
    pub fn has(self, origin: Origin) -> bool {
        match self {
            Self::Address(address) => address == origin,
            Self::Network(network) => network == origin.network(),
        }
    }
}

/// How many of something each origin has.
#[derive(Debug, Default)]
pub struct Crowds {
    addresses: Counts<Origin>,
    networks: Counts<Network>,
}

impl Crowds {
    /// One more.
    pub fn add(&mut self, origin: Origin) {
        self.addresses.change(origin, |count| count + 1);
        self.networks.change(origin.network(), |count| count + 1);
    }

    /// One less.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn remove(&mut self, origin: Origin) {
        let less = |count: u64| count.checked_sub(1).expect("what goes was there");
        self.addresses.change(origin, less);
        self.networks.change(origin.network(), less);
    }

    /// How many there are of this origin.
    #[must_use]
    pub fn count(&self, origin: Origin) -> usize {
        usize::try_from(self.addresses.of(&origin)).expect("it counts what is in memory")
    }

    /// The crowd that must give one to this origin, if any: an address that has two more, or a network that
    /// has more than its share beside this one's. This origin does not have to give it back then.
    #[must_use]
    pub fn larger_than(&self, origin: Origin) -> Option<Crowd> {
        if let Some((count, address)) = self.addresses.largest()
            && count >= self.addresses.of(&origin) + 2
        {
            return Some(Crowd::Address(address));
        }
        let (count, network) = self.networks.largest()?;
        let share = NETWORK_SHARE * (self.networks.of(&origin.network()) + 1);
        (count > share).then_some(Crowd::Network(network))
    }
}

/// How many each has, and which have several, in order.
#[derive(Debug)]
struct Counts<K> {
    counts: HashMap<K, u64>,
    /// Those with at least two: most have one, and need no entry.
    several: BTreeSet<(u64, K)>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self {
            counts: HashMap::new(),
            several: BTreeSet::new(),
        }
    }
}

impl<K: Copy + Eq + Ord + Hash> Counts<K> {
    fn of(&self, key: &K) -> u64 {
        self.counts.get(key).copied().unwrap_or(0)
    }

    fn largest(&self) -> Option<(u64, K)> {
        self.several.last().copied()
    }

    fn change(&mut self, key: K, change: impl FnOnce(u64) -> u64) {
        let before = self.of(&key);
        let after = change(before);
        self.several.remove(&(before, key));
        match after {
            0 => {
                self.counts.remove(&key);
            }
            _ => {
                self.counts.insert(key, after);
            }
        }
        if after >= 2 {
            self.several.insert((after, key));
        }
    }
}

/// A place in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// The round.
    pub round: u64,
    /// The origin has not had a turn in the round that was asked for.
    pub is_first: bool,
}

/// The turns of each origin in the queue: the next that it may have.
#[derive(Debug, Default)]
pub struct Rounds {
    addresses: HashMap<Origin, Waiting>,
    /// In parts of a round: [`NETWORK_SHARE`] of them are one.
    networks: HashMap<Network, u64>,
    /// How many entries there were when those of past rounds were removed last.
    kept: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// Peers in the queue.
    peers: u32,
    next_round: u64,
}

/// Entries of past rounds are removed when there are so many more than were left the last time.
const FORGOTTEN_AT_ONCE: usize = 1024;

impl Rounds {
    /// A peer joins the queue, not before `round`. `extra_rounds`: as many turns of its address it leaves to
    /// the others of it. `now` is the round that is being served.
    pub fn join(&mut self, origin: Origin, round: u64, extra_rounds: u64, now: u64) -> Turn {
        self.forget(now);
        let address = self.addresses.entry(origin).or_default();
        let network = self.networks.entry(origin.network()).or_default();
        let first = round.max(address.next_round).max(*network / NETWORK_SHARE);
        address.next_round = first + 1;
        *network = (*network).max(first * NETWORK_SHARE) + 1;
        address.peers += 1;
        Turn {
            round: first + extra_rounds * u64::from(address.peers),
            is_first: first == round,
        }
    }

    /// A peer has left the queue, for a slot or for good.
    ///
    /// # Panics
    ///
    /// When none of its origin is in the queue.
    pub fn leave(&mut self, origin: Origin) {
        let address = self.addresses.get_mut(&origin);
        let address = address.expect("an origin is known while its peers wait");
        address.peers = address.peers.checked_sub(1).expect("what leaves was there");
    }

    /// Origins without a peer in the queue are remembered while their next turn lies in the future: who
    /// leaves and comes again gets no more than who waits.
    fn forget(&mut self, now: u64) {
        if self.addresses.len() + self.networks.len() < 2 * self.kept + FORGOTTEN_AT_ONCE {
            return;
        }
        (self.addresses).retain(|_, waiting| waiting.peers > 0 || waiting.next_round > now);
        (self.networks).retain(|_, next| *next / NETWORK_SHARE > now);
        self.kept = self.addresses.len() + self.networks.len();
    }
}

/// How long an origin rests: longer than it takes to fill all places again, and shorter than clients wait
/// before they connect again.
pub const REST_MS: u64 = 10_000;

/// Origins that rest at the same time, at most: a megabyte. The first of more may come again at once.
const RESTING_MAX: usize = 32 * 1024;

/// The origins that may take a place from a crowd only: they had one a moment ago, or were refused one. Without
/// a rest, places would go to those who connect most often.
#[derive(Debug, Default)]
pub struct Rests {
    origins: HashSet<Origin>,
    /// When the rest of each is over, in order.
    ends: VecDeque<(Time, Origin)>,
}

impl Rests {
    /// It rests from now on. A rest is not prolonged, so that an origin that connects all the time gets its turn.
    pub fn begin(&mut self, origin: Origin, now: Time) {
        if !self.origins.insert(origin) {
            return;
        }
        self.ends.push_back((now.after(REST_MS), origin));
        if self.ends.len() > RESTING_MAX {
            self.end_first();
        }
    }

    /// Returns true if the origin rests.
    pub fn has(&mut self, origin: Origin, now: Time) -> bool {
        while self.ends.front().is_some_and(|&(end, _)| end <= now) {
            self.end_first();
        }
        self.origins.contains(&origin)
    }

    fn end_first(&mut self) {
        let (_, first) = self.ends.pop_front().expect("one rests");
        self.origins.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Origin {
        Origin::of(address.parse().unwrap())
    }

    #[test]
    fn an_origin_is_an_ipv4_address_or_a_64() {
        assert_ne!(of("1.2.3.4"), of("1.2.3.5"));
        assert_eq!(of("1.2.3.4"), of("::ffff:1.2.3.4"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("1.2.3.4").network(), of("1.2.3.255").network());
        assert_ne!(of("1.2.3.4").network(), of("1.2.4.4").network());
        let network = of("2001:db8:1:2::").network();
        assert_eq!(network, of("2001:db8:1:ffff::").network());
        assert_ne!(network, of("2001:db8:2::").network());
    }

    #[test]
    fn only_who_has_two_more_gives_one() {
        let mut crowds = Crowds::default();
        for address in ["1.1.1.1", "1.1.1.1", "1.1.2.2"] {
            crowds.add(of(address));
        }
        assert_eq!(crowds.larger_than(of("1.1.2.2")), None);
        let crowd = crowds.larger_than(of("9.9.9.9"));
        assert_eq!(crowd, Some(Crowd::Address(of("1.1.1.1"))));
        crowds.remove(of("1.1.1.1"));
        assert_eq!(crowds.larger_than(of("9.9.9.9")), None);
        crowds.remove(of("1.1.1.1"));
        crowds.remove(of("1.1.2.2"));
        assert!(crowds.addresses.counts.is_empty() && crowds.networks.several.is_empty());
    }

    #[test]
    fn a_network_has_a_few_turns_in_a_round() {
        let mut rounds = Rounds::default();
        let turns: Vec<u64> = (0..10)
            .map(|host| rounds.join(of(&format!("1.1.1.{host}")), 5, 0, 4).round)
            .collect();
        assert_eq!(turns, [5, 5, 5, 5, 6, 6, 6, 6, 7, 7]);
        assert_eq!(rounds.join(of("1.1.2.1"), 5, 0, 4).round, 5);
    }

    #[test]
    fn origins_of_past_rounds_are_forgotten() {
        let mut rounds = Rounds::default();
        let origin = |host: u32| Origin::of(std::net::Ipv4Addr::from(host << 8).into());
        rounds.join(origin(0), 1, 0, 0);
        for host in 1..100_000 {
            let now = u64::from(host);
            rounds.join(origin(host), now + 1, 0, now);
            rounds.leave(origin(host));
        }
        assert!(rounds.addresses.len() < 3000, "{}", rounds.addresses.len());
        rounds.leave(origin(0));
    }

    #[test]
    fn a_rest_ends_whatever_happens_in_it() {
        let mut rests = Rests::default();
        let (one, other) = (of("1.1.1.1"), of("2.2.2.2"));
        rests.begin(one, Time(0));
        rests.begin(one, Time(REST_MS - 1));
        assert!(rests.has(one, Time(REST_MS - 1)) && !rests.has(other, Time(REST_MS - 1)));
        assert!(!rests.has(one, Time(REST_MS)));
        assert!(rests.origins.is_empty() && rests.ends.is_empty());
    }

    #[test]
    fn no_more_origins_rest_than_memory_is_meant_for() {
        let mut rests = Rests::default();
        let origin = |host: usize| {
            let host = u32::try_from(host).unwrap();
            Origin::of(std::net::Ipv4Addr::from(host).into())
        };
        for host in 0..=RESTING_MAX {
            rests.begin(origin(host), Time(0));
        }
        assert!(!rests.has(origin(0), Time(0)) && rests.has(origin(1), Time(0)));
        assert_eq!(rests.origins.len(), RESTING_MAX);
    }
}
