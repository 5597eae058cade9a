//! The announcer: every tracker of the library, driven by the loop.
//!
//! Owns the schedule, the trackers and their sockets. Each turn it takes what has arrived, finds
//! what is late, and gives each tracker that has something to do as many announces as its pace and
//! its connections allow; nothing here blocks. It must not know peers or content: the loop tells it
//! which torrents there are, which of them have peers, and how much was uploaded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::{fmt, io};

use mio::event::Event as Readiness;
use mio::{Registry, Token, Waker};
use rustls::ClientConfig;
use slab::Slab;

use super::announce::Identity;
use super::callees::Callees;
use super::connection::Connection;
use super::datagrams::Datagrams;
use super::family::{Family, PerFamily};
use super::lists::{ListId, SkippedUrl, TrackerId};
use super::redirects::Redirects;
use super::resolver::Resolver;
use super::route::Route;
use super::schedule::Schedule;
use super::target::Target;
use super::url::Site;
use crate::rate::{Burst, RateLimiter};
use crate::table::Table;
use crate::timers::Time;
use crate::torrent::id::TorrentId;
use crate::wire::message::InfoHash;

mod callable;
mod dispatch;
mod figures;
mod http;
mod indexed;
mod names;
mod outcome;
mod redirected;
mod udp;

/// Connections to all trackers together. When they are used up, idle ones make room.
pub const MAX_CONNECTIONS: usize = 128;

/// How many tokens the announcer takes: one for each family's datagrams, then one for each connection.
pub const TOKENS: usize = FIRST_CONNECTION + MAX_CONNECTIONS;

/// Tokens before this one are of datagrams.
const FIRST_CONNECTION: usize = 2;

/// Announces leave in small batches, since a turn of the loop for each would cost more than the
/// announce.
const BATCH_MS: u64 = 10;

/// What one tracker may be sent at once: one batch, so that a pause earns no burst.
const ANNOUNCE_BURST: Burst = Burst {
    ms: BATCH_MS,
    min_units: 1,
};

/// How often lateness is looked at.
const LOOK_MS: u64 = 10_000;

/// The read buffer, shared by all connections.
const BUFFER_BYTES: usize = 16 * 1024;

/// Every time-out, in milliseconds. Tests shorten them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From the request for a connection to the connection, TLS included.
    pub connect_ms: u64,
    /// From the request, or the answer before it, to the last byte of its answer.
    pub answer_ms: u64,
    /// A connection without a request is closed; servers do so after about as long.
    pub idle_ms: u64,
    /// A UDP packet is sent again, for the first time (BEP 15).
    pub resend_ms: u64,
    /// The first rest of a tracker that has failed. It doubles.
    pub backoff_ms: u64,
    /// What telling the trackers may take at the end.
    pub shutdown_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_ms: 10_000,
            answer_ms: 30_000,
            idle_ms: 60_000,
            resend_ms: 15_000,
            backoff_ms: 15_000,
            shutdown_ms: 4_000,
        }
    }
}

/// What the announcer is told at the start.
#[derive(Clone, Debug)]
pub struct AnnouncerConfig {
    /// Who announces.
    pub identity: Identity,
    /// Where announces come from, by IPv4 and by IPv6: any address when it is unspecified, none when
    /// that family is not served.
    pub sources: [Option<IpAddr>; 2],
    /// Requests a second to one tracker at most.
    pub max_per_second: Option<u32>,
    /// Trackers in place of those of the torrents.
    pub override_with: Option<Arc<[Vec<String>]>>,
    /// Whose peers are asked for.
    pub callees: Callees,
    /// Every time-out.
    pub limits: Limits,
}

/// What has been done, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Requests that were sent, repeated ones included.
    pub sent: u64,
    /// Announces that a tracker accepted.
    pub accepted: u64,
    /// Announces that a tracker refused.
    pub refused: u64,
    /// Announces without an answer that makes sense.
    pub failed: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// The most that were open at the same time.
    pub most_connections: usize,
}

/// One tracker.
#[derive(Debug)]
struct Tracker {
    site: Site,
    target: Target,
    routes: PerFamily<Route>,
    limiter: RateLimiter,
    tracker_id: Option<Box<[u8]>>,
    /// When it is looked at next, as it stands in `wakes`.
    wake: Option<Time>,
    /// Name resolution and redirects that failed in a row, and until when they rest.
    failures: u32,
    retry_at: Time,
    /// Announces that are not urgent wait until then, so that they leave in batches.
    gathers_until: Time,
    warned_at: Option<Time>,
    late: Option<Time>,
    tally: figures::Tally,
    redirects: Redirects,
    /// Requests of its queue that were redirected, and requests that were redirected to it.
    away: usize,
    visitors: usize,
    /// Sites that have a number because its redirects lead there.
    guests: Vec<TrackerId>,
}

