//! What the Dockerfile makes, as far as that can be tried without docker: one static file, run in a
//! root directory with nothing else in it, which is read-only but for the volume of its state, by users
//! who have only a number.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use super::machine::{self, shell, try_shell, wait_for};
use super::package::make;
use super::support::leecher::{FAST, Leecher};
use super::support::torrent::{Sample, TorrentBuilder};

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const IMAGE: &str = "/tmp/image";
const STATE: &str = "/tmp/image/var/lib/hekate";
const LOG: &str = "/tmp/log";

/// Builds the file.
fn build() -> std::path::PathBuf {
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output();
    let installed = installed
        .map(|output| machine::text(&output.stdout))
        .unwrap_or_default();
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    assert!(
        installed.contains(&target),
        "no Rust for {target}: make test-deps"
    );
    make("static");
    machine::target().join(target).join("debug/hekate")
}

/// What stands behind a word at the beginning of a line of the Dockerfile.
fn line(key: &str) -> &'static str {
    DOCKERFILE
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap()
}

/// The words of a command in it.
fn words(key: &str) -> impl Iterator<Item = &'static str> {
    line(key).split('"').skip(1).step_by(2)
}

/// Mounts an empty file system with the owner and mode of the directory, as a volume has them.
fn mount_volume(directory: &str) {
    let found = fs::metadata(directory).unwrap();
    let (user, group, mode) = (found.uid(), found.gid(), found.mode() & 0o7777);
    shell(&format!(
        "mount -t tmpfs -o uid={user},gid={group},mode={mode:o} tmpfs {directory}"
    ));
}

/// Lays out the root directory by the lines of the Dockerfile that make directories, with a library.
fn lay_out(binary: &std::path::Path) -> Sample {
    shell(&format!(
        "mkdir {IMAGE} && mount -t tmpfs tmpfs {IMAGE} \
         && mkdir -p {IMAGE}/srv/hekate {IMAGE}/proc /tmp/library"
    ));
    let made = DOCKERFILE
        .lines()
        .filter_map(|line| line.trim().strip_prefix("&& install -d "));
    for arguments in made.map(|line| line.trim_end_matches('\\')) {
        let arguments = arguments.replace("/image/", "/tmp/image/");
        shell(&format!("install -d {arguments}"));
    }
    fs::copy(binary, format!("{IMAGE}/hekate")).unwrap();
    let sample = TorrentBuilder::new(95)
        .write("/tmp/library".as_ref())
        .unwrap();
    shell(&format!(
        "mount --bind /tmp/library {IMAGE}/srv/hekate \
         && mount -o remount,bind,ro {IMAGE}/srv/hekate && mount -o remount,ro {IMAGE} \
         && mount -t proc proc {IMAGE}/proc"
    ));
    sample
}

/// Runs the command of the Dockerfile as this user until `is_done`. Returns the log.
fn serve(user: &str, sample: &Sample, is_done: impl FnMut() -> bool) -> String {
    let in_image = || {
        let mut command = Command::new("chroot");
        command.args([&format!("--userspec={user}"), "--groups=", IMAGE]);
        command.args(words("ENTRYPOINT ")).stdin(Stdio::null());
        command
    };
    let log = File::create(LOG).unwrap();
    let mut daemon = in_image().args(words("CMD ")).stderr(log).spawn().unwrap();
    let health: Vec<&str> = words("HEALTHCHECK CMD ").skip(1).collect();
    let read_log = || fs::read_to_string(LOG).unwrap();
    wait_for("it is healthy", || {
        let ended = daemon.try_wait().unwrap();
        assert_eq!(ended, None, "user {user}:\n{}", read_log());
        in_image().args(&health).output().unwrap().status.success()
    });
    let address = "127.0.0.1:6969".parse().unwrap();
    // The status is there first.
    wait_for("it listens", || {
        TcpStream::connect::<SocketAddr>(address).is_ok()
    });
    let mut leecher = Leecher::connect(address, sample.info_hash, FAST);
    leecher.until_unchoked();
    wait_for("it is done", is_done);
    shell(&format!("kill -TERM {}", daemon.id()));
    let mut code = None;
    wait_for("it stops", || {
        code = daemon.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.and_then(|code| code.code()), Some(0));
    read_log()
}

#[test]
fn the_static_file_serves_from_an_empty_read_only_root_as_any_user() {
    let name = "image::the_static_file_serves_from_an_empty_read_only_root_as_any_user";
    machine::run(name, build, |binary| {
        let linked = try_shell(&format!("ldd {} 2>&1", binary.display()));
        let linked = machine::text(&linked.stdout);
        let is_static = ["statically linked", "not a dynamic executable"];
        assert!(
            is_static.iter().any(|words| linked.contains(words)),
            "{linked}"
        );
        let sample = lay_out(binary);
        mount_volume(STATE);
        // The second finds what the first has left.
        for (number, user) in [line("USER "), "1000:1000"].iter().enumerate() {
            if number > 0 {
                TorrentBuilder::new(96)
                    .write("/tmp/library".as_ref())
                    .unwrap();
            }
            let is_saved = || {
                let owner = try_shell(&format!("stat -c %u:%g {STATE}/*.index"));
                machine::text(&owner.stdout).trim() == *user
            };
            let log = serve(user, &sample, is_saved);
            assert!(!log.contains("the index is not saved"), "{user}: {log}");
        }
        // A volume that is somebody else's, and a root that is not read-only.
        shell(&format!("chmod 0750 {STATE}"));
        mount_volume(&format!("{IMAGE}/tmp"));
        serve("1001:1001", &sample, || {
            let log = fs::read_to_string(LOG).unwrap();
            log.contains("the index is not saved")
        });
    });
}
