//! What a metainfo file may say, and what is refused.

use super::samples::{entry, multi, pieces, s, single};
use super::*;

fn announce(keys: &str) -> Vec<Vec<String>> {
    let raw = single(5, "").replacen('d', &format!("d{keys}"), 1);
    Metainfo::parse(raw.as_bytes()).unwrap().announce
}

#[test]
fn a_single_file_is_read_whole() {
    let raw = single(20000, "");
    let metainfo = Metainfo::parse(raw.as_bytes()).unwrap();
    assert_eq!(
        metainfo.files,
        [MetainfoFile {
            path: b"n".to_vec(),
            length: 20000,
            padding: false
        }]
    );
    assert_eq!((metainfo.piece_length, metainfo.pieces), (16384, 2));
    assert_eq!(metainfo.total_length, 20000);
    assert_eq!(
        (metainfo.info.start, metainfo.info.end),
        (7, raw.len() as u64 - 1)
    );
    assert!(metainfo.announce.is_empty());
}

/// Hashes that libtorrent gives for the same bytes.
#[test]
fn the_info_hash_is_that_of_the_raw_bytes() {
    let info = "d6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:";
    let raw = [b"d4:info", info.as_bytes(), &[1; 20], b"ee"].concat();
    let metainfo = Metainfo::parse(&raw).unwrap();
    assert_eq!(
        metainfo.info_hash.to_string(),
        "2e0e9cfd849ed8272c330097406fb802c44a3b49"
    );
    // The key repeats: the bytes are hashed as they stand, although only one name counts.
    let info = "d6:lengthi5e4:name1:a4:name1:b12:piece lengthi16384e6:pieces20:";
    let raw = [b"d4:info", info.as_bytes(), &[1; 20], b"ee"].concat();
    let metainfo = Metainfo::parse(&raw).unwrap();
    assert_eq!(
        metainfo.info_hash.to_string(),
        "da56657fefd1b2be7da48f00c23ba043b534468c"
    );
    assert_eq!(metainfo.files[0].path, b"a");
}

#[test]
fn unsorted_keys_are_read_and_hashed_as_they_stand() {
    let info = "d12:piece lengthi16384e4:name1:n6:pieces".to_owned() + &pieces(5) + "6:lengthi5ee";
    let raw = format!("d4:info{info}8:announce3:urle");
    let metainfo = Metainfo::parse(raw.as_bytes()).unwrap();
    assert_eq!(metainfo.info_hash.0, <[u8; 20]>::from(Sha1::digest(&info)));
    assert_eq!(metainfo.info, 7..7 + info.len() as u64);
    assert_eq!((metainfo.pieces, metainfo.total_length), (1, 5));
    assert_eq!(metainfo.announce, [["url"]]);
}

#[test]
fn piece_hashes_are_given_in_order() {
    let hashes = [[1; 20], [2; 20], [3; 20]];
    let sorted = single(40000, "").replace(&"x".repeat(60), "?");
    let unsorted = sorted.replacen('d', "d1:zi1e", 1);
    for text in [sorted, unsorted] {
        let at = text.find('?').unwrap();
        let raw = [
            &text.as_bytes()[..at],
            &hashes.concat(),
            &text.as_bytes()[at + 1..],
        ];
        let raw = raw.concat();
        assert_eq!(Metainfo::piece_hashes(&raw).unwrap(), hashes);
        let info_hash = Metainfo::parse(&raw).unwrap().info_hash;
        assert_eq!(piece_hashes_at(&raw, &info_hash), Ok(Some(at as u64)));
        let another = InfoHash([0; 20]);
        assert_eq!(piece_hashes_at(&raw, &another), Ok(None));
    }
    assert!(Metainfo::piece_hashes(b"d4:infodee").is_err());
}

#[test]
fn bytes_after_the_dictionary_do_not_matter() {
    let raw = single(5, "");
    let metainfo = Metainfo::parse(raw.as_bytes()).unwrap();
    for tail in ["\n", "\0\0", "garbage", "d4:infoi1ee"] {
        let longer = Metainfo::parse((raw.clone() + tail).as_bytes()).unwrap();
        assert_eq!(longer, metainfo);
    }
}

/// Keys of a metainfo file, with the texts in them as byte strings.
fn bencoded(keys: &str) -> Vec<u8> {
    let parts = keys.split('"').enumerate();
    let parts = parts.flat_map(|(number, part)| match number % 2 {
        0 => part.as_bytes().to_vec(),
        _ => format!("{}:{part}", part.len()).into_bytes(),
    });
    parts.collect()
}

