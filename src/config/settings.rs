//! The one table of options: names, values, defaults, help, and how each changes the configuration.
//!
//! The flags of `hekate seed`, the keys and comments of the configuration file and the tables of the
//! manual are made from it, so they cannot diverge.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use self::Preset::{Value, Words};
use self::Takes::{Many, OffSwitch, One, Positional, Switch};

use super::{
    Config, Encryption, Families, LimitsConfig, StatusAddress, StatusListen, SuperSeedingMode,
    UserName, Verify,
};
use crate::choker::slots::FEWEST;
use crate::logging::filter;
use crate::tracker::access::AccessMode;
use crate::tracker::peers::DialledTorrents;
use crate::tracker::shard::Shard;
use crate::tracker::url::TrackerUrl;

/// The longest term that can be configured, a year: it keeps sums of times far from overflow.
const MAX_UNCHOKED_TIME_S: u64 = 365 * 24 * 3600;

/// The longest interval that can be configured, a year.
const MAX_RESCAN_S: u64 = 365 * 24 * 3600;

/// One option: a flag on the command line, a key in the configuration file.
pub struct Setting {
    /// The flag without its dashes, and the key.
    pub name: &'static str,
    /// The short form of the flag.
    pub short: Option<char>,
    /// Its heading in the help, the file and the manual.
    pub group: &'static str,
    /// Its values.
    pub takes: Takes,
    /// Its default.
    pub default: Preset,
    /// The help, one sentence without a stop.
    pub help: &'static str,
    /// A reload applies a change; otherwise a restart does.
    pub live: bool,
    /// A setting that cannot be combined with it.
    pub excludes: Option<&'static str>,
    /// Sets its fields of the configuration.
    apply: fn(&mut Config, Values<'_>) -> Result<(), String>,
}

/// The values of a setting, before they are parsed.
#[derive(Clone, Copy)]
struct Values<'a> {
    texts: &'a [String],
    /// Where relative paths start.
    directory: &'a Path,
}

/// The values that an option takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// None, or `=true` or `=false`, on the command line; `true` or `false` in the file.
    Switch,
    /// The same, on by default: a second flag with this name turns it off.
    OffSwitch(&'static str),
    /// One value, with its name in the manual.
    One(&'static str),
    /// Any number of values: the flag is repeated, the file has a list.
    Many(&'static str),
    /// The same, but as a positional argument on the command line.
    Positional(&'static str),
}

/// The default of a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// This value, as it is written.
    Value(&'static str),
    /// A description of the default, and an example of a value.
    Words(&'static str, &'static str),
}

impl Preset {
    /// The default as it is written, if it is a value.
    #[must_use]
    pub fn value(&self) -> Option<&'static str> {
        match *self {
            Self::Value(value) => Some(value),
            Self::Words(..) => None,
        }
    }
}

const RELOAD: bool = true;
const RESTART: bool = false;

macro_rules! optional {
    () => {
        None
    };
    ($value:literal) => {
        Some($value)
    };
}

/// Makes the table. A row has the name, the short form, the values, the default, whether a change
/// needs a reload or a restart, and the setting that it excludes; then the help, and how it is applied.
macro_rules! settings {
    ($($group:literal { $(
        $name:literal $($short:literal)?, $takes:expr, $default:expr, $live:ident $(excludes $other:literal)?,
        $help:literal, $apply:expr;
    )* })*) => {
        /// Every option, in the order of the manual.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            name: $name,
            short: optional!($($short)?),
            group: $group,
            takes: $takes,
            default: $default,
            help: $help,
            live: $live,
            excludes: optional!($($other)?),
            apply: $apply,
        },)*)*];
    };
}

