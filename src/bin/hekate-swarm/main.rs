//! `hekate-swarm`: loads any BitTorrent seeder with leechers and reports what a user would feel.
//!
//! The modules in reading order:
//!
//! | module         | reason to exist                                                    |
//! |----------------|--------------------------------------------------------------------|
//! | [`cli`]        | the arguments                                                      |
//! | [`load`]       | one run, from the first look at the seeder to the report           |
//! | [`swarm`]      | the event loop of all leechers                                     |
//! | [`connection`] | one socket: what is read, discarded, compared, sent                |
//! | [`framing`]    | where messages begin and end in what a seeder sends; pure          |
//! | [`leecher`]    | one leecher's protocol: what was asked for, what to ask next; pure |
//! | [`picker`]     | the order in which blocks are asked for; pure                      |
//! | [`crowd`]      | who comes and goes when, and for which torrent; pure               |
//! | [`library`]    | the torrents                                                       |
//! | [`verify`]     | is what came the content?                                          |
//! | [`address`]    | a loopback address for each leecher; pure                          |
//! | [`seeder`]     | the process under load, in /proc                                   |
//! | [`measure`]    | counters, histograms, fairness; pure                               |
//! | [`report`]     | text and JSON                                                      |
//! | [`limit`]      | what one core can do at best, to compare with                      |

mod address;
mod cli;
mod connection;
mod crowd;
mod framing;
mod leecher;
mod library;
mod limit;
mod load;
mod measure;
mod picker;
mod report;
mod seeder;
mod swarm;
mod verify;

use clap::Parser;
use cli::{Cli, Task};
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Nothing is left to do if the terminal is gone too.
            let _ = writeln!(io::stderr(), "hekate-swarm: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<()> {
    match &cli.task {
        Task::Load(options) => {
            let outcome = load::run(options)?;
            tell(
                &report::text(&outcome),
                &report::json(&outcome, options),
                options.json.as_deref(),
            )
        }
        Task::Limit(options) => {
            let ceilings = limit::run(options)?;
            let text = limit::text(&ceilings);
            tell(&text, &limit::json(&ceilings), options.json.as_deref())
        }
    }
}

fn tell(text: &str, json: &Value, file: Option<&Path>) -> io::Result<()> {
    if let Some(file) = file {
        std::fs::write(file, format!("{json:#}\n"))?;
    }
    io::stdout().write_all(text.as_bytes())
}
