//! Deadlines: the time as a value, each connection's time-outs, and the alarms that find them.
//!
//! The session decides what a time-out means. Nothing here reads a clock; the loop does, once a turn.
//!
//! An event of a connection moves plain times in its [`Deadlines`], which costs a store; [`Alarms`]
//! does not learn of it. It has one entry for the earliest deadline known when the alarm was armed.
//! When the entry comes out, [`Deadlines::expired`] says whether a time-out is due, and
//! [`Alarm::arm`] puts it back. Only a deadline that moves *nearer* needs an entry at once.

use std::collections::BTreeMap;

use crate::peer::key::PeerKey;

/// Milliseconds since the process started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// Later than anything: what a clock that is not running is set to.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// This time, `ms` milliseconds later.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Every time-out of a connection, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// From the accepted connection to the last byte of the handshake.
    pub handshake_ms: u64,
    /// From the first byte of a message to its last: no limit on size would stop a slow drip.
    pub message_ms: u64,
    /// Without any byte from the peer. Keep-alives come every 120 s, some clients' later.
    pub idle_ms: u64,
    /// Bytes wait and the peer takes none of them.
    pub write_ms: u64,
    /// Without sending, until a keep-alive is due. rtorrent leaves after 240 s.
    pub keep_alive_ms: u64,
    /// The same while the peer waits for a slot: rqbit leaves after 10 s without a byte.
    pub waiting_keep_alive_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake_ms: 10_000,
            message_ms: 60_000,
            idle_ms: 300_000,
            write_ms: 120_000,
            keep_alive_ms: 100_000,
            waiting_keep_alive_ms: 8_000,
        }
    }
}

/// Which time-out is due. All but [`Timer::KeepAlive`] end the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// The handshake was not completed in time.
    Handshake,
    /// A message was begun and not completed in time.
    Message,
    /// Nothing has come from the peer for too long.
    Idle,
    /// The peer has taken nothing of what waits for it for too long.
    Write,
    /// Nothing has been sent for so long that the peer may think us gone.
    KeepAlive,
}

/// One connection's clocks: each is the time since when it runs.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// The last byte from the peer.
    received: Time,
    /// The last byte to the peer.
    sent: Time,
    /// The first byte of the message that is half received, or [`Time::NEVER`]. While the
    /// handshake is pending it is that message, and this is when the connection was accepted.
    half_message: Time,
    /// Since when the socket takes nothing of what waits, or [`Time::NEVER`].
    blocked: Time,
    /// The handshake is not complete.
    handshake: bool,
    /// The peer is interested and choked.
    waiting: bool,
}

impl Deadlines {
    /// A connection was accepted; its handshake is awaited.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            received: now,
            sent: now,
            half_message: now,
            blocked: Time::NEVER,
            handshake: true,
            waiting: false,
        }
    }

    /// The last byte of the handshake has come.
    pub fn handshake_done(&mut self, now: Time) {
        self.handshake = false;
        self.half_message = Time::NEVER;
        self.received = now;
    }

    /// Bytes came. `completed_message`: at least one message ended in them. `mid_message`: the last
    /// of them belong to a message that has not ended; its clock starts with its first byte, and
    /// further drips do not start it again.
    pub fn received(&mut self, now: Time, completed_message: bool, mid_message: bool) {
        self.received = now;
        if self.handshake {
            return;
        }
        if !mid_message {
            self.half_message = Time::NEVER;
        } else if completed_message || self.half_message == Time::NEVER {
            self.half_message = now;
        }
    }

    /// Bytes went out. `still_pending`: the socket did not take all that it was offered.
    pub fn sent(&mut self, now: Time, still_pending: bool) {
        self.sent = now;
        self.blocked = if still_pending { now } else { Time::NEVER };
    }

    /// Bytes wait and the socket takes none. Not to be called for what *we* hold back.
    pub fn blocked(&mut self, now: Time) {
        if self.blocked == Time::NEVER {
            self.blocked = now;
        }
    }

    /// Nothing waits any more though nothing was sent: what the socket did not take was cancelled.
    pub fn nothing_waits(&mut self) {
        self.blocked = Time::NEVER;
    }

    /// Whether the peer is interested and choked, so that keep-alives are due more often.
    pub fn waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
    }

    /// The earliest deadline.
    #[must_use]
    pub fn poll_at(&self, timeouts: &Timeouts) -> Time {
        let [message, idle, write, keep_alive] = self.all(timeouts).map(|(at, _)| at);
        message.min(idle).min(write).min(keep_alive)
    }

    /// What is due, if anything; what ends the connection comes before a keep-alive.
    #[must_use]
    pub fn expired(&self, now: Time, timeouts: &Timeouts) -> Option<Timer> {
        self.all(timeouts)
            .into_iter()
            .find_map(|(at, timer)| (at <= now).then_some(timer))
    }

    /// Every clock with its deadline, the fatal ones first.
    fn all(&self, timeouts: &Timeouts) -> [(Time, Timer); 4] {
        let half_message = if self.handshake {
            (
                self.half_message.after(timeouts.handshake_ms),
                Timer::Handshake,
            )
        } else {
            (self.half_message.after(timeouts.message_ms), Timer::Message)
        };
        // Before the handshake a keep-alive would be no protocol at all, and behind bytes that the
        // peer does not take it would not arrive.
        let keep_alive = if self.handshake || self.blocked != Time::NEVER {
            Time::NEVER
        } else if self.waiting {
            self.sent.after(timeouts.waiting_keep_alive_ms)
        } else {
            self.sent.after(timeouts.keep_alive_ms)
        };
        [
            half_message,
            (self.received.after(timeouts.idle_ms), Timer::Idle),
            (self.blocked.after(timeouts.write_ms), Timer::Write),
            (keep_alive, Timer::KeepAlive),
        ]
    }
}

