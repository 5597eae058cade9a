//! Descending a tree of directories, symlinks included.
//!
//! A symlink sorts and counts as its target, and every walk ends. Blocks.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{thread, vec};

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
pub(super) struct Walk {
    /// Files that are wanted by any name.
    within: Vec<PathBuf>,
    /// The directories above the first, as far as they were walked through.
    above: Vec<(Identity, PathBuf)>,
    /// The directories that the walk is in, the deepest last.
    levels: Vec<Level>,
    /// Steps that come before the walk goes on.
    ready: VecDeque<Step>,
    /// A directory is tried again while no descriptor is left.
    is_patient: bool,
    lack: DescriptorWait,
}

/// A directory that the walk is in.
struct Level {
    path: PathBuf,
    /// Read when a symlink is compared with it.
    identity: Option<Identity>,
    /// Symlinks in its path.
    links: usize,
    names: vec::IntoIter<OsString>,
    children: vec::IntoIter<Child>,
}

/// A directory or symlink in a directory.
struct Child {
    name: OsString,
    kind: Kind,
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
    children: Vec<Child>,
    refusals: Vec<Refusal>,
    /// It has no entry at all.
    is_empty: bool,
}

impl Walk {
    /// All below a directory, whose path is kept as it is.
    pub(super) fn new(directory: &Path, within: Vec<PathBuf>) -> Self {
        let mut walk = Walk {
            within,
            is_patient: true,
            ..Walk::default()
        };
        walk.enter(directory.to_path_buf(), 0);
        walk
    }

    /// The same, as a walk from `start` reaches it. It does not wait for a descriptor.
    pub(super) fn below(directory: &Path, start: &Path) -> Self {
        let mut walk = Walk::default();
        let above = directory.ancestors().skip(1);
        let above = above.take_while(|above| above.starts_with(start));
        walk.above = above
            .filter_map(|above| Some((identity(&above.metadata().ok()?), above.to_path_buf())))
            .collect();
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
            ready: VecDeque::from([step]),
            ..Walk::default()
        }
    }

    /// Goes into a directory.
    fn enter(&mut self, path: PathBuf, links: usize) {
        match self.list(&path) {
            Ok(listing) if listing.is_empty => self.ready.push_back(Step::Away(path)),
            Ok(listing) => {
                self.ready
                    .extend(listing.refusals.into_iter().map(Step::Refused));
                self.levels.push(Level {
                    path,
                    identity: None,
                    links,
                    names: listing.names.into_iter(),
                    children: listing.children.into_iter(),
                });
            }
            // It has vanished since it was listed, and no torrent is lost by that.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.levels.is_empty() => {}
            Err(error) => self.lose(path, error),
        }
    }

    /// Goes into the directory that a symlink leads to, unless the walk is in it. `links` symlinks are
    /// above it.
    fn follow(&mut self, path: PathBuf, found: Identity, links: usize) {
        if links >= LINKS_MAX {
            let reason = RefusalReason::Links(LINKS_MAX);
            let refusal = Refusal { path, reason };
            return self.ready.push_back(Step::Refused(refusal));
        }
        let within = self.levels.iter_mut().rev();
        let within = within.filter_map(|level| Some((level.identity()?, &level.path)));
        let above = self.above.iter().map(|(identity, path)| (*identity, path));
        let ancestor = within
            .chain(above)
            .find(|(identity, _)| *identity == found)
            .map(|(_, path)| path.clone());
        match ancestor {
            Some(ancestor) => {
                let reason = RefusalReason::Loop(ancestor);
                self.ready
                    .push_back(Step::Refused(Refusal { path, reason }));
            }
            None => self.enter(path, links + 1),
        }
    }

    /// Passes over a directory that cannot be read: the files below it may still exist.
    fn lose(&mut self, path: PathBuf, error: io::Error) {
        self.refuse(path.clone(), error);
        self.ready.push_back(Step::Away(path));
    }

    fn refuse(&mut self, path: PathBuf, error: io::Error) {
        let reason = explain(&path, error).into();
        self.ready
            .push_back(Step::Refused(Refusal { path, reason }));
    }

    /// Reads a directory. A patient walk tries again while no descriptor is left.
    fn list(&mut self, path: &Path) -> io::Result<Listing> {
        loop {
            match self.read(path) {
                Err(error)
                    if self.is_patient
                        && is_lack_of_descriptors(&error)
                        && self.lack.wait(&error) => {}
                outcome => {
                    self.lack = DescriptorWait::default();
                    return outcome;
                }
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
                let kind = Kind::Directory;
                listing.children.push(Child { name, kind });
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
        let by_name = |one: &Child, other: &Child| one.name.cmp(&other.name);
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
        self.children.push(Child { name, kind });
    }
}

impl Level {
    fn identity(&mut self) -> Option<Identity> {
        if self.identity.is_none() {
            self.identity = self.path.metadata().ok().as_ref().map(identity);
        }
        self.identity
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Some(step);
            }
            let level = self.levels.last_mut()?;
            let names: Vec<OsString> = level.names.by_ref().take(BATCH_NAMES).collect();
            if !names.is_empty() {
                let directory = level.path.clone();
                return Some(Step::Batch(Batch { directory, names }));
            }
            let Some(child) = level.children.next() else {
                self.levels.pop();
                continue;
            };
            let (path, links) = (level.path.join(&child.name), level.links);
            match child.kind {
                Kind::Directory => self.enter(path, links),
                Kind::Link(found) => self.follow(path, found, links),
                Kind::Lost(error) if is_metainfo_name(&path) => self.refuse(path, error),
                // Content may hold symlinks to nothing. Or it is a directory whose disk is away.
                Kind::Lost(error) if error.kind() == ErrorKind::NotFound => {
                    self.ready.push_back(Step::Away(path));
                }
                Kind::Lost(error) => self.lose(path, error),
            }
        }
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
