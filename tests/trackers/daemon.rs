//! The daemon announces torrents on disk, and sends `stopped` for each when it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hekate::wire::message::InfoHash;
use tempfile::TempDir;

use crate::real::{self, Server};
use crate::support::daemon::Daemon;
use crate::support::torrent::TorrentBuilder;

/// Torrents of the library: more than the usual cap lets out in a second.
const TORRENTS: u64 = 150;

/// What a tracker is asked again and again until it has changed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Library {
    directory: TempDir,
    hashes: Vec<InfoHash>,
}

fn library() -> Library {
    let directory = tempfile::tempdir().unwrap();
    let hashes = (0..TORRENTS)
        .map(|seed| {
            let torrent = TorrentBuilder::new(seed)
                .name(format!("torrent {seed}"))
                .length(1);
            InfoHash(torrent.write(directory.path()).unwrap().info_hash)
        })
        .collect();
    Library { directory, hashes }
}

fn hekate(library: &Library, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command
        .args(["seed", "-v", "--bind", "127.0.0.1", "--port", "0"])
        .args(arguments)
        .arg(library.directory.path());
    command
}

fn until_seeded(tracker: &Server, daemon: &mut Daemon, library: &Library) {
    let started = Instant::now();
    loop {
        let seeded = tracker.seeded_by_http(&library.hashes);
        if seeded == library.hashes.len() {
            return;
        }
        if started.elapsed() > PATIENCE {
            // It fails, with all that the daemon has said.
            daemon.wait_for_line(&format!("{seeded} torrents are not all"));
        }
    }
}

#[test]
fn a_library_is_announced_within_the_cap_and_stopped_at_the_end() {
    let library = library();
    let Some(tracker) = real::opentracker(&library.hashes) else {
        return;
    };
    let started = Instant::now();
    let url = tracker.url("udp");
    let mut daemon = Daemon::start(hekate(&library, &["--tracker-override", &url]));
    until_seeded(&tracker, &mut daemon, &library);
    let took = started.elapsed();
    assert!(
        took > Duration::from_millis(1300),
        "100 a second are the cap: {took:?}"
    );
    daemon.signal("TERM");
    let started = Instant::now();
    assert!(daemon.wait().success());
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(tracker.seeded_by_http(&library.hashes), 0);
}

#[test]
fn a_torrent_of_several_files_is_announced_to_the_trackers_of_all_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let torrent = |url: &str| TorrentBuilder::new(1).name("t").length(1).announce(&[url]);
    let aside = tempfile::tempdir().unwrap();
    let hash = InfoHash(torrent("").write(aside.path()).unwrap().info_hash);
    let Some(one) = real::opentracker(&[hash]) else {
        return;
    };
    let Some(two) = real::opentracker(&[hash]) else {
        return;
    };
    let library = Library {
        directory,
        hashes: vec![hash],
    };
    let put = |name: &str, url: String| {
        let built = torrent(&url);
        let written = built.write_apart(aside.path(), library.directory.path());
        let written = written.unwrap();
        let path = library.directory.path().join(name);
        fs::rename(written.metainfo_path, &path).unwrap();
        path
    };
    let until = |daemon: &mut Daemon, wanted: [usize; 2]| {
        let started = Instant::now();
        let seeded = || [&one, &two].map(|tracker| tracker.seeded_by_http(&library.hashes));
        while seeded() != wanted {
            if started.elapsed() > PATIENCE {
                daemon.wait_for_line(&format!("{wanted:?}, not {:?}", seeded()));
            }
        }
    };
    let state = aside.path().join("state");
    let arguments = ["--state-dir", state.to_str().unwrap()];
    let first = put("a.torrent", one.url("http"));
    let mut daemon = Daemon::start(hekate(&library, &arguments));
    until(&mut daemon, [1, 0]);
    put("b.torrent", two.url("http"));
    until(&mut daemon, [1, 1]);
    // After a restart the index says it.
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let mut daemon = Daemon::start(hekate(&library, &arguments));
    until(&mut daemon, [1, 1]);
    fs::remove_file(first).unwrap();
    until(&mut daemon, [0, 1]);
    let third = put("c.torrent", one.url("http"));
    until(&mut daemon, [1, 1]);
    fs::remove_file(third).unwrap();
    until(&mut daemon, [0, 1]);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    until(&mut daemon, [0, 0]);
}

#[test]
fn nothing_is_announced_when_trackers_are_turned_off() {
    let library = library();
    let Some(tracker) = real::opentracker(&library.hashes) else {
        return;
    };
    let url = tracker.url("udp");
    let mut daemon = Daemon::start(hekate(&library, &["-t", "--tracker-override", &url]));
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert_eq!(tracker.seeded_by_http(&library.hashes), 0);
}

/// A certificate for localhost that signs itself, and its key. It may be that of a signer.
fn certificate(directory: &Path, is_signer: bool) -> (PathBuf, PathBuf) {
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-addext")
        .arg(match is_signer {
            true => "basicConstraints=critical,CA:TRUE",
            false => "basicConstraints=critical,CA:FALSE",
        })
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    (certificate, key)
}

#[test]
fn certificates_are_verified() {
    let library = library();
    let Some(tracker) = real::opentracker(&library.hashes) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(directory.path(), false);
    let Some(nginx) = real::nginx(&tracker, Some((&certificate, &key))) else {
        return;
    };
    let url = format!("https://localhost:{}/announce", nginx.address.port());
    let empty = directory.path().join("none.pem");
    fs::write(&empty, "").unwrap();
    let arguments = ["--tracker-override", &url];
    let mut command = hekate(&library, &arguments);
    command.env("SSL_CERT_FILE", &empty);
    let mut daemon = Daemon::start(command);
    let line = daemon.wait_for_line("retrying in");
    assert!(
        line.contains("IPv4: its certificate is signed by nobody who is trusted"),
        "{}",
        daemon.log()
    );
    drop(daemon);
    assert_eq!(tracker.seeded_by_http(&library.hashes), 0);
    let mut command = hekate(&library, &arguments);
    command.env("SSL_CERT_FILE", &certificate);
    let mut daemon = Daemon::start(command);
    until_seeded(&tracker, &mut daemon, &library);
}

#[test]
fn a_tracker_that_signs_its_own_certificate_is_trusted_when_that_is_named() {
    let library = library();
    let Some(tracker) = real::opentracker(&library.hashes) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(directory.path(), true);
    let Some(nginx) = real::nginx(&tracker, Some((&certificate, &key))) else {
        return;
    };
    let url = format!("https://localhost:{}/announce", nginx.address.port());
    let mut daemon = Daemon::start(hekate(&library, &["--tracker-override", &url]));
    daemon.wait_for_line("IPv4: its certificate is signed by nobody who is trusted");
    drop(daemon);
    let named = certificate.to_str().unwrap();
    let arguments = ["--tracker-override", &url, "--tracker-certs", named];
    let mut daemon = Daemon::start(hekate(&library, &arguments));
    until_seeded(&tracker, &mut daemon, &library);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    // It is trusted for the names that it is for.
    let url = format!("https://127.0.0.1:{}/announce", nginx.address.port());
    let arguments = ["--tracker-override", &url, "--tracker-certs", named];
    let mut daemon = Daemon::start(hekate(&library, &arguments));
    daemon.wait_for_line("IPv4: its certificate is for other names");
}
