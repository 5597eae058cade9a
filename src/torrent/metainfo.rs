//! What a metainfo file says (BEP 3, 12, 27, 47; the v1 side of BEP 52).
//!
//! Owns the reading and judging of the bytes of one `.torrent` file, which may be hostile. It is
//! pure: it must not know where the file lies or whether its content exists. The piece hashes are
//! counted and not kept, because seeding does not need them.
//!
//! Decisions where programs differ, each as libtorrent has it unless it says otherwise:
//! bytes after the top-level dictionary are ignored; of a repeated key the first counts; with both
//! `files` and `length` the former counts; `name.utf-8` and `path.utf-8` are preferred; names
//! are bytes and need not be UTF-8; a symlink (BEP 47 attribute `l`) has no bytes in the torrent
//! whatever its length says, so nothing is looked for on disk. Unsafe names and repeated paths are
//! refused, where libtorrent would rename: content under other names is content that is not there.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bendy::decoding::{Decoder, Object};
use sha1::{Digest, Sha1};
use thiserror::Error;

use super::bencode::{self, BencodeError};
use super::info::{Info, PIECE_HASH_BYTES};
use crate::wire::message::InfoHash;

/// The longest piece, the same as libtorrent's. Real ones end at 64 MiB to 256 MiB.
pub const MAX_PIECE_LENGTH_BYTES: u32 = 512 * 1024 * 1024;

/// Announce URLs kept of one torrent. Real lists have tens; the rest would only cost memory.
pub const MAX_ANNOUNCE_URLS: usize = 128;

/// A torrent as its metainfo file describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    /// The SHA-1 of the raw `info` dictionary.
    pub info_hash: InfoHash,
    /// Where the raw `info` dictionary lies in the file, in bytes.
    pub info: Range<u64>,
    /// Bytes in each piece but the last: 1 to [`MAX_PIECE_LENGTH_BYTES`].
    pub piece_length: u32,
    /// How many pieces there are: at least one.
    pub pieces: u32,
    /// Bytes in all files together, padding included: at least 1, below 2^63.
    pub total_length: u64,
    /// Whether peers may come from the trackers only (BEP 27).
    pub private: bool,
    /// The files in order. At least one has bytes and is not padding.
    pub files: Vec<MetainfoFile>,
    /// Announce URLs in tiers (BEP 12). May be empty.
    pub announce: Vec<Vec<String>>,
}

/// One file of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetainfoFile {
    /// Raw bytes of the components below the content root, joined by `/`; the torrent's name comes
    /// first. Each is a plain name: not empty, `.` or `..`, without `/` and NUL. Empty for padding
    /// and symlinks, which are not looked for.
    pub path: Vec<u8>,
    /// Bytes.
    pub length: u64,
    /// Whether the file is zeros that need not exist (BEP 47).
    pub padding: bool,
}

/// Which value of a metainfo file is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// A key of the top-level dictionary.
    Top(&'static str),
    /// A key of `info`.
    Info(&'static str),
    /// A key of one entry of `info.files`, counted from 0.
    File(usize, &'static str),
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Top(key) => write!(formatter, "{key}"),
            Field::Info(key) => write!(formatter, "info.{key}"),
            Field::File(index, key) => write!(formatter, "info.files[{index}].{key}"),
        }
    }
}

