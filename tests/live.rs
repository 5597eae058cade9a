//! A library that changes while it is served, as it is run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha1::{Digest, Sha1};
use support::daemon::Daemon;
use support::leecher::{self, FAST, Leecher, PLAIN};
use support::strace::{self, Injection};
use support::torrent::{Sample, TorrentBuilder};
use support::{poll_until, wait_until};
use tempfile::TempDir;

/// How late a change may be taken up: a promise of the manual.
const PROMPT: Duration = Duration::from_secs(2);

struct Fixture {
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Fixture { directory };
        for name in ["lib", "aside"] {
            fs::create_dir(fixture.path(name)).unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A torrent with its content in a directory.
    fn torrent(&self, directory: &str, seed: u64) -> Sample {
        let builder = TorrentBuilder::new(seed).length(1000 + seed);
        builder.write(&self.path(directory)).unwrap()
    }

    /// Moves a torrent, its content first.
    fn rename(&self, sample: &Sample, directory: &str) {
        for path in [&sample.files[0].path, &sample.metainfo_path] {
            let target = self.path(directory).join(path.file_name().unwrap());
            fs::rename(path, target).unwrap();
        }
    }

    fn seed(&self) -> Daemon {
        self.seed_with(&[])
    }

    fn seed_with(&self, arguments: &[&str]) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command.args(["seed", "-v", "--bind", "127.0.0.1", "--port", "0"]);
        command.args(arguments).arg("--state-dir");
        command.arg(self.path("state")).arg(self.path("lib"));
        Daemon::start(command)
    }

    fn index(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.path("state")).unwrap();
        let index = entries.find_map(|entry| {
            let path = entry.unwrap().path();
            (path.extension()? == "index").then_some(path)
        });
        index.unwrap()
    }
}

/// Whether a handshake for this torrent is answered.
fn is_served(daemon: &Daemon, info_hash: [u8; 20]) -> bool {
    let mut stream = leecher::dial(daemon.address);
    let handshake = leecher::handshake(PLAIN, info_hash, b"-TE0000-abcdefghijkl");
    // The seeder may have gone before all of it is written.
    let _ = stream.write_all(&handshake);
    stream.read_exact(&mut [0; 48]).is_ok()
}

/// Waits until a torrent is served, or is not, no longer than that may take.
fn expect(daemon: &Daemon, sample: &Sample, served: bool) {
    let what = format!("served = {served} of {}", sample.info_hash_hex());
    wait_until(PROMPT, &what, || {
        is_served(daemon, sample.info_hash) == served
    });
}

#[test]
fn a_torrent_renamed_into_the_library_is_served_at_once_and_a_removed_one_is_not() {
    let fixture = Fixture::new();
    let (stays, comes) = (fixture.torrent("lib", 1), fixture.torrent("aside", 2));
    let mut daemon = fixture.seed();
    assert!(!is_served(&daemon, comes.info_hash));
    fixture.rename(&comes, "lib");
    expect(&daemon, &comes, true);
    leecher::download(daemon.address, &comes);
    let mut leecher = Leecher::connect(daemon.address, comes.info_hash, FAST);
    leecher.until_unchoked();
    fs::remove_file(
        fixture
            .path("lib")
            .join(comes.metainfo_path.file_name().unwrap()),
    )
    .unwrap();
    leecher.until_closed();
    expect(&daemon, &comes, false);
    daemon.wait_for_line("was connected for a torrent that is no longer served");
    leecher::download(daemon.address, &stays);
}

#[test]
fn changed_content_withdraws_its_torrent_until_it_is_restored() {
    let fixture = Fixture::new();
    let (changes, stays) = (fixture.torrent("lib", 1), fixture.torrent("lib", 2));
    let mut daemon = fixture.seed();
    let mut leecher = Leecher::connect(daemon.address, changes.info_hash, FAST);
    leecher.until_unchoked();
    let content = fs::read(&changes.files[0].path).unwrap();
    fs::write(&changes.files[0].path, "short").unwrap();
    leecher.until_closed();
    expect(&daemon, &changes, false);
    daemon.wait_for_line("content sample-1 has 5 bytes, not 1001");
    fs::write(&changes.files[0].path, content).unwrap();
    expect(&daemon, &changes, true);
    leecher::download(daemon.address, &changes);
    let aside = fixture.path("aside").join("content");
    fs::rename(&changes.files[0].path, &aside).unwrap();
    expect(&daemon, &changes, false);
    fs::rename(&aside, &changes.files[0].path).unwrap();
    expect(&daemon, &changes, true);
    leecher::download(daemon.address, &stays);
}

