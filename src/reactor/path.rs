//! The path of a block, top-down: [`Connection::receive`] and [`Connection::send`].
//!
//! Received bytes become messages, messages become queued requests; queued requests become one
//! vectored write of many blocks, and what the socket took is accounted for. Everything below is
//! a leaf: framing in `wire`, legality in `peer`, where a block lies in `stage`.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

use super::connection::{Asked, Connection};
use super::shared::Shared;
use super::stage::Staged;
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::peer::machine::Event;
use crate::peer::queue::REQQ;
use crate::storage::FileKey;
use crate::sys;
use crate::torrent::catalogue::Torrent;
use crate::torrent::layout::Source;
use crate::wire::decoder::Decoded;
use crate::wire::extension::OurHandshake;
use crate::wire::handshake::HANDSHAKE_LENGTH;
use crate::wire::message::Message;

/// Blocks in a row that one peer may lose to unreadable content before its transfer is ended. A torrent
/// with one bad file still serves its others; a peer that only asks for the bad one is let go.
const FAILED_BLOCKS_MAX: u16 = 64;

/// The same for blocks of pieces that are known to be bad, which cost no read: clients ask for a whole
/// piece at once, and most of them again when they are refused, while others of theirs are served.
const BAD_BLOCKS_MAX: u16 = 8192;

