//! The play in the sandbox: a library, its seeder, a tracker that knows the seeder, a client that
//! must end up with the same bytes.
//!
//! Owns: the processes, their logs, what the tracker is asked, the comparison of two directory trees. Must not know: any client's options.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::needs;
use super::sandbox::{CLIENT_DEADLINE, TRACKER, announce, poll_until};
use super::support::torrent::Sample;

/// The seeder's default port, and the tracker's: they have different addresses.
pub(crate) const PORT: u16 = 6969;
/// A daemon that does not listen after this has failed to start.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// Between two looks at what a client has.
const MEASURE_EVERY: Duration = Duration::from_millis(5);
/// What is shown of a log on failure.
const LOG_TAIL_BYTES: usize = 8 * 1024;

/// A program with a home of its own, so that no setting of the user is seen or changed.
fn command(program: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", needs::search_path())
        .env("LC_ALL", "C.UTF-8")
        .env("TERM", "dumb")
        .env("HOME", home)
        .env("TMPDIR", home)
        .current_dir(home);
    command
}

/// A process of the sandbox, killed when dropped; what it prints goes to a file.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let out = File::create(&log).expect("the scene is writable");
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("one more descriptor"))
            .stderr(out)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// What became of it and the end of what it printed.
    fn report(&mut self) -> String {
        let end = self
            .ended()
            .map_or_else(|| "running".to_owned(), |status| status.to_string());
        let printed = fs::read(&self.log).unwrap_or_default();
        let tail = printed
            .get(printed.len().saturating_sub(LOG_TAIL_BYTES)..)
            .unwrap_or_default();
        format!(
            "--- {} ({end})\n{}\n",
            self.log.display(),
            String::from_utf8_lossy(tail)
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // What it started in turn dies with the sandbox.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hekate over one library.
pub(crate) struct Seeder(pub(crate) Program);

impl Seeder {
    /// Returns when it listens.
    pub(crate) fn start(library: &Path, scene: &Path, address: IpAddr) -> Self {
        Self::start_with(library, scene, address, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(
        library: &Path,
        scene: &Path,
        address: IpAddr,
        arguments: &[&str],
    ) -> Self {
        let mut command = command(env!("CARGO_BIN_EXE_hekate"), scene);
        command
            .args(["seed", "-v", "--bind", &address.to_string()])
            .args(["--port", &PORT.to_string()])
            .args(arguments)
            .arg(library);
        let mut program = Program::start(&mut command, scene.join("seeder.log"));
        let line = format!("listening on {}", SocketAddr::new(address, PORT));
        let listens = poll_until(START_DEADLINE, || {
            let printed = fs::read_to_string(&program.log).unwrap_or_default();
            printed.contains(&line) || program.ended().is_some()
        });
        assert!(
            listens && program.ended().is_none(),
            "no \"{line}\" from the seeder\n{}",
            program.report()
        );
        Self(program)
    }
}

/// opentracker, for one info-hash.
pub(crate) struct Tracker(pub(crate) Program);

impl Tracker {
    /// Returns when it listens.
    ///
    /// It refuses to run as root and cannot become another user where only root is mapped, so it
    /// gets a user namespace in which it is nobody.
    pub(crate) fn start(sample: &Sample, scene: &Path) -> Self {
        fs::write(scene.join("info-hashes"), sample.info_hash_hex() + "\n")
            .expect("the scene is writable");
        let mut command = command("unshare", scene);
        command
            .args([
                "--user",
                "--",
                "opentracker",
                "-i",
                &TRACKER.to_string(),
                "-p",
                &PORT.to_string(),
            ])
            .args(["-P", &PORT.to_string(), "-w", "info-hashes", "-d"])
            .arg(scene);
        let mut program = Program::start(&mut command, scene.join("tracker.log"));
        let listens = poll_until(START_DEADLINE, || {
            program.ended().is_some() || TcpStream::connect((TRACKER, PORT)).is_ok()
        });
        assert!(
            listens && program.ended().is_none(),
            "the tracker does not listen\n{}",
            program.report()
        );
        Self(program)
    }

    /// Waits until the tracker takes the torrent: it reads its file of info-hashes some time after it
    /// listens, and until then it would refuse the seeder for half an hour. The peer that asks
    /// leaves at once.
    pub(crate) fn takes(&mut self, sample: &Sample) {
        let hash = percent_encode(&sample.info_hash);
        let path = format!(
            "/announce?info_hash={hash}&peer_id=-TEST00-000000000000&port=1&left=1&compact=1"
        );
        self.until(&path, b"8:interval");
        self.until(&format!("{path}&event=stopped"), b"8:interval");
    }

    /// Waits until the seeder has announced itself.
    pub(crate) fn knows_a_seed(&mut self, sample: &Sample) {
        let hash = percent_encode(&sample.info_hash);
        self.until(&format!("/scrape?info_hash={hash}"), b"8:completei1e");
    }

    /// Waits until a client has announced itself.
    pub(crate) fn knows_a_leecher(&mut self, sample: &Sample) {
        let hash = percent_encode(&sample.info_hash);
        self.until(&format!("/scrape?info_hash={hash}"), b"10:incompletei1e");
    }

    /// Asks for a page until it holds some bytes.
    fn until(&mut self, path: &str, wanted: &[u8]) {
        let mut answer = Vec::new();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let found = poll_until(START_DEADLINE, || {
            answer = exchange(&request).unwrap_or_else(|error| error.to_string().into_bytes());
            answer.windows(wanted.len()).any(|bytes| bytes == wanted)
        });
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            found,
            "the tracker says to {path}: {answer}\n{}",
            self.0.report()
        );
    }
}

/// What the client is given, and where it must put what it downloads.
pub(crate) struct Task {
    /// A directory of its own: home, settings, everything but the result.
    pub(crate) home: PathBuf,
    /// The directory in which the torrent's own directory must appear.
    pub(crate) downloads: PathBuf,
    /// The metainfo file.
    pub(crate) torrent: PathBuf,
    /// The same as a link, with the tracker.
    pub(crate) magnet: String,
    /// The client is set to encrypt its connections by RC4 and to take no others.
    pub(crate) requires_encryption: bool,
    /// Transmission's uTP is left as it is.
    pub(crate) utp: bool,
}

impl Task {
    /// A client to be started for this task.
    pub(crate) fn command(&self, program: &str) -> Command {
        command(program, &self.home)
    }

    /// The metainfo file as an argument; a temporary directory has a name that is text.
    pub(crate) fn torrent(&self) -> String {
        self.torrent.display().to_string()
    }
}

/// How a client is started, and what it leaves out.
pub(crate) struct Client {
    command: Command,
    makes_empty_files: bool,
}

impl Client {
    /// One that makes every file.
    pub(crate) fn new(command: Command) -> Self {
        Self {
            command,
            makes_empty_files: true,
        }
    }

    /// One that makes only files for which a byte arrives, whoever seeds.
    pub(crate) fn without_empty_files(command: Command) -> Self {
        Self {
            command,
            makes_empty_files: false,
        }
    }
}

/// Starts a client.
pub(crate) fn start(task: &Task, mut client: Client) -> Started {
    Started(Program::start(
        &mut client.command,
        task.home.join("client.log"),
    ))
}

/// A client that runs.
pub(crate) struct Started(Program);

impl Started {
    /// Waits until something is true; fails with what the client and the `other` printed.
    pub(crate) fn until(&mut self, what: &str, other: &mut Program, is_true: impl Fn() -> bool) {
        let came = poll_until(CLIENT_DEADLINE, is_true);
        assert!(came, "{what}\n{}{}", self.0.report(), other.report());
    }
}

/// Runs a client until `downloads` holds what `original` holds; fails with what it and the `others`
/// printed.
pub(crate) fn download(
    task: &Task,
    mut client: Client,
    original: &Path,
    others: &mut [&mut Program],
) {
    let mut program = Program::start(&mut client.command, task.home.join("client.log"));
    let expected = tree(original).expect("the library is readable");
    let name = original.file_name().expect("a directory with a name");
    let copy = task.downloads.join(name);
    let complete = || same(&copy, &expected, client.makes_empty_files);
    poll_until(CLIENT_DEADLINE, || program.ended().is_some() || complete());
    // One more look, because it may have ended in the middle of the last one.
    if !complete() {
        let mut report = difference(&copy, &expected) + &program.report();
        report.extend(others.iter_mut().map(|other| other.report()));
        panic!("the client has no identical copy:\n{report}");
    }
}

/// Returns true if Hekate finds all content of the torrent in what the client has downloaded.
pub(crate) fn is_whole(task: &Task) -> bool {
    let mut command = command(env!("CARGO_BIN_EXE_hekate"), &task.home);
    let command = command.arg("verify").arg("--content").arg(&task.downloads);
    let output = command.arg(&task.torrent).output();
    output.expect("hekate runs").status.success()
}

/// What a client took, since it was started.
#[derive(Default)]
pub(crate) struct Times {
    /// Until its first connection was accepted.
    pub(crate) contact: Option<Duration>,
    /// Until the first whole block was sent.
    pub(crate) first: Option<Duration>,
    /// Until it had an identical copy.
    pub(crate) last: Option<Duration>,
}

/// Runs a client as [`download`] does, and measures it. Fails never.
pub(crate) fn measure(task: &Task, mut client: Client, original: &Path) -> Times {
    let began = Instant::now();
    let mut program = Program::start(&mut client.command, task.home.join("client.log"));
    let expected = tree(original).expect("the library is readable");
    let name = original.file_name().expect("a directory with a name");
    let copy = task.downloads.join(name);
    let mut times = Times::default();
    while began.elapsed() < CLIENT_DEADLINE {
        let metrics = seeder_metrics();
        let grows = |name: &str| {
            let value = metrics.lines().find_map(|line| line.strip_prefix(name));
            value.is_some_and(|value| value.trim() != "0")
        };
        if times.contact.is_none() && grows("hekate_connections_total ") {
            times.contact = Some(began.elapsed());
        }
        if times.first.is_none() && grows("hekate_blocks_total ") {
            times.first = Some(began.elapsed());
        }
        if times.first.is_some() && same(&copy, &expected, client.makes_empty_files) {
            times.last = Some(began.elapsed());
            break;
        }
        thread::sleep(MEASURE_EVERY);
    }
    if times.last.is_none() {
        announce(&program.report());
    }
    times
}

/// The seeder's figures; empty when it does not answer.
fn seeder_metrics() -> String {
    let exchange = || -> io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:6970")?;
        stream.set_read_timeout(Some(START_DEADLINE))?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    exchange().unwrap_or_default()
}

/// The magnet link of BEP 9 with the tracker.
pub(crate) fn magnet(sample: &Sample) -> String {
    format!(
        "magnet:?xt=urn:btih:{}&tr={}",
        sample.info_hash_hex(),
        percent_encode(announce_url().as_bytes())
    )
}

/// The tracker's address for the metainfo file.
pub(crate) fn announce_url() -> String {
    format!("http://{TRACKER}:{PORT}/announce")
}

fn percent_encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02x}").expect("a string takes everything");
        text
    })
}