impl Tracker {
    fn new(site: &Site, generation: u32, max_per_second: Option<u32>, now: Time) -> Self {
        Self {
            site: site.clone(),
            target: Target::new(site, generation),
            routes: Default::default(),
            limiter: RateLimiter::new(max_per_second.map(u64::from), ANNOUNCE_BURST, now),
            tracker_id: None,
            wake: None,
            failures: 0,
            retry_at: now,
            gathers_until: now,
            warned_at: None,
            late: None,
            tally: figures::Tally::default(),
            redirects: Redirects::default(),
            away: 0,
            visitors: 0,
            guests: Vec::new(),
        }
    }
}

/// Announces a library.
#[derive(Debug)]
pub struct Announcer {
    config: AnnouncerConfig,
    registry: Registry,
    /// The token for a number.
    token: fn(usize) -> Token,
    schedule: Schedule,
    trackers: Table<TrackerId, Tracker>,
    /// When to look at which tracker.
    wakes: BTreeSet<(Time, TrackerId)>,
    /// Those that something has happened to in this turn.
    touched: Vec<TrackerId>,
    resolver: Resolver,
    /// Comes with the addresses of the first HTTPS tracker.
    tls: Option<Arc<ClientConfig>>,
    connections: Slab<Connection>,
    detours: Slab<redirected::Detour>,
    /// Connections with something to do.
    ready: Vec<usize>,
    /// No connection is late before that.
    check_at: Option<Time>,
    datagrams: Datagrams,
    with_peers: BTreeMap<TorrentId, InfoHash>,
    /// The lists of trackers of an index that is being added, by their positions there.
    index_lists: Vec<ListId>,
    looked: Time,
    counters: Counters,
    named: figures::Named,
    callable: callable::Callable,
    random: fastrand::Rng,
    buffer: Vec<u8>,
    /// Everything ends then.
    stops_at: Option<Time>,
    done: bool,
}

impl Announcer {
    /// Opens its sockets. `token` names them, by a number below [`TOKENS`] each.
    ///
    /// # Errors
    /// Those of the sockets.
    pub fn new(
        config: AnnouncerConfig,
        registry: &Registry,
        token: fn(usize) -> Token,
        waker: Arc<Waker>,
        now: Time,
    ) -> io::Result<Self> {
        let datagrams = Datagrams::new(config.sources, registry, [token(0), token(1)])?;
        Ok(Self {
            config,
            registry: registry.try_clone()?,
            token,
            schedule: Schedule::default(),
            trackers: Table::default(),
            wakes: BTreeSet::new(),
            touched: Vec::new(),
            resolver: Resolver::new(waker),
            tls: None,
            connections: Slab::new(),
            detours: Slab::new(),
            ready: Vec::new(),
            check_at: None,
            datagrams,
            with_peers: BTreeMap::new(),
            index_lists: Vec::new(),
            looked: now,
            counters: Counters::default(),
            named: figures::Named::default(),
            callable: callable::Callable::default(),
            random: fastrand::Rng::new(),
            buffer: vec![0; BUFFER_BYTES],
            stops_at: None,
            done: false,
        })
    }

    /// Begins to announce a torrent.
    pub fn add(
        &mut self,
        torrent: TorrentId,
        info_hash: InfoHash,
        announce: &Arc<[Vec<String>]>,
        now: Time,
    ) {
        if self.stops_at.is_some() {
            return;
        }
        let list = self.intern(announce, &info_hash, now);
        self.schedule.add(torrent, info_hash, list, now);
        self.wake_trackers_of(list, now);
    }

    /// The number of a list of trackers, whose trackers are known from then on. `whose` it is, is
    /// for the log.
    fn intern(
        &mut self,
        announce: &Arc<[Vec<String>]>,
        whose: &dyn fmt::Display,
        now: Time,
    ) -> ListId {
        let mut skipped = Vec::new();
        let announce = self.config.override_with.as_ref().unwrap_or(announce);
        let list = self.schedule.intern(announce, &mut skipped);
        for reason in skipped {
            match reason {
                SkippedUrl::Invalid(error) => {
                    log::debug!("{whose}: tracker skipped: {error}");
                }
                SkippedUrl::TooMany => log::warn!("{whose}: tracker skipped: too many trackers"),
            }
        }
        self.know_trackers(now);
        list
    }

    /// Makes those trackers known that have been given a number.
    fn know_trackers(&mut self, now: Time) {
        let sites = self.schedule.lists().sites();
        for (_, site) in sites.iter().skip(self.trackers.len()) {
            let tracker = Tracker::new(site, 0, self.config.max_per_second, now);
            self.trackers.push(tracker);
        }
    }

    /// Ends announcing a torrent. Trackers that know of it are told.
    pub fn remove(&mut self, torrent: TorrentId, info_hash: InfoHash, now: Time) {
        self.with_peers.remove(&torrent);
        let list = self.schedule.list_of(torrent);
        self.schedule.remove(torrent, info_hash);
        if let Some(list) = list {
            self.wake_trackers_of(list, now);
        }
    }

