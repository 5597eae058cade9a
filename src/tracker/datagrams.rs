//! UDP to trackers (BEP 15): packets in batches, and which of them have been answered.
//!
//! An answer counts only if it comes from the address that was asked and has its transaction id, which
//! is drawn from the kernel's random bytes.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd;

use mio::event::Event as Readiness;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{SockAddr, SockRef};

use super::family::{Family, PerFamily};
use super::peers;
use super::request::{Request, RouteId};
use super::udp::{self, Packet};
use crate::net;
use crate::sys::{self, Inbox, MAX_DATAGRAMS};
use crate::timers::Time;

/// A packet unanswered for this long no longer counts as under way: trackers answer within
/// milliseconds, or not at all. It is still sent again only when BEP 15 says so.
const LOST_MS: u64 = 2000;

/// The receive buffer: ten thousand answers may come while the loop does something else. The kernel
/// grants what `rmem_max` allows.
const BUFFER_BYTES: usize = 1 << 20;

/// Batches of answers read from one socket in one turn, so that peers are not starved.
const BATCHES_PER_TURN: usize = 16;

/// Random bytes fetched with one call: ids for a batch of packets.
const RANDOM_BYTES: usize = 256;

/// What was sent.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Sent {
    Connect,
    Announce(Request),
}

/// A packet that has not been answered.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) route: RouteId,
    pub(super) sent: Sent,
    /// When it was sent first.
    pub(super) sent_at: Time,
    /// How often it was sent again.
    pub(super) resends: u32,
    /// It no longer counts as under way.
    pub(super) is_lost: bool,
    address: SocketAddr,
}

impl Flight {
    pub(super) fn new(route: RouteId, address: SocketAddr, sent: Sent, now: Time) -> Self {
        Self {
            route,
            sent_at: now,
            resends: 0,
            is_lost: sent == Sent::Connect,
            sent,
            address,
        }
    }

    /// The announce, if it was one.
    pub(super) fn into_request(self) -> Option<Request> {
        match self.sent {
            Sent::Announce(request) => Some(request),
            Sent::Connect => None,
        }
    }

    /// Returns true if a packet from this address answers it.
    fn is_answered_by(&self, packet: &Packet, from: SocketAddr) -> bool {
        let is_connect = self.sent == Sent::Connect;
        self.address == from
            && match packet {
                Packet::Connected { .. } => is_connect,
                Packet::Announced { .. } => !is_connect,
                Packet::Failed { .. } => true,
            }
    }
}

/// What has happened to a packet.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It was answered, and is forgotten. The answer named these peers.
    Answered(Flight, Packet, Vec<SocketAddr>),
    /// A packet of this route was not answered within [`LOST_MS`].
    Lost(RouteId),
    /// The packet of this transaction was not answered when it was to be sent again.
    Overdue(u32),
    /// The system would not send it, and it is forgotten.
    Unsent(Flight, ErrorKind),
}

#[derive(Debug)]
struct Channel {
    socket: UdpSocket,
    readable: bool,
    writable: bool,
    /// Packets that wait for the end of the turn or for the socket: transaction, destination, and the
    /// range of their bytes in `bytes`.
    waiting: VecDeque<(u32, SockAddr, Range<usize>)>,
    bytes: Vec<u8>,
}

/// Both sockets, and everything under way.
#[derive(Debug)]
pub(super) struct Datagrams {
    channels: PerFamily<Option<Channel>>,
    flights: HashMap<u32, Flight>,
    /// Transactions by route: thousands of trackers may fall silent at once, and the packets of each
    /// are withdrawn.
    by_route: BTreeSet<(RouteId, u32)>,
    /// Announces that are not lost yet, in the order sent.
    young: VecDeque<(Time, u32)>,
    /// When to send lost announces and connect requests again.
    deadlines: BTreeSet<(Time, u32)>,
    inbox: Inbox,
    random: Vec<u8>,
}

