//! The service manager: what it is status, and the sockets that it passes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::daemon::Daemon;
use super::support::leecher::{FAST, Leecher, dial, handshake};
use super::{DEADLINE, Fixture, is_root, traced};
use crate::support::wait_until;

/// A socket on which the test plays the service manager.
struct Manager(UnixDatagram);

impl Manager {
    /// One whose socket is in the shared directory, where everybody may write.
    fn new(fixture: &Fixture) -> Self {
        let path = fixture.path("run/notify");
        let manager = Manager(UnixDatagram::bind(&path).unwrap());
        manager.0.set_read_timeout(Some(DEADLINE)).unwrap();
        super::set_mode(&path, 0o777);
        manager
    }

    fn receive(&self) -> String {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).expect("the manager is status");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// The next message that is none of these.
    fn next_but(&self, others: &[&str]) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let message = self.receive();
            if !others.iter().any(|other| message.starts_with(other)) {
                return message;
            }
            assert!(Instant::now() < until, "only {others:?}");
        }
    }
}

fn monotonic_us(message: &str) -> u64 {
    let (first, time) = message.split_once("\nMONOTONIC_USEC=").unwrap();
    assert_eq!(first, "RELOADING=1");
    time.parse().unwrap()
}

#[test]
fn the_service_manager_gets_each_step_in_order() {
    let fixture = Fixture::new();
    let manager = Manager::new(&fixture);
    let mut command = fixture.command();
    command
        .env("NOTIFY_SOCKET", fixture.path("run/notify"))
        .env("WATCHDOG_USEC", "300000");
    if is_root() {
        command.args(["--user", super::NOBODY]);
    }
    let mut daemon = Daemon::start(command);
    assert_eq!(
        manager.next_but(&["WATCHDOG=1"]),
        "STATUS=reading the library"
    );
    let ready = format!("READY=1\nMAINPID={}", daemon.pid());
    assert_eq!(manager.next_but(&["WATCHDOG=1"]), ready);
    // What it does now is status at once: the watchdog hears of it ten times in between at most.
    let status = (0..10).map(|_| manager.receive());
    let status = status.into_iter().find(|message| message != "WATCHDOG=1");
    assert_eq!(status.as_deref(), Some("STATUS=1 torrents, 0 peers"));
    // It listened before it said so.
    Leecher::connect(daemon.address, fixture.sample.info_hash, FAST).until_unchoked();

    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.next_but(&["STATUS="]), "WATCHDOG=1");
    }
    // The loop has nothing else to do: three halves of the time have passed at least.
    assert!(began.elapsed() >= Duration::from_millis(300));

    let before_us = now_us();
    daemon.signal("HUP");
    let reloading = manager.next_but(&["WATCHDOG=1", "STATUS="]);
    let after_us = now_us();
    assert!((before_us..=after_us).contains(&monotonic_us(&reloading)));
    assert_eq!(manager.next_but(&["WATCHDOG=1", "STATUS="]), ready);

    daemon.signal("TERM");
    assert_eq!(manager.next_but(&["WATCHDOG=1", "STATUS="]), "STOPPING=1");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn the_service_manager_gets_a_status_every_ten_seconds() {
    let fixture = Fixture::new();
    let manager = Manager::new(&fixture);
    let mut command = fixture.command();
    command.env("NOTIFY_SOCKET", fixture.path("run/notify"));
    let _daemon = Daemon::start(command);
    assert!(
        manager
            .next_but(&["STATUS=reading "])
            .starts_with("READY=1")
    );
    // At once, instead of the status before, and then every ten seconds.
    assert_eq!(manager.receive(), "STATUS=1 torrents, 0 peers");
    let began = Instant::now();
    assert_eq!(manager.receive(), "STATUS=1 torrents, 0 peers");
    assert!(began.elapsed() > Duration::from_secs(5));
}

#[test]
fn before_listening_the_status_shows_progress_and_not_ready() {
    let fixture = Fixture::new();
    let manager = Manager::new(&fixture);
    // All files are in the index when it waits for the disk, for longer than there is no word.
    let mut command = traced(
        &fixture.command(),
        "inject=fsync:delay_enter=11000000:when=1",
    );
    let pid_file = fixture.path("run/pid");
    command.arg("--pid-file").arg(&pid_file);
    command.env("NOTIFY_SOCKET", fixture.path("run/notify"));
    let started = std::thread::spawn(|| Daemon::start(command));
    let state = fixture.path("state");
    wait_until(DEADLINE, "the state is written", || {
        std::fs::read_dir(&state).is_ok_and(|mut entries| entries.next().is_some())
    });
    assert_eq!(manager.receive(), "STATUS=reading the library");
    let number = std::fs::read_to_string(&pid_file).unwrap();
    let sent = Command::new("kill")
        .args(["-s", "HUP", number.trim()])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(manager.receive(), "STATUS=indexing, 1 files so far");
    let ready = manager.receive();
    assert_eq!(ready, format!("READY=1\nMAINPID={}", number.trim()));
    let mut daemon = started.join().unwrap();
    // What was asked for meanwhile is done all the same.
    daemon.wait_for_line("reloading");
    daemon.wait_for_line("reloaded: 1 torrents");
}

