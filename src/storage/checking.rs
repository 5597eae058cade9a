//! Pieces that are hashed before they are served (`--verify=lazy`), as the loop sees it.
//!
//! Owns who waits for which piece, and when a piece that could not be served is inspected again.
//! `ledger` has the results and `hashing` the work. It has a pool of its own, so that hashing takes no
//! threads from the readers.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::Waker;

use super::hashing::{self, Found, HashOutcome, files_of};
use super::jobs::attempt;
use super::ledger::{Ledger, PieceStatus, Stamps};
use super::ledger_writer::LedgerWriter;
use super::{Completion, FileKey, QueueFull, Storage};
use crate::disks::{Disk, Disks};
use crate::metrics::PieceCounters;
use crate::peer::key::PeerKey;
use crate::timers::Time;
use crate::torrent::catalogue::Torrent;
use crate::torrent::printable::Printable;
use crate::torrent::reader::Stamp;
use crate::wire::message::InfoHash;
use crate::workers::{Failures, Pool, PoolConfig, Step, contained};

/// Threads that hash, half of them for one disk. They are nicer than the loop, so that on a machine with
/// two cores it keeps one.
const HASHERS: usize = 4;

/// Most pieces that wait to be hashed: as many as there are peers that may wait for one each.
const HASHES_MAX: usize = 16 * 1024;

/// How nice these threads are: each has a third of the weight of the loop.
const NICENESS: i32 = 5;

/// How much is remembered: some 100,000 torrents of one file, or 250 million pieces.
const LEDGER_BYTES_MAX: usize = 32 << 20;

/// [`super::REVALIDATE_MS`] with `--verify=lazy`: each file in use is compared with its path this often.
const LAZY_REVALIDATE_MS: u64 = 2_000;

/// How long after its last check a mapping is used no more. It is checked at [`LAZY_REVALIDATE_MS`] while
/// it is served, so this holds up nobody but who asks for a file that was idle.
const STALE_MS: u64 = 4_000;

/// How long what was found out waits to be remembered, so that a torrent that is being hashed is not
/// written again for each of its pieces. That much is hashed again after a crash.
const SAVE_DELAY_MS: u64 = 30_000;

/// How soon the rest follows when there is more than one batch.
const SAVE_MORE_MS: u64 = 100;

/// Bytes after which a batch ends: few, since the loop makes them. It ends with a whole entry, and that
/// of a torrent with hundreds of thousands of files has 20 bytes for each that was hashed.
const BATCH_BYTES: usize = 256 << 10;

/// Names a piece.
type PieceName = (InfoHash, u32);

/// What is said of a piece with another hash than it should have.
#[derive(Clone, Copy, Debug)]
pub struct BadPiece<'a> {
    /// What it is a piece of.
    pub torrent: &'a Torrent,
    /// Its number.
    pub piece: u32,
}

impl fmt::Display for BadPiece<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { torrent, piece } = *self;
        write!(formatter, "piece {piece} of {} is bad", torrent.info_hash)?;
        let mut files = files_of(torrent, piece);
        if let Some(file) = files.next().and_then(|first| torrent.file(first)) {
            let path = torrent.root.join(file.path);
            write!(formatter, ": {}", Printable::path(&path))?;
        }
        match files.count() {
            0 => Ok(()),
            others => write!(formatter, " or {others} files behind it"),
        }
    }
}

/// Where the first file of a piece is. The others are near, as a rule.
fn path_of(torrent: &Torrent, piece: u32) -> PathBuf {
    torrent.content_path(files_of(torrent, piece).next().unwrap_or(0))
}

/// The pool of hashers, who waits for it, and the ledger.
pub(super) struct Checking {
    ledger: Ledger,
    pub(super) pool: Pool<Disk, HashOutcome>,
    disks: Disks,
    /// Who waits for a piece: it is hashed once, however many peers there are.
    waiting: HashMap<PieceName, Vec<PeerKey>>,
    /// Pieces that could not be hashed, or are bad and were looked at again.
    failed: Failures<PieceName>,
    good: u64,
    bad: u64,
    /// What is known outlasts the process, where it can.
    ledger_writer: Option<LedgerWriter>,
    /// When the next batch is made.
    save_at: Option<Time>,
    /// One that found no room.
    batch: Vec<u8>,
}

impl Checking {
    fn new(waker: Arc<Waker>, disks: Disks) -> Self {
        let config = PoolConfig {
            niceness: NICENESS,
            threads_max: HASHERS,
            ..PoolConfig::for_disks("hasher", HASHERS / 2, HASHES_MAX)
        };
        Self {
            ledger: Ledger::new(LEDGER_BYTES_MAX),
            pool: Pool::new(waker, config),
            disks,
            waiting: HashMap::new(),
            failed: Failures::default(),
            good: 0,
            bad: 0,
            ledger_writer: None,
            save_at: None,
            batch: Vec::new(),
        }
    }

    /// When [`Checking::save_due`] has something to do.
    pub(super) fn poll_at(&self) -> Option<Time> {
        self.save_at
    }