#[test]
fn a_moved_in_directory_of_many_torrents_is_one_batch() {
    let fixture = Fixture::new();
    let many: Vec<Sample> = (10..310)
        .map(|seed| fixture.torrent("aside", seed))
        .collect();
    let mut daemon = fixture.seed();
    fs::rename(fixture.path("aside"), fixture.path("lib/many")).unwrap();
    daemon.wait_for_line("300 torrents added, 0 removed: 300 now");
    for sample in &many {
        expect(&daemon, sample, true);
    }
    fs::rename(fixture.path("lib/many"), fixture.path("aside")).unwrap();
    daemon.wait_for_line("0 torrents added, 300 removed: 0 now");
    expect(&daemon, &many[17], false);
}

#[test]
fn a_restart_serves_the_index_and_finds_changes_made_while_stopped() {
    let fixture = Fixture::new();
    let (stays, goes, comes) = (
        fixture.torrent("lib", 1),
        fixture.torrent("lib", 2),
        fixture.torrent("aside", 3),
    );
    fs::write(fixture.path("lib/rubbish.torrent"), "rubbish").unwrap();
    let mut daemon = fixture.seed();
    daemon.wait_for_line("serving 2 torrents");
    daemon.wait_for_line("rubbish.torrent: malformed bencode");
    drop(daemon);
    fixture.rename(&comes, "lib");
    fs::remove_file(&goes.metainfo_path).unwrap();
    let mut daemon = fixture.seed();
    // That is what the index says.
    daemon.wait_for_line("in as many slots as fill the line; 1 refused");
    daemon.wait_for_line("rubbish.torrent: malformed bencode");
    expect(&daemon, &comes, true);
    expect(&daemon, &goes, false);
    leecher::download(daemon.address, &stays);
}

#[test]
fn a_damaged_or_deleted_index_is_made_again() {
    let fixture = Fixture::new();
    let sample = fixture.torrent("lib", 1);
    drop(fixture.seed());
    for damage in ["hekatidx and nothing else", "another file"] {
        fs::write(fixture.index(), damage).unwrap();
        let mut daemon = fixture.seed();
        daemon.wait_for_line(": rebuilding it");
        leecher::download(daemon.address, &sample);
    }
    fs::remove_dir_all(fixture.path("state")).unwrap();
    leecher::download(fixture.seed().address, &sample);
}

#[test]
fn an_index_of_an_earlier_version_is_made_again_without_a_warning() {
    let fixture = Fixture::new();
    let sample = fixture.torrent("lib", 1);
    drop(fixture.seed());
    let new = fs::read(fixture.index()).unwrap();
    // One that is read, and one that is not.
    for version in [3, 2] {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/index/version_3");
        let kept = fs::read(kept).unwrap();
        let (header, body) = kept.split_at(408);
        let mut old = [header, &Sha1::digest(header)].concat();
        old.resize(4096, 0);
        old.extend_from_slice(body);
        old[8] = version;
        fs::write(fixture.index(), old).unwrap();
        let mut daemon = fixture.seed();
        expect(&daemon, &sample, true);
        let log = daemon.log();
        assert!(!log.contains("rebuil") && !log.contains("damaged"), "{log}");
        assert_eq!(fs::read(fixture.index()).unwrap(), new);
    }
}

