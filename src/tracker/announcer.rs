//! The announcer: announces a library to all its trackers, driven by the loop.
//!
//! It coordinates parts that own their fields: the schedule says which torrent is due where, the
//! transports carry requests and answer events, redirects and the report count, wakes say when which
//! tracker has something to do. Nothing here blocks.
//!
//! `dispatch.rs` takes announces from the schedule to the transports, `outcome.rs` their events back.

mod dispatch;
mod http;
mod outcome;
mod report;
mod transport;
mod udp;
mod wakes;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use mio::event::Event as Readiness;
use mio::{Registry, Token, Waker};

use self::http::HttpTransport;
use self::report::Report;
use self::transport::Endpoint;
use self::udp::UdpTransport;
use self::wakes::Wakes;
use super::access::{Access, Refusal};
use super::announce::Identity;
use super::family::{Family, PerFamily};
use super::lists::{ListId, PerTracker, SkippedUrl, TrackerId};
use super::peers::DialledTorrents;
use super::redirects::Redirects;
use super::request::RouteId;
use super::resolver::Resolver;
use super::route::{Health, Route};
use super::schedule::Schedule;
use super::target::Target;
use super::url::Site;
use crate::metrics::trackers::{TrackerState, TrackerSums, Trackers};
use crate::rate::{Burst, RateLimiter};
use crate::timers::Time;
use crate::torrent::id::{FIRST_ALIAS, TorrentId};
use crate::wire::message::InfoHash;

/// Connections to all trackers together. When all are in use, idle ones are closed.
pub const MAX_CONNECTIONS: usize = 128;

/// Tokens that the announcer takes: one for the datagrams of each family, then one for each connection.
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

/// Trackers that failed long before the others are woken one in this time on average: each may take a
/// connection of [`MAX_CONNECTIONS`] for ten seconds, and those that answer need some.
const WAKE_MS_EACH: u64 = 100;

/// A tracker that answered within this time before the last answer of any has failed with the others:
/// longer than a usual interval.
const OUTAGE_MS: u64 = 60 * 60 * 1000;

/// How often lateness is checked.
const CHECK_MS: u64 = 10_000;

/// Every time-out, in milliseconds. Tests shorten them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For making a connection, TLS included.
    pub connect_ms: u64,
    /// From a request, or the answer before it, to the last byte of its answer.
    pub answer_ms: u64,
    /// A connection without a request is closed; servers do so after about as long.
    pub idle_ms: u64,
    /// A UDP packet is sent again, for the first time (BEP 15).
    pub resend_ms: u64,
    /// The first back-off of a tracker that failed. It doubles.
    pub backoff_ms: u64,
    /// Trackers that failed are woken within this time, so that not all are called at once.
    pub wake_ms: u64,
    /// A tracker that had failed ends an outage if nothing was answered for so long before.
    pub silence_ms: u64,
    /// For announcing `stopped` at the end.
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
            wake_ms: 15_000,
            silence_ms: 60_000,
            shutdown_ms: 4_000,
        }
    }
}

/// How the announcer is set up.
#[derive(Clone, Debug)]
pub struct AnnouncerConfig {
    /// Who announces.
    pub identity: Identity,
    /// Addresses that announces come from: any address if it is unspecified, none for a family that is
    /// not served.
    pub sources: PerFamily<Option<IpAddr>>,
    /// Requests a second to one tracker at most.
    pub max_per_second: Option<u32>,
    /// Trackers in place of those of the torrents.
    pub override_with: Option<Arc<[Vec<String>]>>,
    /// The trackers that may be announced to.
    pub access: Access,
    /// Torrents whose peers are dialled.
    pub dialled: DialledTorrents,
    /// A file of certificates (PEM) that are trusted beside those of the system.
    pub certificates: Option<PathBuf>,
    /// Every time-out.
    pub limits: Limits,
}

