//! The file that has the number of the process.
//!
//! Owns that there is one process for it: whoever holds the lock of the file runs. A file that
//! nobody holds was left by a process that was killed, and is replaced. It is never written in
//! place and no link is followed, since it may lie in a directory that belongs to somebody else.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// How often others may be faster with the file before that is an error.
const ATTEMPTS: usize = 10;

/// Longer than any number.
const NUMBER_BYTES: u64 = 20;

/// Why the file could not be had.
#[derive(Debug, Error)]
pub enum PidFileError {
    /// Another process holds it.
    #[error("{}: hekate is already running, as process {number}", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        number: String,
    },
    /// The file system says no.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

/// The file, held until it is dropped, which removes it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes the number of this process.
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
                        let mut number = String::new();
                        // The message goes without a number that cannot be read.
                        let _ = file.take(NUMBER_BYTES).read_to_string(&mut number);
                        return Err(PidFileError::Taken {
                            path: path.to_owned(),
                            number: number.trim().to_owned(),
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
        Err(failed(io::Error::other("others replace it all the time")))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if !is_still_at(&self.file, &self.path) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            // The directory may belong to the user that the process was, and is no more.
            log::debug!("{} is emptied: {error}", self.path.display());
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

/// Puts a whole and locked file there, in place of a stale one or where there is none.
fn put(path: &Path, replace: bool) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    // Another process of this number has left it.
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
        let number = std::process::id().to_string();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{number}\n"));
        let second = PidFile::take(&path).unwrap_err().to_string();
        let place = path.display();
        let told = format!("{place}: hekate is already running, as process {number}");
        assert_eq!(second, told);
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
    fn a_file_that_somebody_else_has_put_there_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let held = PidFile::take(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "2\n").unwrap();
        drop(held);
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }
}
