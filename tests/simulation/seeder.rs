//! The loop around the machines, as the reactor is: receive, expire, rebalance, send, close.
//!
//! It holds the invariants that can be seen from inside. Its disk parks some blocks and fails others.

use fastrand::Rng;
use hekate::choker::{Choker, ChokerConfig, Verdict};
use hekate::peer::close::CloseReason;
use hekate::peer::key::PeerKey;
use hekate::peer::machine::{CONTROL_LIMIT_BYTES, Event, Peer};
use hekate::peer::queue::REQQ;
use hekate::timers::{Deadlines, Time, Timeouts, Wheel};
use hekate::torrent::layout::Shape;
use hekate::wire::decoder::{Decoded, Decoder};
use hekate::wire::encoder;
use hekate::wire::extension::METADATA_PIECE_LENGTH;
use hekate::wire::message::{InfoHash, Message, PeerId};

use crate::network::{Link, Part};

pub(crate) const OURS: PeerId = PeerId(*b"-HK0100-simulation!!");
pub(crate) const INFO_HASH: InfoHash = InfoHash([9; 20]);
pub(crate) const SHAPE: Shape = Shape {
    piece_length: 256 * 1024,
    pieces: 4000,
    total_length: 4000 * 256 * 1024,
    metadata_length: 2 * METADATA_PIECE_LENGTH + 100,
    private: false,
};

/// Blocks in one write.
const BATCH: usize = 16;
/// Bytes of one read.
const READ_BYTES: usize = 8 * 1024;
/// An answer, at most one and a half times as long as what it answers, for all of one read; the
/// rejects of a whole queue; and the pieces of metadata that were being read.
const CONTROL_SLACK_BYTES: usize = READ_BYTES * 3 / 2 + 5 + 17 * REQQ + 2 * 17_000;

struct Connection {
    key: PeerKey,
    link: usize,
    peer: Peer,
    decoder: Decoder,
    tail: Vec<u8>,
    deadlines: Deadlines,
    /// The disk has the next block no sooner.
    parked_until: Time,
    /// Since when the link has taken nothing of what was offered.
    refused_since: Option<Time>,
    opening_bytes: usize,
    close: Option<CloseReason>,
}

pub(crate) struct Seeder {
    pub(crate) config: ChokerConfig,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_connections: usize,
    connections: Vec<Option<Connection>>,
    generation: u32,
    choker: Choker,
    wheel: Wheel,
    /// Pieces of metadata that are being read: when they are there, for whom.
    metadata: Vec<(Time, PeerKey, u32)>,
}

impl Seeder {
    pub(crate) fn new(config: ChokerConfig, timeouts: Timeouts, max_connections: usize) -> Self {
        Self {
            config,
            timeouts,
            max_connections,
            connections: (0..max_connections).map(|_| None).collect(),
            generation: 0,
            choker: Choker::new(config),
            wheel: Wheel::new(Time(0)),
            metadata: Vec::new(),
        }
    }

    pub(crate) fn accept(&mut self, now: Time, link: usize, links: &mut [Link]) {
        let Some(index) = self.connections.iter().position(Option::is_none) else {
            links[link].closed = Some(CloseReason::AtCapacity);
            return;
        };
        self.generation += 1;
        let key = PeerKey {
            index: u32::try_from(index).unwrap(),
            generation: self.generation,
        };
        let mut deadlines = Deadlines::new(now);
        deadlines.arm(key, &self.timeouts, &mut self.wheel);
        self.connections[index] = Some(Connection {
            key,
            link,
            peer: Peer::new(),
            decoder: Decoder::new(),
            tail: Vec::new(),
            deadlines,
            parked_until: now,
            refused_since: None,
            opening_bytes: 0,
            close: None,
        });
    }

    pub(crate) fn turn(&mut self, now: Time, links: &mut [Link], random: &mut Rng) {
        let mut connections = std::mem::take(&mut self.connections);
        for connection in connections.iter_mut().flatten() {
            self.receive(now, connection, &mut links[connection.link], random);
        }
        self.collect(now, &mut connections);
        self.expire(now, &mut connections);
        self.rebalance(now, &mut connections);
        for connection in connections.iter_mut().flatten() {
            self.send(now, connection, &mut links[connection.link], random);
            let timeouts = &self.timeouts;
            let key = connection.key;
            connection.deadlines.arm(key, timeouts, &mut self.wheel);
        }
        for entry in &mut connections {
            if let Some(connection) = entry
                && let Some(reason) = connection.close
            {
                self.choker.disconnected(connection.key);
                links[connection.link].closed = Some(reason);
                *entry = None;
            }
        }
        self.connections = connections;
        self.check(now);
    }

