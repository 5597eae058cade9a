//! The rules of the code as a test: which module may import which, where `unsafe` may be used, which
//! words are no names.
//!
//! Owns the tables of rules, each with its reason and an example that breaks it. The scanner in
//! `source` understands enough of Rust to skip comments, literals and test modules. A rule that a
//! compiler lint can express belongs in `Cargo.toml`.

mod source;
mod structure;

use std::fmt;
use std::fs;
use std::path::Path;

use source::{Named, Source, named_paths, words};

/// Which paths some files may not name, in a `use` or in the code.
struct ImportRule {
    /// Path prefixes of the files the rule is for.
    files: &'static [&'static str],
    /// Path prefixes of the files it is not for, although they match.
    except: &'static [&'static str],
    /// Rust path prefixes that may not be named.
    forbidden: &'static [&'static str],
    /// Rust path prefixes that may be named nevertheless.
    allowed: &'static [&'static str],
    reason: &'static str,
    /// A file that breaks the rule in its last line.
    bad: (&'static str, &'static str),
}

const PURE: &[&str] = &[
    "src/bencode.rs",
    "src/wire/",
    "src/mse/",
    "src/peer/",
    "src/timers.rs",
    "src/choker.rs",
    "src/rate.rs",
    "src/torrent/",
    "src/library/index/format.rs",
    "src/library/index/id_map.rs",
    "src/library/index/prefixes.rs",
    "src/tracker/",
    "src/metrics.rs",
    "src/metrics/history.rs",
    "src/storage/ledger.rs",
    "src/storage/ledger/",
    "src/metrics/prometheus.rs",
    "src/metrics/table.rs",
    "src/metrics/trackers.rs",
    "src/status/http.rs",
    "src/status/report.rs",
];

/// Files in these directories that open files of the library or sockets to trackers, and one with a rule
/// of its own.
const IMPURE: &[&str] = &[
    "src/torrent/catalogue.rs",
    "src/torrent/content.rs",
    "src/torrent/reader.rs",
    "src/torrent/refusal.rs",
    "src/tracker/announcer",
    "src/tracker/connection.rs",
    "src/tracker/datagrams.rs",
    "src/tracker/resolver.rs",
    "src/tracker/tls.rs",
    DECOMPRESSING,
];

/// Pure, but for the trait of its library, see its rule.
const DECOMPRESSING: &str = "src/tracker/response/coding.rs";