    /// A torrent has peers.
    pub fn joined(&mut self, torrent: TorrentId, info_hash: InfoHash, now: Time) {
        self.with_peers.insert(torrent, info_hash);
        if let Some(list) = self.schedule.joined(torrent, info_hash, now) {
            self.wake_trackers_of(list, now);
        }
    }

    /// A torrent has no peers any more.
    pub fn left(&mut self, torrent: TorrentId) {
        self.with_peers.remove(&torrent);
        self.schedule.left(torrent);
    }

    /// Bytes of a torrent were uploaded.
    pub fn uploaded(&mut self, torrent: TorrentId, bytes: u64) {
        self.schedule.uploaded(torrent, bytes);
    }

    /// The socket of that number is ready.
    pub fn handle_event(&mut self, number: usize, event: &Readiness) {
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        let writable = event.is_writable() || event.is_write_closed() || event.is_error();
        match number {
            0 => self.datagrams.ready(Family::V4, readable, writable),
            1 => self.datagrams.ready(Family::V6, readable, writable),
            number => {
                let key = number.saturating_sub(FIRST_CONNECTION);
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.readable |= readable;
                    connection.writable |= writable;
                    self.list(key);
                }
            }
        }
    }

    /// Does everything that there is to do now.
    pub fn turn(&mut self, now: Time) {
        self.collect_names(now);
        self.drive_connections(now);
        self.drive_datagrams(now);
        self.close_late_connections(now);
        self.name_trackers();
        self.look(now);
        while let Some(&(at, tracker)) = self.wakes.first() {
            if at > now {
                break;
            }
            self.wakes.pop_first();
            self.trackers[tracker].wake = None;
            self.touched.push(tracker);
        }
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for tracker in touched.drain(..) {
            self.pump(tracker, now);
        }
        // What pumping has touched is looked at in the next turn.
        touched.append(&mut self.touched);
        self.touched = touched;
        self.send_requests(now);
        let mut arrivals = Vec::new();
        self.datagrams.flush(&mut arrivals);
        self.handle_arrivals(arrivals, now);
        if let Some(stops_at) = self.stops_at {
            self.done = stops_at <= now || self.nothing_left();
        }
    }

    /// When [`Announcer::turn`] is to be called next, unless an event comes first.
    #[must_use]
    pub fn poll_at(&self) -> Option<Time> {
        if !self.touched.is_empty() || !self.ready.is_empty() || self.datagrams.is_readable() {
            return Some(Time::default());
        }
        let wake = self.wakes.first().map(|(at, _)| *at);
        let datagrams = self.datagrams.poll_at(self.config.limits.resend_ms);
        let look = (!self.trackers.is_empty()).then(|| self.looked.after(LOOK_MS));
        let times = [wake, datagrams, self.check_at, look, self.stops_at];
        times.into_iter().flatten().min()
    }

    /// From now on trackers are only told that torrents are not served any more, for as long as
    /// [`Limits::shutdown_ms`].
    pub fn shutdown(&mut self, now: Time) {
        if self.stops_at.is_some() {
            return;
        }
        self.stops_at = Some(now.after(self.config.limits.shutdown_ms));
        self.schedule.stop(self.with_peers.keys().copied());
        for tracker in self.trackers.ids() {
            self.wake_at(tracker, now);
        }
    }

    /// Whether everybody has been told that could be, or the time for it is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What has been done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn wake_trackers_of(&mut self, list: ListId, now: Time) {
        for position in 0..self.schedule.lists().trackers(list).len() {
            if let Some(listed) = self.schedule.lists().trackers(list).get(position) {
                self.wake_at(listed.tracker, now);
            }
        }
    }

    /// Looks at a tracker at that time, or before.
    fn wake_at(&mut self, number: TrackerId, at: Time) {
        let tracker = &mut self.trackers[number];
        if let Some(before) = tracker.wake {
            if before <= at {
                return;
            }
            self.wakes.remove(&(before, number));
        }
        tracker.wake = Some(at);
        self.wakes.insert((at, number));
    }

    fn route(&mut self, tracker: TrackerId, family: Family) -> &mut Route {
        &mut self.trackers[tracker].routes[family]
    }

    fn source(&self, family: Family) -> Option<IpAddr> {
        self.config.sources.get(family as usize).copied().flatten()
    }

    /// Whether nobody is left to be told, at the end.
    fn nothing_left(&self) -> bool {
        self.touched.is_empty()
            && self.trackers.iter().all(|(number, tracker)| {
                let idle = tracker.routes.iter().all(|route| route.again.is_empty());
                idle && self.schedule.is_idle(number)
            })
            && self
                .connections
                .iter()
                .all(|(_, connection)| connection.in_flight.is_empty())
            && self.datagrams.is_idle()
    }
}
