//! A line on standard error that says how far a long run is.
//!
//! Owns the wording and the pace. It must not know what is being done.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::library::scan::build::{Progress, count_files};

/// How often the line is drawn again on a terminal: often enough to look alive.
const REDRAW: Duration = Duration::from_millis(200);

/// How often a line is written where there is no terminal: a log is not to be filled.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Characters of the bar.
const BAR_WIDTH: u64 = 30;

/// About how many files there will be.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'a> {
    /// So many.
    Files(u64),
    /// As many as are found here. They are counted for somebody who looks, and for no log.
    Below(&'a [PathBuf]),
}

/// Does the work and shows how far it is meanwhile.
pub fn show<T>(progress: &Progress, expected: Expected<'_>, work: impl FnOnce() -> T) -> T {
    let is_terminal = io::stderr().is_terminal();
    let (done, ended) = channel::<()>();
    let (total, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (total, stop) = (&total, &stop);
    thread::scope(|scope| {
        match expected {
            Expected::Files(files) => total.store(files, Ordering::Relaxed),
            Expected::Below(inputs) if is_terminal => {
                scope.spawn(move || {
                    let files = count_files(inputs, stop);
                    total.store(files.unwrap_or(0), Ordering::Relaxed);
                });
            }
            Expected::Below(_) => {}
        }
        scope.spawn(move || {
            // Somebody who closes standard error does not want to read it.
            let _ = draw(progress, total, is_terminal, &ended);
        });
        let result = work();
        stop.store(true, Ordering::Relaxed);
        drop(done);
        result
    })
}

/// `total` is 0 while it is not known.
fn draw(
    progress: &Progress,
    total: &AtomicU64,
    is_terminal: bool,
    ended: &Receiver<()>,
) -> io::Result<()> {
    let start = Instant::now();
    let pace = if is_terminal { REDRAW } else { LOG_EVERY };
    loop {
        let is_over = ended.recv_timeout(pace) != Err(RecvTimeoutError::Timeout);
        let files = progress.files.load(Ordering::Relaxed);
        let bytes = progress.bytes.load(Ordering::Relaxed);
        let total = total.load(Ordering::Relaxed);
        let line = line(files, bytes, total, start.elapsed());
        let mut out = io::stderr().lock();
        match (is_terminal, is_over) {
            // The cursor goes back, and what was longer is erased.
            (true, false) => write!(out, "\r{line}\x1b[K")?,
            (true, true) => write!(out, "\r\x1b[K")?,
            (false, false) => writeln!(out, "{line}")?,
            (false, true) => {}
        }
        out.flush()?;
        if is_over {
            return Ok(());
        }
    }
}

fn line(files: u64, bytes: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
    let rate = files as f64 / seconds;
    let size = bytes / (1 << 20);
    let counted = format!("{files} torrents, {size} MiB, {rate:.0} torrents a second");
    if total == 0 {
        return counted;
    }
    let part = files.min(total);
    let full = usize::try_from(part * BAR_WIDTH / total).unwrap_or(0);
    let width = usize::try_from(BAR_WIDTH).unwrap_or(0);
    let percent = part * 100 / total;
    format!("[{:<width$}] {percent:3} %  {counted}", "#".repeat(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let second = Duration::from_secs(2);
        assert_eq!(
            line(500, 3 << 20, 0, second),
            "500 torrents, 3 MiB, 250 torrents a second"
        );
        assert_eq!(
            line(500, 0, 1000, second),
            "[###############               ]  50 %  500 torrents, 0 MiB, 250 torrents a second"
        );
        // More than was expected is no more than all.
        assert!(line(9, 0, 3, second).contains("] 100 %"));
    }

    #[test]
    fn the_work_is_done_and_its_result_given_back() {
        for expected in [Expected::Files(0), Expected::Below(&[])] {
            assert_eq!(show(&Progress::default(), expected, || 7), 7);
        }
    }
}