/// Sockets, files, threads, the clock, randomness: a pure module uses none of them.
const WORLD: &[&str] = &[
    "mio",
    "libc",
    "log",
    "env_logger",
    "memmap2",
    "rustix",
    "socket2",
    "signal_hook",
    "signal_hook_mio",
    "walkdir",
    "fastrand",
    "std::io",
    "std::net",
    "std::fs",
    "std::os",
    "std::env",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

const IMPORTS: &[ImportRule] = &[
    ImportRule {
        files: PURE,
        except: IMPURE,
        forbidden: WORLD,
        allowed: &[
            "std::net::IpAddr",
            "std::net::SocketAddr",
            "std::net::Ipv4Addr",
            "std::net::Ipv6Addr",
            "std::io::ErrorKind",
        ],
        reason: "pure code takes bytes and times as values, so that a simulation can replay it",
        bad: ("src/choker.rs", "//! .\nuse std::{fmt, time::Instant};"),
    },
    ImportRule {
        files: &[DECOMPRESSING],
        except: &[],
        forbidden: WORLD,
        allowed: &["std::io::Read"],
        reason: "a decompressor is a reader by its type; it reads from a slice and from nothing else",
        bad: (DECOMPRESSING, "//! .\nuse std::{fmt, io::stdin};"),
    },
    ImportRule {
        files: &["src/bencode.rs"],
        except: &[],
        forbidden: &["crate", "hekate"],
        allowed: &["crate::bencode"],
        reason: "a reader of bencode does not know what the keys mean",
        bad: (
            "src/bencode.rs",
            "//! .\nuse crate::wire::message::InfoHash;",
        ),
    },
    ImportRule {
        files: &["src/wire/"],
        except: &[],
        forbidden: &["crate", "hekate"],
        allowed: &["crate::bencode", "crate::wire"],
        reason: "the wire format is the lowest layer: it can be read and fuzzed without the others",
        bad: (
            "src/wire/decoder.rs",
            "//! .\nuse super::super::torrent::layout;",
        ),
    },
    ImportRule {
        files: &["src/mse/"],
        except: &[],
        forbidden: &["crate", "hekate"],
        allowed: &["crate::mse", "crate::wire::message::InfoHash"],
        reason: "the handshake of encrypted connections takes bytes, and knows no other protocol",
        bad: ("src/mse/receiving.rs", "//! .\nuse crate::peer::session;"),
    },
    ImportRule {
        files: &["src/sys.rs", "src/sys/"],
        except: &[],
        forbidden: &["crate", "hekate"],
        allowed: &["crate::sys"],
        reason: "system calls know nothing of the program, so that their safety is argued locally",
        bad: (
            "src/sys.rs",
            "//! .\nfn f() { crate::storage::Storage::new(); }",
        ),
    },
    ImportRule {
        files: &["src/timers.rs", "src/rate.rs"],
        except: &[],
        forbidden: &["crate", "hekate"],
        allowed: &["crate::timers", "crate::peer::key::PeerKey"],
        reason: "time is a value that every part uses; it depends on none of them",
        bad: (
            "src/rate.rs",
            "//! .\nuse crate::{timers::Time, choker::Choker};",
        ),
    },
    ImportRule {
        files: &["src/torrent/"],
        except: &[],
        forbidden: &["mio", "socket2", "std::net", "crate", "hekate"],
        allowed: &[
            "crate::bencode",
            "crate::torrent",
            "crate::wire",
            "crate::sys",
        ],
        reason: "reading the library involves files, never peers or sockets",
        bad: ("src/torrent/catalogue.rs", "//! .\nuse crate::storage;"),
    },
    ImportRule {
        files: &["src/library/"],
        except: &[],
        forbidden: &["mio", "socket2", "std::net", "crate", "hekate"],
        allowed: &[
            "crate::library",
            "crate::torrent",
            "crate::wire",
            "crate::disks",
            "crate::locked",
            "crate::mounts",
            "crate::sys",
            "crate::timers",
            "crate::workers",
        ],
        reason: "the library knows files and torrents, not the peers that request them",
        bad: (
            "src/library/index.rs",
            "//! .\nuse crate::peer::key::PeerKey;",
        ),
    },
    ImportRule {
        files: &["src/peer/"],
        except: &[],
        forbidden: &["crate", "hekate"],
        allowed: &[
            "crate::peer",
            "crate::mse::MseError",
            "crate::wire",
            "crate::timers",
            "crate::torrent::layout",
        ],
        reason: "one peer's protocol knows the shape of its torrent and no other part of the program",
        bad: (
            "src/peer/machine.rs",
            "//! .\nuse crate::torrent::catalogue::Torrent;",
        ),
    },
    ImportRule {
        files: &["src/choker.rs"],
        except: &[],
        forbidden: &["crate", "hekate"],
        allowed: &[
            "crate::choker",
            "crate::peer::key::PeerKey",
            "crate::peer::close::CloseReason",
            "crate::timers",
        ],
        reason: "fairness is decided from keys, bytes and times, in one file",
        bad: ("src/choker.rs", "//! .\nuse crate::peer;"),
    },
    ImportRule {
        files: &["src/tracker/"],
        except: &[],
        forbidden: &["crate", "hekate"],
        allowed: &[
            "crate::tracker",
            "crate::bencode",
            "crate::metrics::trackers",
            "crate::net",
            "crate::rate",
            "crate::sys",
            "crate::table",
            "crate::timers",
            "crate::torrent::id",
            "crate::torrent::printable",
            "crate::wire",
            "crate::workers",
        ],
        reason: "an announcer gets torrents and peers as values, so that it depends on neither",
        bad: (
            "src/tracker/schedule.rs",
            "//! .\nuse crate::torrent::catalogue::Torrent;",
        ),
    },
    ImportRule {
        files: &["src/storage/"],
        except: &[],
        forbidden: &["mio", "socket2", "std::net", "crate", "hekate"],
        allowed: &[
            "mio::Waker",
            "crate::metrics",
            "crate::storage",
            "crate::disks",
            "crate::locked",
            "crate::sys",
            "crate::timers",
            "crate::torrent",
            "crate::workers",
            "crate::wire::extension::METADATA_PIECE_LENGTH",
            "crate::wire::message::InfoHash",
            "crate::peer::key::PeerKey",
        ],
        reason: "a reader publishes its result and wakes the loop; it touches no socket and no peer",
        bad: ("src/storage/jobs.rs", "//! .\nuse mio::net::TcpStream;"),
    },
    ImportRule {
        files: &["src/"],
        except: &["src/main.rs", "src/bin/", "src/reactor/"],
        forbidden: &["crate::reactor", "hekate::reactor"],
        allowed: &[],
        reason: "the loop imports everything, so nothing may import the loop: calls go down",
        bad: (
            "src/config.rs",
            "//! .\nuse crate::{sys, reactor::Reactor};",
        ),
    },
];

/// A rule about single lines.
struct LineRule {
    files: &'static [&'static str],
    except: &'static [&'static str],
    /// The lines that break the rule, counted from one.
    broken: fn(&Source) -> Vec<usize>,
    reason: &'static str,
    bad: (&'static str, &'static str),
}

