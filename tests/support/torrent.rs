//! Sample torrents: pseudo-random content on disk and the metainfo file that describes it.
//!
//! Owns the making of both from a seed, the same for the same seed everywhere. It must not know the
//! program under test: it encodes and hashes by itself, so that it may disagree.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

/// Content is made and hashed in steps of this many bytes.
const STEP_BYTES: usize = 64 * 1024;

/// What a torrent is to be like. Without files it is a torrent of one file, `length` bytes long.
#[derive(Clone, Debug)]
pub(crate) struct TorrentBuilder {
    seed: u64,
    name: Vec<u8>,
    name_utf8: Option<Vec<u8>>,
    length: u64,
    piece_length: u32,
    files: Vec<FilePlan>,
    aligned: bool,
    private: bool,
    unsorted: bool,
    hybrid: bool,
    announce: Vec<Vec<String>>,
    trailing: Vec<u8>,
}

#[derive(Clone, Debug)]
struct FilePlan {
    path: Vec<u8>,
    path_utf8: Option<Vec<u8>>,
    /// What stands in `path`, if that is not where the file is.
    components: Option<Vec<Vec<u8>>>,
    length: u64,
    kind: Kind,
}

impl FilePlan {
    fn padding(length: u64) -> Self {
        FilePlan {
            path: format!(".pad/{length}").into_bytes(),
            path_utf8: None,
            components: None,
            length,
            kind: Kind::Padding,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Content,
    Padding,
    LegacyPadding,
}

/// A torrent that is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The metainfo file.
    pub(crate) metainfo_path: PathBuf,
    /// The directory below which the content lies.
    pub(crate) root: PathBuf,
    /// The SHA-1 of `info`.
    pub(crate) info_hash: [u8; 20],
    /// The raw `info` dictionary.
    pub(crate) info: Vec<u8>,
    /// The whole metainfo file.
    pub(crate) metainfo: Vec<u8>,
    /// Bytes in each piece but the last.
    pub(crate) piece_length: u32,
    /// How many pieces there are.
    pub(crate) pieces: u32,
    /// Bytes in all files together, padding included.
    pub(crate) total_length: u64,
    /// The files in order, padding included.
    pub(crate) files: Vec<SampleFile>,
    seed: u64,
}

/// One file of a [`Sample`].
#[derive(Clone, Debug)]
pub(crate) struct SampleFile {
    /// Where it is on disk; where it would be, for padding.
    pub(crate) path: PathBuf,
    /// Its first byte in the torrent.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// Whether it is zeros that are not on disk.
    pub(crate) padding: bool,
}

impl TorrentBuilder {
    /// One file of 40000 bytes in pieces of 16 KiB, named after the seed.
    pub(crate) fn new(seed: u64) -> Self {
        TorrentBuilder {
            seed,
            name: format!("sample-{seed}").into_bytes(),
            name_utf8: None,
            length: 40_000,
            piece_length: 16 * 1024,
            files: Vec::new(),
            aligned: false,
            private: false,
            unsorted: false,
            hybrid: false,
            announce: Vec::new(),
            trailing: Vec::new(),
        }
    }

    /// The name of the file or directory, in any encoding.
    pub(crate) fn name(mut self, name: impl AsRef<[u8]>) -> Self {
        self.name = name.as_ref().to_vec();
        self
    }

    /// The name under `name.utf-8`, which is then the one on disk.
    pub(crate) fn name_utf8(mut self, name: &str) -> Self {
        self.name_utf8 = Some(name.into());
        self
    }

    /// The length of a torrent of one file, in bytes.
    pub(crate) fn length(mut self, length: u64) -> Self {
        self.length = length;
        self
    }

    /// Bytes in each piece.
    pub(crate) fn piece_length(mut self, piece_length: u32) -> Self {
        self.piece_length = piece_length;
        self
    }

    /// Adds a file; the components of its path are separated by `/`.
    pub(crate) fn file(self, path: impl AsRef<[u8]>, length: u64) -> Self {
        self.plan(path.as_ref(), None, length, Kind::Content)
    }

