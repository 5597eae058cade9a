//! The arguments of `index` and `verify`.

use std::path::PathBuf;

use clap::Args;

/// The arguments of `hekate index`.
#[derive(Args, Debug)]
pub struct Index {
    /// Directories to search for *.torrent files
    #[arg(value_name = "DIR", required = true)]
    pub inputs: Vec<PathBuf>,
    /// Index file to write; an existing one is replaced atomically
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Where content is looked for
    #[command(flatten)]
    pub content: Content,
}

/// Where `index` and `verify` look for content.
#[derive(Args, Debug)]
pub struct Content {
    /// Directory that holds the content; of several, each torrent's is in the first that has all of it [default: as recorded in the index, or beside each torrent file]
    #[arg(long, value_name = "DIR")]
    pub content: Vec<PathBuf>,
    /// Directory that holds the content of the torrent files below another directory; the longest such directory counts
    #[arg(long, value_name = "DIR=CONTENT")]
    pub content_for: Vec<String>,
    /// Look for content also without the directory that has the torrent's name
    #[arg(long)]
    pub no_subfolder: bool,
    /// Additional directory that links in the library may lead to
    #[arg(long, value_name = "DIR")]
    pub content_root: Vec<PathBuf>,
}

/// The arguments of `hekate verify`. Either there is an index, or there are inputs.
#[derive(Args, Debug)]
pub struct Verify {
    /// Directories to search for *.torrent files, or torrent files
    #[arg(value_name = "DIR|FILE", required_unless_present = "index")]
    pub inputs: Vec<PathBuf>,
    /// Verify the torrents in an index file instead
    #[arg(long, value_name = "FILE", conflicts_with = "inputs")]
    pub index: Option<PathBuf>,
    /// Library root for that index, if it was copied from elsewhere [default: as recorded in the index]
    #[arg(
        long,
        value_name = "DIR",
        requires = "index",
        conflicts_with = "inputs"
    )]
    pub root: Option<PathBuf>,
    /// Where content is looked for
    #[command(flatten)]
    pub content: Content,
    /// Print one JSON object for each torrent, and one for the totals
    #[arg(long)]
    pub json: bool,
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
        assert_eq!(index.content.content, [std::path::PathBuf::from("c")]);
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
