//! The loop. Owns mio, the slab of connections and every other part as plain fields.
//!
//! [`Reactor::run`] repeats a turn: wait, read the clock once, attend to the process, accept, receive,
//! collect the results of threads, announce, expire deadlines, rebalance upload slots, send, close.
//! Only the wait blocks.

mod activity;
mod announcing;
mod connection;
mod connections;
mod dial;
mod encryption;
mod host;
mod hung;
mod key_exchanges;
mod lifecycle;
mod listener;
mod loading;
mod metadata;
mod outbox;
mod path;
mod reload;
mod report;
mod resident;
mod run_queue;
mod shared;
mod signals;
mod slots;
mod stage;
mod tokens;
mod transport;
mod update;

use std::io;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::net::TcpStream;
use mio::{Events, Poll, Waker};
use rustix::time::{ClockId, clock_gettime};
use signal_hook_mio::v1_0::Signals;

use self::connection::{Connection, Wait};
use self::connections::Connections;
use self::dial::{Attempt, BackoffReason, Dialled};
pub use self::host::Host;
use self::hung::HungDisks;
pub use self::lifecycle::Bound;
use self::lifecycle::Phase;
use self::listener::Acceptor;
use self::loading::{Finished, LoadOutcome, PendingLoad};
use self::outbox::Gathered;
use self::reload::Reload;
use self::report::{Report, StatusService};
use self::run_queue::RunQueue;
use self::shared::{Process, Shared};
use self::signals::SignalRequest;
pub use self::signals::catch as catch_signals;
use self::slots::SlotControl;
use self::tokens::Source;
use self::transport::Transport;
use crate::choker::Verdict;
use crate::library::catalogue::live::{Live, Update};
use crate::library::catalogue::lookup::{LoadError, Loaded};
use crate::library::index::Counts;
use crate::logging;
use crate::metrics::{self, LibrarySize};
use crate::net;
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::peer::session::{self, Session};
use crate::status::server::StatusError;
use crate::storage::{BadPiece, Completion};
use crate::timers::Time;

/// Events taken from the kernel in one turn. The rest stays with the kernel until the next.
const EVENTS_PER_TURN: usize = 1024;

/// Bytes of blocks sent in one turn to all peers: about a millisecond on one core, so that new
/// connections and requests do not wait for a round of thousands.
const SEND_BYTES_PER_TURN: u64 = 4 << 20;

/// How long a turn may receive, send control bytes, send blocks or close connections, each: what is left
/// over continues in the next turn, so that peers that flood us cost the others a few milliseconds.
const TIME_FOR_EACH_STEP: Duration = Duration::from_millis(1);

/// The smallest share of one peer when a rate is set: a usual block.
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
    /// The library's thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The loop's own system calls failed.
    #[error("event loop: {0}")]
    Io(#[from] io::Error),
}

/// The seeder: one loop. A second loop would have all of it again, but for `control`,
/// `status` and `Shared::process`.
pub struct Reactor {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    /// A thread has woken the loop.
    is_woken: bool,
    started: Instant,
    /// When the last wait was over.
    woke: Instant,
    /// The processor time of this thread when the last turn ended.
    cpu: Duration,
    acceptor: Acceptor,
    connections: Connections,
    shared: Shared,
    control: Control,
    status: Option<StatusService>,
    /// Decides the number of slots, unless it is configured.
    slots: Option<SlotControl>,
}

/// What one loop does for the process: signals, reloads, the library's updates.
struct Control {
    phase: Phase,
    host: Host,
    signals: Signals,
    is_signalled: bool,
    reload: Option<Reload>,
    live: Option<Live>,
    /// The library may have more updates than were applied.
    has_updates: bool,
    library: LibrarySize,
    hung: HungDisks,
    started_at: SystemTime,
    /// Major page faults of the thread before it was the loop's.
    faults_before: u64,
    /// The limit of the process.
    descriptors: usize,
}

