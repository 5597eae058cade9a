//! Parsing a metainfo file (BEP 3, 12, 27, 47; the v1 side of BEP 52). Pure.
//!
//! The bytes may be hostile. Piece hashes are counted and not kept, because seeding does not need them.
//!
//! Where programs differ, this one does as libtorrent unless stated otherwise:
//! bytes after the top-level dictionary are ignored; keys may be unsorted, and of a repeated key the
//! first counts; with both `files` and `length` the former counts; `name.utf-8` and `path.utf-8`
//! are preferred; names are bytes and need not be UTF-8; a symlink (BEP 47 attribute `l`) has no
//! bytes in the torrent, whatever its length says, and is not expected on disk. What no file can be called is
//! cleaned as `cleaning` says.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use sha1::{Digest, Sha1};
use thiserror::Error;

use super::cleaning::{Encodings, RawNames, first_path, is_plain};
use crate::bencode::{self, BencodeError, Dictionary, List, Value};
use crate::wire::message::InfoHash;

/// The largest metainfo file that is read. Real ones reach 80 MB; it is held in memory whole.
pub const METAINFO_MAX_BYTES: u64 = 128 * 1024 * 1024;

/// The longest piece, the same as libtorrent's. Real ones end at 64 MiB to 256 MiB.
pub const MAX_PIECE_LENGTH_BYTES: u32 = 512 * 1024 * 1024;

/// Announce URLs kept of one torrent. Real lists have tens; the rest would only cost memory.
pub const MAX_ANNOUNCE_URLS: usize = 128;

/// How `BitComet` marked padding before BEP 47.
const LEGACY_PADDING_PREFIX: &[u8] = b"_____padding_file_";

/// Bytes in the SHA-1 of one piece.
const PIECE_HASH_BYTES: usize = 20;

/// A torrent as its metainfo file describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    /// The SHA-1 of the raw `info` dictionary.
    pub info_hash: InfoHash,
    /// Where the raw `info` dictionary lies in the file, in bytes.
    pub info: Range<u64>,
    /// Bytes in each piece but the last: 1 to [`MAX_PIECE_LENGTH_BYTES`].
    pub piece_length: u32,
    /// The number of pieces: at least one.
    pub pieces: u32,
    /// Bytes in all files together, padding included: at least 1, below 2^63.
    pub total_length: u64,
    /// Whether peers may come from the trackers only (BEP 27).
    pub private: bool,
    /// The files in order. At least one has bytes and is not padding.
    pub files: Vec<MetainfoFile>,
    /// Announce URLs in tiers (BEP 12). May be empty.
    pub announce: Vec<Vec<String>>,
    pub(super) raw_names: RawNames,
}

/// One file of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetainfoFile {
    /// Where it is looked for first: components below the content root, joined by `/`; the torrent's name comes
    /// first. Each is a plain name: not empty, `.` or `..`, without `/` and NUL, of at most 255 bytes. Empty for
    /// padding and symlinks, which are not expected on disk.
    pub path: Vec<u8>,
    /// Bytes.
    pub length: u64,
    /// Whether the file is zeros that need not exist (BEP 47).
    pub padding: bool,
}

/// A value in a metainfo file.
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
    /// The file is cut short.
    #[error("malformed bencode: the file ends in the middle of a value")]
    Truncated,
    /// The file is not a dictionary.
    #[error("malformed bencode: the file does not start with a dictionary")]
    NotADictionary,
    /// Not bencode.
    #[error("malformed bencode: {0}")]
    Bencode(BencodeError),
    /// A needed key is absent.
    #[error("{0} is missing")]
    Missing(Field),
    /// A value has another type.
    #[error("{0} is not {1}")]
    WrongType(Field, &'static str),
    /// A number is too small or too large.
    #[error("{0} is out of range: {1}")]
    OutOfRange(Field, i64),
    /// A number that 64 bits do not hold, or lengths whose sum they do not.
    #[error("{0} overflows")]
    Overflow(Field),
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
    /// A torrent of BEP 52 only.
    #[error("info.pieces is missing: this is a v2-only torrent (BEP 52), which is not supported")]
    V2Only,
}

