//! The library's thread: it opens the library, examines changes, and refreshes the index.

use std::collections::HashMap;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::contents::Contents;
use super::merge::merge;
use super::messages::{Ended, Mail, Mailbox, NewSnapshot, Outbox, Update, Watch, Watched};
use super::overlay::{Added, Affected, Change, Examined, Overrides, Snapshot};
use super::refresh;
use super::retries::Retries;
use super::source::{Settings, Source, log_refusals};
use crate::disks::Disks;
use crate::library::index::format::{RecordNo, TrackerListNo};
use crate::library::index::{Counts, Index, IndexError};
use crate::library::scan::build::{Depth, Previous, Progress};
use crate::library::scan::probe::Probed;
use crate::library::watch::Changes;
use crate::workers::contained;

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
    disks: Disks,
    is_encrypted: bool,
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
            let probed = probe(&settings, &disks, mailbox);
            // The watch comes first: it reports changes while the index is made.
            let watch = Watch::start(Watched::of(&settings), &probed, mailbox);
            let progress = indexing.get_or_init(Progress::default);
            match guarded(|| refresh::first(&settings, &probed, progress)) {
                Ok(index) => (index, watch),
                Err(message) => return outbox.send(Update::Failed(message)),
            }
        }
    };
    // An old index does not say all that a file does: each is read again.
    let depth = if index.is_old() {
        Depth::Content
    } else {
        Depth::Metainfo
    };
    let snapshot = Snapshot::new(opened_for(is_encrypted, index));
    let is_given = matches!(settings.source, Source::Given { .. });
    let (content, files) = (&settings.content, settings.inputs());
    let contents = Contents::new(snapshot.clone(), content, files, is_given);
    let mut worker = Worker {
        settings,
        disks,
        is_encrypted,
        contents,
        outbox,
        mailbox: mailbox.clone(),
        watch,
        refreshing: None,
        next_refresh: None,
        scanned_at: Instant::now(),
        examined: Examined::default(),
        retries: Retries::default(),
        postponed: Changes::default(),
        resume_at: None,
    };
    worker.outbox.send(Update::Snapshot(NewSnapshot {
        snapshot,
        content: worker.settings.content.clone(),
        overrides: Overrides::default(),
        counts: worker.contents.counts(),
    }))?;
    match worker.settings.source {
        // Files may have changed since the index was made.
        Source::Inputs { .. } if was_cached => {
            worker.refresh(RefreshRequest::new(depth, false));
        }
        Source::Inputs { .. } => {}
        // A SIGHUP announces the next one.
        Source::Given { .. } => {
            let probed = probe(&worker.settings, &worker.disks, mailbox);
            refresh::warn_of_away(&worker.settings, &probed);
            worker.watch = Watch::start(Watched::of(&worker.settings), &probed, mailbox);
        }
    }
    loop {
        let mail = mailbox.wait(worker.idle_for(Instant::now()));
        worker.handle(mail)?;
        worker.run_due()?;
    }
}

/// Finds out which directories hang. When one answers again, everything is searched.
fn probe(settings: &Settings, disks: &Disks, mailbox: &Mailbox) -> Probed {
    let mailbox = mailbox.clone();
    Probed::new(disks, &refresh::directories(settings), move || {
        mailbox.post(|mail| mail.changes.everything = true);
    })
}

/// Makes an index. A panic is an error like another, so that the library is still updated; the panic
/// itself has been reported on standard error.
fn guarded(make: impl FnOnce() -> Result<Index, String>) -> Result<Index, String> {
    contained(make)
        .unwrap_or_else(|_| Err("making the index panicked, a defect of hekate".to_owned()))
}

/// An index whose torrents are found by their obfuscated hashes, if connections may be encrypted.
fn opened_for(is_encrypted: bool, index: Index) -> Index {
    match is_encrypted {
        true => index.with_obfuscated(),
        false => index,
    }
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
    /// Makes the index, and a watch that replaces the one before when other directories are configured.
    thread: JoinHandle<(Result<Index, String>, Option<Watch>)>,
}

struct Worker {
    settings: Settings,
    disks: Disks,
    /// Connections may be encrypted.
    is_encrypted: bool,
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
    /// What was found out and not yet reported.
    examined: Examined,
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

