//! Non-blocking sockets, as every part of the program opens them.

pub mod changes;

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::{TcpStream, UdpSocket};
use socket2::{Domain, Protocol, Socket, Type};

/// Starts to connect to `address` from `source` (any address of that family if unspecified). The
/// socket becomes writable when it is connected.
///
/// # Errors
/// Those of socket(2), bind(2) and connect(2), except `EINPROGRESS`.
pub fn connect(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    if !source.is_unspecified() {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Binds a UDP socket. `only_v6` keeps an IPv6 socket from receiving IPv4 too.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and bind(2).
pub fn bind_udp(address: SocketAddr, only_v6: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// Returns true if an error of socket(2) or bind(2) means that the machine has no address of that
/// family.
#[must_use]
pub fn lacks_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}
