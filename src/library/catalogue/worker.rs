//! The library's thread: it opens the library, examines changes, and refreshes the index.

use std::collections::BTreeMap;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::additions::Additions;
use super::contents::Contents;
use super::mailbox::Mailbox;
use super::merge::merge;
use super::overlay::{Affected, Change, Examined, Snapshot};
use super::refresh::{self, Task};
use super::retries::Retries;
use super::source::{Settings, Source, log_refusals};
use super::updates::{Ended, NewSnapshot, Outbox, Update};
use super::watching::{Watch, Watched};
use crate::library::index::{Counts, Index, IndexError};
use crate::library::scan::build::{Depth, Progress};
use crate::library::watch::Changes;

/// Overlay entries that make a refresh due: some 30 MB here and in the loop, by estimate.
const OVERLAY_MAX: usize = 100_000;

/// Overlay entries at most, while a refresh is made. Another refresh finds changes beyond that.
const OVERLAY_BOUND: usize = 2 * OVERLAY_MAX;

/// Changes that are sent together while more are examined. The log has a line for each batch.
const SENT_AT_ONCE: usize = 1024;

/// The pause before paths are examined again that needed a descriptor when none was left. Peers come
/// and go faster.
const POSTPONED_PAUSE: Duration = Duration::from_secs(1);

/// Below a directory with more metainfo files than this, a refresh finds the changes.
const AFFECTED_MAX: usize = 20_000;

/// Opens the library, then updates it until the loop ends.
pub(super) fn run(
    settings: Settings,
    indexing: &OnceLock<Progress>,
    mailbox: &Mailbox,
    outbox: Outbox,
) -> Result<(), Ended> {
    let opened = match refresh::open(&settings) {
        Ok(opened) => opened,
        Err(message) => return outbox.send(Update::Failed(message)),
    };
    let was_cached = opened.is_some();
    let (index, watch) = match opened {
        Some(index) => (index, None),
        None => {
            // The watch comes first: it reports changes while the index is made.
            let watch = Watch::start(Watched::of(&settings), mailbox);
            let progress = indexing.get_or_init(Progress::default);
            match guarded(|| refresh::first(&settings, progress)) {
                Ok(index) => (index, watch),
                Err(message) => return outbox.send(Update::Failed(message)),
            }
        }
    };
    let snapshot = Snapshot::new(index);
    let is_given = matches!(settings.source, Source::Given { .. });
    let content = settings.content.clone();
    let contents = Contents::new(snapshot.clone(), content, settings.inputs(), is_given);
    let mut worker = Worker {
        settings,
        contents,
        outbox,
        mailbox: mailbox.clone(),
        watch,
        refreshing: None,
        next_refresh: None,
        scanned_at: Instant::now(),
        retries: Retries::default(),
        postponed: Changes::default(),
        resume_at: None,
    };
    worker.outbox.send(Update::Snapshot(NewSnapshot {
        snapshot,
        content: worker.settings.content.clone(),
        overrides: BTreeMap::new(),
        counts: worker.contents.counts(),
    }))?;
    match worker.settings.source {
        // Files may have changed since the index was made.
        Source::Inputs { .. } if was_cached => {
            worker.refresh(RefreshRequest::new(Depth::Metainfo, false));
        }
        Source::Inputs { .. } => {}
        // A SIGHUP announces the next one.
        Source::Given { .. } => {
            refresh::warn_of_away(&worker.settings);
            worker.watch = Watch::start(Watched::of(&worker.settings), mailbox);
        }
    }
    loop {
        let mail = mailbox.wait(worker.idle_for(Instant::now()));
        if mail.refresh_ended {
            worker.end_refresh()?;
        }
        if let Some(settings) = mail.refresh {
            worker.refresh(RefreshRequest::reload(settings));
        }
        if !mail.changes.is_empty() {
            worker.examine(&mail.changes)?;
        }
        let now = Instant::now();
        for path in mail.examine {
            worker.retries.add(path, now);
        }
        worker.retry_due()?;
        worker.resume_when_due()?;
        worker.rescan_when_due();
    }
}

