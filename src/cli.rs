//! The command line: the commands and their arguments.
//!
//! The options of a seeding run come from the table in `config::settings`.

pub mod library;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint, value_parser};

use crate::config::file::{DEFAULT_PATH, Flags, Sources};
use crate::config::settings::{Preset, SETTINGS, Setting, Takes};

/// A parsed command line.
pub enum Request {
    /// Seed, or only list the torrents.
    Seed(Seed),
    /// Print the configuration file with every default.
    ConfigDefault,
    /// Check the configuration.
    ConfigCheck(Sources),
    /// Read a library into an index file.
    Index(library::Index),
    /// Hash content.
    Verify(library::Verify),
    /// Print the status of a running daemon; as JSON if true.
    Status(Sources, bool),
}

/// The arguments of `hekate seed`.
pub struct Seed {
    /// Where the configuration comes from.
    pub sources: Sources,
    /// Print the torrents that would be served, then exit.
    pub list: bool,
}

/// The whole command line, for parsing it and for the manual.
#[must_use]
pub fn command() -> Command {
    Command::new("hekate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A BitTorrent seeder: one small daemon that serves a whole library")
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(seed_command())
        .subcommand(
            library::Index::augment_args(Command::new("index"))
                .about("Read a tree of torrents into one index file"),
        )
        .subcommand(library::Verify::augment_args(Command::new("verify")).about(
            "Hash the content of torrents and report what is missing, short, corrupt or extra",
        ))
        .subcommand(config_command())
        .subcommand(status_command())
}

fn seed_command() -> Command {
    Command::new("seed")
        .about("Seed every torrent found below the given directories")
        .args(SETTINGS.iter().flat_map(arguments))
        .arg(config_argument())
        .arg(
            switch("list").short('l').help(
                "List the torrents that would be served and why others are refused, then exit",
            ),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::Count)
                .conflicts_with("log")
                .help("Log more: once for --log debug, twice for --log trace"),
        )
}

fn config_command() -> Command {
    let what = clap::ArgGroup::new("what").args(["default", "check"]);
    Command::new("config")
        .about("Print the default configuration file, or check one")
        .arg(switch("default").help("Print the configuration file with every default"))
        .arg(
            switch("check")
                .help("Check the configuration and report what is wrong; exit code 0 or 78"),
        )
        .group(what.required(true))
        .arg(config_argument())
}

fn status_command() -> Command {
    Command::new("status")
        .about("Show the status of the running daemon")
        .args(Setting::find("status").into_iter().flat_map(arguments))
        .arg(switch("json").help("Print JSON"))
        .arg(config_argument())
}

