//! Which disk a path lies on, told by the mount table: no disk is asked, so one that hangs holds nobody up.
//!
//! A *disk* is a mounted file system: a local one, one of another machine, or one of a program (FUSE). It is
//! named by its mount point. Work that may wait for one has a lane for each, see [`crate::workers`].

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::mounts;
use crate::torrent::printable::Printable;
use crate::workers::{Pool, QueueFull, Step};

/// A disk hangs if something takes longer on it and nothing else ends there meanwhile. A disk that was
/// asleep takes less to start, as a rule.
pub(crate) const HUNG_AFTER: Duration = Duration::from_secs(10);

/// Symlinks that are followed in one path, as the kernel does (`path_resolution(7)`).
const LINKS_MAX: u32 = 40;

/// A mounted file system.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk(Arc<Path>);

impl Disk {
    /// Where it is mounted.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable::path(&self.0).fmt(formatter)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Disk({self})")
    }
}

/// All disks, as the mount table was when it was last read. Clones share it.
#[derive(Clone, Debug)]
pub struct Disks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` without /proc.
    table: Option<File>,
    mount_points: RwLock<HashSet<Arc<Path>>>,
    /// What waits for a disk outside of a pool, and since when.
    visits: Mutex<BTreeMap<Disk, Instant>>,
}

impl Disks {
    /// Reads the mount table. Where there is none, everything is on one disk.
    #[must_use]
    pub fn read() -> Self {
        let disks = Disks(Arc::new(Shared {
            table: mounts::open().ok(),
            mount_points: RwLock::default(),
            visits: Mutex::default(),
        }));
        disks.update();
        disks
    }

    /// The mount table, which has an urgent event when it has changed.
    #[must_use]
    pub fn table(&self) -> Option<&File> {
        self.0.table.as_ref()
    }

    /// Reads the mount table again.
    pub fn update(&self) {
        let points = mounts::all().into_iter();
        let points = points.map(|mount| mount.point.into()).collect();
        let known = self.0.mount_points.write();
        *known.unwrap_or_else(PoisonError::into_inner) = points;
    }

    /// The disk of an absolute path whose directories are no symlinks.
    #[must_use]
    pub fn of(&self, path: &Path) -> Disk {
        let points = self.0.mount_points.read();
        let points = points.unwrap_or_else(PoisonError::into_inner);
        let found = path.ancestors().find_map(|above| points.get(above));
        Disk(found.map_or_else(|| Path::new("/").into(), Arc::clone))
    }

    /// Where something is mounted below this path.
    pub(crate) fn mounted_below(&self, path: &Path) -> Vec<PathBuf> {
        let points = self.0.mount_points.read();
        let points = points.unwrap_or_else(PoisonError::into_inner);
        let below = (points.iter()).filter(|point| point.starts_with(path) && ***point != *path);
        below.map(|point| point.to_path_buf()).collect()
    }

    /// Says that a thread of no pool is about to wait for a disk; `None` if another does.
    pub(crate) fn visit(&self, disk: &Disk) -> Option<Visit> {
        let mut visits = self.visits();
        if visits.contains_key(disk) {
            return None;
        }
        visits.insert(disk.clone(), Instant::now());
        Some(Visit {
            disks: self.clone(),
            disk: disk.clone(),
        })
    }

    /// The disks that visits have been waiting for, each with how long.
    pub(crate) fn visited(&self) -> Vec<(Disk, Duration)> {
        let visits = self.visits();
        let visits = visits.iter();
        visits
            .map(|(disk, since)| (disk.clone(), since.elapsed()))
            .collect()
    }

    fn visits(&self) -> MutexGuard<'_, BTreeMap<Disk, Instant>> {
        let visits = self.0.visits.lock();
        visits.unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the symlinks of a path as far as they are on this disk. Waits for no other.
    ///
    /// # Errors
    /// Those of readlink(2), but for a path that does not exist, which is returned as it is.
    pub fn follow(&self, path: &Path, on: &Disk) -> io::Result<Followed> {
        let mut rest: Vec<PathBuf> = parts(&std::path::absolute(path)?);
        let mut found = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == Path::new("..") {
                found.pop();
                continue;
            }
            found.push(&part);
            // What is above the mount point is on other disks, and was walked over to mount it.
            if on.0.starts_with(&found) && *on.0 != *found {
                continue;
            }
            if self.of(&found) != *on {
                found.extend(rest.iter().rev());
                return Ok(Followed::Leaves(found));
            }
            match fs::read_link(&found) {
                Ok(_) if links == LINKS_MAX => return Err(rustix::io::Errno::LOOP.into()),
                Ok(target) => {
                    links += 1;
                    found.pop();
                    found.push(&target);
                    found.extend(rest.iter().rev());
                    rest = parts(&found);
                    found = PathBuf::from("/");
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) if is_absence(&error) => {
                    found.extend(rest.iter().rev());
                    return Ok(Followed::Ends(found));
                }
                Err(error) => return Err(error),
            }
        }
        match self.of(&found) == *on {
            true => Ok(Followed::Ends(found)),
            false => Ok(Followed::Leaves(found)),
        }
    }

    /// Queues a job about what is at this path, in the lane of the disk that it is on, which is found out
    /// on the way. The work gets that disk, or an error if too much waits for it already.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        pool: &Pool<Disk, T>,
        path: PathBuf,
        work: impl FnOnce(Result<Disk, QueueFull>) -> Option<T> + Send + 'static,
    ) -> Result<(), QueueFull> {
        self.submit_step(pool, path, move |disk| Step::Done(work(disk)))
    }

    /// The same for a job that may go to other disks from there, unless it gets an error.
    pub(crate) fn submit_step<T: Send + 'static>(
        &self,
        pool: &Pool<Disk, T>,
        path: PathBuf,
        work: impl FnOnce(Result<Disk, QueueFull>) -> Step<Disk, T> + Send + 'static,
    ) -> Result<(), QueueFull> {
        let (disks, on) = (self.clone(), self.of(&path));
        pool.submit_step(&on.clone(), move || {
            disks.arrive(&path, on, LINKS_MAX, work)
        })
    }

    /// Goes on with a job that is in the lane of disk `from` in that of the disk that this path is on.
    pub(crate) fn go<T: 'static>(
        self,
        from: &Disk,
        path: PathBuf,
        work: impl FnOnce(Result<Disk, QueueFull>) -> Step<Disk, T> + Send + 'static,
    ) -> Step<Disk, T> {
        let on = self.of(&path);
        match on == *from {
            true => self.arrive(&path, on, LINKS_MAX, work),
            false => self.cross(path, on, LINKS_MAX, work),
        }
    }

    fn cross<T: 'static>(
        self,
        path: PathBuf,
        to: Disk,
        hops: u32,
        work: impl FnOnce(Result<Disk, QueueFull>) -> Step<Disk, T> + Send + 'static,
    ) -> Step<Disk, T> {
        let lane = to.clone();
        let arrive = move |room: Result<(), QueueFull>| match room {
            Ok(()) => self.arrive(&path, to, hops, work),
            Err(full) => work(Err(full)),
        };
        Step::Goes(lane, Box::new(arrive))
    }

    fn arrive<T: 'static>(
        self,
        path: &Path,
        on: Disk,
        hops: u32,
        work: impl FnOnce(Result<Disk, QueueFull>) -> Step<Disk, T> + Send + 'static,
    ) -> Step<Disk, T> {
        match self.follow(path, &on) {
            Ok(Followed::Leaves(path)) if hops > 0 => {
                let to = self.of(&path);
                self.cross(path, to, hops - 1, work)
            }
            // If something is wrong with the path, the work will find it too.
            Ok(_) | Err(_) => work(Ok(on)),
        }
    }
}

/// A thread waits for a disk, until this is dropped.
pub(crate) struct Visit {
    disks: Disks,
    disk: Disk,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.disks.visits().remove(&self.disk);
    }
}

/// Where the symlinks of a path lead, see [`Disks::follow`].
#[derive(Debug, PartialEq, Eq)]
pub enum Followed {
    /// To this path on the same disk.
    Ends(PathBuf),
    /// To another disk, where more symlinks may follow.
    Leaves(PathBuf),
}

/// The components of an absolute path, the last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let kept = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    let parts = path.components().rev().filter(kept);
    parts.map(|part| Path::new(&part).to_path_buf()).collect()
}

fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Disks with these mount points.
    fn disks(points: &[&Path]) -> Disks {
        let points = points.iter().map(|&point| point.into()).collect();
        Disks(Arc::new(Shared {
            table: None,
            mount_points: RwLock::new(points),
            visits: Mutex::default(),
        }))
    }

    #[test]
    fn a_path_is_on_the_disk_that_is_mounted_closest_above_it() {
        let disks = disks(&["/", "/mnt/a", "/mnt/a/b"].map(Path::new));
        let of = |path: &str| disks.of(Path::new(path)).to_string();
        assert_eq!(of("/mnt/a/b/c/d"), "/mnt/a/b");
        assert_eq!(of("/mnt/a/bc"), "/mnt/a");
        assert_eq!(of("/mnt/a"), "/mnt/a");
        assert_eq!(of("/mnt/ab"), "/");
        assert_eq!(of("relative"), "/");
        // The table of this machine.
        assert_eq!(
            Disks::read().of(Path::new("/proc/self")).to_string(),
            "/proc"
        );
    }

    #[test]
    fn symlinks_are_followed_until_they_leave_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let (a, b) = (base.join("a"), base.join("b"));
        fs::create_dir_all(a.join("x")).unwrap();
        fs::create_dir_all(b.join("y")).unwrap();
        symlink("../a/x", a.join("near")).unwrap();
        symlink("near", a.join("twice")).unwrap();
        symlink("../b/y", a.join("far")).unwrap();
        symlink("round", a.join("round")).unwrap();
        let disks = disks(&[Path::new("/"), &a, &b]);
        let disk = disks.of(&a);
        let follow = |path: &str| disks.follow(&a.join(path), &disk);
        assert_eq!(follow("x/f").unwrap(), Followed::Ends(a.join("x/f")));
        assert_eq!(follow("near/f").unwrap(), Followed::Ends(a.join("x/f")));
        assert_eq!(follow("twice").unwrap(), Followed::Ends(a.join("x")));
        assert_eq!(follow("gone/f").unwrap(), Followed::Ends(a.join("gone/f")));
        assert_eq!(
            follow("far/f/g").unwrap(),
            Followed::Leaves(b.join("y/f/g"))
        );
        let round = follow("round/f").unwrap_err();
        assert_eq!(round.raw_os_error(), Some(libc::ELOOP));
        // A path that lies elsewhere from the start.
        let elsewhere = disks.follow(&b.join("y"), &disk).unwrap();
        assert_eq!(elsewhere, Followed::Leaves(b.join("y")));
    }
}
