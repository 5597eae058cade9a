//! The thread that the kernel tells what changes.
//!
//! Owns that thread. It must not know what becomes of what it tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use super::{Event, Settings, inputs};
use crate::library::watch::{Waker, Watcher};

/// How long a watcher rests for which the kernel had no memory.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// The thread that is told by the kernel what changes.
pub(super) struct Watch {
    waker: Waker,
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Watches what is searched, if anything is. It takes a walk over all directories.
    pub(super) fn start(settings: &Settings, events: &SyncSender<Event>) -> Option<Self> {
        let inputs = inputs(settings);
        if inputs.is_empty() {
            return None;
        }
        let started = Watcher::new(&inputs).and_then(|watcher| {
            let watch = Watch {
                waker: watcher.waker(),
                ended: Arc::default(),
            };
            let (ended, events) = (Arc::clone(&watch.ended), events.clone());
            let thread = thread::Builder::new().name("hekate-watch".to_owned());
            thread.spawn(move || tell(watcher, &ended, &events))?;
            Ok(watch)
        });
        let failed = |error: &std::io::Error| {
            log::warn!("changes are found by SIGHUP and --rescan alone: {error}");
        };
        started.inspect_err(failed).ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        self.waker.wake();
    }
}

/// Hands on what a watcher tells.
fn tell(mut watcher: Watcher, ended: &AtomicBool, events: &SyncSender<Event>) {
    while !ended.load(Relaxed) {
        match watcher.wait(None) {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                if events.send(Event::Changed(changes)).is_err() {
                    return;
                }
            }
            Err(error) => {
                log::warn!("changes are noticed later: {error}");
                thread::sleep(WATCH_RETRY);
            }
        }
    }
}