impl Control {
    fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// The phase as the status shows it.
    fn reported_phase(&self) -> metrics::Phase {
        match self.phase {
            Phase::Starting(_) if self.indexed_files().is_some() => metrics::Phase::Indexing,
            Phase::Starting(_) => metrics::Phase::Starting,
            Phase::Serving => metrics::Phase::Serving,
            Phase::Stopping { .. } => metrics::Phase::Stopping,
        }
    }

    /// Files that the first scan has read so far.
    fn indexed_files(&self) -> Option<u64> {
        match self.phase {
            Phase::Starting(_) => self.live.as_ref()?.indexed_files(),
            Phase::Serving | Phase::Stopping { .. } => None,
        }
    }

    fn count(&mut self, counts: Counts) {
        self.library = LibrarySize {
            torrents: counts.served,
            refused: counts.refused,
        };
    }
}

impl Reactor {
    /// Repeats turns until SIGTERM or SIGINT, and until peers are disconnected then.
    ///
    /// # Errors
    ///
    /// When waiting for events fails, which the kernel gives no reason to expect, or there is no
    /// library to serve.
    pub fn run(&mut self) -> Result<(), RunError> {
        while !self.has_stopped() {
            self.turn()?;
        }
        self.shared.process.storage.end();
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
        self.acceptor.refuse_utp();
        self.receive();
        self.exchange_keys();
        self.collect();
        self.announce();
        self.expire();
        if let Some(slots) = &mut self.slots {
            slots.run_due(&self.connections, &mut self.shared);
        }
        self.rebalance();
        self.reveal();
        self.send();
        self.close_finished();
        self.close();
        let took_us = u64::try_from(self.woke.elapsed().as_micros()).unwrap_or(u64::MAX);
        let cpu = thread_cpu_time();
        let had = cpu.saturating_sub(mem::replace(&mut self.cpu, cpu));
        let had_us = u64::try_from(had.as_micros()).unwrap_or(u64::MAX);
        self.shared.counters.turns.record(took_us);
        self.shared.counters.turns_cpu.record(had_us);
        Ok(())
    }

    /// Handles signals, the library's updates, clients of the status, and the service manager.
    fn attend(&mut self) -> Result<(), RunError> {
        if mem::take(&mut self.control.is_signalled) {
            for request in signals::pending(&mut self.control.signals) {
                match request {
                    SignalRequest::Stop => self.begin_stop(),
                    SignalRequest::Reload => self.begin_reload(),
                    SignalRequest::ReopenLog => self.control.host.reopen_log(),
                }
            }
        }
        self.finish_reload();
        self.update()?;
        self.serve_status();
        let indexed_files = self.control.indexed_files();
        let (torrents, peers) = (self.control.library.torrents, self.connections.len());
        let host = &mut self.control.host;
        host.run_due(self.shared.now, || match indexed_files {
            Some(files) => format!("indexing, {files} files so far"),
            None => format!("{torrents} torrents, {peers} peers"),
        });
        Ok(())
    }

    /// Applies at most one update of the library, so that peers do not wait for several.
    fn update(&mut self) -> Result<(), RunError> {
        let update = match &self.control.live {
            Some(live) if !self.control.is_stopping() => live.update(),
            _ => None,
        };
        self.control.has_updates = update.is_some();
        match update {
            None => {}
            Some(Update::Failed(message)) => return Err(RunError::Library(message)),
            Some(Update::Snapshot(new)) => {
                let counts = new.counts;
                if let Phase::Starting(_) = self.control.phase {
                    update::first_snapshot(&mut self.shared, new);
                    return self.listen(counts);
                }
                update::replace_snapshot(&mut self.shared, new);
                self.control.count(counts);
            }
            Some(Update::Changes {
                changes,
                in_snapshot,
                counts,
            }) => {
                self.control.count(counts);
                let (connections, shared) = (&mut self.connections, &mut self.shared);
                update::apply_changes(connections, shared, changes, in_snapshot);
            }
        }
        Ok(())
    }

