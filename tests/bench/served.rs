//! Measures a daemon that serves an index: how soon it answers, how fast, and what it holds.
//!
//! Owns the process and the stopwatch. What is asked for is the caller's.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hekate::wire::handshake;
use hekate::wire::message::{InfoHash, PeerId};

/// How long a start may take.
const START: Duration = Duration::from_secs(60);

/// How often a daemon that does not listen yet is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// A daemon that serves an index, and is killed with this.
pub(crate) struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    /// Starts one with such arguments and asks it for a torrent until it answers. Answers how long
    /// that took as well.
    pub(crate) fn start(
        arguments: &[impl AsRef<OsStr>],
        first: &InfoHash,
    ) -> io::Result<(Self, Duration)> {
        // A port that was free a moment ago.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let start = Instant::now();
        let child = Command::new(built("hekate")?)
            .args(["seed", "--config", "/dev/null", "--no-tracker"])
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let daemon = Daemon { child, address };
        while !daemon.ask(first).unwrap_or(false) {
            if start.elapsed() > START {
                return Err(io::Error::other("the daemon does not answer"));
            }
            thread::sleep(RETRY);
        }
        Ok((daemon, start.elapsed()))
    }

    /// Connects and says a handshake; answers whether one comes back.
    pub(crate) fn ask(&self, info_hash: &InfoHash) -> io::Result<bool> {
        let mut stream = TcpStream::connect(self.address)?;
        let ours = PeerId(*b"-BE0000-abcdefghijkl");
        stream.write_all(&handshake::encode(*info_hash, ours))?;
        let mut answer = [0; handshake::HANDSHAKE_LENGTH];
        match stream.read_exact(&mut answer) {
            Ok(()) => Ok(true),
            Err(error) if is_refusal(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that the kernel could not drop.
    pub(crate) fn anonymous_bytes(&self) -> io::Result<u64> {
        super::anonymous_bytes(&self.child.id().to_string())
    }

    /// Bytes that a disk has read for it.
    pub(crate) fn read_bytes(&self) -> io::Result<u64> {
        self.io("read_bytes: ")
    }

    /// Bytes that it has read from files, wherever they were.
    pub(crate) fn file_bytes(&self) -> io::Result<u64> {
        self.io("rchar: ")
    }

    fn io(&self, name: &str) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0))
    }
}

/// A program that was built with this one, beside the directory of the examples.
pub(crate) fn built(program: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let built = own.ancestors().nth(2).unwrap_or(Path::new("."));
    Ok(built.join(program))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | UnexpectedEof)
}