/// A connection's current entry in [`Alarms`].
#[derive(Clone, Copy, Debug)]
pub struct Alarm {
    /// The second in which the entry comes out, or [`Alarm::DISARMED`].
    armed_s: u32,
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            armed_s: Self::DISARMED,
        }
    }
}

impl Alarm {
    /// No entry is current.
    const DISARMED: u32 = u32::MAX;

    /// Makes sure that an entry comes out at `at` or before. Call it when deadlines have moved; it is
    /// cheap when the current entry is early enough.
    pub fn arm(&mut self, at: Time, key: PeerKey, alarms: &mut Alarms) {
        if second_at_or_after(at) < u64::from(self.armed_s) {
            let second = alarms.schedule(key, at).0 / MS_PER_SECOND;
            self.armed_s = u32::try_from(second).expect("a process ends before 136 years");
        }
    }

    /// An entry came out. False: a nearer one took its place, and it means nothing. True: deadlines
    /// are to be checked, and the alarm is to be armed again.
    pub fn fired(&mut self, now: Time) -> bool {
        let current = u64::from(self.armed_s) <= now.0 / MS_PER_SECOND;
        if current {
            self.armed_s = Self::DISARMED;
        }
        current
    }
}

/// The resolution of alarms: time-outs are tens of seconds.
const MS_PER_SECOND: u64 = 1000;

/// How far ahead an entry may be: more than the longest default time-out. One for later comes out
/// early and is armed again.
const FARTHEST_S: u64 = 511;

/// The first whole second that is not before `at`.
fn second_at_or_after(at: Time) -> u64 {
    at.0.div_ceil(MS_PER_SECOND)
}

/// The alarms of all connections: an entry comes out in the first whole second at or after its time.
#[derive(Debug)]
pub struct Alarms {
    by_second: BTreeMap<u64, Vec<PeerKey>>,
    /// All entries of the seconds before this one have come out.
    next_s: u64,
}

