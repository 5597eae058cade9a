//! What is served, by the paths of metainfo files: an index, and what has changed since.
//!
//! Owns the numbers of torrents and what becomes of a torrent when a path is looked at again. It must
//! not know why it is, nor who is told. It blocks.

mod affected;
mod duplicates;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lookup::{Base, Differs};
use super::merge::Difference;
use crate::library::index::format::Facts;
use crate::library::index::format::State;
use crate::library::index::{Counts, Entry, IndexError};
use crate::library::scan::inspect::Looked;
use crate::library::scan::walk::is_away;
use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::id::TorrentId;
use crate::torrent::reader::Reader;
use crate::torrent::refusal::is_metainfo_name;
use crate::wire::message::InfoHash;
pub(super) use affected::Concerned;

/// A torrent that is served from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// See [`crate::torrent::catalogue::Torrent::id`]; never used before.
    pub id: TorrentId,
    /// What names it on the wire.
    pub info_hash: InfoHash,
    /// Announce URLs in tiers (BEP 12).
    pub announce: Arc<[Vec<String>]>,
    /// Where it is; `None` when the index that is served says so.
    pub metainfo: Option<Arc<Path>>,
}

/// A torrent that is served no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed {
    /// What it was served as.
    pub id: TorrentId,
    /// What names it on the wire.
    pub info_hash: InfoHash,
    /// Whether its metainfo file is there, and the content is not what it was.
    pub of_content: bool,
}

/// One step of what changes. A torrent that changes is removed and added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// See [`Added`].
    Added(Added),
    /// See [`Removed`].
    Removed(Removed),
}

/// The directory and name of a metainfo file, in the order of an index.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Key {
    pub(super) directory: PathBuf,
    pub(super) name: OsString,
}

