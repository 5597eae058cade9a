//! The HTTP transport: connections to all trackers, and which requests go on them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use mio::event::Event as Readiness;
use mio::{Interest, Registry, Token};
use rustls::ClientConfig;
use slab::Slab;

use super::transport::{Endpoint, Full, TransportEvent};
use super::{AnnouncerConfig, FIRST_CONNECTION, Limits, MAX_CONNECTIONS};
use crate::timers::Time;
use crate::tracker::announce::{self, Identity};
use crate::tracker::connection::{Connection, End, Progress};
use crate::tracker::family::PerFamily;
use crate::tracker::http;
use crate::tracker::lists::TrackerId;
use crate::tracker::peers;
use crate::tracker::pipelining::{ConnectionEnd, ConnectionMode, Pipelining};
use crate::tracker::request::{Request, RouteId};
use crate::tracker::response::Response;
use crate::tracker::url::TrackerUrl;

/// The longest `Retry-After` that is honoured: an hour.
const MAX_RETRY_AFTER_S: u64 = 3600;

/// How long the rest of the first batch is waited for, once its first answer has come.
const TRIAL_MS: u64 = 2000;

/// A connection that is closed this long after its last answer was closed for being idle.
const IDLE_CLOSE_MS: u64 = 1000;

/// When a tracker is tried again for whose connection there was no room.
pub(super) const NO_ROOM_MS: u64 = 1000;

/// The read buffer, shared by all connections.
const BUFFER_BYTES: usize = 16 * 1024;

/// Room for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpSlot {
    route: RouteId,
    /// The connection that carries it; `None` if one is to be opened.
    connection: Option<usize>,
}

/// Connections to all trackers.
#[derive(Debug)]
pub(super) struct HttpTransport {
    identity: Identity,
    /// Addresses that connections are made from; none for a family that is not served.
    sources: PerFamily<Option<IpAddr>>,
    limits: Limits,
    registry: Registry,
    /// The token of each connection.
    token: fn(usize) -> Token,
    /// Comes with the addresses of the first HTTPS tracker.
    tls: Option<Arc<ClientConfig>>,
    connections: Slab<Connection>,
    /// By route.
    pipelining: HashMap<RouteId, Pipelining>,
    /// A `tracker id` that a tracker gave is repeated to it (BEP 3).
    tracker_ids: HashMap<TrackerId, Box<[u8]>>,
    reserved: Vec<HttpSlot>,
    /// Connections with something to do, in the next turn and in this one.
    ready: Vec<usize>,
    driven: VecDeque<usize>,
    /// Responses that have been read, and connections that have ended, in this turn. The end of a
    /// connection is decided after its responses, and one by one: when the first makes its tracker
    /// back off, the others have no meaning any more.
    responses: VecDeque<(usize, Request, Response)>,
    ends: VecDeque<(usize, End)>,
    /// No connection is late before that.
    check_at: Option<Time>,
    buffer: Vec<u8>,
    opened: u64,
    most_open: usize,
}

impl HttpTransport {
    pub(super) fn new(
        config: &AnnouncerConfig,
        registry: &Registry,
        token: fn(usize) -> Token,
    ) -> io::Result<Self> {
        Ok(Self {
            identity: config.identity,
            sources: config.sources,
            limits: config.limits,
            registry: registry.try_clone()?,
            token,
            tls: None,
            connections: Slab::new(),
            pipelining: HashMap::new(),
            tracker_ids: HashMap::new(),
            reserved: Vec::new(),
            ready: Vec::new(),
            driven: VecDeque::new(),
            responses: VecDeque::new(),
            ends: VecDeque::new(),
            check_at: None,
            buffer: vec![0; BUFFER_BYTES],
            opened: 0,
            most_open: 0,
        })
    }

    /// Speaks TLS with this configuration from now on.
    pub(super) fn set_tls(&mut self, tls: Arc<ClientConfig>) {
        self.tls = Some(tls);
    }

    /// Repeats this `tracker id` to a tracker from now on (BEP 3).
    pub(super) fn set_tracker_id(&mut self, tracker: TrackerId, id: Box<[u8]>) {
        self.tracker_ids.insert(tracker, id);
    }

