//! What the integration tests share.
//!
//! Owns nothing but the list of its parts. A test takes the parts that it needs.

#![allow(dead_code, reason = "each test uses some parts of its own choice")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

pub(crate) mod daemon;
pub(crate) mod leecher;
pub(crate) mod strace;
pub(crate) mod torrent;

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at something that another thread or process does.
const POLL: Duration = Duration::from_millis(10);

/// Calls `is_met` until it returns true. Panics with `what` when the deadline passes first.
#[track_caller]
pub(crate) fn wait_until(deadline: Duration, what: &str, mut is_met: impl FnMut() -> bool) {
    poll_until(deadline, || is_met().then_some(()).ok_or(what));
}

/// Calls `poll` until it returns a value. Panics with its last error when the deadline passes first.
#[track_caller]
pub(crate) fn poll_until<T, E: Display>(
    deadline: Duration,
    mut poll: impl FnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match poll() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < end, "not within {deadline:?}: {error}"),
        }
        thread::sleep(POLL);
    }
}
