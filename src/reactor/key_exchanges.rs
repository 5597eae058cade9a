//! Whose key is answered next, and how much time the loop may take for it.
//!
//! Anybody can send 96 random bytes, and answering them costs the loop as much as sending 200 KiB. So
//! networks take turns, whatever their number of connections, and while blocks are sent, all together get
//! a tenth of the time.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use crate::choker::origin::Network;
use crate::peer::key::PeerKey;

/// Connections that may wait for their turn: those of a tenth of a second.
const WAITING_MAX: usize = 1024;

/// While blocks are sent, this share of the time.
const SHARE: u32 = 10;

/// The longest time at once, so that new connections and requests do not wait longer.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Connections that wait for an exchange of keys.
pub(super) struct KeyExchanges {
    /// Those with waiting connections, in their order.
    turns: VecDeque<Network>,
    waiting: HashMap<Network, VecDeque<PeerKey>>,
    count: usize,
    /// Connections that lost their place.
    refused: Vec<PeerKey>,
    /// What may be taken now. What was taken beyond it is a debt.
    earned: Duration,
    debt: Duration,
    /// When it was last earned, and how many bytes of blocks had been sent then.
    earned_at: Instant,
    sent_bytes: u64,
    is_serving: bool,
}

impl KeyExchanges {
    /// Nobody waits.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            count: 0,
            refused: Vec::new(),
            earned: Duration::ZERO,
            debt: Duration::ZERO,
            earned_at: now,
            sent_bytes: 0,
            is_serving: false,
        }
    }

    /// Puts a connection in the line of its network. If too many wait, the last one of a network with
    /// the longest line loses its place.
    pub(super) fn push(&mut self, network: Network, key: PeerKey) {
        let line = self.waiting.entry(network).or_default();
        if line.is_empty() {
            self.turns.push_back(network);
        }
        line.push_back(key);
        self.count += 1;
        if self.count > WAITING_MAX {
            let longest = self.waiting.iter_mut().max_by_key(|(_, line)| line.len());
            let (&network, line) = longest.expect("more than none wait");
            self.refused.extend(line.pop_back());
            self.count -= 1;
            // As many networks as may wait have one each.
            if line.is_empty() {
                self.waiting.remove(&network);
                self.turns.retain(|other| *other != network);
            }
        }
    }

    /// Takes the connections that lost their place.
    pub(super) fn take_refused(&mut self) -> Vec<PeerKey> {
        mem::take(&mut self.refused)
    }

    /// Returns true if nothing is to be done.
    pub(super) fn is_idle(&self) -> bool {
        self.count == 0 && self.refused.is_empty()
    }

    /// A turn of the loop, when so many bytes of blocks have been sent so far.
    pub(super) fn earn(&mut self, now: Instant, sent_bytes: u64) {
        let elapsed = now.saturating_duration_since(self.earned_at);
        self.earned_at = now;
        self.is_serving = mem::replace(&mut self.sent_bytes, sent_bytes) != sent_bytes;
        let earned = match self.is_serving {
            true => elapsed / SHARE,
            false => AT_ONCE,
        };
        let paid = earned.min(self.debt);
        self.debt -= paid;
        self.earned = (self.earned + (earned - paid)).min(AT_ONCE);
    }

    /// The connection whose keys are to be exchanged now, if there is time.
    pub(super) fn pop(&mut self) -> Option<PeerKey> {
        if self.earned.is_zero() {
            return None;
        }
        let network = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&network);
        let line = line.expect("a network with a turn has a line");
        let key = line.pop_front().expect("a line is not empty");
        self.count -= 1;
        match line.is_empty() {
            true => drop(self.waiting.remove(&network)),
            false => self.turns.push_back(network),
        }
        Some(key)
    }

    /// An exchange has taken so long.
    pub(super) fn took(&mut self, time: Duration) {
        let owed = time.saturating_sub(self.earned);
        self.earned = self.earned.saturating_sub(time);
        self.debt += owed;
    }

    /// How long the loop may wait for events.
    pub(super) fn timeout(&self) -> Option<Duration> {
        match (self.is_idle(), self.is_serving) {
            (true, _) => None,
            (false, true) => Some(AT_ONCE),
            (false, false) => Some(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::choker::origin::Origin;

    fn network(number: u8) -> Network {
        Origin::of(IpAddr::V4(Ipv4Addr::new(10, 0, number, 1))).network()
    }

    fn key(index: u32) -> PeerKey {
        PeerKey {
            index,
            generation: 0,
        }
    }

    fn order(keys: &mut KeyExchanges) -> Vec<u32> {
        std::iter::from_fn(|| keys.pop().map(|key| key.index)).collect()
    }

    #[test]
    fn networks_take_turns_whatever_their_number_of_connections() {
        let now = Instant::now();
        let mut keys = KeyExchanges::new(now);
        (0..5).for_each(|index| keys.push(network(1), key(index)));
        keys.push(network(2), key(10));
        keys.push(network(3), key(20));
        keys.push(network(3), key(21));
        keys.earn(now, 0);
        assert_eq!(order(&mut keys), [0, 10, 20, 1, 21, 2, 3, 4]);
        assert!(keys.is_idle() && keys.waiting.is_empty());
    }

    #[test]
    fn a_flood_of_one_network_takes_places_from_itself_only() {
        let now = Instant::now();
        let mut keys = KeyExchanges::new(now);
        let flood = u32::try_from(WAITING_MAX).unwrap() + 5;
        (0..flood).for_each(|index| keys.push(network(1), key(index)));
        keys.push(network(2), key(9999));
        assert_eq!(keys.count, WAITING_MAX);
        let refused = keys.take_refused();
        assert_eq!(refused.len(), 6);
        assert!(!refused.contains(&key(9999)) && !refused.contains(&key(0)));
        keys.earn(now, 0);
        assert_eq!(order(&mut keys)[..2], [0, 9999]);
    }

    #[test]
    fn a_flood_of_many_networks_takes_one_place_each() {
        let now = Instant::now();
        let mut keys = KeyExchanges::new(now);
        let others = u32::try_from(WAITING_MAX).unwrap() + 7;
        for index in 0..others {
            let [.., high, low] = index.to_be_bytes();
            let address = IpAddr::V4(Ipv4Addr::new(10, high, low, 1));
            keys.push(Origin::of(address).network(), key(index));
        }
        assert_eq!((keys.count, keys.take_refused().len()), (WAITING_MAX, 7));
        keys.earn(now, 0);
        assert_eq!(order(&mut keys).len(), WAITING_MAX);
        assert!(keys.is_idle() && keys.waiting.is_empty() && keys.turns.is_empty());
    }

    #[test]
    fn while_blocks_are_sent_a_tenth_of_the_time_is_taken() {
        let start = Instant::now();
        let mut keys = KeyExchanges::new(start);
        (0..1000).for_each(|index| keys.push(network(1), key(index)));
        let (mut now, mut sent_bytes, mut taken) = (start, 0, Duration::ZERO);
        let each = Duration::from_micros(70);
        while now < start + Duration::from_millis(100) {
            now += Duration::from_micros(500);
            sent_bytes += 1;
            keys.earn(now, sent_bytes);
            while keys.pop().is_some() {
                keys.took(each);
                taken += each;
                now += each;
            }
        }
        let share = taken.as_secs_f64() / now.duration_since(start).as_secs_f64();
        assert!((0.08..0.11).contains(&share), "{share}");
        assert_eq!(keys.timeout(), Some(AT_ONCE));
        // Without blocks nothing holds it up but the other work of the loop.
        keys.earn(now, sent_bytes);
        assert_eq!(keys.timeout(), Some(Duration::ZERO));
        let mut at_once = 0;
        while keys.pop().is_some() {
            keys.took(each);
            at_once += 1;
        }
        assert!((14..=16).contains(&at_once), "{at_once}");
    }
}