/// A flag without a value.
fn switch(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

fn config_argument() -> Arg {
    Arg::new("config")
        .short('c')
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help(format!(
            "Configuration file [default: {DEFAULT_PATH}, if it exists]"
        ))
}

/// The flags of a setting: its own, and one that turns it off if it is on by default.
fn arguments(setting: &'static Setting) -> impl Iterator<Item = Arg> {
    let off = match setting.takes {
        Takes::OffSwitch(flag) => Some(
            switch(flag)
                .conflicts_with(setting.name)
                .help(format!("The same as --{}=false", setting.name)),
        ),
        _ => None,
    };
    [argument(setting)].into_iter().chain(off)
}

fn argument(setting: &'static Setting) -> Arg {
    let preset = match setting.default {
        Preset::Value("false") => String::new(),
        Preset::Value(value) => format!(" [default: {value}]"),
        Preset::Words(words, _) => format!(" [default: {words}]"),
    };
    let argument = Arg::new(setting.name).help(format!("{}{preset}", setting.help));
    let argument = match setting.takes {
        Takes::Positional(_) => argument,
        _ => argument.long(setting.name),
    };
    let argument = match setting.short {
        Some(short) => argument.short(short),
        None => argument,
    };
    let argument = match setting.excludes {
        Some(other) => argument.conflicts_with(other),
        None => argument,
    };
    let check = move |value: &str| {
        let value = value.to_owned();
        setting.check(std::slice::from_ref(&value)).map(|()| value)
    };
    match setting.takes {
        // The value follows a `=` or is absent, so that the next argument is not taken for it.
        Takes::Switch | Takes::OffSwitch(_) => argument
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(check),
        Takes::One(name) => argument.value_name(name).value_parser(check),
        Takes::Many(name) | Takes::Positional(name) => argument
            .value_name(name)
            .action(ArgAction::Append)
            .value_parser(check),
    }
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// The error of clap, which may also be the help or the version.
pub fn parse<A>(arguments: impl IntoIterator<Item = A>) -> Result<Request, clap::Error>
where
    A: Into<OsString> + Clone,
{
    let matches = command().try_get_matches_from(arguments)?;
    let (name, matches) = matches.subcommand().expect("a command is required");
    Ok(match name {
        "config" if matches.get_flag("default") => Request::ConfigDefault,
        "config" => Request::ConfigCheck(sources(matches)),
        "index" => Request::Index(library::Index::from_arg_matches(matches)?),
        "verify" => Request::Verify(library::Verify::from_arg_matches(matches)?),
        "status" => Request::Status(sources(matches), matches.get_flag("json")),
        _ => Request::Seed(Seed {
            sources: sources(matches),
            list: matches.get_flag("list"),
        }),
    })
}

fn sources(matches: &ArgMatches) -> Sources {
    Sources {
        path: matches.get_one("config").cloned(),
        flags: flags(matches),
        ..Sources::default()
    }
}

/// The settings that were given, of those that the command knows.
fn flags(matches: &ArgMatches) -> Flags {
    let given = |setting: &'static Setting| {
        if let Takes::OffSwitch(off) = setting.takes
            && let Ok(Some(true)) = matches.try_get_one(off)
        {
            return Some((setting, vec!["false".to_owned()]));
        }
        let values = matches.try_get_many::<String>(setting.name).ok()??;
        Some((setting, values.cloned().collect()))
    };
    let mut flags: Flags = SETTINGS.iter().filter_map(given).collect();
    let levels = match matches.try_get_one::<u8>("verbose") {
        Ok(None | Some(0)) | Err(_) => return flags,
        Ok(Some(1)) => "debug",
        Ok(Some(_)) => "trace",
    };
    let log = Setting::find("log").expect("the table has it");
    flags.push((log, vec![levels.to_owned()]));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Families};

    fn seed(arguments: &[&str]) -> Result<Seed, clap::Error> {
        let none = ["hekate", "seed", "--config", "/dev/null"];
        parse(none.iter().chain(arguments)).map(|request| match request {
            Request::Seed(seed) => seed,
            _ => panic!("another command"),
        })
    }

    fn config(arguments: &[&str]) -> Config {
        seed(arguments).unwrap().sources.load().unwrap().config
    }

    #[test]
    fn the_options_of_2009_keep_their_meaning() {
        let defaults = config(&["lib"]);
        assert_eq!(defaults.network.port, 6969);
        assert!(defaults.limits.auto_slots, "there were 50 slots");
        assert_eq!(defaults.limits.choker.credit_bytes, 1 << 20);
        assert_eq!(defaults.limits.choker.max_unchoked_ms, 300_000);
        let arguments = [
            "-p", "1", "-N", "2", "-C", "3K", "-T", "4", "-t", "-l", "-vv", "lib",
        ];
        assert!(seed(&arguments).unwrap().list);
        let config = config(&arguments);
        assert_eq!(
            (config.network.port, config.limits.choker.max_unchoked),
            (1, 2)
        );
        assert!(!config.limits.auto_slots);
        assert_eq!(
            (
                config.limits.choker.credit_bytes,
                config.limits.choker.max_unchoked_ms
            ),
            (3072, 4000)
        );
        assert_eq!(config.library.dirs, [PathBuf::from("lib")]);
        assert_eq!(config.log.levels, "hekate=trace");
    }

    #[test]
    fn settings_that_default_to_on_have_a_flag_for_off() {
        let defaults = config(&["lib"]);
        assert!(defaults.daemon.landlock && defaults.daemon.no_new_privs);
        let config = config(&["--no-landlock", "--allow-new-privs", "lib"]);
        assert!(!config.daemon.landlock && !config.daemon.no_new_privs);
    }

    #[test]
    fn a_switch_may_have_a_value_and_wins_over_the_file_either_way() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "ipv4 = true\nno-tracker = true\nlandlock = false\nno-new-privs = false\n";
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let config = |arguments: &[&str]| {
            let file = ["hekate", "seed", "--config", path];
            match parse(file.iter().chain(arguments)) {
                Ok(Request::Seed(seed)) => seed.sources.load().unwrap().config,
                _ => panic!("it is not parsed"),
            }
        };
        let as_in_file = config(&["lib"]);
        assert!(
            as_in_file.trackers.disabled
                && !as_in_file.daemon.landlock
                && !as_in_file.daemon.no_new_privs
        );
        assert_eq!(as_in_file.network.families, Families::V4);
        let off = config(&[
            "--ipv4=false",
            "-t=false",
            "--landlock",
            "--no-new-privs=true",
            "lib",
        ]);
        assert!(!off.trackers.disabled && off.daemon.landlock && off.daemon.no_new_privs);
        assert_eq!(off.network.families, Families::Both);
        // A word after a switch is a directory.
        let on = config(&["--landlock", "false"]);
        assert!(on.daemon.landlock && on.library.dirs == [PathBuf::from("false")]);
        assert!(seed(&["--no-tracker=perhaps", "lib"]).is_err());
        assert!(seed(&["--landlock", "--no-landlock", "lib"]).is_err());
        // Letters may stand together as ever.
        let together = seed(&["-4tl", "lib"]).unwrap();
        assert!(together.list && together.sources.load().unwrap().config.trackers.disabled);
    }

    #[test]
    fn families_exclude_each_other() {
        assert_eq!(config(&["-4", "lib"]).network.families, Families::V4);
        assert_eq!(config(&["-6", "lib"]).network.families, Families::V6);
        assert!(seed(&["-4", "-6", "lib"]).is_err());
    }

    #[test]
    fn a_flag_may_be_repeated_where_many_values_have_a_meaning() {
        let config = config(&["--bind", "::1", "--bind", "127.0.0.1", "a", "b"]);
        assert_eq!(
            (config.network.bind.len(), config.library.dirs.len()),
            (2, 2)
        );
        assert!(seed(&["-p", "1", "-p", "2", "lib"]).is_err());
    }

    #[test]
    fn illegal_values_are_wrong_usage() {
        for wrong in [
            &["-N", "0", "lib"],
            &["-T", "0", "lib"],
            &["-p", "x", "lib"],
        ] {
            assert_eq!(seed(wrong).err().unwrap().exit_code(), 2);
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
