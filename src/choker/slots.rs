//! How many upload slots there are when the program decides: the fewest that fill the line.
//!
//! A slot *fills* while its peer would take more than the line gives it. A slot whose peer is slow by
//! itself, or asks for little, does not count: others are opened beside it.
//!
//! 1. While fewer slots fill than are wanted, and peers wait, slots are opened: as many as are
//!    missing, or as many again as are known to be slow, so that their number doubles with each
//!    reading. Of those that are *starting* nothing is known yet; two of them count for one.
//! 2. When as many fill as are wanted, it is tried whether more of them bring more, or fewer bring as
//!    much: the rate is measured before and after a step. A step up stays when the rate grows with
//!    it, a step down when the rate does not fall.
//! 3. When no step brings anything, it rests, longer each time, unless the rate changes by itself.
//!
//! ```text
//!          saturated             measured              it has taken effect
//!  Resting ─────────▶ Measuring ─────────▶ Stepping ──────────────────────▶ Comparing
//!     ▲                                        ▲  the next step                │
//!     │                                        └───────────────────────────────┤
//!     └────────────────────────────────────────────── no step is left ─────────┘
//! ```

use crate::timers::Time;

/// The fewest slots that are to fill the line: with one or two, it would idle for a round trip
/// whenever a term ends.
pub const FEWEST: usize = 4;

/// How long a rate is measured. Shorter, the few blocks at the edges would count for too much.
const WINDOW_MS: u64 = 2_000;

/// How long a step may need to take effect; slots are given back as terms end.
const EFFECT_MS: u64 = 10_000;

/// How long after that the rate is measured: by then the kernel has sent what it held for earlier peers.
const SETTLE_MS: u64 = 500;

/// The first rest, and the longest.
const REST_MS: u64 = 10_000;
const REST_MAX_MS: u64 = 60_000;

/// A rate that differs by a quarter from that of the last comparison ends the rest.
const CHANGE_DIVISOR: u64 = 4;

/// What is tried, in this order: the number is multiplied by `times` and divided by `over`. A step that
/// pays is tried again. The step down is small, since the line idles if it does not pay.
const STEPS: [Step; 4] = [
    Step { times: 2, over: 1 },
    Step { times: 3, over: 2 },
    Step { times: 5, over: 4 },
    Step { times: 3, over: 4 },
];

#[derive(Clone, Copy, Debug)]
struct Step {
    times: usize,
    over: usize,
}

impl Step {
    fn apply(self, wanted: usize) -> usize {
        let next = match self.is_up() {
            true => (wanted.saturating_mul(self.times)).div_ceil(self.over),
            false => wanted.saturating_mul(self.times) / self.over,
        };
        next.max(FEWEST)
    }

    fn is_up(self) -> bool {
        self.times > self.over
    }

    /// Returns true if the step is worth it: a quarter of what it could bring at best, or no more
    /// than a twentieth lost.
    fn pays(self, before: u64, after: u64) -> bool {
        if self.is_up() {
            let (times, over) = (self.times as u64, self.over as u64);
            after.saturating_mul(4 * over) >= before.saturating_mul(3 * over + times)
        } else {
            after.saturating_mul(20) >= before.saturating_mul(19)
        }
    }
}

/// What is seen of the slots at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub struct Reading {
    /// Bytes that have left for the line since the start: what lies in sockets does not count.
    pub left_bytes: u64,
    /// Slots whose peers would take more.
    pub filling: usize,
    /// Slots of which it is not known yet what their peers take.
    pub starting: usize,
    /// Slots whose peers are slow by themselves, or ask for little.
    pub slow: usize,
    /// Peers that wait for a slot.
    pub waiting: usize,
}

