//! What an administrator does with the daemon: configure it, ask it, signal it, read its log.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::daemon::Daemon;
use support::leecher::{self, FAST, Leecher, Seen};
use support::torrent::{Sample, TorrentBuilder};
use support::wait_until;

fn hekate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A configuration file in a directory, with its path as an argument.
fn write_config(dir: &Path, content: &str) -> String {
    let path = dir.join("hekate.toml");
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_printed_default_configuration_is_valid_once_it_names_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let printed = hekate(&["config", "--default"]);
    assert_eq!(printed.status.code(), Some(0));
    let default = text(&printed.stdout);
    let path = write_config(dir.path(), &default);
    let check = || hekate(&["config", "--check", "--config", &path]);
    let checked = check();
    assert_eq!(checked.status.code(), Some(78));
    assert!(text(&checked.stderr).contains("no directory to serve"));
    fs::write(&path, default.replace("#dirs = ", "dirs = ")).unwrap();
    let checked = check();
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert_eq!(text(&checked.stdout), format!("{path}: OK\n"));
}

#[test]
fn an_invalid_configuration_exits_with_78_and_names_the_line_and_wrong_usage_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), "dirs = [\"/srv\"]\n\nmax-peer = 3\n");
    for command in ["config", "seed"] {
        let mut arguments = vec![command, "--config", &path];
        if command == "config" {
            arguments.push("--check");
        }
        let output = hekate(&arguments);
        assert_eq!(output.status.code(), Some(78));
        let message =
            format!("hekate: {path}:3: unknown key \"max-peer\"; did you mean \"max-peers\"?\n");
        assert_eq!(text(&output.stderr), message);
    }
    assert_eq!(hekate(&["seed", "--port", "x"]).status.code(), Some(2));
    assert_eq!(hekate(&["config"]).status.code(), Some(2));
}

#[test]
fn directories_of_the_configuration_file_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(50).write(dir.path()).unwrap();
    let content = format!("dirs = [{:?}]\nport = 0\nbind = '127.0.0.1'\n", dir.path());
    let path = write_config(dir.path(), &content);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command.args(["seed", "--config", &path]);
    let daemon = Daemon::start(command);
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
}

#[test]
fn directories_on_the_command_line_replace_those_of_the_file() {
    let base = tempfile::tempdir().unwrap();
    let directory = |name: &str| base.path().join(name);
    let samples = ["a", "b", "c"].map(|name| {
        let seed = u64::from(name.as_bytes()[0]);
        TorrentBuilder::new(seed).write(&directory(name)).unwrap()
    });
    let index = directory("index");
    let index = index.to_str().unwrap();
    let made = hekate(&["index", directory("a").to_str().unwrap(), "-o", index]);
    assert!(made.status.success());
    let listed = |content: &str, arguments: &[&str]| {
        let path = write_config(base.path(), content);
        let mut all = vec!["seed", "--list", "--config", &path];
        all.extend(arguments);
        let output = hekate(&all);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let list = text(&output.stdout);
        let is_listed = |sample: &&Sample| list.contains(&sample.info_hash_hex());
        samples
            .iter()
            .map(|sample| is_listed(&sample))
            .collect::<Vec<_>>()
    };
    let b = directory("b");
    let an_index = format!("index = {index:?}\n");
    let dirs = format!("dirs = [{b:?}]\n");
    assert_eq!(listed(&an_index, &[]), [true, false, false]);
    let c = directory("c");
    let c = c.to_str().unwrap();
    assert_eq!(listed(&an_index, &[c]), [false, false, true]);
    assert_eq!(listed(&dirs, &["--index", index]), [true, false, false]);
}

