//! Who may use the status socket: the user of the daemon and its group, and nobody else.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use nix::unistd::{Group, User};

use super::support::daemon::Daemon;
use super::{Fixture, NOBODY, is_root, set_mode};

/// A number that no user and no group has.
const STRANGER: u32 = 3_999_999_998;

/// The mode of a unit, which keeps others from what the daemon makes.
const UMASK: &str = "umask 0027 && exec \"$@\"";

/// `hekate seed` with a status socket and that mask of new files.
fn command(fixture: &Fixture) -> Command {
    let seed = fixture.command();
    let mut command = Command::new("sh");
    command
        .args(["-c", UMASK, "sh"])
        .arg(seed.get_program())
        .args(seed.get_args())
        .arg("--status")
        .arg(format!("unix:{}", fixture.path("run/status").display()));
    command
}

/// `hekate status` as this user and group alone, by a copy that everybody may run.
fn ask(fixture: &Fixture, user: u32, group: u32) -> Output {
    let program = fixture.path("hekate");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_hekate"), &program).unwrap();
        set_mode(&program, 0o755);
    }
    Command::new(program)
        .args(["status", "--config", "/dev/null", "--status"])
        .arg(format!("unix:{}", fixture.path("run/status").display()))
        .current_dir("/")
        .uid(user)
        .gid(group)
        .output()
        .unwrap()
}

fn assert_belongs_to(socket: &Path, user: u32, group: u32) {
    let metadata = fs::symlink_metadata(socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o7777, 0o660);
    assert_eq!((metadata.uid(), metadata.gid()), (user, group));
}

/// Somebody of the group may ask, and somebody else may not.
fn assert_is_for_the_group(fixture: &Fixture, group: u32) {
    let answer = ask(fixture, STRANGER, group);
    let output = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(output.contains(" is serving, up "), "{answer:?}");
    let answer = ask(fixture, STRANGER, STRANGER);
    let output = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert_eq!(answer.status.code(), Some(1), "{output}");
    assert!(output.contains("Permission denied"), "{output}");
}

#[test]
fn the_status_socket_is_for_the_group_of_the_user_that_root_becomes() {
    let fixture = Fixture::new();
    if !is_root() {
        eprintln!("not root: that another user of the group may ask is not checked");
        let daemon = Daemon::start(command(&fixture));
        let own = fs::metadata(format!("/proc/{}", daemon.pid())).unwrap();
        assert_belongs_to(&fixture.path("run/status"), own.uid(), own.gid());
        return;
    }
    let user = User::from_name(NOBODY).unwrap().unwrap();
    let daemon = Group::from_name("daemon").unwrap().unwrap();
    for (wish, group) in [(NOBODY, user.gid), ("nobody:daemon", daemon.gid)] {
        let mut command = command(&fixture);
        command.args(["--user", wish]);
        let running = Daemon::start(command);
        assert_belongs_to(
            &fixture.path("run/status"),
            user.uid.as_raw(),
            group.as_raw(),
        );
        assert_is_for_the_group(&fixture, group.as_raw());
        drop(running);
    }
}

#[test]
fn the_status_socket_is_for_the_group_under_the_mask_of_a_unit() {
    if !is_root() {
        eprintln!("not root: nothing can be checked here that is not by the other test");
        return;
    }
    let fixture = Fixture::new();
    let user = User::from_name(NOBODY).unwrap().unwrap().uid;
    let group = Group::from_name("daemon").unwrap().unwrap().gid;
    let program = fixture.path("hekate");
    fs::copy(env!("CARGO_BIN_EXE_hekate"), &program).unwrap();
    set_mode(&program, 0o755);
    let seed = command(&fixture);
    let arguments: Vec<_> = seed.get_args().collect();
    let mut command = Command::new("sh");
    command.args(&arguments[..3]).arg(&program);
    command.args(&arguments[4..]).current_dir("/");
    command.uid(user.as_raw()).gid(group.as_raw());
    let _running = Daemon::start(command);
    assert_belongs_to(&fixture.path("run/status"), user.as_raw(), group.as_raw());
    assert_is_for_the_group(&fixture, group.as_raw());
}
