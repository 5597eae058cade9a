//! A session keeps its bounds and its protocol, whatever a peer sends and however its bytes are cut.
//!
//! The first byte says who connects and whether a handshake is put in front. What follows is a list of
//! steps: a byte that chooses the step, a byte for its size, and the bytes that the step receives.

use std::net::{IpAddr, Ipv4Addr};

use hekate::peer::close::CloseReason;
use hekate::peer::session::{
    BlockFailure, CONTROL_LIMIT_BYTES, Event, Introduction, Opening, Phase, REQQ, Session, Upload,
};
use hekate::timers::{Time, Timeouts};
use hekate::torrent::layout::{MAX_BLOCK_BYTES, Shape};
use hekate::wire::decoder::MAX_TAIL;
use hekate::wire::encoder::{PIECE_HEADER_LENGTH, piece_header};
use hekate::wire::handshake::{self, HANDSHAKE_LENGTH};
use hekate::wire::message::{InfoHash, PeerId};

const INFO_HASH: InfoHash = InfoHash([1; 20]);
const SHAPE: Shape = Shape {
    piece_length: 32 * 1024,
    pieces: 70,
    total_length: 69 * 32 * 1024 + 5,
    metadata_length: 20_000,
    private: false,
};
const OURS: Introduction = Introduction {
    peer_id: PeerId([2; 20]),
    port: 6881,
    your_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
};
/// The buffer that is read into. Each received byte provokes at most two bytes of answers.
const BUFFER_BYTES: usize = 2 * MAX_TAIL;
/// What a choke rejects, the pieces of metadata that were being read, and the opening.
const SLACK_BYTES: usize = 2 * BUFFER_BYTES + 17 * REQQ + 2 * 17_000 + 500;

/// The ids of the messages that a seeder sends (BEP 3, 6, 10).
mod id {
    pub(super) const CHOKE: u8 = 0;
    pub(super) const UNCHOKE: u8 = 1;
    pub(super) const BITFIELD: u8 = 5;
    pub(super) const PIECE: u8 = 7;
    pub(super) const HAVE_ALL: u8 = 14;
    pub(super) const REJECT: u8 = 16;
    pub(super) const EXTENDED: u8 = 20;
}

/// A session and its surroundings.
struct Driver {
    session: Session,
    now: Time,
    timeouts: Timeouts,
    buffer: Vec<u8>,
    /// What the peer was sent, except for the bodies of blocks, which are not the session's.
    sent: Vec<u8>,
    /// The choker's decision.
    is_unchoked: bool,
    is_open: bool,
    /// Pieces of metadata that are being read.
    metadata: Vec<u32>,
}

impl Driver {
    /// A step that ended the session ends the input.
    fn step(&mut self, kind: u8, size: u8, bytes: &mut &[u8]) -> Result<(), CloseReason> {
        match kind % 9 {
            0 => self.receive(usize::from(size) + 1, bytes)?,
            // Long parts, or most requests would be cut.
            1 => self.receive(usize::from(size) * 256 + 1, bytes)?,
            2 => self.send(usize::from(size) + 1),
            3 => self.send((usize::from(size) + 1) * 1024),
            4 => self.load()?,
            5 if self.is_open => match size % 2 {
                0 => {
                    self.session.unchoke();
                    self.is_unchoked = true;
                }
                _ => {
                    self.session.choke();
                    self.is_unchoked = false;
                }
            },
            6 => self.fail_a_block(size)?,
            7 => {
                self.now = self.now.after(u64::from(size) * 500);
                self.session.timeout(self.now, &self.timeouts)?;
                let is_due = self.session.poll_at(&self.timeouts) <= self.now;
                let has_output = self.session.has_control() || self.session.has_blocks();
                assert!(!is_due || has_output, "a deadline that stays due");
            }
            8 => self.answer_metadata(size),
            _ => {}
        }
        Ok(())
    }