#[test]
fn list_does_not_touch_the_log_file() {
    let dir = tempfile::tempdir().unwrap();
    TorrentBuilder::new(51).write(dir.path()).unwrap();
    let log = dir.path().join("log");
    let content = format!("dirs = [{:?}]\nlog-file = {log:?}\n", dir.path());
    let path = write_config(dir.path(), &content);
    let output = hekate(&["seed", "--list", "--config", &path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("1 valid, 0 refused\n"));
    assert!(!log.exists());
}

#[test]
fn a_failed_start_is_reported_at_every_log_level() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let log = dir.path().join("log");
    let (gone, log) = (gone.to_str().unwrap(), log.to_str().unwrap());
    let start = |levels: &str, further: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command.env_remove("RUST_LOG");
        command.args(["seed", "--config", "/dev/null", "--status", "off"]);
        command.args(["--bind", "127.0.0.1", "-p", "0", "--index", gone]);
        let output = command
            .args(["--log", levels])
            .args(further)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    for (levels, further) in [("off", &[][..]), ("off", &["--log-file", log])] {
        let message = start(levels, further);
        assert!(
            message.starts_with(&format!("hekate: index {gone}: ")),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    // What is said of one component leaves the others as they are.
    let message = start("storage=debug", &[]);
    let last = message.lines().last().unwrap();
    assert!(
        last.contains(" ERROR hekate: ") && last.contains(gone),
        "{message}"
    );
    assert!(message.contains(" INFO  reactor: "), "{message}");
}

#[test]
fn a_run_without_incidents_logs_its_start_and_stop_only() {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(52).write(dir.path()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command.args(["seed", "--bind", "127.0.0.1", "--port", "0", "--no-tracker"]);
    let mut daemon = Daemon::start({
        command.arg(dir.path());
        command
    });
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    assert_eq!(leecher.block(1, 0, 1024), sample.block(1, 0, 1024));
    drop(leecher);
    daemon.signal("TERM");
    daemon.wait_for_line("stopped: ");
    assert!(daemon.wait().success());
    let log = daemon.log();
    // Who runs it, and on which kernel, is said in its own words.
    let expected = [
        "reactor: ",
        "daemon: running as ",
        "daemon: sandbox: ",
        "reactor: serving 1 torrents to at most ",
        "reactor: listening on 127.0.0.1:",
        "reactor: stopping: ",
        "reactor: stopped: 1 peers accepted, 1 blocks and 1024 bytes sent",
    ];
    assert_eq!(log.lines().count(), expected.len(), "{log}");
    for (line, expected) in log.lines().zip(expected) {
        let (_, said) = line.split_at("2026-01-01T00:00:00Z INFO  ".len());
        assert!(said.starts_with(expected), "{expected} in:\n{log}");
    }
}

/// The log of a run until it listens; `change` is given the number of the stream it is written to.
fn log_of_a_run(change: impl FnOnce(&mut Command, String)) -> (String, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rubbish.torrent"), "rubbish").unwrap();
    let state = tempfile::tempdir().unwrap();
    let path = dir.path().join("stderr");
    let stderr = fs::File::create(&path).unwrap();
    let metadata = stderr.metadata().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command
        .args([
            "seed",
            "--config",
            "/dev/null",
            "--status",
            "off",
            "--bind",
            "127.0.0.1",
            "-p",
            "0",
        ])
        .arg(dir.path())
        .env("STATE_DIRECTORY", state.path())
        .env_remove("RUST_LOG")
        .stderr(stderr);
    change(
        &mut command,
        format!("{}:{}", metadata.dev(), metadata.ino()),
    );
    let mut child = command.spawn().unwrap();
    let log = || fs::read_to_string(&path).unwrap();
    wait_until(leecher::DEADLINE, "it listens", || {
        log().contains("listening on")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    (log(), dir)
}

#[test]
fn each_line_of_the_log_has_a_time_a_level_and_a_component() {
    let (log, dir) = log_of_a_run(|_, _| {});
    let line = log.lines().find(|line| line.contains("refused")).unwrap();
    let file = dir.path().join("rubbish.torrent");
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{line}");
    let expected = format!("WARN  library: refused: {}: ", file.display());
    assert!(rest.starts_with(&expected), "{line}");
}

#[test]
fn log_levels_of_components_apply() {
    let (log, _) = log_of_a_run(|command, _| {
        command.args(["--log", "info,library=error"]);
    });
    assert!(!log.contains("refused: "), "{log}");
}

#[test]
fn the_journal_gets_priorities_and_no_times() {
    let (log, _) = log_of_a_run(|command, stream| {
        command.env("JOURNAL_STREAM", stream);
    });
    assert!(log.starts_with('<'), "{log}");
    assert!(log.contains("\n<4>library: refused: "), "{log}");
    assert!(log.contains("\n<6>reactor: listening on "), "{log}");
    // Standard error that is no longer the journal's is no journal.
    let (log, _) = log_of_a_run(|command, _| {
        command.env("JOURNAL_STREAM", "1:2");
    });
    assert!(!log.starts_with('<'), "{log}");
}

/// Seeds what a configuration file in its own directory says.
struct Configured {
    daemon: Daemon,
    library: tempfile::TempDir,
    etc: tempfile::TempDir,
}

impl Configured {
    fn start(library: tempfile::TempDir, further: &str) -> Self {
        let etc = tempfile::tempdir().unwrap();
        let path = write_config(etc.path(), &Self::text(&library, further));
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command.args(["seed", "-v", "--config", &path]);
        let daemon = Daemon::start(command);
        Self {
            daemon,
            library,
            etc,
        }
    }

    fn text(library: &tempfile::TempDir, further: &str) -> String {
        let library = library.path();
        format!("dirs = [{library:?}]\nport = 0\nbind = '127.0.0.1'\n{further}\n")
    }

    /// Changes the file and reloads; answers the line that says what came of it.
    fn reload(&mut self, further: &str, answer: &str) -> String {
        write_config(self.etc.path(), &Self::text(&self.library, further));
        self.daemon.signal("HUP");
        self.daemon.wait_for_new_line(answer)
    }
}

#[test]
fn a_reload_serves_added_directories_and_drops_removed_ones() {
    let library = tempfile::tempdir().unwrap();
    let old = TorrentBuilder::new(60).write(library.path()).unwrap();
    let stays = TorrentBuilder::new(61).write(library.path()).unwrap();
    let mut scene = Configured::start(library, "");
    let address = scene.daemon.address;
    let mut leaves = Leecher::connect(address, old.info_hash, FAST);
    let mut remains = Leecher::connect(address, stays.info_hash, FAST);
    leaves.until_unchoked();
    remains.until_unchoked();

    let new = TorrentBuilder::new(62).write(scene.library.path()).unwrap();
    fs::remove_file(&old.metainfo_path).unwrap();
    fs::write(scene.library.path().join("x.torrent"), "rubbish").unwrap();
    let line = scene.reload("", "reloaded: ");
    assert!(
        line.ends_with("reloaded: 2 torrents, 2 before, 1 refused"),
        "{line}"
    );
    leaves.until_closed();
    scene
        .daemon
        .wait_for_line("was connected for a torrent that is no longer served");
    scene.daemon.wait_for_line("refused: ");
    Leecher::connect(address, new.info_hash, FAST).until_unchoked();
    assert_eq!(remains.block(0, 0, 1024), stays.block(0, 0, 1024));
}

#[test]
fn a_reload_of_an_invalid_configuration_keeps_the_old_one_and_logs_it() {
    let library = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(63).write(library.path()).unwrap();
    let mut scene = Configured::start(library, "");
    let line = scene.reload("max-peers = 0", "reload failed");
    assert!(
        line.contains("hekate.toml:4: max-peers: must be at least 1"),
        "{line}"
    );
    Leecher::connect(scene.daemon.address, sample.info_hash, FAST).until_unchoked();
}

#[test]
fn a_reload_changes_limits_and_levels_and_logs_what_needs_a_restart() {
    let library = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(64).write(library.path()).unwrap();
    let mut scene = Configured::start(library, "");
    scene.reload(
        "max-peers-per-ip = 1\nlog-file = '/nowhere/log'",
        "reloaded: ",
    );
    scene
        .daemon
        .wait_for_line("log-file has changed: restart to apply it");
    let address = scene.daemon.address;
    let mut first = Leecher::connect(address, sample.info_hash, FAST);
    first.until_unchoked();
    leecher::dial(address).read_to_end(&mut Vec::new()).ok();
    scene
        .daemon
        .wait_for_line("has too many connections from its address");
}

#[test]
fn sigusr1_reopens_the_log_file_without_losing_lines() {
    let dir = tempfile::tempdir().unwrap();
    let library = tempfile::tempdir().unwrap();
    TorrentBuilder::new(65).write(library.path()).unwrap();
    let (log, moved) = (dir.path().join("log"), dir.path().join("log.1"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args([
            "seed",
            "--config",
            "/dev/null",
            "--bind",
            "127.0.0.1",
            "-p",
            "0",
        ])
        .arg("--log-file")
        .arg(&log)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .arg(library.path())
        .spawn()
        .unwrap();
    let signal = |name: &str| {
        let pid = child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    };
    wait_until(leecher::DEADLINE, "it listens", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("listening on"))
    });
    fs::rename(&log, &moved).unwrap();
    signal("USR1");
    wait_until(leecher::DEADLINE, "the log is reopened", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("log file reopened"))
    });
    signal("TERM");
    assert!(child.wait().unwrap().success());
    let (new, old) = (
        fs::read_to_string(&log).unwrap(),
        fs::read_to_string(&moved).unwrap(),
    );
    assert!(
        new.lines().next().unwrap().ends_with("log file reopened"),
        "{new}"
    );
    assert!(new.contains("stopped: "), "{new}");
    assert!(
        old.lines().last().unwrap().contains("listening on"),
        "{old}"
    );
}

/// Connections that end at once; each is two lines of the log with `-v`, and a pipe holds 64 KiB.
const LOGGED_CONNECTIONS: usize = 1500;

#[test]
fn a_full_pipe_of_standard_error_stops_neither_the_loop_nor_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(66).write(dir.path()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "-v", "--config", "/dev/null", "--status", "off"])
        .args(["--bind", "127.0.0.1", "-p", "0"])
        .arg(dir.path())
        .env("STATE_DIRECTORY", state.path())
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        stderr.read_line(&mut line).unwrap();
        if let Some((_, address)) = line.split_once("listening on ") {
            break address.trim().parse().unwrap();
        }
    };
    for _ in 0..LOGGED_CONNECTIONS {
        let mut stream = leecher::dial(address);
        stream.write_all(&[0; 96]).unwrap();
        // An error when the daemon has closed it before it has read everything.
        stream.read_to_end(&mut Vec::new()).ok();
    }
    let mut leecher = Leecher::connect(address, sample.info_hash, FAST);
    leecher.send(&leecher::interested());
    leecher.until_unchoked();
    assert!(leecher.block(0, 0, 1024) == sample.block(0, 0, 1024));
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(status.unwrap().success());
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("stopping: "), "the pipe was not full");
}

