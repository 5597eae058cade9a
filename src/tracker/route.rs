//! One tracker by one family of addresses: where it is, its health, its back-off.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::request::Request;
use crate::timers::Time;

/// Answers in a row that make no sense, until the tracker is taken for broken.
const MAX_STRIKES: u32 = 3;

/// The longest back-off, 30 minutes: a tracker that comes back is found within an interval.
const MAX_BACKOFF_MS: u64 = 30 * 60 * 1000;

/// The most that BEP 15 doubles the time until a packet is sent again.
const MAX_RESEND_DOUBLINGS: u32 = 8;

/// The back-off in milliseconds after that many failures in a row. `chance` is any number.
pub(super) fn backoff_ms(failures: u32, first_ms: u64, chance: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let backoff_ms = (first_ms << doublings).min(MAX_BACKOFF_MS);
    // Up to a quarter more, so that many that failed together do not come back together.
    backoff_ms + u64::from(chance) % (backoff_ms / 4 + 1)
}

/// Whether a tracker answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Health {
    /// Nothing is known yet: other announces wait for the result of the first one.
    #[default]
    New,
    /// It answers.
    Up,
    /// It failed, and is not asked until then.
    BackingOff(Time),
    /// It failed, and one announce finds out whether it answers again. The other family does not wait
    /// for that.
    Probing,
}

/// One tracker by one family.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// Empty if the tracker has no address of this family.
    addresses: Vec<IpAddr>,
    chosen: usize,
    pub(super) health: Health,
    /// Failures in a row.
    pub(super) failures: u32,
    strikes: u32,
    /// Requests that are sent before others: their connection broke for no fault of their own, or they
    /// were redirected.
    pub(super) again: VecDeque<Request>,
    /// When something was last answered.
    pub(super) answered_at: Time,
}

impl Route {
    /// Replaces the addresses. One that is still among them stays in use. Returns true if another one
    /// is used from now on.
    pub(super) fn set_addresses(&mut self, addresses: Vec<IpAddr>) -> bool {
        let current = self.address();
        let same = addresses
            .iter()
            .position(|address| Some(*address) == current);
        self.chosen = same.unwrap_or(0);
        self.addresses = addresses;
        current.is_some() && self.address() != current
    }

