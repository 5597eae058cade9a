//! Unmodified clients download a whole torrent from hekate, to a byte-identical copy.
//!
//! Owns: the list of clients, the torrent, the order of events in one proof. Each client runs alone
//! in a sandbox and finds the seeder through a real opentracker; where one cannot, `commands` says
//! why. `make test-deps` installs them all; `HEKATE_SKIP_MISSING_CLIENTS=1` passes over those that
//! are not there.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a proof fails by panicking"
)]

#[path = "clients/commands.rs"]
mod commands;
#[path = "clients/needs.rs"]
mod needs;
#[path = "clients/sandbox.rs"]
mod sandbox;
#[path = "clients/scene.rs"]
mod scene;
mod support;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use commands::{
    aria2, libtorrent, libtorrent_over_ipv6, qbittorrent, rtorrent, transmission, webtorrent,
    webtorrent_from_magnet,
};
use needs::Need::{NodeWebtorrent, Program, PythonLibtorrent};
use sandbox::{SEEDER, SEEDER_V6};
use scene::{Client, Seeder, Task, Tracker};
use support::torrent::{Sample, TorrentBuilder};

/// Of the torrent, and so of the directory that appears.
const NAME: &str = "whole – ünï 文字";

/// A test for each line: its name, what it needs, and the proof with what it is about.
macro_rules! proofs {
    ($($name:ident [$($need:expr),*] $prove:ident($($argument:expr),*);)*) => {
        $(
            #[test]
            fn $name() {
                if needs::are_met(stringify!($name), &[$($need),*]) {
                    sandbox::run(stringify!($name), |scene| $prove(scene, $($argument),*));
                }
            }
        )*
    };
}

proofs! {
    aria2_torrent [Program("aria2c")] prove(SEEDER, |task| aria2(task, &task.torrent()));
    aria2_magnet [Program("aria2c")] prove(SEEDER, |task| aria2(task, &task.magnet));
    libtorrent_torrent [PythonLibtorrent] prove(SEEDER, |task| libtorrent(task, &task.torrent()));
    libtorrent_magnet [PythonLibtorrent] prove(SEEDER, |task| libtorrent(task, &task.magnet));
    libtorrent_ipv6 [PythonLibtorrent] prove(SEEDER_V6, libtorrent_over_ipv6);
    qbittorrent_torrent [Program("qbittorrent-nox")] prove(SEEDER, |task| qbittorrent(task, &task.torrent()));
    qbittorrent_magnet [Program("qbittorrent-nox")] prove(SEEDER, |task| qbittorrent(task, &task.magnet));
    rtorrent_torrent [Program("rtorrent")] prove(SEEDER, |task| rtorrent(task, &task.torrent()));
    transmission_torrent [Program("transmission-cli")] prove(SEEDER, |task| transmission(task, &task.torrent()));
    webtorrent_torrent [Program("node"), NodeWebtorrent] prove(SEEDER, |task| webtorrent(task, &task.torrent()));
    webtorrent_magnet [Program("node"), NodeWebtorrent] prove(SEEDER, webtorrent_from_magnet);
}

proofs! {
    aria2_torrent_encrypted [Program("aria2c")] prove_encrypted(|task| aria2(task, &task.torrent()));
    aria2_magnet_encrypted [Program("aria2c")] prove_encrypted(|task| aria2(task, &task.magnet));
    libtorrent_torrent_encrypted [PythonLibtorrent] prove_encrypted(|task| libtorrent(task, &task.torrent()));
    libtorrent_magnet_encrypted [PythonLibtorrent] prove_encrypted(|task| libtorrent(task, &task.magnet));
    qbittorrent_torrent_encrypted [Program("qbittorrent-nox")] prove_encrypted(|task| qbittorrent(task, &task.torrent()));
    qbittorrent_magnet_encrypted [Program("qbittorrent-nox")] prove_encrypted(|task| qbittorrent(task, &task.magnet));
    rtorrent_torrent_encrypted [Program("rtorrent")] prove_encrypted(|task| rtorrent(task, &task.torrent()));
    transmission_torrent_encrypted [Program("transmission-cli")] prove_encrypted(|task| transmission(task, &task.torrent()));
    transmission_magnet_encrypted [Program("transmission-cli")] prove_encrypted(|task| transmission(task, &task.magnet));
}

/// One proof that a client downloads by encrypted connections only.
fn prove_encrypted(scene: &Path, client: impl FnOnce(&Task) -> Client) {
    let (library, sample, task) = lay_out(scene, &whole_torrent());
    let task = Task {
        requires_encryption: true,
        ..task
    };
    let mut tracker = Tracker::start(&sample, scene);
    tracker.takes(&sample);
    let mut seeder = Seeder::start_with(&library, scene, SEEDER, &["--encryption", "require"]);
    tracker.knows_a_seed(&sample);
    scene::download(
        &task,
        client(&task),
        &library.join(NAME),
        &mut [&mut seeder.0, &mut tracker.0],
    );
}

