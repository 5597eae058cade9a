//! How the daemon starts and what it gives up, seen from outside.
//!
//! Owns the tests of identity, sandbox, status socket, background, service manager and passed
//! sockets, with the real daemon. What needs root says so, and checks what can be checked without.
//! What can be tried from inside alone is in `tests/sandbox.rs`.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod background;
mod manager;
mod rights;
mod state;
mod status;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::torrent::{Sample, TorrentBuilder};
use tempfile::TempDir;

/// Longer than anything in these tests takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// A user that every Debian machine has, and that owns nothing.
const NOBODY: &str = "nobody";

/// Directories that everybody may read, and those for the daemon, which everybody may write.
struct Fixture {
    directory: TempDir,
    sample: Sample,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        set_mode(directory.path(), 0o755);
        let library = directory.path().join("library");
        fs::create_dir(&library).unwrap();
        let sample = TorrentBuilder::new(50).write(&library).unwrap();
        for name in ["state", "log", "run"] {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            set_mode(&path, 0o777);
        }
        Self { directory, sample }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `hekate seed` of the library, with its state here.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command.args(["seed", "--bind", "127.0.0.1", "--port", "0", "--no-tracker"]);
        command.arg("--state-dir").arg(self.path("state"));
        command.arg(self.path("library"));
        command
    }
}

/// The same command below strace, which does something to a system call.
fn traced(inner: &Command, injection: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-o", "/dev/null", "-e", injection]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The lines of `/proc/PID/task/*/status` that begin with one of these words, for each thread.
fn of_each_thread(pid: u32, word: &str) -> Vec<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let values = tasks.flatten().map(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(word));
        let line = line.unwrap_or_else(|| panic!("no {word} in {status}"));
        line.split_whitespace().map(str::to_owned).collect()
    });
    let values: Vec<Vec<String>> = values.collect();
    assert!(!values.is_empty());
    values
}
