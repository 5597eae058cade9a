//! The package, from its installation to its purge.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::machine::{self, shell, text, try_shell, wait_for};
use super::support::torrent::{Sample, TorrentBuilder};

const PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6969);
/// The longest that nobody may listen while the package is replaced. Loading a process and reading
/// a small library take a tenth of it.
const DROP_BOUND: Duration = Duration::from_secs(3);

/// Builds the package once for all tests, as a person would, but of the binaries that the tests have
/// built: optimizing them takes minutes.
pub(crate) fn build() -> PathBuf {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE
        .get_or_init(|| make("deb").lines().last().unwrap().into())
        .clone()
}

/// Runs make in the repository; answers what it printed.
pub(crate) fn make(target: &str) -> String {
    let mut command = Command::new("make");
    // What cargo tells a test would make it build anew what reads these variables.
    let variables = std::env::vars_os().map(|(name, _)| name);
    let is_of_cargo = |name: &OsString| name.to_string_lossy().starts_with("CARGO_");
    for name in variables.filter(|name| is_of_cargo(name) && name != "CARGO_HOME") {
        command.env_remove(name);
    }
    let output = command
        .args(["--no-print-directory", "PROFILE=dev", target])
        .arg(format!("CARGO={}", env!("CARGO")))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", machine::target())
        .env("DEBFULLNAME", "Somebody")
        .env("DEBEMAIL", "somebody@example.org")
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "make {target}:\n{out}\n{err}");
    out
}

/// A torrent and its content, in the directory that is served when nobody has said otherwise.
pub(crate) fn fill(seed: u64) -> Sample {
    TorrentBuilder::new(seed)
        .length(3 << 20)
        .write(Path::new("/srv/hekate"))
        .unwrap()
}

/// A client that knows nothing of Hekate but where it is downloads the torrent.
pub(crate) fn download(sample: &Sample) {
    let out = tempfile::tempdir().unwrap();
    let line = format!(
        "cd {} && timeout 60 /usr/bin/python3 tests/clients/libtorrent_leech.py {} {} --peer {PORT}",
        env!("CARGO_MANIFEST_DIR"),
        sample.metainfo_path.display(),
        out.path().display()
    );
    shell(&line);
    let fetched = shell(&format!(
        "cd {} && find . -type f | wc -l",
        out.path().display()
    ));
    assert_ne!(fetched.trim(), "0");
}

/// The process in the pid file.
pub(crate) fn pid() -> u32 {
    fs::read_to_string("/run/hekate.pid")
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn has_log(line: &str) -> bool {
    fs::read_to_string("/var/log/hekate/hekate.log").is_ok_and(|log| log.contains(line))
}

/// The same package with the next revision.
fn next_revision(package: &Path) -> PathBuf {
    let next = PathBuf::from("/tmp/next.deb");
    shell(&format!(
        "dpkg-deb -R {} /tmp/next && sed -i 's/^Version: .*/&+next/' /tmp/next/DEBIAN/control \
         && dpkg-deb -b /tmp/next {}",
        package.display(),
        next.display()
    ));
    next
}

/// How long nobody listened while something was done.
fn longest_drop(during: impl FnOnce()) -> Duration {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while !is_done.load(Ordering::Relaxed) {
                if TcpStream::connect(PORT).is_ok() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                thread::sleep(Duration::from_millis(5));
            }
            longest.max(last.elapsed())
        });
        during();
        wait_for("the port is open", || TcpStream::connect(PORT).is_ok());
        is_done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    })
}

#[test]
fn a_package_is_installed_upgraded_removed_and_purged() {
    let name = "package::a_package_is_installed_upgraded_removed_and_purged";
    machine::run(name, build, |package| {
        installed(package);
        let sample = fill(80);
        shell("service hekate reload");
        wait_for("the torrent is served", || {
            shell("hekate status").contains("1 torrent")
        });
        download(&sample);
        upgraded(package);
        download(&sample);
        removed();
        purged(&sample);
    });
}

