//! The library while it is served: opened, refreshed, and told of what changes on disk.
//!
//! Owns the one thread that does all of that, since all of it may wait for a disk. What has come of
//! it goes to the loop as [`Update`]s through a bounded channel. It must not know sockets, peers or
//! trackers.

use std::collections::HashMap;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::build::Look;
use super::compare;
use super::index::{Counts, Entry, Index, IndexError};
use super::refresh::{self, Task};
use super::served::{Base, Differs};
pub use super::view::{Added, Change, Removed};
use super::view::{View, is_served};
use super::watch::{Changes, Waker, Watcher};
use crate::config::Config;
use crate::logging;
use crate::torrent::catalogue::Refusal;
use crate::wire::message::InfoHash;

/// Steps in one update: what the loop does in a fraction of a millisecond.
const STEPS_IN_UPDATE: usize = 256;

/// Updates that wait for the loop.
const UPDATES_WAITING: usize = 4;

/// Paths that are waited for in the memory of the thread when it is busy.
const LOOKS_WAITING: usize = 1024;

/// What has happened that waits for the thread, each of it small.
const EVENTS_WAITING: usize = 16;

/// How long a watcher rests for which the kernel had no memory.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// Paths that differ from the index before it is made anew: some 30 MB here and in the loop.
const DIFFERS_MAX: usize = 100_000;

/// Below a directory with more metainfo files than this, a change is found by a refresh.
const LOOKED_BELOW_MAX: usize = 20_000;

/// What is served, and how it is looked after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where torrents come from.
    pub source: Source,
    /// Where all content lies, unless beside each metainfo file or where an index says.
    pub content: Option<PathBuf>,
    /// How often everything is looked at again; `None` is never.
    pub rescan: Option<Duration>,
    /// Whether the torrents of an index are told one by one, to be announced.
    pub tell_each: bool,
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

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let content = config.content.clone();
        Settings {
            source: match &config.index {
                Some(index) => Source::Given {
                    index: index.clone(),
                    root: config.root.clone(),
                },
                None => {
                    let directory = config.state_dir.clone();
                    let directory = directory.unwrap_or_else(refresh::state_home);
                    Source::Inputs {
                        state: refresh::state_path(&directory, &config.dirs, content.as_deref()),
                        inputs: config.dirs.clone(),
                    }
                }
            },
            content,
            rescan: config.rescan_s.map(Duration::from_secs),
            tell_each: !config.no_tracker,
        }
    }
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
    pub differs: HashMap<InfoHash, Differs>,
    /// How much there is now.
    pub counts: Counts,
}

/// What is asked of the thread.
#[derive(Default)]
struct Asked {
    /// To look at everything, with these settings.
    refresh: Option<Settings>,
    /// To look at these metainfo files.
    looks: Vec<PathBuf>,
}

/// What the thread waits for.
pub(super) enum Event {
    /// Something is asked.
    Asked,
    /// A refresh has ended.
    Refreshed(Box<Result<Index, String>>),
    /// These paths may have changed.
    Changed(Changes),
}

/// The loop's end of it.
pub struct Live {
    asked: Arc<Mutex<Asked>>,
    events: SyncSender<Event>,
    updates: Receiver<Update>,
}

impl Live {
    /// Starts the thread. It calls `wake` after each update.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(settings: Settings, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (events, queue) = sync_channel(EVENTS_WAITING);
        let (updates, taken) = sync_channel(UPDATES_WAITING);
        let asked = Arc::new(Mutex::new(Asked::default()));
        let outbox = Outbox {
            updates,
            wake: Box::new(wake),
        };
        let keeper = (Arc::clone(&asked), events.clone());
        thread::Builder::new()
            .name("hekate-library".to_owned())
            .spawn(move || {
                let (asked, events) = keeper;
                // The loop has ended when this does.
                let _ = run(settings, &asked, &queue, &events, outbox);
            })?;
        Ok(Live {
            asked,
            events,
            updates: taken,
        })
    }

    /// What has come of it, if anything has. Never blocks.
    pub fn update(&self) -> Option<Update> {
        self.updates.try_recv().ok()
    }

    /// Has everything looked at again. Never blocks.
    pub fn refresh(&self, settings: Settings) {
        lock(&self.asked).refresh = Some(settings);
        // One that is not heard is not needed: the thread is busy, and looks when it is done.
        let _ = self.events.try_send(Event::Asked);
    }

    /// Has a metainfo file looked at that was not as it should be. Never blocks.
    pub fn look(&self, path: &Path) {
        let mut asked = lock(&self.asked);
        if asked.looks.len() < LOOKS_WAITING {
            asked.looks.push(path.to_path_buf());
        }
        drop(asked);
        let _ = self.events.try_send(Event::Asked);
    }
}

