//! Directories that are not watched themselves, only whether they are there.
//!
//! Owns what is known of each, by which one that was mounted over is told apart. It must not know
//! watches.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount};
use crate::library::scan::walk::is_away;

/// One directory.
pub(super) struct Anchor {
    pub(super) given: PathBuf,
    seen: Option<Seen>,
    /// What is mounted there or below.
    mounts: Vec<Mount>,
}

/// A directory that is there.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    /// Without symlinks.
    real: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// As the place of a disk that is not mounted.
    is_empty: bool,
}

impl Anchor {
    pub(super) fn new(given: &Path) -> Self {
        Anchor {
            given: given.to_path_buf(),
            seen: None,
            mounts: Vec::new(),
        }
    }

    /// Whether the directory that was found last is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.is_empty)
    }

    /// Looks at where its way ends. Answers whether it is another than before.
    pub(super) fn look(&mut self, end: Option<&Path>) -> bool {
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

    /// Looks at what is mounted. Answers whether it is something else than before.
    pub(super) fn look_at_mounts(&mut self) -> bool {
        let Some(seen) = &self.seen else {
            return false;
        };
        let mut mounts = mounts::all();
        // Looking at what an automounter has mounted would mount it again, for ever.
        mounts.retain(|mount| mount.point.starts_with(&seen.real) && !mount.is_automatic);
        let is_other = mounts != self.mounts;
        self.mounts = mounts;
        is_other
    }
}
