//! Making an index from directories of metainfo files, from the walk to the finished file.
//!
//! Blocks for as long as that takes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thiserror::Error;

use crate::library::index::format::{Facts, RecordNo, State, TrackerListNo};
use crate::library::index::writer::{NewRecord, Origin, Writer};
use crate::library::index::{Entry, Index, IndexError};
use crate::library::scan::inspect::Inspection;
use crate::library::scan::merge_walk::{MergeWalk, Work};
use crate::library::scan::parallel;
use crate::library::scan::walk::{Batch, Starts, is_away, resolved};
use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::printable::Printable;
use crate::torrent::reader::{FileStamp, Reader};

/// What goes into an index.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Directories that are searched for `*.torrent`, and metainfo files by any name.
    pub inputs: Vec<PathBuf>,
    /// Where all content lies; `None` means beside each metainfo file.
    pub content: Option<PathBuf>,
    /// The index file.
    pub target: PathBuf,
    /// Threads that read.
    pub threads: usize,
}

/// How far a run is; read by another thread to show it.
#[derive(Default, Debug)]
pub struct Progress {
    /// Metainfo files that are in the index so far.
    pub files: AtomicU64,
    /// Bytes of them, and of content when that is read too.
    pub bytes: AtomicU64,
}

impl Progress {
    /// Counts what is done.
    pub fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

/// What came of it.
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

/// Why there is no index.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Nothing of what was given is there.
    #[error("nothing to index: {}", .0.as_ref().map_or(String::new(), ToString::to_string))]
    Nothing(Option<Refusal>),
    /// The content directory cannot be found.
    #[error("{}: {}", Printable::path(.0), .1)]
    Content(PathBuf, #[source] io::Error),
    /// Another process is at it.
    #[error("another process is writing {}", Printable::path(.0))]
    Busy(PathBuf),
    /// The file system does not let us.
    #[error("cannot write {}: {}", Printable::path(.0), .1)]
    Write(PathBuf, #[source] io::Error),
    /// Not one thread can be started for the scan.
    #[error("cannot start a thread: {0}")]
    Threads(#[source] io::Error),
    /// The new file cannot be read back.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Reads every metainfo file and writes the index. What cannot be served is told to `refuse`, and
/// costs no other torrent.
///
/// # Errors
/// A [`BuildError`]; the index that was there before is then still there.
pub fn build(
    plan: &Plan,
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Summary, BuildError> {
    let starts = Starts::new(&plan.inputs);
    let content = plan.content.as_ref().map(|path| {
        let real = path.canonicalize();
        real.map_err(|error| BuildError::Content(path.clone(), error))
    });
    let content = content.transpose()?.map(Content::There);
    let run = Run {
        plan,
        progress,
        content: content.unwrap_or(Content::Beside),
        previous: None,
    };
    run.write(starts, refuse)
}

/// Makes the index anew that `previous` was, if there was one. Unlike [`build`], what is not there is
/// no error: the torrents of a directory that is away stay in the index, without being served.
///
/// # Errors
/// A [`BuildError`]; the index that was there before is then still there.
pub fn refresh(
    plan: &Plan,
    previous: Option<Previous<'_>>,
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Summary, BuildError> {
    let content = match &plan.content {
        None => Content::Beside,
        Some(path) if is_away(path) => Content::Away(resolved(path)),
        Some(path) => Content::There(resolved(path)),
    };
    let run = Run {
        plan,
        progress,
        content,
        previous,
    };
    run.write(Starts::patient(&plan.inputs), refuse)
}

/// The index that a new one takes the place of.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// What is known already.
    pub index: &'a Index,
    /// What is examined again.
    pub depth: Depth,
    /// Whether only those are refused that were not refused before.
    pub quiet: bool,
    /// Metainfo files that were seen to go since, one by one; ascending. Where a directory is empty
    /// they are not waited for.
    pub gone: &'a [PathBuf],
}

/// How much is examined of what is in an index already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// The length and time of each metainfo file. A file that has the same is not read, and its
    /// content not examined, unless that was wrong.
    Metainfo,
    /// The same of its content too, for which each metainfo file is read.
    Content,
}

/// Where all content lies.
#[derive(Clone)]
enum Content {
    /// Beside each metainfo file.
    Beside,
    There(PathBuf),
    /// There, when it is there again.
    Away(PathBuf),
}

struct Run<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    content: Content,
    previous: Option<Previous<'a>>,
}

impl Run<'_> {
    fn write(
        &self,
        mut starts: Starts,
        mut refuse: impl FnMut(Refusal),
    ) -> Result<Summary, BuildError> {
        let target = &self.plan.target;
        let Some(root) = starts.common_directory() else {
            return Err(BuildError::Nothing(starts.refusals.pop()));
        };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => BuildError::Busy(target.clone()),
            _ => BuildError::Write(target.clone(), error),
        };
        let below = |path: &Path| path.strip_prefix(&root).unwrap_or(path).to_path_buf();
        let origin = Origin {
            searched: starts.paths().map(|path| below(&path)).collect(),
            content: match &self.content {
                Content::Beside => None,
                Content::There(path) | Content::Away(path) => Some(below(path)),
            },
            root: root.clone(),
        };
        let mut taker = Taker {
            writer: Writer::create(target).map_err(failed)?,
            root: &root,
            progress: self.progress,
            previous: self.previous,
            lists: HashMap::new(),
            summary: Summary::default(),
            lost: 0,
        };
        let mut outcome = Ok(());
        parallel::in_order(
            self.plan.threads,
            MergeWalk::new(
                starts.walk(),
                self.previous.map(|previous| previous.index),
                self.previous.map_or(&[], |previous| previous.gone),
            ),
            || {
                let mut worker = Worker::new(self.content.clone(), self.previous);
                move |work| worker.work(work)
            },
            |found: Vec<Found>| {
                for found in found {
                    if let Err(error) = taker.take(&found) {
                        outcome = Err(error);
                        return ControlFlow::Break(());
                    }
                    if let Some(refusal) = found.refusal {
                        refuse(refusal);
                    }
                }
                ControlFlow::Continue(())
            },
        )
        .map_err(BuildError::Threads)?;
        outcome.map_err(failed)?;
        let Taker {
            writer,
            mut summary,
            lost,
            ..
        } = taker;
        let written = writer.finish(&origin, lost).map_err(failed)?;
        summary.torrents = written.torrents.into();
        summary.bytes = written.bytes;
        summary.refused += self.tell_duplicates(&written.duplicates, &mut refuse)?;
        Ok(summary)
    }

    /// Tells of torrents that are there twice. Answers how many.
    fn tell_duplicates(
        &self,
        duplicates: &[(RecordNo, RecordNo)],
        refuse: &mut impl FnMut(Refusal),
    ) -> Result<u64, BuildError> {
        if duplicates.is_empty() {
            return Ok(0);
        }
        let index = Index::open(&self.plan.target)?;
        let mut told = 0;
        for &(later, first) in duplicates {
            let (path, first) = (index.metainfo_path(later)?, index.metainfo_path(first)?);
            // Directories that overlap lead to one file twice, which is no second torrent.
            if path.canonicalize().ok() != first.canonicalize().ok() {
                told += 1;
                if !self.was_duplicate(&path) {
                    let reason = RefusalReason::Duplicate(first);
                    refuse(Refusal { path, reason });
                }
            }
        }
        Ok(told)
    }

    fn was_duplicate(&self, path: &Path) -> bool {
        let quiet = self.previous.filter(|previous| previous.quiet);
        let known = quiet.and_then(|previous| previous.index.at(path).ok().flatten());
        known.is_some_and(|entry| entry.duplicate)
    }
}

/// Writes what was found, in the order in which it is found.
struct Taker<'a> {
    writer: Writer,
    root: &'a Path,
    progress: &'a Progress,
    previous: Option<Previous<'a>>,
    /// Lists of announce URLs by their number in the previous.
    lists: HashMap<TrackerListNo, TrackerListNo>,
    summary: Summary,
    /// What is refused and not in the index.
    lost: u64,
}

