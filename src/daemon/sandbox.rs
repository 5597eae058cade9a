//! The Landlock sandbox: which files and ports the daemon may use.
//!
//! Owns the list of places and the request to the kernel, which grants no way back. Threads that
//! are started later inherit it, so there must be no other thread yet. It must not know what is
//! read.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use thiserror::Error;

use crate::config::{Config, StatusAddress, StatusListen};
use crate::sys::process;

/// The rules are written for this version; an older kernel does what it can of them.
const WRITTEN_FOR: ABI = ABI::V6;

/// What a running daemon reads beside its library: name resolution, certificates, and figures of the
/// kernel. Directories rather than files, since programs replace files there.
const SYSTEM: &[&str] = &[
    "/etc",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/proc/self",
    "/proc/sys/fs",
    "/proc/sys/net",
    "/proc/sys/vm",
];

/// Variables that name certificates elsewhere.
const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Why there is no sandbox although it was asked for.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// It would not hold for all.
    #[error("{0} threads are already running")]
    Threads(usize),
    /// Threads could not be counted.
    #[error("cannot count the threads: {0}")]
    Io(#[from] io::Error),
    /// The kernel refuses the rules.
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
}

/// How much of the sandbox there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strength {
    /// All that was asked for.
    Whole,
    /// Not all: the kernel is older than the rules.
    Part,
    /// Nothing: the kernel has no Landlock.
    Nothing,
}

/// What may be reached. Whatever is not named, and not below a directory that is, may not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Places {
    /// Read.
    pub read: Vec<PathBuf>,
    /// Read and written, with all that is made there.
    pub write: Vec<PathBuf>,
    /// Where files are made and written, and not read: logs.
    pub append: Vec<PathBuf>,
    /// Where files are removed at the end.
    pub remove: Vec<PathBuf>,
    /// Where a disk may be mounted that could not be read, directly below the root.
    pub cannot_come: Vec<PathBuf>,
}

impl Places {
    /// What this configuration needs; `config_file` is where it came from, `library` where an index
    /// says that its library lies, and `state` where state is kept.
    #[must_use]
    pub fn of(
        config: &Config,
        config_file: &Path,
        library: &[PathBuf],
        state: Option<PathBuf>,
    ) -> Self {
        let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        let certificates = CERTIFICATE_VARIABLES.iter().filter_map(std::env::var_os);
        read.extend(certificates.map(PathBuf::from));
        let content = config
            .library
            .content
            .iter()
            .chain(&config.daemon.content_roots);
        let starts = config
            .library
            .dirs
            .iter()
            .chain(library)
            .chain(&config.library.root);
        let starts = starts.chain(content);
        let mut cannot_come = Vec::new();
        for point in starts.clone().flat_map(|start| mount_points(start)) {
            match point.parent().filter(|parent| !is_everything(parent)) {
                Some(parent) => read.push(parent.to_owned()),
                None => cannot_come.push(point),
            }
        }
        cannot_come.sort();
        cannot_come.dedup();
        read.extend(starts.cloned());
        // A reload may find another file in place of this one.
        read.extend(config.library.index.as_deref().map(around));
        read.push(around(config_file));
        let status = match &config.status.listen {
            StatusListen::At(StatusAddress::Unix(path)) => Some(path),
            _ => None,
        };
        let removed = config.daemon.pid_file.iter().chain(status);
        Self {
            read,
            write: state.into_iter().collect(),
            append: config.log.file.as_deref().map(around).into_iter().collect(),
            remove: removed.map(|path| around(path)).collect(),
            cannot_come,
        }
    }

    /// Whether a path may be read: it is below one of the places, wherever links lead. What is not
    /// there may be.
    #[must_use]
    pub fn may_read(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else {
            return true;
        };
        let places = self.read.iter().chain(&self.write);
        places
            .filter_map(|place| place.canonicalize().ok())
            .any(|place| path.starts_with(place))
    }

    /// Gives up everything else, for good: this thread, and all that it will start.
    ///
    /// # Errors
    /// A [`SandboxError`].
    pub fn enter(&self) -> Result<Strength, SandboxError> {
        match process::threads()? {
            1 => {}
            threads => return Err(SandboxError::Threads(threads)),
        }
        let all = AccessFs::from_all(WRITTEN_FOR);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let append = AccessFs::WriteFile | AccessFs::MakeReg;
        let rules = Ruleset::default()
            .handle_access(all)?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(&self.read, read))?
            .add_rules(path_beneath_rules(&self.write, all & !AccessFs::Execute))?
            .add_rules(path_beneath_rules(&self.append, append))?
            .add_rules(path_beneath_rules(&self.remove, AccessFs::RemoveFile))?
            // A connection to a tracker may begin at a given address, at any port of the system.
            .add_rule(NetPort::new(0, AccessNet::BindTcp))?;
        // Whether programs may give rights is not decided here.
        let restricted = rules.no_new_privs(false).restrict_self()?;
        Ok(match restricted.ruleset {
            RulesetStatus::FullyEnforced => Strength::Whole,
            RulesetStatus::PartiallyEnforced => Strength::Part,
            RulesetStatus::NotEnforced => Strength::Nothing,
        })
    }
}

