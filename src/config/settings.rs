//! The one table of options: how each is called, what it takes, what holds without it, what it does.
//!
//! Owns names, defaults as they are written, and explanations. The flags of `hekate seed`, the keys
//! and comments of the configuration file and the tables of the manual are all made from it, so that
//! they cannot diverge. It must not know where a value came from.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Config, Families, StatusAddress, StatusListen, UserName, Verify};
use crate::tracker::peers::DialledTorrents;
use crate::tracker::shard::Shard;
use crate::tracker::url::TrackerUrl;

/// The longest turn that can be asked for, a year: it keeps sums of times far from overflow.
const MAX_UNCHOKED_TIME_S: u64 = 365 * 24 * 3600;

/// The longest interval that can be asked for, a year.
const MAX_RESCAN_S: u64 = 365 * 24 * 3600;

/// One option: a flag on the command line, a key in the configuration file.
pub struct Setting {
    /// The flag without its dashes, and the key.
    pub name: &'static str,
    /// The flag's short form.
    pub short: Option<char>,
    /// The heading that it stands under.
    pub group: &'static str,
    /// What is written behind it.
    pub takes: Takes,
    /// What holds when nothing is said.
    pub default: Preset,
    /// What it is for, in one sentence without a stop.
    pub help: &'static str,
    /// Whether a reload takes up a change; else a restart does.
    pub live: bool,
    /// The setting that may not be given together with it.
    pub excludes: Option<&'static str>,
    /// Replaces what the configuration has with the values.
    apply: fn(&mut Config, Values<'_>) -> Result<(), String>,
}

/// What a setting is given, before it is parsed.
#[derive(Clone, Copy)]
struct Values<'a> {
    texts: &'a [String],
    /// Where relative paths start.
    directory: &'a Path,
}

