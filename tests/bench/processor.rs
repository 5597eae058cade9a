//! Who has used the processors: the threads of a daemon, the processes beside it, everybody else.
//!
//! Owns reading that from /proc. It must not know what any of them does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::to_f64;

/// Ticks of /proc in a second, on every Linux for a long time.
const TICKS_A_SECOND: f64 = 100.0;

/// The ticks that each has used since it began.
pub(crate) struct Used {
    at: Instant,
    ticks: BTreeMap<String, u64>,
    /// Of everybody.
    all: u64,
}

impl Used {
    /// By the threads of a daemon, by this process and by its children that have ended.
    pub(crate) fn now(daemon: u32) -> io::Result<Self> {
        let mut ticks = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{daemon}/task"))? {
            // A thread may end meanwhile.
            if let Ok((name, [user, system, ..])) = stat(&task?.path().join("stat")) {
                *ticks.entry(name).or_default() += user + system;
            }
        }
        let (_, [user, system, child_user, child_system]) = stat(Path::new("/proc/self/stat"))?;
        ticks.insert("this generator".to_owned(), user + system);
        ticks.insert("swarm".to_owned(), child_user + child_system);
        let all = fs::read_to_string("/proc/stat")?;
        let all = numbers(all.lines().next().unwrap_or_default());
        // Neither idle nor waiting for a disk; guests are counted with user.
        let all = all.iter().take(8).sum::<u64>() - all.iter().skip(3).take(2).sum::<u64>();
        let at = Instant::now();
        Ok(Used { at, ticks, all })
    }

    /// What each has used from then to `later`, in percent of one processor, with the load.
    pub(crate) fn until(&self, later: &Used) -> io::Result<String> {
        let seconds = later.at.duration_since(self.at).as_secs_f64();
        let percent = |ticks: u64| 100.0 * to_f64(ticks) / TICKS_A_SECOND / seconds;
        let mut shares = Vec::new();
        let mut ours = 0;
        for (name, now) in &later.ticks {
            let used = now.saturating_sub(self.ticks.get(name).copied().unwrap_or(0));
            ours += used;
            if percent(used) >= 0.5 {
                shares.push(format!("{name} {:.0} %", percent(used)));
            }
        }
        let others = (later.all.saturating_sub(self.all)).saturating_sub(ours);
        shares.push(format!("all else {:.0} %", percent(others)));
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().unwrap_or_default();
        Ok(format!("{}; load {load}", shares.join(", ")))
    }
}

/// The name in a stat file, and its ticks: of the user, of the system, and the same of children.
fn stat(path: &Path) -> io::Result<(String, [u64; 4])> {
    let text = fs::read_to_string(path)?;
    let (name, rest) = text.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    let name = name.split_once('(').map_or(name, |(_, name)| name);
    // The state comes first, which is no number.
    let ticks = numbers(rest).get(10..14).map(<[u64; 4]>::try_from);
    match ticks {
        Some(Ok(ticks)) => Ok((name.to_owned(), ticks)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Negative ones are none that we want.
fn numbers(text: &str) -> Vec<u64> {
    let words = text.split_whitespace().skip(1);
    words.map(|word| word.parse().unwrap_or(0)).collect()
}