impl Connection {
    /// Reads what the peer has sent, once: who has sent more than the buffer holds, some thousand
    /// messages, waits for the next turn. Its machine handles every message.
    pub(super) fn receive(&mut self, key: PeerKey, shared: &mut Shared) -> Result<(), CloseReason> {
        if !self.wants_to_receive() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut shared.buffer);
        let outcome = self.receive_into(key, &mut buffer, shared);
        shared.buffer = buffer;
        self.deadlines.arm(key, &shared.timeouts, &mut shared.wheel);
        outcome
    }

    fn receive_into(
        &mut self,
        key: PeerKey,
        buffer: &mut [u8],
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        let Some((held, room)) = buffer.split_at_mut_checked(self.tail.len()) else {
            return Err(CloseReason::IllegalMessage("a message is too long to hold"));
        };
        held.copy_from_slice(&self.tail);
        // What follows a handshake stays in the socket, so that whoever waits for a torrent costs
        // no more than the end of it.
        let room_bytes = match self.torrent {
            Some(_) => room.len(),
            None => room.len().min(HANDSHAKE_LENGTH.saturating_sub(held.len())),
        };
        let room = room.get_mut(..room_bytes).unwrap_or_default();
        let held_bytes = held.len();
        let read_bytes = match self.stream.read(room) {
            Ok(0) => return Err(CloseReason::PeerClosed),
            Ok(read_bytes) => read_bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.latches.readable = false;
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(CloseReason::SocketError(error.kind())),
        };
        // epoll(7): a short read has drained a stream socket, and new bytes raise a new edge. The
        // end of the stream does not, if its edge has come already: it is read up to.
        if read_bytes < room_bytes && !self.latches.read_closed {
            self.latches.readable = false;
        }
        let received = buffer.get(..held_bytes + read_bytes).unwrap_or_default();
        self.take(key, received, shared)
    }

    /// Handles every complete message, and keeps the rest.
    pub(super) fn take(
        &mut self,
        key: PeerKey,
        received: &[u8],
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        let (rest, completed) = self.handle_bytes(key, received, shared)?;
        if !(self.tail.is_empty() && rest.is_empty()) {
            self.tail = rest.into();
        }
        let mid_message = !rest.is_empty() || self.decoder.mid_body();
        self.deadlines.received(shared.now, completed, mid_message);
        Ok(())
    }

    /// Handles every complete message; answers the rest, and whether there was any message.
    fn handle_bytes<'a>(
        &mut self,
        key: PeerKey,
        received: &'a [u8],
        shared: &mut Shared,
    ) -> Result<(&'a [u8], bool), CloseReason> {
        let mut rest = received;
        let mut completed = false;
        let mut requested = false;
        loop {
            match self.decoder.decode(rest)? {
                Decoded::Incomplete { consumed } => {
                    rest = rest.get(consumed..).unwrap_or_default();
                    break;
                }
                Decoded::Message { consumed, message } => {
                    rest = rest.get(consumed..).unwrap_or_default();
                    completed = true;
                    requested |= self.handle(key, &message, shared)?;
                    if self.loading.is_some() {
                        break;
                    }
                }
            }
        }
        if requested {
            shared.choker.requested(key, shared.now);
        }
        Ok((rest, completed))
    }

    /// Handles one message; answers whether it was a request that is now queued.
    fn handle(
        &mut self,
        key: PeerKey,
        message: &Message<'_>,
        shared: &mut Shared,
    ) -> Result<bool, CloseReason> {
        match (message, &self.torrent) {
            (
                Message::Handshake {
                    reserved,
                    info_hash,
                },
                None,
            ) => {
                let called = self.called.as_ref();
                if called.is_some_and(|called| !called.is_for(info_hash)) {
                    return Err(CloseReason::UnknownTorrent);
                }
                let asked = Asked {
                    reserved: *reserved,
                    info_hash: *info_hash,
                };
                self.ask(key, asked, shared)?;
                Ok(false)
            }
            (Message::PeerId(id), Some(torrent)) => {
                let greeting = greeting(self.address, torrent, shared.port);
                self.peer
                    .handle_peer_id(*id, shared.identity, &torrent.shape, &greeting)?;
                self.deadlines.handshake_done(shared.now);
                if let Some(called) = &self.called {
                    shared.dialer.connected(called);
                }
                let (place, is_only) = shared.activity.join(torrent);
                self.place = Some(place);
                if is_only {
                    shared.announcing.joined(torrent, shared.now);
                }
                shared.choker.connected(key, shared.now);
                Ok(false)
            }
            (message, Some(torrent)) => {
                let event = self.peer.handle_message(message, &torrent.shape)?;
                Ok(self.follow(key, event, shared))
            }
            (_, None) => Err(CloseReason::IllegalMessage(
                "a message before the handshake",
            )),
        }
    }

    /// Tells the choker and the readers what a message has changed.
    fn follow(&mut self, key: PeerKey, event: Event, shared: &mut Shared) -> bool {
        match event {
            Event::None => {}
            Event::Interested => {
                shared.choker.interested(key);
                self.deadlines.waiting(self.peer.is_choked());
            }
            Event::NotInterested => {
                if shared.choker.not_interested(key, shared.now) {
                    self.choke();
                }
                self.deadlines.waiting(false);
            }
            Event::Requested {
                newly_interested, ..
            } => {
                if newly_interested {
                    shared.choker.interested(key);
                }
                return true;
            }
            Event::MetadataRequested => {
                shared.choker.active(key, shared.now);
                self.fetch_metadata(key, shared);
            }
        }
        false
    }

    /// Hands the pieces of the info dictionary that the peer may have now to the readers (BEP 9); while
    /// the rate limit has nothing for them, the peer waits in line.
    pub(super) fn fetch_metadata(&mut self, key: PeerKey, shared: &mut Shared) {
        let Some(torrent) = &self.torrent else { return };
        while self.peer.wants_metadata() {
            if !shared.metadata_may_go() {
                if !std::mem::replace(&mut self.latches.metadata_waits, true) {
                    shared.metadata_waits.push_back(key);
                }
                return;
            }
            let Some(piece) = self.peer.poll_metadata() else {
                return;
            };
            shared.metadata_reading += 1;
            shared.storage.metadata(key, torrent, piece);
        }
    }

    /// Sends what is ready, at most `budget_bytes` of blocks, in one vectored write.
    pub(super) fn send(
        &mut self,
        key: PeerKey,
        shared: &mut Shared,
        budget_bytes: u64,
    ) -> Result<(), CloseReason> {
        let mut budget_bytes = budget_bytes;
        loop {
            match self.stage(key, shared, budget_bytes) {
                Staged::Nothing => {
                    self.deadlines.nothing_waits();
                    return Ok(());
                }
                Staged::Lost(request) => {
                    self.lose_block(FAILED_BLOCKS_MAX)?;
                    self.peer.reject_block(request)?;
                    continue;
                }
                Staged::Bad(request) => {
                    self.lose_block(BAD_BLOCKS_MAX)?;
                    self.peer.reject_block(request)?;
                    continue;
                }
                Staged::Batch => {}
            }
            let control = self.peer.poll_transmit().control;
            match shared.outbox.write(&self.stream, control) {
                Ok(taken_bytes) => {
                    self.account(key, taken_bytes, shared);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.latches.writable = false;
                    self.deadlines.blocked(shared.now);
                    self.deadlines.arm(key, &shared.timeouts, &mut shared.wheel);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A mapped range lies past the end of a file that was truncated. Alone in a batch,
                // the first block is known to be the one.
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                    if budget_bytes == 1 {
                        self.lose_block(FAILED_BLOCKS_MAX)?;
                        self.distrust_first_block(shared);
                    }
                    budget_bytes = 1;
                }
                Err(error) => return Err(CloseReason::SocketError(error.kind())),
            }
        }
    }

    /// Lets go of the mappings of the first block, so that a reader looks at its files anew.
    fn distrust_first_block(&self, shared: &mut Shared) {
        let transmit = self.peer.poll_transmit();
        let partial = transmit.partial.map(|(request, _)| request);
        let first = partial.or_else(|| transmit.blocks.clone().next().copied());
        let (Some(torrent), Some(first)) = (&self.torrent, first) else {
            return;
        };
        let offset = torrent.shape.offset_of(&first);
        for extent in torrent.layout.extents(offset, u64::from(first.length)) {
            if let Source::File(file) = extent.source {
                shared.storage.invalidate(FileKey {
                    torrent: torrent.id,
                    file,
                });
            }
        }
    }

    fn lose_block(&mut self, blocks_max: u16) -> Result<(), CloseReason> {
        self.failed_blocks = self.failed_blocks.saturating_add(1);
        if self.failed_blocks > blocks_max {
            return Err(CloseReason::ContentFailed);
        }
        Ok(())
    }

    /// Debits what the socket took.
    fn account(&mut self, key: PeerKey, taken_bytes: usize, shared: &mut Shared) {
        // A short write means that the kernel has no room, and it raises an edge when it has; or that
        // the write came to bytes that a file no longer has, and then there is none to wait for.
        let full = taken_bytes < shared.outbox.bytes()
            && !sys::is_writable(self.stream.as_fd()).unwrap_or(true);
        self.latches.writable = !full;
        let sent = self.peer.handle_sent(taken_bytes);
        self.deadlines.sent(shared.now, full);
        self.deadlines.arm(key, &shared.timeouts, &mut shared.wheel);
        // The limit is the line's, which carries metadata and rejects as well.
        shared.bucket.take(taken_bytes as u64);
        if sent.blocks > 0 {
            self.failed_blocks = 0;
        }
        if sent.payload_bytes > 0 {
            shared.choker.sent(key, sent.payload_bytes, shared.now);
            if let Some(torrent) = &self.torrent {
                shared.announcing.uploaded(torrent, sent.payload_bytes);
            }
            shared.counters.payload_bytes += sent.payload_bytes;
            shared.counters.blocks += u64::from(sent.blocks);
            self.sent_bytes += sent.payload_bytes;
            if let Some(place) = self.place {
                let now = shared.now;
                shared.activity.sent(place, sent.payload_bytes, now);
            }
        }
        shared.counters.rejected += u64::from(self.peer.take_rejected());
        if !self.peer.has_blocks() {
            self.gathered = None;
        }
        self.fetch_metadata(key, shared);
    }
}

/// The extension handshake (BEP 10) for a peer of this torrent.
fn greeting(address: std::net::IpAddr, torrent: &Torrent, port: u16) -> Vec<u8> {
    let mut greeting = Vec::new();
    OurHandshake {
        metadata_size: torrent.shape.metadata_length,
        reqq: u32::try_from(REQQ).unwrap_or(u32::MAX),
        upload_only: true,
        version: concat!("Hekate ", env!("CARGO_PKG_VERSION")),
        your_ip: address,
        port,
    }
    .encode(&mut greeting);
    greeting
}
