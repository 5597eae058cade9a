//! The path of a block, top-down: [`Connection::receive`] and [`Connection::send`].
//!
//! The session turns received bytes into events, and queues requests. Queued requests become one
//! vectored write of many blocks, and the session is debited with the bytes that the transport took.
//! Everything below is a leaf: framing and legality in `peer`, finding content in `stage`, the socket
//! in `transport`.

use std::mem;
use std::sync::Arc;

use super::connection::{Connection, Wait};
use super::outbox::BATCH_BLOCKS;
use super::shared::{RECEIVE_AT_ONCE_BYTES, Shared};
use super::stage::{Stage, Staged};
use super::transport::Written;
use crate::library::catalogue::lookup::Answer;
use crate::peer::close::CloseReason;
use crate::peer::session::{Event, Introduction, Opening, Upload};
use crate::storage::FileKey;
use crate::torrent::catalogue::Torrent;
use crate::torrent::layout::ExtentSource;
use crate::wire::message::{InfoHash, Request};
use crate::workers::QueueFull;

impl Connection {
    /// Reads once. Bytes beyond [`RECEIVE_AT_ONCE_BYTES`] wait for the next turn.
    pub(super) fn receive(&mut self, shared: &mut Shared) -> Result<(), CloseReason> {
        if !self.wants_to_receive() {
            return Ok(());
        }
        if self.transport.is_in_handshake() {
            return self.receive_handshake(shared);
        }
        let mut buffer = mem::take(&mut shared.buffer);
        let free = self.session.prepare(&mut buffer);
        let held_bytes = free.start;
        let end = free.end.min(held_bytes + RECEIVE_AT_ONCE_BYTES);
        let room = buffer.get_mut(held_bytes..end);
        let room = room.expect("the session stays inside");
        let outcome = match self.transport.receive(room) {
            Ok(Some(read_bytes)) => {
                self.queued.has_filled_buffer = read_bytes == RECEIVE_AT_ONCE_BYTES;
                let received = buffer.get(..held_bytes + read_bytes);
                let received = received.expect("a read fills no more than it is given");
                match self.transport.wire() {
                    Some(_) => self.take(received, shared),
                    None => self.recognize(received, shared),
                }
            }
            Ok(None) => Ok(()),
            Err(reason) => Err(reason),
        };
        shared.buffer = buffer;
        outcome
    }

