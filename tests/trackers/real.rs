//! Real trackers as child processes, on ports that were free a moment ago.
//!
//! Owns how each is started and stopped, and what it is asked about its swarms. It must not know
//! the announcer.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::driver::info_hash;

/// Longer than any of them takes to listen.
const START: Duration = Duration::from_secs(20);

/// A child process that ends with its owner.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that is free for TCP and UDP.
pub(crate) fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Whether a program is installed, in the usual places or where `make test-deps` puts it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_hekate")).ancestors().nth(2)?;
    let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    let ours = target.join("trackers/bin");
    let mut paths = places
        .into_iter()
        .chain([ours])
        .map(|place| place.join(program));
    paths.find(|path| path.is_file())
}

fn start(mut command: Command, port: u16, directory: TempDir) -> Server {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let server = Server {
        child,
        address,
        _directory: directory,
    };
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(started.elapsed() < START, "{command:?} does not listen");
        std::thread::yield_now();
    }
    server
}

/// opentracker, for the first torrents of the invented library.
pub(crate) fn opentracker(torrents: u32) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let list: String = (0..torrents)
        .map(|torrent| format!("{}\n", info_hash(torrent)))
        .collect();
    fs::write(directory.path().join("list"), list).unwrap();
    let port = free_port();
    let mut command = Command::new(find("opentracker").expect("opentracker is installed"));
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
    // It gives up being root, and reads its list some time after it listens.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let server = start(command, port, directory);
    let hash: String = info_hash(0)
        .0
        .iter()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    let path =
        format!("/announce?info_hash={hash}&peer_id=-TEST00-000000000000&port=1&left=0&compact=1");
    let started = Instant::now();
    while !server.page(&path).contains("interval") {
        assert!(
            started.elapsed() < START,
            "opentracker does not read its list"
        );
    }
    server.page(&format!("{path}&event=stopped"));
    server
}

impl Server {
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/announce", self.address)
    }

    /// The body of a page.
    pub(crate) fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text);
        text.split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
            .to_owned()
    }

    /// How many torrents opentracker has.
    pub(crate) fn torrents(&self) -> u64 {
        let text = self.page("/stats?mode=everything");
        let count = text
            .split("<count_mutex>")
            .nth(1)
            .and_then(|rest| rest.split('<').next());
        count
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or_else(|| panic!("{text}"))
    }
}
