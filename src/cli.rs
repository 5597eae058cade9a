//! Arguments → configuration, and what is printed for a person.
//!
//! Owns the spelling of options. It must not know how any of them is carried out.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::config::{self, Config, Families};
use crate::timers::Timeouts;
use crate::torrent::catalogue::{Catalogue, Refusal};

/// A BitTorrent seeder: one small daemon that serves a whole library.
#[derive(Parser, Debug)]
#[command(name = "hekate", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The things that hekate does.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Seed every torrent found below the given directories
    Seed(SeedArguments),
}

/// The options of `hekate seed`.
#[derive(Args, Debug)]
pub struct SeedArguments {
    /// Directories that are searched for *.torrent
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,

    /// Where the content lies [default: beside each torrent file]
    #[arg(long, value_name = "DIR")]
    pub content: Option<PathBuf>,

    /// Port to listen on; 0 takes one from the system
    #[arg(short, long, default_value_t = config::DEFAULT_PORT)]
    pub port: u16,

    /// Address to listen on; may be given more than once [default: every address]
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Vec<IpAddr>,

    /// Serve IPv4 alone
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Serve IPv6 alone
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Upload slots: how many peers are served at the same time
    #[arg(short = 'N', long, default_value_t = config::DEFAULT_MAX_UNCHOKED, value_name = "N",
          value_parser = parse_positive)]
    pub max_unchoked: usize,

    /// Connected peers [default: 10 for each upload slot; never more than descriptors allow]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub max_peers: Option<usize>,

    /// Connected peers from one address [default: no limit]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub max_peers_per_ip: Option<usize>,

    /// What a slot may send before its turn is over, when others wait; K, M, G count in 1024s
    #[arg(short = 'C', long, default_value = "1M", value_name = "BYTES", value_parser = parse_bytes)]
    pub credit: u64,

    /// Seconds that a slot may be held before its turn is over, when others wait
    #[arg(short = 'T', long, default_value_t = config::DEFAULT_MAX_UNCHOKED_TIME_S, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_UNCHOKED_TIME_S))]
    pub max_unchoked_time: u64,

    /// Bytes a second that are sent at most, all peers together; K, M, G count in 1024s [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_rate: Option<u64>,

    /// Do not announce to trackers (this version never does)
    #[arg(short = 't', long)]
    pub no_tracker: bool,

    /// List the torrents that would be served and why others are refused, then exit
    #[arg(short, long)]
    pub list: bool,

    /// Log more; twice for every message. `RUST_LOG`, when set, decides alone
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The longest turn that can be asked for, a year: it keeps sums of times far from overflow.
const MAX_UNCHOKED_TIME_S: u64 = 365 * 24 * 3600;

impl SeedArguments {
    /// The configuration that these arguments describe.
    pub fn into_config(self) -> Config {
        let families = match (self.ipv4, self.ipv6) {
            (true, _) => Families::V4,
            (_, true) => Families::V6,
            _ => Families::Both,
        };
        Config {
            dirs: self.dirs,
            content: self.content,
            port: self.port,
            bind: self.bind,
            families,
            max_unchoked: self.max_unchoked,
            max_peers: self.max_peers,
            max_peers_per_ip: self.max_peers_per_ip,
            credit_bytes: self.credit,
            max_unchoked_ms: self.max_unchoked_time * 1000,
            max_rate: self.max_rate,
            timeouts: Timeouts::default(),
        }
    }

    /// The log filter that `-v` stands for.
    pub fn log_filter(&self) -> &'static str {
        match self.verbose {
            0 => "hekate=info",
            1 => "hekate=debug",
            _ => "hekate=trace",
        }
    }
}

fn parse_positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// A number of bytes with an optional suffix K, M, G or T (powers of 1024; `KiB` and the like too).
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let suffix = text.get(digits.len()..).unwrap_or_default();
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(format!("unknown unit {suffix:?}: use K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("must be at least 1".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("too large".to_owned()),
    }
}

/// What `--list` prints: a line for each torrent that would be served, then a line for each refused.
pub fn listing(catalogue: &Catalogue, refusals: &[Refusal]) -> String {
    let mut text = String::new();
    for torrent in catalogue.iter() {
        text.push_str(&format!(
            "{}  {}\n",
            torrent.info_hash,
            torrent.metainfo_path().display()
        ));
    }
    for refusal in refusals {
        text.push_str(&format!("refused: {refusal}\n"));
    }
    text.push_str(&format!(
        "{} valid, {} refused\n",
        catalogue.len(),
        refusals.len()
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(arguments: &[&str]) -> Result<SeedArguments, clap::Error> {
        let all = ["hekate", "seed"].iter().chain(arguments);
        Arguments::try_parse_from(all).map(|parsed| match parsed.command {
            Command::Seed(seed) => seed,
        })
    }

    #[test]
    fn the_options_of_2009_keep_their_meaning() {
        let config = seed(&["lib"]).unwrap().into_config();
        assert_eq!(config.port, 6969);
        assert_eq!(config.max_unchoked, 50);
        assert_eq!(config.credit_bytes, 1 << 20);
        assert_eq!(config.max_unchoked_ms, 300_000);
        let config = seed(&[
            "-p", "1", "-N", "2", "-C", "3K", "-T", "4", "-t", "-l", "-vv", "lib",
        ])
        .unwrap();
        assert!(config.no_tracker && config.list);
        assert_eq!(config.log_filter(), "hekate=trace");
        let config = config.into_config();
        assert_eq!((config.port, config.max_unchoked), (1, 2));
        assert_eq!((config.credit_bytes, config.max_unchoked_ms), (3072, 4000));
    }

    #[test]
    fn families_exclude_each_other() {
        assert_eq!(
            seed(&["-4", "lib"]).unwrap().into_config().families,
            Families::V4
        );
        assert_eq!(
            seed(&["-6", "lib"]).unwrap().into_config().families,
            Families::V6
        );
        assert!(seed(&["-4", "-6", "lib"]).is_err());
    }

    #[test]
    fn bytes_are_read_with_units_and_without() {
        assert_eq!(parse_bytes("100"), Ok(100));
        assert_eq!(parse_bytes("2k"), Ok(2048));
        assert_eq!(parse_bytes("1MiB"), Ok(1 << 20));
        assert_eq!(parse_bytes("3G"), Ok(3 << 30));
        for wrong in [
            "",
            "K",
            "-1",
            "1.5M",
            "0",
            "0K",
            "5 lightyears",
            "99999999T",
        ] {
            assert!(parse_bytes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn zero_slots_and_missing_directories_are_refused() {
        assert!(seed(&["-N", "0", "lib"]).is_err());
        assert!(seed(&["-T", "0", "lib"]).is_err());
        assert!(seed(&[]).is_err());
    }
}
