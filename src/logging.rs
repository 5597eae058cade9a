//! Where the log goes, how a line looks, and what is held back.
//!
//! Owns the one logger of the process: standard error or a file that can be opened anew, levels for
//! each component, priorities for the journal, and the count of lines that repeat themselves. It
//! must not know what is logged.

mod repeats;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use env_logger::Target;
use log::{Level, Log, Metadata, Record};

pub use crate::library::catalogue::live::EACH_COUNTS;

use self::repeats::{Repeats, Summary};

/// What begins every target of ours, before the component.
const OURS: &str = "hekate::";

/// What components log of which nothing is said.
const BASE: &str = "hekate=info";

/// The log filter for levels as an administrator writes them: `info`, or `warn,storage=debug`. What is
/// said of one component alone leaves the others as they are without.
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

/// The parts of the program that have something to say.
pub const COMPONENTS: &[&str] = &[
    "daemon", "library", "logging", "reactor", "status", "storage", "tracker", "workers",
];

fn is_component(name: &str) -> bool {
    COMPONENTS.contains(&name)
}

/// The log of this process, to be told of changes.
#[derive(Clone)]
pub struct Logging(Arc<Shared>);

struct Shared {
    logger: RwLock<env_logger::Logger>,
    repeats: Mutex<Repeats>,
    sink: Arc<Sink>,
    started: Instant,
}

/// Where lines go.
struct Sink {
    /// `None` is standard error.
    file: Mutex<Option<(PathBuf, File)>>,
    /// Standard error is the journal, which has its own times and wants priorities.
    journal: bool,
}

impl Logging {
    /// Starts logging, with levels as [`filter`] answers them. The environment's `RUST_LOG` decides
    /// alone when it is set.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or another logger is there already.
    pub fn start(filter: &str, file: Option<&Path>) -> io::Result<Self> {
        let file = match file {
            Some(path) => Some((path.to_owned(), append_to(path)?)),
            None => None,
        };
        let sink = Arc::new(Sink {
            file: Mutex::new(file),
            journal: stderr_is_the_journal(),
        });
        let logging = Self(Arc::new(Shared {
            logger: RwLock::new(build(filter, &sink)),
            repeats: Mutex::default(),
            sink,
            started: Instant::now(),
        }));
        log::set_boxed_logger(Box::new(logging.clone())).map_err(io::Error::other)?;
        logging.set_filter(filter);
        logging.report_panics();
        Ok(logging)
    }

    /// Logs panics when the log is a file. Rust's own hook, which runs first, writes them to standard
    /// error only.
    fn report_panics(&self) {
        let sink = Arc::clone(&self.0.sink);
        let default_hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            default_hook(panic);
            if lock(&sink.file).is_some() {
                log::error!(
                    "panic, a defect of hekate: {}",
                    panic.to_string().replace('\n', " ")
                );
            }
        }));
    }

    /// Changes the levels.
    pub fn set_filter(&self, filter: &str) {
        let logger = build(filter, &self.0.sink);
        log::set_max_level(logger.filter());
        let lock = self.0.logger.write();
        *lock.unwrap_or_else(PoisonError::into_inner) = logger;
    }

    /// Opens the log file anew, after another program has moved it away. Until that succeeds, lines
    /// go where they went.
    ///
    /// # Errors
    /// Names the file.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some((path, file)) = &mut *lock(&self.0.sink.file) {
            *file = append_to(path)?;
        }
        Ok(())
    }

    /// Goes on in a file. A process that was root opens it when it no longer is: nobody who may
    /// write to the directory can have it open a file of root's then.
    ///
    /// # Errors
    /// Names the file.
    pub fn go_on_in(&self, path: &Path) -> io::Result<()> {
        *lock(&self.0.sink.file) = Some((path.to_owned(), append_to(path)?));
        Ok(())
    }

    /// Writes what was held back and is due, or at the end all of it.
    pub fn settle(&self, at_the_end: bool) {
        let mut summaries = Vec::new();
        let mut repeats = lock(&self.0.repeats);
        match at_the_end {
            true => repeats.finish(&mut summaries),
            false => repeats.settle(self.now_ms(), &mut summaries),
        }
        drop(repeats);
        self.write_summaries(&summaries);
    }

    /// Writes a line unless it is one of too many.
    fn admit(&self, record: &Record<'_>) -> bool {
        // Whoever asks for details wants all of them.
        if record.level() > Level::Info || record.target() == EACH_COUNTS {
            return true;
        }
        let place = (
            record.file_static().unwrap_or_default(),
            record.line().unwrap_or_default(),
        );
        let text = record.args().to_string();
        let line = (record.level(), record.target(), text.as_str());
        let mut summaries = Vec::new();
        let admitted = lock(&self.0.repeats).admit(place, line, self.now_ms(), &mut summaries);
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
        let logger = self.0.logger.read();
        logger.unwrap_or_else(PoisonError::into_inner).log(record);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Log for Logging {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let logger = self.0.logger.read();
        logger
            .unwrap_or_else(PoisonError::into_inner)
            .enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && self.admit(record) {
            self.write(record);
        }
    }

    fn flush(&self) {
        self.settle(false);
    }
}

