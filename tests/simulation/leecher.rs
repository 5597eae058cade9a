//! Leechers of many characters. Each checks, from outside, what it is owed.

use std::collections::HashMap;

use fastrand::Rng;
use hekate::peer::close::CloseReason;
use hekate::timers::{Time, Timeouts};
use hekate::wire::encoder;
use hekate::wire::extension::{self, MetadataMessage};
use hekate::wire::message::Request;

use crate::LONGEST_STEP_MS;
use crate::network::{Link, Part};
use crate::seeder::{INFO_HASH, SHAPE};

/// How much a leecher has waiting for its link before it thinks of no more to say.
const OUT_LIMIT_BYTES: usize = 20_000;

/// Bytes in a millisecond at which a leecher reads all there is within a step or two.
const QUICK: usize = 400;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Asks for what it can take, and takes what it asked for.
    Good,
    /// Good, but cancels at random.
    Canceller,
    /// Good, but comes and goes.
    Leaver,
    /// Asks, and does not read what comes then.
    NeverReads,
    /// Is interested, and never asks.
    NeverAsks,
    /// Asks without end, choked or not.
    Floods,
    /// Is interested now and not then, and asks without saying so.
    Moody,
    /// Wants the info dictionary only.
    Metadata,
    /// Says nothing at all.
    Mute,
    /// Sends its handshake byte by byte.
    DripsHandshake,
    /// Sends a bitfield byte by byte.
    DripsMessage,
    /// Says nothing after its handshake.
    Quiet,
    /// Has everything.
    Seed,
}

pub(crate) const KINDS: [Kind; 13] = [
    Kind::Good,
    Kind::Canceller,
    Kind::Leaver,
    Kind::NeverReads,
    Kind::NeverAsks,
    Kind::Floods,
    Kind::Moody,
    Kind::Metadata,
    Kind::Mute,
    Kind::DripsHandshake,
    Kind::DripsMessage,
    Kind::Quiet,
    Kind::Seed,
];

/// What all leechers of one run must know.
pub(crate) struct Rules {
    pub(crate) timeouts: Timeouts,
    /// The longest time that a well-behaved leecher may go without a byte of a block.
    pub(crate) starved_ms: u64,
}

pub(crate) struct Leecher {
    pub(crate) kind: Kind,
    pub(crate) fast: bool,
    pub(crate) payload_bytes: u64,
    /// Bytes it reads in a millisecond.
    rate: usize,
    /// Requests it has in flight.
    depth: usize,
    block_bytes: u32,
    next_block: u32,
    pub(crate) session: Option<Session>,
    pub(crate) reconnect_at: Time,
}

/// One connection of a leecher.
pub(crate) struct Session {
    out: Vec<u8>,
    input: Vec<u8>,
    /// The block whose content is arriving, and how much of it is missing.
    arriving: Option<(Request, usize)>,
    greeted: bool,
    choked: bool,
    interested: bool,
    /// Requests without an answer. Without Fast some of them never get one.
    open: HashMap<Request, u32>,
    open_metadata: HashMap<u32, u32>,
    in_flight: usize,
    /// The beginning, or the last byte of a block.
    pub(crate) fed_at: Time,
    /// The beginning, or the last byte of any kind.
    heard_at: Time,
    /// When it was last choked, became interested, or connected.
    waits_since: Time,
    said_at: Time,
    must_be_gone_by: Time,
}

impl Leecher {
    pub(crate) fn new(kind: Kind, random: &mut Rng) -> Self {
        let slow = random.u8(..) < 64;
        let mut rate = if slow { 40 } else { QUICK };
        let mut block_bytes = 16 * 1024;
        let mut depth = if slow { 4 } else { random.usize(8..120) };
        match kind {
            Kind::NeverReads => rate = 0,
            Kind::Floods => (rate, block_bytes) = (100, 1024),
            Kind::Good | Kind::Canceller | Kind::Leaver | Kind::Moody if random.u8(..) < 16 => {
                (depth, block_bytes) = (4, 128 * 1024);
            }
            Kind::Good | Kind::Canceller | Kind::Leaver | Kind::Moody => {}
            _ => depth = 0,
        }
        Self {
            kind,
            fast: random.u8(..) < 192,
            payload_bytes: 0,
            rate,
            depth,
            block_bytes,
            next_block: random.u32(0..10_000),
            session: None,
            reconnect_at: Time(random.u64(0..20_000)),
        }
    }