    fn receive(
        &mut self,
        now: Time,
        connection: &mut Connection,
        link: &mut Link,
        random: &mut Rng,
    ) {
        if link.left {
            connection.close = Some(CloseReason::PeerClosed);
        }
        if connection.close.is_some() || connection.peer.is_backlogged() {
            return;
        }
        let tail_before = connection.tail.len();
        for part in link.to_seeder.read(now, random.usize(1..=READ_BYTES)) {
            match part {
                Part::Bytes(bytes) => connection.tail.extend_from_slice(&bytes),
                Part::Content(_) => unreachable!("leechers do not upload"),
            }
        }
        if connection.tail.len() == tail_before {
            return;
        }
        let input = std::mem::take(&mut connection.tail);
        let mut at = 0;
        let mut completed = false;
        loop {
            match connection.decoder.decode(&input[at..]) {
                Err(error) => {
                    connection.close = Some(error.into());
                    return;
                }
                Ok(Decoded::Incomplete { consumed }) => {
                    at += consumed;
                    break;
                }
                Ok(Decoded::Message { consumed, message }) => {
                    at += consumed;
                    completed = true;
                    if let Err(reason) = self.handle(now, connection, &message, random) {
                        connection.close = Some(reason);
                        return;
                    }
                }
            }
        }
        connection.tail.extend_from_slice(&input[at..]);
        let mid_message = !connection.tail.is_empty() || connection.decoder.mid_body();
        connection.deadlines.received(now, completed, mid_message);
    }

    fn handle(
        &mut self,
        now: Time,
        connection: &mut Connection,
        message: &Message<'_>,
        random: &mut Rng,
    ) -> Result<(), CloseReason> {
        let Connection {
            key,
            peer,
            deadlines,
            ..
        } = connection;
        let event = match *message {
            Message::Handshake {
                reserved,
                info_hash,
            } => {
                assert_eq!(info_hash, INFO_HASH);
                peer.handle_handshake(reserved, info_hash, OURS);
                Event::None
            }
            Message::PeerId(id) => {
                let mut extensions = Vec::new();
                encoder::extended(&mut extensions, 0, b"d1:md11:ut_metadatai1eee");
                peer.handle_peer_id(id, OURS, &SHAPE, &extensions)?;
                connection.opening_bytes = 600;
                deadlines.handshake_done(now);
                Event::None
            }
            _ => peer.handle_message(message, &SHAPE)?,
        };
        match event {
            Event::None => {}
            Event::Interested => self.choker.interested(*key),
            Event::NotInterested => {
                if self.choker.not_interested(*key, now) {
                    peer.choke();
                }
            }
            Event::Requested {
                newly_interested, ..
            } => {
                if newly_interested {
                    self.choker.interested(*key);
                }
                self.choker.requested(*key, now);
            }
            Event::MetadataRequested => self.read_metadata(now, connection, random),
        }
        let waiting = connection.peer.is_interested() && connection.peer.is_choked();
        connection.deadlines.waiting(waiting);
        Ok(())
    }

    fn read_metadata(&mut self, now: Time, connection: &mut Connection, random: &mut Rng) {
        while let Some(piece) = connection.peer.poll_metadata() {
            let ready = now.after(random.u64(0..2000));
            self.metadata.push((ready, connection.key, piece));
        }
    }

    fn collect(&mut self, now: Time, connections: &mut [Option<Connection>]) {
        let (ready, pending) = self.metadata.iter().partition(|(ready, ..)| *ready <= now);
        self.metadata = pending;
        let ready: Vec<_> = ready;
        for (_, key, piece) in ready {
            if let Some(connection) = find(connections, key) {
                let body = [0; 100];
                let body = (piece < 2).then_some(&body[..]);
                connection.peer.handle_metadata(piece, &SHAPE, body);
            }
        }
    }

    fn expire(&mut self, now: Time, connections: &mut [Option<Connection>]) {
        let mut due = Vec::new();
        self.wheel.expire(now, &mut due);
        for key in due {
            let Some(connection) = find(connections, key) else {
                continue;
            };
            if connection.deadlines.fired(now)
                && let Some(timer) = connection.deadlines.expired(now, &self.timeouts)
                && let Err(reason) = connection.peer.handle_timeout(timer)
            {
                connection.close = connection.close.or(Some(reason));
            }
        }
    }

