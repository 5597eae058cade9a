//! The watches, kept on the directories below the roots as these come, go and move.
//!
//! Events may be late, so every decision follows the present state on disk, not the event.
//!
//! A watch follows its directory, not the path. The moved directory itself reports a move; each of its
//! nodes is then verified: where the same path leads to another watch or to none, the node is removed
//! with everything below it.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::pending::Pending;
use super::presence::PresenceRoot;
use super::resolve::{self, ResolvedPath};
use super::tree::{NodeId, Tree};
use crate::library::scan::walk::LINKS_MAX;
use crate::mounts;
use crate::torrent::printable::Printable;
use crate::torrent::refusal::is_metainfo_name;

/// Events of a directory of the library.
const DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Events of a directory on the path to a root; it may be a directory of the library as well.
const PATH: WatchFlags = DIRECTORY
    .difference(WatchFlags::MODIFY.union(WatchFlags::ATTRIB))
    .union(WatchFlags::MASK_ADD);

/// Events of a presence root itself.
const PRESENCE: WatchFlags = WatchFlags::DELETE_SELF
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// Stands for every name in a directory.
const ANY_NAME: &str = "";

/// How often a path that keeps changing is resolved in a row. The next event resolves it again.
const RESOLVES_MAX: usize = 10;

/// A root as it was when last resolved.
struct Root {
    given: PathBuf,
    /// Without symlinks; `None` while it is absent.
    real: Option<PathBuf>,
    /// The node of a root that is a directory.
    node: Option<NodeId>,
}

/// Why there is no watch.
enum Unwatched {
    /// There is no directory, or we may not read it.
    Absent,
    /// The kernel's limit of watches, or ours, is reached.
    Full,
}

/// All watches, and what each is for.
pub(super) struct Follower {
    inotify: Arc<OwnedFd>,
    tree: Tree,
    bound: usize,
    roots: Vec<Root>,
    presence_roots: Vec<PresenceRoot>,
    /// By watch, the names on the path to a root or presence root that are looked up in the directory.
    path_names: HashMap<i32, Vec<OsString>>,
    /// The roots have to be resolved again.
    is_unresolved: bool,
    /// The warning that no more can be watched has been logged.
    is_full: bool,
    /// Mount points below roots, as last read.
    mounts: Vec<PathBuf>,
    /// Changes that have not been reported.
    pub(super) pending: Pending,
}

fn new_instance() -> io::Result<Arc<OwnedFd>> {
    let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
    Ok(Arc::new(inotify::init(flags)?))
}

impl Follower {
    /// Watches the directories below the roots.
    pub(super) fn new(
        roots: &[PathBuf],
        presence_roots: &[PathBuf],
        bound: usize,
    ) -> io::Result<Self> {
        let roots = roots.iter().map(|given| Root {
            given: given.clone(),
            real: None,
            node: None,
        });
        let mut follower = Follower {
            inotify: new_instance()?,
            tree: Tree::new(bound),
            bound,
            roots: roots.collect(),
            presence_roots: (presence_roots.iter())
                .map(|given| PresenceRoot::new(given))
                .collect(),
            path_names: HashMap::new(),
            is_unresolved: true,
            is_full: false,
            mounts: Vec::new(),
            pending: Pending::default(),
        };
        follower.resolve_roots();
        follower.mounts = follower.mounts_within();
        follower.update_presence_mounts();
        // The caller scans everything after this, also what cannot be watched.
        follower.pending = Pending::default();
        Ok(follower)
    }

    /// Makes all watches again after events were lost: directories may have come and gone.
    pub(super) fn recrawl(&mut self) -> io::Result<()> {
        // Closing the old instance ends the old watches, which count against the limit.
        self.inotify = new_instance()?;
        self.tree = Tree::new(self.bound);
        self.path_names.clear();
        for root in &mut self.roots {
            root.node = None;
        }
        self.is_unresolved = true;
        self.resolve_roots();
        self.mounts = self.mounts_within();
        self.pending.add_everything(Instant::now());
        Ok(())
    }

