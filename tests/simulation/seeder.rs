//! The event loop around the session and the choker: receive, expire, rebalance, send, close.
//!
//! It drives [`Session`] and [`Choker`] as the reactor does, over simulated links and a simulated disk
//! that delays some reads and fails others, and holds the invariants that can be seen from inside.

use std::net::{IpAddr, Ipv4Addr};

use fastrand::Rng;
use hekate::choker::origin::Origin;
use hekate::choker::{BLOCK_CHARGE_BYTES, Choker, ChokerConfig, Verdict};
use hekate::peer::close::CloseReason;
use hekate::peer::key::PeerKey;
use hekate::peer::session::{
    BlockFailure, CONTROL_LIMIT_BYTES, Event, Introduction, Opening, Phase, REQQ, Session, Upload,
};
use hekate::timers::{Alarm, Alarms, Time, Timeouts};
use hekate::torrent::layout::Shape;
use hekate::wire::encoder;
use hekate::wire::extension::METADATA_PIECE_LENGTH;
use hekate::wire::message::{InfoHash, PeerId};

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

/// What a leecher learns about the seeder.
const INTRODUCTION: Introduction = Introduction {
    peer_id: OURS,
    port: 6881,
    your_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
};

/// Blocks in one write.
const BATCH: usize = 16;
/// Bytes of one read.
const READ_BYTES: usize = 8 * 1024;
/// The buffer that is read into.
const BUFFER_BYTES: usize = 64 * 1024;
/// What the opening may add to the control bytes.
const OPENING_BYTES: usize = 800;
/// An answer, at most one and a half times as long as what it answers, for all of one read; the
/// rejects of a whole queue; and the pieces of metadata that were being read.
const CONTROL_SLACK_BYTES: usize = READ_BYTES * 3 / 2 + 5 + 17 * REQQ + 2 * 17_000;

struct Connection {
    key: PeerKey,
    link: usize,
    session: Session,
    alarm: Alarm,
    /// The torrent is loaded then, if the session waits for it.
    loaded_at: Time,
    /// The disk has the next block no sooner.
    parked_until: Time,
    /// Since when the link has taken nothing of what was offered.
    refused_since: Option<Time>,
}

