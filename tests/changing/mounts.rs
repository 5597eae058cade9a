//! File systems that are mounted and unmounted below the library, and watches that run out.
//!
//! They need namespaces of their own: any user makes them together with a user namespace, unless the
//! system forbids that, and then these tests fail and say so.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::{Scene, torrent};
use crate::support::leecher;
use crate::support::torrent::Sample;
use crate::support::wait_until;

/// A daemon in a mount namespace.
pub(crate) struct Apart {
    pub(crate) scene: Scene,
}

const UNSHARE: &[&str] = &["unshare", "--user", "--map-root-user", "--mount"];

fn assert_allowed() {
    let status = Command::new(UNSHARE[0])
        .args(&UNSHARE[1..])
        .arg("true")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "this test needs unshare(1) and user namespaces (user.max_user_namespaces, or root)"
    );
}

impl Apart {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        assert_allowed();
        Apart {
            scene: Scene::within(UNSHARE, &[], prepare),
        }
    }

    /// The same with nothing to serve but what the arguments say, see [`Scene::bare`].
    pub(crate) fn bare(arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        assert_allowed();
        Apart {
            scene: Scene::bare(UNSHARE, arguments, prepare),
        }
    }

    /// Mounts a directory at another place as well.
    pub(crate) fn bind(&self, from: &str, to: &str) {
        let from = self.scene.path(from);
        self.run(&["mount", "--bind", from.to_str().unwrap()], to);
    }

    /// Runs a command where the daemon is.
    fn run(&self, command: &[&str], path: &str) {
        assert!(self.try_to_run(command, path), "{command:?} {path}");
    }

    fn try_to_run(&self, command: &[&str], path: &str) -> bool {
        let process = self.scene.daemon.pid().to_string();
        let status = Command::new("nsenter")
            .args(["--target", &process, "--user", "--mount"])
            .arg("--preserve-credentials")
            .args(command)
            .arg(self.scene.path(path))
            .status();
        status.unwrap().success()
    }

    fn mount(&self, path: &str) {
        self.run(&["mount", "-t", "tmpfs", "none"], path);
    }

    /// Lazily, since files of it are in use while they are served.
    pub(crate) fn unmount(&self, path: &str) {
        self.run(&["umount", "--lazy"], path);
    }

    /// A path as the daemon sees it.
    fn inside(&self, path: &str) -> PathBuf {
        let path = self.scene.path(path);
        let root = format!("/proc/{}/root", self.scene.daemon.pid());
        Path::new(&root).join(path.strip_prefix("/").unwrap())
    }

    fn torrent(&self, seed: u64, directory: &str) -> Sample {
        torrent(seed, &self.inside(directory))
    }
}

#[test]
fn unmounting_withdraws_torrents_and_mounting_serves_them_again() {
    let apart = Apart::new(|base| {
        torrent(1, &base.join("lib"));
        fs::create_dir(base.join("lib/disk")).unwrap();
    });
    let stays = apart.scene.torrent(1, "away");
    let mut last = None;
    for seed in 2..4 {
        apart.mount("lib/disk");
        let sample = apart.torrent(seed, "lib/disk/d");
        apart.scene.until_served(&sample);
        let mut peer = apart.scene.peer(&sample);
        apart.unmount("lib/disk");
        peer.until_closed();
        apart.scene.until_refused(&sample);
        apart.scene.assert_serves(&stays);
        last = Some(sample);
    }
    // What was below the mount is watched again.
    let below = apart.torrent(3, "lib/disk");
    assert_eq!(Some(below.info_hash), last.map(|last| last.info_hash));
    apart.scene.until_served(&below);
}

#[test]
fn a_disk_can_be_unmounted_when_its_torrents_are_removed() {
    let apart = Apart::new(|base| fs::create_dir(base.join("lib/disk")).unwrap());
    apart.mount("lib/disk");
    let sample = apart.torrent(2, "lib/disk/d");
    apart.scene.until_served(&sample);
    leecher::download(apart.scene.daemon.address, &sample);
    let unmount = || apart.try_to_run(&["umount", "--quiet"], "lib/disk");
    assert!(!unmount(), "nothing was mapped of it");
    fs::remove_file(
        apart
            .inside("lib/disk/d")
            .join(sample.metainfo_path.file_name().unwrap()),
    )
    .unwrap();
    wait_until(leecher::DEADLINE, "the disk is in use no more", unmount);
}