impl Reading {
    /// Two that are starting count for one that fills: over a long path, most of a short term is
    /// slow start.
    fn filling(&self) -> usize {
        self.filling + self.starting / 2
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Resting {
        until: Time,
    },
    Measuring(Window),
    Stepping {
        until: Time,
        settled_at: Option<Time>,
    },
    Comparing(Window),
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Time,
    left_bytes: u64,
}

/// The number of slots, as it follows from readings.
#[derive(Debug)]
pub struct AutoSlots {
    /// How many slots are to fill the line.
    wanted: usize,
    /// That number before the step.
    before: usize,
    /// Bytes a second before the step.
    rate_before: u64,
    step: usize,
    /// A step of this round has paid.
    has_paid: bool,
    rest_ms: u64,
    phase: Phase,
}

impl Default for AutoSlots {
    fn default() -> Self {
        Self {
            wanted: FEWEST,
            before: FEWEST,
            rate_before: 0,
            step: 0,
            has_paid: false,
            rest_ms: REST_MS,
            phase: Phase::Resting { until: Time(0) },
        }
    }
}

impl AutoSlots {
    /// Takes a reading. Returns how many slots there may be now.
    pub fn read(&mut self, reading: &Reading, now: Time) -> usize {
        self.probe(reading, now);
        let slots = reading.slow + reading.starting + reading.filling;
        let filling = reading.filling();
        if filling >= self.wanted {
            return slots - (filling - self.wanted);
        }
        // Those that are starting now are still to show what they take.
        let known = (self.wanted - filling).max(reading.slow.saturating_sub(reading.starting));
        slots + known
    }

    fn probe(&mut self, reading: &Reading, now: Time) {
        let filling = reading.filling();
        let is_saturated = reading.waiting > 0 && filling >= self.wanted;
        let window = Window {
            began: now,
            left_bytes: reading.left_bytes,
        };
        match self.phase {
            Phase::Resting { until } if is_saturated && now >= until => {
                self.phase = Phase::Measuring(window);
            }
            Phase::Resting { .. } => {}
            Phase::Measuring(_) if !is_saturated => self.phase = Phase::Resting { until: now },
            Phase::Measuring(begun) => {
                if let Some(rate) = begun.rate(&window) {
                    self.begin_round(rate, now);
                }
            }
            Phase::Stepping { until, settled_at } => {
                let is_up = self.wanted > self.before;
                let has_effect = match is_up {
                    true => filling >= self.wanted,
                    false => filling <= self.wanted,
                };
                let settled_at = match (has_effect, settled_at) {
                    (true, None) => Some(now.after(SETTLE_MS)),
                    (true, some) => some,
                    (false, _) => None,
                };
                self.phase = match settled_at {
                    Some(at) if now >= at => Phase::Comparing(window),
                    // There is nobody who would take more: what was tried stays possible.
                    _ if now >= until => return self.rest(now),
                    _ => Phase::Stepping { until, settled_at },
                };
            }
            Phase::Comparing(begun) => {
                if let Some(rate) = begun.rate(&window) {
                    self.compare(rate, now);
                }
            }
        }
    }

    /// The rate is known with as many slots as are wanted now.
    fn begin_round(&mut self, rate: u64, now: Time) {
        let change = rate.abs_diff(self.rate_before);
        if change > self.rate_before / CHANGE_DIVISOR {
            self.rest_ms = REST_MS;
        }
        self.rate_before = rate;
        self.before = self.wanted;
        self.step = 0;
        self.has_paid = false;
        self.take_step(now);
    }

    /// Tries the step that is due, or one behind it that makes a difference.
    fn take_step(&mut self, now: Time) {
        while let Some(step) = STEPS.get(self.step) {
            let wanted = step.apply(self.before);
            if wanted != self.before {
                self.wanted = wanted;
                self.phase = Phase::Stepping {
                    until: now.after(EFFECT_MS),
                    settled_at: None,
                };
                return;
            }
            self.step += 1;
        }
        self.rest(now);
    }

    fn compare(&mut self, rate: u64, now: Time) {
        let step = STEPS.get(self.step).expect("a step was taken");
        if step.pays(self.rate_before, rate) {
            self.before = self.wanted;
            self.rate_before = rate;
            self.has_paid = true;
        } else {
            self.wanted = self.before;
            self.step += 1;
            // After a step up that paid, no step down is tried.
            if self.has_paid && STEPS.get(self.step).is_some_and(|step| !step.is_up()) {
                self.step = STEPS.len();
            }
        }
        self.take_step(now);
    }

