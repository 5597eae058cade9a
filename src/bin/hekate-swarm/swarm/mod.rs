//! The event loop of the swarm.
//!
//! The sockets of all leechers. A turn waits, reads readable sockets, then starts and closes leechers
//! that are due. The run ends by itself: leechers arrive at the given rate, then come the warm-up and the
//! window.

mod population;

use crate::cli::Load;
use crate::connection::{Connection, Context};
use crate::crowd::{Crowd, Numbers};
use crate::leecher::{Class, Leecher};
use crate::library::Library;
use crate::measure::{Ending, Measure};
use crate::verify::Verifier;
use mio::event::Event;
use mio::{Events, Poll, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Bytes read from one leecher before the next: 16 blocks and a little.
const TURN_BYTES: usize = 17 * 16_397;
/// Bytes read from all leechers before the next poll.
const READING_US: u64 = 500;
/// Between two checks for arrivals and departures.
const TICK_US: u64 = 2_000;
/// Between two keep-alives; seeders drop a silent peer after 120 s or more.
const KEEP_ALIVE_US: u64 = 60_000_000;
/// Events taken from the kernel in one turn.
const EVENTS: usize = 1024;

/// The phase of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Leechers are arriving.
    Arriving,
    /// All have arrived; the warm-up lasts until this time.
    WarmUp(u64),
    /// The measured window lasts until this time.
    Window(u64),
    /// The run has ended.
    Over,
}

/// All leechers and the event loop.
pub(crate) struct Swarm<'a> {
    options: &'a Load,
    library: &'a Library,
    verifier: Verifier,
    random: fastrand::Rng,
    poll: Poll,
    connections: Slab<Connection>,
    /// Leechers that may be readable, in the order of their events.
    ready: VecDeque<usize>,
    crowd: Crowd,
    pub(crate) measure: Measure,
    pub(crate) phase: Phase,
    start: Instant,
    next_tick_us: u64,
    next_keep_alive_us: u64,
    next_check_us: u64,
    slow_since_us: u64,
    window_since_us: u64,
    out: Vec<u8>,
}

impl<'a> Swarm<'a> {
    /// A swarm before the first arrival.
    pub(crate) fn new(options: &'a Load, library: &'a Library) -> io::Result<Swarm<'a>> {
        let return_after_us = options.return_after.map(|ms| ms * 1000);
        let numbers = Numbers::of(options);
        let crowd = Crowd::new(
            numbers,
            options.connect_rate,
            options.churn,
            return_after_us,
        );
        Ok(Swarm {
            options,
            library,
            verifier: Verifier::new(options.content.clone(), options.verify),
            random: fastrand::Rng::with_seed(options.seed),
            poll: Poll::new()?,
            connections: Slab::with_capacity(numbers.total()),
            ready: VecDeque::new(),
            crowd,
            measure: Measure::new(),
            phase: Phase::Arriving,
            start: Instant::now(),
            next_tick_us: 0,
            next_keep_alive_us: KEEP_ALIVE_US,
            next_check_us: 0,
            slow_since_us: 0,
            window_since_us: 0,
            out: Vec::new(),
        })
    }

    /// Microseconds since the run began.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Length of the window so far, in microseconds.
    pub(crate) fn window_us(&self) -> u64 {
        self.now_us() - self.window_since_us
    }

    /// One turn: at most a few milliseconds unless there is much to read.
    pub(crate) fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let now_us = self.now_us();
        let wait_us = if self.ready.is_empty() {
            self.next_tick_us.saturating_sub(now_us)
        } else {
            0
        };
        match self.poll.poll(events, Some(Duration::from_micros(wait_us))) {
            Err(problem) if problem.kind() != io::ErrorKind::Interrupted => return Err(problem),
            _ => {}
        }
        for event in events.iter() {
            self.note(event);
        }
        let until_us = self.now_us() + READING_US;
        while self.now_us() < until_us
            && let Some(key) = self.ready.pop_front()
        {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.queued = false;
            }
            self.receive(key);
        }
        let now_us = self.now_us();
        if now_us >= self.next_tick_us {
            self.next_tick_us = now_us + TICK_US;
            self.tick(now_us);
        }
        Ok(())
    }

    /// Leechers that wait for a handshake are read at once, the others queue: otherwise the time to the
    /// handshake would include reading from all others.
    fn note(&mut self, event: &Event) {
        let Token(key) = event.token();
        if event.is_writable() {
            self.serve(key, Connection::handle_writable);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let failed = event.is_error() || event.is_read_closed();
        connection.closing |= failed;
        if !event.is_readable() && !failed {
            return;
        }
        connection.readable = true;
        if connection.leecher.shaken() {
            self.enqueue(key);
        } else {
            self.receive(key);
        }
    }

    /// The bytes of each active leecher in the window, if it was connected throughout.
    pub(crate) fn shares(&self) -> impl Iterator<Item = u64> {
        let since_us = self.window_since_us;
        self.active()
            .filter(move |leecher| leecher.started_us() <= since_us && leecher.shaken())
            .map(|leecher| leecher.window_bytes)
    }

    /// Of the downloading leechers: how many are connected, unchoked, and have received a block.
    pub(crate) fn standing(&self) -> (usize, usize, usize) {
        let (mut connected, mut unchoked, mut served) = (0, 0, 0);
        for leecher in self.active().filter(|leecher| leecher.shaken()) {
            connected += 1;
            unchoked += usize::from(leecher.unchoked());
            served += usize::from(leecher.blocks > 0);
        }
        (connected, unchoked, served)
    }

    /// Established connections, of every kind.
    pub(crate) fn connected(&self) -> usize {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.leecher.shaken())
            .count()
    }

    fn active(&self) -> impl Iterator<Item = &Leecher> {
        self.connections
            .iter()
            .map(|(_, connection)| &connection.leecher)
            .filter(|leecher| leecher.plan.class == Class::Active)
    }

    fn receive(&mut self, key: usize) {
        self.serve(key, |connection, context| {
            connection.receive(TURN_BYTES, context)
        });
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let more = connection.readable && connection.allowance_bytes > 0;
        if more && !connection.leecher.stopped_reading() {
            self.enqueue(key);
        }
    }

    fn enqueue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.queued
        {
            connection.queued = true;
            self.ready.push_back(key);
        }
    }

    fn serve(
        &mut self,
        key: usize,
        act: impl FnOnce(&mut Connection, &mut Context<'_>) -> Result<(), Ending>,
    ) {
        let now_us = self.now_us();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let mut context = Context {
            now_us,
            measure: &mut self.measure,
            library: self.library,
            verifier: &mut self.verifier,
            random: &mut self.random,
            out: &mut self.out,
        };
        if let Err(ending) = act(connection, &mut context) {
            self.end(key, ending);
        }
    }

    fn end(&mut self, key: usize, ending: Ending) {
        let Some(connection) = self.connections.try_remove(key) else {
            return;
        };
        self.out.clear();
        self.measure.ended(ending);
        if !matches!(ending, Ending::Completed | Ending::Replaced) {
            let class = connection.leecher.plan.class;
            self.crowd.lost(class, self.now_us());
        }
    }
}

/// The buffer for the events of one turn.
pub(crate) fn events() -> Events {
    Events::with_capacity(EVENTS)
}
