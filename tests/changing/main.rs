//! `hekate seed DIR` while its library changes: what comes, goes, moves and breaks on disk.
//!
//! Owns what peers and trackers see of that, and how soon. It must not know how changes are found.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod announced;
mod elsewhere;
mod hung;
mod mounts;
mod random;
#[path = "../trackers/real.rs"]
mod real;
mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use scene::{Scene, torrent};
use support::leecher::FAST;
use support::leecher::Leecher;
use support::torrent::{Sample, TorrentBuilder};

/// Files that arrive at once.
const CROWD: u64 = 10_000;

#[test]
fn written_renamed_and_linked_torrents_are_served() {
    let scene = Scene::new(|base| {
        torrent(0, &base.join("lib"));
    });
    let renamed = scene.torrent_apart(1);
    scene.rename("away/sample-1.torrent", "lib/sample-1.torrent");
    scene.until_served(&renamed);

    let written = scene.torrent_apart(2);
    let mut file = File::create(scene.path("lib/sample-2.torrent")).unwrap();
    let (one, other) = written.metainfo.split_at(written.metainfo.len() / 2);
    file.write_all(one).unwrap();
    file.sync_all().unwrap();
    file.write_all(other).unwrap();
    drop(file);
    scene.until_served(&written);

    let linked = scene.torrent_apart(3);
    fs::hard_link(&linked.metainfo_path, scene.path("lib/linked.torrent")).unwrap();
    scene.until_served(&linked);

    // The content of a symlinked metainfo file lies where the symlink does.
    let symlinked = scene.torrent_apart(4);
    fs::create_dir_all(scene.path("lib/farm")).unwrap();
    fs::rename(&symlinked.files[0].path, scene.path("lib/farm/sample-4")).unwrap();
    symlink(&symlinked.metainfo_path, scene.path("lib/farm/4.torrent")).unwrap();
    scene.until_served(&symlinked);
}

#[test]
fn moved_in_directories_are_served_and_moved_out_ones_are_not() {
    let scene = Scene::new(|_| ());
    let samples = [1, 2, 3].map(|seed| scene.torrent(seed, &format!("away/d/{seed}/x")));
    scene.rename("away/d", "lib/d");
    for sample in &samples {
        scene.until_served(sample);
    }
    let mut peer = scene.peer(&samples[1]);
    scene.rename("lib/d/2", "away/2");
    peer.until_closed();
    scene.until_refused(&samples[1]);
    assert!(scene.is_served(&samples[0]) && scene.is_served(&samples[2]));
    // Behind a symlink it is in the library again.
    symlink(scene.path("away/2"), scene.path("lib/two")).unwrap();
    scene.until_served(&samples[1]);
    let below = scene.torrent(4, "away/2/new");
    scene.until_served(&below);
    fs::remove_file(scene.path("lib/two")).unwrap();
    scene.until_refused(&samples[1]);
    scene.until_refused(&below);
    fs::remove_dir_all(scene.path("lib/d")).unwrap();
    scene.until_refused(&samples[0]);
    scene.until_refused(&samples[2]);
}

#[test]
fn a_removed_torrent_closes_its_peers_and_is_refused() {
    let scene = Scene::new(|base| {
        torrent(1, &base.join("lib"));
        torrent(2, &base.join("lib"));
    });
    let (removed, stays) = (scene.torrent(1, "away"), scene.torrent(2, "away"));
    scene.until_served(&removed);
    let mut peers = [scene.peer(&removed), scene.peer(&removed)];
    let mut other = scene.peer(&stays);
    fs::remove_file(scene.path("lib/sample-1.torrent")).unwrap();
    for peer in &mut peers {
        peer.until_closed();
    }
    scene.until_refused(&removed);
    // Nobody else has noticed.
    other.block(0, 0, 1000);
    scene.assert_serves(&stays);
}

#[test]
fn a_duplicate_torrent_is_served_until_its_last_file_is_removed() {
    let scene = Scene::new(|base| {
        torrent(1, &base.join("lib/a"));
        torrent(1, &base.join("lib/b"));
    });
    let sample = scene.torrent(1, "away");
    scene.until_served(&sample);
    fs::remove_dir_all(scene.path("lib/a")).unwrap();
    // The one that is left takes its place, though a moment may lie between.
    scene.until("served from elsewhere", || {
        !scene.path("lib/a").exists() && scene.is_served(&sample)
    });
    let marker = scene.torrent(2, "lib");
    scene.until_served(&marker);
    scene.assert_serves(&sample);
    fs::remove_file(scene.path("lib/b/sample-1.torrent")).unwrap();
    scene.until_refused(&sample);
}

#[test]
fn a_changed_torrent_is_replaced() {
    let scene = Scene::new(|base| {
        torrent(1, &base.join("lib"));
        torrent(2, &base.join("lib"));
        fs::remove_file(base.join("lib/sample-2.torrent")).unwrap();
    });
    let (before, after) = (scene.torrent(1, "away"), scene.torrent(2, "away"));
    scene.until_served(&before);
    let mut peer = scene.peer(&before);
    scene.rename("away/sample-2.torrent", "lib/sample-1.torrent");
    peer.until_closed();
    scene.until_served(&after);
    scene.until_refused(&before);
    // And in place.
    fs::write(scene.path("lib/sample-1.torrent"), &before.metainfo).unwrap();
    scene.until_served(&before);
    scene.until_refused(&after);
    // What is no metainfo file any more is refused, and is served when it is one again.
    fs::write(scene.path("lib/sample-1.torrent"), "d4:infoe").unwrap();
    scene.until_refused(&before);
    fs::write(scene.path("lib/sample-1.torrent"), &before.metainfo).unwrap();
    scene.until_served(&before);
}

