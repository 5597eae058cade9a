//! The pages of the manual.
//!
//! Owns what a page has beside what clap and the table of options say. It must not know where the
//! pages go.

use clap::Command;
use clap_mangen::Man;
use hekate::config::settings::{Preset, SETTINGS, Setting, Takes};
use roff::{Roff, bold, italic, roman};

const MANUAL: &str = "Hekate";

/// What the page of `hekate` has beside its commands: a section, and items that have a name.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Stop: notify trackers, finish the block that each peer is receiving, and exit within \
                 seconds. A second signal exits at once.",
            ),
            (
                "SIGHUP",
                "Reload the configuration and rescan the library while peers are served. If the new \
                 configuration is invalid, the old one is kept and the log says why.",
            ),
            ("SIGUSR1", "Reopen the log file."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Stopped on request, or the command succeeded."),
            (
                "1",
                "Failed to start or to continue; the last line of the log says why.",
            ),
            ("2", "Invalid options."),
            ("3", "hekate verify found damage."),
            ("78", "Invalid configuration; starting again will not help."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/etc/hekate/hekate.toml",
                "The configuration, see hekate.toml(5).",
            ),
            (
                "/srv/hekate",
                "The library of the Debian package, unless the configuration names another.",
            ),
            ("/var/lib/hekate", "State that is kept across restarts."),
            (
                "/var/log/hekate/hekate.log",
                "The log when started by the init.d script; under systemd the log is in the journal.",
            ),
        ],
    ),
];

/// The pages of a command and of what it can do, each with its name.
pub(crate) fn of_command(command: &Command) -> Vec<(String, Vec<u8>)> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let name = command.get_name().to_owned();
    let parts: Vec<Command> = command.get_subcommands().cloned().collect();
    let mut others: Vec<String> = parts.iter().map(page_name).collect();
    others.push("hekate.toml.5".to_owned());
    others.push(
        if name == "hekate" {
            "hekate-swarm.1"
        } else {
            "hekate.1"
        }
        .to_owned(),
    );
    let mut pages = vec![(page_name(&command), page(&command, &others))];
    for part in parts {
        pages.push((
            page_name(&part),
            page(&part, &[page_name(&command), "hekate.toml.5".to_owned()]),
        ));
    }
    pages
}

fn page_name(command: &Command) -> String {
    format!(
        "{}.1",
        command
            .get_display_name()
            .unwrap_or_else(|| command.get_name())
    )
}

fn page(command: &Command, others: &[String]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command.clone())
        .source(format!("{MANUAL} {version}"))
        .manual(MANUAL);
    let mut page = Vec::new();
    let parts = [
        Man::render_title,
        Man::render_name_section,
        Man::render_synopsis_section,
        Man::render_description_section,
        Man::render_options_section,
    ];
    for part in parts {
        part(&man, &mut page).expect("memory takes everything");
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)
            .expect("memory takes everything");
    }
    let mut rest = Roff::new();
    if command.get_name() == "hekate" {
        for (heading, items) in SECTIONS {
            rest.control("SH", [*heading]);
            for (name, text) in *items {
                rest.control("TP", [])
                    .text([bold(*name)])
                    .text([roman(*text)]);
            }
        }
    }
    see_also(&mut rest, others);
    page.extend(rest.to_roff().into_bytes());
    page
}

fn see_also(page: &mut Roff, others: &[String]) {
    page.control("SH", ["SEE ALSO"]);
    let mut words = Vec::new();
    for other in others {
        let (name, section) = other.rsplit_once('.').expect("a page has a section");
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.extend([bold(name), roman(format!("({section})"))]);
    }
    page.text(words);
}

/// The page hekate.toml(5).
pub(crate) fn configuration() -> Vec<u8> {
    let mut page = Roff::new();
    let source = format!("{MANUAL} {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["hekate.toml", "5", "", &source, MANUAL]);
    page.control("SH", ["NAME"]).text([roman(
        "hekate.toml - configuration of the BitTorrent seeder Hekate",
    )]);
    page.control("SH", ["SYNOPSIS"])
        .text([bold("/etc/hekate/hekate.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in [
        "A TOML file. Each key is an option of hekate-seed(1) without its dashes. Options on the \
         command line override the file. Unknown keys and values out of range are errors.",
        "\"hekate config --default\" prints a file with every key and its default; \"hekate config \
         --check\" reports errors with their line. A running daemon reloads the file on SIGHUP; \
         keys that need a restart are marked below, and a change to one is logged.",
        "BYTES may end in K, M, G or T, which are powers of 1024.",
    ] {
        page.control("PP", []).text([roman(paragraph)]);
    }
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            page.control("SH", [group.to_uppercase().as_str()]);
        }
        key(&mut page, setting);
    }
    see_also(
        &mut page,
        &[
            "hekate.1".to_owned(),
            "hekate-seed.1".to_owned(),
            "hekate-config.1".to_owned(),
        ],
    );
    page.to_roff().into_bytes()
}

fn key(page: &mut Roff, setting: &Setting) {
    let value = match setting.takes {
        Takes::Switch => "true".to_owned(),
        Takes::OffSwitch(_) => "false".to_owned(),
        Takes::One(value) => value.to_owned(),
        Takes::Many(value) | Takes::Positional(value) => format!("[{value}, ...]"),
    };
    page.control("TP", []);
    page.text([bold(setting.name), roman(" = "), italic(value)]);
    let default = match setting.default {
        Preset::Value(value) => value,
        Preset::Words(words, _) => words,
    };
    let restart = if setting.live {
        ""
    } else {
        " Needs a restart."
    };
    page.text([roman(format!(
        "{}. Default: {default}.{restart}",
        setting.help
    ))]);
}
