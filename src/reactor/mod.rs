//! The loop. Owns mio, the slab of connections and every other part as plain fields.
//!
//! `Reactor::turn` names the program: wait, read the clock once, accept, receive what is
//! readable, collect what reader threads have done, speak to trackers, expire deadlines, rebalance upload slots, send
//! what is ready, close what was marked. Nothing but the wait blocks. Closing is deferred, so that
//! keys stay valid all turn. It imports everything and is imported by `main` and tests alone.

mod accept;
mod activity;
mod announcing;
mod connection;
mod connections;
mod dial;
mod listener;
mod loading;
mod outbox;
mod path;
mod reload;
mod report;
mod run_queue;
mod service;
mod shared;
mod signals;
mod stage;
mod start;
mod tokens;
mod transport;
mod update;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Waker};
use signal_hook_mio::v1_0::Signals;

use self::connection::{Connection, Gathered, Wait, Window, remember};
use self::connections::Connections;
use self::listener::{Bound, Listener};
use self::reload::Reload;
use self::report::PendingListing;
pub use self::service::Service;
use self::shared::Shared;
pub use self::signals::catch as catch_signals;
use self::tokens::Source;
use crate::choker::Verdict;
use crate::library::catalogue::live::Live;
use crate::logging;
use crate::metrics::LibrarySize;
use crate::peer::key::PeerKey;
use crate::peer::session::Phase;
use crate::status::server::{StatusError, StatusServer};
use crate::storage::{BadPiece, Completion};
use crate::timers::Time;

/// Events taken from the kernel in one turn; the rest stays there for the next.
const EVENTS_PER_TURN: usize = 1024;

/// Blocks sent in one turn, all peers together: about a millisecond on one core, so that whoever
/// knocks or asks meanwhile does not wait for a round of thousands.
const SEND_BYTES_PER_TURN: u64 = 4 << 20;

/// What one peer is sent at least in its turn when a rate is set: a usual block.
const SMALLEST_BUDGET_BYTES: u64 = 16 * 1024;

