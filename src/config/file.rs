//! The configuration file: reads TOML and lays the flags over it; writes the commented default file.
//!
//! Values are kept as they were written until every layer is merged, so a configuration is always
//! made from one set of values by the table in `settings`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use strsim::levenshtein;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::settings::{Preset, SETTINGS, Setting, Takes};

/// The file that is read when none is named.
pub const DEFAULT_PATH: &str = "/etc/hekate/hekate.toml";

/// Why there is no configuration, in one line with the file and its line or the flag.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// A line of the file is invalid.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// The reason.
        message: String,
    },
    /// A flag has an invalid value.
    #[error("--{0}: {1}")]
    Flag(&'static str, String),
    /// Neither directories nor an index are given.
    #[error("no directory to serve: give `dirs` or `index` in {}, or DIR as an argument", .0.display())]
    NoDirectory(PathBuf),
    /// A daemon in the background has no log file.
    #[error("daemon requires log-file: a background process has no standard error")]
    NoLog,
}

/// Settings on the command line, each with its values.
pub type Flags = Vec<(&'static Setting, Vec<String>)>;

/// Values as they were written, by the name of their setting.
type Given = BTreeMap<&'static str, Vec<String>>;

/// The sources of a configuration. A reload reads them again.
#[derive(Clone, Default)]
pub struct Sources {
    /// The named file; `None` is [`DEFAULT_PATH`], which may be absent.
    pub path: Option<PathBuf>,
    /// The flags, which override the file.
    pub flags: Flags,
    /// The directory of relative paths, for a process that leaves the one it was started in.
    pub directory: PathBuf,
    /// The state directory if no setting names one; `None` means that of the user.
    pub state_dir: Option<PathBuf>,
}

/// A configuration, and the values that it was made from.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The configuration.
    pub config: Config,
    given: Given,
}

impl Configured {
    /// The values of a setting as written, or else its default.
    fn values(&self, setting: &Setting) -> Vec<&str> {
        match self.given.get(setting.name) {
            Some(values) => values.iter().map(String::as_str).collect(),
            None => setting.default.value().into_iter().collect(),
        }
    }

    /// The settings that differ from `running` and that only a restart applies.
    #[must_use]
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let fixed = SETTINGS.iter().filter(|setting| !setting.live);
        fixed
            .filter(|setting| self.values(setting) != running.values(setting))
            .map(|setting| setting.name)
            .collect()
    }
}

impl Sources {
    /// The file that is read.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }

    /// Reads the file and lays the flags over it.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn load(&self) -> Result<Configured, ConfigError> {
        let configured = self.load_any()?;
        let library = &configured.config.library;
        if library.dirs.is_empty() && library.index.is_none() {
            return Err(ConfigError::NoDirectory(self.path().to_owned()));
        }
        Ok(configured)
    }

    /// Like [`Sources::load`], for commands that need no directories.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn load_any(&self) -> Result<Configured, ConfigError> {
        let path = self.path();
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.path.is_none() => {
                String::new()
            }
            result => result.map_err(|error| ConfigError::Unreadable {
                path: path.to_owned(),
                error,
            })?,
        };
        let mut given = read(path, &text)?;
        for (setting, values) in &self.flags {
            let checked = setting.check(values);
            checked.map_err(|message| ConfigError::Flag(setting.name, message))?;
        }
        given.retain(|name, _| !is_replaced(name, &self.flags));
        let flags = self.flags.iter();
        given.extend(flags.map(|(setting, values)| (setting.name, values.clone())));
        let configured = self.configure(given);
        if configured.config.daemon.background && configured.config.log.file.is_none() {
            return Err(ConfigError::NoLog);
        }
        Ok(configured)
    }

    /// Resolves relative paths against a directory: that of the file and those of `configured`.
    #[must_use]
    pub fn anchor(&mut self, directory: PathBuf, configured: Configured) -> Configured {
        self.path = self.path.take().map(|path| directory.join(path));
        self.directory = directory;
        self.configure(configured.given)
    }

    /// Sets the state directory that applies if no setting names one, also for `configured`.
    #[must_use]
    pub fn keep_state_in(&mut self, directory: PathBuf, configured: Configured) -> Configured {
        self.state_dir = Some(directory);
        self.configure(configured.given)
    }

    /// The configuration after a reload: live settings as in `loaded`, all others as in `running`.
    #[must_use]
    pub fn merge(&self, running: &Configured, loaded: &Configured) -> Configured {
        let values = SETTINGS.iter().filter_map(|setting| {
            let from = if setting.live { loaded } else { running };
            let values = from.given.get(setting.name)?;
            Some((setting.name, values.clone()))
        });
        self.configure(values.collect())
    }

    fn configure(&self, given: Given) -> Configured {
        let mut config = Config::default();
        for setting in SETTINGS {
            if let Some(values) = given.get(setting.name) {
                setting
                    .apply(&mut config, values, &self.directory)
                    .expect("values were checked when they were read");
            }
        }
        let library = &mut config.library;
        library.state_dir = library.state_dir.take().or_else(|| self.state_dir.clone());
        Configured { config, given }
    }
}