const LINES: &[LineRule] = &[
    LineRule {
        files: &[""],
        except: &["src/sys.rs", "src/sys/"],
        broken: |source| source.lines_with_word("unsafe"),
        reason: "`unsafe` is used in src/sys.rs and below it only: one module to audit",
        bad: ("src/storage/mappings.rs", "//! .\nunsafe fn f() {}"),
    },
    LineRule {
        files: &["src/sys.rs", "src/sys/"],
        except: &[],
        broken: |source| {
            let mut lines = source.lines_with_word("unsafe");
            lines.retain(|&line| !source.is_explained(line, &["SAFETY:", "# Safety"]));
            lines
        },
        reason: "each `unsafe` says in a SAFETY comment why it is sound",
        bad: (
            "src/sys.rs",
            "//! .\nfn f() {\n    // Quick.\n    unsafe { libc::sync() }",
        ),
    },
    LineRule {
        files: &[""],
        except: &[],
        broken: |source| match source.raw.first() {
            Some(line) if line.starts_with("//!") => Vec::new(),
            _ => vec![1],
        },
        reason: "a file opens with `//!`: what it owns",
        bad: ("src/rate.rs", "use std::fmt;"),
    },
    LineRule {
        files: &[""],
        except: &[],
        broken: |source| {
            let marks = [
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
                concat!("XX", "X:"),
            ];
            source.raw_lines_where(|line| marks.iter().any(|mark| line.contains(mark)))
        },
        reason: "what is unfinished is finished or reported, not left in the code",
        bad: ("tests/loopback.rs", concat!("//! .\n// TO", "DO: later")),
    },
    LineRule {
        files: &["src/"],
        except: &[],
        broken: |source| source.code_lines_where(|line| line.contains(".unwrap()")),
        reason: "a failure is an error with a name, or an `expect` that says why it cannot happen",
        bad: ("src/config.rs", "//! .\nfn f() { g().unwrap(); }"),
    },
    LineRule {
        files: &["src/"],
        except: &[],
        broken: |source| {
            source.code_lines_where(|line| {
                let words: Vec<&str> = words(line).collect();
                words.windows(2).any(|pair| match pair {
                    ["fn", name] => name.starts_with("get_"),
                    ["struct" | "enum" | "trait", name] => name.ends_with("Manager"),
                    ["mod", name] => ["util", "utils", "helpers", "common"].contains(name),
                    _ => false,
                })
            })
        },
        reason: "a name says what a thing is: no `get_`, no `Manager`, no `util`",
        bad: ("src/config.rs", "//! .\npub fn get_port() -> u16 { 0 }"),
    },
    LineRule {
        files: &[""],
        except: &[],
        broken: structure::next_of_no_iterator,
        reason: "`next` is the name of an iterator's method; a time at which to call again is `poll_at`",
        bad: (
            "src/config.rs",
            "//! .\nimpl Iterator for A {\nfn next(&mut self) {}\n}\nimpl A { fn next(&self) {} }",
        ),
    },
];

