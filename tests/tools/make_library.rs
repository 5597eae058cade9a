//! Writes a sample library: torrents of several kinds with their content, the same for each seed.
//!
//! Owns the choice of what a sample library holds. How a torrent is made stands in
//! `tests/support/torrent.rs`, but for sparse ones, of which there may be hundreds of thousands.

#[allow(dead_code, reason = "a library does not need every kind of torrent")]
#[path = "../support/torrent.rs"]
mod torrent;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Parser;
use sha1::{Digest, Sha1};
use torrent::TorrentBuilder;

/// Writes a sample library of torrents and their content.
#[derive(Parser)]
struct Options {
    /// Where to write; what is there stays unless it has the same name
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The same seed makes the same library
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many torrents
    #[arg(long, default_value_t = 3)]
    torrents: u64,
    /// About how many pieces each has
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pieces: u32,
    /// Bytes in a piece
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(64..))]
    piece_length: u32,
    /// An announce URL for all of them
    #[arg(long, value_name = "URL")]
    announce: Option<String>,
    /// Content of zeros that takes no room on the disk, a thousand torrents in each directory
    #[arg(long)]
    sparse: bool,
}

/// Sparse torrents in each directory.
const PER_DIRECTORY: u64 = 1000;

fn main() -> io::Result<()> {
    let options = Options::parse();
    if options.sparse {
        return sparse(&options);
    }
    let mut out = io::stdout().lock();
    for number in 0..options.torrents {
        let sample = plan(&options, number).write(&options.out)?;
        let path = sample.metainfo_path.display();
        writeln!(out, "{} {path}", sample.info_hash_hex())?;
    }
    Ok(())
}

/// One file, several files of odd sizes, and padded ones take turns.
fn plan(options: &Options, number: u64) -> TorrentBuilder {
    let seed = options.seed.wrapping_add(number);
    let piece = u64::from(options.piece_length);
    // The last piece is neither whole nor of a round size.
    let total = u64::from(options.pieces) * piece - piece / 3;
    let builder = TorrentBuilder::new(seed).piece_length(options.piece_length);
    let builder = match number % 3 {
        0 => builder.name(format!("file-{seed}.bin")).length(total),
        1 => several(builder, total).name(format!("folder-{seed}")),
        _ => several(builder, total)
            .name(format!("aligned-{seed}"))
            .aligned(),
    };
    match &options.announce {
        Some(url) => builder.announce(&[url]),
        None => builder,
    }
}

fn several(builder: TorrentBuilder, total: u64) -> TorrentBuilder {
    let (half, rest) = (total / 2 + 1, total - total / 2 - 1);
    builder
        .file("readme.txt", 1)
        .file("disc 1/track ä.flac", half)
        .file("disc 1/empty.log", 0)
        .file("disc 2/deep/er/track ö.flac", rest.saturating_sub(14))
        .file("disc 2/cue", rest.min(13))
}

/// Every piece is the same, so one hash will do and hundreds of thousands take seconds.
fn sparse(options: &Options) -> io::Result<()> {
    let piece = usize::try_from(options.piece_length).map_err(io::Error::other)?;
    let hash = Sha1::digest(vec![0; piece]);
    let hashes = hash.repeat(usize::try_from(options.pieces).map_err(io::Error::other)?);
    let length = u64::from(options.pieces) * u64::from(options.piece_length);
    let announce = options.announce.as_ref().map_or(String::new(), |url| {
        format!("8:announce{}:{url}", url.len())
    });
    let middle = format!(
        "12:piece lengthi{}e6:pieces{}:",
        options.piece_length,
        hashes.len()
    );
    for number in 0..options.torrents {
        let directory = format!("{}/{:05}", options.seed, number / PER_DIRECTORY);
        let directory = options.out.join(directory);
        if number % PER_DIRECTORY == 0 {
            fs::create_dir_all(&directory)?;
        }
        let name = format!("document-{}-{number}.bin", options.seed);
        let head = format!(
            "d{announce}4:infod6:lengthi{length}e4:name{}:{name}",
            name.len()
        );
        let raw = [head.as_bytes(), middle.as_bytes(), &hashes, b"ee"].concat();
        fs::write(directory.join(format!("{name}.torrent")), raw)?;
        File::create(directory.join(name))?.set_len(length)?;
    }
    Ok(())
}