    /// Bytes that its link may hold: less than what it reads in half a second.
    pub(crate) fn capacity(&self) -> usize {
        if self.rate < QUICK {
            16 * 1024
        } else {
            128 * 1024
        }
    }

    pub(crate) fn connect(&mut self, now: Time, rules: &Rules) {
        let mut session = Session {
            out: Vec::new(),
            input: Vec::new(),
            arriving: None,
            greeted: false,
            choked: true,
            interested: false,
            open: HashMap::new(),
            open_metadata: HashMap::new(),
            in_flight: 0,
            fed_at: now,
            heard_at: now,
            waits_since: now,
            said_at: now,
            must_be_gone_by: Time(u64::MAX),
        };
        let slack = 1000 + 3 * LONGEST_STEP_MS;
        let timeouts = &rules.timeouts;
        let out = &mut session.out;
        out.extend_from_slice(b"\x13BitTorrent protocol\0\0\0\0\0\x10\0");
        out.push(if self.fast { 4 } else { 0 });
        out.extend_from_slice(&INFO_HASH.0);
        out.extend_from_slice(b"-SIM000-abcdefghijkl");
        match self.kind {
            Kind::Mute | Kind::DripsHandshake => {
                session.must_be_gone_by = now.after(timeouts.handshake_ms + slack);
            }
            Kind::DripsMessage => {
                // All but the first bytes come one at a time.
                out.extend_from_slice(&[0, 0, 1, 0xf5, 5]);
                out.extend_from_slice(&[0; 500]);
                session.must_be_gone_by = now.after(timeouts.message_ms + slack);
            }
            Kind::Quiet => session.must_be_gone_by = now.after(timeouts.idle_ms + slack),
            Kind::Seed => {
                let ones = encoder::bitfield_full_head(out, SHAPE.pieces);
                out.resize(out.len() + ones, 0xff);
                encoder::bitfield_full_tail(out, SHAPE.pieces);
            }
            Kind::Metadata => {
                encoder::extended(out, 0, b"d1:md11:ut_metadatai3eee");
                for piece in 0..4 {
                    let request = format!("d8:msg_typei0e5:piecei{piece}ee");
                    encoder::extended(out, extension::OUR_UT_METADATA, request.as_bytes());
                    session.open_metadata.insert(piece, 1);
                }
            }
            _ => {}
        }
        if self.depth > 0 || self.kind == Kind::NeverAsks {
            session.say_interested(now, true);
        }
        self.session = Some(session);
    }

    /// Whether it wants blocks from its first message to its last.
    fn is_always_interested(&self) -> bool {
        match self.kind {
            Kind::Good
            | Kind::Canceller
            | Kind::Leaver
            | Kind::NeverReads
            | Kind::NeverAsks
            | Kind::Floods => true,
            Kind::Moody
            | Kind::Metadata
            | Kind::Mute
            | Kind::DripsHandshake
            | Kind::DripsMessage
            | Kind::Quiet
            | Kind::Seed => false,
        }
    }

    /// What ended the session may be its own doing, the turn of another, or a disk.
    pub(crate) fn closed(
        &mut self,
        now: Time,
        reason: CloseReason,
        draining: bool,
        random: &mut Rng,
    ) {
        let always = matches!(reason, CloseReason::AtCapacity | CloseReason::TurnOver | CloseReason::GaveWay)
            || reason == CloseReason::ContentFailed && !self.fast
            || reason == CloseReason::SlotUnused && draining
            // A free slot is given to whoever connects.
            || !self.is_always_interested()
                && matches!(
                    reason,
                    CloseReason::IdleAtCapacity | CloseReason::SlotUnused
                );
        let deserved = match self.kind {
            Kind::Good | Kind::Canceller | Kind::Metadata => false,
            Kind::Floods => reason == CloseReason::Flooded,
            Kind::Leaver => reason == CloseReason::PeerClosed,
            Kind::NeverReads => {
                matches!(reason, CloseReason::WriteTimeout | CloseReason::SlotUnused)
            }
            Kind::NeverAsks | Kind::Moody => reason == CloseReason::SlotUnused,
            Kind::Mute | Kind::DripsHandshake => reason == CloseReason::HandshakeTimeout,
            Kind::DripsMessage => reason == CloseReason::MessageTimeout,
            Kind::Quiet => reason == CloseReason::IdleTimeout,
            Kind::Seed => reason == CloseReason::PeerIsSeed,
        };
        assert!(always || deserved, "{:?} ended by {reason:?}", self.kind);
        self.session = None;
        self.reconnect_at = now.after(random.u64(100..10_000));
    }