    fn handle(&mut self, mail: Mail) -> Result<(), Ended> {
        if mail.refresh_ended {
            self.end_refresh()?;
        }
        if let Some(settings) = mail.refresh {
            self.refresh(RefreshRequest::reload(settings));
        }
        if !mail.changes.is_empty() {
            self.examine(&mail.changes)?;
        }
        let now = Instant::now();
        for path in mail.examine {
            self.retries.add(path, now);
        }
        Ok(())
    }

    fn run_due(&mut self) -> Result<(), Ended> {
        let retried = self.retry_due();
        self.conclude(retried)?;
        if self.resume_at.is_some_and(|at| at <= Instant::now()) {
            self.resume_at = None;
            let changes = mem::take(&mut self.postponed);
            self.examine(&changes)?;
        }
        let is_due = (self.settings.rescan).is_some_and(|every| self.scanned_at.elapsed() >= every);
        if is_due && self.refreshing.is_none() {
            self.refresh(RefreshRequest::new(Depth::Content, true));
        }
        Ok(())
    }

    /// Starts to make a new index in a thread, or remembers to do so after the one under way.
    fn refresh(&mut self, request: RefreshRequest) {
        if self.refreshing.is_some() {
            return self.refresh_afterwards(request);
        }
        self.scanned_at = Instant::now();
        self.contents.begin_refresh();
        let settings = request.settings.clone();
        let settings = settings.unwrap_or_else(|| self.settings.clone());
        let index = Arc::clone(&self.contents.snapshot().index);
        let (depth, quiet, gone) = (request.depth, request.quiet, self.contents.tombstones());
        let watched = self.watch.as_ref().map(|watch| watch.watched.clone());
        let (mailbox, disks) = (self.mailbox.clone(), self.disks.clone());
        let is_encrypted = self.is_encrypted;
        let work = move || {
            let probed = probe(&settings, &disks, &mailbox);
            // The watch comes first: it reports changes during the scan.
            let watch = contained(|| match Watched::of(&settings) {
                wanted if watched.as_ref() == Some(&wanted) => None,
                wanted => Watch::start(wanted, &probed, &mailbox),
            });
            let previous = Previous {
                index: &index,
                depth,
                quiet,
                gone: &gone,
            };
            let made = guarded(|| {
                let made = refresh::again(&settings, &probed, previous)?;
                Ok(opened_for(is_encrypted, made))
            });
            mailbox.post(|mail| mail.refresh_ended = true);
            (made, watch.ok().flatten())
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
        let (made, watch) = ended.thread.join().expect("a refresh catches panics");
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
                    (self.contents).configure(&settings.content, settings.inputs());
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
        let mut several = self.contents.in_several_files().unwrap_or_default();
        let (merged, difference) = merge(&self.contents, Arc::new(index), epoch)?;
        self.contents.replace(merged);
        several.extend(self.contents.in_several_files()?);
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
        // Each list of announce URLs is read once.
        let mut lists = HashMap::new();
        let added = difference.added.into_iter().filter_map(|record| {
            let added = added(snapshot, record, &mut lists);
            let skipped = |error: &_| log::error!("skipping a torrent of the index: {error}");
            added.inspect_err(skipped).ok().map(Change::Added)
        });
        self.outbox.send_changes(added, true, counts)?;
        let promoted = self.contents.promote_duplicates(&mut self.examined);
        self.report()?;
        promoted?;
        for info_hash in several {
            self.contents.relist(&info_hash, &mut self.examined)?;
            if self.examined.changes.len() >= SENT_AT_ONCE {
                self.report()?;
            }
        }
        Ok(self.report()?)
    }

    /// Examines the files that changes may affect, and starts a scan if one is needed.
    fn examine(&mut self, changes: &Changes) -> Result<(), Ended> {
        let scan = self.examine_changes(changes);
        match self.conclude(scan)?.flatten() {
            Some(depth) => self.refresh(RefreshRequest::new(depth, true)),
            None if self.contents.overlay().len() > OVERLAY_MAX && self.refreshing.is_none() => {
                self.refresh(RefreshRequest::new(Depth::Metainfo, true));
            }
            None => {}
        }
        Ok(())
    }

    /// Examines the files that changes affect. Returns the depth of the scan that is needed too.
    fn examine_changes(&mut self, changes: &Changes) -> Result<Option<Depth>, Interrupted> {
        let mut scan = changes.everything.then_some(Depth::Content);
        for path in &changes.paths {
            let affected = match self.contents.is_input(path) {
                // A configured directory has come or gone.
                true => Affected::TooMany(Depth::Content),
                false => (self.contents).affected(path, AFFECTED_MAX, &mut self.examined)?,
            };
            match affected {
                Affected::Files(files) => self.examine_each(&files)?,
                Affected::TooMany(depth) => scan = scan.max(Some(depth)),
            }
        }
        let files = self.contents.files_of_content(&changes.paths)?;
        self.examine_each(&files)?;
        Ok(scan)
    }

    /// Examines metainfo files, and sends changes while more are examined: the first torrents are
    /// served long before the last is read.
    fn examine_each(&mut self, files: &[PathBuf]) -> Result<(), Interrupted> {
        for file in files {
            if self.contents.overlay().len() >= OVERLAY_BOUND {
                if self.refreshing.is_some() {
                    // The refresh may have passed this path already.
                    self.refresh_afterwards(RefreshRequest::new(Depth::Metainfo, true));
                }
                return Ok(());
            }
            self.contents.examine(file, &mut self.examined)?;
            if self.examined.changes.len() >= SENT_AT_ONCE {
                self.report()?;
            }
        }
        Ok(())
    }

    /// Examines some of the files that were not right when a peer asked for their torrents. Each is
    /// withdrawn or served again, but not while its disk is away: nothing can be found out then.
    fn retry_due(&mut self) -> Result<(), Interrupted> {
        let now = Instant::now();
        for retry in self.retries.take_due(now) {
            if !self.contents.is_away(&retry.path) {
                self.contents.examine(&retry.path, &mut self.examined)?;
            }
            if !self.contents.is_intact(&retry.path)? {
                self.retries.again(retry, now);
            }
        }
        Ok(())
    }

    /// Reports what was found out. If the index has turned out to be damaged, it is made again, and
    /// there is no result.
    fn conclude<T>(&mut self, result: Result<T, Interrupted>) -> Result<Option<T>, Ended> {
        self.report()?;
        match result {
            Ok(result) => Ok(Some(result)),
            Err(Interrupted::Ended(ended)) => Err(ended),
            Err(Interrupted::Index(error)) => {
                log::error!("rebuilding the index: {error}");
                self.refresh(RefreshRequest::new(Depth::Metainfo, true));
                Ok(None)
            }
        }
    }

    /// Logs refusals, sends changes, and leaves postponed paths for later.
    fn report(&mut self) -> Result<(), Ended> {
        let Examined {
            changes,
            refused,
            postponed: mut paths,
        } = mem::take(&mut self.examined);
        log_refusals(&refused);
        // No event tells when what a link leads to appears.
        let lost = refused
            .iter()
            .filter(|refusal| refusal.reason.is_lost_link());
        let now = Instant::now();
        lost.for_each(|refusal| self.retries.add_again(refusal.path.clone(), now));
        if !paths.is_empty() {
            paths.sort_unstable();
            let everything = false;
            self.postponed.merge(Changes { paths, everything });
            self.resume_at = Some(Instant::now() + POSTPONED_PAUSE);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let (mut added, mut removed) = (0, 0);
        for change in &changes {
            match change {
                Change::Added(_) => added += 1,
                Change::Removed(_) => removed += 1,
                Change::Relisted(_) => {}
            }
        }
        let counts = self.contents.counts();
        let served = counts.served;
        if added + removed > 0 {
            log::info!("{added} torrents added, {removed} removed: {served} now");
        }
        self.outbox.send_changes(changes, false, counts)
    }
}

/// The torrent of a record that is served.
fn added(
    snapshot: &Snapshot,
    record: RecordNo,
    lists: &mut HashMap<Vec<TrackerListNo>, Arc<[Vec<String>]>>,
) -> Result<Added, IndexError> {
    let entry = snapshot.index.record(record)?;
    let of_all = snapshot.index.lists_of(record, entry.trackers)?;
    let announce = match lists.get(&of_all) {
        Some(known) => Arc::clone(known),
        None => {
            let list: Arc<_> = snapshot.index.all_trackers(&of_all)?.into();
            lists.insert(of_all, Arc::clone(&list));
            list
        }
    };
    Ok(Added {
        id: snapshot.ids.id(record).expect("each record has an id"),
        info_hash: entry.facts.info_hash,
        announce,
        metainfo: None,
    })
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