    /// Adds a file that is on disk under `path_utf8`, while `path` stands in `path`.
    pub(crate) fn file_utf8(self, path: impl AsRef<[u8]>, path_utf8: &str, length: u64) -> Self {
        self.plan(path.as_ref(), Some(path_utf8.into()), length, Kind::Content)
    }

    /// Adds a file that is on disk at `path`, while other components stand in the torrent.
    pub(crate) fn file_called(mut self, components: &[&str], path: &str, length: u64) -> Self {
        self = self.plan(path.as_bytes(), None, length, Kind::Content);
        let components = components
            .iter()
            .map(|component| component.as_bytes().to_vec());
        if let Some(plan) = self.files.last_mut() {
            plan.components = Some(components.collect());
        }
        self
    }

    /// Adds a padding file (BEP 47).
    pub(crate) fn padding(mut self, length: u64) -> Self {
        self.files.push(FilePlan::padding(length));
        self
    }

    /// Adds a padding file that is known by its name alone.
    pub(crate) fn legacy_padding(self, length: u64) -> Self {
        let path = format!("_____padding_file_{}_please update", self.files.len());
        self.plan(path.as_bytes(), None, length, Kind::LegacyPadding)
    }

    fn plan(mut self, path: &[u8], path_utf8: Option<Vec<u8>>, length: u64, kind: Kind) -> Self {
        self.files.push(FilePlan {
            path: path.to_vec(),
            path_utf8,
            components: None,
            length,
            kind,
        });
        self
    }

    /// Puts padding between files, so that each starts with a piece.
    pub(crate) fn aligned(mut self) -> Self {
        self.aligned = true;
        self
    }

    /// Sets the private flag (BEP 27).
    pub(crate) fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Writes the keys of every dictionary in descending order.
    pub(crate) fn unsorted(mut self) -> Self {
        self.unsorted = true;
        self
    }

    /// Adds the keys of BEP 52 with nothing in them: enough to be taken for a hybrid.
    pub(crate) fn hybrid(mut self) -> Self {
        self.hybrid = true;
        self
    }

    /// Adds a tier of announce URLs (BEP 12). The first of all is also `announce`.
    pub(crate) fn announce(mut self, tier: &[&str]) -> Self {
        self.announce
            .push(tier.iter().map(|url| (*url).to_owned()).collect());
        self
    }

    /// Adds bytes after the metainfo dictionary.
    pub(crate) fn trailing(mut self, bytes: &[u8]) -> Self {
        self.trailing = bytes.to_vec();
        self
    }

    /// Writes the content into `directory` and the metainfo file beside it.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<Sample> {
        self.write_apart(directory, directory)
    }

    /// Writes the content below `root`, and `<name>.torrent` into `directory`.
    pub(crate) fn write_apart(&self, directory: &Path, root: &Path) -> io::Result<Sample> {
        let plans = self.all_files();
        let files = self.files_of(&plans, root);
        let hashes = self.write_content(&files)?;
        let info = self.encode(self.info(&plans, hashes.clone()));
        let metainfo = [self.encode(self.top(info.clone())), self.trailing.clone()].concat();
        let mut file_name = self.name_on_disk().to_vec();
        file_name.extend(b".torrent");
        let metainfo_path = directory.join(OsStr::from_bytes(&file_name));
        fs::create_dir_all(directory)?;
        fs::write(&metainfo_path, &metainfo)?;
        Ok(Sample {
            metainfo_path,
            root: root.to_path_buf(),
            info_hash: Sha1::digest(&info).into(),
            info,
            metainfo,
            piece_length: self.piece_length,
            pieces: u32::try_from(hashes.len() / 20).map_err(io::Error::other)?,
            total_length: files.iter().map(|file| file.length).sum(),
            files,
            seed: self.seed,
        })
    }

    fn name_on_disk(&self) -> &[u8] {
        self.name_utf8.as_deref().unwrap_or(&self.name)
    }

