//! One leecher's socket.
//!
//! Received bytes go through [`Framing`] to the [`Leecher`], and its messages are written. Bodies are
//! discarded in the kernel unless a [`Sample`] needs them. Two system calls for each block, header and
//! body, cost 0.16 s of processor time for each GB with 50
//! peers; reading headers and bodies together into a buffer of 64 to 256 KiB costs 0.20 to 0.26 s,
//! because each body must be fetched from the other processor's cache.

use crate::cli::Encrypt;
use crate::encryption::Encryption;
use crate::framing::{Framing, Item, Want};
use crate::leecher::Leecher;
use crate::library::Library;
use crate::measure::{Ending, Measure};
use crate::verify::{Sample, Verifier};
use hekate::sys;
use hekate::wire::message::Request;
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Result as IoResult, Write};
use std::os::fd::AsFd;

/// What the connections share, lent for one call.
pub(crate) struct Context<'a> {
    pub(crate) now_us: u64,
    pub(crate) measure: &'a mut Measure,
    pub(crate) library: &'a Library,
    pub(crate) verifier: &'a mut Verifier,
    pub(crate) random: &'a mut fastrand::Rng,
    /// Buffer for messages to send; empty between calls.
    pub(crate) out: &'a mut Vec<u8>,
}

/// A leecher with its socket.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) leecher: Leecher,
    /// True until the connection is established.
    pub(crate) connecting: bool,
    /// Edge-triggered readiness: set by an event, cleared only when the socket is known to be empty.
    pub(crate) readable: bool,
    /// True while it is in the queue of connections to read from.
    pub(crate) queued: bool,
    /// The seeder has closed its side, so that the end of the stream is still to be read.
    pub(crate) closing: bool,
    /// Bytes that may be read for now; a slow reader's grows with time.
    pub(crate) allowance_bytes: u64,
    framing: Framing,
    block: Option<(Request, usize)>,
    sample: Option<Sample>,
    unsent: Vec<u8>,
    method: Encrypt,
    encryption: Option<Encryption>,
}

impl Connection {
    /// A connection that is being made.
    pub(crate) fn new(socket: TcpStream, leecher: Leecher, method: Encrypt) -> Connection {
        Connection {
            socket,
            leecher,
            connecting: true,
            readable: false,
            queued: false,
            closing: false,
            allowance_bytes: u64::MAX,
            framing: Framing::new(),
            block: None,
            sample: None,
            unsent: Vec::new(),
            method,
            encryption: None,
        }
    }

    /// The socket is writable: it is connected, or it has failed.
    pub(crate) fn handle_writable(&mut self, context: &mut Context<'_>) -> Result<(), Ending> {
        if self.connecting {
            match self.socket.take_error() {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return Err(Ending::Refused),
            }
            if self.socket.peer_addr().is_err() {
                return Ok(());
            }
            self.connecting = false;
            let leecher = &mut self.leecher;
            leecher.handle_connected(context.now_us, context.measure, context.out);
            let (info_hash, out) = (leecher.plan.info_hash, &mut *context.out);
            self.encryption = Encryption::begin(self.method, info_hash, context.random, out);
        }
        self.send(context.out)
    }

    /// Reads what has arrived, at most about `budget_bytes`, and requests more.
    pub(crate) fn receive(
        &mut self,
        budget_bytes: usize,
        context: &mut Context<'_>,
    ) -> Result<(), Ending> {
        let mut budget_bytes = budget_bytes;
        while self.readable && budget_bytes > 0 && self.allowance_bytes > 0 {
            if self.leecher.stopped_reading() {
                break;
            }
            let taken = self.take(context)?;
            budget_bytes = budget_bytes.saturating_sub(taken);
            if self.allowance_bytes != u64::MAX {
                self.allowance_bytes = self.allowance_bytes.saturating_sub(taken as u64);
            }
            self.dispatch(context)?;
        }
        let random = &mut *context.random;
        let refilled = self
            .leecher
            .refill(context.now_us, || random.u64(..), context.out);
        self.send(context.out)?;
        refilled
    }

    /// Sends a message of length zero, if nothing else waits.
    pub(crate) fn keep_alive(&mut self) -> Result<(), Ending> {
        if self.unsent.is_empty() {
            self.send(&mut vec![0; 4])?;
        }
        Ok(())
    }

    /// One system call.
    fn take(&mut self, context: &mut Context<'_>) -> Result<usize, Ending> {
        if let Some(wanted) = self.encryption.as_ref().and_then(Encryption::wanted) {
            return self.take_handshake(wanted, context);
        }
        let allowance = usize::try_from(self.allowance_bytes).unwrap_or(usize::MAX);
        let (asked, result) = match self.framing.want() {
            Want::Header => {
                let room = self.framing.room();
                (
                    room.len(),
                    read(&mut self.socket, room, &mut self.encryption),
                )
            }
            Want::Body(left) => self.take_body(left, allowance),
        };
        let taken = self.read(result)?;
        if taken == 0 {
            return Ok(0);
        }
        // A short read has emptied the socket, unless the end of the stream is behind it.
        if taken < asked && !self.closing {
            self.readable = false;
        }
        match self.framing.want() {
            Want::Header => self.framing.filled(taken),
            Want::Body(_) => {
                self.framing.passed(taken);
                self.collected(taken, context);
            }
        }
        Ok(taken)
    }