    /// Reads a part of the input, if the session wants bytes.
    fn receive(&mut self, bytes: usize, input: &mut &[u8]) -> Result<(), CloseReason> {
        if !self.session.wants_bytes() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let free = self.session.prepare(&mut buffer);
        assert!(free.start < free.end, "a session that wants bytes has room");
        let (part, rest) = input.split_at(bytes.min(free.len()).min(input.len()));
        *input = rest;
        let end = free.start + part.len();
        buffer[free.start..end].copy_from_slice(part);
        let outcome = self.take(&buffer[..end]);
        self.buffer = buffer;
        outcome
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), CloseReason> {
        while let Some(event) = self.session.receive(&mut bytes, self.now, &OURS)? {
            match event {
                // The session holds back the rest of these bytes until the torrent is loaded.
                Event::TorrentWanted(INFO_HASH) => {
                    assert!(!self.is_open && !self.session.wants_bytes());
                }
                Event::TorrentWanted(_) => {
                    self.session.close(CloseReason::UnknownTorrent);
                    return Err(CloseReason::UnknownTorrent);
                }
                Event::Opened => {
                    assert!(!self.is_open, "a session opens once");
                    self.is_open = true;
                }
                Event::Interested
                | Event::NotInterested
                | Event::Requested { .. }
                | Event::HasPieces { .. }
                | Event::MetadataRequested => assert!(self.is_open),
            }
            if event == Event::NotInterested {
                self.session.choke();
                self.is_unchoked = false;
            }
        }
        Ok(())
    }

    /// The torrent is loaded, if it is awaited.
    fn load(&mut self) -> Result<(), CloseReason> {
        if !matches!(self.session.phase(), Phase::Loading(_)) {
            return Ok(());
        }
        let tail = self
            .session
            .torrent_loaded(SHAPE, Opening::Everything, OURS.peer_id);
        assert!(tail.len() <= HANDSHAKE_LENGTH);
        self.take(&tail)
    }

    /// The transport takes up to `bytes` of what is shown.
    fn send(&mut self, bytes: usize) {
        let transmit = self.session.poll_transmit();
        let mut left = bytes;
        let mut payload_bytes = 0;
        let block =
            |length: u32, sent: usize, sink: &mut Vec<u8>, header: &[u8], left: &mut usize| {
                let whole = PIECE_HEADER_LENGTH + length as usize;
                let end = whole.min(sent + *left);
                sink.extend(header.iter().take(end).skip(sent));
                *left -= end - sent;
                end.max(PIECE_HEADER_LENGTH) - sent.max(PIECE_HEADER_LENGTH)
            };
        if let Some((request, sent)) = transmit.partial {
            assert!(sent > 0 && (sent as usize) < PIECE_HEADER_LENGTH + request.length as usize);
            let header = piece_header(request);
            payload_bytes += block(
                request.length,
                sent as usize,
                &mut self.sent,
                &header,
                &mut left,
            );
        }
        let control = &transmit.control[..left.min(transmit.control.len())];
        self.sent.extend_from_slice(control);
        left -= control.len();
        for request in transmit.blocks {
            assert!(self.is_unchoked, "a choked peer gets no further block");
            assert!(SHAPE.accepts(request) && request.length <= MAX_BLOCK_BYTES);
            let header = piece_header(*request);
            payload_bytes += block(request.length, 0, &mut self.sent, &header, &mut left);
        }
        let taken = bytes - left;
        if taken > 0 {
            let sent = self.session.sent(taken, left == 0, self.now);
            assert_eq!(sent.payload_bytes, payload_bytes as u64);
        } else if bytes > 0 {
            self.session.nothing_to_write();
        }
    }

    fn fail_a_block(&mut self, size: u8) -> Result<(), CloseReason> {
        let request = self.session.poll_transmit().blocks.next().copied();
        let failure = match size % 2 {
            0 => BlockFailure::Unreadable,
            _ => BlockFailure::BadPiece,
        };
        match request {
            Some(request) => self.session.block_failed(request, failure),
            None => Ok(()),
        }
    }

    /// Reads pieces of metadata, and answers one.
    fn answer_metadata(&mut self, size: u8) {
        while let Some(piece) = self.session.poll_metadata() {
            assert!(piece < 2, "the info dictionary has two pieces");
            self.metadata.push(piece);
            assert!(self.metadata.len() <= 2, "two are read at a time");
        }
        if let Some(piece) = self.metadata.pop() {
            let body = [0; 100];
            let body = (!size.is_multiple_of(4)).then_some(&body[..]);
            self.session.metadata_loaded(piece, body);
        }
    }

