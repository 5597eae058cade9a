//! The bytes of an index file: its header and its fixed-width entries, little-endian throughout.
//! `docs/INDEX.md` draws them.
//!
//! A torrent costs 86 bytes beside its name. The prefixes, duplicates, counts and the origin are read
//! into memory when an index is opened, and the obfuscated hashes for who needs them; everything else
//! when it is needed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use super::error::Fault;
use crate::torrent::id::FIRST_ALIAS;
use crate::torrent::reader::{FileStamp, Fnv};
use crate::wire::message::InfoHash;

/// The first bytes of an index file.
const MAGIC: [u8; 8] = *b"hekatidx";

/// Changed with every change of the format. An index is a cache: one of another version is made again.
pub const VERSION: u32 = 4;

/// The version before, which is read too, so that a library is served while its index is made again. It
/// ends after the positions, and does not say which torrents are private.
const VERSION_BEFORE: u32 = 3;

/// Where the first section starts, so that records do not share a page with the header.
pub(super) const HEADER_BYTES: usize = 4096;

/// Bytes that the checksum of the header covers: magic, version, sections.
const fn header_used_bytes(sections: usize) -> usize {
    8 + 4 + sections * SECTION_BYTES
}

const SECTIONS: usize = 14;
/// The same of the version before.
const SECTIONS_BEFORE: usize = 11;

const SECTION_BYTES: usize = 8 + 8 + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 20;

/// Bytes of one entry.
pub(super) const RECORD_BYTES: usize = 52;
pub(super) const DIRECTORY_BYTES: usize = 12;
pub(super) const OFFSET_BYTES: usize = 8;
pub(super) const PREFIX_BYTES: usize = 8;
pub(super) const POSITION_BYTES: usize = 4;
pub(super) const DUPLICATE_BYTES: usize = 8;
pub(super) const COUNTS_BYTES: usize = 16;
pub(super) const SUFFIX_BYTES: usize = 12;
pub(super) const OBFUSCATED_BYTES: usize = 6;

/// Record numbers have 32 bits. The last are not used, since the numbers are the first ids of torrents.
pub const MAX_RECORDS: u32 = FIRST_ALIAS.0;

/// The number of a record within one index. Records are in the order of their paths, so the number of a
/// file changes from one index to the next; its [`TorrentId`](crate::torrent::id::TorrentId) stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RecordNo(pub u32);

/// The number of a list of announce URLs within one index. Equal lists are stored once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct TrackerListNo(pub u32);

/// The sections of an index file, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Records,
    Names,
    Directories,
    DirectoryPaths,
    TrackerLists,
    TrackerOffsets,
    Duplicates,
    Counts,
    Origin,
    Prefixes,
    Positions,
    Suffixes,
    Obfuscated,
    ObfuscatedPositions,
}

impl Part {
    /// Each with its name, and the bytes of one of its entries; 1 where entries differ in length.
    const TABLE: [(Part, &'static str, usize); SECTIONS] = [
        (Part::Records, "records", RECORD_BYTES),
        (Part::Names, "names", 1),
        (Part::Directories, "directories", DIRECTORY_BYTES),
        (Part::DirectoryPaths, "directory paths", 1),
        (Part::TrackerLists, "tracker lists", 1),
        (Part::TrackerOffsets, "tracker offsets", OFFSET_BYTES),
        (Part::Duplicates, "duplicates", DUPLICATE_BYTES),
        (Part::Counts, "counts", COUNTS_BYTES),
        (Part::Origin, "origin", 1),
        (Part::Prefixes, "prefixes", PREFIX_BYTES),
        (Part::Positions, "positions", POSITION_BYTES),
        (Part::Suffixes, "suffixes", SUFFIX_BYTES),
        (Part::Obfuscated, "obfuscated hashes", OBFUSCATED_BYTES),
        (
            Part::ObfuscatedPositions,
            "obfuscated positions",
            POSITION_BYTES,
        ),
    ];

    pub(super) fn all() -> [Part; SECTIONS] {
        Self::TABLE.map(|(part, ..)| part)
    }

    fn name_and_width(self) -> (&'static str, usize) {
        let row = Self::TABLE.get(self as usize);
        let (_, name, width) = row.expect("each part has a row");
        (name, *width)
    }

    pub(super) fn name(self) -> &'static str {
        self.name_and_width().0
    }
}

