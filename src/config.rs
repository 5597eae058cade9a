//! The configuration of a run: values with units and defaults, grouped by the part that uses them.
//!
//! The configuration of a seeding run: values with their units and defaults, in a group for each
//! part of the program.
//!
//! `settings` is the table of options that set them, `file` reads them from TOML.

pub mod file;
pub mod settings;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::choker::ChokerConfig;
use crate::library::catalogue::live::{Settings, Source};
use crate::library::catalogue::refresh;
use crate::timers::Timeouts;
use crate::tracker::peers::DialledTorrents;
use crate::tracker::shard::Shard;

/// The port of the 2009 program, and of most trackers; a seeder behind a firewall picks its own.
pub const DEFAULT_PORT: u16 = 6969;

/// Upload slots by default: a home line divided by more is of no use to anybody.
pub const DEFAULT_MAX_UNCHOKED: usize = 50;

/// Connected peers for each upload slot, unless `--max-peers` says otherwise.
pub const PEERS_FOR_EACH_SLOT: usize = 10;

/// What a slot may send before its turn is over, when others wait: 1 MiB.
pub const DEFAULT_CREDIT_BYTES: u64 = 1 << 20;

/// How long a slot may be held before its turn is over, when others wait: 300 s.
pub const DEFAULT_MAX_UNCHOKED_TIME_S: u64 = 300;

/// A slot that asks for nothing for this long is taken back.
pub const UNUSED_SLOT_MS: u64 = 30_000;

/// How long a peer may be idle at capacity. Clients that need something say so within a second; with
/// a magnet link they need the metadata first.
const IDLE_AT_CAPACITY_MS: u64 = 60_000;

/// How often the whole library is looked at again: a day. What this kernel does to files is noticed
/// at once, so this is for what other machines do to a network file system and for content that lies
/// elsewhere than its torrents, and it costs a look at every file of content.
pub const DEFAULT_RESCAN_S: u64 = 24 * 3600;

/// Announces a second to one tracker: enough for 180,000 torrents at half an hour, and few enough
/// that a restart is no attack on a tracker that others use too.
pub const DEFAULT_MAX_ANNOUNCE_RATE: u32 = 100;

/// The file of the state directory that remembers which pieces were verified.
const VERIFIED: &str = "verified";

/// Which address families are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// IPv4, and IPv6 where the machine has it.
    Both,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// What is looked at before content is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verify {
    /// The sizes of files, and whether they change.
    Size,
    /// The hash of each piece too, before it is served for the first time and whenever its file has
    /// changed.
    Lazy,
}

/// Where a status listener listens, unless another has the port.
pub const DEFAULT_STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6970);

/// Whether and where the status can be asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum StatusListen {
    /// At [`DEFAULT_STATUS`], or nowhere when that address is taken.
    #[default]
    Default,
    /// Nowhere.
    Off,
    /// At this address, or the start fails.
    At(StatusAddress),
}

/// A user, and a group when it is not the user's own: names or numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserName {
    /// The user.
    pub user: String,
    /// The group.
    pub group: Option<String>,
}

/// Where the status can be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StatusAddress {
    /// At an address and port.
    Tcp(SocketAddr),
    /// At a socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for StatusAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "http://{address}/"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// The configuration of a seeding run. Each part of the program takes its own group.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Config {
    /// What is served.
    pub library: LibraryConfig,
    /// Where peers connect.
    pub network: NetworkConfig,
    /// How many peers are served, and how fast.
    pub limits: LimitsConfig,
    /// What is announced, and to whom.
    pub trackers: TrackerConfig,
    /// The log.
    pub log: LogConfig,
    /// The status listener.
    pub status: StatusConfig,
    /// How the process starts, and the rights it gives up.
    pub daemon: DaemonConfig,
    /// All time-outs of peers. There is no option for them; tests shorten them.
    pub timeouts: Timeouts,
}

/// What is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LibraryConfig {
    /// The directories that are searched for `*.torrent`.
    pub dirs: Vec<PathBuf>,
    /// An index that is served instead of directories.
    pub index: Option<PathBuf>,
    /// The directory that the paths of that index are relative to; `None` means the one it names.
    pub root: Option<PathBuf>,
    /// Where the index of the directories is kept; `None` means the user's state directory.
    pub state_dir: Option<PathBuf>,
    /// Seconds between two scans of the whole library; `None` means never.
    pub rescan_s: Option<u64>,
    /// Where all content is; `None` means beside each torrent file, or where the index says.
    pub content: Option<PathBuf>,
    /// What is checked before content is served.
    pub verify: Verify,
}

impl Default for LibraryConfig {
    fn default() -> Self {
        Self {
            dirs: Vec::new(),
            index: None,
            root: None,
            state_dir: None,
            rescan_s: Some(DEFAULT_RESCAN_S),
            content: None,
            verify: Verify::Size,
        }
    }
}

impl LibraryConfig {
    /// The directory where state is kept.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(state_home)
    }

    /// The file that remembers which pieces were verified, when pieces are hashed. One file serves
    /// every library: what is known of a piece depends on its torrent and its files.
    #[must_use]
    pub fn verified(&self) -> Option<PathBuf> {
        (self.verify == Verify::Lazy).then(|| self.state_directory().join(VERIFIED))
    }

    /// Whether anything is kept in the state directory.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.index.is_none() || self.verify == Verify::Lazy
    }
}