#[test]
fn torrents_of_a_missing_root_are_withdrawn_and_served_again() {
    let fixture = Fixture::new();
    let samples: Vec<Sample> = (1..6).map(|seed| fixture.torrent("lib", seed)).collect();
    let mut daemon = fixture.seed();
    let mut leecher = Leecher::connect(daemon.address, samples[0].info_hash, FAST);
    leecher.until_unchoked();
    fs::rename(fixture.path("lib"), fixture.path("away")).unwrap();
    leecher.until_closed();
    expect(&daemon, &samples[1], false);
    daemon.wait_for_line("is empty or missing");
    fs::rename(fixture.path("away"), fixture.path("lib")).unwrap();
    for sample in &samples {
        expect(&daemon, sample, true);
    }
    assert_eq!(daemon.count_lines("refused: "), 0);
    drop(daemon);

    // Away from the start on.
    fs::rename(fixture.path("lib"), fixture.path("away")).unwrap();
    fs::create_dir(fixture.path("lib")).unwrap();
    let daemon = fixture.seed();
    expect(&daemon, &samples[1], false);
    fs::remove_dir(fixture.path("lib")).unwrap();
    fs::rename(fixture.path("away"), fixture.path("lib")).unwrap();
    for sample in &samples {
        expect(&daemon, sample, true);
    }
    leecher::download(daemon.address, &samples[2]);
    assert_eq!(daemon.count_lines("refused: "), 0);
}

#[test]
fn a_duplicate_is_served_when_the_served_file_is_removed() {
    let fixture = Fixture::new();
    let first = fixture.torrent("lib/a", 1);
    let second = fixture.torrent("lib/b", 1);
    let mut daemon = fixture.seed();
    // It is one torrent, and nothing is refused.
    daemon.wait_for_line("serving 1 torrents");
    daemon.wait_for_line("; 0 refused");
    fs::remove_file(&first.metainfo_path).unwrap();
    daemon.wait_for_line("1 torrents added, 1 removed: 1 now");
    expect(&daemon, &second, true);
    leecher::download(daemon.address, &second);
    fs::remove_file(&second.metainfo_path).unwrap();
    expect(&daemon, &second, false);
}

#[test]
fn a_rescan_finds_unnoticed_changes_and_a_copied_index_has_another_root() {
    let fixture = Fixture::new();
    let (content, elsewhere) = (fixture.path("content"), fixture.path("elsewhere"));
    let builder = TorrentBuilder::new(1).length(1000);
    let sample = builder.write_apart(&fixture.path("lib"), &content).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let daemon = fixture.seed_with(&["--rescan", "1", "--content", &text(&content)]);
    leecher::download(daemon.address, &sample);
    fs::rename(&sample.files[0].path, fixture.path("aside/content")).unwrap();
    wait_until(leecher::DEADLINE, "it is refused", || {
        !is_served(&daemon, sample.info_hash)
    });
    fs::rename(fixture.path("aside/content"), &sample.files[0].path).unwrap();
    wait_until(leecher::DEADLINE, "it is served again", || {
        is_served(&daemon, sample.info_hash)
    });
    drop(daemon);
    fs::rename(fixture.path("lib"), &elsewhere).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
    command.args(["seed", "-v", "--bind", "127.0.0.1", "--port", "0"]);
    command.arg("--index").arg(fixture.index());
    command.arg("--root").arg(&elsewhere);
    let daemon = Daemon::start(command);
    // The index may say that the content was away.
    expect(&daemon, &sample, true);
    leecher::download(daemon.address, &sample);
}

/// `hekate seed` below strace, which does something to a system call.
fn injected(fixture: &Fixture, injection: &str) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-D", "-f", "-o", "/dev/null", "-e"])
        .arg(format!("inject={injection}"))
        .arg(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "--config", "/dev/null", "--bind", "127.0.0.1"])
        .args(["--port", "0", "--state-dir"])
        .arg(fixture.path("state"))
        .arg(fixture.path("lib"));
    command
}

/// Has a run killed when it makes this system call for the time with this number.
fn kill_at(fixture: &Fixture, call: &str, when: usize) {
    let mut command = injected(fixture, &format!("{call}:signal=KILL:when={when}"));
    let status = command
        .args(["--status", "off"])
        .output()
        .expect("strace is there, as `make test-deps` has it")
        .status;
    assert!(!status.success(), "{call} was not reached");
}

/// The system calls at which a new index takes shape, in their order.
const KILLED_AT: [&str; 3] = ["fsync", "rename", "fsync"];

