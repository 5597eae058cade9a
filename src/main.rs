//! Parses the arguments, runs, and answers with an exit code.
//!
//! Exit codes: 0 after a stop that was asked for, 1 when seeding could not start or go on,
//! 2 for wrong usage (from clap).

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use hekate::cli::{self, Arguments, Command, SeedArguments};
use hekate::reactor::Reactor;
use hekate::torrent::catalogue;

fn main() -> ExitCode {
    let Command::Seed(arguments) = Arguments::parse().command;
    let environment = env_logger::Env::default().default_filter_or(arguments.log_filter());
    env_logger::Builder::from_env(environment).init();
    match seed(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            log::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the library, then serves it until a signal says stop.
fn seed(arguments: SeedArguments) -> Result<(), String> {
    let list = arguments.list;
    let config = arguments.into_config();
    let (catalogue, refusals) = catalogue::scan(&config.dirs, config.content.as_deref());
    if list {
        return std::io::stdout()
            .write_all(cli::listing(&catalogue, &refusals).as_bytes())
            .map_err(|error| format!("standard output: {error}"));
    }
    for refusal in &refusals {
        log::warn!("refused: {refusal}");
    }
    let mut reactor = Reactor::new(&config, catalogue).map_err(|error| error.to_string())?;
    reactor.run().map_err(|error| error.to_string())
}
