//! Following the directories below the roots, as they come, go and move.
//!
//! Owns the inotify instance, its watches and what each event does to them. It must not know how long
//! anything waits. It asks what is on disk now, and not what was there when an event was made: events
//! may be late, so that only the state can be right.
//!
//! A watch follows its directory, not the path. That a directory was moved is told by the directory
//! itself, and its places are then looked at: where the same path leads to another watch or to none,
//! the place is removed with all below it.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::anchors::Anchor;
use super::batch::Batch;
use super::mounts;
use super::places::{Place, Places};
use super::way::{self, Way};
use crate::library::scan::walk::LINKS_MAX;
use crate::torrent::printable::Printable;
use crate::torrent::refusal::is_metainfo_name;

/// What is told of a directory of the library.
const DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// What is told of a directory on the way to a root; it may be one of the library as well.
const WAY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// What is told of the directory at the end of a way that leads to no root.
const END: WatchFlags = WatchFlags::DELETE_SELF
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// Stands for every name in a directory.
const ANY_NAME: &str = "";

/// A way that changes each time it is looked at is looked at again when the next event comes.
const MAX_LOOKS: usize = 10;

/// One event.
pub(super) struct Event {
    watch: i32,
    flags: ReadFlags,
    /// `None` for the directory itself.
    name: Option<OsString>,
}

impl From<&inotify::Event<'_>> for Event {
    fn from(event: &inotify::Event<'_>) -> Self {
        let name = event.file_name().map(|name| name.to_bytes().to_vec());
        Event {
            watch: event.wd(),
            flags: event.events(),
            name: name.map(OsString::from_vec),
        }
    }
}

impl Event {
    /// Whether events were lost.
    pub(super) fn is_overflow(&self) -> bool {
        self.flags.contains(ReadFlags::QUEUE_OVERFLOW)
    }

    fn is_of(&self, name: &OsStr) -> bool {
        name == ANY_NAME || self.name.as_deref() == Some(name)
    }

    fn is(&self, any: ReadFlags) -> bool {
        self.flags.intersects(any)
    }
}

/// One root as it was last seen.
struct Root {
    given: PathBuf,
    /// Without symlinks; `None` while it is absent.
    real: Option<PathBuf>,
    /// For a directory.
    place: Option<Place>,
}

/// Why there is no watch.
enum Unwatched {
    /// There is no directory, or none that we may read.
    Absent,
    /// The system, or our bound, allows no more.
    Full,
}

/// The watches and what they are for.
pub(super) struct Follower {
    inotify: OwnedFd,
    places: Places,
    bound: usize,
    roots: Vec<Root>,
    anchors: Vec<Anchor>,
    /// The names of each directory on the way to a root or an anchor.
    ways: HashMap<i32, Vec<OsString>>,
    /// The roots are to be looked for again.
    is_lost: bool,
    /// It was said that no more can be watched.
    is_full: bool,
    /// Mount points below roots, as they were last.
    mounts: Vec<PathBuf>,
    /// What is to be told.
    pub(super) batch: Batch,
}

fn new_instance() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

impl Follower {
    /// Watches all that is there.
    pub(super) fn new(roots: &[PathBuf], anchors: &[PathBuf], bound: usize) -> io::Result<Self> {
        let roots = roots.iter().map(|given| Root {
            given: given.clone(),
            real: None,
            place: None,
        });
        let mut follower = Follower {
            inotify: new_instance()?,
            places: Places::new(bound),
            bound,
            roots: roots.collect(),
            anchors: anchors.iter().map(|given| Anchor::new(given)).collect(),
            ways: HashMap::new(),
            is_lost: true,
            is_full: false,
            mounts: Vec::new(),
            batch: Batch::default(),
        };
        follower.settle();
        follower.mounts = follower.mounts_within();
        follower.look_at_anchored_mounts();
        // What was there before is not told: whoever begins to watch looks at everything after that,
        // at what cannot be watched too.
        follower.batch = Batch::default();
        Ok(follower)
    }

