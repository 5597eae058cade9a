//! The daemon in the background, and its pid file.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use socket2::{Domain, Socket, Type};

use super::support::daemon::Daemon;
use super::{DEADLINE, Fixture, NOBODY, is_root, traced};
use crate::support::wait_until;

/// Ends the daemon of a pid file whatever becomes of the test.
struct Held<'a>(&'a Path);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(number) = number_in(self.0) {
            kill("KILL", &number);
        }
    }
}

fn number_in(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|number| !number.is_empty())
}

fn kill(signal: &str, number: &str) {
    Command::new("kill")
        .args(["-s", signal, number])
        .output()
        .unwrap();
}

fn is_running(number: &str) -> bool {
    // One that has ended and waits for init to notice does not run; its other threads may still.
    let stat = fs::read_to_string(format!("/proc/{number}/stat"));
    let threads = fs::read_dir(format!("/proc/{number}/task")).map_or(0, Iterator::count);
    stat.is_ok_and(|stat| !stat.contains(") Z ") || threads > 1)
}

/// Starts a daemon with file names relative to the fixture.
fn start(fixture: &Fixture, more: &[&str]) -> Output {
    let mut command = fixture.command();
    command.current_dir(fixture.path(""));
    command.args(["--daemon", "--pid-file", "run/pid", "--log-file", "log/log"]);
    command.args(["--config", "/dev/null", "--status", "off"]);
    if is_root() {
        command.args(["--user", NOBODY]);
    }
    command.args(more).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_command_returns_when_the_daemon_listens_and_a_second_daemon_is_refused() {
    let fixture = Fixture::new();
    let pid_file = fixture.path("run/pid");
    let _held = Held(&pid_file);
    let output = start(&fixture, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let log = fs::read_to_string(fixture.path("log/log")).unwrap();
    assert!(log.contains("listening on 127.0.0.1:"), "{log}");
    let number = number_in(&pid_file).unwrap();
    assert!(is_running(&number));
    let of = |name: &str| fs::read_link(format!("/proc/{number}/{name}")).unwrap();
    assert_eq!(of("cwd"), Path::new("/"));
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(of(stream), Path::new("/dev/null"), "{stream}");
    }
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // proc(5): the session is led by the process in between, and there is no terminal.
    assert_ne!(fields[3], number);
    assert_eq!(fields[4], "0");

    let second = start(&fixture, &[]);
    assert_eq!(second.status.code(), Some(1));
    let refused = format!("run/pid: hekate is already running, as process {number}\n");
    assert!(stderr(&second).ends_with(&refused), "{}", stderr(&second));

    kill("TERM", &number);
    wait_until(DEADLINE, "it ends", || !is_running(&number));
    assert!(!pid_file.exists());
}

#[test]
fn a_stale_pid_file_is_replaced() {
    let fixture = Fixture::new();
    let pid_file = fixture.path("run/pid");
    let _held = Held(&pid_file);
    assert_eq!(start(&fixture, &[]).status.code(), Some(0));
    let first = number_in(&pid_file).unwrap();
    kill("KILL", &first);
    wait_until(DEADLINE, "the first ends", || !is_running(&first));
    assert!(pid_file.exists());
    let output = start(&fixture, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_ne!(number_in(&pid_file).unwrap(), first);
}

#[test]
fn a_failed_start_in_the_background_is_reported_to_the_caller() {
    let fixture = Fixture::new();
    let pid_file = fixture.path("run/pid");
    let _held = Held(&pid_file);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    let common = [
        "seed",
        "--config",
        "/dev/null",
        "--status",
        "off",
        "--daemon",
    ];
    command
        .args(common)
        .args(["--bind", "127.0.0.1", "--port", &port]);
    command.arg("--pid-file").arg(&pid_file);
    command.arg("--log-file").arg(fixture.path("log/log"));
    let output = command.arg(fixture.path("library")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let reason = format!("hekate: cannot listen on 127.0.0.1:{port}: ");
    assert!(stderr(&output).contains(&reason), "{}", stderr(&output));
    assert!(!pid_file.exists(), "a start that fails leaves no pid file");

    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    let output = command
        .args(common)
        .arg(fixture.path("library"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("daemon requires log-file"),
        "{}",
        stderr(&output)
    );

    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command
        .args(common)
        .arg("--log-file")
        .arg(fixture.path("log/log"));
    let command = command
        .args(["--user", "no-such-user"])
        .arg(fixture.path("library"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        stderr(&output),
        "hekate: user: no such user: \"no-such-user\"\n"
    );
}

#[test]
fn signals_are_handled_once_the_pid_file_is_written() {
    let fixture = Fixture::new();
    let pid_file = fixture.path("run/pid");
    // The loop is made after that file, and takes its time here.
    let injection = "inject=epoll_create1:delay_enter=2000000:when=1";
    let mut command = traced(&fixture.command(), injection);
    command.arg("--pid-file").arg(&pid_file);
    let started = std::thread::spawn(|| Daemon::start(command));
    wait_until(DEADLINE, "the PID file is written", || {
        number_in(&pid_file).is_some()
    });
    let number = number_in(&pid_file).unwrap();
    kill("HUP", &number);
    kill("USR1", &number);
    let mut daemon = started.join().unwrap();
    daemon.wait_for_line("log file reopened");
    daemon.wait_for_line("reloaded: 1 torrents");
}

/// Tries to listen as any daemon would that is to be restarted at once.
fn listen(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(8)?;
    Ok(socket)
}

/// A port on which somebody has listened, whose last connection the kernel has not forgotten.
fn used_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    drop(accepted);
    std::io::Read::read(&mut &client, &mut [0; 1]).unwrap();
    address
}

#[test]
fn the_port_is_reserved_while_the_first_index_is_made() {
    let fixture = Fixture::new();
    let address = used_port();
    let mut inner = Command::new(env!("CARGO_BIN_EXE_hekate"));
    inner.args(["seed", "--bind", "127.0.0.1", "--no-tracker", "--port"]);
    inner.arg(address.port().to_string()).arg("--state-dir");
    inner
        .arg(fixture.path("state"))
        .arg(fixture.path("library"));
    let command = traced(&inner, "inject=fsync:delay_enter=3000000:when=1");
    let started = std::thread::spawn(|| Daemon::start(command));
    let state = fixture.path("state");
    wait_until(DEADLINE, "the state is written", || {
        fs::read_dir(&state).is_ok_and(|mut entries| entries.next().is_some())
    });
    let refused = listen(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    assert!(
        TcpStream::connect(address).is_err(),
        "who comes early is refused and does not wait"
    );
    assert_eq!(started.join().unwrap().address, address);
}
