//! The announcer's part for UDP trackers (BEP 15): connection ids, windows, retransmission.
//!
//! Owns what an arrival means for a tracker. It must not know sockets.

use std::io::ErrorKind;
use std::net::SocketAddr;

use super::Announcer;
use crate::timers::Time;
use crate::tracker::announce::Request;
use crate::tracker::announce::{Announce, Answer, PEERS_WANTED, Retry};
use crate::tracker::datagrams::{Arrival, Flight, Sent};
use crate::tracker::family::Family;
use crate::tracker::lists::TrackerId;
use crate::tracker::schedule::Outcome;
use crate::tracker::udp::{self, Packet};

/// An announce that was lost this often, while others were answered, is not answered at all.
const MAX_RESENDS: u32 = 3;

impl Announcer {
    /// Whether an announce may be sent. Asks for a connection id where there is none.
    pub(super) fn can_send_packet(&mut self, number: TrackerId, family: Family, now: Time) -> bool {
        let resend_ms = self.config.limits.resend_ms;
        let tracker = &mut self.trackers[number];
        let port = tracker.target.site().port;
        let route = &mut tracker.routes[family];
        if route.connection(now).is_some() {
            return route.window.has_room();
        }
        if let (false, Some(address)) = (route.connecting, route.address()) {
            let deadline = now.after(route.connect_ms(resend_ms));
            let sent = self.datagrams.send(
                (number, family),
                SocketAddr::new(address, port),
                Sent::Connect,
                (now, deadline),
                |out, transaction| {
                    out.clear();
                    out.extend_from_slice(&udp::connect_request(transaction));
                },
            );
            match sent {
                Ok(()) => route.connecting = true,
                Err(error) => self.fail(number, family, None, &error.to_string(), now),
            }
        }
        false
    }

    /// Sends an announce, for which [`Announcer::can_send_packet`] has said that it may be sent.
    pub(super) fn send_packet(
        &mut self,
        number: TrackerId,
        family: Family,
        request: Request,
        now: Time,
    ) {
        let deadline = now.after(self.config.limits.resend_ms);
        let identity = self.config.identity;
        let due = self.schedule.due(request.entry, family);
        let peers_wanted = due.as_ref().map_or(PEERS_WANTED, |due| {
            self.peers_wanted(&due.announce.info_hash)
        });
        let tracker = &mut self.trackers[number];
        let port = tracker.target.site().port;
        let route = &mut tracker.routes[family];
        let (Some(due), Some(connection), Some(address)) =
            (due, route.connection(now), route.address())
        else {
            self.finish(number, family, request, Outcome::Returned, now);
            return;
        };
        let announce = Announce {
            event: request.told,
            ..due.announce
        };
        let announce = (&announce, peers_wanted);
        let sent = self.datagrams.send(
            (number, family),
            SocketAddr::new(address, port),
            Sent::Announce(request),
            (now, deadline),
            |out, transaction| {
                udp::write_announce(out, connection, transaction, &identity, announce, due.path);
            },
        );
        match sent {
            Ok(()) => route.window.sent(),
            Err(error) => self.fail(number, family, Some(request), &error.to_string(), now),
        }
    }

    /// Reads what has come by UDP, and finds what has not.
    pub(super) fn drive_datagrams(&mut self, now: Time) {
        let mut arrivals = Vec::new();
        self.datagrams.receive(&mut arrivals);
        self.datagrams
            .expire(now, self.config.limits.resend_ms, &mut arrivals);
        self.handle_arrivals(arrivals, now);
    }

    pub(super) fn handle_arrivals(&mut self, arrivals: Vec<Arrival>, now: Time) {
        for arrival in arrivals {
            match arrival {
                Arrival::Answered(flight, packet, peers) => {
                    if let Sent::Announce(request) = flight.sent {
                        self.named_peers(flight.tracker, flight.family, request, || peers);
                    }
                    self.packet(&flight, packet, now);
                }
                Arrival::Lost(flight) => {
                    let route = self.route(flight.tracker, flight.family);
                    route.window.lost(now);
                    self.touched.push(flight.tracker);
                }
                Arrival::Overdue(transaction, flight) => self.overdue(transaction, &flight, now),
                Arrival::Unsent(flight, kind) => self.unsent(&flight, kind, now),
            }
        }
    }

