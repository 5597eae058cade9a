//! Going to the background: whoever started the daemon waits until it listens.
//!
//! Owns the two forks and what the first process is told by the last. It must not know why a start
//! has failed.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Mode;
use rustix::process::{setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::sys::process;

/// New files are for others to read, and for nobody but us to write.
const NEW_FILE_MASK: Mode = Mode::WGRP.union(Mode::WOTH);

/// The exit code when the daemon has ended without a word.
const EXIT_SILENT: u8 = 1;

/// What a process is after [`go`].
pub enum Role {
    /// The one that was started. It has heard how the start went: its exit code, and why not.
    Starter(u8, String),
    /// The one between the two, which only ends.
    Between,
    /// The daemon.
    Daemon(Background),
}

/// The daemon's word to who started it, to be said once.
#[derive(Clone)]
pub struct Background {
    starter: Arc<Mutex<Option<PipeWriter>>>,
    /// Opened early: it may be out of reach when it is needed.
    null: Arc<File>,
}

/// Goes on as a daemon: in the background, in a session of its own that can never get a terminal, in
/// `/`, which keeps no file system from being unmounted. There must not be a thread yet.
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
    // Who is not the first of a session gets no terminal by opening one.
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

/// Waits for the daemon's word.
fn listen(mut reader: PipeReader) -> (u8, String) {
    let mut word = String::new();
    let read = reader.read_to_string(&mut word);
    match (read, word.split_once('\n')) {
        (Ok(_), Some((code, message))) => (code.parse().unwrap_or(EXIT_SILENT), message.to_owned()),
        _ => {
            let silent = "the daemon has ended before it listened";
            (EXIT_SILENT, silent.to_owned())
        }
    }
}

impl Background {
    /// The daemon listens: who started it may go, and its standard streams are left.
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
        self.say(0, "");
    }

    /// The daemon cannot start. Answers whether that was heard: after [`Background::ready`] nobody
    /// listens any more.
    #[must_use]
    pub fn fail(&self, code: u8, message: &str) -> bool {
        self.say(code, message)
    }

    fn say(&self, code: u8, message: &str) -> bool {
        let mut writer = self.starter.lock().unwrap_or_else(PoisonError::into_inner);
        // Who started it may have been killed meanwhile.
        let writer = writer.take();
        writer.is_some_and(|mut writer| write!(writer, "{code}\n{message}").is_ok())
    }
}
