//! Parses the arguments, runs the command, and returns an exit code.
//!
//! Exit codes: 0 after a requested stop, 1 when seeding could not start or continue, 2 for wrong usage, 3
//! when `verify` has found faults, 78 (`EX_CONFIG` of sysexits.h) for an invalid configuration.

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
use hekate::sys::process;

/// Invalid configuration: a restart does not help.
const EXIT_CONFIG: u8 = 78;

/// A failure.
const EXIT_FAILURE: u8 = 1;

/// `verify` has found faults, as opposed to a verification that could not run.
const EXIT_FAULTS: u8 = 3;

/// The default state directory of a daemon that has dropped the privileges of root.
const SYSTEM_STATE_DIR: &str = "/var/lib/hekate";

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

/// Reports a failure: of a run in its log, unless its levels exclude errors; else on standard error,
/// unless it `is_reported` already.
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

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The process cannot become the configured user.
    #[error("user: {0}")]
    User(#[from] IdentityError),
    /// Before there is a log.
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

/// Checks the configuration.
fn check(sources: &Sources) -> Result<(), Failure> {
    sources.load()?;
    print(&format!("{}: OK\n", sources.path().display())).map_err(Failure::Plain)
}

/// Prints the status of the running daemon that the configuration names.
fn status(sources: &Sources, json: bool) -> Result<(), Failure> {
    let address = match sources.load_any()?.config.status.listen {
        StatusListen::Default => StatusAddress::Tcp(DEFAULT_STATUS),
        StatusListen::At(address) => address,
        StatusListen::Off => {
            let off = "the configuration turns the status listener off";
            return Err(Failure::Plain(off.to_owned()));
        }
    };
    commands::status(&address, json).map_err(Failure::Plain)
}

/// Serves the library until a signal stops it.
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

/// The outcome of a seeding run.
enum Started {
    /// In another process: its exit code and error.
    Elsewhere(u8, String),
    /// In this process, on whose report the starter may still wait.
    Here(Option<Background>, Result<(), Failure>),
}

fn start(arguments: Seed) -> Result<Started, Failure> {
    // Before any file is opened, which could take their descriptors.
    let passed = Passed::take().map_err(|error| Failure::Plain(error.to_string()))?;
    let mut sources = arguments.sources;
    let mut configured = sources.load()?;
    if arguments.list {
        let config = &configured.config;
        // The log file belongs to the daemon, which may run as another user.
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

/// Opens what needs privileges, drops them, serves.
fn run(
    mut sources: Sources,
    mut configured: Configured,
    background: Option<Background>,
    passed: Passed,
) -> Result<(), Failure> {
    let plan = identity::plan(configured.config.daemon.user.as_ref())?;
    if plan.changes() && std::env::var_os("STATE_DIRECTORY").is_none() {
        // The home of root is not that of the user.
        configured = sources.keep_state_in(SYSTEM_STATE_DIR.into(), configured);
    }
    let config = configured.config.clone();
    // A user who may write to its directory could have root open another file through a symlink.
    let log_file = config.log.file.as_deref().filter(|_| !plan.changes());
    let logging = Logging::start(&config.log.levels, log_file).map_err(|error| no_log(&error))?;
    // Before the pid file tells others where to send signals.
    let signals = reactor::catch_signals();
    let signals = signals.map_err(|error| Failure::Run(format!("signals: {error}")))?;
    let pid_file = config
        .daemon
        .pid_file
        .as_deref()
        .map(PidFile::take)
        .transpose();
    let pid_file = match pid_file {
        Err(error) if error.is_of_full_disk() => {
            log::warn!("{error}: there is no pid file");
            None
        }
        pid_file => pid_file.map_err(|error| Failure::Run(error.to_string()))?,
    };
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

/// The paths that the sandbox allows. An index that cannot be kept is made among temporary files.
fn allowed_paths(config: &Config, config_file: &Path) -> AllowedPaths {
    let library = match config.library.index.as_deref().map(Index::origin_of) {
        // An index that cannot be read is reported when it is opened.
        None | Some(Err(_)) => Vec::new(),
        Some(Ok(origin)) => {
            let content = origin.content_roots();
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