fn installed(package: &Path) {
    shell(&format!("dpkg -i {}", package.display()));
    assert_eq!(try_shell("service hekate status").status.code(), Some(0));
    let user = shell("id -u hekate");
    let status = fs::read_to_string(format!("/proc/{}/status", pid())).unwrap();
    let ids = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    assert_eq!(ids, format!("Uid:\t{0}\t{0}\t{0}\t{0}", user.trim()));
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(status.lines().any(|found| found == line), "{status}");
    }
    wait_for("a status page", || {
        try_shell("hekate status").status.success()
    });
    // What an administrator tries next.
    shell("man -w hekate hekate-seed hekate-swarm hekate.toml >/dev/null");
    shell("hekate config --check && hekate-swarm --version");
    // Every step may be done twice.
    shell("/var/lib/dpkg/info/hekate.postinst configure ''");
    assert_eq!(try_shell("service hekate status").status.code(), Some(0));
}

fn upgraded(package: &Path) {
    // What the administrator has written stays.
    shell("echo 'max-unchoked = 60' >>/etc/hekate/hekate.toml && touch /var/lib/hekate/kept");
    let before = pid();
    let next = next_revision(package);
    let drop = longest_drop(|| {
        shell(&format!("dpkg -i {}", next.display()));
    });
    assert!(drop < DROP_BOUND, "nobody listened for {drop:?}");
    assert_ne!(pid(), before);
    shell("dpkg -s hekate | grep -q '^Version: .*+next$'");
    shell("grep -q '^max-unchoked = 60' /etc/hekate/hekate.toml && test -e /var/lib/hekate/kept");
    wait_for("the change holds", || has_log("in 60 slots"));
}

fn removed() {
    let before = pid();
    shell("dpkg -r hekate");
    assert!(!Path::new(&format!("/proc/{before}")).exists());
    assert!(!Path::new("/usr/bin/hekate").exists());
    shell("test -e /etc/hekate/hekate.toml && test -d /var/lib/hekate && id hekate");
    // What is left of it is harmless.
    for (action, code) in [("status", 3), ("stop", 0), ("start", 5)] {
        let output = try_shell(&format!("/etc/init.d/hekate {action}"));
        assert_eq!(output.status.code(), Some(code), "{action}");
    }
}

fn purged(sample: &Sample) {
    shell("dpkg -P hekate");
    shell("! getent passwd hekate && ! getent group hekate");
    for path in [
        "/etc/hekate",
        "/etc/default/hekate",
        "/etc/init.d/hekate",
        "/etc/logrotate.d/hekate",
        "/etc/rc2.d/S01hekate",
        "/var/lib/hekate",
        "/var/log/hekate",
        "/run/hekate",
        "/run/hekate.pid",
        "/usr/share/doc/hekate",
    ] {
        assert!(!Path::new(path).exists(), "{path} is left");
    }
    assert!(sample.metainfo_path.exists(), "somebody's library is gone");
}

#[test]
fn lintian_accepts_the_package() {
    let package = build();
    let output = Command::new("lintian")
        .arg("--allow-root")
        .arg(&package)
        .output();
    let said = text(&output.expect("lintian: make test-deps").stdout);
    assert!(said.is_empty(), "{said}");
}

#[test]
fn the_package_is_made_wherever_cargo_builds() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let built = manifest.lines().filter(|line| line.contains("[\"target/"));
    let mut count = 0;
    for line in built {
        // cargo-deb looks for these in the target directory, and for nothing else.
        assert!(line.contains("[\"target/release/"), "{line}");
        count += 1;
    }
    assert!(count >= 4, "{count}");
}

#[test]
fn the_changelog_of_the_package_is_of_this_version() {
    let changelog = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/debian/changelog");
    let changelog = fs::read_to_string(changelog).unwrap();
    let first = format!("hekate ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&first), "{changelog}");
}
