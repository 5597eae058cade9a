//! The UDP transport (BEP 15): connection ids, windows, and when packets are sent again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use mio::event::Event as Readiness;
use mio::{Registry, Token};

use super::AnnouncerConfig;
use super::transport::{Endpoint, Full, TransportEvent};
use crate::timers::Time;
use crate::tracker::announce::{Answer, Identity, Retry};
use crate::tracker::datagrams::{Arrival, Datagrams, Flight, Sent};
use crate::tracker::family::{Family, PerFamily};
use crate::tracker::lists::TrackerId;
use crate::tracker::request::{Request, RouteId};
use crate::tracker::udp::{self, Packet};
use crate::tracker::window::Window;

/// An announce that was lost this often, while others were answered, is not answered at all.
const MAX_RESENDS: u32 = 3;

/// A connection id is used for less than its minute, since packets take time (BEP 15).
const CONNECTION_MS: u64 = 55_000;

/// Room for one announce.
#[derive(Clone, Copy, Debug)]
pub(super) struct UdpSlot {
    route: RouteId,
    connection: u64,
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
}

/// Packets to all trackers.
#[derive(Debug)]
pub(super) struct UdpTransport {
    identity: Identity,
    /// A packet is sent again after this time, for the first time (BEP 15).
    resend_ms: u64,
    datagrams: Datagrams,
    routes: HashMap<RouteId, UdpRoute>,
    /// What has not been handled in this turn.
    arrivals: VecDeque<Arrival>,
    packet: Vec<u8>,
}

impl UdpTransport {
    /// Opens a socket for each family that has a source.
    ///
    /// # Errors
    /// Those of the sockets, unless the machine lacks the family.
    pub(super) fn new(
        config: &AnnouncerConfig,
        registry: &Registry,
        tokens: PerFamily<Token>,
    ) -> io::Result<Self> {
        Ok(Self {
            identity: config.identity,
            resend_ms: config.limits.resend_ms,
            datagrams: Datagrams::new(config.sources, registry, tokens)?,
            routes: HashMap::new(),
            arrivals: VecDeque::new(),
            packet: Vec::new(),
        })
    }

    /// Returns true if there is a socket of that family.
    pub(super) fn has(&self, family: Family) -> bool {
        self.datagrams.has(family)
    }

    /// The socket of a family is ready.
    pub(super) fn handle_event(&mut self, family: Family, event: &Readiness) {
        self.datagrams.handle_event(family, event);
    }

    /// Reserves room for one announce. Requests a connection id if there is none.
    pub(super) fn reserve(
        &mut self,
        route: RouteId,
        endpoint: &Endpoint<'_>,
        now: Time,
    ) -> Result<UdpSlot, Full> {
        let state = self.routes.entry(route).or_default();
        if let Some(connection) = state.connection(now) {
            let has_room = state.window.has_room();
            let slot = has_room.then_some(UdpSlot { route, connection });
            return slot.ok_or(Full::UntilEvent);
        }
        if !state.is_connecting {
            let transaction = self.datagrams.transaction();
            let transaction = transaction.map_err(|error| Full::Failed(error.to_string()))?;
            state.is_connecting = true;
            self.packet.clear();
            self.packet
                .extend_from_slice(&udp::connect_request(transaction));
            let flight = Flight::new(route, endpoint.socket_address(), Sent::Connect, now);
            let deadline = now.after(endpoint.connect_timeout_ms);
            self.datagrams
                .send_connect(transaction, flight, deadline, &self.packet);
        }
        Err(Full::UntilEvent)
    }

    /// Sends an announce.
    ///
    /// # Errors
    /// Gives the request back, with the reason, if the system has no random bytes.
    pub(super) fn send(
        &mut self,
        slot: UdpSlot,
        endpoint: &Endpoint<'_>,
        request: Request,
        now: Time,
    ) -> Result<(), (Request, String)> {
        let transaction = match self.datagrams.transaction() {
            Ok(transaction) => transaction,
            Err(error) => return Err((request, error.to_string())),
        };
        write_announce(
            &mut self.packet,
            &self.identity,
            slot.connection,
            transaction,
            &request,
        );
        let sent = Sent::Announce(request);
        let flight = Flight::new(slot.route, endpoint.socket_address(), sent, now);
        self.datagrams
            .send_announce(transaction, flight, &self.packet);
        let state = self.routes.get_mut(&slot.route);
        state.expect("a slot is of a route").window.sent();
        Ok(())
    }