impl Key {
    pub(super) fn new(path: &Path) -> Option<Self> {
        Some(Key {
            directory: path.parent()?.to_path_buf(),
            name: path.file_name()?.to_owned(),
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// A metainfo file that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct There {
    pub(super) facts: Facts,
    /// By which it is served; `None` when it is not, or another file with its info-hash is.
    pub(super) id: Option<TorrentId>,
    /// What stands for its record when that is of no use.
    pub(super) reserved: Option<TorrentId>,
}

/// What was seen last of a path since the index was made.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// `None` when it is gone.
    pub(super) there: Option<There>,
    /// Which refresh it came after, see [`View::epoch`].
    pub(super) epoch: u32,
}

/// See the module's text.
pub(super) struct View {
    pub(super) base: Base,
    /// Where all content lies, unless beside each metainfo file.
    pub(super) content: Option<PathBuf>,
    /// Metainfo files that are given by themselves, whatever they are called.
    files: Vec<PathBuf>,
    pub(super) over: BTreeMap<Key, Seen>,
    /// The paths in `over` that have an info-hash.
    by_hash: HashMap<InfoHash, Vec<Key>>,
    /// The numbers in `over`.
    numbers: HashSet<TorrentId>,
    pub(super) next_number: TorrentId,
    pub(super) counts: Counts,
    /// Counts the refreshes that were begun: what is seen in one is newer than what it reads.
    pub(super) epoch: u32,
    reader: Reader,
    /// Whether somebody else says what is in the library: nothing is served that the index has not.
    pub(super) is_given: bool,
    /// What has come of looking, until it is taken.
    pub(super) changes: Vec<Change>,
    pub(super) refusals: Vec<Refusal>,
    /// Paths of which nothing was found out, because no descriptor was left.
    pub(super) later: Vec<PathBuf>,
}

/// What was read at a path.
enum Read {
    Found(Looked),
    Nothing,
    /// See [`View::later`].
    Later,
}

impl View {
    /// What an index says. `files` are metainfo files that are wanted whatever they are called.
    pub(super) fn new(base: Base, content: Option<PathBuf>, files: Vec<PathBuf>) -> Self {
        View {
            next_number: base.numbering.end(),
            counts: base.index.counts(),
            content: content.or_else(|| base.content()),
            base,
            files,
            over: BTreeMap::new(),
            by_hash: HashMap::new(),
            numbers: HashSet::new(),
            epoch: 0,
            reader: Reader::default(),
            is_given: false,
            changes: Vec::new(),
            refusals: Vec::new(),
            later: Vec::new(),
        }
    }

    /// Puts another index in place, with what has been seen since. Numbers go on.
    pub(super) fn replace(&mut self, difference: Difference) {
        self.base = difference.base;
        self.next_number = difference.next_number;
        self.counts = difference.counts;
        self.by_hash.clear();
        let there = difference.over.values();
        let there = there.filter_map(|seen| seen.there.as_ref());
        self.numbers = there.filter_map(|there| there.id).collect();
        for (key, seen) in &difference.over {
            if let Some(there) = &seen.there
                && there.facts.state != State::Unusable
            {
                let keys = self.by_hash.entry(there.facts.info_hash).or_default();
                keys.push(key.clone());
            }
        }
        self.over = difference.over;
    }

    /// What the loop has to know beside the index.
    pub(super) fn differs(&self) -> Result<BTreeMap<InfoHash, Differs>, IndexError> {
        let mut differs = BTreeMap::new();
        for (key, seen) in &self.over {
            if let Some(entry) = self.base.index.at(&key.path())?
                && is_served(&entry)
            {
                differs
                    .entry(entry.facts.info_hash)
                    .or_insert(Differs::Gone);
            }
            if let Some(there) = &seen.there
                && let Some(number) = there.id
            {
                let here = Differs::Here(number, key.path().into());
                differs.insert(there.facts.info_hash, here);
            }
        }
        Ok(differs)
    }

    /// Goes by other settings from the next index on.
    pub(super) fn follow(&mut self, content: Option<PathBuf>, files: Vec<PathBuf>) {
        self.content = content;
        self.files = files;
    }

    /// Whether all below a start, or more, is or was at this path.
    pub(super) fn is_start(&self, path: &Path) -> bool {
        let origin = self.base.index.origin();
        let mut starts = origin.searched.iter().map(|start| origin.root.join(start));
        starts.any(|start| start.starts_with(path)) && !path.is_file()
    }

    /// The start that a directory lies below.
    fn start_of(&self, directory: &Path) -> PathBuf {
        let origin = self.base.index.origin();
        let mut starts = origin.searched.iter().map(|start| origin.root.join(start));
        let start = starts.find(|start| directory.starts_with(start));
        start.unwrap_or_else(|| directory.to_path_buf())
    }

    /// Whether the disk of a metainfo file, or that of all content, is away.
    pub(super) fn is_away(&self, path: &Path) -> bool {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let content = self.content.as_ref();
        is_away(&self.start_of(directory)) || content.is_some_and(|content| is_away(content))
    }

    /// Whether a metainfo file and its content were right when they were looked at last.
    pub(super) fn is_right(&self, path: &Path) -> Result<bool, IndexError> {
        let Some(key) = Key::new(path) else {
            return Ok(true);
        };
        let there = self.at(&key)?;
        Ok(there.is_some_and(|there| there.facts.state == State::Served))
    }

    /// A number that nothing has.
    pub(super) fn fresh(&mut self) -> TorrentId {
        let number = self.unused(self.next_number);
        self.next_number = TorrentId(number.0.wrapping_add(1));
        number
    }

    /// The first number from this one on that nothing has. They come round: a disk of twenty million
    /// torrents that comes and goes uses them up after two hundred times.
    pub(super) fn unused(&self, mut number: TorrentId) -> TorrentId {
        let is_used = |number: TorrentId| {
            self.base.numbering.record(number).is_some() || self.numbers.contains(&number)
        };
        while is_used(number) {
            number = TorrentId(number.0.wrapping_add(1));
        }
        number
    }

    /// What is known of a path.
    pub(super) fn at(&self, key: &Key) -> Result<Option<There>, IndexError> {
        if let Some(seen) = self.over.get(key) {
            return Ok(seen.there.clone());
        }
        let entry = self.base.index.at(&key.path())?;
        Ok(entry.map(|entry| self.there(&entry)))
    }

    pub(super) fn there(&self, entry: &Entry) -> There {
        let number = self.base.numbering.number(entry.number);
        There {
            facts: entry.facts,
            id: number.filter(|_| is_served(entry)),
            reserved: number.filter(|_| !is_served(entry)),
        }
    }

    /// Metainfo files of the index that were seen to go, ascending.
    pub(super) fn seen_to_go(&self) -> Vec<PathBuf> {
        let gone = self.over.iter().filter(|(_, seen)| seen.there.is_none());
        let mut gone: Vec<PathBuf> = gone.map(|(key, _)| key.path()).collect();
        gone.sort_unstable();
        gone
    }

    fn is_wanted(&self, path: &Path) -> bool {
        is_metainfo_name(path) || self.files.iter().any(|file| file == path)
    }

    /// Looks at one metainfo file.
    pub(super) fn look_at(&mut self, path: &Path) -> Result<(), IndexError> {
        let Some(key) = Key::new(path) else {
            return Ok(());
        };
        let before = self.at(&key)?;
        let mut looked = match self.read(path) {
            Read::Found(looked) if self.is_foreign(path, &looked)? => {
                return self.gone(key, before);
            }
            Read::Found(looked) => looked,
            Read::Nothing => return self.gone(key, before),
            Read::Later => return Ok(()),
        };
        let is_unreadable = matches!(looked.refusal, Some(RefusalReason::Unreadable(_)));
        let known = before
            .as_ref()
            .map_or(State::Unusable, |before| before.facts.state);
        if is_unreadable && known != State::Unusable {
            if let Some(reason) = looked.refusal.filter(|_| known == State::Served) {
                let path = path.to_path_buf();
                self.refusals.push(Refusal { path, reason });
            }
            return self.withdraw(key, before);
        }
        let same = before.as_ref().is_some_and(|before| {
            before.facts.state == looked.facts.state
                && before.facts.stamp == looked.facts.stamp
                && (before.facts.state == State::Unusable
                    || before.facts.info_hash == looked.facts.info_hash)
        });
        if same {
            return Ok(());
        }
        let of_content = looked.facts.state == State::Withdrawn;
        let removed = self.forget(&key, before, of_content);
        let mut there = There {
            facts: looked.facts,
            id: None,
            reserved: None,
        };
        if there.facts.state == State::Served {
            match self.server_of(&there.facts.info_hash, Some(&key))? {
                Some(first) => looked.refusal = duplicates::duplicate(path, &first),
                None => there.id = Some(self.added(path, &there.facts.info_hash, &looked.announce)),
            }
        }
        if let Some(reason) = looked.refusal {
            let path = path.to_path_buf();
            self.refusals.push(Refusal { path, reason });
        }
        let again = there.id.map(|_| there.facts.info_hash);
        self.keep(key, there);
        match removed.filter(|removed| Some(*removed) != again) {
            Some(removed) => self.promote(&removed),
            None => Ok(()),
        }
    }

    /// Whether a given index does not say that this torrent is in this file.
    fn is_foreign(&self, path: &Path, looked: &Looked) -> Result<bool, IndexError> {
        if !self.is_given {
            return Ok(false);
        }
        let entry = self.base.index.at(path)?;
        Ok(entry.is_none_or(|entry| entry.facts.info_hash != looked.facts.info_hash))
    }

    /// Reads a metainfo file.
    fn read(&mut self, path: &Path) -> Read {
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => {}
            Ok(metadata) if metadata.is_dir() => return Read::Nothing,
            Err(error) if is_absence(&error) => return Read::Nothing,
            Ok(_) => return Read::Found(Looked::refused(RefusalReason::NotRegular)),
            Err(error) => return Read::Found(Looked::refused(error.into())),
        }
        let root = match &self.content {
            Some(content) if is_away(content) => None,
            Some(content) => Some(content.clone()),
            None => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                let real = directory.canonicalize();
                Some(real.unwrap_or_else(|_| directory.to_path_buf()))
            }
        };
        match Looked::at(&mut self.reader, path, root.as_deref()) {
            Ok(looked) => Read::Found(looked),
            Err(reason) => {
                self.put_off(path, &reason);
                Read::Later
            }
        }
    }