    /// Readable when there are events.
    pub(super) fn inotify(&self) -> &Arc<OwnedFd> {
        &self.inotify
    }

    /// The number of nodes: a directory counts once for each path that leads to it.
    pub(super) fn watched(&self) -> usize {
        self.tree.len()
    }

    /// Handles an event. A run of events ends with [`Follower::resolve_roots`].
    pub(super) fn handle(&mut self, event: &Event<'_>) {
        let (watch, flags) = (event.wd(), event.events());
        // Without a name it is about the watched directory itself.
        let name = event.file_name();
        let name = name.map(|name| OsStr::from_bytes(name.to_bytes()));
        if let Some(names) = self.path_names.get(&watch)
            && name.is_none_or(|name| names.iter().any(|other| other == ANY_NAME || other == name))
        {
            self.is_unresolved = true;
            self.note_files();
        }
        let ended = ReadFlags::IGNORED | ReadFlags::UNMOUNT | ReadFlags::DELETE_SELF;
        if flags.intersects(ended) {
            self.end(watch, flags);
        } else if let Some(name) = name {
            for node in self.tree.of(watch) {
                self.handle_entry(flags, node, name);
            }
        } else if flags.intersects(ReadFlags::MOVE_SELF | ReadFlags::ATTRIB) {
            // If its permissions no longer let us watch it, it counts as gone.
            for node in self.tree.of(watch) {
                self.verify(node);
            }
        }
    }

    /// Reports every root that is a single file as changed.
    fn note_files(&mut self) {
        let files = self.roots.iter().filter(|root| root.node.is_none());
        for file in files.filter_map(|root| root.real.as_ref()) {
            self.pending.add(file.clone(), Instant::now());
        }
    }

    /// A watch has ended: its directory is gone, or the file system is unmounted.
    fn end(&mut self, watch: i32, flags: ReadFlags) {
        self.is_unresolved |= self.path_names.contains_key(&watch);
        for node in self.tree.of(watch) {
            let parent = self.tree.parent(node);
            let parent = parent.map(|(parent, name)| (parent, name.to_owned()));
            let is_link = self.tree.is_link(node);
            self.remove(node);
            // The directory that was hidden by the mount is visible again.
            if let Some((parent, name)) = parent
                && flags.contains(ReadFlags::UNMOUNT)
            {
                self.arrive(parent, &name, is_link);
            }
        }
    }