    /// Makes all watches anew, after events were lost: what is watched may be something else now.
    pub(super) fn start_again(&mut self) -> io::Result<()> {
        // The old watches end with the old instance, and must: they count.
        self.inotify = new_instance()?;
        self.places = Places::new(self.bound);
        self.ways.clear();
        for root in &mut self.roots {
            root.place = None;
        }
        self.is_lost = true;
        self.settle();
        self.mounts = self.mounts_within();
        self.batch.note_everything(Instant::now());
        Ok(())
    }

    /// What can be read when there are events.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// How many directories are watched, each counted at every place.
    pub(super) fn watched(&self) -> usize {
        self.places.len()
    }

    /// Takes an event in.
    pub(super) fn handle(&mut self, event: &Event) {
        let is_self = event.name.is_none();
        if let Some(names) = self.ways.get(&event.watch)
            && (is_self || names.iter().any(|name| event.is_of(name)))
        {
            self.is_lost = true;
            self.note_files();
        }
        let ended = ReadFlags::IGNORED | ReadFlags::UNMOUNT | ReadFlags::DELETE_SELF;
        if event.is(ended) {
            self.end(event);
        } else if let Some(name) = &event.name {
            for place in self.places.of(event.watch) {
                self.handle_entry(event, place, name);
            }
        } else if event.is(ReadFlags::MOVE_SELF | ReadFlags::ATTRIB) {
            // Its permissions may have changed: what cannot be watched now is gone for us.
            for place in self.places.of(event.watch) {
                self.verify(place);
            }
        }
    }

    /// A file that is a root by itself may have changed.
    fn note_files(&mut self) {
        let files = self.roots.iter().filter(|root| root.place.is_none());
        for file in files.filter_map(|root| root.real.as_ref()) {
            self.batch.note(file.clone(), Instant::now());
        }
    }

    /// A directory is gone, or its file system is.
    fn end(&mut self, event: &Event) {
        self.is_lost |= self.ways.contains_key(&event.watch);
        for place in self.places.of(event.watch) {
            let parent = self.places.parent(place);
            let parent = parent.map(|(parent, name)| (parent, name.to_owned()));
            let is_link = parent
                .as_ref()
                .is_some_and(|(parent, name)| self.places.link(*parent, name) == Some(place));
            self.remove(place);
            // Below a mount there is another directory.
            if let Some((parent, name)) = parent
                && event.is(ReadFlags::UNMOUNT)
            {
                self.arrive(parent, &name, is_link);
            }
        }
    }

