//! What can be seen of a running daemon: the status listener, the metrics, the page.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/nginx.rs"]
mod nginx;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use hekate::torrent::printable::is_hidden;
use support::daemon::Daemon;
use support::leecher::{self, FAST, Leecher};
use support::poll_until;
use support::torrent::{Sample, TorrentBuilder};

/// A daemon with a status listener of its own.
struct Scene {
    daemon: Daemon,
    status: SocketAddr,
    sample: Sample,
    dir: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(arguments: &[&str]) -> Self {
        Self::seeding(&TorrentBuilder::new(70).length(4 << 20), arguments)
    }

    fn seeding(torrent: &TorrentBuilder, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sample = torrent.write(dir.path()).unwrap();
        fs::write(dir.path().join("rubbish.torrent"), "rubbish").unwrap();
        let mut all = vec!["--status", "127.0.0.1:0"];
        all.extend(arguments);
        let mut daemon = Daemon::seed_with(dir.path(), &all);
        let line = daemon.wait_for_line("status at http://");
        let (_, address) = line.split_once("http://").unwrap();
        let status = address.trim_end_matches('/').parse().unwrap();
        Self {
            daemon,
            status,
            sample,
            dir,
        }
    }

    fn connect(&self) -> TcpStream {
        leecher::dial(self.status)
    }

    /// The whole answer to a request as it stands.
    fn converse(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read_to_end(stream)
    }

    /// The body of what a path has, which must be there.
    fn get(&self, path: &str) -> String {
        let answer = self.converse(&request(path, "localhost"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        body.to_owned()
    }

    fn status_of(&self, request: &str) -> u16 {
        let answer = self.converse(request);
        answer["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }

    /// The value of a metric, with its labels.
    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .parse()
            .unwrap()
    }

    fn leecher(&self) -> Leecher {
        let mut leecher = Leecher::connect(self.daemon.address, self.sample.info_hash, FAST);
        leecher.until_unchoked();
        leecher
    }
}

fn read_to_end(mut stream: impl Read) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn request(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn metrics_change_during_a_download() {
    let scene = Scene::start();
    assert_eq!(scene.metric("hekate_torrents"), 1.0);
    assert_eq!(scene.metric("hekate_torrents_refused"), 1.0);
    assert_eq!(scene.metric("hekate_payload_bytes_total"), 0.0);
    let mut leecher = scene.leecher();
    assert_eq!(scene.metric("hekate_peers{state=\"unchoked\"}"), 1.0);
    assert_eq!(scene.metric("hekate_torrents_active"), 1.0);
    leecher.block(0, 0, 16384);
    assert_eq!(scene.metric("hekate_payload_bytes_total"), 16384.0);
    assert_eq!(scene.metric("hekate_blocks_total"), 1.0);
    assert!(scene.metric("hekate_turn_seconds_count") > 5.0);
    // The content was just written, but a first block is always read by a reader.
    assert!(scene.metric("hekate_residency_misses_total") >= 1.0);
    assert!(scene.metric("hekate_reader_job_seconds_count") >= 1.0);

    let hash = scene.sample.info_hash_hex();
    let torrents = scene.get("/torrents?busiest=5");
    assert!(
        torrents.contains(&format!("{{\"info_hash\":\"{hash}\"")),
        "{torrents}"
    );
    assert!(
        torrents.contains("\"peers\":1,\"payload_bytes\":16384"),
        "{torrents}"
    );
    let listed = scene.get("/torrents?limit=5");
    assert!(
        listed.starts_with(&format!("{{\"torrents\":[{{\"info_hash\":\"{hash}\""))
            && listed.contains("\"peers\":1,\"payload_bytes\":16384")
            && listed.ends_with("],\"next\":null}"),
        "{listed}"
    );
    assert_eq!(
        scene.get(&format!("/torrents?after={hash}")),
        "{\"torrents\":[],\"next\":null}"
    );
    let peers = scene.get("/peers");
    assert!(peers.contains("\"address\":\"127.0.0.1\""), "{peers}");
    assert!(peers.contains("\"state\":\"unchoked\"") && peers.contains("\"payload_bytes\":16384"));
    let json = scene.get("/status.json");
    assert!(
        json.contains("\"payload_bytes\":16384") && json.contains("\"unchoked\":1"),
        "{json}"
    );

    leecher.send(&leecher::message(3, &[]));
    leecher.send(&leecher::request(0, 0, 16384));
    leecher.until(|seen| matches!(seen, leecher::Seen::Reject { .. }));
    assert_eq!(scene.metric("hekate_requests_rejected_total"), 1.0);
    drop(leecher);
    let mut stranger = leecher::dial(scene.daemon.address);
    stranger.write_all(&[0; 96]).unwrap();
    read_to_end(stranger.try_clone().unwrap());
    let closed = |reason| format!("hekate_connections_closed_total{{reason=\"{reason}\"}}");
    assert_eq!(scene.metric(&closed("encryption_failed")), 1.0);
    assert_eq!(scene.metric("hekate_connections_total"), 2.0);
}

#[test]
fn the_metrics_carry_no_info_hash() {
    let scene = Scene::start();
    let mut leecher = scene.leecher();
    leecher.block(0, 0, 16384);
    let text = scene.get("/metrics");
    assert!(!text.contains(&scene.sample.info_hash_hex()));
    assert!(text.ends_with("# EOF\n"));
}

/// A tracker that accepts or refuses whatever it is asked. Answers its URL.
fn tracker(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                request.extend(byte);
            }
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            stream.write_all(format!("{head}{answer}").as_bytes()).ok();
        }
    });
    url
}