impl From<&LibraryConfig> for Settings {
    fn from(config: &LibraryConfig) -> Self {
        let content = config.content.clone();
        let source = match &config.index {
            Some(index) => Source::Given {
                index: index.clone(),
                root: config.root.clone(),
            },
            None => Source::Inputs {
                state: refresh::state_path(
                    &config.state_directory(),
                    &config.dirs,
                    content.as_deref(),
                ),
                inputs: config.dirs.clone(),
            },
        };
        Self {
            source,
            content,
            rescan: config.rescan_s.map(Duration::from_secs),
        }
    }
}

/// Where the state of this user is kept: in the directory that systemd gives a service, or else as
/// the XDG base directory specification says.
fn state_home() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let given = set("STATE_DIRECTORY").map(|list| {
        // Directories with a colon between them.
        let list = list.into_vec();
        let first = list.split(|byte| *byte == b':').next().unwrap_or_default();
        PathBuf::from(OsString::from_vec(first.to_vec()))
    });
    given
        .or_else(|| Some(PathBuf::from(set("XDG_STATE_HOME")?).join("hekate")))
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/state/hekate")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/hekate"))
}

/// Where peers connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkConfig {
    /// TCP port to listen on (and UDP, to refuse uTP); 0 lets the system choose one.
    pub port: u16,
    /// Addresses to listen on; empty means every address of `families`.
    pub bind: Vec<IpAddr>,
    /// Which address families are served.
    pub families: Families,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            bind: Vec::new(),
            families: Families::Both,
        }
    }
}

/// How many peers are served, and how fast.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitsConfig {
    /// Upload slots and their turns.
    pub choker: ChokerConfig,
    /// Connected peers; `None` means [`PEERS_FOR_EACH_SLOT`] for each slot.
    pub max_peers: Option<usize>,
    /// Maximum number of connected peers per IP address; `None` means no limit.
    pub max_peers_per_ip: Option<usize>,
    /// Bytes a second for the whole process; `None` means no limit.
    pub max_rate: Option<u64>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            choker: ChokerConfig {
                max_unchoked: DEFAULT_MAX_UNCHOKED,
                credit_bytes: DEFAULT_CREDIT_BYTES,
                max_unchoked_ms: 1000 * DEFAULT_MAX_UNCHOKED_TIME_S,
                unused_slot_ms: UNUSED_SLOT_MS,
                idle_ms: IDLE_AT_CAPACITY_MS,
            },
            max_peers: None,
            max_peers_per_ip: None,
            max_rate: None,
        }
    }
}

/// What is announced, and to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackerConfig {
    /// Whether nothing is announced.
    pub disabled: bool,
    /// The URL of the one tracker that replaces those of the torrents.
    pub override_url: Option<String>,
    /// Which torrents are announced, where several machines serve the same; `None` means all.
    pub shard: Option<Shard>,
    /// The address that trackers are asked to pass on, when it is not the source of announces.
    pub announce_ip: Option<IpAddr>,
    /// The port that is announced; `None` means the one that is listened on.
    pub announce_port: Option<u16>,
    /// Announces a second to one tracker; `None` means no limit.
    pub max_announce_rate: Option<u32>,
    /// The torrents whose peers are dialled.
    pub connect: DialledTorrents,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            disabled: false,
            override_url: None,
            shard: None,
            announce_ip: None,
            announce_port: None,
            max_announce_rate: Some(DEFAULT_MAX_ANNOUNCE_RATE),
            connect: DialledTorrents::default(),
        }
    }
}

/// The log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// What is logged, in the form that `logging::filter` returns.
    pub levels: String,
    /// The log file; `None` means standard error.
    pub file: Option<PathBuf>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            levels: "hekate=info".to_owned(),
            file: None,
        }
    }
}

/// The status listener.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct StatusConfig {
    /// Where it listens.
    pub listen: StatusListen,
    /// Host names that requests may carry, beside addresses and `localhost`: those of a proxy.
    pub hosts: Vec<String>,
}

/// How the process starts, and the rights it gives up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonConfig {
    /// The user to become.
    pub user: Option<UserName>,
    /// Whether to go to the background.
    pub background: bool,
    /// The file that holds the process id.
    pub pid_file: Option<PathBuf>,
    /// Whether Landlock restricts which files the process can open.
    pub landlock: bool,
    /// Directories that may be read in addition to the library.
    pub content_roots: Vec<PathBuf>,
    /// Whether the process gives up gaining privileges by `exec`.
    pub no_new_privs: bool,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            user: None,
            background: false,
            pid_file: None,
            landlock: true,
            content_roots: Vec::new(),
            no_new_privs: true,
        }
    }
}

/// The parts of a configuration that a reload applies: a live setting changes one of these and
/// nothing else.
#[derive(PartialEq, Eq, Debug)]
pub struct LiveConfig<'a> {
    /// What is served; its settings that are not live never change.
    pub library: &'a LibraryConfig,
    /// How many peers are served, and how fast.
    pub limits: &'a LimitsConfig,
    /// What is logged.
    pub log_levels: &'a str,
}

impl Config {
    /// The parts that a reload applies.
    #[must_use]
    pub fn live(&self) -> LiveConfig<'_> {
        LiveConfig {
            library: &self.library,
            limits: &self.limits,
            log_levels: &self.log.levels,
        }
    }
}

impl LimitsConfig {
    /// How many peers may be connected, as far as it goes by what was asked for.
    pub fn peers_wanted(&self) -> usize {
        self.max_peers
            .unwrap_or_else(|| self.choker.max_unchoked.saturating_mul(PEERS_FOR_EACH_SLOT))
    }
}
