//! The configuration of a run: values with units and defaults, grouped by the part that uses them.
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
use crate::choker::slots;
use crate::library::catalogue::live::{Settings, Source};
use crate::library::catalogue::refresh;
use crate::super_seeding::SuperSeedingMode;
use crate::timers::Timeouts;
use crate::torrent::content_directories::{ContentDirectories, Named};
use crate::tracker::access::Access;
use crate::tracker::peers::DialledTorrents;
use crate::tracker::shard::Shard;

/// The port of the 2009 program, and of most trackers; a seeder behind a firewall picks its own.
const DEFAULT_PORT: u16 = 6969;

/// Memory for a peer, in bytes: little for the daemon, and what its socket holds in the kernel, of which
/// most peers hold nothing.
const PEER_MEMORY_BYTES: u64 = 32 * 1024;

/// The part of the memory that peers may take without `--max-peers`: a quarter.
const PEERS_MEMORY_DIVISOR: u64 = 4;

/// Bytes that a peer is sent in one term, if others wait: 1 MiB.
const DEFAULT_CREDIT_BYTES: u64 = 1 << 20;

/// The longest term, if others wait: 300 s.
const DEFAULT_MAX_UNCHOKED_TIME_S: u64 = 300;

/// A slot that is not used for this long goes to another: some round trips over a busy line, and the time
/// in which the slowest of them takes a block.
const UNUSED_SLOT_MS: u32 = 10_000;

/// How long a peer may be idle at capacity. Clients that need something say so within a second; with
/// a magnet link they need the metadata first.
const IDLE_AT_CAPACITY_MS: u64 = 10_000;

/// Interval of full rescans: a day. Changes by this kernel are noticed at once, so a rescan finds
/// those by other machines on a network file system, and those of content that is not beside its
/// torrents. It costs one stat of each file of content.
const DEFAULT_RESCAN_S: u64 = 24 * 3600;

/// Announces a second to one tracker: enough for 180,000 torrents at half an hour, and few enough
/// that a restart does not flood a tracker.
const DEFAULT_MAX_ANNOUNCE_RATE: u32 = 100;

/// The file in the state directory that lists verified pieces.
const VERIFIED: &str = "verified";

/// Which address families are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// IPv4, and IPv6 where the machine has it.
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Whether connections are encrypted (MSE).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Encryption {
    /// As the peer wants. Plain text is selected where it is offered.
    #[default]
    Accept,
    /// All are, with RC4.
    Require,
    /// None is.
    Off,
}

/// How content is checked before it is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verify {
    /// The sizes of files, and whether they change.
    Size,
    /// Also the hash of each piece, before it is first served and after its file has changed.
    Lazy,
}

/// The default address of the status listener.
pub const DEFAULT_STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6970);

/// Whether and where the status listener listens.
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

/// An address of a status listener.
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
    /// The library.
    pub library: LibraryConfig,
    /// Where peers connect.
    pub network: NetworkConfig,
    /// How many peers are served, and how fast.
    pub limits: LimitsConfig,
    /// Announcing.
    pub trackers: TrackerConfig,
    /// The log.
    pub log: LogConfig,
    /// The status listener.
    pub status: StatusConfig,
    /// How the process starts, and the privileges it drops.
    pub daemon: DaemonConfig,
    /// All time-outs of peers. There is no option for them; tests shorten them.
    pub timeouts: Timeouts,
}

/// The library: what is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LibraryConfig {
    /// The directories to search for `*.torrent`.
    pub dirs: Vec<PathBuf>,
    /// An index that is served instead of directories.
    pub index: Option<PathBuf>,
    /// The directory that the paths of that index are relative to; `None` means the one it names.
    pub root: Option<PathBuf>,
    /// The directory for state; `None` means the state directory of the user.
    pub state_dir: Option<PathBuf>,
    /// Seconds between two scans of the whole library; `None` means never.
    pub rescan_s: Option<u64>,
    /// The directories that hold the content, in the order in which they are searched; none means beside each
    /// torrent file, or as recorded in the index.
    pub content: Vec<PathBuf>,
    /// Directories of torrent files whose content lies below another one, with that.
    pub content_for: Vec<(PathBuf, PathBuf)>,
    /// Whether content is looked for also without the directory that has the torrent's name.
    pub without_subfolder: bool,
    /// Further directories that links in the library may lead to.
    pub content_roots: Vec<PathBuf>,
    /// How content is checked before it is served.
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
            content: Vec::new(),
            content_for: Vec::new(),
            without_subfolder: false,
            content_roots: Vec::new(),
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

    /// The file that lists verified pieces, if pieces are hashed. One file serves every library, since
    /// an entry depends only on the torrent and its files.
    #[must_use]
    pub fn verified(&self) -> Option<PathBuf> {
        (self.verify == Verify::Lazy).then(|| self.state_directory().join(VERIFIED))
    }

    /// Returns true if files are kept in the state directory.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.index.is_none() || self.verify == Verify::Lazy
    }
}

