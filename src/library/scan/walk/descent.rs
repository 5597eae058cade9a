//! Descending a tree of directories, symlinks included.
//!
//! A symlink sorts and counts as its target, and every walk ends. Blocks.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Batch, Step};
use crate::torrent::content::explain;
use crate::torrent::refusal::{Refusal, RefusalReason, is_lack_of_descriptors, is_metainfo_name};

/// Files of one directory that are handed on together: enough that handing on costs nothing beside
/// reading them, and few enough that all cores have some.
const BATCH_NAMES: usize = 64;

/// Symlinks to directories in one path. A farm of links has one, a farm of farms two. Twelve
/// directories that each link to the eleven others are 95,040 paths with four, which takes a second,
/// and 80 million with eight.
pub(in crate::library) const LINKS_MAX: usize = 4;

/// How long something is tried again while no descriptor is left. Peers come and go faster; a system
/// that has none for longer needs its administrator.
const DESCRIPTORS_PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait in between.
const DESCRIPTORS_POLL: Duration = Duration::from_millis(100);

/// Waits for a descriptor.
#[derive(Default)]
pub(in crate::library) struct DescriptorWait {
    since: Option<Instant>,
}

impl DescriptorWait {
    /// Waits a moment after this failure. Returns false if that would take too long altogether.
    pub(in crate::library) fn wait(&mut self, failure: &dyn Display) -> bool {
        let since = self.since.get_or_insert_with(|| {
            log::warn!("rescan postponed: {failure}");
            Instant::now()
        });
        if since.elapsed() >= DESCRIPTORS_PATIENCE {
            return false;
        }
        thread::sleep(DESCRIPTORS_POLL);
        true
    }
}

/// Device and inode of a directory.
type Identity = (u64, u64);

/// A walk from one start.
#[derive(Default)]
pub(in crate::library) struct Walk {
    /// Files that are wanted by any name.
    within: Vec<PathBuf>,
    /// The highest directory that a symlink may lead back to.
    start: PathBuf,
    /// The directory in which the walk begins.
    first: PathBuf,
    /// Directories that are not entered, since they hang.
    hung: Arc<BTreeSet<PathBuf>>,
    /// A directory is tried again while no descriptor is left.
    is_patient: bool,
    /// What comes next, the first last.
    pending: Vec<Pending>,
}

enum Pending {
    Step(Step),
    /// A directory or symlink in a directory.
    Child {
        directory: Arc<Path>,
        /// Symlinks in the path of the directory.
        links: usize,
        name: OsString,
        kind: Kind,
    },
}

enum Kind {
    Directory,
    /// A symlink to a directory.
    Link(Identity),
    /// A symlink that cannot be followed.
    Lost(io::Error),
}

/// The contents of a directory, in the order in which they are yielded.
#[derive(Default)]
struct Listing {
    names: Vec<OsString>,
    children: Vec<(OsString, Kind)>,
    refusals: Vec<Refusal>,
    /// It has no entry at all.
    is_empty: bool,
}

impl Walk {
    /// All below a directory, whose path is kept as it is, but for directories that hang.
    pub(super) fn new(
        directory: &Path,
        within: Vec<PathBuf>,
        hung: Arc<BTreeSet<PathBuf>>,
    ) -> Self {
        let mut walk = Walk {
            within,
            start: directory.to_path_buf(),
            first: directory.to_path_buf(),
            hung,
            is_patient: true,
            pending: Vec::new(),
        };
        walk.enter(directory.to_path_buf(), 0);
        walk
    }

    /// The same, as a walk from `start` reaches it: a symlink back to a directory above is a loop here
    /// too. It does not wait for a descriptor.
    pub(in crate::library) fn below(directory: &Path, start: &Path) -> Self {
        let mut walk = Walk {
            start: start.to_path_buf(),
            first: directory.to_path_buf(),
            ..Walk::default()
        };
        let above = directory.ancestors().skip(1);
        let above = above.take_while(|above| above.starts_with(start) && *above != start);
        let links = above.filter(|above| above.is_symlink()).count();
        let link = directory.is_symlink().then(|| directory.metadata());
        match link {
            Some(Ok(metadata)) => walk.follow(directory.to_path_buf(), identity(&metadata), links),
            _ => walk.enter(directory.to_path_buf(), links),
        }
        walk
    }

    /// A walk of this one step.
    pub(super) fn only(step: Step) -> Self {
        Walk {
            pending: vec![Pending::Step(step)],
            ..Walk::default()
        }
    }

    fn push(&mut self, step: Step) {
        self.pending.push(Pending::Step(step));
    }

