//! The listening sockets, TCP for peers and UDP only to refuse uTP, and the pace of accepting.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::RunError;
use super::tokens::Source;
use crate::config::{Families, NetworkConfig};
use crate::net::{bind_udp, lacks_family};
use crate::timers::Time;
use crate::wire::utp;

/// Connections that the kernel queues between two turns. A flash crowd arrives in milliseconds, and a
/// full backlog costs a peer a second or more. The kernel caps it at `somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// Bytes that may wait unsent in one socket. They are in the kernel's memory: without a bound, 20,000
/// peers that do not read would pin gigabytes. This is the size of the largest vectored write, so
/// that a socket that has drained takes a whole one.
const NOT_SENT_LOW_WATER_BYTES: u32 = 256 * 1024;

/// The same for connections beyond [`DEEP_CONNECTIONS`], where large writes gain nothing.
const CROWD_LOW_WATER_BYTES: u32 = 64 * 1024;

/// Connections that get the larger bound. They cost 370 MB at most, when none of them reads.
const DEEP_CONNECTIONS: usize = 1024;

/// The kernel's buffer for what a peer sends and we have not read, which it doubles for its own needs. A full
/// queue of requests fits, and carries a gigabit a second over 250 ms. Left to itself, the kernel grows it
/// to megabytes for each peer that floods us.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

/// Connections accepted from one listener in one turn: about a millisecond, so that a flash crowd does not
/// starve the peers that are connected.
const ACCEPTS_PER_TURN: usize = 64;

/// How long accepting pauses when descriptors or memory have run out.
const ACCEPT_PAUSE_MS: u64 = 100;

/// The least time between two log lines about it, since it may last for days.
const ACCEPT_PAUSE_LOG_MS: u64 = 60_000;

/// uTP datagrams answered in one turn: enough for a crowd, too few to starve TCP peers.
const DATAGRAMS_PER_TURN: usize = 64;

/// Why listening could not begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// The listening sockets of a loop. Without any, nothing is accepted.
#[derive(Default)]
pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    /// Accepting pauses until then, after descriptors ran out.
    paused_until: Option<Time>,
    /// When the log last mentioned it.
    pause_logged: Option<Time>,
}

impl Acceptor {
    /// Begins to listen, and logs a line for each address.
    pub(super) fn listen(
        &mut self,
        addresses: Vec<BoundAddress>,
        registry: &Registry,
    ) -> Result<(), RunError> {
        for (index, address) in addresses.into_iter().enumerate() {
            let mut listener = address.listen()?;
            let token = Source::Listener(index).token();
            registry.register(&mut listener.tcp, token, Interest::READABLE)?;
            if let Some(udp) = &mut listener.udp {
                registry.register(udp, Source::Utp(index).token(), Interest::READABLE)?;
            }
            log::info!("listening on {}", listener.address);
            self.listeners.push(listener);
        }
        Ok(())
    }

    /// Closes the sockets: the kernel then refuses connections, and peers go elsewhere at once.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
    }

    /// The addresses that are listened on.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let all = self.listeners.iter();
        all.map(|listener| listener.address).collect()
    }

    /// Connections may wait at this listener. After [`Acceptor::close`] there may be events left.
    pub(super) fn listener_ready(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.readable = true;
        }
    }

    /// Datagrams may wait at this listener.
    pub(super) fn utp_ready(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.utp_readable = true;
        }
    }

    /// When [`Acceptor::accept`] or [`Acceptor::refuse_utp`] has work: `now`, or when a pause ends.
    pub(super) fn poll_at(&self, now: Time) -> Option<Time> {
        let is_paused = self.paused_until.is_some();
        let is_ready =
            |listener: &Listener| listener.utp_readable || (listener.readable && !is_paused);
        match self.listeners.iter().any(is_ready) {
            true => Some(now),
            false => self.paused_until,
        }
    }

    /// Hands connections to `admit`, as many as a turn may take. Out of descriptors, it leaves them
    /// in the backlog for a moment.
    pub(super) fn accept(&mut self, now: Time, mut admit: impl FnMut(TcpStream, IpAddr)) {
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        for listener in &mut self.listeners {
            for _ in 0..ACCEPTS_PER_TURN {
                if !listener.readable {
                    break;
                }
                match listener.accept() {
                    Accepted::Peer(stream, address) => admit(stream, address),
                    Accepted::Gone => {}
                    Accepted::Drained => break,
                    Accepted::Exhausted(error) => {
                        self.pause(&error, now);
                        return;
                    }
                }
            }
        }
    }

    fn pause(&mut self, error: &io::Error, now: Time) {
        self.paused_until = Some(now.after(ACCEPT_PAUSE_MS));
        let logged = self.pause_logged;
        if logged.is_none_or(|logged| now.since(logged) >= ACCEPT_PAUSE_LOG_MS) {
            self.pause_logged = Some(now);
            log::warn!("accepting paused: {error}");
        }
    }

    /// Answers uTP connection requests. It needs no descriptors, so it does not pause.
    pub(super) fn refuse_utp(&mut self) {
        for listener in &mut self.listeners {
            listener.refuse_utp();
        }
    }
}

