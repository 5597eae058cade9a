//! Making an index from directories of metainfo files, from the walk to the finished file.
//!
//! Blocks for as long as that takes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use thiserror::Error;

use super::inspect::{ContentRoots, Inspection, RootsOf};
use super::merge_walk::{MergeWalk, Work};
use super::parallel;
use super::probe::Probed;
use super::walk::{Batch, Starts, Step, resolved};
use crate::library::index::format::{Facts, State, TrackerListNo};
use crate::library::index::writer::{self, NewRecord, Origin, Writer};
use crate::library::index::{Entry, Index, IndexError, MetainfoPath};
use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::printable::Printable;
use crate::torrent::reader::{FileStamp, Reader};

/// The inputs of an index.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Directories that are searched for `*.torrent`, and metainfo files by any name.
    pub inputs: Vec<PathBuf>,
    /// Where content lies.
    pub content: ContentDirectories,
    /// The index file.
    pub target: PathBuf,
    /// Threads that read.
    pub threads: usize,
}

/// The progress of a run, which another thread shows.
#[derive(Default, Debug)]
pub struct Progress {
    /// Metainfo files that are in the index so far.
    pub files: AtomicU64,
    /// Bytes of them, and of content when that is read too.
    pub bytes: AtomicU64,
}

impl Progress {
    /// Counts from zero again, since what was done so far is lost.
    pub fn begin_again(&self) {
        self.files.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }

    /// Counts files and bytes that are done.
    pub fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

/// Counts metainfo files by their names, ahead of the scan that reads them, to show progress. `None`
/// when `stop` was set before the end.
#[must_use]
pub fn count_files(inputs: &[PathBuf], stop: &AtomicBool) -> Option<u64> {
    let mut files = 0;
    for step in Starts::new(inputs).walk() {
        if stop.load(Relaxed) {
            return None;
        }
        if let Step::Batch(batch) = step {
            files += batch.names.len() as u64;
        }
    }
    Some(files)
}

/// The result of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// Torrents with an info-hash of their own.
    pub torrents: u64,
    /// Of these, those whose content is not right.
    pub withdrawn: u64,
    /// Files and directories that are not in it, or of no use in it.
    pub refused: u64,
    /// The size of the index file.
    pub bytes: u64,
}