impl Datagrams {
    /// Opens a socket for each family that has a source address.
    ///
    /// # Errors
    /// Those of the sockets, unless the machine lacks the family.
    pub(super) fn new(
        sources: PerFamily<Option<IpAddr>>,
        registry: &Registry,
        tokens: PerFamily<Token>,
    ) -> io::Result<Self> {
        let mut channels: PerFamily<Option<Channel>> = PerFamily::default();
        for family in Family::ALL {
            let Some(source) = sources[family] else {
                continue;
            };
            match open(source) {
                Ok(mut socket) => {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    registry.register(&mut socket, tokens[family], interest)?;
                    channels[family] = Some(Channel {
                        socket,
                        readable: true,
                        writable: true,
                        waiting: VecDeque::new(),
                        bytes: Vec::new(),
                    });
                }
                Err(error) if net::lacks_family(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            channels,
            flights: HashMap::new(),
            by_route: BTreeSet::new(),
            young: VecDeque::new(),
            deadlines: BTreeSet::new(),
            inbox: Inbox::default(),
            random: Vec::new(),
        })
    }

    /// Returns true if there is a socket of that family.
    pub(super) fn has(&self, family: Family) -> bool {
        self.channels[family].is_some()
    }

    /// The socket of a family is ready.
    pub(super) fn handle_event(&mut self, family: Family, event: &Readiness) {
        if let Some(channel) = &mut self.channels[family] {
            channel.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            channel.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        }
    }

    /// Sends a connect request, which is overdue at `deadline`.
    pub(super) fn send_connect(
        &mut self,
        transaction: u32,
        flight: Flight,
        deadline: Time,
        packet: &[u8],
    ) {
        self.deadlines.insert((deadline, transaction));
        self.send(transaction, flight, packet);
    }

    /// Sends an announce, which is lost after [`LOST_MS`].
    pub(super) fn send_announce(&mut self, transaction: u32, flight: Flight, packet: &[u8]) {
        self.young.push_back((flight.sent_at, transaction));
        self.send(transaction, flight, packet);
    }

    fn send(&mut self, transaction: u32, flight: Flight, packet: &[u8]) {
        self.enqueue(transaction, flight.route.family, flight.address, packet);
        self.by_route.insert((flight.route, transaction));
        self.flights.insert(transaction, flight);
    }

    /// Sends a lost packet again, which is overdue at `deadline`.
    pub(super) fn send_again(&mut self, transaction: u32, deadline: Time, packet: &[u8]) {
        let flight = self.flights.get_mut(&transaction);
        let flight = flight.expect("a packet that is sent again is in flight");
        flight.resends += 1;
        let (family, address) = (flight.route.family, flight.address);
        self.deadlines.insert((deadline, transaction));
        self.enqueue(transaction, family, address, packet);
    }

    fn enqueue(&mut self, transaction: u32, family: Family, address: SocketAddr, packet: &[u8]) {
        let channel = self.channels[family].as_mut();
        let channel = channel.expect("addresses of a family without a socket are not used");
        let start = channel.bytes.len();
        channel.bytes.extend_from_slice(packet);
        let range = start..channel.bytes.len();
        channel
            .waiting
            .push_back((transaction, address.into(), range));
    }

    /// An id that is not in use and that nobody can guess.
    ///
    /// # Errors
    /// Those of getrandom(2).
    pub(super) fn transaction(&mut self) -> io::Result<u32> {
        loop {
            if let Some(at) = self.random.len().checked_sub(size_of::<u32>())
                && let Some(bytes) = self.random.get(at..).and_then(<[u8]>::first_chunk)
            {
                let transaction = u32::from_ne_bytes(*bytes);
                self.random.truncate(at);
                if !self.flights.contains_key(&transaction) {
                    return Ok(transaction);
                }
            } else {
                self.random.resize(RANDOM_BYTES, 0);
                sys::fill_random(&mut self.random)?;
            }
        }
    }

    /// A packet that has not been answered.
    pub(super) fn flight(&self, transaction: u32) -> Option<&Flight> {
        self.flights.get(&transaction)
    }

    /// Forgets a packet, and returns it.
    pub(super) fn forget(&mut self, transaction: u32) -> Option<Flight> {
        let flight = self.flights.remove(&transaction)?;
        self.by_route.remove(&(flight.route, transaction));
        Some(flight)
    }

    /// Returns true if nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        debug_assert_eq!(self.by_route.len(), self.flights.len());
        self.flights.is_empty()
    }

    /// Forgets all that is under way on a route, and returns the announces.
    pub(super) fn withdraw(&mut self, route: RouteId) -> Vec<Request> {
        let all = self.by_route.range((route, 0)..=(route, u32::MAX));
        let transactions: Vec<u32> = all.map(|(_, transaction)| *transaction).collect();
        let withdrawn = transactions.into_iter().filter_map(|id| self.forget(id));
        withdrawn.filter_map(Flight::into_request).collect()
    }

