//! The UDP transport (BEP 15): connection ids, windows, and when packets are sent again.
//!
//! An answer counts only if it comes from the address that was asked and has its transaction id, which
//! is drawn from the kernel's random bytes.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::event::Event as Readiness;
use mio::{Registry, Token};

use super::AnnouncerConfig;
use super::transport::{Endpoint, Full, TransportEvent};
use crate::sys;
use crate::timers::Time;
use crate::tracker::announce::{Answer, Identity, Retry};
use crate::tracker::datagrams::Datagrams;
use crate::tracker::family::{Family, PerFamily};
use crate::tracker::lists::TrackerId;
use crate::tracker::peers;
use crate::tracker::request::{Request, RouteId};
use crate::tracker::udp::{self, Packet};
use crate::tracker::window::Window;

/// A packet unanswered for this long no longer counts as under way: trackers answer within
/// milliseconds, or not at all. It is still sent again only when BEP 15 says so.
const LOST_MS: u64 = 2000;

/// An announce that was lost this often, while others were answered, is not answered at all.
const MAX_RESENDS: u32 = 3;

/// A connection id is used for less than its minute, since packets take time (BEP 15).
const CONNECTION_MS: u64 = 55_000;

/// Answers read from one socket in one turn, so that peers are not starved.
const PACKETS_PER_TURN: usize = 1024;

/// Most bytes kept of an answer; the rest is lost. It holds 80 IPv4 peers.
const PACKET_BYTES_MAX: usize = 512;

/// Random bytes fetched with one call: ids for many packets.
const RANDOM_BYTES: usize = 256;

/// Why there is a route: its packets are withdrawn when it is forgotten.
const OF_ROUTE: &str = "a packet in flight is of a route";

/// A packet that has not been answered.
#[derive(Debug)]
struct Flight {
    route: RouteId,
    address: SocketAddr,
    /// What it announces; `None` for a connect request.
    request: Option<Request>,
    /// When it was sent first.
    sent_at: Time,
    /// How often it was sent again.
    resends: u32,
    /// It no longer counts as under way.
    is_lost: bool,
}

impl Flight {
    /// Returns true if a packet from this address answers it.
    fn is_answered_by(&self, packet: &Packet, from: SocketAddr) -> bool {
        self.address == from
            && match packet {
                Packet::Connected { .. } => self.request.is_none(),
                Packet::Announced { .. } => self.request.is_some(),
                Packet::Failed { .. } => true,
            }
    }
}

#[derive(Debug, Default)]
struct UdpRoute {
    window: Window,
    /// The connection id, and since when it is known.
    connection: Option<(u64, Time)>,
    /// A connection id has been requested.
    is_connecting: bool,
    /// When something was last answered.
    answered_at: Time,
}

impl UdpRoute {
    /// The connection id, while it may be used.
    fn connection(&self, now: Time) -> Option<u64> {
        let (connection, since) = self.connection?;
        (now.since(since) < CONNECTION_MS).then_some(connection)
    }

    /// A packet was answered. The answer named these peers.
    fn handle_answer(
        &mut self,
        flight: Flight,
        packet: Packet,
        peers: Vec<SocketAddr>,
        now: Time,
    ) -> TransportEvent {
        let route = flight.route;
        if flight.resends == 0 {
            self.window.took(now.since(flight.sent_at));
        }
        if !flight.is_lost {
            self.window.answered();
        }
        let Some(mut request) = flight.request else {
            let why = match packet {
                Packet::Failed { reason } => format!("refuses connections: {reason}"),
                Packet::Announced { .. } => "sent a response of the wrong type".to_owned(),
                Packet::Connected { connection } => {
                    self.connection = Some((connection, now));
                    self.is_connecting = false;
                    self.answered_at = now;
                    return TransportEvent::Room(route);
                }
            };
            return TransportEvent::Failed {
                route,
                blamed: None,
                returned: Vec::new(),
                why,
            };
        };
        let answer = match packet {
            Packet::Connected { .. } => return TransportEvent::Unanswered(request),
            Packet::Announced { terms, seeds } => Answer::Accepted {
                seeds,
                terms,
                tracker_id: None,
                warning: None,
            },
            Packet::Failed { reason } => {
                // An id that is too old is refused in words. A fresh one shows what was meant.
                let is_about_id = reason.to_ascii_lowercase().contains("connection");
                if is_about_id && !request.is_renewed {
                    if self.connection(flight.sent_at).is_some() {
                        self.connection = None;
                        self.is_connecting = false;
                    }
                    request.is_renewed = true;
                    return TransportEvent::Again(route, vec![request]);
                }
                Answer::Refused {
                    reason,
                    retry: Retry::Unsaid,
                }
            }
        };
        self.answered_at = now;
        TransportEvent::Answered(request, answer, peers)
    }
}

