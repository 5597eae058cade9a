//! The real daemon as a child process, on a port of the system's choice.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::poll_until;

/// Longer than anything in these tests takes.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Daemon {
    child: Child,
    _state: tempfile::TempDir,
    lines: Receiver<String>,
    seen: Vec<String>,
    pub(crate) address: SocketAddr,
}

impl Daemon {
    /// Starts `hekate seed` on 127.0.0.1 and waits until it listens.
    pub(crate) fn seed(dir: &Path) -> Self {
        Self::seed_with(dir, &[] as &[&str])
    }

    /// The same with further arguments.
    pub(crate) fn seed_with(dir: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command
            .args(["seed", "-v", "--bind", "127.0.0.1", "--port", "0"])
            .args(arguments)
            .arg(dir);
        Self::start(command)
    }

    /// Starts a command that is `hekate seed` in some form and waits until it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        if !command.get_args().any(|argument| argument == "--config") {
            // What this machine is configured to serve is nothing to a test.
            command.args(["--config", "/dev/null"]);
        }
        if !command.get_args().any(|argument| argument == "--status") {
            // Many daemons run at the same time; a port of its own is for those who ask.
            command.args(["--status", "off"]);
        }
        let state = tempfile::tempdir().unwrap();
        if !command.get_args().any(|argument| argument == "--state-dir") {
            // Nothing is left behind in the home of whoever tests.
            command.env("STATE_DIRECTORY", state.path());
        }
        let mut child = command
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hekate starts");
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut daemon = Self {
            child,
            _state: state,
            lines,
            seen: Vec::new(),
            address,
        };
        let line = daemon.wait_for_line("listening on ");
        let (_, address) = line.split_once("listening on ").unwrap();
        daemon.address = address.trim().parse().expect("an address");
        daemon
    }

    /// Waits for a log line that contains `text`, among those before as well.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        self.wait_for_new_line(text)
    }

    /// Waits for a log line that contains `text`, among those that no one has waited for yet.
    pub(crate) fn wait_for_new_line(&mut self, text: &str) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {text:?} among:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// How many of the lines so far contain `text`.
    pub(crate) fn count_lines(&self, text: &str) -> usize {
        self.seen.iter().filter(|line| line.contains(text)).count()
    }

    /// All lines so far.
    pub(crate) fn log(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, as an administrator would.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Lets the process open nothing more: no number is left but those of the standard streams.
    pub(crate) fn leave_no_descriptor(&self) {
        self.limit_descriptors(3);
    }

    /// Changes how many descriptors the process may have.
    pub(crate) fn limit_descriptors(&self, limit: u32) {
        let status = Command::new("prlimit")
            .args(["--pid", &self.pid().to_string()])
            .arg(format!("--nofile={limit}:"))
            .status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        poll_until(DEADLINE, || {
            self.child.try_wait().unwrap().ok_or("hekate ends")
        })
    }

    /// Fails the test when the daemon has died.
    pub(crate) fn assert_alive(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "hekate has died");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
