//! The output of the log, and the thread that writes it.
//!
//! A disk may hang, and nobody may read the pipe that standard error is. Neither may stop whoever
//! logs, so lines go to a bounded queue. Until the thread is started, as there must be none before
//! rights are given up, a line is written where it is logged.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
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

/// What waits for the thread.
enum Entry {
    /// A whole line.
    Line(Box<[u8]>),
    Reopen,
    /// Dropped when all before it is done.
    Flush(Sender<()>),
}

/// Who writes.
enum Sink {
    /// Whoever logs, until there is the thread.
    Logger(Output),
    /// Sending fails only after a panic of the thread, which ends the process.
    Thread(Sender<Entry>),
}

/// The output, and the queue between those who log and the thread.
pub(super) struct Writer {
    sink: Mutex<Sink>,
    is_file: AtomicBool,
    /// Of the lines that wait.
    queued_bytes: AtomicUsize,
    /// Lines that were not written and not reported.
    lost: AtomicU64,
}

impl Writer {
    pub(super) fn new(output: Output) -> Self {
        Self {
            is_file: matches!(output, Output::File(..)).into(),
            sink: Mutex::new(Sink::Logger(output)),
            queued_bytes: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
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
            let (queue, entries) = channel();
            let before = mem::replace(&mut *lock(&writer.sink), Sink::Thread(queue));
            match before {
                Sink::Logger(output) => writer.run(output, &entries, &report),
                Sink::Thread(_) => unreachable!("the thread is started once"),
            }
        })
    }

    /// Replaces the output of a writer that has no thread yet.
    pub(super) fn set_output(&self, output: Output) {
        let is_file = matches!(output, Output::File(..));
        self.is_file.store(is_file, Ordering::Relaxed);
        let before = mem::replace(&mut *lock(&self.sink), Sink::Logger(output));
        assert!(
            matches!(before, Sink::Logger(_)),
            "the thread has the old output"
        );
    }

    pub(super) fn is_file(&self) -> bool {
        self.is_file.load(Ordering::Relaxed)
    }

    /// Queues a line, which ends with `\n`. Never blocks once there is the thread.
    pub(super) fn push(&self, line: &[u8]) {
        let lost = match &mut *lock(&self.sink) {
            Sink::Logger(output) => output.write(line),
            Sink::Thread(queue) => {
                // Only the thread changes it meanwhile, and only makes it smaller.
                let queued_bytes = self.queued_bytes.load(Ordering::Relaxed);
                let fits = queued_bytes + line.len() <= QUEUE_BYTES_MAX;
                if fits {
                    self.queued_bytes.fetch_add(line.len(), Ordering::Relaxed);
                    let _ = queue.send(Entry::Line(line.into()));
                }
                u64::from(!fits)
            }
        };
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }

    /// Has the file reopened behind the lines that wait. Without a thread that has happened when this
    /// returns, and the result is returned; else the thread reports it.
    pub(super) fn reopen(&self) -> Option<io::Result<()>> {
        match &mut *lock(&self.sink) {
            Sink::Logger(output) => Some(output.reopen()),
            Sink::Thread(queue) => {
                let _ = queue.send(Entry::Reopen);
                None
            }
        }
    }

    /// Waits until the lines so far are written, at most [`FLUSH_MAX`].
    pub(super) fn flush(&self) {
        let (done, written) = channel();
        match &*lock(&self.sink) {
            Sink::Logger(_) => return,
            Sink::Thread(queue) => {
                let _ = queue.send(Entry::Flush(done));
            }
        }
        // Nothing is received: the sender is dropped.
        let _ = written.recv_timeout(FLUSH_MAX);
    }

    /// The life of the thread.
    fn run(&self, mut output: Output, entries: &Receiver<Entry>, report: &impl Fn(Report)) {
        for entry in entries {
            match entry {
                Entry::Line(line) => {
                    let lost = output.write(&line);
                    self.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    self.lost.fetch_add(lost, Ordering::Relaxed);
                    // After a failed write the report would be lost as well.
                    if lost == 0 && self.lost.load(Ordering::Relaxed) > 0 {
                        report(Report::Lost(self.lost.swap(0, Ordering::Relaxed)));
                    }
                }
                Entry::Reopen => report(Report::Reopened(output.reopen())),
                Entry::Flush(done) => drop(done),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read};
    use std::os::fd::OwnedFd;

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
        while matches!(&*lock(&writer.sink), Sink::Logger(_)) {
            std::thread::yield_now();
        }
        (writer, reader, reports)
    }

    fn lost(writer: &Writer) -> u64 {
        writer.lost.load(Ordering::Relaxed)
    }

    fn queued_bytes(writer: &Writer) -> usize {
        writer.queued_bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_and_reported_when_the_output_goes_on() {
        let (writer, mut reader, reports) = started();
        let line = [vec![b'x'; 64 * 1024 - 1], vec![b'\n']].concat();
        let mut pushed = 0;
        while lost(&writer) < 10 {
            writer.push(&line);
            pushed += 1;
        }
        assert!(queued_bytes(&writer) <= QUEUE_BYTES_MAX);
        let mut received = vec![0; (pushed - 10) * line.len()];
        reader.read_exact(&mut received).unwrap();
        assert!(received.chunks(line.len()).all(|chunk| chunk == line));
        assert_eq!(reports.recv().unwrap(), "lost: 10");
        writer.push(b"next\n");
        writer.flush();
        received.truncate(5);
        reader.read_exact(&mut received).unwrap();
        assert_eq!(received, b"next\n");
        assert_eq!(lost(&writer), 0);
    }

    #[test]
    fn flush_returns_though_the_output_is_stuck() {
        let (writer, reader, _reports) = started();
        writer.push(&vec![b'\n'; 1 << 20]);
        writer.flush();
        assert!(queued_bytes(&writer) > 0);
        drop(reader);
    }

    #[test]
    fn lines_that_cannot_be_written_are_reported_after_the_next_that_can() {
        let (writer, reader, reports) = started();
        drop(reader);
        writer.push(b"one\ntwo\n");
        writer.flush();
        assert_eq!(lost(&writer), 2);
        assert!(reports.try_recv().is_err());
        // That of `started` is at /dev/null.
        assert!(writer.reopen().is_none());
        writer.push(b"three\n");
        assert_eq!(reports.recv().unwrap(), "reopened: true");
        assert_eq!(reports.recv().unwrap(), "lost: 2");
    }
}
