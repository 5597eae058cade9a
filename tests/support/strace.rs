//! A daemon whose system calls fail or take long from some moment on, by strace.
//!
//! Owns attaching it and letting go. It must not know what a test wants of the daemon.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use super::daemon::Daemon;
use super::wait_until;

/// Longer than attaching takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// Starts `hekate seed` so that it can be traced later, also where only a parent may: a first strace
/// sees to that, and is let go.
pub(crate) fn seed(dir: &Path, arguments: &[&str]) -> Daemon {
    let mut command = Command::new("strace");
    command
        .args(["-D", "-I1", "-qq", "-o", "/dev/null", "-e", "trace=none"])
        .arg(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "-v", "--bind", "127.0.0.1", "--port", "0"])
        .args(arguments)
        .arg(dir);
    let daemon = Daemon::start(command);
    let pid = daemon.pid();
    terminate(tracer_of(pid));
    wait_until(DEADLINE, "strace lets go", || tracer_of(pid) == 0);
    daemon
}

/// Who traces a process; 0 is nobody.
fn tracer_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("TracerPid:"));
    line.unwrap().trim().parse().unwrap()
}

fn terminate(pid: u32) {
    let status = Command::new("kill").arg(pid.to_string()).status();
    assert!(status.unwrap().success());
}

/// A strace at work.
pub(crate) struct Injection {
    strace: Child,
    /// It has words for each thread, which are read by nobody.
    _said: BufReader<ChildStderr>,
}

impl Injection {
    /// From now on these calls of every thread go as `how` says, in strace's words.
    pub(crate) fn begin(daemon: &Daemon, calls: &str, how: &str) -> Self {
        Self::attach(daemon, &[], calls, how)
    }

    /// The same of calls that are about this file.
    pub(crate) fn begin_at(daemon: &Daemon, path: &Path, calls: &str, how: &str) -> Self {
        Self::attach(daemon, &["-P", path.to_str().unwrap()], calls, how)
    }

    fn attach(daemon: &Daemon, filter: &[&str], calls: &str, how: &str) -> Self {
        let mut strace = Command::new("strace")
            .args(filter)
            .args(["-f", "-I1", "-o", "/dev/null", "-e"])
            .arg(format!("trace={calls}"))
            .args(["-e", &format!("inject={calls}:{how}"), "-p"])
            .arg(daemon.pid().to_string())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is there, as `make test-deps` has it");
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains(" attached"), "{line}");
        Injection {
            strace,
            _said: said,
        }
    }

    /// Calls go as ever again.
    pub(crate) fn end(mut self) {
        terminate(self.strace.id());
        self.strace.wait().unwrap();
    }
}

impl Drop for Injection {
    /// A strace that holds a call back would hold back the end of the daemon too.
    fn drop(&mut self) {
        self.strace.kill().ok();
        self.strace.wait().ok();
    }
}
