//! What libtorrent and Transmission call files, from their own output or their sources.

use super::*;
use crate::torrent::metainfo::samples::{entry, multi, s, single};

/// The paths of the last file of a torrent, in the order in which they are tried.
fn tried(raw: impl AsRef<[u8]>) -> Vec<String> {
    let metainfo = Metainfo::parse(raw.as_ref()).unwrap();
    let paths = paths_of(&metainfo, metainfo.files.len() - 1).into_iter();
    paths
        .map(|path| String::from_utf8_lossy(&path).into_owned())
        .collect()
}

/// Those of a torrent of one file.
fn of_name(name: &str) -> Vec<String> {
    tried(single(5, "").replace("4:name1:n", &(s("name") + &s(name))))
}

/// Those of a file in the torrent `m`.
fn of_path(path: &[&str]) -> Vec<String> {
    tried(multi(5, &entry(5, path, ""), ""))
}

#[test]
fn a_usual_name_is_the_only_one() {
    for name in ["n", "A file (1) [x].mkv", "_", "a..b", "-"] {
        assert_eq!(of_name(name), [name]);
        assert_eq!(of_path(&["d", name]), [format!("m/d/{name}")]);
    }
}

#[test]
fn a_separator_is_tried_as_an_underscore_and_then_not_at_all() {
    assert_eq!(
        of_name("Haiku R1/beta6 (x86_64)"),
        ["Haiku R1_beta6 (x86_64)", "Haiku R1beta6 (x86_64)"]
    );
    assert_eq!(of_path(&["AC/DC.txt"]), ["m/AC_DC.txt", "m/ACDC.txt"]);
    assert_eq!(
        of_path(&["..", "a/../b"]),
        ["m/a_.._b", "m/a..b", "m/_/a..b"]
    );
}

#[test]
fn components_without_a_name_are_dropped_or_an_underscore() {
    assert_eq!(
        of_path(&["", "example.mkv"]),
        ["m/example.mkv", "m/_/example.mkv"]
    );
    assert_eq!(of_path(&[".", "f"]), ["m/f", "m/_/f"]);
    assert_eq!(of_path(&["f", ".."]), ["m/f", "m/f/_"]);
    assert_eq!(of_path(&["/"]), ["m/_"]);
    let [first, second] = &of_name("")[..] else {
        panic!()
    };
    assert_eq!((first.len(), second.as_str()), (40, "_"));
}

#[test]
fn windows_and_transmission_write_an_underscore() {
    assert_eq!(
        of_name("Who? Me: \"x\""),
        ["Who? Me: \"x\"", "Who_ Me_ _x_"]
    );
    assert_eq!(of_name(" a. "), [" a. ", "a", " a"]);
    assert_eq!(of_name("a\\b"), ["a\\b", "ab", "a_b"]);
    assert_eq!(of_path(&["aux.c"]), ["m/aux.c", "m/aux_.c", "m/_aux.c"]);
    assert_eq!(of_name("a\nb"), ["a\nb", "a_b"]);
}

#[test]
fn what_cannot_be_seen_is_left_out_and_foreign_bytes_are_an_underscore() {
    assert_eq!(
        of_name("a\u{202e}b\u{200b}c"),
        ["a\u{202e}b\u{200b}c", "ab\u{200b}c", "abc"]
    );
    let mut raw = single(5, "")
        .replace("4:name1:n", "4:name4:a??b")
        .into_bytes();
    let at = raw.windows(2).position(|bytes| bytes == b"??").unwrap();
    raw[at..at + 2].copy_from_slice(b"\xc4\xe3");
    assert_eq!(tried(raw), ["a\u{fffd}\u{fffd}b", "a_b"]);
}

#[test]
fn both_normal_forms_are_tried() {
    let (composed, decomposed) = ("\u{e9}\u{d55c}", "e\u{301}\u{1112}\u{1161}\u{11ab}");
    assert_eq!(of_name(composed), [composed, decomposed]);
    assert_eq!(of_name(decomposed), [decomposed, composed]);
    let mixed = "\u{e9}e\u{301}";
    assert_eq!(of_name(mixed), [mixed, "\u{e9}\u{e9}", "e\u{301}e\u{301}"]);
}

#[test]
fn names_in_the_other_encoding_come_last() {
    let file = entry(5, &["a"], &(s("path.utf-8") + "l" + &s("\u{3b1}") + "e"));
    let raw = multi(5, &file, &(s("name.utf-8") + &s("\u{3bc}")));
    assert_eq!(tried(raw), ["\u{3bc}/\u{3b1}", "m/a"]);
    let file = entry(5, &["a/b"], &(s("path.utf-8") + "l" + &s("a:b") + "e"));
    assert_eq!(tried(multi(5, &file, "")), ["m/a:b", "m/a_b", "m/ab"]);
}

#[test]
fn a_file_with_the_name_of_another_gets_a_number() {
    let tried = |paths: &[&[&str]]| {
        let files: String = paths.iter().map(|path| entry(5, path, "")).collect();
        tried(multi(5 * paths.len() as u64, &files, ""))
    };
    assert_eq!(tried(&[&["a.txt"], &["a.txt"]]), ["m/a.txt", "m/a.1.txt"]);
    assert_eq!(tried(&[&["a.txt"], &["A.txt"]]), ["m/A.txt", "m/A.1.txt"]);
    assert_eq!(tried(&[&["n"], &["N"], &["n"]]), ["m/n", "m/n.2"]);
    assert_eq!(tried(&[&[".h"], &[".h"]]), ["m/.h", "m/.1.h"]);
    assert_eq!(
        tried(&[&["d.e", "n"], &["d.e", "n"]]),
        ["m/d.e/n", "m/d.e/n.1"]
    );
    assert_eq!(tried(&[&["b", "c"], &["b"]]), ["m/b", "m/b.1"]);
    assert_eq!(tried(&[&["AC/DC"], &["ACDC"]]), ["m/ACDC", "m/ACDC.1"]);
    // A million equal names cost no more than a million names.
    let many = vec![&["x"][..]; 20_000];
    assert_eq!(tried(&many).last().unwrap(), "m/x.19999");
}

#[test]
fn a_long_name_is_cut_as_libtorrent_does() {
    let x = |count| "x".repeat(count);
    assert_eq!(of_name(&(x(250) + ".m")), [x(250) + ".m", x(240) + ".m"]);
    assert_eq!(of_name(&x(241)), [x(241), x(240)]);
    let wide = x(239) + "\u{e9}zzz.mkv";
    assert_eq!(of_name(&wide)[2], x(239) + "\u{e9}.mkv");
}

#[test]
fn no_name_leads_out_of_the_directory() {
    for part in [
        "",
        ".",
        "..",
        "/",
        "../..",
        ". .",
        "..\0",
        "\u{200b}..",
        " ..",
        ".. ",
        "\\..\\",
        "?",
    ] {
        for path in of_path(&[part, "..", part])
            .into_iter()
            .chain(of_name(part))
        {
            let names = path.split('/');
            let is_harmless = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
            assert!(names.clone().all(is_harmless), "{part:?} {path:?}");
        }
    }
}
