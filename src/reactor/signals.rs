//! Signals: stop, reload, reopen the log.
//!
//! Owns how a stop goes: bounded, and without cutting blocks that a peer is in the middle of. It
//! must not know what a reload reads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;

use super::Reactor;
use crate::choker::ChokerConfig;
use crate::peer::close::CloseReason;

/// The signals that are handled.
const HANDLED: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1];

/// How long a stop may take: a block of 16 KiB goes over any line that deserves the name.
const STOP_MS: u64 = 3_000;

/// The exit code when a second signal has ended a stop that took too long.
const EXIT_AT_ONCE: i32 = 1;

/// From now on signals wait for the loop, which may not be there yet. From the second SIGTERM or
/// SIGINT on the process ends at once, whatever it is doing.
///
/// # Errors
/// Those of sigaction(2).
pub fn catch() -> io::Result<Signals> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGTERM, libc::SIGINT] {
        flag::register_conditional_shutdown(signal, EXIT_AT_ONCE, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    Signals::new(HANDLED)
}

impl Reactor {
    /// Does what the signals ask for that have come. Those of one kind count as one.
    pub(super) fn handle_signals(&mut self) {
        let pending: Vec<i32> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                libc::SIGHUP => self.begin_reload(),
                libc::SIGUSR1 => self.service.reopen_log(),
                _ => self.begin_stop(),
            }
        }
    }

    /// No more peers, no more blocks but those that are begun. Peers are told: who speaks the Fast
    /// extension gets a reject for each request.
    fn begin_stop(&mut self) {
        if self.stop_until.is_some() {
            return;
        }
        self.stop_until = Some(self.shared.now.after(STOP_MS));
        // What it has read would give slots again.
        self.reload = None;
        self.service.notifier.stopping();
        log::info!(
            "stopping: {} peers are disconnected",
            self.connections.len()
        );
        self.shared.announcing.shutdown(self.shared.now);
        // Closed, so that those who come now are refused at once and go elsewhere.
        self.listeners.clear();
        let choker = &mut self.shared.choker;
        choker.configure(ChokerConfig {
            max_unchoked: 0,
            ..choker.config()
        });
        for key in self.connections.keys() {
            self.connections
                .visit(key, &mut self.shared, |connection, shared| {
                    shared.choker.disconnected(key);
                    connection.choke();
                    Ok(())
                });
        }
    }

    /// While stopping, closes those who have nothing more to get, and at the end everybody.
    pub(super) fn let_go(&mut self) {
        let Some(until) = self.stop_until else { return };
        let late = self.shared.now >= until;
        for key in self.connections.keys() {
            self.connections
                .visit(key, &mut self.shared, |connection, _| {
                    let session = &connection.session;
                    match (session.has_control() || session.has_blocks()) && !late {
                        true => Ok(()),
                        false => Err(CloseReason::Shutdown),
                    }
                });
        }
    }

    /// Whether a stop was asked for, everybody has gone, and the trackers have been told.
    pub(super) fn has_stopped(&self) -> bool {
        let announcing = &self.shared.announcing;
        self.stop_until.is_some() && self.connections.is_empty() && announcing.is_done()
    }
}
