//! One tracker by one address family: health, back-off, pipelining.
//!
//! Owns health, back-off, the way HTTP is spoken, the connection id of UDP. It must not know sockets:
//! connections are numbers to it.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::announce::Request;
use super::window::Window;
use crate::timers::Time;

/// Requests on one connection at the same time. With answers that take 50 ms it makes 2500 a
/// second, and what is lost with a connection is little.
const MAX_DEPTH: usize = 128;

/// Requests that follow each other for the first time. Nothing follows them until all are answered:
/// a server may answer one and forget the rest, and then the next answer would be taken for theirs.
const TRIAL_DEPTH: usize = 2;

/// How many a new connection begins with where pipelining has worked before.
const PROVEN_DEPTH: usize = 32;

/// Connections to a tracker that answers one request after another.
const MAX_ONE_AT_A_TIME: usize = 4;

/// Connections to one that closes the connection after each response, so that the time for opening them counts less.
const MAX_CLOSING: usize = 8;

/// Pipelined connections that broke one after another with next to nothing answered, until it is
/// given up.
const MAX_BREAKS: u32 = 3;

/// What a connection has to have answered so that its break does not count against pipelining.
const ENOUGH_ANSWERS: u32 = 64;

/// Answers without sense in a row until the tracker itself is taken to be ill.
const MAX_STRIKES: u32 = 3;

/// The longest back-off, 30 minutes: a tracker that comes back is found within an interval.
pub(super) const MAX_BACKOFF_MS: u64 = 30 * 60 * 1000;

/// A connection id is used for less than its minute, since packets travel (BEP 15).
const CONNECTION_MS: u64 = 55_000;

/// The most that BEP 15 doubles the time until a packet is sent again.
const MAX_DOUBLINGS: u32 = 8;

/// Whether a tracker is well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Health {
    /// Nothing is known yet: the others wait for what the first announce finds out.
    New,
    /// It answers.
    Up,
    /// It failed, and is left alone until then.
    BackingOff(Time),
    /// It failed, and one announce finds out whether it answers again. Nobody waits for that.
    Probing,
}

/// How HTTP is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConnectionMode {
    /// Requests follow each other without waiting, on one connection.
    Pipelined,
    /// Each connection carries one request after another.
    OneAtATime,
    /// Each connection carries one request.
    Closing,
}

/// One tracker by one family.
#[derive(Debug)]
pub(super) struct Route {
    /// Where it is; none when it has no address of this family.
    pub(super) addresses: Vec<IpAddr>,
    chosen: usize,
    pub(super) health: Health,
    /// Failures in a row.
    pub(super) failures: u32,
    strikes: u32,
    /// What broke without fault of its own, and goes before all else.
    pub(super) again: VecDeque<Request>,
    pub(super) mode: ConnectionMode,
    /// Requests that followed another one have all been answered.
    proven: bool,
    breaks: u32,
    closed_after_one: u32,
    /// Connections that are open, by their number.
    pub(super) connections: Vec<usize>,
    pub(super) window: Window,
    /// The connection id of UDP, and since when it is known.
    connection: Option<(u64, Time)>,
    /// One has been asked for.
    pub(super) connecting: bool,
    /// When something was answered last.
    pub(super) answered_at: Time,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            chosen: 0,
            health: Health::New,
            failures: 0,
            strikes: 0,
            again: VecDeque::new(),
            mode: ConnectionMode::Pipelined,
            proven: false,
            breaks: 0,
            closed_after_one: 0,
            connections: Vec::new(),
            window: Window::default(),
            connection: None,
            connecting: false,
            answered_at: Time::default(),
        }
    }
}