/// Returns true if the flags override a setting of the file: there is a flag of that name, or one that
/// excludes it, as directories exclude an index.
fn is_replaced(name: &str, flags: &Flags) -> bool {
    let setting = Setting::find(name);
    flags.iter().any(|(flag, values)| {
        let excludes = flag.excludes == Some(name)
            || setting.is_some_and(|setting| setting.excludes == Some(flag.name));
        let is_on = flag.takes != Takes::Switch || is_true(values);
        flag.name == name || (excludes && is_on)
    })
}

fn is_true(values: &[String]) -> bool {
    values.iter().any(|value| value == "true")
}

/// The values in the text of a file. All must be valid, even those that flags override.
fn read(path: &Path, text: &str) -> Result<Given, ConfigError> {
    let invalid = |at: usize, message: String| ConfigError::Line {
        path: path.to_owned(),
        line: line_at(text, at),
        message,
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        invalid(at, error.message().replace('\n', ", "))
    })?;
    // In the order of the file, so that the first error is reported.
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut given = Given::new();
    for (key, value) in entries {
        let at = key.span().start;
        let name = key.get_ref().as_ref();
        let setting = Setting::find(name).ok_or_else(|| invalid(at, unknown(name)))?;
        let values = values(setting, value.get_ref())
            .and_then(|values| setting.check(&values).map(|()| values))
            .map_err(|message| invalid(at, format!("{name}: {message}")))?;
        let excluded = setting.excludes.filter(|other| {
            setting.takes == Takes::Switch
                && is_true(&values)
                && given.get(other).is_some_and(|given| is_true(given))
        });
        if let Some(other) = excluded {
            return Err(invalid(
                at,
                format!("{name} and {other} exclude each other"),
            ));
        }
        given.insert(setting.name, values);
    }
    Ok(given)
}

/// The line that holds a byte, counted from one.
fn line_at(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn unknown(name: &str) -> String {
    let dashed = name.replace('_', "-");
    let nearest = SETTINGS
        .iter()
        .map(|setting| (levenshtein(&dashed, setting.name), setting.name))
        .min();
    match nearest {
        Some((distance, nearest)) if distance <= 1 + name.len() / 4 => {
            format!("unknown key {name:?}; did you mean {nearest:?}?")
        }
        _ => format!("unknown key {name:?}"),
    }
}

/// The values of a key, as they are written after the flag.
fn values(setting: &Setting, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match (setting.takes, value) {
        (Takes::Many(_) | Takes::Positional(_), DeValue::Array(items)) => items
            .iter()
            .map(|item| scalar(setting, item.get_ref()))
            .collect(),
        (_, value) => Ok(vec![scalar(setting, value)?]),
    }
}

fn scalar(setting: &Setting, value: &DeValue<'_>) -> Result<String, String> {
    match (setting.takes, value) {
        (Takes::Switch | Takes::OffSwitch(_), DeValue::Boolean(value)) => Ok(value.to_string()),
        (Takes::Switch | Takes::OffSwitch(_), _) => Err("must be true or false".to_owned()),
        (_, DeValue::String(text)) => Ok(text.to_string()),
        (_, DeValue::Integer(number)) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        (Takes::Many(_) | Takes::Positional(_), _) => Err("must be a list of strings".to_owned()),
        _ => Err("must be a string or a number".to_owned()),
    }
}

/// The configuration file with every default, each commented out.
#[must_use]
pub fn default_text() -> String {
    let mut text = String::from(
        "# Configuration of Hekate, see hekate.toml(5).\n\
         #\n\
         # Each key is an option of `hekate seed` without its dashes. Options on the command line\n\
         # override this file. Each line shows the default, or an example if there is none.\n\
         #\n\
         # After a change: `hekate config --check`, then SIGHUP. Keys that need a restart say so.\n",
    );
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            text.push_str(&format!("\n\n# {group}\n"));
        }
        let restart = if setting.live {
            ""
        } else {
            " Needs a restart."
        };
        let (note, value) = match setting.default {
            Preset::Value(value) => (String::new(), value),
            Preset::Words(words, example) => (format!(" Default: {words}."), example),
        };
        let help = comment(&format!("{}.{note}{restart}", setting.help));
        let (name, value) = (setting.name, toml(setting, value));
        text.push_str(&format!("\n{help}\n#{name} = {value}\n"));
    }
    text
}

