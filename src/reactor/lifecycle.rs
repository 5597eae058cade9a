//! The daemon's phases: binding before rights are dropped, listening, and the stop.

use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use signal_hook_mio::v1_0::Signals;

use super::connections::{CLOSING_MAX, Connections};
use super::host::Host;
use super::hung::HungDisks;
use super::listener::{self, Acceptor, BoundAddress};
use super::loading::LOADERS;
use super::report::StatusService;
use super::shared::Shared;
use super::signals;
use super::slots::SlotControl;
use super::tokens::{self, Source};
use super::{Control, EVENTS_PER_TURN, Reactor, RunError, thread_cpu_time};
use crate::choker::ChokerConfig;
use crate::config::{Config, Encryption, LibraryConfig, LimitsConfig};
use crate::daemon::sandbox::AllowedPaths;
use crate::daemon::sizing;
use crate::library::catalogue::live::{Live, Settings};
use crate::library::catalogue::lookup::Library;
use crate::library::catalogue::refresh;
use crate::library::index::Counts;
use crate::metrics::LibrarySize;
use crate::peer::close::CloseReason;
use crate::status::server::StatusServer;
use crate::storage::StorageLimits;
use crate::sys;
use crate::timers::Time;
use crate::tracker::announcer;
use crate::workers::{DISKS, wake};

/// Descriptors that are not for peers: listeners, epoll, the waker, logs, connections that are closing,
/// sockets to trackers, and the files that reader threads open for a moment. Mapped content needs none.
const RESERVED_DESCRIPTORS: usize =
    64 + CLOSING_MAX + 2 * DISKS * (StorageLimits::DEFAULT.readers + LOADERS) + announcer::TOKENS;

/// How long a stop may take: a block of 16 KiB goes over any usable line in that time.
const STOP_MS: u64 = 3_000;

/// The most peers with this many descriptors: as many as are configured, as far as
/// [`RESERVED_DESCRIPTORS`] are left.
pub(super) fn max_peers(limits: &LimitsConfig, descriptors: usize) -> usize {
    limits
        .peers_wanted(sys::memory_bytes())
        .min(descriptors.saturating_sub(RESERVED_DESCRIPTORS))
        .max(1)
}

/// Where the daemon is. It only moves forward.
pub(super) enum Phase {
    /// Addresses are bound, and the first index is awaited.
    Starting(Vec<BoundAddress>),
    /// Peers are served.
    Serving,
    /// Peers are disconnected, and trackers are notified.
    Stopping {
        /// When peers that are in the middle of a block are disconnected as well.
        until: Time,
    },
}

/// What is taken from the system while the process still has all its rights: addresses, descriptors,
/// signals. It has read no file of the library, and serves no peer.
pub struct Bound {
    poll: Poll,
    waker: Arc<Waker>,
    signals: Signals,
    host: Host,
    addresses: Vec<BoundAddress>,
    status: Option<StatusService>,
    connections: Connections,
    descriptors: usize,
    shared: Shared,
    slots: Option<SlotControl>,
}

