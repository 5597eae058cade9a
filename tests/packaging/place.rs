//! A copy of this system that is thrown away: what is installed there harms nobody.
//!
//! Owns: starting this test binary again, as root of new namespaces, with overlays over the
//! directories of the system; what is taken out of that copy so that it is like a fresh machine.
//! What is written there is kept in memory and is gone with the last process. Must not know what is
//! installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Tells the copy that it is one.
const VARIABLE: &str = "HEKATE_PACKAGING_PLACE";
/// Printed by the copy after its last assertion: an exit code of 0 alone would also come from a
/// filter that matches no test.
const PROOF: &str = "proven in its place";
/// Nothing here waits as long.
const DEADLINE: Duration = Duration::from_secs(60);

const NAMESPACES: [&str; 5] = ["--mount", "--pid", "--net", "--fork", "--kill-child"];

/// The shell stays as the first process of the namespace, since somebody must take leave of daemons
/// that have ended.
const SETUP: &str = r#"
set -e
repository=$1 target=$2; shift 2
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
for entry in /bin /etc /home /lib* /opt /root /sbin /srv /usr /var; do
    name=${entry#/}
    if [ -L "$entry" ]; then
        cp -P "$entry" /mnt/root
    elif [ -d "$entry" ]; then
        mkdir "/mnt/upper/$name" "/mnt/work/$name" "/mnt/root/$name"
        mount -t overlay overlay "/mnt/root/$name" \
            -o "lowerdir=$entry,upperdir=/mnt/upper/$name,workdir=/mnt/work/$name"
    fi
done
mkdir /mnt/root/dev /mnt/root/proc /mnt/root/run /mnt/root/tmp /mnt/root/mnt
cd /mnt/root
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
for directory in "$repository" "$target"; do
    mkdir -p "./$directory"
    mount --bind "$directory" "./$directory"
done
ip link set lo up
# Images for containers leave out the manual and start no service; a machine does otherwise.
grep -lsE '^path-(ex|in)clude' etc/dpkg/dpkg.cfg.d/* | xargs -r rm -f
printf '#!/bin/sh\nexit 0\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
mkdir run/lock
chroot . "$@" &
wait $!
"#;

/// Runs `inside` as root of a place of its own. `prepare` comes before, in the world outside, and
/// its answer is given to `inside`.
pub(crate) fn run(test: &str, prepare: impl FnOnce() -> PathBuf, inside: impl FnOnce(&Path)) {
    if let Some(prepared) = env::var_os(VARIABLE) {
        inside(Path::new(&prepared));
        println!("{PROOF}");
        return;
    }
    // What is installed belongs to many users; only root can make a copy that has them.
    let usable = unshare().arg("true").output();
    assert!(
        usable.is_ok_and(|output| output.status.success()),
        "{test} needs root, unshare, and a kernel with overlays: run it by sudo"
    );
    let prepared = prepare();
    let started = Instant::now();
    let output = unshare()
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, prepared)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let printed = text(&output.stdout) + &text(&output.stderr);
    let proven = output.status.success() && printed.contains(PROOF);
    assert!(
        proven,
        "{test} failed in its place, which printed:\n{printed}"
    );
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{test}: {seconds:.1} s");
}

/// The setup, to which a command is added.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command
        .args(NAMESPACES)
        .args(["sh", "-c", SETUP, "sh"])
        .arg(env!("CARGO_MANIFEST_DIR"))
        .arg(target())
        .stdin(Stdio::null());
    command
}

/// Where cargo builds.
pub(crate) fn target() -> &'static Path {
    // The directory for temporary files is in it.
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a shell command.
pub(crate) fn try_shell(line: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).stdin(Stdio::null());
    shell.output().unwrap()
}

/// Runs a shell command that has to end with 0; answers what it printed.
pub(crate) fn shell(line: &str) -> String {
    let output = try_shell(line);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let code = output.status.code();
    assert_eq!(code, Some(0), "{line}:\n{out}\n{err}");
    out
}

/// Asks until the answer is yes.
pub(crate) fn wait_for(what: &str, mut ask: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !ask() {
        assert!(Instant::now() < until, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
