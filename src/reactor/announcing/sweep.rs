//! The threads that read an index for the announcer.
//!
//! One streams the torrents of the index once, the other reads the info-hashes of those that are
//! announced next. Their channels are bounded.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};

use mio::Waker;

use crate::library::catalogue::overlay::Snapshot;
use crate::library::index::format::{RecordNo, TrackerListNo};
use crate::library::index::{Index, IndexError};
use crate::torrent::id::TorrentId;
use crate::tracker::runs::RUN_IDS;
use crate::tracker::shard::Shard;
use crate::wire::message::InfoHash;
use crate::workers::{self, wake};

/// Torrents in one chunk, which the loop adds in one turn. The rest of a run comes with them.
const CHUNK_TORRENTS: usize = 4096;

/// Chunks that wait for the loop: the thread that reads them waits for room.
const CHUNKS: usize = 4;

/// Info-hashes in one batch at most.
pub(super) const BATCH: usize = 4096;

/// Batches that are being read at most.
const BATCHES: usize = 2;

/// Part of an index.
pub(super) enum IndexChunk {
    /// A list of trackers, its number, and a torrent that has it.
    List(u32, Arc<[Vec<String>]>, InfoHash),
    /// Torrents with the numbers of lists that have come. A run is in one chunk.
    Torrents(Vec<(TorrentId, u32)>),
    /// There is no more.
    End,
}

enum Question {
    /// Info-hashes are read from this index from now on.
    Snapshot(Snapshot),
    Ids(Vec<TorrentId>),
}

/// Info-hashes by torrent; `None` for one that cannot be read.
pub(super) type Hashes = Vec<(TorrentId, Option<InfoHash>)>;

/// Both threads. They end when this is dropped.
pub(super) struct Sweep {
    chunks: Option<Receiver<IndexChunk>>,
    questions: Sender<Question>,
    answers: Receiver<Hashes>,
    in_flight: usize,
}

