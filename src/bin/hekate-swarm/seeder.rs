//! The seeder under load, as the kernel sees it.
//!
//! Its process, if the swarm started it, and its figures from /proc: processor time, memory, and the
//! memory of all sockets.

use hekate::sys;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io::{Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// Ticks per second in /proc (`USER_HZ`), on every Linux except Alpha's.
const TICKS_PER_SECOND: f64 = 100.0;
/// /proc/net/sockstat counts memory in pages.
const PAGE_BYTES: u64 = 4096;
/// How long a seeder may take to stop; libtorrent waits for its trackers.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Between two attempts to connect until the seeder serves.
const PROBE_EVERY: Duration = Duration::from_millis(200);

/// Figures of the process at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sample {
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    /// Anonymous memory.
    pub(crate) anonymous_bytes: u64,
    /// Resident memory, mapped content included.
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u64,
}

impl Sample {
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds
    }
}

/// Samples process `pid`, with all its threads.
pub(crate) fn sample(pid: u32) -> io::Result<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let (user_seconds, system_seconds) = cpu_seconds(&format!("/proc/{pid}/stat"))?;
    Ok(Sample {
        user_seconds,
        system_seconds,
        anonymous_bytes: field(&status, "RssAnon:") * 1024,
        resident_bytes: field(&status, "VmRSS:") * 1024,
        threads: field(&status, "Threads:"),
    })
}

/// Processor time in user and in system mode, from a `stat` file of a process or a thread.
pub(crate) fn cpu_seconds(path: &str) -> io::Result<(f64, f64)> {
    parse_stat(&fs::read_to_string(path)?)
        .ok_or_else(|| Error::other(format!("{path}: unreadable")))
}

/// The name of the process is in parentheses and may hold anything, so fields are counted from behind it.
fn parse_stat(stat: &str) -> Option<(f64, f64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

/// Busy time of all processors since boot, in seconds.
pub(crate) fn busy_seconds() -> io::Result<f64> {
    parse_busy(&fs::read_to_string("/proc/stat")?)
        .ok_or_else(|| Error::other("/proc/stat: unreadable"))
}

/// The first line sums all processors: user, nice, system, idle, waiting, then more that is work.
/// What guests use is in user and nice already.
fn parse_busy(stat: &str) -> Option<f64> {
    let mut fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    let mut ticks = 0.0;
    for field in 0..8 {
        let value: f64 = fields.next()?.parse().ok()?;
        if !matches!(field, 3 | 4) {
            ticks += value;
        }
    }
    Some(ticks / TICKS_PER_SECOND)
}

/// Memory that the kernel holds for all TCP sockets of this network namespace, in bytes.
pub(crate) fn socket_memory_bytes() -> io::Result<u64> {
    let sockstat = fs::read_to_string("/proc/net/sockstat")?;
    let line = sockstat.lines().find(|line| line.starts_with("TCP:"));
    Ok(line.map_or(0, |line| field(line, "mem")) * PAGE_BYTES)
}

/// The number after `name`.
fn field(text: &str, name: &str) -> u64 {
    let mut words = text.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The process that serves: started here, named by its id, or unknown.
pub(crate) struct Seeder {
    child: Option<Child>,
    pid: Option<u32>,
}

impl Seeder {
    /// A process that runs already, or an unknown one.
    pub(crate) fn running(pid: Option<u32>) -> Seeder {
        Seeder { child: None, pid }
    }

    /// Starts `command` with its output in `log`, bound to processor `cpu` if given.
    ///
    /// It inherits the affinity of this thread, which is restored afterwards.
    pub(crate) fn spawn(command: &[String], cpu: Option<usize>, log: &Path) -> io::Result<Seeder> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| Error::other("no command to start"))?;
        let output = fs::File::create(log)?;
        let before = sched_getaffinity(None)?;
        if let Some(cpu) = cpu {
            bind_to(cpu)?;
        }
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        sys::die_with_parent(&mut command);
        let child = command.spawn();
        sched_setaffinity(None, &before)?;
        let child = child?;
        let pid = Some(child.id());
        Ok(Seeder {
            child: Some(child),
            pid,
        })
    }

    /// A sample, or `None` when the process is unknown.
    pub(crate) fn sample(&self) -> Option<Sample> {
        self.pid.and_then(|pid| sample(pid).ok())
    }

    /// Waits until a handshake is answered, at most `patience`.
    pub(crate) fn wait_until_serving(
        &mut self,
        address: SocketAddr,
        handshake: &[u8],
        patience: Duration,
    ) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let problem = match probe(address, handshake) {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                return Err(Error::other(format!("the seeder ended: {status}")));
            }
            if start.elapsed() > patience {
                return Err(Error::other(format!("{address} does not serve: {problem}")));
            }
            thread::sleep(PROBE_EVERY);
        }
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // The signal fails only if the process has ended already.
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < STOP_TIME {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Binds this thread, and the processes that it will start, to one processor.
pub(crate) fn bind_to(cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    // The kernel refuses an empty set.
    if cpu < CpuSet::MAX_CPU {
        only.set(cpu);
    }
    Ok(sched_setaffinity(None, &only)?)
}

fn probe(address: SocketAddr, handshake: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(handshake)?;
    let mut answer = [0; 48];
    stream.read_exact(&mut answer)?;
    if answer.get(28..) == handshake.get(28..48) {
        Ok(())
    } else {
        Err(Error::other("another torrent was answered"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 75 0 0 20 0 1";
        assert_eq!(parse_stat(stat), Some((2.5, 0.75)));
        assert_eq!(parse_stat("12 (a) S 1 2"), None);
    }

    #[test]
    fn idle_time_is_not_work() {
        let stat = "cpu  100 20 30 9999 8888 4 5 6 70 80\ncpu0 1 2 3";
        assert_eq!(parse_busy(stat), Some(1.65));
        assert_eq!(parse_busy("intr 5"), None);
        assert!(busy_seconds().unwrap() > 0.0);
    }

    #[test]
    fn fields_are_found_by_name() {
        let line = "TCP: inuse 27 orphan 0 tw 3 alloc 27 mem 41";
        assert_eq!(field(line, "mem"), 41);
        assert_eq!(field(line, "none"), 0);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let sample = sample(std::process::id()).unwrap();
        assert!(sample.resident_bytes > sample.anonymous_bytes && sample.anonymous_bytes > 0);
        assert!(sample.threads > 0);
    }

    #[test]
    fn a_thread_is_bound_to_a_processor() {
        let before = sched_getaffinity(None).unwrap();
        let cpu = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu));
        bind_to(cpu.unwrap()).unwrap();
        let bound = sched_getaffinity(None).unwrap();
        assert!(bound.is_set(cpu.unwrap()) && bound.count() == 1);
        assert!(bind_to(CpuSet::MAX_CPU).is_err());
        sched_setaffinity(None, &before).unwrap();
    }

    #[test]
    fn a_seeder_is_started_and_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let command = ["sleep".to_owned(), "60".to_owned()];
        let seeder = Seeder::spawn(&command, None, &directory.path().join("log")).unwrap();
        let pid = seeder.pid.unwrap();
        assert!(sample(pid).is_ok());
        drop(seeder);
        assert!(sample(pid).is_err());
    }
}
