//! The thread's work: what is looked at again, and when.
//!
//! Owns the view of what is served, and the refresh that is under way. It must not know how changes
//! are noticed, nor what the loop makes of an update.

use std::collections::BTreeMap;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::additions::Teller;
use super::live::{
    Bell, Change, Ended, Event, NewBase, Outbox, Refreshed, Settings, Source, Update, inputs, lock,
    say,
};
use super::retries::Retries;
use super::watching::{Watch, Watched};
use crate::library::catalogue::contents::{Concerned, View};
use crate::library::catalogue::lookup::Base;
use crate::library::catalogue::merge;
use crate::library::catalogue::refresh::{self, Task};
use crate::library::index::{Counts, Index, IndexError};
use crate::library::scan::build::{Look, Progress};
use crate::library::watch::Changes;

/// Paths that differ from the index before it is made anew: some 30 MB here and in the loop, by estimate.
const DIFFERS_MAX: usize = 100_000;

/// No more than this are kept while it is made: what changes beyond that is found by another refresh.
const DIFFERS_BOUND: usize = 2 * DIFFERS_MAX;

/// Changes that are told together when there are more. The log has a line for each of these batches.
const TOLD_AT_ONCE: usize = 1024;

/// How long what needs a descriptor waits when none is left. Peers come and go faster.
const DESCRIPTORS_RETRY: Duration = Duration::from_secs(1);

/// Below a directory with more metainfo files than this, a change is found by a refresh.
const LOOKED_BELOW_MAX: usize = 20_000;

/// Opens the library, then looks after it until the loop ends.
pub(super) fn run(
    settings: Settings,
    indexing: &OnceLock<Progress>,
    (queue, bell): (&Receiver<Event>, Bell),
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
            let watch = Watch::start(Watched::of(&settings), &bell);
            let progress = indexing.get_or_init(Progress::default);
            match guarded(|| refresh::first(&settings, progress)) {
                Ok(index) => (index, watch, false),
                Err(message) => return outbox.send(Update::Failed(message)),
            }
        }
    };
    let base = Base::new(index);
    let mut view = View::new(base.clone(), settings.content.clone(), inputs(&settings));
    view.is_given = matches!(settings.source, Source::Given { .. });
    let mut keeper = Keeper {
        settings,
        view,
        outbox,
        bell: bell.clone(),
        watch,
        refreshing: None,
        again: None,
        looked_at: Instant::now(),
        retries: Retries::default(),
        put_off: Changes::default(),
        resume_at: None,
    };
    keeper.outbox.send(Update::Base(NewBase {
        base,
        content: keeper.settings.content.clone(),
        differs: BTreeMap::new(),
        counts: keeper.view.counts,
    }))?;
    match keeper.settings.source {
        // What has changed while nobody looked.
        Source::Inputs { .. } if kept => keeper.refresh(Wish::start()),
        Source::Inputs { .. } => {}
        // Whoever has made it will say when there is another.
        Source::Given { .. } => {
            refresh::warn_of_away(&[], &keeper.settings);
            keeper.watch = Watch::start(Watched::of(&keeper.settings), &bell);
        }
    }
    loop {
        match queue.recv_timeout(keeper.rest()) {
            Ok(Event::Asked) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Refreshed(refreshed)) => keeper.take_up(*refreshed)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let asked = mem::take(&mut *lock(&bell.asked));
        if let Some(settings) = asked.refresh {
            keeper.refresh(Wish::of(settings));
        }
        if !asked.changes.is_empty() {
            keeper.look(&asked.changes)?;
        }
        let now = Instant::now();
        for path in asked.looks {
            keeper.retries.note(path, now);
        }
        keeper.try_again()?;
        keeper.resume_when_due()?;
        keeper.rescan_when_due();
    }
}

/// What is made, or why not: a panic is a failure like another, or nobody would look at the library
/// again. The panic itself has been reported on standard error.
fn guarded(make: impl FnOnce() -> Result<Index, String>) -> Result<Index, String> {
    let made = catch_unwind(AssertUnwindSafe(make));
    made.unwrap_or_else(|_| Err("making the index panicked, a defect of hekate".to_owned()))
}

