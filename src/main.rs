//! Parses the arguments, runs, and answers with an exit code.
//!
//! Exit codes: 0 after a stop that was asked for, 1 when seeding could not start or go on,
//! 2 for wrong usage, 3 when `verify` has found what is not right, 78 (`EX_CONFIG` of sysexits.h)
//! for a configuration that is wrong.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use hekate::cli::{self, Request, Seed};
use hekate::commands::{self, print};
use hekate::config::file::{self, ConfigError, Configured, Sources};
use hekate::config::{Config, DEFAULT_STATUS, StatusAddress, StatusListen};
use hekate::daemon::activation::Passed;
use hekate::daemon::background::{self, Background, Role};
use hekate::daemon::identity::{self, IdentityError};
use hekate::daemon::notify::Notifier;
use hekate::daemon::pid_file::PidFile;
use hekate::daemon::rights::{self, RightsError};
use hekate::daemon::sandbox::AllowedPaths;
use hekate::library::catalogue::refresh;
use hekate::library::index::Index;
use hekate::logging::Logging;
use hekate::reactor::{self, Bound, Host};
use hekate::status::client;
use hekate::sys::process;

/// The configuration is wrong: trying again will not help.
const EXIT_CONFIG: u8 = 78;

/// Something has failed.
const EXIT_FAILURE: u8 = 1;

/// Something is not right: a cron job can tell that from a verification that could not run.
const EXIT_FAULTS: u8 = 3;

/// Where a daemon that was root keeps its state, unless told.
const STATE_OF_A_USER: &str = "/var/lib/hekate";

fn main() -> ExitCode {
    let request = cli::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let outcome = match request {
        Request::Seed(arguments) => return seed(arguments),
        Request::ConfigDefault => print(&file::default_text()).map_err(Failure::Plain),
        Request::ConfigCheck(sources) => check(&sources),
        Request::Index(arguments) => commands::index(arguments).map_err(Failure::Plain),
        Request::Verify(arguments) => match commands::verify(&arguments) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(EXIT_FAULTS),
            Err(message) => Err(Failure::Plain(message)),
        },
        Request::Status(sources, json) => status(&sources, json),
    };
    exit_code(outcome, false)
}

/// Says what has failed, where that is heard: in the log of a run, unless its levels leave that out;
/// else on standard error, unless it `is_reported` already.
fn exit_code(outcome: Result<(), Failure>, is_reported: bool) -> ExitCode {
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    if matches!(failure, Failure::Run(_)) && log::log_enabled!(log::Level::Error) {
        log::error!("{failure}");
        log::logger().flush();
    } else if !is_reported {
        let _ = writeln!(std::io::stderr(), "hekate: {failure}");
    }
    ExitCode::from(failure.code())
}

/// What main answers for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The user that the configuration names cannot be become.
    #[error("user: {0}")]
    User(#[from] IdentityError),
    /// Said without the log.
    #[error("{0}")]
    Plain(String),
    #[error("{0}")]
    Run(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::User(_) => EXIT_CONFIG,
            Self::Plain(_) | Self::Run(_) => EXIT_FAILURE,
        }
    }
}

/// Says that a configuration is right; it was named as wrong otherwise.
fn check(sources: &Sources) -> Result<(), Failure> {
    sources.load()?;
    print(&format!("{}: OK\n", sources.path().display())).map_err(Failure::Plain)
}

/// Prints what a running daemon says of itself.
fn status(sources: &Sources, json: bool) -> Result<(), Failure> {
    let address = match sources.load_any()?.config.status.listen {
        StatusListen::Default => StatusAddress::Tcp(DEFAULT_STATUS),
        StatusListen::At(address) => address,
        StatusListen::Off => {
            let off = "the configuration says that there is no status";
            return Err(Failure::Plain(off.to_owned()));
        }
    };
    // Finding the busiest torrents costs more than the rest, so it is asked for by itself.
    let paths: &[&str] = match json {
        true => &["/status.json"],
        false => &["/status.txt", "/torrents.txt?busiest=10"],
    };
    for path in paths {
        let answer = client::fetch(&address, path);
        let answer = answer.map_err(|error| Failure::Plain(format!("{address}: {error}")))?;
        match answer.trim_end() {
            "" => {}
            answer => print(&format!("{answer}\n")).map_err(Failure::Plain)?,
        }
    }
    Ok(())
}

/// Serves the library until a signal says stop.
fn seed(arguments: Seed) -> ExitCode {
    match start(arguments) {
        Ok(Started::Elsewhere(0, _)) => ExitCode::SUCCESS,
        Ok(Started::Elsewhere(code, message)) => {
            let _ = writeln!(std::io::stderr(), "hekate: {message}");
            ExitCode::from(code)
        }
        Ok(Started::Here(background, outcome)) => {
            let reported = match (background, &outcome) {
                (Some(background), Err(failure)) => {
                    background.report(failure.code(), &failure.to_string())
                }
                _ => false,
            };
            // The process that was started prints what is reported to it.
            exit_code(outcome, reported)
        }
        Err(failure) => exit_code(Err(failure), false),
    }
}

