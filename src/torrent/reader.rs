//! Reading one metainfo file after the other, and checking their content.
//!
//! Blocks: not for the loop.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::content::{Checker, ContentError, explain};
use super::content_directories::ContentDirectories;
use super::metainfo::{METAINFO_MAX_BYTES, Metainfo, MetainfoFile};
use super::names::OtherPaths;
use super::refusal::RefusalReason;

/// A read buffer of at most this size is kept from file to file.
const BUFFER_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Memory that is kept from one file to the next.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
    checker: Checker,
}

/// A metainfo file as it is on disk.
#[derive(Debug)]
pub struct StampedMetainfo {
    /// Its content.
    pub metainfo: Metainfo,
    /// The stamp by which a change of the file is recognised.
    pub stamp: FileStamp,
}

/// The length of a file and the time of its last change. A file with the same stamp counts as
/// unchanged. A copy that keeps times has the same stamp.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FileStamp {
    /// Bytes, at most [`METAINFO_MAX_BYTES`] for a metainfo file that is read; more is `u32::MAX`.
    pub length: u32,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
}

impl FileStamp {
    /// The stamp of the file that has this metadata.
    #[must_use]
    pub fn new(metadata: &Metadata) -> Self {
        FileStamp {
            length: u32::try_from(metadata.len()).unwrap_or(u32::MAX),
            modified_ns: modified_ns(metadata),
        }
    }
}

/// A stamp that also tells a file from a copy which keeps times, for a file whose length is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub(crate) inode: u64,
    /// Nanoseconds since 1970.
    pub(crate) modified_ns: i64,
}

impl Stamp {
    /// The stamp of the file that has this metadata.
    pub(crate) fn new(metadata: &Metadata) -> Self {
        Stamp {
            inode: metadata.ino(),
            modified_ns: modified_ns(metadata),
        }
    }

    /// That of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Stamp::new(&metadata))
    }
}

/// Nanoseconds since 1970 of the last change of the bytes. Ends in the year 2262.
fn modified_ns(metadata: &Metadata) -> i64 {
    let seconds = metadata.mtime().saturating_mul(1_000_000_000);
    seconds.saturating_add(metadata.mtime_nsec())
}

impl Reader {
    /// Reads and parses a metainfo file.
    ///
    /// # Errors
    /// A [`RefusalReason`] of the file itself; its content is not checked.
    pub fn read(&mut self, path: &Path) -> Result<StampedMetainfo, RefusalReason> {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        // If it is a pipe by now, opening it does not wait for a writer.
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path).map_err(|error| explain(path, error))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(RefusalReason::NotRegular);
        }
        if metadata.len() > METAINFO_MAX_BYTES {
            return Err(RefusalReason::TooLarge);
        }
        let length = usize::try_from(metadata.len()).expect("it is bounded");
        // One byte more, to see the end without more room.
        self.buffer.reserve_exact(length + 1);
        // The file may grow while it is read.
        file.take(METAINFO_MAX_BYTES + 1)
            .read_to_end(&mut self.buffer)?;
        if self.buffer.len() as u64 > METAINFO_MAX_BYTES {
            return Err(RefusalReason::TooLarge);
        }
        Ok(StampedMetainfo {
            metainfo: Metainfo::parse(&self.buffer)?,
            stamp: FileStamp::new(&metadata),
        })
    }

    /// The bytes of the last file.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.buffer
    }

    /// Checks that every file of a torrent is below one of `roots` and has the right length. A file that is found
    /// under another of its names gets that one as its path. Returns the first root that has all.
    ///
    /// # Errors
    /// The [`ContentError`] of the first file that is not, in the first root where something else than nothing
    /// is found.
    pub fn check<'a>(
        &mut self,
        content: &ContentDirectories,
        roots: &[&'a Path],
        metainfo: &mut Metainfo,
    ) -> Result<&'a Path, ContentError> {
        let mut first_error = None;
        for root in roots {
            match self.find(content, root, metainfo, Err) {
                Ok(()) => return Ok(root),
                Err(error) => match &first_error {
                    None | Some(ContentError::Missing(_)) if !error.is_absence() => {
                        first_error = Some(error);
                    }
                    None => first_error = Some(error),
                    Some(_) => {}
                },
            }
        }
        Err(first_error.expect("there is a root"))
    }

    /// The same, but each file that is not found is passed over: they are looked for below the first root that
    /// has all, or else the first that has something of the torrent.
    pub(crate) fn find_all<'a>(
        &mut self,
        content: &ContentDirectories,
        roots: &[&'a Path],
        metainfo: &mut Metainfo,
    ) -> &'a Path {
        if let Ok(root) = self.check(content, roots, metainfo) {
            return root;
        }
        let path = metainfo.files.iter().map(|file| path_of(&file.path));
        let name = path.filter_map(|path| path.iter().next()).next();
        let has_name = |root: &&&Path| name.is_some_and(|name| root.join(name).exists());
        let root = roots.iter().find(has_name).or(roots.first());
        let root = root.expect("there is a root");
        let ended = self.find(content, root, metainfo, |_| Ok(()));
        ended.expect("every error is passed over");
        root
    }

    fn find(
        &mut self,
        content: &ContentDirectories,
        root: &Path,
        metainfo: &mut Metainfo,
        failed: impl Fn(ContentError) -> Result<(), ContentError>,
    ) -> Result<(), ContentError> {
        let mut others = OtherPaths::new(content.named().without_subfolder);
        let mut elsewhere = Vec::new();
        for index in 0..metainfo.files.len() {
            // A file without bytes is never read, so it may as well be missing.
            let expected = |file: &&MetainfoFile| file.length > 0 && !file.padding;
            let Some(file) = metainfo.files.get(index).filter(expected) else {
                continue;
            };
            let found = match metainfo.raw_names.is_repeated(index) {
                // The file at this path is that of another entry.
                true => Err(ContentError::Missing(path_of(&file.path).to_path_buf())),
                false => (self.checker).check(content, root, path_of(&file.path), file.length),
            };
            let Err(error) = found else { continue };
            match self.find_elsewhere(content, root, metainfo, index, error, &mut others) {
                Ok(path) => elsewhere.push((index, path)),
                Err(error) => failed(error)?,
            }
        }
        for (index, path) in elsewhere {
            let file = metainfo.files.get_mut(index);
            file.expect("the file is one of them").path = path;
        }
        Ok(())
    }

    /// Looks for a file under its other names. Returns its path, or why it is not served: that of the first name,
    /// unless there is a file under another.
    fn find_elsewhere(
        &mut self,
        content: &ContentDirectories,
        root: &Path,
        metainfo: &Metainfo,
        index: usize,
        mut error: ContentError,
        others: &mut OtherPaths,
    ) -> Result<Vec<u8>, ContentError> {
        let file = metainfo.files.get(index).expect("the file is one of them");
        for (way, path) in others.of(metainfo, index) {
            match (self.checker).check(content, root, path_of(&path), file.length) {
                Ok(()) => {
                    others.remember(way);
                    return Ok(path);
                }
                Err(ContentError::Missing(_)) => {}
                Err(other) if matches!(error, ContentError::Missing(_)) => error = other,
                Err(_) => {}
            }
        }
        if metainfo.raw_names.is_repeated(index) {
            // Transmission has one file for all entries of a path.
            (self.checker).check(content, root, path_of(&file.path), file.length)?;
            return Ok(file.path.clone());
        }
        Err(error)
    }
}