    fn serve_status(&mut self) {
        let Some(status) = &mut self.status else {
            return;
        };
        let report = Report {
            connections: &self.connections,
            shared: &self.shared,
            phase: self.control.reported_phase(),
            indexed_files: self.control.indexed_files(),
            library: self.control.library,
            hung: &self.control.hung,
            started_at: self.control.started_at,
            faults_before: self.control.faults_before,
        };
        status.serve(self.poll.registry(), &self.waker, &report);
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
        let shared = &mut self.shared;
        shared.now =
            Time(u64::try_from(elapsed_ms).expect("a process ends before 500 million years"));
        let sent_bytes = shared.counters.payload_bytes;
        shared.process.history.record(shared.now, sent_bytes);
        for event in &self.events {
            match Source::of(event.token()) {
                Source::Waker => self.is_woken = true,
                Source::Signals => self.control.is_signalled = true,
                Source::Mounts => shared.process.disks.update(),
                Source::Network => shared.process.announcing.network_changed(shared.now),
                Source::Listener(index) => self.acceptor.listener_ready(index),
                Source::Utp(index) => self.acceptor.utp_ready(index),
                Source::Tracker(index) => shared.process.announcing.handle_event(index, event),
                Source::Status => {
                    if let Some(status) = &mut self.status {
                        status.listener_ready();
                    }
                }
                Source::StatusClient(slot) => {
                    if let Some(status) = &mut self.status {
                        status.client_ready(slot);
                    }
                }
                Source::Peer(key) => {
                    self.connections.visit(key, shared, |connection, _| {
                        connection.transport.handle_event(event);
                        Ok(())
                    });
                }
            }
        }
        Ok(())
    }

    /// How long the wait may take: not at all when work is left over.
    fn timeout(&mut self) -> Option<Duration> {
        let (shared, run_queue) = (&mut self.shared, &self.connections.run_queue);
        let now = shared.now;
        let accepts = self.acceptor.poll_at(now);
        let announces = shared.process.announcing.poll_at();
        // Also in a turn after which work is left over, as in every turn of a busy loop.
        let examines = self.control.hung.poll_at(&shared.process, now);
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let is_left_over = !run_queue.is_empty() || self.connections.has_closing();
        let has_work = self.control.has_updates || is_left_over;
        if has_work || is_due(accepts) || is_due(announces) {
            return Some(Duration::ZERO);
        }
        let is_throttled = run_queue.is_throttled() || shared.metadata.is_waited_for();
        let refill = match is_throttled {
            true => shared.process.bucket.poll_at(now, SMALLEST_BUDGET_BYTES),
            false => None,
        };
        let stop = match self.control.phase {
            Phase::Stopping { until } if !self.connections.is_empty() => Some(until),
            _ => None,
        };
        // One millisecond later, since `now` is rounded down.
        [
            accepts,
            announces,
            shared.alarms.poll_at(),
            shared.choker.poll_at(),
            self.slots.as_ref().and_then(|slots| slots.poll_at(shared)),
            refill,
            run_queue.stalled_until(),
            shared.process.dialer.poll_at(),
            self.control.host.poll_at(),
            shared.process.storage.poll_at(),
            examines,
            self.status.as_ref().and_then(StatusService::poll_at),
            stop,
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at| Duration::from_millis(at.since(now).saturating_add(1)))
        .into_iter()
        .chain(shared.key_exchanges.timeout())
        .min()
    }

    /// Accepts the connections that wait at the listeners, and closes those beyond the limits: a peer
    /// that is refused at once can go elsewhere, while one in the backlog would wait for nothing.
    fn accept(&mut self) {
        let (connections, shared) = (&mut self.connections, &mut self.shared);
        let (registry, now) = (self.poll.registry(), shared.now);
        let admit = |stream: TcpStream, address: IpAddr| {
            if let Err(reason) = connections.make_room(address, shared) {
                log::debug!("{address}: {reason}");
                shared.counters.ended(reason);
                return;
            }
            let registered = connections.register(shared, registry, stream, |key, stream| {
                Connection::accepted(key, stream, address, now)
            });
            shared.counters.accepted += u64::from(registered.is_some());
        };
        self.acceptor.accept(now, admit);
    }

