//! Each client's command line and settings.
//!
//! Owns: what makes a client work alone: a directory for its settings, the address to bind, no
//! search of the network; encryption, where it is required. uTP and request sizes stay what its users have,
//! but for Transmission's uTP. Must not know: how a client is run, when it is done.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::needs::{self, PYTHON};
use super::sandbox::{CLIENT, CLIENT_V6, SEEDER, SEEDER_V6};
use super::scene::{Client, PORT, Task};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

/// What is said to a client that is to encrypt its connections, and else not.
fn required<'a>(task: &Task, words: &[&'a str]) -> Vec<&'a str> {
    match task.requires_encryption {
        true => words.to_vec(),
        false => Vec::new(),
    }
}

/// aria2 leaves when it is complete, since it may not seed.
pub(crate) fn aria2(task: &Task, source: &str) -> Client {
    let mut command = task.command("aria2c");
    command
        .args(["--no-conf", "--seed-time=0", "--summary-interval=5"])
        .args(["--enable-dht=false", "--enable-dht6=false"])
        .args(["--bt-enable-lpd=false", "--enable-color=false"])
        .args(["--console-log-level=info", "--interface", CLIENT])
        .args(required(task, &["--bt-force-encryption=true"]))
        .arg("--dir")
        .arg(&task.downloads)
        .arg(source);
    Client::new(command)
}

pub(crate) fn libtorrent(task: &Task, source: &str) -> Client {
    let mut command = task.command(PYTHON);
    command
        .arg(script("libtorrent_leech.py"))
        .arg(source)
        .arg(&task.downloads)
        .args(["--bind", CLIENT])
        .args(required(task, &["--encrypt"]));
    Client::new(command)
}

/// Without a tracker.
pub(crate) fn libtorrent_from_peer(task: &Task) -> Client {
    let mut command = task.command(PYTHON);
    command
        .arg(script("libtorrent_leech.py"))
        .args([&task.torrent, &task.downloads])
        .args(["--peer", &SocketAddr::new(SEEDER, PORT).to_string()])
        .args(["--bind", CLIENT]);
    Client::new(command)
}

/// The tracker has no IPv6, so this one is told where the seeder is.
pub(crate) fn libtorrent_over_ipv6(task: &Task) -> Client {
    let mut command = task.command(PYTHON);
    command
        .arg(script("libtorrent_leech.py"))
        .args([&task.torrent, &task.downloads])
        .args(["--peer", &SocketAddr::new(SEEDER_V6, PORT).to_string()])
        .args(["--bind", &format!("[{CLIENT_V6}]")]);
    Client::new(command)
}

/// It stays when it is complete. With its web interface it would ask for a password and a port.
pub(crate) fn qbittorrent(task: &Task, source: &str) -> Client {
    let config = task.home.join("qBittorrent/config");
    fs::create_dir_all(&config).unwrap();
    let encryption = required(task, &["Session\\Encryption=1\n"]).concat();
    let settings = format!(
        "[LegalNotice]\nAccepted=true\n\
         [Preferences]\nWebUI\\Enabled=false\n\
         [BitTorrent]\nSession\\DHTEnabled=false\nSession\\LSDEnabled=false\n\
         Session\\InterfaceAddress={CLIENT}\n\
         {encryption}\
         [Network]\nPortForwardingEnabled=false\n"
    );
    fs::write(config.join("qBittorrent.conf"), settings).unwrap();
    let mut command = task.command("qbittorrent-nox");
    command
        .arg(format!("--profile={}", task.home.display()))
        .arg(format!("--save-path={}", task.downloads.display()))
        .args(["--skip-dialog=true", "--add-paused=false"])
        .arg(source);
    Client::new(command)
}

/// As a daemon it wants no terminal; it stays when it is complete.
pub(crate) fn rtorrent(task: &Task, source: &str) -> Client {
    let words = "allow_incoming,try_outgoing,require,require_RC4";
    let encryption = format!("protocol.encryption.set = {words}\n");
    let encryption = required(task, &[&encryption]).concat();
    let settings = format!(
        "system.daemon.set = true\n\
         network.bind_address.set = {CLIENT}\n\
         directory.default.set = {}\n\
         dht.mode.set = disable\n\
         {encryption}\
         log.open_file = \"log\", \"/dev/stdout\"\n\
         log.add_output = \"info\", \"log\"\n\
         schedule2 = load, 0, 0, ((load.start, \"{}\"))\n",
        task.downloads.display(),
        source,
    );
    let file = task.home.join("settings");
    fs::write(&file, settings).unwrap();
    let mut command = task.command("rtorrent");
    command
        .arg("-n")
        .arg("-o")
        .arg(format!("import={}", file.display()));
    Client::new(command)
}

/// Its DHT waits 40 s for names that cannot be resolved here; it stays when it is complete.
///
/// Without uTP: where uTP is refused or not answered, version 3.00 connects over TCP and at once
/// closes, without a byte, then leaves the address alone for a quarter of an hour.
pub(crate) fn transmission(task: &Task, source: &str) -> Client {
    let encryption = required(task, &[", \"encryption\": 2"]).concat();
    let settings = format!(
        "{{\"bind-address-ipv4\": \"{CLIENT}\", \"dht-enabled\": false, \"lpd-enabled\": false,\
         \"port-forwarding-enabled\": false, \"utp-enabled\": {}{encryption}}}",
        task.utp
    );
    let config = task.home.join("config");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("settings.json"), settings).unwrap();
    let mut command = task.command("transmission-cli");
    command
        .arg("--config-dir")
        .arg(config)
        .arg("--download-dir")
        .arg(&task.downloads)
        .arg(source);
    Client::without_empty_files(command)
}

pub(crate) fn webtorrent(task: &Task, source: &str) -> Client {
    let mut command = task.command("node");
    command
        .env("NODE_PATH", needs::node_modules())
        .arg(script("webtorrent.js"))
        .arg(source)
        .arg(&task.downloads);
    Client::new(command)
}

/// With a magnet link it announces nothing for `left`, which opentracker refuses, so the link names
/// the seeder.
pub(crate) fn webtorrent_from_magnet(task: &Task) -> Client {
    let seeder = SocketAddr::new(SEEDER, PORT);
    webtorrent(task, &format!("{}&x.pe={seeder}", task.magnet))
}