/// A row of the table for each line: the client's name there, what it needs, how it is asked for its version, what
/// it is given, and its command; at its default settings and with encryption required.
macro_rules! interop {
    ($($row:literal $source:literal $default:ident $required:ident [$($need:expr),*] $version:expr, $command:expr;)*) => {
        $(
            #[test]
            #[ignore = "make interop"]
            fn $default() {
                if needs::are_met(stringify!($default), &[$($need),*]) {
                    let row = [$row, $version, "default", $source];
                    sandbox::run(stringify!($default), |scene| measure(scene, stringify!($default), row, $command));
                }
            }

            #[test]
            #[ignore = "make interop"]
            fn $required() {
                if needs::are_met(stringify!($required), &[$($need),*]) {
                    let row = [$row, $version, "encryption required", $source];
                    sandbox::run(stringify!($required), |scene| measure(scene, stringify!($required), row, $command));
                }
            }
        )*
    };
}

interop! {
    "aria2" "torrent" interop_aria2_torrent interop_aria2_torrent_encrypted
        [Program("aria2c")] "aria2c --version | head -1", |task| aria2(task, &task.torrent());
    "aria2" "magnet" interop_aria2_magnet interop_aria2_magnet_encrypted
        [Program("aria2c")] "aria2c --version | head -1", |task| aria2(task, &task.magnet);
    "libtorrent" "torrent" interop_libtorrent_torrent interop_libtorrent_torrent_encrypted
        [PythonLibtorrent] LIBTORRENT_VERSION, |task| libtorrent(task, &task.torrent());
    "libtorrent" "magnet" interop_libtorrent_magnet interop_libtorrent_magnet_encrypted
        [PythonLibtorrent] LIBTORRENT_VERSION, |task| libtorrent(task, &task.magnet);
    "qBittorrent" "torrent" interop_qbittorrent_torrent interop_qbittorrent_torrent_encrypted
        [Program("qbittorrent-nox")] "qbittorrent-nox --version", |task| qbittorrent(task, &task.torrent());
    "qBittorrent" "magnet" interop_qbittorrent_magnet interop_qbittorrent_magnet_encrypted
        [Program("qbittorrent-nox")] "qbittorrent-nox --version", |task| qbittorrent(task, &task.magnet);
    "rtorrent" "torrent" interop_rtorrent_torrent interop_rtorrent_torrent_encrypted
        [Program("rtorrent")] "rtorrent -h | head -1", |task| rtorrent(task, &task.torrent());
    "rtorrent" "magnet" interop_rtorrent_magnet interop_rtorrent_magnet_encrypted
        [Program("rtorrent")] "rtorrent -h | head -1", |task| rtorrent(task, &task.magnet);
    "Transmission" "torrent" interop_transmission_torrent interop_transmission_torrent_encrypted
        [Program("transmission-cli")] TRANSMISSION_VERSION, |task| transmission(task, &task.torrent());
    "Transmission" "magnet" interop_transmission_magnet interop_transmission_magnet_encrypted
        [Program("transmission-cli")] TRANSMISSION_VERSION, |task| transmission(task, &task.magnet);
}

const LIBTORRENT_VERSION: &str =
    "/usr/bin/python3 -c 'import libtorrent; print(libtorrent.__version__)'";
const TRANSMISSION_VERSION: &str = "transmission-cli --version 2>&1";

/// Measures one client and writes its row, which `tests/tools/interop.py` puts into the table.
fn measure(
    scene: &Path,
    name: &str,
    [client, version, setting, source]: [&str; 4],
    command: impl FnOnce(&Task) -> Client,
) {
    let (library, sample, task) = lay_out(scene, &whole_torrent());
    let task = Task {
        requires_encryption: setting != "default",
        utp: true,
        ..task
    };
    let mut tracker = Tracker::start(&sample, scene);
    tracker.takes(&sample);
    let seeder = Seeder::start(&library, scene, SEEDER);
    tracker.knows_a_seed(&sample);
    let times = scene::measure(&task, command(&task), &library.join(NAME));
    drop(seeder);
    let asked = Command::new("sh").args(["-c", version]).output().unwrap();
    let printed = String::from_utf8_lossy(&asked.stdout).into_owned();
    let is_version =
        |word: &&str| word.contains('.') && word.contains(|c: char| c.is_ascii_digit());
    let version = printed.split_whitespace().find(is_version);
    let version = version
        .unwrap_or("?")
        .trim_matches(|c: char| !c.is_ascii_digit());
    let seconds = [times.contact, times.first, times.last].map(|time| {
        time.map_or("none".to_owned(), |time| {
            format!("{:.2}", time.as_secs_f64())
        })
    });
    let row = format!(
        "{client}|{version}|{setting}|{source}|{}\n",
        seconds.join("|")
    );
    let rows = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
    fs::create_dir_all(&rows).unwrap();
    fs::write(rows.join(name), row).unwrap();
}

