//! The daemon under attack, in a network of its own, and what the kernel knows of it.
//!
//! Two network namespaces with a line between them. On the attackers' side every address of a few
//! large blocks is local, so that each connection can come from an address of its own. Nothing of it
//! outlives the processes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::attacks::Target;
use crate::torrent::TorrentBuilder;

const PORT: u16 = 6969;
const HERE: &str = "10.99.0.2";
const SEEDER: [u8; 4] = [10, 99, 0, 1];
const HERE_V6: &str = "fd99::2";
const SEEDER_V6: &str = "fd99::1";
/// Blocks of addresses for peers.
const LOCAL: &[&str] = &["16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/2"];
const LOCAL_V6: &str = "2001:db8::/32";
const SAMPLED_EVERY: Duration = Duration::from_millis(250);
const MIB: f64 = 1048576.0;

/// Runs this program again, in a network namespace of its own.
pub(crate) fn enter_network() {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let error = command
        .args(["--net", "--"])
        .arg(std::env::current_exe().unwrap())
        .arg("--inside")
        .args(std::env::args_os().skip(1))
        .exec();
    panic!("unshare(1) of util-linux is needed: {error}");
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
}

/// The attackers' side.
pub(crate) fn make_network() {
    raise_descriptors();
    run("ip", "link set lo up");
    for block in LOCAL {
        run("ip", &format!("route add local {block} dev lo"));
    }
    run("ip", &format!("-6 route add local {LOCAL_V6} dev lo"));
    fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap();
}

fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// The seeder goes before the calling thread, as if that ran elsewhere.
pub(crate) fn be_nice() {
    rustix::process::nice(10).unwrap();
}

/// The address of the seeder for a peer at `source`.
pub(crate) fn seeder_for(source: IpAddr) -> SocketAddr {
    match source {
        IpAddr::V4(_) => SocketAddr::from((SEEDER, PORT)),
        IpAddr::V6(_) => SocketAddr::new(SEEDER_V6.parse().unwrap(), PORT),
    }
}

/// What is served: a torrent to download, and one with a long info dictionary.
pub(crate) struct Content {
    directory: tempfile::TempDir,
    pub(crate) target: Target,
}

impl Content {
    pub(crate) fn make() -> Content {
        let directory = tempfile::tempdir().unwrap();
        let plain = TorrentBuilder::new(1)
            .name("plain")
            .piece_length(256 * 1024)
            .length(64 << 20)
            .write(directory.path())
            .unwrap();
        let long = TorrentBuilder::new(2)
            .name("long")
            .piece_length(16)
            .length(16 * 52_000)
            .write(directory.path())
            .unwrap();
        Content {
            directory,
            target: Target {
                info_hash: plain.info_hash,
                pieces: plain.pieces,
                long_info_hash: long.info_hash,
                long_info_bytes: long.info.len(),
            },
        }
    }
}

/// What was seen of the daemon during an attack: the largest of each.
#[derive(Clone, Default, Debug)]
pub(crate) struct Peaks {
    /// Anonymous memory, above what it was before the attack.
    pub(crate) process_mib: f64,
    /// What its sockets hold.
    pub(crate) kernel_mib: f64,
    /// The longest turn, and the most processor time that one took.
    pub(crate) turn_ms: f64,
    pub(crate) turn_cpu_ms: f64,
    /// Seconds of all peers connected, and in slots, from when they were counted.
    pub(crate) connected_seconds: f64,
    pub(crate) unchoked_seconds: f64,
    /// It has ended during the attack.
    pub(crate) has_died: bool,
}

/// The daemon.
pub(crate) struct Seeder {
    child: Child,
    state: tempfile::TempDir,
    counted_from: Mutex<Option<Instant>>,
}