#[test]
fn a_torrent_is_withdrawn_while_its_content_is_wrong() {
    let scene = Scene::new(|base| {
        torrent(1, &base.join("lib"));
        let many = TorrentBuilder::new(2)
            .file("a/b/c", 500)
            .file("a/d", 30_000);
        many.write(&base.join("lib")).unwrap();
    });
    let one = scene.torrent(1, "away");
    let many = TorrentBuilder::new(2)
        .file("a/b/c", 500)
        .file("a/d", 30_000);
    let many = many.write(&scene.path("away")).unwrap();
    scene.until_served(&one);
    let mut peer = scene.peer(&one);
    let content = scene.path("lib/sample-1");
    let file = File::options().write(true).open(&content).unwrap();
    file.set_len(10).unwrap();
    drop(file);
    peer.until_closed();
    scene.until_refused(&one);
    fs::write(&content, one.block(0, 0, 1001)).unwrap();
    scene.until_served(&one);

    scene.until_served(&many);
    let mut peer = Leecher::connect(scene.daemon.address, many.info_hash, FAST);
    fs::remove_file(scene.path("lib/sample-2/a/b/c")).unwrap();
    peer.until_closed();
    scene.until_refused(&many);
    fs::copy(
        scene.path("away/sample-2/a/b/c"),
        scene.path("lib/sample-2/a/b/c"),
    )
    .unwrap();
    scene.until_served(&many);
    // All of it goes and comes back.
    scene.rename("lib/sample-2", "gone");
    scene.until_refused(&many);
    scene.rename("gone", "lib/sample-2");
    scene.until_served(&many);
    // Content that comes after its metainfo file.
    let late = scene.torrent(3, "away");
    scene.rename("away/sample-3.torrent", "lib/sample-3.torrent");
    let marker = scene.torrent(4, "lib");
    scene.until_served(&marker);
    assert!(!scene.is_served(&late));
    scene.rename("away/sample-3", "lib/sample-3");
    scene.until_served(&late);
}

#[test]
fn content_overwritten_at_its_full_size_keeps_its_peers() {
    let mut scene = Scene::new(|base| {
        torrent(1, &base.join("lib"));
    });
    let sample = scene.torrent(1, "away");
    scene.until_served(&sample);
    let mut peer = scene.peer(&sample);
    for seed in 2..5 {
        let mut file = File::options();
        let mut file = file.write(true).open(scene.path("lib/sample-1")).unwrap();
        file.write_all(&[0; 100]).unwrap();
        drop(file);
        // What comes after it has been looked at after it.
        let marker = scene.torrent(seed, "lib");
        scene.until_served(&marker);
    }
    assert_eq!(peer.block(0, 0, 1001)[..100], [0; 100]);
    let log = scene.daemon.log();
    assert!(!log.contains(", 1 removed"), "{log}");
}

#[test]
fn torrents_of_a_missing_root_are_refused_until_it_returns() {
    let scene = Scene::with(&[], |base| {
        torrent(1, &base.join("lib/d"));
        fs::rename(base.join("lib"), base.join("later")).unwrap();
    });
    let sample = scene.torrent(1, "away");
    assert!(!scene.is_served(&sample));
    for _ in 0..3 {
        scene.rename("later", "lib");
        scene.until_served(&sample);
        scene.rename("lib", "later");
        scene.until_refused(&sample);
    }
}

#[test]
fn a_missing_root_leaves_the_torrents_of_others_served() {
    let other = tempfile::tempdir().unwrap();
    let stays = torrent(500, other.path());
    let mut scene = Scene::with(&[other.path().to_str().unwrap()], |base| {
        for seed in 0..100 {
            torrent(seed, &base.join("lib"));
        }
    });
    let sample = scene.torrent(1, "away");
    scene.until_served(&sample);
    let mut peer = scene.peer(&stays);
    scene.rename("lib", "later");
    scene.until_refused(&sample);
    peer.block(0, 0, 1500);
    scene.rename("later", "lib");
    scene.until_served(&sample);
    peer.block(0, 0, 1500);
    // A hundred torrents are not a hundred errors.
    assert!(scene.daemon.count_lines("WARN") + scene.daemon.count_lines("ERROR") < 10);
    scene.daemon.assert_alive();
}

#[test]
fn ten_thousand_files_at_once_are_served() {
    let scene = Scene::new(|base| {
        for seed in 0..CROWD {
            let sample = TorrentBuilder::new(seed).length(1);
            sample
                .write_apart(&base.join("away"), &base.join("lib"))
                .unwrap();
        }
    });
    let samples: Vec<Sample> = (0..CROWD)
        .map(|seed| TorrentBuilder::new(seed).length(1))
        .map(|sample| sample.write(&scene.path("copies")).unwrap())
        .collect();
    for seed in 0..CROWD {
        let name = format!("sample-{seed}.torrent");
        scene.rename(&format!("away/{name}"), &format!("lib/{name}"));
    }
    scene.until_served(&samples[samples.len() - 1]);
    for sample in &samples {
        scene.until_served(sample);
    }
    let mut daemon = scene.daemon;
    daemon.assert_alive();
    // They take longer to rename than one batch waits, and are few all the same.
    daemon.wait_for_line(" torrents added, 0 removed");
    let log = daemon.log();
    let batches = log.matches(" torrents added, 0 removed").count();
    assert!((1..100).contains(&batches), "{batches} batches");
}
