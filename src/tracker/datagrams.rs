//! One UDP socket to trackers, which sends and receives packets in batches.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd;

use mio::event::Event as Readiness;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{SockAddr, SockRef};

use crate::net;
use crate::sys::{self, Inbox, MAX_DATAGRAMS};

/// The receive buffer: ten thousand answers may come while the loop does something else. The kernel
/// grants what `rmem_max` allows.
const BUFFER_BYTES: usize = 1 << 20;

/// A socket, and the packets that wait for the end of the turn or for the socket.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    readable: bool,
    writable: bool,
    /// The transaction and destination of each packet, and the range of its bytes in `bytes`.
    waiting: VecDeque<(u32, SockAddr, Range<usize>)>,
    bytes: Vec<u8>,
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
            bytes: Vec::new(),
        }))
    }

    /// The socket is ready.
    pub(super) fn handle_event(&mut self, event: &Readiness) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Sends a packet with the next [`Self::flush`].
    pub(super) fn push(&mut self, transaction: u32, address: SocketAddr, packet: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        let range = start..self.bytes.len();
        self.waiting.push_back((transaction, address.into(), range));
    }

    /// Writes what waits, as far as the socket takes it. Returns the transactions of packets that the
    /// system refuses to send, each with the reason.
    pub(super) fn flush(&mut self) -> Vec<(u32, ErrorKind)> {
        let mut unsent = Vec::new();
        while self.writable && !self.waiting.is_empty() {
            let first = self.waiting.iter().take(MAX_DATAGRAMS);
            let batch: Vec<(SockAddr, &[u8])> = first
                .map(|(_, address, range)| {
                    let bytes = self.bytes.get(range.clone());
                    (address.clone(), bytes.expect("a range of the buffer"))
                })
                .collect();
            match sys::send_datagrams(self.socket.as_fd(), &batch) {
                Ok(taken) => drop(self.waiting.drain(..taken)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The first one cannot be sent: there is no route to its address.
                Err(error) => {
                    let first = self.waiting.pop_front();
                    unsent.extend(first.map(|(transaction, ..)| (transaction, error.kind())));
                }
            }
        }
        if self.waiting.is_empty() {
            self.bytes.clear();
        }
        unsent
    }

    /// Reads a batch. Returns false if there was nothing to read.
    pub(super) fn receive(&mut self, inbox: &mut Inbox) -> bool {
        if !self.readable {
            return false;
        }
        match inbox.receive(self.socket.as_fd()) {
            Ok(count) => self.readable = count == MAX_DATAGRAMS,
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            // An ICMP error that answers an earlier packet is reported here.
            Err(_) => {}
        }
        true
    }

    /// Returns true if there may be more to read.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }
}
