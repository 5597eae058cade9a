//! What a tracker is told of a library that changes.

use std::fs;

use hekate::wire::message::InfoHash;

use crate::real;
use crate::scene::{Scene, torrent};

#[test]
fn added_torrents_are_announced_and_removed_ones_stopped() {
    let aside = tempfile::tempdir().unwrap();
    let samples = [1, 2].map(|seed| torrent(seed, aside.path()));
    let hashes = samples.each_ref().map(|sample| InfoHash(sample.info_hash));
    let Some(tracker) = real::opentracker(&hashes) else {
        return;
    };
    let url = tracker.url("udp");
    let arguments = ["--tracker-override", &url];
    let scene = Scene::with(&arguments, |base| {
        torrent(1, &base.join("lib"));
    });
    let seeded = |number: usize| tracker.seeded_by_http(&hashes[number..=number]) == 1;
    scene.until("announced at the start", || seeded(0));
    scene.torrent(2, "lib");
    scene.until("announced", || seeded(1));
    fs::remove_file(scene.path("lib/sample-1.torrent")).unwrap();
    scene.until("stopped", || !seeded(0));
    // Content that is wrong ends it as well, and brings it back when it is right.
    scene.rename("lib/sample-2", "away/sample-2");
    scene.until("stopped", || !seeded(1));
    scene.rename("away/sample-2", "lib/sample-2");
    scene.until("announced again", || seeded(1));
}

#[test]
fn a_torrent_that_is_replaced_is_stopped_and_the_new_one_announced() {
    let aside = tempfile::tempdir().unwrap();
    let samples = [1, 2].map(|seed| torrent(seed, aside.path()));
    let hashes = samples.each_ref().map(|sample| InfoHash(sample.info_hash));
    let Some(tracker) = real::opentracker(&hashes) else {
        return;
    };
    let url = tracker.url("http");
    let arguments = ["--tracker-override", &url];
    let scene = Scene::with(&arguments, |base| {
        torrent(1, &base.join("lib"));
        fs::copy(aside.path().join("sample-2"), base.join("lib/sample-2")).unwrap();
    });
    let seeded = |number: usize| tracker.seeded_by_http(&hashes[number..=number]) == 1;
    scene.until("announced at the start", || seeded(0));
    fs::copy(&samples[1].metainfo_path, scene.path("away/new")).unwrap();
    scene.rename("away/new", "lib/sample-1.torrent");
    scene.until("replaced", || seeded(1) && !seeded(0));
}