/// Where a section is in the file, and the SHA-1 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Section {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) checksum: [u8; CHECKSUM_BYTES],
}

/// The header of an index file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Header {
    sections: [Section; SECTIONS],
    /// It is of the version before: the last sections are empty.
    is_old: bool,
}

impl Header {
    /// Returns true if the file is of the version before.
    pub(super) fn is_old(&self) -> bool {
        self.is_old
    }

    /// The sections that the file has.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let count = if self.is_old {
            SECTIONS_BEFORE
        } else {
            SECTIONS
        };
        Part::all().into_iter().take(count)
    }

    pub(super) fn section(&self, part: Part) -> Section {
        *(self.sections.get(part as usize)).expect("each part has a section")
    }

    pub(super) fn set_section(&mut self, part: Part, section: Section) {
        let slot = self.sections.get_mut(part as usize);
        *slot.expect("each part has a section") = section;
    }

    /// The number of entries in a section.
    pub(super) fn entries(&self, part: Part) -> u64 {
        self.section(part).length / part.name_and_width().1 as u64
    }

    /// The minimum length of the file, in bytes.
    pub(super) fn end(&self) -> u64 {
        let ends = self.sections.iter();
        let ends = ends.map(|section| section.offset.saturating_add(section.length));
        ends.max().expect("there are sections")
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        for section in &self.sections {
            out.extend(section.offset.to_le_bytes());
            out.extend(section.length.to_le_bytes());
            out.extend(section.checksum);
        }
        let checksum = Sha1::digest(&out);
        out.extend(checksum);
        out.resize(HEADER_BYTES, 0);
        out
    }

    pub(super) fn decode(raw: &[u8; HEADER_BYTES]) -> Result<Self, Fault> {
        let mut fields = Fields(raw);
        if fields.take() != MAGIC {
            return Err(Fault::NotAnIndex);
        }
        let version = fields.u32();
        let is_old = match version {
            VERSION => false,
            VERSION_BEFORE => true,
            _ => return Err(Fault::Version(version, VERSION)),
        };
        let mut header = Header {
            is_old,
            ..Header::default()
        };
        let parts = header.parts();
        for part in parts {
            let section = Section {
                offset: fields.u64(),
                length: fields.u64(),
                checksum: fields.take(),
            };
            header.set_section(part, section);
        }
        let (covered, _) = raw.split_at(header_used_bytes(header.parts().count()));
        let checksum: [u8; CHECKSUM_BYTES] = Sha1::digest(covered).into();
        match fields.take() == checksum && header.is_consistent() {
            true => Ok(header),
            false => Err(Fault::Damaged("header")),
        }
    }

    /// Returns true if reading can rely on whole entries, numbers of 32 bits, a position for each prefix.
    fn is_consistent(&self) -> bool {
        let is_whole = |part: Part| {
            let width = part.name_and_width().1 as u64;
            self.section(part).length.is_multiple_of(width)
                && (width == 1 || self.entries(part) <= u64::from(MAX_RECORDS))
        };
        let records = self.entries(Part::Records);
        let torrents = self.entries(Part::Prefixes);
        let is_of_each_torrent = |part: &Part| {
            use Part::{Obfuscated, ObfuscatedPositions, Positions, Suffixes};
            matches!(
                part,
                Positions | Suffixes | Obfuscated | ObfuscatedPositions
            )
        };
        let mut of_each_torrent = self.parts().filter(is_of_each_torrent);
        self.parts().all(is_whole)
            && of_each_torrent.all(|part| self.entries(part) == torrents)
            // A hybrid of BEP 52 has two names.
            && torrents / 2 <= records
            && self.entries(Part::Directories) <= records
            && self.entries(Part::Duplicates) <= records
            && self.entries(Part::Counts) == 1
    }
}

