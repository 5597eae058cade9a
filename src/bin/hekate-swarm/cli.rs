//! The command line of `hekate-swarm`.
//!
//! The options, their meanings and bounds.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Load a BitTorrent seeder with leechers and report what its users experience.
#[derive(Parser, Debug)]
#[command(name = "hekate-swarm", version)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Task {
    /// Load a seeder with leechers and report.
    Load(Box<Load>),
    /// Measure how fast one core can send 16 KiB piece messages over loopback TCP.
    Limit(Limit),
}

/// The order in which a leecher requests blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Order {
    /// Pieces in random order, the blocks of each in sequence, as clients do.
    Pieces,
    /// Single blocks in random order, the worst case for a disk.
    Blocks,
    /// From a random position onward, with wrap-around, like a media player.
    Sequential,
}

/// How leechers encrypt their connections (MSE).
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Encrypt {
    /// Not at all.
    None,
    /// By an encrypted handshake, on which plain text follows if the seeder selects that.
    Both,
    /// By RC4.
    Rc4,
}

/// Options of `load`.
#[derive(Args, Debug)]
pub(crate) struct Load {
    /// Metainfo file, or a directory of them, the most popular first; may be repeated.
    #[arg(long = "torrent", required = true)]
    pub(crate) torrents: Vec<PathBuf>,
    /// Where the seeder listens.
    #[arg(long, default_value = "127.0.0.1:6881")]
    pub(crate) address: SocketAddr,

    /// Leechers that request and read as fast as they can.
    #[arg(long, default_value_t = 50)]
    pub(crate) peers: usize,
    /// Leechers that read at --slow-rate.
    #[arg(long, default_value_t = 0)]
    pub(crate) slow: usize,
    /// What a slow leecher reads, in bytes per second.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) slow_rate: u64,
    /// Leechers that request 250 blocks and stop reading.
    #[arg(long, default_value_t = 0)]
    pub(crate) stalled: usize,
    /// Leechers that send a handshake and nothing else.
    #[arg(long, default_value_t = 0)]
    pub(crate) idle: usize,

    /// New connections per second; 0 means all at once.
    #[arg(long, default_value_t = 2000)]
    pub(crate) connect_rate: u64,
    /// Leechers replaced per second once all are connected.
    #[arg(long, default_value_t = 0)]
    pub(crate) churn: u64,
    /// Leechers leave when they are complete, instead of starting over.
    #[arg(long)]
    pub(crate) leave: bool,
    /// Milliseconds until a refused or closed leecher connects again.
    #[arg(long)]
    pub(crate) return_after: Option<u64>,
    /// Number of the first loopback address, so that several swarms can run together.
    #[arg(long, default_value_t = 0)]
    pub(crate) first_address: u64,

    /// The order in which a leecher requests blocks.
    #[arg(long, value_enum, default_value_t = Order::Pieces)]
    pub(crate) order: Order,
    /// Requests that each leecher keeps outstanding.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub(crate) pipeline: u16,
    /// Blocks that must arrive before as many more are requested; 1 requests whenever something was
    /// read, as clients do.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) refill: u16,
    /// Length of a block in bytes.
    #[arg(long, default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    pub(crate) block: u32,
    /// Exponent of the popularity of torrents (Zipf's law); 0 makes all equally popular.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) zipf: f64,
    /// Do not offer the fast extension (BEP 6).
    #[arg(long)]
    pub(crate) no_fast: bool,
    /// How leechers encrypt their connections (MSE).
    #[arg(long, value_enum, default_value_t = Encrypt::None)]
    pub(crate) encryption: Encrypt,
    /// Receive buffer in bytes of each leecher that stops reading, so that the kernel's memory is on
    /// the seeder's side; by default the kernel adapts it.
    #[arg(long)]
    pub(crate) stalled_buffer: Option<usize>,

    /// Share of the blocks to compare with the content, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) verify: f64,
    /// Directory of the content; without it whole pieces are compared with their hashes.
    #[arg(long)]
    pub(crate) content: Option<PathBuf>,

    /// How long to measure, in seconds, after all are connected and the warm-up.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// How long to wait before measuring, in seconds.
    #[arg(long, default_value_t = 3)]
    pub(crate) warm_up: u64,
    /// How long to wait for the seeder to serve, in seconds.
    #[arg(long, default_value_t = 30)]
    pub(crate) ready: u64,
    /// Seed of the random generator.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Process id of the seeder, to measure its processor time and memory.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Processor for the swarm.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Processor for the started seeder.
    #[arg(long)]
    pub(crate) seeder_cpu: Option<usize>,
    /// File for the output of the started seeder.
    #[arg(long, default_value = "/dev/null")]
    pub(crate) seeder_log: PathBuf,

    /// Write the report as JSON to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Name of the run in the report.
    #[arg(long, default_value = "")]
    pub(crate) label: String,
    /// Print no progress lines.
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Command that starts the seeder; it is stopped at the end.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// Options of `limit`.
#[derive(Args, Debug)]
pub(crate) struct Limit {
    /// File to send; by default one is made, and held in the page cache.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Connections to send to in turn.
    #[arg(long, default_value_t = 50)]
    pub(crate) connections: usize,
    /// Seconds per measurement.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
    /// Blocks per system call; may be repeated.
    #[arg(long = "batch", default_values_t = [1, 4, 16])]
    pub(crate) batches: Vec<usize>,
    /// Processor for the receiver.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Processor for the sender.
    #[arg(long)]
    pub(crate) sender_cpu: Option<usize>,
    /// Write the report as JSON to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_follows_two_dashes() {
        let cli = Cli::parse_from("swarm load --torrent a --peers 3 -- hekate -x".split(' '));
        let Task::Load(load) = cli.task else { panic!() };
        assert_eq!(load.peers, 3);
        assert_eq!(load.command, ["hekate", "-x"]);
    }
}