/// One tracker.
#[derive(Debug)]
struct Tracker {
    target: Target,
    routes: PerFamily<Route>,
    limiter: RateLimiter,
    /// Name resolutions that failed in a row, and when the next one is tried.
    failures: u32,
    retry_at: Time,
    /// Announces that are not urgent wait until then, so that they leave in batches.
    gathers_until: Time,
    /// Why it may not be announced to at the addresses to which its name was resolved.
    refusal: Option<Refusal>,
}

impl Tracker {
    /// `generation` is one that no other site with the same id has had.
    fn new(site: &Site, generation: u32, max_per_second: Option<u32>, now: Time) -> Self {
        Self {
            target: Target::new(site, generation),
            routes: PerFamily::default(),
            limiter: RateLimiter::new(max_per_second.map(u64::from), ANNOUNCE_BURST, now),
            failures: 0,
            retry_at: now,
            gathers_until: now,
            refusal: None,
        }
    }

    /// Where it is reached now by one family.
    fn endpoint(&self, family: Family, limits: &Limits) -> Option<Endpoint<'_>> {
        let route = &self.routes[family];
        Some(Endpoint {
            site: self.target.site(),
            address: route.address()?,
            is_up: route.health == Health::Up,
            connect_timeout_ms: route.connect_timeout_ms(limits.resend_ms),
        })
    }

    /// Returns true if requests are to be sent before others.
    fn has_again(&self) -> bool {
        self.routes.iter().any(|route| !route.again.is_empty())
    }

    /// Returns true if it answers by a family.
    fn is_up(&self) -> bool {
        self.routes.iter().any(|route| route.health == Health::Up)
    }

    /// When it answered last by any family.
    fn answered_at(&self) -> Time {
        let routes = self.routes.iter().map(|route| route.answered_at);
        routes.max().unwrap_or_default()
    }

    /// The best that can be said of it.
    fn state(&self, now: Time) -> TrackerState {
        let mut routes = self.routes.iter();
        if self.refusal.is_some() {
            return TrackerState::NotAllowed;
        }
        if self.is_up() {
            return TrackerState::Up;
        }
        if routes.clone().any(|route| route.health == Health::Probing) {
            return TrackerState::Probing;
        }
        let backing_off = routes.clone().filter_map(|route| match route.health {
            Health::BackingOff(until) => Some(until),
            _ => None,
        });
        let name = Some(self.retry_at).filter(|until| *until > now && self.failures > 0);
        match name.or_else(|| backing_off.min()) {
            Some(until) => TrackerState::Resting(until.since(now).div_ceil(1000)),
            None if routes.any(|route| route.failures > 0) => TrackerState::Probing,
            None => TrackerState::New,
        }
    }
}

/// Announces a library.
#[derive(Debug)]
pub struct Announcer {
    config: Arc<AnnouncerConfig>,
    schedule: Schedule,
    trackers: PerTracker<Tracker>,
    wakes: Wakes,
    resolver: Resolver,
    http: HttpTransport,
    udp: UdpTransport,
    redirects: Redirects,
    report: Report,
    /// How many trackers may not be announced to at their addresses.
    not_allowed: u64,
    /// Peers that trackers have named since [`Announcer::take_peers`].
    peers: Vec<(InfoHash, SocketAddr)>,
    /// Torrents with peers of which a tracker has counted another seed since [`Announcer::take_seeded`].
    seeded: Vec<TorrentId>,
    /// The lists of trackers of an index that is being added, by their numbers there.
    index_lists: HashMap<u32, ListId>,
    /// The second ids of torrents whose lists have changed, under which they are announced.
    aliases: HashMap<TorrentId, TorrentId>,
    /// The torrents of these.
    aliased: HashMap<TorrentId, TorrentId>,
    next_alias: TorrentId,
    checked_at: Time,
    random: fastrand::Rng,
    /// When a tracker answered last.
    answered_at: Time,
    /// When trackers that failed were woken last.
    woken_at: Option<Time>,
    /// Everything ends then.
    stops_at: Option<Time>,
    done: bool,
}

