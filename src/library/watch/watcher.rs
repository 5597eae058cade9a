//! The inotify instance, and the thread's one blocking call.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{ReadFlags, Reader};
use rustix::io::Errno;

use super::follow::Follower;
use super::pending::Changes;
use crate::mounts;

/// Directories that are watched at most: twice the directories of twenty million torrents, and
/// some 400 MB of memory. The kernel's own bound is lower unless somebody has raised it.
const NODES_MAX: usize = 4_000_000;

/// The first pause before a recrawl when another was made shortly before: a recrawl walks over all
/// directories, and makes the library scan all files. Each pause is twice the last.
const RECRAWL_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause before a recrawl.
const RECRAWL_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Bytes of events that are read at once: some two thousand.
const BUFFER_BYTES: usize = 64 * 1024;

/// Watches all directories below some roots.
pub struct Watcher {
    follower: Follower,
    /// The mount table.
    mounts: Option<File>,
    wake: Arc<OwnedFd>,
    /// Events were lost: a recrawl is due as soon as `recrawl_backoff` allows it.
    is_overflowed: bool,
    recrawl_backoff: RecrawlBackoff,
}

/// How soon the watcher may recrawl after the kernel has lost events.
struct RecrawlBackoff {
    not_before: Instant,
    /// The pause after the next recrawl.
    pause: Duration,
}

impl RecrawlBackoff {
    fn new(now: Instant) -> Self {
        RecrawlBackoff {
            not_before: now,
            pause: RECRAWL_PAUSE,
        }
    }

    /// A recrawl was made. The pause starts small again if the last one ended long ago.
    fn recrawled(&mut self, now: Instant) {
        if now.saturating_duration_since(self.not_before) > RECRAWL_PAUSE_MAX {
            self.pause = RECRAWL_PAUSE;
        }
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(RECRAWL_PAUSE_MAX);
    }
}

/// Ends a [`Watcher::wait`] from another thread, or the next one.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Wakes.
    pub fn wake(&self) {
        // It can only fail when it has been woken 2^64 times.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl Watcher {
    /// Watches `roots`, which are directories or single files. A root may be absent: the watcher
    /// waits for it. A presence root reports [`Changes::everything`], and only this: when it comes,
    /// goes or is replaced, when it is no longer empty, and when a file system is mounted or
    /// unmounted at or below it.
    ///
    /// This walks over all directories. A change made before it returns is not reported, so a scan
    /// has to start afterwards.
    ///
    /// # Errors
    /// Those of `inotify_init1(2)` and eventfd(2): `fs.inotify.max_user_instances` is 128 by default.
    pub fn new(roots: &[PathBuf], presence_roots: &[PathBuf]) -> io::Result<Self> {
        Self::with_bound(roots, presence_roots, NODES_MAX)
    }

    fn with_bound(roots: &[PathBuf], presence_roots: &[PathBuf], bound: usize) -> io::Result<Self> {
        let absolute = |paths: &[PathBuf]| -> io::Result<Vec<PathBuf>> {
            paths.iter().map(std::path::absolute).collect()
        };
        let (roots, presence_roots) = (absolute(roots)?, absolute(presence_roots)?);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Watcher {
            follower: Follower::new(&roots, &presence_roots, bound)?,
            is_overflowed: false,
            recrawl_backoff: RecrawlBackoff::new(Instant::now()),
            // Where /proc is not mounted, mounts are found by a rescan only.
            mounts: mounts::open().ok(),
            wake: Arc::new(eventfd(0, flags)?),
        })
    }

    /// The waker of this watcher.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// How many directories are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.follower.watched()
    }

    /// Waits for changes, until none has come for 0.2 s, but at most 0.8 s after the first. Returns
    /// no changes after the timeout (`None` is never) and when woken.
    ///
    /// # Errors
    /// Those of the kernel when it has no memory, or no inotify instance for a recrawl. The next call
    /// tries again, and no change is lost.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Changes> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let now = Instant::now();
            if self.is_overflowed && self.recrawl_backoff.not_before <= now {
                self.follower.recrawl()?;
                self.is_overflowed = false;
                self.recrawl_backoff.recrawled(Instant::now());
                continue;
            }
            let settled_at = self.follower.pending.settled_at();
            if settled_at.is_some_and(|settled_at| settled_at <= now) {
                return Ok(self.follower.pending.take());
            }
            if until.is_some_and(|until| until <= now) {
                return Ok(Changes::default());
            }
            let recrawl_at = self
                .is_overflowed
                .then_some(self.recrawl_backoff.not_before);
            let next = settled_at.into_iter().chain(until).chain(recrawl_at).min();
            let left = next.map(|next| next.saturating_duration_since(now));
            let ready = self.poll(left)?;
            if ready.woken {
                return Ok(Changes::default());
            }
            if self.is_overflowed {
                continue;
            }
            if ready.mounts {
                self.follower.handle_mounts();
            }
            if ready.events {
                self.read()?;
            }
        }
    }

    fn poll(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut polled = vec![PollFd::new(&self.wake, PollFlags::IN)];
        // After an overflow, events are not read until the recrawl.
        if !self.is_overflowed {
            polled.push(PollFd::new(self.follower.inotify(), PollFlags::IN));
            let mounts = self.mounts.iter();
            polled.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        }
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let mut ready = polled.iter().map(|polled| !polled.revents().is_empty());
        let ready = Ready {
            woken: ready.next().unwrap_or(false),
            events: ready.next().unwrap_or(false),
            mounts: ready.next().unwrap_or(false),
        };
        if ready.woken {
            // A read resets the counter of an eventfd.
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
        Ok(ready)
    }

    /// Handles as many events as one read answers.
    fn read(&mut self) -> io::Result<()> {
        let inotify = Arc::clone(self.follower.inotify());
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    log::info!("too many changes for the kernel to report: rescanning everything");
                    self.is_overflowed = true;
                    return Ok(());
                }
                Ok(event) => self.follower.handle(&event),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        self.follower.resolve_roots();
        Ok(())
    }
}

#[derive(Default)]
struct Ready {
    woken: bool,
    events: bool,
    mounts: bool,
}

#[cfg(test)]
mod tests;
