//! Verifying torrents: every piece is hashed, and the torrents are divided among all cores.
//!
//! Blocks for as long as that takes.

use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

pub use super::hash::Report;
use super::hash::{Hasher, Torrent};
use crate::library::index::{Index, IndexError};
use crate::library::scan::build::Progress;
use crate::library::scan::parallel;
use crate::library::scan::walk::{Starts, Step, is_away};
use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::layout::Layout;
use crate::torrent::metainfo::Metainfo;
use crate::torrent::reader::Reader;

/// Bytes of one torrent that one thread hashes before another may take over: enough for a disk to
/// read in one go, and few enough that all cores share one large torrent.
const SPAN_BYTES: u64 = 32 * 1024 * 1024;

/// Which torrents are verified.
#[derive(Debug)]
pub enum Subject<'a> {
    /// Directories that are searched, and metainfo files.
    Paths(&'a [PathBuf]),
    /// Every metainfo file of an index.
    Index(&'a Index),
}

/// One result of a run.
#[derive(Debug)]
pub enum Finding {
    /// A torrent was hashed.
    Torrent(Report),
    /// A metainfo file or directory cannot be read or used.
    Refused(Refusal),
    /// An entry of the index could not be read.
    Index(IndexError),
}

/// Hashes the content of every torrent with this many threads and hands the findings to `take`, in
/// the order of their paths. Content lies in these places, or else where the index says, or else beside each
/// metainfo file. Ends early when `take` breaks.
///
/// # Errors
/// When a directory of content cannot be found, or no thread can be started.
pub fn verify(
    subject: &Subject<'_>,
    content: &ContentDirectories,
    threads: usize,
    progress: &Progress,
    mut take: impl FnMut(Finding) -> ControlFlow<()>,
) -> io::Result<()> {
    // Of the torrent whose pieces are being hashed.
    let mut report: Option<Report> = None;
    parallel::in_order(
        threads,
        thread::Builder::new,
        jobs(subject, content)?,
        || {
            let mut hasher = Hasher::default();
            move |job: Job| {
                job.map(|Span { torrent, pieces }| {
                    let is_last = pieces.end == torrent.metainfo.pieces;
                    (hasher.check(&torrent, pieces, progress), is_last)
                })
            }
        },
        |hashed| {
            let (next, is_last) = match hashed {
                Ok(hashed) => hashed,
                Err(finding) => return take(*finding),
            };
            let whole = match report.take() {
                Some(mut whole) => {
                    whole.append(next);
                    whole
                }
                None => next,
            };
            if !is_last {
                report = Some(whole);
                return ControlFlow::Continue(());
            }
            progress.add(1, 0);
            take(Finding::Torrent(whole))
        },
    )
    .map_err(|error| explained("cannot start a thread", &error))
}

/// The error with what was to be done.
fn explained(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Pieces of a torrent that one thread hashes.
struct Span {
    torrent: Arc<Torrent>,
    pieces: Range<u32>,
}

/// Pieces to be hashed, or why there are none.
type Job = Result<Span, Box<Finding>>;

fn jobs<'a>(
    subject: &Subject<'a>,
    content: &ContentDirectories,
) -> io::Result<Box<dyn Iterator<Item = Job> + Send + 'a>> {
    let mut opener = Opener {
        reader: Reader::default(),
        content: content.clone(),
    };
    for root in content.roots() {
        root.canonicalize()
            .map_err(|error| explained("content", &error))?;
    }
    Ok(match subject {
        Subject::Paths(paths) => {
            // A disk that is not mounted is no success.
            let empty = paths.iter().filter(|path| path.is_dir() && is_away(path));
            let empty = empty.map(|path| {
                Step::Refused(Refusal {
                    path: path.clone(),
                    reason: RefusalReason::Empty,
                })
            });
            let steps = empty.chain(Starts::new(paths).walk());
            Box::new(steps.flat_map(move |step| match step {
                Step::Refused(refusal) => vec![Err(Box::new(Finding::Refused(refusal)))],
                Step::Away(_) | Step::Hung(_) => Vec::new(),
                Step::Batch(batch) => {
                    let paths = batch.names.iter().map(|name| batch.directory.join(name));
                    paths.flat_map(|path| opener.open(path)).collect()
                }
            }))
        }
        Subject::Index(index) => {
            opener.content = index.content(content);
            Box::new(index.entries().flat_map(move |entry| match entry {
                Ok(entry) => opener.open(entry.path.to_path_buf()),
                Err(error) => vec![Err(Box::new(Finding::Index(error)))],
            }))
        }
    })
}

/// Reads metainfo files and cuts their torrents into spans.
struct Opener {
    reader: Reader,
    content: ContentDirectories,
}

impl Opener {
    fn open(&mut self, path: PathBuf) -> Vec<Job> {
        match self.read(&path) {
            Ok(torrent) => {
                let piece_length = u64::from(torrent.metainfo.piece_length);
                let step = usize::try_from(SPAN_BYTES / piece_length).expect("32 MiB at most");
                let pieces = torrent.metainfo.pieces;
                let torrent = Arc::new(torrent);
                let starts = (0..pieces).step_by(step.max(1));
                let ends = starts.clone().skip(1).chain([pieces]);
                let span = |(start, end)| {
                    Ok(Span {
                        torrent: Arc::clone(&torrent),
                        pieces: start..end,
                    })
                };
                starts.zip(ends).map(span).collect()
            }
            Err(reason) => vec![Err(Box::new(Finding::Refused(Refusal { path, reason })))],
        }
    }

    fn read(&mut self, path: &Path) -> Result<Torrent, RefusalReason> {
        let mut metainfo = self.reader.read(path)?.metainfo;
        let hashes = Metainfo::piece_hashes(self.reader.raw())?;
        let directory = path.parent().unwrap_or(Path::new("/")).canonicalize()?;
        let roots = self.content.roots_of(&directory);
        let root = (self.reader).find_all(&self.content, &roots, &mut metainfo);
        let root = root.canonicalize()?;
        let files = metainfo.files.iter();
        Ok(Torrent {
            path: path.to_path_buf(),
            root,
            content: self.content.clone(),
            layout: Layout::new(files.map(|file| (file.length, file.padding))),
            metainfo,
            hashes,
        })
    }
}

#[cfg(test)]
mod tests;