/// Makes an index. A panic is an error like another, so that the library is still updated; the panic
/// itself has been reported on standard error.
fn guarded(make: impl FnOnce() -> Result<Index, String>) -> Result<Index, String> {
    let made = catch_unwind(AssertUnwindSafe(make));
    made.unwrap_or_else(|_| Err("making the index panicked, a defect of hekate".to_owned()))
}

/// Why an examination or a merge ends early.
#[derive(Debug, Error)]
enum Interrupted {
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A refresh that is wanted.
#[derive(Clone, Debug)]
struct RefreshRequest {
    depth: Depth,
    /// Refusals of the snapshot are not logged again.
    quiet: bool,
    /// The settings from then on, if it was requested by a reload.
    settings: Option<Settings>,
}

impl RefreshRequest {
    fn new(depth: Depth, quiet: bool) -> Self {
        RefreshRequest {
            depth,
            quiet,
            settings: None,
        }
    }

    fn reload(settings: Settings) -> Self {
        RefreshRequest {
            settings: Some(settings),
            ..Self::new(Depth::Content, false)
        }
    }

    /// One refresh in place of this and an earlier request.
    fn and(self, earlier: Option<RefreshRequest>) -> Self {
        let Some(earlier) = earlier else { return self };
        RefreshRequest {
            depth: self.depth.max(earlier.depth),
            quiet: self.quiet && earlier.quiet,
            settings: self.settings.or(earlier.settings),
        }
    }
}

/// The refresh that is under way, in a thread of its own.
struct Refreshing {
    request: RefreshRequest,
    /// How many torrents were served when it began.
    served_before: u64,
    thread: JoinHandle<Refreshed>,
}

/// The result of a refresh.
struct Refreshed {
    made: Result<Index, String>,
    /// The watch that replaces the one before, when other directories are configured.
    watch: Option<Watch>,
}

struct Worker {
    settings: Settings,
    contents: Contents,
    outbox: Outbox,
    mailbox: Mailbox,
    /// `None` where changes cannot be watched.
    watch: Option<Watch>,
    refreshing: Option<Refreshing>,
    /// A refresh that was requested while another is under way.
    next_refresh: Option<RefreshRequest>,
    /// When the last scan of everything began.
    scanned_at: Instant,
    /// Files that were not right when a peer asked for their torrents.
    retries: Retries,
    /// Paths that could not be examined because no descriptor was left.
    postponed: Changes,
    /// When `postponed` is examined.
    resume_at: Option<Instant>,
}

impl Worker {
    /// How long nothing is due, unless mail comes.
    fn idle_for(&self, now: Instant) -> Duration {
        const LONG: Duration = Duration::from_secs(3600);
        let rescan_at = (self.settings.rescan)
            .filter(|_| self.refreshing.is_none())
            .and_then(|interval| self.scanned_at.checked_add(interval));
        let due = [rescan_at, self.retries.poll_at(), self.resume_at];
        let next = due.into_iter().flatten().min();
        next.map_or(LONG, |next| next.saturating_duration_since(now))
    }

    fn rescan_when_due(&mut self) {
        let is_due = (self.settings.rescan).is_some_and(|every| self.scanned_at.elapsed() >= every);
        if is_due && self.refreshing.is_none() {
            self.refresh(RefreshRequest::new(Depth::Content, true));
        }
    }

    /// Starts to make a new index in a thread, or remembers to do so after the one under way.
    fn refresh(&mut self, request: RefreshRequest) {
        if self.refreshing.is_some() {
            return self.refresh_afterwards(request);
        }
        self.scanned_at = Instant::now();
        self.contents.begin_refresh();
        let settings = request.settings.clone();
        let task = Task {
            settings: settings.unwrap_or_else(|| self.settings.clone()),
            previous: Arc::clone(&self.contents.snapshot().index),
            depth: request.depth,
            quiet: request.quiet,
            gone: self.contents.tombstones(),
        };
        let watched = self.watch.as_ref().map(|watch| watch.watched.clone());
        let mailbox = self.mailbox.clone();
        let work = move || {
            let wanted = Watched::of(&task.settings);
            // The watch comes first: it reports changes during the scan.
            let watch = match watched.as_ref() == Some(&wanted) {
                true => None,
                false => Watch::start(wanted, &mailbox),
            };
            let made = guarded(|| refresh::again(&task));
            mailbox.post(|mail| mail.refresh_ended = true);
            Refreshed { made, watch }
        };
        let thread = thread::Builder::new().name("hekate-refresh".to_owned());
        match thread.spawn(work) {
            Ok(thread) => {
                self.refreshing = Some(Refreshing {
                    request,
                    served_before: self.contents.counts().served,
                    thread,
                });
            }
            Err(error) => log::error!("cannot start a rescan: {error}"),
        }
    }