/// How a seeding run has gone.
enum Started {
    /// In another process, which has told its exit code and why.
    Elsewhere(u8, String),
    /// In this one, and who waits for it may be there still.
    Here(Option<Background>, Result<(), Failure>),
}

fn start(arguments: Seed) -> Result<Started, Failure> {
    // Before anything is opened: their numbers may be taken then.
    let passed = Passed::take().map_err(|error| Failure::Plain(error.to_string()))?;
    let mut sources = arguments.sources;
    let mut configured = sources.load()?;
    if arguments.list {
        let config = &configured.config;
        // The log file is the daemon's, who may be another user than whoever asks.
        Logging::start(&config.log.levels, None).map_err(|error| no_log(&error))?;
        let outcome = commands::list(config).map_err(Failure::Plain);
        return Ok(Started::Here(None, outcome));
    }
    let mut background = None;
    if configured.config.daemon.background {
        let plain = |error: std::io::Error| Failure::Plain(format!("background: {error}"));
        configured = sources.anchor(std::env::current_dir().map_err(plain)?, configured);
        background = match background::go().map_err(plain)? {
            Role::Starter(code, message) => return Ok(Started::Elsewhere(code, message)),
            Role::Between => return Ok(Started::Elsewhere(0, String::new())),
            Role::Daemon(background) => Some(background),
        };
    }
    let outcome = run(sources, configured, background.clone(), passed);
    Ok(Started::Here(background, outcome))
}

fn no_log(error: &std::io::Error) -> Failure {
    Failure::Plain(format!("log: {error}"))
}

/// Takes what needs rights, gives them up, serves.
fn run(
    mut sources: Sources,
    mut configured: Configured,
    background: Option<Background>,
    passed: Passed,
) -> Result<(), Failure> {
    let plan = identity::plan(configured.config.daemon.user.as_ref())?;
    if plan.changes() && std::env::var_os("STATE_DIRECTORY").is_none() {
        // The home of root is not that of the user.
        configured = sources.keep_state_in(STATE_OF_A_USER.into(), configured);
    }
    let config = configured.config.clone();
    // Whoever may write to its directory must not have root open another file.
    let log_file = config.log.file.as_deref().filter(|_| !plan.changes());
    let logging = Logging::start(&config.log.levels, log_file).map_err(|error| no_log(&error))?;
    // Before others learn the number of the process, and send it signals by it.
    let signals = reactor::catch_signals();
    let signals = signals.map_err(|error| Failure::Run(format!("signals: {error}")))?;
    let pid_file = config
        .daemon
        .pid_file
        .as_deref()
        .map(PidFile::take)
        .transpose();
    let pid_file = pid_file.map_err(|error| Failure::Run(error.to_string()))?;
    let config_file = sources.path().to_owned();
    let mut host = Host::new(sources, configured, logging.clone());
    host.signals = Some(signals);
    host.background = background;
    host.passed = passed;
    host.owner = plan.owner();
    host.notifier = Notifier::from_environment();
    let give_up = || {
        let allowed = rights::give_up(&config, plan, &logging, || {
            allowed_paths(&config, &config_file)
        })?;
        logging.start_thread();
        Ok(allowed)
    };
    let outcome = serve(&config, host, give_up).map_err(Failure::Run);
    logging.finish();
    drop(pid_file);
    outcome
}

/// What the sandbox leaves. Where an index cannot be kept, it is made among temporary files.
fn allowed_paths(config: &Config, config_file: &Path) -> AllowedPaths {
    let library = match config.library.index.as_deref().map(Index::origin_of) {
        // An index that cannot be read is named when it is opened.
        None | Some(Err(_)) => Vec::new(),
        Some(Ok(origin)) => {
            let content = origin.content.map(|content| origin.root.join(content));
            content.into_iter().chain([origin.root]).collect()
        }
    };
    let state = config.library.keeps_state().then(|| {
        let directory = config.library.state_directory();
        let made = refresh::make_directory(&directory).is_ok();
        match made && process::permissions_allow_writing(&directory) {
            true => directory,
            false => std::env::temp_dir(),
        }
    });
    AllowedPaths::of(config, config_file, &library, state)
}

fn serve(
    config: &Config,
    host: Host,
    give_up: impl FnOnce() -> Result<Option<Arc<AllowedPaths>>, RightsError>,
) -> Result<(), String> {
    let bound = Bound::bind(config, host).map_err(|error| error.to_string())?;
    let allowed = give_up().map_err(|error| error.to_string())?;
    let reactor = bound.start(&config.library, allowed);
    let outcome = reactor.and_then(|mut reactor| reactor.run());
    outcome.map_err(|error| error.to_string())
}
