//! Measures a daemon whose library changes while peers download, and one that strangers flood.
//!
//! Owns the changes, the flood and the questions that show what is served. How peers download is
//! `hekate-swarm`'s.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hekate::library::watch::Watcher;
use hekate::torrent::reader::Reader;
use hekate::wire::handshake;
use hekate::wire::message::{InfoHash, PeerId};
use serde_json::Value;
use sha1::{Digest, Sha1};
use socket2::{Domain, Socket, Type};

use super::processor::Used;
use super::served::{Daemon, built};
use super::{anonymous_bytes, row, to_f64};

/// Torrents that come and as many that go, each second.
const CHANGES: usize = 1000;

/// They are changed so many times a second.
const TICKS: usize = 10;

const TICK: Duration = Duration::from_millis(100);

/// Torrents that come and go: each stays half of the time, or away.
const POOL: usize = 10_000;

/// Torrents in one directory.
const PER_DIRECTORY: usize = 500;

/// When a change must be seen.
const BAR: Duration = Duration::from_secs(2);

/// Threads that ask.
const ASKERS: usize = 8;

/// Peers that download.
const PEERS: &str = "50";

/// Seconds for which they are measured while the library changes, and while strangers flood.
const CHANGING_S: u64 = 60;
const FLOODED_S: u64 = 15;

/// How often memory is looked at while strangers flood and nobody else asks, and how many times.
const FLOOD_SAMPLE: Duration = Duration::from_secs(5);
const FLOOD_SAMPLES: u32 = 12;

/// Threads that flood.
const FLOODERS: u8 = 4;

/// Directories that are watched to see what one costs.
const WATCHED: usize = 100_000;

/// A handshake that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything, with the torrents of `content` for the peers.
pub(crate) fn measure(content: &Path) -> io::Result<()> {
    let directory = content.with_file_name("live");
    let _ = fs::remove_dir_all(&directory);
    watches(&directory)?;
    let pool = make_pool(&directory, "changing")?;
    // As many as are there while the others change, and never change themselves.
    let still = make_pool(&directory, "still")?;
    for torrent in still.iter().step_by(2) {
        torrent.come()?;
    }
    let first = any_torrent(content)?;
    let (state, library) = (directory.join("state"), directory.join("lib"));
    let arguments = [
        OsStr::new("--state-dir"),
        state.as_os_str(),
        content.as_os_str(),
        library.as_os_str(),
    ];
    let (daemon, _) = Daemon::start(&arguments, &first)?;
    // It is ready when it has noticed the first that came.
    let (ready, others) = pool.split_first().ok_or(io::ErrorKind::NotFound)?;
    ready.come()?;
    while !ask(daemon.address(), &ready.info_hash)? {
        thread::sleep(TICK);
    }
    let quiet = swarm(&daemon, content, CHANGING_S, |swarm| {
        ask_while(&daemon, swarm, |_, _| Ok(()), &still)
    })?;
    let changing = swarm(&daemon, content, CHANGING_S, |swarm| {
        ask_while(&daemon, swarm, Changing::change, others)
    })?;
    print_comparison(&quiet, &changing)?;
    for torrent in others.iter().filter(|torrent| torrent.here.exists()) {
        torrent.go()?;
    }
    // That the library takes this up is not to be counted with the flood.
    thread::sleep(2 * BAR);
    flood(&daemon, content, &quiet.1)?;
    drop(daemon);
    fs::remove_dir_all(&directory)
}

/// What watching a directory costs.
fn watches(directory: &Path) -> io::Result<()> {
    let root = directory.join("watched");
    for number in 0..WATCHED {
        let directory = root.join(format!("{:03}", number / 1000));
        fs::create_dir_all(directory.join(format!("document-{number:06}")))?;
    }
    let before = anonymous_bytes("self")?;
    let start = Instant::now();
    let watcher = Watcher::new(std::slice::from_ref(&root), &[])?;
    let elapsed = start.elapsed();
    let watched = to_f64(watcher.watched() as u64);
    let each = to_f64(anonymous_bytes("self")?.saturating_sub(before)) / watched;
    row(
        "watching directories",
        &format!("{each:.0} bytes for each of {watched}, all in {elapsed:.1?}"),
    )?;
    drop(watcher);
    fs::remove_dir_all(root)
}