/// One tracker accepts, one refuses, and one is not there.
fn scene_with_trackers() -> (Scene, [String; 3]) {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let trackers = [
        tracker("d8:intervali1800e5:peers0:e"),
        tracker("d14:failure reason11:<b>never</be"),
        format!("http://{}", dead.local_addr().unwrap()),
    ];
    drop(dead);
    let mut torrent = TorrentBuilder::new(70).length(4 << 20);
    for tracker in &trackers {
        torrent = torrent.announce(&[&format!("{tracker}/secret/announce")]);
    }
    let scene = Scene::seeding(&torrent, &[]);
    let expected = ["\"accepted\":1,", "\"refused\":1,", "Connection refused"];
    poll_until(Duration::from_secs(20), || {
        let json = scene.get("/status.json");
        let all = expected.iter().all(|part| json.contains(part));
        all.then_some(()).ok_or(json)
    });
    (scene, trackers)
}

#[test]
fn trackers_are_shown_without_their_passkeys() {
    let (scene, [good, refusing, dead]) = scene_with_trackers();
    for outcome in ["accepted", "refused"] {
        let labels = format!("tracker=\"127.0.0.1\",outcome=\"{outcome}\"");
        assert_eq!(
            scene.metric(&format!("hekate_announces_total{{{labels}}}")),
            1.0
        );
    }
    let of_host = |name: &str| scene.metric(&format!("{name}{{tracker=\"127.0.0.1\"}}"));
    assert_eq!(of_host("hekate_tracker_up"), 1.0);
    assert_eq!(of_host("hekate_tracker_torrents"), 3.0);
    assert!(of_host("hekate_announce_requests_total") >= 2.0);
    assert_eq!(of_host("hekate_tracker_requests_in_flight"), 0.0);
    let json = scene.get("/status.json");
    let up =
        format!("{{\"tracker\":\"{good}\",\"state\":\"up\",\"rests_seconds\":0,\"trouble\":null");
    assert!(json.contains(&up), "{json}");
    let expected = format!(
        "\"trouble\":\"IPv4: refuses {}: <b>never</b\"",
        scene.sample.info_hash_hex()
    );
    assert!(
        json.contains(&refusing) && json.contains(&expected),
        "{json}"
    );
    assert!(
        json.contains(&format!("{{\"tracker\":\"{dead}\",\"state\":\"resting\"")),
        "{json}"
    );
    let text = scene.get("/status.txt");
    let line =
        format!("tracker   {good} is up, on time: 1 torrents, 1 accepted, 0 refused, 0 failed\n");
    assert!(text.contains(&line), "{text}");
    assert!(
        text.contains(&format!("tracker   {dead} backs off for ")),
        "{text}"
    );
    for path in ["/metrics", "/status.json", "/status.txt"] {
        assert!(!scene.get(path).contains("secret"), "{path}");
    }
}