    /// Something has happened to a name in a directory.
    fn handle_entry(&mut self, event: &Event, place: Place, name: &OsStr) {
        let path = self.places.path(place).join(name);
        let came = event.is(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        if event.is(ReadFlags::ISDIR) {
            if came || event.is(ReadFlags::ATTRIB) {
                self.arrive(place, name, false);
            }
            // That its permissions or times have changed says nothing about what it holds.
            if event.is(ReadFlags::ATTRIB) {
                return;
            }
        } else if event.is(ReadFlags::MODIFY) && is_metainfo_name(&path) {
            // It is told when it is closed. To read half of it would be in vain.
            self.batch.forget(&path);
            return;
        } else if came || event.is(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            if let Some(link) = self.places.link(place, name) {
                self.remove(link);
            }
            if came {
                self.arrive(place, name, true);
            }
        }
        self.batch.note(path, Instant::now());
    }

    /// Watches what is now at a name, if it is a directory, with all below it.
    fn arrive(&mut self, parent: Place, name: &OsStr, is_link: bool) {
        let path = self.places.path(parent).join(name);
        if let Some(place) = self.enter(Some(parent), &path, name, is_link) {
            self.batch.note(path, Instant::now());
            self.list(place);
        }
    }

    /// Watches a directory at one place. `None` when it is watched there already, or cannot be.
    fn enter(
        &mut self,
        parent: Option<Place>,
        path: &Path,
        name: &OsStr,
        is_link: bool,
    ) -> Option<Place> {
        if let Some(parent) = parent.filter(|_| is_link)
            && self.places.links_in(parent) >= LINKS_MAX
        {
            return None;
        }
        let watch = match self.watch(path, DIRECTORY) {
            Ok(watch) => watch,
            Err(Unwatched::Absent) => return None,
            Err(Unwatched::Full) => {
                self.say_full();
                return None;
            }
        };
        if let Some(parent) = parent {
            if self.places.is_within(parent, watch) {
                return None;
            }
            if let Some(place) = self.places.find(parent, name, watch) {
                if is_link {
                    self.places.mark_link(place);
                }
                return None;
            }
        }
        let place = self.places.add(parent, name, watch, is_link);
        if place.is_none() {
            self.leave(watch);
            self.say_full();
        }
        place
    }

    /// Watches all directories below a place, those near it first: they are the ones to have when
    /// there are too many.
    fn list(&mut self, place: Place) {
        let mut waiting = VecDeque::from([place]);
        while let Some(place) = waiting.pop_front() {
            let directory = self.places.path(place);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    let directory = Printable::path(&directory);
                    log::debug!("{directory} cannot be listed: {error}");
                    continue;
                }
            };
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if kind.is_dir() || kind.is_symlink() {
                    let (path, name) = (entry.path(), entry.file_name());
                    let child = self.enter(Some(place), &path, &name, kind.is_symlink());
                    waiting.extend(child);
                }
            }
        }
    }

    /// Removes a place that its path does not lead to any more.
    fn verify(&mut self, place: Place) {
        let path = self.places.path(place);
        let found = self.watch(&path, DIRECTORY).ok();
        if found != self.places.watch(place) {
            self.remove(place);
            if let Some(watch) = found {
                // What is there instead has an event of its own.
                self.leave(watch);
            }
        }
    }

    /// Removes a place, and the watches that are of no use without it.
    fn remove(&mut self, place: Place) {
        self.batch.note(self.places.path(place), Instant::now());
        for root in &mut self.roots {
            if root.place == Some(place) {
                root.place = None;
                self.is_lost = true;
            }
        }
        for watch in self.places.remove(place) {
            self.leave(watch);
        }
    }

    fn watch(&self, path: &Path, flags: WatchFlags) -> Result<i32, Unwatched> {
        inotify::add_watch(&self.inotify, path, flags).map_err(|error| match error {
            Errno::NOSPC | Errno::NOMEM => Unwatched::Full,
            _ => Unwatched::Absent,
        })
    }

    /// Gives up a watch, unless something needs it.
    fn leave(&self, watch: i32) {
        if !self.places.has_watch(watch) && !self.ways.contains_key(&watch) {
            // The kernel may have given it up already.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    fn say_full(&mut self) {
        if !self.is_full {
            self.is_full = true;
            self.batch.note_everything(Instant::now());
            log::warn!(
                "{} directories are watched and no more can be: changes in others are found by a \
                 rescan alone; raise fs.inotify.max_user_watches with sysctl(8), which takes 1 KB \
                 of memory for each, and restart",
                self.places.len()
            );
        }
    }

    /// Looks for the roots again if that is needed. To be called after a run of events.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.is_lost) {
            let mut ways = HashMap::new();
            for number in 0..self.roots.len() {
                self.find_root(number, &mut ways);
            }
            for number in 0..self.anchors.len() {
                self.find_anchor(number, &mut ways);
            }
            let before = std::mem::replace(&mut self.ways, ways);
            for watch in before.into_keys() {
                self.leave(watch);
            }
        }
    }

    /// Finds where a path leads, and watches the directories on the way.
    fn find_way(&self, given: &Path, ways: &mut HashMap<i32, Vec<OsString>>) -> Way {
        let mut way = way::find(given);
        for _ in 0..MAX_LOOKS {
            for (directory, name) in &way.steps {
                if let Ok(watch) = self.watch(directory, WAY) {
                    ways.entry(watch).or_default().push(name.clone());
                }
            }
            // What came before its directory was watched is not told.
            let watched = std::mem::replace(&mut way, way::find(given));
            if watched == way {
                break;
            }
        }
        way
    }

    /// Looks for one anchor, and watches the directories that lead to it.
    fn find_anchor(&mut self, number: usize, ways: &mut HashMap<i32, Vec<OsString>>) {
        let Some(anchor) = self.anchors.get(number) else {
            return;
        };
        let way = self.find_way(&anchor.given, ways);
        let end = way.end.as_deref();
        let mut watch = end.and_then(|end| self.watch(end, END).ok());
        let is_other = self.look_at_anchor(number, end);
        if self.anchors.get(number).is_some_and(Anchor::is_empty)
            && let Some(end) = end
            && let Ok(filled) = self.watch(end, WAY)
        {
            ways.entry(filled).or_default().push(ANY_NAME.into());
            watch = Some(filled);
            // What came before that is not told.
            self.look_at_anchor(number, Some(end));
        }
        if let Some(watch) = watch {
            ways.entry(watch).or_default();
        }
        if is_other {
            self.batch.note_everything(Instant::now());
        }
    }

    fn look_at_anchor(&mut self, number: usize, end: Option<&Path>) -> bool {
        let anchor = self.anchors.get_mut(number);
        anchor.is_some_and(|anchor| anchor.look(end))
    }

    /// Whether something else is mounted at an anchor or below than was last.
    fn look_at_anchored_mounts(&mut self) -> bool {
        let looks = self.anchors.iter_mut().map(Anchor::look_at_mounts);
        looks.fold(false, |any, is_other| any | is_other)
    }

    /// Looks for one root, and watches the directories that lead to it.
    fn find_root(&mut self, number: usize, ways: &mut HashMap<i32, Vec<OsString>>) {
        let Some(root) = self.roots.get(number) else {
            return;
        };
        let way = self.find_way(&root.given, ways);
        let (before, place) = (root.real.clone(), root.place);
        let watch = way.end.as_ref().map(|end| self.watch(end, DIRECTORY).ok());
        let is_same = before == way.end
            && place.and_then(|place| self.places.watch(place)) == watch.flatten();
        if is_same {
            return;
        }
        if let Some(place) = place {
            self.remove(place);
            self.is_lost = false;
        }
        let mut place = None;
        if let Some(end) = &way.end {
            place = self.enter(None, end, end.as_os_str(), false);
        }
        if let Some(place) = place {
            self.list(place);
        }
        let is_elsewhere = before.is_some() && way.end.is_some() && before != way.end;
        if is_elsewhere {
            self.batch.note_everything(Instant::now());
        }
        for path in before.into_iter().chain(way.end.clone()) {
            self.batch.note(path, Instant::now());
        }
        if let Some(root) = self.roots.get_mut(number) {
            (root.real, root.place) = (way.end, place);
        }
    }

    /// Something was mounted or unmounted somewhere.
    pub(super) fn handle_mounts(&mut self) {
        self.is_lost = true;
        self.settle();
        if self.look_at_anchored_mounts() {
            self.batch.note_everything(Instant::now());
        }
        let now = self.mounts_within();
        let mut points = std::mem::replace(&mut self.mounts, now.clone());
        points.extend(now);
        for point in points {
            if let Some((parent, name)) = self.place_of(&point) {
                self.look_again(parent, &name, false);
            }
        }
        let links = self.places.links();
        let links: Vec<(Place, OsString)> = links
            .map(|(parent, name)| (parent, name.to_owned()))
            .collect();
        for (parent, name) in links {
            if self.places.link(parent, &name).is_some() {
                self.look_again(parent, &name, true);
            }
        }
    }

    /// Watches what is at a name now, in place of what was there.
    fn look_again(&mut self, parent: Place, name: &OsStr, is_link: bool) {
        if let Some(place) = self.places.child(parent, name) {
            self.verify(place);
        }
        self.arrive(parent, name, is_link);
    }

    /// The mount points below roots.
    fn mounts_within(&self) -> Vec<PathBuf> {
        let is_within = |point: &Path| {
            let mut roots = self.roots.iter().filter_map(|root| root.real.as_ref());
            roots.any(|real| point != real && point.starts_with(real))
        };
        let points = mounts::all().into_iter().map(|mount| mount.point);
        points.filter(|point| is_within(point)).collect()
    }

    /// The place of the directory that a path below a root is in, and its name.
    fn place_of(&self, path: &Path) -> Option<(Place, OsString)> {
        let (directory, name) = (path.parent()?, path.file_name()?);
        self.roots.iter().find_map(|root| {
            let relative = directory.strip_prefix(root.real.as_ref()?).ok()?;
            let place = self.places.at(root.place?, relative)?;
            Some((place, name.to_owned()))
        })
    }
}