/// Blocks of 16 KiB: more than the buffers of two sockets hold, and no more than may be queued.
const STOPPED_REQUESTS: u32 = 1900;

/// Waits until nothing more arrives: the sockets are full, and a block is begun.
fn wait_until_full(leecher: &Leecher) {
    let mut buffer = vec![0; 32 << 20];
    let (mut before, mut unchanged) = (0, 0);
    wait_until(leecher::DEADLINE, "nothing more arrives", || {
        let waiting = leecher.stream.peek(&mut buffer).unwrap();
        unchanged = if waiting == before { unchanged + 1 } else { 0 };
        before = waiting;
        unchanged >= 10
    });
}

/// A daemon with a peer that is in the middle of more than a socket holds; `change` is for its command.
fn in_the_middle(change: impl FnOnce(&mut Command)) -> (Daemon, Leecher, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let sample = TorrentBuilder::new(66)
        .length(64 << 20)
        .write(dir.path())
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command.args(["seed", "-v", "--bind", "127.0.0.1", "--port", "0"]);
    change(command.arg(dir.path()));
    let daemon = Daemon::start(command);
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    for index in 0..STOPPED_REQUESTS {
        leecher.send(&leecher::request(index, 0, sample.piece_length));
    }
    wait_until_full(&leecher);
    (daemon, leecher, dir)
}