    /// Receives from those with little first, then from those with much, each once at most.
    fn receive(&mut self) {
        let (little, much) = self.connections.run_queue.receivers();
        self.receive_from(little, RunQueue::next_receiver);
        self.receive_from(much, RunQueue::next_receiver_of_more);
    }

    fn receive_from(&mut self, count: usize, next: fn(&mut RunQueue) -> Option<PeerKey>) {
        let began = Instant::now();
        for _ in 0..count {
            if began.elapsed() >= TIME_FOR_EACH_STEP {
                break;
            }
            let key = next(&mut self.connections.run_queue);
            let key = key.expect("only here they become fewer");
            if !self.connections.defer(key) {
                self.connections
                    .visit(key, &mut self.shared, Connection::receive);
            }
        }
    }

    /// Answers the keys of peers that encrypt their connection, as far as there is time for it.
    fn exchange_keys(&mut self) {
        if self.shared.key_exchanges.is_idle() {
            return;
        }
        for key in self.shared.key_exchanges.take_refused() {
            self.connections
                .visit(key, &mut self.shared, |_, _| Err(CloseReason::TooManyKeys));
        }
        let sent_bytes = self.shared.counters.payload_bytes;
        self.shared.key_exchanges.earn(self.woke, sent_bytes);
        while let Some(key) = self.shared.key_exchanges.pop() {
            let began = Instant::now();
            self.connections
                .visit(key, &mut self.shared, Connection::exchange_keys);
            self.shared.key_exchanges.took(began.elapsed());
        }
    }

    /// Hands the results of threads to the connections that wait for them.
    fn collect(&mut self) {
        let run_queue = &mut self.connections.run_queue;
        run_queue.release_stalled(self.is_woken, self.shared.now);
        if !mem::take(&mut self.is_woken) {
            return;
        }
        let mut completions = Vec::new();
        self.shared
            .process
            .storage
            .collect(self.shared.now, &mut completions);
        for completion in completions {
            if let Some(error) = completion.failure() {
                // A file is tried again only seconds later, so this cannot flood the log.
                log::warn!("cannot serve content: {error}");
            }
            self.finish(completion);
        }
        for finished in self.shared.process.loads.take_finished() {
            match finished {
                Finished::Load(outcome) => {
                    let load = self.shared.process.loads.take_pending(&outcome.info_hash);
                    self.finish_load(outcome, &load);
                }
                Finished::Name(peer, found) => {
                    self.connections
                        .visit(peer, &mut self.shared, |connection, shared| {
                            connection.torrent_named(found, shared)
                        });
                }
            }
        }
    }

    /// Hands a loaded torrent to the peers that wait for it, or closes them if it is not served. The
    /// library examines a metainfo file that failed.
    fn finish_load(&mut self, outcome: LoadOutcome, load: &PendingLoad) {
        let LoadOutcome { info_hash, result } = outcome;
        if let Err(error) = &result {
            // Peers can cause this line often, so it is rate-limited. A change of the catalogue that
            // follows from it has a line of its own.
            match error {
                LoadError::Withdrawn(_) => log::debug!("not served: {error}"),
                _ => log::warn!("not served: {error}"),
            }
            if let (Some(live), Some(path)) = (&self.control.live, error.path())
                && !error.is_lack_of_descriptors()
            {
                live.examine(path);
            }
        }
        let (library, now) = (&mut self.shared.process.library, self.shared.now);
        let loaded = match load.is_stale {
            true => None,
            false => Some(library.finish_load(info_hash, result, now)),
        };
        if let Some(Loaded::NoMemory) = loaded {
            log::warn!("{info_hash} is not loaded: torrents in use have too many files together");
        }
        for &key in &load.waiting {
            self.connections
                .visit(key, &mut self.shared, |connection, shared| match &loaded {
                    Some(Loaded::Torrent(torrent)) => connection.resume(torrent, shared),
                    Some(Loaded::Gone) => Err(CloseReason::UnknownTorrent),
                    Some(Loaded::ContentFailed) => Err(CloseReason::ContentFailed),
                    Some(Loaded::NoMemory | Loaded::Busy) => Err(CloseReason::AtCapacity),
                    // The peer may have asked after the torrent was added or removed.
                    None => connection.find_torrent(info_hash, shared),
                });
        }
    }

