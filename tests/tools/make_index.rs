//! Writes an index of as many made-up torrents as wanted, the same for each seed.
//!
//! Owns the making up. The torrents are in no file, but they may be added to those of a real index,
//! which can then be asked for among millions of others.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::Parser;
use hekate::library::index::Index;
use hekate::library::index::format::{ContentName, Facts, State};
use hekate::library::index::writer::{NewRecord, Origin, Writer};
use hekate::torrent::reader::FileStamp;
use hekate::wire::message::InfoHash;

/// Made-up torrents in each directory.
const PER_DIRECTORY: u64 = 1000;

/// Writes an index of made-up torrents.
#[derive(Parser)]
struct Options {
    /// The index file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The same seed makes the same index
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many torrents are made up
    #[arg(long, default_value_t = 20_000_000)]
    torrents: u64,
    /// An index whose torrents come first
    #[arg(long, value_name = "FILE")]
    over: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let mut writer = Writer::create(&options.out)?;
    let mut origin = Origin {
        root: "/made-up".into(),
        content: Vec::new(),
        searched: vec![PathBuf::new()],
    };
    if let Some(path) = &options.over {
        let index = Index::open(path).map_err(io::Error::other)?;
        origin = index.origin().clone();
        copy(&index, &mut writer)?;
    }
    let trackers = writer.trackers(&[vec!["http://tracker.example/announce".to_owned()]])?;
    let mut random = fastrand::Rng::with_seed(options.seed);
    let (mut directory, mut name) = (String::new(), String::new());
    for number in 0..options.torrents {
        directory.clear();
        name.clear();
        // Behind whatever a real library has.
        let _ = write!(directory, "\u{10ffff}/{:06}", number / PER_DIRECTORY);
        let _ = write!(name, "document-{number:010}.torrent");
        writer.record(&NewRecord {
            facts: Facts {
                info_hash: InfoHash(std::array::from_fn(|_| random.u8(..))),
                state: State::Served,
                private: false,
                content_name: ContentName {
                    tag: 0,
                    hash: random.u32(..),
                },
                stamp: FileStamp {
                    length: 8192,
                    modified_ns: random.i64(..),
                },
            },
            directory: Path::new(&directory),
            name: name.as_bytes(),
            trackers,
        })?;
    }
    let written = writer.finish(&origin, 0)?;
    let line = format!("{} torrents, {} bytes\n", written.torrents, written.bytes);
    io::Write::write_all(&mut io::stdout(), line.as_bytes())
}

fn copy(index: &Index, writer: &mut Writer) -> io::Result<()> {
    for entry in index.entries() {
        let entry = entry.map_err(io::Error::other)?;
        let tiers = index.trackers(entry.trackers).map_err(io::Error::other)?;
        let trackers = writer.trackers(&tiers)?;
        let directory = entry.path.directory.strip_prefix(&index.origin().root);
        writer.record(&NewRecord {
            facts: entry.facts,
            directory: directory.map_err(io::Error::other)?,
            name: entry.path.name.as_encoded_bytes(),
            trackers,
        })?;
    }
    Ok(())
}