impl Announcer {
    /// Opens the sockets. `token` gives the token of each number below [`TOKENS`].
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
        let config = Arc::new(config);
        let tokens = PerFamily::from([token(0), token(1)]);
        Ok(Self {
            schedule: Schedule::default(),
            trackers: PerTracker::default(),
            wakes: Wakes::default(),
            resolver: Resolver::new(waker, config.certificates.clone()),
            http: HttpTransport::new(Arc::clone(&config), registry, token)?,
            udp: UdpTransport::new(Arc::clone(&config), registry, tokens)?,
            config,
            redirects: Redirects::default(),
            report: Report::default(),
            not_allowed: 0,
            peers: Vec::new(),
            seeded: Vec::new(),
            index_lists: HashMap::new(),
            aliases: HashMap::new(),
            aliased: HashMap::new(),
            next_alias: FIRST_ALIAS,
            checked_at: now,
            random: fastrand::Rng::new(),
            answered_at: Time::default(),
            woken_at: None,
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
        let list = self.intern(announce, info_hash, now);
        self.schedule.add(torrent, info_hash, list, now);
        self.wake_trackers_of(list, now);
    }

    /// The id of a list of trackers, which are added. The log names a torrent that has it.
    fn intern(&mut self, announce: &Arc<[Vec<String>]>, torrent: InfoHash, now: Time) -> ListId {
        let mut skipped = Vec::new();
        let announce = self.config.override_with.as_ref().unwrap_or(announce);
        let access = &self.config.access;
        let list = self.schedule.intern(announce, access, &mut skipped);
        for reason in skipped {
            match reason {
                SkippedUrl::Unusable { url, why } => self.report.unusable(url, why, torrent),
                SkippedUrl::TooMany => log::warn!("{torrent}: tracker skipped: too many trackers"),
            }
        }
        self.add_trackers(Some(torrent), now);
        list
    }

    /// Adds those trackers that have been given an id, by a torrent or by a redirect.
    fn add_trackers(&mut self, torrent: Option<InfoHash>, now: Time) {
        let sites = self.schedule.lists().sites();
        for (_, site) in sites.iter().skip(self.trackers.len()) {
            let tracker = Tracker::new(site, 0, self.config.max_per_second, now);
            self.trackers.push(tracker);
            self.redirects.add();
            self.report.add(site, torrent);
        }
    }

    /// Announces a torrent to these trackers from now on. Those that it loses are sent `stopped`, the others
    /// `started`. Does nothing if it has these already.
    ///
    /// It goes on under a second id, as if it were another torrent that replaces it: announces may be under
    /// way.
    pub fn relist(
        &mut self,
        torrent: TorrentId,
        info_hash: InfoHash,
        announce: &Arc<[Vec<String>]>,
        now: Time,
    ) {
        if self.stops_at.is_some() {
            return;
        }
        let list = self.intern(announce, info_hash, now);
        // A new list has no user yet.
        self.schedule.lists_mut().hold(list);
        let before = self.announced_as(torrent);
        if self.schedule.list_of(before) != Some(list) {
            let has_peers = self.schedule.has_peers(before);
            self.schedule.left(before);
            self.remove(torrent, info_hash, now);
            let alias = self.unused_alias();
            self.aliases.insert(torrent, alias);
            self.aliased.insert(alias, torrent);
            self.schedule.add(alias, info_hash, list, now);
            self.wake_trackers_of(list, now);
            if has_peers {
                self.joined(torrent, info_hash, now);
            }
        }
        self.schedule.lists_mut().release(list);
    }

    /// The id under which a torrent is announced.
    fn announced_as(&self, torrent: TorrentId) -> TorrentId {
        self.aliases.get(&torrent).copied().unwrap_or(torrent)
    }

    fn unused_alias(&mut self) -> TorrentId {
        loop {
            let alias = self.next_alias;
            self.next_alias = alias.following_alias();
            if self.schedule.list_of(alias).is_none() {
                return alias;
            }
        }
    }

    /// Ends announcing a torrent: trackers that know it are sent `stopped`.
    pub fn remove(&mut self, torrent: TorrentId, info_hash: InfoHash, now: Time) {
        let alias = self.aliases.remove(&torrent);
        if let Some(alias) = alias {
            self.aliased.remove(&alias);
        }
        let torrent = alias.unwrap_or(torrent);
        // The list may be forgotten with the torrent.
        if let Some(list) = self.schedule.list_of(torrent) {
            self.wake_trackers_of(list, now);
        }
        self.schedule.remove(torrent, info_hash);
    }

    /// A torrent has peers.
    pub fn joined(&mut self, torrent: TorrentId, info_hash: InfoHash, now: Time) {
        let torrent = self.announced_as(torrent);
        if let Some(list) = self.schedule.joined(torrent, info_hash, now) {
            self.wake_trackers_of(list, now);
        }
    }

    /// A torrent has no peers any more.
    pub fn left(&mut self, torrent: TorrentId) {
        self.schedule.left(self.announced_as(torrent));
    }

    /// Bytes of a torrent were uploaded.
    pub fn uploaded(&mut self, torrent: TorrentId, bytes: u64) {
        self.schedule.uploaded(self.announced_as(torrent), bytes);
    }

    /// Begins to add an index: its lists of trackers come before the torrents that have them. A
    /// torrent that is removed meanwhile is not announced if it comes later.
    pub fn begin_index(&mut self) {
        self.schedule.begin_index();
    }

    /// Adds a list of trackers of an index, which has this number there.
    /// The log names that torrent of those that have the list.
    pub fn add_list(
        &mut self,
        number: u32,
        announce: &Arc<[Vec<String>]>,
        torrent: InfoHash,
        now: Time,
    ) {
        let list = self.intern(announce, torrent, now);
        // It may be no torrent's until `end_index`.
        self.schedule.lists_mut().hold(list);
        self.index_lists.insert(number, list);
    }

    /// Begins to announce torrents of an index, in the order of ids, each with the number of its list.
    /// Those of one run of [`super::runs::RUN_IDS`] come together.
    pub fn add_indexed(&mut self, torrents: &[(TorrentId, u32)], now: Time) {
        if self.stops_at.is_some() {
            return;
        }
        let list = |(torrent, number): &(TorrentId, u32)| {
            let list = self.index_lists.get(number);
            let list = list.expect("an index sends each list before the torrents that have it");
            (*torrent, *list)
        };
        let torrents: Vec<(TorrentId, ListId)> = torrents.iter().map(list).collect();
        let mut lists: Vec<ListId> = torrents.iter().map(|(_, list)| *list).collect();
        lists.sort_unstable();
        lists.dedup();
        self.schedule.add_indexed(torrents, now);
        for list in lists {
            self.wake_trackers_of(list, now);
        }
    }

    /// All of an index has been added.
    pub fn end_index(&mut self) {
        self.schedule.end_index();
        for (_, list) in std::mem::take(&mut self.index_lists) {
            self.schedule.lists_mut().release(list);
        }
    }

    /// At most `most` torrents of an index that are announced next, to be answered with
    /// [`Announcer::learn`].
    pub fn unread(&mut self, most: usize) -> Vec<TorrentId> {
        self.schedule.unread(most)
    }

    /// Takes the info-hashes of torrents; `None` for one that cannot be read.
    pub fn learn(&mut self, info_hashes: &[(TorrentId, Option<InfoHash>)], now: Time) {
        let mut lists: Vec<ListId> = Vec::new();
        for &(torrent, info_hash) in info_hashes {
            let list = self.schedule.learn(torrent, info_hash);
            lists.extend(list.filter(|list| lists.last() != Some(list)));
        }
        lists.sort_unstable();
        lists.dedup();
        for list in lists {
            self.wake_trackers_of(list, now);
        }
    }

    /// Takes the peers that trackers have named, each with its torrent.
    pub fn take_peers(&mut self) -> Vec<(InfoHash, SocketAddr)> {
        std::mem::take(&mut self.peers)
    }

    /// Returns true if a tracker has counted another complete peer of a torrent when it answered last.
    #[must_use]
    pub fn has_other_seed(&self, torrent: TorrentId) -> bool {
        self.schedule.has_other_seed(self.announced_as(torrent))
    }

    /// Takes the torrents with peers of which a tracker has counted another complete peer.
    pub fn take_seeded(&mut self) -> Vec<TorrentId> {
        let mut seeded = std::mem::take(&mut self.seeded);
        for torrent in &mut seeded {
            *torrent = self.aliased.get(torrent).copied().unwrap_or(*torrent);
        }
        seeded
    }

    /// The socket with that number is ready.
    pub fn handle_event(&mut self, number: usize, event: &Readiness) {
        match number {
            0 => self.udp.handle_event(Family::V4, event),
            1 => self.udp.handle_event(Family::V6, event),
            number => self.http.handle_event(number - FIRST_CONNECTION, event),
        }
    }

    /// Does everything that is due.
    pub fn turn(&mut self, now: Time) {
        self.collect_names(now);
        self.http.begin_turn();
        self.udp.begin_turn(now);
        self.handle_transport_events(now);
        self.report.name_trackers(&self.schedule);
        self.check_lateness(now);
        for tracker in self.wakes.take_due(now) {
            self.pump(tracker, now);
        }
        self.http.flush();
        self.udp.flush();
        self.handle_transport_events(now);
        if let Some(stops_at) = self.stops_at {
            self.done = stops_at <= now || self.is_idle();
        }
    }

    /// Something has changed that may let trackers answer again: those that failed are announced to
    /// within [`Limits::wake_ms`], at different times; of those that had failed while others answered,
    /// one in 100 ms. Another call within `wake_ms` changes nothing: what fails again rests for little
    /// longer.
    pub fn wake(&mut self, now: Time) {
        self.wake_after(self.answered_at, now);
    }

    /// The same after an outage, before which a tracker answered last at `answered_at`.
    fn wake_after(&mut self, answered_at: Time, now: Time) {
        let wake_ms = self.config.limits.wake_ms;
        let all_ms = WAKE_MS_EACH * self.trackers.len() as u64;
        let is_recent = |woken_at: Time| now.since(woken_at) < wake_ms;
        if self.stops_at.is_some() || self.woken_at.is_some_and(is_recent) {
            return;
        }
        self.woken_at = Some(now);
        let mut count = 0;
        for id in self.trackers.ids() {
            let tracker = &mut self.trackers[id];
            let was_well = tracker.answered_at().after(OUTAGE_MS) >= answered_at;
            let within_ms = if was_well {
                wake_ms
            } else {
                wake_ms.max(all_ms)
            };
            let at = now.after(self.random.u64(..=within_ms));
            let mut is_woken = false;
            if tracker.failures > 0 && !tracker.target.is_known() {
                tracker.failures = 0;
                tracker.retry_at = tracker.retry_at.min(at);
                is_woken = true;
            }
            for route in RouteId::all_of(id) {
                if self.route(route).wake(at) {
                    self.abandon(route, None, now);
                    is_woken = true;
                }
            }
            if is_woken {
                self.schedule.hasten(id, now);
                self.wakes.wake_now(id);
                count += 1;
            }
        }
        if count > 0 {
            log::info!("trackers that failed are tried again soon: {count}");
        }
    }

    /// When to call [`Announcer::turn`], unless an event comes first. Time 0 is at once.
    #[must_use]
    pub fn poll_at(&self) -> Option<Time> {
        let check = (self.trackers.len() > 0).then(|| self.checked_at.after(CHECK_MS));
        let (wake, http, udp) = (
            self.wakes.poll_at(),
            self.http.poll_at(),
            self.udp.poll_at(),
        );
        let times = [wake, http, udp, check, self.stops_at];
        times.into_iter().flatten().min()
    }

    /// Announces nothing but `stopped` from now on, for [`Limits::shutdown_ms`] at most.
    pub fn shutdown(&mut self, now: Time) {
        if self.stops_at.is_some() {
            return;
        }
        self.stops_at = Some(now.after(self.config.limits.shutdown_ms));
        self.schedule.stop();
        for tracker in self.trackers.ids() {
            self.wakes.wake_at(tracker, now);
        }
    }

    /// Returns true if the shutdown is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The figures of the trackers. Costs the same however many there are.
    #[must_use]
    pub fn figures(&self, now: Time) -> Trackers {
        let named = self.report.named().iter().map(|id| {
            let state = match self.trackers[*id].state(now) {
                TrackerState::Resting(rests_s) => {
                    let until = now.after(rests_s * 1000);
                    TrackerState::Resting(self.next_try_s(*id, until, now))
                }
                state => state,
            };
            self.report
                .figures_of(*id, state, self.current(*id, now), now)
        });
        let connections = self.http.open_count() as u64;
        let figures = self.report.figures(named.collect(), connections);
        Trackers {
            not_allowed: self.not_allowed + figures.not_allowed,
            unannounced: self.schedule.lists().unannounced(),
            ..figures
        }
    }

    /// What is so of a tracker at a moment, without what was counted.
    fn current(&self, tracker: TrackerId, now: Time) -> TrackerSums {
        let (connections, in_flight) = self.http.load(tracker);
        TrackerSums {
            torrents: self.schedule.members(tracker).into(),
            late_s: self.lateness_s(tracker, now),
            connections,
            in_flight: in_flight + self.udp.load(tracker),
            ..TrackerSums::default()
        }
    }

    /// How late the most overdue announce to a tracker is, in seconds; 0 if it may not be announced to.
    fn lateness_s(&self, tracker: TrackerId, now: Time) -> u64 {
        match self.trackers[tracker].refusal {
            Some(_) => 0,
            None => self.schedule.lateness_s(tracker, now),
        }
    }

    /// Finds trackers that are late, and brings torrents with peers to the front there.
    fn check_lateness(&mut self, now: Time) {
        if now.since(self.checked_at) < CHECK_MS {
            return;
        }
        self.checked_at = now;
        let mut others = TrackerSums::default();
        let mut is_late = false;
        for tracker in self.trackers.ids() {
            let late_s = self.lateness_s(tracker, now);
            let torrents = self.schedule.members(tracker);
            is_late |= late_s > 0;
            self.report.check_lateness(tracker, late_s, torrents, now);
            if !self.report.named().contains(&tracker) {
                others.torrents += u64::from(torrents);
                others.late_s = others.late_s.max(late_s);
            }
        }
        // Summed up once: a library may have very many trackers.
        let named = self.report.named().iter();
        let of_named = named.map(|tracker| self.current(*tracker, now).in_flight);
        others.in_flight = self.http.in_flight() + self.udp.in_flight() - of_named.sum::<u64>();
        self.report.set_others(others);
        if is_late && self.stops_at.is_none() {
            for list in self.schedule.bring_all_forward(now) {
                self.wake_trackers_of(list, now);
            }
        }
    }

    fn wake_trackers_of(&mut self, list: ListId, now: Time) {
        for listed in self.schedule.lists().trackers(list) {
            self.wakes.wake_at(listed.tracker, now);
        }
    }

    fn route(&mut self, route: RouteId) -> &mut Route {
        &mut self.trackers[route.tracker].routes[route.family]
    }

    /// Returns true if nothing is left to be sent or answered.
    fn is_idle(&self) -> bool {
        let is_idle = |(id, tracker): (TrackerId, &Tracker)| {
            !tracker.has_again() && self.schedule.is_idle(id)
        };
        !self.wakes.has_news()
            && self.trackers.iter().all(is_idle)
            && self.http.in_flight() == 0
            && self.udp.is_idle()
    }
}

#[cfg(test)]
mod tests;
