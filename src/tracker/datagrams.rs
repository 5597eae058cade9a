//! UDP to trackers (BEP 15): packets in batches, and which of them have been answered.
//!
//! Owns a socket for each family and the table of what is under way. Answers count only from the
//! address that was asked and with its transaction id, which is drawn from the kernel's random
//! bytes. It must not know connection ids, nor whether a tracker is well: it tells what arrived and
//! what did not.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{SockAddr, SockRef};

use super::announce::Request;
use super::family::{Family, PerFamily};
use super::lists::TrackerId;
use super::peers;
use super::udp::{self, Packet};
use crate::net;
use crate::sys::{self, Inbox, MAX_DATAGRAMS};
use crate::timers::Time;

/// A packet unanswered for this long no longer counts as under way: trackers answer within
/// milliseconds, or not at all. It is still sent again only when BEP 15 says so.
const LOST_MS: u64 = 2000;

/// Room for answers that come while the loop does something else: ten thousand. The kernel gives
/// what `rmem_max` allows.
const BUFFER_BYTES: usize = 1 << 20;

/// Batches of answers read in one turn, so that peers are not starved.
const BATCHES_PER_TURN: usize = 16;

/// Random bytes fetched with one call: ids for a batch of packets.
const RANDOM_BYTES: usize = 256;

/// What was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    Connect,
    Announce(Request),
}

/// A packet that has not been answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) tracker: TrackerId,
    pub(super) family: Family,
    pub(super) sent: Sent,
    /// When it was sent first.
    pub(super) at: Time,
    /// How often it was sent again.
    pub(super) tries: u32,
    /// It no longer counts as under way.
    pub(super) lost: bool,
    address: SocketAddr,
}

/// What has happened to a packet.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It was answered, and is forgotten. The answer named these peers.
    Answered(Flight, Packet, Vec<SocketAddr>),
    /// It was not answered within [`LOST_MS`].
    Lost(Flight),
    /// It was not answered when it was to be sent again.
    Overdue(u32, Flight),
    /// The system would not send it, and it is forgotten.
    Unsent(Flight, ErrorKind),
}

#[derive(Debug)]
struct Channel {
    socket: UdpSocket,
    readable: bool,
    writable: bool,
    /// Packets that wait for the end of the turn or for the socket: what they are, where to, and
    /// their bytes in `bytes`.
    waiting: VecDeque<(u32, SockAddr, Range<usize>)>,
    bytes: Vec<u8>,
}

/// Both sockets, and everything under way.
#[derive(Debug)]
pub(super) struct Datagrams {
    channels: PerFamily<Option<Channel>>,
    flights: HashMap<u32, Flight>,
    /// Their transactions by tracker and family: thousands of trackers may fall silent at once, and
    /// each has its own withdrawn.
    by_route: BTreeSet<(TrackerId, Family, u32)>,
    /// What is not lost yet, in the order sent.
    young: VecDeque<(Time, u32)>,
    /// When to send again what is lost, or was a request for a connection.
    deadlines: BTreeSet<(Time, u32)>,
    inbox: Inbox,
    random: Vec<u8>,
    scratch: Vec<u8>,
}

