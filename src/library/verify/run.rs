//! Verifying torrents: every piece is hashed, and the torrents are divided among all cores.
//!
//! Blocks for as long as that takes.

use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hash::{Checked, Hasher, Torrent, add_fault};
use crate::library::index::{Index, IndexError};
use crate::library::scan::build::Progress;
use crate::library::scan::parallel;
use crate::library::scan::walk::{Starts, Step, is_away};
use crate::torrent::catalogue::{Refusal, RefusalReason};
use crate::torrent::content::ContentError;
use crate::torrent::layout::Layout;
use crate::torrent::metainfo::Metainfo;
use crate::torrent::reader::Reader;
use crate::wire::message::InfoHash;

/// Bytes of one torrent that one thread hashes before another may take over: enough for a disk to
/// read in one go, and few enough that all cores share one large torrent.
const SPAN_BYTES: u64 = 32 * 1024 * 1024;

/// What is looked at.
#[derive(Debug)]
pub enum Subject<'a> {
    /// Directories that are searched, and metainfo files.
    Paths(&'a [PathBuf]),
    /// Every metainfo file of an index.
    Index(&'a Index),
}

/// What was found out about one torrent.
#[derive(Debug)]
pub struct Report {
    /// The metainfo file.
    pub path: PathBuf,
    /// What names it on the wire.
    pub info_hash: InfoHash,
    /// How many pieces it has.
    pub pieces: u32,
    /// Files that are not as they should be.
    pub faults: Vec<ContentError>,
    /// Pieces that are not all there, ascending.
    pub absent: Vec<u32>,
    /// Pieces with another hash, ascending.
    pub corrupt: Vec<u32>,
    /// Files in the torrent's directory that are no part of it, relative to the content root. They
    /// are no fault.
    pub extra: Vec<PathBuf>,
    /// Whether there are more of them than are named.
    pub more_extra: bool,
}

impl Report {
    /// Whether every byte is right and no file is longer than it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.absent.is_empty() && self.corrupt.is_empty()
    }
}

/// What comes out of a run.
#[derive(Debug)]
pub enum Finding {
    /// A torrent was looked at.
    Torrent(Report),
    /// A metainfo file or directory could not be.
    Refused(Refusal),
    /// An entry of the index could not be read.
    Index(IndexError),
}

/// Hashes the content of every torrent with so many threads and hands the findings to `take`, in
/// the order of their paths. All content lies below `content`, or else where the index says, or
/// else beside each metainfo file. Ends early when `take` breaks.
///
/// # Errors
/// When `content` cannot be found, or no thread can be started.
pub fn verify(
    subject: &Subject<'_>,
    content: Option<&Path>,
    threads: usize,
    progress: &Progress,
    mut take: impl FnMut(Finding) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut report: Option<Report> = None;
    parallel::in_order(
        threads,
        jobs(subject, content)?,
        || {
            let mut hasher = Hasher::default();
            move |job| match job {
                Job::Pass(finding) => Done::Pass(finding),
                Job::Check(span) => {
                    let checked = hasher.check(&span.torrent, span.pieces.clone(), progress);
                    Done::Checked(span, checked)
                }
            }
        },
        |done| match done {
            Done::Pass(finding) => take(finding),
            Done::Checked(span, checked) => {
                let mut whole = report.take().unwrap_or_else(|| empty_report(&span.torrent));
                for fault in checked.faults {
                    add_fault(&mut whole.faults, fault);
                }
                whole.absent.extend(checked.absent);
                whole.corrupt.extend(checked.corrupt);
                whole.extra.extend(checked.extra);
                whole.more_extra |= checked.more_extra;
                if span.pieces.end < span.torrent.metainfo.pieces {
                    report = Some(whole);
                    ControlFlow::Continue(())
                } else {
                    progress.add(1, 0);
                    take(Finding::Torrent(whole))
                }
            }
        },
    )
}

