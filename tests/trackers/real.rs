//! Real trackers as child processes, on ports that were free a moment ago.
//!
//! Owns how each is started and stopped, and what it is asked about its swarms. It must not know
//! the announcer.

#![allow(dead_code, reason = "tests use some of it, benchmarks others")]

#[path = "../support/nginx.rs"]
mod nginx;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hekate::wire::message::InfoHash;
use tempfile::TempDir;

/// Longer than any of them takes to listen.
const START: Duration = Duration::from_secs(20);

/// Torrents that one scrape asks about: aquatic takes requests of 2 KB.
const SCRAPED_AT_ONCE: usize = 20;

/// A child process that ends with its owner.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that is free for TCP and UDP.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where cargo puts what it builds: a test or an example lies three directories below.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program
        .ancestors()
        .nth(3)
        .expect("target/PROFILE/deps/NAME");
    target.to_owned()
}

/// Whether a tracker is installed, in the usual places or where `make test-deps` puts it. A test
/// fails without it, unless going without is permitted.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    let ours =
        ["trackers/bin", "clients/node_modules/.bin"].map(|directory| target().join(directory));
    let mut paths = usual
        .into_iter()
        .chain(ours)
        .map(|directory| directory.join(program));
    let found = paths.find(|path| path.exists());
    let permitted =
        std::env::var_os("HEKATE_SKIP_MISSING_CLIENTS").is_some_and(|value| value == "1");
    assert!(
        found.is_some() || permitted,
        "{program} is needed: install with `make test-deps`"
    );
    found
}

fn start(mut command: Command, port: u16, directory: TempDir) -> Server {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let log = fs::File::create(directory.path().join("log")).unwrap();
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Server {
        child,
        address,
        directory,
    }
}

