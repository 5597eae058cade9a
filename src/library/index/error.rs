//! Why an index cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::torrent::printable::Printable;

/// Why an index cannot be used. One line that names the file.
#[derive(Debug, Error)]
#[error("index {}: {fault}", Printable::path(&path))]
pub struct IndexError {
    /// The index file.
    pub path: PathBuf,
    /// The fault.
    pub fault: Fault,
}

/// A fault of an index file.
#[derive(Debug, Error)]
pub enum Fault {
    /// The file system refuses to read it.
    #[error("unreadable: {0}")]
    Unreadable(#[from] io::Error),
    /// It does not start like an index.
    #[error("not an index file of hekate")]
    NotAnIndex,
    /// Written by another version of the program. The format that it has, and the one that is read.
    #[error("has format {0}, this version reads format {1}: make it again with `hekate index`")]
    Version(u32, u32),
    /// It is shorter than its header says.
    #[error("truncated: {found} bytes of {expected}")]
    Truncated {
        /// Bytes that the header calls for.
        expected: u64,
        /// The length of the file in bytes.
        found: u64,
    },
    /// The bytes are not those that were written.
    #[error("damaged ({0}): make it again with `hekate index`")]
    Damaged(&'static str),
}

impl Fault {
    pub(super) fn of(self, path: &Path) -> IndexError {
        IndexError {
            path: path.to_path_buf(),
            fault: self,
        }
    }
}
