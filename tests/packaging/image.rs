//! What the Dockerfile makes, as far as that can be tried without docker: one static file, run in a
//! root directory with nothing else in it, which is read-only but for the volume of its state, by a user
//! who has only a number.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use super::package::make;
use super::place::{self, shell, try_shell, wait_for};
use super::support::leecher::{FAST, Leecher};
use super::support::torrent::TorrentBuilder;

/// Builds the file.
fn build() -> std::path::PathBuf {
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output();
    let installed = installed
        .map(|output| place::text(&output.stdout))
        .unwrap_or_default();
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    assert!(
        installed.contains(&target),
        "no Rust for {target}: make test-deps"
    );
    make("static");
    place::target().join(target).join("release/hekate")
}

#[test]
fn the_static_file_serves_from_an_empty_read_only_root() {
    let name = "image::the_static_file_serves_from_an_empty_read_only_root";
    place::run(name, build, |binary| {
        let linked = try_shell(&format!("ldd {} 2>&1", binary.display()));
        let linked = place::text(&linked.stdout);
        let is_static = ["statically linked", "not a dynamic executable"];
        assert!(
            is_static.iter().any(|words| linked.contains(words)),
            "{linked}"
        );

        shell(
            "mkdir /tmp/image && mount -t tmpfs tmpfs /tmp/image && mkdir -p /tmp/image/srv/hekate /tmp/image/var/lib/hekate /tmp/image/proc /tmp/library",
        );
        fs::copy(binary, "/tmp/image/hekate").unwrap();
        let sample = TorrentBuilder::new(95)
            .write("/tmp/library".as_ref())
            .unwrap();
        shell(
            "mount --bind /tmp/library /tmp/image/srv/hekate \
             && mount -o remount,bind,ro /tmp/image/srv/hekate && mount -o remount,ro /tmp/image \
             && mount -t proc proc /tmp/image/proc \
             && mount -t tmpfs -o uid=65532,gid=65532,mode=750 tmpfs /tmp/image/var/lib/hekate",
        );
        // The command of the Dockerfile.
        let dockerfile = include_str!("../../Dockerfile");
        let words = |key: &str| -> Vec<String> {
            let line = dockerfile
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap();
            line.split('"')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        let user = dockerfile
            .lines()
            .find_map(|line| line.strip_prefix("USER "));
        let in_image = || {
            let mut command = Command::new("chroot");
            command.args([
                &format!("--userspec={}", user.unwrap()),
                "--groups=",
                "/tmp/image",
            ]);
            command.args(words("ENTRYPOINT ")).stdin(Stdio::null());
            command
        };
        let mut daemon = in_image().args(words("CMD ")).spawn().unwrap();
        let health: Vec<String> = words("HEALTHCHECK CMD ").into_iter().skip(1).collect();
        wait_for("it is healthy", || {
            in_image().args(&health).output().unwrap().status.success()
        });
        let address = "127.0.0.1:6969".parse().unwrap();
        // The status is there first.
        wait_for("it listens", || {
            TcpStream::connect::<SocketAddr>(address).is_ok()
        });
        let mut leecher = Leecher::connect(address, sample.info_hash, FAST);
        leecher.until_unchoked();
        shell(&format!("kill -TERM {}", daemon.id()));
        let mut code = None;
        wait_for("it stops", || {
            code = daemon.try_wait().unwrap();
            code.is_some()
        });
        assert_eq!(code.and_then(|code| code.code()), Some(0));
    });
}
