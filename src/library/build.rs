//! Making an index from a tree of torrents.
//!
//! Owns the run from the walk to the finished file. It must not know who asks, nor how progress is
//! shown. It blocks for as long as it takes.

use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use super::format::State;
use super::index::{Index, IndexError};
use super::parallel;
use super::walk::{Batch, Starts, Step};
use super::write::{NewRecord, Origin, Writer};
use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::printable::Printable;
use crate::torrent::reader::{FileStamp, Reader};
use crate::wire::message::InfoHash;

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
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
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
    #[error("there is nothing to index: {}", .0.as_ref().map_or(String::new(), ToString::to_string))]
    Nothing(Option<Refusal>),
    /// The content directory cannot be found.
    #[error("{}: {}", Printable(.0.as_os_str().as_bytes()), .1)]
    Content(PathBuf, #[source] io::Error),
    /// Another process is at it.
    #[error("another process writes {}", Printable(.0.as_os_str().as_bytes()))]
    Busy(PathBuf),
    /// The file system does not let us.
    #[error("cannot write {}: {}", Printable(.0.as_os_str().as_bytes()), .1)]
    Write(PathBuf, #[source] io::Error),
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
    mut refuse: impl FnMut(Refusal),
) -> Result<Summary, BuildError> {
    let mut starts = Starts::new(&plan.inputs);
    let Some(root) = starts.common_directory() else {
        return Err(BuildError::Nothing(starts.refusals.pop()));
    };
    let content = plan.content.as_ref().map(|path| {
        let real = path.canonicalize();
        real.map_err(|error| BuildError::Content(path.clone(), error))
    });
    let content = content.transpose()?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => BuildError::Busy(plan.target.clone()),
        _ => BuildError::Write(plan.target.clone(), error),
    };
    let below = |path: &Path| path.strip_prefix(&root).unwrap_or(path).to_path_buf();
    let origin = Origin {
        searched: starts.paths().map(|path| below(&path)).collect(),
        content: content.as_deref().map(below),
        root: root.clone(),
    };
    let mut writer = Writer::create(&plan.target).map_err(failed)?;
    let mut summary = Summary::default();
    let mut outcome = Ok(());
    parallel::in_order(
        plan.threads,
        starts.walk(),
        || {
            let mut worker = Worker::new(content.clone());
            move |step| worker.work(step)
        },
        |found: Vec<Found>| {
            for found in found {
                let written = found.write(&mut writer, &root, progress, &mut summary);
                if let Err(error) = written {
                    outcome = Err(error);
                    return ControlFlow::Break(());
                }
                if let Some(refusal) = found.refusal {
                    summary.refused += 1;
                    refuse(refusal);
                }
            }
            ControlFlow::Continue(())
        },
    );
    outcome.map_err(failed)?;
    let written = writer.finish(&origin, 0).map_err(failed)?;
    summary.torrents = written.torrents.into();
    summary.bytes = written.bytes;
    if !written.duplicates.is_empty() {
        let index = Index::open(&plan.target)?;
        for (later, first) in written.duplicates {
            let (path, first) = (index.metainfo_path(later)?, index.metainfo_path(first)?);
            // Directories that overlap lead to one file twice, which is no second torrent.
            if path.canonicalize().ok() != first.canonicalize().ok() {
                summary.refused += 1;
                refuse(Refusal {
                    path,
                    reason: RefusalReason::Duplicate(first),
                });
            }
        }
    }
    Ok(summary)
}

/// What was found in one place.
struct Found {
    /// `None` for what is no metainfo file.
    file: Option<File>,
    refusal: Option<Refusal>,
}

struct File {
    directory: Arc<Path>,
    name: OsString,
    info_hash: InfoHash,
    state: State,
    content_tag: u16,
    announce: Vec<Vec<String>>,
    stamp: FileStamp,
    content_stamp: u32,
}

impl Found {
    fn write(
        &self,
        writer: &mut Writer,
        root: &Path,
        progress: &Progress,
        summary: &mut Summary,
    ) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let trackers = writer.trackers(&file.announce)?;
        writer.record(&NewRecord {
            directory: file.directory.strip_prefix(root).unwrap_or(Path::new("")),
            name: file.name.as_bytes(),
            info_hash: file.info_hash,
            state: file.state,
            content_tag: file.content_tag,
            trackers,
            stamp: file.stamp,
            content_stamp: file.content_stamp,
        })?;
        summary.withdrawn += u64::from(file.state == State::Withdrawn);
        progress.add(1, file.stamp.length.into());
        Ok(())
    }
}

struct Worker {
    content: Option<PathBuf>,
    reader: Reader,
}

impl Worker {
    fn new(content: Option<PathBuf>) -> Self {
        Worker {
            content,
            reader: Reader::default(),
        }
    }

    fn work(&mut self, step: Step) -> Vec<Found> {
        let batch = match step {
            Step::Batch(batch) => batch,
            Step::Refused(refusal) => {
                return vec![Found {
                    file: None,
                    refusal: Some(refusal),
                }];
            }
        };
        let Batch { directory, names } = batch;
        // Where the directory itself is gone, so is every file in it, which is then said of each.
        let root = match &self.content {
            Some(content) => content.clone(),
            None => directory
                .canonicalize()
                .unwrap_or_else(|_| directory.clone()),
        };
        let directory: Arc<Path> = directory.into();
        names
            .into_iter()
            .map(|name| self.read(&directory, name, &root))
            .collect()
    }

    fn read(&mut self, directory: &Arc<Path>, name: OsString, root: &Path) -> Found {
        let path = directory.join(&name);
        let mut file = File {
            directory: Arc::clone(directory),
            name,
            info_hash: InfoHash([0; 20]),
            state: State::Unusable,
            content_tag: 0,
            announce: Vec::new(),
            stamp: FileStamp::default(),
            content_stamp: 0,
        };
        let reason = match self.reader.read(&path) {
            Err(reason) => {
                // A file that could not be read at all keeps a stamp that no file has.
                let readable = !matches!(reason, RefusalReason::Unreadable(_));
                let metadata = path.metadata().ok().filter(|_| readable);
                file.stamp = metadata.as_ref().map(FileStamp::new).unwrap_or_default();
                Some(reason)
            }
            Ok(found) => {
                file.info_hash = found.metainfo.info_hash;
                file.stamp = found.stamp;
                let checked = self.reader.check(root, &found.metainfo);
                file.announce = found.metainfo.announce;
                match checked {
                    Ok(stamp) => {
                        (file.state, file.content_stamp) = (State::Served, stamp);
                        None
                    }
                    Err(error) => {
                        file.state = State::Withdrawn;
                        Some(error.into())
                    }
                }
            }
        };
        Found {
            file: Some(file),
            refusal: reason.map(|reason| Refusal { path, reason }),
        }
    }
}

#[cfg(test)]
mod tests;