    /// How many bytes a read took; zero when there are none now.
    fn read(&mut self, result: IoResult<usize>) -> Result<usize, Ending> {
        match result {
            Ok(0) => Err(self.ended()),
            Ok(taken) => Ok(taken),
            Err(problem) if problem.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(0)
            }
            Err(problem) if problem.kind() == ErrorKind::Interrupted => Ok(0),
            Err(_) => Err(self.ended()),
        }
    }

    fn take_body(&mut self, left: usize, allowance: usize) -> (usize, IoResult<usize>) {
        let block = self.block.as_ref().filter(|_| self.framing.in_block());
        if let Some((request, left)) = block
            && let Some(sample) = &mut self.sample
            && let Some(room) = sample.room(request, *left)
        {
            return (
                room.len(),
                read(&mut self.socket, room, &mut self.encryption),
            );
        }
        let asked = left.min(allowance);
        if self.encryption.is_none() {
            return (asked, sys::recv_discard(self.socket.as_fd(), asked));
        }
        // Bytes that nobody wants move the cipher on.
        let mut unwanted = [0; 16 * 1024];
        let (room, _) = unwanted.split_at_mut(asked.min(16 * 1024));
        (
            room.len(),
            read(&mut self.socket, room, &mut self.encryption),
        )
    }

    /// One system call for the encryption handshake.
    fn take_handshake(
        &mut self,
        wanted: usize,
        context: &mut Context<'_>,
    ) -> Result<usize, Ending> {
        let mut room = vec![0; wanted];
        let result = self.socket.read(&mut room);
        let taken = self.read(result)?;
        if taken == 0 {
            return Ok(0);
        }
        room.truncate(taken);
        let encryption = self.encryption.as_mut().ok_or(Ending::Broken)?;
        let ended = encryption.receive(&room, context.out);
        if let Some((stream, received)) = ended.map_err(|_| Ending::Broken)? {
            self.encryption = stream;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let count = match self.framing.want() {
                    Want::Header => self.framing.room().len(),
                    Want::Body(left) => left,
                };
                let (now, behind) = rest.split_at(count.min(rest.len()));
                rest = behind;
                match self.framing.want() {
                    Want::Header => {
                        let room = self.framing.room().iter_mut();
                        room.zip(now).for_each(|(to, from)| *to = *from);
                        self.framing.filled(now.len());
                    }
                    Want::Body(_) => self.framing.passed(now.len()),
                }
                self.dispatch(context)?;
            }
        }
        Ok(taken)
    }

    /// `bytes` of a body were received; a sample that they complete is compared.
    fn collected(&mut self, taken: usize, context: &mut Context<'_>) {
        let Some((request, left)) = &mut self.block else {
            return;
        };
        let wanted = self
            .sample
            .as_mut()
            .is_some_and(|sample| sample.room(request, *left).is_some() && sample.filled(taken));
        *left = left.saturating_sub(taken);
        if wanted && let Some(sample) = self.sample.take() {
            match context.verifier.matches(context.library, &sample) {
                Ok(true) => context.measure.counts.verified += 1,
                Ok(false) => context.measure.counts.mismatched += 1,
                Err(_) => context.measure.counts.unreadable += 1,
            }
        }
    }

    fn dispatch(&mut self, context: &mut Context<'_>) -> Result<(), Ending> {
        loop {
            let item = match self.framing.next_item() {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(_) => return Err(Ending::Broken),
            };
            let Context {
                now_us,
                measure,
                out,
                ..
            } = context;
            self.leecher.handle_item(item, *now_us, measure, out)?;
            match item {
                Item::Block(request) => {
                    self.block = Some((request, request.length as usize));
                    if self.sample.is_none() {
                        let torrent = self.leecher.plan.torrent;
                        let Context {
                            library, random, ..
                        } = context;
                        self.sample = context.verifier.begin(library, torrent, &request, random);
                    }
                }
                Item::BlockEnd(_) => self.block = None,
                _ => {}
            }
        }
    }

    /// Writes what is left from before and then `out`; keeps what the socket does not take.
    fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Ending> {
        if let Some(Encryption::Stream(ciphers)) = &mut self.encryption {
            ciphers.send.apply(out);
        }
        if !self.unsent.is_empty() {
            self.unsent.append(out);
            std::mem::swap(&mut self.unsent, out);
            self.unsent.clear();
        }
        let mut sent = 0;
        while let Some(rest) = out.get(sent..)
            && !rest.is_empty()
        {
            match self.socket.write(rest) {
                Ok(written) => sent += written,
                Err(problem) if problem.kind() == ErrorKind::Interrupted => {}
                Err(problem) if problem.kind() == ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(rest);
                    break;
                }
                Err(_) => {
                    out.clear();
                    return Err(self.ended());
                }
            }
        }
        out.clear();
        Ok(())
    }

    fn ended(&self) -> Ending {
        if self.leecher.shaken() {
            Ending::Dropped
        } else {
            Ending::Refused
        }
    }
}

/// Reads once, and deciphers what was read if RC4 is selected.
fn read(
    socket: &mut TcpStream,
    room: &mut [u8],
    encryption: &mut Option<Encryption>,
) -> IoResult<usize> {
    let taken = socket.read(room)?;
    if let Some(Encryption::Stream(ciphers)) = encryption
        && let Some(bytes) = room.get_mut(..taken)
    {
        ciphers.receive.apply(bytes);
    }
    Ok(taken)
}
