//! That the pages are true where a machine can tell: links lead somewhere, and lists are complete.
//!
//! Owns the comparison of pages with the repository and with the program's own help. It must not
//! know what the pages say in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).expect("the page is there")
}

fn files_in(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut directories = vec![root().join(directory)];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files_in("docs", "md");
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    pages
}

/// What stands in `(…)` right behind `]`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Words that begin with two dashes.
fn long_options(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.len() > 2 && word.starts_with("--"))
        .filter(|word| word.trim_start_matches('-').len() == word.len() - 2)
        .collect()
}

/// The first cells of the table rows under a heading, without the backquotes.
fn first_cells<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    text.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let text = read(&page);
        for link in links(&text).filter(|link| !link.starts_with("http")) {
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                _ => page.parent().expect("a page is in a directory").join(path),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            let found = fragment.is_empty()
                || read(&target)
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == fragment);
            assert!(found, "{}: no heading for {link}", page.display());
        }
    }
}

/// The long options in the help of a command.
fn help(command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hekate"))
        .args([command, "--help"])
        .output()
        .expect("hekate runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The rows of the tables under a heading.
fn table<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    page.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with('|'))
        .collect()
}

#[test]
fn every_option_is_explained_and_none_is_invented() {
    let seed = help("seed");
    let offered = long_options(&seed);
    assert!(offered.contains("--port"), "no help was printed: {seed}");
    let page = read("docs/OPERATING.md");
    let rows = table(&page, "## Options").join("\n");
    assert_eq!(long_options(&rows), offered, "docs/OPERATING.md");
    for option in long_options(&first_cells(&read("README.md"), "## Options in brief").join(" ")) {
        assert!(offered.contains(option), "README.md: {option}");
    }
    for command in ["index", "verify"] {
        let help = help(command);
        let rows = table(&page, "## Indexing and verifying");
        let of_command = rows.iter().filter(|row| {
            let cell = row.split('|').nth(2).unwrap_or_default().trim();
            cell == command || cell == "both"
        });
        let explained: BTreeSet<&str> = of_command
            .filter_map(|row| row.split('|').nth(1))
            .flat_map(long_options)
            .collect();
        assert_eq!(explained, long_options(&help), "{command}");
    }
}

/// Compares the generated parts of a page, each between two marks, with what the code says now.
/// With `HEKATE_WRITE_DOCS` set, as `make docs` does, it writes them.
fn compare_or_write(page: &str, parts: &[(&str, String)]) {
    let old = read(page);
    let mut new = old.clone();
    for (name, text) in parts {
        let start = format!("<!-- {name}: written by `make docs` -->\n");
        let end = format!("<!-- end of {name} -->\n");
        let (before, rest) = new.split_once(&start).expect("a mark where it starts");
        let (_, after) = rest.split_once(&end).expect("a mark where it ends");
        new = format!("{before}{start}\n{text}\n{end}{after}");
    }
    if std::env::var_os("HEKATE_WRITE_DOCS").is_some() {
        fs::write(root().join(page), &new).expect("the page can be written");
    } else {
        assert!(old == new, "{page} is out of date: run `make docs`");
    }
}

#[test]
fn the_tables_of_operating_are_those_of_the_code() {
    let options = hekate::config::settings::markdown();
    let reasons = hekate::peer::close::markdown();
    let metrics = hekate::metrics::table::markdown();
    let parts = [
        ("options", options),
        ("metrics", metrics),
        ("close reasons", reasons),
    ];
    compare_or_write("docs/OPERATING.md", &parts);
}

/// One table for each directory and module of the program, from the first line of each file.
fn code_map() -> String {
    let mut files: Vec<(String, String)> = files_in("src", "rs")
        .iter()
        .map(|file| {
            let name = file.strip_prefix(root()).expect("it was found there");
            let name = name.to_str().expect("sources have plain names").to_owned();
            let text = read(file);
            let first = text.lines().next().unwrap_or_default();
            let summary = first.strip_prefix("//! ").unwrap_or_default();
            (name, summary.to_owned())
        })
        .filter(|(name, _)| !is_test(name))
        .collect();
    // `mod.rs` stands for its directory, before all that is in it.
    files.sort_by_key(|(name, _)| name.replace("/mod.rs", "/"));
    let top = |name: &str| -> String {
        let below = name.strip_prefix("src/").unwrap_or(name);
        let top = below.split('/').next().unwrap_or(below);
        top.trim_end_matches(".rs").to_owned()
    };
    let mut rooms: BTreeMap<String, Vec<&(String, String)>> = BTreeMap::new();
    for file in &files {
        rooms.entry(top(&file.0)).or_default().push(file);
    }
    // A module of one file needs no table of its own.
    let (single, many): (Vec<_>, Vec<_>) = rooms.into_iter().partition(|(_, of)| of.len() == 1);
    let single = single.into_iter().flat_map(|(_, files)| files).collect();
    let tables = [("modules of one file".to_owned(), single)]
        .into_iter()
        .chain(
            many.into_iter()
                .map(|(room, files)| (format!("`{room}`"), files)),
        );
    let mut map = Vec::new();
    for (heading, files) in tables {
        map.push(format!(
            "### Files: {heading}\n\n| file | what it is |\n|---|---|\n"
        ));
        for (name, summary) in files {
            // A link in the text leads nowhere on the page.
            let summary = summary.replace("[`", "`").replace("`]", "`");
            map.push(format!("| `{name}` | {} |\n", summary.replace('|', "\\|")));
        }
        map.push("\n".to_owned());
    }
    map.concat().trim_end().to_owned() + "\n"
}