    pub(crate) fn step(
        &mut self,
        now: Time,
        step_ms: u64,
        link: &mut Link,
        draining: bool,
        random: &mut Rng,
    ) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        let mut rate = self.rate;
        if self.kind == Kind::NeverReads && session.open.is_empty() {
            rate = 40;
        }
        if draining && rate > 0 {
            rate = 10_000;
        }
        let limit = rate * usize::try_from(step_ms).unwrap();
        for part in link.to_leecher.read(now, limit) {
            session.heard_at = now;
            match part {
                Part::Bytes(bytes) => session.read_bytes(now, &bytes, self.fast),
                Part::Content(length) => {
                    session.fed_at = now;
                    self.payload_bytes += length as u64;
                    session.read_content(length);
                }
            }
        }
        if self.kind == Kind::Leaver && random.u8(..) == 0 {
            link.left = true;
        }
        if session.greeted && !draining && session.out.len() < OUT_LIMIT_BYTES {
            self.act(now, &mut session, random);
        }
        let quiet = matches!(self.kind, Kind::Quiet | Kind::DripsMessage | Kind::Mute);
        if !quiet && now.since(session.said_at) > 10_000 && session.out.is_empty() {
            encoder::keep_alive(&mut session.out);
        }
        let length = match self.kind {
            Kind::Mute => 0,
            Kind::DripsHandshake => random.usize(0..=1),
            Kind::DripsMessage => session.out.len().saturating_sub(500).max(1),
            _ => session.out.len(),
        };
        let sent = session.out[..length.min(session.out.len())].to_vec();
        let taken = link.to_seeder.write(now, vec![Part::Bytes(sent)], random);
        session.out.drain(..taken);
        if taken > 0 {
            session.said_at = now;
        }
        if !session.out.is_empty() {
            // That it is interested may not have been heard.
            session.waits_since = now;
        }
        self.session = Some(session);
    }

    /// What it says, after its kind.
    fn act(&mut self, now: Time, session: &mut Session, random: &mut Rng) {
        if self.kind == Kind::Moody && random.u8(..) < 16 {
            let interested = random.bool();
            session.say_interested(now, interested);
        }
        let (ask_choked, depth) = match self.kind {
            Kind::Floods => (true, session.in_flight + 200),
            Kind::Moody => (random.u8(..) < 4, self.depth),
            _ => (false, self.depth),
        };
        while depth > session.in_flight
            && (ask_choked || !session.choked)
            && (session.interested || self.kind == Kind::Moody)
        {
            let per_piece = SHAPE.piece_length / self.block_bytes;
            let request = Request {
                index: self.next_block / per_piece % SHAPE.pieces,
                begin: self.next_block % per_piece * self.block_bytes,
                length: self.block_bytes,
            };
            self.next_block += 1;
            session.ask(6, request);
            *session.open.entry(request).or_default() += 1;
            session.in_flight += 1;
            if session.out.len() > OUT_LIMIT_BYTES {
                break;
            }
        }
        if self.kind == Kind::Canceller && random.u8(..) < 64 {
            let mut open: Vec<Request> = session.open.keys().copied().collect();
            open.sort_by_key(|request| (request.index, request.begin));
            if let Some(request) = random.choice(&open) {
                session.ask(8, *request);
                if !self.fast {
                    session.in_flight = session.in_flight.saturating_sub(1);
                }
            }
        }
    }

    /// What it is owed while it is connected.
    pub(crate) fn check(&self, now: Time, link: &Link, rules: &Rules, draining: bool) {
        let Some(session) = &self.session else {
            return;
        };
        let slack = 1000 + 4 * LONGEST_STEP_MS + 2 * link.latency_ms;
        assert!(
            now <= session.must_be_gone_by.after(link.latency_ms),
            "{:?} is still there",
            self.kind
        );
        if !session.greeted {
            return;
        }
        if matches!(self.kind, Kind::Good | Kind::Canceller) && !draining {
            let starved_ms = now.since(session.fed_at);
            assert!(
                starved_ms <= rules.starved_ms,
                "starved for {starved_ms} ms"
            );
        }
        if self.rate >= QUICK {
            let silent_ms = now.since(session.heard_at);
            let limit = rules.timeouts.keep_alive_ms + slack;
            assert!(silent_ms <= limit, "silence for {silent_ms} ms");
            if session.choked && session.interested {
                let silent_ms = now.since(session.heard_at.max(session.waits_since));
                let limit = rules.timeouts.waiting_keep_alive_ms + slack;
                assert!(
                    silent_ms <= limit,
                    "{:?} waited in silence for {silent_ms} ms {now:?} lat {} heard {:?} waits {:?} out {} fast {}",
                    self.kind,
                    link.latency_ms,
                    session.heard_at,
                    session.waits_since,
                    session.out.len(),
                    self.fast
                );
            }
        }
    }

    /// After it has asked for nothing for a while, and read all there was: nothing may be owed.
    pub(crate) fn check_answered(&self) {
        if let Some(session) = &self.session
            && session.greeted
            && self.rate > 0
        {
            assert!(session.open_metadata.is_empty(), "metadata unanswered");
            assert!(session.arriving.is_none(), "a block is half sent");
            if self.fast {
                let open = session.open.len();
                assert_eq!(open, 0, "{:?} has requests unanswered", self.kind);
            }
        }
    }
}