/// Packets to all trackers.
#[derive(Debug)]
pub(super) struct UdpTransport {
    config: Arc<AnnouncerConfig>,
    sockets: PerFamily<Option<Datagrams>>,
    routes: HashMap<RouteId, UdpRoute>,
    flights: HashMap<u32, Flight>,
    /// Transactions by route: thousands of trackers may fall silent at once, and the packets of each
    /// are withdrawn.
    by_route: BTreeSet<(RouteId, u32)>,
    /// Announces that are not lost yet, in the order sent.
    young: VecDeque<(Time, u32)>,
    /// When to send lost announces and connect requests again.
    deadlines: BTreeSet<(Time, u32)>,
    /// What has not been handled in this turn.
    events: VecDeque<TransportEvent>,
    random: Vec<u8>,
    packet: Vec<u8>,
}

impl UdpTransport {
    /// Opens a socket for each family that has a source.
    ///
    /// # Errors
    /// Those of the sockets, unless the machine lacks the family.
    pub(super) fn new(
        config: Arc<AnnouncerConfig>,
        registry: &Registry,
        tokens: PerFamily<Token>,
    ) -> io::Result<Self> {
        let mut sockets: PerFamily<Option<Datagrams>> = PerFamily::default();
        for family in Family::ALL {
            if let Some(source) = config.sources[family] {
                sockets[family] = Datagrams::open(source, registry, tokens[family])?;
            }
        }
        Ok(Self {
            config,
            sockets,
            routes: HashMap::new(),
            flights: HashMap::new(),
            by_route: BTreeSet::new(),
            young: VecDeque::new(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            random: Vec::new(),
            packet: Vec::new(),
        })
    }

    /// Returns true if there is a socket of that family.
    pub(super) fn has(&self, family: Family) -> bool {
        self.sockets[family].is_some()
    }

    /// The socket of a family is ready.
    pub(super) fn handle_event(&mut self, family: Family, event: &Readiness) {
        let socket = self.sockets[family].as_mut();
        socket
            .expect("only an open socket has events")
            .handle_event(event);
    }

    /// Makes sure that there is room for one announce. Requests a connection id if there is none.
    pub(super) fn reserve(
        &mut self,
        route: RouteId,
        endpoint: &Endpoint<'_>,
        now: Time,
    ) -> Result<(), Full> {
        let state = self.routes.entry(route).or_default();
        if state.connection(now).is_some() {
            let has_room = state.window.has_room();
            return has_room.then_some(()).ok_or(Full::UntilEvent);
        }
        if !std::mem::replace(&mut state.is_connecting, true) {
            let transaction = self.transaction();
            self.packet.clear();
            self.packet
                .extend_from_slice(&udp::connect_request(transaction));
            let deadline = now.after(endpoint.connect_timeout_ms);
            self.deadlines.insert((deadline, transaction));
            self.launch(transaction, route, endpoint, None, now);
        }
        Err(Full::UntilEvent)
    }

    /// Sends an announce, for which there is room.
    pub(super) fn send(
        &mut self,
        route: RouteId,
        endpoint: &Endpoint<'_>,
        request: Request,
        now: Time,
    ) {
        let transaction = self.transaction();
        let state = self.routes.get_mut(&route).expect("room was reserved");
        state.window.sent();
        let connection = state.connection(now).expect("room was reserved");
        let (packet, identity) = (&mut self.packet, &self.config.identity);
        write_announce(packet, identity, connection, transaction, &request);
        self.young.push_back((now, transaction));
        self.launch(transaction, route, endpoint, Some(request), now);
    }

    /// Sends the packet that was written.
    fn launch(
        &mut self,
        transaction: u32,
        route: RouteId,
        endpoint: &Endpoint<'_>,
        request: Option<Request>,
        now: Time,
    ) {
        let address = endpoint.socket_address();
        self.push(transaction, route.family, address);
        self.by_route.insert((route, transaction));
        let flight = Flight {
            route,
            address,
            is_lost: request.is_none(),
            request,
            sent_at: now,
            resends: 0,
        };
        self.flights.insert(transaction, flight);
    }

    fn push(&mut self, transaction: u32, family: Family, address: SocketAddr) {
        let socket = self.sockets[family].as_mut();
        let socket = socket.expect("addresses of a family without a socket are not used");
        socket.push(transaction, address, &self.packet);
    }

    /// An id that is not in use and that nobody can guess.
    fn transaction(&mut self) -> u32 {
        loop {
            if self.random.is_empty() {
                self.random.resize(RANDOM_BYTES, 0);
                sys::fill_random(&mut self.random).expect("Linux has getrandom(2) since 3.17");
            }
            let (rest, bytes) = self.random.split_last_chunk().expect("ids fill it");
            let (rest, transaction) = (rest.len(), u32::from_ne_bytes(*bytes));
            self.random.truncate(rest);
            if !self.flights.contains_key(&transaction) {
                return transaction;
            }
        }
    }

    /// Begins a turn: reads answers. Packets that answer nothing are ignored.
    pub(super) fn begin_turn(&mut self, now: Time) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        for socket in self.sockets.iter_mut().flatten() {
            for _ in 0..PACKETS_PER_TURN {
                let Some((length, from)) = socket.receive(&mut buffer) else {
                    break;
                };
                let (datagram, _) = buffer.split_at(length);
                let Ok((transaction, packet)) = udp::parse(datagram) else {
                    continue;
                };
                let Entry::Occupied(entry) = self.flights.entry(transaction) else {
                    continue;
                };
                if !entry.get().is_answered_by(&packet, from) {
                    continue;
                }
                let flight = entry.remove();
                let route = flight.route;
                self.by_route.remove(&(route, transaction));
                let peers = match (&flight.request, &packet) {
                    (Some(request), Packet::Announced { .. }) if request.wants_peers => {
                        peers::from_packet(datagram, route.family == Family::V6)
                    }
                    _ => Vec::new(),
                };
                let state = self.routes.get_mut(&route).expect(OF_ROUTE);
                let event = state.handle_answer(flight, packet, peers, now);
                self.events.push_back(event);
            }
        }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) {
        let sockets = self.sockets.iter_mut().flatten();
        let unsent: Vec<_> = sockets.flat_map(Datagrams::flush).collect();
        for (transaction, kind) in unsent {
            // It may have been withdrawn since.
            if let Some(flight) = self.forget(transaction) {
                self.events.push_back(TransportEvent::Failed {
                    route: flight.route,
                    blamed: None,
                    returned: flight.request.into_iter().collect(),
                    why: kind.to_string(),
                });
            }
        }
    }

