//! Which pieces are known to be good or bad, and for which stamps of their files.
//!
//! It covers the torrents that were requested last, within a bound in bytes, and has the stamps of the
//! files that its results hold for: a file with another stamp makes its pieces unknown again. No I/O.

pub(crate) mod ledger_file;

use std::collections::BTreeSet;
use std::ops::Range;

use lru::LruCache;

use self::ledger_file::LedgerEntry;
use crate::torrent::catalogue::Torrent;
use crate::torrent::reader::Stamp;
use crate::wire::message::InfoHash;

/// What a torrent costs beside its bits and stamps: its entry in the cache, with what the allocator
/// adds.
const RECORD_BYTES: usize = 256;

/// The stamps of some files of one torrent.
pub(super) type Stamps = Vec<(u32, Stamp)>;

/// What is known of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceStatus {
    /// Nothing that holds for its files as they are now: it is to be hashed before it is served.
    Unknown,
    /// It has the right hash.
    Good,
    /// It has another.
    Bad,
}

/// Where the hashes of the pieces lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HashesAt {
    /// In bytes of the metainfo file.
    pub(super) offset: u64,
    /// That of the metainfo file for which it holds.
    pub(super) stamp: Stamp,
}

/// What was found out about a piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hashed {
    pub(super) is_good: bool,
    /// Those of its files, from before they were read until after.
    pub(super) stamps: Stamps,
    pub(super) hashes: HashesAt,
}

/// A bit for each piece.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Bits {
    /// The first piece is the lowest bit of the first. Empty when none is set.
    words: Vec<u64>,
    ones: u64,
}

/// What is known of one torrent.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Record {
    good: Bits,
    bad: Bits,
    /// By file, ascending: that of each file for which a bit is set.
    stamps: Stamps,
    hashes: Option<HashesAt>,
}

/// The results of hashing, the least recently used torrent first to go.
pub(super) struct Ledger {
    records: LruCache<InfoHash, Record>,
    bytes: usize,
    bytes_max: usize,
    /// Torrents with bad pieces.
    with_bad: BTreeSet<InfoHash>,
    bad_pieces: u64,
    /// Torrents of whose good pieces more or less is known than was taken last.
    changed: BTreeSet<InfoHash>,
}

impl Ledger {
    /// One that forgets the torrents that were asked for longest ago beyond so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            records: LruCache::unbounded(),
            bytes: 0,
            bytes_max,
            with_bad: BTreeSet::new(),
            bad_pieces: 0,
            changed: BTreeSet::new(),
        }
    }

    /// Takes up what an earlier process knew, unless something newer is known.
    pub(super) fn restore(&mut self, kept: LedgerEntry) {
        let LedgerEntry {
            info_hash,
            stamps,
            good,
        } = kept;
        if good.ones > 0 && !self.records.contains(&info_hash) {
            let record = Record {
                good,
                stamps,
                ..Record::default()
            };
            self.keep(info_hash, record);
        }
    }

    /// Whether there is something for [`Ledger::take_changed`].
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Appends entries for what has changed (see [`ledger_file`]), until there are so many bytes; the rest
    /// is there for the next time.
    pub(super) fn take_changed(&mut self, out: &mut Vec<u8>, bytes_max: usize) {
        while out.len() < bytes_max
            && let Some(info_hash) = self.changed.pop_first()
        {
            if let Some(record) = self.records.peek(&info_hash) {
                ledger_file::encode(&info_hash, record, out);
            }
        }
    }

    /// What is known of a piece.
    pub(super) fn status(&mut self, info_hash: &InfoHash, piece: u32) -> PieceStatus {
        match self.records.get(info_hash) {
            Some(record) if record.good.has(piece) => PieceStatus::Good,
            Some(record) if record.bad.has(piece) => PieceStatus::Bad,
            _ => PieceStatus::Unknown,
        }
    }

    /// Where the hashes of a torrent lie, when that is known.
    pub(super) fn hashes_at(&self, info_hash: &InfoHash) -> Option<HashesAt> {
        self.records.peek(info_hash)?.hashes
    }

    /// A file was seen with this stamp. Returns true if it had another before: nothing is known of its
    /// pieces any more.
    pub(super) fn seen(&mut self, torrent: &Torrent, file: u32, stamp: Stamp) -> bool {
        let Some(record) = self.records.peek_mut(&torrent.info_hash) else {
            return false;
        };
        let position = record.stamps.binary_search_by_key(&file, |(file, _)| *file);
        let Some((_, known)) = position
            .ok()
            .and_then(|position| record.stamps.get_mut(position))
            .filter(|(_, known)| *known != stamp)
        else {
            return false;
        };
        *known = stamp;
        let pieces = pieces_of(torrent, file);
        self.update(&torrent.info_hash, |record| {
            record.good.clear(pieces.clone());
            record.bad.clear(pieces);
        });
        true
    }

    /// A piece was hashed.
    pub(super) fn settle(&mut self, torrent: &Torrent, piece: u32, hashed: &Hashed) {
        let Hashed {
            is_good,
            ref stamps,
            hashes,
        } = *hashed;
        for &(file, stamp) in stamps {
            self.seen(torrent, file, stamp);
        }
        if !self.records.contains(&torrent.info_hash) {
            self.keep(torrent.info_hash, Record::default());
        }
        self.records.promote(&torrent.info_hash);
        self.update(&torrent.info_hash, |record| {
            record.hashes = Some(hashes);
            // A piece has bytes of all files between its first and its last, so its stamps replace those
            // known of them: one move for a piece, of which a large data set may have many files.
            if let (Some((first, _)), Some((last, _))) = (stamps.first(), stamps.last()) {
                let start = record.stamps.partition_point(|(file, _)| file < first);
                let end = record.stamps.partition_point(|(file, _)| file <= last);
                record.stamps.splice(start..end, stamps.iter().copied());
            }
            let (is, is_not) = match is_good {
                true => (&mut record.good, &mut record.bad),
                false => (&mut record.bad, &mut record.good),
            };
            is.set(piece, torrent.shape.pieces);
            is_not.clear(piece..piece + 1);
        });
        self.make_room();
    }

    /// Changes the record of a torrent, and what is summed up of all records.
    fn update(&mut self, info_hash: &InfoHash, change: impl FnOnce(&mut Record)) {
        let record = self.records.peek_mut(info_hash).expect("it was just found");
        let (bytes, bad, good) = (record.bytes(), record.bad.ones, record.good.ones);
        change(record);
        if record.good.ones != good {
            self.changed.insert(*info_hash);
        }
        self.bytes = self.bytes - bytes + record.bytes();
        self.bad_pieces = self.bad_pieces - bad + record.bad.ones;
        match record.bad.ones {
            0 => self.with_bad.remove(info_hash),
            _ => self.with_bad.insert(*info_hash),
        };
    }

    /// How many pieces are known to be bad.
    pub(super) fn bad_pieces(&self) -> u64 {
        self.bad_pieces
    }

    /// Bad pieces in the order of their torrents.
    pub(super) fn bad(&self) -> impl Iterator<Item = (InfoHash, u32)> {
        self.with_bad.iter().flat_map(|info_hash| {
            let record = self.records.peek(info_hash);
            let pieces = record.into_iter().flat_map(|record| record.bad.iter());
            pieces.map(|piece| (*info_hash, piece))
        })
    }

    /// Adds a record without bad pieces.
    fn keep(&mut self, info_hash: InfoHash, record: Record) {
        self.bytes += record.bytes();
        self.records.put(info_hash, record);
        self.make_room();
    }

    /// The newest stays, however large it is: else its peers would wait for ever.
    fn make_room(&mut self) {
        while self.bytes > self.bytes_max && self.records.len() > 1 {
            let (info_hash, record) = self.records.pop_lru().expect("there are two");
            self.bytes -= record.bytes();
            self.bad_pieces -= record.bad.ones;
            self.with_bad.remove(&info_hash);
            self.changed.remove(&info_hash);
        }
    }
}

