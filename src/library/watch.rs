//! Telling what changes on disk below the roots of the library.
//!
//! Owns the inotify instance, the time to wait, and how changes are told. What a change means is the
//! library's. It blocks: a thread of its own waits in it.
//!
//! What inotify does not see, only a rescan finds: changes made by another machine to a network file
//! system; the target of a symlink that comes or changes outside the roots; a file that is written
//! in place under another of its hard links; and a metainfo file that is changed through a mapping or
//! by truncate(2) without being opened.

mod anchors;
mod batch;
mod follow;
mod mounts;
mod places;
#[cfg(test)]
mod tests;
mod way;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::Reader;
use rustix::io::Errno;

use follow::{Event, Follower};
use mounts::Mounts;

/// Directories that are watched at most: twice the directories of twenty million torrents, and
/// 250 MB of memory. The kernel's own bound is lower unless somebody has raised it.
const MAX_PLACES: usize = 4_000_000;

/// How long it rests after events were lost, when that has happened shortly before: watching anew takes
/// a walk over all directories, and what is told then a scan. It is twice as long each time.
const REST: Duration = Duration::from_secs(1);

/// Up to this.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Bytes of events that are read at once: some two thousand.
const BUFFER_BYTES: usize = 64 * 1024;

/// What is to be looked at again.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Files, and directories with all below them. Each may be new, changed or gone. They are
    /// absolute, start with a root without symlinks, and go through symlinks below it as a walk does.
    /// None lies below another.
    pub paths: Vec<PathBuf>,
    /// Something was missed, or cannot be watched: only a rescan will tell.
    pub everything: bool,
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.everything
    }
}

/// Watches all directories below some roots.
pub struct Watcher {
    follower: Follower,
    mounts: Option<Mounts>,
    wake: Arc<OwnedFd>,
    /// Events were lost.
    is_overflowed: bool,
    /// When watching may begin anew after events were lost, and how long it rests the next time.
    rest: (Instant, Duration),
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
    /// Watches directories, and files by themselves. They may be absent: then they are waited for.
    /// Of `anchors` only this is told, as everything: that such a directory comes, goes or is another,
    /// that it is empty no more, and that a file system is mounted or unmounted there or below.
    ///
    /// It walks over all directories and takes as long. What changed before it returned is not told,
    /// so that a scan has to begin after that.
    ///
    /// # Errors
    /// What `inotify_init1(2)` and eventfd(2) answer: `fs.inotify.max_user_instances` is 128 by default.
    pub fn new(roots: &[PathBuf], anchors: &[PathBuf]) -> io::Result<Self> {
        Self::with_bound(roots, anchors, MAX_PLACES)
    }

    fn with_bound(roots: &[PathBuf], anchors: &[PathBuf], bound: usize) -> io::Result<Self> {
        let absolute = |paths: &[PathBuf]| -> io::Result<Vec<PathBuf>> {
            paths.iter().map(std::path::absolute).collect()
        };
        let (roots, anchors) = (absolute(roots)?, absolute(anchors)?);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Watcher {
            follower: Follower::new(&roots, &anchors, bound)?,
            is_overflowed: false,
            rest: (Instant::now(), REST),
            // Without /proc it goes without.
            mounts: Mounts::open().ok(),
            wake: Arc::new(eventfd(0, flags)?),
        })
    }

    /// What wakes it.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// How many directories are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.follower.watched()
    }

    /// Waits for changes. They are told when there was none for 0.2 s, and 0.8 s after the first at
    /// the latest. The answer is empty after the time-out, which `None` stands for never, and when
    /// it was woken.
    ///
    /// # Errors
    /// What the kernel answers when it has no memory, or no instance for the watches that it had to
    /// drop. Nothing is lost by it: the next call tries again.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Changes> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let now = Instant::now();
            if self.is_overflowed && self.rest.0 <= now {
                self.follower.start_again()?;
                self.is_overflowed = false;
                self.rest_longer();
                continue;
            }
            let due = self.follower.batch.due();
            if due.is_some_and(|due| due <= now) {
                return Ok(self.follower.batch.take());
            }
            if until.is_some_and(|until| until <= now) {
                return Ok(Changes::default());
            }
            let again = self.is_overflowed.then_some(self.rest.0);
            let next = due.into_iter().chain(until).chain(again).min();
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

    /// The next time that events are lost it rests, unless that is long after this time.
    fn rest_longer(&mut self) {
        let now = Instant::now();
        let (before, pause) = self.rest;
        let pause = match now.saturating_duration_since(before) > LONGEST_REST {
            true => REST,
            false => pause,
        };
        self.rest = (now + pause, (pause * 2).min(LONGEST_REST));
    }

    fn poll(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut polled = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        // While it rests, what has changed is not asked for.
        if !self.is_overflowed {
            let events = self.follower.as_fd();
            polled.push(PollFd::from_borrowed_fd(events, PollFlags::IN));
            let mounts = self.mounts.as_ref().map(Mounts::as_fd);
            polled.extend(mounts.map(|mounts| PollFd::from_borrowed_fd(mounts, PollFlags::PRI)));
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
            // It counts, and a read sets it to zero.
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
        Ok(ready)
    }

    /// Handles as many events as one read answers.
    fn read(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(self.follower.as_fd(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => events.push(Event::from(&event)),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        if events.iter().any(Event::is_overflow) {
            log::info!("more changes at once than the system tells: all is looked at again");
            self.is_overflowed = true;
            return Ok(());
        }
        for event in &events {
            self.follower.handle(event);
        }
        self.follower.settle();
        Ok(())
    }
}

#[derive(Default)]
struct Ready {
    woken: bool,
    events: bool,
    mounts: bool,
}