    /// The socket of a connection is ready.
    pub(super) fn handle_event(&mut self, key: usize, event: &Readiness) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.handle_event(event);
            self.enqueue(key);
        }
    }

    /// Puts a connection into the queue of those with something to do.
    fn enqueue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_queued
        {
            connection.is_queued = true;
            self.ready.push(key);
        }
    }

    /// Gives up the slots that are reserved.
    pub(super) fn release_slots(&mut self) {
        self.reserved.clear();
    }

    /// Reserves room for one request, on a connection or on one to be opened.
    pub(super) fn reserve(
        &mut self,
        route: RouteId,
        endpoint: &Endpoint<'_>,
        now: Time,
    ) -> Result<HttpSlot, Full> {
        let usable = self
            .connections_of(route)
            .filter(|(_, open)| open.has_room());
        let least = usable.min_by_key(|(_, open)| open.in_flight.len());
        let found = least.map(|(key, _)| key);
        if found.is_none() {
            let pipelining = self.pipelining.entry(route).or_default();
            let most = pipelining.max_connections(endpoint.is_up);
            if self.connections_of(route).count() >= most {
                return Err(Full::UntilEvent);
            }
            let opening = self
                .reserved
                .iter()
                .filter(|slot| slot.connection.is_none());
            if self.connections.len() + opening.count() >= MAX_CONNECTIONS && !self.close_idle() {
                return Err(Full::Until(now.after(NO_ROOM_MS)));
            }
        }
        let slot = HttpSlot {
            route,
            connection: found,
        };
        self.reserved.push(slot);
        Ok(slot)
    }

    /// Closes a connection without requests. Returns true if there was one.
    fn close_idle(&mut self) -> bool {
        let mut open = self.connections.iter();
        let idle = open.find(|(key, connection)| {
            let mut reserved = self.reserved.iter();
            connection.in_flight.is_empty() && reserved.all(|slot| slot.connection != Some(*key))
        });
        let idle = idle.map(|(key, _)| key);
        idle.map(|key| self.close(key)).is_some()
    }

    /// Puts a request on the connection of a slot.
    ///
    /// # Errors
    /// Gives the request back, with the reason, if no connection can be opened.
    pub(super) fn send(
        &mut self,
        slot: HttpSlot,
        endpoint: &Endpoint<'_>,
        request: Request,
        now: Time,
    ) -> Result<(), (Request, String)> {
        let key = match slot.connection {
            Some(key) => key,
            None => match self.open(slot.route, endpoint, now) {
                Ok(key) => key,
                Err(error) => return Err((request, error.to_string())),
            },
        };
        let url = TrackerUrl {
            site: endpoint.site.clone(),
            path: request.target_path().into(),
        };
        let tracker_id = self.tracker_ids.get(&slot.route.tracker);
        let connection = open_mut(&mut self.connections, key);
        if connection.in_flight.is_empty() && connection.is_connected {
            connection.deadline = now.after(self.limits.answer_ms);
            self.check_at = earliest(self.check_at, connection.deadline);
        }
        http::write_request(
            connection.output(),
            &url,
            &self.identity,
            &request.announce,
            request.peers_wanted(),
            tracker_id.map(|id| &**id),
        );
        connection.push(request, now);
        self.enqueue(key);
        Ok(())
    }

    fn open(&mut self, route: RouteId, endpoint: &Endpoint<'_>, now: Time) -> io::Result<usize> {
        let source = self.sources[route.family];
        let source = source.expect("addresses of a family without a source are not used");
        let site = endpoint.site;
        let address = endpoint.socket_address();
        let mut connection = Connection::open(route, site, source, address, self.tls.as_ref())?;
        let pipelining = self.pipelining.entry(route).or_default();
        connection.depth = pipelining.first_depth(endpoint.is_up);
        connection.is_proven = pipelining.is_proven();
        connection.deadline = now.after(self.limits.connect_ms);
        self.check_at = earliest(self.check_at, connection.deadline);
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        assert!(key < MAX_CONNECTIONS, "more connections than slots");
        let token = (self.token)(FIRST_CONNECTION + key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(connection.stream(), token, interest)?;
        entry.insert(connection);
        self.opened += 1;
        self.most_open = self.most_open.max(self.connections.len());
        Ok(key)
    }

    /// The open connections of a route: few are open, so that no route needs a list.
    fn connections_of(&self, route: RouteId) -> impl Iterator<Item = (usize, &Connection)> {
        let open = self.connections.iter();
        open.filter(move |(_, connection)| connection.route == route)
    }

    /// Closes a connection.
    fn close(&mut self, key: usize) -> Connection {
        let mut connection = self.connections.remove(key);
        // The system forgets a closed socket in any case.
        self.registry.deregister(connection.stream()).ok();
        self.ready.retain(|ready| *ready != key);
        connection
    }

    /// Closes the connections of a route. Returns the requests that were on them.
    pub(super) fn abandon(&mut self, route: RouteId) -> Vec<Request> {
        let keys: Vec<usize> = self.connections_of(route).map(|(key, _)| key).collect();
        let closed = keys.into_iter().map(|key| self.close(key));
        closed.flat_map(|connection| connection.in_flight).collect()
    }

    /// Another server is at a route from now on. Returns the requests that the former one has not
    /// answered, or whose answers have not been handled.
    pub(super) fn reset(&mut self, route: RouteId) -> Vec<Request> {
        let responses = std::mem::take(&mut self.responses).into_iter();
        let (former, other): (VecDeque<_>, VecDeque<_>) =
            responses.partition(|(_, request, _)| request.route() == route);
        self.responses = other;
        let mut requests: Vec<Request> =
            former.into_iter().map(|(_, request, _)| request).collect();
        requests.extend(self.abandon(route));
        self.pipelining.remove(&route);
        requests
    }

    /// Forgets all that is known of a tracker, whose routes were reset.
    pub(super) fn forget(&mut self, tracker: TrackerId) {
        self.tracker_ids.remove(&tracker);
    }

    /// Begins a turn: connections that are ready are read and written by [`Self::poll_event`].
    pub(super) fn begin_turn(&mut self) {
        self.driven.extend(self.ready.drain(..));
    }

    /// Has [`Self::poll_event`] close connections that waited for too long, or that nobody needs.
    pub(super) fn expire(&mut self, now: Time) {
        if self.check_at.is_none_or(|at| at > now) {
            return;
        }
        self.check_at = None;
        for (key, Connection { deadline, .. }) in &self.connections {
            if *deadline <= now {
                self.ends.push_back((key, End::TimedOut));
            } else {
                self.check_at = earliest(self.check_at, *deadline);
            }
        }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) {
        for key in std::mem::take(&mut self.ready) {
            let connection = open_mut(&mut self.connections, key);
            connection.is_queued = false;
            match connection.send() {
                Ok(()) if connection.is_ready() => self.enqueue(key),
                Ok(()) => {}
                Err(end) => self.ends.push_back((key, end)),
            }
        }
    }

    /// The next thing that has happened in this turn.
    pub(super) fn poll_event(&mut self, now: Time) -> Option<TransportEvent> {
        loop {
            if let Some((key, request, response)) = self.responses.pop_front() {
                self.account(key, request.route(), &response, now);
                return Some(event_of(request, response));
            }
            if let Some((key, end)) = self.ends.pop_front() {
                if self.connections.contains(key) {
                    return Some(self.handle_end(key, &end, now));
                }
            } else {
                let key = self.driven.pop_front()?;
                self.drive(key, now);
            }
        }
    }

    /// Reads and writes a connection.
    fn drive(&mut self, key: usize, now: Time) {
        // It may have been closed by a former event of this turn.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.is_queued = false;
        if connection.connects() {
            connection.deadline = now.after(self.limits.answer_ms);
        }
        let mut answers = Vec::new();
        let mut progress = connection.receive(&mut self.buffer, &mut answers);
        if !matches!(progress, Progress::Ended(_))
            && let Err(end) = connection.send()
        {
            progress = Progress::Ended(end);
        }
        let is_ready = connection.is_ready();
        let answers = answers.into_iter();
        self.responses
            .extend(answers.map(|(request, response)| (key, request, response)));
        match progress {
            Progress::Ended(end) => self.ends.push_back((key, end)),
            Progress::More => self.enqueue(key),
            Progress::Blocked if is_ready => self.enqueue(key),
            Progress::Blocked => {}
        }
    }

    /// A connection has brought a response, and may carry more requests now.
    fn account(&mut self, key: usize, route: RouteId, response: &Response, now: Time) {
        // It may have been closed by a former event of this turn.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let limits = &self.limits;
        let wait_ms = match (connection.in_flight.is_empty(), connection.is_proven) {
            (false, true) => limits.answer_ms,
            // A server that answers the first of a batch and forgets the rest is not waited for.
            (false, false) => {
                let first_ms = now.since(connection.pushed_at);
                TRIAL_MS.max(2 * first_ms).min(limits.answer_ms)
            }
            (true, _) => limits.idle_ms,
        };
        connection.answered_at = now;
        connection.deadline = now.after(wait_ms);
        self.check_at = earliest(self.check_at, connection.deadline);
        let batch = connection.whole_batch();
        if response.keep_alive {
            let pipelining = self.pipelining.entry(route).or_default();
            let before = pipelining.mode();
            let depth = connection.depth;
            connection.depth = pipelining.handle_answer(depth, batch, response.may_pipeline);
            connection.is_proven = pipelining.is_proven();
            if pipelining.mode() != before {
                log_mode(connection, pipelining.mode());
            }
        }
    }

    /// A connection has ended.
    fn handle_end(&mut self, key: usize, end: &End, now: Time) -> TransportEvent {
        let mut connection = self.close(key);
        let route = connection.route;
        let mut lost: Vec<Request> = std::mem::take(&mut connection.in_flight).into();
        let answered = connection.answered;
        let was_idle = answered > 0 && now.since(connection.answered_at) > IDLE_CLOSE_MS;
        // Closing an idle connection says nothing about the server.
        if lost.is_empty() && was_idle {
            return TransportEvent::Room(route);
        }
        let pipelining = self.pipelining.entry(route).or_default();
        let is_changed = pipelining.handle_end(ConnectionEnd {
            answered,
            lost: lost.len(),
            batch: connection.batch,
            is_announced: connection.closing,
        });
        if is_changed {
            log_mode(&connection, pipelining.mode());
        }
        // Pipelining is to blame for a break, or nothing where something had been answered.
        let broke = matches!(end, End::Closed | End::Io(_));
        let was_piped = is_changed && pipelining.mode() == ConnectionMode::OneAtATime;
        if connection.closing || was_piped || (answered > 0 && broke) || lost.is_empty() {
            return TransportEvent::Again(route, lost);
        }
        // A connection that was refused is not the fault of its request.
        let blamed = connection.is_connected.then(|| lost.remove(0));
        TransportEvent::Failed {
            route,
            blamed,
            returned: lost,
            why: end.to_string(),
        }
    }

    /// When there is something to do without an event of a socket. Time 0 is at once.
    pub(super) fn poll_at(&self) -> Option<Time> {
        if self.ready.is_empty() {
            self.check_at
        } else {
            Some(Time::default())
        }
    }

    /// Returns true if no request is on a connection.
    pub(super) fn is_idle(&self) -> bool {
        let mut open = self.connections.iter();
        open.all(|(_, connection)| connection.in_flight.is_empty())
    }

    /// Open connections to a tracker, and requests on them.
    pub(super) fn load(&self, tracker: TrackerId) -> (u64, u64) {
        let open = self.connections.iter();
        open.filter(|(_, connection)| connection.route.tracker == tracker)
            .fold((0, 0), |(count, in_flight), (_, connection)| {
                (count + 1, in_flight + connection.in_flight.len() as u64)
            })
    }

    /// Requests on connections to all trackers.
    pub(super) fn in_flight(&self) -> u64 {
        let open = self.connections.iter();
        open.map(|(_, connection)| connection.in_flight.len() as u64)
            .sum()
    }

    /// Open connections to all trackers.
    pub(super) fn open_count(&self) -> usize {
        self.connections.len()
    }

    /// Connections that were opened, and the most that were open at the same time.
    pub(super) fn opened(&self) -> (u64, usize) {
        (self.opened, self.most_open)
    }
}