impl Taker<'_> {
    fn take(&mut self, found: &Found) -> io::Result<()> {
        let summary = &mut self.summary;
        summary.refused += u64::from(found.refused);
        let Some(file) = &found.file else {
            self.lost += u64::from(found.refused);
            return Ok(());
        };
        let directory = file.directory.strip_prefix(self.root);
        let directory = directory.unwrap_or(Path::new(""));
        if !self.writer.is_next(directory, file.name.as_bytes()) {
            // One that is kept from an index whose bytes are not what they were.
            let path = file.directory.join(&file.name);
            let path = Printable::path(&path);
            log::error!("{path} is skipped: it is out of order in the previous index");
            self.lost += 1;
            summary.refused += u64::from(!found.refused);
            return Ok(());
        }
        summary.withdrawn += u64::from(file.facts.state == State::Withdrawn);
        let trackers = match &file.announce {
            Announce::Read(tiers) => self.writer.trackers(tiers)?,
            Announce::Known(number) => self.known(*number, file)?,
        };
        self.writer.record(&NewRecord {
            facts: file.facts,
            directory,
            name: file.name.as_bytes(),
            trackers,
        })?;
        self.progress.add(1, file.facts.stamp.length.into());
        Ok(())
    }

    fn known(&mut self, number: TrackerListNo, file: &File) -> io::Result<TrackerListNo> {
        if let Some(known) = self.lists.get(&number) {
            return Ok(*known);
        }
        let known = self
            .previous
            .map(|previous| previous.index.trackers(number));
        let Some(Ok(tiers)) = known else {
            // The index cannot be read there.
            let found = Reader::default().read(&file.directory.join(&file.name));
            let tiers = found.map_or_else(|_| Vec::new(), |found| found.metainfo.announce);
            return self.writer.trackers(&tiers);
        };
        let new = self.writer.trackers(&tiers)?;
        self.lists.insert(number, new);
        Ok(new)
    }
}