#[test]
fn libtorrent_gets_all_but_a_bad_piece_and_that_when_it_is_mended() {
    let name = "libtorrent_gets_all_but_a_bad_piece_and_that_when_it_is_mended";
    if needs::are_met(name, &[PythonLibtorrent]) {
        sandbox::run(name, prove_lazily);
    }
}

/// A byte of the large file is wrong: the client gets every other piece and never that one, until the
/// byte is right.
fn prove_lazily(scene: &Path) {
    let (library, sample, task) = lay_out(scene, &whole_torrent());
    let spoilt = library.join(NAME).join("nested/deeper/large.bin");
    let right = fs::read(&spoilt).unwrap();
    let mut wrong = right.clone();
    let middle = wrong.len() / 2;
    wrong
        .iter_mut()
        .skip(middle)
        .take(1)
        .for_each(|byte| *byte ^= 1);
    fs::write(&spoilt, &wrong).unwrap();
    let mut seeder = Seeder::start_with(&library, scene, SEEDER, &["--verify", "lazy", "-t"]);
    let copy = task.downloads.join(NAME);
    let piece = sample.piece_length as usize;
    let mut client = scene::start(&task, commands::libtorrent_from_peer(&task));
    let same_but_for_one = || {
        let copied = fs::read(copy.join("nested/deeper/large.bin")).unwrap_or_default();
        let differ = copied.iter().zip(&right).filter(|(a, b)| a != b).count();
        copied.len() == right.len() && differ <= piece
    };
    client.until("all but one piece", &mut seeder.0, same_but_for_one);
    let log = || fs::read_to_string(scene.join("seeder.log")).unwrap();
    client.until("the piece is named", &mut seeder.0, || {
        log().contains(" is bad: ")
    });
    // A client says so when it was sent a piece that is not what its hash says.
    let log = fs::read_to_string(task.home.join("client.log")).unwrap();
    assert!(!log.contains("hash_failed"), "{log}");
    fs::write(&spoilt, &right).unwrap();
    // It asks for the piece again and again until it is let go, and then rests for a minute.
    drop(client);
    let mut client = scene::start(&task, commands::libtorrent_from_peer(&task));
    client.until("the whole", &mut seeder.0, || {
        fs::read(copy.join("nested/deeper/large.bin")).is_ok_and(|copied| copied == right)
    });
}

/// A library with one torrent, and what a client is to do.
fn lay_out(scene: &Path, builder: &TorrentBuilder) -> (PathBuf, Sample, Task) {
    let [library, home, downloads] = ["library", "client", "downloads"].map(|name| {
        let directory = scene.join(name);
        fs::create_dir(&directory).expect("the scene is writable");
        directory
    });
    let sample = builder.write(&library).expect("the library is writable");
    let task = Task {
        home,
        downloads,
        torrent: sample.metainfo_path.clone(),
        magnet: scene::magnet(&sample),
        requires_encryption: false,
        utp: false,
    };
    (library, sample, task)
}

/// The whole of one proof, inside its sandbox.
fn prove(scene: &Path, seeder_address: IpAddr, client: impl FnOnce(&Task) -> Client) {
    let (library, sample, task) = lay_out(scene, &whole_torrent());
    let mut tracker = Tracker::start(&sample, scene);
    tracker.takes(&sample);
    let mut seeder = Seeder::start(&library, scene, seeder_address);
    // Debian's opentracker knows only IPv4.
    if seeder_address.is_ipv4() {
        tracker.knows_a_seed(&sample);
    }
    scene::download(
        &task,
        client(&task),
        &library.join(NAME),
        &mut [&mut seeder.0, &mut tracker.0],
    );
}

proofs! {
    aria2_is_called [Program("aria2c")] prove_called(false, |task| aria2(task, &task.torrent()));
    aria2_is_called_encrypted [Program("aria2c")] prove_called(true, |task| aria2(task, &task.torrent()));
    libtorrent_is_called [PythonLibtorrent] prove_called(false, |task| libtorrent(task, &task.torrent()));
    libtorrent_is_called_encrypted [PythonLibtorrent] prove_called(true, |task| libtorrent(task, &task.torrent()));
}

