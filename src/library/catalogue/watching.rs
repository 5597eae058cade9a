//! The thread that reads the kernel's events and posts changes to the mailbox.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::mailbox::Mailbox;
use super::source::Settings;
use crate::library::watch::{Waker, Watcher};
use crate::workers;

/// The pause after an error of the kernel, which has no memory.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// The watched directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Watched {
    /// Watched with everything below them.
    roots: Vec<PathBuf>,
    /// See [`Settings::presence_roots`].
    presence_roots: Vec<PathBuf>,
}

impl Watched {
    pub(super) fn of(settings: &Settings) -> Self {
        Watched {
            roots: settings.inputs(),
            presence_roots: settings.presence_roots(),
        }
    }
}

/// The thread `hekate-watch`. It ends some time after this is dropped.
pub(super) struct Watch {
    pub(super) watched: Watched,
    waker: Waker,
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Starts to watch, which takes a walk over all directories. `None` when it cannot.
    pub(super) fn start(watched: Watched, mailbox: &Mailbox) -> Option<Self> {
        let started = Self::try_start(watched, mailbox);
        let failed = |error: &io::Error| {
            log::warn!("changes are found only by SIGHUP and --rescan: {error}");
        };
        started.inspect_err(failed).ok()
    }

    fn try_start(watched: Watched, mailbox: &Mailbox) -> io::Result<Self> {
        let watcher = Watcher::new(&watched.roots, &watched.presence_roots)?;
        let watch = Watch {
            watched,
            waker: watcher.waker(),
            ended: Arc::default(),
        };
        let (ended, mailbox) = (Arc::clone(&watch.ended), mailbox.clone());
        workers::spawn("watch", move || run(watcher, &ended, &mailbox))?;
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        self.waker.wake();
    }
}

/// Posts the changes that the watcher reports.
fn run(mut watcher: Watcher, ended: &AtomicBool, mailbox: &Mailbox) {
    while !ended.load(Relaxed) {
        match watcher.wait(None) {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => mailbox.post(|mail| mail.changes.merge(changes)),
            Err(error) => {
                log::warn!("noticing changes is delayed: {error}");
                thread::sleep(WATCH_RETRY);
            }
        }
    }
}