/// A TCP listener, and the UDP socket of the same address if it could be had.
struct Listener {
    tcp: TcpListener,
    udp: Option<UdpSocket>,
    address: SocketAddr,
    /// More connections may be waiting: a latch that only `WouldBlock` clears.
    readable: bool,
    /// The same for datagrams.
    utp_readable: bool,
}

/// An address that is bound. Connections are refused until it is listened on, unless a service manager
/// has opened it.
pub(super) struct BoundAddress {
    socket: Socket,
    udp: Option<UdpSocket>,
    pub(super) address: SocketAddr,
}

/// Binds every address that the configuration names.
///
/// With neither `--bind` nor `-6`, a machine without IPv6 is served over IPv4 only.
pub(super) fn bind_all(config: &NetworkConfig) -> Result<Vec<BoundAddress>, ListenError> {
    let mut bound_all: Vec<BoundAddress> = Vec::new();
    let mut port = config.port;
    let mut seen = HashSet::new();
    for (address, optional) in addresses(config) {
        if !seen.insert(address) {
            continue;
        }
        let address = SocketAddr::new(address, port);
        match bind(address) {
            Ok(bound) => {
                // A port taken from the system is the same for every address.
                port = bound.address.port();
                bound_all.push(bound);
            }
            Err(source) if optional && lacks_family(&source) => {
                log::info!("this machine has no IPv6: {source}");
            }
            Err(source) => return Err(ListenError { address, source }),
        }
    }
    Ok(bound_all)
}

impl BoundAddress {
    fn new(socket: Socket, address: SocketAddr) -> Self {
        // A passed socket may be for both families, and then uTP comes by both.
        let is_for_both = address.is_ipv6() && socket.only_v6().is_ok_and(|only_v6| !only_v6);
        let udp = bind_udp(address, !is_for_both)
            .inspect_err(|error| log::debug!("uTP is not refused on {address}: {error}"))
            .ok();
        Self {
            socket,
            udp,
            address,
        }
    }

    /// Begins to listen.
    fn listen(self) -> Result<Listener, ListenError> {
        let Self {
            socket,
            udp,
            address,
        } = self;
        // Accepted connections inherit it, so that the next run can bind while they are in TIME_WAIT.
        // No other process can have listened meanwhile.
        let listens = socket.set_reuse_address(true);
        match listens.and_then(|()| socket.listen(BACKLOG)) {
            Ok(()) => Ok(Listener {
                tcp: TcpListener::from_std(socket.into()),
                udp,
                address,
                readable: true,
                utp_readable: false,
            }),
            Err(source) => Err(ListenError { address, source }),
        }
    }
}

/// The addresses to bind, and whether the machine may lack their family.
fn addresses(config: &NetworkConfig) -> Vec<(IpAddr, bool)> {
    let served = |address: &IpAddr| match config.families {
        Families::Both => true,
        Families::V4 => address.is_ipv4(),
        Families::V6 => address.is_ipv6(),
    };
    let every = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    if config.bind.is_empty() {
        let optional = |address: &IpAddr| config.families == Families::Both && address.is_ipv6();
        let families = every.into_iter().filter(|address| served(address));
        families
            .map(|address| (address, optional(&address)))
            .collect()
    } else {
        let named = config
            .bind
            .iter()
            .copied()
            .filter(|address| served(address));
        named.map(|address| (address, false)).collect()
    }
}

