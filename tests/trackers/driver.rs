//! An announcer on a loop of its own, as the reactor drives it, with invented torrents.

#![allow(dead_code, reason = "tests use some of it, benchmarks others")]

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hekate::timers::Time;
use hekate::torrent::id::TorrentId;
use hekate::tracker::access::Access;
use hekate::tracker::announce::Identity;
use hekate::tracker::announcer::{Announcer, AnnouncerConfig, Limits, MAX_CONNECTIONS, TOKENS};
use hekate::tracker::peers::DialledTorrents;
use hekate::wire::message::{InfoHash, PeerId};
use mio::{Events, Poll, Token, Waker};

/// Nothing in these tests takes as long.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Driver {
    poll: Poll,
    events: Events,
    started: Instant,
    pub(crate) announcer: Announcer,
}

/// The configuration of a process that announces from loopback addresses, without a cap.
pub(crate) fn config() -> AnnouncerConfig {
    AnnouncerConfig {
        identity: Identity {
            peer_id: PeerId(*b"-HK0100-abcdefghijkl"),
            key: 7,
            port: 6969,
            ip: None,
        },
        sources: ["127.0.0.1", "::1"]
            .map(|source| source.parse().ok())
            .into(),
        max_per_second: None,
        override_with: None,
        access: Access::default(),
        dialled: DialledTorrents::default(),
        certificates: None,
        limits: Limits::default(),
    }
}

pub(crate) fn info_hash(torrent: u32) -> InfoHash {
    let mut bytes = [0xa5; 20];
    bytes[..4].copy_from_slice(&torrent.to_be_bytes());
    InfoHash(bytes)
}

pub(crate) fn announce_list(urls: &[&str]) -> Arc<[Vec<String>]> {
    urls.iter().map(|url| vec![(*url).to_owned()]).collect()
}

/// Totals of all trackers.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// The most that were open at the same time.
    pub(crate) most_connections: usize,
}

thread_local! {
    /// Connections that were opened, and the most at the same time.
    static OPENED: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// The announcer asks once for the token of each connection, whose number is new only when all former
/// ones are in use.
fn token(number: usize) -> Token {
    if let Some(last) = number.checked_sub(TOKENS - MAX_CONNECTIONS) {
        let (opened, most) = OPENED.get();
        OPENED.set((opened + 1, most.max(last + 1)));
    }
    Token(1 + number)
}

pub(crate) fn counters(announcer: &Announcer) -> Counters {
    let figures = announcer.figures(Time(0));
    let mut sums = figures.other;
    for tracker in &figures.named {
        sums.add(&tracker.sums);
    }
    let (connections, most_connections) = OPENED.get();
    Counters {
        sent: sums.sent,
        accepted: sums.accepted,
        refused: sums.refused,
        failed: sums.failed,
        connections,
        most_connections,
    }
}

impl Driver {
    pub(crate) fn new(config: AnnouncerConfig) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        OPENED.set((0, 0));
        let announcer = Announcer::new(config, poll.registry(), token, waker, Time(0)).unwrap();
        Self {
            poll,
            events: Events::with_capacity(1024),
            started: Instant::now(),
            announcer,
        }
    }

    pub(crate) fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_millis()).unwrap())
    }

    pub(crate) fn add(&mut self, torrents: std::ops::Range<u32>, urls: &[&str]) {
        let announce = announce_list(urls);
        let now = self.now();
        for torrent in torrents {
            self.announcer
                .add(TorrentId(torrent), info_hash(torrent), &announce, now);
        }
    }

    /// One turn, which waits at most until `until`.
    pub(crate) fn turn(&mut self, until: Time) {
        let now = self.now();
        let next = self
            .announcer
            .poll_at()
            .map_or(until, |next| next.min(until));
        // Never early: the wait is cut to whole milliseconds.
        let wait = Duration::from_millis(next.since(now));
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => panic!("{error}"),
            _ => {}
        }
        let now = self.now();
        for event in &self.events {
            if let Some(number) = event.token().0.checked_sub(1) {
                self.announcer.handle_event(number, event);
            }
        }
        self.announcer.turn(now);
    }

    /// Turns until the condition holds, and says how long that took.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Announcer) -> bool,
    ) -> Duration {
        let started = Instant::now();
        while !condition(&mut self.announcer) {
            let elapsed = started.elapsed();
            let counters = counters(&self.announcer);
            assert!(elapsed < DEADLINE, "{what} did not come: {counters:?}");
            let until = self.now().after(100);
            self.turn(until);
        }
        started.elapsed()
    }

    pub(crate) fn accepted(&mut self, count: u64) -> Duration {
        self.until("acceptance", |announcer| {
            counters(announcer).accepted >= count
        })
    }
}