settings! {
    "Library" {
        "dirs", Positional("DIR"), Words("none: at least one must be given", "/srv/library"), RELOAD,
            "Directories to search for *.torrent files",
            |config, values| paths(&mut config.library.dirs, values);
        "index", One("FILE"), Words("none", "/srv/library.index"), RESTART excludes "dirs",
            "Serve the torrents in an index file made by `hekate index`, instead of directories",
            |config, values| path(&mut config.library.index, values);
        "root", One("DIR"), Words("as recorded in the index", "/srv/library"), RESTART,
            "Library root for that index, if it was copied from elsewhere",
            |config, values| path(&mut config.library.root, values);
        "state-dir", One("DIR"), Words("the user's state directory", "/var/lib/hekate"), RESTART,
            "Directory for the index and the record of verified pieces; safe to delete, at the cost of a new scan and new hashing",
            |config, values| path(&mut config.library.state_dir, values);
        "rescan", One("SECONDS"), Value("86400"), RELOAD,
            "Interval of full rescans, which find changes that are not noticed at once; 0 disables them",
            |config, values| one(&mut config.library.rescan_s, values, rescan);
        "content", Many("DIR"), Words("beside each torrent file", "/srv/content"), RELOAD,
            "Directory that holds the content; of several, each torrent is served from the first that has all of it",
            |config, values| paths(&mut config.library.content, values);
        "content-for", Many("DIR=CONTENT"), Words("none", "/srv/torrents/films=/srv/films"), RELOAD,
            "Directory that holds the content of the torrent files below another directory, instead of `content`; the longest such directory counts",
            |config, values| pairs(&mut config.library.content_for, values);
        "no-subfolder", Switch, Value("false"), RELOAD,
            "Look for content also without the directory that has the torrent's name",
            |config, values| one(&mut config.library.without_subfolder, values, parse);
        "content-root", Many("DIR"), Words("none", "/mnt/disk2"), RESTART,
            "Additional directory that links in the library may lead to, and that Landlock lets the daemon read",
            |config, values| paths(&mut config.library.content_roots, values);
        "verify", One("MODE"), Value("size"), RESTART,
            "How content is checked before it is served: by its size, or (lazy) also by hashing each piece before it is first served and after its file changes",
            |config, values| one(&mut config.library.verify, values, verify);
    }
    "Network" {
        "port" 'p', One("PORT"), Value("6969"), RESTART,
            "Port to listen on; 0 lets the system choose one, which the log shows",
            |config, values| one(&mut config.network.port, values, parse);
        "bind", Many("ADDRESS"), Words("every address", "192.0.2.1"), RESTART,
            "Address to listen on; may be given more than once",
            |config, values| many(&mut config.network.bind, values);
        "ipv4" '4', Switch, Value("false"), RESTART excludes "ipv6",
            "Serve IPv4 only",
            |config, values| family(config, values, Families::V4);
        "ipv6" '6', Switch, Value("false"), RESTART excludes "ipv4",
            "Serve IPv6 only",
            |config, values| family(config, values, Families::V6);
        "encryption", One("MODE"), Value("accept"), RESTART,
            "Encrypted connections (MSE): accept those of peers that want it, require it of all, with RC4, or off",
            |config, values| one(&mut config.network.encryption, values, encryption);
    }
    "Limits" {
        "max-unchoked" 'N', One("N"), Value("auto"), RELOAD,
            "Upload slots: how many peers are served at the same time; auto means as few as fill the line",
            |config, values| slots(&mut config.limits, values);
        "max-peers", One("N"), Words("as memory and descriptors allow", "500"), RELOAD,
            "Maximum number of connected peers; file descriptors may limit it further",
            |config, values| optional(&mut config.limits.max_peers, values, positive);
        "max-peers-per-ip", One("N"), Words("no limit", "4"), RELOAD,
            "Maximum number of connected peers per IP address",
            |config, values| optional(&mut config.limits.max_peers_per_ip, values, positive);
        "credit" 'C', One("BYTES"), Value("1M"), RELOAD,
            "Bytes that a peer may be sent before it gives up its slot, if others are waiting; K, M, G are powers of 1024",
            |config, values| one(&mut config.limits.choker.credit_bytes, values, bytes);
        "max-unchoked-time" 'T', One("SECONDS"), Value("300"), RELOAD,
            "Seconds that a peer may hold a slot, if others are waiting",
            |config, values| one(&mut config.limits.choker.max_unchoked_ms, values, turn_ms);
        "max-rate", One("BYTES"), Words("no limit", "10M"), RELOAD,
            "Upload limit in bytes per second, for all peers together; K, M, G are powers of 1024",
            |config, values| optional(&mut config.limits.max_rate, values, bytes);
        "super-seeding", One("MODE"), Value("auto"), RELOAD,
            "Send each piece of a public torrent once, when two leechers or more are there (BEP 16): auto, while nobody else is known to have all of it, on, or off",
            |config, values| one(&mut config.limits.super_seeding, values, super_seeding);
    }
    "Trackers" {
        "no-tracker" 't', Switch, Value("false"), RESTART,
            "Do not announce to trackers",
            |config, values| one(&mut config.trackers.disabled, values, parse);
        "tracker-override", One("URL"), Words("the trackers of each torrent", "udp://tracker.example:6969"), RESTART,
            "Announce every torrent to this tracker only",
            |config, values| optional(&mut config.trackers.override_url, values, tracker);
        "trackers", One("WHICH"), Value("any"), RESTART,
            "Trackers to announce to: any, those at public addresses (public), or only those of tracker-host (list)",
            |config, values| one(&mut config.trackers.access.mode, values, parse::<AccessMode>);
        "tracker-host", Many("HOST"), Words("none", "tracker.example"), RESTART,
            "Host of a tracker that is announced to wherever it is, or .DOMAIN for all hosts below it; with :PORT at that port only",
            |config, values| many(&mut config.trackers.access.named, values);
        "tracker-certs", One("FILE"), Words("none", "/etc/hekate/trackers.pem"), RESTART,
            "Certificates (PEM) of HTTPS trackers that are trusted beside the system's, such as a self-signed one",
            |config, values| path(&mut config.trackers.certificates, values);
        "shard", One("I/N"), Words("all", "1/3"), RESTART,
            "Announce only share I of N, when N machines serve the same library; each machine still serves every torrent",
            |config, values| optional(&mut config.trackers.shard, values, Shard::from_str);
        "announce-ip", One("ADDRESS"), Words("the source address of the announce", "192.0.2.1"), RESTART,
            "IP address to report to trackers; many ignore it",
            |config, values| optional(&mut config.trackers.announce_ip, values, parse);
        "announce-port", One("PORT"), Words("the listening port", "6881"), RESTART,
            "Port to report to trackers, if a router forwards a different one",
            |config, values| optional(&mut config.trackers.announce_port, values, positive);
        "max-announce-rate", One("N"), Value("100"), RESTART,
            "Maximum announces per second to one tracker; 0 removes the limit",
            |config, values| one(&mut config.trackers.max_announce_rate, values, announce_rate);
        "connect", Many("TORRENTS"), Words("nobody", "all"), RESTART,
            "Connect to the peers that trackers return, for peers that cannot connect to us: of `all` torrents, or of one info-hash",
            |config, values| DialledTorrents::parse(values.texts).map(|torrents| config.trackers.connect = torrents);
    }
    "Log" {
        "log", One("LEVELS"), Value("info"), RELOAD,
            "Log level: error, warn, info, debug or trace; per component as in \"info,storage=debug\"",
            |config, values| one(&mut config.log.levels, values, filter);
        "log-file", One("FILE"), Words("standard error", "/var/log/hekate/hekate.log"), RESTART,
            "File to write the log to; SIGUSR1 reopens it",
            |config, values| path(&mut config.log.file, values);
    }
    "Status" {
        "status", One("ADDRESS"), Words("127.0.0.1:6970, if it is free", "unix:/run/hekate/status"), RESTART,
            "Address of the status page and the metrics: ADDRESS:PORT, unix:PATH or off",
            |config, values| status(&mut config.status.listen, values);
        "status-host", Many("NAME"), Words("IP addresses and localhost", "seeder.example.org"), RESTART,
            "Host name under which the status page answers, for use behind a proxy",
            |config, values| many(&mut config.status.hosts, values);
    }
    "Process" {
        "user", One("NAME[:GROUP]"), Words("the user that starts it", "hekate"), RESTART,
            "User to switch to after binding, when started as root; the group defaults to the user's own",
            |config, values| optional(&mut config.daemon.user, values, user);
        "daemon", Switch, Value("false"), RESTART,
            "Run in the background once the daemon listens; requires log-file",
            |config, values| one(&mut config.daemon.background, values, parse);
        "pid-file", One("FILE"), Words("none", "/run/hekate/hekate.pid"), RESTART,
            "File for the process id; a second process with the same file is refused",
            |config, values| path(&mut config.daemon.pid_file, values);
        "landlock", OffSwitch("no-landlock"), Value("true"), RESTART,
            "Restrict file access to the library and what the daemon itself needs (Landlock)",
            |config, values| one(&mut config.daemon.landlock, values, parse);
        "no-new-privs", OffSwitch("allow-new-privs"), Value("true"), RESTART,
            "Never gain privileges by running a program (no_new_privs); Landlock requires it",
            |config, values| one(&mut config.daemon.no_new_privs, values, parse);
    }
}

