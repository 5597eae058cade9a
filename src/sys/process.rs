//! System calls about the process: forking, permissions, and descriptors passed to it.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// The first descriptor that a service manager passes: `sd_listen_fds(3)`.
const FIRST_PASSED: RawFd = 3;

/// The number of threads of the process.
///
/// # Errors
/// Those of reading `/proc/self/task`.
pub fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// Forks. Returns true in the new process.
///
/// # Errors
/// Those of fork(2); `Other` when the process has more than one thread.
pub fn fork() -> io::Result<bool> {
    if threads()? != 1 {
        return Err(io::Error::other("a process with threads cannot fork"));
    }
    // SAFETY: with a single thread, no other thread can hold a lock that would stay locked in the new
    // process, so it may call any function.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid == 0),
    }
}

/// Takes over the descriptors that were passed to the process, from 3 on, and makes them close on
/// exec. Only the first call may take them.
///
/// # Errors
/// `Other` the second time; EBADF when one of them is not open.
pub fn take_passed_descriptors(count: usize) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::other("they were taken before"));
    }
    let last = RawFd::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    let descriptors = FIRST_PASSED..FIRST_PASSED.saturating_add(last);
    for descriptor in descriptors.clone() {
        // SAFETY: fcntl with these arguments reads and writes no memory.
        if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(descriptors
        // SAFETY: the descriptor is open, was opened before the process began, and is taken once.
        .map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
        .collect())
}

/// Returns true if the owner and mode of a path let this process read it. A sandbox may forbid it
/// nevertheless.
#[must_use]
pub fn permissions_allow_reading(path: &Path) -> bool {
    accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).is_ok()
}

/// The same for writing.
#[must_use]
pub fn permissions_allow_writing(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}
