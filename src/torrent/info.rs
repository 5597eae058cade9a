//! What the `info` dictionary says (BEP 3, 27, 47).
//!
//! Owns the judging of names, lengths and piece hashes; [`super::metainfo`] says what is decided
//! where programs differ. It is pure: it must not know where the content lies.

use std::collections::HashSet;

use bendy::decoding::{DictDecoder, Object};

use super::metainfo::{Field, MAX_PIECE_LENGTH_BYTES, MetainfoError, MetainfoFile, decoding};
use super::printable::Printable;

/// No file system of Linux has longer names. The torrent's name is repeated in the path of each
/// file, so a long one would also cost memory without bound.
const MAX_NAME_BYTES: usize = 255;

/// How `BitComet` marked padding before BEP 47.
const LEGACY_PADDING_PREFIX: &[u8] = b"_____padding_file_";

/// Bytes in the SHA-1 of one piece.
pub(super) const PIECE_HASH_BYTES: usize = 20;

const LIST: &str = "a list";
const BYTES: &str = "a byte string";
const INTEGER: &str = "an integer";

/// The `info` dictionary as it stands, before it is judged.
#[derive(Default)]
pub(super) struct Info<'a> {
    name: Option<&'a [u8]>,
    name_utf8: Option<&'a [u8]>,
    length: Option<i64>,
    entries: Option<Vec<Entry>>,
    piece_length: Option<i64>,
    pieces: Option<&'a [u8]>,
    pub(super) private: bool,
    padding: bool,
    v2: bool,
}

/// One entry of `files`, its path not yet below the torrent's name.
struct Entry {
    path: Vec<u8>,
    length: u64,
    padding: bool,
}

impl<'a> Info<'a> {
    pub(super) fn decode(mut pairs: DictDecoder<'_, 'a>) -> Result<Self, MetainfoError> {
        let mut info = Info::default();
        while let Some((key, value)) = pairs.next_pair().map_err(decoding)? {
            match (key, value) {
                (b"name", value) => info.name = Some(bytes(Field::Info("name"), &value)?),
                (b"name.utf-8", Object::Bytes(name)) => {
                    info.name_utf8 = Some(name).filter(|name| !name.is_empty());
                }
                (b"length", value) => info.length = Some(integer(Field::Info("length"), &value)?),
                (b"files", value) => info.entries = Some(decode_entries(value)?),
                (b"piece length", value) => {
                    info.piece_length = Some(integer(Field::Info("piece length"), &value)?);
                }
                (b"pieces", value) => info.pieces = Some(bytes(Field::Info("pieces"), &value)?),
                (b"private", Object::Integer(digits)) => info.private = digits != "0",
                (b"attr", Object::Bytes(attributes)) => info.padding = attributes.contains(&b'p'),
                (b"meta version" | b"file tree", _) => info.v2 = true,
                _ => {}
            }
        }
        Ok(info)
    }

    pub(super) fn piece_length(&self) -> Result<u32, MetainfoError> {
        let field = Field::Info("piece length");
        let value = self.piece_length.ok_or(MetainfoError::Missing(field))?;
        u32::try_from(value)
            .ok()
            .filter(|length| (1..=MAX_PIECE_LENGTH_BYTES).contains(length))
            .ok_or(MetainfoError::OutOfRange(field, value))
    }

    pub(super) fn piece_count(
        &self,
        total_length: u64,
        piece_length: u32,
    ) -> Result<u32, MetainfoError> {
        let expected = total_length.div_ceil(u64::from(piece_length));
        let found = self.piece_hashes()?.len() as u64;
        if expected != found {
            return Err(MetainfoError::PieceCount { expected, found });
        }
        u32::try_from(found).map_err(|_| MetainfoError::Overflow(Field::Info("pieces")))
    }

    pub(super) fn piece_hashes(&self) -> Result<&'a [[u8; PIECE_HASH_BYTES]], MetainfoError> {
        let field = Field::Info("pieces");
        let raw = self.pieces.ok_or(MetainfoError::Missing(field))?;
        match raw.as_chunks() {
            (hashes, []) => Ok(hashes),
            _ => Err(MetainfoError::PieceHashes(raw.len())),
        }
    }

    /// The files below the content root, and the sum of their lengths.
    pub(super) fn files(&mut self) -> Result<(Vec<MetainfoFile>, u64), MetainfoError> {
        if self.pieces.is_none() && self.v2 {
            return Err(MetainfoError::V2Only);
        }
        let (field, name) = match (self.name_utf8, self.name) {
            (Some(name), _) => (Field::Info("name.utf-8"), name),
            (None, Some(name)) => (Field::Info("name"), name),
            (None, None) => return Err(MetainfoError::Missing(Field::Info("name"))),
        };
        check_component(field, name)?;
        let files = match self.entries.take() {
            Some(entries) => below(name, entries),
            None => {
                let field = Field::Info("length");
                let value = self.length.ok_or(MetainfoError::Missing(field))?;
                vec![MetainfoFile {
                    path: name.to_vec(),
                    length: unsigned(field, value)?,
                    padding: self.padding,
                }]
            }
        };
        let total_length = files
            .iter()
            .try_fold(0_i64, |sum, file| sum.checked_add_unsigned(file.length))
            .ok_or(MetainfoError::Overflow(Field::Info("files")))?;
        if !files.iter().any(|file| file.length > 0 && !file.padding) {
            return Err(MetainfoError::NothingToServe);
        }
        check_paths_differ(&files)?;
        Ok((files, total_length.unsigned_abs()))
    }
}