impl Sink {
    fn is_journal(&self) -> bool {
        self.journal && lock(&self.file).is_none()
    }
}

/// Takes whole lines from `env_logger`.
struct Pipe(Arc<Sink>);

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *lock(&self.0.file) {
            Some((_, file)) => file.write_all(line)?,
            None => io::stderr().lock().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn build(filter: &str, sink: &Arc<Sink>) -> env_logger::Logger {
    let formatted = Arc::clone(sink);
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
        .target(Target::Pipe(Box::new(Pipe(Arc::clone(sink)))))
        .format(move |line, record| {
            let (level, component) = (record.level(), component(record.target()));
            let text = record.args();
            if formatted.is_journal() {
                return writeln!(line, "<{}>{component}: {text}", priority(level));
            }
            let time = line.timestamp_seconds();
            writeln!(line, "{time} {level:5} {component}: {text}")
        })
        .build()
}

/// The part of the program that speaks.
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

fn append_to(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    opened.map_err(named)
}

/// Whether standard error leads to the journal: systemd.exec(5) on `JOURNAL_STREAM`.
fn stderr_is_the_journal() -> bool {
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
    fn levels_are_for_all_or_for_one_component() {
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

    /// The log file, in the process that a test starts for itself: the hook is global.
    const LOG_FILE: &str = "HEKATE_TEST_LOG_FILE";

    #[test]
    fn a_panic_is_written_to_the_log_file() {
        if let Some(path) = std::env::var_os(LOG_FILE) {
            Logging::start("hekate=info", Some(Path::new(&path))).unwrap();
            assert!(panic::catch_unwind(|| panic!("on\npurpose")).is_err());
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut test = std::process::Command::new(std::env::current_exe().unwrap());
        test.args([
            "--exact",
            "logging::tests::a_panic_is_written_to_the_log_file",
        ]);
        test.env(LOG_FILE, &path).env_remove("RUST_LOG");
        assert!(test.output().unwrap().status.success());
        let log = std::fs::read_to_string(&path).unwrap();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(
            log.contains("ERROR logging: panic, a defect of hekate: panicked at src/logging.rs:"),
            "{log}"
        );
        assert!(log.ends_with(": on purpose\n"), "{log}");
    }

    #[test]
    fn whatever_says_something_is_a_component() {
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
                assert!(!says || known, "{} has no level of its own", path.display());
            }
        }
    }

    #[test]
    fn a_target_is_shown_as_its_component() {
        assert_eq!(component("hekate::reactor::listener"), "reactor");
        assert_eq!(component("hekate"), "hekate");
    }

    #[test]
    fn warnings_come_before_notices_in_the_journal() {
        assert!(priority(Level::Error) < priority(Level::Warn));
        assert!(priority(Level::Warn) < priority(Level::Info));
    }
}