    /// Has the changes of the ledger written when that is due. Never blocks.
    pub(super) fn save_due(&mut self, now: Time) {
        let Some(ledger_writer) = &self.ledger_writer else {
            self.save_at = None;
            return;
        };
        match self.save_at {
            None if self.ledger.has_changed() => self.save_at = Some(now.after(SAVE_DELAY_MS)),
            Some(at) if at <= now => {
                self.ledger.take_changed(&mut self.batch, BATCH_BYTES);
                let batch = mem::take(&mut self.batch);
                match ledger_writer.write(batch) {
                    Ok(()) => {}
                    Err(Some(batch)) => self.batch = batch,
                    Err(None) => self.ledger_writer = None,
                }
                let more = !self.batch.is_empty() || self.ledger.has_changed();
                self.save_at = more.then(|| now.after(SAVE_MORE_MS));
            }
            _ => {}
        }
    }

    fn status(&mut self, torrent: &Arc<Torrent>, piece: u32, now: Time) -> PieceStatus {
        let name = (torrent.info_hash, piece);
        let status = self.ledger.status(&torrent.info_hash, piece);
        match status {
            PieceStatus::Good => {}
            PieceStatus::Unknown | PieceStatus::Bad if self.failed.contains(&name, now) => {
                return PieceStatus::Bad;
            }
            PieceStatus::Unknown => {}
            PieceStatus::Bad => {
                let path = path_of(torrent, piece);
                let torrent = Arc::clone(torrent);
                let inspect = move |disk: Result<Disk, QueueFull>| {
                    disk.ok()?;
                    let stamps = contained(|| hashing::inspect(&torrent, piece)).ok()?;
                    let found = Found::Stamps(stamps);
                    Some(HashOutcome {
                        torrent,
                        piece,
                        found,
                    })
                };
                // When the queue is full the next request tries again.
                if self.disks.submit(&self.pool, path, inspect).is_ok() {
                    self.failed.add(name, now);
                }
            }
        }
        status
    }

    /// Files were seen with these stamps. Returns true if pieces of any are to be hashed again.
    fn seen(&mut self, torrent: &Torrent, stamps: &[(u32, Stamp)]) -> bool {
        let seen = |changed, &(file, stamp): &_| self.ledger.seen(torrent, file, stamp) | changed;
        stamps.iter().fold(false, seen)
    }
}

impl Storage {
    /// From now on no piece is served that was not hashed since its files have changed.
    pub fn check_pieces(&mut self) {
        self.checking = Some(Checking::new(self.pool.waker(), self.disks.clone()));
        self.files.set_ages(LAZY_REVALIDATE_MS, STALE_MS);
    }

    /// Takes up what an earlier process has found out of pieces, and remembers in this file what this
    /// one does. Where that cannot be, the log says so, and it is found out again by the next. Reads
    /// the file: this is for the start.
    pub fn remember(&mut self, path: &Path) {
        let Some(checking) = &mut self.checking else {
            return;
        };
        match LedgerWriter::begin(path.to_path_buf()) {
            Ok((ledger_writer, known)) => {
                known
                    .into_iter()
                    .for_each(|kept| checking.ledger.restore(kept));
                checking.ledger_writer = Some(ledger_writer);
            }
            Err(error) => {
                let path = Printable::path(&path);
                let reason = match error.kind() {
                    ErrorKind::WouldBlock => "another process has it".to_owned(),
                    _ => error.to_string(),
                };
                log::warn!("{path}: {reason}: verified pieces are not saved");
            }
        }
    }

    /// The process ends: what was found out is written, which may take a moment.
    pub fn end(&mut self) {
        let Some(checking) = &mut self.checking else {
            return;
        };
        if let Some(ledger_writer) = checking.ledger_writer.take() {
            let mut batch = mem::take(&mut checking.batch);
            checking.ledger.take_changed(&mut batch, usize::MAX);
            ledger_writer.end(batch);
        }
    }

    /// Whether a piece may be served, from memory. One that could not be read a moment ago counts as bad.
    pub fn piece_status(&mut self, torrent: &Arc<Torrent>, piece: u32, now: Time) -> PieceStatus {
        match &mut self.checking {
            Some(checking) => checking.status(torrent, piece, now),
            None => PieceStatus::Good,
        }
    }

    /// Has a piece hashed. There is one job for each; later peers join those who wait for it.
    ///
    /// # Errors
    /// [`QueueFull`]; then no [`Completion`] follows.
    pub fn hash(
        &mut self,
        peer: PeerKey,
        torrent: &Arc<Torrent>,
        piece: u32,
    ) -> Result<(), QueueFull> {
        let checking = self.checking.as_mut();
        let checking = checking.expect("without checking, each piece counts as good");
        let name = (torrent.info_hash, piece);
        if let Some(peers) = checking.waiting.get_mut(&name) {
            peers.push(peer);
            return Ok(());
        }
        let hashes = checking.ledger.hashes_at(&torrent.info_hash);
        let torrent = Arc::clone(torrent);
        let outcome = move |torrent, result| {
            Step::Done(Some(HashOutcome {
                torrent,
                piece,
                found: Found::Hashed(result),
            }))
        };
        let (metainfo, disks) = (torrent.metainfo_path(), checking.disks.clone());
        // The hash is on the disk of the metainfo file, and the piece may be on another.
        (checking.disks).submit_step(&checking.pool, metainfo, move |disk| {
            match attempt(|| Ok((disk?, hashing::wanted(&torrent, piece, hashes)?))) {
                Err(error) => outcome(torrent, Err(error)),
                Ok((disk, wanted)) => disks.go(&disk, path_of(&torrent, piece), move |disk| {
                    let result = attempt(|| {
                        disk?;
                        hashing::hash(&torrent, piece, wanted)
                    });
                    outcome(torrent, result)
                }),
            }
        })?;
        checking.waiting.insert(name, vec![peer]);
        Ok(())
    }