/// The result of inspecting a metainfo file and its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// All files of its content exist and have the right length.
    Served,
    /// Its content is not right, or could not be reached.
    Withdrawn,
    /// The metainfo file cannot be used, so it has no info-hash. It is read again when it changes.
    Unusable,
}

/// Where a record has whether its torrent is private. The two bits above are kept for the names that
/// a torrent has by BEP 52.
const PRIVATE_BIT: u32 = 2;

/// Where a record has [`ContentName::tag`].
const TAG_SHIFT: u32 = u16::BITS - TAG_BITS;

/// How many bits [`ContentName::tag`] has.
pub const TAG_BITS: u32 = 11;

/// A hash of [`TAG_BITS`] + 32 bits of the name of the file or directory that holds a torrent's
/// content. It tells which torrents of a directory a changed file may belong to, without reading
/// the metainfo files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ContentName {
    /// At most [`TAG_BITS`] bits.
    pub tag: u16,
    /// The other bits.
    pub hash: u32,
}

impl ContentName {
    /// Hashes a name.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let mut hash = Fnv::default();
        hash.add(name);
        let [low, high, ..] = hash.fold().to_le_bytes();
        let tag = u16::from_le_bytes([low, high]) >> TAG_SHIFT;
        // No name contains this byte, so the second hash differs from that of every name.
        hash.add(&[0]);
        ContentName {
            tag,
            hash: hash.fold(),
        }
    }
}

/// The facts about a metainfo file and its torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Meaningless for [`State::Unusable`].
    pub info_hash: InfoHash,
    /// The result of the last inspection.
    pub state: State,
    /// Whether peers may come from the trackers only (BEP 27).
    pub private: bool,
    /// Of the content.
    pub content_name: ContentName,
    /// Of the metainfo file.
    pub stamp: FileStamp,
}

/// The absolute path of a metainfo file. Paths have the order of an index: by the components of the
/// directory, then by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MetainfoPath {
    /// The directory.
    pub directory: PathBuf,
    /// The name in it.
    pub name: OsString,
}

impl MetainfoPath {
    /// `None` for a path without a name, such as `/`.
    #[must_use]
    pub fn new(path: &Path) -> Option<Self> {
        Some(MetainfoPath {
            directory: path.parent()?.to_path_buf(),
            name: path.file_name()?.to_owned(),
        })
    }

    /// The path in one piece.
    #[must_use]
    pub fn to_path_buf(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// The record of a metainfo file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) facts: Facts,
    /// The index of its directory.
    pub(super) directory: u32,
    /// Where its name starts; 40 bits of it are kept.
    pub(super) name_offset: u64,
    pub(super) name_length: u8,
    /// Its list of announce URLs.
    pub(super) trackers: TrackerListNo,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let state = match self.facts.state {
            State::Served => 0_u16,
            State::Withdrawn => 1,
            State::Unusable => 2,
        };
        let private = u16::from(self.facts.private) << PRIVATE_BIT;
        let tag = self.facts.content_name.tag << TAG_SHIFT;
        let low = u64::from(tag | private | state);
        let name = self.name_offset << 24 | u64::from(self.name_length) << 16 | low;
        [
            self.facts.info_hash.0.as_slice(),
            &self.directory.to_le_bytes(),
            &name.to_le_bytes(),
            &self.trackers.0.to_le_bytes(),
            &self.facts.stamp.length.to_le_bytes(),
            &self.facts.stamp.modified_ns.to_le_bytes(),
            &self.facts.content_name.hash.to_le_bytes(),
        ]
        .concat()
    }

    pub(super) fn decode(raw: &[u8; RECORD_BYTES]) -> Self {
        let mut fields = Fields(raw);
        let info_hash = InfoHash(fields.take());
        let directory = fields.u32();
        let name = fields.u64();
        let [low, high, name_length, ..] = name.to_le_bytes();
        let low = u16::from_le_bytes([low, high]);
        let trackers = TrackerListNo(fields.u32());
        let stamp = FileStamp {
            length: fields.u32(),
            modified_ns: i64::from_le_bytes(fields.take()),
        };
        Record {
            facts: Facts {
                info_hash,
                state: match low & 3 {
                    0 => State::Served,
                    1 => State::Withdrawn,
                    _ => State::Unusable,
                },
                private: low >> PRIVATE_BIT & 1 == 1,
                content_name: ContentName {
                    tag: low >> TAG_SHIFT,
                    hash: fields.u32(),
                },
                stamp,
            },
            directory,
            name_offset: name >> 24,
            name_length,
            trackers,
        }
    }
}

