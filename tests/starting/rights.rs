//! Who the daemon is, and what the kernel refuses it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::unistd::{Group, User};

use super::support::daemon::Daemon;
use super::support::leecher::{FAST, Leecher};
use super::support::torrent::TorrentBuilder;
use super::{DEADLINE, Fixture, NOBODY, is_root, of_each_thread, set_mode};
use crate::support::wait_until;

const CAPABILITIES: [&str; 5] = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];

/// The number of a user in the user database.
fn number_of(name: &str) -> (String, String) {
    let user = User::from_name(name).unwrap().unwrap();
    (user.uid.to_string(), user.gid.to_string())
}

#[test]
fn root_becomes_the_user_irrevocably_in_every_thread() {
    let fixture = Fixture::new();
    let mut command = fixture.command();
    if !is_root() {
        eprintln!("not root: only that nobody else can be become is checked");
        command.args(["--user", "root", "--config", "/dev/null"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output, "hekate: user: only root can become user \"root\"\n");
        return;
    }
    command.args(["--user", NOBODY]);
    let mut daemon = Daemon::start(command);
    let (user, group) = number_of(NOBODY);
    let line = format!("running as user nobody ({user}), group {group}, without capabilities");
    daemon.wait_for_line(&line);
    // A reader thread has been there as well.
    let mut leecher = Leecher::connect(daemon.address, fixture.sample.info_hash, FAST);
    leecher.until_unchoked();
    leecher.block(0, 0, 16 * 1024);
    let threads = of_each_thread(daemon.pid(), "Uid:");
    assert!(threads.len() > 1, "the daemon has no threads to look at");
    let four = |number: &String| vec![number.clone(); 4];
    for found in threads {
        assert_eq!(found, four(&user));
    }
    for found in of_each_thread(daemon.pid(), "Gid:") {
        assert_eq!(found, four(&group));
    }
    for found in of_each_thread(daemon.pid(), "Groups:") {
        assert_eq!(found, std::slice::from_ref(&group));
    }
    for set in CAPABILITIES {
        for found in of_each_thread(daemon.pid(), set) {
            assert_eq!(found, ["0000000000000000"], "{set}");
        }
    }
    for found in of_each_thread(daemon.pid(), "NoNewPrivs:") {
        assert_eq!(found, ["1"]);
    }
}

#[test]
fn running_as_root_is_warned_about_and_no_new_privs_can_be_disabled() {
    let fixture = Fixture::new();
    let mut command = fixture.command();
    command.arg("--allow-new-privs");
    let mut daemon = Daemon::start(command);
    for found in of_each_thread(daemon.pid(), "NoNewPrivs:") {
        assert_eq!(found, ["0"]);
    }
    if is_root() {
        let line = daemon.wait_for_line("running as user root");
        assert!(line.contains("WARN") && line.contains("--user"), "{line}");
        // Root may enter the sandbox without.
        daemon.wait_for_line("sandbox: active");
    } else {
        daemon.wait_for_line("without capabilities");
        daemon.wait_for_line("sandbox: not active: it needs no_new_privs");
    }
}

#[test]
fn a_separate_group_can_be_set_and_is_the_only_group() {
    if !is_root() {
        eprintln!("not root: nothing can be checked here that is not by the other tests");
        return;
    }
    let fixture = Fixture::new();
    let mut command = fixture.command();
    command.args(["--user", "nobody:daemon"]);
    let daemon = Daemon::start(command);
    let group = Group::from_name("daemon").unwrap().unwrap().gid;
    for found in of_each_thread(daemon.pid(), "Gid:") {
        assert_eq!(found, vec![group.to_string(); 4]);
    }
}

#[test]
fn links_out_of_the_library_are_refused_unless_the_target_is_named_or_the_sandbox_is_off() {
    let fixture = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    let other = TorrentBuilder::new(51)
        .name("other")
        .write(outside.path())
        .unwrap();
    symlink(outside.path(), fixture.path("library/link")).unwrap();
    let mut daemon = Daemon::start(fixture.command());
    daemon.wait_for_line("sandbox: active");
    let line = daemon.wait_for_line("the sandbox refuses it, see --content-root");
    assert!(line.contains("/link"), "{line}");
    daemon.wait_for_line("serving 1 torrents");
    drop(daemon);
    let named = outside.path().to_str().unwrap().to_owned();
    for more in [&["--content-root", &named][..], &["--no-landlock"]] {
        fs::remove_dir_all(fixture.path("state")).unwrap();
        let mut command = fixture.command();
        command.args(more);
        let mut daemon = Daemon::start(command);
        daemon.wait_for_line("serving 2 torrents");
        let mut leecher = Leecher::connect(daemon.address, other.info_hash, FAST);
        leecher.until_unchoked();
        assert_eq!(leecher.block(0, 0, 16 * 1024), other.block(0, 0, 16 * 1024));
        if more == ["--no-landlock"] {
            daemon.wait_for_line("sandbox: disabled by the configuration");
        }
    }
}

#[test]
fn a_reload_after_dropping_privileges_keeps_what_is_valid() {
    let fixture = Fixture::new();
    let elsewhere = tempfile::tempdir().unwrap();
    set_mode(elsewhere.path(), 0o755);
    fs::create_dir(fixture.path("etc")).unwrap();
    set_mode(&fixture.path("etc"), 0o755);
    let file = fixture.path("etc/hekate.toml");
    let library = fixture.path("library");
    let write = |dirs: &str, more: &str| {
        fs::write(
            &file,
            format!("dirs = [{dirs}]\nport = 0\nbind = '127.0.0.1'\n{more}"),
        )
        .unwrap();
        set_mode(&file, 0o644);
    };
    let own = format!("{library:?}");
    write(&own, "");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command
        .args(["seed", "--no-tracker", "--config"])
        .arg(&file);
    command.arg("--state-dir").arg(fixture.path("state"));
    if is_root() {
        command.args(["--user", NOBODY]);
    }
    let mut daemon = Daemon::start(command);

    write(&own, "rubbish = 1\n");
    daemon.signal("HUP");
    let line = daemon.wait_for_new_line("reload failed, keeping the old configuration");
    assert!(line.contains("unknown key \"rubbish\""), "{line}");
    // Another file under the same name, which only root may read: the daemon is nobody, or owns it.
    if is_root() {
        fs::write(fixture.path("etc/new"), "").unwrap();
        set_mode(&fixture.path("etc/new"), 0o600);
        fs::rename(fixture.path("etc/new"), &file).unwrap();
        daemon.signal("HUP");
        let line = daemon.wait_for_new_line("reload failed, keeping the old configuration");
        assert!(line.contains("Permission denied"), "{line}");
    }
    write(&format!("{own}, {:?}", elsewhere.path()), "");
    daemon.signal("HUP");
    let line = daemon.wait_for_new_line("is outside the sandbox: restart to allow it");
    assert!(line.contains(elsewhere.path().to_str().unwrap()), "{line}");
    let mut leecher = Leecher::connect(daemon.address, fixture.sample.info_hash, FAST);
    leecher.until_unchoked();
}

#[test]
fn the_log_file_belongs_to_the_user_and_can_be_reopened() {
    let fixture = Fixture::new();
    let log = fixture.path("log/hekate.log");
    let mut command = fixture.command();
    command.arg("--log-file").arg(&log);
    command.args(["--config", "/dev/null", "--status", "off"]);
    if is_root() {
        command.args(["--user", NOBODY]);
    }
    let mut child = command.spawn().unwrap();
    let has = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    wait_until(DEADLINE, "it listens", || has("listening on"));
    fs::rename(&log, fixture.path("log/old")).unwrap();
    let number = child.id().to_string();
    let kill = |signal: &str| {
        let killed = Command::new("kill").args(["-s", signal, &number]).status();
        assert!(killed.unwrap().success());
    };
    kill("USR1");
    wait_until(DEADLINE, "the log is reopened", || has("log file reopened"));
    kill("TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    if is_root() {
        use std::os::unix::fs::MetadataExt;
        let owner = fs::metadata(&log).unwrap().uid().to_string();
        assert_eq!(owner, number_of(NOBODY).0);
    }
}

/// Calls about a path that change nothing.
const LOOKS: [&str; 13] = [
    "open",
    "openat",
    "execve",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "statfs",
    "access",
    "faccessat2",
    "readlink",
    "readlinkat",
    "inotify_add_watch",
];

/// What would write to a file, or make one.
const WRITES: [&str; 6] = [
    "O_WRONLY",
    "O_RDWR",
    "O_CREAT",
    "O_TRUNC",
    "O_APPEND",
    "O_TMPFILE",
];

#[test]
fn nothing_below_the_library_is_opened_for_writing() {
    let fixture = Fixture::new();
    let library = fixture.path("library").canonicalize().unwrap();
    let trace = fixture.path("trace");
    let seed = fixture.command();
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-y", "-s", "4096", "-e", "trace=%file", "-o"]);
    command
        .arg(&trace)
        .arg(seed.get_program())
        .args(seed.get_args());
    // It would be the kernel that refuses it otherwise, and the daemon that tries.
    command.args(["-v", "--verify", "lazy", "--no-landlock"]);
    let mut daemon = Daemon::start(command);
    let mut leecher = Leecher::connect(daemon.address, fixture.sample.info_hash, FAST);
    leecher.until_unchoked();
    leecher.block(0, 0, 16 * 1024);
    let other = TorrentBuilder::new(52).name("other").write(&library);
    other.unwrap();
    daemon.wait_for_line("1 torrents added");
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    // Short numbers are followed by more than one space.
    let pid = daemon.pid().to_string();
    let is_end = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some(&pid) && line.ends_with("+++ exited with 0 +++") && words.count() == 5
    };
    wait_until(DEADLINE, "the trace is complete", || {
        fs::read_to_string(&trace).is_ok_and(|trace| trace.lines().any(is_end))
    });

    let trace = fs::read_to_string(trace).unwrap();
    let library = library.to_str().unwrap();
    let mut opened = 0;
    for line in trace.lines().filter(|line| line.contains(library)) {
        let call = line.split_once(' ').unwrap().1.trim_start();
        // The end of a call that another thread has interrupted.
        let call = call.strip_prefix("<... ").unwrap_or(call);
        let name = call.split(['(', ' ']).next().unwrap();
        assert!(LOOKS.contains(&name), "{line}");
        assert!(!WRITES.iter().any(|flag| call.contains(flag)), "{line}");
        opened += usize::from(name == "openat" && call.contains("sample-50\""));
    }
    assert!(opened > 0, "the content is not among what was traced");
}