/// Why looking at changes ends early.
enum Trouble {
    Ended,
    Index(IndexError),
}

impl From<Ended> for Trouble {
    fn from(_: Ended) -> Self {
        Trouble::Ended
    }
}

impl From<IndexError> for Trouble {
    fn from(error: IndexError) -> Self {
        Trouble::Index(error)
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
    bell: Bell,
    /// What tells of changes on disk, where it can.
    watch: Option<Watch>,
    /// The refresh that is under way, with how many torrents there were.
    refreshing: Option<(Wish, u64)>,
    /// What has come up meanwhile.
    again: Option<Wish>,
    /// When everything was looked at last.
    looked_at: Instant,
    /// What was not as it should be when a peer asked for it.
    retries: Retries,
    /// What could not be looked at, because no descriptor was left.
    put_off: Changes,
    /// When it is looked at.
    resume_at: Option<Instant>,
}

impl Keeper {
    /// How long nothing is to be done by itself.
    fn rest(&self) -> Duration {
        const LONG: Duration = Duration::from_secs(3600);
        let until_rescan = match self.settings.rescan {
            Some(interval) if self.refreshing.is_none() => {
                interval.saturating_sub(self.looked_at.elapsed())
            }
            _ => LONG,
        };
        let next = self.retries.next().into_iter().chain(self.resume_at).min();
        let until_next = next.map(|next| next.saturating_duration_since(Instant::now()));
        until_rescan.min(until_next.unwrap_or(LONG))
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
        self.looked_at = Instant::now();
        self.view.epoch += 1;
        let settings = wish.settings.clone();
        let task = Task {
            settings: settings.unwrap_or_else(|| self.settings.clone()),
            base: Arc::clone(&self.view.base.index),
            look: wish.look,
            quiet: wish.quiet,
            gone: self.view.seen_to_go(),
        };
        let watched = self.watch.as_ref().map(|watch| watch.watched.clone());
        let bell = self.bell.clone();
        let work = move || {
            let wanted = Watched::of(&task.settings);
            // What changes while it is looked at is told then.
            let watch = match watched.as_ref() == Some(&wanted) {
                true => None,
                false => Watch::start(wanted, &bell),
            };
            let made = guarded(|| refresh::again(&task));
            // The library's thread may have ended meanwhile.
            let _ = bell
                .events
                .send(Event::Refreshed(Box::new(Refreshed { made, watch })));
        };
        let thread = thread::Builder::new().name("hekate-refresh".to_owned());
        match thread.spawn(work) {
            Ok(_) => self.refreshing = Some((wish, self.view.counts.served)),
            Err(error) => log::error!("cannot start a rescan: {error}"),
        }
    }

