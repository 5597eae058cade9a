//! The log: how a line looks, which lines are written, and where they go.
//!
//! `writer` owns the output and its thread, `repeats` which lines are suppressed.

mod repeats;
mod writer;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use env_logger::Target;
use log::{Level, Log, Metadata, Record};

pub use crate::library::catalogue::live::EACH_COUNTS;

use self::repeats::{Repeats, Summary};
use self::writer::{Output, Report, Writer};
use crate::torrent::printable::Visible;

/// What every target of ours begins with, before the component.
const OURS: &str = "hekate::";

/// The filter for components that the administrator gives no level.
const BASE: &str = "hekate=info";

/// Translates levels as an administrator writes them, `info` or `warn,storage=debug`, to a filter of
/// `env_logger`. A level of one component leaves the others at `info`.
///
/// # Errors
/// Names the part that is neither a level nor `component=level`.
pub fn filter(levels: &str) -> Result<String, String> {
    let part = |part: &str| {
        let (target, level) = match part.trim().split_once('=') {
            None => ("hekate".to_owned(), part.trim()),
            Some((component, level)) if is_component(component) => {
                (format!("{OURS}{component}"), level)
            }
            Some((component, _)) => return Err(format!("unknown component {component:?}")),
        };
        match level.parse::<log::LevelFilter>() {
            Ok(level) => Ok(format!("{target}={}", level.as_str().to_ascii_lowercase())),
            Err(_) => Err(format!(
                "unknown level {level:?}: use error, warn, info, debug, trace or off"
            )),
        }
    };
    let mut parts = levels.split(',').map(part).collect::<Result<Vec<_>, _>>()?;
    if parts.iter().all(|part| part.starts_with(OURS)) {
        parts.insert(0, BASE.to_owned());
    }
    Ok(parts.join(","))
}

/// The parts of the program that log.
pub const COMPONENTS: &[&str] = &[
    "daemon", "library", "logging", "reactor", "status", "storage", "tracker", "workers",
];

fn is_component(name: &str) -> bool {
    COMPONENTS.contains(&name)
}

/// The log of this process.
#[derive(Clone)]
pub struct Logging(Arc<Shared>);

struct Shared {
    /// No lock is held while a line is formatted: that may panic, and the panic hook logs.
    logger: Mutex<Arc<env_logger::Logger>>,
    repeats: Mutex<Repeats>,
    writer: Arc<Writer>,
    /// Standard error is the journal, which records the time itself and understands priorities.
    is_stderr_journal: bool,
    started: Instant,
}

impl Logging {
    /// Starts logging with a filter of [`filter`] to a file or, without one, to standard error.
    /// `RUST_LOG` overrides the filter if it is set.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or this process has a logger already.
    pub fn start(filter: &str, file: Option<&Path>) -> io::Result<Self> {
        let output = file.map_or(Ok(Output::Stderr), Output::file)?;
        let writer = Arc::new(Writer::new(output));
        let is_stderr_journal = is_stderr_journal();
        let logging = Self(Arc::new(Shared {
            logger: Mutex::new(build(filter, &writer, is_stderr_journal)),
            repeats: Mutex::default(),
            writer,
            is_stderr_journal,
            started: Instant::now(),
        }));
        log::set_boxed_logger(Box::new(logging.clone())).map_err(io::Error::other)?;
        logging.set_filter(filter);
        logging.hook_panics();
        Ok(logging)
    }

    /// Starts the thread that writes the log. Whoever logs waits for the output until then.
    pub fn start_thread(&self) {
        let logging = self.clone();
        if let Err(error) = self.0.writer.start(move |report| logging.report(report)) {
            log::warn!("cannot start the log's thread: {error}");
        }
    }