/// One proof that a client is called which cannot call: it comes first, and the seeder then tells
/// the tracker a port where nobody listens. If it requires encryption, it closes the first call.
fn prove_called(scene: &Path, requires_encryption: bool, client: impl FnOnce(&Task) -> Client) {
    let (library, sample, task) = lay_out(scene, &whole_torrent());
    let task = Task {
        requires_encryption,
        ..task
    };
    let mut tracker = Tracker::start(&sample, scene);
    tracker.takes(&sample);
    std::thread::scope(|threads| {
        let seeder = threads.spawn(|| {
            tracker.knows_a_leecher(&sample);
            let arguments = ["--connect", "all", "--announce-port", "9"];
            Seeder::start_with(&library, scene, SEEDER, &arguments)
        });
        scene::download(&task, client(&task), &library.join(NAME), &mut []);
        drop(seeder.join());
    });
}

proofs! {
    what_libtorrent_calls_files_is_found [PythonLibtorrent] prove_found(|task| libtorrent(task, &task.torrent()), None);
    what_qbittorrent_calls_files_is_found [Program("qbittorrent-nox")] prove_found(|task| qbittorrent(task, &task.torrent()), Some("qBittorrent/data/BT_backup"));
    what_transmission_calls_files_is_found [Program("transmission-cli")] prove_found(|task| transmission(task, &task.torrent()), Some("config/torrents"));
}

/// One proof that a torrent whose files cannot be called what they are called is served from what the client
/// made of it, and from the torrent files that it keeps, if it keeps some: in `torrents` below its home. If it
/// keeps none, the torrent has one path twice: qBittorrent and Transmission have one file for both, and never
/// complete it.
fn prove_found(scene: &Path, client: impl FnOnce(&Task) -> Client, torrents: Option<&str>) {
    let builder = TorrentBuilder::new(52)
        .name("Who? \"AC:DC\"")
        .announce(&[&scene::announce_url()]);
    let mut builder = builder
        .file_called(&["a:b?.txt"], "a:b?.txt", 20_000)
        .file_called(&["AC/DC", "\\n/o.txt"], "AC_DC/\\n_o.txt", 20_001)
        .file_called(&["", "example.mkv"], "example.mkv", 20_002)
        .file_called(&["..", "up", "."], "up", 20_003)
        .file_called(&[" lead and trail. "], " lead and trail. ", 20_004)
        .file_called(&["aux.c"], "aux.c", 20_005)
        .file_called(&["\u{202e}fdp\n"], "\u{202e}fdp\n", 20_006)
        .file_called(&["same.txt"], "same.txt", 20_007)
        .file_called(&["SAME.txt"], "SAME.txt", 20_008)
        .file_called(&["directory", "e\u{301}"], "directory/\u{e9}", 20_009);
    if torrents.is_none() {
        builder = builder
            .file_called(&["directory", "e\u{301}"], "directory/e\u{301}.1", 20_010)
            .file_called(&["directory"], "directory.1", 20_011);
    }
    let (library, sample, task) = lay_out(scene, &builder);
    let mut tracker = Tracker::start(&sample, scene);
    tracker.takes(&sample);
    let mut seeder = Seeder::start(&library, scene, SEEDER);
    tracker.knows_a_seed(&sample);
    let mut client = scene::start(&task, client(&task));
    client.until("a whole copy", &mut seeder.0, || scene::is_whole(&task));
    let Some(torrents) = torrents.map(|torrents| task.home.join(torrents)) else {
        return;
    };
    let is_torrent = |entry: fs::DirEntry| {
        entry
            .path()
            .extension()
            .is_some_and(|name| name == "torrent")
    };
    client.until("a torrent file", &mut seeder.0, || {
        let mut entries = fs::read_dir(&torrents).into_iter().flatten().flatten();
        entries.any(is_torrent)
    });
    drop((client, seeder));
    let content = task.downloads.display().to_string();
    let _seeder = Seeder::start_with(&torrents, scene, SEEDER, &["--content", &content]);
    let log = fs::read_to_string(scene.join("seeder.log")).unwrap();
    assert!(
        log.contains("serving 1 torrents") && log.contains("; 0 refused"),
        "{log}"
    );
}

/// Enough pieces that a client asks for many at once, and every oddity that a layout may have:
/// files that share a piece, fill one exactly, lie inside one, have no bytes; a short last piece.
fn whole_torrent() -> TorrentBuilder {
    TorrentBuilder::new(20_090_423)
        .name(NAME)
        .piece_length(64 * 1024)
        .file("a name – ünïcödé 文字.bin", 2_345_679)
        .file("empty", 0)
        .file("nested/deeper/one byte", 1)
        .file("nested/deeper/large.bin", 3_000_001)
        .file("nested/exactly a piece", 64 * 1024)
        .file("zz last", 12_345)
        .announce(&[&scene::announce_url()])
}