struct Violation {
    position: String,
    what: String,
    reason: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}{}", self.position, self.what, self.reason)
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn check(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    let named = named_paths(source);
    for rule in IMPORTS {
        if !source.matches(rule.files, rule.except) {
            continue;
        }
        for Named {
            line,
            path,
            imported,
        } in &named
        {
            let forbidden = rule
                .forbidden
                .iter()
                .any(|prefix| is_below(path, prefix) || (*imported && is_below(prefix, path)));
            if forbidden && !rule.allowed.iter().any(|prefix| is_below(path, prefix)) {
                violations.push(Violation {
                    position: format!("{}:{line}", source.path),
                    what: format!("`{path}` may not be named here: "),
                    reason: rule.reason,
                });
            }
        }
    }
    for rule in LINES {
        if source.matches(rule.files, rule.except) {
            violations.extend((rule.broken)(source).into_iter().map(|line| Violation {
                position: format!("{}:{line}", source.path),
                what: String::new(),
                reason: rule.reason,
            }));
        }
    }
    let words = structure::private_words(source).into_iter();
    violations.extend(words.map(|(line, what)| Violation {
        position: format!("{}:{line}", source.path),
        what: format!("{what}: "),
        reason: "a name is a word of the BEPs or of the field",
    }));
    violations
}

/// Every Rust file of the repository, with paths from its root.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories: Vec<_> = ["src", "tests", "examples", "benches", "fuzz"]
        .map(|name| root.join(name))
        .to_vec();
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is readable UTF-8");
                let name = path
                    .strip_prefix(root)
                    .expect("it was found below the root");
                sources.push(Source::new(&name.to_string_lossy(), &text));
            }
        }
    }
    let tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let module = source.path.trim_end_matches(".rs");
        if tests.iter().any(|test| module.starts_with(test)) {
            source.set_test();
        }
    }
    sources
}

