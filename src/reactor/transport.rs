//! A connection's transport: how received bytes come in and how an [`Outbox`] goes out.
//!
//! Owns the socket, its readiness, and the cipher of an encrypted connection.
//! [`Session`](crate::peer::session::Session) decodes the bytes that [`Transport::receive`] puts into the
//! shared buffer, and `stage` fills the outbox; neither knows what carries the bytes.
//!
//! Plain bytes of mapped files are lent to the kernel ([`Outbox::write`]). Bytes that are enciphered are
//! copied first, and what the socket did not take of them stays here: it can neither be enciphered again
//! nor be withdrawn.
//!
//! TCP is the only carrier. uTP belongs here: the stream becomes one of two, [`Transport::send`] takes
//! header, slice, header, slice from the same outbox for segments, and readiness comes from the window
//! and not from epoll.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;

use mio::event::Event;
use mio::net::TcpStream;

use super::outbox::Outbox;
use crate::metrics::Wire;
use crate::mse::Ciphers;
use crate::mse::dialling::Dialling;
use crate::mse::receiving::Receiving;
use crate::peer::close::CloseReason;
use crate::sys::copies::Copies;
use crate::sys::{self, TcpLoad};

/// The most enciphered bytes that a connection keeps until its socket takes them, and the most that are
/// enciphered at once: four usual blocks, with which a system call costs little beside RC4. Unit: bytes.
pub(super) const UNSENT_MAX: usize = 64 * 1024;

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
    /// What the bytes are, once it is known.
    wire: Option<Wire>,
    /// On the heap, since most connections are plain.
    encryption: Option<Box<Encryption>>,
}

/// An encryption handshake.
pub(super) enum Handshake {
    /// The peer has connected to us.
    Receiving(Receiving),
    /// We have dialled the peer.
    Dialling(Dialling),
}

impl Handshake {
    /// How many bytes may be read now.
    pub(super) fn wanted(&self) -> usize {
        match self {
            Self::Receiving(handshake) => handshake.wanted(),
            Self::Dialling(handshake) => handshake.wanted(),
        }
    }
}

/// What an encrypted connection has beside its socket.
#[derive(Default)]
struct Encryption {
    /// Until it is complete.
    handshake: Option<Box<Handshake>>,
    /// If RC4 is selected.
    ciphers: Option<Box<Ciphers>>,
    /// Bytes as they go over the wire, before all others.
    unsent: Vec<u8>,
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
            wire: None,
            encryption: None,
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
            wire: None,
            encryption: None,
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
        let mut load = sys::tcp_load(self.stream.as_fd())?;
        let unsent = self.encryption.as_ref().map(|own| own.unsent.len());
        load.held_bytes += unsent.unwrap_or(0) as u64;
        Ok(load)
    }

    /// What the bytes are; None as long as the first are awaited, or the handshake is not complete.
    pub(super) fn wire(&self) -> Option<Wire> {
        self.wire
    }

    /// From now on it is known what the bytes are.
    pub(super) fn set_wire(&mut self, wire: Wire) {
        self.wire = Some(wire);
    }

    /// The stream begins with an encryption handshake.
    pub(super) fn begin_handshake(&mut self, handshake: Handshake) {
        self.encryption = Some(Box::new(Encryption {
            handshake: Some(Box::new(handshake)),
            ..Encryption::default()
        }));
    }

    /// The encryption handshake that is under way.
    pub(super) fn handshake(&mut self) -> Option<&mut Handshake> {
        self.encryption.as_mut()?.handshake.as_deref_mut()
    }

    /// Returns true if an encryption handshake is under way.
    pub(super) fn is_in_handshake(&self) -> bool {
        let own = self.encryption.as_ref();
        own.is_some_and(|own| own.handshake.is_some())
    }

    /// Returns true if an encryption handshake is under way and takes no bytes now.
    pub(super) fn is_handshake_waiting(&self) -> bool {
        let handshake = |own: &Encryption| own.handshake.as_ref().map(|shake| shake.wanted());
        let wanted = self.encryption.as_deref().and_then(handshake);
        wanted == Some(0)
    }

    /// The encryption handshake is complete.
    pub(super) fn end_handshake(&mut self, ciphers: Option<Box<Ciphers>>) {
        let own = self.encryption.as_mut().expect("a handshake is under way");
        own.handshake = None;
        own.ciphers = ciphers;
    }

    /// Sends bytes of the encryption handshake as they are, with the next others or by
    /// [`Transport::flush`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let own = self.encryption.as_mut().expect("a handshake is under way");
        own.unsent.extend_from_slice(bytes);
    }

    /// Returns true if there are bytes left that [`Transport::send`] has taken.
    pub(super) fn has_unsent(&self) -> bool {
        let own = self.encryption.as_ref();
        own.is_some_and(|own| !own.unsent.is_empty())
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
                let own = self.encryption.as_mut();
                if let Some(ciphers) = own.and_then(|own| own.ciphers.as_mut()) {
                    let received = room.get_mut(..bytes);
                    let received = received.expect("a read fills no more than it is given");
                    ciphers.receive.apply(received);
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

    /// Offers the outbox, with the control bytes that it was filled with, in one system call: the whole,
    /// or, if it is enciphered, as much as there is room for in `copies`.
    pub(super) fn send(
        &mut self,
        outbox: &Outbox,
        control: &[u8],
        copies: &mut Copies,
    ) -> Result<Written, CloseReason> {
        if self.encryption.is_some() {
            return self.send_copied(outbox, control, copies);
        }
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

    /// Sends what is left of enciphered bytes.
    pub(super) fn flush(&mut self, copies: &mut Copies) -> Result<Written, CloseReason> {
        self.send_copied(&Outbox::default(), &[], copies)
    }

    fn send_copied(
        &mut self,
        outbox: &Outbox,
        control: &[u8],
        copies: &mut Copies,
    ) -> Result<Written, CloseReason> {
        let own = self.encryption.as_mut();
        let own = own.expect("plain bytes are not copied");
        let room = UNSENT_MAX.saturating_sub(own.unsent.len());
        let copied = match outbox.copy(control, copies, room) {
            Ok(copied) => copied,
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => return Ok(Written::Fault),
            Err(error) => return Err(CloseReason::SocketError(error.kind())),
        };
        if let Some(ciphers) = &mut own.ciphers {
            ciphers.send.apply(copied);
        }
        let parts = [IoSlice::new(&own.unsent), IoSlice::new(copied)];
        let written = loop {
            match self.stream.write_vectored(&parts) {
                Ok(written) => break written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(CloseReason::SocketError(error.kind())),
            }
        };
        let bytes = copied.len();
        let (old, new) = (
            own.unsent.len().min(written),
            written.saturating_sub(own.unsent.len()),
        );
        own.unsent.drain(..old);
        let rest = copied.get(new..);
        own.unsent
            .extend_from_slice(rest.expect("no more is written than was offered"));
        let is_full = !own.unsent.is_empty();
        self.writable = !is_full;
        if !is_full {
            own.unsent = Vec::new();
            if own.ciphers.is_none() && own.handshake.is_none() {
                self.encryption = None;
            }
        }
        match bytes + written {
            0 => Ok(Written::Blocked),
            _ => Ok(Written::Taken { bytes, is_full }),
        }
    }
}