impl Session {
    fn say_interested(&mut self, now: Time, interested: bool) {
        self.out
            .extend_from_slice(&[0, 0, 0, 1, if interested { 2 } else { 3 }]);
        self.interested = interested;
        self.waits_since = now;
    }

    fn ask(&mut self, id: u8, request: Request) {
        self.out.extend_from_slice(&[0, 0, 0, 13, id]);
        for field in [request.index, request.begin, request.length] {
            self.out.extend_from_slice(&field.to_be_bytes());
        }
    }

    fn read_content(&mut self, length: usize) {
        let (request, missing) = self.arriving.expect("content follows a header");
        assert!(length <= missing, "more content than the header said");
        self.arriving = (length < missing).then_some((request, missing - length));
    }

    fn read_bytes(&mut self, now: Time, bytes: &[u8], fast: bool) {
        assert!(self.arriving.is_none(), "a message inside of a block");
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        if !self.greeted && input.len() >= 68 {
            assert_eq!(input[..20], *b"\x13BitTorrent protocol");
            assert_eq!(input[28..48], INFO_HASH.0);
            self.greeted = true;
            self.fed_at = now;
            at = 68;
        }
        while self.greeted && input.len() >= at + 4 {
            let frame = &input[at + 4..];
            let length = u32_at(&input, at);
            if length > 0 && frame.first() == Some(&7) {
                // The content comes by itself.
                if frame.len() < 9 {
                    break;
                }
                assert_eq!(frame.len(), 9, "bytes in the place of content");
                let request = Request {
                    index: u32_at(frame, 1),
                    begin: u32_at(frame, 5),
                    length: length - 9,
                };
                self.answered(request);
                self.arriving = Some((request, request.length as usize));
                at += 13;
                break;
            }
            let Some(message) = frame.get(..length as usize) else {
                break;
            };
            self.read_message(now, message, fast);
            at += 4 + length as usize;
        }
        self.input = input.split_off(at);
    }

    fn read_message(&mut self, now: Time, message: &[u8], fast: bool) {
        let Some((id, body)) = message.split_first() else {
            return;
        };
        match id {
            0 | 1 => {
                self.choked = *id == 0;
                self.waits_since = now;
                if !fast {
                    self.in_flight = 0;
                }
            }
            5 => assert!(
                !fast && body.len() == 500,
                "a bitfield is for those without Fast"
            ),
            14 => assert!(fast, "have-all is for those with Fast"),
            16 => {
                assert!(fast, "a reject without Fast");
                self.answered(Request {
                    index: u32_at(body, 0),
                    begin: u32_at(body, 4),
                    length: u32_at(body, 8),
                });
            }
            20 if body[0] == 3 => {
                let answer = extension::parse_metadata(&body[1..]).unwrap();
                let (piece, has_data) = match answer {
                    MetadataMessage::Data { piece } => (piece, true),
                    MetadataMessage::Reject { piece } => (piece, false),
                    other => panic!("{other:?}"),
                };
                assert_eq!(has_data, piece < 2);
                assert!(
                    self.open_metadata.remove(&piece).is_some(),
                    "answered twice"
                );
            }
            20 => assert_eq!(body[0], 0),
            other => panic!("message {other} from a seeder"),
        }
    }

    /// A request is answered; with Fast or without, never more often than it was made.
    fn answered(&mut self, request: Request) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let count = self
            .open
            .get_mut(&request)
            .expect("asked for, and not yet answered");
        *count -= 1;
        if *count == 0 {
            self.open.remove(&request);
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}