    /// The files with the padding that alignment asks for.
    fn all_files(&self) -> Vec<FilePlan> {
        let mut all: Vec<FilePlan> = Vec::new();
        let mut offset = 0;
        for file in &self.files {
            let past = offset % u64::from(self.piece_length);
            if self.aligned && past > 0 {
                let length = u64::from(self.piece_length) - past;
                all.push(FilePlan::padding(length));
                offset += length;
            }
            offset += file.length;
            all.push(file.clone());
        }
        all
    }

    fn files_of(&self, plans: &[FilePlan], root: &Path) -> Vec<SampleFile> {
        let top = root.join(OsStr::from_bytes(self.name_on_disk()));
        if plans.is_empty() {
            return vec![SampleFile {
                path: top,
                offset: 0,
                length: self.length,
                padding: false,
            }];
        }
        let mut offset = 0;
        plans
            .iter()
            .map(|plan| {
                let path = plan.path_utf8.as_deref().unwrap_or(&plan.path);
                let start = offset;
                offset += plan.length;
                SampleFile {
                    path: top.join(OsStr::from_bytes(path)),
                    offset: start,
                    length: plan.length,
                    padding: plan.kind != Kind::Content,
                }
            })
            .collect()
    }

    /// Writes every file that is not padding. Answers the hashes of the pieces.
    fn write_content(&self, files: &[SampleFile]) -> io::Result<Vec<u8>> {
        let mut pieces = PieceHashes::new(self.piece_length);
        for (index, file) in (0..).zip(files) {
            let mut out = match file.padding {
                true => None,
                false => {
                    fs::create_dir_all(file.path.parent().unwrap_or(Path::new(".")))?;
                    Some(File::create(&file.path)?)
                }
            };
            let mut offset = 0;
            while offset < file.length {
                let length = (file.length - offset).min(STEP_BYTES as u64);
                let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
                if let Some(out) = &mut out {
                    fill(self.seed, index, offset, &mut bytes);
                    out.write_all(&bytes)?;
                }
                pieces.update(&bytes);
                offset += length;
            }
        }
        Ok(pieces.finish())
    }

    fn info(&self, plans: &[FilePlan], hashes: Vec<u8>) -> Value {
        let mut info = vec![
            ("name", Value::Bytes(self.name.clone())),
            ("piece length", Value::Integer(self.piece_length.into())),
            ("pieces", Value::Bytes(hashes)),
        ];
        if let Some(name) = &self.name_utf8 {
            info.push(("name.utf-8", Value::Bytes(name.clone())));
        }
        if self.private {
            info.push(("private", Value::Integer(1)));
        }
        if self.hybrid {
            // Who serves the v1 side does not look into the tree.
            info.push(("file tree", Value::Dictionary(Vec::new())));
            info.push(("meta version", Value::Integer(2)));
        }
        match plans {
            [] => info.push(("length", Value::Integer(self.length))),
            plans => info.push(("files", Value::List(plans.iter().map(entry).collect()))),
        }
        Value::Dictionary(info)
    }

    fn top(&self, info: Vec<u8>) -> Value {
        let mut top = vec![("info", Value::Encoded(info))];
        if let Some(first) = self.announce.iter().flatten().next() {
            top.push(("announce", Value::text(first)));
            let tier = |tier: &Vec<String>| Value::List(tier.iter().map(Value::text).collect());
            let tiers = self.announce.iter().map(tier).collect();
            top.push(("announce-list", Value::List(tiers)));
        }
        Value::Dictionary(top)
    }

    fn encode(&self, value: Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(self.unsorted, &mut out);
        out
    }
}

fn entry(plan: &FilePlan) -> Value {
    let path = match &plan.components {
        Some(components) => Value::List(components.iter().cloned().map(Value::Bytes).collect()),
        None => Value::path(&plan.path),
    };
    let mut entry = vec![("length", Value::Integer(plan.length)), ("path", path)];
    if let Some(path) = &plan.path_utf8 {
        entry.push(("path.utf-8", Value::path(path)));
    }
    if plan.kind == Kind::Padding {
        entry.push(("attr", Value::text("p")));
    }
    Value::Dictionary(entry)
}