/// Why a metainfo file is refused. Each is shown as one line that names the field.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MetainfoError {
    /// Not bencode at all.
    #[error("malformed bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// Not bencode for bendy.
    #[error("malformed bencode: {0}")]
    Decoding(String),
    /// A needed key is absent.
    #[error("{0} is missing")]
    Missing(Field),
    /// A value has another type.
    #[error("{0} is not {1}")]
    WrongType(Field, &'static str),
    /// A number cannot be what it stands for.
    #[error("{0} is out of range: {1}")]
    OutOfRange(Field, i64),
    /// A number that 64 bits do not hold, or lengths whose sum they do not.
    #[error("{0} overflows")]
    Overflow(Field),
    /// A name that could lead out of the content root, or to no file.
    #[error("{0} is unsafe: a component {1}")]
    UnsafePath(Field, &'static str),
    /// Two entries are the same file.
    #[error("{field} is the path of an earlier file: {path}")]
    RepeatedPath {
        /// The second of both.
        field: Field,
        /// The path, fit to be shown.
        path: String,
    },
    /// `pieces` does not consist of hashes.
    #[error("info.pieces has {0} bytes, not a multiple of 20")]
    PieceHashes(usize),
    /// `pieces` does not fit the length of the content.
    #[error("info.pieces has {found} hashes, but the length calls for {expected}")]
    PieceCount {
        /// From the lengths.
        expected: u64,
        /// From `pieces`.
        found: u64,
    },
    /// Every file is empty or padding.
    #[error("info has no content to serve: every file is empty or padding")]
    NothingToServe,
    /// Only BEP 52 would do.
    #[error("info.pieces is missing: this is a v2-only torrent (BEP 52), which is not supported")]
    V2Only,
}

impl Metainfo {
    /// Reads the bytes of a whole metainfo file.
    ///
    /// # Errors
    /// A [`MetainfoError`] when the torrent cannot be served as it is described.
    pub fn parse(raw: &[u8]) -> Result<Self, MetainfoError> {
        let survey = bencode::survey(raw)?;
        let ordered = ordered(raw, &survey)?;
        let span = survey
            .info
            .ok_or(MetainfoError::Missing(Field::Top("info")))?;
        let top = Top::decode(&ordered)?;
        let mut info = top.info.ok_or(MetainfoError::Missing(Field::Top("info")))?;
        let (files, total_length) = info.files()?;
        let piece_length = info.piece_length()?;
        let pieces = info.piece_count(total_length, piece_length)?;
        Ok(Metainfo {
            info_hash: InfoHash(Sha1::digest(raw.get(span.clone()).unwrap_or_default()).into()),
            info: span.start as u64..span.end as u64,
            piece_length,
            pieces,
            total_length,
            private: info.private,
            files,
            announce: top.announce,
        })
    }

    /// The SHA-1 of each piece, for who has the bytes of a metainfo file and hashes its content.
    ///
    /// # Errors
    /// A [`MetainfoError`] where there are none.
    pub fn piece_hashes(raw: &[u8]) -> Result<Vec<[u8; PIECE_HASH_BYTES]>, MetainfoError> {
        let ordered = ordered(raw, &bencode::survey(raw)?)?;
        let info = Top::decode(&ordered)?.info;
        let info = info.ok_or(MetainfoError::Missing(Field::Top("info")))?;
        Ok(info.piece_hashes()?.to_vec())
    }
}

/// Where the hash of the first piece lies in the bytes of a whole metainfo file, in bytes, for who reads
/// single hashes. `None` when it is the file of another torrent.
///
/// # Errors
/// A [`MetainfoError`] when the bytes are no metainfo file.
pub fn piece_hashes_at(raw: &[u8], info_hash: &InfoHash) -> Result<Option<u64>, MetainfoError> {
    let info = bencode::survey(raw)?.info;
    let info = info.ok_or(MetainfoError::Missing(Field::Top("info")))?;
    let dictionary = raw.get(info.clone()).unwrap_or_default();
    if <[u8; PIECE_HASH_BYTES]>::from(Sha1::digest(dictionary)) != info_hash.0 {
        return Ok(None);
    }
    let pieces = bencode::string_in(raw, info.start, b"pieces")?;
    let pieces = pieces.ok_or(MetainfoError::Missing(Field::Info("pieces")))?;
    Ok(Some(pieces.start as u64))
}

/// The top-level dictionary with its keys in the order that bendy demands.
fn ordered<'a>(raw: &'a [u8], survey: &bencode::Survey) -> Result<Cow<'a, [u8]>, BencodeError> {
    if survey.sorted {
        Ok(raw.get(..survey.end).unwrap_or_default().into())
    } else {
        bencode::sort_keys(raw).map(Cow::Owned)
    }
}

/// The top-level dictionary.
#[derive(Default)]
struct Top<'a> {
    announce: Vec<Vec<String>>,
    info: Option<Info<'a>>,
}

impl<'a> Top<'a> {
    fn decode(raw: &'a [u8]) -> Result<Self, MetainfoError> {
        let mut decoder = Decoder::new(raw).with_max_depth(bencode::MAX_DEPTH);
        let Some(Object::Dict(mut pairs)) = decoder.next_object().map_err(decoding)? else {
            return Err(BencodeError::NotADictionary.into());
        };
        let mut top = Top::default();
        let mut single = None;
        while let Some((key, value)) = pairs.next_pair().map_err(decoding)? {
            match (key, value) {
                // Announce URLs that make no sense cost the torrent its tracker, not its peers.
                (b"announce", Object::Bytes(url)) => single = announce_url(url),
                (b"announce-list", Object::List(mut tiers)) => {
                    let mut room = MAX_ANNOUNCE_URLS;
                    while let Some(tier) = tiers.next_object().map_err(decoding)? {
                        let tier = announce_tier(tier, &mut room)?;
                        if !tier.is_empty() {
                            top.announce.push(tier);
                        }
                    }
                }
                (b"info", Object::Dict(pairs)) => top.info = Some(Info::decode(pairs)?),
                (b"info", _) => {
                    return Err(MetainfoError::WrongType(Field::Top("info"), "a dictionary"));
                }
                _ => {}
            }
        }
        // BEP 12: where there is a list, the single URL is ignored.
        if top.announce.is_empty() {
            top.announce.extend(single.map(|url| vec![url]));
        }
        Ok(top)
    }
}