pub(crate) struct Seeder {
    pub(crate) config: ChokerConfig,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_connections: usize,
    connections: Vec<Option<Connection>>,
    generation: u32,
    choker: Choker,
    alarms: Alarms,
    buffer: Vec<u8>,
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
            alarms: Alarms::new(Time(0)),
            buffer: vec![0; BUFFER_BYTES],
            metadata: Vec::new(),
        }
    }

    pub(crate) fn accept(&mut self, now: Time, link: usize, links: &mut [Link]) {
        let network = u32::try_from(link).unwrap() << 8;
        let origin = Origin::of(Ipv4Addr::from(network).into());
        if self.connections.iter().all(Option::is_some)
            && let Some((key, reason)) = self.choker.give_way(origin, now)
        {
            let loser = self.connections[key.index as usize].take();
            links[loser.expect("the choker knows it").link].closed = Some(reason);
        }
        let Some(index) = self.connections.iter().position(Option::is_none) else {
            links[link].closed = Some(CloseReason::AtCapacity);
            return;
        };
        self.generation += 1;
        let key = PeerKey {
            index: u32::try_from(index).unwrap(),
            generation: self.generation,
        };
        let mut connection = Connection {
            key,
            link,
            session: Session::accepted(now),
            alarm: Alarm::default(),
            loaded_at: now,
            parked_until: now,
            refused_since: None,
        };
        self.arm(&mut connection);
        self.choker.begun(key, origin, now);
        self.connections[index] = Some(connection);
    }

    fn arm(&mut self, connection: &mut Connection) {
        let at = connection.session.poll_at(&self.timeouts);
        connection.alarm.arm(at, connection.key, &mut self.alarms);
    }

    pub(crate) fn turn(&mut self, now: Time, links: &mut [Link], random: &mut Rng) {
        let mut connections = std::mem::take(&mut self.connections);
        for connection in connections.iter_mut().flatten() {
            let link = &mut links[connection.link];
            if let Err(reason) = self.receive(now, connection, link, random) {
                connection.session.close(reason);
            }
        }
        self.collect(now, &mut connections);
        self.expire(now, &mut connections);
        self.rebalance(now, &mut connections);
        for connection in connections.iter_mut().flatten() {
            let link = &mut links[connection.link];
            if !connection.session.is_closing()
                && let Err(reason) = self.send(now, connection, link, random)
            {
                connection.session.close(reason);
            }
            self.arm(connection);
        }
        for entry in &mut connections {
            if let Some(connection) = entry
                && let Phase::Closing { reason, .. } = *connection.session.phase()
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
    ) -> Result<(), CloseReason> {
        if link.left {
            return Err(CloseReason::PeerClosed);
        }
        if matches!(connection.session.phase(), Phase::Loading(_)) && connection.loaded_at <= now {
            let tail = connection
                .session
                .torrent_loaded(SHAPE, Opening::Everything, OURS);
            self.take(now, connection, &tail, random)?;
        }
        if !connection.session.wants_bytes() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let free = connection.session.prepare(&mut buffer);
        let mut filled = free.start;
        let limit = random.usize(1..=READ_BYTES).min(free.len());
        for part in link.to_seeder.read(now, limit) {
            match part {
                Part::Bytes(bytes) => {
                    buffer[filled..filled + bytes.len()].copy_from_slice(&bytes);
                    filled += bytes.len();
                }
                Part::Content(_) => unreachable!("leechers do not upload"),
            }
        }
        let outcome = match filled > free.start {
            true => self.take(now, connection, &buffer[..filled], random),
            false => Ok(()),
        };
        self.buffer = buffer;
        outcome
    }

    /// Hands bytes to the session, and carries out what they mean.
    fn take(
        &mut self,
        now: Time,
        connection: &mut Connection,
        bytes: &[u8],
        random: &mut Rng,
    ) -> Result<(), CloseReason> {
        let (key, mut bytes) = (connection.key, bytes);
        while let Some(event) = (connection.session).receive(&mut bytes, now, &INTRODUCTION)? {
            match event {
                Event::TorrentWanted(info_hash) => {
                    assert_eq!(info_hash, INFO_HASH);
                    if random.bool() {
                        let tail =
                            connection
                                .session
                                .torrent_loaded(SHAPE, Opening::Everything, OURS);
                        assert!(tail.is_empty(), "nothing was held back");
                    } else {
                        connection.loaded_at = now.after(random.u64(0..300));
                    }
                }
                Event::Opened => self.choker.connected(key, now),
                Event::Interested => self.choker.interested(key),
                Event::NotInterested => {
                    if self.choker.not_interested(key) {
                        connection.session.choke();
                    }
                }
                Event::Requested { bytes } => {
                    let reads = connection.refused_since.is_none();
                    self.choker.requested(key, bytes, reads, now);
                }
                Event::HasPieces { .. } => unreachable!("nobody asked for reports"),
                Event::MetadataRequested => {
                    self.choker.active(key, now);
                    self.read_metadata(now, connection, random);
                }
            }
        }
        Ok(())
    }

    fn read_metadata(&mut self, now: Time, connection: &mut Connection, random: &mut Rng) {
        while let Some(piece) = connection.session.poll_metadata() {
            let ready = now.after(random.u64(0..2000));
            self.metadata.push((ready, connection.key, piece));
        }
    }

    fn collect(&mut self, now: Time, connections: &mut [Option<Connection>]) {
        let (ready, pending) = self.metadata.iter().partition(|(ready, ..)| *ready <= now);
        self.metadata = pending;
        let ready: Vec<_> = ready;
        for (_, key, piece) in ready {
            if let Some(connection) = find(connections, key)
                && !connection.session.is_closing()
            {
                let body = [0; 100];
                let body = (piece < 2).then_some(&body[..]);
                connection.session.metadata_loaded(piece, body);
            }
        }
    }

    fn expire(&mut self, now: Time, connections: &mut [Option<Connection>]) {
        let mut due = Vec::new();
        self.alarms.expire(now, &mut due);
        for key in due {
            let Some(connection) = find(connections, key) else {
                continue;
            };
            if connection.alarm.fired(now) && !connection.session.is_closing() {
                // An error is remembered by the session.
                let _ = connection.session.timeout(now, &self.timeouts);
            }
        }
    }

    fn rebalance(&mut self, now: Time, connections: &mut [Option<Connection>]) {
        let open = connections.iter().flatten();
        let open = open.filter(|connection| !connection.session.is_closing());
        let at_capacity = open.count() == self.max_connections;
        let mut verdicts = Vec::new();
        self.choker.rebalance(now, at_capacity, &mut verdicts);
        for verdict in verdicts {
            let (Verdict::Unchoke(key)
            | Verdict::Renew(key)
            | Verdict::Choke(key)
            | Verdict::Disconnect(key, _)) = verdict;
            let session = &mut find(connections, key).expect("the choker knows it").session;
            match verdict {
                Verdict::Unchoke(_) => session.unchoke(),
                Verdict::Renew(_) => unreachable!("no term was set"),
                Verdict::Choke(_) => session.choke(),
                Verdict::Disconnect(_, reason) => session.close(reason),
            }
        }
        assert!(self.choker.unchoked() <= self.config.max_unchoked);
        assert!(self.choker.waiting() == 0 || self.choker.unchoked() == self.config.max_unchoked);
    }

    fn send(
        &mut self,
        now: Time,
        connection: &mut Connection,
        link: &mut Link,
        random: &mut Rng,
    ) -> Result<(), CloseReason> {
        fail_a_block(connection, random)?;
        let parts = self.offer(now, connection);
        let offered: usize = parts.iter().map(Part::length).sum();
        if offered == 0 {
            let session = &mut connection.session;
            if !session.has_control() && !session.has_blocks() {
                session.nothing_to_write();
                connection.refused_since = None;
            }
            return Ok(());
        }
        let taken = link.to_leecher.write(now, parts, random);
        if taken > 0 {
            let sent = connection.session.sent(taken, taken < offered, now);
            let credit = self.choker.credit_bytes(connection.key);
            (self.choker).sent(connection.key, sent.payload_bytes, sent.blocks, now);
            let left = self.choker.credit_bytes(connection.key);
            let charge = sent
                .payload_bytes
                .max(u64::from(sent.blocks) * BLOCK_CHARGE_BYTES);
            assert_eq!(left, credit.saturating_sub(charge));
            connection.refused_since = (taken < offered).then_some(now);
        } else {
            connection.session.write_blocked(now);
            connection.refused_since = connection.refused_since.or(Some(now));
        }
        if random.u8(..) < 8 {
            connection.parked_until = now.after(random.u64(0..500));
        }
        self.read_metadata(now, connection, random);
        Ok(())
    }

    /// The rest of the partial block, control bytes, and blocks as the credit and the disk allow.
    fn offer(&self, now: Time, connection: &Connection) -> Vec<Part> {
        let transmit = connection.session.poll_transmit();
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
            let session = &connection.session;
            let is_unchoked = matches!(session.upload(), Upload::Unchoked { .. });
            unchoked += usize::from(is_unchoked);
            assert!(session.queue_length() <= REQQ);
            let control = session.poll_transmit().control.len();
            let bound = CONTROL_LIMIT_BYTES + OPENING_BYTES + CONTROL_SLACK_BYTES;
            assert!(control <= bound, "{control} control bytes");
            let credit = self.choker.credit_bytes(connection.key);
            assert!(credit <= self.config.credit_bytes);
            assert!(credit == 0 || is_unchoked, "credit without a slot");
            if let Some(since) = connection.refused_since {
                let limit = self.timeouts.write_ms + 1000 + crate::LONGEST_STEP_MS;
                assert!(now.since(since) <= limit, "never reads and stays");
            }
        }
        assert_eq!(unchoked, self.choker.unchoked());
        assert!(self.alarms.entries() <= 20 * self.max_connections);
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
    match connection.session.poll_transmit().blocks.next().copied() {
        Some(request) => {
            let failure = BlockFailure::Unreadable;
            connection.session.block_failed(request, failure)
        }
        None => Ok(()),
    }
}
