//! The commands that do not seed: `index`, `verify`, `status` and `seed --list`.
//!
//! The arguments are parsed in `cli`; the work is done in `library`.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockAddr, Socket, Type};

use crate::cli::library as arguments;
use crate::config::{Config, LibraryConfig, StatusAddress, settings};
use crate::library::catalogue::live::Settings;
use crate::library::catalogue::refresh;
use crate::library::index::format::TrackerListNo;
use crate::library::index::{Counts, Index};
use crate::library::scan::build::{self, Plan, Progress};
use crate::library::scan::parallel;
use crate::library::verify::report::{self, Sums};
use crate::library::verify::{self, Subject};
use crate::progress::{self, Expected};
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::printable::{Printable, Visible};

/// Time-out of the daemon, which answers within a turn of its loop.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a library into an index file.
///
/// # Errors
/// One line that says why there is no index.
pub fn index(arguments: arguments::Index) -> Result<(), String> {
    let plan = Plan {
        content: content(&arguments.content, &arguments.inputs)?,
        inputs: arguments.inputs,
        target: arguments.output,
        threads: parallel::cores(),
    };
    // An index that is replaced gives the approximate number of torrents.
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
    let (torrents, refused) = (summary.torrents, summary.refused);
    let (withdrawn, bytes) = (summary.withdrawn, summary.bytes);
    print(&format!(
        "{torrents} torrents, {withdrawn} without content, {refused} refused; {bytes} bytes\n"
    ))
}

/// Hashes content and prints the faults. Returns true if there are none.
///
/// # Errors
/// One line that says why not everything was verified, or that there is no torrent.
pub fn verify(arguments: &arguments::Verify) -> Result<bool, String> {
    let open = |path| open_index(path, arguments.root.as_ref());
    let index = arguments.index.as_deref().map(open).transpose()?;
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
    let content = content(&arguments.content, &arguments.inputs)?;
    let run = progress::show(&progress, expected, || {
        verify::verify(
            &subject,
            &content,
            parallel::cores(),
            &progress,
            |finding| {
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
            },
        )
    });
    run.map_err(|error| error.to_string())?;
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

/// Where content lies for torrent files in these directories.
fn content(
    arguments: &arguments::Content,
    inputs: &[PathBuf],
) -> Result<ContentDirectories, String> {
    let mut config = LibraryConfig {
        dirs: inputs
            .iter()
            .filter(|input| input.is_dir())
            .cloned()
            .collect(),
        content: arguments.content.clone(),
        content_roots: arguments.content_root.clone(),
        without_subfolder: arguments.no_subfolder,
        ..LibraryConfig::default()
    };
    config.content_for = settings::pairs_of(&arguments.content_for, Path::new(""))
        .map_err(|error| format!("--content-for {error}"))?;
    Ok(ContentDirectories::from(&config))
}

/// Opens an index, with another root if there is one.
fn open_index(path: &Path, root: Option<&PathBuf>) -> Result<Index, String> {
    let index = Index::open(path).map_err(|error| error.to_string())?;
    Ok(match root {
        Some(root) => index.at_root(root.clone()),
        None => index,
    })
}

/// Prints a line for each torrent that would be served, and one more for each that has no tracker, then a
/// line for each that is refused.
///
/// # Errors
/// One line that says why not all was printed.
pub fn list(config: &Config) -> Result<(), String> {
    let mut refusals = Vec::new();
    let index = match &config.library.index {
        Some(path) => open_index(path, config.library.root.as_ref())?,
        None => {
            let settings = Settings::from(&config.library);
            refresh::make_nowhere(&settings, |refusal| refusals.push(refusal))?
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut write = |line: &str| {
        let written = out.write_all(line.as_bytes());
        written.map_err(|error| format!("standard output: {error}"))
    };
    let uses_own_trackers = !config.trackers.disabled && config.trackers.override_url.is_none();
    // Whether a list has a tracker that may be announced to: torrents share few lists.
    let mut is_announced: HashMap<Vec<TrackerListNo>, bool> = HashMap::new();
    for entry in index.entries() {
        let entry = entry.map_err(|error| error.to_string())?;
        if !entry.is_served() {
            continue;
        }
        let path = entry.path.to_path_buf();
        let path = Printable::path(&path);
        write(&format!("{}  {path}\n", entry.facts.info_hash))?;
        if !uses_own_trackers {
            continue;
        }
        let lists = index.lists_of(entry.record, entry.trackers);
        let lists = lists.map_err(|error| error.to_string())?;
        let is_announced = match is_announced.get(&lists) {
            Some(known) => *known,
            None => {
                let tiers = index.all_trackers(&lists);
                let tiers = tiers.map_err(|error| error.to_string())?;
                let mut urls = tiers.iter().flatten();
                let found = urls.any(|url| config.trackers.access.parse(url).is_ok());
                is_announced.insert(lists, found);
                found
            }
        };
        if !is_announced {
            write(&format!("announced to nobody: {path}\n"))?;
        }
    }
    for refusal in &refusals {
        write(&format!("refused: {refusal}\n"))?;
    }
    let Counts { served, refused } = index.counts();
    write(&format!("{served} valid, {refused} refused\n"))
}

/// Prints the status of a running daemon.
///
/// # Errors
/// One line that says why it cannot be asked or printed.
pub fn status(address: &StatusAddress, json: bool) -> Result<(), String> {
    // Finding the busiest torrents costs more than the rest, so it is a request of its own.
    let paths: &[&str] = match json {
        true => &["/status.json"],
        false => &["/status.txt", "/torrents.txt?busiest=10"],
    };
    for path in paths {
        let body = fetch(address, path).map_err(|error| format!("{address}: {error}"))?;
        match body.trim_end() {
            "" => {}
            body => print(&format!("{body}\n"))?,
        }
    }
    Ok(())
}

/// The body of the response to a GET.
fn fetch(address: &StatusAddress, path: &str) -> io::Result<String> {
    let address = match address {
        StatusAddress::Tcp(address) => SockAddr::from(*address),
        StatusAddress::Unix(path) => SockAddr::unix(path)?,
    };
    let mut stream = Socket::new(address.domain(), Type::STREAM, None)?;
    stream.connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.strip_prefix("HTTP/1.1 200 ") {
        Some(_) => Ok(body.to_owned()),
        None => Err(io::Error::other(format!(
            "unexpected answer {:?}",
            head.lines().next().unwrap_or_default()
        ))),
    }
}

/// Writes to standard output, with hidden characters escaped.
///
/// # Errors
/// One line that says why not.
pub fn print(text: &str) -> Result<(), String> {
    let has_lines = true;
    let written = write!(io::stdout(), "{}", Visible { text, has_lines });
    written.map_err(|error| format!("standard output: {error}"))
}
