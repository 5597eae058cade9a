//! A connection's transport: how received bytes come in and how an [`Outbox`] goes out.
//!
//! Owns the socket and its readiness. [`Session`](crate::peer::session::Session) decodes the bytes
//! that [`Transport::receive`] puts into the shared buffer, and `stage` fills the outbox; neither
//! knows what carries the bytes. TCP is the only carrier. Others belong here:
//!
//! - MSE: the first 20 bytes are compared with the protocol name before the session gets any. If they
//!   differ, the key exchange consumes bytes in [`Transport::receive`] until the plain stream begins.
//! - RC4: [`Transport::receive`] deciphers the shared buffer in place. [`Transport::send`] may not read
//!   mapped ranges, so it copies the outbox through a worker and keeps the bytes that the socket did
//!   not take.
//! - uTP: the stream becomes one of two carriers. [`Transport::send`] takes header, slice, header,
//!   slice from the same outbox for segments, and readiness comes from the window and not from epoll.

use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;

use mio::event::Event;
use mio::net::TcpStream;

use super::outbox::Outbox;
use crate::peer::close::CloseReason;
use crate::sys::{self, TcpLoad};

/// A stream of bytes to and from one peer. Dropping it closes the stream.
pub(super) struct Transport {
    stream: TcpStream,
    address: IpAddr,
    /// The stream may have bytes; only `WouldBlock` or a short read clears it.
    readable: bool,
    /// The peer has closed its side; reading on finds the end.
    read_closed: bool,
    /// The stream may take bytes; only `WouldBlock` or a short write clears it.
    writable: bool,
}

/// How much of an outbox a transport took.
pub(super) enum Written {
    /// This many bytes, from the beginning; `is_full` when there is no room for more.
    Taken {
        /// Units: bytes.
        bytes: usize,
        is_full: bool,
    },
    /// Nothing, for want of room.
    Blocked,
    /// Nothing: a mapped range lies past the end of its file.
    Fault,
}

impl Transport {
    /// A stream that a peer has opened. Its handshake has often arrived already; trying to read it
    /// costs less than another turn.
    pub(super) fn accepted(stream: TcpStream, address: IpAddr) -> Self {
        Self {
            stream,
            address,
            readable: true,
            read_closed: false,
            writable: true,
        }
    }

    /// A stream that we open. The first event says that the peer has accepted it.
    pub(super) fn connecting(stream: TcpStream, address: IpAddr) -> Self {
        Self {
            stream,
            address,
            readable: false,
            read_closed: false,
            writable: false,
        }
    }

    /// Records an edge of readiness.
    pub(super) fn handle_event(&mut self, event: &Event) {
        self.writable |= event.is_writable();
        self.read_closed |= event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || self.read_closed;
    }

    /// As if an edge had come.
    #[cfg(test)]
    pub(super) fn set_readable(&mut self) {
        self.readable = true;
    }

    /// The peer's address.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns true if there may be bytes to receive.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Returns true if the peer has closed its side.
    pub(super) fn is_read_closed(&self) -> bool {
        self.read_closed
    }

    /// Returns true if the stream may take bytes.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// What the stream's sending side is waiting for.
    pub(super) fn load(&self) -> io::Result<TcpLoad> {
        sys::tcp_load(self.stream.as_fd())
    }

    /// Receives once into `room`, and returns how many bytes came; None when there are none now.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> Result<Option<usize>, CloseReason> {
        match self.stream.read(room) {
            Ok(0) => Err(CloseReason::PeerClosed),
            Ok(bytes) => {
                // epoll(7): a short read has drained a stream socket, and new bytes raise a new
                // edge. The end of the stream does not if its edge has come already, so then the
                // stream is read up to its end.
                if bytes < room.len() && !self.read_closed {
                    self.readable = false;
                }
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(CloseReason::SocketError(error.kind())),
        }
    }

    /// Offers the whole outbox, with the control bytes that it was filled with, in one system call.
    pub(super) fn send(&mut self, outbox: &Outbox, control: &[u8]) -> Result<Written, CloseReason> {
        loop {
            match outbox.write(&self.stream, control) {
                Ok(bytes) => {
                    // After a short write for want of room, the kernel raises an edge when it has
                    // room. After one that reached the end of a truncated file, it raises none.
                    let is_full = bytes < outbox.bytes()
                        && !sys::is_writable(self.stream.as_fd()).unwrap_or(true);
                    self.writable = !is_full;
                    return Ok(Written::Taken { bytes, is_full });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(Written::Blocked);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                    return Ok(Written::Fault);
                }
                Err(error) => return Err(CloseReason::SocketError(error.kind())),
            }
        }
    }
}