    /// Goes into a directory: first what is refused in it, then its files, then its directories.
    fn enter(&mut self, path: PathBuf, links: usize) {
        if self.hung.contains(&path) {
            return self.push(Step::Hung(path));
        }
        let listing = match self.list(&path) {
            Ok(listing) if listing.is_empty => return self.push(Step::Away(path)),
            Ok(listing) => listing,
            // It has vanished since it was listed, and no torrent is lost by that.
            Err(error) if error.kind() == ErrorKind::NotFound && path != self.first => return,
            Err(error) => return self.lose(path, error),
        };
        let directory: Arc<Path> = path.into();
        let children = listing.children.into_iter().rev();
        self.pending
            .extend(children.map(|(name, kind)| Pending::Child {
                directory: Arc::clone(&directory),
                links,
                name,
                kind,
            }));
        let mut names = listing.names;
        while !names.is_empty() {
            let names = names.split_off((names.len() - 1) / BATCH_NAMES * BATCH_NAMES);
            let directory = directory.to_path_buf();
            self.push(Step::Batch(Batch { directory, names }));
        }
        let refusals = listing.refusals.into_iter().rev();
        refusals.for_each(|refusal| self.push(Step::Refused(refusal)));
    }

    /// Goes into the directory that a symlink leads to, unless the walk is in it. `links` symlinks are
    /// above it.
    fn follow(&mut self, path: PathBuf, found: Identity, links: usize) {
        if links >= LINKS_MAX {
            let reason = RefusalReason::Links(LINKS_MAX);
            return self.push(Step::Refused(Refusal { path, reason }));
        }
        let above = path.ancestors().skip(1);
        let mut above = above.take_while(|above| above.starts_with(&self.start));
        let is_found = |metadata: Metadata| identity(&metadata) == found;
        match above.find(|above| above.metadata().is_ok_and(is_found)) {
            Some(ancestor) => {
                let reason = RefusalReason::Loop(ancestor.to_path_buf());
                self.push(Step::Refused(Refusal { path, reason }));
            }
            None => self.enter(path, links + 1),
        }
    }

    /// Passes over a directory that cannot be read: the files below it may still exist.
    fn lose(&mut self, path: PathBuf, error: io::Error) {
        self.push(Step::Away(path.clone()));
        self.refuse(path, error);
    }

    fn refuse(&mut self, path: PathBuf, error: io::Error) {
        let reason = explain(&path, error).into();
        self.push(Step::Refused(Refusal { path, reason }));
    }

    /// Reads a directory. A patient walk tries again while no descriptor is left.
    fn list(&self, path: &Path) -> io::Result<Listing> {
        let mut lack = DescriptorWait::default();
        loop {
            match self.read(path) {
                Err(error)
                    if self.is_patient && is_lack_of_descriptors(&error) && lack.wait(&error) => {}
                outcome => return outcome,
            }
        }
    }

    fn read(&self, directory: &Path) -> io::Result<Listing> {
        let within = self.within.iter();
        let within: Vec<&OsStr> = within
            .filter(|file| file.parent() == Some(directory))
            .filter_map(|file| file.file_name())
            .collect();
        let mut listing = Listing {
            is_empty: true,
            ..Listing::default()
        };
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            listing.is_empty = false;
            let name = entry.file_name();
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                // It has vanished.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if kind.is_dir() {
                listing.children.push((name, Kind::Directory));
                continue;
            }
            let is_wanted = is_metainfo_name(Path::new(&name)) || within.contains(&&*name);
            if kind.is_symlink() {
                listing.add_link(entry.path(), name, is_wanted);
            } else if is_wanted {
                listing.add(entry.path(), name, kind.is_file());
            }
        }
        listing.names.sort_unstable();
        let by_name = |one: &(OsString, _), other: &(OsString, _)| one.0.cmp(&other.0);
        listing.children.sort_unstable_by(by_name);
        Ok(listing)
    }
}

impl Listing {
    /// A wanted name.
    fn add(&mut self, path: PathBuf, name: OsString, is_regular: bool) {
        match is_regular {
            true => self.names.push(name),
            false => self.refusals.push(Refusal {
                path,
                reason: RefusalReason::NotRegular,
            }),
        }
    }

    /// A symlink counts as its target.
    fn add_link(&mut self, path: PathBuf, name: OsString, is_wanted: bool) {
        let kind = match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Kind::Link(identity(&metadata)),
            Ok(metadata) if is_wanted => return self.add(path, name, metadata.is_file()),
            Ok(_) => return,
            Err(error) => Kind::Lost(error),
        };
        self.children.push((name, kind));
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let (path, links, kind) = match self.pending.pop()? {
                Pending::Step(step) => return Some(step),
                Pending::Child {
                    directory,
                    links,
                    name,
                    kind,
                } => (directory.join(name), links, kind),
            };
            match kind {
                Kind::Directory => self.enter(path, links),
                Kind::Link(found) => self.follow(path, found, links),
                Kind::Lost(error) if is_metainfo_name(&path) => self.refuse(path, error),
                // Content may hold symlinks to nothing. Or it is a directory whose disk is away.
                Kind::Lost(error) if error.kind() == ErrorKind::NotFound => {
                    self.push(Step::Away(path));
                }
                Kind::Lost(error) => self.lose(path, error),
            }
        }
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
