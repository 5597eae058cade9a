//! A line on standard error that says how far a long run is.
//!
//! Owns the wording and the pace. It must not know what is being done.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::library::build::Progress;

/// How often the line is drawn again on a terminal: often enough to look alive.
const REDRAW: Duration = Duration::from_millis(200);

/// How often a line is written where there is no terminal: a log is not to be filled.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Characters of the bar.
const BAR_WIDTH: u64 = 30;

/// Does the work and shows how far it is meanwhile. `expected` is about how many files there are,
/// when that is known.
pub fn show<T>(progress: &Progress, expected: Option<u64>, work: impl FnOnce() -> T) -> T {
    let (done, ended) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            // Somebody who closes standard error does not want to read it.
            let _ = draw(progress, expected, &ended);
        });
        let result = work();
        drop(done);
        result
    })
}

fn draw(progress: &Progress, expected: Option<u64>, ended: &Receiver<()>) -> io::Result<()> {
    let start = Instant::now();
    let is_terminal = io::stderr().is_terminal();
    let pace = if is_terminal { REDRAW } else { LOG_EVERY };
    loop {
        let is_over = ended.recv_timeout(pace) != Err(RecvTimeoutError::Timeout);
        let files = progress.files.load(Ordering::Relaxed);
        let bytes = progress.bytes.load(Ordering::Relaxed);
        let line = line(files, bytes, expected, start.elapsed());
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

fn line(files: u64, bytes: u64, expected: Option<u64>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
    let rate = files as f64 / seconds;
    let size = bytes / (1 << 20);
    let counted = format!("{files} torrents, {size} MiB, {rate:.0} torrents a second");
    let Some(expected) = expected.filter(|expected| *expected > 0) else {
        return counted;
    };
    let part = files.min(expected);
    let full = usize::try_from(part * BAR_WIDTH / expected).unwrap_or(0);
    let width = usize::try_from(BAR_WIDTH).unwrap_or(0);
    let percent = part * 100 / expected;
    format!("[{:<width$}] {percent:3} %  {counted}", "#".repeat(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let second = Duration::from_secs(2);
        assert_eq!(
            line(500, 3 << 20, None, second),
            "500 torrents, 3 MiB, 250 torrents a second"
        );
        assert_eq!(
            line(500, 0, Some(1000), second),
            "[###############               ]  50 %  500 torrents, 0 MiB, 250 torrents a second"
        );
        // More than was expected is no more than all.
        assert!(line(9, 0, Some(3), second).contains("] 100 %"));
        assert!(!line(9, 0, Some(0), second).contains('%'));
    }

    #[test]
    fn the_work_is_done_and_its_result_given_back() {
        assert_eq!(show(&Progress::default(), None, || 7), 7);
    }
}