/// A directory with metainfo files in it. Its path and its records end where those of the next
/// directory start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Directory {
    pub(super) path_offset: u64,
    pub(super) first_record: RecordNo,
}

impl Directory {
    pub(super) fn encode(&self) -> Vec<u8> {
        let path_offset = self.path_offset.to_le_bytes();
        [path_offset.as_slice(), &self.first_record.0.to_le_bytes()].concat()
    }

    pub(super) fn decode(raw: &[u8; DIRECTORY_BYTES]) -> Self {
        let mut fields = Fields(raw);
        Directory {
            path_offset: fields.u64(),
            first_record: RecordNo(fields.u32()),
        }
    }
}

pub(super) fn encode_duplicate((later, first): (RecordNo, RecordNo)) -> Vec<u8> {
    [later, first].map(|record| record.0.to_le_bytes()).concat()
}

pub(super) fn decode_duplicate(raw: &[u8; DUPLICATE_BYTES]) -> (RecordNo, RecordNo) {
    let mut fields = Fields(raw);
    (RecordNo(fields.u32()), RecordNo(fields.u32()))
}

/// The number of torrents in an index.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Torrents whose content was right.
    pub served: u64,
    /// Metainfo files and directories that are refused.
    pub refused: u64,
}

impl Counts {
    /// Counts a metainfo file.
    pub fn add(&mut self, state: State, is_served: bool) {
        if let Some(number) = self.of(state, is_served) {
            *number += 1;
        }
    }

    /// Counts a metainfo file no more. The counts of an index are not trusted: there may have been none.
    pub fn remove(&mut self, state: State, is_served: bool) {
        if let Some(number) = self.of(state, is_served) {
            *number = number.saturating_sub(1);
        }
    }

    /// The number that a metainfo file counts in. `None` for one whose torrent is served from another file.
    fn of(&mut self, state: State, is_served: bool) -> Option<&mut u64> {
        match state {
            _ if is_served => Some(&mut self.served),
            State::Served => None,
            State::Withdrawn | State::Unusable => Some(&mut self.refused),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [self.served, self.refused].map(u64::to_le_bytes).concat()
    }

    pub(super) fn decode(raw: &[u8; COUNTS_BYTES]) -> Self {
        let mut fields = Fields(raw);
        Counts {
            served: fields.u64(),
            refused: fields.u64(),
        }
    }
}

/// The first eight bytes of an info-hash as a number that sorts like them.
pub(super) fn prefix(info_hash: &InfoHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = info_hash.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The bytes of an info-hash behind its prefix.
pub(super) fn suffix(info_hash: &InfoHash) -> [u8; SUFFIX_BYTES] {
    let suffix = info_hash.0.last_chunk();
    *suffix.expect("an info-hash is longer")
}

/// Appends byte strings, each after its length in 4 bytes.
pub(super) fn encode_strings<'a>(strings: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    for string in strings {
        let length =
            u32::try_from(string.len()).expect("paths and URLs are below METAINFO_MAX_BYTES");
        out.extend(length.to_le_bytes());
        out.extend(string);
    }
}

/// The inverse of [`encode_strings`]; `None` when the bytes end within a string.
pub(super) fn decode_strings(mut raw: &[u8]) -> Option<Vec<&[u8]>> {
    let mut strings = Vec::new();
    while !raw.is_empty() {
        let (length, rest) = raw.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (string, rest) = rest.split_at_checked(length)?;
        strings.push(string);
        raw = rest;
    }
    Some(strings)
}

/// Appends announce URLs in tiers (BEP 12) as strings, with an empty one between two tiers.
pub(super) fn encode_trackers(tiers: &[Vec<String>], out: &mut Vec<u8>) {
    for (number, tier) in tiers.iter().enumerate() {
        let separator = (number > 0).then_some(b"".as_slice());
        let urls = tier.iter().map(String::as_bytes);
        encode_strings(separator.into_iter().chain(urls), out);
    }
}

