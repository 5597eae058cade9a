//! Trackers that may not be announced to (`--trackers`), with servers that count what reaches them.
//!
//! Owns which request may be sent where. It must not know where that is decided.

use std::process::Command;

use hekate::tracker::access::{Access, AccessMode};
use hekate::tracker::announcer::AnnouncerConfig;
use hekate::tracker::lists::MAX_TRACKERS;

use crate::driver::{Driver, config, counters};
use crate::scripted::{Http, Udp, accepted, honest};
use crate::support::daemon::Daemon;
use crate::support::torrent::TorrentBuilder;

fn allowing(mode: AccessMode, named: &[String]) -> AnnouncerConfig {
    let named = named.iter().map(|host| host.parse().unwrap());
    AnnouncerConfig {
        access: Access {
            mode,
            named: named.collect(),
        },
        ..config()
    }
}

fn good() -> (Http, String, String) {
    let good = Http::answering(accepted());
    let port = good.address.port();
    let url = format!("http://localhost:{port}/announce");
    (good, url, format!("localhost:{port}"))
}

/// Announces one torrent to a tracker at a host that is named, and to some that are not allowed.
fn only_the_named_one_is_asked(mode: AccessMode, others: &[String]) {
    let (good, url, host) = good();
    let mut driver = Driver::new(allowing(mode, &[host]));
    let mut urls = vec![&*url];
    urls.extend(others.iter().map(String::as_str));
    driver.add(0..3, &urls);
    driver.until("the refusal of all others", |announcer| {
        let figures = announcer.figures(hekate::timers::Time(0));
        figures.not_allowed == others.len() as u64 && counters(announcer).accepted == 3
    });
    // Nothing is sent later either.
    let until = driver.now().after(300);
    while driver.now() < until {
        driver.turn(until);
    }
    let counters = counters(&driver.announcer);
    assert_eq!((counters.sent, counters.failed), (3, 0), "{counters:?}");
    assert_eq!(good.requests(), 3);
}

#[test]
fn no_special_address_is_asked_by_any_protocol() {
    let (http, udp) = (
        Http::answering(accepted()),
        Udp::new(|socket, from, packet| {
            socket.send_to(&honest(packet, 1800), from).unwrap();
        }),
    );
    let (port, udp_port) = (http.address.port(), udp.address.port());
    // The last two are 127.0.0.1 for the system's resolver.
    let others = [
        format!("http://127.0.0.1:{port}/shutdown"),
        format!("https://127.0.0.1:{port}/announce"),
        format!("udp://127.0.0.1:{udp_port}/announce"),
        format!("udp://localhost:{udp_port}/announce"),
        format!("http://localhost:{port}/announce"),
        format!("http://[::1]:{port}/announce"),
        format!("http://[::ffff:127.0.0.1]:{port}/announce"),
        format!("http://[64:ff9b::7f00:1]:{port}/announce"),
        format!("http://2130706433:{port}/announce"),
        format!("http://0x7f.1:{port}/announce"),
    ];
    only_the_named_one_is_asked(AccessMode::Public, &others);
    assert_eq!((http.requests(), udp.packets()), (0, 0));
}

#[test]
fn with_a_list_no_other_host_is_asked_or_resolved() {
    let other = Http::answering(accepted());
    let port = other.address.port();
    let others = [
        format!("http://127.0.0.1:{port}/announce"),
        format!("http://localhost:{port}/announce"),
        // A resolver would take a while to find that there is none.
        "http://tracker.invalid/announce".to_owned(),
    ];
    only_the_named_one_is_asked(AccessMode::List, &others);
    assert_eq!(other.requests(), 0);
}

#[test]
fn hosts_that_are_not_named_are_no_trackers_and_their_torrents_are_announced_to_nobody() {
    let (good, url, host) = good();
    let mut driver = Driver::new(allowing(AccessMode::List, &[host]));
    let others: Vec<String> = (0..MAX_TRACKERS)
        .map(|number| format!("http://t{number}.invalid/announce"))
        .collect();
    let mut urls: Vec<&str> = others.iter().map(String::as_str).collect();
    driver.add(0..2, &urls);
    urls.push(&url);
    driver.add(2..5, &urls);
    driver.accepted(3);
    assert_eq!(driver.announcer.figures(driver.now()).unannounced, 2);
    assert_eq!(good.requests(), 3);
}

