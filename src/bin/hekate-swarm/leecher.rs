//! One leecher's side of the protocol.
//!
//! What was requested and when, and what to request next. Pure: received messages come in as [`Item`]s
//! with the time, and messages to send are appended to a buffer.

use crate::framing::Item;
use crate::measure::{Ending, Measure};
use crate::picker::Picker;
use hekate::wire::handshake::PROTOCOL;
use hekate::wire::message::{InfoHash, Request};
use std::collections::VecDeque;

/// How a leecher behaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    /// Requests and reads as fast as it can.
    Active,
    /// Requests, and reads at a limited rate.
    Slow,
    /// Requests as much as it may, and stops reading.
    Stalled,
    /// Sends its handshake and nothing else.
    Idle,
}

/// How many blocks a peer that stops reading requests: the queue that BEP 10 lets it assume.
const STALLED_PIPELINE: usize = 250;

/// Our reserved bytes: the extension protocol (BEP 10) and the fast extension (BEP 6).
const RESERVED: [u8; 8] = [0, 0, 0, 0, 0, 0x10, 0, 0x04];
/// The same without the fast extension.
const RESERVED_PLAIN: [u8; 8] = [0, 0, 0, 0, 0, 0x10, 0, 0];
/// The smallest handshake of the extension protocol that names a client.
const EXTENDED_HANDSHAKE: &[u8] = b"\x14\x00d1:mde1:v12:hekate-swarme";
const HAVE_NONE: u8 = 15;
const INTERESTED: u8 = 2;
const REQUEST: u8 = 6;

struct Asked {
    request: Request,
    at_us: u64,
}

/// The properties of one leecher.
pub(crate) struct Plan {
    pub(crate) class: Class,
    /// The torrent, as its index in the library.
    pub(crate) torrent: usize,
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: [u8; 20],
    /// How many requests are kept outstanding.
    pub(crate) pipeline: usize,
    /// How many of them must be answered before more are sent.
    pub(crate) refill: usize,
    /// Whether to offer the fast extension.
    pub(crate) fast: bool,
    /// Whether to leave when complete, rather than start over.
    pub(crate) leave: bool,
}

/// One leecher.
pub(crate) struct Leecher {
    pub(crate) plan: Plan,
    picker: Picker,
    started_us: u64,
    shaken: bool,
    fast: bool,
    choked: bool,
    ever_unchoked: bool,
    asked: VecDeque<Asked>,
    /// Rejected blocks, to be requested again.
    again: Vec<Request>,
    /// Whole blocks received.
    pub(crate) blocks: u64,
    /// Bytes of whole blocks received in the window.
    pub(crate) window_bytes: u64,
}

impl Leecher {
    /// A leecher that starts to connect now.
    pub(crate) fn new(mut plan: Plan, picker: Picker, now_us: u64) -> Leecher {
        if plan.class == Class::Stalled {
            plan.pipeline = STALLED_PIPELINE;
        }
        Leecher {
            plan,
            picker,
            started_us: now_us,
            shaken: false,
            fast: false,
            choked: true,
            ever_unchoked: false,
            asked: VecDeque::new(),
            again: Vec::new(),
            blocks: 0,
            window_bytes: 0,
        }
    }

    /// When connecting began, in microseconds.
    pub(crate) fn started_us(&self) -> u64 {
        self.started_us
    }

    /// True once the seeder's handshake has arrived.
    pub(crate) fn shaken(&self) -> bool {
        self.shaken
    }

    /// True while unchoked.
    pub(crate) fn unchoked(&self) -> bool {
        !self.choked
    }

    /// True once a stalled leecher has sent its requests and reads no more.
    pub(crate) fn stopped_reading(&self) -> bool {
        self.plan.class == Class::Stalled && self.ever_unchoked
    }

    /// The connection is established: appends our handshake.
    pub(crate) fn handle_connected(
        &mut self,
        now_us: u64,
        measure: &mut Measure,
        out: &mut Vec<u8>,
    ) {
        measure.counts.connected += 1;
        measure.to_connect.record(now_us - self.started_us);
        out.extend_from_slice(PROTOCOL);
        out.extend_from_slice(if self.plan.fast {
            &RESERVED
        } else {
            &RESERVED_PLAIN
        });
        out.extend_from_slice(&self.plan.info_hash.0);
        out.extend_from_slice(&self.plan.peer_id);
    }

