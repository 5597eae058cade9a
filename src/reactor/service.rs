//! What surrounds the loop: where its configuration comes from and where its log goes.
//!
//! Owns what a signal may change from outside, and the chores of each minute. It must not know
//! sockets or peers.

use crate::config::file::{Configured, Sources};
use crate::logging::Logging;
use crate::timers::Time;

/// How often lines that were held back are looked after: as long as they are counted together.
const CHORES_MS: u64 = 60_000;

/// See the module's text. The default is that of a test: nothing surrounds the loop.
#[derive(Default)]
pub struct Service {
    /// Where the configuration comes from, and what it said last.
    pub configuration: Option<(Sources, Configured)>,
    /// The log, to be opened anew or given other levels.
    pub logging: Option<Logging>,
    /// When the chores were done last.
    done: Time,
}

impl Service {
    /// A service that can be reloaded.
    #[must_use]
    pub fn new(sources: Sources, configured: Configured, logging: Logging) -> Self {
        Self {
            configuration: Some((sources, configured)),
            logging: Some(logging),
            done: Time::default(),
        }
    }

    /// When there is something to do again.
    pub(super) fn next(&self) -> Option<Time> {
        self.logging.as_ref().map(|_| self.done.after(CHORES_MS))
    }

    /// Does what is due.
    pub(super) fn tend(&mut self, now: Time) {
        if now.since(self.done) >= CHORES_MS
            && let Some(logging) = &self.logging
        {
            logging.settle(false);
            self.done = now;
        }
    }

    /// Opens the log file anew.
    pub(super) fn reopen_log(&self) {
        let Some(logging) = &self.logging else { return };
        match logging.reopen() {
            Ok(()) => log::info!("the log is open anew"),
            Err(error) => log::error!("the log goes on where it was: {error}"),
        }
    }
}