#[test]
fn a_root_mounted_after_the_start_is_served() {
    // Empty at the start, as a mount point is: so the sandbox expects a disk there.
    let apart = Apart::new(|_| {});
    let hidden = apart.scene.torrent(1, "lib");
    apart.scene.until_served(&hidden);
    apart.mount("lib");
    apart.scene.until_refused(&hidden);
    let sample = apart.torrent(2, "lib/d");
    apart.scene.until_served(&sample);
    apart.unmount("lib");
    apart.scene.until_served(&hidden);
    apart.scene.until_refused(&sample);
}

#[test]
fn content_on_a_disk_mounted_at_a_content_root_is_found() {
    let disks = tempfile::tempdir().unwrap();
    let point = disks.path().join("one");
    fs::create_dir(&point).unwrap();
    assert_allowed();
    let arguments = ["--content-root", point.to_str().unwrap()];
    let scene = Scene::within(UNSHARE, &arguments, |base| {
        symlink(&point, base.join("lib/link")).unwrap();
    });
    let apart = Apart { scene };
    for seed in 1..3 {
        apart.mount(point.to_str().unwrap());
        let sample = apart.torrent(seed, point.to_str().unwrap());
        apart.scene.daemon.signal("HUP");
        apart.scene.until_served(&sample);
        apart.unmount(point.to_str().unwrap());
        apart.scene.daemon.signal("HUP");
        apart.scene.until_refused(&sample);
    }
}

/// A directory of every Debian machine that lies directly below the root and is empty.
const BELOW_THE_ROOT: &str = "/media";

#[test]
fn a_disk_mounted_directly_below_the_filesystem_root_needs_a_restart_and_is_logged() {
    assert_allowed();
    let entries = fs::read_dir(BELOW_THE_ROOT).map(Iterator::count);
    assert_eq!(
        entries.ok(),
        Some(0),
        "this test needs an empty {BELOW_THE_ROOT}"
    );
    let scene = Scene::within(UNSHARE, &[BELOW_THE_ROOT], |_| {});
    let mut apart = Apart { scene };
    let expected = format!("a disk mounted at {BELOW_THE_ROOT} later");
    let line = apart.scene.daemon.wait_for_line(&expected);
    assert!(line.contains("WARN") && line.contains("restart"), "{line}");
    apart.mount(BELOW_THE_ROOT);
    let sample = apart.torrent(1, BELOW_THE_ROOT);
    let line = apart
        .scene
        .daemon
        .wait_for_new_line("the sandbox refuses it");
    assert!(
        line.contains(BELOW_THE_ROOT) && line.contains("restart"),
        "{line}"
    );
    assert!(!apart.scene.is_served(&sample));

    let arguments = [BELOW_THE_ROOT, "--no-landlock"];
    let scene = Scene::within(UNSHARE, &arguments, |_| {});
    let mut apart = Apart { scene };
    apart.mount(BELOW_THE_ROOT);
    let sample = apart.torrent(1, BELOW_THE_ROOT);
    apart.scene.until_served(&sample);
    assert!(!apart.scene.daemon.log().contains(&expected));
}

#[test]
fn a_bind_mount_is_noticed() {
    let apart = Apart::new(|base| {
        fs::create_dir(base.join("lib/disk")).unwrap();
        torrent(1, &base.join("away/d"));
    });
    let sample = apart.scene.torrent(1, "spare");
    // Its file system stays when it is unmounted, so no directory tells.
    for _ in 0..2 {
        apart.bind("away", "lib/disk");
        apart.scene.until_served(&sample);
        apart.unmount("lib/disk");
        apart.scene.until_refused(&sample);
    }
}

#[test]
fn when_watches_run_out_a_rescan_finds_the_rest() {
    assert_allowed();
    let limit = "echo 12 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        limit,
        "sh",
    ];
    let mut scene = Scene::within(&wrapper, &[], |base| {
        for number in 0..50 {
            fs::create_dir_all(base.join(format!("lib/{number}"))).unwrap();
        }
        torrent(1, &base.join("lib/1"));
    });
    let first = scene.torrent(1, "away");
    scene.until_served(&first);
    scene.daemon.wait_for_line("fs.inotify.max_user_watches");
    let near = scene.torrent(2, "lib");
    scene.until_served(&near);
    let far: Vec<Sample> = (100..150)
        .map(|seed| scene.torrent(seed, &format!("lib/{}", seed - 100)))
        .collect();
    scene.daemon.signal("HUP");
    for sample in &far {
        scene.until_served(sample);
    }
    assert_eq!(scene.daemon.count_lines("fs.inotify.max_user_watches"), 1);
}
