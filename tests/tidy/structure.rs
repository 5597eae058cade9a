//! Rules about more than one line: functions named `next`, the files that hold the `impl` blocks of a
//! type, import cycles, words that are no names.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, named_paths, tokens, words};

/// The most files that the inherent `impl` blocks of one type may stand in.
pub(crate) const IMPL_FILES_MAX: usize = 3;

/// Words that say nothing to somebody who comes from the BEPs or from another program, with the ones
/// to use.
pub(crate) const PRIVATE_WORDS: &[(&str, &str)] = &[
    ("agenda", "run queue"),
    ("anew", "again"),
    ("astray", "failed redirect"),
    ("bystander", "idle peer"),
    ("bystanders", "idle peers"),
    ("callee", "dialled peer"),
    ("callees", "dialled peers, connect targets"),
    ("complain", "warn"),
    ("complaints", "warnings"),
    ("concerned", "affected"),
    ("crew", "pool"),
    ("detour", "redirect"),
    ("detours", "redirects"),
    ("knocked", "listener ready"),
    ("look", "inspect"),
    ("looked", "inspected"),
    ("looking", "inspecting"),
    ("manner", "mode"),
    ("numbering", "id map"),
    ("place", "slot, position, directory, site"),
    ("remembering", "the file's writer"),
    ("seat", "register"),
    ("stretch", "run"),
    ("tend", "run due work"),
    ("there", "record, present"),
    ("told", "notified"),
    ("teller", "notifier"),
    ("witness", "probe"),
];

/// Lines of functions that are named `next` outside an `impl Iterator`.
pub(crate) fn next_of_no_iterator(source: &Source) -> Vec<usize> {
    let tokens = tokens(source);
    let mut lines = Vec::new();
    let mut depth = 0_usize;
    // The depth of braces around the innermost `impl Iterator`.
    let mut iterator = None;
    let mut at = 0;
    while let Some((line, token)) = tokens.get(at) {
        match token.as_str() {
            "impl" if iterator.is_none() => {
                let header: Vec<&str> = tokens
                    .iter()
                    .skip(at)
                    .map(|(_, token)| token.as_str())
                    .take_while(|&token| token != "{" && token != ";")
                    .collect();
                if header.windows(2).any(|pair| pair == ["Iterator", "for"]) {
                    iterator = Some(depth);
                }
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if iterator == Some(depth) {
                    iterator = None;
                }
            }
            "fn" if iterator.is_none() => {
                let name = tokens.get(at + 1);
                if name.is_some_and(|(_, name)| name == "next") {
                    lines.push(*line);
                }
            }
            _ => {}
        }
        at += 1;
    }
    lines
}

/// Lines that have a private word in an identifier.
pub(crate) fn private_words(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in source.code_lines() {
        for name in words(text) {
            let parts = parts_of(name);
            for (word, better) in PRIVATE_WORDS {
                if parts.iter().any(|part| part == word) {
                    found.push((line, format!("`{name}` has `{word}`; say {better}")));
                }
            }
        }
    }
    found
}

/// The words of an identifier, in lower case: `LookAt_now` is `look`, `at`, `now`.
fn parts_of(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = '_';
    for character in name.chars() {
        let starts = character.is_uppercase() && before.is_lowercase();
        if character == '_' || starts {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| character != '_') {
            part.extend(character.to_lowercase());
        }
        before = character;
    }
    parts
}

/// Types whose inherent `impl` blocks stand in too many files, with these files.
///
/// Types are told apart by name and by the directory directly below `src`.
pub(crate) fn spread_types(sources: &[Source]) -> Vec<(String, BTreeSet<&str>)> {
    let mut files: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in sources
        .iter()
        .filter(|source| source.path.starts_with("src/"))
    {
        let room = room_of(&source.path);
        for name in implemented(source) {
            let files = files.entry(format!("{room}::{name}")).or_default();
            files.insert(&source.path);
        }
    }
    files
        .into_iter()
        .filter(|(_, files)| files.len() > IMPL_FILES_MAX)
        .collect()
}

/// `src/tracker/announcer/http.rs` is in `tracker`, `src/choker.rs` in `choker`.
fn room_of(path: &str) -> &str {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let end = inner.find(['/', '.']).unwrap_or(inner.len());
    inner.get(..end).unwrap_or(inner)
}

/// The types that have an inherent `impl` here.
fn implemented(source: &Source) -> Vec<String> {
    let tokens = tokens(source);
    let mut names = Vec::new();
    for (at, (_, token)) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let is_item = before.is_none_or(|(_, token)| ["}", "{", ";", "]"].contains(&&**token));
        if token != "impl" || !is_item {
            continue;
        }
        let mut angles = 0_usize;
        let mut name = None;
        for (_, token) in tokens.iter().skip(at + 1) {
            match token.as_str() {
                "<" => angles += 1,
                ">" => angles = angles.saturating_sub(1),
                "{" | "where" => break,
                "for" => {
                    name = None;
                    break;
                }
                word if angles == 0 && word.chars().all(char::is_alphanumeric) => {
                    name = Some(word.to_owned());
                }
                _ => {}
            }
        }
        names.extend(name);
    }
    names
}

/// Sets of files below `src` that import each other in a circle.
///
/// What a module takes from the modules around it (`super`) is not counted: a parent and its parts
/// are one.
pub(crate) fn import_cycles(sources: &[Source]) -> Vec<BTreeSet<String>> {
    let modules: BTreeMap<String, &Source> = sources
        .iter()
        .filter(|source| source.path.starts_with("src/") && !source.path.starts_with("src/bin/"))
        .filter(|source| !["src/main.rs", "src/lib.rs"].contains(&source.path.as_str()))
        .map(|source| (source.module().join("::"), source))
        .collect();
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, source) in &modules {
        let targets = imports.entry(module).or_default();
        for named in named_paths(source) {
            let path = named.path.replace("hekate::", "crate::");
            let target = longest_prefix(&modules, &path);
            let Some(target) = target.filter(|target| *target != module) else {
                continue;
            };
            if !is_around(target, module) {
                targets.insert(target);
            }
        }
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|&module| (module, reachable(&imports, module)))
        .collect();
    let mut cycles = BTreeSet::new();
    for (module, targets) in &reached {
        let cycle: BTreeSet<String> = targets
            .iter()
            .filter(|target| {
                reached
                    .get(*target)
                    .is_some_and(|back| back.contains(module))
            })
            .filter_map(|target| modules.get(*target))
            .map(|source| source.path.clone())
            .collect();
        if cycle.len() > 1 {
            cycles.insert(cycle);
        }
    }
    cycles.into_iter().collect()
}

/// The module that is named by the longest head of the path.
fn longest_prefix<'a>(modules: &'a BTreeMap<String, &Source>, path: &str) -> Option<&'a str> {
    let mut head = path;
    loop {
        if let Some((module, _)) = modules.get_key_value(head) {
            return Some(module);
        }
        head = head.rsplit_once("::")?.0;
    }
}

fn is_around(outer: &str, module: &str) -> bool {
    module
        .strip_prefix(outer)
        .is_some_and(|rest| rest.starts_with("::"))
}

fn reachable<'a>(
    imports: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    start: &'a str,
) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut left = vec![start];
    while let Some(module) = left.pop() {
        for &target in imports.get(module).into_iter().flatten() {
            if reached.insert(target) {
                left.push(target);
            }
        }
    }
    reached
}