    /// Lets the connections continue that wait for this result.
    fn finish(&mut self, completion: Completion) {
        match completion {
            Completion::Read {
                peers,
                key: file,
                range,
                result,
            } => {
                // A reader has read the range in, so it is sent without asking again.
                for key in peers {
                    self.unpark(key, |connection, now| {
                        if result.is_ok() {
                            connection.resident.insert(file.file, range.clone(), now);
                        }
                    });
                }
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
                self.shared.metadata.end(peer);
                let body = result.as_deref().ok();
                self.hand_metadata(peer, piece, body);
            }
        }
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

    /// Announces to trackers, and dials the peers that they name.
    fn announce(&mut self) {
        let process = &mut self.shared.process;
        process.announcing.turn(self.shared.now);
        for torrent in process.announcing.take_seeded() {
            process.activity.seed_known(torrent);
        }
        self.dial();
    }

    /// Dials peers that trackers have named, as far as the limits allow.
    fn dial(&mut self) {
        let Process {
            announcing, dialer, ..
        } = &mut self.shared.process;
        for (info_hash, peer) in announcing.take_peers() {
            dialer.offer(info_hash, peer);
        }
        if self.control.is_stopping() {
            dialer.forget_waiting();
        }
        let now = self.shared.now;
        while let Some(dialled) = self.shared.process.dialer.poll(now) {
            self.dial_one(dialled);
        }
    }

    fn dial_one(&mut self, dialled: Dialled) {
        let Dialled {
            info_hash, address, ..
        } = dialled;
        let source = self.shared.process.announcing.source(address.is_ipv6());
        let Some(source) = source else { return };
        let ip = address.ip();
        let connections = &self.connections;
        let is_full =
            connections.is_at_capacity() || connections.has_too_many_from(ip, &self.shared.choker);
        if is_full || connections.has_peer(ip, &info_hash, &self.shared.choker) {
            return;
        }
        self.shared.counters.called += 1;
        let stream = match net::connect(source, address) {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!("{address}: {error}");
                self.shared.counters.calls_failed += 1;
                let now = self.shared.now;
                let dialer = &mut self.shared.process.dialer;
                let reason = BackoffReason::Unreachable;
                dialer.back_off(info_hash, address, reason, now);
                return;
            }
        };
        let identity = self.shared.process.identity;
        let (connections, shared) = (&mut self.connections, &mut self.shared);
        let (registry, now) = (self.poll.registry(), shared.now);
        let registered = connections.register(shared, registry, stream, |key, stream| {
            let session = Session::dialled(now, info_hash, identity);
            let transport = Transport::connecting(stream, ip);
            let mut connection = Connection::new(key, transport, session, now);
            connection.dialled = Some(Box::new(dialled));
            connection
        });
        if let Some(key) = registered {
            shared.process.dialer.started(info_hash, address);
            if dialled.attempt != Attempt::Plain {
                connections.visit(key, shared, Connection::begin_encryption);
            }
        }
    }

