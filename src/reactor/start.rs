//! The start: what the loop takes from the system, before and after rights are given up.
//!
//! Owns the order of it. It must not know how long the library takes to be read in between.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mio::{Events, Interest, Poll, Waker};

use super::connections::Connections;
use super::loading::LOADERS;
use super::shared::Shared;
use super::tokens::{self, Source};
use super::{EVENTS_PER_TURN, Reactor, RunError, Service, listener, signals};
use crate::config::{Config, LimitsConfig};
use crate::daemon::sandbox::Places;
use crate::daemon::sizing;
use crate::library::catalogue::live::{Live, Settings};
use crate::library::catalogue::lookup::Library;
use crate::library::catalogue::refresh;
use crate::library::index::Counts;
use crate::metrics::LibrarySize;
use crate::status::server::StatusServer;
use crate::storage::StorageLimits;
use crate::sys;
use crate::tracker::announcer;
use crate::workers::wake;

/// Descriptors that are not for peers: listeners, epoll, the waker, logs, sockets to trackers, and
/// the files that reader threads open for a moment. Mapped content needs none.
const RESERVED_DESCRIPTORS: usize =
    64 + 2 * (StorageLimits::DEFAULT.readers + LOADERS) + announcer::TOKENS;

/// How many peers may be connected when the process may have this many descriptors: what the
/// configuration asks for, as far as [`RESERVED_DESCRIPTORS`] are left.
pub(super) fn max_peers(limits: &LimitsConfig, descriptors: usize) -> usize {
    limits
        .peers_wanted()
        .min(descriptors.saturating_sub(RESERVED_DESCRIPTORS))
        .max(1)
}

impl Reactor {
    /// Takes descriptors and addresses, for which a process may need rights that it gives up then.
    ///
    /// # Errors
    ///
    /// When an address cannot be had, or the kernel refuses what the loop needs.
    pub fn bind(config: &Config, mut service: Service) -> Result<Self, RunError> {
        let descriptors = sys::raise_descriptor_limit()?;
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let max_peers = max_peers(&config.limits, descriptors);
        log::info!("{descriptors} descriptors: room for {max_peers} peers");
        let backlog = u64::from(listener::BACKLOG.unsigned_abs());
        for warning in sizing::warnings(backlog, StorageLimits::DEFAULT.mappings as u64) {
            log::warn!("{warning}");
        }
        if max_peers < config.limits.peers_wanted() {
            log::warn!(
                "{} peers were requested, but {descriptors} descriptors leave room for only {max_peers}",
                config.limits.peers_wanted()
            );
        }
        let poll = Poll::new()?;
        let mut signals = match service.signals.take() {
            Some(signals) => signals,
            None => signals::catch()?,
        };
        let registry = poll.registry();
        registry.register(&mut signals, Source::Signals.token(), Interest::READABLE)?;
        let waker = Arc::new(Waker::new(registry, Source::Waker.token())?);
        let passed = std::mem::take(&mut service.passed);
        let bound = match passed.peers.is_empty() {
            true => listener::bind_all(&config.network)?,
            false => listener::adopt_all(passed.peers)?,
        };
        let first = bound.first().ok_or(RunError::NoAddress)?;
        let port = first.address.port();
        let shared = Shared::new(config, registry, Arc::clone(&waker), port)?;
        if bound.len() > tokens::MAX_LISTENERS {
            return Err(RunError::TooManyAddresses);
        }
        let status = StatusServer::open(&config.status, passed.status, service.owner)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            signals,
            waker,
            service,
            reload: None,
            live: None,
            updates_wait: false,
            bound,
            listeners: Vec::new(),
            accept_rests_until: None,
            accept_rest_said: None,
            status,
            listings: Vec::new(),
            library: LibrarySize::default(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            woke: Instant::now(),
            faults_before: 0,
            connections: Connections::new(
                max_peers,
                config.limits.max_peers_per_ip.unwrap_or(usize::MAX),
            ),
            descriptors,
            shared,
            woken: false,
            signalled: false,
            stop_until: None,
        })
    }

    /// Is told what may be reached from now on, when not everything may.
    pub fn restrict(&mut self, places: Option<Arc<Places>>) {
        self.service.places = places;
    }

    /// Takes up what was verified before, which this file remembers. For after rights are given up.
    pub fn remember(&mut self, path: &Path) {
        // Where it cannot be made, the file cannot either, which is said.
        let _ = path.parent().map(refresh::make_directory);
        self.shared.storage.remember(path);
    }

    /// Starts the thread that keeps the library, which is served when it is open, and answers those
    /// who ask for the status from now on.
    ///
    /// # Errors
    ///
    /// When there can be no thread, or no status.
    pub fn keep(&mut self, settings: Settings) -> Result<(), RunError> {
        self.service.notifier.status("reading the library");
        let waker = Arc::clone(&self.waker);
        self.live = Some(Live::start(settings, move || wake(&waker))?);
        if let Some(status) = &mut self.status {
            status.register(self.poll.registry(), Source::Status.token())?;
        }
        Ok(())
    }

    /// Listens, and serves a library. Logs a line for each address.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on.
    pub fn open(&mut self, library: Library, counts: Counts) -> Result<(), RunError> {
        self.count(counts);
        log::info!(
            "serving {} torrents to at most {} peers in {} slots; {} refused",
            counts.served,
            self.connections.max,
            self.shared.choker.config().max_unchoked,
            counts.refused
        );
        self.shared.library = library;
        let registry = self.poll.registry();
        for (number, bound) in self.bound.drain(..).enumerate() {
            let mut listener = bound.listen()?;
            let token = Source::Listener(number).token();
            registry.register(&mut listener.tcp, token, Interest::READABLE)?;
            if let Some(udp) = &mut listener.udp {
                registry.register(udp, Source::Utp(number).token(), Interest::READABLE)?;
            }
            log::info!("listening on {}", listener.address);
            self.listeners.push(listener);
        }
        self.faults_before = sys::major_faults().unwrap_or(0);
        self.service.listening();
        Ok(())
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .map(|listener| listener.address)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(max_unchoked: usize, max_peers: Option<usize>, descriptors: usize) -> usize {
        let mut limits = LimitsConfig::default();
        limits.choker.max_unchoked = max_unchoked;
        limits.max_peers = max_peers;
        super::max_peers(&limits, descriptors)
    }

    #[test]
    fn ten_peers_for_each_slot_unless_configured() {
        assert_eq!(peers(50, None, 20_000), 500);
        assert_eq!(peers(50, Some(7), 20_000), 7);
    }

    #[test]
    fn peers_never_exceed_what_descriptors_allow() {
        let peers = peers(50, Some(1_000_000), 20_000);
        assert_eq!(peers + RESERVED_DESCRIPTORS, 20_000);
    }

    #[test]
    fn nineteen_thousand_peers_fit_in_twenty_thousand_descriptors() {
        assert_eq!(peers(50, Some(19_000), 20_000), 19_000);
    }

    #[test]
    fn a_tiny_limit_still_leaves_one() {
        assert_eq!(peers(50, None, 10), 1);
    }
}
