//! Which of the directories that are to be searched hang.
//!
//! Each disk is asked by a thread of its own, and waited for no longer than a disk may take.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use crate::disks::{Disk, Disks, Followed, HUNG_AFTER};
use crate::workers;

/// What was found out about paths and the disks that they are on.
#[derive(Clone, Default, Debug)]
pub(in crate::library) struct Probed {
    /// The disk of each path, as far as it could be found out.
    disks: BTreeMap<PathBuf, Disk>,
    /// The paths that hang. Symlinks on disks that do not are resolved.
    hung: BTreeMap<PathBuf, PathBuf>,
    /// The same, and mount points below paths that hang.
    hung_directories: Arc<BTreeSet<PathBuf>>,
}

/// A probe of one disk is under way.
const ASKED: u8 = 0;
/// It has ended.
const ANSWERED: u8 = 1;
/// Nobody waits for it any more.
const ABANDONED: u8 = 2;

/// A path to be probed, and the number of the path that was given if this is where it leads; `None` for a mount
/// point below one.
type Asked = (Option<usize>, PathBuf);

/// What a disk has said about the paths that it was asked for.
type Answer = (Disk, Vec<(Option<usize>, Followed)>);

impl Probed {
    /// Asks the disks of these paths, and those that are mounted below them, all at the same time. When one
    /// that hangs answers after all, `returned` is called.
    pub(in crate::library) fn new(
        disks: &Disks,
        paths: &[PathBuf],
        returned: impl Fn() + Clone + Send + 'static,
    ) -> Self {
        let mut probed = Probed::default();
        let until = Instant::now() + HUNG_AFTER;
        let (sender, answers) = channel();
        let mut wanted: Vec<Asked> = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            wanted.push((Some(number), absolute));
        }
        let mut mount_points: BTreeSet<PathBuf> = BTreeSet::new();
        let mut under_way: BTreeMap<Disk, (Arc<AtomicU8>, Vec<Asked>)> = BTreeMap::new();
        let mut hung: Vec<Asked> = Vec::new();
        loop {
            let mut by_disk: BTreeMap<Disk, Vec<Asked>> = BTreeMap::new();
            for asked in wanted.drain(..) {
                by_disk.entry(disks.of(&asked.1)).or_default().push(asked);
            }
            for (disk, asked) in by_disk {
                if under_way.contains_key(&disk) {
                    // It is asked for these when it has answered.
                    wanted.extend(asked);
                    continue;
                }
                match start(disks, &disk, &asked, &sender, returned.clone()) {
                    Ok(Some(state)) => drop(under_way.insert(disk, (state, asked))),
                    // An earlier probe of it is still under way.
                    Ok(None) => hung.extend(asked),
                    Err(error) => log::warn!("cannot find out whether {disk} hangs: {error}"),
                }
            }
            if under_way.is_empty() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Ok((disk, answers)) = answers.recv_timeout(left) else {
                break;
            };
            under_way.remove(&disk);
            for (number, followed) in answers {
                match followed {
                    Followed::Leaves(path) => wanted.push((number, path)),
                    Followed::Ends(real) => {
                        if let Some(path) = number.and_then(|number| paths.get(number)) {
                            probed.disks.insert(path.clone(), disk.clone());
                            for point in disks.mounted_below(&real) {
                                if mount_points.insert(point.clone()) {
                                    wanted.push((None, point));
                                }
                            }
                        }
                    }
                }
            }
        }
        for (state, asked) in under_way.into_values() {
            if state.swap(ABANDONED, SeqCst) == ANSWERED {
                // It has answered just now, and its thread does not know that nobody waits any more.
                returned();
            }
            hung.extend(asked);
        }
        let mut directories = BTreeSet::new();
        for (number, path) in hung.into_iter().chain(wanted) {
            if let Some(given) = number.and_then(|number| paths.get(number)) {
                probed.disks.insert(given.clone(), disks.of(&path));
                probed.hung.insert(given.clone(), path.clone());
            }
            directories.insert(path);
        }
        probed.hung_directories = Arc::new(directories);
        probed
    }

    /// Where a path that was probed hangs, if it does.
    pub(in crate::library) fn hung(&self, path: &Path) -> Option<&Path> {
        self.hung.get(path).map(PathBuf::as_path)
    }

    /// The directories that must not be entered.
    pub(in crate::library) fn hung_directories(&self) -> &Arc<BTreeSet<PathBuf>> {
        &self.hung_directories
    }

    /// The disk of a path that was probed.
    pub(in crate::library) fn disk(&self, path: &Path) -> Option<&Disk> {
        self.disks.get(path)
    }
}

/// Starts a thread that asks a disk for these paths. `None` if one is under way.
fn start(
    disks: &Disks,
    disk: &Disk,
    asked: &[Asked],
    answers: &Sender<Answer>,
    returned: impl Fn() + Send + 'static,
) -> io::Result<Option<Arc<AtomicU8>>> {
    let Some(visit) = disks.visit(disk) else {
        return Ok(None);
    };
    let state = Arc::new(AtomicU8::new(ASKED));
    let (ours, disks, disk) = (Arc::clone(&state), disks.clone(), disk.clone());
    let (asked, answers) = (asked.to_vec(), answers.clone());
    workers::spawn("probe", move || {
        let followed = asked.into_iter().map(|(number, path)| {
            let followed = disks.follow(&path, &disk);
            // What is wrong with the path, the search finds too.
            let followed = followed.unwrap_or(Followed::Ends(path));
            if let Followed::Ends(real) = &followed {
                ask(real);
            }
            (number, followed)
        });
        let followed = followed.collect();
        drop(visit);
        // If nobody waits any more, `returned` tells.
        let _ = answers.send((disk, followed));
        if ours.swap(ANSWERED, SeqCst) == ABANDONED {
            returned();
        }
    })?;
    Ok(Some(state))
}

/// Asks a disk for something that the kernel does not answer from memory for a file server or a FUSE program.
/// For a local disk it may.
fn ask(path: &Path) {
    let _ = rustix::fs::statfs(path);
    if let Ok(mut entries) = path.read_dir() {
        let _ = entries.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_disk_that_is_still_asked_hangs_and_symlinks_lead_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        symlink("/proc/self", base.join("link")).unwrap();
        let disks = Disks::read();
        let paths = [base.clone(), base.join("link"), base.join("gone")];
        let fine = Probed::new(&disks, &paths, || panic!("nothing hangs"));
        assert!(paths.iter().all(|path| fine.hung(path).is_none()));
        assert_eq!(fine.disk(&paths[0]), Some(&disks.of(&base)));

        let proc = disks.of(Path::new("/proc/self"));
        let visit = disks.visit(&proc).unwrap();
        let hung = Probed::new(&disks, &paths, || ());
        assert_eq!(hung.hung(&paths[0]), None);
        let found = hung.hung(&paths[1]).unwrap();
        assert!(found.starts_with("/proc"), "{found:?}");
        let directories = hung.hung_directories();
        assert!(directories.contains(found) && !directories.contains(&base));
        assert_eq!(hung.disk(&paths[1]), Some(&proc));

        // What is mounted below a directory is asked too, and left out by itself.
        let root = PathBuf::from("/");
        let below = Probed::new(&disks, std::slice::from_ref(&root), || ());
        assert_eq!(below.hung(&root), None);
        let directories = below.hung_directories();
        assert!(directories.contains(Path::new("/proc")) && !directories.contains(&base));
        drop(visit);
    }
}