    /// Takes up what was found out since the last time.
    pub(super) fn collect_pieces(&mut self, completions: &mut Vec<Completion>) {
        let outcomes = self.checking.as_ref();
        let outcomes = outcomes.map(|checking| checking.pool.take_outcomes());
        for outcome in outcomes.into_iter().flatten() {
            completions.extend(self.settle_piece(outcome));
        }
    }

    fn settle_piece(&mut self, outcome: HashOutcome) -> Option<Completion> {
        let checking = self.checking.as_mut().expect("it has hashed the piece");
        let HashOutcome {
            torrent,
            piece,
            found,
        } = outcome;
        let name = (torrent.info_hash, piece);
        let (stamps, completion) = match found {
            Found::Stamps(stamps) => {
                if checking.seen(&torrent, &stamps) {
                    checking.failed.remove(&name);
                }
                (stamps, None)
            }
            Found::Hashed(result) => {
                let peers = checking.waiting.remove(&name);
                let peers = peers.expect("an entry stays until its only job has ended");
                if !matches!(&result, Ok(hashed) if hashed.is_good) {
                    checking.failed.add(name, self.now);
                }
                let (stamps, result) = match result {
                    Ok(hashed) => {
                        checking.good += u64::from(hashed.is_good);
                        checking.bad += u64::from(!hashed.is_good);
                        checking.ledger.settle(&torrent, piece, &hashed);
                        (hashed.stamps, Ok(hashed.is_good))
                    }
                    Err(error) => (Stamps::new(), Err(error)),
                };
                let completion = Completion::Piece {
                    peers,
                    torrent: Arc::clone(&torrent),
                    piece,
                    result,
                };
                (stamps, Some(completion))
            }
        };
        // A mapping of what was at this path before would be sent in place of what was hashed.
        for (file, stamp) in stamps {
            let key = FileKey::new(&torrent, file);
            let mapped = self.files.peek(&key);
            if mapped.is_some_and(|content| content.stamp() != stamp) {
                self.invalidate(key);
            }
        }
        completion
    }

    /// Files were opened with these stamps. Returns true if any had another when its pieces were hashed.
    pub(super) fn seen(&mut self, torrent: &Torrent, stamps: &[(u32, Stamp)]) -> bool {
        let checking = self.checking.as_mut();
        checking.is_some_and(|checking| checking.seen(torrent, stamps))
    }

    /// What was counted of pieces so far.
    pub(super) fn piece_counters(&self) -> Option<PieceCounters> {
        let checking = self.checking.as_ref()?;
        Some(PieceCounters {
            good: checking.good,
            bad: checking.bad,
            quarantined: checking.ledger.bad_pieces(),
            queued: checking.pool.load().queued,
        })
    }

    /// Pieces that are not served because they are not what their hashes say, in the order of their
    /// torrents.
    pub fn bad_pieces(&self) -> impl Iterator<Item = (InfoHash, u32)> {
        self.checking
            .iter()
            .flat_map(|checking| checking.ledger.bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locked::tests::soon;
    use crate::storage::StorageLimits;
    use crate::storage::ledger::tests::{hashed, torrent};
    use mio::{Poll, Token};
    use std::time::{Duration, Instant};

    #[test]
    fn verified_pieces_are_written_after_half_a_minute_and_not_before() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let limits = StorageLimits {
            mappings: 1,
            readers: 1,
        };
        let mut storage = Storage::new(waker, limits, Disks::read());
        storage.check_pieces();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verified");
        storage.remember(&path);
        let length = || std::fs::metadata(&path).unwrap().len();
        let empty = length();
        let start = Time(5_000);
        storage.run_due(start);
        assert_eq!(storage.poll_at(), None);

        let (torrent, _content) = torrent("t");
        let ledger = &mut storage.checking.as_mut().unwrap().ledger;
        ledger.settle(&torrent, 0, &hashed(true, &[0]));
        storage.run_due(start);
        let due = start.after(SAVE_DELAY_MS);
        assert_eq!(storage.poll_at(), Some(due));
        storage.run_due(due);
        assert_eq!(storage.poll_at(), None);
        let until = Instant::now() + Duration::from_secs(20);
        while length() == empty {
            assert!(Instant::now() < until, "nothing is written");
            std::thread::yield_now();
        }
        storage.end();
        let (_, known) = soon(|| LedgerWriter::begin(path.clone()));
        assert_eq!(known.len(), 1);
    }
}
