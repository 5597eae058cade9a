//! What is written from the code and lies in `dist/`: pages of the manual, completions for shells,
//! the configuration. It is what the code says now, and the programs that read it can.
//!
//! Owns the comparison and the programs. How a page is made stands in `pages`. `make docs` runs
//! this with `HEKATE_WRITE_DOCS` set, which writes the files.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod pages;

// The instrument's arguments, as it has them itself: they are in a program, which cannot be linked.
#[allow(
    dead_code,
    unreachable_pub,
    reason = "only the arguments are looked at"
)]
#[path = "../../src/bin/hekate-swarm/cli.rs"]
mod cli;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::CommandFactory;
use clap_complete::Shell;

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist")
}

fn commands() -> [clap::Command; 2] {
    [hekate::cli::command(), cli::Cli::command()]
}

/// Every written file: its place in `dist/` and what should be there.
fn written() -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = vec![
        (PathBuf::from("hekate.toml"), configuration().into_bytes()),
        (PathBuf::from("man/hekate.toml.5"), pages::configuration()),
    ];
    for command in commands() {
        for (name, page) in pages::of_command(&command) {
            files.push((Path::new("man").join(name), page));
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            files.push((
                completion(command.get_name(), shell),
                script(&command, shell),
            ));
        }
    }
    files
}

/// What a shell reads to complete a command.
///
/// In what bash reads, the generator spells a name with a dash in two ways, so that nothing is
/// offered for its subcommands; it gets a name without.
fn script(command: &clap::Command, shell: Shell) -> Vec<u8> {
    let name = command.get_name();
    let command = &without_optional_values(command);
    let mut script = Vec::new();
    if shell != Shell::Bash || name != "hekate-swarm" {
        clap_complete::generate(shell, &mut command.clone(), name, &mut script);
        return script;
    }
    let plain = "hekate_swarm";
    clap_complete::generate(shell, &mut command.clone().name(plain), plain, &mut script);
    let script = String::from_utf8(script).unwrap();
    // At the end of a line stands the command that is completed.
    let end = |name: &str| format!(" {name}\n");
    script.replace(&end(plain), &end(name)).into_bytes()
}

/// A command whose switches have no value. As optional values are described to shells, these would
/// offer them as a word of its own, which is a directory then.
fn without_optional_values(command: &clap::Command) -> clap::Command {
    let plain = |argument: clap::Arg| match argument.is_require_equals_set() {
        true => argument
            .action(clap::ArgAction::SetTrue)
            .num_args(0)
            .require_equals(false)
            .value_parser(clap::value_parser!(bool)),
        false => argument,
    };
    let command = command.clone();
    command.mut_subcommands(|part| part.mut_args(plain))
}

/// The name under which a shell looks for the completions of a command.
fn completion(command: &str, shell: Shell) -> PathBuf {
    let name = match shell {
        Shell::Zsh => format!("zsh/_{command}"),
        Shell::Fish => format!("fish/{command}.fish"),
        _ => format!("bash/{command}"),
    };
    Path::new("completions").join(name)
}

/// The default configuration, with the one thing that has no default: where the torrents are.
fn configuration() -> String {
    let default = hekate::config::file::default_text();
    let (example, real) = ("#dirs = [\"/srv/library\"]\n", "dirs = [\"/srv/hekate\"]\n");
    assert_eq!(default.matches(example).count(), 1, "{default}");
    default.replace(example, real)
}

#[test]
fn the_files_of_dist_match_the_code() {
    let files = written();
    let is_writing = std::env::var_os("HEKATE_WRITE_DOCS").is_some();
    for (name, wanted) in &files {
        let path = dist().join(name);
        if is_writing {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, wanted).unwrap();
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(found == *wanted, "{} is old: make docs", path.display());
    }
    // And nothing else lies there.
    for directory in [
        "man",
        "completions/bash",
        "completions/zsh",
        "completions/fish",
    ] {
        for entry in fs::read_dir(dist().join(directory)).unwrap() {
            let name = Path::new(directory).join(entry.unwrap().file_name());
            let is_written = files.iter().any(|(written, _)| *written == name);
            assert!(is_written, "nothing writes dist/{}", name.display());
        }
    }
}

/// Runs a program that has to end well, without a word on standard error.
fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: make test-deps"));
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(
        status.success() && stderr.is_empty(),
        "{command:?}: {stderr}"
    );
    String::from_utf8_lossy(&stdout).into_owned()
}

#[test]
fn man_renders_every_page_without_a_warning() {
    let pages = fs::read_dir(dist().join("man")).unwrap();
    let pages: Vec<PathBuf> = pages.map(|page| page.unwrap().path()).collect();
    assert!(pages.len() > 8, "{pages:?}");
    for page in pages {
        let mut man = Command::new("man");
        man.args(["--warnings=w", "--encoding=UTF-8", "--local-file"]);
        man.arg(&page)
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8");
        let text = run(&mut man);
        for section in ["NAME\n", "DESCRIPTION\n"] {
            assert!(text.contains(section), "{}: {text}", page.display());
        }
    }
}

#[test]
fn the_manual_explains_every_key() {
    let page = dist().join("man/hekate.toml.5");
    let mut man = Command::new("man");
    let text = run(man
        .args(["--encoding=UTF-8", "--local-file"])
        .arg(page)
        .env("LC_ALL", "C.UTF-8"));
    for setting in hekate::config::settings::SETTINGS {
        let heading = |line: &str| {
            line.trim_start()
                .starts_with(&format!("{} = ", setting.name))
        };
        assert!(text.lines().any(heading), "{}: {text}", setting.name);
    }
}

/// What a shell offers for a line, one word on each line of the answer.
fn offered(shell: Shell, line: &str) -> String {
    let name = line.split(' ').next().unwrap();
    let script = dist().join(completion(name, shell));
    let script = script.display();
    match shell {
        Shell::Bash => run(Command::new("bash").args(["--norc", "-c"]).arg(format!(
            "source {script}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1));
            [[ $(complete -p {name}) =~ -F\\ ([^ ]+) ]];
            \"${{BASH_REMATCH[1]}}\" {name} \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\";
            printf '%s\\n' \"${{COMPREPLY[@]}}\""
        ))),
        _ => run(Command::new("fish")
            .args(["--no-config", "-c"])
            .arg(format!("source {script}; complete --do-complete '{line}'"))),
    }
}

#[test]
fn bash_and_fish_complete_commands_and_options() {
    let home = tempfile::tempdir().unwrap();
    // fish writes below its home.
    run(Command::new("fish")
        .args(["--no-config", "-c", "true"])
        .env("HOME", home.path()));
    for shell in [Shell::Bash, Shell::Fish] {
        for (line, word) in [
            ("hekate se", "seed"),
            ("hekate seed --max-unchoked-", "--max-unchoked-time"),
            ("hekate-swarm lo", "load"),
            ("hekate-swarm load --connect", "--connect-rate"),
        ] {
            let words = offered(shell, line);
            let is_word = |found: &str| found.split('\t').next() == Some(word);
            assert!(words.lines().any(is_word), "{shell} {line}: {words}");
        }
    }
}

#[test]
fn zsh_loads_the_completions() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["hekate", "hekate-swarm"] {
        let loaded = run(Command::new("zsh").arg("-fc").arg(format!(
            "fpath=({} $fpath); autoload -Uz compinit; compinit -u -d {}/dump;
            print -r -- $_comps[{name}]; autoload -Uz +X _{name} && whence -w _{name}",
            dist().join("completions/zsh").display(),
            scratch.path().display(),
        )));
        assert_eq!(loaded, format!("_{name}\n_{name}: function\n"));
    }
}