    /// Writes what waits, as far as the sockets take it.
    pub(super) fn flush(&mut self, arrivals: &mut VecDeque<Arrival>) {
        let mut unsent = Vec::new();
        for channel in self.channels.iter_mut().flatten() {
            while channel.writable && !channel.waiting.is_empty() {
                let batch: Vec<(SockAddr, &[u8])> = channel
                    .waiting
                    .iter()
                    .take(MAX_DATAGRAMS)
                    .map(|(_, address, range)| {
                        let bytes = channel.bytes.get(range.clone()).unwrap_or_default();
                        (address.clone(), bytes)
                    })
                    .collect();
                match sys::send_datagrams(channel.socket.as_fd(), &batch) {
                    Ok(taken) => {
                        channel.waiting.drain(..taken.min(channel.waiting.len()));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        channel.writable = false;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The first one cannot be sent: there is no route to its address.
                    Err(error) => {
                        let first = channel.waiting.pop_front();
                        unsent.extend(first.map(|(transaction, ..)| (transaction, error.kind())));
                    }
                }
            }
            if channel.waiting.is_empty() {
                channel.bytes.clear();
            }
        }
        for (transaction, kind) in unsent {
            let flight = self.forget(transaction);
            arrivals.extend(flight.map(|flight| Arrival::Unsent(flight, kind)));
        }
    }

    /// Reads answers. Packets that answer nothing are ignored.
    pub(super) fn receive(&mut self, arrivals: &mut VecDeque<Arrival>) {
        for channel in self.channels.iter_mut().flatten() {
            for _ in 0..BATCHES_PER_TURN {
                if !channel.readable {
                    break;
                }
                match self.inbox.receive(channel.socket.as_fd()) {
                    Ok(count) => channel.readable = count == MAX_DATAGRAMS,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        channel.readable = false;
                    }
                    // An ICMP error that answers an earlier packet is reported here.
                    Err(_) => {}
                }
                for (from, datagram) in self.inbox.iter() {
                    let Ok(packet) = udp::parse(datagram) else {
                        continue;
                    };
                    let transaction = packet.transaction();
                    let Entry::Occupied(entry) = self.flights.entry(transaction) else {
                        continue;
                    };
                    if !entry.get().is_answered_by(&packet, from) {
                        continue;
                    }
                    let flight = entry.remove();
                    self.by_route.remove(&(flight.route, transaction));
                    let is_v6 = flight.route.family == Family::V6;
                    let peers = match (&flight.sent, &packet) {
                        (Sent::Announce(request), Packet::Announced { .. })
                            if request.wants_peers =>
                        {
                            peers::from_packet(datagram, is_v6)
                        }
                        _ => Vec::new(),
                    };
                    arrivals.push_back(Arrival::Answered(flight, packet, peers));
                }
            }
        }
    }

    /// Returns true if a socket may have more to read.
    pub(super) fn is_readable(&self) -> bool {
        let mut channels = self.channels.iter().flatten();
        channels.any(|channel| channel.readable)
    }

    /// Finds packets that were not answered. `resend_ms` is when a lost announce is sent again.
    pub(super) fn expire(&mut self, now: Time, resend_ms: u64, arrivals: &mut VecDeque<Arrival>) {
        while let Some(&(at, transaction)) = self.young.front() {
            let flight = self.flights.get_mut(&transaction);
            let Some(flight) = flight.filter(|flight| flight.sent_at == at) else {
                self.young.pop_front();
                continue;
            };
            if now < at.after(LOST_MS.min(resend_ms)) {
                break;
            }
            self.young.pop_front();
            flight.is_lost = true;
            self.deadlines.insert((at.after(resend_ms), transaction));
            arrivals.push_back(Arrival::Lost(flight.route));
        }
        while let Some(&(at, transaction)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            arrivals.push_back(Arrival::Overdue(transaction));
        }
    }

    /// When [`Datagrams::expire`] has something to do.
    pub(super) fn poll_at(&self, resend_ms: u64) -> Option<Time> {
        let lost = self
            .young
            .front()
            .map(|(at, _)| at.after(LOST_MS.min(resend_ms)));
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        lost.into_iter().chain(deadline).min()
    }
}

fn open(source: IpAddr) -> io::Result<UdpSocket> {
    let socket = net::bind_udp(SocketAddr::new(source, 0), true)?;
    // If the kernel grants less, bursts lose more packets; nothing else changes.
    let options = SockRef::from(&socket);
    options.set_recv_buffer_size(BUFFER_BYTES).ok();
    options.set_send_buffer_size(BUFFER_BYTES).ok();
    Ok(socket)
}