impl Setting {
    /// The setting of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Applies `values` to the configuration; relative paths start at `directory`.
    ///
    /// # Errors
    /// A few words on an invalid value.
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

    /// Validates values.
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
            Switch | OffSwitch(_) => (String::new(), ""),
            One(value) => (format!(" {value}"), ""),
            Many(value) => (format!(" {value}"), " …"),
            Positional(value) => (format!("{value} …` or `"), ""),
        };
        let name = match setting.takes {
            Positional(_) => format!("`{value}{}`", setting.name),
            OffSwitch(flag) => format!("`--{}`, `--{flag}` for off", setting.name),
            _ => format!("`--{}{value}`{many}", setting.name),
        };
        let short = setting
            .short
            .map_or_else(String::new, |short| format!("`-{short}`, "));
        let default = match setting.default {
            Value("false") => "",
            Value("true") => "on",
            Value(value) => value,
            Words(words, _) => words,
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

fn pairs(field: &mut Vec<(PathBuf, PathBuf)>, values: Values<'_>) -> Result<(), String> {
    *field = pairs_of(values.texts, values.directory)?;
    Ok(())
}

/// Pairs of directories, the relative ones below `directory`. Only the first of a pair may have `=` in its name, as
/// the last one separates them.
///
/// # Errors
/// A few words on an invalid pair.
pub fn pairs_of(texts: &[String], directory: &Path) -> Result<Vec<(PathBuf, PathBuf)>, String> {
    let pair = |text: &String| {
        let pair = text.rsplit_once('=');
        let pair = pair.filter(|(above, content)| !above.is_empty() && !content.is_empty());
        let (above, content) = pair.ok_or("must be DIR=CONTENT")?;
        Ok((directory.join(above), directory.join(content)))
    };
    texts.iter().map(pair).collect()
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
            (_, Some("")) => Err("unix: needs a path after it"),
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

fn slots(limits: &mut LimitsConfig, values: Values<'_>) -> Result<(), String> {
    let read = |text: &str| match text {
        "auto" => Ok(None),
        number => positive(number)
            .map(Some)
            .map_err(|error| format!("{error}, or auto")),
    };
    let mut slots = None;
    one(&mut slots, values, read)?;
    limits.auto_slots = slots.is_none();
    limits.choker.max_unchoked = slots.unwrap_or(FEWEST);
    Ok(())
}

fn verify(text: &str) -> Result<Verify, String> {
    match text {
        "size" => Ok(Verify::Size),
        "lazy" => Ok(Verify::Lazy),
        _ => Err("must be size or lazy".to_owned()),
    }
}

fn encryption(text: &str) -> Result<Encryption, String> {
    match text {
        "accept" => Ok(Encryption::Accept),
        "require" => Ok(Encryption::Require),
        "off" => Ok(Encryption::Off),
        _ => Err("must be accept, require or off".to_owned()),
    }
}

fn super_seeding(text: &str) -> Result<SuperSeedingMode, String> {
    match text {
        "auto" => Ok(SuperSeedingMode::Auto),
        "on" => Ok(SuperSeedingMode::On),
        "off" => Ok(SuperSeedingMode::Off),
        _ => Err("must be auto, on or off".to_owned()),
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

fn positive<T: FromStr<Err: ToString> + Default + PartialEq>(text: &str) -> Result<T, String> {
    match parse::<T>(text)? {
        zero if zero == T::default() => Err("must be at least 1".to_owned()),
        number => Ok(number),
    }
}

fn tracker(text: &str) -> Result<String, String> {
    match TrackerUrl::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
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
