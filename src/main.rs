//! Parses the arguments, runs, and answers with an exit code.
//!
//! Exit codes: 0 after a stop that was asked for, 1 when seeding could not start or go on,
//! 2 for wrong usage, 3 when `verify` has found what is not right, 78 (`EX_CONFIG` of sysexits.h)
//! for a configuration that is wrong.

use std::io::Write;
use std::process::ExitCode;

use hekate::cli::{self, Request, Seed};
use hekate::commands::{self, print};
use hekate::config::file::{self, ConfigError, Sources};
use hekate::config::{Config, DEFAULT_STATUS, StatusAddress, StatusWish};
use hekate::library::live::Settings;
use hekate::logging::Logging;
use hekate::reactor::{Reactor, RunError, Service};
use hekate::status::client;

/// The configuration is wrong: trying again will not help.
const EXIT_CONFIG: u8 = 78;

/// Something is not right: a cron job can tell that from a verification that could not run.
const EXIT_FAULTS: u8 = 3;

fn main() -> ExitCode {
    let request = cli::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let outcome = match request {
        Request::Seed(arguments) => seed(&arguments),
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
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Run(message)) => {
            log::error!("{message}");
            ExitCode::FAILURE
        }
        // There is no log: the configuration of a seeding run says where it is.
        Err(Failure::Plain(message)) => {
            let _ = writeln!(std::io::stderr(), "hekate: {message}");
            ExitCode::FAILURE
        }
        Err(Failure::Config(error)) => {
            let _ = writeln!(std::io::stderr(), "hekate: {error}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// What main answers for.
enum Failure {
    Config(ConfigError),
    /// Said without the log.
    Plain(String),
    Run(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Says that a configuration is right; it was named as wrong otherwise.
fn check(sources: &Sources) -> Result<(), Failure> {
    sources.load()?;
    print(&format!("{}: right\n", sources.path().display())).map_err(Failure::Plain)
}

/// Prints what a running daemon says of itself.
fn status(sources: &Sources, json: bool) -> Result<(), Failure> {
    let address = match sources.load_any()?.config.status {
        StatusWish::Usual => StatusAddress::Tcp(DEFAULT_STATUS),
        StatusWish::At(address) => address,
        StatusWish::Off => {
            let off = "the configuration says that there is no status";
            return Err(Failure::Plain(off.to_owned()));
        }
    };
    let path = if json { "/status.json" } else { "/status.txt" };
    let answer = client::fetch(&address, path);
    let answer = answer.map_err(|error| Failure::Plain(format!("{address}: {error}")))?;
    print(answer.trim_end())
        .and_then(|()| print("\n"))
        .map_err(Failure::Plain)
}

/// Serves the library until a signal says stop.
fn seed(arguments: &Seed) -> Result<(), Failure> {
    let configured = arguments.sources.load()?;
    let config = configured.config.clone();
    let logging = Logging::start(&config.log, config.log_file.as_deref());
    let logging = logging.map_err(|error| Failure::Plain(format!("log: {error}")))?;
    if arguments.list {
        return commands::list(&config).map_err(Failure::Plain);
    }
    let service = Service::new(arguments.sources.clone(), configured, logging.clone());
    let outcome = serve(&config, service).map_err(Failure::Run);
    logging.settle(true);
    outcome
}

fn serve(config: &Config, service: Service) -> Result<(), String> {
    let mut reactor = Reactor::bind(config, service).map_err(|error| error.to_string())?;
    let mut run = || {
        reactor.keep(Settings::from(config))?;
        reactor.run()
    };
    run().map_err(|error: RunError| error.to_string())
}