fn lock(asked: &Mutex<Asked>) -> std::sync::MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The loop has ended.
struct Ended;

struct Outbox {
    updates: SyncSender<Update>,
    wake: Box<dyn Fn() + Send>,
}

impl Outbox {
    fn send(&self, update: Update) -> Result<(), Ended> {
        self.updates.send(update).map_err(|_| Ended)?;
        (self.wake)();
        Ok(())
    }

    fn steps(
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

fn run(
    settings: Settings,
    asked: &Mutex<Asked>,
    queue: &Receiver<Event>,
    events: &SyncSender<Event>,
    outbox: Outbox,
) -> Result<(), Ended> {
    let kept = match refresh::open(&settings) {
        Ok(kept) => kept,
        Err(message) => return outbox.send(Update::Failed(message)),
    };
    let (index, watch, kept) = match kept {
        Some(index) => (index, None, true),
        // What changes while the index is made is told then.
        None => {
            let watch = Watch::start(&settings, events);
            match refresh::first(&settings) {
                Ok(index) => (index, watch, false),
                Err(message) => return outbox.send(Update::Failed(message)),
            }
        }
    };
    let base = Base::new(index);
    let view = View::new(base.clone(), settings.content.clone(), inputs(&settings));
    let mut keeper = Keeper {
        settings,
        view,
        outbox,
        events: events.clone(),
        watch,
        refreshing: None,
        again: None,
        looked_at: Instant::now(),
    };
    keeper.outbox.send(Update::Base(NewBase {
        base,
        content: keeper.settings.content.clone(),
        differs: HashMap::new(),
        counts: keeper.view.counts,
    }))?;
    keeper.tell_all()?;
    if kept {
        keeper.watch = Watch::start(&keeper.settings, events);
        keeper.refresh(Wish::start());
    }
    loop {
        match queue.recv_timeout(keeper.rest()) {
            Ok(Event::Asked) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Refreshed(made)) => keeper.take_up(*made)?,
            Ok(Event::Changed(Changes { paths, everything })) => keeper.look(&paths, everything)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let asked = mem::take(&mut *lock(asked));
        if let Some(settings) = asked.refresh {
            keeper.refresh(Wish::of(settings));
        }
        if !asked.looks.is_empty() {
            keeper.look(&asked.looks, false)?;
        }
        keeper.rescan_when_due();
    }
}

/// What is searched.
fn inputs(settings: &Settings) -> Vec<PathBuf> {
    match &settings.source {
        Source::Inputs { inputs, .. } => inputs.clone(),
        Source::Given { .. } => Vec::new(),
    }
}

/// Why everything is looked at.
#[derive(Clone, Debug)]
struct Wish {
    look: Look,
    /// Whether what was refused before is not said again.
    quiet: bool,
    /// What holds from then on, when somebody has asked for it.
    settings: Option<Settings>,
}

impl Wish {
    /// After a start with an index that was kept.
    fn start() -> Self {
        Wish {
            look: Look::Metainfo,
            quiet: false,
            settings: None,
        }
    }

    fn of(settings: Settings) -> Self {
        Wish {
            look: Look::Content,
            quiet: false,
            settings: Some(settings),
        }
    }

    /// By itself.
    fn quiet(look: Look) -> Self {
        Wish {
            look,
            quiet: true,
            settings: None,
        }
    }

    fn and(self, other: Option<Wish>) -> Self {
        let Some(other) = other else { return self };
        Wish {
            look: match (self.look, other.look) {
                (Look::Metainfo, Look::Metainfo) => Look::Metainfo,
                _ => Look::Content,
            },
            quiet: self.quiet && other.quiet,
            settings: self.settings.or(other.settings),
        }
    }
}

/// What the thread keeps.
struct Keeper {
    settings: Settings,
    view: View,
    outbox: Outbox,
    events: SyncSender<Event>,
    /// What tells of changes on disk, where it can.
    watch: Option<Watch>,
    /// The refresh that is under way, with how many torrents there were.
    refreshing: Option<(Wish, u64)>,
    /// What has come up meanwhile.
    again: Option<Wish>,
    /// When everything was looked at last.
    looked_at: Instant,
}

impl Keeper {
    /// How long nothing is to be done by itself.
    fn rest(&self) -> Duration {
        const LONG: Duration = Duration::from_secs(3600);
        match self.settings.rescan {
            Some(interval) if self.refreshing.is_none() => {
                interval.saturating_sub(self.looked_at.elapsed())
            }
            _ => LONG,
        }
    }

    fn rescan_when_due(&mut self) {
        let due = (self.settings.rescan).is_some_and(|every| self.looked_at.elapsed() >= every);
        if due && self.refreshing.is_none() {
            self.refresh(Wish::quiet(Look::Content));
        }
    }

    /// Has a new index made by a thread, or remembers that another is to follow the one under way.
    fn refresh(&mut self, wish: Wish) {
        if self.refreshing.is_some() {
            self.again = Some(wish.and(self.again.take()));
            return;
        }
        if let Some(settings) = &wish.settings
            && (self.watch.is_none() || inputs(settings) != inputs(&self.settings))
        {
            self.watch = Watch::start(settings, &self.events);
        }
        self.looked_at = Instant::now();
        self.view.epoch += 1;
        let settings = wish.settings.clone();
        let task = Task {
            settings: settings.unwrap_or_else(|| self.settings.clone()),
            base: Arc::clone(&self.view.base.index),
            look: wish.look,
            quiet: wish.quiet,
        };
        let events = self.events.clone();
        let work = move || {
            let made = refresh::again(&task);
            // The library's thread may have ended meanwhile.
            let _ = events.send(Event::Refreshed(Box::new(made)));
        };
        let thread = thread::Builder::new().name("hekate-refresh".to_owned());
        match thread.spawn(work) {
            Ok(_) => self.refreshing = Some((wish, self.view.counts.served)),
            Err(error) => log::error!("the library is not looked at again: {error}"),
        }
    }

    /// Takes up what a refresh has made.
    fn take_up(&mut self, made: Result<Index, String>) -> Result<(), Ended> {
        let Some((wish, before)) = self.refreshing.take() else {
            return Ok(());
        };
        match made {
            Err(error) if wish.settings.is_some() => {
                log::error!("not reloaded, the library is served as it was: {error}");
            }
            Err(error) => log::error!("the library is served as it was: {error}"),
            Ok(index) => {
                if let Some(settings) = &wish.settings {
                    self.settings = settings.clone();
                    self.view.follow(settings.content.clone(), inputs(settings));
                }
                match self.replace(index) {
                    Ok(sent) => sent?,
                    Err(error) => log::error!("the library is served as it was: {error}"),
                }
                let Counts { served, refused } = self.view.counts;
                if wish.settings.is_some() {
                    log::info!("reloaded: {served} torrents, {before} before, {refused} refused");
                }
            }
        }
        if let Some(again) = self.again.take() {
            self.refresh(again);
        }
        Ok(())
    }

    /// Puts a new index in place of the one that is served.
    fn replace(&mut self, index: Index) -> Result<Result<(), Ended>, IndexError> {
        let index = Arc::new(index);
        let epoch = match self.settings.source {
            Source::Inputs { .. } => self.view.epoch,
            // Whoever has made it knows best.
            Source::Given { .. } => u32::MAX,
        };
        let mut difference = compare::compare(&self.view, Arc::clone(&index), epoch)?;
        let removed = mem::take(&mut difference.removed);
        let added = mem::take(&mut difference.added);
        let base = difference.base.clone();
        self.view.replace(difference);
        let new = NewBase {
            content: self.settings.content.clone(),
            differs: self.view.differs()?,
            counts: self.view.counts,
            base,
        };
        let tell = || {
            self.outbox.send(Update::Base(new))?;
            let removed = removed.into_iter().map(Change::Removed);
            self.outbox.steps(removed, true, self.view.counts)?;
            let mut teller = Teller::new(&self.view.base);
            let index = &self.view.base.index;
            let added = (added.into_iter()).filter_map(|record| teller.added(index.record(record)));
            self.outbox.steps(added, true, self.view.counts)
        };
        Ok(tell())
    }

    /// Tells every torrent of the index.
    fn tell_all(&self) -> Result<(), Ended> {
        if !self.settings.tell_each {
            return Ok(());
        }
        let mut teller = Teller::new(&self.view.base);
        let entries = self.view.base.index.entries();
        let added = entries.filter_map(|entry| teller.added(entry));
        self.outbox.steps(added, true, self.view.counts)
    }

    /// Looks at what may have changed.
    fn look(&mut self, paths: &[PathBuf], everything: bool) -> Result<(), Ended> {
        let mut everything = everything;
        for path in paths {
            match self.view.known_below(path) {
                // A start that has come or gone, or much at once.
                Ok(known) if known > LOOKED_BELOW_MAX || self.view.is_start(path) => {
                    everything = true;
                }
                Ok(_) => {
                    if let Err(error) = self.view.look(path) {
                        return self.damaged(&error);
                    }
                }
                Err(error) => return self.damaged(&error),
            }
        }
        if let Err(error) = self.view.look_at_content(paths) {
            return self.damaged(&error);
        }
        self.tell_changes()?;
        if everything {
            self.refresh(Wish::quiet(Look::Content));
        } else if self.view.over.len() > DIFFERS_MAX && self.refreshing.is_none() {
            self.refresh(Wish::quiet(Look::Metainfo));
        }
        Ok(())
    }

    fn tell_changes(&mut self) -> Result<(), Ended> {
        say(&mem::take(&mut self.view.refusals));
        let changes = mem::take(&mut self.view.changes);
        if changes.is_empty() {
            return Ok(());
        }
        let added = changes
            .iter()
            .filter(|change| matches!(change, Change::Added(_)));
        let added = added.count();
        let removed = changes.len() - added;
        let counts = self.view.counts;
        log::info!(
            "{added} torrents added, {removed} removed: {} now",
            counts.served
        );
        self.outbox.steps(changes, false, counts)
    }

    /// The index turns out to be damaged: what is known of it is not to be relied on.
    fn damaged(&mut self, error: &IndexError) -> Result<(), Ended> {
        log::error!("{error}");
        self.tell_changes()?;
        self.refresh(Wish::quiet(Look::Metainfo));
        Ok(())
    }
}

/// The thread that is told by the kernel what changes.
struct Watch {
    waker: Waker,
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Watches what is searched, if anything is. It takes a walk over all directories.
    fn start(settings: &Settings, events: &SyncSender<Event>) -> Option<Self> {
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

/// The torrents of an index as they are told, with each list of announce URLs read once.
struct Teller<'a> {
    base: &'a Base,
    lists: HashMap<u32, Arc<[Vec<String>]>>,
}

impl<'a> Teller<'a> {
    fn new(base: &'a Base) -> Self {
        let lists = HashMap::new();
        Teller { base, lists }
    }

    /// `None` when it is not served, or the index is damaged there.
    fn added(&mut self, entry: Result<Entry, IndexError>) -> Option<Change> {
        let entry = entry.inspect_err(|error| log::error!("{error}")).ok()?;
        if !is_served(&entry) {
            return None;
        }
        let announce = match self.lists.get(&entry.trackers) {
            Some(known) => Arc::clone(known),
            None => {
                let list = self.base.index.trackers(entry.trackers);
                let list = list.inspect_err(|error| log::error!("{error}")).ok()?;
                let list: Arc<[Vec<String>]> = list.into();
                self.lists.insert(entry.trackers, Arc::clone(&list));
                list
            }
        };
        Some(Change::Added(Added {
            number: self.base.numbering.number(entry.number)?,
            info_hash: entry.info_hash,
            announce,
            metainfo: None,
        }))
    }
}

/// Says why torrents are not served, each in a line.
pub(super) fn say(refusals: &[Refusal]) {
    for refusal in refusals {
        log::warn!(target: logging::EACH_COUNTS, "refused: {refusal}");
    }
}
