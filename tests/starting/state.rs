//! State that cannot be written keeps no library from being served.

use std::process::Command;

use super::support::daemon::Daemon;
use super::support::leecher::{FAST, Leecher};
use super::{Fixture, NOBODY, is_root};

/// Root needs no user namespace to mount, and cannot become another user in one.
const AS_ROOT: &[&str] = &["--mount"];
const AS_USER: &[&str] = &["--user", "--map-root-user", "--mount"];

/// Serves a library while neither state nor temporary files can be written, in every way that the daemon
/// is started. `mount` makes `$1` such a directory, below which `state` is named.
fn is_served(mount: &str, state: &str, said: &str) {
    let fixture = Fixture::new();
    let directory = fixture.path("state");
    let users: &[&[&str]] = match is_root() {
        true => &[&[], &["--user", NOBODY]],
        false => &[&[]],
    };
    for user in users {
        for sandbox in [&[][..], &["--no-landlock"]] {
            for verify in ["size", "lazy"] {
                let mut command = Command::new("unshare");
                command
                    .args(if is_root() { AS_ROOT } else { AS_USER })
                    .args(["sh", "-ec"])
                    .arg(format!("{mount}; shift; exec \"$@\""))
                    .arg("sh")
                    .arg(&directory)
                    .arg(env!("CARGO_BIN_EXE_hekate"))
                    .args(["seed", "--bind", "127.0.0.1", "--port", "0", "--no-tracker"])
                    .args(["--verify", verify])
                    .args(*user)
                    .args(sandbox)
                    .arg("--state-dir")
                    .arg(directory.join(state))
                    .arg(fixture.path("library"))
                    .env("TMPDIR", &directory);
                let mut daemon = Daemon::start(command);
                if !said.is_empty() {
                    daemon.wait_for_line(said);
                    daemon.wait_for_line(": the index is kept in memory");
                }
                let hash = fixture.sample.info_hash;
                let mut leecher = Leecher::connect(daemon.address, hash, FAST);
                leecher.until_unchoked();
                leecher.block(0, 0, 16 * 1024);
                // The next index is made in memory, too.
                daemon.signal("HUP");
                daemon.wait_for_new_line("reloaded: 1 torrent");
                leecher.block(0, 0, 16 * 1024);
                daemon.signal("TERM");
                assert!(daemon.wait().success());
            }
        }
    }
}

#[test]
fn a_full_disk_keeps_no_library_from_being_served() {
    let mount = "mount -t tmpfs -o size=16k,mode=777 none \"$1\"
        head -c 100000 /dev/zero >\"$1/filler\" 2>/dev/null || true";
    is_served(mount, "", "No space left on device");
}

#[test]
fn a_full_disk_costs_the_pid_file() {
    let fixture = Fixture::new();
    let file = fixture.path("run").join("pid");
    let mount = "mount -t tmpfs -o nr_inodes=1 none \"$1\"; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(if is_root() { AS_ROOT } else { AS_USER })
        .args(["sh", "-ec", mount, "sh"])
        .arg(fixture.path("run"))
        .arg(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "--bind", "127.0.0.1", "--port", "0", "--no-tracker"])
        .arg("--pid-file")
        .arg(&file)
        .arg("--state-dir")
        .arg(fixture.path("state"))
        .arg(fixture.path("library"));
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line("No space left on device (os error 28): there is no pid file");
}

#[test]
fn a_disk_without_inodes_keeps_no_library_from_being_served() {
    let mount = "mount -t tmpfs -o nr_inodes=1,mode=777 none \"$1\"";
    is_served(mount, "", "No space left on device");
}

#[test]
fn a_read_only_disk_keeps_no_library_from_being_served() {
    is_served(
        "mount -t tmpfs -o ro none \"$1\"",
        "",
        "Read-only file system",
    );
}

#[test]
fn a_state_directory_that_cannot_be_made_keeps_no_library_from_being_served() {
    let mount = "mount -t tmpfs -o ro none \"$1\"";
    is_served(mount, "missing/state", "Read-only file system");
}

#[test]
fn the_state_directory_of_somebody_else_keeps_no_library_from_being_served() {
    // Root may write there, and only nobody else may not.
    is_served("mount -t tmpfs -o mode=700 none \"$1\"", "", "");
    if is_root() {
        let fixture = Fixture::new();
        super::set_mode(&fixture.path("state"), 0o700);
        let mut command = fixture.command();
        command.args(["--user", NOBODY]);
        command.env("TMPDIR", fixture.path("state"));
        let mut daemon = Daemon::start(command);
        daemon.wait_for_line("Permission denied");
        daemon.wait_for_line(": the index is kept in memory");
        let mut leecher = Leecher::connect(daemon.address, fixture.sample.info_hash, FAST);
        leecher.until_unchoked();
        leecher.block(0, 0, 16 * 1024);
    }
}
