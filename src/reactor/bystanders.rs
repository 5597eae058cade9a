//! Peers that want nothing, and give way in a full house.
//!
//! Owns who they are and which of them is due first. It must not know what a peer says. Pure.

use std::collections::BTreeSet;

use crate::peer::key::PeerKey;
use crate::timers::Time;

/// Every peer that wants nothing, with the time since when.
#[derive(Default)]
pub(super) struct Bystanders(BTreeSet<(Time, PeerKey)>);

impl Bystanders {
    /// A peer wants nothing since then.
    pub(super) fn join(&mut self, key: PeerKey, since: Time) {
        self.0.insert((since, key));
    }

    /// One that joined with this time wants something, or is gone.
    pub(super) fn leave(&mut self, key: PeerKey, since: Time) {
        self.0.remove(&(since, key));
    }

    /// Who has wanted nothing for longest, when that is so long.
    pub(super) fn due(&self, now: Time, after_ms: u64) -> Option<PeerKey> {
        let (since, key) = self.0.first()?;
        (now.since(*since) >= after_ms).then_some(*key)
    }

    /// When the first is due.
    pub(super) fn next(&self, after_ms: u64) -> Option<Time> {
        self.0.first().map(|(since, _)| since.after(after_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_wanted_nothing_for_longest_is_due_first() {
        let key = |index| PeerKey {
            index,
            generation: 0,
        };
        let mut bystanders = Bystanders::default();
        assert_eq!(bystanders.next(10), None);
        assert_eq!(bystanders.due(Time(99), 10), None);
        bystanders.join(key(2), Time(7));
        bystanders.join(key(1), Time(5));
        assert_eq!(bystanders.next(10), Some(Time(15)));
        assert_eq!(bystanders.due(Time(14), 10), None);
        assert_eq!(bystanders.due(Time(15), 10), Some(key(1)));
        bystanders.leave(key(1), Time(5));
        assert_eq!(bystanders.due(Time(16), 10), None);
        assert_eq!(bystanders.due(Time(17), 10), Some(key(2)));
        bystanders.leave(key(2), Time(7));
        assert_eq!(bystanders.due(Time(17), 10), None);
    }
}