    fn put_off(&mut self, path: &Path, reason: &RefusalReason) {
        log::warn!("rescan postponed: {reason}");
        self.later.push(path.to_path_buf());
    }

    fn added(&mut self, path: &Path, info_hash: &InfoHash, announce: &[Vec<String>]) -> TorrentId {
        let id = self.fresh();
        self.changes.push(Change::Added(Added {
            id,
            info_hash: *info_hash,
            announce: announce.into(),
            metainfo: Some(path.into()),
        }));
        id
    }

    fn gone(&mut self, key: Key, before: Option<There>) -> Result<(), IndexError> {
        if before.is_none() {
            return Ok(());
        }
        let removed = self.forget(&key, before, false);
        let epoch = self.epoch;
        self.over.insert(key, Seen { there: None, epoch });
        match removed {
            Some(removed) => self.promote(&removed),
            None => Ok(()),
        }
    }

    /// Keeps what is known of a path that cannot be read now, without serving it.
    fn withdraw(&mut self, key: Key, before: Option<There>) -> Result<(), IndexError> {
        let Some(mut there) = before.filter(|before| before.facts.state == State::Served) else {
            return Ok(());
        };
        let removed = self.forget(&key, Some(there.clone()), true);
        there.facts.state = State::Withdrawn;
        there.id = None;
        self.keep(key, there);
        removed.map_or(Ok(()), |removed| self.promote(&removed))
    }

    /// Takes back what was known of a path. Answers what is not served any more by that.
    fn forget(&mut self, key: &Key, before: Option<There>, of_content: bool) -> Option<InfoHash> {
        let before = before?;
        if let Some(keys) = self.by_hash.get_mut(&before.facts.info_hash) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_hash.remove(&before.facts.info_hash);
            }
        }
        match before.id {
            Some(id) => {
                self.numbers.remove(&id);
                self.counts.served = self.counts.served.saturating_sub(1);
                self.changes.push(Change::Removed(Removed {
                    id,
                    info_hash: before.facts.info_hash,
                    of_content,
                }));
                Some(before.facts.info_hash)
            }
            None => {
                self.counts.refused = self.counts.refused.saturating_sub(1);
                None
            }
        }
    }

    fn keep(&mut self, key: Key, there: There) {
        match there.id {
            Some(id) => {
                self.numbers.insert(id);
                self.counts.served += 1;
            }
            None => self.counts.refused += 1,
        }
        if there.facts.state != State::Unusable {
            let keys = self.by_hash.entry(there.facts.info_hash).or_default();
            keys.push(key.clone());
        }
        let (there, epoch) = (Some(there), self.epoch);
        self.over.insert(key, Seen { there, epoch });
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Whether a torrent is served from the file of this entry.
pub(super) fn is_served(entry: &Entry) -> bool {
    entry.facts.state == State::Served && !entry.duplicate
}

#[cfg(test)]
mod tests;