/// A report without faults.
fn empty_report(torrent: &Torrent) -> Report {
    Report {
        path: torrent.path.clone(),
        info_hash: torrent.metainfo.info_hash,
        pieces: torrent.metainfo.pieces,
        faults: Vec::new(),
        absent: Vec::new(),
        corrupt: Vec::new(),
        extra: Vec::new(),
        more_extra: false,
    }
}

struct Span {
    torrent: Arc<Torrent>,
    pieces: Range<u32>,
}

enum Job {
    Pass(Finding),
    Check(Span),
}

enum Done {
    Pass(Finding),
    Checked(Span, Checked),
}

fn jobs<'a>(
    subject: &Subject<'a>,
    content: Option<&Path>,
) -> io::Result<Box<dyn Iterator<Item = Job> + Send + 'a>> {
    let mut opener = Opener {
        reader: Reader::default(),
        content: content.map(Path::canonicalize).transpose()?,
    };
    Ok(match subject {
        Subject::Paths(paths) => {
            // A disk that is not mounted must not look as if all were well.
            let empty = paths.iter().filter(|path| path.is_dir() && is_away(path));
            let empty = empty.map(|path| {
                Step::Refused(Refusal {
                    path: path.clone(),
                    reason: RefusalReason::Empty,
                })
            });
            let steps = empty.chain(Starts::new(paths).walk());
            Box::new(steps.flat_map(move |step| match step {
                Step::Refused(refusal) => vec![Job::Pass(Finding::Refused(refusal))],
                Step::Away(_) => Vec::new(),
                Step::Batch(batch) => {
                    let paths = batch.names.iter().map(|name| batch.directory.join(name));
                    paths.flat_map(|path| opener.open(path)).collect()
                }
            }))
        }
        Subject::Index(index) => {
            let origin = index.origin();
            let below = |path: &PathBuf| origin.root.join(path);
            opener.content = opener
                .content
                .or_else(|| origin.content.as_ref().map(below));
            Box::new(index.entries().flat_map(move |entry| match entry {
                Ok(entry) => opener.open(entry.path.to_path_buf()),
                Err(error) => vec![Job::Pass(Finding::Index(error))],
            }))
        }
    })
}

/// Reads metainfo files and cuts their torrents into spans.
struct Opener {
    reader: Reader,
    content: Option<PathBuf>,
}

impl Opener {
    fn open(&mut self, path: PathBuf) -> Vec<Job> {
        match self.read(&path) {
            Ok(torrent) => {
                let piece_length = u64::from(torrent.metainfo.piece_length);
                let step = u32::try_from(SPAN_BYTES / piece_length).unwrap_or(u32::MAX);
                let pieces = torrent.metainfo.pieces;
                let torrent = Arc::new(torrent);
                let mut start = 0_u32;
                let spans = std::iter::from_fn(|| {
                    let end = pieces.min(start.saturating_add(step.max(1)));
                    let pieces = std::mem::replace(&mut start, end)..end;
                    (!pieces.is_empty()).then(|| {
                        Job::Check(Span {
                            torrent: Arc::clone(&torrent),
                            pieces,
                        })
                    })
                });
                spans.collect()
            }
            Err(reason) => vec![Job::Pass(Finding::Refused(Refusal { path, reason }))],
        }
    }

    fn read(&mut self, path: &Path) -> Result<Torrent, RefusalReason> {
        let metainfo = self.reader.read(path)?.metainfo;
        let hashes = Metainfo::piece_hashes(self.reader.raw())?;
        let root = match &self.content {
            Some(content) => content.clone(),
            None => path.parent().unwrap_or(Path::new("/")).canonicalize()?,
        };
        let files = metainfo.files.iter();
        Ok(Torrent {
            path: path.to_path_buf(),
            root,
            layout: Layout::new(files.map(|file| (file.length, file.padding))),
            metainfo,
            hashes,
        })
    }
}

#[cfg(test)]
mod tests;