    /// Takes up what a refresh has made.
    fn take_up(&mut self, refreshed: Refreshed) -> Result<(), Ended> {
        let Some((wish, before)) = self.refreshing.take() else {
            return Ok(());
        };
        // One for settings that are not taken up is of no use.
        if refreshed.watch.is_some() && (refreshed.made.is_ok() || wish.settings.is_none()) {
            self.watch = refreshed.watch;
        }
        match refreshed.made {
            Err(error) if wish.settings.is_some() => {
                log::error!("reload failed, still serving the old library: {error}");
            }
            Err(error) => log::error!("rescan failed, still serving the old library: {error}"),
            Ok(index) => {
                if let Some(settings) = &wish.settings {
                    self.settings = settings.clone();
                    self.view.follow(settings.content.clone(), inputs(settings));
                }
                match self.replace(index) {
                    Ok(sent) => sent?,
                    Err(error) => {
                        log::error!("rescan failed, still serving the old library: {error}")
                    }
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
        let mut difference = merge::compare(&self.view, Arc::clone(&index), epoch)?;
        let removed = mem::take(&mut difference.removed);
        let added = mem::take(&mut difference.added);
        let base = difference.base.clone();
        self.view.replace(difference);
        self.retries.clear();
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
        if tell().is_err() {
            return Ok(Err(Ended));
        }
        self.view.settle_equals()?;
        Ok(self.tell_changes())
    }

    /// Looks at what may have changed.
    fn look(&mut self, changes: &Changes) -> Result<(), Ended> {
        let wish = match self.look_at_changes(changes) {
            Ok(wish) => wish,
            Err(Trouble::Ended) => return Err(Ended),
            Err(Trouble::Index(error)) => return self.damaged(&error),
        };
        self.tell_changes()?;
        self.put_off();
        if let Some(look) = wish {
            self.refresh(Wish::quiet(look));
        } else if self.view.over.len() > DIFFERS_MAX && self.refreshing.is_none() {
            self.refresh(Wish::quiet(Look::Metainfo));
        }
        Ok(())
    }

    /// Answers how everything is to be looked at, when that is needed.
    fn look_at_changes(&mut self, changes: &Changes) -> Result<Option<Look>, Trouble> {
        let mut wish = changes.everything.then_some(Look::Content);
        for path in &changes.paths {
            let concerned = match self.view.is_start(path) {
                // A start that has come or gone.
                true => Concerned::ManyKnown,
                false => self.view.concerned(path, LOOKED_BELOW_MAX)?,
            };
            match concerned {
                Concerned::These(paths) => self.look_at_each(&paths)?,
                Concerned::ManyKnown => wish = Some(Look::Content),
                // What is not known is read for that, and nothing else.
                Concerned::ManyNew => wish = wish.or(Some(Look::Metainfo)),
            }
        }
        let paths = self.view.with_content(&changes.paths)?;
        self.look_at_each(&paths)?;
        Ok(wish)
    }

    /// Looks at metainfo files, and tells what has come of some before the next: the first are served
    /// long before the last is read.
    fn look_at_each(&mut self, paths: &[PathBuf]) -> Result<(), Trouble> {
        for path in paths {
            if self.view.over.len() >= DIFFERS_BOUND {
                if self.refreshing.is_some() {
                    // It may be past this path, so that another has to find it.
                    self.again = Some(Wish::quiet(Look::Metainfo).and(self.again.take()));
                }
                return Ok(());
            }
            self.view.look_at(path)?;
            if self.view.changes.len() >= TOLD_AT_ONCE {
                self.tell_changes()?;
            }
        }
        Ok(())
    }

    /// Looks again at some of what was not as it should be when a peer asked for it. It is withdrawn,
    /// or served again; but while a disk is away nothing is found out of what lies on it.
    fn try_again(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        for retry in self.retries.take_due(now) {
            let path = &retry.path;
            let looked = match self.view.is_away(path) {
                true => Ok(()),
                false => self.view.look_at(path),
            };
            match looked.and_then(|()| self.view.is_right(path)) {
                Ok(true) => {}
                Ok(false) => self.retries.again(retry, now),
                Err(error) => return self.damaged(&error),
            }
        }
        self.put_off();
        self.tell_changes()
    }

    /// What could not be looked at, because no descriptor was left, is looked at later: in the
    /// meantime everything else is.
    fn put_off(&mut self) {
        let mut paths = mem::take(&mut self.view.later);
        if !paths.is_empty() {
            paths.sort_unstable();
            let everything = false;
            self.put_off.merge(Changes { paths, everything });
            self.resume_at = Some(Instant::now() + DESCRIPTORS_RETRY);
        }
    }

    fn resume_when_due(&mut self) -> Result<(), Ended> {
        if self.resume_at.is_some_and(|at| at <= Instant::now()) {
            self.resume_at = None;
            let changes = mem::take(&mut self.put_off);
            return self.look(&changes);
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
        log::error!("rebuilding the index: {error}");
        self.tell_changes()?;
        self.refresh(Wish::quiet(Look::Metainfo));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_like_another() {
        let said = guarded(|| panic!("on purpose")).unwrap_err();
        assert!(said.contains("a defect of hekate"));
        assert_eq!(guarded(|| Err("no".to_owned())).unwrap_err(), "no");
    }
}