impl From<BencodeError> for MetainfoError {
    fn from(error: BencodeError) -> Self {
        match error {
            BencodeError::Truncated => Self::Truncated,
            BencodeError::NotADictionary => Self::NotADictionary,
            error => Self::Bencode(error),
        }
    }
}

impl Metainfo {
    /// Reads the bytes of a whole metainfo file.
    ///
    /// # Errors
    /// A [`MetainfoError`] when the torrent cannot be served as it is described.
    pub fn parse(raw: &[u8]) -> Result<Self, MetainfoError> {
        let keys: [&[u8]; 3] = [b"announce", b"announce-list", b"info"];
        let [announce, announce_list, info] = Dictionary::open_strict(raw)?.first_values(keys)?;
        let raw_info = info_dictionary(info)?;
        let start = bencode::offset_in(raw, raw_info);
        let info_hash = InfoHash(Sha1::digest(raw_info).into());
        let info = Info::decode(raw_info)?;
        let (files, mut raw_names) = info.files(info_hash)?;
        let total_length = total_length(&files)?;
        let piece_length = info.piece_length()?;
        let expected = total_length.div_ceil(u64::from(piece_length));
        let found = piece_hashes(info.pieces)?.len() as u64;
        if expected != found {
            return Err(MetainfoError::PieceCount { expected, found });
        }
        raw_names.repeated = repeated(&files);
        let overflow = |_| MetainfoError::Overflow(Field::Info("pieces"));
        Ok(Metainfo {
            info_hash,
            info: start as u64..(start + raw_info.len()) as u64,
            piece_length,
            pieces: u32::try_from(found).map_err(overflow)?,
            total_length,
            private: info.is_private,
            files,
            announce: announce_tiers(announce, announce_list)?,
            raw_names,
        })
    }

    /// The SHA-1 of each piece, from the bytes of a whole metainfo file.
    ///
    /// # Errors
    /// A [`MetainfoError`] when there are none.
    pub fn piece_hashes(raw: &[u8]) -> Result<Vec<[u8; PIECE_HASH_BYTES]>, MetainfoError> {
        Ok(piece_hashes(pieces_of(find_info(raw)?)?)?.to_vec())
    }
}

/// Appends the tiers of another metainfo file of the same torrent, without the URLs that are there already.
pub fn add_tiers(tiers: &mut Vec<Vec<String>>, others: Vec<Vec<String>>) {
    let mut known: HashSet<String> = tiers.iter().flatten().cloned().collect();
    for mut tier in others {
        tier.retain(|url| known.insert(url.clone()));
        if !tier.is_empty() {
            tiers.push(tier);
        }
    }
}

/// Where the hash of the first piece lies in the bytes of a whole metainfo file, for reading single
/// hashes from it. Unit: bytes. `None` when it is the file of another torrent.
///
/// # Errors
/// A [`MetainfoError`] when the bytes are no metainfo file.
pub fn piece_hashes_at(raw: &[u8], info_hash: &InfoHash) -> Result<Option<u64>, MetainfoError> {
    let info = find_info(raw)?;
    if <[u8; PIECE_HASH_BYTES]>::from(Sha1::digest(info)) != info_hash.0 {
        return Ok(None);
    }
    let hashes = piece_hashes(pieces_of(info)?)?.as_flattened();
    Ok(Some(bencode::offset_in(raw, hashes) as u64))
}

/// The value of `pieces` in a raw `info` dictionary.
fn pieces_of(info: &[u8]) -> Result<Option<&[u8]>, MetainfoError> {
    let [pieces] = Dictionary::open(info)?.first_values([b"pieces"])?;
    bytes(Field::Info("pieces"), pieces)
}

fn piece_hashes(pieces: Option<&[u8]>) -> Result<&[[u8; PIECE_HASH_BYTES]], MetainfoError> {
    let raw = pieces.ok_or(MetainfoError::Missing(Field::Info("pieces")))?;
    match raw.as_chunks() {
        (hashes, []) => Ok(hashes),
        _ => Err(MetainfoError::PieceHashes(raw.len())),
    }
}