impl Alarms {
    /// No alarms.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            by_second: BTreeMap::new(),
            next_s: now.0 / MS_PER_SECOND,
        }
    }

    /// Adds an entry and returns the time at which it comes out. An entry cannot be taken back:
    /// the generation in the key and [`Alarm::fired`] tell a stale one.
    pub fn schedule(&mut self, key: PeerKey, at: Time) -> Time {
        let last_s = self.next_s.saturating_add(FARTHEST_S);
        let second = second_at_or_after(at).clamp(self.next_s, last_s);
        self.by_second.entry(second).or_default().push(key);
        Time(second.saturating_mul(MS_PER_SECOND))
    }

    /// Moves every entry that is due to the end of `due`.
    pub fn expire(&mut self, now: Time, due: &mut Vec<PeerKey>) {
        let now_s = now.0 / MS_PER_SECOND;
        self.next_s = self.next_s.max(now_s.saturating_add(1));
        while let Some(first) = self.by_second.first_entry()
            && *first.key() <= now_s
        {
            due.append(&mut first.remove());
        }
    }

    /// When [`Alarms::expire`] will have something to move; `None` without entries.
    #[must_use]
    pub fn poll_at(&self) -> Option<Time> {
        let first = self.by_second.keys().next();
        first.map(|second| Time(second.saturating_mul(MS_PER_SECOND)))
    }

    /// How many entries there are, stale ones included.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.by_second.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timeouts = Timeouts {
        handshake_ms: 10_000,
        message_ms: 60_000,
        idle_ms: 300_000,
        write_ms: 120_000,
        keep_alive_ms: 100_000,
        waiting_keep_alive_ms: 8_000,
    };

    fn key(index: u32) -> PeerKey {
        PeerKey {
            index,
            generation: index,
        }
    }

    /// A connection whose handshake ended at second 1.
    fn established() -> Deadlines {
        let mut deadlines = Deadlines::new(Time(0));
        deadlines.handshake_done(Time(1000));
        deadlines.sent(Time(1000), false);
        deadlines
    }

    #[test]
    fn the_default_is_the_table_of_the_manual() {
        assert_eq!(Timeouts::default(), T);
    }

    #[test]
    fn deadlines_are_small() {
        assert!(size_of::<Deadlines>() <= 40, "{}", size_of::<Deadlines>());
    }

    #[test]
    fn time_saturates_at_both_ends() {
        assert_eq!(Time::NEVER.after(1), Time::NEVER);
        assert_eq!(Time(5).since(Time(9)), 0);
        assert_eq!(Time(9).since(Time(5)), 4);
    }

    #[test]
    fn a_dripped_handshake_is_late_after_ten_seconds() {
        let mut deadlines = Deadlines::new(Time(0));
        for second in 1..10 {
            deadlines.received(Time(second * 1000), true, true);
        }
        assert_eq!(deadlines.poll_at(&T), Time(10_000));
        assert_eq!(deadlines.expired(Time(9999), &T), None);
        assert_eq!(deadlines.expired(Time(10_000), &T), Some(Timer::Handshake));
    }

    #[test]
    fn no_keep_alive_is_due_before_the_handshake() {
        let mut timeouts = T;
        timeouts.handshake_ms = 500_000;
        timeouts.idle_ms = 500_000;
        let deadlines = Deadlines::new(Time(0));
        assert_eq!(deadlines.expired(Time(499_999), &timeouts), None);
    }

    #[test]
    fn a_dripped_message_is_late_though_bytes_keep_coming() {
        let mut deadlines = established();
        for second in 2..62 {
            deadlines.received(Time(second * 1000), false, true);
            deadlines.sent(Time(second * 1000), false);
        }
        assert_eq!(deadlines.expired(Time(61_999), &T), None);
        assert_eq!(deadlines.expired(Time(62_000), &T), Some(Timer::Message));
    }

    #[test]
    fn each_completed_message_gives_the_next_one_its_own_minute() {
        let mut deadlines = established();
        deadlines.received(Time(2000), false, true);
        deadlines.received(Time(40_000), true, true);
        assert_eq!(deadlines.expired(Time(99_999), &T), None);
        assert_eq!(deadlines.expired(Time(100_000), &T), Some(Timer::Message));
        deadlines.received(Time(50_000), true, false);
        deadlines.sent(Time(50_000), false);
        assert_eq!(deadlines.expired(Time(149_999), &T), None);
    }

    #[test]
    fn silence_is_idle_and_any_byte_ends_it() {
        let mut deadlines = established();
        deadlines.sent(Time(290_000), false);
        assert_eq!(deadlines.expired(Time(300_999), &T), None);
        assert_eq!(deadlines.expired(Time(301_000), &T), Some(Timer::Idle));
        deadlines.received(Time(300_000), true, false);
        assert_eq!(deadlines.expired(Time(301_000), &T), None);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_late_and_one_byte_taken_starts_again() {
        let mut deadlines = established();
        deadlines.blocked(Time(2000));
        deadlines.blocked(Time(60_000));
        assert_eq!(deadlines.expired(Time(121_999), &T), None);
        assert_eq!(deadlines.expired(Time(122_000), &T), Some(Timer::Write));
        deadlines.sent(Time(122_000), true);
        assert_eq!(deadlines.expired(Time(241_999), &T), None);
        assert_eq!(deadlines.expired(Time(242_000), &T), Some(Timer::Write));
        deadlines.sent(Time(242_000), false);
        assert_eq!(deadlines.expired(Time(300_000), &T), None);
    }

    #[test]
    fn a_peer_that_cancels_what_it_does_not_take_is_not_late() {
        let mut deadlines = established();
        deadlines.blocked(Time(2000));
        deadlines.nothing_waits();
        assert_eq!(deadlines.expired(Time(122_000), &T), Some(Timer::KeepAlive));
    }

    #[test]
    fn keep_alives_are_due_sooner_while_the_peer_waits() {
        let mut deadlines = established();
        assert_eq!(deadlines.poll_at(&T), Time(101_000));
        deadlines.waiting(true);
        assert_eq!(deadlines.poll_at(&T), Time(9000));
        assert_eq!(deadlines.expired(Time(9000), &T), Some(Timer::KeepAlive));
        deadlines.sent(Time(9000), false);
        assert_eq!(deadlines.poll_at(&T), Time(17_000));
        deadlines.waiting(false);
        assert_eq!(deadlines.poll_at(&T), Time(109_000));
    }

    #[test]
    fn what_ends_the_connection_comes_before_a_keep_alive() {
        let deadlines = established();
        assert_eq!(deadlines.expired(Time(400_000), &T), Some(Timer::Idle));
    }

    #[test]
    fn no_keep_alive_is_put_behind_bytes_that_do_not_move() {
        let mut deadlines = established();
        deadlines.blocked(Time(1000));
        assert_eq!(deadlines.expired(Time(110_000), &T), None);
    }

    #[test]
    fn an_entry_comes_out_in_the_second_at_or_after_its_time_and_once() {
        let mut alarms = Alarms::new(Time(0));
        assert_eq!(alarms.poll_at(), None);
        assert_eq!(alarms.schedule(key(1), Time(2500)), Time(3000));
        assert_eq!(alarms.schedule(key(2), Time(7000)), Time(7000));
        assert_eq!(alarms.poll_at(), Some(Time(3000)));
        let mut due = Vec::new();
        alarms.expire(Time(2999), &mut due);
        assert!(due.is_empty());
        alarms.expire(Time(3000), &mut due);
        assert_eq!(due, [key(1)]);
        assert_eq!(alarms.poll_at(), Some(Time(7000)));
        alarms.expire(Time(6999), &mut due);
        alarms.expire(Time(7400), &mut due);
        assert_eq!(due, [key(1), key(2)]);
        assert_eq!(alarms.entries(), 0);
        assert_eq!(alarms.poll_at(), None);
    }

    #[test]
    fn an_entry_for_the_past_comes_out_in_the_next_second() {
        let mut alarms = Alarms::new(Time(50_000));
        let mut due = Vec::new();
        alarms.expire(Time(50_300), &mut due);
        assert_eq!(alarms.schedule(key(1), Time(10)), Time(51_000));
        alarms.expire(Time(51_000), &mut due);
        assert_eq!(due, [key(1)]);
    }

    #[test]
    fn a_far_deadline_comes_out_early_rather_than_late() {
        let mut alarms = Alarms::new(Time(0));
        assert_eq!(alarms.schedule(key(1), Time::NEVER), Time(511_000));
    }

    #[test]
    fn a_leap_of_the_clock_brings_everything_out() {
        let mut alarms = Alarms::new(Time(0));
        for second in 0..600 {
            alarms.schedule(key(second), Time(u64::from(second) * 1000));
        }
        assert_eq!(alarms.entries(), 600);
        let mut due = Vec::new();
        alarms.expire(Time(3_000_000), &mut due);
        assert_eq!(due.len(), 600);
        assert_eq!(alarms.entries(), 0);
        alarms.schedule(key(1), Time(3_010_000));
        assert_eq!(alarms.poll_at(), Some(Time(3_010_000)));
    }

    /// The discipline that the loop follows, for a day: no deadline is missed by more than a second
    /// and there are no more than a few stale entries.
    #[test]
    fn armed_deadlines_are_never_missed_though_entries_are_lazy() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut alarms = Alarms::new(Time(0));
        let mut deadlines = established();
        let mut due = Vec::new();
        // A change may bring a deadline that has passed already.
        let mut changed = Time(0);
        let mut alarm = Alarm::default();
        alarm.arm(deadlines.poll_at(&T), key(1), &mut alarms);
        for step in 0..86_400 * 2 {
            let now = Time(1000 + step * 500);
            alarms.expire(now, &mut due);
            for _ in due.drain(..) {
                if alarm.fired(now) {
                    if deadlines.expired(now, &T).is_some() {
                        deadlines.received(now, true, false);
                        deadlines.sent(now, false);
                    }
                    alarm.arm(deadlines.poll_at(&T), key(1), &mut alarms);
                }
            }
            let due_since = deadlines.poll_at(&T).max(changed);
            assert!(now.since(due_since) < 1000, "missed at {now:?}");
            assert!((1..20).contains(&alarms.entries()));
            match random.u8(0..40) {
                0 => deadlines.waiting(random.bool()),
                1 => deadlines.blocked(now),
                2 => deadlines.received(now, random.bool(), random.bool()),
                3 => deadlines.sent(now, random.bool()),
                _ => continue,
            }
            changed = now;
            alarm.arm(deadlines.poll_at(&T), key(1), &mut alarms);
        }
    }
}
