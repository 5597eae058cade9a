//! A library that changes, and the daemon that serves it meanwhile.
//!
//! Owns the directories, the daemon, and the question whether a torrent is served.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::leecher::{self, FAST, Leecher, PLAIN};
use crate::support::torrent::{Sample, TorrentBuilder};
use crate::support::wait_until;

/// How soon a change must be seen by peers.
pub(crate) const BAR: Duration = Duration::from_secs(2);

pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    directory: TempDir,
    wrapper: Vec<String>,
    arguments: Vec<String>,
}

/// The daemon for a directory, below another program.
fn command(directory: &Path, wrapper: &[String], arguments: &[String]) -> Command {
    let words = wrapper.iter().map(String::as_str);
    let mut words = words.chain([env!("CARGO_BIN_EXE_hekate")]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .args(["seed", "-v", "--bind", "127.0.0.1", "--port", "0"])
        .arg("--state-dir")
        .arg(directory.join("state"))
        // What is linked to lies beside the library.
        .arg("--content-root")
        .arg(directory)
        .args(arguments);
    if !arguments
        .iter()
        .any(|argument| argument == "--tracker-override")
    {
        command.arg("--no-tracker");
    }
    command
}

impl Scene {
    /// Directories `lib` and `away`, with what `prepare` makes of them, and a daemon that serves `lib`.
    pub(crate) fn new(prepare: impl FnOnce(&Path)) -> Self {
        Self::with(&[], prepare)
    }

    /// The same with further arguments.
    pub(crate) fn with(arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        Self::within(&[], arguments, prepare)
    }

    /// The same below another program, such as unshare(1), with its arguments.
    pub(crate) fn within(
        wrapper: &[&str],
        arguments: &[&str],
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let mut arguments = arguments.to_vec();
        arguments.push("{base}/lib");
        let scene = Self::bare(wrapper, &arguments, prepare);
        scene.until_watching();
        scene
    }

    /// The same with nothing to serve but what the arguments say, in which `{base}` is where the
    /// directories are.
    pub(crate) fn bare(wrapper: &[&str], arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["lib", "away"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        prepare(directory.path());
        let base = directory.path().to_str().unwrap();
        let texts = |words: &[&str]| {
            let words = words.iter().map(|word| word.replace("{base}", base));
            words.collect::<Vec<String>>()
        };
        let (wrapper, arguments) = (texts(wrapper), texts(arguments));
        Scene {
            daemon: Daemon::start(command(directory.path(), &wrapper, &arguments)),
            directory,
            wrapper,
            arguments,
        }
    }

    /// Kills the daemon and starts it again.
    pub(crate) fn restart(&mut self) {
        self.daemon.signal("KILL");
        self.daemon.wait();
        let command = command(self.directory.path(), &self.wrapper, &self.arguments);
        self.daemon = Daemon::start(command);
    }

    /// Waits until changes are noticed, which takes a while after the start.
    fn until_watching(&self) {
        let lib = self.path("lib");
        if lib.exists() {
            let marker = torrent(MARKER, &lib);
            wait_until(leecher::DEADLINE, "a change is noticed", || {
                self.is_served(&marker)
            });
        }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// A torrent with its content in a directory.
    pub(crate) fn torrent(&self, seed: u64, directory: &str) -> Sample {
        torrent(seed, &self.path(directory))
    }

    /// A torrent whose content is in `lib`, and whose metainfo file is not.
    pub(crate) fn torrent_apart(&self, seed: u64) -> Sample {
        let (away, lib) = (self.path("away"), self.path("lib"));
        builder(seed).write_apart(&away, &lib).unwrap()
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(crate) fn is_served(&self, sample: &Sample) -> bool {
        is_served(self.daemon.address, sample.info_hash)
    }

    /// Waits until it is served, and downloads some of it.
    pub(crate) fn until_served(&self, sample: &Sample) {
        self.until("served", || self.is_served(sample));
        self.assert_serves(sample);
    }

    /// Waits until it is refused.
    pub(crate) fn until_refused(&self, sample: &Sample) {
        self.until("refused", || !self.is_served(sample));
    }

    /// Waits for what must come to pass in time.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        wait_until(BAR, what, is_so);
    }

    /// A peer that is connected and unchoked.
    pub(crate) fn peer(&self, sample: &Sample) -> Leecher {
        let mut leecher = Leecher::connect(self.daemon.address, sample.info_hash, FAST);
        leecher.send(&leecher::interested());
        leecher.until_unchoked();
        leecher
    }

    pub(crate) fn assert_serves(&self, sample: &Sample) {
        let length = u32::try_from(sample.total_length.min(16 * 1024)).unwrap();
        let block = self.peer(sample).block(0, 0, length);
        assert!(block == sample.block(0, 0, length));
    }
}

/// The seed of a torrent that no test makes.
const MARKER: u64 = 1_000_000;

pub(crate) fn builder(seed: u64) -> TorrentBuilder {
    TorrentBuilder::new(seed).length(1000 + seed)
}

/// A torrent with its content in a directory.
pub(crate) fn torrent(seed: u64, directory: &Path) -> Sample {
    builder(seed).write(directory).unwrap()
}

/// Whether a handshake is answered.
pub(crate) fn is_served(address: SocketAddr, info_hash: [u8; 20]) -> bool {
    let mut stream = leecher::dial(address);
    let handshake = leecher::handshake(PLAIN, info_hash, b"-TE0000-abcdefghijkl");
    // The seeder may have gone before all of it is written.
    let _ = stream.write_all(&handshake);
    stream.read_exact(&mut [0; 68]).is_ok()
}