impl Sweep {
    /// Starts to read an index whose torrents have the ids of their records, as far as `shard` has
    /// them. Without `uses_own_lists`, all torrents get an empty list of trackers.
    pub(super) fn start(
        snapshot: &Snapshot,
        shard: Option<Shard>,
        uses_own_lists: bool,
        waker: &Arc<Waker>,
    ) -> io::Result<Self> {
        let (chunk_sender, chunks) = mpsc::sync_channel(CHUNKS);
        let stream = Stream {
            index: Arc::clone(&snapshot.index),
            shard,
            uses_own_lists,
            out: chunk_sender,
            waker: Arc::clone(waker),
        };
        workers::spawn("stream", move || stream.run())?;

        // At most `BATCHES` wait in either, and one snapshot for each refresh of the index.
        let (questions, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let reader = Reader {
            snapshot: snapshot.clone(),
            answer,
            waker: Arc::clone(waker),
        };
        workers::spawn("hashes", move || reader.run(&asked))?;
        Ok(Self {
            chunks: Some(chunks),
            questions,
            answers,
            in_flight: 0,
        })
    }

    /// The next part of the index, if it has been read.
    pub(super) fn chunk(&mut self) -> Option<IndexChunk> {
        match self.chunks.as_ref()?.try_recv() {
            Ok(IndexChunk::End) | Err(TryRecvError::Disconnected) => {
                self.chunks = None;
                Some(IndexChunk::End)
            }
            Ok(chunk) => Some(chunk),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Another index replaces the one that is read. Ids stand for the same torrents.
    pub(super) fn replace(&self, snapshot: Snapshot) {
        // If the thread has ended, the next batch will show it.
        let _ = self.questions.send(Question::Snapshot(snapshot));
    }

    /// Returns true if another batch may be read.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < BATCHES
    }

    /// Has info-hashes read. If the thread has ended, returns at once that they cannot be read.
    pub(super) fn ask(&mut self, ids: Vec<TorrentId>) -> Option<Hashes> {
        match self.questions.send(Question::Ids(ids)) {
            Ok(()) => {
                self.in_flight += 1;
                None
            }
            Err(mpsc::SendError(Question::Ids(ids))) => Some(unreadable(&ids)),
            Err(_) => None,
        }
    }

    /// The next batch that has been read.
    pub(super) fn answer(&mut self) -> Option<Hashes> {
        let answer = self.answers.try_recv().ok()?;
        self.in_flight -= 1;
        Some(answer)
    }
}

fn unreadable(ids: &[TorrentId]) -> Hashes {
    ids.iter().map(|id| (*id, None)).collect()
}

/// Reads info-hashes.
struct Reader {
    snapshot: Snapshot,
    answer: Sender<Hashes>,
    waker: Arc<Waker>,
}

impl Reader {
    fn run(mut self, asked: &Receiver<Question>) {
        let mut is_logged = false;
        for question in asked {
            let ids = match question {
                Question::Snapshot(snapshot) => {
                    self.snapshot = snapshot;
                    is_logged = false;
                    continue;
                }
                Question::Ids(ids) => ids,
            };
            let hashes = self.read(&ids).unwrap_or_else(|error| {
                if !std::mem::replace(&mut is_logged, true) {
                    log::error!("torrents are not announced: {error}");
                }
                unreadable(&ids)
            });
            if self.answer.send(hashes).is_err() {
                return;
            }
            wake(&self.waker);
        }
    }

    /// Reads in the order of the file, and returns the info-hashes in the order of the ids.
    fn read(&self, ids: &[TorrentId]) -> Result<Hashes, IndexError> {
        let mut hashes = unreadable(ids);
        let mut records: Vec<(RecordNo, usize)> = (0..)
            .zip(ids)
            .filter_map(|(index, id)| Some((self.snapshot.ids.record(*id)?, index)))
            .collect();
        records.sort_unstable();
        let wanted: Vec<RecordNo> = records.iter().map(|(record, _)| *record).collect();
        let found = self.snapshot.index.info_hashes(&wanted)?;
        for ((_, index), info_hash) in records.into_iter().zip(found) {
            let (_, answer) = hashes.get_mut(index).expect("an index of `ids`");
            *answer = info_hash;
        }
        Ok(hashes)
    }
}

/// An index on its way to the loop.
struct Stream {
    index: Arc<Index>,
    shard: Option<Shard>,
    uses_own_lists: bool,
    out: SyncSender<IndexChunk>,
    waker: Arc<Waker>,
}

impl Stream {
    fn run(&self) {
        match self.stream() {
            Ok(true) => log::debug!("all torrents of the index are in the queue"),
            Ok(false) => return,
            Err(error) => log::error!("not all torrents are announced: {error}"),
        }
        self.send(IndexChunk::End);
    }

    /// Returns false if the loop does not read it any more.
    fn stream(&self) -> Result<bool, IndexError> {
        let mut sent: HashSet<TrackerListNo> = HashSet::new();
        // Lists of torrents that are in several files, with a number that no list of the index has.
        let mut joined: HashMap<Vec<TrackerListNo>, u32> = HashMap::new();
        let mut torrents: Vec<(TorrentId, u32)> = Vec::new();
        for served in self.index.served() {
            let served = served?;
            if (self.shard).is_some_and(|shard| !shard.has(&served.info_hash)) {
                continue;
            }
            let id = TorrentId(served.record.0);
            let is_of_last_run = |(last, _): &(TorrentId, u32)| last.0 / RUN_IDS == id.0 / RUN_IDS;
            if torrents.len() >= CHUNK_TORRENTS
                && !torrents.last().is_some_and(is_of_last_run)
                && !self.send(IndexChunk::Torrents(std::mem::take(&mut torrents)))
            {
                return Ok(false);
            }
            let list = match self.uses_own_lists {
                true => served.trackers,
                false => TrackerListNo(0),
            };
            if self.uses_own_lists && served.has_duplicates {
                let lists = self.index.lists_of(served.record, list)?;
                if lists.len() > 1 {
                    let next =
                        u32::MAX - u32::try_from(joined.len()).expect("records have 32 bits");
                    let number = match joined.get(&lists) {
                        Some(number) => *number,
                        None => {
                            let tiers = self.index.all_trackers(&lists)?.into();
                            if !self.send(IndexChunk::List(next, tiers, served.info_hash)) {
                                return Ok(false);
                            }
                            *joined.entry(lists).or_insert(next)
                        }
                    };
                    torrents.push((id, number));
                    continue;
                }
            }
            if sent.insert(list) && !self.send(self.list(list, served.info_hash)?) {
                return Ok(false);
            }
            torrents.push((id, list.0));
        }
        Ok(self.send(IndexChunk::Torrents(torrents)))
    }

    fn list(&self, list: TrackerListNo, torrent: InfoHash) -> Result<IndexChunk, IndexError> {
        let tiers = match self.uses_own_lists {
            true => self.index.trackers(list)?,
            false => Vec::new(),
        };
        Ok(IndexChunk::List(list.0, tiers.into(), torrent))
    }

    fn send(&self, chunk: IndexChunk) -> bool {
        let sent = self.out.send(chunk).is_ok();
        wake(&self.waker);
        sent
    }
}
