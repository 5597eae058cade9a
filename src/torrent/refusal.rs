//! Why a metainfo file is not served.
//!
//! The reasons, each of which is shown as one line, and the names of metainfo files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::content::ContentError;
use super::metainfo::{METAINFO_MAX_BYTES, MetainfoError};
use super::printable::Printable;

/// Something in the library that is not served.
#[derive(Debug)]
pub struct Refusal {
    /// The metainfo file or directory.
    pub path: PathBuf,
    /// Why.
    pub reason: RefusalReason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {}",
            Printable::path(&self.path),
            self.reason
        )
    }
}

/// Why something is not served. Each is shown as one line.
#[derive(Debug, Error)]
pub enum RefusalReason {
    /// A directory or metainfo file that the file system does not let us read.
    #[error("unreadable: {0}")]
    Unreadable(#[from] io::Error),
    /// A directory that should not be empty.
    #[error("an empty directory: is a disk not mounted?")]
    Empty,
    /// A symlink to a directory that the walk is in.
    #[error("a symlink leads back to {}", Printable::path(.0))]
    Loop(PathBuf),
    /// A symlink to a directory below as many others as are followed.
    #[error("behind more than {0} symlinks to directories")]
    Links(usize),
    /// A pipe, socket or device with the name of a metainfo file.
    #[error("not a regular file")]
    NotRegular,
    /// More than [`METAINFO_MAX_BYTES`].
    #[error("metainfo file of more than {METAINFO_MAX_BYTES} bytes")]
    TooLarge,
    /// The metainfo file cannot be used.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// The content is missing or wrong.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl RefusalReason {
    /// Returns true if content is a link to nothing.
    #[must_use]
    pub fn is_lost_link(&self) -> bool {
        matches!(self, Self::Content(ContentError::Dangling { .. }))
    }

    /// Returns true if the file could not be examined because no descriptor was left.
    #[must_use]
    pub fn is_lack_of_descriptors(&self) -> bool {
        let (Self::Unreadable(error) | Self::Content(ContentError::Unreadable(_, error))) = self
        else {
            return false;
        };
        is_lack_of_descriptors(error)
    }
}

/// Returns true if the process or the system has no descriptor left.
pub(crate) fn is_lack_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Returns true if a file found in a directory counts as a metainfo file.
pub(crate) fn is_metainfo_name(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"))
}
