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