/// The inverse of [`encode_trackers`]; `None` when the bytes are damaged.
pub(super) fn decode_trackers(raw: &[u8]) -> Option<Vec<Vec<String>>> {
    let strings = decode_strings(raw)?;
    let tiers = strings.split(|string| string.is_empty()).map(|tier| {
        let url = |url: &&[u8]| String::from_utf8(url.to_vec()).ok();
        tier.iter().map(url).collect::<Option<Vec<_>>>()
    });
    let tiers: Vec<Vec<String>> = tiers.collect::<Option<_>>()?;
    Some(tiers.into_iter().filter(|tier| !tier.is_empty()).collect())
}

/// Reads one field after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .0
            .split_first_chunk()
            .expect("an entry has all its fields");
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let mut header = Header::default();
        let mut offset = HEADER_BYTES as u64;
        let widths = [
            52 * 3,
            17,
            12 * 2,
            30,
            40,
            8 * 2,
            8,
            16,
            99,
            8 * 3,
            4 * 3,
            12 * 3,
            6 * 3,
            4 * 3,
        ];
        for (number, (part, length)) in Part::all().into_iter().zip(widths).enumerate() {
            let checksum = [u8::try_from(number).unwrap(); 20];
            let section = Section {
                offset,
                length,
                checksum,
            };
            header.set_section(part, section);
            offset += length;
        }
        header
    }

    fn raw(header: &Header) -> [u8; HEADER_BYTES] {
        header.encode().try_into().unwrap()
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = header();
        assert_eq!(Header::decode(&raw(&header)).unwrap(), header);
        assert_eq!(header.entries(Part::Records), 3);
        assert_eq!(header.section(Part::Names).length, 17);
        assert_eq!(header.end(), HEADER_BYTES as u64 + 508);
    }

    #[test]
    fn every_changed_byte_of_the_header_is_noticed() {
        let good = raw(&header());
        for at in 0..header_used_bytes(SECTIONS) + CHECKSUM_BYTES {
            let mut raw = good;
            raw[at] ^= 1;
            let error = Header::decode(&raw).unwrap_err();
            match at {
                0..8 => assert!(matches!(error, Fault::NotAnIndex)),
                8..12 => assert!(matches!(error, Fault::Version(..))),
                _ => assert!(matches!(error, Fault::Damaged("header"))),
            }
        }
    }

    #[test]
    fn parts_that_do_not_fit_together_are_refused() {
        for (part, length) in [
            (Part::Records, 53),
            (Part::Records, 52),
            (Part::Prefixes, 16),
            (Part::Directories, 12 * 4),
            (Part::Duplicates, 9),
            (Part::Counts, 8),
            (Part::Suffixes, 12 * 2),
            (Part::Obfuscated, 6 * 4),
            (Part::ObfuscatedPositions, 4),
            (Part::Prefixes, 8 << 40),
        ] {
            let mut header = header();
            let section = Section {
                length,
                ..header.section(part)
            };
            header.set_section(part, section);
            let error = Header::decode(&raw(&header)).unwrap_err();
            let is_damage = matches!(error, Fault::Damaged("header"));
            assert!(is_damage, "{part:?} {length}");
        }
    }

    #[test]
    fn a_torrent_costs_86_bytes_and_its_name() {
        let plain = RECORD_BYTES + PREFIX_BYTES + POSITION_BYTES + SUFFIX_BYTES;
        assert_eq!(plain + OBFUSCATED_BYTES + POSITION_BYTES, 86);
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        for (state, private) in [
            (State::Served, true),
            (State::Withdrawn, false),
            (State::Unusable, false),
        ] {
            let record = Record {
                facts: Facts {
                    info_hash: InfoHash(std::array::from_fn(|at| u8::try_from(at).unwrap() + 1)),
                    state,
                    private,
                    content_name: ContentName {
                        tag: (1 << TAG_BITS) - 2,
                        hash: 0xdead_beef,
                    },
                    stamp: FileStamp {
                        length: 8192,
                        modified_ns: -5,
                    },
                },
                directory: 0x1234_5678,
                name_offset: (1 << 40) - 2,
                name_length: 255,
                trackers: TrackerListNo(77),
            };
            let raw = record.encode().try_into().unwrap();
            assert_eq!(Record::decode(&raw), record);
            assert_eq!(prefix(&record.facts.info_hash), 0x0102_0304_0506_0708);
            let suffix = suffix(&record.facts.info_hash);
            assert!(suffix.into_iter().eq(9..=20));
        }
        let directory = Directory {
            path_offset: u64::MAX,
            first_record: RecordNo(5),
        };
        let raw = directory.encode().try_into().unwrap();
        assert_eq!(Directory::decode(&raw), directory);
    }

    #[test]
    fn tracker_lists_keep_their_tiers() {
        let list = |tiers: &[&[&str]]| -> Vec<Vec<String>> {
            let tier = |tier: &&[&str]| tier.iter().map(|url| (*url).to_owned()).collect();
            tiers.iter().map(tier).collect()
        };
        for tiers in [
            list(&[]),
            list(&[&["http://a"]]),
            list(&[&["a", "b\n"], &["c"], &["d", "e"]]),
        ] {
            let mut raw = Vec::new();
            encode_trackers(&tiers, &mut raw);
            assert_eq!(decode_trackers(&raw), Some(tiers));
            for end in 1..raw.len() {
                // A cut in the middle of a string is noticed, one between strings is a shorter list.
                let _ = decode_trackers(&raw[..end]);
            }
        }
        assert_eq!(decode_trackers(&[1, 0, 0, 0]), None);
        assert_eq!(decode_trackers(&[1, 0, 0, 0, 0xff]), None);
        assert_eq!(decode_trackers(&[0xff; 4]), None);
    }

    #[test]
    fn the_page_of_the_format_has_its_sections_and_widths() {
        let page = include_str!("../../../docs/INDEX.md");
        let row = |part: Part| match part.name_and_width() {
            (name, 1) => format!("| {name} | | "),
            (name, width) => format!("| {name} | {width} | "),
        };
        let rows =
            Part::all().map(|part| page.find(&row(part)).unwrap_or_else(|| panic!("{part:?}")));
        assert!(rows.is_sorted(), "the sections have another order");
        let checksum = 12 + SECTIONS * SECTION_BYTES;
        assert_eq!(header_used_bytes(SECTIONS), checksum);
        let end = checksum + CHECKSUM_BYTES;
        for text in [
            format!("Version {VERSION}."),
            format!("Version {VERSION_BEFORE} is"),
            format!("the last {} sections", SECTIONS - SECTIONS_BEFORE),
            format!("{HEADER_BYTES} bytes, the rest zero"),
            format!("| 12 | {SECTIONS} × {SECTION_BYTES} |"),
            format!("| {checksum} | {CHECKSUM_BYTES} |"),
            format!("| {end} | {} | zeros |", HEADER_BYTES - end),
        ] {
            assert!(page.contains(&text), "{text}");
        }
    }

    /// The layout of a record as the page has it, byte for byte.
    #[test]
    fn a_record_has_the_documented_bytes() {
        let record = Record {
            facts: Facts {
                info_hash: InfoHash([0xaa; 20]),
                state: State::Withdrawn,
                private: true,
                content_name: ContentName {
                    tag: 0b11,
                    hash: 0x4433_2211,
                },
                stamp: FileStamp {
                    length: 0x0403_0201,
                    modified_ns: -2,
                },
            },
            directory: 7,
            name_offset: 0x05_0403_0201,
            name_length: 9,
            trackers: TrackerListNo(5),
        };
        let mut expected = vec![0xaa; 20];
        expected.extend([7, 0, 0, 0]);
        expected.extend([0b110_0101, 0, 9, 1, 2, 3, 4, 5]);
        expected.extend([5, 0, 0, 0]);
        expected.extend([1, 2, 3, 4]);
        expected.extend([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        expected.extend([0x11, 0x22, 0x33, 0x44]);
        assert_eq!(record.encode(), expected);
    }
}