impl Record {
    /// What it costs in memory, about.
    fn bytes(&self) -> usize {
        let bits = self.good.words.len() + self.bad.words.len();
        RECORD_BYTES + bits * size_of::<u64>() + self.stamps.len() * size_of::<(u32, Stamp)>()
    }
}

impl Bits {
    fn of(words: Vec<u64>) -> Self {
        let ones = words.iter().map(|word| u64::from(word.count_ones())).sum();
        match ones {
            0 => Self::default(),
            ones => Self { words, ones },
        }
    }

    fn has(&self, piece: u32) -> bool {
        let (word, bit) = bit_of(piece);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Sets one of so many bits.
    fn set(&mut self, piece: u32, pieces: u32) {
        if self.words.len() < words_for(pieces) {
            self.words.resize(words_for(pieces), 0);
        }
        let (word, bit) = bit_of(piece);
        let word = (self.words.get_mut(word)).expect("a torrent has a bit for each piece");
        self.ones += u64::from(*word & bit == 0);
        *word |= bit;
    }

    /// Clears a range: a millisecond for a million pieces.
    fn clear(&mut self, pieces: Range<u32>) {
        for piece in pieces {
            let (word, bit) = bit_of(piece);
            // There may be none yet, or too few in a file that says otherwise.
            let Some(word) = self.words.get_mut(word) else {
                break;
            };
            self.ones -= u64::from(*word & bit != 0);
            *word &= !bit;
        }
        if self.ones == 0 {
            self.words = Vec::new();
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let words = (0_u32..).step_by(64).zip(&self.words);
        words.flat_map(|(first, word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| first + bit)
        })
    }
}

fn words_for(pieces: u32) -> usize {
    pieces.div_ceil(64) as usize
}

/// The word of a piece, and its bit there.
fn bit_of(piece: u32) -> (usize, u64) {
    ((piece / 64) as usize, 1 << (piece % 64))
}

/// The pieces that have bytes of a file.
fn pieces_of(torrent: &Torrent, file: u32) -> Range<u32> {
    let span = torrent.layout.span(file as usize);
    let span = span.expect("the file is one of the torrent");
    let piece_length = u64::from(torrent.shape.piece_length);
    let narrow = |piece| u32::try_from(piece).expect("a torrent has fewer pieces");
    narrow(span.start / piece_length)..narrow(span.end.div_ceil(piece_length))
}

#[cfg(test)]
pub(super) mod tests;