    /// The address in use.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.addresses.get(self.chosen).copied()
    }

    /// Returns true if it may be announced to. Ends a back-off that is over.
    pub(super) fn is_usable(&mut self, now: Time) -> bool {
        if let Health::BackingOff(until) = self.health
            && until <= now
        {
            self.health = Health::Probing;
        }
        !self.addresses.is_empty() && !matches!(self.health, Health::BackingOff(_))
    }

    /// Returns true if the other family waits while this one has no room.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.health, Health::New | Health::Up)
    }

    /// When it may be tried again.
    pub(super) fn retry_at(&self) -> Option<Time> {
        match self.health {
            Health::BackingOff(until) if !self.addresses.is_empty() => Some(until),
            _ => None,
        }
    }

    /// It answered. Returns true if it did not answer before.
    pub(super) fn handle_answer(&mut self, now: Time) -> bool {
        let was_up = self.health == Health::Up;
        self.health = Health::Up;
        self.failures = 0;
        self.strikes = 0;
        self.answered_at = now;
        !was_up
    }

    /// It sent an answer that makes no sense. Returns true if it is to be taken for broken.
    pub(super) fn strike(&mut self) -> bool {
        self.strikes += 1;
        self.strikes >= MAX_STRIKES || self.health != Health::Up
    }

    /// It failed. `first_ms` is the first back-off, which doubles. Returns the back-off in
    /// milliseconds.
    pub(super) fn fail(&mut self, now: Time, first_ms: u64, chance: u32) -> u64 {
        self.failures = self.failures.saturating_add(1);
        self.strikes = 0;
        let backoff_ms = backoff_ms(self.failures, first_ms, chance);
        self.back_off(now, backoff_ms);
        backoff_ms
    }

    /// Does not use it for some time, then tries its next address.
    pub(super) fn back_off(&mut self, now: Time, backoff_ms: u64) {
        self.health = Health::BackingOff(now.after(backoff_ms));
        self.chosen = (self.chosen + 1) % self.addresses.len().max(1);
    }

    /// A UDP tracker did not answer: the next connect request is sent at once, and its doubled time-out
    /// is the back-off (BEP 15).
    pub(super) fn fall_silent(&mut self, now: Time) {
        self.failures = self.failures.saturating_add(1);
        self.back_off(now, 0);
        self.health = Health::Probing;
    }

    /// It asked for a pause, and so it answers.
    pub(super) fn pause(&mut self, now: Time, pause_ms: u64) {
        self.failures = 0;
        self.back_off(now, pause_ms);
    }

    /// If it failed, it is tried then, or before, as if it had not. Returns true if it failed.
    pub(super) fn wake(&mut self, at: Time) -> bool {
        let at = match self.health {
            _ if self.failures == 0 => return false,
            Health::BackingOff(until) => until.min(at),
            Health::Probing => at,
            Health::New | Health::Up => return false,
        };
        self.health = Health::BackingOff(at);
        self.failures = 0;
        true
    }

    /// The time-out of the next connect request in milliseconds.
    pub(super) fn connect_timeout_ms(&self, first_ms: u64) -> u64 {
        first_ms << self.failures.min(MAX_RESEND_DOUBLINGS)
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
        assert!(route.is_usable(Time(0)) && route.handle_answer(Time(0)));
        route
    }

    #[test]
    fn each_failure_in_a_row_doubles_the_back_off() {
        let mut route = up();
        let backoffs: Vec<u64> = (0..9)
            .map(|_| route.fail(Time(0), 15_000, 0) / 1000)
            .collect();
        assert_eq!(backoffs, [15, 30, 60, 120, 240, 480, 960, 1800, 1800]);
        assert!((15_000..=18_750).contains(&up().fail(Time(0), 15_000, 12_345_678)));
        route.handle_answer(Time(0));
        assert_eq!(route.fail(Time(0), 15_000, 0), 15_000);
    }

    #[test]
    fn a_back_off_ends_with_one_try_of_the_next_address() {
        let mut route = up();
        let first = route.address();
        route.fail(Time(0), 15_000, 0);
        assert!(!route.is_usable(Time(14_999)));
        assert_eq!(route.retry_at(), Some(Time(15_000)));
        assert!(route.is_usable(Time(15_000)));
        assert!(!route.is_awaited());
        assert_ne!(route.address(), first);
        assert!(route.handle_answer(Time(16_000)) && route.is_awaited());
        assert!(!route.handle_answer(Time(17_000)));
    }

    #[test]
    fn an_address_that_is_still_listed_is_kept() {
        let mut route = up();
        route.fail(Time(0), 1, 0);
        let second = route.address();
        let (one, other) = ("10.0.0.9".parse().unwrap(), second.unwrap());
        assert!(!route.set_addresses(vec![one, other]));
        assert_eq!(route.address(), second);
        assert!(route.set_addresses(vec![one]));
        assert_eq!(route.address(), Some(one));
    }

    #[test]
    fn what_failed_is_woken_and_begins_anew() {
        let mut route = up();
        assert!(!route.wake(Time(5)) && !Route::default().wake(Time(5)));
        for _ in 0..9 {
            route.fail(Time(0), 15_000, 0);
        }
        assert!(route.wake(Time(20_000)));
        assert_eq!(route.retry_at(), Some(Time(20_000)));
        assert!(!route.is_usable(Time(19_999)) && route.is_usable(Time(20_000)));
        assert_eq!(route.fail(Time(20_000), 15_000, 0), 15_000);
        // A back-off that ends before is not prolonged.
        assert!(route.wake(Time(50_000)) && route.retry_at() == Some(Time(35_000)));
        // One that is being tried, for up to an hour by UDP.
        route.fall_silent(Time(40_000));
        assert!(route.wake(Time(45_000)) && !route.is_usable(Time(44_999)));
        // One that asked for a pause gets it.
        route.pause(Time(26_000), 600_000);
        assert!(!route.wake(Time(30_000)) && !route.is_usable(Time(625_999)));
    }

    #[test]
    fn the_time_out_of_connect_requests_doubles_as_bep_15_says() {
        let mut route = up();
        let timeouts: Vec<u64> = (0..10)
            .map(|_| {
                let timeout_ms = route.connect_timeout_ms(15_000);
                route.fall_silent(Time(0));
                timeout_ms / 1000
            })
            .collect();
        assert_eq!(timeouts, [15, 30, 60, 120, 240, 480, 960, 1920, 3840, 3840]);
        assert!(!route.is_awaited());
    }

    #[test]
    fn three_answers_in_a_row_that_make_no_sense_are_a_failure() {
        let mut route = up();
        assert!(!route.strike() && !route.strike() && route.strike());
        route.handle_answer(Time(0));
        assert!(!route.strike());
        assert!(Route::default().strike());
    }
}
