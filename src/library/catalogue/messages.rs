//! The messages between the loop and the library's thread.
//!
//! Requests go to a mailbox, where the thread that reads the kernel's events posts changes too.
//! Updates come back through a bounded channel.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use super::overlay::{Change, Overrides, Snapshot};
use super::source::Settings;
use crate::disks::Disk;
use crate::library::index::Counts;
use crate::library::scan::probe::Probed;
use crate::library::watch::{Changes, Waker, Watcher};
use crate::torrent::content_directories::ContentDirectories;
use crate::workers;

/// Changes in one update: the loop applies them in a fraction of a millisecond.
const CHANGES_IN_UPDATE: usize = 256;

/// The pause after an error of the kernel, which has no memory.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// An update for the loop.
#[derive(Debug)]
pub enum Update {
    /// A snapshot replaces the one before, if there was one.
    Snapshot(NewSnapshot),
    /// Torrents have come and gone.
    Changes {
        /// In this order.
        changes: Vec<Change>,
        /// The snapshot contains them already.
        in_snapshot: bool,
        /// The counts after them.
        counts: Counts,
    },
    /// There is nothing to serve, which ends the run.
    Failed(String),
}

/// See [`Update::Snapshot`].
#[derive(Debug)]
pub struct NewSnapshot {
    /// The index and its ids.
    pub snapshot: Snapshot,
    /// Where content lies, unless the index says.
    pub content: ContentDirectories,
    /// Differences from the snapshot.
    pub overrides: Overrides,
    /// Its counts, with the overrides.
    pub counts: Counts,
}

/// The loop has ended.
#[derive(Debug, Error)]
#[error("the loop has ended")]
pub(super) struct Ended;

/// The library thread's end of the updates.
pub(super) struct Outbox {
    /// `None` only while this is dropped.
    updates: Option<SyncSender<Update>>,
    wake: Box<dyn Fn() + Send>,
}

impl Outbox {
    /// `wake` is called after each update, and when the thread ends.
    pub(super) fn new(updates: SyncSender<Update>, wake: impl Fn() + Send + 'static) -> Self {
        Outbox {
            updates: Some(updates),
            wake: Box::new(wake),
        }
    }

    pub(super) fn send(&self, update: Update) -> Result<(), Ended> {
        let updates = self.updates.as_ref().expect("it is not dropped yet");
        updates.send(update).map_err(|_| Ended)?;
        (self.wake)();
        Ok(())
    }

    pub(super) fn send_changes(
        &self,
        changes: impl IntoIterator<Item = Change>,
        in_snapshot: bool,
        counts: Counts,
    ) -> Result<(), Ended> {
        let mut changes = changes.into_iter();
        loop {
            let changes: Vec<Change> = changes.by_ref().take(CHANGES_IN_UPDATE).collect();
            if changes.is_empty() {
                return Ok(());
            }
            self.send(Update::Changes {
                changes,
                in_snapshot,
                counts,
            })?;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // The loop has to find the channel closed when it wakes.
        self.updates = None;
        (self.wake)();
    }
}

/// Requests to the library's thread.
#[derive(Default)]
pub(super) struct Mail {
    /// Scan everything, with these settings from then on.
    pub(super) refresh: Option<Settings>,
    /// Examine these metainfo files.
    pub(super) examine: Vec<PathBuf>,
    /// Examine these changes on disk.
    pub(super) changes: Changes,
    /// The refresh under way has ended.
    pub(super) refresh_ended: bool,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.refresh.is_none()
            && self.examine.is_empty()
            && self.changes.is_empty()
            && !self.refresh_ended
    }
}

/// The requests, gathered until the library's thread takes them.
///
/// Posting never blocks for longer than another post: the loop posts here, and so does the thread
/// that reads the kernel's events, which must not wait or events are lost.
#[derive(Clone, Default)]
pub(super) struct Mailbox(Arc<(Mutex<Mail>, Condvar)>);

