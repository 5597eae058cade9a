//! The pid file: the process that holds its lock is the only one that uses it.
//!
//! An unlocked file is left over from a killed process and is replaced. The file is never written in
//! place and no symlink is followed, since its directory may belong to another user.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// How often another process may replace the file meanwhile before that is an error.
const ATTEMPTS: usize = 10;

/// Longer than any process id.
const PID_BYTES: u64 = 20;

/// Why the file could not be taken.
#[derive(Debug, Error)]
pub enum PidFileError {
    /// Another process holds it.
    #[error("{}: hekate is already running, as process {pid}", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// The process id in it.
        pid: String,
    },
    /// A system call failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

/// The file, locked; dropping it removes it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFileError {
    /// Returns true if there is no room for the file, which is no reason not to serve.
    #[must_use]
    pub fn is_of_full_disk(&self) -> bool {
        let kind = match self {
            PidFileError::Taken { .. } => return false,
            PidFileError::Io { error, .. } => error.kind(),
        };
        matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
}

impl PidFile {
    /// Locks the file and writes the id of this process.
    ///
    /// # Errors
    /// A [`PidFileError`].
    pub fn take(path: &Path) -> Result<Self, PidFileError> {
        let failed = |error| PidFileError::Io {
            path: path.to_owned(),
            error,
        };
        for _ in 0..ATTEMPTS {
            let stale = match open(path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(failed(error)),
            };
            if let Some(file) = &stale {
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::Error(error)) => return Err(failed(error)),
                    Err(TryLockError::WouldBlock) => {
                        let mut pid = String::new();
                        // If it cannot be read, the message goes without it.
                        let _ = file.take(PID_BYTES).read_to_string(&mut pid);
                        return Err(PidFileError::Taken {
                            path: path.to_owned(),
                            pid: pid.trim().to_owned(),
                        });
                    }
                }
                if !is_still_at(file, path) {
                    continue;
                }
            }
            match put(path, stale.is_some()) {
                Ok(file) => {
                    return Ok(Self {
                        path: path.to_owned(),
                        file,
                    });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::Error::other(
            "other processes keep replacing it",
        )))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if !is_still_at(&self.file, &self.path) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            // The directory may belong to the user that the process was before it switched.
            log::debug!(
                "cannot remove {}, emptying it: {error}",
                self.path.display()
            );
            let _ = self.file.set_len(0);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let (ours, theirs) = (file.metadata(), fs::symlink_metadata(path));
    ours.is_ok_and(|ours| {
        theirs.is_ok_and(|theirs| (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    })
}

/// Creates the file, complete and locked; `replace` says that a stale one exists.
fn put(path: &Path, replace: bool) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    // An earlier process with the same id may have left it.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&new)?;
    let outcome = file
        .try_lock()
        .map_err(io::Error::from)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .and_then(|()| match replace {
            true => fs::rename(&new, path),
            false => fs::hard_link(&new, path),
        });
    if !replace || outcome.is_err() {
        let _ = fs::remove_file(&new);
    }
    outcome.map(|()| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_held_until_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let held = PidFile::take(&path).unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
        let second = PidFile::take(&path).unwrap_err().to_string();
        let shown = path.display();
        let expected = format!("{shown}: hekate is already running, as process {pid}");
        assert_eq!(second, expected);
        drop(held);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "1\n").unwrap();
        drop(PidFile::take(&path).unwrap());
        let other = directory.path().join("other");
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(PidFile::take(&path).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }

    #[test]
    fn a_file_that_replaced_ours_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let held = PidFile::take(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "2\n").unwrap();
        drop(held);
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }
}