fn unsigned(field: Field, value: i64) -> Result<u64, MetainfoError> {
    u64::try_from(value).map_err(|_| MetainfoError::OutOfRange(field, value))
}

fn below(name: &[u8], entries: Vec<Entry>) -> Vec<MetainfoFile> {
    entries
        .into_iter()
        .map(|entry| MetainfoFile {
            path: match entry.path.as_slice() {
                [] => Vec::new(),
                path => [name, path].join(&b'/'),
            },
            length: entry.length,
            padding: entry.padding,
        })
        .collect()
}

fn decode_entries(value: Object<'_, '_>) -> Result<Vec<Entry>, MetainfoError> {
    let Object::List(mut list) = value else {
        return Err(MetainfoError::WrongType(Field::Info("files"), LIST));
    };
    let mut entries = Vec::new();
    let mut paths = EntryPaths::default();
    while let Some(item) = list.next_object().map_err(decoding)? {
        entries.push(decode_entry(entries.len(), item, &mut paths)?);
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
    index: usize,
    item: Object<'_, 'a>,
    paths: &mut EntryPaths<'a>,
) -> Result<Entry, MetainfoError> {
    let field = |key| Field::File(index, key);
    let Object::Dict(mut pairs) = item else {
        return Err(MetainfoError::WrongType(
            Field::Info("files"),
            "a list of dictionaries",
        ));
    };
    paths.plain.clear();
    paths.utf8.clear();
    let (mut length, mut attributes) = (None, b"".as_slice());
    while let Some((key, value)) = pairs.next_pair().map_err(decoding)? {
        match (key, value) {
            (b"length", value) => length = Some(integer(field("length"), &value)?),
            (b"path", value) => decode_path(field("path"), value, &mut paths.plain)?,
            (b"path.utf-8", value @ Object::List(_)) => {
                decode_path(field("path.utf-8"), value, &mut paths.utf8)?;
            }
            (b"attr", Object::Bytes(letters)) => attributes = letters,
            _ => {}
        }
    }
    let (key, path) = match paths.utf8.as_slice() {
        [] => ("path", &paths.plain),
        _ => ("path.utf-8", &paths.utf8),
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
        return Ok(Entry {
            path: Vec::new(),
            length,
            padding,
        });
    }
    if path.is_empty() {
        return Err(MetainfoError::Missing(field(key)));
    }
    for component in path {
        check_component(field(key), component)?;
    }
    Ok(Entry {
        path: path.join(&b'/'),
        length,
        padding,
    })
}

fn decode_path<'a>(
    field: Field,
    value: Object<'_, 'a>,
    components: &mut Vec<&'a [u8]>,
) -> Result<(), MetainfoError> {
    let Object::List(mut list) = value else {
        return Err(MetainfoError::WrongType(field, LIST));
    };
    while let Some(component) = list.next_object().map_err(decoding)? {
        components.push(bytes(field, &component)?);
    }
    Ok(())
}

/// A component must name one entry of the directory before it.
fn check_component(field: Field, component: &[u8]) -> Result<(), MetainfoError> {
    let fault = match component {
        b"" => "is empty",
        b"." | b".." => "is . or ..",
        _ if component.len() > MAX_NAME_BYTES => "has more than 255 bytes",
        _ if component.contains(&b'/') => "contains /",
        _ if component.contains(&0) => "contains NUL",
        _ => return Ok(()),
    };
    Err(MetainfoError::UnsafePath(field, fault))
}

fn check_paths_differ(files: &[MetainfoFile]) -> Result<(), MetainfoError> {
    if files.len() == 1 {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        if !file.path.is_empty() && !seen.insert(file.path.as_slice()) {
            return Err(MetainfoError::RepeatedPath {
                field: Field::File(index, "path"),
                path: Printable(&file.path).to_string(),
            });
        }
    }
    Ok(())
}

fn integer(field: Field, value: &Object<'_, '_>) -> Result<i64, MetainfoError> {
    match value {
        Object::Integer(digits) => digits.parse().map_err(|_| MetainfoError::Overflow(field)),
        _ => Err(MetainfoError::WrongType(field, INTEGER)),
    }
}

fn bytes<'a>(field: Field, value: &Object<'_, 'a>) -> Result<&'a [u8], MetainfoError> {
    match value {
        Object::Bytes(bytes) => Ok(bytes),
        _ => Err(MetainfoError::WrongType(field, BYTES)),
    }
}

#[cfg(test)]
mod tests;
