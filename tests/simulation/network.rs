//! Links between leechers and the seeder: bounded, slow, and split anywhere.

use std::collections::VecDeque;

use fastrand::Rng;
use hekate::peer::close::CloseReason;
use hekate::timers::Time;

/// Part of a stream. The content of blocks is only counted, or the simulation would copy gigabytes.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    Content(usize),
}

impl Part {
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Content(length) => *length,
        }
    }

    /// Cuts off and returns what is beyond the first `length` bytes.
    fn split_off(&mut self, length: usize) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.split_off(length)),
            Self::Content(whole) => {
                let rest = *whole - length;
                *whole = length;
                Self::Content(rest)
            }
        }
    }
}

/// One direction of a connection: what was written can be read after the latency.
#[derive(Debug)]
pub(crate) struct Pipe {
    capacity: usize,
    latency_ms: u64,
    parts: VecDeque<(Time, Part)>,
    held: usize,
}

impl Pipe {
    fn new(capacity: usize, latency_ms: u64) -> Self {
        Self {
            capacity,
            latency_ms,
            parts: VecDeque::new(),
            held: 0,
        }
    }

    /// Takes as much of the parts as there is room for, or less; returns how much.
    pub(crate) fn write(&mut self, now: Time, parts: Vec<Part>, random: &mut Rng) -> usize {
        let mut room = self.capacity - self.held;
        if random.u8(..) < 64 {
            room = random.usize(0..=room);
        }
        let mut taken = 0;
        for mut part in parts {
            let length = part.length().min(room - taken);
            part.split_off(length);
            if length > 0 {
                self.parts.push_back((now.after(self.latency_ms), part));
            }
            taken += length;
        }
        self.held += taken;
        taken
    }

    /// Up to `limit` bytes that have arrived.
    pub(crate) fn read(&mut self, now: Time, mut limit: usize) -> Vec<Part> {
        let mut out = Vec::new();
        while limit > 0
            && let Some((arrives, part)) = self.parts.front_mut()
            && *arrives <= now
        {
            let length = part.length().min(limit);
            let rest = part.split_off(length);
            out.push(std::mem::replace(part, rest));
            if part.length() == 0 {
                self.parts.pop_front();
            }
            limit -= length;
            self.held -= length;
        }
        out
    }
}

/// A connection, as both sides see it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) to_seeder: Pipe,
    pub(crate) to_leecher: Pipe,
    pub(crate) latency_ms: u64,
    /// The seeder closed it.
    pub(crate) closed: Option<CloseReason>,
    /// The leecher closed it.
    pub(crate) left: bool,
}

impl Link {
    pub(crate) fn new(capacity: usize, random: &mut Rng) -> Self {
        let latency_ms = random.u64(1..200);
        Self {
            to_seeder: Pipe::new(random.usize(1000..20_000), latency_ms),
            to_leecher: Pipe::new(capacity, latency_ms),
            latency_ms,
            closed: None,
            left: false,
        }
    }
}
