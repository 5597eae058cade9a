//! The HTTP transport: connections to all trackers, and which requests go on them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use mio::event::Event as Readiness;
use mio::{Interest, Registry, Token};
use rustls::ClientConfig;
use slab::Slab;

use super::transport::{Endpoint, Full, TransportEvent};
use super::{AnnouncerConfig, FIRST_CONNECTION, MAX_CONNECTIONS};
use crate::timers::Time;
use crate::tracker::connection::{Connection, End};
use crate::tracker::http;
use crate::tracker::lists::TrackerId;
use crate::tracker::pipelining::{ConnectionEnd, ConnectionMode, Pipelining};
use crate::tracker::request::{Request, RouteId};
use crate::tracker::response::Response;

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

#[derive(Debug, Default)]
struct HttpRoute {
    pipelining: Pipelining,
    /// Keys of its open connections.
    open: Vec<usize>,
}

/// Connections to all trackers.
#[derive(Debug)]
pub(super) struct HttpTransport {
    config: Arc<AnnouncerConfig>,
    registry: Registry,
    /// The token of each connection.
    token: fn(usize) -> Token,
    /// Comes with the addresses of the first HTTPS tracker.
    tls: Option<Arc<ClientConfig>>,
    connections: Slab<Connection>,
    routes: HashMap<RouteId, HttpRoute>,
    /// A `tracker id` that a tracker gave is repeated to it (BEP 3).
    tracker_ids: HashMap<TrackerId, Box<[u8]>>,
    reserved: Vec<HttpSlot>,
    /// Connections that are to be read and written in this turn.
    driven: VecDeque<usize>,
    /// Responses that have been read, and connections that have ended, in this turn. The end of a
    /// connection is decided after its responses, and one by one: when the first makes its tracker
    /// back off, the others have no meaning any more.
    responses: VecDeque<(usize, Request, Response)>,
    ends: VecDeque<(usize, End)>,
    /// No connection is late before that.
    check_at: Time,
    buffer: Vec<u8>,
}