/// What is written behind an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// Nothing on the command line, or `=true` or `=false`; `true` or `false` in the file.
    Switch,
    /// The same for what is on unless told: a second flag has this name and turns it off.
    OffSwitch(&'static str),
    /// One value, with what the manual calls it.
    One(&'static str),
    /// Any number of values: the flag is repeated, the file has a list.
    Many(&'static str),
    /// The same, but without a flag: on the command line it stands alone.
    Positional(&'static str),
}

/// What holds when nothing is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// This, as it would be written.
    Value(&'static str),
    /// What words can say better, with an example of a value.
    Words(&'static str, &'static str),
}

impl Preset {
    /// The default as it would be written, where it can be written.
    #[must_use]
    pub fn value(&self) -> Option<&'static str> {
        match *self {
            Self::Value(value) => Some(value),
            Self::Words(..) => None,
        }
    }
}

/// Every option, in the order of the manual.
pub const SETTINGS: &[Setting] = &[
    Setting {
        takes: Takes::Positional("DIR"),
        default: Preset::Words("none: at least one must be given", "/srv/library"),
        help: "Directories to search for *.torrent files",
        apply: |config, values| paths(&mut config.library.dirs, values),
        ..setting("dirs", LIBRARY)
    },
    Setting {
        takes: Takes::One("FILE"),
        default: Preset::Words("none", "/srv/library.index"),
        help: "Serve the torrents in an index file made by `hekate index`, instead of directories",
        live: false,
        excludes: Some("dirs"),
        apply: |config, values| path(&mut config.library.index, values),
        ..setting("index", LIBRARY)
    },
    Setting {
        takes: Takes::One("DIR"),
        default: Preset::Words("as recorded in the index", "/srv/library"),
        help: "Library root for that index, if it was copied from elsewhere",
        live: false,
        apply: |config, values| path(&mut config.library.root, values),
        ..setting("root", LIBRARY)
    },
    Setting {
        takes: Takes::One("DIR"),
        default: Preset::Words("the user's state directory", "/var/lib/hekate"),
        help: "Directory for the index and the record of verified pieces; safe to delete, at the cost of a new scan and new hashing",
        live: false,
        apply: |config, values| path(&mut config.library.state_dir, values),
        ..setting("state-dir", LIBRARY)
    },
    Setting {
        takes: Takes::One("SECONDS"),
        default: Preset::Value("86400"),
        help: "Interval of full rescans, which find changes that are not noticed at once; 0 disables them",
        apply: |config, values| one(&mut config.library.rescan_s, values, rescan),
        ..setting("rescan", LIBRARY)
    },
    Setting {
        takes: Takes::One("DIR"),
        default: Preset::Words("beside each torrent file", "/srv/content"),
        help: "Directory that holds the content",
        apply: |config, values| path(&mut config.library.content, values),
        ..setting("content", LIBRARY)
    },
    Setting {
        takes: Takes::One("MODE"),
        default: Preset::Value("size"),
        help: "How content is checked before it is served: by its size, or (lazy) also by hashing each piece before it is first served and after its file changes",
        live: false,
        apply: |config, values| one(&mut config.library.verify, values, verify),
        ..setting("verify", LIBRARY)
    },
    Setting {
        short: Some('p'),
        takes: Takes::One("PORT"),
        default: Preset::Value("6969"),
        help: "Port to listen on; 0 lets the system choose one, which the log shows",
        live: false,
        apply: |config, values| one(&mut config.network.port, values, parse),
        ..setting("port", NETWORK)
    },
    Setting {
        takes: Takes::Many("ADDRESS"),
        default: Preset::Words("every address", "192.0.2.1"),
        help: "Address to listen on; may be given more than once",
        live: false,
        apply: |config, values| many(&mut config.network.bind, values),
        ..setting("bind", NETWORK)
    },
    Setting {
        short: Some('4'),
        help: "Serve IPv4 only",
        live: false,
        excludes: Some("ipv6"),
        apply: |config, values| family(config, values, Families::V4),
        ..setting("ipv4", NETWORK)
    },
    Setting {
        short: Some('6'),
        help: "Serve IPv6 only",
        live: false,
        excludes: Some("ipv4"),
        apply: |config, values| family(config, values, Families::V6),
        ..setting("ipv6", NETWORK)
    },
    Setting {
        short: Some('N'),
        takes: Takes::One("N"),
        default: Preset::Value("50"),
        help: "Upload slots: how many peers are served at the same time",
        apply: |config, values| one(&mut config.limits.choker.max_unchoked, values, positive),
        ..setting("max-unchoked", LIMITS)
    },
    Setting {
        takes: Takes::One("N"),
        default: Preset::Words("10 per upload slot", "500"),
        help: "Maximum number of connected peers; file descriptors may limit it further",
        apply: |config, values| optional(&mut config.limits.max_peers, values, positive),
        ..setting("max-peers", LIMITS)
    },
    Setting {
        takes: Takes::One("N"),
        default: Preset::Words("no limit", "4"),
        help: "Maximum number of connected peers per IP address",
        apply: |config, values| optional(&mut config.limits.max_peers_per_ip, values, positive),
        ..setting("max-peers-per-ip", LIMITS)
    },
    Setting {
        short: Some('C'),
        takes: Takes::One("BYTES"),
        default: Preset::Value("1M"),
        help: "Bytes that a peer may be sent before it gives up its slot, if others are waiting; K, M, G are powers of 1024",
        apply: |config, values| one(&mut config.limits.choker.credit_bytes, values, bytes),
        ..setting("credit", LIMITS)
    },
    Setting {
        short: Some('T'),
        takes: Takes::One("SECONDS"),
        default: Preset::Value("300"),
        help: "Seconds that a peer may hold a slot, if others are waiting",
        apply: |config, values| one(&mut config.limits.choker.max_unchoked_ms, values, turn_ms),
        ..setting("max-unchoked-time", LIMITS)
    },
    Setting {
        takes: Takes::One("BYTES"),
        default: Preset::Words("no limit", "10M"),
        help: "Upload limit in bytes per second, for all peers together; K, M, G are powers of 1024",
        apply: |config, values| optional(&mut config.limits.max_rate, values, bytes),
        ..setting("max-rate", LIMITS)
    },
    Setting {
        short: Some('t'),
        help: "Do not announce to trackers",
        live: false,
        apply: |config, values| one(&mut config.trackers.disabled, values, parse),
        ..setting("no-tracker", TRACKERS)
    },
    Setting {
        takes: Takes::One("URL"),
        default: Preset::Words("the trackers of each torrent", "udp://tracker.example:6969"),
        help: "Announce every torrent to this tracker only",
        live: false,
        apply: |config, values| optional(&mut config.trackers.override_url, values, tracker),
        ..setting("tracker-override", TRACKERS)
    },
    Setting {
        takes: Takes::One("I/N"),
        default: Preset::Words("all", "1/3"),
        help: "Announce only share I of N, when N machines serve the same library; each machine still serves every torrent",
        live: false,
        apply: |config, values| optional(&mut config.trackers.shard, values, Shard::from_str),
        ..setting("shard", TRACKERS)
    },
    Setting {
        takes: Takes::One("ADDRESS"),
        default: Preset::Words("the source address of the announce", "192.0.2.1"),
        help: "IP address to report to trackers; many ignore it",
        live: false,
        apply: |config, values| optional(&mut config.trackers.announce_ip, values, parse),
        ..setting("announce-ip", TRACKERS)
    },
    Setting {
        takes: Takes::One("PORT"),
        default: Preset::Words("the listening port", "6881"),
        help: "Port to report to trackers, if a router forwards a different one",
        live: false,
        apply: |config, values| optional(&mut config.trackers.announce_port, values, announce_port),
        ..setting("announce-port", TRACKERS)
    },
    Setting {
        takes: Takes::One("N"),
        default: Preset::Value("100"),
        help: "Maximum announces per second to one tracker; 0 removes the limit",
        live: false,
        apply: |config, values| {
            one(
                &mut config.trackers.max_announce_rate,
                values,
                announce_rate,
            )
        },
        ..setting("max-announce-rate", TRACKERS)
    },
    Setting {
        takes: Takes::Many("TORRENTS"),
        default: Preset::Words("nobody", "all"),
        help: "Connect to the peers that trackers return, for peers that cannot connect to us: of `all` torrents, or of one info-hash",
        live: false,
        apply: |config, values| {
            DialledTorrents::parse(values.texts).map(|dialled| config.trackers.connect = dialled)
        },
        ..setting("connect", TRACKERS)
    },
    Setting {
        takes: Takes::One("LEVELS"),
        default: Preset::Value("info"),
        help: "Log level: error, warn, info, debug or trace; per component as in \"info,storage=debug\"",
        apply: |config, values| one(&mut config.log.levels, values, crate::logging::filter),
        ..setting("log", LOG)
    },
    Setting {
        takes: Takes::One("FILE"),
        default: Preset::Words("standard error", "/var/log/hekate/hekate.log"),
        help: "File to write the log to; SIGUSR1 reopens it",
        live: false,
        apply: |config, values| path(&mut config.log.file, values),
        ..setting("log-file", LOG)
    },
    Setting {
        takes: Takes::One("ADDRESS"),
        default: Preset::Words("127.0.0.1:6970, if it is free", "unix:/run/hekate/status"),
        help: "Address of the status page and the metrics: ADDRESS:PORT, unix:PATH or off",
        live: false,
        apply: |config, values| status(&mut config.status.listen, values),
        ..setting("status", STATUS)
    },
    Setting {
        takes: Takes::Many("NAME"),
        default: Preset::Words("IP addresses and localhost", "seeder.example.org"),
        help: "Host name under which the status page answers, for use behind a proxy",
        live: false,
        apply: |config, values| many(&mut config.status.hosts, values),
        ..setting("status-host", STATUS)
    },
    Setting {
        takes: Takes::One("NAME[:GROUP]"),
        default: Preset::Words("the user that starts it", "hekate"),
        help: "User to switch to after binding, when started as root; the group defaults to the user's own",
        live: false,
        apply: |config, values| optional(&mut config.daemon.user, values, user),
        ..setting("user", STARTING)
    },
    Setting {
        help: "Run in the background once the daemon listens; requires log-file",
        live: false,
        apply: |config, values| one(&mut config.daemon.background, values, parse),
        ..setting("daemon", STARTING)
    },
    Setting {
        takes: Takes::One("FILE"),
        default: Preset::Words("none", "/run/hekate/hekate.pid"),
        help: "File for the process id; a second process with the same file is refused",
        live: false,
        apply: |config, values| path(&mut config.daemon.pid_file, values),
        ..setting("pid-file", STARTING)
    },
    Setting {
        takes: Takes::OffSwitch("no-landlock"),
        default: Preset::Value("true"),
        help: "Restrict file access to the library and what the daemon itself needs (Landlock)",
        live: false,
        apply: |config, values| one(&mut config.daemon.landlock, values, parse),
        ..setting("landlock", STARTING)
    },
    Setting {
        takes: Takes::Many("DIR"),
        default: Preset::Words("none", "/mnt/disk2"),
        help: "Additional directory that Landlock lets the daemon read, such as the target of a link in the library",
        live: false,
        apply: |config, values| paths(&mut config.daemon.content_roots, values),
        ..setting("content-root", STARTING)
    },
    Setting {
        takes: Takes::OffSwitch("allow-new-privs"),
        default: Preset::Value("true"),
        help: "Never gain privileges by running a program (no_new_privs); Landlock requires it",
        live: false,
        apply: |config, values| one(&mut config.daemon.no_new_privs, values, parse),
        ..setting("no-new-privs", STARTING)
    },
];

const STARTING: &str = "Process";
const LIBRARY: &str = "Library";
const NETWORK: &str = "Network";
const LIMITS: &str = "Limits";
const TRACKERS: &str = "Trackers";
const LOG: &str = "Log";
const STATUS: &str = "Status";

/// A switch that changes nothing, to be filled in.
const fn setting(name: &'static str, group: &'static str) -> Setting {
    Setting {
        name,
        short: None,
        group,
        takes: Takes::Switch,
        default: Preset::Value("false"),
        help: "",
        live: true,
        excludes: None,
        apply: |_, values| one(&mut false, values, parse),
    }
}

impl Setting {
    /// The setting of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Replaces what the configuration has with `values`; relative paths start at `directory`.
    ///
    /// # Errors
    /// What is wrong with a value, in a few words.
    pub fn apply(
        &self,
        config: &mut Config,
        values: &[String],
        directory: &Path,
    ) -> Result<(), String> {
        let values = Values {
            texts: values,
            directory,
        };
        (self.apply)(config, values)
    }

    /// Whether it may have these values.
    ///
    /// # Errors
    /// As [`Setting::apply`].
    pub fn check(&self, values: &[String]) -> Result<(), String> {
        self.apply(&mut Config::default(), values, Path::new(""))
    }
}

/// The table of the manual, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut table = String::from(
        "| option and key | default | to apply a change | meaning |\n|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let (value, many) = match setting.takes {
            Takes::Switch | Takes::OffSwitch(_) => (String::new(), ""),
            Takes::One(value) => (format!(" {value}"), ""),
            Takes::Many(value) => (format!(" {value}"), " …"),
            Takes::Positional(value) => (format!("{value} …` or `"), ""),
        };
        let name = match setting.takes {
            Takes::Positional(_) => format!("`{value}{}`", setting.name),
            Takes::OffSwitch(flag) => format!("`--{}`, `--{flag}` for off", setting.name),
            _ => format!("`--{}{value}`{many}", setting.name),
        };
        let short = setting
            .short
            .map_or_else(String::new, |short| format!("`-{short}`, "));
        let default = match setting.default {
            Preset::Value("false") => "",
            Preset::Value("true") => "on",
            Preset::Value(value) => value,
            Preset::Words(words, _) => words,
        };
        let change = if setting.live { "reload" } else { "restart" };
        let help = setting.help;
        table.push_str(&format!(
            "| {short}{name} | {default} | {change} | {help} |\n"
        ));
    }
    table
}

fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn one<T, E: ToString>(
    field: &mut T,
    values: Values<'_>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<(), String> {
    let [value] = values.texts else {
        return Err("exactly one value is needed".to_owned());
    };
    *field = read(value).map_err(|error| error.to_string())?;
    Ok(())
}

fn optional<T, E: ToString>(
    field: &mut Option<T>,
    values: Values<'_>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<(), String> {
    one(field, values, |value| read(value).map(Some))
}

fn many<T: FromStr<Err: ToString>>(field: &mut Vec<T>, values: Values<'_>) -> Result<(), String> {
    let parsed = values.texts.iter().map(|value| parse(value));
    *field = parsed.collect::<Result<_, _>>()?;
    Ok(())
}

fn path(field: &mut Option<PathBuf>, values: Values<'_>) -> Result<(), String> {
    one(field, values, |path| {
        Ok::<_, String>(Some(values.directory.join(path)))
    })
}

fn paths(field: &mut Vec<PathBuf>, values: Values<'_>) -> Result<(), String> {
    let anchored = values.texts.iter().map(|path| values.directory.join(path));
    *field = anchored.collect();
    Ok(())
}

fn family(config: &mut Config, values: Values<'_>, family: Families) -> Result<(), String> {
    let mut is_only = false;
    one(&mut is_only, values, parse)?;
    if is_only {
        config.network.families = family;
    }
    Ok(())
}

