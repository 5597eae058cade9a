//! Presence roots: directories of which only presence, emptiness and mounts are watched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::library::scan::walk::is_away;
use crate::mounts::{self, Mount};

/// A presence root as last seen.
pub(super) struct PresenceRoot {
    pub(super) given: PathBuf,
    seen: Option<Seen>,
    /// Mounts at it or below.
    mounts: Vec<Mount>,
}

/// The state of a directory that exists.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    /// Without symlinks.
    real: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Like the mount point of a disk that is not mounted.
    is_empty: bool,
}

impl PresenceRoot {
    pub(super) fn new(given: &Path) -> Self {
        PresenceRoot {
            given: given.to_path_buf(),
            seen: None,
            mounts: Vec::new(),
        }
    }

    /// Returns true if the directory that was found last is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.is_empty)
    }

    /// Reads the state of the directory that its path leads to. Returns true if it has changed.
    pub(super) fn update(&mut self, end: Option<&Path>) -> bool {
        let seen = end.and_then(|real| {
            let metadata = fs::metadata(real).ok()?;
            Some(Seen {
                real: real.to_path_buf(),
                identity: (metadata.dev(), metadata.ino()),
                is_empty: is_away(real),
            })
        });
        let is_other = seen != self.seen;
        self.seen = seen;
        is_other
    }

    /// Reads the mounts at it and below. Returns true if they have changed.
    pub(super) fn update_mounts(&mut self) -> bool {
        let Some(seen) = &self.seen else {
            return false;
        };
        let mut mounts = mounts::all();
        // Examining an automount would mount it again, for ever.
        mounts.retain(|mount| mount.point.starts_with(&seen.real) && !mount.is_automatic);
        let is_other = mounts != self.mounts;
        self.mounts = mounts;
        is_other
    }
}
