//! The output of the log, and the thread that writes it.
//!
//! A disk may hang, and nobody may read the pipe that standard error is. Neither may stop whoever
//! logs, so lines go to a bounded queue. Until the thread is started, as there must be none before
//! rights are given up, a line is written where it is logged.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::lock;
use crate::workers;

/// Most bytes that wait for the thread; lines beyond it are lost and counted. That is some 40,000
/// lines, as many as a library with that many refused torrents writes at the start.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// How long [`Writer::flush`] waits. The end of the process must not depend on a disk.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Where lines go.
pub(super) enum Output {
    Stderr,
    File(PathBuf, File),
}

impl Output {
    /// # Errors
    /// The file cannot be opened for appending; names it.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File(path.to_owned(), append_to(path)?))
    }

    /// Opens the file at its path again, after another program has moved it away. The old one stays
    /// until that succeeds.
    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(path, file) = self {
            *file = append_to(path)?;
        }
        Ok(())
    }

    /// Writes lines and returns how many of them are lost.
    fn write(&mut self, mut lines: &[u8]) -> u64 {
        while !lines.is_empty() {
            let written = match self {
                // Not by std, whose lock would stop everybody else who writes there.
                Self::Stderr => {
                    rustix::io::write(rustix::stdio::stderr(), lines).map_err(Into::into)
                }
                Self::File(_, file) => file.write(lines),
            };
            match written {
                Ok(count) if count > 0 => lines = lines.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        lines.iter().filter(|byte| **byte == b'\n').count() as u64
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Waits for standard error to take a line, for as long as [`Writer::flush`] may. Returns false if it
/// does not.
pub(super) fn is_stderr_writable() -> bool {
    let mut stderr = [PollFd::from_borrowed_fd(
        rustix::stdio::stderr(),
        PollFlags::OUT,
    )];
    let patience = Timespec::try_from(FLUSH_MAX).ok();
    matches!(poll(&mut stderr, patience.as_ref()), Ok(1..))
}

/// What the thread has to say in the log it writes.
pub(super) enum Report {
    Reopened(io::Result<()>),
    /// How many lines were not written.
    Lost(u64),
}

/// The queue between those who log and the thread.
pub(super) struct Writer {
    queue: Mutex<Queue>,
    /// For the thread: the queue has something.
    queued: Condvar,
    /// For [`Writer::flush`]: a batch was written.
    written: Condvar,
}

struct Queue {
    /// `None` once the thread has it.
    output: Option<Output>,
    is_file: bool,
    /// Whole lines that wait.
    lines: Vec<u8>,
    /// The file is to be reopened before the bytes of `lines` from here on. A second reopening that is
    /// asked for before the first has happened is the same one.
    reopen_at: Option<usize>,
    /// Lines that were not written and not reported.
    lost: u64,
    /// The last write has failed: a report of lost lines would be lost as well.
    has_failed: bool,
    /// Bytes since the start: queued, and done with.
    queued_bytes: u64,
    written_bytes: u64,
}

impl Writer {
    pub(super) fn new(output: Output) -> Self {
        Self {
            queue: Mutex::new(Queue {
                is_file: matches!(output, Output::File(..)),
                output: Some(output),
                lines: Vec::new(),
                reopen_at: None,
                lost: 0,
                has_failed: false,
                queued_bytes: 0,
                written_bytes: 0,
            }),
            queued: Condvar::new(),
            written: Condvar::new(),
        }
    }

    /// Starts the thread. It hands its reports to `report`, which may log.
    ///
    /// # Errors
    /// Those of clone(2). Then lines are still written where they are logged.
    pub(super) fn start(
        self: &Arc<Self>,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<()> {
        let writer = Arc::clone(self);
        workers::spawn("log", move || {
            let output = writer.queue().output.take();
            writer.run(output.expect("the thread is started once"), &report);
        })
    }

    /// Replaces the output of a writer that has no thread yet.
    pub(super) fn set_output(&self, output: Output) {
        let mut queue = self.queue();
        assert!(queue.output.is_some(), "the thread has the old output");
        queue.is_file = matches!(output, Output::File(..));
        queue.output = Some(output);
    }

    pub(super) fn is_file(&self) -> bool {
        self.queue().is_file
    }

    /// Queues a line, which ends with `\n`. Never blocks once there is the thread.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.queue();
        if let Some(output) = &mut queue.output {
            let lost = output.write(line);
            queue.lost += lost;
        } else if queue.lines.len() + line.len() > QUEUE_BYTES_MAX {
            queue.lost += 1;
        } else {
            queue.lines.extend_from_slice(line);
            queue.queued_bytes += line.len() as u64;
            self.queued.notify_one();
        }
    }

    /// Has the file reopened behind the lines that wait. Without a thread that has happened when this
    /// returns, and the result is returned; else the thread reports it.
    pub(super) fn reopen(&self) -> Option<io::Result<()>> {
        let mut queue = self.queue();
        if let Some(output) = &mut queue.output {
            return Some(output.reopen());
        }
        queue.reopen_at = queue.reopen_at.or(Some(queue.lines.len()));
        self.queued.notify_one();
        None
    }

    /// Waits until the lines so far are written, at most [`FLUSH_MAX`].
    pub(super) fn flush(&self) {
        let queue = self.queue();
        let until = queue.queued_bytes;
        let is_behind = |queue: &mut Queue| queue.written_bytes < until;
        drop(self.written.wait_timeout_while(queue, FLUSH_MAX, is_behind));
    }

    /// The life of the thread.
    fn run(&self, mut output: Output, report: &impl Fn(Report)) {
        loop {
            let queue = self.queue();
            let is_idle = |queue: &mut Queue| {
                let can_report = queue.lost > 0 && !queue.has_failed;
                queue.lines.is_empty() && queue.reopen_at.is_none() && !can_report
            };
            let waited = self.queued.wait_while(queue, is_idle);
            let mut queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
            let lines = std::mem::take(&mut queue.lines);
            let reopen_at = queue.reopen_at.take();
            let lost = match queue.has_failed {
                true => 0,
                false => std::mem::take(&mut queue.lost),
            };
            drop(queue);
            // The queue was just emptied, so there is room for this.
            if lost > 0 {
                report(Report::Lost(lost));
            }
            let (before, after) = lines.split_at(reopen_at.unwrap_or(lines.len()));
            let mut failed = output.write(before);
            if reopen_at.is_some() {
                report(Report::Reopened(output.reopen()));
            }
            failed += output.write(after);
            let mut queue = self.queue();
            queue.lost += failed;
            queue.has_failed = failed > 0;
            queue.written_bytes += lines.len() as u64;
            drop(queue);
            self.written.notify_all();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read};
    use std::os::fd::OwnedFd;
    use std::sync::mpsc::{Receiver, channel};

    /// A writer with its thread, the other end of its output, and its reports.
    fn started() -> (Arc<Writer>, PipeReader, Receiver<String>) {
        let (reader, pipe) = io::pipe().unwrap();
        let file = File::from(OwnedFd::from(pipe));
        let writer = Arc::new(Writer::new(Output::File("/dev/null".into(), file)));
        let (sender, reports) = channel();
        let report = move |report| {
            let text = match report {
                Report::Reopened(result) => format!("reopened: {}", result.is_ok()),
                Report::Lost(count) => format!("lost: {count}"),
            };
            sender.send(text).unwrap();
        };
        writer.start(report).unwrap();
        while writer.queue().output.is_some() {
            std::thread::yield_now();
        }
        (writer, reader, reports)
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_and_reported_when_the_output_goes_on() {
        let (writer, mut reader, reports) = started();
        let line = [vec![b'x'; 64 * 1024 - 1], vec![b'\n']].concat();
        let mut pushed = 0;
        while writer.queue().lost < 10 {
            writer.push(&line);
            pushed += 1;
        }
        let queue = writer.queue();
        assert!(queue.lines.len() <= QUEUE_BYTES_MAX);
        drop(queue);
        let mut received = vec![0; (pushed - 10) * line.len()];
        reader.read_exact(&mut received).unwrap();
        assert!(received.chunks(line.len()).all(|chunk| chunk == line));
        assert_eq!(reports.recv().unwrap(), "lost: 10");
        writer.push(b"next\n");
        writer.flush();
        received.truncate(5);
        reader.read_exact(&mut received).unwrap();
        assert_eq!(received, b"next\n");
        assert_eq!(writer.queue().lost, 0);
    }

    #[test]
    fn flush_returns_though_the_output_is_stuck() {
        let (writer, reader, _reports) = started();
        writer.push(&vec![b'\n'; 1 << 20]);
        writer.flush();
        assert!(writer.queue().written_bytes < 1 << 20);
        drop(reader);
    }

    #[test]
    fn lines_that_cannot_be_written_are_reported_after_the_next_that_can() {
        let (writer, reader, reports) = started();
        drop(reader);
        writer.push(b"one\ntwo\n");
        writer.flush();
        assert_eq!(writer.queue().lost, 2);
        assert!(reports.try_recv().is_err());
        // That of `started` is at /dev/null.
        assert!(writer.reopen().is_none());
        writer.push(b"three\n");
        assert_eq!(reports.recv().unwrap(), "reopened: true");
        assert_eq!(reports.recv().unwrap(), "lost: 2");
    }
}
