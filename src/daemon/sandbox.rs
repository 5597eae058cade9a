//! The Landlock sandbox: which files and ports the daemon may use.
//!
//! The kernel grants no way back. Threads that are started later inherit the sandbox, so no other
//! thread may be running when it is entered.

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

/// The rules are written for this version; an older kernel enforces those that it knows.
const WRITTEN_FOR: ABI = ABI::V6;

/// What a running daemon reads beside its library: name resolution, certificates, and the kernel's
/// limits. Directories rather than files, since programs replace files there.
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

/// Environment variables that name other certificates.
const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Why the sandbox could not be entered.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// It would not apply to threads that are already running.
    #[error("{0} threads are already running")]
    Threads(usize),
    /// The threads could not be counted.
    #[error("cannot count the threads: {0}")]
    Io(#[from] io::Error),
    /// The kernel refuses the rules.
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
}

/// The paths that the sandbox allows, each with everything below it. All others are denied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllowedPaths {
    /// Read.
    pub read: Vec<PathBuf>,
    /// Read and written, with all that is created there.
    pub write: Vec<PathBuf>,
    /// Directories where files are created and written, and not read: logs.
    pub append: Vec<PathBuf>,
    /// Directories where files are removed at the end.
    pub remove: Vec<PathBuf>,
    /// Mount points directly below the root: a disk mounted there later is denied.
    pub fixed_mounts: Vec<PathBuf>,
}

impl AllowedPaths {
    /// What this configuration needs: also its own file, the directories that an index names as its
    /// `library`, and the directory of the `state`.
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
        read.extend(config.trackers.certificates.clone());
        let dirs = config.library.dirs.iter().chain(library);
        let starts = dirs
            .chain(&config.library.root)
            .chain(&config.library.content)
            .chain(
                config
                    .library
                    .content_for
                    .iter()
                    .map(|(_, content)| content),
            )
            .chain(&config.library.content_roots);
        let mut fixed_mounts = Vec::new();
        for point in starts.clone().flat_map(|start| mount_points(start)) {
            match point.parent().filter(|parent| !is_root(parent)) {
                Some(parent) => read.push(parent.to_owned()),
                None => fixed_mounts.push(point),
            }
        }
        fixed_mounts.sort();
        fixed_mounts.dedup();
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
            fixed_mounts,
        }
    }

    /// Returns true if a path may be read after symlinks are resolved, or does not exist.
    #[must_use]
    pub fn may_read(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else {
            return true;
        };
        let allowed = self.read.iter().chain(&self.write);
        allowed
            .filter_map(|allowed| allowed.canonicalize().ok())
            .any(|allowed| path.starts_with(allowed))
    }

    /// Denies everything else, for good, to this thread and those that it will start. Returns how much
    /// of that the kernel enforces.
    ///
    /// # Errors
    /// A [`SandboxError`].
    pub fn enter(&self) -> Result<RulesetStatus, SandboxError> {
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
            // A connection to a tracker may be bound to a given address, at a port that the system chooses.
            .add_rule(NetPort::new(0, AccessNet::BindTcp))?;
        // no_new_privs is an option of its own.
        let restricted = rules.no_new_privs(false).restrict_self()?;
        Ok(restricted.ruleset)
    }
}

/// The mount points at and above `start`, and `start` itself if it is empty or missing, as a mount
/// point is without its disk.
///
/// A Landlock rule applies to an inode. A rule for a mount point would go with its disk, so the parent
/// directory has to be allowed. That is impossible directly below the root, as it would allow
/// everything; of these mount points only `start` is returned, since a partition for `/home` rarely
/// comes and goes.
fn mount_points(start: &Path) -> Vec<PathBuf> {
    let (existing, missing) = resolve(start);
    let mut points = Vec::new();
    for (path, parent) in existing.ancestors().zip(existing.ancestors().skip(1)) {
        let is_start = missing.is_none() && path == existing;
        if device(path) != device(parent) && (is_start || !is_root(parent)) {
            points.push(path.to_owned());
        }
    }
    match missing {
        Some(name) => points.push(existing.join(name)),
        None if is_empty(&existing) && !points.contains(&existing) => points.push(existing),
        None => {}
    }
    points
}

/// The part of a path that exists, without symlinks, and the first name of the rest.
fn resolve(path: &Path) -> (PathBuf, Option<OsString>) {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = None;
    for path in absolute.ancestors() {
        if let Ok(existing) = path.canonicalize() {
            return (existing, missing);
        }
        missing = path.file_name().map(OsStr::to_owned);
    }
    (absolute, missing)
}

fn device(path: &Path) -> Option<u64> {
    Some(path.metadata().ok()?.dev())
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}

/// The directory of a file, so that the file may be replaced; a device itself.
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
    fn an_empty_or_missing_directory_is_a_mount_point() {
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
    fn allowed(base: &Path) -> AllowedPaths {
        let at = |name: &str| {
            let path = base.join(name);
            std::fs::create_dir_all(path.join("disk")).unwrap();
            path.join("disk")
        };
        let mut config = Config::default();
        config.library.dirs = vec![at("dirs")];
        config.library.content = vec![at("content"), at("content-2")];
        config.library.content_for = vec![("/lib".into(), at("content-for"))];
        config.library.root = Some(at("root"));
        config.library.index = Some(at("index").join("file"));
        config.library.content_roots = vec![at("linked"), "/proc".into(), "/no/such".into()];
        config.daemon.pid_file = Some(at("run").join("pid"));
        config.log.file = Some(at("log").join("file"));
        config.status.listen = StatusListen::At(StatusAddress::Unix(at("status").join("socket")));
        let file = at("etc").join("hekate.toml");
        AllowedPaths::of(&config, &file, &[at("library")], Some(at("state")))
    }

    #[test]
    fn the_library_and_its_content_are_read_and_never_written() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let allowed = allowed(&base);
        let disk = |name: &str| base.join(name).join("disk");
        for name in [
            "dirs",
            "content",
            "content-2",
            "content-for",
            "root",
            "linked",
            "library",
        ] {
            assert!(allowed.read.contains(&disk(name)), "{name} cannot be read");
            // It is empty, so a disk may come.
            assert!(
                allowed.read.contains(&base.join(name)),
                "{name} is not awaited"
            );
        }
        for name in ["index", "etc"] {
            assert!(allowed.read.contains(&disk(name)), "{name} cannot be read");
            assert!(
                !allowed.read.contains(&base.join(name)),
                "{name} is no start"
            );
        }
        assert_eq!(allowed.write, [disk("state")]);
        assert_eq!(allowed.append, [disk("log")]);
        assert_eq!(allowed.remove, [disk("run"), disk("status")]);
    }

    #[test]
    fn a_disk_fixed_mounts_directly_below_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let allowed = allowed(&directory.path().canonicalize().unwrap());
        assert_eq!(allowed.fixed_mounts, [Path::new("/no"), Path::new("/proc")]);
        assert!(!allowed.read.contains(&"/".into()));
    }

    #[test]
    fn links_are_followed_before_a_path_is_judged() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let mut allowed = AllowedPaths {
            read: vec![inside.clone()],
            ..AllowedPaths::default()
        };
        assert!(allowed.may_read(&inside));
        assert!(!allowed.may_read(&inside.join("link")));
        allowed.read.push(outside);
        assert!(allowed.may_read(&inside.join("link")));
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
        let refused = AllowedPaths::default().enter().unwrap_err();
        assert!(matches!(refused, SandboxError::Threads(2..)));
        drop(end);
        other.join().unwrap();
    }
}
