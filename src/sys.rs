//! The system calls that no library has as safe functions, and every unsafe line of the program.
//!
//! Mapped bytes are lent to the kernel and never dereferenced: a load from a mapping whose file was
//! truncated kills the process, but a system call returns EFAULT. No pointer and no reference to mapped
//! bytes leaves this file.
#![allow(unsafe_code)]

pub mod copies;
pub mod process;

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::param::page_size;
use rustix::process::{
    Resource, Signal, getrlimit, set_parent_process_death_signal, setpriority_process, setrlimit,
};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::system::sysinfo;

/// Most parts of one vectored write: 32 blocks with their headers. Measured, deeper batches save
/// nothing more, and the table for the kernel stays on the stack (1 KiB).
pub const MAX_SLICES: usize = 64;

/// The bytes of padding (BEP 47). As long as the longest block, so that this takes one entry of the
/// table; longer runs repeat it.
static ZEROS: [u8; 128 * 1024] = [0; 128 * 1024];

/// Pages queried in one system call: 1 MiB of content where pages have 4 KiB.
const PAGES_PER_QUESTION: usize = 256;

/// What a TCP socket says of its sending side (tcp(7), `TCP_INFO`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpLoad {
    /// Bytes that were written to it and have not been acknowledged.
    pub held_bytes: u64,
    /// Microseconds in which it had something to send.
    pub busy_us: u64,
    /// Of these, microseconds in which the receiver had no room.
    pub receiver_limited_us: u64,
    /// It sends faster with each round trip, since it has met no bottleneck yet.
    pub is_in_slow_start: bool,
}

/// Asks a TCP socket for its load.
///
/// # Errors
/// What getsockopt(2) answers; `Unsupported` when the kernel, older than 4.10, does not count times.
pub fn tcp_load(socket: BorrowedFd<'_>) -> io::Result<TcpLoad> {
    /// `struct tcp_info` up to and with `tcpi_rwnd_limited` (linux/tcp.h).
    const LENGTH: usize = 184;
    let mut info = [0_u8; LENGTH];
    let mut length = libc::socklen_t::try_from(LENGTH).expect("a constant of 184");
    // SAFETY: the kernel writes at most `length` bytes, as many as `info` has.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < LENGTH {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let u32_at = |at: usize| {
        let bytes = info.get(at..).and_then(<[u8]>::first_chunk);
        u64::from(u32::from_ne_bytes(
            *bytes.expect("it lies in the structure"),
        ))
    };
    let u64_at = |at: usize| {
        let bytes = info.get(at..).and_then(<[u8]>::first_chunk);
        u64::from_ne_bytes(*bytes.expect("it lies in the structure"))
    };
    let (segment_bytes, unacknowledged, unsent_bytes) = (u32_at(16), u32_at(24), u32_at(144));
    Ok(TcpLoad {
        held_bytes: unsent_bytes + unacknowledged * segment_bytes,
        busy_us: u64_at(168),
        receiver_limited_us: u64_at(176),
        // The window below the threshold.
        is_in_slow_start: u32_at(80) < u32_at(76),
    })
}

/// A file mapped for reading.
#[derive(Debug)]
pub struct Mapping {
    raw: MmapRaw,
    length: u64,
}

/// Maps the first `length` bytes of a file.
///
/// # Errors
/// `InvalidInput` for a length of zero or one that the address space cannot hold; what mmap(2)
/// answers, ENOMEM when the process has `vm.max_map_count` mappings.
pub fn map(file: &File, length: u64) -> io::Result<Mapping> {
    let wide = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    if wide == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw = MmapOptions::new().len(wide).map_raw_read_only(file)?;
    Ok(Mapping { raw, length })
}

impl Mapping {
    /// Starts reading a range of bytes. The kernel cuts each call to the device's longest read.
    ///
    /// It blocks while the device's queue is full, or the file's extents must be read: not for the loop.
    ///
    /// # Errors
    /// `InvalidInput` for a range beyond the mapping; what madvise(2) answers.
    pub fn will_need(&self, range: Range<u64>) -> io::Result<()> {
        self.advise(Advice::WillNeed, range)
    }

    /// Reads a range of bytes in and enters its pages in our page table (Linux 5.14).
    ///
    /// # Errors
    /// `InvalidInput` for a range beyond the mapping; EFAULT for bytes that the file or the device
    /// no longer has; EINVAL from an older kernel, which comes as `InvalidInput` too.
    pub fn populate(&self, range: Range<u64>) -> io::Result<()> {
        self.advise(Advice::PopulateRead, range)
    }