/// The raw `info` dictionary of a whole metainfo file.
fn find_info(raw: &[u8]) -> Result<&[u8], MetainfoError> {
    let [info] = Dictionary::open_strict(raw)?.first_values([b"info"])?;
    info_dictionary(info)
}

fn info_dictionary(info: Option<Value<'_>>) -> Result<&[u8], MetainfoError> {
    let field = Field::Top("info");
    match info {
        Some(Value::Dictionary(info)) => Ok(info),
        Some(_) => Err(MetainfoError::WrongType(field, "a dictionary")),
        None => Err(MetainfoError::Missing(field)),
    }
}

/// The values of `announce` and `announce-list`, as [PROTOCOL] says: a torrent with a bad URL loses its
/// tracker and is served all the same.
///
/// [PROTOCOL]: ../../../docs/PROTOCOL.md
fn announce_tiers(
    single: Option<Value<'_>>,
    list: Option<Value<'_>>,
) -> Result<Vec<Vec<String>>, MetainfoError> {
    let mut tiers = Vec::new();
    let mut left = MAX_ANNOUNCE_URLS;
    // BEP 12: where there is a list of lists, the single URL is ignored.
    let mut ignores_single = false;
    match list {
        Some(Value::List(list)) => {
            for tier in List::open(list) {
                match tier? {
                    Value::List(tier) => {
                        let mut urls = Vec::new();
                        for url in List::open(tier) {
                            push_url(&mut urls, url?, &mut left);
                        }
                        ignores_single |= urls.iter().any(|url| has_scheme_of_tracker(url));
                        push_tier(&mut tiers, urls);
                    }
                    url => push_single(&mut tiers, url, &mut left),
                }
            }
        }
        Some(url) => push_single(&mut tiers, url, &mut left),
        None => {}
    }
    if !ignores_single && let Some(single) = single {
        push_single(&mut tiers, single, &mut left);
    }
    Ok(tiers)
}

fn push_tier(tiers: &mut Vec<Vec<String>>, urls: Vec<String>) {
    if !urls.is_empty() {
        tiers.push(urls);
    }
}

/// Appends a tier of one URL.
fn push_single(tiers: &mut Vec<Vec<String>>, url: Value<'_>, left: &mut usize) {
    let mut urls = Vec::new();
    push_url(&mut urls, url, left);
    push_tier(tiers, urls);
}

/// Appends a URL, if it is one and fewer than [`MAX_ANNOUNCE_URLS`] came before. Bytes that are not
/// UTF-8 are escaped, as in a request.
fn push_url(urls: &mut Vec<String>, value: Value<'_>, left: &mut usize) {
    let Value::Bytes(bytes) = value else {
        return;
    };
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() || *left == 0 {
        return;
    }
    *left -= 1;
    let mut url = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        url.push_str(chunk.valid());
        for byte in chunk.invalid() {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    urls.push(url);
}

/// Returns true if a URL may be that of a tracker.
fn has_scheme_of_tracker(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    let is = |name: &&str| scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(name));
    ["http", "https", "udp"].iter().any(is)
}

const LIST: &str = "a list";
const BYTES: &str = "a byte string";
const INTEGER: &str = "an integer";

/// The `info` dictionary, before it is checked.
struct Info<'a> {
    name: Option<&'a [u8]>,
    name_utf8: Option<&'a [u8]>,
    length: Option<i64>,
    entries: Option<Value<'a>>,
    piece_length: Option<i64>,
    pieces: Option<&'a [u8]>,
    is_private: bool,
    is_padding: bool,
    is_v2: bool,
}

impl<'a> Info<'a> {
    fn decode(raw: &'a [u8]) -> Result<Self, MetainfoError> {
        let keys: [&[u8]; 10] = [
            b"attr",
            b"file tree",
            b"files",
            b"length",
            b"meta version",
            b"name",
            b"name.utf-8",
            b"piece length",
            b"pieces",
            b"private",
        ];
        let [
            attributes,
            file_tree,
            files,
            length,
            meta_version,
            name,
            name_utf8,
            piece_length,
            pieces,
            private,
        ] = Dictionary::open(raw)?.first_values(keys)?;
        Ok(Info {
            entries: files,
            length: integer(Field::Info("length"), length)?,
            name: bytes(Field::Info("name"), name)?,
            name_utf8: match name_utf8 {
                Some(Value::Bytes(name)) if !name.is_empty() => Some(name),
                _ => None,
            },
            piece_length: integer(Field::Info("piece length"), piece_length)?,
            pieces: bytes(Field::Info("pieces"), pieces)?,
            is_private: matches!(private, Some(Value::Integer(flag)) if flag.exact() != Some(0)),
            is_padding: attribute_letters(attributes).contains(&b'p'),
            is_v2: file_tree.is_some() || meta_version.is_some(),
        })
    }

