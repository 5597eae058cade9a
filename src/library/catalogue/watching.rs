//! The thread that the kernel tells what changes.
//!
//! Owns that thread. It must not know what becomes of what it tells.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::live::{Bell, Settings, anchors, inputs};
use crate::library::watch::{Waker, Watcher};

/// How long a watcher rests for which the kernel had no memory.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// What is watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Watched {
    /// With all below.
    roots: Vec<PathBuf>,
    /// Of which it only matters whether they are there.
    anchors: Vec<PathBuf>,
}

impl Watched {
    pub(super) fn of(settings: &Settings) -> Self {
        Watched {
            roots: inputs(settings),
            anchors: anchors(settings),
        }
    }
}

/// The thread that is told by the kernel what changes.
pub(super) struct Watch {
    pub(super) watched: Watched,
    waker: Waker,
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Watches what is to be watched. It takes a walk over all directories.
    pub(super) fn start(watched: Watched, bell: &Bell) -> Option<Self> {
        let started = Self::try_start(watched, bell);
        let failed = |error: &io::Error| {
            log::warn!("changes are found only by SIGHUP and --rescan: {error}");
        };
        started.inspect_err(failed).ok()
    }

    fn try_start(watched: Watched, bell: &Bell) -> io::Result<Self> {
        let watcher = Watcher::new(&watched.roots, &watched.anchors)?;
        let watch = Watch {
            watched,
            waker: watcher.waker(),
            ended: Arc::default(),
        };
        let (ended, bell) = (Arc::clone(&watch.ended), bell.clone());
        let thread = thread::Builder::new().name("hekate-watch".to_owned());
        thread.spawn(move || tell(watcher, &ended, &bell))?;
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        self.waker.wake();
    }
}

/// Hands on what a watcher tells. It never waits for whoever takes it, since the kernel does not wait
/// for us.
fn tell(mut watcher: Watcher, ended: &AtomicBool, bell: &Bell) {
    while !ended.load(Relaxed) {
        match watcher.wait(None) {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => bell.ask(|asked| asked.changes.merge(changes)),
            Err(error) => {
                log::warn!("noticing changes is delayed: {error}");
                thread::sleep(WATCH_RETRY);
            }
        }
    }
}