    fn rebalance(&mut self, now: Time, connections: &mut [Option<Connection>]) {
        let house_full = connections.iter().all(Option::is_some);
        let mut verdicts = Vec::new();
        self.choker.rebalance(now, house_full, &mut verdicts);
        for verdict in verdicts {
            match verdict {
                Verdict::Unchoke(key) => {
                    let connection = find(connections, key).expect("the choker knows it");
                    connection.peer.unchoke();
                    connection.deadlines.waiting(false);
                }
                Verdict::Choke(key) => {
                    let connection = find(connections, key).expect("the choker knows it");
                    connection.peer.choke();
                    connection
                        .deadlines
                        .waiting(connection.peer.is_interested());
                }
                Verdict::Disconnect(key, reason) => {
                    let connection = find(connections, key).expect("the choker knows it");
                    connection.close = connection.close.or(Some(reason));
                }
            }
        }
        assert!(self.choker.unchoked() <= self.config.max_unchoked);
        assert!(self.choker.waiting() == 0 || self.choker.unchoked() == self.config.max_unchoked);
    }

    fn send(&mut self, now: Time, connection: &mut Connection, link: &mut Link, random: &mut Rng) {
        if connection.close.is_some() {
            return;
        }
        if let Err(reason) = fail_a_block(connection, random) {
            connection.close = Some(reason);
            return;
        }
        let parts = self.offer(now, connection);
        let offered: usize = parts.iter().map(Part::length).sum();
        if offered == 0 {
            let Connection {
                peer, deadlines, ..
            } = connection;
            if !peer.has_control() && !peer.has_blocks() {
                deadlines.nothing_waits();
                connection.refused_since = None;
            }
            return;
        }
        let taken = link.to_leecher.write(now, parts, random);
        let sent = connection.peer.handle_sent(taken);
        let credit = self.choker.credit_bytes(connection.key);
        self.choker.sent(connection.key, sent.payload_bytes, now);
        let left = self.choker.credit_bytes(connection.key);
        assert_eq!(left, credit.saturating_sub(sent.payload_bytes));
        if taken > 0 {
            connection.deadlines.sent(now, taken < offered);
            connection.refused_since = (taken < offered).then_some(now);
        } else {
            connection.deadlines.blocked(now);
            connection.refused_since = connection.refused_since.or(Some(now));
        }
        if random.u8(..) < 8 {
            connection.parked_until = now.after(random.u64(0..500));
        }
        self.read_metadata(now, connection, random);
    }

    /// The rest of the partial block, control bytes, and blocks as the credit and the disk allow.
    fn offer(&self, now: Time, connection: &Connection) -> Vec<Part> {
        let transmit = connection.peer.poll_transmit();
        let mut parts = Vec::new();
        if let Some((request, sent)) = transmit.partial {
            let header = encoder::piece_header(request);
            let sent = sent as usize;
            parts.push(Part::Bytes(header[sent.min(header.len())..].to_vec()));
            let content = request.length as usize + header.len() - sent.max(header.len());
            parts.push(Part::Content(content));
        }
        parts.push(Part::Bytes(transmit.control.to_vec()));
        let mut credit = self.choker.credit_bytes(connection.key);
        if connection.parked_until > now {
            credit = 0;
        }
        for request in transmit.blocks.take(BATCH) {
            if credit == 0 {
                break;
            }
            credit = credit.saturating_sub(u64::from(request.length));
            parts.push(Part::Bytes(encoder::piece_header(*request).to_vec()));
            parts.push(Part::Content(request.length as usize));
        }
        parts
    }

    /// What can be seen from inside and must hold after every turn.
    fn check(&self, now: Time) {
        let mut unchoked = 0;
        for connection in self.connections.iter().flatten() {
            let Connection { peer, .. } = connection;
            unchoked += usize::from(!peer.is_choked());
            assert!(peer.queue_length() <= REQQ);
            let control = peer.poll_transmit().control.len();
            let bound = CONTROL_LIMIT_BYTES + connection.opening_bytes + CONTROL_SLACK_BYTES;
            assert!(control <= bound, "{control} control bytes");
            let credit = self.choker.credit_bytes(connection.key);
            assert!(credit <= self.config.credit_bytes);
            assert!(credit == 0 || !peer.is_choked(), "credit without a slot");
            if let Some(since) = connection.refused_since {
                let limit = self.timeouts.write_ms + 1000 + crate::LONGEST_STEP_MS;
                assert!(now.since(since) <= limit, "never reads and stays");
            }
        }
        assert_eq!(unchoked, self.choker.unchoked());
        assert!(self.wheel.len() <= 20 * self.max_connections);
    }
}

fn find(connections: &mut [Option<Connection>], key: PeerKey) -> Option<&mut Connection> {
    let connection = connections.get_mut(key.index as usize)?.as_mut()?;
    (connection.key == key).then_some(connection)
}

/// Now and then the disk fails for the block that is next.
fn fail_a_block(connection: &mut Connection, random: &mut Rng) -> Result<(), CloseReason> {
    if random.u16(..) > 10 {
        return Ok(());
    }
    match connection.peer.poll_transmit().blocks.next().copied() {
        Some(request) => connection.peer.reject_block(request),
        None => Ok(()),
    }
}