/// Why seeding could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address could not be listened on.
    #[error(transparent)]
    Listen(#[from] listener::ListenError),
    /// `--bind` and the families left no address.
    #[error("no address to listen on: --bind has no address of the chosen family")]
    NoAddress,
    /// More addresses than there are tokens for.
    #[error("--bind names more than {} addresses", tokens::MAX_LISTENERS)]
    TooManyAddresses,
    /// The status listener could not be opened.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// There is nothing to serve.
    #[error("{0}")]
    Library(String),
    /// The loop's own system calls failed.
    #[error("event loop: {0}")]
    Io(#[from] io::Error),
}

/// The seeder.
pub struct Reactor {
    poll: Poll,
    events: Events,
    signals: Signals,
    waker: Arc<Waker>,
    service: Service,
    reload: Option<Reload>,
    live: Option<Live>,
    /// There may be more updates of the library than were taken up.
    updates_wait: bool,
    /// Addresses that are taken, until they are listened on.
    bound: Vec<Bound>,
    listeners: Vec<Listener>,
    /// Accepting rests until then, after descriptors ran out.
    accept_rests_until: Option<Time>,
    /// When the log said so last.
    accept_rest_said: Option<Time>,
    status: Option<StatusServer>,
    /// Pages of torrents that are being read for clients of the status.
    listings: Vec<PendingListing>,
    library: LibrarySize,
    started: Instant,
    started_at: SystemTime,
    /// When the last wait was over.
    woke: Instant,
    /// Pages that the thread had waited for before it was the loop's.
    faults_before: u64,
    connections: Connections,
    /// How many the process may have.
    descriptors: usize,
    shared: Shared,
    woken: bool,
    signalled: bool,
    /// A stop was asked for, and takes until then at most.
    stop_until: Option<Time>,
}

impl Reactor {
    /// Turns until SIGTERM or SIGINT, and until peers have been let go then.
    ///
    /// # Errors
    ///
    /// When waiting for events fails, which the kernel gives no reason to expect.
    pub fn run(&mut self) -> Result<(), RunError> {
        while !self.has_stopped() {
            self.turn()?;
        }
        self.shared.storage.end();
        let counters = &self.shared.counters;
        log::info!(
            "stopped: {} peers accepted, {} blocks and {} bytes sent",
            counters.accepted,
            counters.blocks,
            counters.payload_bytes
        );
        Ok(())
    }

    fn turn(&mut self) -> Result<(), RunError> {
        self.wait()?;
        self.attend()?;
        self.accept();
        self.refuse_utp();
        self.receive();
        self.collect();
        self.announce();
        self.expire();
        self.rebalance();
        self.send();
        self.let_go();
        self.close();
        let took_us = u64::try_from(self.woke.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.counters.turns.record(took_us);
        Ok(())
    }

    /// Does what is asked from outside: by signals, or by the time.
    fn attend(&mut self) -> Result<(), RunError> {
        if std::mem::take(&mut self.signalled) {
            self.handle_signals();
        }
        self.finish_reload();
        self.update()?;
        self.serve_status();
        let (torrents, peers) = (self.library.torrents, self.connections.len());
        let indexed_files = self.indexed_files();
        self.service.tend(self.shared.now, || match indexed_files {
            Some(files) => format!("indexing, {files} files so far"),
            None => format!("{torrents} torrents, {peers} peers"),
        });
        Ok(())
    }

    /// Waits for events or the nearest deadline, reads the clock and sets the latches.
    fn wait(&mut self) -> Result<(), RunError> {
        let timeout = self.timeout();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        self.woke = Instant::now();
        let elapsed_ms = self.woke.duration_since(self.started).as_millis();
        self.shared.now = Time(u64::try_from(elapsed_ms).unwrap_or(u64::MAX));
        let (now, sum) = (self.shared.now, self.shared.counters.payload_bytes);
        self.shared.history.note(now, sum);
        for event in &self.events {
            match Source::of(event.token()) {
                Source::Waker => self.woken = true,
                Source::Signals => self.signalled = true,
                Source::Listener(number) => {
                    if let Some(listener) = self.listeners.get_mut(number) {
                        listener.readable = true;
                    }
                }
                Source::Utp(number) => {
                    if let Some(listener) = self.listeners.get_mut(number) {
                        listener.utp_readable = true;
                    }
                }
                Source::Tracker(number) => self.shared.announcing.handle_event(number, event),
                Source::Status => {
                    if let Some(status) = &mut self.status {
                        status.listener_ready();
                    }
                }
                Source::StatusClient(number) => {
                    if let Some(status) = &mut self.status {
                        status.client_ready(number);
                    }
                }
                Source::Peer(key) => {
                    self.connections
                        .visit(key, &mut self.shared, |connection, _| {
                            connection.transport.handle_event(event);
                            Ok(())
                        });
                }
            }
        }
        Ok(())
    }

    /// How long the kernel may hold us: not at all when work is left over.
    fn timeout(&mut self) -> Option<Duration> {
        let resting = self.accept_rests_until.is_some();
        let accepts_wait = !resting && self.listeners.iter().any(|listener| listener.readable);
        let utp_waits = self.listeners.iter().any(|listener| listener.utp_readable);
        if accepts_wait || utp_waits || self.updates_wait || !self.connections.run_queue.is_empty()
        {
            return Some(Duration::ZERO);
        }
        let shared = &mut self.shared;
        let announces = shared.announcing.next();
        if announces.is_some_and(|at| at <= shared.now) {
            return Some(Duration::ZERO);
        }
        let throttled =
            self.connections.run_queue.is_throttled() || !shared.metadata_waits.is_empty();
        let refill = match throttled {
            true => shared.bucket.poll_at(shared.now, SMALLEST_BUDGET_BYTES),
            false => None,
        };
        let at_capacity = self.connections.is_at_capacity();
        [
            shared.wheel.poll_at(),
            shared.choker.poll_at(at_capacity),
            refill,
            self.connections.run_queue.stalled_until(),
            self.accept_rests_until,
            announces,
            shared.dialer.next(),
            self.service.next(),
            shared.storage.next(),
            self.status.as_ref().and_then(StatusServer::poll_at),
            self.stop_until.filter(|_| !self.connections.is_empty()),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at| Duration::from_millis(at.since(shared.now).saturating_add(1)))
    }

    fn receive(&mut self) {
        for _ in 0..self.connections.run_queue.receivers() {
            let Some(key) = self.connections.run_queue.next_receiver() else {
                break;
            };
            if !self.connections.defer(key) {
                self.connections
                    .visit(key, &mut self.shared, Connection::receive);
            }
        }
    }

    /// Hands out what the reader threads have done.
    fn collect(&mut self) {
        let run_queue = &mut self.connections.run_queue;
        run_queue.release_stalled(self.woken, self.shared.now);
        if !std::mem::take(&mut self.woken) {
            return;
        }
        let mut completions = Vec::new();
        self.shared
            .storage
            .collect(self.shared.now, &mut completions);
        for completion in completions {
            if let Some(error) = completion.failure() {
                // Each file is tried again only seconds later, so this cannot flood the log.
                log::warn!("cannot serve content: {error}");
            }
            match completion {
                Completion::Read {
                    peers,
                    key: file,
                    range,
                    result,
                } => {
                    // A reader has read it in: it is sent without asking again.
                    let read = result.is_ok().then_some((file.file, range));
                    self.unpark_readers(&peers, read.as_ref());
                }
                Completion::Gathered {
                    peer,
                    offset,
                    length,
                    result,
                } => {
                    self.unpark(peer, |connection, _| {
                        let bytes = result.unwrap_or_default();
                        connection.gathered = Some(Arc::new(Gathered {
                            offset,
                            length,
                            bytes,
                        }));
                    });
                }
                Completion::Piece {
                    peers,
                    torrent,
                    piece,
                    result,
                } => {
                    if let Ok(false) = result {
                        let torrent = &torrent;
                        let bad = BadPiece { torrent, piece };
                        // Once for each change of its files, so that each line counts.
                        log::warn!(target: logging::EACH_COUNTS, "not served: {bad}");
                    }
                    for key in peers {
                        self.unpark(key, |_, _| {});
                    }
                }
                Completion::Metadata {
                    peer,
                    piece,
                    result,
                } => {
                    self.shared.metadata_reading -= 1;
                    let body = result.as_deref().ok();
                    self.hand_metadata(peer, piece, body);
                }
            }
        }
        self.finish_loads();
    }

    /// Hands a piece of the info dictionary to the peer that asked for it.
    fn hand_metadata(&mut self, peer: PeerKey, piece: u32, body: Option<&[u8]>) {
        self.connections
            .visit(peer, &mut self.shared, |connection, shared| {
                connection.session.metadata_loaded(piece, body);
                connection.fetch_metadata(shared);
                Ok(())
            });
    }

    /// Lets those go on who waited for a range, remembering what was read of which file.
    fn unpark_readers(&mut self, peers: &[PeerKey], read: Option<&(u32, Range<u64>)>) {
        for &key in peers {
            self.unpark(key, |connection, seen| {
                if let Some((file, range)) = read {
                    let (file, range) = (*file, range.clone());
                    remember(&mut connection.windows, Window { file, range, seen });
                }
            });
        }
    }

    /// Speaks to the trackers.
    fn announce(&mut self) {
        self.shared.announcing.turn(self.shared.now);
        self.dial();
    }

    /// A reader has done what a connection waited for.
    fn unpark(&mut self, key: PeerKey, change: impl FnOnce(&mut Connection, Time)) {
        self.connections
            .visit(key, &mut self.shared, |connection, shared| {
                assert_eq!(connection.wait, Wait::Reader, "a reader works for it");
                connection.wait = Wait::Nothing;
                change(connection, shared.now);
                Ok(())
            });
    }

    fn expire(&mut self) {
        let now = self.shared.now;
        self.shared.storage.tend(now);
        let mut due = Vec::new();
        self.shared.wheel.expire(now, &mut due);
        for key in due {
            self.connections
                .visit(
                    key,
                    &mut self.shared,
                    |connection, shared| match connection.alarm.fired(now) {
                        true => connection.session.timeout(now, &shared.timeouts),
                        false => Ok(()),
                    },
                );
        }
    }

    /// Carries out what the choker decides.
    fn rebalance(&mut self) {
        let at_capacity = self.connections.is_at_capacity();
        let mut verdicts = Vec::new();
        let shared = &mut self.shared;
        shared
            .choker
            .rebalance(shared.now, at_capacity, &mut verdicts);
        for verdict in verdicts {
            let (Verdict::Unchoke(key) | Verdict::Choke(key) | Verdict::Disconnect(key, _)) =
                verdict;
            self.connections.visit(key, shared, |connection, _| {
                match verdict {
                    Verdict::Unchoke(_) => connection.session.unchoke(),
                    Verdict::Choke(_) => connection.choke(),
                    Verdict::Disconnect(_, reason) => return Err(reason),
                }
                Ok(())
            });
        }
    }

    /// Has metadata read for those who wait in line, as far as the rate limit has something for them.
    fn release_metadata(&mut self) {
        while self.shared.metadata_may_go() {
            let Some(key) = self.shared.metadata_waits.pop_front() else {
                break;
            };
            self.connections
                .visit(key, &mut self.shared, |connection, shared| {
                    connection.queued.for_metadata = false;
                    connection.fetch_metadata(shared);
                    Ok(())
                });
        }
    }

    /// Sends control bytes first, then blocks, round the connections and no more than a turn may take.
    fn send(&mut self) {
        self.release_metadata();
        while let Some(key) = self.connections.run_queue.next_control() {
            self.send_to(key, 0);
        }
        let now = self.shared.now;
        if self.shared.bucket.available(now) >= SMALLEST_BUDGET_BYTES {
            self.connections.run_queue.release_throttled();
        }
        let before_bytes = self.shared.counters.payload_bytes;
        for remaining in (1..=self.connections.run_queue.senders()).rev() {
            let sent_bytes = self.shared.counters.payload_bytes - before_bytes;
            if sent_bytes >= SEND_BYTES_PER_TURN {
                break;
            }
            let Some(key) = self.connections.run_queue.next_sender() else {
                break;
            };
            let available_bytes = self.shared.bucket.available(now);
            if available_bytes < SMALLEST_BUDGET_BYTES {
                self.throttle(key);
                continue;
            }
            // A share of what the rate allows, so that those behind get theirs in the same turn.
            let share_bytes = available_bytes / remaining as u64;
            let credit_bytes = self.shared.choker.credit_bytes(key);
            self.send_to(
                key,
                share_bytes.max(SMALLEST_BUDGET_BYTES).min(credit_bytes),
            );
        }
        // The last batch would keep its files mapped until the next.
        self.shared.outbox.clear();
        self.shared.bodies.clear();
    }

    fn send_to(&mut self, key: PeerKey, budget_bytes: u64) {
        self.connections
            .visit(key, &mut self.shared, |connection, shared| {
                connection.send(shared, budget_bytes)
            });
    }

    /// The rate limit has nothing for this connection. Control bytes go out at any rate.
    fn throttle(&mut self, key: PeerKey) {
        self.connections
            .visit(key, &mut self.shared, |connection, shared| {
                if connection.has_control_to_send() || connection.wait == Wait::Reader {
                    return connection.send(shared, 0);
                }
                connection.queued.to_send = false;
                connection.wait = Wait::Rate;
                Ok(())
            });
    }

    /// Drops the connections that are to be closed. The kernel forgets a descriptor that is closed.
    fn close(&mut self) {
        while let Some(mut connection) = self.connections.take_closing() {
            let Phase::Closing { reason, was_open } = *connection.session.phase() else {
                unreachable!("only a closing session is taken");
            };
            let shared = &mut self.shared;
            shared.choker.disconnected(connection.key);
            if let Some(slot) = connection.active_slot
                && let Some(torrent) = shared.activity.leave(slot)
            {
                shared.announcing.left(&torrent);
            }
            if let Some(called) = connection.called.take() {
                shared.counters.calls_failed += u64::from(!was_open);
                shared.dialer.ended(&called, was_open, reason, shared.now);
            }
            shared.counters.ended(reason);
            shared.counters.rejected += u64::from(connection.session.take_rejected());
            log::debug!("{}: {reason}", connection.transport.address());
        }
    }
}
