//! Hashing a run of pieces of one torrent, by one thread.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::library::scan::build::Progress;
use crate::torrent::content::{self, ContentError, PieceHasher};
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::layout::{ExtentSource, Layout};
use crate::torrent::metainfo::{Metainfo, MetainfoFile};
use crate::wire::message::InfoHash;

/// A torrent whose content is hashed.
pub(super) struct Torrent {
    pub(super) path: PathBuf,
    pub(super) root: PathBuf,
    pub(super) content: ContentDirectories,
    pub(super) metainfo: Metainfo,
    pub(super) layout: Layout,
    /// The SHA-1 of each piece.
    pub(super) hashes: Vec<[u8; 20]>,
}

/// Extra files that are named for one torrent. Its directory may be that of a whole disk.
const MAX_EXTRA: usize = 1000;

/// The findings about one torrent, or about some of its pieces and the files that start in them.
#[derive(Debug)]
pub struct Report {
    /// The metainfo file.
    pub path: PathBuf,
    /// The torrent.
    pub info_hash: InfoHash,
    /// How many pieces it has.
    pub pieces: u32,
    /// Files that are missing, have another length, or cannot be read.
    pub faults: Vec<ContentError>,
    /// Pieces that cannot be read completely, ascending.
    pub absent: Vec<u32>,
    /// Pieces with another hash, ascending.
    pub corrupt: Vec<u32>,
    /// Files in the torrent's directory that are no part of it, relative to the content root. They
    /// are no fault, and are found with the last piece.
    pub extra: Vec<PathBuf>,
    /// There are more of them than are named.
    pub more_extra: bool,
}

impl Report {
    /// One without faults.
    fn new(torrent: &Torrent) -> Self {
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

    /// Returns true if every byte is right and no file is longer than it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.absent.is_empty() && self.corrupt.is_empty()
    }

    /// Adds the findings in the pieces that follow.
    pub(super) fn append(&mut self, next: Report) {
        next.faults
            .into_iter()
            .for_each(|fault| self.add_fault(fault));
        self.absent.extend(next.absent);
        self.corrupt.extend(next.corrupt);
        self.extra.extend(next.extra);
        self.more_extra |= next.more_extra;
    }

    /// Adds a fault, unless it says once more that the same file cannot be read.
    fn add_fault(&mut self, fault: ContentError) {
        if let (Some(ContentError::Unreadable(last, _)), ContentError::Unreadable(path, _)) =
            (self.faults.last(), &fault)
            && last == path
        {
            return;
        }
        self.faults.push(fault);
    }
}

/// Memory that is kept from one run to the next.
#[derive(Default)]
pub(super) struct Hasher {
    piece: PieceHasher,
    /// The file that was read last; `None` when it cannot be.
    open: Option<(u32, Option<File>)>,
}

impl Hasher {
    pub(super) fn check(
        &mut self,
        torrent: &Torrent,
        pieces: Range<u32>,
        progress: &Progress,
    ) -> Report {
        self.open = None;
        let mut report = Report::new(torrent);
        let piece_length = u64::from(torrent.metainfo.piece_length);
        for index in pieces.clone() {
            let start = u64::from(index) * piece_length;
            let mut is_whole = true;
            for extent in torrent.layout.extents(start, piece_length) {
                let read = match extent.source {
                    ExtentSource::Zeros => {
                        self.piece.add_zeros(extent.length);
                        Ok(())
                    }
                    ExtentSource::File(file) => {
                        if extent.offset == 0 {
                            report.faults.extend(self.examine(torrent, file).err());
                        }
                        self.read(torrent, file, extent.offset, extent.length)
                    }
                };
                is_whole &= read.is_ok();
                // One that is short or missing was found when it was examined.
                let known = [ErrorKind::UnexpectedEof, ErrorKind::NotFound];
                if let (Err(error), ExtentSource::File(file)) = (read, extent.source)
                    && !known.contains(&error.kind())
                {
                    let path = path(file_of(torrent, file)).to_path_buf();
                    report.add_fault(ContentError::Unreadable(path, error));
                }
            }
            let hash = torrent.hashes.get(index as usize);
            let hash = hash.expect("each piece has a hash");
            let found = self.piece.finish();
            if !is_whole {
                report.absent.push(index);
            } else if *hash != found {
                report.corrupt.push(index);
            }
            progress.add(0, piece_length.min(torrent.metainfo.total_length - start));
        }
        if pieces.end == torrent.metainfo.pieces {
            report.extra = extra(torrent);
            report.more_extra = report.extra.len() > MAX_EXTRA;
            report.extra.truncate(MAX_EXTRA);
        }
        self.open = None;
        report
    }

    /// Opens a file and checks its length.
    fn examine(&mut self, torrent: &Torrent, file: u32) -> Result<(), ContentError> {
        let expected = file_of(torrent, file);
        let open = content::open(
            &torrent.content,
            &torrent.root,
            path(expected),
            expected.length,
        )?;
        self.open = Some((file, Some(open)));
        Ok(())
    }

    fn read(&mut self, torrent: &Torrent, file: u32, offset: u64, length: u64) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            self.open = Some((file, open_any_length(torrent, file)));
        }
        match &self.open {
            Some((_, Some(open))) => self.piece.add(open, offset, length),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }
}

/// A file that may be too short or too long: its bytes are compared all the same.
fn open_any_length(torrent: &Torrent, file: u32) -> Option<File> {
    let path = path(file_of(torrent, file));
    File::open(content::resolve(&torrent.content, &torrent.root, path).ok()?).ok()
}

fn file_of(torrent: &Torrent, file: u32) -> &MetainfoFile {
    let file = torrent.metainfo.files.get(file as usize);
    file.expect("the layout is made of the files of the metainfo")
}

fn path(file: &MetainfoFile) -> &Path {
    Path::new(OsStr::from_bytes(&file.path))
}

/// Files below the directory of a torrent of many files that are none of them; at most one more than
/// are named.
fn extra(torrent: &Torrent) -> Vec<PathBuf> {
    let files = || torrent.metainfo.files.iter().map(path);
    let mut deep = files().filter(|path| path.components().count() > 1);
    let Some(name) = deep.next().and_then(|path| path.iter().next()) else {
        return Vec::new();
    };
    let known: HashSet<&Path> = files().collect();
    WalkDir::new(torrent.root.join(name))
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_type().is_dir())
        .filter_map(|entry| Some(entry.path().strip_prefix(&torrent.root).ok()?.to_path_buf()))
        .filter(|path| !known.contains(&**path))
        .take(MAX_EXTRA + 1)
        .collect()
}