impl Bound {
    /// Takes descriptors and addresses.
    ///
    /// # Errors
    ///
    /// When an address cannot be had, or the kernel refuses what the loop needs.
    pub fn bind(config: &Config, mut host: Host) -> Result<Self, RunError> {
        let descriptors = sys::raise_descriptor_limit()?;
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let max_peers = max_peers(&config.limits, descriptors);
        let reason = match config.limits.max_peers {
            _ if max_peers < config.limits.peers_wanted(sys::memory_bytes()) => {
                format!("as {descriptors} descriptors allow")
            }
            Some(_) => "as configured".to_owned(),
            None => "as memory allows".to_owned(),
        };
        log::info!("at most {max_peers} peers, {reason}");
        let backlog = u64::from(listener::BACKLOG.unsigned_abs());
        for warning in sizing::warnings(backlog, StorageLimits::DEFAULT.mappings as u64) {
            log::warn!("{warning}");
        }
        if let Some(wanted) = config.limits.max_peers
            && max_peers < wanted
        {
            log::warn!(
                "{wanted} peers were requested, but {descriptors} descriptors leave room for only {max_peers}"
            );
        }
        let poll = Poll::new()?;
        let mut signals = match host.signals.take() {
            Some(signals) => signals,
            None => signals::catch()?,
        };
        let registry = poll.registry();
        registry.register(&mut signals, Source::Signals.token(), Interest::READABLE)?;
        let waker = Arc::new(Waker::new(registry, Source::Waker.token())?);
        let passed = mem::take(&mut host.passed);
        let addresses = match passed.peers.is_empty() {
            true => listener::bind_all(&config.network)?,
            false => listener::adopt_all(passed.peers)?,
        };
        if addresses.len() > tokens::MAX_LISTENERS {
            return Err(RunError::TooManyAddresses);
        }
        let port = addresses.first().ok_or(RunError::NoAddress)?.address.port();
        let shared = Shared::new(config, registry, Arc::clone(&waker), port)?;
        if let Some(table) = shared.process.disks.table() {
            let mut table = SourceFd(&table.as_raw_fd());
            registry.register(&mut table, Source::Mounts.token(), Interest::PRIORITY)?;
        }
        let status = StatusServer::open(&config.status, passed.status, host.owner)?;
        let max_per_address = config.limits.max_peers_per_ip.unwrap_or(usize::MAX);
        Ok(Self {
            poll,
            waker,
            signals,
            host,
            addresses,
            status: status.map(StatusService::new),
            connections: Connections::new(max_peers, max_per_address),
            descriptors,
            shared,
            slots: config.limits.auto_slots.then(SlotControl::default),
        })
    }

    /// Starts the thread that opens the library, and begins to answer clients of the status. Call it
    /// after rights are given up; a sandbox leaves only `allowed`.
    ///
    /// # Errors
    ///
    /// When the thread or the status listener cannot be started.
    pub fn start(
        mut self,
        config: &LibraryConfig,
        allowed: Option<Arc<AllowedPaths>>,
    ) -> Result<Reactor, RunError> {
        self.host.allowed = allowed;
        if let Some(path) = config.verified() {
            // If the directory cannot be created, neither can the file, which is logged.
            let _ = path.parent().map(refresh::make_directory);
            self.shared.process.storage.remember(&path);
        }
        self.host.notifier.status("reading the library");
        let waker = Arc::clone(&self.waker);
        let disks = self.shared.process.disks.clone();
        let is_encrypted = self.shared.process.encryption != Encryption::Off;
        let settings = Settings::from(config);
        let live = Live::start(settings, disks, is_encrypted, move || wake(&waker));
        let live = live.map_err(RunError::Thread)?;
        if let Some(status) = &mut self.status {
            status.register(self.poll.registry())?;
        }
        Ok(self.into_reactor(Some(live)))
    }

    /// Serves a library that never changes.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on.
    pub fn serve(self, library: Library, counts: Counts) -> Result<Reactor, RunError> {
        let mut reactor = self.into_reactor(None);
        reactor.shared.process.library = library;
        reactor.listen(counts)?;
        Ok(reactor)
    }

    fn into_reactor(self, live: Option<Live>) -> Reactor {
        Reactor {
            poll: self.poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            waker: self.waker,
            is_woken: false,
            started: Instant::now(),
            woke: Instant::now(),
            cpu: thread_cpu_time(),
            acceptor: Acceptor::default(),
            connections: self.connections,
            shared: self.shared,
            status: self.status,
            slots: self.slots,
            control: Control {
                phase: Phase::Starting(self.addresses),
                host: self.host,
                signals: self.signals,
                is_signalled: false,
                reload: None,
                live,
                has_updates: false,
                library: LibrarySize::default(),
                hung: HungDisks::default(),
                started_at: SystemTime::now(),
                faults_before: 0,
                descriptors: self.descriptors,
            },
        }
    }
}