    fn piece_length(&self) -> Result<u32, MetainfoError> {
        let field = Field::Info("piece length");
        let value = self.piece_length.ok_or(MetainfoError::Missing(field))?;
        u32::try_from(value)
            .ok()
            .filter(|length| (1..=MAX_PIECE_LENGTH_BYTES).contains(length))
            .ok_or(MetainfoError::OutOfRange(field, value))
    }

    /// The files below the content root, and what their names were.
    fn files(&self, info_hash: InfoHash) -> Result<(Vec<MetainfoFile>, RawNames), MetainfoError> {
        if self.pieces.is_none() && self.is_v2 {
            return Err(MetainfoError::V2Only);
        }
        let (name, other) = match (self.name_utf8, self.name) {
            (Some(name), other) => (name, other.filter(|other| *other != name)),
            (None, Some(name)) => (name, None),
            (None, None) => return Err(MetainfoError::Missing(Field::Info("name"))),
        };
        let mut raw_names = RawNames::default();
        if other.is_some() || !is_plain(name) {
            raw_names.torrent = Some(Encodings {
                preferred: name.to_vec(),
                other: other.map(<[u8]>::to_vec),
            });
        }
        if let Some(entries) = self.entries {
            let clean = first_path(name, None, || info_hash.to_string());
            let files = decode_entries(&clean, entries, &mut raw_names)?;
            return Ok((files, raw_names));
        }
        let field = Field::Info("length");
        let value = self.length.ok_or(MetainfoError::Missing(field))?;
        let file = MetainfoFile {
            path: first_path(name, None, || info_hash.to_string()),
            length: unsigned(field, value)?,
            padding: self.is_padding,
        };
        Ok((vec![file], raw_names))
    }
}

/// The bytes in all files, which must have some to serve.
fn total_length(files: &[MetainfoFile]) -> Result<u64, MetainfoError> {
    let mut lengths = files.iter().map(|file| file.length);
    let total_length = lengths
        .try_fold(0_i64, i64::checked_add_unsigned)
        .ok_or(MetainfoError::Overflow(Field::Info("files")))?;
    if !files.iter().any(|file| file.length > 0 && !file.padding) {
        return Err(MetainfoError::NothingToServe);
    }
    Ok(total_length.unsigned_abs())
}

fn unsigned(field: Field, value: i64) -> Result<u64, MetainfoError> {
    u64::try_from(value).map_err(|_| MetainfoError::OutOfRange(field, value))
}

/// The files of a torrent with this plain name.
fn decode_entries<'a>(
    name: &'a [u8],
    files: Value<'a>,
    raw_names: &mut RawNames,
) -> Result<Vec<MetainfoFile>, MetainfoError> {
    let Value::List(files) = files else {
        return Err(MetainfoError::WrongType(Field::Info("files"), LIST));
    };
    let mut entries = Vec::new();
    let mut paths = EntryPaths::default();
    for file in List::open(files) {
        entries.push(decode_entry(
            name,
            entries.len(),
            file?,
            &mut paths,
            raw_names,
        )?);
    }
    Ok(entries)
}

/// The components of `path` and `path.utf-8`, kept from entry to entry so that a file costs one
/// allocation.
#[derive(Default)]
struct EntryPaths<'a> {
    plain: Vec<&'a [u8]>,
    utf8: Vec<&'a [u8]>,
}