    /// Returns true if all pages of a range are in the page cache, by mincore(2). Never blocks.
    ///
    /// The kernel answers "yes" for everything unless [`may_ask_page_cache`].
    ///
    /// # Errors
    /// `InvalidInput` for a range beyond the mapping; what mincore(2) answers.
    pub fn is_in_page_cache(&self, range: Range<u64>) -> io::Result<bool> {
        let mut pages = [0_u8; PAGES_PER_QUESTION];
        for question in self.questions(range)? {
            let length = question.end - question.start;
            // SAFETY: `questions` starts on a page of the mapping and asks for no more bytes than
            // PAGES_PER_QUESTION pages, so the kernel writes within `pages`.
            let answer = unsafe {
                let start = self.raw.as_ptr().wrapping_add(question.start);
                libc::mincore(start.cast_mut().cast(), length, pages.as_mut_ptr())
            };
            check(answer)?;
            let asked = length.div_ceil(page_size());
            if pages.iter().take(asked).any(|page| page & 1 == 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn advise(&self, advice: Advice, range: Range<u64>) -> io::Result<()> {
        let (start, length) = self.within(&range)?;
        self.raw.advise_range(advice, start, length)
    }

    /// Start and length of a range, when it lies in the mapping.
    fn within(&self, range: &Range<u64>) -> io::Result<(usize, usize)> {
        if range.start > range.end || range.end > self.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let narrow = |bytes| usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
        Ok((narrow(range.start)?, narrow(range.end - range.start)?))
    }

    /// A range cut into whole pages, [`PAGES_PER_QUESTION`] at a time. Units: bytes of the mapping.
    fn questions(&self, range: Range<u64>) -> io::Result<impl Iterator<Item = Range<usize>>> {
        let (start, length) = self.within(&range)?;
        let (start, end) = (start - start % page_size(), start + length);
        let step = PAGES_PER_QUESTION * page_size();
        let starts = (start..end).step_by(step);
        Ok(starts.map(move |start| start..end.min(start + step)))
    }
}

/// Returns true if the kernel tells the truth about this file's pages in the page cache: it does to
/// the owner of the file and to those who may write it. (The latter is queried since Linux 5.8 only.)
#[must_use]
pub fn may_ask_page_cache(file: &File, metadata: &Metadata) -> bool {
    if metadata.uid() == rustix::process::geteuid().as_raw() {
        return true;
    }
    // rustix refuses AT_EMPTY_PATH here.
    // SAFETY: the path is a static string, the descriptor is open while `file` is borrowed, and
    // the kernel only reads.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::W_OK,
            libc::AT_EACCESS | libc::AT_EMPTY_PATH,
        )
    };
    answer == 0
}

/// The page table of this process. It is opened once, early: a process that has switched users may no
/// longer open it.
#[derive(Debug)]
pub struct PageTable(File);

impl PageTable {
    /// The present bit of an entry.
    const PRESENT: u64 = 1 << 63;
    const ENTRY_BYTES: usize = size_of::<u64>();

