//! The signals that the daemon handles, and what each asks for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;

/// The exit code after a second SIGTERM or SIGINT.
const EXIT_AT_ONCE: i32 = 1;

/// What a signal asks for.
#[derive(Clone, Copy)]
pub(super) enum SignalRequest {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    ReopenLog,
}

/// Catches the signals. They wait for the loop, which may start later. A second SIGTERM or SIGINT ends
/// the process at once.
///
/// # Errors
///
/// Those of sigaction(2).
pub fn catch() -> io::Result<Signals> {
    let is_stopping = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGTERM, libc::SIGINT] {
        flag::register_conditional_shutdown(signal, EXIT_AT_ONCE, Arc::clone(&is_stopping))?;
        flag::register(signal, Arc::clone(&is_stopping))?;
    }
    Signals::new([libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1])
}

/// What the signals since the last call ask for. Several of one kind count as one.
pub(super) fn pending(signals: &mut Signals) -> Vec<SignalRequest> {
    let request = |signal| match signal {
        libc::SIGHUP => SignalRequest::Reload,
        libc::SIGUSR1 => SignalRequest::ReopenLog,
        _ => SignalRequest::Stop,
    };
    signals.pending().map(request).collect()
}
