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
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use support::daemon::Daemon;
use support::leecher::{FAST, Leecher};
use support::torrent::TorrentBuilder;

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
fn the_default_configuration_is_printed_and_is_right_once_it_names_a_directory() {
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
    assert_eq!(text(&checked.stdout), format!("{path}: right\n"));
}

#[test]
fn a_wrong_configuration_is_78_with_the_line_and_wrong_usage_is_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), "dirs = [\"/srv\"]\n\nmax-peer = 3\n");
    for command in ["config", "seed"] {
        let mut arguments = vec![command, "--config", &path];
        if command == "config" {
            arguments.push("--check");
        }
        let output = hekate(&arguments);
        assert_eq!(output.status.code(), Some(78));
        let told =
            format!("hekate: {path}:3: unknown key \"max-peer\"; did you mean \"max-peers\"?\n");
        assert_eq!(text(&output.stderr), told);
    }
    assert_eq!(hekate(&["seed", "--port", "x"]).status.code(), Some(2));
    assert_eq!(hekate(&["config"]).status.code(), Some(2));
}

#[test]
fn what_the_file_says_is_served() {
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

/// The whole log of a daemon that could not listen, so that it ends by itself.
fn log_of_a_failed_start(change: impl FnOnce(&mut Command)) -> (String, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rubbish.torrent"), "rubbish").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    // An address that no machine has as its own (RFC 5737).
    command
        .args(["seed", "--config", "/dev/null", "--bind", "192.0.2.1"])
        .arg(dir.path())
        .env_remove("RUST_LOG");
    change(&mut command);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    (text(&output.stderr), dir)
}

#[test]
fn each_line_of_the_log_has_a_time_a_level_and_a_component() {
    let (log, dir) = log_of_a_failed_start(|_| {});
    let line = log.lines().find(|line| line.contains("refused")).unwrap();
    let file = dir.path().join("rubbish.torrent");
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{line}");
    let expected = format!("WARN  library: refused: {}: ", file.display());
    assert!(rest.starts_with(&expected), "{line}");
}

#[test]
fn the_levels_of_components_are_obeyed() {
    let (log, _) = log_of_a_failed_start(|command| {
        command.args(["--log", "info,library=error"]);
    });
    assert!(
        !log.contains("refused") && log.contains("cannot listen"),
        "{log}"
    );
}

#[test]
fn the_journal_is_given_priorities_and_no_times() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stderr");
    let stderr = fs::File::create(&path).unwrap();
    let metadata = stderr.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    log_of_a_failed_start(|command| {
        command.env("JOURNAL_STREAM", stream).stderr(stderr);
    });
    let log = fs::read_to_string(path).unwrap();
    assert!(log.starts_with("<4>library: refused: "), "{log}");
    assert!(
        log.contains("\n<3>hekate: cannot listen on 192.0.2.1"),
        "{log}"
    );
    // Standard error that is no longer the journal's is no journal.
    let (log, _) = log_of_a_failed_start(|command| {
        command.env("JOURNAL_STREAM", "1:2");
    });
    assert!(!log.starts_with('<'), "{log}");
}
