//! Runs one test in a network of its own, with nobody else in it.
//!
//! Owns: starting this test binary again inside new network and process namespaces, the addresses
//! there, and the deadline of the whole. When the copy ends, however it ends, the kernel kills
//! every process it started, so no client outlives its test. Must not know: BitTorrent.
//!
//! The addresses are not loopback addresses, because Transmission refuses those as peers; they
//! differ for each program, because Transmission keeps one peer for each address, its own included.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::needs;

/// Where the seeder listens.
pub(crate) const SEEDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
/// Where the seeder listens for the proof over IPv6.
pub(crate) const SEEDER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1));
/// What the client binds, and the source of whatever does not bind.
pub(crate) const CLIENT: &str = "10.9.0.2";
/// The same for IPv6; a program that does not bind gets the destination as its source there.
pub(crate) const CLIENT_V6: &str = "fd09::2";
/// Where the tracker listens; Debian's opentracker knows only IPv4.
pub(crate) const TRACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 3));

/// A client that has not finished by then never will: the slowest needs a tenth of it when the
/// machine is idle, and the tests share the cores with each other.
pub(crate) const CLIENT_DEADLINE: Duration = Duration::from_secs(75);
/// The copy reports its own failure first; this one ends a copy that hangs.
const SANDBOX_DEADLINE: Duration = Duration::from_secs(100);
/// Between two looks at something that has not happened yet.
const POLL: Duration = Duration::from_millis(50);

/// Tells the copy that it is one, and where it may write.
const SCENE_VARIABLE: &str = "HEKATE_CLIENTS_SCENE";
/// Written by the copy after its last assertion: an exit code of 0 alone would also come from a
/// test filter that matches nothing.
const PROOF: &str = "proof";

/// Without arguments `unshare` gives a network only to root; a user namespace gives it to all.
const NAMESPACES: [&[&str]; 2] = [
    &["--net", "--pid", "--fork", "--kill-child"],
    &[
        "--user",
        "--map-root-user",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
    ],
];

/// Gives loopback three addresses in each family. The routes let a program that binds nothing
/// (webtorrent cannot) appear as the client to whom it connects.
///
/// A kernel may have no IPv6; then only the proof over IPv6 fails, for want of its address.
const ADDRESSES: &str = "
    ip link set lo up
    for host in 1 2 3; do
        ip addr add 10.9.0.$host/32 dev lo
        ip addr add fd09::$host/128 dev lo nodad || true
    done
    for host in 1 3; do
        ip route replace table local local 10.9.0.$host dev lo proto kernel scope host src 10.9.0.2
    done";

/// Runs `inside` in a sandbox and fails with everything that was printed there.
///
/// `test` is the name of the calling test, with which the copy of this binary is told what to run.
pub(crate) fn run(test: &str, inside: impl FnOnce(&Path)) {
    if let Some(scene) = env::var_os(SCENE_VARIABLE).map(PathBuf::from) {
        end_with_the_parent();
        shell(ADDRESSES).expect("addresses in the sandbox");
        inside(&scene);
        fs::write(scene.join(PROOF), "").expect("the scene is writable");
        return;
    }
    let Some(namespaces) = usable_namespaces() else {
        needs::missing(
            test,
            "network namespaces (be root or allow unprivileged user namespaces)",
        );
        return;
    };
    let scene = tempfile::Builder::new()
        .prefix("hekate-clients-")
        .tempdir()
        .expect("a temporary directory");
    let log = scene.path().join("sandbox.log");
    let out = File::create(&log).expect("the scene is writable");
    let started = Instant::now();
    let mut copy = Command::new("unshare")
        .args(namespaces)
        .arg(env::current_exe().expect("the path of this binary"))
        .args([
            "--exact",
            test,
            "--nocapture",
            "--test-threads=1",
            "--include-ignored",
        ])
        .env(SCENE_VARIABLE, scene.path())
        // The way through this file says nothing about a client.
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::piped())
        .stdout(out.try_clone().expect("one more descriptor"))
        .stderr(out)
        .spawn()
        .expect("unshare was there a moment ago");
    let outcome = wait(&mut copy, SANDBOX_DEADLINE);
    let proven = scene.path().join(PROOF).exists();
    if outcome != Some(true) || !proven {
        let printed = fs::read_to_string(&log).unwrap_or_default();
        let how = if outcome.is_none() {
            "did not end in time"
        } else {
            "failed"
        };
        panic!("{test} {how} in its sandbox, which printed:\n{printed}");
    }
    announce(&format!("{test}: {:.1} s", started.elapsed().as_secs_f64()));
}

/// Prints a line that the test harness does not swallow when the test passes.
pub(crate) fn announce(line: &str) {
    // A closed stderr is no reason to fail a proof.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Asks until the answer is yes, the deadline has passed (false), or `ask` fails the test itself.
pub(crate) fn poll_until(deadline: Duration, mut ask: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !ask() {
        if started.elapsed() > deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

/// `unshare` ignores the interrupt from the terminal and the first process of a namespace does
/// too, so the copy watches its standard input, which closes with the process that holds it.
fn end_with_the_parent() {
    thread::spawn(|| {
        let mut byte = [0];
        if io::stdin().read(&mut byte).is_ok_and(|length| length == 0) {
            std::process::exit(1);
        }
    });
}

fn usable_namespaces() -> Option<&'static [&'static str]> {
    NAMESPACES.into_iter().find(|arguments| {
        Command::new("unshare")
            .args(*arguments)
            .arg("true")
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

fn shell(script: &str) -> io::Result<()> {
    let status = Command::new("sh")
        .args(["-ec", script])
        .env("PATH", needs::search_path())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{status}:{script}")))
    }
}

/// Whether the child ended well; `None` when it had to be killed.
fn wait(child: &mut Child, deadline: Duration) -> Option<bool> {
    let mut ended = None;
    poll_until(deadline, || {
        ended = child.try_wait().expect("our own child");
        ended.is_some()
    });
    if ended.is_none() {
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }
    ended.map(|status| status.success())
}