    /// What holds after every step that did not end the session.
    fn check(&self) {
        assert!(!self.session.is_closing());
        assert!(self.session.queue_length() <= REQQ);
        let transmit = self.session.poll_transmit();
        let bound = CONTROL_LIMIT_BYTES + SLACK_BYTES;
        assert!(transmit.control.len() <= bound, "control bytes are bounded");
        assert_eq!(!transmit.control.is_empty(), self.session.has_control());
        let is_unchoked = matches!(self.session.upload(), Upload::Unchoked { .. });
        assert_eq!(is_unchoked, self.is_unchoked, "only the choker gives slots");
        assert_eq!(
            matches!(self.session.phase(), Phase::Open { .. }),
            self.is_open
        );
        if self.is_open {
            return;
        }
        assert!(!self.session.has_blocks(), "no blocks before the handshake");
        let ours = handshake::encode(INFO_HASH, OURS.peer_id);
        assert!(transmit.control.len() <= ours.len());
    }
}

/// Panics when it does not hold for these bytes.
pub fn check(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let session = match first % 2 {
        0 => Session::accepted(Time(0)),
        _ => Session::dialled(Time(0), INFO_HASH, OURS.peer_id),
    };
    // Most inputs would not get past the handshake.
    let greeting = handshake::encode(INFO_HASH, PeerId([3; 20]));
    let mut driver = Driver {
        session,
        now: Time(0),
        timeouts: Timeouts::default(),
        buffer: vec![0; BUFFER_BYTES],
        sent: Vec::new(),
        is_unchoked: false,
        is_open: false,
        metadata: Vec::new(),
    };
    let mut outcome = Ok(());
    if first & 2 > 0 {
        let mut greeting = &greeting[..];
        while outcome.is_ok() && !driver.is_open && !greeting.is_empty() {
            outcome = driver.receive(usize::from(first / 4) + 1, &mut greeting);
            if outcome.is_ok() {
                outcome = driver.load();
            }
        }
        assert!(driver.is_open, "a whole handshake opens a session");
    }
    while outcome.is_ok()
        && let [kind, size, bytes @ ..] = rest
    {
        rest = bytes;
        outcome = driver.step(*kind, *size, &mut rest);
        if outcome.is_ok() {
            driver.check();
        }
    }
    check_output(&driver.sent);
    let Err(reason) = outcome else { return };
    check_closing(&mut driver.session, reason, driver.is_open);
}

/// What a peer was sent is our handshake and legal messages: it learns once, and first, that we have
/// all pieces, and blocks come only between an unchoke and a choke.
fn check_output(sent: &[u8]) {
    let (ours, mut rest) = sent.split_at(HANDSHAKE_LENGTH.min(sent.len()));
    assert!(handshake::encode(INFO_HASH, OURS.peer_id).starts_with(ours));
    let mut is_first = true;
    let mut is_unchoked = false;
    while let [a, b, c, d, message @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(id) = message.first().filter(|_| length > 0) else {
            rest = message;
            continue;
        };
        let is_opening = matches!(*id, id::BITFIELD | id::HAVE_ALL);
        assert_eq!(is_opening, is_first, "message {id}");
        is_first = false;
        match *id {
            id::CHOKE | id::UNCHOKE => {
                assert_eq!(
                    *id == id::CHOKE,
                    is_unchoked,
                    "a change of the slot is sent once"
                );
                is_unchoked = !is_unchoked;
            }
            id::PIECE => assert!(is_unchoked, "a block without a slot"),
            id::BITFIELD | id::HAVE_ALL | id::REJECT | id::EXTENDED => {}
            other => panic!("a seeder does not send message {other}"),
        }
        let kept = match *id {
            // The bodies of blocks are left out.
            id::PIECE => PIECE_HEADER_LENGTH - 4,
            _ => length,
        };
        rest = message.get(kept..).unwrap_or_default();
    }
}

/// A session that ended takes nothing more, and its first reason stays.
fn check_closing(session: &mut Session, reason: CloseReason, was_open: bool) {
    assert!(session.is_closing() && !session.wants_bytes() && !session.wants_metadata());
    session.close(CloseReason::Shutdown);
    let Phase::Closing {
        reason: first,
        was_open: first_was_open,
    } = *session.phase()
    else {
        panic!("a session does not open again");
    };
    assert_eq!((first, first_was_open), (reason, was_open));
}
