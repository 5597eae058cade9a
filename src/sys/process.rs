//! System calls about the process: forking, users, capabilities, and descriptors passed to it.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use super::check;

/// Size of the first buffer for the strings of a record; it is doubled while it is too small.
const RECORD_BYTES: usize = 1024;

/// More than any record of the user database needs.
const MAX_RECORD_BYTES: usize = 1 << 20;

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

/// A record of the user database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The name; `None` for an id without a record.
    pub name: Option<CString>,
    /// User id.
    pub id: libc::uid_t,
    /// Group id.
    pub group: libc::gid_t,
}

/// Looks a user up by name.
///
/// # Errors
/// Those of `getpwnam_r(3)`; `InvalidInput` for a name with a zero byte.
pub fn user_by_name(name: &str) -> io::Result<Option<User>> {
    let name = CString::new(name)?;
    // SAFETY: as `find_record` promises; the name outlives the call.
    find_record(|record, buffer, length, found| unsafe {
        libc::getpwnam_r(name.as_ptr(), record, buffer, length, found)
    })
    .map(|record| record.map(|record: Found<libc::passwd>| record.user()))
}

/// Looks a user up by id.
///
/// # Errors
/// Those of `getpwuid_r(3)`.
pub fn user_by_id(id: libc::uid_t) -> io::Result<Option<User>> {
    // SAFETY: as `find_record` promises.
    find_record(|record, buffer, length, found| unsafe {
        libc::getpwuid_r(id, record, buffer, length, found)
    })
    .map(|record| record.map(|record: Found<libc::passwd>| record.user()))
}

/// Looks up the id of a group by its name.
///
/// # Errors
/// Those of `getgrnam_r(3)`; `InvalidInput` for a name with a zero byte.
pub fn group_by_name(name: &str) -> io::Result<Option<libc::gid_t>> {
    let name = CString::new(name)?;
    // SAFETY: as `find_record` promises; the name outlives the call.
    find_record(|record, buffer, length, found| unsafe {
        libc::getgrnam_r(name.as_ptr(), record, buffer, length, found)
    })
    .map(|record| record.map(|record: Found<libc::group>| record.record.gr_gid))
}

/// A record, and the bytes that its pointers point to.
struct Found<T> {
    record: T,
    _bytes: Vec<libc::c_char>,
}

impl Found<libc::passwd> {
    fn user(&self) -> User {
        // SAFETY: the name of a record that was found is a string that ends with a zero, in the
        // bytes that the record was returned with.
        let name = unsafe { CStr::from_ptr(self.record.pw_name) };
        User {
            name: Some(name.to_owned()),
            id: self.record.pw_uid,
            group: self.record.pw_gid,
        }
    }
}

/// Calls a reentrant look-up function with memory for a record, a buffer for the strings that it points
/// to, the buffer's length, and a pointer that stays null when there is no such record.
fn find_record<T>(
    find: impl Fn(*mut T, *mut libc::c_char, usize, *mut *mut T) -> libc::c_int,
) -> io::Result<Option<Found<T>>> {
    let mut length = RECORD_BYTES;
    loop {
        let mut record = MaybeUninit::<T>::zeroed();
        let mut bytes = vec![0; length];
        let mut found = ptr::null_mut();
        let answer = find(
            record.as_mut_ptr(),
            bytes.as_mut_ptr(),
            length,
            &raw mut found,
        );
        match answer {
            0 if found.is_null() => return Ok(None),
            0 => {
                return Ok(Some(Found {
                    // SAFETY: the function has found a record and written it to `record`.
                    record: unsafe { record.assume_init() },
                    _bytes: bytes,
                }));
            }
            libc::ERANGE if length < MAX_RECORD_BYTES => length *= 2,
            // Some systems return these when there is no such record.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// The user and group ids of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Real, effective and saved user.
    pub users: [libc::uid_t; 3],
    /// Real, effective and saved group.
    pub groups: [libc::gid_t; 3],
}

/// The user and group ids of this process.
///
/// # Errors
/// Those of getresuid(2) and getresgid(2).
pub fn identity() -> io::Result<Identity> {
    let (mut users, mut groups) = ([0; 3], [0; 3]);
    let [real, effective, saved] = users.each_mut().map(ptr::from_mut);
    // SAFETY: the kernel writes one id through each of the three pointers.
    check(unsafe { libc::getresuid(real, effective, saved) })?;
    let [real, effective, saved] = groups.each_mut().map(ptr::from_mut);
    // SAFETY: the same.
    check(unsafe { libc::getresgid(real, effective, saved) })?;
    Ok(Identity { users, groups })
}

/// Switches to a user and its groups for good: the real, effective and saved ids.
///
/// # Errors
/// Those of initgroups(3), setgroups(2), setresgid(2) and setresuid(2).
pub fn become_user(user: &User) -> io::Result<()> {
    let (id, group) = (user.id, user.group);
    match &user.name {
        // SAFETY: the name is a string that ends with a zero.
        Some(name) => check(unsafe { libc::initgroups(name.as_ptr(), group) })?,
        // SAFETY: the kernel reads one group id.
        None => check(unsafe { libc::setgroups(1, &raw const group) })?,
    }
    // SAFETY: setresgid has no memory arguments.
    check(unsafe { libc::setresgid(group, group, group) })?;
    // SAFETY: setresuid has no memory arguments.
    check(unsafe { libc::setresuid(id, id, id) })
}

/// Tries to become root again. Returns true if that was possible.
#[must_use]
pub fn can_become_root() -> bool {
    // SAFETY: setresuid has no memory arguments.
    unsafe { libc::setresuid(0, 0, 0) == 0 }
}

/// Removes every capability from the bounding set, so that no executed program can gain one. It needs
/// `CAP_SETPCAP`.
///
/// # Errors
/// Those of prctl(2).
pub fn empty_bounding_set() -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match thread::remove_capability_from_bounding_set(capability) {
            // The kernel has no capability of this number or above.
            Err(Errno::INVAL) => break,
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Drops every capability: effective, permitted, inheritable and ambient.
///
/// # Errors
/// Those of prctl(2) and capset(2).
pub fn drop_capabilities() -> io::Result<()> {
    thread::clear_ambient_capability_set()?;
    Ok(thread::set_capabilities(None, NO_CAPABILITIES)?)
}

/// Returns true if any capability is left, effective, permitted or inheritable.
///
/// # Errors
/// Those of capget(2).
pub fn has_capabilities() -> io::Result<bool> {
    Ok(thread::capabilities(None)? != NO_CAPABILITIES)
}

const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

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