    /// Lets a connection continue that waits for a reader.
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
        self.shared.process.storage.run_due(now);
        self.control.hung.run_due(&self.shared.process, now);
        let mut due = Vec::new();
        self.shared.alarms.expire(now, &mut due);
        for key in due {
            self.connections
                .visit(
                    key,
                    &mut self.shared,
                    |connection, shared| match connection.alarm.fired(now) {
                        true => connection.session.timeout(now, &shared.process.timeouts),
                        false => Ok(()),
                    },
                );
        }
    }

    /// Shows every piece to leechers from which some were hidden.
    fn reveal(&mut self) {
        for key in self.shared.process.activity.take_to_reveal() {
            self.connections
                .visit(key, &mut self.shared, |connection, _| {
                    connection.session.show_all();
                    Ok(())
                });
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
            let (Verdict::Unchoke(key)
            | Verdict::Renew(key)
            | Verdict::Choke(key)
            | Verdict::Disconnect(key, _)) = verdict;
            self.connections.visit(key, shared, |connection, shared| {
                match verdict {
                    Verdict::Unchoke(_) => {
                        connection.begin_term(shared);
                        connection.session.unchoke();
                    }
                    Verdict::Renew(_) => {
                        connection.end_term(shared);
                        connection.begin_term(shared);
                    }
                    Verdict::Choke(_) => {
                        connection.choke();
                        connection.end_term(shared);
                    }
                    Verdict::Disconnect(_, reason) => return Err(reason),
                }
                Ok(())
            });
        }
    }

    /// Has metadata read for the connections in line, as far as the rate limit allows.
    fn release_metadata(&mut self) {
        loop {
            let available_bytes = self.shared.process.bucket.available(self.shared.now);
            let Some(key) = self.shared.metadata.take_next(available_bytes) else {
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

    /// Sends control bytes first, then blocks, round robin and no more than a turn may take.
    fn send(&mut self) {
        self.release_metadata();
        let began = Instant::now();
        while began.elapsed() < TIME_FOR_EACH_STEP
            && let Some(key) = self.connections.run_queue.next_control()
        {
            self.send_to(key, 0);
        }
        let now = self.shared.now;
        if self.shared.process.bucket.available(now) >= SMALLEST_BUDGET_BYTES {
            self.connections.run_queue.release_throttled();
        }
        let began = Instant::now();
        let before_bytes = self.shared.counters.payload_bytes;
        for remaining in (1..=self.connections.run_queue.senders()).rev() {
            let sent_bytes = self.shared.counters.payload_bytes - before_bytes;
            if sent_bytes >= SEND_BYTES_PER_TURN || began.elapsed() >= TIME_FOR_EACH_STEP {
                break;
            }
            let Some(key) = self.connections.run_queue.next_sender() else {
                break;
            };
            let available_bytes = self.shared.process.bucket.available(now);
            if available_bytes < SMALLEST_BUDGET_BYTES {
                self.throttle(key);
                continue;
            }
            // A share of the rate, so that every sender gets one in the same turn.
            let share_bytes = available_bytes / remaining as u64;
            let credit_bytes = self.shared.choker.credit_bytes(key);
            self.send_to(
                key,
                share_bytes.max(SMALLEST_BUDGET_BYTES).min(credit_bytes),
            );
        }
        // The last batch must not keep its files mapped until the next.
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
                shared.choker.held_up(key, shared.now);
                Ok(())
            });
    }

    /// Drops the connections that are closing. Closing a descriptor removes it from epoll.
    fn close(&mut self) {
        let began = Instant::now();
        while began.elapsed() < TIME_FOR_EACH_STEP
            && let Some(mut connection) = self.connections.take_closing()
        {
            let session::Phase::Closing { reason, was_open } = *connection.session.phase() else {
                unreachable!("only a closing session is taken");
            };
            let shared = &mut self.shared;
            if let Some(slot) = connection.active_slot {
                let (key, is_complete) = (connection.key, reason == CloseReason::PeerIsSeed);
                let activity = &mut shared.process.activity;
                activity.swarm(slot, |swarm| swarm.left(key, is_complete));
                if let Some(torrent) = activity.leave(slot) {
                    shared.process.announcing.left(&torrent);
                }
            }
            if let Some(wire) = connection.transport.wire() {
                shared.counters.wires.remove(wire);
            }
            let reached = connection.reached(was_open);
            if let Some(dialled) = connection.dialled.take() {
                shared.counters.calls_failed += u64::from(!was_open);
                shared
                    .process
                    .dialer
                    .ended(&dialled, reached, reason, shared.now);
            }
            shared.counters.ended(reason);
            shared.counters.rejected += u64::from(connection.session.take_rejected());
            log::debug!("{}: {reason}", connection.transport.address());
        }
    }
}

/// How long this thread has had a processor.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it begins at zero and grows")
}