impl From<&LibraryConfig> for Settings {
    fn from(config: &LibraryConfig) -> Self {
        let content = ContentDirectories::from(config);
        let source = match &config.index {
            Some(index) => Source::Given {
                index: index.clone(),
                root: config.root.clone(),
            },
            None => Source::Inputs {
                state: refresh::state_path(&config.state_directory(), &config.dirs, &content),
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

impl From<&LibraryConfig> for ContentDirectories {
    fn from(config: &LibraryConfig) -> Self {
        let below = config.content_for.iter().map(|(_, content)| content);
        let named = (config.dirs.iter())
            .chain(&config.root)
            .chain(&config.content)
            .chain(below)
            .chain(&config.content_roots);
        // A directory is walked by its path without symlinks, and what is below it as it is reached.
        let both = |above: &PathBuf| {
            let given = std::path::absolute(above).unwrap_or_else(|_| above.clone());
            let real = above.canonicalize().ok().filter(|real| *real != given);
            [Some(given), real].into_iter().flatten()
        };
        let pairs = config.content_for.iter();
        Named {
            roots: config.content.clone(),
            roots_for: pairs
                .flat_map(|(above, content)| both(above).map(|above| (above, content.clone())))
                .collect(),
            links: named.cloned().collect(),
            without_subfolder: config.without_subfolder,
        }
        .into()
    }
}

/// The state directory of this user: the one that systemd gives a service, or else that of the XDG
/// base directory specification.
fn state_home() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let given = set("STATE_DIRECTORY").map(|list| {
        // Directories separated by colons.
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
    /// Whether connections are encrypted.
    pub encryption: Encryption,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            bind: Vec::new(),
            families: Families::Both,
            encryption: Encryption::Accept,
        }
    }
}

/// How many peers are served, and how fast.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitsConfig {
    /// Upload slots and their terms.
    pub choker: ChokerConfig,
    /// The program decides how many slots there are.
    pub auto_slots: bool,
    /// Connected peers; `None` means as many as memory and descriptors allow.
    pub max_peers: Option<usize>,
    /// Maximum number of connected peers per IP address; `None` means no limit.
    pub max_peers_per_ip: Option<usize>,
    /// Bytes a second for the whole process; `None` means no limit.
    pub max_rate: Option<u64>,
    /// Whether torrents are super-seeded.
    pub super_seeding: SuperSeedingMode,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            choker: ChokerConfig {
                max_unchoked: slots::FEWEST,
                credit_bytes: DEFAULT_CREDIT_BYTES,
                max_unchoked_ms: 1000 * DEFAULT_MAX_UNCHOKED_TIME_S,
                unused_slot_ms: UNUSED_SLOT_MS,
                idle_ms: IDLE_AT_CAPACITY_MS,
            },
            auto_slots: true,
            max_peers: None,
            max_peers_per_ip: None,
            max_rate: None,
            super_seeding: SuperSeedingMode::Auto,
        }
    }
}

/// Announcing: what, and to which trackers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackerConfig {
    /// Announce nothing.
    pub disabled: bool,
    /// The URL of the one tracker that replaces those of the torrents.
    pub override_url: Option<String>,
    /// The trackers that may be announced to, beside that one.
    pub access: Access,
    /// The share of torrents to announce, if several machines serve the same; `None` means all.
    pub shard: Option<Shard>,
    /// The IP address to report to trackers; `None` means the source address of the announce.
    pub announce_ip: Option<IpAddr>,
    /// The port to report to trackers; `None` means the listening port.
    pub announce_port: Option<u16>,
    /// Announces a second to one tracker; `None` means no limit.
    pub max_announce_rate: Option<u32>,
    /// A file of certificates (PEM) that are trusted beside those of the system.
    pub certificates: Option<PathBuf>,
    /// The torrents whose peers are dialled.
    pub connect: DialledTorrents,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            disabled: false,
            override_url: None,
            access: Access::default(),
            shard: None,
            announce_ip: None,
            announce_port: None,
            max_announce_rate: Some(DEFAULT_MAX_ANNOUNCE_RATE),
            certificates: None,
            connect: DialledTorrents::default(),
        }
    }
}

/// The log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Levels, in the form that `logging::filter` returns.
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
    /// Host names that requests may carry, beside addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// How the process starts, and the privileges it drops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonConfig {
    /// The user to switch to.
    pub user: Option<UserName>,
    /// Run in the background.
    pub background: bool,
    /// The pid file.
    pub pid_file: Option<PathBuf>,
    /// Restrict with Landlock which files the process can open.
    pub landlock: bool,
    /// Never gain privileges by `exec`.
    pub no_new_privs: bool,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            user: None,
            background: false,
            pid_file: None,
            landlock: true,
            no_new_privs: true,
        }
    }
}

/// The parts of a configuration that a reload applies: a live setting changes one of these and
/// nothing else.
#[derive(PartialEq, Eq, Debug)]
pub struct LiveConfig<'a> {
    /// The library; its settings that are not live never change.
    pub library: &'a LibraryConfig,
    /// How many peers are served, and how fast.
    pub limits: &'a LimitsConfig,
    /// The levels of the log.
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
    /// How many peers may be connected on a machine with so much memory, before the descriptor limit is
    /// applied.
    pub fn peers_wanted(&self, memory_bytes: u64) -> usize {
        self.max_peers.unwrap_or_else(|| {
            let peers = memory_bytes / PEERS_MEMORY_DIVISOR / PEER_MEMORY_BYTES;
            usize::try_from(peers).unwrap_or(usize::MAX)
        })
    }
}
