//! A line on standard error that shows the progress of a long run.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::library::scan::build::{Progress, count_files};

/// The interval of redrawing the line on a terminal.
const REDRAW: Duration = Duration::from_millis(200);

/// The interval of lines without a terminal, so that a log is not filled.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Width of the bar in characters.
const BAR_WIDTH: u64 = 30;

/// The approximate number of files.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'a> {
    /// A known number.
    Files(u64),
    /// The number found below these paths, counted on a terminal only.
    Below(&'a [PathBuf]),
}

/// Runs `work` and shows its progress meanwhile, unless no thread can be started for that.
pub fn show<T>(progress: &Progress, expected: Expected<'_>, work: impl FnOnce() -> T) -> T {
    let is_terminal = io::stderr().is_terminal();
    let (done, ended) = channel::<()>();
    let (total, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (total, stop) = (&total, &stop);
    thread::scope(|scope| {
        match expected {
            Expected::Files(files) => total.store(files, Ordering::Relaxed),
            Expected::Below(inputs) if is_terminal => {
                let count = move || {
                    let files = count_files(inputs, stop);
                    total.store(files.unwrap_or(0), Ordering::Relaxed);
                };
                let _ = thread::Builder::new().spawn_scoped(scope, count);
            }
            Expected::Below(_) => {}
        }
        let draw = move || {
            // Standard error may be closed: then there is nothing to show.
            let _ = draw(progress, total, is_terminal, &ended);
        };
        let _ = thread::Builder::new().spawn_scoped(scope, draw);
        let result = work();
        stop.store(true, Ordering::Relaxed);
        drop(done);
        result
    })
}

/// `total` is 0 while it is unknown.
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
            // Return to the start of the line, and erase the rest of a longer one.
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
    fn the_line_shows_counts_rate_and_percentage() {
        let second = Duration::from_secs(2);
        assert_eq!(
            line(500, 3 << 20, 0, second),
            "500 torrents, 3 MiB, 250 torrents a second"
        );
        assert_eq!(
            line(500, 0, 1000, second),
            "[###############               ]  50 %  500 torrents, 0 MiB, 250 torrents a second"
        );
        // More files than expected are shown as 100 %.
        assert!(line(9, 0, 3, second).contains("] 100 %"));
    }

    #[test]
    fn the_result_of_the_work_is_returned() {
        for expected in [Expected::Files(0), Expected::Below(&[])] {
            assert_eq!(show(&Progress::default(), expected, || 7), 7);
        }
    }
}