fn earliest(check_at: Option<Time>, deadline: Time) -> Option<Time> {
    Some(check_at.map_or(deadline, |at| at.min(deadline)))
}

/// A connection whose key is in a slot or in a queue: keys leave both when it is closed.
fn open_mut(connections: &mut Slab<Connection>, key: usize) -> &mut Connection {
    let connection = connections.get_mut(key);
    connection.expect("the key of an open connection")
}

fn log_mode(connection: &Connection, mode: ConnectionMode) {
    let what = match mode {
        ConnectionMode::OneAtATime => "accepts only one request at a time",
        ConnectionMode::Closing => "closes the connection after each response",
        ConnectionMode::Pipelined => return,
    };
    log::info!("tracker {}: {what}", connection.site);
}

/// What a response means for its request.
fn event_of(request: Request, response: Response) -> TransportEvent {
    if matches!(response.status, 301 | 302 | 303 | 307 | 308)
        && let Some(location) = response.location
    {
        return TransportEvent::Redirected {
            request,
            location,
            is_permanent: matches!(response.status, 301 | 308),
        };
    }
    match announce::parse_answer(&response.body) {
        Ok(answer) => {
            let peers = if request.wants_peers {
                peers::from_answer(&response.body)
            } else {
                Vec::new()
            };
            TransportEvent::Answered(request, answer, peers)
        }
        Err(error) => {
            let is_busy = matches!(response.status, 429 | 503);
            if let (true, Some(wait_s)) = (is_busy, response.retry_after_s) {
                return TransportEvent::Busy(request, wait_s.clamp(1, MAX_RETRY_AFTER_S));
            }
            let is_success = (200..300).contains(&response.status);
            let why = if is_success {
                error.to_string()
            } else {
                format!("status {}", response.status)
            };
            TransportEvent::Senseless {
                request,
                why,
                is_busy,
            }
        }
    }
}