fn decode_entry<'a>(
    name: &'a [u8],
    index: usize,
    file: Value<'a>,
    paths: &mut EntryPaths<'a>,
    raw_names: &mut RawNames,
) -> Result<MetainfoFile, MetainfoError> {
    let field = |key| Field::File(index, key);
    let Value::Dictionary(file) = file else {
        return Err(MetainfoError::WrongType(
            Field::Info("files"),
            "a list of dictionaries",
        ));
    };
    let keys: [&[u8]; 4] = [b"attr", b"length", b"path", b"path.utf-8"];
    let [attributes, length, path, path_utf8] = Dictionary::open(file)?.first_values(keys)?;
    let attributes = attribute_letters(attributes);
    let length = integer(field("length"), length)?;
    decode_path(field("path"), path, &mut paths.plain)?;
    let path_utf8 = path_utf8.filter(|path| matches!(path, Value::List(_)));
    decode_path(field("path.utf-8"), path_utf8, &mut paths.utf8)?;
    let (path, other) = match paths.utf8.as_slice() {
        [] => (&mut paths.plain, None),
        _ => (&mut paths.utf8, Some(&paths.plain)),
    };
    let is_legacy_padding = path
        .last()
        .is_some_and(|name| name.starts_with(LEGACY_PADDING_PREFIX));
    let padding = attributes.contains(&b'p') || is_legacy_padding;
    let symlink = attributes.contains(&b'l');
    let length = match length {
        _ if symlink => 0,
        Some(length) => unsigned(field("length"), length)?,
        None => return Err(MetainfoError::Missing(field("length"))),
    };
    if padding || symlink {
        return Ok(MetainfoFile {
            path: Vec::new(),
            length,
            padding,
        });
    }
    if path.is_empty() {
        return Err(MetainfoError::Missing(field("path")));
    }
    let other = other.filter(|other| !other.is_empty() && *other != path);
    let are_plain = path.iter().all(|component| is_plain(component));
    if other.is_some() || !are_plain {
        let owned = |path: &Vec<&[u8]>| path.iter().map(|component| component.to_vec()).collect();
        let names = Encodings {
            preferred: owned(path),
            other: other.map(owned),
        };
        raw_names.files.insert(index, names);
    }
    let path = if are_plain {
        path.insert(0, name);
        path.join(&b'/')
    } else {
        // The name is plain, so it is not replaced.
        first_path(name, Some(path), String::new)
    };
    Ok(MetainfoFile {
        path,
        length,
        padding,
    })
}

/// Replaces `components` by those of a path.
fn decode_path<'a>(
    field: Field,
    path: Option<Value<'a>>,
    components: &mut Vec<&'a [u8]>,
) -> Result<(), MetainfoError> {
    components.clear();
    match path {
        None => Ok(()),
        Some(Value::List(path)) => {
            for component in List::open(path) {
                components.extend(bytes(field, Some(component?))?);
            }
            Ok(())
        }
        Some(_) => Err(MetainfoError::WrongType(field, LIST)),
    }
}

/// The letters of `attr` (BEP 47).
fn attribute_letters(attributes: Option<Value<'_>>) -> &[u8] {
    match attributes {
        Some(Value::Bytes(letters)) => letters,
        _ => b"",
    }
}

/// The files with the path of an earlier file.
fn repeated(files: &[MetainfoFile]) -> Vec<usize> {
    if files.len() == 1 {
        return Vec::new();
    }
    let mut seen = HashSet::with_capacity(files.len());
    let files = files.iter().enumerate();
    files
        .filter(|(_, file)| !file.path.is_empty() && !seen.insert(file.path.as_slice()))
        .map(|(index, _)| index)
        .collect()
}

fn integer(field: Field, value: Option<Value<'_>>) -> Result<Option<i64>, MetainfoError> {
    match value {
        None => Ok(None),
        Some(Value::Integer(integer)) => match integer.exact() {
            None => Err(MetainfoError::Overflow(field)),
            value => Ok(value),
        },
        Some(_) => Err(MetainfoError::WrongType(field, INTEGER)),
    }
}

fn bytes<'a>(field: Field, value: Option<Value<'a>>) -> Result<Option<&'a [u8]>, MetainfoError> {
    match value {
        None => Ok(None),
        Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
        Some(_) => Err(MetainfoError::WrongType(field, BYTES)),
    }
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
mod tests;