/// Processor time of a process so far.
pub(crate) fn cpu(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name may hold anything, a parenthesis too.
    let fields = text.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

impl Server {
    /// Processor time of the tracker so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    /// Waits until it answers at all.
    fn listens(self, answers: impl Fn(SocketAddr) -> bool) -> Self {
        let started = Instant::now();
        while !answers(self.address) {
            let log = || fs::read_to_string(self.directory.path().join("log"));
            assert!(started.elapsed() < START, "no tracker: {:?}", log());
            std::thread::yield_now();
        }
        self
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/announce", self.address)
    }

    /// The body of a page.
    pub(crate) fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        // aquatic keeps the connection whatever it is asked, but ends each answer.
        stream.set_read_timeout(Some(START)).unwrap();
        let mut text = Vec::new();
        let mut part = [0; 4096];
        loop {
            let length = stream.read(&mut part).unwrap();
            text.extend_from_slice(&part[..length]);
            if length == 0 || text.ends_with(b"ee") || text.ends_with(b"e\r\n") {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        body.to_owned()
    }

    /// How many of these torrents have one seeder, by the tracker's HTTP scrape.
    pub(crate) fn seeded_by_http(&self, hashes: &[InfoHash]) -> usize {
        let pages = hashes.chunks(SCRAPED_AT_ONCE).map(|hashes| {
            let query: Vec<String> = hashes
                .iter()
                .map(|hash| format!("info_hash={}", escaped(*hash)))
                .collect();
            self.page(&format!("/scrape?{}", query.join("&")))
        });
        pages
            .map(|page| page.matches("8:completei1e").count())
            .sum()
    }

    /// The same by its UDP scrape.
    pub(crate) fn seeded_by_udp(&self, hashes: &[InfoHash]) -> usize {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(START)).unwrap();
        let connection = udp_connect(&socket).expect("a connection id");
        let mut seeded = 0;
        for hashes in hashes.chunks(SCRAPED_AT_ONCE) {
            let mut packet = [&connection[..], &[0, 0, 0, 2, 0, 0, 0, 9]].concat();
            packet.extend(hashes.iter().flat_map(|hash| hash.0));
            socket.send(&packet).unwrap();
            let mut answer = [0; 2048];
            let length = socket.recv(&mut answer).unwrap();
            let counts = answer[8..length].chunks(12);
            seeded += counts.filter(|counts| counts[..4] == [0, 0, 0, 1]).count();
        }
        seeded
    }
}

fn udp_connect(socket: &UdpSocket) -> Option<[u8; 8]> {
    let request = b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00\x00\x00\x00\x09";
    socket.send(request).ok()?;
    let mut answer = [0; 16];
    (socket.recv(&mut answer).ok()? == 16).then(|| answer[8..].try_into().unwrap())
}

pub(crate) fn escaped(hash: InfoHash) -> String {
    hash.0.iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn connects(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// opentracker, for these torrents.
pub(crate) fn opentracker(hashes: &[InfoHash]) -> Option<Server> {
    let program = find("opentracker")?;
    let directory = tempfile::tempdir().unwrap();
    let list: String = hashes.iter().map(|hash| format!("{hash}\n")).collect();
    fs::write(directory.path().join("list"), list).unwrap();
    // It gives up being root.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let port = free_port();
    let mut command = Command::new(program);
    command
        .args([
            "-i",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-P",
            &port.to_string(),
        ])
        .args(["-A", "127.0.0.1", "-w", "list", "-d"])
        .arg(directory.path());
    let server = start(command, port, directory).listens(connects);
    // It reads its list some time after it listens.
    let path = format!(
        "/announce?info_hash={}&peer_id=-TEST00-000000000000&port=1&left=0&compact=1",
        escaped(hashes[0])
    );
    let started = Instant::now();
    while !server.page(&path).contains("interval") {
        assert!(
            started.elapsed() < START,
            "opentracker does not read its list"
        );
    }
    server.page(&format!("{path}&event=stopped"));
    Some(server)
}

/// nginx, which keeps connections and passes requests on to another tracker; with TLS when a
/// certificate and its key are named.
pub(crate) fn nginx(upstream: &Server, certificate: Option<(&Path, &Path)>) -> Option<Server> {
    let program = find("nginx")?;
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let (tls, certificate) = match certificate {
        Some((certificate, key)) => (
            " ssl",
            format!(
                "ssl_certificate {}; ssl_certificate_key {};",
                certificate.display(),
                key.display()
            ),
        ),
        None => ("", String::new()),
    };
    let server = format!(
        "listen 127.0.0.1:{port}{tls}; {certificate}
         location / {{ proxy_pass http://{}; }}",
        upstream.address
    );
    let command = nginx::command(program, directory.path(), &server);
    Some(start(command, port, directory).listens(connects))
}

/// bittorrent-tracker of npm, by HTTP and UDP.
pub(crate) fn bittorrent_tracker() -> Option<Server> {
    let program = find("bittorrent-tracker")?;
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--http", "--udp", "--silent"]);
    // With its page of statistics it lists all its torrents for every request of any kind.
    command.arg("--no-stats");
    command.args([
        "--http-hostname",
        "127.0.0.1",
        "--udp-hostname",
        "127.0.0.1",
    ]);
    Some(start(command, port, directory).listens(connects))
}

fn aquatic(program: &str, address: &str, settings: &str) -> Option<(Command, u16, TempDir)> {
    let program = find(program)?;
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let file = directory.path().join("aquatic.toml");
    let text = format!("[network]\naddress = \"{address}:{port}\"\n{settings}");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(file);
    Some((command, port, directory))
}

/// aquatic by HTTP, which keeps connections and breaks those on which requests are pipelined.
pub(crate) fn aquatic_http() -> Option<Server> {
    let (command, port, directory) = aquatic("aquatic_http", "127.0.0.1", "keep_alive = true\n")?;
    Some(start(command, port, directory).listens(connects))
}

/// aquatic by UDP, with an interval in seconds.
pub(crate) fn aquatic_udp(interval_s: u32) -> Option<Server> {
    let settings = format!("[protocol]\npeer_announce_interval = {interval_s}\n");
    let (command, port, directory) = aquatic("aquatic_udp", "127.0.0.1", &settings)?;
    let answers = |address: SocketAddr| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        let patience = Some(Duration::from_millis(50));
        socket.set_read_timeout(patience).unwrap();
        udp_connect(&socket).is_some()
    };
    Some(start(command, port, directory).listens(answers))
}