impl Sample {
    /// The bytes that must be served for a range of the torrent, made anew.
    pub(crate) fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let end = offset + length as u64;
        for (index, file) in (0..).zip(&self.files) {
            let (from, to) = (offset.max(file.offset), end.min(file.offset + file.length));
            if from < to && !file.padding {
                let range = to_usize(from - offset)..to_usize(to - offset);
                if let Some(part) = bytes.get_mut(range) {
                    fill(self.seed, index, from - file.offset, part);
                }
            }
        }
        bytes
    }

    /// The bytes of a block.
    pub(crate) fn block(&self, index: u32, begin: u32, length: u32) -> Vec<u8> {
        let offset = u64::from(index) * u64::from(self.piece_length) + u64::from(begin);
        self.bytes(offset, to_usize(length.into()))
    }

    /// The info-hash in hexadecimal digits.
    pub(crate) fn info_hash_hex(&self) -> String {
        use std::fmt::Write as _;
        self.info_hash.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Makes the bytes of a file from any offset: eight at a time from their position, by splitmix64.
fn fill(seed: u64, file: u64, offset: u64, out: &mut [u8]) {
    let key = mix(mix(seed).wrapping_add(file));
    let mut word = offset / 8;
    let mut skip = to_usize(offset % 8);
    let mut rest = out;
    while !rest.is_empty() {
        let bytes = mix(key.wrapping_add(word)).to_le_bytes();
        let from = bytes.get(skip..).unwrap_or_default();
        let count = from.len().min(rest.len());
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(from.get(..count).unwrap_or_default());
        rest = later;
        word += 1;
        skip = 0;
    }
}

fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct PieceHashes {
    piece_length: usize,
    hasher: Sha1,
    hashed: usize,
    hashes: Vec<u8>,
}

impl PieceHashes {
    fn new(piece_length: u32) -> Self {
        PieceHashes {
            piece_length: to_usize(piece_length.into()),
            hasher: Sha1::new(),
            hashed: 0,
            hashes: Vec::new(),
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = bytes.len().min(self.piece_length - self.hashed);
            let (now, later) = bytes.split_at(count);
            self.hasher.update(now);
            self.hashed += count;
            bytes = later;
            if self.hashed == self.piece_length {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        self.hashes.extend(self.hasher.finalize_reset());
        self.hashed = 0;
    }

    fn finish(mut self) -> Vec<u8> {
        if self.hashed > 0 {
            self.end_piece();
        }
        self.hashes
    }
}

/// A value to be bencoded (BEP 3).
enum Value {
    Integer(u64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Dictionary(Vec<(&'static str, Value)>),
    Encoded(Vec<u8>),
}

impl Value {
    fn text(text: impl AsRef<str>) -> Value {
        Value::Bytes(text.as_ref().into())
    }

    fn path(path: &[u8]) -> Value {
        let components = path.split(|byte| *byte == b'/');
        Value::List(components.map(|name| Value::Bytes(name.into())).collect())
    }

    fn encode(self, descending: bool, out: &mut Vec<u8>) {
        let bytes = |bytes: &[u8], out: &mut Vec<u8>| {
            out.extend(format!("{}:", bytes.len()).into_bytes());
            out.extend(bytes);
        };
        match self {
            Value::Integer(value) => out.extend(format!("i{value}e").into_bytes()),
            Value::Bytes(value) => bytes(&value, out),
            Value::Encoded(value) => out.extend(value),
            Value::List(values) => {
                out.push(b'l');
                for value in values {
                    value.encode(descending, out);
                }
                out.push(b'e');
            }
            Value::Dictionary(mut entries) => {
                entries.sort_by_key(|(key, _)| *key);
                if descending {
                    entries.reverse();
                }
                out.push(b'd');
                for (key, value) in entries {
                    bytes(key.as_bytes(), out);
                    value.encode(descending, out);
                }
                out.push(b'e');
            }
        }
    }
}