#[test]
fn a_refresh_that_is_killed_leaves_the_old_index_or_the_new() {
    let fixture = Fixture::new();
    let mut samples = vec![fixture.torrent("lib", 1)];
    drop(fixture.seed());
    for (seed, (number, call)) in (2..).zip(KILLED_AT.iter().enumerate()) {
        samples.push(fixture.torrent("lib", seed));
        let before = fs::read(fixture.index()).unwrap();
        let when = 1 + KILLED_AT[..number]
            .iter()
            .filter(|other| *other == call)
            .count();
        kill_at(&fixture, call, when);
        let after = fs::read(fixture.index()).unwrap();
        assert_eq!(after == before, number < 2, "{call} {when}");
        let index = hekate::library::index::Index::open(&fixture.index()).unwrap();
        index.check().unwrap();
        drop(index);
        let daemon = fixture.seed();
        expect(&daemon, samples.last().unwrap(), true);
    }
}

/// The calls by which bytes come into a new index.
const WRITES: &str = "write,pwrite64,copy_file_range,sendfile";

/// `hekate seed` below strace, which sees what is written to the new index and may do something to it.
fn writing(fixture: &Fixture, new: &Path, injection: Option<&str>, log: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-P"]).arg(new).arg("-o").arg(log);
    command.args(["-e", &format!("trace={WRITES}")]);
    if let Some(injection) = injection {
        command.args(["-e", injection]);
    }
    command
        .arg(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "--config", "/dev/null", "--bind", "127.0.0.1"])
        .args(["--port", "0", "--status", "off", "--state-dir"])
        .arg(fixture.path("state"))
        .arg(fixture.path("lib"));
    command
}

#[test]
fn a_refresh_that_is_killed_at_any_write_leaves_the_old_index() {
    let fixture = Fixture::new();
    fixture.torrent("lib", 1);
    drop(fixture.seed());
    let (index, log) = (fixture.index(), fixture.path("log"));
    let new = index.with_extension("index.new");
    let came = fixture.torrent("lib", 2);
    let before = fs::read(&index).unwrap();
    // One refresh that is left alone says how many writes there are.
    let daemon = Daemon::start(writing(&fixture, &new, None, &log));
    wait_until(Duration::from_secs(20), "the index is refreshed", || {
        fs::read(&index).unwrap() != before
    });
    drop(daemon);
    let said = fs::read_to_string(&log).unwrap();
    fs::write(&index, &before).unwrap();
    let mut killed = 0;
    for call in WRITES.split(',') {
        let begins = format!(" {call}(");
        let count = said.lines().filter(|line| line.contains(&begins)).count();
        for when in 1..=count {
            let injection = format!("inject={call}:signal=KILL:when={when}");
            let output = writing(&fixture, &new, Some(&injection), &log).output();
            let status = output.unwrap().status;
            assert_eq!(status.signal(), Some(9), "{call} {when}: {status}");
            assert!(fs::read(&index).unwrap() == before, "{call} {when}");
            killed += 1;
        }
    }
    assert!(killed > 10, "{said}");
    hekate::library::index::Index::open(&index)
        .unwrap()
        .check()
        .unwrap();
    expect(&fixture.seed(), &came, true);
}

#[test]
fn a_directory_that_is_unreadable_for_a_while_stays_watched() {
    let fixture = Fixture::new();
    let (stays, behind) = (fixture.torrent("lib", 1), fixture.torrent("lib/disk", 2));
    let state = fixture.path("state");
    let arguments = ["--state-dir", state.to_str().unwrap()];
    let mut daemon = strace::seed(&fixture.path("lib"), &arguments);
    expect(&daemon, &behind, true);
    let at = fixture.path("lib/disk");
    let lacking = Injection::begin_at(&daemon, &at, "openat", "error=EMFILE");
    daemon.signal("HUP");
    daemon.wait_for_line("rescan postponed");
    assert!(is_served(&daemon, behind.info_hash));
    lacking.end();
    daemon.wait_for_new_line("reloaded: 2 torrents, 2 before, 0 refused");
    let failing = Injection::begin_at(&daemon, &at, "openat", "error=EIO");
    daemon.signal("HUP");
    // The directory, and what is kept of it.
    daemon.wait_for_new_line("reloaded: 1 torrents, 2 before, 2 refused");
    assert!(is_served(&daemon, stays.info_hash));
    // Who asks for it is refused, and has its file looked at again.
    assert!(!is_served(&daemon, behind.info_hash));
    failing.end();
    daemon.signal("HUP");
    daemon.wait_for_new_line("reloaded: 2 torrents, ");
    assert!(is_served(&daemon, behind.info_hash));
}