/// The table of PROTOCOL, "Announce lists".
#[test]
fn announce_urls_are_found_in_every_shape_that_is_in_use() {
    let (a, b, c) = ("http://a/x", "udp://b:1", "https://c/");
    let cases: &[(&str, &[&[&str]])] = &[
        (r#""announce""http://a/x""#, &[&[a]]),
        (
            r#""announce-list"ll"udp://b:1""https://c/"el"http://a/x"ee"#,
            &[&[b, c], &[a]],
        ),
        (
            r#""announce""http://a/x""announce-list"ll"udp://b:1"ee"#,
            &[&[b]],
        ),
        (r#""announce""http://a/x""announce-list"le"#, &[&[a]]),
        (
            r#""announce""http://a/x""announce-list"lleli1el""eee"#,
            &[&[a]],
        ),
        (
            r#""announce""http://a/x""announce-list"llel"udp://b:1"ee"#,
            &[&[b]],
        ),
        (
            r#""announce""http://a/x""announce-list"ll"wss://b"ee"#,
            &[&["wss://b"], &[a]],
        ),
        (
            r#""announce""http://a/x""announce-list"l"udp://b:1""https://c/"e"#,
            &[&[b], &[c], &[a]],
        ),
        (
            r#""announce""http://a/x""announce-list"l"https://c/"l"udp://b:1"ee"#,
            &[&[c], &[b]],
        ),
        (
            r#""announce""http://a/x""announce-list""udp://b:1""#,
            &[&[b], &[a]],
        ),
        (
            r#""announce""http://a/x""announce-list"d"0"l"udp://b:1"ee"#,
            &[&[a]],
        ),
        (r#""announce"" http://a/x\n""#, &[&["http://a/x"]]),
        (r#""announce-list"ll"\thttps://c/\r\n"ee"#, &[&[c]]),
        (r#""announce-list"ll"HTTP://a/x"ee"#, &[&["HTTP://a/x"]]),
        (r#""announce-list"lll"udp://b:1"eee"#, &[]),
        (r#""announce"l"http://a/x"e"#, &[]),
        (r#""announce"i1e"announce-list"i1e"#, &[]),
        (r#""announce""  ""#, &[]),
    ];
    for (keys, expected) in cases {
        let keys = keys
            .replace(r"\n", "\n")
            .replace(r"\t", "\t")
            .replace(r"\r", "\r");
        let raw = [b"d", &bencoded(&keys)[..], &single(5, "").as_bytes()[1..]].concat();
        assert_eq!(Metainfo::parse(&raw).unwrap().announce, *expected, "{keys}");
    }
}

#[test]
fn bytes_of_an_announce_url_that_are_not_text_are_escaped() {
    let url = b"8:announce13:http://a/\xe9\xff\xc3\xa9";
    let raw = [b"d", &url[..], &single(5, "").as_bytes()[1..]].concat();
    let announce = Metainfo::parse(&raw).unwrap().announce;
    assert_eq!(announce, [["http://a/%E9%FF\u{e9}"]]);
}

#[test]
fn announce_urls_are_bounded() {
    let list = format!("13:announce-listl{}e", "l1:a1:be".repeat(1000));
    assert_eq!(announce(&list).concat().len(), MAX_ANNOUNCE_URLS);
}

#[test]
fn of_a_repeated_key_the_first_value_counts() {
    let metainfo = parse(single(5, "6:lengthi9e4:name1:x7:privatei1e7:privatei0e")).unwrap();
    assert_eq!((metainfo.total_length, metainfo.private), (5, true));
    // A first value that makes no sense is not replaced.
    let raw = single(
        5,
        "10:name.utf-8i1e10:name.utf-81:x7:private1:17:privatei1e",
    );
    let metainfo = parse(raw).unwrap();
    assert_eq!(paths(&metainfo), [b"n"]);
    assert!(!metainfo.private);
}

#[test]
fn a_deep_unread_value_is_skipped() {
    let tree = |levels: usize| s("file tree") + &"l".repeat(levels) + &"e".repeat(levels);
    assert!(parse(single(5, &tree(98))).is_ok());
    let error = parse(single(5, &tree(99))).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("malformed bencode: nested too deeply")
    );
}

#[test]
fn a_file_without_info_is_refused() {
    let line = |raw: &[u8]| Metainfo::parse(raw).unwrap_err().to_string();
    assert_eq!(line(b"de"), "info is missing");
    assert_eq!(line(b"d4:infoi1ee"), "info is not a dictionary");
    assert_eq!(line(b"d4:infolee"), "info is not a dictionary");
    assert_eq!(
        line(b""),
        "malformed bencode: the file ends in the middle of a value"
    );
    assert!(line(b"<html>").starts_with("malformed bencode"));
}

#[test]
fn no_prefix_and_no_changed_byte_causes_a_panic() {
    let raw = multi(5, &entry(5, &["a"], "4:attr1:x"), &(s("private") + "i1e"));
    for end in 0..raw.len() {
        assert!(Metainfo::parse(&raw.as_bytes()[..end]).is_err());
    }
    for at in 0..raw.len() {
        for byte in *b"\x000129:-dlie\xff" {
            let mut raw = raw.clone().into_bytes();
            raw[at] = byte;
            if let Ok(metainfo) = Metainfo::parse(&raw) {
                assert!(metainfo.total_length > 0 && metainfo.pieces > 0);
            }
        }
    }
}

fn parse(raw: impl AsRef<[u8]>) -> Result<Metainfo, MetainfoError> {
    Metainfo::parse(raw.as_ref())
}

fn paths(metainfo: &Metainfo) -> Vec<&[u8]> {
    metainfo
        .files
        .iter()
        .map(|file| file.path.as_slice())
        .collect()
}

#[test]
fn files_lie_below_the_name_in_their_order() {
    let files = entry(7, &["b", "c"], "") + &entry(0, &["empty"], "") + &entry(3, &["a"], "");
    let metainfo = parse(multi(10, &files, "")).unwrap();
    assert_eq!(paths(&metainfo), [&b"m/b/c"[..], b"m/empty", b"m/a"]);
    assert_eq!(metainfo.total_length, 10);
    assert_eq!(metainfo.files[0].length, 7);
    assert!(metainfo.files.iter().all(|file| !file.padding));
}

#[test]
fn padding_is_known_by_attribute_or_legacy_name() {
    // Padding of the same length repeats its path, and BEP 47 lets it lack one.
    let files = entry(5, &["a"], "")
        + &entry(3, &[".pad", "3"], "4:attr2:xp")
        + &entry(5, &["b"], "")
        + &entry(3, &[".pad", "3"], "4:attr1:p")
        + &entry(4, &["x", "_____padding_file_0_if you see this"], "")
        + "d4:attr1:p6:lengthi2ee";
    let metainfo = parse(multi(22, &files, "")).unwrap();
    let padding: Vec<bool> = metainfo.files.iter().map(|file| file.padding).collect();
    assert_eq!(padding, [false, true, false, true, true, true]);
    assert_eq!(paths(&metainfo), [&b"m/a"[..], b"", b"m/b", b"", b"", b""]);
    assert_eq!(metainfo.total_length, 22);
}

#[test]
fn a_symlink_has_no_bytes() {
    let link = "d4:attr1:l6:lengthi9e4:pathl1:se12:symlink pathl1:aee";
    let without_length = "d4:attr1:l4:pathl1:te12:symlink pathl1:aee";
    let files = entry(5, &["a"], "") + link + without_length;
    let metainfo = parse(multi(5, &files, "")).unwrap();
    assert_eq!(metainfo.total_length, 5);
    assert_eq!(paths(&metainfo), [&b"m/a"[..], b"", b""]);
    assert_eq!(
        (metainfo.files[1].length, metainfo.files[1].padding),
        (0, false)
    );
}

#[test]
fn utf8_names_are_preferred() {
    let files = "d6:lengthi5e4:pathl1:ae10:path.utf-8l2:\u{e9}1:xee";
    let metainfo = parse(multi(5, files, "10:name.utf-84:\u{732b}m")).unwrap();
    assert_eq!(paths(&metainfo), ["\u{732b}m/\u{e9}/x".as_bytes()]);
    let metainfo = parse(single(5, "10:name.utf-82:\u{e9}")).unwrap();
    assert_eq!(paths(&metainfo), ["\u{e9}".as_bytes()]);
    let metainfo = parse(single(5, "10:name.utf-80:")).unwrap();
    assert_eq!(paths(&metainfo), [b"n"]);
}

#[test]
fn names_in_other_encodings_stay_the_bytes_they_are() {
    let mut raw = multi(5, &entry(5, &["??"], ""), "").into_bytes();
    let at = raw.windows(2).position(|bytes| bytes == b"??").unwrap();
    raw[at..at + 2].copy_from_slice(b"\xc4\xe3");
    assert_eq!(paths(&parse(&raw).unwrap()), [b"m/\xc4\xe3"]);
}

#[test]
fn where_both_are_present_files_count() {
    let metainfo = parse(multi(5, &entry(5, &["a"], ""), "6:lengthi99e")).unwrap();
    assert_eq!(
        (paths(&metainfo), metainfo.total_length),
        (vec![&b"m/a"[..]], 5)
    );
}

/// The first path of a torrent of one file with this name, and of one of many with this path.
fn first_paths(component: &str) -> [String; 2] {
    let name = s("name") + &s(component);
    let one = parse(single(5, "").replace("4:name1:n", &name)).unwrap();
    let many = parse(multi(5, &entry(5, &["a", component], ""), "")).unwrap();
    [one, many].map(|metainfo| String::from_utf8(metainfo.files[0].path.clone()).unwrap())
}

#[test]
fn what_no_file_can_be_called_is_cleaned() {
    for (component, clean) in [
        ("/", "_"),
        ("/etc", "_etc"),
        ("../x", ".._x"),
        ("a/../../b", "a_.._.._b"),
        ("a\0b", "ab"),
        ("...", "..."),
        ("..a", "..a"),
        ("\\", "\\"),
    ] {
        let many = format!("m/a/{clean}");
        assert_eq!(first_paths(component), [clean, many.as_str()]);
    }
    for component in ["", ".", "..", "\0", ".\0."] {
        let [one, many] = first_paths(component);
        assert_eq!(many, "m/a", "{component:?}");
        assert!(one.len() == 40 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let alone = parse(multi(5, &entry(5, &[component], ""), "")).unwrap();
        assert_eq!(paths(&alone), [b"m/_"]);
        let utf8 = entry(5, &["a"], &(s("path.utf-8") + "l" + &s(component) + "1:be"));
        assert_eq!(paths(&parse(multi(5, &utf8, "")).unwrap()), [b"m/b"]);
    }
}

#[test]
fn a_name_of_more_than_255_bytes_is_cut_before_its_extension() {
    let x = |count| "x".repeat(count);
    let cut = [x(255), x(256), x(250) + ".mkv", x(300) + ".mkv"]
        .map(|name| first_paths(&name)[1].clone());
    let expected = [x(255), x(240), x(250) + ".mkv", x(240) + ".mkv"];
    assert_eq!(cut, expected.map(|name| "m/a/".to_owned() + &name));
}

#[test]
fn the_same_path_twice_is_two_files() {
    let files = entry(5, &["a", "b"], "") + &entry(5, &["c"], "") + &entry(5, &["a", "b"], "");
    let metainfo = parse(multi(15, &files, "")).unwrap();
    assert_eq!(paths(&metainfo), [&b"m/a/b"[..], b"m/c", b"m/a/b"]);
    assert_eq!(metainfo.raw_names.repeated, [2]);
}

#[test]
fn piece_hashes_must_fit_the_length() {
    let with = |length, hashes| single(length, "").replace(&pieces(length), &pieces(hashes));
    assert_eq!(parse(with(32768, 32768)).unwrap().pieces, 2);
    assert_eq!(
        parse(with(32768, 32769)).unwrap_err(),
        MetainfoError::PieceCount {
            expected: 2,
            found: 3
        }
    );
    assert_eq!(
        parse(with(32769, 32768)).unwrap_err(),
        MetainfoError::PieceCount {
            expected: 3,
            found: 2
        }
    );
    let odd = single(5, "").replace(&pieces(5), &s(&"x".repeat(19)));
    assert_eq!(parse(odd).unwrap_err(), MetainfoError::PieceHashes(19));
}

#[test]
fn any_piece_length_up_to_the_bound_is_accepted() {
    let with = |piece_length: i64| {
        let count = 5_u64.div_ceil(piece_length.unsigned_abs().max(1));
        single(5, "")
            .replace("i16384e", &format!("i{piece_length}e"))
            .replace(&pieces(5), &pieces(count * 16384))
    };
    let bound = MAX_PIECE_LENGTH_BYTES;
    for piece_length in [1, 2, 3, 1000, 16384, 16385, 1 << 26, bound] {
        let metainfo = parse(with(i64::from(piece_length))).unwrap();
        assert_eq!(metainfo.piece_length, piece_length);
    }
    for piece_length in [0, -1, -16384, i64::from(bound) + 1, 1 << 32, i64::MAX] {
        assert_eq!(
            parse(with(piece_length)).unwrap_err(),
            MetainfoError::OutOfRange(Field::Info("piece length"), piece_length)
        );
    }
}

#[test]
fn lengths_are_neither_negative_nor_beyond_64_bits() {
    let with = |digits: &str| {
        let raw = multi(5, &entry(5, &["a"], ""), "");
        raw.replace("6:lengthi5e", &format!("6:lengthi{digits}e"))
    };
    let length = Field::File(0, "length");
    assert_eq!(
        parse(with("-1")).unwrap_err(),
        MetainfoError::OutOfRange(length, -1)
    );
    for digits in [
        "9223372036854775808",
        "-9223372036854775809",
        &"9".repeat(1000),
    ] {
        assert_eq!(
            parse(with(digits)).unwrap_err(),
            MetainfoError::Overflow(length)
        );
    }
    let huge = format!("i{}e", i64::MAX);
    let files = entry(1, &["a"], "") + &entry(5, &["b"], "").replace("i5e", &huge);
    assert_eq!(
        parse(multi(5, &files, "")).unwrap_err(),
        MetainfoError::Overflow(Field::Info("files"))
    );
    assert!(matches!(
        parse(with(&i64::MAX.to_string())).unwrap_err(),
        MetainfoError::PieceCount { .. }
    ));
}

#[test]
fn a_torrent_without_bytes_of_its_own_is_refused() {
    for raw in [
        single(0, ""),
        multi(0, "", ""),
        multi(0, &entry(0, &["a"], ""), ""),
        multi(
            9,
            &(entry(0, &["a"], "") + &entry(9, &["b"], "4:attr1:p")),
            "",
        ),
        single(5, "4:attr1:p"),
    ] {
        assert_eq!(parse(raw).unwrap_err(), MetainfoError::NothingToServe);
    }
}

#[test]
fn a_v2_only_torrent_is_refused_by_name() {
    for keys in [
        "9:file treede12:meta versioni2e",
        "9:file treede",
        "12:meta versioni2e",
    ] {
        let raw = single(5, keys);
        assert!(parse(&raw).is_ok(), "the v1 side of a hybrid is served");
        let v2 = raw
            .replace(&(s("pieces") + &pieces(5)), "")
            .replace("6:lengthi5e", "");
        let error = parse(v2).unwrap_err();
        assert_eq!(error, MetainfoError::V2Only, "{keys}");
        assert!(error.to_string().contains("v2-only"));
    }
}

#[test]
fn private_is_any_number_but_zero() {
    for (key, private) in [("", false), ("i0e", false), ("i1e", true), ("1:1", false)] {
        let key = if key.is_empty() {
            String::new()
        } else {
            s("private") + key
        };
        assert_eq!(parse(single(5, &key)).unwrap().private, private);
    }
}

#[test]
fn missing_and_mistyped_fields_are_named() {
    let base = single(5, "");
    let many = multi(5, &entry(5, &["a"], ""), "");
    for (raw, line) in [
        (base.replace("4:name1:n", ""), "info.name is missing"),
        (
            base.replace("4:name1:n", "4:namei1e"),
            "info.name is not a byte string",
        ),
        (base.replace("6:lengthi5e", ""), "info.length is missing"),
        (
            base.replace("6:lengthi5e", "6:length1:5"),
            "info.length is not an integer",
        ),
        (
            base.replace("12:piece lengthi16384e", ""),
            "info.piece length is missing",
        ),
        (
            base.replace(&(s("pieces") + &pieces(5)), ""),
            "info.pieces is missing",
        ),
        (
            base.replace(&pieces(5), "le"),
            "info.pieces is not a byte string",
        ),
        (
            base.replace("6:lengthi5e", "5:filesi1e"),
            "info.files is not a list",
        ),
        (
            multi(5, "i1e", ""),
            "info.files is not a list of dictionaries",
        ),
        (
            many.replace("6:lengthi5e", ""),
            "info.files[0].length is missing",
        ),
        (
            many.replace("4:pathl1:ae", ""),
            "info.files[0].path is missing",
        ),
        (
            many.replace("4:pathl1:ae", "4:pathle"),
            "info.files[0].path is missing",
        ),
        (
            many.replace("4:pathl1:ae", "4:path1:a"),
            "info.files[0].path is not a list",
        ),
        (
            many.replace("4:pathl1:ae", "4:pathli1ee"),
            "info.files[0].path is not a byte string",
        ),
    ] {
        assert_eq!(parse(raw).unwrap_err().to_string(), line);
    }
}
