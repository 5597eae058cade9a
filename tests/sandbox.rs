//! The sandbox, tried from inside: each thing is done before and after it is entered.
//!
//! Owns a process without a test harness, since the sandbox is entered before there is a thread. It
//! must not know the daemon.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use hekate::daemon::sandbox::AllowedPaths;
use landlock::RulesetStatus;
use rustix::process::{Pid, Signal, kill_process};

/// A thing to try: what it is, whether the sandbox allows it, and the attempt.
type Attempt<'a> = (&'a str, bool, Box<dyn Fn() -> io::Result<()> + Sync + 'a>);

fn read(path: PathBuf) -> impl Fn() -> io::Result<()> {
    move || fs::read(&path).map(drop)
}

fn list(path: PathBuf) -> impl Fn() -> io::Result<()> {
    move || fs::read_dir(&path).map(drop)
}

fn write(path: PathBuf) -> impl Fn() -> io::Result<()> {
    move || OpenOptions::new().append(true).open(&path).map(drop)
}

/// Makes a file and leaves it; what one attempt has made is no hindrance to the next.
fn make(directory: PathBuf) -> impl Fn() -> io::Result<()> {
    move || {
        let name = format!("made-{:?}", thread::current().id());
        let mut options = OpenOptions::new();
        let options = options.append(true).create(true);
        options.open(directory.join(name)).map(drop)
    }
}

fn attempts<'a>(base: &'a Path, port: u16, signalled: Pid) -> Vec<Attempt<'a>> {
    let at = |name: &str| base.join(name);
    let abstract_name = format!("hekate-sandbox-{}", std::process::id());
    let send = move || {
        let address = SocketAddr::from_abstract_name(&abstract_name)?;
        UnixDatagram::unbound()?.connect_addr(&address)
    };
    // It is not waited for, so that its number stays its own.
    let signal = move || Ok(kill_process(signalled, Signal::TERM)?);
    vec![
        (
            "reading the library",
            true,
            Box::new(read(at("library/file"))),
        ),
        ("listing the library", true, Box::new(list(at("library")))),
        ("reading outside", false, Box::new(read(at("outside/file")))),
        (
            "reading outside by a link",
            false,
            Box::new(read(at("library/link/file"))),
        ),
        ("listing outside", false, Box::new(list(at("outside")))),
        (
            "writing content",
            false,
            Box::new(write(at("library/file"))),
        ),
        (
            "making a file in the library",
            false,
            Box::new(make(at("library"))),
        ),
        (
            "writing outside",
            false,
            Box::new(write(at("outside/file"))),
        ),
        (
            "making a file in the state",
            true,
            Box::new(make(at("state"))),
        ),
        ("writing the log", true, Box::new(write(at("log/file")))),
        ("making a log", true, Box::new(make(at("log")))),
        ("reading the log", false, Box::new(read(at("log/file")))),
        (
            "reading /etc/passwd",
            true,
            Box::new(read("/etc/passwd".into())),
        ),
        ("listing /", false, Box::new(list("/".into()))),
        (
            "running a program",
            false,
            Box::new(|| Command::new("/bin/true").output().map(drop)),
        ),
        (
            "listening on a port of choice",
            false,
            Box::new(move || TcpListener::bind(("127.0.0.1", port)).map(drop)),
        ),
        (
            "binding a port of the system's choice",
            true,
            Box::new(|| TcpListener::bind("127.0.0.1:0").map(drop)),
        ),
        ("reaching a socket without a path", false, Box::new(send)),
        ("signalling another process", false, Box::new(signal)),
    ]
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn check(attempts: &[Attempt<'_>], entered: bool) {
    for (what, allowed, attempt) in attempts {
        match attempt() {
            Ok(()) => assert!(*allowed || !entered, "{what} is not refused"),
            Err(error) => assert!(
                !*allowed && entered && is_refusal(&error),
                "{what}, entered {entered}: {error}"
            ),
        }
    }
}

/// Tells the copy of this program where it may try.
const BASE: &str = "HEKATE_SANDBOX_BASE";

fn main() {
    if let Some(base) = std::env::var_os(BASE) {
        inside(Path::new(&base));
        return;
    }
    // What is within cannot be removed from within.
    let directory = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).env(BASE, directory.path()).status();
    assert!(status.unwrap().success(), "the sandbox does not hold");
    assert!(
        directory.path().join("state/done").exists(),
        "nothing was tried"
    );
}

fn inside(base: &Path) {
    for name in ["library", "outside", "state", "log"] {
        fs::create_dir(base.join(name)).unwrap();
        fs::write(base.join(name).join("file"), "12345").unwrap();
    }
    std::os::unix::fs::symlink(base.join("outside"), base.join("library/link")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let name = format!("hekate-sandbox-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();

    let attempts = attempts(base, port, Pid::from_child(&other));
    check(&attempts, false);
    let allowed = AllowedPaths {
        read: vec![base.join("library"), "/etc".into()],
        write: vec![base.join("state")],
        append: vec![base.join("log")],
        remove: vec![base.join("log")],
        ..AllowedPaths::default()
    };
    rustix::thread::set_no_new_privs(true).unwrap();
    let strength = allowed.enter().unwrap();
    assert_eq!(
        strength,
        RulesetStatus::FullyEnforced,
        "the kernel knows less of Landlock than the rules: this test needs Linux 6.12"
    );
    check(&attempts, true);
    // A thread has what its parent had when it was started, and so have its own.
    thread::scope(|scope| {
        scope.spawn(|| {
            check(&attempts, true);
            thread::scope(|scope| {
                scope.spawn(|| check(&attempts, true));
            });
        });
    });
    fs::remove_file(base.join("log/file")).unwrap();
    assert!(fs::remove_file(base.join("library/file")).is_err());
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop(manager);
    other.wait().unwrap();
    fs::write(base.join("state/done"), "").unwrap();
    println!("the sandbox holds");
}
