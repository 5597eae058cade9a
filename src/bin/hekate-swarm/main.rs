//! `hekate-swarm`: loads any BitTorrent seeder with leechers and reports what its users experience.
//!
//! The modules in reading order:
//!
//! | module         | subject                                                            |
//! |----------------|--------------------------------------------------------------------|
//! | [`cli`]        | the arguments                                                      |
//! | [`load`]       | one run, from the first sample of the seeder to the report         |
//! | [`swarm`]      | the event loop of all leechers                                     |
//! | [`connection`] | one socket: reading, discarding, comparing, sending                |
//! | [`framing`]    | where the messages of a seeder begin and end; pure                 |
//! | [`leecher`]    | one leecher's protocol: what was requested, what comes next; pure  |
//! | [`picker`]     | the order in which blocks are requested; pure                      |
//! | [`crowd`]      | which leechers arrive and leave when, for which torrent; pure      |
//! | [`library`]    | the torrents                                                       |
//! | [`verify`]     | comparing received blocks with the content                         |
//! | [`address`]    | a loopback address for each leecher; pure                          |
//! | [`seeder`]     | the process under load, in /proc                                   |
//! | [`measure`]    | counters, histograms, fairness; pure                               |
//! | [`report`]     | text and JSON                                                      |
//! | [`limit`]      | the ceiling: how fast one core can send                            |

mod address;
mod cli;
mod connection;
mod crowd;
mod encryption;
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
            // If stderr is closed too, nothing is left to do.
            let _ = writeln!(io::stderr(), "hekate-swarm: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<()> {
    match &cli.task {
        Task::Load(options) => {
            let outcome = load::run(options)?;
            print(
                &report::text(&outcome),
                &report::json(&outcome, options),
                options.json.as_deref(),
            )
        }
        Task::Limit(options) => {
            let ceilings = limit::run(options)?;
            let text = limit::text(&ceilings);
            print(&text, &limit::json(&ceilings), options.json.as_deref())
        }
    }
}

fn print(text: &str, json: &Value, file: Option<&Path>) -> io::Result<()> {
    if let Some(file) = file {
        std::fs::write(file, format!("{json:#}\n"))?;
    }
    io::stdout().write_all(text.as_bytes())
}