    /// Handles an event of one name in a watched directory.
    fn handle_entry(&mut self, flags: ReadFlags, node: NodeId, name: &OsStr) {
        let path = self.tree.path(node).join(name);
        let came = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        let is_attribute = flags.contains(ReadFlags::ATTRIB);
        if flags.contains(ReadFlags::ISDIR) {
            if came || is_attribute {
                self.arrive(node, name, false);
            }
            // New permissions or times of a directory do not change its files.
            if is_attribute {
                return;
            }
        } else if flags.contains(ReadFlags::MODIFY) && is_metainfo_name(&path) {
            // Closing it makes an event too. Reading half a file would be in vain.
            self.pending.forget(&path);
            return;
        } else if came || flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            if let Some(link) = self.tree.link(node, name) {
                self.remove(link);
            }
            if came {
                self.arrive(node, name, true);
            }
        }
        self.pending.add(path, Instant::now());
    }

    /// Watches the directory that a name leads to now, if it is one, with everything below it.
    fn arrive(&mut self, parent: NodeId, name: &OsStr, is_link: bool) {
        let path = self.tree.path(parent).join(name);
        if let Some(node) = self.enter(Some(parent), &path, name, is_link) {
            self.pending.add(path, Instant::now());
            self.list(node);
        }
    }

    /// Watches a directory as a child of `parent`. `None` when it already is, or cannot be.
    fn enter(
        &mut self,
        parent: Option<NodeId>,
        path: &Path,
        name: &OsStr,
        is_link: bool,
    ) -> Option<NodeId> {
        if let Some(parent) = parent.filter(|_| is_link)
            && self.tree.links_in(parent) >= LINKS_MAX
        {
            return None;
        }
        let watch = match self.watch(path, DIRECTORY) {
            Ok(watch) => watch,
            Err(Unwatched::Absent) => return None,
            Err(Unwatched::Full) => {
                self.warn_full();
                return None;
            }
        };
        if let Some(parent) = parent {
            if self.tree.is_within(parent, watch) {
                return None;
            }
            if let Some(node) = self.tree.find(parent, name, watch) {
                if is_link {
                    self.tree.mark_link(node);
                }
                return None;
            }
        }
        let node = self.tree.add(parent, name, watch, is_link);
        if node.is_none() {
            self.leave(watch);
            self.warn_full();
        }
        node
    }

    /// Watches all directories below a node, breadth first: if there are too many, those near the root
    /// matter most.
    fn list(&mut self, node: NodeId) {
        let mut waiting = VecDeque::from([node]);
        while let Some(node) = waiting.pop_front() {
            let directory = self.tree.path(node);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    let directory = Printable::path(&directory);
                    log::debug!("cannot list {directory}: {error}");
                    continue;
                }
            };
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if kind.is_dir() || kind.is_symlink() {
                    let (path, name) = (entry.path(), entry.file_name());
                    let child = self.enter(Some(node), &path, &name, kind.is_symlink());
                    waiting.extend(child);
                }
            }
        }
    }

    /// Removes a node if its path no longer leads to its watch.
    fn verify(&mut self, node: NodeId) {
        let path = self.tree.path(node);
        let found = self.watch(&path, DIRECTORY).ok();
        if found != Some(self.tree.watch(node)) {
            self.remove(node);
            if let Some(watch) = found {
                // The directory that replaced it has its own event.
                self.leave(watch);
            }
        }
    }

    /// Removes a node with everything below it, and the watches that nothing else needs.
    fn remove(&mut self, node: NodeId) {
        self.pending.add(self.tree.path(node), Instant::now());
        for root in &mut self.roots {
            if root.node == Some(node) {
                root.node = None;
                self.is_unresolved = true;
            }
        }
        for watch in self.tree.remove(node) {
            self.leave(watch);
        }
    }

    fn watch(&self, path: &Path, flags: WatchFlags) -> Result<i32, Unwatched> {
        inotify::add_watch(&self.inotify, path, flags).map_err(|error| match error {
            Errno::NOSPC | Errno::NOMEM => Unwatched::Full,
            _ => Unwatched::Absent,
        })
    }

    /// Removes a watch unless something needs it.
    fn leave(&self, watch: i32) {
        if !self.tree.has_watch(watch) && !self.path_names.contains_key(&watch) {
            // The kernel may have removed it already.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    fn warn_full(&mut self) {
        if !self.is_full {
            self.is_full = true;
            self.pending.add_everything(Instant::now());
            log::warn!(
                "watching {} directories, which is the limit: only a rescan finds changes in others; \
                 raise fs.inotify.max_user_watches with sysctl(8), at 1 KB of memory each, and \
                 restart",
                self.tree.len()
            );
        }
    }

    /// Resolves the roots again if an event asks for it.
    pub(super) fn resolve_roots(&mut self) {
        if std::mem::take(&mut self.is_unresolved) {
            let mut path_names = HashMap::new();
            let mut roots = std::mem::take(&mut self.roots);
            for root in &mut roots {
                self.resolve_root(root, &mut path_names);
            }
            self.roots = roots;
            let mut presence_roots = std::mem::take(&mut self.presence_roots);
            for root in &mut presence_roots {
                self.resolve_presence_root(root, &mut path_names);
            }
            self.presence_roots = presence_roots;
            let before = std::mem::replace(&mut self.path_names, path_names);
            for watch in before.into_keys() {
                self.leave(watch);
            }
        }
    }

    /// Resolves a path and watches the directories on it.
    fn resolve_watched(
        &self,
        given: &Path,
        path_names: &mut HashMap<i32, Vec<OsString>>,
    ) -> ResolvedPath {
        let mut resolved = resolve::resolve(given);
        for _ in 0..RESOLVES_MAX {
            for (directory, name) in &resolved.steps {
                if let Ok(watch) = self.watch(directory, PATH) {
                    path_names.entry(watch).or_default().push(name.clone());
                }
            }
            // A change before the watch was made has no event, so compare.
            let watched = std::mem::replace(&mut resolved, resolve::resolve(given));
            if watched == resolved {
                break;
            }
        }
        resolved
    }

    /// Resolves one presence root and watches the directories on its path.
    fn resolve_presence_root(
        &mut self,
        root: &mut PresenceRoot,
        path_names: &mut HashMap<i32, Vec<OsString>>,
    ) {
        let resolved = self.resolve_watched(&root.given, path_names);
        let end = resolved.end.as_deref();
        let mut watch = end.and_then(|end| self.watch(end, PRESENCE).ok());
        if root.update(end) {
            self.pending.add_everything(Instant::now());
        }
        if root.is_empty()
            && let Some(end) = end
            && let Ok(filled) = self.watch(end, PATH)
        {
            path_names.entry(filled).or_default().push(ANY_NAME.into());
            watch = Some(filled);
            // A file that came before the watch has no event.
            root.update(Some(end));
        }
        if let Some(watch) = watch {
            path_names.entry(watch).or_default();
        }
    }

    /// Reads the mounts at and below presence roots again. Returns true if any has changed.
    fn update_presence_mounts(&mut self) -> bool {
        let roots = self.presence_roots.iter_mut();
        roots.fold(false, |any, root| root.update_mounts() | any)
    }

    /// Resolves one root and watches the directories on its path.
    fn resolve_root(&mut self, root: &mut Root, path_names: &mut HashMap<i32, Vec<OsString>>) {
        let end = self.resolve_watched(&root.given, path_names).end;
        let watch = end.as_ref().and_then(|end| self.watch(end, DIRECTORY).ok());
        if root.real == end && root.node.map(|node| self.tree.watch(node)) == watch {
            return;
        }
        if let Some(node) = root.node.take() {
            self.remove(node);
        }
        if let Some(end) = &end {
            root.node = self.enter(None, end, end.as_os_str(), false);
        }
        if let Some(node) = root.node {
            self.list(node);
        }
        let before = std::mem::replace(&mut root.real, end.clone());
        if before.is_some() && end.is_some() && before != end {
            self.pending.add_everything(Instant::now());
        }
        for path in before.into_iter().chain(end) {
            self.pending.add(path, Instant::now());
        }
    }

    /// The mount table has changed.
    pub(super) fn handle_mounts(&mut self) {
        self.is_unresolved = true;
        self.resolve_roots();
        if self.update_presence_mounts() {
            self.pending.add_everything(Instant::now());
        }
        let now = self.mounts_within();
        let mut points = std::mem::replace(&mut self.mounts, now.clone());
        points.extend(now);
        for point in points {
            if let Some((parent, name)) = self.node_of(&point) {
                self.rewatch(parent, &name, false);
            }
        }
        for (parent, name) in self.tree.links() {
            if self.tree.link(parent, &name).is_some() {
                self.rewatch(parent, &name, true);
            }
        }
    }

    /// Watches the directory that a name leads to now, and no longer an earlier one.
    fn rewatch(&mut self, parent: NodeId, name: &OsStr, is_link: bool) {
        if let Some(node) = self.tree.child(parent, name) {
            self.verify(node);
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

    /// The node of the directory that a path below a root is in, and its name.
    fn node_of(&self, path: &Path) -> Option<(NodeId, OsString)> {
        let (directory, name) = (path.parent()?, path.file_name()?);
        self.roots.iter().find_map(|root| {
            let relative = directory.strip_prefix(root.real.as_ref()?).ok()?;
            let node = self.tree.at(root.node?, relative)?;
            Some((node, name.to_owned()))
        })
    }
}