fn bind(address: SocketAddr) -> io::Result<BoundAddress> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Another process could listen first on an address that is shared: see `BoundAddress::listen`.
    socket.set_reuse_address(false)?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(BoundAddress::new(socket, address))
}

/// Takes over sockets that a service manager has opened.
pub(super) fn adopt_all(sockets: Vec<Socket>) -> io::Result<Vec<BoundAddress>> {
    let adopt = |socket: Socket| {
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or(ErrorKind::AddrNotAvailable)?;
        Ok(BoundAddress::new(socket, address))
    };
    sockets.into_iter().map(adopt).collect()
}

/// The outcome of one accept(2).
enum Accepted {
    /// A connection.
    Peer(TcpStream, IpAddr),
    /// This one failed before it began; others may wait.
    Gone,
    /// No more for now.
    Drained,
    /// No descriptor or memory is left: try again later, the connection stays in the backlog.
    Exhausted(io::Error),
}

impl Listener {
    /// Takes one waiting connection.
    fn accept(&mut self) -> Accepted {
        match self.tcp.accept() {
            // A socket of both families reports IPv4 addresses as mapped IPv6 addresses.
            Ok((stream, address)) => Accepted::Peer(stream, address.ip().to_canonical()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Accepted::Drained
            }
            Err(error) if is_exhaustion(&error) => Accepted::Exhausted(error),
            // accept(2): errors of the connection itself are reported here and are not ours.
            Err(_) => Accepted::Gone,
        }
    }

    /// Answers uTP connection requests with a reset, so that their senders try TCP at once.
    fn refuse_utp(&mut self) {
        let Some(udp) = self.udp.as_ref().filter(|_| self.utp_readable) else {
            return;
        };
        let mut datagram = [0; 64];
        for _ in 0..DATAGRAMS_PER_TURN {
            match udp.recv_from(&mut datagram) {
                Ok((length, from)) => {
                    let received = datagram.get(..length);
                    let received = received.expect("the kernel fills no more than it is given");
                    if let Some(reset) = utp::reset_for(received) {
                        // Without the answer, the sender times out as it would with no listener.
                        udp.send_to(&reset, from).ok();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.utp_readable = false;
                    return;
                }
                // ICMP errors in answer to earlier resets are reported here.
                Err(_) => {}
            }
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Sets the socket options of a connection. Failures are harmless and leave the kernel's defaults.
/// `connected` is the number of connections before this one.
pub(super) fn prepare(stream: &TcpStream, connected: usize) {
    let socket = SockRef::from(stream);
    // Messages leave in full batches; waiting for more only delays the last block of one.
    socket.set_tcp_nodelay(true).ok();
    // The kernel finds peers that vanished silently.
    socket.set_keepalive(true).ok();
    let low_water_bytes = match connected < DEEP_CONNECTIONS {
        true => NOT_SENT_LOW_WATER_BYTES,
        false => CROWD_LOW_WATER_BYTES,
    };
    // Unread socket buffers belong to the kernel, and thousands of slow peers fill them.
    socket.set_tcp_notsent_lowat(low_water_bytes).ok();
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_in_a_crowd_holds_fewer_unsent_bytes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for (connected, bytes) in [
            (0, NOT_SENT_LOW_WATER_BYTES),
            (DEEP_CONNECTIONS, CROWD_LOW_WATER_BYTES),
        ] {
            prepare(&stream, connected);
            assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), bytes);
        }
    }

    #[test]
    fn the_kernel_holds_little_of_what_is_not_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        prepare(&stream, 0);
        let held_bytes = SockRef::from(&stream).recv_buffer_size().unwrap();
        assert_eq!(held_bytes, 2 * RECEIVE_BUFFER_BYTES);
    }
}