fn announce_tier(tier: Object<'_, '_>, room: &mut usize) -> Result<Vec<String>, MetainfoError> {
    let mut urls = Vec::new();
    if let Object::List(mut list) = tier {
        while let Some(item) = list.next_object().map_err(decoding)? {
            let url = match item {
                Object::Bytes(url) => announce_url(url),
                _ => None,
            };
            if let Some(url) = url.filter(|_| *room > 0) {
                *room -= 1;
                urls.push(url);
            }
        }
    }
    Ok(urls)
}

fn announce_url(bytes: &[u8]) -> Option<String> {
    let url = std::str::from_utf8(bytes).ok()?.trim();
    (!url.is_empty()).then(|| url.to_owned())
}

/// bendy may add lines of context, and a refusal has one line.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
pub(super) fn decoding(error: bendy::decoding::Error) -> MetainfoError {
    MetainfoError::Decoding(error.to_string().replace('\n', " "))
}

/// Metainfo files for the tests of this module and its neighbours.
#[cfg(test)]
pub(crate) mod samples {
    /// A byte string.
    pub(crate) fn s(text: &str) -> String {
        format!("{}:{text}", text.len())
    }

    /// The hashes of that many bytes in pieces of 16 KiB.
    pub(crate) fn pieces(length: u64) -> String {
        s(&"x".repeat(usize::try_from(length.div_ceil(16384) * 20).unwrap()))
    }

    /// A torrent of one file `n`; `extra` goes into `info`, in any order.
    pub(crate) fn single(length: u64, extra: &str) -> String {
        let pieces = pieces(length);
        format!(
            "d4:infod6:lengthi{length}e4:name1:n12:piece lengthi16384e6:pieces{pieces}{extra}ee"
        )
    }

    /// A torrent `m` with the entries `files`, which have `length` bytes together.
    pub(crate) fn multi(length: u64, files: &str, extra: &str) -> String {
        let pieces = pieces(length);
        format!("d4:infod5:filesl{files}e4:name1:m12:piece lengthi16384e6:pieces{pieces}{extra}ee")
    }

    /// One entry of `files`.
    pub(crate) fn entry(length: u64, path: &[&str], extra: &str) -> String {
        let path: String = path.iter().map(|component| s(component)).collect();
        format!("d6:lengthi{length}e4:pathl{path}e{extra}e")
    }
}

#[cfg(test)]
mod tests {
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
        let info =
            "d12:piece lengthi16384e4:name1:n6:pieces".to_owned() + &pieces(5) + "6:lengthi5ee";
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

    #[test]
    fn the_announce_list_comes_before_the_announce_url() {
        assert_eq!(announce("8:announce5: url "), [["url"]]);
        assert_eq!(
            announce("8:announce3:url13:announce-listll1:a1:bel1:cee"),
            [vec!["a", "b"], vec!["c"]]
        );
        assert_eq!(
            announce("8:announce3:url13:announce-listlleli1eee"),
            [["url"]]
        );
    }

    #[test]
    fn senseless_announce_urls_are_left_out() {
        assert!(announce("8:announcei1e").is_empty());
        assert!(announce("8:announce2:  ").is_empty());
        assert!(announce("13:announce-listi1e").is_empty());
        assert_eq!(announce("13:announce-listl1:xl0:i1e1:ae1:ye"), [["a"]]);
        let mut raw = single(5, "")
            .replacen('d', "d8:announce1:?", 1)
            .into_bytes();
        raw[13] = 0xff;
        assert!(Metainfo::parse(&raw).unwrap().announce.is_empty());
    }

    #[test]
    fn announce_urls_are_bounded() {
        let list = format!("13:announce-listl{}e", "l1:a1:be".repeat(1000));
        assert_eq!(announce(&list).concat().len(), MAX_ANNOUNCE_URLS);
    }

    #[test]
    fn without_info_there_is_no_torrent() {
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
    fn every_prefix_and_every_changed_byte_is_judged_without_a_panic() {
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
}