fn status(field: &mut StatusListen, values: Values<'_>) -> Result<(), String> {
    one(field, values, |text| {
        match (text, text.strip_prefix("unix:")) {
            ("off", _) => Ok(StatusListen::Off),
            (_, Some("")) => Err("unix: needs a path behind it"),
            (_, Some(path)) => {
                let path = values.directory.join(path);
                Ok(StatusListen::At(StatusAddress::Unix(path)))
            }
            (address, None) => match address.parse() {
                Ok(address) => Ok(StatusListen::At(StatusAddress::Tcp(address))),
                Err(_) => Err("must be ADDRESS:PORT, unix:PATH or off"),
            },
        }
    })
}

fn verify(text: &str) -> Result<Verify, String> {
    match text {
        "size" => Ok(Verify::Size),
        "lazy" => Ok(Verify::Lazy),
        _ => Err("must be size or lazy".to_owned()),
    }
}

fn user(text: &str) -> Result<UserName, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    match user.is_empty() || group.is_some_and(str::is_empty) {
        true => Err("must be NAME or NAME:GROUP".to_owned()),
        false => Ok(UserName {
            user: user.to_owned(),
            group: group.map(str::to_owned),
        }),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match parse(text)? {
        0 => Err("must be at least 1".to_owned()),
        number => Ok(number),
    }
}