    /// Begins a turn: reads what has come, and finds what is late.
    pub(super) fn begin_turn(&mut self, now: Time) {
        self.datagrams.receive(&mut self.arrivals);
        self.datagrams
            .expire(now, self.resend_ms, &mut self.arrivals);
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) {
        self.datagrams.flush(&mut self.arrivals);
    }

    /// The next thing that has happened in this turn.
    pub(super) fn poll_event(&mut self, now: Time) -> Option<TransportEvent> {
        loop {
            let event = match self.arrivals.pop_front()? {
                Arrival::Answered(flight, packet, peers) => {
                    Some(self.handle_answer(flight, packet, peers, now))
                }
                Arrival::Lost(route) => {
                    self.routes.entry(route).or_default().window.lost(now);
                    Some(TransportEvent::Room(route))
                }
                Arrival::Overdue(transaction) => self.handle_overdue(transaction, now),
                Arrival::Unsent(flight, kind) => Some(TransportEvent::Failed {
                    route: flight.route,
                    blamed: None,
                    returned: flight.into_request().into_iter().collect(),
                    why: kind.to_string(),
                }),
            };
            if event.is_some() {
                return event;
            }
        }
    }

    fn handle_answer(
        &mut self,
        flight: Flight,
        packet: Packet,
        peers: Vec<SocketAddr>,
        now: Time,
    ) -> TransportEvent {
        let route = flight.route;
        let state = self.routes.entry(route).or_default();
        if flight.resends == 0 {
            state.window.took(now.since(flight.sent_at));
        }
        if !flight.is_lost {
            state.window.answered();
        }
        let was_connected = state.connection(flight.sent_at).is_some();
        let mut request = match flight.sent {
            Sent::Announce(request) => request,
            Sent::Connect => {
                let why = match packet {
                    Packet::Connected { connection, .. } => {
                        state.connection = Some((connection, now));
                        state.is_connecting = false;
                        state.answered_at = now;
                        return TransportEvent::Room(route);
                    }
                    Packet::Failed { reason, .. } => format!("refuses connections: {reason}"),
                    Packet::Announced { .. } => "sent a response of the wrong type".to_owned(),
                };
                return TransportEvent::Failed {
                    route,
                    blamed: None,
                    returned: Vec::new(),
                    why,
                };
            }
        };
        let answer = match packet {
            Packet::Connected { .. } => return TransportEvent::Unanswered(request),
            Packet::Announced { terms, .. } => Answer::Accepted {
                terms,
                tracker_id: None,
                warning: None,
            },
            Packet::Failed { reason, .. } => {
                // An id that is too old is refused in words. A fresh one shows what was meant.
                let is_about_id = reason.to_ascii_lowercase().contains("connection");
                if is_about_id && !request.is_renewed {
                    if was_connected {
                        state.connection = None;
                        state.is_connecting = false;
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
        state.answered_at = now;
        TransportEvent::Answered(request, answer, peers)
    }

    /// A packet is to be sent again (BEP 15), unless its tracker answers nothing any more.
    fn handle_overdue(&mut self, transaction: u32, now: Time) -> Option<TransportEvent> {
        // The first packet that a silent tracker leaves unanswered withdraws the others.
        let flight = self.datagrams.flight(transaction)?;
        let route = flight.route;
        let state = self.routes.entry(route).or_default();
        let Sent::Announce(request) = &flight.sent else {
            return Some(TransportEvent::Silent(route));
        };
        if state.answered_at <= flight.sent_at {
            return Some(TransportEvent::Silent(route));
        }
        let is_given_up = flight.resends >= MAX_RESENDS;
        if !is_given_up && let Some(connection) = state.connection(now) {
            write_announce(
                &mut self.packet,
                &self.identity,
                connection,
                transaction,
                request,
            );
            let deadline = now.after(self.resend_ms << (flight.resends + 1));
            self.datagrams
                .send_again(transaction, deadline, &self.packet);
            return Some(TransportEvent::Resent(route));
        }
        let request = self.datagrams.forget(transaction)?.into_request()?;
        Some(if is_given_up {
            TransportEvent::Unanswered(request)
        } else {
            // It goes with a new connection id, as a new packet.
            TransportEvent::Again(route, vec![request])
        })
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
        self.datagrams.withdraw(route)
    }

    /// When there is something to do without an event of a socket. Time 0 is at once.
    pub(super) fn poll_at(&self) -> Option<Time> {
        if self.datagrams.is_readable() {
            Some(Time::default())
        } else {
            self.datagrams.poll_at(self.resend_ms)
        }
    }

    /// Returns true if nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.datagrams.is_idle()
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