#[test]
fn trackers_that_cannot_be_used_are_named_once_without_their_passkeys() {
    let torrent =
        TorrentBuilder::new(72).announce(&["wss://web.example/secret", "http://me:secret@/x", ""]);
    let mut scene = Scene::seeding(&torrent, &[]);
    let hash = scene.sample.info_hash_hex();
    let web = "cannot be used: not an http, https or udp URL";
    let web = format!("{web}; the first torrent with it is {hash}");
    poll_until(Duration::from_secs(20), || {
        let text = scene.get("/status.txt");
        let line = format!("tracker   wss://web.example/… {web}\n");
        text.contains(&line).then_some(()).ok_or(text)
    });
    assert_eq!(scene.metric("hekate_trackers_unusable"), 2.0);
    assert_eq!(scene.metric("hekate_torrents_unannounced"), 1.0);
    let json = scene.get("/status.json");
    let part = format!("{{\"tracker\":\"wss://web.example/…\",\"why\":\"{web}\"}}");
    assert!(json.contains(&part), "{json}");
    let said = format!("{hash}: tracker wss://web.example/… cannot be used: not an http");
    scene.daemon.wait_for_line(&said);
    let log = scene.daemon.log();
    assert_eq!(log.matches(&said).count(), 1, "{log}");
    let listed = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args(["seed", "--list", "--config", "/dev/null"])
        .arg(scene.dir.path())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(
        listed.matches("announced to nobody: ").count(),
        1,
        "{listed}"
    );
    for text in [
        log,
        json,
        listed,
        scene.get("/status.txt"),
        scene.get("/metrics"),
    ] {
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn nothing_that_others_have_written_hides() {
    let torrent = TorrentBuilder::new(71)
        .name("in\u{202e}gpj.\u{200b}exe")
        .length(4 << 20)
        .announce(&[&tracker("d14:failure reason8:a\u{202e}\u{200b}be")]);
    let mut scene = Scene::seeding(&torrent, &["-v"]);
    let mut leecher = scene.leecher();
    leecher.block(0, 0, 16384);
    poll_until(Duration::from_secs(20), || {
        let json = scene.get("/status.json");
        json.contains("refuses ").then_some(()).ok_or(json)
    });
    let paths = [
        "/status.json",
        "/status.txt",
        "/torrents",
        "/torrents?busiest=10",
        "/torrents.txt?busiest=10",
    ];
    let mut said: Vec<String> = paths.iter().map(|path| scene.get(path)).collect();
    assert_eq!(
        said.iter().filter(|text| text.contains("202e")).count(),
        5,
        "{said:?}"
    );
    scene.daemon.wait_for_line("refuses");
    said.push(scene.daemon.log());
    assert!(
        said[5].contains("refuses") && said[5].contains("a\\u{202e}\\u{200b}b"),
        "{}",
        said[5]
    );
    for text in said {
        let hidden = |character| character != '\n' && is_hidden(character);
        assert!(!text.contains(hidden), "{text:?}");
    }
}

#[test]
fn hekate_status_prints_the_status_text() {
    let scene = Scene::start();
    let mut leecher = scene.leecher();
    leecher.block(0, 0, 16384);
    let ask = |arguments: &[&str]| {
        let address = scene.status.to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
            .args(["status", "--config", "/dev/null", "--status", &address])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = ask(&[]);
    assert!(text.contains(" is serving, up "), "{text}");
    assert!(text.contains("16.0 KiB in 1 blocks"), "{text}");
    assert!(
        text.contains("\nminutes   ") && text.contains(", peak "),
        "{text}"
    );
    assert!(text.contains("\nended     no connection yet\n"), "{text}");
    let hash = scene.sample.info_hash_hex();
    let busiest = format!(" to 1 peers, 16.0 KiB sent: {hash} sample-70\n");
    assert!(
        text.contains("\nbusiest   ") && text.ends_with(&busiest),
        "{text}"
    );
    let stranger = leecher::dial(scene.daemon.address);
    (&stranger).write_all(&[0; 96]).unwrap();
    read_to_end(stranger);
    drop(leecher);
    let ended = poll_until(leecher::DEADLINE, || {
        let text = ask(&[]);
        if text.contains("1 peer closed") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    let line = ended.lines().find(|line| line.starts_with("ended     "));
    assert!(line.unwrap().contains("1 encryption failed"), "{ended}");
    assert!(!ended.contains("busiest"), "nobody is connected: {ended}");
    assert!(ask(&["--json"]).contains("\"payload_bytes\":16384"));
    let nobody = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args([
            "status",
            "--config",
            "/dev/null",
            "--status",
            "unix:/nowhere",
        ])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    let stderr = String::from_utf8(nobody.stderr).unwrap();
    assert!(
        stderr.starts_with("hekate: unix:/nowhere: No such file"),
        "{stderr}"
    );
}

/// nginx before a status listener, as the manual shows it. Ends with its value.
struct Nginx {
    child: Child,
    directory: tempfile::TempDir,
}

impl Nginx {
    fn before(status: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let server = format!(
            "listen unix:{};
             location / {{ proxy_pass http://{status}; proxy_set_header Host $host; }}",
            socket.display()
        );
        let mut command = nginx::command("nginx", directory.path(), &server);
        let child = command.spawn().expect("nginx is installed");
        Self { child, directory }
    }

    fn converse(&self, request: &str) -> String {
        let path = self.directory.path().join("socket");
        let mut stream = poll_until(Duration::from_secs(20), || UnixStream::connect(&path));
        stream.write_all(request.as_bytes()).unwrap();
        read_to_end(stream)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_proxy_that_passes_the_host_on_needs_its_name() {
    let mut scene = Scene::start_with(&["--status-host", "seed.example"]);
    let nginx = Nginx::before(scene.status);
    let ask = |method: &str, host: &str| {
        let head = format!("{method} /status.txt HTTP/1.1\r\nHost: {host}\r\nConnection: close");
        nginx.converse(&format!("{head}\r\n\r\n"))
    };
    assert!(ask("GET", "seed.example").starts_with("HTTP/1.1 200 OK"));
    for _ in 0..2 {
        let refused = ask("GET", "other.example");
        assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
        let what = "The host other.example is not one of this listener.";
        assert!(
            refused.contains(what) && refused.contains("--status-host"),
            "{refused}"
        );
    }
    scene
        .daemon
        .wait_for_line("a request for the host other.example is refused");
    assert_eq!(scene.daemon.count_lines("is refused: --status-host"), 1);
    let head = ask("HEAD", "seed.example");
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let scene = Scene::start();
    for path in [
        "/",
        "/metrics",
        "/healthz",
        "/torrents",
        "/peers",
        "/nothing",
    ] {
        let get = scene.converse(&request(path, "localhost"));
        let head = scene.converse(&request(path, "localhost").replace("GET", "HEAD"));
        let (line, body) = (get.lines().next(), get.split_once("\r\n\r\n").unwrap().1);
        assert_eq!(head.lines().next(), line, "{path}");
        assert!(
            head.ends_with("Connection: close\r\n\r\n") && !body.is_empty(),
            "{head}"
        );
        assert!(head.contains("\r\nContent-Length: "), "{head}");
    }
}

#[test]
fn only_get_with_a_local_host_header_is_answered() {
    let scene = Scene::start_with(&["--status-host", "seed.example"]);
    for (request, status) in [
        (request("/healthz", "localhost"), 200),
        (request("/readyz", "127.0.0.1:1"), 200),
        (request("/", "seed.example"), 200),
        (request("/", "rebinding.example"), 421),
        (request("/nothing", "localhost"), 404),
        (request("/torrents?busiest=xyz", "localhost"), 400),
        (request("/torrents.txt", "localhost"), 400),
        (request("/torrents?after=xyz", "localhost"), 400),
        (request("/peers?limit=many", "localhost"), 400),
        ("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        ("GET /\r\n\r\n".to_owned(), 400),
        (
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000)),
            431,
        ),
    ] {
        assert_eq!(scene.status_of(&request), status, "{request:.60}");
    }
}

#[test]
fn slow_status_clients_are_closed_and_delay_nobody() {
    let scene = Scene::start();
    let slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = scene.connect();
            stream.write_all(b"GET /metr").unwrap();
            stream
        })
        .collect();
    assert_eq!(scene.get("/healthz"), "ok\n");
    let mut leecher = scene.leecher();
    leecher.block(0, 0, 16384);
    // The oldest had to go, and the newest may go on.
    let mut first = &slow[0];
    let ended = first.read(&mut [0; 1]);
    let reset = |error: std::io::Error| error.kind() == ErrorKind::ConnectionReset;
    assert!(matches!(ended, Ok(0)) || ended.is_err_and(reset));
    let mut last = slow.last().unwrap();
    last.write_all(b"ics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    assert!(read_to_end(last).ends_with("# EOF\n"));
}

#[test]
fn a_status_client_that_writes_on_is_closed() {
    let scene = Scene::start();
    let mut flood = scene.connect();
    let request = request("/healthz", "localhost");
    flood.write_all(request.as_bytes()).unwrap();
    // Far more than the sockets hold: somebody would have to read it.
    let rubbish = vec![b'x'; 1 << 20];
    let is_cut = (0..256).any(|_| flood.write_all(&rubbish).is_err());
    assert!(is_cut, "all of it was read");
    let mut leecher = scene.leecher();
    leecher.block(0, 0, 16384);
    // Some bytes too many cost nobody the answer.
    let behind = format!("{request}{}", "x".repeat(4096));
    assert!(scene.converse(&behind).ends_with("ok\n"));
}

#[test]
fn a_slow_reader_gets_the_whole_answer() {
    let scene = Scene::start();
    let socket = scene.connect();
    socket2::SockRef::from(&socket)
        .set_recv_buffer_size(4096)
        .unwrap();
    (&socket)
        .write_all(request("/status.js", "localhost").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 100];
    while let Ok(bytes @ 1..) = (&socket).read(&mut piece) {
        answer.extend(&piece[..bytes]);
    }
    assert!(answer.ends_with(b"turn();\n"));
}

#[test]
fn a_unix_status_socket_is_removed_at_exit() {
    let dir = tempfile::tempdir().unwrap();
    TorrentBuilder::new(71).write(dir.path()).unwrap();
    let path = dir.path().join("status");
    let option = format!("unix:{}", path.display());
    let ask = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .write_all(request("/readyz", "proxied.example").as_bytes())
            .unwrap();
        read_to_end(stream)
    };
    let mut daemon = Daemon::seed_with(dir.path(), &["--status", &option]);
    assert!(ask().ends_with("serving\n"));
    daemon.signal("KILL");
    daemon.wait();
    assert!(path.exists());
    let mut daemon = Daemon::seed_with(dir.path(), &["--status", &option]);
    assert!(ask().ends_with("serving\n"), "a stale socket is replaced");
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert!(!path.exists());
}

#[test]
fn a_status_address_in_use_is_an_error() {
    let scene = Scene::start();
    let address = scene.status.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args([
            "seed",
            "--config",
            "/dev/null",
            "-p",
            "0",
            "--status",
            &address,
        ])
        .arg(scene.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains(&format!(
            "cannot serve the status at http://{address}/: Address already in use"
        )),
        "{log}"
    );
}

/// Debian's browser; a machine without it is stderr of by `make test-deps`.
const CHROMIUM: &str = "/usr/bin/chromium";

/// What the page shows after some seconds, as a browser has it.
fn page_in_a_browser(scene: &Scene, further: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(CHROMIUM)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=9000", "--dump-dom"])
        .args(further)
        .arg(format!("http://{}/", scene.status))
        .output()
        .expect("chromium is installed: make test-deps");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The text of the element with this id.
fn shown<'a>(page: &'a str, id: &str) -> &'a str {
    let (_, rest) = page
        .split_once(&format!("id=\"{id}\""))
        .expect("it is on the page");
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split_once('<').unwrap().0
}

/// Whether there is a browser, or must be one.
fn has_a_browser() -> bool {
    let is_installed = Path::new(CHROMIUM).exists();
    if !is_installed && std::env::var_os("HEKATE_SKIP_MISSING_CLIENTS").is_some() {
        println!("skipped: {CHROMIUM} is not installed");
        return false;
    }
    true
}

#[test]
fn the_page_shows_bad_pieces_where_pieces_are_hashed() {
    if !has_a_browser() {
        return;
    }
    let scene = Scene::start_with(&["--verify", "lazy"]);
    let spoilt = fs::OpenOptions::new()
        .write(true)
        .open(&scene.sample.files[0].path);
    spoilt.unwrap().write_all_at(b"?", 0).unwrap();
    let mut leecher = scene.leecher();
    leecher.send(&leecher::request(0, 0, 16384));
    leecher.until(|seen| matches!(seen, leecher::Seen::Reject { .. }));
    leecher.block(1, 0, 16384);
    let page = page_in_a_browser(&scene, &[]);
    let shown = |id| shown(&page, id);
    assert_eq!((shown("verified"), shown("bad-pieces")), ("1", "1"));
    let hash = scene.sample.info_hash_hex();
    let row = format!("<dt>{hash}</dt><dd>piece 0</dd>");
    assert!(page.contains(&row), "{page}");
    assert!(!page.contains("id=\"bad\" aria-labelledby=\"h-bad\" hidden"));
}

#[test]
fn the_page_shows_changing_figures_in_a_browser() {
    if !has_a_browser() {
        return;
    }
    let (scene, trackers) = scene_with_trackers();
    let page = page_in_a_browser(&scene, &[]);
    assert_eq!(shown(&page, "phase"), "serving");
    assert!(page.contains("id=\"pieces\" hidden"), "no piece is hashed");
    for tracker in &trackers {
        assert!(
            page.contains(&format!("<th scope=\"row\">{tracker}</th>")),
            "{page}"
        );
    }
    assert!(
        page.contains("&lt;b&gt;never&lt;/b"),
        "a tracker's words are text"
    );
    assert_eq!((shown(&page, "sent"), shown(&page, "peers")), ("0 B", "0"));
    let mut leecher = scene.leecher();
    for index in 0..scene.sample.pieces {
        leecher.block(index, 0, scene.sample.piece_length.min(16384));
    }
    let sent = scene.metric("hekate_payload_bytes_total");
    let further: Vec<String> = match std::env::var("HEKATE_SCREENSHOT") {
        Ok(path) => vec![
            format!("--screenshot={path}"),
            "--window-size=1100,1300".to_owned(),
        ],
        Err(_) => Vec::new(),
    };
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let page = page_in_a_browser(&scene, &further);
    assert_eq!(
        (shown(&page, "peers"), shown(&page, "unchoked")),
        ("1", "1")
    );
    let shown_sent = shown(&page, "sent");
    assert!(
        sent > 0.0 && shown_sent != "0 B" && shown_sent != "–",
        "{shown_sent}"
    );
    assert!(page.contains(&format!("title=\"{}\"", scene.sample.info_hash_hex())));
    let line = page.split_once("id=\"line\"").unwrap().1;
    assert!(
        line.split('>').next().unwrap().matches('L').count() > 100,
        "the chart is drawn"
    );
}