#[test]
fn a_redirect_leads_only_where_a_torrent_may() {
    for mode in [AccessMode::Public, AccessMode::List] {
        let other = Http::answering(accepted());
        let location = format!("http://127.0.0.1:{}/shutdown", other.address.port());
        let redirect =
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let tracker = Http::answering(redirect);
        let host = format!("localhost:{}", tracker.address.port());
        let url = format!("http://{host}/announce");
        let mut driver = Driver::new(allowing(mode, &[host]));
        driver.add(0..1, &[&url]);
        driver.until("the dead end", |announcer| counters(announcer).failed == 1);
        let figures = driver.announcer.figures(driver.now());
        let trouble = figures.named[0].trouble.clone().unwrap().0;
        assert!(trouble.contains("is not allowed: its"), "{trouble}");
        assert_eq!((tracker.requests(), other.requests()), (1, 0));
        // By default the same redirect is followed.
        let mut driver = Driver::new(config());
        driver.add(0..1, &[&url]);
        driver.accepted(1);
        assert_eq!(other.requests(), 1);
    }
}

#[test]
fn torrents_whose_trackers_are_not_allowed_are_listed_as_announced_to_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let torrent = TorrentBuilder::new(0).announce(&["http://a.example/", "http://10.0.0.1/"]);
    torrent.write(directory.path()).unwrap();
    for (mode, host, is_announced) in [
        ("any", "b.example", true),
        ("public", "b.example", true),
        ("list", "b.example", false),
        ("list", "10.0.0.1", true),
    ] {
        let listed = Command::new(env!("CARGO_BIN_EXE_hekate"))
            .args(["seed", "--list", "--config", "/dev/null"])
            .args(["--trackers", mode, "--tracker-host", host])
            .arg(directory.path())
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let is_nobody = listed.contains("announced to nobody: ");
        assert_eq!(is_nobody, !is_announced, "{mode}: {listed}");
    }
}

#[test]
fn the_tracker_that_replaces_all_others_is_always_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let torrent = TorrentBuilder::new(0).announce(&["http://a.invalid/"]);
    torrent.write(directory.path()).unwrap();
    for mode in ["public", "list"] {
        let tracker = Http::answering(accepted());
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command
            .args(["seed", "--bind", "127.0.0.1", "--port", "0"])
            .args(["--trackers", mode, "--tracker-override", &tracker.url()])
            .arg(directory.path());
        let mut daemon = Daemon::start(command);
        daemon.wait_for_line("answers; it has 1 torrents");
        daemon.signal("TERM");
        assert!(daemon.wait().success());
    }
}

#[test]
fn a_daemon_says_once_which_torrent_names_a_tracker_that_is_not_allowed() {
    let (good, allowed, host) = good();
    let other = Http::answering(accepted());
    let by_name = other.url().replace("127.0.0.1", "localhost");
    let directory = tempfile::tempdir().unwrap();
    let mut hashes = Vec::new();
    for seed in 0..3 {
        let torrent = TorrentBuilder::new(seed).name(format!("{seed}")).length(1);
        let torrent = torrent.announce(&[&other.url(), &by_name, &allowed]);
        hashes.push(torrent.write(directory.path()).unwrap().info_hash_hex());
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command
        .args(["seed", "--bind", "127.0.0.1", "--port", "0"])
        .args(["--trackers", "public", "--tracker-host", &host])
        .arg(directory.path());
    let mut daemon = Daemon::start(command);
    for host in ["127.0.0.1", "localhost"] {
        let port = other.address.port();
        let line = format!("tracker http://{host}:{port}");
        let line = daemon.wait_for_line(&line);
        assert!(hashes.iter().any(|hash| line.contains(hash)), "{line}");
        let why = "is not allowed: its address 127.0.0.1 is not public";
        assert!(line.ends_with(why), "{line}");
    }
    daemon.wait_for_line("answers; it has 3 torrents");
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert_eq!(daemon.count_lines("is not allowed"), 2, "{}", daemon.log());
    assert!(good.requests() > 0);
    assert_eq!(other.requests(), 0);
}