impl Route {
    /// Takes over what the name of the tracker means now.
    pub(super) fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        let current = self.address();
        self.chosen = addresses
            .iter()
            .position(|address| Some(*address) == current)
            .unwrap_or(0);
        self.addresses = addresses;
        if current.is_some() && self.address() != current {
            self.connection = None;
        }
    }

    /// Where it is spoken to.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.addresses.get(self.chosen).copied()
    }

    /// Whether it may be announced to. A rest that is over ends here.
    pub(super) fn wake(&mut self, now: Time) -> bool {
        if let Health::BackingOff(until) = self.health
            && until <= now
        {
            self.health = Health::Probing;
        }
        !self.addresses.is_empty() && !matches!(self.health, Health::BackingOff(_))
    }

    /// Whether others wait while it can take no more.
    pub(super) fn is_waited_for(&self) -> bool {
        matches!(self.health, Health::New | Health::Up)
    }

    /// When it may be tried again.
    pub(super) fn retry_at(&self) -> Option<Time> {
        match self.health {
            Health::BackingOff(until) if !self.addresses.is_empty() => Some(until),
            _ => None,
        }
    }

    /// It answered. Whether it had not done so before, or not of late.
    pub(super) fn answered(&mut self, now: Time) -> bool {
        let news = self.health != Health::Up;
        self.health = Health::Up;
        self.failures = 0;
        self.strikes = 0;
        self.answered_at = now;
        news
    }

    /// It answered, but without sense. Whether it is taken to be ill.
    pub(super) fn strike(&mut self) -> bool {
        self.strikes += 1;
        self.strikes >= MAX_STRIKES || self.health != Health::Up
    }

    /// It failed. `first_ms` is the first rest, which doubles; `chance` is any number.
    pub(super) fn fail(&mut self, now: Time, first_ms: u64, chance: u32) -> u64 {
        self.failures = self.failures.saturating_add(1);
        self.strikes = 0;
        let doublings = (self.failures - 1).min(16);
        let backoff_ms = (first_ms << doublings).min(MAX_BACKOFF_MS);
        // Up to a quarter more, so that many that failed together do not come back together.
        let backoff_ms = backoff_ms + u64::from(chance) % (backoff_ms / 4 + 1);
        self.back_off(now, backoff_ms);
        backoff_ms
    }

    /// Leaves it alone for some time, then tries its next address.
    pub(super) fn back_off(&mut self, now: Time, backoff_ms: u64) {
        self.health = Health::BackingOff(now.after(backoff_ms));
        self.chosen = (self.chosen + 1) % self.addresses.len().max(1);
        self.connection = None;
        self.connecting = false;
        self.window = Window::default();
    }

    /// A UDP tracker did not answer: the next request for a connection is at once and its own
    /// time-out doubles, which is the rest (BEP 15).
    pub(super) fn fall_silent(&mut self, now: Time) {
        self.failures = self.failures.saturating_add(1);
        self.back_off(now, 0);
        self.health = Health::Probing;
    }

    /// How long the next request for a connection is waited for.
    pub(super) fn connect_ms(&self, first_ms: u64) -> u64 {
        first_ms << self.failures.min(MAX_DOUBLINGS)
    }

    /// The connection id, while it may be used.
    pub(super) fn connection(&self, now: Time) -> Option<u64> {
        let (connection, since) = self.connection?;
        (now.since(since) < CONNECTION_MS).then_some(connection)
    }

    /// A connection id has come, or the tracker does not want the old one any more.
    pub(super) fn set_connection(&mut self, connection: Option<u64>, now: Time) {
        self.connection = connection.map(|connection| (connection, now));
        self.connecting = false;
    }

    /// Connections that may be open.
    pub(super) fn max_connections(&self) -> usize {
        match (self.health, self.mode) {
            (Health::Up, ConnectionMode::OneAtATime) => MAX_ONE_AT_A_TIME,
            (Health::Up, ConnectionMode::Closing) => MAX_CLOSING,
            _ => 1,
        }
    }

    /// Requests that a new connection may carry.
    pub(super) fn first_depth(&self) -> usize {
        let pipelined = self.mode == ConnectionMode::Pipelined && self.health == Health::Up;
        if pipelined && self.proven {
            PROVEN_DEPTH
        } else {
            1
        }
    }

    /// Whether requests that followed another one have all been answered here.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// A connection has answered a request, and says whether it may carry several. `batch` is how
    /// many had followed each other, when that was the last of them. Answers how many it may carry
    /// from now on.
    pub(super) fn deepen(
        &mut self,
        depth: usize,
        batch: Option<usize>,
        may_pipeline: bool,
    ) -> usize {
        if !may_pipeline && self.mode == ConnectionMode::Pipelined {
            self.mode = ConnectionMode::OneAtATime;
        }
        if self.mode != ConnectionMode::Pipelined {
            return 1;
        }
        self.proven |= batch.is_some_and(|batch| batch >= TRIAL_DEPTH);
        match (self.proven, batch) {
            (true, _) => (depth * 2).min(MAX_DEPTH),
            (false, Some(_)) => TRIAL_DEPTH,
            (false, None) => depth,
        }
    }

    /// A connection has ended after `answered` answers, with `lost` requests unanswered of `batch`
    /// that followed each other; `said` when its last answer had announced that. Whether the mode
    /// has changed.
    pub(super) fn ended(&mut self, answered: u32, lost: usize, batch: usize, said: bool) -> bool {
        let before = self.mode;
        if answered == 1 && lost == 0 {
            self.closed_after_one += 1;
            if said || self.closed_after_one > 1 {
                self.mode = ConnectionMode::Closing;
            }
        } else if answered > 1 {
            self.closed_after_one = 0;
        }
        let is_break = lost > 0 && batch >= TRIAL_DEPTH;
        if said || !is_break || self.mode != ConnectionMode::Pipelined {
            return self.mode != before;
        }
        if answered >= ENOUGH_ANSWERS {
            self.breaks = 0;
        } else {
            self.breaks += 1;
        }
        if !self.proven || self.breaks >= MAX_BREAKS {
            self.mode = ConnectionMode::OneAtATime;
        }
        self.mode != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Route {
        let mut route = Route::default();
        route.set_addresses(vec![
            "10.0.0.1".parse().unwrap(),
            "10.0.0.2".parse().unwrap(),
        ]);
        assert!(route.wake(Time(0)) && route.answered(Time(0)));
        route
    }

    #[test]
    fn each_failure_in_a_row_doubles_the_rest() {
        let mut route = up();
        let rests: Vec<u64> = (0..9)
            .map(|_| route.fail(Time(0), 15_000, 0) / 1000)
            .collect();
        assert_eq!(rests, [15, 30, 60, 120, 240, 480, 960, 1800, 1800]);
        assert!((15_000..=18_750).contains(&up().fail(Time(0), 15_000, 12_345_678)));
        route.answered(Time(0));
        assert_eq!(route.fail(Time(0), 15_000, 0), 15_000);
    }

    #[test]
    fn a_rest_ends_with_one_try_of_the_next_address() {
        let mut route = up();
        let first = route.address();
        route.fail(Time(0), 15_000, 0);
        assert!(!route.wake(Time(14_999)));
        assert_eq!(route.retry_at(), Some(Time(15_000)));
        assert!(route.wake(Time(15_000)));
        assert!(!route.is_waited_for());
        assert_ne!(route.address(), first);
        assert!(route.answered(Time(16_000)) && route.is_waited_for());
        assert!(!route.answered(Time(17_000)));
    }

    #[test]
    fn an_address_that_is_still_good_is_kept() {
        let mut route = up();
        route.fail(Time(0), 1, 0);
        let second = route.address();
        let (one, other) = ("10.0.0.9".parse().unwrap(), second.unwrap());
        route.set_connection(Some(5), Time(0));
        route.set_addresses(vec![one, other]);
        assert_eq!(
            (route.address(), route.connection(Time(0))),
            (second, Some(5))
        );
        route.set_addresses(vec![one]);
        assert_eq!(
            (route.address(), route.connection(Time(0))),
            (Some(one), None)
        );
    }

    #[test]
    fn a_silent_udp_tracker_is_asked_as_bep_15_says() {
        let mut route = up();
        let waits: Vec<u64> = (0..10)
            .map(|_| {
                let wait_ms = route.connect_ms(15_000);
                route.fall_silent(Time(0));
                wait_ms / 1000
            })
            .collect();
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 960, 1920, 3840, 3840]);
        assert!(!route.is_waited_for());
    }

    #[test]
    fn a_connection_id_is_used_for_less_than_a_minute() {
        let mut route = up();
        route.set_connection(Some(7), Time(1000));
        assert_eq!(route.connection(Time(55_999)), Some(7));
        assert_eq!(route.connection(Time(56_000)), None);
    }

    #[test]
    fn pipelining_deepens_once_it_is_proven() {
        let mut route = up();
        assert_eq!(route.deepen(1, Some(1), true), 2);
        // One of two is no proof, and nothing follows until both are answered.
        assert_eq!(route.deepen(2, None, true), 2);
        assert!(!route.is_proven());
        let mut depths = vec![2];
        for batch in [Some(2), None, None, None, None, None, None] {
            let depth = *depths.last().unwrap();
            depths.push(route.deepen(depth, batch, true));
        }
        assert_eq!(depths, [2, 4, 8, 16, 32, 64, 128, 128]);
        assert_eq!(
            (route.first_depth(), route.max_connections()),
            (PROVEN_DEPTH, 1)
        );
        // A server that ends a connection after so many requests is not at fault.
        assert!(!route.ended(1000, 90, 128, true));
        assert!(!route.ended(1000, 90, 128, false));
        assert_eq!(route.mode, ConnectionMode::Pipelined);
    }

    #[test]
    fn pipelining_that_never_worked_is_given_up_at_the_first_break() {
        // Both were lost, or the second was forgotten.
        for (answered, lost) in [(1, 2), (2, 1)] {
            let mut route = up();
            assert_eq!(route.deepen(1, Some(1), true), 2);
            assert!(route.ended(answered, lost, 2, false));
            assert_eq!(
                (route.mode, route.max_connections()),
                (ConnectionMode::OneAtATime, 4)
            );
            assert_eq!(route.deepen(1, Some(1), true), 1);
        }
    }

    #[test]
    fn one_request_alone_says_nothing_about_pipelining() {
        let mut route = up();
        route.deepen(1, Some(1), true);
        assert!(!route.ended(3, 1, 1, false));
        assert_eq!(route.mode, ConnectionMode::Pipelined);
    }

    #[test]
    fn pipelining_that_breaks_again_and_again_is_given_up() {
        let mut route = up();
        route.deepen(2, Some(2), true);
        for answered in [5, 5, 100, 5, 5] {
            assert!(!route.ended(answered, 9, 9, false));
        }
        assert!(route.ended(5, 9, 9, false));
        assert_eq!(route.mode, ConnectionMode::OneAtATime);
    }

    #[test]
    fn servers_that_close_each_time_are_found_out() {
        let mut route = up();
        assert!(route.ended(1, 0, 1, true));
        assert_eq!(
            (route.mode, route.max_connections()),
            (ConnectionMode::Closing, 8)
        );
        let mut route = up();
        assert!(!route.ended(1, 0, 1, false));
        assert!(route.ended(1, 0, 1, false));
        let mut old = up();
        assert_eq!(old.deepen(1, Some(1), false), 1);
        assert_eq!(old.mode, ConnectionMode::OneAtATime);
    }

    #[test]
    fn only_connections_in_a_row_that_end_after_one_answer_say_so() {
        // One that had answered more shows that they need not end, one with something lost does not.
        for (between, closing) in [((2, 0), false), ((1, 1), true)] {
            let mut route = up();
            assert!(!route.ended(1, 0, 1, false));
            assert!(!route.ended(between.0, between.1, 1, false));
            assert_eq!(route.ended(1, 0, 1, false), closing, "{between:?}");
        }
    }

    #[test]
    fn a_connection_that_ends_with_all_answered_is_no_break() {
        let mut route = up();
        assert!(!route.ended(5, 0, TRIAL_DEPTH, false));
        assert_eq!(route.mode, ConnectionMode::Pipelined);
    }

    #[test]
    fn answers_without_sense_make_ill_after_three() {
        let mut route = up();
        assert!(!route.strike() && !route.strike() && route.strike());
        route.answered(Time(0));
        assert!(!route.strike());
        assert!(Route::default().strike());
    }
}