/// What was found in one place.
struct Found {
    /// `None` for what is no metainfo file.
    file: Option<File>,
    refused: bool,
    /// What is to be said of it.
    refusal: Option<Refusal>,
}

struct File {
    directory: Arc<Path>,
    name: OsString,
    facts: Facts,
    announce: Announce,
}

enum Announce {
    Read(Vec<Vec<String>>),
    /// As in the previous.
    Known(TrackerListNo),
}

impl File {
    /// As it was in the previous.
    fn known(directory: Arc<Path>, entry: Entry) -> Self {
        File {
            facts: entry.facts,
            directory,
            name: entry.name,
            announce: Announce::Known(entry.trackers),
        }
    }
}

struct Worker<'a> {
    content: Content,
    previous: Option<Previous<'a>>,
    reader: Reader,
}

impl<'a> Worker<'a> {
    fn new(content: Content, previous: Option<Previous<'a>>) -> Self {
        Worker {
            content,
            previous,
            reader: Reader::default(),
        }
    }

    fn work(&mut self, work: Work) -> Vec<Found> {
        match work {
            Work::Look(batch, known) => self.look(batch, known),
            Work::Keep(entries) => entries
                .into_iter()
                .map(|(directory, entry)| Found {
                    file: Some(kept(directory.into(), entry)),
                    refused: true,
                    refusal: None,
                })
                .collect(),
            Work::Refused(refusal) => vec![Found {
                file: None,
                refused: true,
                refusal: Some(refusal),
            }],
        }
    }

    fn look(&mut self, batch: Batch, known: Vec<Option<Entry>>) -> Vec<Found> {
        let Batch { directory, names } = batch;
        // Where the directory itself is gone, so is every file in it, which is then said of each.
        let root = match &self.content {
            Content::There(content) => Some(content.clone()),
            Content::Away(_) => None,
            Content::Beside => {
                let real = directory.canonicalize();
                Some(real.unwrap_or_else(|_| directory.clone()))
            }
        };
        let directory: Arc<Path> = directory.into();
        (names.into_iter().zip(known))
            .map(|(name, known)| self.read(&directory, name, root.as_deref(), known.as_ref()))
            .collect()
    }

    fn read(
        &mut self,
        directory: &Arc<Path>,
        name: OsString,
        root: Option<&Path>,
        known: Option<&Entry>,
    ) -> Found {
        let path = directory.join(&name);
        let (mut refused_before, mut quiet) = (false, false);
        if let (Some(previous), Some(entry)) = (self.previous, known) {
            let metadata = path.metadata().ok();
            let same =
                metadata.is_some_and(|metadata| FileStamp::new(&metadata) == entry.facts.stamp);
            if same && root.is_none() {
                // Its content is away: reading it again would tell nothing.
                return Found {
                    file: Some(kept(Arc::clone(directory), entry.clone())),
                    refused: true,
                    refusal: None,
                };
            }
            if same && previous.depth == Depth::Metainfo && entry.facts.state == State::Served {
                return Found {
                    file: Some(File::known(Arc::clone(directory), entry.clone())),
                    refused: false,
                    refusal: None,
                };
            }
            refused_before = same && entry.facts.state != State::Served;
            quiet = previous.quiet;
        }
        let inspection = Inspection::with_retries(&mut self.reader, &path, root);
        if let (Some(RefusalReason::Unreadable(error)), Some(entry)) = (&inspection.refusal, known)
            && error.kind() != io::ErrorKind::NotFound
        {
            let reason = inspection.refusal.filter(|_| !(quiet && refused_before));
            return Found {
                file: Some(kept(Arc::clone(directory), entry.clone())),
                refused: true,
                refusal: reason.map(|reason| Refusal { path, reason }),
            };
        }
        let file = File {
            facts: inspection.facts,
            directory: Arc::clone(directory),
            name,
            announce: Announce::Read(inspection.announce),
        };
        let refusal = inspection.refusal.map(|reason| Refusal { path, reason });
        Found {
            refused: file.facts.state != State::Served,
            file: Some(file),
            refusal: refusal.filter(|_| !(quiet && refused_before)),
        }
    }
}

/// A file that cannot be read now, or whose directory is away.
fn kept(directory: Arc<Path>, entry: Entry) -> File {
    let mut file = File::known(directory, entry);
    if file.facts.state == State::Served {
        file.facts.state = State::Withdrawn;
    }
    file
}

#[cfg(test)]
mod tests;