/// A value in TOML.
fn toml(setting: &Setting, value: &str) -> String {
    match setting.takes {
        Takes::Many(_) | Takes::Positional(_) => format!("[{value:?}]"),
        Takes::Switch | Takes::OffSwitch(_) => value.to_owned(),
        Takes::One(_) if value.parse::<u64>().is_ok() => value.to_owned(),
        Takes::One(_) => format!("{value:?}"),
    }
}

/// A comment in lines of at most 100 characters.
fn comment(text: &str) -> String {
    let (mut lines, mut width) = ("#".to_owned(), 1);
    for word in text.split(' ') {
        if width + 1 + word.len() > 100 {
            lines.push_str("\n#");
            width = 1;
        }
        lines.push(' ');
        lines.push_str(word);
        width += 1 + word.len();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Families;

    fn load(text: &str, flags: &[(&str, &str)]) -> Result<Configured, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let flag = |(name, value): &(&str, &str)| {
            (Setting::find(name).unwrap(), vec![(*value).to_owned()])
        };
        let sources = Sources {
            path: Some(file.path().to_owned()),
            flags: flags.iter().map(flag).collect(),
            ..Sources::default()
        };
        let path = file.path().display().to_string();
        let shown = |error: ConfigError| error.to_string().replace(&path, "FILE");
        sources.load().map_err(shown)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let text = "dirs = ['/a', '/b']\nport = 7\ncredit = '2M'\nipv4 = true";
        let config = load(text, &[("port", "8"), ("ipv6", "true")])
            .unwrap()
            .config;
        assert_eq!(config.library.dirs, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(
            (config.network.port, config.limits.choker.credit_bytes),
            (8, 2 << 20)
        );
        assert_eq!(config.network.families, Families::V6);
        assert_eq!(
            config.limits.choker.max_unchoked,
            Config::default().limits.choker.max_unchoked
        );
        let config = load(text, &[("dirs", "/c")]).unwrap().config;
        assert_eq!(config.library.dirs, [PathBuf::from("/c")]);
        let config = load(text, &[("ipv4", "false")]).unwrap().config;
        assert_eq!(config.network.families, Families::Both);
        let text = "dirs = ['/a']\nipv6 = true";
        let config = load(text, &[("ipv4", "false")]).unwrap().config;
        assert_eq!(config.network.families, Families::V6);
    }

    #[test]
    fn directories_of_one_layer_replace_an_index_of_the_other() {
        let given = load("index = '/i'\nroot = '/r'", &[("dirs", "/c")]).unwrap();
        assert_eq!(given.config.library.dirs, [PathBuf::from("/c")]);
        assert_eq!(given.config.library.index, None);
        assert_eq!(given.given.get("index"), None);
        let given = load("dirs = ['/a']", &[("index", "/i")]).unwrap();
        assert_eq!(given.config.library.index, Some(PathBuf::from("/i")));
        assert!(given.config.library.dirs.is_empty());
        let wrong = load("dirs = [1.5]", &[("index", "/i")]).unwrap_err();
        assert_eq!(wrong, "FILE:1: dirs: must be a list of strings");
    }

    #[test]
    fn an_error_names_its_line() {
        for (text, expected) in [
            (
                "dirs = '/a'\n\nmax_unchoked = 3",
                "FILE:3: unknown key \"max_unchoked\"; did you mean \"max-unchoked\"?",
            ),
            ("[peers]\nmax = 3", "FILE:1: unknown key \"peers\""),
            ("x = 1\ny = 2", "FILE:1: unknown key \"x\""),
            ("port = 1\nport = 2", "FILE:2: duplicate key"),
            (
                "\nport = 65536",
                "FILE:2: port: number too large to fit in target type",
            ),
            ("port = true", "FILE:1: port: must be a string or a number"),
            ("ipv4 = 1", "FILE:1: ipv4: must be true or false"),
            (
                "port = [1, 2]",
                "FILE:1: port: must be a string or a number",
            ),
            (
                "bind = ['::1', 5.5]",
                "FILE:1: bind: must be a list of strings",
            ),
            (
                "ipv4 = true\nipv6 = true",
                "FILE:2: ipv6 and ipv4 exclude each other",
            ),
            (
                "port = 1",
                "no directory to serve: give `dirs` or `index` in FILE, or DIR as an argument",
            ),
        ] {
            assert_eq!(load(text, &[]).unwrap_err(), expected, "{text:?}");
        }
        let syntax = load("dirs = '/a'\nport =", &[]).unwrap_err();
        assert!(
            syntax.starts_with("FILE:2: ") && !syntax.contains('\n'),
            "{syntax}"
        );
    }

    #[test]
    fn a_named_file_must_exist_and_the_default_file_may_be_absent() {
        let mut sources = Sources {
            path: Some("/nowhere/hekate.toml".into()),
            ..Sources::default()
        };
        let error = sources.load().unwrap_err().to_string();
        assert!(
            error.starts_with("/nowhere/hekate.toml: No such file"),
            "{error}"
        );
        sources.path = None;
        if !Path::new(DEFAULT_PATH).exists() {
            assert!(matches!(sources.load(), Err(ConfigError::NoDirectory(_))));
        }
    }

    #[test]
    fn the_default_file_is_legal_and_its_defaults_are_the_defaults() {
        let text = default_text();
        let nothing = load(&text, &[("dirs", "/a")]).unwrap();
        assert!(nothing.given.keys().eq(["dirs"].iter()));
        let mut everything = String::new();
        for line in text.lines() {
            assert!(line.len() <= 100, "{line}");
            let is_key = |rest: &&str| rest.starts_with(|letter: char| letter.is_ascii_lowercase());
            if let Some(key) = line.strip_prefix('#').filter(is_key) {
                everything.push_str(&format!("{key}\n"));
            }
        }
        let everything = load(&everything, &[]).unwrap();
        assert_eq!(everything.given.len(), SETTINGS.len());
        for setting in SETTINGS {
            if let Preset::Value(value) = setting.default {
                assert_eq!(everything.given.get(setting.name).unwrap(), &[value]);
            }
        }
    }

    /// A value that is not the default.
    fn other_value(setting: &Setting) -> String {
        match (setting.name, setting.default) {
            ("log", _) => "debug".to_owned(),
            ("verify", _) => "lazy".to_owned(),
            ("trackers", _) => "list".to_owned(),
            ("super-seeding" | "encryption", _) => "off".to_owned(),
            (_, Preset::Words(_, example)) => example.to_owned(),
            (_, Preset::Value("true")) => "false".to_owned(),
            (_, Preset::Value("false")) => "true".to_owned(),
            (_, Preset::Value(_)) => "7".to_owned(),
        }
    }

    #[test]
    fn a_reload_applies_exactly_the_live_settings() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "dirs = ['/a']\nlog-file = '/l'\n";
        let load = |text: &str| {
            fs::write(file.path(), text).unwrap();
            let sources = Sources {
                path: Some(file.path().to_owned()),
                ..Sources::default()
            };
            let configured = sources.load().unwrap();
            (sources, configured)
        };
        let (_, running) = load(text);
        for setting in SETTINGS {
            let line = format!(
                "{} = {}\n",
                setting.name,
                toml(setting, &other_value(setting))
            );
            let kept = text
                .lines()
                .filter(|line| !line.starts_with(&format!("{} ", setting.name)));
            let kept: Vec<&str> = kept.collect();
            let (sources, loaded) = load(&(kept.join("\n") + "\n" + &line));
            assert_ne!(loaded.config, running.config, "{}", setting.name);
            let merged = sources.merge(&running, &loaded);
            let expected = if setting.live { &loaded } else { &running };
            assert_eq!(merged.config, expected.config, "{}", setting.name);
            assert_eq!(
                loaded.needs_restart(&running),
                Vec::from_iter((!setting.live).then_some(setting.name))
            );
        }
    }

    #[test]
    fn a_setting_that_needs_a_restart_is_reported_at_each_reload() {
        let running = load("dirs = '/a'\nport = 1\nmax-rate = 5", &[]).unwrap();
        let same = load("max-rate = 5\nport = 1\ndirs = '/a'", &[]).unwrap();
        let other = load("dirs = '/b'\nport = 2\nmax-rate = 6", &[]).unwrap();
        assert!(same.needs_restart(&running).is_empty());
        assert_eq!(other.needs_restart(&running), ["port"]);
        let merged = Sources::default().merge(&running, &other);
        assert_eq!(merged.config.limits.max_rate, Some(6));
        assert_eq!(other.needs_restart(&merged), ["port"]);
    }

    #[test]
    fn relative_paths_start_at_the_directory() {
        let sources = Sources {
            path: Some("/dev/null".into()),
            flags: SETTINGS
                .iter()
                .filter_map(|setting| match setting.takes {
                    Takes::One("FILE" | "DIR") | Takes::Many("DIR") | Takes::Positional("DIR") => {
                        Some((setting, vec!["in/it".to_owned()]))
                    }
                    _ if setting.name == "status" => Some((setting, vec!["unix:in/it".to_owned()])),
                    _ => None,
                })
                .collect(),
            directory: "/start".into(),
            ..Sources::default()
        };
        let config = format!("{:?}", sources.load().unwrap().config);
        assert_eq!(
            config.matches("\"/start/in/it\"").count(),
            sources.flags.len(),
            "{config}"
        );
        assert_eq!(
            config.matches("in/it").count(),
            sources.flags.len(),
            "{config}"
        );
        assert!(sources.flags.len() > 7);
    }
}