fn exchange(request: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((TRACKER, PORT))?;
    stream.set_read_timeout(Some(START_DEADLINE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Every file below a directory with its bytes.
type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn tree(root: &Path) -> io::Result<Tree> {
    let mut files = Tree::new();
    for path in paths(root)? {
        files.insert(path.clone(), fs::read(root.join(path))?);
    }
    Ok(files)
}

/// The files below `root`, relative to it, without the padding that some clients leave.
fn paths(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry?;
        let relative = entry
            .path()
            .strip_prefix(root)
            .expect("found below the root");
        if entry.file_type().is_file() && !relative.starts_with(".pad") {
            files.push(relative.to_owned());
        }
    }
    Ok(files)
}

/// Compares names, then lengths, and reads only what may be complete: it is asked many times.
fn same(copy: &Path, expected: &Tree, makes_empty_files: bool) -> bool {
    let names: BTreeSet<_> = paths(copy).unwrap_or_default().into_iter().collect();
    let wanted =
        |path: &Path, bytes: &[u8]| makes_empty_files || !bytes.is_empty() || names.contains(path);
    let length = |path: &Path| fs::metadata(copy.join(path)).map(|found| found.len());
    names.iter().all(|path| expected.contains_key(path))
        && expected
            .iter()
            .filter(|(path, bytes)| wanted(path, bytes))
            .all(|(path, bytes)| {
                length(path).is_ok_and(|found| usize::try_from(found) == Ok(bytes.len()))
            })
        && expected
            .iter()
            .filter(|(path, bytes)| wanted(path, bytes))
            .all(|(path, bytes)| fs::read(copy.join(path)).is_ok_and(|found| found == *bytes))
}

fn difference(copy: &Path, expected: &Tree) -> String {
    let found = match tree(copy) {
        Ok(found) => found,
        Err(error) => return format!("{}: {error}\n", copy.display()),
    };
    let mut lines = String::new();
    for path in expected
        .keys()
        .chain(found.keys().filter(|path| !expected.contains_key(*path)))
    {
        let (original, copied) = (expected.get(path), found.get(path));
        if original != copied {
            let [original, copied] = [original, copied].map(|bytes| bytes.map(Vec::len));
            writeln!(
                lines,
                "{}: {original:?} bytes, copied {copied:?}",
                path.display()
            )
            .expect("a string takes everything");
        }
    }
    lines
}