/// A torrent that comes and goes: its content is always there.
struct Changing {
    info_hash: InfoHash,
    here: PathBuf,
    away: PathBuf,
    /// How many times it has come or gone.
    changes: AtomicU64,
}

impl Changing {
    fn change(&self, comes: bool) -> io::Result<()> {
        match comes {
            true => self.come(),
            false => self.go(),
        }
    }

    fn come(&self) -> io::Result<()> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        fs::rename(&self.away, &self.here)
    }

    fn go(&self) -> io::Result<()> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        fs::rename(&self.here, &self.away)
    }
}

/// Makes the torrents, all of them away.
fn make_pool(directory: &Path, kind: &str) -> io::Result<Vec<Changing>> {
    let piece = Sha1::digest([0]);
    (0..POOL)
        .map(|number| {
            let name = format!("{kind}-{number}");
            let part = (number / PER_DIRECTORY).to_string();
            let (here, away) = (
                directory.join("lib").join(kind).join(&part),
                directory.join("away").join(kind).join(&part),
            );
            fs::create_dir_all(&here)?;
            fs::create_dir_all(&away)?;
            fs::write(here.join(&name), [0])?;
            let head = format!("d6:lengthi1e4:name{}:{name}", name.len());
            let tail = b"12:piece lengthi16384e6:pieces20:";
            let info = [head.as_bytes(), tail, &piece, b"e"].concat();
            let file = format!("{name}.torrent");
            fs::write(away.join(&file), [b"d4:info", &info[..], b"e"].concat())?;
            Ok(Changing {
                info_hash: InfoHash(Sha1::digest(&info).into()),
                here: here.join(&file),
                away: away.join(&file),
                changes: AtomicU64::new(0),
            })
        })
        .collect()
}

/// The info-hash of some torrent in a directory.
fn any_torrent(directory: &Path) -> io::Result<InfoHash> {
    let mut paths = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let path = paths.find(|path| path.extension() == Some(OsStr::new("torrent")));
    let path = path.ok_or(io::ErrorKind::NotFound)?;
    let found = Reader::default().read(&path).map_err(io::Error::other)?;
    Ok(found.metainfo.info_hash)
}

/// Whether a handshake is answered.
fn ask(address: SocketAddr, info_hash: &InfoHash) -> io::Result<bool> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    shake(stream, info_hash)
}

fn shake(mut stream: TcpStream, info_hash: &InfoHash) -> io::Result<bool> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let ours = PeerId(*b"-BE0000-abcdefghijkl");
    // The daemon may have gone before all of it is written.
    let _ = stream.write_all(&handshake::encode(*info_hash, ours));
    let mut answer = [0; handshake::HANDSHAKE_LENGTH];
    let answered = match stream.read_exact(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
        answered => answered.is_ok(),
    };
    // Ports are not to run out.
    Socket::from(stream).set_linger(Some(Duration::ZERO))?;
    Ok(answered)
}

/// What 50 peers felt.
struct Felt {
    p99_us: f64,
    gigabytes_a_second: f64,
    /// See [`Used::until`].
    processors: String,
}

/// What came of the questions.
#[derive(Default)]
struct Answers {
    right: AtomicU64,
    missing: AtomicU64,
    lingering: AtomicU64,
    /// Those whose torrent changed again before the answer, which says nothing then.
    void: AtomicU64,
    /// The longest that a question came after its time, in milliseconds.
    late_ms: AtomicU64,
}

