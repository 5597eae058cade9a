//! A copy of this system that is thrown away: what is installed there harms nobody.
//!
//! Owns: starting this test binary again, as root of new namespaces, with overlays over the
//! directories of the system; what is taken out of that copy so that it is like a fresh machine; the
//! booting of that machine by systemd. What is written there is kept in memory and is gone with the
//! last process. Must not know what is installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::wait_until;

/// Tells the copy that it is one.
const VARIABLE: &str = "HEKATE_PACKAGING_MACHINE";
/// Printed by the copy after its last assertion: an exit code of 0 alone would also come from a
/// filter that matches no test.
const PROOF: &str = "passed in the throw-away machine";
/// Nothing here waits as long.
const DEADLINE: Duration = Duration::from_secs(60);

const NAMESPACES: [&str; 5] = ["--mount", "--pid", "--net", "--fork", "--kill-child"];

/// Makes the copy in /mnt/root; what comes behind this uses it.
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
cd /mnt/root
mkdir dev proc run sys tmp mnt
# Images for containers leave out the manual and start no service; a machine does otherwise.
grep -lsE '^path-(ex|in)clude' etc/dpkg/dpkg.cfg.d/* | xargs -r rm -f
printf '#!/bin/sh\nexit 0\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
"#;

/// Goes in without a manager of services. The shell stays as the first process of the namespace, since
/// somebody must take leave of daemons that have ended.
const ENTER: &str = r#"
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
for directory in "$repository" "$target"; do
    mkdir -p "./$directory"
    mount --bind "$directory" "./$directory"
done
ip link set lo up
mkdir run/lock
chroot . "$@" &
wait $!
"#;

/// Boots it, and goes in by a service of its own once everything else is up. Nothing of this machine's
/// own is started, only what a fresh one starts. The copy ends with that service, by its exit code.
const BOOT: &str = r#"
rm -rf etc/systemd/system etc/systemd/*.d etc/rc?.d etc/crypttab
mkdir -p etc/systemd/system etc/rc0.d etc/rc1.d etc/rc2.d etc/rc3.d etc/rc4.d etc/rc5.d etc/rc6.d
: >etc/fstab
rm -f etc/machine-id && tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
export -p >place.environment
printf '"%s" ' "$@" >place.command
cat >etc/systemd/system/place.service <<'END'
[Unit]
Requires=multi-user.target
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/sh -c '. /place.environment && eval "exec $(cat /place.command)"'
StandardOutput=file:/place.said
StandardError=inherit
TimeoutStartSec=240
END
# Cgroups of its own, so that another such machine beside it has others. Where there are two kinds, the
# name is one.
groups= own=hekate-place-$(cat /proc/sys/kernel/random/uuid)
while IFS=: read -r id controllers path; do
    case $controllers in
        '') top=/sys/fs/cgroup; [ -e $top/cgroup.procs ] || top=$top/unified ;;
        name=systemd) top=/sys/fs/cgroup/systemd ;;
        *) continue ;;
    esac
    [ -e "$top$path/cgroup.procs" ] || continue
    mkdir "$top$path/$own"
    echo 0 >"$top$path/$own/cgroup.procs"
    groups="$groups $top$path/$own"
done </proc/self/cgroup
mount -t proc proc /proc
code=0
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --boot --directory=/mnt/root --register=no \
    --keep-unit --private-network --link-journal=no --resolv-conf=off --timezone=off \
    --machine=place --console=pipe --bind="$repository" --bind="$target" \
    --system-call-filter='landlock_create_ruleset landlock_add_rule landlock_restrict_self' \
    -- --unit=place.service </dev/null >/mnt/console 2>&1 || code=$?
cat place.said || cat /mnt/console
for group in $groups; do
    echo 0 >"${group%/*}/cgroup.procs"
    find "$group" -depth -type d -exec rmdir {} +
done
exit $code
"#;

/// Runs `inside` as root of a place of its own. `prepare` comes before, in the world outside, and
/// its answer is given to `inside`.
pub(crate) fn run(test: &str, prepare: impl FnOnce() -> PathBuf, inside: impl FnOnce(&Path)) {
    go(ENTER, test, prepare, inside);
}

/// The same in a place that systemd has booted.
pub(crate) fn boot(test: &str, prepare: impl FnOnce() -> PathBuf, inside: impl FnOnce(&Path)) {
    go(BOOT, test, prepare, inside);
}

fn go(way: &str, test: &str, prepare: impl FnOnce() -> PathBuf, inside: impl FnOnce(&Path)) {
    if let Some(prepared) = env::var_os(VARIABLE) {
        inside(Path::new(&prepared));
        println!("{PROOF}");
        return;
    }
    // What is installed belongs to many users; only root can make a copy that has them.
    let usable = unshare(ENTER).arg("true").output();
    assert!(
        usable.is_ok_and(|output| output.status.success()),
        "{test} needs root, unshare, and a kernel with overlays: run it by sudo"
    );
    let prepared = prepare();
    let started = Instant::now();
    let output = unshare(way)
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

/// The setup and the way in, to which a command is added.
fn unshare(way: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(NAMESPACES)
        .args(["sh", "-c", &format!("{SETUP}{way}"), "sh"])
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
pub(crate) fn wait_for(what: &str, ask: impl FnMut() -> bool) {
    wait_until(DEADLINE, what, ask);
}
