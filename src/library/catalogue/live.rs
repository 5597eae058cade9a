//! The library while it is served: opened, refreshed, and told of what changes on disk.
//!
//! Owns the one thread that does all of that, since all of it may wait for a disk. What has come of
//! it goes to the loop as [`Update`]s through a bounded channel. It must not know sockets, peers or
//! trackers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

pub use super::contents::{Added, Change, Removed};
use super::lookup::{Base, Differs};
use super::watching::Watch;
use super::worker;
use crate::library::index::{Counts, Index};
use crate::library::scan::build::Progress;
use crate::library::watch::Changes;
use crate::torrent::catalogue::Refusal;
use crate::wire::message::InfoHash;

/// The target of lines of which each counts, however many there are: why a torrent is not served.
pub const EACH_COUNTS: &str = "hekate::library";

/// Steps in one update: what the loop does in a fraction of a millisecond.
const STEPS_IN_UPDATE: usize = 256;

/// Updates that wait for the loop.
const UPDATES_WAITING: usize = 4;

/// Paths that are waited for in the memory of the thread when it is busy.
const LOOKS_WAITING: usize = 1024;

/// What has happened that waits for the thread, each of it small: refreshes that have ended, of which
/// there is one at a time, and words that something is asked.
const EVENTS_WAITING: usize = 16;

/// What is served, and how it is looked after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where torrents come from.
    pub source: Source,
    /// Where all content lies, unless beside each metainfo file or where an index says.
    pub content: Option<PathBuf>,
    /// How often everything is looked at again; `None` is never.
    pub rescan: Option<Duration>,
}

/// Where torrents come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Directories and metainfo files, with an index of ours.
    Inputs {
        /// What is searched.
        inputs: Vec<PathBuf>,
        /// Where the index is kept.
        state: PathBuf,
    },
    /// An index that somebody else makes.
    Given {
        /// The file.
        index: PathBuf,
        /// Where its paths start, unless where it says.
        root: Option<PathBuf>,
    },
}

/// What the loop takes up.
#[derive(Debug)]
pub enum Update {
    /// An index takes the place of the one before, if there was one.
    Base(NewBase),
    /// Torrents have come and gone.
    Steps {
        /// In this order.
        steps: Vec<Change>,
        /// Whether the index that is served says so already.
        in_base: bool,
        /// How much there is now.
        counts: Counts,
    },
    /// There is nothing to serve, which ends the run.
    Failed(String),
}

/// See [`Update::Base`].
#[derive(Debug)]
pub struct NewBase {
    /// The index and its numbers.
    pub base: Base,
    /// Where all content lies, unless the index says.
    pub content: Option<PathBuf>,
    /// What differs from the index.
    pub differs: BTreeMap<InfoHash, Differs>,
    /// How much there is now.
    pub counts: Counts,
}

/// What is asked of the thread.
#[derive(Default)]
pub(super) struct Asked {
    /// To look at everything, with these settings.
    pub(super) refresh: Option<Settings>,
    /// To look at these metainfo files.
    pub(super) looks: Vec<PathBuf>,
    /// To look at what may have changed on disk. It is gathered here, so that whoever is told by the
    /// kernel never waits.
    pub(super) changes: Changes,
}

/// What the thread waits for.
pub(super) enum Event {
    /// Something is asked.
    Asked,
    /// A refresh has ended.
    Refreshed(Box<Refreshed>),
}

/// What has come of a refresh.
pub(super) struct Refreshed {
    pub(super) made: Result<Index, String>,
    /// What is watched from then on, when it is something else than before.
    pub(super) watch: Option<Watch>,
}

/// Asks the thread.
#[derive(Clone)]
pub(super) struct Bell {
    pub(super) asked: Arc<Mutex<Asked>>,
    pub(super) events: SyncSender<Event>,
}

impl Bell {
    /// Never blocks.
    pub(super) fn ask(&self, add: impl FnOnce(&mut Asked)) {
        add(&mut lock(&self.asked));
        // One that is not heard is not needed: the thread is busy, and looks when it is done.
        let _ = self.events.try_send(Event::Asked);
    }
}