    /// Remembers a refresh until the one under way has ended.
    fn refresh_afterwards(&mut self, request: RefreshRequest) {
        self.next_refresh = Some(request.and(self.next_refresh.take()));
    }

    /// Merges the index that a refresh has made.
    fn end_refresh(&mut self) -> Result<(), Ended> {
        let ended = self.refreshing.take();
        let ended = ended.expect("a refresh posts its end once");
        let request = ended.request;
        // Posting was the last thing it did.
        let Refreshed { made, watch } = ended.thread.join().expect("a refresh catches panics");
        // The watch of settings that are not taken is of no use.
        if watch.is_some() && (made.is_ok() || request.settings.is_none()) {
            self.watch = watch;
        }
        match made {
            Err(error) if request.settings.is_some() => {
                log::error!("reload failed, still serving the old library: {error}");
            }
            Err(error) => log::error!("rescan failed, still serving the old library: {error}"),
            Ok(index) => {
                if let Some(settings) = &request.settings {
                    self.settings = settings.clone();
                    let content = settings.content.clone();
                    self.contents.configure(content, settings.inputs());
                }
                match self.replace(index) {
                    Ok(()) => {}
                    Err(Interrupted::Ended(ended)) => return Err(ended),
                    Err(Interrupted::Index(error)) => {
                        log::error!("rescan failed, still serving the old library: {error}");
                    }
                }
                let Counts { served, refused } = self.contents.counts();
                if request.settings.is_some() {
                    let before = ended.served_before;
                    log::info!("reloaded: {served} torrents, {before} before, {refused} refused");
                }
            }
        }
        if let Some(next) = self.next_refresh.take() {
            self.refresh(next);
        }
        Ok(())
    }

    /// Merges a new index into the contents and sends the changes.
    fn replace(&mut self, index: Index) -> Result<(), Interrupted> {
        let epoch = match self.settings.source {
            Source::Inputs { .. } => self.contents.epoch(),
            // A given index overrides everything that was examined.
            Source::Given { .. } => u32::MAX,
        };
        let (merged, difference) = merge(&self.contents, Arc::new(index), epoch)?;
        self.contents.replace(merged);
        self.retries.clear();
        let snapshot = self.contents.snapshot();
        let counts = self.contents.counts();
        self.outbox.send(Update::Snapshot(NewSnapshot {
            snapshot: snapshot.clone(),
            content: self.settings.content.clone(),
            overrides: self.contents.overrides()?,
            counts,
        }))?;
        let removed = difference.removed.into_iter().map(Change::Removed);
        self.outbox.send_changes(removed, true, counts)?;
        let mut additions = Additions::new(snapshot);
        let records = difference.added.into_iter();
        let added = records.filter_map(|record| additions.added(snapshot.index.record(record)));
        self.outbox.send_changes(added, true, counts)?;
        let mut examined = Examined::default();
        let promoted = self.contents.promote_duplicates(&mut examined);
        self.report(&mut examined)?;
        Ok(promoted?)
    }

    /// Examines the files that changes may affect, and starts a scan if one is needed.
    fn examine(&mut self, changes: &Changes) -> Result<(), Ended> {
        let mut examined = Examined::default();
        let scan = self.examine_changes(changes, &mut examined);
        self.report(&mut examined)?;
        match scan {
            Err(Interrupted::Ended(ended)) => return Err(ended),
            Err(Interrupted::Index(error)) => self.rebuild(&error),
            Ok(Some(depth)) => self.refresh(RefreshRequest::new(depth, true)),
            Ok(None) => {
                if self.contents.overlay().len() > OVERLAY_MAX && self.refreshing.is_none() {
                    self.refresh(RefreshRequest::new(Depth::Metainfo, true));
                }
            }
        }
        Ok(())
    }

