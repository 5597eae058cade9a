//! The environment of the loop: configuration sources, the log, the service manager.

use std::sync::Arc;

use signal_hook_mio::v1_0::Signals;

use crate::config::file::{Configured, Sources};
use crate::daemon::activation::Passed;
use crate::daemon::background::Background;
use crate::daemon::identity::Owner;
use crate::daemon::notify::Notifier;
use crate::daemon::sandbox::AllowedPaths;
use crate::logging::Logging;
use crate::timers::Time;

/// How often the log summarizes suppressed lines: the period in which they are counted together.
const LOG_SUMMARY_MS: u64 = 60_000;

/// How often the service manager gets a line of status.
const STATUS_MS: u64 = 10_000;

/// The environment. The default, for tests, is empty.
#[derive(Default)]
pub struct Host {
    /// The sources of the configuration, and the configuration in force.
    pub configuration: Option<(Sources, Configured)>,
    /// The log, which can be reopened or given other levels.
    pub logging: Option<Logging>,
    /// The service manager.
    pub notifier: Notifier,
    /// The parent process, which exits when the daemon listens.
    pub background: Option<Background>,
    /// Sockets that a service manager passed.
    pub passed: Passed,
    /// Signals that were caught before the loop was created.
    pub signals: Option<Signals>,
    /// The owner of the status socket, when it is not this process's user.
    pub owner: Option<Owner>,
    /// The paths that the sandbox allows, if there is one.
    pub allowed: Option<Arc<AllowedPaths>>,
    log_summed_at: Time,
    watchdog_at: Time,
    status_at: Time,
    /// The status has changed since `status_at`.
    has_news: bool,
}

impl Host {
    /// A host whose configuration can be reloaded.
    #[must_use]
    pub fn new(sources: Sources, configured: Configured, logging: Logging) -> Self {
        Self {
            configuration: Some((sources, configured)),
            logging: Some(logging),
            ..Self::default()
        }
    }

    /// When [`Host::run_due`] has something to do.
    pub(super) fn poll_at(&self) -> Option<Time> {
        let log = self.logging.as_ref();
        let log = log.map(|_| self.log_summed_at.after(LOG_SUMMARY_MS));
        let watchdog = self.notifier.watchdog_ms();
        let watchdog = watchdog.map(|ms| self.watchdog_at.after(ms));
        let status = self.notifier.is_connected().then(|| match self.has_news {
            true => Time::default(),
            false => self.status_at.after(STATUS_MS),
        });
        [log, watchdog, status].into_iter().flatten().min()
    }

    /// Does what is due. The watchdog is fed only here, so that it notices a loop that hangs.
    pub(super) fn run_due(&mut self, now: Time, status: impl FnOnce() -> String) {
        if let Some(ms) = self.notifier.watchdog_ms()
            && now.since(self.watchdog_at) >= ms
        {
            self.notifier.alive();
            self.watchdog_at = now;
        }
        let is_due = self.has_news || now.since(self.status_at) >= STATUS_MS;
        if self.notifier.is_connected() && is_due {
            self.notifier.status(&status());
            self.status_at = now;
            self.has_news = false;
        }
        if now.since(self.log_summed_at) >= LOG_SUMMARY_MS
            && let Some(logging) = &self.logging
        {
            logging.write_due_summaries();
            self.log_summed_at = now;
        }
    }

    /// The daemon listens.
    pub(super) fn listening(&mut self) {
        self.notifier.ready();
        self.has_news = true;
        if let Some(background) = &self.background {
            background.ready();
        }
    }

    /// Has the log file reopened.
    pub(super) fn reopen_log(&self) {
        if let Some(logging) = &self.logging {
            logging.reopen();
        }
    }
}