    fn rest(&mut self, now: Time) {
        self.rest_ms = match self.has_paid {
            true => REST_MS,
            false => (self.rest_ms * 2).min(REST_MAX_MS),
        };
        self.phase = Phase::Resting {
            until: now.after(self.rest_ms),
        };
    }
}

impl Window {
    /// Bytes a second, once the window is long enough.
    fn rate(&self, end: &Self) -> Option<u64> {
        let ms = end.began.since(self.began);
        let bytes = end.left_bytes.saturating_sub(self.left_bytes);
        (ms >= WINDOW_MS).then(|| bytes.saturating_mul(1000) / ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_MS: u64 = 250;

    /// Peers that all would take `each` bytes a second, behind a line.
    struct Line {
        auto: AutoSlots,
        now: Time,
        left_bytes: u64,
        peers: usize,
        each: u64,
        /// The peers are slow by themselves.
        are_slow: bool,
        rate: u64,
        slots: usize,
    }

    fn line(peers: usize, each: u64, rate: u64) -> Line {
        Line {
            auto: AutoSlots::default(),
            now: Time(0),
            left_bytes: 0,
            peers,
            each,
            are_slow: false,
            rate,
            slots: 0,
        }
    }

    impl Line {
        fn turn(&mut self, ms: u64) {
            let unchoked = self.slots.min(self.peers);
            let total = self.rate.min(unchoked as u64 * self.each);
            self.left_bytes += total * ms / 1000;
            self.now = self.now.after(ms);
            let reading = Reading {
                left_bytes: self.left_bytes,
                filling: if self.are_slow { 0 } else { unchoked },
                slow: if self.are_slow { unchoked } else { 0 },
                starting: 0,
                waiting: self.peers - unchoked,
            };
            self.slots = self.auto.read(&reading, self.now);
        }

        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds * 1000 / STEP_MS {
                self.turn(STEP_MS);
            }
        }

        fn used(&self) -> u64 {
            self.rate.min(self.slots.min(self.peers) as u64 * self.each)
        }
    }

    #[test]
    fn slow_peers_all_get_slots_within_ten_readings() {
        let mut line = line(1000, 20_000, u64::MAX);
        line.are_slow = true;
        for _ in 0..10 {
            line.turn(25);
        }
        assert!(line.slots >= 1000, "{}", line.slots);
    }

    #[test]
    fn a_line_that_few_peers_fill_has_few_slots() {
        let mut line = line(500, 10_000_000, 2_500_000);
        for _ in 0..600 {
            line.turn(STEP_MS);
            assert!(line.slots <= 2 * FEWEST, "{}", line.slots);
        }
    }

    #[test]
    fn slots_are_opened_while_they_bring_more_and_given_back_when_the_line_shrinks() {
        let mut line = line(500, 2_000_000, 125_000_000);
        line.run(60);
        assert!(line.used() >= 118_000_000, "{}", line.used());
        line.rate = 6_250_000;
        line.run(60);
        assert!((4..=8).contains(&line.slots), "{}", line.slots);
        assert_eq!(line.used(), 6_250_000);
        line.rate = 125_000_000;
        line.run(60);
        assert!(line.used() >= 115_000_000, "{}", line.used());
    }

    #[test]
    fn the_number_does_not_swing() {
        let mut line = line(500, 1_000_000, 20_000_000);
        line.run(120);
        let mut numbers = Vec::new();
        for _ in 0..1200 {
            line.turn(STEP_MS);
            numbers.push(line.slots);
        }
        numbers.sort_unstable();
        let tenth = numbers.len() / 10;
        assert!(
            numbers[tenth] >= 19 && numbers[9 * tenth] <= 30,
            "{numbers:?}"
        );
    }

    #[test]
    fn a_step_that_nobody_can_take_ends_in_a_rest() {
        let mut line = line(5, 1_000_000, 100_000_000);
        line.run(60);
        assert_eq!(line.used(), 5_000_000, "everybody is served");
    }
}