/// Whether a file has only tests, or what tests share.
fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("/fixture.rs")
}

#[test]
fn the_tables_of_architecture_are_those_of_the_code() {
    let map = code_map();
    assert!(map.lines().count() > 50, "the files were not found: {map}");
    compare_or_write("docs/ARCHITECTURE.md", &[("code map", map)]);
}

#[test]
fn the_first_line_of_each_file_is_a_sentence() {
    for file in files_in("src", "rs") {
        let text = read(&file);
        let first = text.lines().next().unwrap_or_default();
        let is_sentence = first.starts_with("//! ") && first.ends_with('.');
        assert!(is_sentence, "{}: {first}", file.display());
    }
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_file_that_is_named_exists() {
    for page in [
        "ARCHITECTURE",
        "GLOSSARY",
        "CONTRIBUTING",
        "INDEX",
        "SECURITY",
    ] {
        let text = read(format!("docs/{page}.md"));
        let named = text.lines().flat_map(quoted);
        let paths = named.filter(|name| {
            let tops = ["src/", "tests/", "docs/", "dist/", "fuzz/"];
            tops.iter().any(|top| name.starts_with(top)) && !name.contains(' ')
        });
        for path in paths {
            assert!(root().join(path).exists(), "docs/{page}.md: {path}");
        }
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let code: String = ["src", "tests"]
        .iter()
        .flat_map(|directory| files_in(directory, "rs"))
        .map(read)
        .collect();
    let page = read("docs/SECURITY.md");
    let classes = table(&page, "## Classes of holes");
    let tests: Vec<&str> = classes
        .iter()
        .filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next())
        .flat_map(quoted)
        .filter(|name| name.contains('_') && !name.contains('/'))
        .collect();
    assert!(tests.len() > 20, "{tests:?}");
    for name in tests {
        let is_fuzz = Path::new(&format!("fuzz/fuzz_targets/{name}.rs")).exists();
        assert!(is_fuzz || code.contains(&format!("fn {name}()")), "{name}");
    }
}

#[test]
fn every_name_of_the_glossary_is_in_its_file() {
    let page = read("docs/GLOSSARY.md");
    let mut found = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cell = row.trim_end_matches('|').rsplit('|').next();
        let names: Vec<&str> = quoted(cell.unwrap_or_default()).collect();
        if let [file, name] = names[..] {
            assert!(read(file).contains(name), "{name} is not in {file}");
            found += 1;
        }
    }
    assert!(found > 10, "the names were not found");
}

#[test]
fn every_dependency_is_justified() {
    let manifest = read("Cargo.toml");
    let page = read("docs/DECISIONS.md");
    let justified: BTreeSet<&str> = first_cells(&page, "## Dependencies").into_iter().collect();
    let named: BTreeSet<&str> = manifest
        .split("\n[")
        .filter(|section| {
            section.starts_with("dependencies]") || section.starts_with("dev-dependencies]")
        })
        .flat_map(|section| section.lines().skip(1))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .collect();
    assert!(named.len() > 5, "the dependencies were not found");
    assert_eq!(justified, named, "docs/DECISIONS.md against Cargo.toml");
}

#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = read("Makefile");
    let mut named = BTreeSet::new();
    for page in pages() {
        let text = read(page);
        let quoted = text.split("`make ").skip(1);
        let at_line = text.split("\nmake ").skip(1);
        for rest in quoted.chain(at_line) {
            let target: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect();
            named.insert(target);
        }
    }
    assert!(named.contains("run"), "no page names `make run`");
    for target in named {
        let rule = format!("\n{target}:");
        assert!(
            makefile.contains(&rule),
            "`make {target}` is not in the Makefile"
        );
    }
}

