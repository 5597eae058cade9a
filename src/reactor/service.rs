//! What surrounds the loop: where its configuration comes from and where its log goes.
//!
//! Owns what a signal may change from outside, and the chores of each minute. It must not know
//! sockets or peers.

use std::sync::Arc;

use signal_hook_mio::v1_0::Signals;

use crate::config::file::{Configured, Sources};
use crate::daemon::activation::Passed;
use crate::daemon::background::Background;
use crate::daemon::identity::Owner;
use crate::daemon::notify::Notifier;
use crate::daemon::sandbox::Places;
use crate::logging::Logging;
use crate::timers::Time;

/// How often lines that were held back are looked after: as long as they are counted together.
const CHORES_MS: u64 = 60_000;

/// How often a service manager is told how it goes.
const STATUS_MS: u64 = 10_000;

/// See the module's text. The default is that of a test: nothing surrounds the loop.
#[derive(Default)]
pub struct Service {
    /// Where the configuration comes from, and what it said last.
    pub configuration: Option<(Sources, Configured)>,
    /// The log, to be opened anew or given other levels.
    pub logging: Option<Logging>,
    /// The service manager.
    pub notifier: Notifier,
    /// Who waits until the daemon listens.
    pub background: Option<Background>,
    /// Sockets that were open before the process began.
    pub passed: Passed,
    /// Signals that wait for the loop, when they were caught before there is one.
    pub signals: Option<Signals>,
    /// Whose the status socket will be, when that is somebody else.
    pub owner: Option<Owner>,
    /// What may be reached, when anything may not.
    pub places: Option<Arc<Places>>,
    /// When the chores were done last.
    done: Time,
    /// When the watchdog heard of us last.
    alive: Time,
    /// When the status was told last.
    told: Time,
    /// It is another one since.
    is_news: bool,
}

impl Service {
    /// A service that can be reloaded.
    #[must_use]
    pub fn new(sources: Sources, configured: Configured, logging: Logging) -> Self {
        Self {
            configuration: Some((sources, configured)),
            logging: Some(logging),
            ..Self::default()
        }
    }

    /// When there is something to do again.
    pub(super) fn next(&self) -> Option<Time> {
        let chores = self.logging.as_ref().map(|_| self.done.after(CHORES_MS));
        let watchdog = self.notifier.watchdog_ms().map(|ms| self.alive.after(ms));
        let status = self.notifier.is_heard();
        let status = status.then(|| match self.is_news {
            true => Time::default(),
            false => self.told.after(STATUS_MS),
        });
        [chores, watchdog, status].into_iter().flatten().min()
    }

    /// Does what is due. The watchdog is told here and nowhere else, so that it hears nothing of a
    /// loop that does not turn.
    pub(super) fn tend(&mut self, now: Time, status: impl FnOnce() -> String) {
        if let Some(ms) = self.notifier.watchdog_ms()
            && now.since(self.alive) >= ms
        {
            self.notifier.alive();
            self.alive = now;
        }
        let is_due = self.is_news || now.since(self.told) >= STATUS_MS;
        if self.notifier.is_heard() && is_due {
            self.notifier.status(&status());
            self.told = now;
            self.is_news = false;
        }
        if now.since(self.done) >= CHORES_MS
            && let Some(logging) = &self.logging
        {
            logging.settle(false);
            self.done = now;
        }
    }

    /// The daemon listens.
    pub(super) fn listening(&mut self) {
        self.notifier.ready();
        self.is_news = true;
        if let Some(background) = &self.background {
            background.ready();
        }
    }

    /// Opens the log file anew.
    pub(super) fn reopen_log(&self) {
        let Some(logging) = &self.logging else { return };
        match logging.reopen() {
            Ok(()) => log::info!("log file reopened"),
            Err(error) => log::error!("cannot reopen the log file, keeping the old one: {error}"),
        }
    }
}