/// The same, message to stop.
fn stop_in_the_middle() -> (Daemon, Leecher, tempfile::TempDir) {
    let (mut daemon, leecher, dir) = in_the_middle(|_| {});
    daemon.signal("TERM");
    daemon.wait_for_line("stopping: 1 peers are disconnected");
    (daemon, leecher, dir)
}

#[test]
fn a_stop_finishes_the_block_in_transit_and_answers_every_request() {
    let (mut daemon, mut leecher, _dir) = stop_in_the_middle();
    let (mut answers, mut choked) = (0, false);
    loop {
        match leecher.receive() {
            Seen::Piece { .. } | Seen::Reject { .. } => answers += 1,
            Seen::Choke => choked = true,
            Seen::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((answers, choked), (STOPPED_REQUESTS, true));
    assert!(daemon.wait().success());
}

#[test]
fn a_stopping_daemon_neither_reloads_nor_reports_ready() {
    let run = tempfile::tempdir().unwrap();
    let path = run.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let (mut daemon, leecher, _dir) = in_the_middle(|command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    // Both at once: the reload is under way when the stop begins.
    for signal in ["STOP", "HUP", "TERM", "CONT"] {
        daemon.signal(signal);
    }
    daemon.wait_for_line("stopping: 1 peers are disconnected");
    daemon.signal("HUP");
    daemon.wait_for_line("ignoring a reload while stopping");
    // The peer reads nothing more, so there is time enough for all that could be said.
    assert!(daemon.wait().success());
    drop(leecher);
    assert_eq!(daemon.count_lines("reactor: reloading"), 1);
    manager.set_nonblocking(true).unwrap();
    let mut said = Vec::new();
    let mut message = [0; 4096];
    while let Ok(length) = manager.recv(&mut message) {
        said.push(text(&message[..length]));
    }
    said.retain(|message| !message.starts_with("STATUS="));
    let words = ["READY=1\n", "RELOADING=1\n", "STOPPING=1"];
    let is_said = |(message, word): (&String, &str)| message.starts_with(word);
    assert!(
        said.len() == 3 && said.iter().zip(words).all(is_said),
        "{said:?}"
    );
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let (mut daemon, leecher, _dir) = stop_in_the_middle();
    // The peer reads nothing more, so the stop waits for it.
    daemon.signal("TERM");
    let begun = Instant::now();
    assert_eq!(daemon.wait().code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(leecher);
}