    fn packet(&mut self, flight: &Flight, packet: Packet, now: Time) {
        let (number, family) = (flight.tracker, flight.family);
        self.touched.push(number);
        let route = self.route(number, family);
        if flight.tries == 0 {
            route.window.took(now.since(flight.at));
        }
        if !flight.lost {
            route.window.answered();
        }
        match (flight.sent, packet) {
            (Sent::Connect, Packet::Connected { connection, .. }) => {
                route.set_connection(Some(connection), now);
                // It answers; whether it takes announces is another matter, but nobody waits.
                route.answered_at = now;
            }
            (Sent::Connect, packet) => {
                let why = match packet {
                    Packet::Failed { reason, .. } => format!("refuses connections: {reason}"),
                    _ => "sent a response of the wrong type".to_owned(),
                };
                self.fail(number, family, None, &why, now);
            }
            (Sent::Announce(request), Packet::Announced { terms, .. }) => {
                let answer = Answer::Accepted {
                    terms,
                    tracker_id: None,
                    warning: None,
                };
                self.answered(number, family, request, answer, now);
            }
            (Sent::Announce(request), Packet::Failed { reason, .. }) => {
                // An id that is too old is refused in words. A fresh one shows what was meant.
                let about_id = reason.to_ascii_lowercase().contains("connection");
                if about_id && !request.renewed {
                    if route.connection(flight.at).is_some() {
                        route.set_connection(None, now);
                    }
                    route.again.push_back(Request {
                        renewed: true,
                        ..request
                    });
                    return;
                }
                let answer = Answer::Refused {
                    reason,
                    retry: Retry::Unsaid,
                };
                self.answered(number, family, request, answer, now);
            }
            (Sent::Announce(request), Packet::Connected { .. }) => {
                self.finish(number, family, request, Outcome::Failed, now);
            }
        }
    }

    /// A packet is to be sent again (BEP 15), or its tracker answers nothing any more.
    fn overdue(&mut self, transaction: u32, flight: &Flight, now: Time) {
        // The first one that a silent tracker leaves unanswered withdraws the others: they say no more.
        if !self.datagrams.waits_for(transaction) {
            return;
        }
        let (number, family) = (flight.tracker, flight.family);
        let resend_ms = self.config.limits.resend_ms;
        let identity = self.config.identity;
        let peers_wanted = match flight.sent {
            Sent::Announce(request) => {
                let due = self.schedule.due(request.entry, family);
                due.map_or(PEERS_WANTED, |due| {
                    self.peers_wanted(&due.announce.info_hash)
                })
            }
            Sent::Connect => PEERS_WANTED,
        };
        let tracker = &mut self.trackers[number];
        let route = &mut tracker.routes[family];
        let silent = route.answered_at <= flight.at;
        let Sent::Announce(request) = flight.sent else {
            self.silence(number, family, now);
            return;
        };
        if silent {
            self.silence(number, family, now);
            return;
        }
        if flight.tries >= MAX_RESENDS {
            self.datagrams.forget(transaction);
            self.finish(number, family, request, Outcome::Failed, now);
            return;
        }
        let (Some(connection), Some(due)) = (
            route.connection(now),
            self.schedule.due(request.entry, family),
        ) else {
            // It goes with a new connection id, as a new packet.
            self.datagrams.forget(transaction);
            route.again.push_back(request);
            self.touched.push(number);
            return;
        };
        let announce = Announce {
            event: request.told,
            ..due.announce
        };
        let announce = (&announce, peers_wanted);
        self.counters.sent += 1;
        tracker.tally.sent += 1;
        let deadline = now.after(resend_ms << (flight.tries + 1));
        self.datagrams
            .send_again(transaction, deadline, |out, transaction| {
                udp::write_announce(out, connection, transaction, &identity, announce, due.path);
            });
    }

    fn silence(&mut self, number: TrackerId, family: Family, now: Time) {
        let resend_ms = self.config.limits.resend_ms;
        let route = self.route(number, family);
        route.fall_silent(now);
        let waits_s = route.connect_ms(resend_ms) / 1000;
        self.warn_throttled(
            number,
            format_args!("does not answer; retrying, next time-out {waits_s} s"),
            now,
        );
        self.abandon(number, family, None, now);
    }

    fn unsent(&mut self, flight: &Flight, kind: ErrorKind, now: Time) {
        let blamed = match flight.sent {
            Sent::Announce(request) => Some(request),
            Sent::Connect => None,
        };
        if let Some(request) = blamed {
            self.finish(
                flight.tracker,
                flight.family,
                request,
                Outcome::Returned,
                now,
            );
        }
        self.fail(flight.tracker, flight.family, None, &kind.to_string(), now);
    }
}