impl Reactor {
    /// Begins to listen when the first snapshot has arrived.
    pub(super) fn listen(&mut self, counts: Counts) -> Result<(), RunError> {
        let phase = mem::replace(&mut self.control.phase, Phase::Serving);
        let Phase::Starting(addresses) = phase else {
            unreachable!("the first library comes once");
        };
        self.control.count(counts);
        let slots = match &self.slots {
            Some(_) => "as many slots as fill the line".to_owned(),
            None => format!("{} slots", self.shared.choker.config().max_unchoked),
        };
        log::info!(
            "serving {} torrents to at most {} peers in {slots}; {} refused",
            counts.served,
            self.connections.max,
            counts.refused
        );
        self.acceptor.listen(addresses, self.poll.registry())?;
        self.control.faults_before = sys::major_faults().unwrap_or(0);
        self.control.host.listening();
        Ok(())
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.acceptor.addresses()
    }

    /// Stops accepting peers, and sending blocks except for those already begun. A peer with the Fast
    /// extension gets a reject for each request.
    pub(super) fn begin_stop(&mut self) {
        let control = &mut self.control;
        if control.is_stopping() {
            return;
        }
        let until = self.shared.now.after(STOP_MS);
        control.phase = Phase::Stopping { until };
        // Both would give slots again.
        control.reload = None;
        self.slots = None;
        control.host.notifier.stopping();
        log::info!(
            "stopping: {} peers are disconnected",
            self.connections.len()
        );
        self.shared.process.announcing.shutdown(self.shared.now);
        self.acceptor.close();
        let choker = &mut self.shared.choker;
        choker.configure(ChokerConfig {
            max_unchoked: 0,
            ..choker.config()
        });
        for key in self.connections.keys() {
            self.connections
                .visit(key, &mut self.shared, |connection, shared| {
                    shared.choker.stop_service(key);
                    connection.choke();
                    Ok(())
                });
        }
    }

    /// While stopping, closes the peers that have received everything, and at the end all of them.
    pub(super) fn close_finished(&mut self) {
        let Phase::Stopping { until } = self.control.phase else {
            return;
        };
        let is_late = self.shared.now >= until;
        for key in self.connections.keys() {
            self.connections
                .visit(key, &mut self.shared, |connection, _| {
                    let session = &connection.session;
                    let has_bytes = session.has_control() || session.has_blocks();
                    match (has_bytes || connection.has_unsent()) && !is_late {
                        true => Ok(()),
                        false => Err(CloseReason::Shutdown),
                    }
                });
        }
    }

    /// Returns true once a stop is complete: all peers are gone and the trackers are notified.
    pub(super) fn has_stopped(&self) -> bool {
        let is_announced = self.shared.process.announcing.is_done();
        self.control.is_stopping() && self.connections.is_empty() && is_announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(max_peers: Option<usize>, descriptors: usize) -> usize {
        let limits = LimitsConfig {
            max_peers,
            ..LimitsConfig::default()
        };
        super::max_peers(&limits, descriptors)
    }

    #[test]
    fn as_many_peers_as_memory_allows_unless_configured() {
        let limits = LimitsConfig::default();
        assert_eq!(limits.peers_wanted(1 << 30), 8192);
        assert_eq!(limits.peers_wanted(64 << 30), 524_288);
        assert_eq!(peers(Some(7), 20_000), 7);
    }

    #[test]
    fn peers_never_exceed_what_descriptors_allow() {
        let peers = peers(Some(1_000_000), 20_000);
        assert_eq!(peers + RESERVED_DESCRIPTORS, 20_000);
    }

    #[test]
    fn nineteen_thousand_peers_fit_in_twenty_thousand_descriptors() {
        assert_eq!(peers(Some(19_000), 20_000), 19_000);
    }

    #[test]
    fn a_tiny_limit_still_leaves_one() {
        assert_eq!(peers(None, 10), 1);
    }
}
