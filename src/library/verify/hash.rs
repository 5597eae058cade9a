//! Hashing a run of pieces of one torrent, by one thread.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use walkdir::WalkDir;

use crate::library::scan::build::Progress;
use crate::torrent::content::{self, ContentError};
use crate::torrent::layout::{ExtentSource, Layout};
use crate::torrent::metainfo::{Metainfo, MetainfoFile};

/// A torrent whose content is hashed.
pub(super) struct Torrent {
    pub(super) path: PathBuf,
    pub(super) root: PathBuf,
    pub(super) metainfo: Metainfo,
    pub(super) layout: Layout,
    /// The SHA-1 of each piece.
    pub(super) hashes: Vec<[u8; 20]>,
}

/// Bytes that are read and hashed at a time: they stay in the processor's cache in between.
const STEP_BYTES: usize = 128 * 1024;

/// Extra files that are named for one torrent. Its directory may be that of a whole disk.
const MAX_EXTRA: usize = 1000;

/// What is wrong with a run of pieces, and with the files that start in it.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) faults: Vec<ContentError>,
    pub(super) absent: Vec<u32>,
    pub(super) corrupt: Vec<u32>,
    /// Found with the last piece.
    pub(super) extra: Vec<PathBuf>,
    /// Whether there are more than [`MAX_EXTRA`].
    pub(super) more_extra: bool,
}

impl Checked {
    /// Names a file that cannot be read, once. One that is short or not there was examined already.
    fn failed(&mut self, torrent: &Torrent, file: u32, error: io::Error) {
        let is_known = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
        );
        if let Some((path, _)) = place(torrent, file).filter(|_| !is_known) {
            add_fault(
                &mut self.faults,
                ContentError::Unreadable(path.into(), error),
            );
        }
    }
}

/// Adds a fault, unless it says once more that the same file cannot be read.
pub(super) fn add_fault(faults: &mut Vec<ContentError>, fault: ContentError) {
    let is_repeated = match (faults.last(), &fault) {
        (Some(ContentError::Unreadable(last, _)), ContentError::Unreadable(path, _)) => {
            last == path
        }
        _ => false,
    };
    if !is_repeated {
        faults.push(fault);
    }
}

/// Memory that is kept from one run to the next.
#[derive(Default)]
pub(super) struct Hasher {
    buffer: Vec<u8>,
    /// The file that was read last; `None` when it cannot be.
    open: Option<(u32, Option<File>)>,
}

impl Hasher {
    pub(super) fn check(
        &mut self,
        torrent: &Torrent,
        pieces: Range<u32>,
        progress: &Progress,
    ) -> Checked {
        self.open = None;
        self.buffer.resize(STEP_BYTES, 0);
        let mut checked = Checked::default();
        let piece_length = u64::from(torrent.metainfo.piece_length);
        for index in pieces.clone() {
            let start = u64::from(index) * piece_length;
            let mut digest = Sha1::new();
            let mut is_whole = true;
            for extent in torrent.layout.extents(start, piece_length) {
                let read = match extent.source {
                    ExtentSource::Zeros => {
                        self.zeros(extent.length, &mut digest);
                        Ok(())
                    }
                    ExtentSource::File(file) => {
                        if extent.offset == 0 {
                            checked.faults.extend(self.examine(torrent, file).err());
                        }
                        let read =
                            self.read(torrent, file, extent.offset, extent.length, &mut digest);
                        read.map_err(|error| checked.failed(torrent, file, error))
                    }
                };
                is_whole &= read.is_ok();
            }
            let wanted = usize::try_from(index).ok();
            let wanted = wanted.and_then(|index| torrent.hashes.get(index));
            if !is_whole {
                checked.absent.push(index);
            } else if wanted != Some(&digest.finalize().into()) {
                checked.corrupt.push(index);
            }
            progress.add(0, piece_length.min(torrent.metainfo.total_length - start));
        }
        if pieces.end == torrent.metainfo.pieces {
            checked.extra = extra(torrent);
            checked.more_extra = checked.extra.len() > MAX_EXTRA;
            checked.extra.truncate(MAX_EXTRA);
        }
        self.open = None;
        checked
    }

    /// Whether a file is where it should be, with its right length.
    fn examine(&mut self, torrent: &Torrent, file: u32) -> Result<(), ContentError> {
        let Some((path, length)) = place(torrent, file) else {
            return Ok(());
        };
        let open = content::open(&torrent.root, path, length)?;
        self.open = Some((file, Some(open)));
        Ok(())
    }

    fn read(
        &mut self,
        torrent: &Torrent,
        file: u32,
        offset: u64,
        length: u64,
        digest: &mut Sha1,
    ) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            self.open = Some((file, open_any_length(torrent, file)));
        }
        let Some((_, Some(open))) = &self.open else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut at = offset;
        let end = offset + length;
        while at < end {
            let step = usize::try_from(end - at).unwrap_or(STEP_BYTES);
            let (now, _) = self.buffer.split_at_mut(step.min(STEP_BYTES));
            open.read_exact_at(now, at)?;
            digest.update(&*now);
            at += now.len() as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, length: u64, digest: &mut Sha1) {
        self.buffer.fill(0);
        let mut left = length;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(STEP_BYTES);
            let (now, _) = self.buffer.split_at(step.min(STEP_BYTES));
            digest.update(now);
            left -= now.len() as u64;
        }
    }
}

/// A file that may be too short or too long: what is there is compared all the same.
fn open_any_length(torrent: &Torrent, file: u32) -> Option<File> {
    let (path, _) = place(torrent, file)?;
    File::open(content::resolve(&torrent.root, path).ok()?).ok()
}

fn place(torrent: &Torrent, file: u32) -> Option<(&Path, u64)> {
    let file = torrent.metainfo.files.get(usize::try_from(file).ok()?)?;
    Some((path(file), file.length))
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
        .filter_map(|entry| {
            entry
                .path()
                .strip_prefix(&torrent.root)
                .ok()
                .map(Path::to_path_buf)
        })
        .filter(|path| !known.contains(&**path))
        .take(MAX_EXTRA + 1)
        .collect()
}