/// The first string literal in each call that begins so, with `\0` in place of what is put in.
fn literals(text: &str, call: &str) -> Vec<String> {
    let calls = text.split(call).skip(1);
    calls
        .filter_map(|rest| {
            let (mut literal, mut characters) = (String::new(), rest.split_once('"')?.1.chars());
            let mut inside = false;
            while let Some(character) = characters.next() {
                match character {
                    '"' => break,
                    '{' => inside = true,
                    '}' => {
                        inside = false;
                        literal.push('\0');
                    }
                    '\\' if characters.next() == Some('\n') => {
                        // The literal goes on behind the indentation.
                        let rest = characters.as_str().trim_start();
                        characters = rest.chars();
                    }
                    _ if inside => {}
                    _ => literal.push(character),
                }
            }
            Some(literal)
        })
        .collect()
}

/// What a cell of the page shows of a line: words of capitals and dots stand for anything.
fn fragments(shown: &str) -> Vec<String> {
    let mut fragments = vec![String::new()];
    for word in shown.split_inclusive([' ', ':', ',', ';', '…']) {
        let letters: String = word.chars().filter(|c| c.is_alphabetic()).collect();
        let stands = !letters.is_empty() && letters.chars().all(char::is_uppercase);
        if stands || word.contains('…') {
            fragments.push(String::new());
        }
        if !stands && let Some(last) = fragments.last_mut() {
            last.push_str(word.trim_end_matches('…'));
        }
    }
    let fragments = fragments.iter().map(|fragment| fragment.trim().to_owned());
    fragments
        .filter(|fragment| fragment.chars().any(char::is_alphabetic))
        .collect()
}

/// Whether a line that the program makes of this literal is one that is shown so.
fn is_shown_as(literal: &str, fragments: &[String]) -> bool {
    let mut rest = literal;
    let in_order = fragments.iter().all(|fragment| {
        let found = rest.split_once(fragment.as_str());
        rest = found.map_or("", |(_, behind)| behind);
        found.is_some()
    });
    in_order && fragments.iter().map(String::len).sum::<usize>() >= 8
}

#[test]
fn every_line_that_asks_for_attention_is_on_the_page() {
    // Lines that are passed on, and where they are made.
    let passed_on = [
        ("src/reactor/lifecycle.rs", "\0"),
        ("src/main.rs", "\0"),
        ("src/tracker/announcer/report.rs", "tracker \0: \0"),
    ];
    let mut lines: BTreeSet<String> = literals(&read("src/daemon/sizing.rs"), "format!(")
        .into_iter()
        .collect();
    assert!(!lines.is_empty(), "sizing makes no lines any more");
    for file in files_in("src/tracker/announcer", "rs") {
        let text = read(&file);
        let mut said = literals(&text, "format_args!(");
        // An error of the same file is said as it is.
        if said.iter().any(|what| what == "\0") {
            said.retain(|what| what != "\0");
            said.extend(literals(&text, "#[error("));
        }
        lines.extend(said.iter().map(|what| format!("tracker \0: {what}")));
    }
    for file in files_in("src", "rs") {
        let name = file.strip_prefix(root()).expect("it was found there");
        if name.starts_with("src/bin") {
            continue;
        }
        let text = read(&file);
        let found = ["log::warn!(", "log::error!("].map(|call| literals(&text, call));
        for line in found.concat() {
            let known = |(of, passed): &(&str, &str)| name == Path::new(of) && line == *passed;
            if passed_on.iter().any(known) {
                continue;
            }
            let words = line.chars().filter(|c| c.is_alphabetic()).count();
            assert!(words >= 6, "{}: {line:?} has no words", name.display());
            lines.insert(line);
        }
    }
    assert!(lines.len() > 40, "the lines were not found: {lines:?}");

    let page = read("docs/OPERATING.md");
    let (_, section) = page
        .split_once("\n## Log messages\n")
        .expect("it is on the page");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    let shown: Vec<Vec<String>> = cells
        .flat_map(|cell| cell.split('`').step_by(2))
        .map(fragments)
        .collect();
    let missing: Vec<&String> = lines
        .iter()
        .filter(|line| !shown.iter().any(|shown| is_shown_as(line, shown)))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/OPERATING.md does not show:\n{missing:#?}"
    );
}

#[test]
fn the_components_of_the_log_are_named() {
    let page = read("docs/OPERATING.md");
    let (_, list) = page
        .split_once("The components are ")
        .expect("it is on the page");
    let list = list.split(';').next().unwrap_or_default();
    let named: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    assert_eq!(named, hekate::logging::COMPONENTS);
}
