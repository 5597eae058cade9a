//! The listening sockets: TCP for peers, UDP only to refuse uTP.
//!
//! Owns binding and socket options. It must not know what is said over a connection.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream, UdpSocket};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::{Families, NetworkConfig};
use crate::net::{bind_udp, lacks_family};
use crate::sys;
use crate::wire::utp;

/// Connections that the kernel holds for us between two turns: a flash crowd arrives in
/// milliseconds, and a full backlog costs a peer a second or more. The kernel caps it at `somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// Bytes that may wait unsent in one socket. An unread socket belongs to the kernel's memory, not
/// ours: without a bound, 20,000 peers that do not read would pin gigabytes. It is the size of
/// the deepest vectored write, so that a socket that has drained takes a whole one.
const NOT_SENT_LOW_WATER_BYTES: u32 = 256 * 1024;

/// The same for connections beyond [`DEEP_CONNECTIONS`]: among so many, deep writes gain nothing.
const CROWD_LOW_WATER_BYTES: u32 = 64 * 1024;

/// Connections that get the deep bound: as many as cost 370 MB at most when none of them reads.
const DEEP_CONNECTIONS: usize = 1024;

/// uTP datagrams looked at in one turn: enough for a crowd, too few to starve the peers of TCP.
const DATAGRAMS_PER_TURN: usize = 64;

/// Why listening could not begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// A TCP listener, and the UDP socket of the same address if it could be had.
pub(super) struct Listener {
    pub(super) tcp: TcpListener,
    pub(super) udp: Option<UdpSocket>,
    pub(super) address: SocketAddr,
    /// More connections may be waiting: a latch that only `WouldBlock` clears.
    pub(super) readable: bool,
    /// The same for datagrams.
    pub(super) utp_readable: bool,
}

/// An address that is taken. Unless a service manager has opened it, whoever connects is refused
/// until it is listened on.
pub(super) struct Bound {
    socket: Socket,
    udp: Option<UdpSocket>,
    pub(super) address: SocketAddr,
}

/// Binds every address that the configuration names.
///
/// With neither `--bind` nor `-6`, a machine without IPv6 is served over IPv4 alone.
pub(super) fn bind_all(config: &NetworkConfig) -> Result<Vec<Bound>, ListenError> {
    let mut bound_all: Vec<Bound> = Vec::new();
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

impl Bound {
    fn new(socket: Socket, address: SocketAddr) -> Self {
        // One that was passed may be for both families, and then uTP comes by both.
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
    pub(super) fn listen(self) -> Result<Listener, ListenError> {
        let Self {
            socket,
            udp,
            address,
        } = self;
        // As for binding, and so that those who are accepted leave nothing that the next run has to wait
        // for. Nobody else can have listened meanwhile.
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

fn bind(address: SocketAddr) -> io::Result<Bound> {
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
    // What others may share with us, they may listen on before we do. See `Bound::listen`.
    socket.set_reuse_address(false)?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound::new(socket, address))
}

/// Takes over sockets that listen already.
pub(super) fn adopt_all(sockets: Vec<Socket>) -> io::Result<Vec<Bound>> {
    let adopt = |socket: Socket| {
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or(ErrorKind::AddrNotAvailable)?;
        Ok(Bound::new(socket, address))
    };
    sockets.into_iter().map(adopt).collect()
}

/// What `accept` answered.
pub(super) enum Accepted {
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
    pub(super) fn accept(&mut self) -> Accepted {
        match self.tcp.accept() {
            // By a socket of both families, IPv4 comes as a part of IPv6.
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

    /// Answers uTP connection requests with a reset, so that their senders turn to TCP at once.
    pub(super) fn refuse_utp(&mut self) {
        let Some(udp) = self.udp.as_ref().filter(|_| self.utp_readable) else {
            return;
        };
        let mut datagram = [0; 64];
        for _ in 0..DATAGRAMS_PER_TURN {
            match udp.recv_from(&mut datagram) {
                Ok((length, from)) => {
                    let received = datagram.get(..length).unwrap_or_default();
                    if let Some(reset) = utp::reset_for(received) {
                        // A lost answer costs its sender only the wait it would have had anyway.
                        udp.send_to(&reset, from).ok();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.utp_readable = false;
                    return;
                }
                // An ICMP error that answers an earlier reset is reported here.
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

/// Sets what an accepted connection needs. Failures are harmless and leave the kernel's defaults.
/// `connected` counts those that are there already.
pub(super) fn prepare(stream: &TcpStream, connected: usize) {
    let socket = SockRef::from(stream);
    // Messages leave in full batches; waiting for more only delays the last block of one.
    socket.set_tcp_nodelay(true).ok();
    // A peer that vanished without a word is found by the kernel.
    socket.set_keepalive(true).ok();
    let low_water_bytes = match connected < DEEP_CONNECTIONS {
        true => NOT_SENT_LOW_WATER_BYTES,
        false => CROWD_LOW_WATER_BYTES,
    };
    sys::set_not_sent_low_water(stream, low_water_bytes).ok();
}