    /// The next thing that has happened in this turn: an answer, or a packet that was not answered.
    pub(super) fn poll_event(&mut self, now: Time) -> Option<TransportEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Some(route) = self.lose(now) {
                return Some(TransportEvent::Room(route));
            }
            // One by one: the first packet that a silent tracker leaves unanswered withdraws the others.
            let &(at, transaction) = self.deadlines.first()?;
            if at > now {
                return None;
            }
            self.deadlines.pop_first();
            let event = self.handle_overdue(transaction, now);
            self.events.extend(event);
        }
    }

    /// How long an announce counts as under way.
    fn lost_ms(&self) -> u64 {
        LOST_MS.min(self.config.limits.resend_ms)
    }

    /// Finds an announce that no longer counts as under way. Returns its route.
    fn lose(&mut self, now: Time) -> Option<RouteId> {
        while let Some(&(at, transaction)) = self.young.front() {
            let lost_at = at.after(self.lost_ms());
            let flight = self.flights.get_mut(&transaction);
            if let Some(flight) = flight.filter(|flight| flight.sent_at == at) {
                if now < lost_at {
                    return None;
                }
                flight.is_lost = true;
                let route = flight.route;
                self.young.pop_front();
                let deadline = at.after(self.config.limits.resend_ms);
                self.deadlines.insert((deadline, transaction));
                let state = self.routes.get_mut(&route).expect(OF_ROUTE);
                state.window.lost(now);
                return Some(route);
            }
            self.young.pop_front();
        }
        None
    }

    /// A packet is to be sent again (BEP 15), unless its tracker answers nothing any more.
    fn handle_overdue(&mut self, transaction: u32, now: Time) -> Option<TransportEvent> {
        let flight = self.flights.get_mut(&transaction)?;
        let route = flight.route;
        let state = self.routes.get(&route).expect(OF_ROUTE);
        let request = flight.request.as_ref();
        let Some(request) = request.filter(|_| state.answered_at > flight.sent_at) else {
            return Some(TransportEvent::Silent(route));
        };
        if flight.resends < MAX_RESENDS
            && let Some(connection) = state.connection(now)
        {
            flight.resends += 1;
            let deadline = now.after(self.config.limits.resend_ms << flight.resends);
            self.deadlines.insert((deadline, transaction));
            let (packet, identity) = (&mut self.packet, &self.config.identity);
            write_announce(packet, identity, connection, transaction, request);
            let address = flight.address;
            self.push(transaction, route.family, address);
            return Some(TransportEvent::Resent(route));
        }
        let is_given_up = flight.resends >= MAX_RESENDS;
        let request = self.forget(transaction)?.request?;
        Some(if is_given_up {
            TransportEvent::Unanswered(request)
        } else {
            // It goes with a new connection id, as a new packet.
            TransportEvent::Again(route, vec![request])
        })
    }

    /// Forgets a packet, and returns it.
    fn forget(&mut self, transaction: u32) -> Option<Flight> {
        let flight = self.flights.remove(&transaction)?;
        self.by_route.remove(&(flight.route, transaction));
        Some(flight)
    }

    /// The tracker is at another address of this family, or has none.
    pub(super) fn disconnect(&mut self, route: RouteId) {
        if let Some(state) = self.routes.get_mut(&route) {
            state.connection = None;
        }
    }

    /// Forgets all that is under way to a tracker, and what is known of it. Returns the announces.
    pub(super) fn abandon(&mut self, route: RouteId) -> Vec<Request> {
        self.routes.remove(&route);
        let all = self.by_route.range((route, 0)..=(route, u32::MAX));
        let transactions: Vec<u32> = all.map(|(_, transaction)| *transaction).collect();
        let withdrawn = transactions.into_iter().filter_map(|id| self.forget(id));
        withdrawn.filter_map(|flight| flight.request).collect()
    }

    /// When there is something to do without an event of a socket. Time 0 is at once.
    pub(super) fn poll_at(&self) -> Option<Time> {
        if self.sockets.iter().flatten().any(Datagrams::is_readable) {
            return Some(Time::default());
        }
        let young = self.young.front();
        let lost = young.map(|(at, _)| at.after(self.lost_ms()));
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        lost.into_iter().chain(deadline).min()
    }

    /// Returns true if nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        debug_assert_eq!(self.by_route.len(), self.flights.len());
        self.flights.is_empty()
    }

    /// Announces that are under way to a tracker, without those that are taken for lost.
    pub(super) fn load(&self, tracker: TrackerId) -> u64 {
        let routes = RouteId::all_of(tracker).map(|route| self.routes.get(&route));
        sum_under_way(routes.into_iter().flatten())
    }

    /// The same for all trackers.
    pub(super) fn in_flight(&self) -> u64 {
        sum_under_way(self.routes.values())
    }
}

fn sum_under_way<'a>(routes: impl Iterator<Item = &'a UdpRoute>) -> u64 {
    routes.map(|route| u64::from(route.window.under_way)).sum()
}

fn write_announce(
    packet: &mut Vec<u8>,
    identity: &Identity,
    connection: u64,
    transaction: u32,
    request: &Request,
) {
    let announce = (&request.announce, request.peers_wanted());
    let path = request.target_path();
    udp::write_announce(packet, connection, transaction, identity, announce, path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_is_used_for_less_than_a_minute() {
        let route = UdpRoute {
            connection: Some((7, Time(1000))),
            ..UdpRoute::default()
        };
        assert_eq!(route.connection(Time(55_999)), Some(7));
        assert_eq!(route.connection(Time(56_000)), None);
    }
}