/// Where disks come and go that `start` is, or lies, on: each place on its way where a file system is
/// mounted, and itself when it is empty or not there, as a mount point is without its disk.
///
/// Landlock goes by what is there now and by what it lies in. A rule for such a place would end with
/// its disk, so the directory around it has to be permitted. That cannot be done for what lies directly
/// below the root of the file system, as it would permit everything; of such places only `start` is
/// answered, since a partition for `/home` is rarely one that comes and goes.
fn mount_points(start: &Path) -> Vec<PathBuf> {
    let (there, missing) = way(start);
    let mut points = Vec::new();
    for (place, parent) in there.ancestors().zip(there.ancestors().skip(1)) {
        let is_start = missing.is_none() && place == there;
        if device(place) != device(parent) && (is_start || !is_everything(parent)) {
            points.push(place.to_owned());
        }
    }
    match missing {
        Some(name) => points.push(there.join(name)),
        None if is_empty(&there) && !points.contains(&there) => points.push(there),
        None => {}
    }
    points
}

/// How much of a path is there, without symlinks, and the first name of the rest.
fn way(path: &Path) -> (PathBuf, Option<OsString>) {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = None;
    for place in absolute.ancestors() {
        if let Ok(there) = place.canonicalize() {
            return (there, missing);
        }
        missing = place.file_name().map(OsStr::to_owned);
    }
    (absolute, missing)
}

fn device(path: &Path) -> Option<u64> {
    Some(path.metadata().ok()?.dev())
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn is_everything(path: &Path) -> bool {
    path.parent().is_none()
}

/// The directory of a file, where it may be replaced; of a device, only itself.
fn around(path: &Path) -> PathBuf {
    let kind = path.metadata().map(|metadata| metadata.file_type());
    if kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device()) {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_file_counts_and_of_a_device_itself() {
        assert_eq!(around(Path::new("/dev/null")), Path::new("/dev/null"));
        assert_eq!(around(Path::new("/no/such/file")), Path::new("/no/such"));
        assert_eq!(around(Path::new("index")), Path::new("."));
    }

    #[test]
    fn a_disk_may_be_mounted_where_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("full/of")).unwrap();
        // The directory for temporary files may be on a disk of its own.
        let around = mount_points(&base.join("full"));
        let points = |path: &str| {
            let mut points = mount_points(&base.join(path));
            points.retain(|point| !around.contains(point));
            points
        };
        assert_eq!(points("absent"), [base.join("absent")]);
        assert_eq!(points("absent/below/it"), [base.join("absent")]);
        assert_eq!(points("full/of"), [base.join("full/of")]);
        assert!(points("full").is_empty());
        assert_eq!(mount_points(Path::new("/proc")), [Path::new("/proc")]);
        assert!(!mount_points(Path::new("/proc/self/task")).contains(&"/proc".into()));
        let nowhere = mount_points(Path::new("/no/such/place"));
        assert_eq!(nowhere, [Path::new("/no")]);
    }

    /// Whatever a configuration may name has a directory of its own.
    fn places(base: &Path) -> Places {
        let at = |name: &str| {
            let path = base.join(name);
            std::fs::create_dir_all(path.join("disk")).unwrap();
            path.join("disk")
        };
        let mut config = Config::default();
        config.library.dirs = vec![at("dirs")];
        config.library.content = Some(at("content"));
        config.library.root = Some(at("root"));
        config.library.index = Some(at("index").join("file"));
        config.daemon.content_roots = vec![at("linked"), "/proc".into(), "/no/such".into()];
        config.daemon.pid_file = Some(at("run").join("pid"));
        config.log.file = Some(at("log").join("file"));
        config.status.listen = StatusListen::At(StatusAddress::Unix(at("status").join("socket")));
        let file = at("etc").join("hekate.toml");
        Places::of(&config, &file, &[at("library")], Some(at("state")))
    }

    #[test]
    fn the_library_and_its_content_are_read_and_never_written() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let places = places(&base);
        let disk = |name: &str| base.join(name).join("disk");
        for name in ["dirs", "content", "root", "linked", "library"] {
            assert!(places.read.contains(&disk(name)), "{name} cannot be read");
            // It is empty, so a disk may come.
            assert!(
                places.read.contains(&base.join(name)),
                "{name} is not awaited"
            );
        }
        for name in ["index", "etc"] {
            assert!(places.read.contains(&disk(name)), "{name} cannot be read");
            assert!(
                !places.read.contains(&base.join(name)),
                "{name} is no start"
            );
        }
        assert_eq!(places.write, [disk("state")]);
        assert_eq!(places.append, [disk("log")]);
        assert_eq!(places.remove, [disk("run"), disk("status")]);
    }

    #[test]
    fn a_disk_cannot_come_directly_below_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(&directory.path().canonicalize().unwrap());
        assert_eq!(places.cannot_come, [Path::new("/no"), Path::new("/proc")]);
        assert!(!places.read.contains(&"/".into()));
    }

    #[test]
    fn links_are_followed_before_a_path_is_judged() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let mut places = Places {
            read: vec![inside.clone()],
            ..Places::default()
        };
        assert!(places.may_read(&inside));
        assert!(!places.may_read(&inside.join("link")));
        places.read.push(outside);
        assert!(places.may_read(&inside.join("link")));
    }

    #[test]
    fn it_is_not_entered_when_it_would_not_hold_for_all() {
        let (begun, begins) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            begun.send(()).unwrap();
            ends.recv().ok();
        });
        begins.recv().unwrap();
        let refused = Places::default().enter().unwrap_err();
        assert!(matches!(refused, SandboxError::Threads(2..)));
        drop(end);
        other.join().unwrap();
    }
}