fn tracker(text: &str) -> Result<String, String> {
    match TrackerUrl::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn announce_port(text: &str) -> Result<u16, String> {
    match parse(text)? {
        0 => Err("must be at least 1".to_owned()),
        port => Ok(port),
    }
}

fn announce_rate(text: &str) -> Result<Option<u32>, String> {
    Ok(Some(parse(text)?).filter(|rate| *rate > 0))
}

fn rescan(text: &str) -> Result<Option<u64>, String> {
    match parse(text)? {
        seconds @ 0..=MAX_RESCAN_S => Ok(Some(seconds).filter(|seconds| *seconds > 0)),
        _ => Err(format!("must be at most {MAX_RESCAN_S}")),
    }
}

fn turn_ms(text: &str) -> Result<u64, String> {
    match parse(text)? {
        seconds @ 1..=MAX_UNCHOKED_TIME_S => Ok(1000 * seconds),
        _ => Err(format!("must be from 1 to {MAX_UNCHOKED_TIME_S}")),
    }
}

/// A number of bytes with an optional suffix K, M, G or T (powers of 1024; `KiB` and the like too).
fn bytes(text: &str) -> Result<u64, String> {
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
    let number: u64 = parse(digits)?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("must be at least 1".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("too large".to_owned()),
    }
}

#[cfg(test)]
mod tests;
