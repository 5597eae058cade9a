//! One UDP socket to trackers, and the packets that wait for it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use mio::event::Event as Readiness;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::net;

/// The receive buffer: ten thousand answers may come while the loop does something else. The kernel
/// grants what `rmem_max` allows.
const BUFFER_BYTES: usize = 1 << 20;

/// A socket, and the packets that wait for the end of the turn or for the socket.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    readable: bool,
    writable: bool,
    /// The transaction, destination and bytes of each packet.
    waiting: VecDeque<(u32, SocketAddr, Box<[u8]>)>,
}

impl Datagrams {
    /// Opens a socket with this source address. `None` if the machine lacks the family.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn open(
        source: IpAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Option<Self>> {
        let mut socket = match net::bind_udp(SocketAddr::new(source, 0), true) {
            Err(error) if net::lacks_family(&error) => return Ok(None),
            socket => socket?,
        };
        // If the kernel grants less, bursts lose more packets; nothing else changes.
        let options = SockRef::from(&socket);
        options.set_recv_buffer_size(BUFFER_BYTES).ok();
        options.set_send_buffer_size(BUFFER_BYTES).ok();
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Some(Self {
            socket,
            readable: true,
            writable: true,
            waiting: VecDeque::new(),
        }))
    }

    /// The socket is ready.
    pub(super) fn handle_event(&mut self, event: &Readiness) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Sends a packet with the next [`Self::flush`].
    pub(super) fn push(&mut self, transaction: u32, address: SocketAddr, packet: &[u8]) {
        self.waiting
            .push_back((transaction, address, packet.into()));
    }

    /// Writes what waits, as far as the socket takes it. Returns the transactions of packets that the
    /// system refuses to send, each with the reason.
    pub(super) fn flush(&mut self) -> Vec<(u32, ErrorKind)> {
        let mut unsent = Vec::new();
        while self.writable
            && let Some((transaction, address, packet)) = self.waiting.front()
        {
            match self.socket.send_to(packet, *address) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // There is no route to its address.
                Err(error) => unsent.push((*transaction, error.kind())),
                Ok(_) => {}
            }
            self.waiting.pop_front();
        }
        unsent
    }

    /// Reads a packet into a buffer, and returns its length and its sender. `None` if there is nothing
    /// to read.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        if !self.readable {
            return None;
        }
        match self.socket.recv_from(buffer) {
            Ok(received) => return Some(received),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            // An ICMP error that answers an earlier packet is reported here.
            Err(_) => {}
        }
        None
    }

    /// Returns true if there may be more to read.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }
}