/// Runs a swarm, and `beside` until it ends.
fn swarm<T>(
    daemon: &Daemon,
    content: &Path,
    seconds: u64,
    beside: impl FnOnce(&mut Child) -> io::Result<T>,
) -> io::Result<(T, Felt)> {
    let report = std::env::temp_dir().join(format!("bench-{}.json", std::process::id()));
    let before = Used::now(daemon.pid())?;
    let mut child = Command::new(built("hekate-swarm")?)
        .args(["load", "--quiet", "--peers", PEERS, "--torrent"])
        .arg(content)
        .args(["--address", &daemon.address().to_string()])
        .args(["--pid", &daemon.pid().to_string()])
        .args(["--seconds", &seconds.to_string(), "--json"])
        .arg(&report)
        .stdout(Stdio::null())
        .spawn()?;
    let beside = beside(&mut child)?;
    if !child.wait()?.success() {
        return Err(io::Error::other("hekate-swarm has failed"));
    }
    let processors = before.until(&Used::now(daemon.pid())?)?;
    let value: Value = serde_json::from_str(&fs::read_to_string(&report)?)?;
    fs::remove_file(&report)?;
    let number = |path: &str| value.pointer(path).and_then(Value::as_f64);
    let felt = Felt {
        p99_us: number("/latency_us/p99").unwrap_or(f64::NAN),
        gigabytes_a_second: number("/throughput/active_gb_per_second").unwrap_or(f64::NAN),
        processors,
    };
    Ok((beside, felt))
}

/// A question that is due: whether this torrent is served.
struct Question<'a> {
    due: Instant,
    torrent: &'a Changing,
    /// How many times it had changed.
    changes: u64,
    expected: bool,
}

/// Until the swarm has ended, changes torrents and asks for each of them when it must have been
/// noticed. Without changes it asks as often.
fn ask_while(
    daemon: &Daemon,
    swarm: &mut Child,
    change: impl Fn(&Changing, bool) -> io::Result<()>,
    pool: &[Changing],
) -> io::Result<Answers> {
    let answers = Answers::default();
    let questions = Mutex::new(VecDeque::new());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS)
            .map(|_| scope.spawn(|| answer(daemon.address(), &questions, &over, &answers)))
            .collect();
        let changed = change_all(swarm, &change, pool, &questions);
        over.store(true, Ordering::Relaxed);
        for asker in askers {
            asker
                .join()
                .map_err(|_| io::Error::other("an asker died"))??;
        }
        changed
    })?;
    Ok(answers)
}