impl Seeder {
    pub(crate) fn start(hekate: &Path, content: &Content, options: &[&str], log: bool) -> Seeder {
        let state = tempfile::tempdir().unwrap();
        // It waits for its end of the line. The crowd would have a machine of its own: where it may, the
        // daemon goes before all others of this one, so that a turn lasts as long as it works.
        let script = "echo; read line
            chrt --fifo 1 true 2>/dev/null && set -- chrt --fifo 1 \"$@\"
            exec \"$@\"";
        let hekate = fs::canonicalize(hekate).expect("the daemon is built");
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script, "sh"])
            .arg(hekate)
            .args(["seed", "--config", "/dev/null", "--no-tracker", "--status"])
            .arg(format!("unix:{}", state.path().join("status").display()))
            .args(["--port", &PORT.to_string()])
            .args(options)
            .arg(content.directory.path())
            .env("STATE_DIRECTORY", state.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare(1) of util-linux");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let pid = child.id();
        run(
            "ip",
            &format!("link add attack type veth peer name seeder netns {pid}"),
        );
        run("ip", &format!("address add {HERE}/24 dev attack"));
        run(
            "ip",
            &format!("-6 address add {HERE_V6}/64 dev attack nodad"),
        );
        run("ip", "link set attack up");
        let in_namespace =
            |command: &str| run("nsenter", &format!("--target {pid} --net ip {command}"));
        let [a, b, c, d] = SEEDER;
        in_namespace(&format!("address add {a}.{b}.{c}.{d}/24 dev seeder"));
        in_namespace(&format!("-6 address add {SEEDER_V6}/64 dev seeder nodad"));
        in_namespace("link set seeder up");
        in_namespace("link set lo up");
        in_namespace(&format!("route add default via {HERE}"));
        in_namespace(&format!("-6 route add default via {HERE_V6}"));
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let listening = lines.find(|line| {
            if log {
                println!("{line}");
            }
            line.contains("listening on ")
        });
        listening.expect("the daemon listens");
        std::thread::spawn(move || {
            let mut panics = false;
            for line in lines {
                panics |= line.contains("panicked at");
                if log || panics {
                    println!("{line}");
                }
            }
        });
        Seeder {
            child,
            state,
            counted_from: Mutex::new(None),
        }
    }

    /// Slots are counted from then on.
    pub(crate) fn count_slots_from(&self, when: Instant) {
        *self.counted_from.lock().unwrap() = Some(when);
    }

    /// Samples until `stop`.
    pub(crate) fn watch(&self, stop: &AtomicBool) -> Peaks {
        let pid = self.child.id();
        let idle = anonymous_bytes(pid).unwrap_or_default();
        let mut peaks = Peaks::default();
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(SAMPLED_EVERY);
            let (Some(used), Some(status)) = (anonymous_bytes(pid), self.status()) else {
                peaks.has_died = true;
                return peaks;
            };
            let above = used.saturating_sub(idle);
            peaks.process_mib = peaks.process_mib.max(above as f64 / MIB);
            peaks.kernel_mib = peaks.kernel_mib.max(socket_bytes(pid) as f64 / MIB);
            let now = Instant::now();
            if let Some(from) = *self.counted_from.lock().unwrap()
                && now > from
            {
                let seconds = (now - last.max(from)).as_secs_f64();
                let unchoked = number(&status, "/peers/unchoked");
                let others = ["handshaking", "choked", "waiting"];
                let others = others.map(|state| number(&status, &format!("/peers/{state}")));
                let connected = unchoked + others.iter().sum::<f64>();
                peaks.connected_seconds += connected * seconds;
                peaks.unchoked_seconds += unchoked * seconds;
            }
            last = now;
            peaks.turn_ms = number(&status, "/turn/longest_us") / 1e3;
            peaks.turn_cpu_ms = number(&status, "/turn_cpu/longest_us") / 1e3;
        }
        peaks
    }

    /// `/status.json`; none when nobody answers.
    fn status(&self) -> Option<serde_json::Value> {
        let mut stream = UnixStream::connect(self.status_socket()).ok()?;
        let request = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    fn status_socket(&self) -> PathBuf {
        self.state.path().join("status")
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        // The line goes with its other end, a moment later.
        let mut remove = Command::new("ip");
        remove
            .args(["link", "delete", "attack"])
            .stderr(Stdio::null());
        remove.status().ok();
    }
}

fn number(status: &serde_json::Value, path: &str) -> f64 {
    status
        .pointer(path)
        .and_then(serde_json::Value::as_f64)
        .unwrap_or_default()
}

/// Memory of the process that is no file's; none when it has ended.
fn anonymous_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

/// What all sockets of the daemon's network hold: received and not read, queued and not sent, and
/// what is set aside for them; ss(8) calls it `r`, `w`, `f` and `bl`.
fn socket_bytes(pid: u32) -> u64 {
    let output = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--net", "ss", "-tamnHO"])
        .output()
        .expect("ss(8) of iproute2");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once("skmem:(").map(|(_, memory)| memory))
        .flat_map(|memory| memory.trim_end().trim_end_matches(')').split(','))
        .filter_map(|field| {
            let digits = field.find(|c: char| c.is_ascii_digit())?;
            let (name, value) = field.split_at(digits);
            if !matches!(name, "r" | "w" | "f" | "bl") {
                return None;
            }
            // What is set aside may be below zero for a moment, and ss prints it without a sign.
            let bytes: u64 = value.parse().ok()?;
            u32::try_from(bytes).ok().filter(|bytes| *bytes < 1 << 31)
        })
        .map(u64::from)
        .sum()
}