    /// Opens the page table of this process.
    ///
    /// # Errors
    /// Those of open(2); there may be no `/proc`.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Returns true if the page table has all pages of a range. False may also mean a page that is in
    /// memory, but was never populated or touched. Never blocks.
    ///
    /// # Errors
    /// `InvalidInput` for a range beyond the mapping; those of pread(2).
    pub fn has(&self, mapping: &Mapping, range: Range<u64>) -> io::Result<bool> {
        let mut entries = [0; PAGES_PER_QUESTION * Self::ENTRY_BYTES];
        for question in mapping.questions(range)? {
            let pages = question.len().div_ceil(page_size());
            let (asked, _) = entries.split_at_mut(pages * Self::ENTRY_BYTES);
            let first = (mapping.raw.as_ptr().addr() + question.start) / page_size();
            self.0
                .read_exact_at(asked, first as u64 * Self::ENTRY_BYTES as u64)?;
            let (asked, _) = asked.as_chunks();
            if asked
                .iter()
                .any(|&entry| u64::from_ne_bytes(entry) & Self::PRESENT == 0)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A part of a vectored write.
#[derive(Clone, Copy, Debug)]
pub enum Slice<'a> {
    /// Bytes of ours.
    Bytes(&'a [u8]),
    /// Bytes of a mapped file.
    Mapped {
        /// The file.
        mapping: &'a Mapping,
        /// The first byte.
        offset: u64,
        /// How many bytes.
        length: usize,
    },
    /// Bytes that are zero.
    Zeros {
        /// How many bytes.
        length: usize,
    },
}

/// Writes the parts in order with one system call and returns how many bytes were taken. Parts that
/// do not fit [`MAX_SLICES`] entries of the kernel's table are left for the next call.
///
/// # Errors
/// `InvalidInput` for a mapped part beyond its mapping; what writev(2) answers, EFAULT when the
/// first byte not taken yet is one that its mapped file no longer has.
pub fn writev(descriptor: BorrowedFd<'_>, slices: &[Slice<'_>]) -> io::Result<usize> {
    lend(slices, usize::MAX, |table, used| {
        // SAFETY: see `lend`; the kernel only reads.
        unsafe { libc::writev(descriptor.as_raw_fd(), table, used) }
    })
}

/// Hands the kernel's table of the parts, as far as they have no more than `most` bytes, to `call`, and
/// returns how many bytes it took.
///
/// The first entries of the table, as many as `call` is told, describe slices or mapped memory that are
/// borrowed until it returns. There are at most [`MAX_SLICES`].
fn lend(
    slices: &[Slice<'_>],
    most: usize,
    call: impl FnOnce(*const libc::iovec, libc::c_int) -> libc::ssize_t,
) -> io::Result<usize> {
    let mut table = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; MAX_SLICES];
    let mut free = table.iter_mut();
    let mut room = most;
    let mut push = |base: *const u8, length: usize| {
        if room == 0 {
            return false;
        }
        let length = length.min(room);
        room -= length;
        free.next().is_some_and(|entry| {
            *entry = libc::iovec {
                iov_base: base.cast_mut().cast(),
                iov_len: length,
            };
            true
        })
    };
    for slice in slices {
        let fits = match *slice {
            Slice::Bytes(bytes) => push(bytes.as_ptr(), bytes.len()),
            Slice::Mapped {
                mapping,
                offset,
                length,
            } => {
                let range = offset..offset.saturating_add(length as u64);
                let (start, length) = mapping.within(&range)?;
                push(mapping.raw.as_ptr().wrapping_add(start), length)
            }
            Slice::Zeros { length } => (0..length)
                .step_by(ZEROS.len())
                .all(|done| push(ZEROS.as_ptr(), ZEROS.len().min(length - done))),
        };
        if !fits {
            break;
        }
    }
    let used = MAX_SLICES - free.len();
    let used = libc::c_int::try_from(used).expect("MAX_SLICES is small");
    usize::try_from(call(table.as_ptr(), used)).map_err(|_| io::Error::last_os_error())
}

/// Raises the soft limit on descriptors to the hard one, and returns it.
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    // None is no limit.
    Ok(limit.current.unwrap_or(u64::MAX))
}

/// Returns true if a socket would take bytes now. If it would not, an event follows when it does.
///
/// # Errors
/// Those of poll(2).
pub fn is_writable(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut sockets = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    // An error of the socket counts as well: writing finds it.
    Ok(poll(&mut sockets, Some(&Timespec::default()))? == 1)
}

/// Lowers the share of the processor that the calling thread competes for, by 0 to 19 steps. It
/// cannot be raised again without privileges.
///
/// # Errors
/// Those of setpriority(2).
pub fn set_niceness(niceness: i32) -> io::Result<()> {
    // On Linux, process 0 is the calling thread only.
    Ok(setpriority_process(None, niceness)?)
}

/// Fills a buffer with unpredictable bytes.
///
/// # Errors
/// Those of getrandom(2).
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    // The kernel never fills fewer than 256 bytes of those that it is asked for (getrandom(2)).
    for part in bytes.chunks_mut(256) {
        getrandom(part, GetRandomFlags::empty())?;
    }
    Ok(())
}

/// The memory of the machine, in bytes.
pub fn memory_bytes() -> u64 {
    let info = sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}

/// The number of page faults of the calling thread for which a disk was read.
///
/// # Errors
/// Those of getrusage(2).
pub fn major_faults() -> io::Result<u64> {
    let faults = getrusage(UsageWho::RUSAGE_THREAD)?.major_page_faults();
    Ok(u64::try_from(faults).expect("a count is not negative"))
}

/// Drops a file's pages from the page cache, so that a test may find them absent. Pages that are
/// mapped stay.
#[cfg(test)]
pub(crate) fn evict(file: &File) -> io::Result<()> {
    file.sync_all()?;
    use rustix::fs::{Advice, fadvise};
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

fn check(answer: libc::c_int) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

// From here to the tests: for `hekate-swarm` only.

/// Discards up to `bytes` that a TCP socket has received, without copying them (`MSG_TRUNC`, tcp(7)).
/// Returns their number, zero at the end of the stream. Never blocks.
///
/// # Errors
/// Those of recv(2), `WouldBlock` when there is nothing.
pub fn recv_discard(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer, and of another kind of
    // socket the kernel answers EFAULT. The descriptor is open while it is borrowed.
    let taken = unsafe { libc::recv(socket.as_raw_fd(), ptr::null_mut(), bytes, flags) };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

/// Lets the process that `command` will start be killed when the thread that starts it ends.
pub fn die_with_parent(command: &mut Command) {
    let bind = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor locks.
    unsafe { command.pre_exec(bind) };
}

#[cfg(test)]
mod tests;