    /// Hands bytes to the session, and carries out its events.
    pub(super) fn take(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<(), CloseReason> {
        let ours = Introduction {
            peer_id: shared.process.identity,
            port: shared.process.port,
            your_ip: self.transport.address(),
        };
        let mut bytes = bytes;
        while let Some(event) = self.session.receive(&mut bytes, shared.now, &ours)? {
            self.follow(event, shared)?;
        }
        Ok(())
    }

    /// Carries out an event of the session.
    fn follow(&mut self, event: Event, shared: &mut Shared) -> Result<(), CloseReason> {
        let (key, now) = (self.key, shared.now);
        match event {
            Event::TorrentWanted(info_hash) => return self.find_torrent(info_hash, shared),
            Event::Opened => {
                if let Some(dialled) = &self.dialled {
                    shared.process.dialer.connected(dialled);
                }
                let torrent = (self.torrent.as_ref()).expect("a session opens for a torrent");
                let process = &mut shared.process;
                let (slot, is_only) = process.activity.join(torrent, process.super_seeding);
                self.active_slot = Some(slot);
                if is_only {
                    process.announcing.joined(torrent, now);
                    if process.announcing.has_other_seed(torrent.id) {
                        process.activity.seed_known(torrent.id);
                    }
                }
                self.meet_swarm(slot, shared);
                shared.choker.connected(key, now);
            }
            Event::Interested => shared.choker.interested(key),
            Event::NotInterested => {
                if shared.choker.not_interested(key) {
                    self.choke();
                }
            }
            Event::Requested { bytes } => {
                let reads = self.transport.is_writable();
                shared.choker.requested(key, bytes, reads, now);
            }
            Event::HasPieces { first, bits } => {
                let slot = self.active_slot.expect("an open session has a slot");
                // With a slot, it is shown more when its term ends.
                let waits = !matches!(self.session.upload(), Upload::Unchoked { .. });
                let shown = shared.process.activity.swarm(slot, |swarm| {
                    swarm.has_pieces(key, first, bits);
                    waits.then(|| swarm.keep_interested(key))?
                });
                if let Some(piece) = shown {
                    self.session.show(piece);
                }
            }
            Event::MetadataRequested => {
                shared.choker.active(key, now);
                self.fetch_metadata(shared);
            }
        }
        Ok(())
    }

    /// Finds the torrent that the peer has named, or has it loaded: the peer is not read from then until
    /// [`Connection::resume`]. The time-out of the handshake bounds the wait.
    pub(super) fn find_torrent(
        &mut self,
        info_hash: InfoHash,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        let process = &mut shared.process;
        match process.library.find(&info_hash, shared.now) {
            Answer::Unknown => Err(CloseReason::UnknownTorrent),
            Answer::Loaded(torrent) => self.resume(&torrent, shared),
            Answer::Known(query) => {
                // The peer may come again, like one that found us at capacity.
                let requested = process.loads.request(self.key, query);
                requested.map_err(|QueueFull| CloseReason::AtCapacity)
            }
        }
    }

    /// Continues with a peer whose torrent is loaded, and with the bytes behind its info-hash.
    pub(super) fn resume(
        &mut self,
        torrent: &Arc<Torrent>,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        self.torrent = Some(Arc::clone(torrent));
        let opening = match shared.process.activity.hides(torrent) {
            true => Opening::Nothing,
            false => Opening::Everything,
        };
        let identity = shared.process.identity;
        let tail = (self.session).torrent_loaded(torrent.shape, opening, identity);
        match tail.is_empty() {
            true => Ok(()),
            false => self.take(&tail, shared),
        }
    }

    /// Has pieces of the info dictionary read that the peer may have now (BEP 9). While the rate limit
    /// has nothing for them, or many are being read, the peer waits in line.
    pub(super) fn fetch_metadata(&mut self, shared: &mut Shared) {
        while self.session.wants_metadata() {
            let torrent = self.torrent.as_ref();
            let torrent = torrent.expect("an open session has a torrent");
            let disk = shared.process.disks.of(&torrent.metainfo_path());
            let available_bytes = shared.process.bucket.available(shared.now);
            if !shared.metadata.begin(&disk, self.key, available_bytes) {
                if !mem::replace(&mut self.queued.for_metadata, true) {
                    shared.metadata.wait(&disk, self.key);
                }
                return;
            }
            let piece = self.session.poll_metadata();
            let piece = piece.expect("the session wants a piece");
            shared.process.storage.metadata(self.key, torrent, piece);
        }
    }

    /// Sends in one vectored write what is ready: control bytes, and at most `budget_bytes` of blocks.
    /// The budget never cuts a block, so one byte allows one block.
    pub(super) fn send(
        &mut self,
        shared: &mut Shared,
        budget_bytes: u64,
    ) -> Result<(), CloseReason> {
        let mut budget_bytes = budget_bytes;
        self.queued.to_send = false;
        if self.wait != Wait::Reader {
            self.wait = Wait::Nothing;
        }
        if !self.wants_to_send() {
            return Ok(());
        }
        if self.transport.is_in_handshake() {
            return self.flush(shared);
        }
        loop {
            let mut stage = Stage {
                key: self.key,
                torrent: self.torrent.as_ref(),
                resident: &mut self.resident,
                gathered: self.gathered.as_ref(),
                wait: &mut self.wait,
            };
            let control = match stage.fill(&self.session, shared, budget_bytes) {
                Staged::Batch(control) => control,
                Staged::Nothing if self.has_unsent() => return self.flush(shared),
                Staged::Nothing => {
                    self.session.nothing_to_write();
                    if self.wait != Wait::Nothing {
                        shared.choker.held_up(self.key, shared.now);
                    }
                    return Ok(());
                }
                Staged::Failed(request, failure) => {
                    self.session.block_failed(request, failure)?;
                    continue;
                }
            };
            let copies = &mut shared.copies;
            match self.transport.send(&shared.outbox, control, copies)? {
                // A file was truncated. A batch of one block shows which.
                Written::Fault => {
                    if budget_bytes == 1 {
                        self.session.write_failed()?;
                        self.distrust_first_block(shared);
                    }
                    budget_bytes = 1;
                }
                written => {
                    self.written(&written, shared);
                    return Ok(());
                }
            }
        }
    }

    /// Sends what is left of enciphered bytes.
    pub(super) fn flush(&mut self, shared: &mut Shared) -> Result<(), CloseReason> {
        let written = self.transport.flush(&mut shared.copies)?;
        self.written(&written, shared);
        Ok(())
    }

    fn written(&mut self, written: &Written, shared: &mut Shared) {
        match *written {
            Written::Taken { bytes, is_full } => self.account(bytes, is_full, shared),
            Written::Blocked => self.session.write_blocked(shared.now),
            Written::Fault => unreachable!("only a block of a file can be at fault"),
        }
    }

    /// Drops the mappings of the first block, so that a reader checks its files again.
    fn distrust_first_block(&self, shared: &mut Shared) {
        let transmit = self.session.poll_transmit();
        let partial = transmit.partial.map(|(request, _)| request);
        let first = partial.or_else(|| transmit.blocks.clone().next().copied());
        let first = first.expect("only blocks are sent from mappings");
        let torrent = self.torrent.as_ref();
        let torrent = torrent.expect("only a peer of a torrent has blocks");
        let offset = torrent.shape.offset_of(&first);
        for extent in torrent.layout.extents(offset, u64::from(first.length)) {
            if let ExtentSource::File(file) = extent.source {
                shared.process.storage.invalidate(FileKey {
                    torrent: torrent.id,
                    file,
                });
            }
        }
    }

    /// The blocks of which some may be in one write.
    fn first_blocks(&self) -> [Option<Request>; BATCH_BLOCKS + 1] {
        let transmit = self.session.poll_transmit();
        let partial = transmit.partial.map(|(request, _)| request);
        let mut queued = partial.into_iter().chain(transmit.blocks.copied());
        std::array::from_fn(|_| queued.next())
    }

    /// Debits the bytes that the transport took.
    fn account(&mut self, taken_bytes: usize, is_full: bool, shared: &mut Shared) {
        let activity = &mut shared.process.activity;
        let counts_pieces = self
            .active_slot
            .is_some_and(|slot| activity.is_super_seeded(slot));
        let offered = counts_pieces.then(|| self.first_blocks());
        let sent = self.session.sent(taken_bytes, is_full, shared.now);
        // The rate limit is for the line, which carries metadata and rejects as well.
        shared.process.bucket.take(taken_bytes as u64);
        if sent.payload_bytes > 0 {
            let torrent = self.torrent.as_ref();
            let torrent = torrent.expect("only a peer of a torrent has blocks");
            let slot = self.active_slot.expect("only an open session has blocks");
            self.sent_bytes += sent.payload_bytes;
            shared.record_sent(self.key, torrent, slot, sent);
            if let Some(offered) = offered {
                let finished = offered.iter().flatten().take(sent.blocks as usize);
                self.blocks_sent(slot, finished, shared);
            }
        }
        shared.counters.rejected += u64::from(self.session.take_rejected());
        if !self.session.has_blocks() {
            self.gathered = None;
        }
        self.fetch_metadata(shared);
    }
}

#[cfg(test)]
mod tests;
