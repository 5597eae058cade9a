//! The arguments of `index` and `verify`, and the summary that `index` prints.

use std::path::PathBuf;

use super::switch;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use crate::library::scan::build::Summary;

/// The arguments of `hekate index`.
#[derive(Debug)]
pub struct Index {
    /// Directories to search, or metainfo files.
    pub inputs: Vec<PathBuf>,
    /// The index file.
    pub output: PathBuf,
    /// The directory that holds the content.
    pub content: Option<PathBuf>,
}

/// The arguments of `hekate verify`. Either there is an index, or there are inputs.
#[derive(Debug)]
pub struct Verify {
    /// Directories to search, or metainfo files.
    pub inputs: Vec<PathBuf>,
    /// An index whose torrents are verified.
    pub index: Option<PathBuf>,
    /// The root of the paths in that index.
    pub root: Option<PathBuf>,
    /// The directory that holds the content.
    pub content: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

pub(super) fn index_command() -> Command {
    let inputs = inputs("DIR").help("Directories to search for *.torrent files");
    Command::new("index")
        .about("Read a tree of torrents into one index file")
        .arg(inputs.required(true))
        .arg(
            path("output", "FILE")
                .short('o')
                .required(true)
                .help("Index file to write; an existing one is replaced atomically"),
        )
        .arg(
            path("content", "DIR")
                .help("Directory that holds the content [default: beside each torrent file]"),
        )
}

pub(super) fn verify_command() -> Command {
    let inputs =
        inputs("DIR|FILE").help("Directories to search for *.torrent files, or torrent files");
    Command::new("verify")
        .about("Hash the content of torrents and report what is missing, short, corrupt or extra")
        .arg(inputs.required_unless_present("index"))
        .arg(
            path("index", "FILE")
                .conflicts_with("inputs")
                .help("Verify the torrents in an index file instead"),
        )
        .arg(path("root", "DIR").requires("index").conflicts_with("inputs").help(
            "Library root for that index, if it was copied from elsewhere [default: as recorded in the index]",
        ))
        .arg(path("content", "DIR").help(
            "Directory that holds the content [default: beside each torrent file, or as recorded in the index]",
        ))
        .arg(
            switch("json")
                .help("Print one JSON object for each torrent, and one for the totals"),
        )
}

fn inputs(value: &'static str) -> Arg {
    Arg::new("inputs")
        .value_name(value)
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::AnyPath)
        .action(ArgAction::Append)
        .num_args(1..)
}

fn path(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::AnyPath)
}

fn paths(matches: &ArgMatches) -> Vec<PathBuf> {
    let paths = matches.get_many("inputs").unwrap_or_default();
    paths.cloned().collect()
}

pub(super) fn index(matches: &ArgMatches) -> Index {
    Index {
        inputs: paths(matches),
        output: matches
            .get_one("output")
            .cloned()
            .expect("clap requires one"),
        content: matches.get_one("content").cloned(),
    }
}

pub(super) fn verify(matches: &ArgMatches) -> Verify {
    Verify {
        inputs: paths(matches),
        index: matches.get_one("index").cloned(),
        root: matches.get_one("root").cloned(),
        content: matches.get_one("content").cloned(),
        json: matches.get_flag("json"),
    }
}

/// The last line of `hekate index`.
#[must_use]
pub fn index_summary(summary: &Summary) -> String {
    let Summary {
        torrents,
        withdrawn,
        refused,
        bytes,
    } = summary;
    format!("{torrents} torrents, {withdrawn} without content, {refused} refused; {bytes} bytes\n")
}

#[cfg(test)]
mod tests {
    use super::super::{Request, parse};

    #[test]
    fn an_index_has_one_file_and_many_inputs() {
        let parse = |arguments: &[&str]| parse(["hekate", "index"].iter().chain(arguments));
        let Ok(Request::Index(index)) = parse(&["a", "b", "-o", "f", "--content", "c"]) else {
            panic!();
        };
        assert_eq!(
            index.inputs,
            ["a", "b"].map(Into::<std::path::PathBuf>::into)
        );
        assert_eq!(index.output.as_os_str(), "f");
        assert_eq!(index.content.unwrap().as_os_str(), "c");
        assert!(parse(&["a"]).is_err() && parse(&["-o", "f"]).is_err());
    }

    #[test]
    fn what_is_verified_is_named_once() {
        let parse = |arguments: &[&str]| parse(["hekate", "verify"].iter().chain(arguments));
        let Ok(Request::Verify(verify)) = parse(&["--index", "f", "--json"]) else {
            panic!();
        };
        assert!(verify.json && verify.index.is_some() && verify.inputs.is_empty());
        assert!(parse(&["lib", "a.torrent"]).is_ok());
        assert!(parse(&[]).is_err() && parse(&["lib", "--index", "f"]).is_err());
        assert!(parse(&["--index", "f", "--root", "r"]).is_ok());
        assert!(parse(&["lib", "--root", "r"]).is_err());
    }
}