/// Why no index was made.
#[derive(Debug, Error)]
pub enum BuildError {
    /// None of the inputs exists.
    #[error("nothing to index: {}", .0.as_ref().map_or(String::new(), ToString::to_string))]
    Nothing(Option<Refusal>),
    /// The content directory cannot be found.
    #[error("{}: {}", Printable::path(.0), .1)]
    Content(PathBuf, #[source] io::Error),
    /// Another process is writing the same index.
    #[error("another process is writing {}", Printable::path(.0))]
    Busy(PathBuf),
    /// An error of the file system.
    #[error("cannot write {}: {}", Printable::path(.0), .1)]
    Write(PathBuf, #[source] io::Error),
    /// Not one thread can be started for the scan.
    #[error("cannot start a thread: {0}")]
    Threads(#[source] io::Error),
    /// The new file cannot be read back.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Reads every metainfo file and writes the index. What cannot be served goes to `refuse`, and
/// affects no other torrent.
///
/// # Errors
/// A [`BuildError`]; the index that was there before is then unchanged.
pub fn build(
    plan: &Plan,
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Summary, BuildError> {
    let starts = Starts::new(&plan.inputs);
    for root in plan.content.roots() {
        let found = root.canonicalize();
        found.map_err(|error| BuildError::Content(root.to_path_buf(), error))?;
    }
    let search = Search {
        content: ContentRoots::new(plan.content.clone()),
        starts,
    };
    let into = Destination::File(&plan.target);
    write(plan, into, None, search, progress, refuse)
}

/// Makes the index again that `previous` was, if there was one. Unlike with [`build`], a missing
/// directory is no error: its torrents stay in the index, without being served. Those below one that
/// hangs stay as they are.
///
/// # Errors
/// A [`BuildError`]; the index that was there before is then unchanged.
pub(in crate::library) fn refresh(
    plan: &Plan,
    previous: Option<Previous<'_>>,
    probed: &Probed,
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Summary, BuildError> {
    let into = Destination::File(&plan.target);
    refresh_into(plan, into, previous, probed, progress, refuse)
}

/// The same in memory, without the file of the plan.
///
/// # Errors
/// A [`BuildError`].
pub(in crate::library) fn refresh_in_memory(
    plan: &Plan,
    previous: Option<Previous<'_>>,
    probed: &Probed,
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Index, BuildError> {
    let file = writer::memory().map_err(|error| BuildError::Write("memory".into(), error))?;
    let into = Destination::Memory(&file);
    refresh_into(plan, into, previous, probed, progress, refuse)?;
    Ok(into.open()?)
}

fn refresh_into(
    plan: &Plan,
    into: Destination<'_>,
    previous: Option<Previous<'_>>,
    probed: &Probed,
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Summary, BuildError> {
    let search = Search {
        content: ContentRoots::new(plan.content.clone()),
        starts: Starts::patient(&plan.inputs, probed),
    };
    write(plan, into, previous, search, progress, refuse)
}

/// Where metainfo files and content are looked for.
struct Search {
    content: ContentRoots,
    starts: Starts,
}

/// Where an index is written.
#[derive(Clone, Copy, Debug)]
enum Destination<'a> {
    /// A file, which is replaced.
    File(&'a Path),
    /// A file of [`writer::memory`].
    Memory(&'a fs::File),
}

impl Destination<'_> {
    fn writer(self) -> io::Result<Writer> {
        match self {
            Destination::File(path) => Writer::create(path),
            Destination::Memory(file) => Writer::in_memory(file),
        }
    }

    /// Opens what was written.
    fn open(self) -> Result<Index, IndexError> {
        match self {
            Destination::File(path) => Index::open(path),
            Destination::Memory(file) => Index::in_memory(file),
        }
    }

    fn failed(self, error: io::Error) -> BuildError {
        match self {
            Destination::File(path) if error.kind() == io::ErrorKind::WouldBlock => {
                BuildError::Busy(path.to_owned())
            }
            Destination::File(path) => BuildError::Write(path.to_owned(), error),
            Destination::Memory(_) => BuildError::Write("memory".into(), error),
        }
    }
}

/// The index that a new one replaces.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// The index.
    pub index: &'a Index,
    /// How much is examined again.
    pub depth: Depth,
    /// Report only refusals that are new.
    pub quiet: bool,
    /// Metainfo files that were seen to go since, one by one; ascending. They are dropped although their
    /// directory is empty now, like that of a disk that is not mounted.
    pub gone: &'a [MetainfoPath],
}

/// How much of a file is examined that is in the index already.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Depth {
    /// The length and time of each metainfo file. A file that has the same is not read, and its
    /// content not examined, unless that was wrong.
    Metainfo,
    /// The same of its content too, for which each metainfo file is read.
    Content,
}

fn write(
    plan: &Plan,
    into: Destination<'_>,
    previous: Option<Previous<'_>>,
    search: Search,
    progress: &Progress,
    mut refuse: impl FnMut(Refusal),
) -> Result<Summary, BuildError> {
    let Search {
        content,
        mut starts,
    } = search;
    let Some(root) = starts.common_directory() else {
        return Err(BuildError::Nothing(starts.refusals.pop()));
    };
    let failed = |error| into.failed(error);
    let below = |path: &Path| path.strip_prefix(&root).unwrap_or(path).to_path_buf();
    let origin = Origin {
        searched: starts.paths().map(|path| below(&path)).collect(),
        content: ContentDirectories::map_roots(plan.content.record(), |path| {
            match resolved(path) {
                path if path == root => PathBuf::from("."),
                path => below(&path),
            }
        }),
        root: root.clone(),
    };
    let mut output = Output {
        writer: into.writer().map_err(failed)?,
        root: &root,
        progress,
        previous,
        lists: HashMap::new(),
        summary: Summary::default(),
        lost: 0,
    };
    let mut outcome = Ok(());
    parallel::in_order(
        plan.threads,
        thread::Builder::new,
        MergeWalk::new(
            starts.walk(),
            previous.map(|previous| previous.index),
            previous.map_or(&[], |previous| previous.gone),
        ),
        || {
            let mut worker = Worker {
                content: &content,
                previous,
                reader: Reader::default(),
            };
            move |work| worker.work(work)
        },
        |found: Vec<Found>| {
            for Found { file, refusal } in found {
                outcome = output.add(file.as_ref());
                if outcome.is_err() {
                    return ControlFlow::Break(());
                }
                refusal.into_iter().for_each(&mut refuse);
            }
            ControlFlow::Continue(())
        },
    )
    .map_err(BuildError::Threads)?;
    outcome.map_err(failed)?;
    let mut summary = output.summary;
    let written = output.writer.finish(&origin, output.lost).map_err(failed)?;
    summary.torrents = written.torrents.into();
    summary.bytes = written.bytes;
    Ok(summary)
}

/// Writes files in the order in which they are found.
struct Output<'a> {
    writer: Writer,
    root: &'a Path,
    progress: &'a Progress,
    previous: Option<Previous<'a>>,
    /// Lists of announce URLs by their number in the previous index.
    lists: HashMap<TrackerListNo, TrackerListNo>,
    summary: Summary,
    /// Refused files and directories that are not in the index.
    lost: u64,
}

impl Output<'_> {
    /// Writes the record of a file; `None` is something that is refused and gets no record.
    fn add(&mut self, file: Option<&File>) -> io::Result<()> {
        let Some(file) = file else {
            self.summary.refused += 1;
            self.lost += 1;
            return Ok(());
        };
        let directory = file.path.directory.strip_prefix(self.root);
        let directory = directory.unwrap_or(Path::new(""));
        let name = file.path.name.as_bytes();
        if !self.writer.is_next(directory, name) {
            // It is kept from an index that was damaged after it was checked.
            let path = file.path.to_path_buf();
            let path = Printable::path(&path);
            log::error!("{path} is skipped: it is out of order in the previous index");
            return self.add(None);
        }
        self.summary.refused += u64::from(file.facts.state != State::Served);
        self.summary.withdrawn += u64::from(file.facts.state == State::Withdrawn);
        let trackers = match &file.announce {
            Announce::Read(tiers) => self.writer.trackers(tiers)?,
            Announce::Previous(number) => self.list_of_previous(*number, file)?,
        };
        self.writer.record(&NewRecord {
            facts: file.facts,
            directory,
            name,
            trackers,
        })?;
        self.progress.add(1, file.facts.stamp.length.into());
        Ok(())
    }

    fn list_of_previous(&mut self, list: TrackerListNo, file: &File) -> io::Result<TrackerListNo> {
        if let Some(known) = self.lists.get(&list) {
            return Ok(*known);
        }
        let previous = self.previous.expect("its number comes from there");
        let Ok(tiers) = previous.index.trackers(list) else {
            let read = Reader::default().read(&file.path.to_path_buf());
            let tiers = read.map_or_else(|_| Vec::new(), |read| read.metainfo.announce);
            return self.writer.trackers(&tiers);
        };
        let new = self.writer.trackers(&tiers)?;
        self.lists.insert(list, new);
        Ok(new)
    }
}

/// The result of one step of the walk.
struct Found {
    /// `None` for something that is refused and no metainfo file.
    file: Option<File>,
    /// `None` also for a refusal that is not reported again.
    refusal: Option<Refusal>,
}

struct File {
    path: MetainfoPath,
    facts: Facts,
    announce: Announce,
}

enum Announce {
    Read(Vec<Vec<String>>),
    /// As in the previous index.
    Previous(TrackerListNo),
}

impl Found {
    /// As it was in the previous index.
    fn unchanged(entry: Entry) -> Self {
        Found {
            file: Some(File {
                path: entry.path,
                facts: entry.facts,
                announce: Announce::Previous(entry.trackers),
            }),
            refusal: None,
        }
    }

    /// A file that cannot be read now, or whose disk is away.
    fn withdrawn(mut entry: Entry) -> Self {
        if entry.facts.state == State::Served {
            entry.facts.state = State::Withdrawn;
        }
        Self::unchanged(entry)
    }
}

struct Worker<'a> {
    content: &'a ContentRoots,
    previous: Option<Previous<'a>>,
    reader: Reader,
}

impl Worker<'_> {
    fn work(&mut self, work: Work) -> Vec<Found> {
        match work {
            Work::Inspect(Batch { directory, names }, known) => {
                let roots = self.content.of(&directory);
                let paths = names.into_iter().map(|name| MetainfoPath {
                    directory: directory.clone(),
                    name,
                });
                let files = paths.zip(known);
                files
                    .map(|(path, known)| self.inspect(path, roots.as_ref(), known))
                    .collect()
            }
            Work::Withdraw(entries) => entries.into_iter().map(Found::withdrawn).collect(),
            Work::Keep(entries) => entries.into_iter().map(Found::unchanged).collect(),
            Work::Refused(refusal) => vec![Found {
                file: None,
                refusal: Some(refusal),
            }],
        }
    }

    fn inspect(
        &mut self,
        path: MetainfoPath,
        roots: Option<&RootsOf<'_>>,
        known: Option<Entry>,
    ) -> Found {
        let file = path.to_path_buf();
        let mut is_quiet = false;
        if let (Some(previous), Some(entry)) = (self.previous, &known) {
            let stamp = file.metadata().map(|metadata| FileStamp::new(&metadata));
            let is_same = stamp.is_ok_and(|stamp| stamp == entry.facts.stamp);
            let is_served = entry.facts.state == State::Served;
            if is_same && roots.is_none() {
                // Without its content, reading it again would show nothing new.
                return Found::withdrawn(entry.clone());
            }
            if is_same && is_served && previous.depth == Depth::Metainfo {
                return Found::unchanged(entry.clone());
            }
            is_quiet = is_same && !is_served && previous.quiet;
        }
        let inspection = Inspection::with_retries(&mut self.reader, &file, roots);
        let mut found = match (&inspection.refusal, known) {
            (Some(RefusalReason::Unreadable(error)), Some(entry))
                if error.kind() != io::ErrorKind::NotFound =>
            {
                Found::withdrawn(entry)
            }
            _ => Found {
                file: Some(File {
                    path,
                    facts: inspection.facts,
                    announce: Announce::Read(inspection.announce),
                }),
                refusal: None,
            },
        };
        let reason = inspection.refusal.filter(|_| !is_quiet);
        found.refusal = reason.map(|reason| Refusal { path: file, reason });
        found
    }
}

#[cfg(test)]
mod tests;
