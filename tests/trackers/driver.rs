//! An announcer on a loop of its own, as the reactor drives it, with invented torrents.

#![allow(dead_code, reason = "tests use some of it, benchmarks others")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hekate::timers::Time;
use hekate::torrent::id::TorrentId;
use hekate::tracker::announce::Identity;
use hekate::tracker::announcer::{Announcer, AnnouncerConfig, Limits};
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
        dialled: DialledTorrents::default(),
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

impl Driver {
    pub(crate) fn new(config: AnnouncerConfig) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let token = |number| Token(1 + number);
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
            let counters = self.announcer.counters();
            assert!(elapsed < DEADLINE, "{what} did not come: {counters:?}");
            let until = self.now().after(100);
            self.turn(until);
        }
        started.elapsed()
    }

    pub(crate) fn accepted(&mut self, count: u64) -> Duration {
        self.until("acceptance", |announcer| {
            announcer.counters().accepted >= count
        })
    }
}
