//! The wire, the peers, the choker and the timers together, against leechers of many characters.
//!
//! Everything comes from a seed: who connects, what they do, how the network splits and delays it,
//! and the virtual clock. Invariants are checked after every step. A failing seed is named; run it
//! alone with `HEKATE_SEED=<seed> cargo test --test simulation`.

#![cfg(test)]

mod crowd;
mod leecher;
mod network;
mod seeder;

use std::collections::BTreeSet;

use fastrand::Rng;
use hekate::choker::ChokerConfig;
use hekate::timers::{Time, Timeouts};

use crate::leecher::{KINDS, Kind, Leecher, Rules};
use crate::network::Link;
use crate::seeder::Seeder;

/// The loop turns at least this often.
const LONGEST_STEP_MS: u64 = 180;

/// Shorter than the real ones, so that each is reached often.
const TIMEOUTS: Timeouts = Timeouts {
    handshake_ms: 5_000,
    message_ms: 10_000,
    idle_ms: 30_000,
    write_ms: 15_000,
    keep_alive_ms: 12_000,
    waiting_keep_alive_ms: 4_000,
};

/// Leechers are active for this long, then they ask for nothing more.
const ACTIVE_MS: u64 = 60_000;
/// Then it goes on for as long as blocks arrive, and this much longer.
const DRAINED_MS: u64 = 10_000;

struct Run {
    random: Rng,
    seeder: Seeder,
    leechers: Vec<Leecher>,
    links: Vec<Link>,
    rules: Rules,
    /// Every reason for which a connection ended.
    ends: BTreeSet<&'static str>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let count = random.usize(20..160);
        let crowded = random.u8(..) < 64;
        let max_connections = if crowded { count * 3 / 4 } else { count };
        let config = ChokerConfig {
            max_unchoked: random.usize(4..=count),
            credit_bytes: 1 << random.u32(16..21),
            max_unchoked_ms: random.u64(3_000..8_000),
            unused_slot_ms: random.u32(2_000..3_000),
            idle_ms: 10_000,
        };
        let mut leechers = Vec::new();
        for _ in 0..count {
            let good = random.bool();
            let kind = if good {
                Kind::Good
            } else {
                random.choice(KINDS).unwrap()
            };
            leechers.push(Leecher::new(kind, &mut random));
        }
        // Whoever waits is served when each of the slots has had as many turns as there are peers
        // for it, and then needs the time of a few messages to and fro.
        let rounds = max_connections.div_ceil(config.max_unchoked) as u64;
        let starved_ms = rounds * (config.max_unchoked_ms + 2 * LONGEST_STEP_MS) + 5_000;
        Self {
            seeder: Seeder::new(config, TIMEOUTS, max_connections),
            links: leechers.iter().map(|_| Link::new(0, &mut random)).collect(),
            leechers,
            rules: Rules {
                timeouts: TIMEOUTS,
                starved_ms,
            },
            random,
            ends: BTreeSet::new(),
        }
    }

    fn run(&mut self) {
        let mut now = Time(0);
        while now < self.last_fed().max(Time(ACTIVE_MS)).after(DRAINED_MS) {
            let step_ms = self.random.u64(20..LONGEST_STEP_MS);
            now = now.after(step_ms);
            let draining = now > Time(ACTIVE_MS);
            for index in 0..self.leechers.len() {
                self.step_leecher(now, step_ms, index, draining);
            }
            self.seeder.turn(now, &mut self.links, &mut self.random);
            for (leecher, link) in self.leechers.iter().zip(&self.links) {
                if link.closed.is_none() {
                    leecher.check(now, link, &self.rules, draining);
                }
            }
        }
        for (leecher, link) in self.leechers.iter().zip(&self.links) {
            if link.closed.is_none() {
                leecher.check_answered();
            }
        }
    }

    /// When any leecher got a part of a block.
    fn last_fed(&self) -> Time {
        let sessions = self.leechers.iter().filter_map(|l| l.session.as_ref());
        sessions
            .map(|session| session.fed_at)
            .max()
            .unwrap_or_default()
    }

    fn step_leecher(&mut self, now: Time, step_ms: u64, index: usize, draining: bool) {
        let leecher = &mut self.leechers[index];
        let link = &mut self.links[index];
        if leecher.session.is_none() {
            if leecher.reconnect_at <= now && !draining {
                *link = Link::new(leecher.capacity(), &mut self.random);
                leecher.connect(now, &self.rules);
                self.seeder.accept(now, index, &mut self.links);
            }
        } else if let Some(reason) = link.closed {
            self.ends.insert(reason.label());
            leecher.closed(now, reason, draining, &mut self.random);
        } else if !link.left {
            leecher.step(now, step_ms, link, draining, &mut self.random);
        }
    }
}

#[test]
fn every_leecher_gets_what_it_is_owed() {
    let seeds = match std::env::var("HEKATE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=40).collect(),
    };
    let whole = seeds.len() > 1;
    let mut ends = BTreeSet::new();
    let mut payload_bytes = 0;
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            run.run();
            run
        });
        match outcome {
            Ok(run) => {
                payload_bytes += run.leechers.iter().map(|l| l.payload_bytes).sum::<u64>();
                ends.extend(run.ends);
            }
            Err(panic) => {
                eprintln!("the failing seed is {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{} MB of blocks; ends: {ends:?}", payload_bytes / 1_000_000);
    if whole {
        // Else the simulation would have shown less than it seems to.
        for reason in [
            "bystander",
            "content_failed",
            "handshake_timeout",
            "house_full",
            "idle_timeout",
            "message_timeout",
            "peer_closed",
            "peer_is_seed",
            "slot_unused",
            "turn_over",
            "write_timeout",
        ] {
            assert!(ends.contains(reason), "nobody was ended by {reason}");
        }
    }
}