    /// Logs panics if the log is a file, and then writes them to standard error as Rust does, unless
    /// that is a pipe which nobody reads.
    fn hook_panics(&self) {
        let writer = Arc::clone(&self.0.writer);
        let default_hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if writer.is_file() {
                log::error!(
                    "panic, a defect of hekate: {}",
                    panic.to_string().replace('\n', " ")
                );
            }
            writer.flush();
            if writer::is_stderr_writable() {
                default_hook(panic);
            }
        }));
    }

    /// Changes the levels.
    pub fn set_filter(&self, filter: &str) {
        let logger = build(filter, &self.0.writer, self.0.is_stderr_journal);
        log::set_max_level(logger.filter());
        *lock(&self.0.logger) = logger;
    }

    /// Has the log file reopened after another program has moved it away, and logs the result.
    pub fn reopen(&self) {
        if let Some(result) = self.0.writer.reopen() {
            self.report(Report::Reopened(result));
        }
    }

    /// Continues in a file. A process that was root opens it after it has become another user, so that
    /// nobody who may write to the directory can have it open a file of root's. For before
    /// [`Logging::start_thread`].
    ///
    /// # Errors
    /// The file cannot be opened for appending; names it.
    pub fn set_file(&self, path: &Path) -> io::Result<()> {
        self.0.writer.set_output(Output::file(path)?);
        Ok(())
    }

    /// Writes how many lines were suppressed in the minutes that are over.
    pub fn write_due_summaries(&self) {
        let mut summaries = Vec::new();
        lock(&self.0.repeats).take_due(self.now_ms(), &mut summaries);
        self.write_summaries(&summaries);
    }

    /// Ends the log: writes what was suppressed and waits up to 1 s until all is written.
    pub fn finish(&self) {
        let mut summaries = Vec::new();
        lock(&self.0.repeats).take_all(&mut summaries);
        self.write_summaries(&summaries);
        self.0.writer.flush();
    }

    fn report(&self, report: Report) {
        match report {
            Report::Reopened(Ok(())) => log::info!("log file reopened"),
            Report::Reopened(Err(error)) => {
                log::error!("cannot reopen the log file, keeping the old one: {error}");
            }
            // Not to be suppressed, as each has a count of its own.
            Report::Lost(count) => self.write(
                &Record::builder()
                    .level(Level::Warn)
                    .target(module_path!())
                    .args(format_args!("{count} lines of the log were lost"))
                    .build(),
            ),
        }
    }

    /// Returns false for a line that is suppressed.
    fn admit(&self, record: &Record<'_>) -> bool {
        // Whoever enables details wants all of them.
        if record.level() > Level::Info || record.target() == EACH_COUNTS {
            return true;
        }
        let origin = (
            record.file_static().unwrap_or_default(),
            record.line().unwrap_or_default(),
        );
        let text = record.args().to_string();
        let line = (record.level(), record.target(), text.as_str());
        let mut summaries = Vec::new();
        let admitted = lock(&self.0.repeats).admit(origin, line, self.now_ms(), &mut summaries);
        self.write_summaries(&summaries);
        admitted
    }

    fn write_summaries(&self, summaries: &[Summary]) {
        for summary in summaries {
            let (count, text) = (summary.count, &summary.text);
            self.write(
                &Record::builder()
                    .level(summary.level)
                    .target(&summary.target)
                    .args(format_args!("{text} ({count} similar lines suppressed)"))
                    .build(),
            );
        }
    }

    fn write(&self, record: &Record<'_>) {
        self.logger().log(record);
    }

    fn logger(&self) -> Arc<env_logger::Logger> {
        Arc::clone(&lock(&self.0.logger))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Log for Logging {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && self.admit(record) {
            self.write(record);
        }
    }

    /// Waits up to 1 s until all is written.
    fn flush(&self) {
        self.0.writer.flush();
    }
}

/// Takes whole lines from `env_logger`.
struct Pipe(Arc<Writer>);

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn build(filter: &str, writer: &Arc<Writer>, is_stderr_journal: bool) -> Arc<env_logger::Logger> {
    let output = Arc::clone(writer);
    let logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
            .target(Target::Pipe(Box::new(Pipe(Arc::clone(writer)))))
            .format(move |line, record| {
                let (level, component) = (record.level(), component(record.target()));
                // The last guard: most of what is foreign was escaped, and cut, where it came in.
                let text = Visible {
                    text: record.args(),
                    has_lines: false,
                };
                if is_stderr_journal && !output.is_file() {
                    return writeln!(line, "<{}>{component}: {text}", priority(level));
                }
                let time = line.timestamp_seconds();
                writeln!(line, "{time} {level:5} {component}: {text}")
            })
            .build();
    Arc::new(logger)
}

/// The component that a target belongs to.
fn component(target: &str) -> &str {
    let path = target.strip_prefix(OURS).unwrap_or(target);
    path.split("::").next().unwrap_or(path)
}