#[test]
fn a_killed_first_index_is_complete_or_absent() {
    for (call, when, exists) in [
        ("fsync", 1, false),
        ("rename", 1, false),
        ("fsync", 2, true),
    ] {
        let fixture = Fixture::new();
        let samples = [fixture.torrent("lib", 1), fixture.torrent("lib", 2)];
        kill_at(&fixture, call, when);
        let names = |fixture: &Fixture| -> Vec<PathBuf> {
            let entries = fs::read_dir(fixture.path("state")).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let is_index = |path: &&PathBuf| path.extension().is_some_and(|name| name == "index");
        let indexes = names(&fixture).iter().filter(is_index).count();
        assert_eq!(indexes, usize::from(exists), "{call} {when}");
        if exists {
            let index = hekate::library::index::Index::open(&fixture.index()).unwrap();
            index.check().unwrap();
        }
        let daemon = fixture.seed();
        for sample in &samples {
            expect(&daemon, sample, true);
            leecher::download(daemon.address, sample);
        }
        drop(daemon);
        if !exists {
            // What the first had begun is gone. The refresh of an index that was there may have
            // been at work just now.
            let left = names(&fixture);
            assert!(left.iter().all(|path| is_index(&path)), "{left:?}");
        }
    }
}

/// What the status listener at a Unix socket answers, once it does.
fn ask(socket: &Path, path: &str) -> String {
    let mut stream = poll_until(Duration::from_secs(20), || UnixStream::connect(socket));
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_status_shows_the_progress_of_the_first_index() {
    let fixture = Fixture::new();
    let samples: Vec<Sample> = (1..4).map(|seed| fixture.torrent("lib", seed)).collect();
    // All files are in it when it waits for the disk.
    let mut command = injected(&fixture, "fsync:delay_enter=5000000:when=1");
    let socket = fixture.path("status");
    command.arg("--status");
    command.arg(format!("unix:{}", socket.display()));
    let started = std::thread::spawn(|| Daemon::start(command));
    let expected = r#""phase":"indexing","indexed_files":3,"#;
    poll_until(Duration::from_secs(20), || {
        let status = ask(&socket, "/status.json");
        status.contains(expected).then_some(()).ok_or(status)
    });
    let ready = ask(&socket, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("\r\n\r\nindexing\n"));
    assert!(ask(&socket, "/torrents?limit=5").starts_with("HTTP/1.1 503 "));
    assert!(ask(&socket, "/healthz").starts_with("HTTP/1.1 200 "));
    let text = ask(&socket, "/status.txt");
    assert!(text.contains(" is indexing, 3 files so far, up "), "{text}");
    let daemon = started.join().unwrap();
    assert!(ask(&socket, "/readyz").starts_with("HTTP/1.1 200 "));
    let expected = r#""phase":"serving","indexed_files":null,"#;
    assert!(ask(&socket, "/status.json").contains(expected));
    for sample in &samples {
        expect(&daemon, sample, true);
    }
}

/// All info-hashes that are listed, by the page.
fn listed(socket: &Path) -> Vec<String> {
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let answer = ask(socket, &format!("/torrents?limit=4{after}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let hashes = body.split("{\"info_hash\":\"").skip(1);
        listed.extend(hashes.map(|hash| hash[..40].to_owned()));
        match body.split_once("\"next\":\"") {
            Some((_, next)) => after = format!("&after={}", &next[..40]),
            None => return listed,
        }
    }
}

#[test]
fn every_served_torrent_is_listed() {
    let fixture = Fixture::new();
    let mut samples: Vec<Sample> = (1..8).map(|seed| fixture.torrent("lib", seed)).collect();
    let socket = fixture.path("status");
    let daemon = fixture.seed_with(&["--status", &format!("unix:{}", socket.display())]);
    // Some are in the index, some have come, one has gone.
    samples.extend((8..11).map(|seed| fixture.torrent("aside", seed)));
    for sample in &samples[7..] {
        fixture.rename(sample, "lib");
        expect(&daemon, sample, true);
    }
    let gone = samples.remove(2);
    fixture.rename(&gone, "aside");
    expect(&daemon, &gone, false);
    let mut wanted: Vec<String> = samples.iter().map(Sample::info_hash_hex).collect();
    wanted.sort();
    // The one that has gone cannot be loaded, and is refused, before it is known to have gone.
    poll_until(PROMPT, || {
        let listed = listed(&socket);
        (listed == wanted)
            .then_some(())
            .ok_or(format!("{listed:?} {wanted:?}"))
    });
    let name = samples[0].metainfo_path.file_name().unwrap();
    let metainfo = fixture.path("lib").join(name);
    let metainfo = format!("\"metainfo\":\"{}\"", metainfo.display());
    assert!(ask(&socket, "/torrents").contains(&metainfo));
    assert!(ask(&socket, "/torrents?after=xyz").starts_with("HTTP/1.1 400 "));
}

#[test]
fn torrents_added_while_descriptors_are_exhausted_are_examined_later() {
    let fixture = Fixture::new();
    let stays = fixture.torrent("lib", 1);
    let comes = fixture.torrent("aside", 2);
    let mut daemon = fixture.seed();
    leecher::download(daemon.address, &stays);
    daemon.leave_no_descriptor();
    fixture.rename(&comes, "lib");
    // One that is served is touched as well, and must not be withdrawn for that.
    let touched = fs::read(&stays.metainfo_path).unwrap();
    fs::write(&stays.metainfo_path, touched).unwrap();
    daemon.wait_for_line("rescan postponed");
    daemon.limit_descriptors(1024);
    wait_until(leecher::DEADLINE, "it is inspected again", || {
        is_served(&daemon, comes.info_hash)
    });
    leecher::download(daemon.address, &stays);
}

#[test]
fn a_torrent_stays_when_its_content_cannot_be_opened_for_lack_of_descriptors() {
    let fixture = Fixture::new();
    let sample = fixture.torrent("lib", 1);
    let mut daemon = strace::seed(&fixture.path("lib"), &[]);
    let content = &sample.files[0].path;
    let injection = Injection::begin_at(&daemon, content, "openat", "error=EMFILE");
    // A peer asks for it, and a change has it looked at.
    assert!(!is_served(&daemon, sample.info_hash));
    daemon.wait_for_line("not served: ");
    fs::write(&sample.metainfo_path, &sample.metainfo).unwrap();
    daemon.wait_for_line("rescan postponed");
    injection.end();
    wait_until(leecher::DEADLINE, "it is inspected again", || {
        is_served(&daemon, sample.info_hash)
    });
    leecher::download(daemon.address, &sample);
    let log = daemon.log();
    assert!(!log.contains("0 torrents added, 1 removed"), "{log}");
}

/// Links as tools for cross-seeding and git-annex make them: to files and directories elsewhere, and to other
/// links.
#[test]
fn links_to_any_named_directory_are_served_and_heal() {
    let fixture = Fixture::new();
    let samples: Vec<Sample> = (1..=4).map(|seed| fixture.torrent("aside", seed)).collect();
    let name = |sample: &Sample| sample.files[0].path.file_name().unwrap().to_owned();
    let at = |sample: &Sample| fixture.path("lib/farm").join(name(sample));
    for directory in ["lib/farm", "lib/.git/annex/objects", "lib/links", "unnamed"] {
        fs::create_dir_all(fixture.path(directory)).unwrap();
    }
    // An absolute link to a file, by way of another.
    symlink(&samples[0].files[0].path, fixture.path("lib/links/one")).unwrap();
    symlink("../links/one", at(&samples[0])).unwrap();
    // A link out of the directory of the torrent file, below the library.
    let object = fixture.path("lib/.git/annex/objects/SHA256E-s1002");
    fs::rename(&samples[1].files[0].path, &object).unwrap();
    symlink("../.git/annex/objects/SHA256E-s1002", at(&samples[1])).unwrap();
    // A link to a directory, in which both are.
    symlink(fixture.path("aside"), fixture.path("lib/whole")).unwrap();
    // A link to a directory that nobody has named.
    let unnamed = fixture.path("unnamed/file");
    fs::rename(&samples[3].files[0].path, &unnamed).unwrap();
    symlink(&unnamed, at(&samples[3])).unwrap();
    for sample in [&samples[0], &samples[1], &samples[3]] {
        let torrent = sample.metainfo_path.file_name().unwrap();
        fs::rename(
            &sample.metainfo_path,
            fixture.path("lib/farm").join(torrent),
        )
        .unwrap();
    }
    let aside = fixture.path("aside");
    let mut daemon = fixture.seed_with(&["--content-root", aside.to_str().unwrap()]);
    for (sample, served) in samples.iter().zip([true, true, true, false]) {
        expect(&daemon, sample, served);
    }
    let refused = format!(
        "is a link to {}, which is below no directory",
        unnamed.canonicalize().unwrap().display()
    );
    let line = daemon.wait_for_line(&refused);
    assert!(line.contains("--content-root"), "{line}");

    // What a link leads to goes and returns: found when a peer asks, or when the link is examined again.
    fs::rename(&object, fixture.path("unnamed/object")).unwrap();
    fs::remove_file(at(&samples[1])).unwrap();
    symlink("../.git/annex/objects/SHA256E-s1002", at(&samples[1])).unwrap();
    expect(&daemon, &samples[1], false);
    daemon.wait_for_line("is a link to ../.git/annex/objects/SHA256E-s1002, which is missing");
    fs::rename(fixture.path("unnamed/object"), &object).unwrap();
    // Twice the pause before it is examined for the first time.
    wait_until(
        Duration::from_secs(10),
        "the link leads somewhere again",
        || is_served(&daemon, samples[1].info_hash),
    );
}

#[test]
fn content_is_found_in_each_directory_that_is_named() {
    let fixture = Fixture::new();
    for directory in ["one", "two", "films", "lib/films", "flat"] {
        fs::create_dir_all(fixture.path(directory)).unwrap();
    }
    let write = |seed: u64, torrents: &str, content: &str| {
        let builder = TorrentBuilder::new(seed)
            .file("a", 1000 + seed)
            .file("b", 7);
        builder
            .write_apart(&fixture.path(torrents), &fixture.path(content))
            .unwrap()
    };
    let first = write(1, "lib", "one");
    let second = write(2, "lib", "two");
    let film = write(3, "lib/films", "films");
    let elsewhere = write(4, "lib/films", "two");
    let flat = write(5, "lib", "flat");
    // An incomplete copy in the directory that is tried first.
    fs::create_dir(fixture.path("one/sample-2")).unwrap();
    fs::write(fixture.path("one/sample-2/a"), "half").unwrap();
    for name in ["a", "b"] {
        fs::rename(
            fixture.path("flat/sample-5").join(name),
            fixture.path("flat").join(name),
        )
        .unwrap();
    }
    let at = |name: &str| fixture.path(name).to_str().unwrap().to_owned();
    let pair = format!("{}={}", at("lib/films"), at("films"));
    let options = [
        "--content",
        &at("one"),
        "--content",
        &at("two"),
        "--content",
        &at("flat"),
        "--content-for",
        &pair,
    ];
    let daemon = fixture.seed_with(&options);
    for (sample, served) in [
        (&first, true),
        (&second, true),
        (&film, true),
        (&elsewhere, false),
        (&flat, false),
    ] {
        expect(&daemon, sample, served);
    }
    drop(daemon);
    let daemon = fixture.seed_with(&[&options[..], &["--no-subfolder"]].concat());
    for (sample, served) in [
        (&second, true),
        (&film, true),
        (&elsewhere, false),
        (&flat, true),
    ] {
        expect(&daemon, sample, served);
    }
}