fn path_of(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// The FNV-1a hash: small, and the same in every version of the program, since it is stored.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "folding drops bits")]
    pub(crate) fn fold(&self) -> u32 {
        (self.0 >> 32) as u32 ^ self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::metainfo::samples::{entry, multi};
    use std::fs::{self, File};
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_pipe_is_refused_without_waiting_for_a_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n.torrent");
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let refused = Reader::default().read(&path).unwrap_err();
        assert!(matches!(refused, RefusalReason::NotRegular));
    }

    #[test]
    fn every_file_with_bytes_must_have_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let files = entry(5, &["a"], "") + &entry(0, &["gone"], "") + &entry(4, &["b"], "");
        let mut metainfo = Metainfo::parse(multi(9, &files, "").as_bytes()).unwrap();
        fs::create_dir(directory.path().join("m")).unwrap();
        let (a, b) = (directory.path().join("m/a"), directory.path().join("m/b"));
        fs::write(&a, "12345").unwrap();
        let mut reader = Reader::default();
        let missing = reader
            .check(
                &ContentDirectories::default(),
                &[directory.path()],
                &mut metainfo,
            )
            .unwrap_err();
        assert_eq!(missing.to_string(), "content m/b is missing");
        fs::write(&b, "1234").unwrap();

        reader
            .check(
                &ContentDirectories::default(),
                &[directory.path()],
                &mut metainfo,
            )
            .unwrap();
        fs::write(&b, "123").unwrap();
        let short = reader
            .check(
                &ContentDirectories::default(),
                &[directory.path()],
                &mut metainfo,
            )
            .unwrap_err();
        assert_eq!(short.to_string(), "content m/b has 3 bytes, not 4");
    }

    #[test]
    fn the_stamp_of_a_metainfo_file_is_its_length_and_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n.torrent");
        let raw = multi(5, &entry(5, &["a"], ""), "");
        fs::write(&path, &raw).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
        let mut reader = Reader::default();
        let found = reader.read(&path).unwrap();
        let expected = FileStamp {
            length: u32::try_from(raw.len()).unwrap(),
            modified_ns: 1_700_000_000_000_000_005,
        };
        assert_eq!(found.stamp, expected);
        assert_eq!(reader.raw(), raw.as_bytes());
    }
}