#[test]
fn a_hanging_loop_sends_no_watchdog_message() {
    let fixture = Fixture::new();
    let manager = Manager::new(&fixture);
    let mut command = fixture.command();
    command
        .env("NOTIFY_SOCKET", fixture.path("run/notify"))
        .env("WATCHDOG_USEC", "100000");
    let daemon = Daemon::start(command);
    let ready = manager.next_but(&["STATUS=", "WATCHDOG=1"]);
    assert!(ready.starts_with("READY=1"), "{ready}");
    assert_eq!(manager.next_but(&["STATUS="]), "WATCHDOG=1");
    daemon.signal("STOP");
    manager
        .0
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let until = Instant::now() + DEADLINE;
    let mut message = [0; 4096];
    // What was said before has to be read first.
    while manager.0.recv(&mut message).is_ok() {
        assert!(
            Instant::now() < until,
            "the watchdog hears of a loop that does not turn"
        );
    }
    daemon.signal("CONT");
    manager.0.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(manager.next_but(&["STATUS="]), "WATCHDOG=1");
}

/// A command whose standard output is passed on as descriptor 3, as a service manager passes it.
fn with_socket(fixture: &Fixture, socket: OwnedFd, name: &str) -> Command {
    let inner = fixture.command();
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$ exec \"$@\" 3>&1 >/dev/null";
    command.args(["-c", script, "sh"]).arg(inner.get_program());
    command.args(inner.get_args());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    command.stdout(Stdio::from(socket));
    command
}

#[test]
fn a_passed_socket_accepts_peers() {
    let fixture = Fixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It listens already, so that whoever comes early only waits.
    let mut early = dial(address);
    let hello = handshake(FAST, fixture.sample.info_hash, b"-XX0000-abcdefghijkl");
    early.write_all(&hello).unwrap();
    let daemon = Daemon::start(with_socket(&fixture, listener.into(), "hekate.socket"));
    assert_eq!(daemon.address, address);
    let mut answer = [0; 68];
    early.read_exact(&mut answer).unwrap();
    assert_eq!(answer[28..48], fixture.sample.info_hash);
    Leecher::connect(address, fixture.sample.info_hash, FAST).until_unchoked();
}

#[test]
fn a_dual_stack_socket_serves_both_families_and_logs_plain_ipv4_addresses() {
    let fixture = Fixture::new();
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut command = with_socket(&fixture, listener.into(), "hekate.socket");
    command.args(["-v", "--max-peers-per-ip", "1", "--config", "/dev/null"]);
    let status = format!("unix:{}", fixture.path("run/status").display());
    command.args(["--status", &status]);
    let mut daemon = Daemon::start(command);
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut leecher = Leecher::connect(v4, fixture.sample.info_hash, FAST);
    leecher.until_unchoked();
    let mut second = dial(v4);
    assert!(matches!(second.read(&mut [0; 1]), Ok(0) | Err(_)));
    let line = daemon.wait_for_line("has too many connections from its address");
    assert!(line.contains(" 127.0.0.1: "), "{line}");
    // Whoever comes by uTP is status at once that there is none, by either family.
    for (from, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let socket = UdpSocket::bind(from).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut syn = [0; 20];
        syn[0] = 0x41;
        socket.send_to(&syn, (to, port)).unwrap();
        let (length, _) = socket.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(length, 20, "{to}");
    }
}

#[test]
fn a_passed_status_socket_is_used_and_not_removed() {
    let fixture = Fixture::new();
    let path = fixture.path("run/status");
    let listener = UnixListener::bind(&path).unwrap();
    let mut daemon = Daemon::start(with_socket(&fixture, listener.into(), "status"));
    let mut status = Command::new(env!("CARGO_BIN_EXE_hekate"));
    let at = format!("unix:{}", path.display());
    status.args(["status", "--config", "/dev/null", "--status", &at]);
    let output = status.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(path.exists(), "it is not the daemon's to remove");
}

#[test]
fn a_passed_descriptor_that_is_no_listening_socket_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.path("run/datagrams");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = with_socket(&fixture, socket.into(), "peers");
    let output = command
        .args(["--config", "/dev/null"])
        .stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stderr,
        "hekate: the passed socket \"peers\" is not a stream socket\n"
    );
}

/// The clock of `MONOTONIC_USEC`.
fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap()
}
