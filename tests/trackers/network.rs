//! A network that is broken and comes back: trackers that failed are tried again soon.
//!
//! Owns a network namespace for each daemon. It must not know how a change is noticed.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;
use crate::support::torrent::TorrentBuilder;

/// What a tracker that failed is announced to within, after the network has changed.
const SOON: Duration = Duration::from_secs(60);

const WOKEN: &str = "trackers that failed are tried again soon: 1";

/// A daemon with one torrent of a tracker, in a network that has nothing but this machine.
fn daemon(tracker: &str) -> (Daemon, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let torrent = TorrentBuilder::new(1).announce(&[tracker]);
    torrent.write(directory.path()).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--net", "sh", "-ec"])
        .arg("ip link set lo up; exec \"$@\"")
        .args(["sh", env!("CARGO_BIN_EXE_hekate"), "seed", "-v"])
        .args(["--port", "0"])
        .arg(directory.path());
    (Daemon::start(command), directory)
}

/// Runs ip(8) in the network of a daemon.
fn ip(daemon: &Daemon, arguments: &str) {
    let pid = daemon.pid().to_string();
    let status = Command::new("nsenter")
        .args(["--target", &pid, "--user", "--net", "ip"])
        .args(arguments.split(' '))
        .status()
        .expect("nsenter(1) of util-linux and ip(8) are installed");
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn a_new_address_wakes_a_tracker_that_failed() {
    let (mut daemon, _directory) = daemon("http://10.9.8.7:6969/announce");
    daemon.wait_for_line("Network is unreachable (os error 101); retrying in");
    let started = Instant::now();
    ip(&daemon, "address add 10.9.8.7/32 dev lo");
    daemon.wait_for_new_line(WOKEN);
    // Nobody listens at that address, but it is there.
    daemon.wait_for_new_line("Connection refused (os error 111); retrying in");
    assert!(started.elapsed() < SOON);
}

#[test]
fn a_route_that_comes_back_wakes_a_tracker_that_failed() {
    let (mut daemon, _directory) = daemon("http://10.9.8.7:6969/announce");
    daemon.wait_for_line("Network is unreachable (os error 101); retrying in");
    ip(&daemon, "route add default dev lo");
    daemon.wait_for_new_line(WOKEN);
}

#[test]
fn sighup_wakes_a_tracker_that_failed() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", port.local_addr().unwrap());
    drop(port);
    let (mut daemon, _directory) = daemon(&url);
    daemon.wait_for_line("Connection refused (os error 111); retrying in");
    daemon.signal("HUP");
    daemon.wait_for_new_line(WOKEN);
}