    /// Examines the files that changes affect. Returns the depth of the scan that is needed too.
    fn examine_changes(
        &mut self,
        changes: &Changes,
        examined: &mut Examined,
    ) -> Result<Option<Depth>, Interrupted> {
        let mut scan = changes.everything.then_some(Depth::Content);
        for path in &changes.paths {
            let affected = match self.contents.is_input(path) {
                // A configured directory has come or gone.
                true => Affected::ManyKnown,
                false => self.contents.affected(path, AFFECTED_MAX, examined)?,
            };
            match affected {
                Affected::Files(files) => self.examine_each(&files, examined)?,
                Affected::ManyKnown => scan = Some(Depth::Content),
                // A scan reads files that are not in the index at any depth.
                Affected::ManyNew => scan = scan.or(Some(Depth::Metainfo)),
            }
        }
        let files = self.contents.files_of_content(&changes.paths)?;
        self.examine_each(&files, examined)?;
        Ok(scan)
    }

    /// Examines metainfo files, and sends changes while more are examined: the first torrents are
    /// served long before the last is read.
    fn examine_each(
        &mut self,
        files: &[PathBuf],
        examined: &mut Examined,
    ) -> Result<(), Interrupted> {
        for file in files {
            if self.contents.overlay().len() >= OVERLAY_BOUND {
                if self.refreshing.is_some() {
                    // The refresh may have passed this path already.
                    self.refresh_afterwards(RefreshRequest::new(Depth::Metainfo, true));
                }
                return Ok(());
            }
            self.contents.examine(file, examined)?;
            if examined.changes.len() >= SENT_AT_ONCE {
                self.report(examined)?;
            }
        }
        Ok(())
    }

    /// Examines some of the files that were not right when a peer asked for their torrents. Each is
    /// withdrawn or served again, but not while its disk is away: nothing can be found out then.
    fn retry_due(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        let mut examined = Examined::default();
        let mut damage = None;
        for retry in self.retries.take_due(now) {
            let path = &retry.path;
            let result = match self.contents.is_away(path) {
                true => Ok(()),
                false => self.contents.examine(path, &mut examined),
            };
            match result.and_then(|()| self.contents.is_intact(path)) {
                Ok(true) => {}
                Ok(false) => self.retries.again(retry, now),
                Err(error) => {
                    damage = Some(error);
                    break;
                }
            }
        }
        self.report(&mut examined)?;
        if let Some(error) = damage {
            self.rebuild(&error);
        }
        Ok(())
    }

    fn resume_when_due(&mut self) -> Result<(), Ended> {
        if self.resume_at.is_some_and(|at| at <= Instant::now()) {
            self.resume_at = None;
            let changes = mem::take(&mut self.postponed);
            return self.examine(&changes);
        }
        Ok(())
    }

    /// Logs refusals, sends changes, and leaves postponed paths for later.
    fn report(&mut self, examined: &mut Examined) -> Result<(), Ended> {
        log_refusals(&mem::take(&mut examined.refused));
        let mut paths = mem::take(&mut examined.postponed);
        if !paths.is_empty() {
            paths.sort_unstable();
            let everything = false;
            self.postponed.merge(Changes { paths, everything });
            self.resume_at = Some(Instant::now() + POSTPONED_PAUSE);
        }
        let changes = mem::take(&mut examined.changes);
        if changes.is_empty() {
            return Ok(());
        }
        let is_added = |change: &&Change| matches!(change, Change::Added(_));
        let added = changes.iter().filter(is_added).count();
        let removed = changes.len() - added;
        let counts = self.contents.counts();
        let served = counts.served;
        log::info!("{added} torrents added, {removed} removed: {served} now");
        self.outbox.send_changes(changes, false, counts)
    }

    /// The index has turned out to be damaged.
    fn rebuild(&mut self, error: &IndexError) {
        log::error!("rebuilding the index: {error}");
        self.refresh(RefreshRequest::new(Depth::Metainfo, true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_making_an_index_is_an_error() {
        let message = guarded(|| panic!("on purpose")).unwrap_err();
        assert!(message.contains("a defect of hekate"));
        assert_eq!(guarded(|| Err("no".to_owned())).unwrap_err(), "no");
    }
}
