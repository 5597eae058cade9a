//! A file that one process locks for itself.
//!
//! The locked file is the one that has the name, also if files are renamed meanwhile. A lock ends with
//! its process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file for reading and writing, and locks it; creates it if it does not exist. Symlinks are
/// not followed: in a directory where others may write, one could lead to any file.
///
/// # Errors
/// Those of the file system; `WouldBlock` while another process has it.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.custom_flags(libc::O_NOFOLLOW);
    loop {
        let file = options.open(path)?;
        file.try_lock()?;
        // The process that had the lock may have renamed the file since it was opened.
        let named = fs::metadata(path).map(|metadata| metadata.ino());
        if named.is_ok_and(|ino| file.metadata().is_ok_and(|metadata| metadata.ino() == ino)) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::time::{Duration, Instant};

    /// Waits for a lock that was just let go: a process that another test is starting at this moment
    /// has it, too, until it runs its program.
    pub(crate) fn soon<T>(open: impl Fn() -> io::Result<T>) -> T {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match open() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < until, "it stays locked");
                    std::thread::yield_now();
                }
                outcome => return outcome.unwrap(),
            }
        }
    }

    #[test]
    fn a_file_is_opened_by_one_and_keeps_what_is_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut first = open(&path).unwrap();
        first.write_all(b"kept").unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(first);
        let mut text = String::new();
        soon(|| open(&path)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["link", "other"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(open(&path).is_err());
        assert!(!other.exists());
    }

    #[test]
    fn a_file_that_was_renamed_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["file", "other"].map(|name| directory.path().join(name));
        let held = open(&path).unwrap();
        fs::rename(&path, &other).unwrap();
        assert!(open(&path).is_ok());
        assert!(open(&other).is_err());
        drop(held);
        soon(|| open(&other));
    }
}