impl Mailbox {
    /// Adds a request, and wakes the thread.
    pub(super) fn post(&self, add: impl FnOnce(&mut Mail)) {
        let (mail, posted) = &*self.0;
        // A panic while adding leaves nothing half done that matters.
        add(&mut mail.lock().unwrap_or_else(PoisonError::into_inner));
        posted.notify_one();
    }

    /// Takes all requests. Waits at most this long for one.
    pub(super) fn wait(&self, timeout: Duration) -> Mail {
        let (mail, posted) = &*self.0;
        let mail = mail.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = posted.wait_timeout_while(mail, timeout, |mail| mail.is_empty());
        let (mut mail, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *mail)
    }
}

/// The watched directories.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
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

/// The threads `hekate-watch`, which post changes on disk: one for each disk that roots are on, so that one
/// that hangs holds up no other. They end some time after this is dropped.
pub(super) struct Watch {
    pub(super) watched: Watched,
    parts: Vec<WatchPart>,
}

/// One thread.
struct WatchPart {
    /// Once it watches.
    waker: Arc<OnceLock<Waker>>,
    ended: Arc<AtomicBool>,
    /// An answer that it watches, or cannot.
    started: Receiver<io::Result<()>>,
    hangs: bool,
}

impl Watch {
    /// Starts to watch, which takes a walk over all directories. `None` when it cannot.
    pub(super) fn start(watched: Watched, probed: &Probed, mailbox: &Mailbox) -> Option<Self> {
        let started = Self::try_start(watched, probed, mailbox);
        let failed = |error: &io::Error| {
            log::warn!("changes are found only by SIGHUP and --rescan: {error}");
        };
        started.inspect_err(failed).ok()
    }

    fn try_start(watched: Watched, probed: &Probed, mailbox: &Mailbox) -> io::Result<Self> {
        // What could not be probed is a disk of its own.
        let mut by_disk: BTreeMap<Option<&Disk>, Watched> = BTreeMap::new();
        for root in &watched.roots {
            let part = by_disk.entry(probed.disk(root)).or_default();
            part.roots.push(root.clone());
        }
        for root in &watched.presence_roots {
            let part = by_disk.entry(probed.disk(root)).or_default();
            part.presence_roots.push(root.clone());
        }
        let mut watch = Watch {
            watched,
            parts: Vec::new(),
        };
        for part in by_disk.into_values() {
            let mut roots = part.roots.iter().chain(&part.presence_roots);
            let hangs = roots.any(|root| probed.hung(root).is_some());
            watch
                .parts
                .push(WatchPart::start(part, hangs, mailbox.clone())?);
        }
        for part in watch.parts.iter().filter(|part| !part.hangs) {
            // A thread that has panicked ends the process.
            part.started.recv().unwrap_or(Ok(()))?;
        }
        Ok(watch)
    }
}

impl WatchPart {
    fn start(watched: Watched, hangs: bool, mailbox: Mailbox) -> io::Result<Self> {
        let (waker, ended) = (
            Arc::<OnceLock<Waker>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (sender, started) = sync_channel(1);
        let (is_ended, own_waker) = (Arc::clone(&ended), Arc::clone(&waker));
        workers::spawn("watch", move || {
            let mut watcher = match Watcher::new(&watched.roots, &watched.presence_roots) {
                Ok(watcher) => watcher,
                Err(error) => return drop(sender.send(Err(error))),
            };
            own_waker.get_or_init(|| watcher.waker());
            // If it has hung until now, nobody waits for this.
            let _ = sender.send(Ok(()));
            if hangs {
                mailbox.post(|mail| mail.changes.everything = true);
            }
            while !is_ended.load(Relaxed) {
                match watcher.wait(None) {
                    Ok(changes) if changes.is_empty() => {}
                    Ok(changes) => mailbox.post(|mail| mail.changes.merge(changes)),
                    Err(error) => {
                        log::warn!("changes will be noticed late: {error}");
                        thread::sleep(WATCH_RETRY);
                    }
                }
            }
        })?;
        Ok(WatchPart {
            waker,
            ended,
            started,
            hangs,
        })
    }
}

impl Drop for WatchPart {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}
