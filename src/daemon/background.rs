//! Going to the background: two forks, and a pipe on which the daemon reports whether it listens.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Mode;
use rustix::process::{setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::sys::process;

/// Others may read new files; only we may write them.
const NEW_FILE_MASK: Mode = Mode::WGRP.union(Mode::WOTH);

/// The exit code if the daemon ended without a report.
const EXIT_SILENT: u8 = 1;

/// Which of the three processes this is after [`go`].
pub enum Role {
    /// The one that was started, with the exit code and the error that the daemon reported.
    Starter(u8, String),
    /// The one between the two forks; it only exits.
    Between,
    /// The daemon.
    Daemon(Background),
}

/// The daemon's end of the pipe; it reports once.
#[derive(Clone)]
pub struct Background {
    starter: Arc<Mutex<Option<PipeWriter>>>,
    /// `/dev/null`, opened before the sandbox forbids it.
    null: Arc<File>,
}

/// Continues as a daemon: in a session of its own that cannot acquire a terminal, and in `/`, so that
/// it keeps no file system mounted. No thread may be running yet.
///
/// # Errors
/// Those of pipe(2), fork(2), setsid(2), chdir(2) and of opening `/dev/null`.
pub fn go() -> io::Result<Role> {
    let (reader, writer) = io::pipe()?;
    if !process::fork()? {
        drop(writer);
        let (code, message) = listen(reader);
        return Ok(Role::Starter(code, message));
    }
    drop(reader);
    setsid()?;
    // Only a session leader acquires a terminal by opening one.
    if !process::fork()? {
        return Ok(Role::Between);
    }
    std::env::set_current_dir("/")?;
    umask(NEW_FILE_MASK);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    Ok(Role::Daemon(Background {
        starter: Arc::new(Mutex::new(Some(writer))),
        null: Arc::new(null),
    }))
}

/// Waits for the daemon's report: exit code, newline, message.
fn listen(mut reader: PipeReader) -> (u8, String) {
    let mut report = String::new();
    let read = reader.read_to_string(&mut report);
    match (read, report.split_once('\n')) {
        (Ok(_), Some((code, message))) => (code.parse().unwrap_or(EXIT_SILENT), message.to_owned()),
        _ => {
            let silent = "the daemon exited before it listened";
            (EXIT_SILENT, silent.to_owned())
        }
    }
}

impl Background {
    /// Reports that the daemon listens, and points its standard streams at `/dev/null`.
    pub fn ready(&self) {
        // What was logged so far may be meant for the streams that are left.
        log::logger().flush();
        let null = &*self.null;
        let replaced = dup2_stdin(null)
            .and_then(|()| dup2_stdout(null))
            .and_then(|()| dup2_stderr(null));
        if let Err(error) = replaced {
            log::warn!("cannot redirect the standard streams: {error}");
        }
        self.report(0, "");
    }

    /// Reports an exit code and an error. Returns true if the starter still waits for a report:
    /// after the first one it does not.
    pub fn report(&self, code: u8, message: &str) -> bool {
        let mut writer = self.starter.lock().unwrap_or_else(PoisonError::into_inner);
        // The starter may have been killed meanwhile.
        let writer = writer.take();
        writer.is_some_and(|mut writer| write!(writer, "{code}\n{message}").is_ok())
    }
}