impl Datagrams {
    /// Opens a socket for each family that has a source address, with the token of its number.
    ///
    /// # Errors
    /// Those of the sockets, unless the machine lacks the family.
    pub(super) fn new(
        sources: [Option<IpAddr>; 2],
        registry: &Registry,
        tokens: [Token; 2],
    ) -> io::Result<Self> {
        let mut channels: PerFamily<Option<Channel>> = PerFamily::default();
        for ((channel, source), token) in channels.iter_mut().zip(sources).zip(tokens) {
            let Some(source) = source else { continue };
            match open(source) {
                Ok(mut socket) => {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    registry.register(&mut socket, token, interest)?;
                    *channel = Some(Channel {
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
            scratch: Vec::new(),
        })
    }

    fn channel(&mut self, family: Family) -> Option<&mut Channel> {
        self.channels[family].as_mut()
    }

    /// Whether there is a socket of that family.
    pub(super) fn has(&self, family: Family) -> bool {
        self.channels[family].is_some()
    }

    /// The socket may be read or written again.
    pub(super) fn ready(&mut self, family: Family, readable: bool, writable: bool) {
        if let Some(channel) = self.channel(family) {
            channel.readable |= readable;
            channel.writable |= writable;
        }
    }

    /// Sends a packet with a new transaction id, which is given to `write`. It is to be sent again
    /// at `deadline`.
    pub(super) fn send(
        &mut self,
        (tracker, family): (TrackerId, Family),
        address: SocketAddr,
        sent: Sent,
        (now, deadline): (Time, Time),
        write: impl FnOnce(&mut Vec<u8>, u32),
    ) -> io::Result<()> {
        let transaction = self.transaction()?;
        let flight = Flight {
            tracker,
            family,
            sent,
            at: now,
            tries: 0,
            lost: sent == Sent::Connect,
            address,
        };
        self.flights.insert(transaction, flight);
        self.by_route.insert((tracker, family, transaction));
        if flight.lost {
            self.deadlines.insert((deadline, transaction));
        } else {
            self.young.push_back((now, transaction));
        }
        self.transmit(transaction, write);
        Ok(())
    }

    /// Sends a lost packet again.
    pub(super) fn send_again(
        &mut self,
        transaction: u32,
        deadline: Time,
        write: impl FnOnce(&mut Vec<u8>, u32),
    ) {
        if let Some(flight) = self.flights.get_mut(&transaction) {
            flight.tries += 1;
            self.deadlines.insert((deadline, transaction));
            self.transmit(transaction, write);
        }
    }

    fn transmit(&mut self, transaction: u32, write: impl FnOnce(&mut Vec<u8>, u32)) {
        let Some(&Flight {
            family, address, ..
        }) = self.flights.get(&transaction)
        else {
            return;
        };
        let mut packet = std::mem::take(&mut self.scratch);
        write(&mut packet, transaction);
        if let Some(channel) = self.channel(family) {
            let start = channel.bytes.len();
            channel.bytes.extend_from_slice(&packet);
            let range = start..channel.bytes.len();
            channel
                .waiting
                .push_back((transaction, address.into(), range));
        }
        self.scratch = packet;
    }

    /// An id that is not in use and that nobody can guess.
    fn transaction(&mut self) -> io::Result<u32> {
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

    /// Forgets a packet, and answers what it was.
    pub(super) fn forget(&mut self, transaction: u32) -> Option<Flight> {
        let flight = self.flights.remove(&transaction)?;
        self.by_route
            .remove(&(flight.tracker, flight.family, transaction));
        Some(flight)
    }

    /// Whether a packet is still waited for.
    pub(super) fn waits_for(&self, transaction: u32) -> bool {
        self.flights.contains_key(&transaction)
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        debug_assert_eq!(self.by_route.len(), self.flights.len());
        self.flights.is_empty()
    }

    /// Forgets all that is under way to a tracker, and answers which announces that were.
    pub(super) fn withdraw(&mut self, tracker: TrackerId, family: Family) -> Vec<Request> {
        let all = (tracker, family, 0)..=(tracker, family, u32::MAX);
        let transactions: Vec<u32> = self.by_route.range(all).map(|(_, _, id)| *id).collect();
        let withdrawn = transactions.into_iter().filter_map(|id| self.forget(id));
        withdrawn
            .filter_map(|flight| match flight.sent {
                Sent::Announce(request) => Some(request),
                Sent::Connect => None,
            })
            .collect()
    }

    /// Writes what waits, as far as the sockets take it.
    pub(super) fn flush(&mut self, arrivals: &mut Vec<Arrival>) {
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
                    // The first one cannot be sent: there is no way to its address.
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

    /// Reads answers. What nobody was asked for is passed over.
    pub(super) fn receive(&mut self, arrivals: &mut Vec<Arrival>) {
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
                    let asked = self.flights.get(&transaction);
                    let fits = asked.is_some_and(|flight| {
                        let is_connect = flight.sent == Sent::Connect;
                        flight.address == from
                            && match packet {
                                Packet::Connected { .. } => is_connect,
                                Packet::Announced { .. } => !is_connect,
                                Packet::Failed { .. } => true,
                            }
                    });
                    if fits && let Some(flight) = self.flights.remove(&transaction) {
                        self.by_route
                            .remove(&(flight.tracker, flight.family, transaction));
                        let is_v6 = flight.family == Family::V6;
                        let peers = match packet {
                            Packet::Announced { .. } => peers::from_packet(datagram, is_v6),
                            _ => Vec::new(),
                        };
                        arrivals.push(Arrival::Answered(flight, packet, peers));
                    }
                }
            }
        }
    }

    /// Whether a socket may have more to read.
    pub(super) fn is_readable(&self) -> bool {
        let mut channels = self.channels.iter().flatten();
        channels.any(|channel| channel.readable)
    }

    /// Finds what was not answered. `resend_ms` is when a lost packet is sent again.
    pub(super) fn expire(&mut self, now: Time, resend_ms: u64, arrivals: &mut Vec<Arrival>) {
        while let Some(&(at, transaction)) = self.young.front() {
            let Some(flight) = self
                .flights
                .get_mut(&transaction)
                .filter(|flight| flight.at == at)
            else {
                self.young.pop_front();
                continue;
            };
            if now < at.after(LOST_MS.min(resend_ms)) {
                break;
            }
            self.young.pop_front();
            flight.lost = true;
            self.deadlines.insert((at.after(resend_ms), transaction));
            arrivals.push(Arrival::Lost(*flight));
        }
        while let Some(&(at, transaction)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(&flight) = self.flights.get(&transaction) {
                arrivals.push(Arrival::Overdue(transaction, flight));
            }
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
