//! Content that lies elsewhere than its metainfo files, and libraries that are in a given index.
//!
//! Owns what heals there: the directories below are not watched, but a disk comes and goes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::mounts::Apart;
use crate::scene::{Scene, builder};
use crate::support::leecher;
use crate::support::torrent::Sample;
use crate::support::wait_until;

/// Longer than it takes until what could not be loaded is tried again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Torrents whose content is in `spare`, where `disk` is empty.
fn torrents(base: &Path, metainfo: &str) -> Vec<Sample> {
    fs::create_dir(base.join("disk")).unwrap();
    let samples = (1..4).map(builder);
    samples
        .map(|sample| sample.write_apart(&base.join(metainfo), &base.join("spare")))
        .collect::<Result<_, _>>()
        .unwrap()
}

#[test]
fn content_on_a_removable_disk_is_served_while_mounted() {
    let mut samples = Vec::new();
    let arguments = ["--no-landlock", "--content", "{base}/disk", "{base}/lib"];
    let mut apart = Apart::bare(&arguments, |base| samples = torrents(base, "lib"));
    apart.scene.daemon.wait_for_line("disk is empty or missing");
    let refused = |apart: &Apart, number: usize| !apart.scene.is_served(&samples[number]);
    assert!(refused(&apart, 0));
    for _ in 0..2 {
        apart.bind("spare", "disk");
        for sample in &samples {
            apart.scene.until_served(sample);
        }
        apart.unmount("disk");
        // Those that are asked for meanwhile come back as well.
        for sample in &samples {
            apart.scene.until_refused(sample);
        }
    }
    let log = apart.scene.daemon.log();
    assert!(log.matches(" WARN ").count() < 10, "{log}");
}

#[test]
fn an_index_of_a_removable_disk_is_served_while_mounted() {
    let mut samples = Vec::new();
    let arguments = [
        "--no-landlock",
        "--index",
        "{base}/index",
        "--root",
        "{base}/disk",
    ];
    let mut apart = Apart::bare(&arguments, |base| {
        samples = torrents(base, "spare");
        let made = Command::new(env!("CARGO_BIN_EXE_hekate"))
            .args(["index", "spare", "-o", "index"])
            .current_dir(base)
            .output();
        assert!(made.unwrap().status.success());
    });
    apart.scene.daemon.wait_for_line("disk is empty or missing");
    for sample in &samples {
        assert!(!apart.scene.is_served(sample));
    }
    // A reload that fails leaves what is watched as it was.
    apart.scene.rename("index", "index-aside");
    fs::write(apart.scene.path("index"), "rubbish").unwrap();
    apart.scene.daemon.signal("HUP");
    apart.scene.daemon.wait_for_line("reload failed, ");
    apart.scene.rename("index-aside", "index");
    apart.bind("spare", "disk");
    // What is refused is not tried again within two seconds.
    for sample in &samples {
        until_served_later(&apart.scene, sample);
    }
}

#[test]
fn a_torrent_that_failed_to_load_is_retried() {
    let mut samples = Vec::new();
    let arguments = ["--content", "{base}/spare", "{base}/lib"];
    let mut scene = Scene::bare(&[], &arguments, |base| samples = torrents(base, "lib"));
    let content = "spare/sample-1";
    scene.rename(content, "away/content");
    assert!(!scene.is_served(&samples[0]));
    scene
        .daemon
        .wait_for_line("0 torrents added, 1 removed: 2 now");
    scene.rename("away/content", content);
    until_served_later(&scene, &samples[0]);
    assert!(scene.is_served(&samples[1]));
}

fn until_served_later(scene: &Scene, sample: &Sample) {
    wait_until(PATIENCE, "it is tried again", || scene.is_served(sample));
    leecher::download(scene.daemon.address, sample);
}