/// The loop's end of it.
pub struct Live {
    bell: Bell,
    updates: Receiver<Update>,
    indexing: Arc<OnceLock<Progress>>,
}

impl Live {
    /// Starts the thread. It calls `wake` after each update.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(settings: Settings, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (events, queue) = sync_channel(EVENTS_WAITING);
        let (updates, taken) = sync_channel(UPDATES_WAITING);
        let asked = Arc::default();
        let bell = Bell { asked, events };
        let outbox = Outbox {
            updates,
            wake: Box::new(wake),
        };
        let indexing = Arc::default();
        let keeper = (bell.clone(), Arc::clone(&indexing));
        thread::Builder::new()
            .name("hekate-library".to_owned())
            .spawn(move || {
                let (bell, indexing) = keeper;
                // The loop has ended when this does.
                let _ = worker::run(settings, &indexing, (&queue, bell), outbox);
            })?;
        Ok(Live {
            bell,
            updates: taken,
            indexing,
        })
    }

    /// What has come of it, if anything has. Never blocks.
    pub fn update(&self) -> Option<Update> {
        self.updates.try_recv().ok()
    }

    /// Metainfo files in the first index so far; `None` when it was not or is not yet being made.
    #[must_use]
    pub fn indexed_files(&self) -> Option<u64> {
        let progress = self.indexing.get()?;
        Some(progress.files.load(Ordering::Relaxed))
    }

    /// Has everything looked at again. Never blocks.
    pub fn refresh(&self, settings: Settings) {
        self.bell.ask(|asked| asked.refresh = Some(settings));
    }

    /// Has a metainfo file looked at that was not as it should be. Never blocks.
    pub fn look(&self, path: &Path) {
        self.bell.ask(|asked| {
            if asked.looks.len() < LOOKS_WAITING {
                asked.looks.push(path.to_path_buf());
            }
        });
    }
}

pub(super) fn lock(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The loop has ended.
pub(super) struct Ended;

pub(super) struct Outbox {
    updates: SyncSender<Update>,
    wake: Box<dyn Fn() + Send>,
}

impl Outbox {
    pub(super) fn send(&self, update: Update) -> Result<(), Ended> {
        self.updates.send(update).map_err(|_| Ended)?;
        (self.wake)();
        Ok(())
    }

    pub(super) fn steps(
        &self,
        steps: impl IntoIterator<Item = Change>,
        in_base: bool,
        counts: Counts,
    ) -> Result<(), Ended> {
        let mut steps = steps.into_iter();
        loop {
            let steps: Vec<Change> = steps.by_ref().take(STEPS_IN_UPDATE).collect();
            if steps.is_empty() {
                return Ok(());
            }
            self.send(Update::Steps {
                steps,
                in_base,
                counts,
            })?;
        }
    }
}

/// What is searched.
pub(super) fn inputs(settings: &Settings) -> Vec<PathBuf> {
    match &settings.source {
        Source::Inputs { inputs, .. } => inputs.clone(),
        Source::Given { .. } => Vec::new(),
    }
}

/// Directories of which only it matters whether they are there: where all content lies, and where the
/// paths of a given index start.
pub(super) fn anchors(settings: &Settings) -> Vec<PathBuf> {
    let mut anchors: Vec<PathBuf> = settings.content.iter().cloned().collect();
    if let Source::Given { index, root } = &settings.source
        // One that cannot be read is told of when it is opened.
        && let Ok(origin) = Index::origin_of(index)
    {
        let root = root.clone().unwrap_or(origin.root);
        if anchors.is_empty() {
            anchors.extend(origin.content.map(|content| root.join(content)));
        }
        anchors.push(root);
    }
    anchors
}

/// Says why torrents are not served, each in a line.
pub(super) fn say(refusals: &[Refusal]) {
    for refusal in refusals {
        log::warn!(target: EACH_COUNTS, "refused: {refusal}");
    }
}