/// The journal's number for a level, as in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Returns true if standard error leads to the journal: systemd.exec(5) on `JOURNAL_STREAM`.
fn is_stderr_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stderr.and_then(|stderr| stderr.metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// A panic while a lock was held leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_levels_for_all_or_for_one_component() {
        assert_eq!(filter("info").unwrap(), "hekate=info");
        let both = filter("warn, storage=debug").unwrap();
        assert_eq!(both, "hekate=warn,hekate::storage=debug");
        let one = filter("storage=debug").unwrap();
        assert_eq!(one, "hekate=info,hekate::storage=debug");
        for wrong in [
            "",
            "loud",
            "storage",
            "kitchen=info",
            "storage=loud",
            "info,",
        ] {
            assert!(filter(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Names the log file to the process that a test starts, as the panic hook is global.
    const LOG_FILE: &str = "HEKATE_TEST_LOG_FILE";

    #[test]
    fn a_panic_is_written_to_the_log_file_before_the_process_ends() {
        if let Some(path) = std::env::var_os(LOG_FILE) {
            let logging = Logging::start("hekate=info", Some(Path::new(&path))).unwrap();
            logging.start_thread();
            crate::workers::spawn("panic", || panic!("on\npurpose")).unwrap();
            loop {
                std::thread::park();
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut test = std::process::Command::new(std::env::current_exe().unwrap());
        test.args([
            "--exact",
            "--nocapture",
            "logging::tests::a_panic_is_written_to_the_log_file_before_the_process_ends",
        ]);
        test.env(LOG_FILE, &path).env_remove("RUST_LOG");
        let output = test.output().unwrap();
        assert_eq!(output.status.code(), Some(101));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("on\npurpose"), "{stderr}");
        let log = std::fs::read_to_string(&path).unwrap();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(
            log.contains("ERROR logging: panic, a defect of hekate: panicked at src/logging.rs:"),
            "{log}"
        );
        assert!(log.ends_with(": on purpose\n"), "{log}");
    }

    /// Panics when it is formatted as a part of a line that is admitted, so that the hook logs while
    /// the line is being written.
    struct PanicsAtSecond(std::cell::Cell<u32>);

    impl std::fmt::Display for PanicsAtSecond {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.set(self.0.get() + 1);
            assert!(self.0.get() < 2, "on purpose");
            Ok(())
        }
    }

    #[test]
    fn a_panic_while_a_line_is_written_is_logged_while_levels_change() {
        if let Some(path) = std::env::var_os(LOG_FILE) {
            let logging = Logging::start("hekate=info", Some(Path::new(&path))).unwrap();
            let changes = logging.clone();
            std::thread::spawn(move || {
                loop {
                    changes.set_filter("hekate=info");
                }
            });
            for number in 0..5 {
                let value = PanicsAtSecond(0.into());
                let log = panic::AssertUnwindSafe(|| log::info!("{number}{value}"));
                assert!(panic::catch_unwind(log).is_err());
            }
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut test = std::process::Command::new(std::env::current_exe().unwrap());
        test.args([
            "--exact",
            "logging::tests::a_panic_while_a_line_is_written_is_logged_while_levels_change",
        ]);
        test.env(LOG_FILE, &path).env_remove("RUST_LOG");
        assert!(test.output().unwrap().status.success());
        let log = std::fs::read_to_string(&path).unwrap();
        assert!(log.contains(": on purpose\n"), "{log}");
    }

    #[test]
    fn each_directory_that_logs_is_a_component() {
        let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let root = directories[0].clone();
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let below = path.strip_prefix(&root).unwrap().with_extension("");
                let name = below.iter().next().unwrap().to_str().unwrap();
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let says = ["error", "warn", "info", "debug"]
                    .iter()
                    .any(|level| text.contains(&format!("log::{level}!")));
                let known = is_component(name) || matches!(name, "main" | "bin");
                assert!(!says || known, "{} is not in COMPONENTS", path.display());
            }
        }
    }

    #[test]
    fn a_target_is_shown_as_its_component() {
        assert_eq!(component("hekate::reactor::listener"), "reactor");
        assert_eq!(component("hekate"), "hekate");
    }

    #[test]
    fn journal_priorities_rank_errors_before_warnings_before_info() {
        assert!(priority(Level::Error) < priority(Level::Warn));
        assert!(priority(Level::Warn) < priority(Level::Info));
    }
}