impl HttpTransport {
    pub(super) fn new(
        config: Arc<AnnouncerConfig>,
        registry: &Registry,
        token: fn(usize) -> Token,
    ) -> io::Result<Self> {
        Ok(Self {
            config,
            registry: registry.try_clone()?,
            token,
            tls: None,
            connections: Slab::new(),
            routes: HashMap::new(),
            tracker_ids: HashMap::new(),
            reserved: Vec::new(),
            driven: VecDeque::new(),
            responses: VecDeque::new(),
            ends: VecDeque::new(),
            check_at: Time::NEVER,
            buffer: vec![0; BUFFER_BYTES],
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
        let state = self.routes.entry(route).or_default();
        let open = state.open.iter().copied();
        let usable = open.filter_map(|key| {
            let connection = self.connections.get(key).expect("an open connection");
            let in_flight = connection.in_flight.len();
            let has_room = connection.has_room(state.pipelining.is_proven());
            has_room.then_some((in_flight, key))
        });
        let found = usable.min().map(|(_, key)| key);
        if found.is_none() {
            if state.open.len() >= state.pipelining.max_connections(endpoint.is_up) {
                return Err(Full::UntilEvent);
            }
            let reserved = self.reserved.iter();
            let opening = reserved.filter(|slot| slot.connection.is_none()).count();
            if self.connections.len() + opening >= MAX_CONNECTIONS && !self.close_idle() {
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
        let tracker_id = self.tracker_ids.get(&slot.route.tracker);
        let connection = self.connections.get_mut(key);
        let connection = connection.expect("a reserved connection is open");
        if connection.in_flight.is_empty() && connection.is_connected {
            connection.deadline = now.after(self.config.limits.answer_ms);
            self.check_at = self.check_at.min(connection.deadline);
        }
        http::write_request(
            &mut connection.out,
            (endpoint.site, request.target_path()),
            &self.config.identity,
            &request.announce,
            request.peers_wanted(),
            tracker_id.map(|id| &**id),
        );
        connection.push(request, now);
        Ok(())
    }

    fn open(&mut self, route: RouteId, endpoint: &Endpoint<'_>, now: Time) -> io::Result<usize> {
        let source = self.config.sources[route.family];
        let source = source.expect("addresses of a family without a source are not used");
        let site = endpoint.site;
        let address = endpoint.socket_address();
        let mut connection = Connection::open(route, site, source, address, self.tls.as_ref())?;
        let state = self.routes.entry(route).or_default();
        connection.depth = state.pipelining.first_depth(endpoint.is_up);
        connection.deadline = now.after(self.config.limits.connect_ms);
        self.check_at = self.check_at.min(connection.deadline);
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        assert!(key < MAX_CONNECTIONS, "more connections than slots");
        let token = (self.token)(FIRST_CONNECTION + key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(&mut connection.stream, token, interest)?;
        entry.insert(connection);
        state.open.push(key);
        Ok(key)
    }

    /// Closes a connection.
    fn close(&mut self, key: usize) -> Connection {
        let mut connection = self.connections.remove(key);
        // The system forgets a closed socket in any case.
        self.registry.deregister(&mut connection.stream).ok();
        let state = self.routes.get_mut(&connection.route);
        let state = state.expect("a connection is of a route");
        state.open.retain(|open| *open != key);
        connection
    }

    /// Closes the connections of a route. Returns the requests that were on them.
    pub(super) fn abandon(&mut self, route: RouteId) -> Vec<Request> {
        let state = self.routes.get(&route);
        let keys = state.map_or_else(Vec::new, |state| state.open.clone());
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
        self.routes.remove(&route);
        requests
    }

    /// Forgets all that is known of a tracker, whose routes were reset.
    pub(super) fn forget(&mut self, tracker: TrackerId) {
        self.tracker_ids.remove(&tracker);
    }

    /// Begins a turn: connections that are ready are read and written by [`Self::poll_event`].
    pub(super) fn begin_turn(&mut self) {
        let open = self.connections.iter();
        let ready = open.filter(|(_, connection)| connection.is_ready());
        self.driven.extend(ready.map(|(key, _)| key));
    }

    /// Finds connections that waited for too long, or that nobody needs.
    fn expire(&mut self, now: Time) {
        self.check_at = Time::NEVER;
        for (key, Connection { deadline, .. }) in &self.connections {
            if *deadline <= now {
                self.ends.push_back((key, End::TimedOut));
            } else {
                self.check_at = self.check_at.min(*deadline);
            }
        }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) {
        for (key, connection) in &mut self.connections {
            if let Err(end) = connection.send() {
                self.ends.push_back((key, end));
            }
        }
    }

    /// The next thing that has happened in this turn.
    pub(super) fn poll_event(&mut self, now: Time) -> Option<TransportEvent> {
        loop {
            if let Some((key, request, response)) = self.responses.pop_front() {
                self.account(key, request.route(), &response, now);
                return Some(TransportEvent::Responded(request, response));
            }
            if let Some((key, end)) = self.ends.pop_front() {
                if self.connections.contains(key) {
                    return Some(self.handle_end(key, &end, now));
                }
            } else if let Some(key) = self.driven.pop_front() {
                self.drive(key, now);
            } else if self.check_at <= now {
                self.expire(now);
            } else {
                return None;
            }
        }
    }

    /// Reads and writes a connection.
    fn drive(&mut self, key: usize, now: Time) {
        // It may have been closed by a former event of this turn.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.connects() {
            connection.deadline = now.after(self.config.limits.answer_ms);
        }
        let mut answers = Vec::new();
        let received = connection.receive(&mut self.buffer, &mut answers);
        let driven = received.and_then(|()| connection.send());
        let answers = answers.into_iter();
        self.responses
            .extend(answers.map(|(request, response)| (key, request, response)));
        self.ends.extend(driven.err().map(|end| (key, end)));
    }

    /// A connection has brought a response, and may carry more requests now.
    fn account(&mut self, key: usize, route: RouteId, response: &Response, now: Time) {
        // It may have been closed by a former event of this turn.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let pipelining = &mut self.routes.entry(route).or_default().pipelining;
        let limits = &self.config.limits;
        let wait_ms = match (connection.in_flight.is_empty(), pipelining.is_proven()) {
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
        self.check_at = self.check_at.min(connection.deadline);
        let batch = connection.whole_batch();
        if response.keep_alive {
            let before = pipelining.mode();
            let depth = connection.depth;
            connection.depth = pipelining.handle_answer(depth, batch, response.may_pipeline);
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
        let pipelining = &mut self.routes.entry(route).or_default().pipelining;
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
        let mut open = self.connections.iter();
        if open.any(|(_, connection)| connection.is_ready()) {
            Some(Time::default())
        } else {
            Some(self.check_at).filter(|at| *at != Time::NEVER)
        }
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
}

fn log_mode(connection: &Connection, mode: ConnectionMode) {
    let what = match mode {
        ConnectionMode::OneAtATime => "accepts only one request at a time",
        ConnectionMode::Closing => "closes the connection after each response",
        ConnectionMode::Pipelined => return,
    };
    log::info!("tracker {}: {what}", connection.site);
}
