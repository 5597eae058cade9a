//! The commands that do not seed: `index`, `verify` and `seed --list`.
//!
//! The commands that read a library and do not seed: `index`, `verify`, and the list of what
//! would be served.
//!
//! Owns what they print and when. How arguments are spelt stands in `cli`, what is done in
//! `library`; it must not know the loop.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

use crate::cli::library as arguments;
use crate::config::Config;
use crate::library::catalogue::live::Settings;
use crate::library::catalogue::refresh;
use crate::library::index::Index;
use crate::library::scan::build::{self, Plan, Progress};
use crate::library::scan::parallel;
use crate::library::verify::report::{self, Sums};
use crate::library::verify::{self, Subject};
use crate::progress::{self, Expected};
use crate::torrent::printable::Printable;

/// Reads a library into an index file.
///
/// # Errors
/// One line that says why there is none.
pub fn index(arguments: arguments::Index) -> Result<(), String> {
    let plan = Plan {
        inputs: arguments.inputs,
        content: arguments.content,
        target: arguments.output,
        threads: parallel::cores(),
    };
    // The index that is replaced tells about how many torrents there will be.
    let expected = match Index::open(&plan.target) {
        Ok(index) => Expected::Files(index.records().into()),
        Err(_) => Expected::Below(&plan.inputs),
    };
    let progress = Progress::default();
    let mut printed = Ok(());
    let summary = progress::show(&progress, expected, || {
        build::build(&plan, &progress, |refusal| {
            if printed.is_ok() {
                printed = print(&format!("refused: {refusal}\n"));
            }
        })
    });
    let summary = summary.map_err(|error| error.to_string())?;
    printed?;
    print(&arguments::index_summary(&summary))
}

/// Hashes content and prints what is not right. Answers whether everything is.
///
/// # Errors
/// One line that says why nothing, or not all, was verified: there may be no torrent at all.
pub fn verify(arguments: &arguments::Verify) -> Result<bool, String> {
    let index = arguments.index.as_deref().map(Index::open).transpose();
    let index = index.map_err(|error| error.to_string())?;
    let index = match (index, arguments.root.clone()) {
        (Some(index), Some(root)) => Some(index.at_root(root)),
        (index, _) => index,
    };
    let subject = match &index {
        Some(index) => Subject::Index(index),
        None => Subject::Paths(&arguments.inputs),
    };
    let expected = match &index {
        Some(index) => Expected::Files(index.records().into()),
        None => Expected::Below(&arguments.inputs),
    };
    let progress = Progress::default();
    let mut sums = Sums::default();
    let mut printed = Ok(());
    let content = arguments.content.as_deref();
    let run = progress::show(&progress, expected, || {
        verify::verify(&subject, content, parallel::cores(), &progress, |finding| {
            sums.add(&finding);
            let lines = match arguments.json {
                true => report::json(&finding),
                false => report::text(&finding),
            };
            printed = print(&lines);
            match printed.is_ok() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })
    });
    run.map_err(|error| format!("content: {error}"))?;
    printed?;
    match arguments.json {
        true => print(&sums.json())?,
        false => print(&sums.to_string())?,
    }
    if sums.torrents == 0 && sums.refused == 0 {
        return Err("no torrents to verify".to_owned());
    }
    Ok(sums.is_good())
}

/// Prints what would be served: a line for each torrent, then a line for each that is refused.
///
/// # Errors
/// One line that says why not all was printed.
pub fn list(config: &Config) -> Result<(), String> {
    let mut refusals = Vec::new();
    let index = match &config.library.index {
        Some(path) => Index::open(path).map_err(|error| error.to_string())?,
        None => {
            let settings = Settings::from(&config.library);
            refresh::make_nowhere(&settings, |refusal| refusals.push(refusal))?
        }
    };
    let root = config
        .library
        .root
        .clone()
        .filter(|_| config.library.index.is_some());
    let index = match root {
        Some(root) => index.at_root(root),
        None => index,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut write = |line: &str| {
        let written = out.write_all(line.as_bytes());
        written.map_err(|error| format!("standard output: {error}"))
    };
    for entry in index.entries() {
        let entry = entry.map_err(|error| error.to_string())?;
        if entry.is_served() {
            let path = entry.path.to_path_buf();
            let path = Printable::path(&path);
            write(&format!("{}  {path}\n", entry.facts.info_hash))?;
        }
    }
    for refusal in &refusals {
        write(&format!("refused: {refusal}\n"))?;
    }
    let refused = match config.library.index {
        Some(_) => index.counts().refused,
        None => refusals.len() as u64,
    };
    write(&format!(
        "{} valid, {refused} refused\n",
        index.counts().served
    ))
}

/// Writes to standard output.
///
/// # Errors
/// One line that says why not.
pub fn print(text: &str) -> Result<(), String> {
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|error| format!("standard output: {error}"))
}