#[test]
fn all_code_follows_the_rules() {
    let sources = sources();
    assert!(sources.len() > 10, "the source files were not found");
    let violations: Vec<String> = sources
        .iter()
        .flat_map(check)
        .map(|violation| violation.to_string())
        .collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn each_rule_finds_its_example() {
    let imports = IMPORTS.iter().map(|rule| (rule.bad, rule.reason));
    let lines = LINES.iter().map(|rule| (rule.bad, rule.reason));
    for ((path, text), reason) in imports.chain(lines) {
        let last_line = format!("{path}:{}", text.lines().count());
        let violations = check(&Source::new(path, text));
        assert!(
            violations
                .iter()
                .any(|found| found.position == last_line && found.reason == reason),
            "{text:?} passes as {path}, against the rule: {reason}"
        );
    }
}

#[test]
fn each_rule_applies_to_existing_files() {
    let sources = sources();
    let imports = IMPORTS.iter().flat_map(|rule| rule.files);
    let lines = LINES.iter().flat_map(|rule| rule.files);
    for prefix in imports.chain(lines) {
        assert!(
            sources.iter().any(|source| source.path.starts_with(prefix)),
            "a rule is for {prefix}, which does not exist: a file was renamed"
        );
    }
}

#[test]
fn every_way_to_name_a_path_is_found() {
    let ways = [
        "use std::fs::File;",
        "use std::{fmt, fs};",
        "use std::{self};",
        "use std::*;",
        "use std as s;",
        "use std::{fmt::{self, Write}, io::{self}};",
        "use std::io::{self as i, *};",
        "pub use ::std::net::{IpAddr, TcpStream};",
        "fn f() { std::thread::yield_now(); }",
        "fn f() -> <u8 as std::io::Read>::X {}",
        "fn f() { log::info!(\"x\"); }",
        "fn f<'a>(c: char) -> bool { c == '\"' && libc::getpid() == 1 }",
        "use crate::{reactor, sys};",
        "use super::super::storage;",
        "use super::super::{sys as s};",
        "fn f(_: super::super::config::Config) {}",
    ];
    for way in ways {
        let text = format!("//! .\n{way}");
        let violations = check(&Source::new("src/wire/decoder.rs", &text));
        assert!(
            violations
                .iter()
                .any(|found| found.position.ends_with(":2")),
            "{way}"
        );
    }
}

#[test]
fn comments_literals_and_tests_are_exempt() {
    let passes = [
        "// use std::fs; x.unwrap()",
        "/* unsafe /* std::io::Error */ libc::sync() */",
        "const A: &str = \"std::fs::read \\\" unsafe\";",
        "const A: &str = r#\"a \" crate::reactor::Reactor\"#;",
        "const A: &[u8] = b\"libc::sync\"; const B: u8 = b'\"'; const C: char = '\\'';",
        "#[cfg(test)]\nmod tests { use std::fs; fn f(a: [u8; 2]) { g().unwrap() } }",
        "#[cfg(test)]\nuse std::{fs, io};",
        "use std::{fmt, net::{IpAddr, Ipv4Addr}, time::Duration};",
        "use super::message::{InfoHash, Message as M};\nuse crate::wire::encoder;",
        "fn f<'b>(b: &'b [u8]) -> Vec::<u8> { Vec::new() }",
    ];
    for text in passes {
        let text = format!("//! .\n{text}");
        let violations = check(&Source::new("src/wire/decoder.rs", &text));
        let list: Vec<String> = violations.iter().map(Violation::to_string).collect();
        assert!(list.is_empty(), "{text}: {list:?}");
    }
}

#[test]
fn impl_blocks_of_one_type_stand_in_few_files() {
    let sources = sources();
    let spread = structure::spread_types(&sources);
    assert!(
        spread.is_empty(),
        "a type with `impl` blocks in this many files has parts that should own their fields: {spread:#?}"
    );
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let sources = sources();
    let cycles = structure::import_cycles(&sources);
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn spread_impl_blocks_are_found() {
    let file = |name: &str, text: &str| Source::new(&format!("src/a/{name}.rs"), text);
    let mut sources = vec![
        file("one", "impl A { fn f() -> impl B {} }"),
        file("two", "impl<'x, T: B<'x>> A<'x, T> {}\nimpl A {}"),
        file("three", "impl super::A where A: B {}"),
        file("four", "impl fmt::Display for A {}\nfn f(_: impl A) {}"),
        Source::new("src/b/other.rs", "impl A {}"),
    ];
    assert_eq!(structure::spread_types(&sources), []);
    sources.push(file("five", "impl A {}"));
    let spread = structure::spread_types(&sources);
    let [(name, files)] = spread.as_slice() else {
        panic!("{spread:?}");
    };
    assert_eq!((name.as_str(), files.len()), ("a::A", 4));
}

#[test]
fn import_cycles_are_found() {
    let file = |path: &str, text: &str| Source::new(path, text);
    let mut sources = vec![
        file("src/a/mod.rs", "mod one; use one::One;"),
        file("src/a/one.rs", "use super::A; use super::two::Two;"),
        file("src/a/two.rs", "fn f() { crate::b::g() }"),
        file("src/b.rs", "use std::fmt;"),
    ];
    assert_eq!(structure::import_cycles(&sources), []);
    sources.push(file("src/b.rs", "fn g() { crate::a::one::h() }"));
    let cycles = structure::import_cycles(&sources);
    let [cycle] = cycles.as_slice() else {
        panic!("{cycles:?}");
    };
    let cycle: Vec<&str> = cycle.iter().map(String::as_str).collect();
    assert_eq!(cycle, ["src/a/one.rs", "src/a/two.rs", "src/b.rs"]);
}

#[test]
fn private_words_are_found_in_parts_of_names() {
    let text = "fn look_up(a: LookedAt, b: Overlook, lookup: u8) { self.mark_as_told(TOLD); }";
    let found = structure::private_words(&Source::new("src/a.rs", text));
    let names: Vec<&str> = found
        .iter()
        .filter_map(|(_, what)| what.split('`').nth(1))
        .collect();
    assert_eq!(names, ["look_up", "LookedAt", "mark_as_told", "TOLD"]);
}