fn change_all<'a>(
    swarm: &mut Child,
    change: &impl Fn(&Changing, bool) -> io::Result<()>,
    pool: &'a [Changing],
    questions: &Mutex<VecDeque<Question<'a>>>,
) -> io::Result<()> {
    let each_tick = CHANGES / TICKS;
    let mut tick = Instant::now();
    let mut come = pool.iter().cycle();
    // Half of the pool is there at any time.
    let mut go = pool.iter().cycle();
    let mut ticks = 0;
    while swarm.try_wait()?.is_none() {
        let mut steps: Vec<(&Changing, bool)> = Vec::new();
        steps.extend(come.by_ref().take(each_tick).map(|torrent| (torrent, true)));
        if ticks >= POOL / 2 / each_tick {
            steps.extend(go.by_ref().take(each_tick).map(|torrent| (torrent, false)));
        }
        for (torrent, comes) in steps {
            change(torrent, comes)?;
            let question = Question {
                due: Instant::now() + BAR,
                torrent,
                changes: torrent.changes.load(Ordering::Relaxed),
                expected: torrent.here.exists(),
            };
            if let Ok(mut questions) = questions.lock() {
                questions.push_back(question);
            }
        }
        ticks += 1;
        tick += TICK;
        thread::sleep(tick.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Asks until it is over and nothing is due.
fn answer(
    address: SocketAddr,
    questions: &Mutex<VecDeque<Question<'_>>>,
    over: &AtomicBool,
    answers: &Answers,
) -> io::Result<()> {
    loop {
        let next = questions.lock().map_or(None, |mut all| all.pop_front());
        let Some(question) = next else {
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(TICK / 10);
            continue;
        };
        thread::sleep(question.due.saturating_duration_since(Instant::now()));
        let late = question.due.elapsed().as_millis();
        answers
            .late_ms
            .fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
        let is_served = ask(address, &question.torrent.info_hash)?;
        let changes = question.torrent.changes.load(Ordering::Relaxed);
        let counter = match (question.expected, is_served) {
            _ if changes != question.changes => &answers.void,
            (true, false) => &answers.missing,
            (false, true) => &answers.lingering,
            _ => &answers.right,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn print_comparison(quiet: &(Answers, Felt), changing: &(Answers, Felt)) -> io::Result<()> {
    for (what, (answers, felt)) in [
        ("nothing changes", quiet),
        ("2,000 changes a second", changing),
    ] {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        row(
            &format!("{PEERS} peers, {what}"),
            &format!(
                "p99 of a block {:.1} ms, {:.2} GB a second; after 2 s {} as they should be, {} not \
                 served yet, {} served still, {} changed again before the answer; asked at most \
                 {} ms later",
                felt.p99_us / 1000.0,
                felt.gigabytes_a_second,
                number(&answers.right),
                number(&answers.missing),
                number(&answers.lingering),
                number(&answers.void),
                number(&answers.late_ms),
            ),
        )?;
        row("processors", &felt.processors)?;
    }
    let ratio = changing.1.p99_us / quiet.1.p99_us;
    row("p99 with changes, to that without", &format!("{ratio:.2}"))
}

/// Handshakes for info-hashes that nobody serves, as fast as they go.
fn flood(daemon: &Daemon, content: &Path, quiet: &Felt) -> io::Result<()> {
    let flooded = |over: &AtomicBool, wait: &mut dyn FnMut() -> io::Result<()>| {
        thread::scope(|scope| {
            let flooders: Vec<_> = (0..FLOODERS)
                .map(|number| scope.spawn(move || strange(daemon.address(), number, over)))
                .collect();
            let waited = wait();
            over.store(true, Ordering::Relaxed);
            let mut total = 0;
            for flooder in flooders {
                total += flooder
                    .join()
                    .map_err(|_| io::Error::other("a flooder died"))??;
            }
            waited.map(|()| total)
        })
    };
    let (memory, disk, files) = (
        daemon.anonymous_bytes()?,
        daemon.read_bytes()?,
        daemon.file_bytes()?,
    );
    let mut grown = Vec::new();
    let alone = flooded(&AtomicBool::new(false), &mut || {
        for _ in 0..FLOOD_SAMPLES {
            thread::sleep(FLOOD_SAMPLE);
            let kilobytes = daemon.anonymous_bytes()?.saturating_sub(memory) / 1024;
            grown.push(kilobytes.to_string());
        }
        Ok(())
    })?;
    row(
        "flood of unknown info-hashes",
        &format!(
            "{:.0} handshakes a second; {} bytes read from disk, {} bytes from files, KiB of \
             memory grown every {FLOOD_SAMPLE:?}: {}",
            to_f64(alone) / (FLOOD_SAMPLE * FLOOD_SAMPLES).as_secs_f64(),
            daemon.read_bytes()? - disk,
            daemon.file_bytes()? - files,
            grown.join(", "),
        ),
    )?;
    let (beside, felt) = swarm(daemon, content, FLOODED_S, |swarm| {
        let start = Instant::now();
        let total = flooded(&AtomicBool::new(false), &mut || swarm.wait().map(|_| ()))?;
        Ok(to_f64(total) / start.elapsed().as_secs_f64())
    })?;
    row(
        &format!("{PEERS} peers beside a flood"),
        &format!(
            "{:.2} GB a second, {:.2} without; p99 of a block {:.1} ms, {:.1} without; {beside:.0} \
             handshakes a second",
            felt.gigabytes_a_second,
            quiet.gigabytes_a_second,
            felt.p99_us / 1000.0,
            quiet.p99_us / 1000.0,
        ),
    )?;
    row("processors", &felt.processors)
}

/// Floods until it is over. Answers how many were refused.
fn strange(address: SocketAddr, number: u8, over: &AtomicBool) -> io::Result<u64> {
    let mut random = fastrand::Rng::with_seed(number.into());
    let mut refused = 0;
    while !over.load(Ordering::Relaxed) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // From many addresses, so that no port runs out.
        let from = Ipv4Addr::new(127, 1, number, random.u8(1..255));
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&address.into())?;
        let info_hash = InfoHash(std::array::from_fn(|_| random.u8(..)));
        if shake(socket.into(), &info_hash)? {
            return Err(io::Error::other("an unknown torrent is served"));
        }
        refused += 1;
    }
    Ok(refused)
}