    /// Handles one item. An error ends the connection.
    pub(crate) fn handle_item(
        &mut self,
        item: Item,
        now_us: u64,
        measure: &mut Measure,
        out: &mut Vec<u8>,
    ) -> Result<(), Ending> {
        match item {
            Item::Handshake { info_hash, fast } => {
                if info_hash != self.plan.info_hash {
                    return Err(Ending::Broken);
                }
                self.shaken = true;
                self.fast = fast && self.plan.fast;
                measure.counts.shaken += 1;
                measure.to_handshake.record(now_us - self.started_us);
                self.introduce(out);
            }
            Item::Choke => {
                self.choked = true;
                measure.counts.chokes += 1;
            }
            Item::Unchoke => self.handle_unchoke(now_us, measure, out),
            Item::Reject(request) => {
                measure.counts.rejected += 1;
                if self.forget(&request).is_some() {
                    self.again.push(request);
                }
            }
            Item::Block(_) => {
                if self.blocks == 0 {
                    measure.to_first_byte.record(now_us - self.started_us);
                }
            }
            Item::BlockEnd(request) => self.handle_block(&request, now_us, measure),
            Item::Other => {}
        }
        Ok(())
    }

    /// Requests more when enough requests were answered. Ends a leecher that is complete.
    pub(crate) fn refill(
        &mut self,
        now_us: u64,
        seed: impl FnOnce() -> u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Ending> {
        let dry = self.asked.len() + self.plan.refill <= self.plan.pipeline;
        if self.choked || self.plan.class == Class::Idle || !dry {
            return Ok(());
        }
        let mut seed = Some(seed);
        while self.asked.len() < self.plan.pipeline {
            let next = self.again.pop().or_else(|| self.picker.next_request());
            if let Some(request) = next {
                self.ask(request, now_us, out);
            } else if self.plan.leave {
                break;
            } else if let Some(seed) = seed.take() {
                self.picker.restart(seed());
            } else {
                break;
            }
        }
        if self.plan.leave && self.asked.is_empty() {
            return Err(Ending::Completed);
        }
        Ok(())
    }

    fn introduce(&mut self, out: &mut Vec<u8>) {
        if self.fast {
            message(HAVE_NONE, &[], out);
        }
        let (id, payload) = EXTENDED_HANDSHAKE.split_at(1);
        message(id.first().copied().unwrap_or_default(), payload, out);
        if self.plan.class != Class::Idle {
            message(INTERESTED, &[], out);
        }
    }

    fn handle_unchoke(&mut self, now_us: u64, measure: &mut Measure, out: &mut Vec<u8>) {
        self.choked = false;
        if !self.ever_unchoked {
            self.ever_unchoked = true;
            measure.counts.unchoked += 1;
            measure.to_unchoke.record(now_us - self.started_us);
        }
        // Without the fast extension the choke dropped what was asked for, silently.
        if !self.fast {
            for asked in std::mem::take(&mut self.asked) {
                self.ask(asked.request, now_us, out);
            }
        }
    }

    fn handle_block(&mut self, request: &Request, now_us: u64, measure: &mut Measure) {
        let asked_us = self.forget(request);
        if asked_us.is_none() {
            measure.counts.unexpected += 1;
        }
        self.blocks += 1;
        if measure.window {
            self.window_bytes += u64::from(request.length);
        }
        let latency_us = asked_us.map(|asked_us| now_us - asked_us);
        measure.block(request.length, latency_us, self.plan.class == Class::Active);
    }

    /// Removes a request and returns when it was sent. Seeders answer mostly in order, so the first is
    /// nearly always the right one.
    fn forget(&mut self, request: &Request) -> Option<u64> {
        let index = self
            .asked
            .iter()
            .position(|asked| asked.request == *request)?;
        self.asked.remove(index).map(|asked| asked.at_us)
    }

    fn ask(&mut self, request: Request, now_us: u64, out: &mut Vec<u8>) {
        let mut payload = [0; 12];
        let words = [request.index, request.begin, request.length];
        for (bytes, word) in payload.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        message(REQUEST, &payload, out);
        self.asked.push_back(Asked {
            request,
            at_us: now_us,
        });
    }
}

fn message(id: u8, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len() + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(id);
    out.extend_from_slice(payload);
}
