//! Finding and opening the content of a torrent.
//!
//! Nothing is ever read that the operator has not named: names are plain, and a symlink is followed only if it
//! leads below the content root or another directory that was named.
//!
//! Blocks: not for the loop.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use sha1::{Digest, Sha1};
use thiserror::Error;

use super::content_directories::ContentDirectories;
use super::printable::Printable;
use crate::sys::process;

/// Bytes that are read and hashed at a time: they stay in the processor's cache in between.
const HASHED_BYTES: usize = 128 * 1024;

/// Why a file cannot be served. The paths are those below the content root.
#[derive(Debug, Error)]
pub enum ContentError {
    /// No such file.
    #[error("content {} is missing{}", Printable::path(.0), RawBytes(.0))]
    Missing(PathBuf),
    /// The file system refuses to read it.
    #[error("content {} is unreadable: {}", Printable::path(.0), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// A directory, device, pipe or socket.
    #[error("content {} is not a regular file", Printable::path(.0))]
    NotRegular(PathBuf),
    /// Another length than the metainfo file says.
    #[error("content {} has {found} bytes, not {expected}", Printable::path(path))]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// Bytes, from the metainfo file.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// A symlink to nothing.
    #[error(
        "content {} is a link to {}, which is missing",
        Printable::path(path),
        Printable::path(target)
    )]
    Dangling {
        /// The file.
        path: PathBuf,
        /// What the link says, on the way to it the first that leads nowhere.
        target: PathBuf,
    },
    /// A symlink that leads out.
    #[error(
        "content {} is a link to {}, which is below no directory that was named; if it may be served, give its directory as --content-root",
        Printable::path(path),
        Printable::path(target)
    )]
    Escapes {
        /// The file.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A path that is empty, absolute or holds `.` or `..`.
    #[error("content path {} is not made of plain names", Printable::path(.0))]
    Unsafe(PathBuf),
}

/// Displays the bytes of a path with letters beside ASCII, nothing for others: two such names may look the same
/// and differ, and a terminal shows neither.
struct RawBytes<'a>(&'a Path);

impl fmt::Display for RawBytes<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_os_str().as_encoded_bytes();
        if bytes.is_ascii() {
            return Ok(());
        }
        let bytes = bytes.escape_ascii().to_string();
        write!(formatter, ", in bytes {}", Printable(bytes.as_bytes()))
    }
}

impl ContentError {
    /// Returns true if there is no file.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

/// Finds the regular file at `relative` below `root`. The result has no symlink below the root.
///
/// # Errors
/// A [`ContentError`], never [`ContentError::WrongSize`].
pub fn resolve(
    content: &ContentDirectories,
    root: &Path,
    relative: &Path,
) -> Result<PathBuf, ContentError> {
    examine(content, root, relative, &mut PathBuf::new())
}

/// Opens the file at `relative` below `root` for reading; it must have `length` bytes.
///
/// # Errors
/// A [`ContentError`].
pub fn open(
    content: &ContentDirectories,
    root: &Path,
    relative: &Path,
    length: u64,
) -> Result<File, ContentError> {
    open_resolved(&resolve(content, root, relative)?, relative, length)
}

/// Checks many files while a library is read, and remembers the last directory.
#[derive(Default)]
pub struct Checker {
    plain_directory: PathBuf,
}

impl Checker {
    /// Checks that [`open`] can open the file.
    ///
    /// # Errors
    /// A [`ContentError`].
    pub fn check(
        &mut self,
        content: &ContentDirectories,
        root: &Path,
        relative: &Path,
        length: u64,
    ) -> Result<(), ContentError> {
        let path = examine(content, root, relative, &mut self.plain_directory)?;
        open_resolved(&path, relative, length).map(drop)
    }
}

/// Walks from `root` to `relative`. `plain_directory` is a directory known to be reached without a
/// symlink below its root, so that the files of one directory cost one system call each.
fn examine(
    content: &ContentDirectories,
    root: &Path,
    relative: &Path,
    plain_directory: &mut PathBuf,
) -> Result<PathBuf, ContentError> {
    let is_plain = |component| matches!(component, Component::Normal(_));
    let (Some(name), Some(directory), true) = (
        relative.file_name(),
        relative.parent(),
        relative.components().all(is_plain),
    ) else {
        return Err(ContentError::Unsafe(relative.to_path_buf()));
    };
    let mut path = root.join(directory);
    if path.as_os_str() != plain_directory.as_os_str() {
        path = root.to_path_buf();
        for component in directory {
            path.push(component);
            if metadata_of(&path, relative)?.is_symlink() {
                return follow(content, root, relative);
            }
        }
        plain_directory.clone_from(&path);
    }
    path.push(name);
    let metadata = metadata_of(&path, relative)?;
    if metadata.is_symlink() {
        return follow(content, root, relative);
    }
    regular(path, &metadata, relative)
}

/// The metadata of `path` itself, which is not followed.
fn metadata_of(path: &Path, relative: &Path) -> Result<Metadata, ContentError> {
    fs::symlink_metadata(path).map_err(|error| failed(relative, error))
}

/// Follows every symlink on the way, and refuses to end up outside.
fn follow(
    content: &ContentDirectories,
    root: &Path,
    relative: &Path,
) -> Result<PathBuf, ContentError> {
    let path = root.join(relative);
    let path = path.canonicalize().map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => lost(root, relative),
        _ => failed(relative, error),
    })?;
    if !is_named(content, root, &path) {
        return Err(ContentError::Escapes {
            path: relative.to_path_buf(),
            target: path,
        });
    }
    let metadata = metadata_of(&path, relative)?;
    regular(path, &metadata, relative)
}

/// Returns true if a path without symlinks is below the root or another directory that was named. These are
/// compared as they were named first: that needs no system call.
fn is_named(content: &ContentDirectories, root: &Path, path: &Path) -> bool {
    let named = || {
        [root]
            .into_iter()
            .chain(content.named().links.iter().map(PathBuf::as_path))
    };
    let is_below =
        |directory: io::Result<PathBuf>| directory.is_ok_and(|above| path.starts_with(above));
    named().any(|directory| path.starts_with(directory))
        || named().any(|directory| is_below(directory.canonicalize()))
}

/// A file behind a symlink that leads nowhere: the first one on the way.
fn lost(root: &Path, relative: &Path) -> ContentError {
    let mut path = root.to_path_buf();
    for component in relative {
        path.push(component);
        if let (Ok(target), Err(_)) = (fs::read_link(&path), path.metadata()) {
            return ContentError::Dangling {
                path: relative.to_path_buf(),
                target,
            };
        }
    }
    ContentError::Missing(relative.to_path_buf())
}

fn regular(path: PathBuf, metadata: &Metadata, relative: &Path) -> Result<PathBuf, ContentError> {
    match metadata.is_file() {
        true => Ok(path),
        false => Err(ContentError::NotRegular(relative.to_path_buf())),
    }
}

fn open_resolved(path: &Path, relative: &Path, length: u64) -> Result<File, ContentError> {
    // The file may have been replaced since it was examined: a symlink is not followed, and opening a
    // pipe does not wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| failed(relative, explain(path, error)))?;
    let metadata = file.metadata().map_err(|error| failed(relative, error))?;
    if !metadata.is_file() {
        return Err(ContentError::NotRegular(relative.to_path_buf()));
    }
    if metadata.len() != length {
        return Err(ContentError::WrongSize {
            path: relative.to_path_buf(),
            expected: length,
            found: metadata.len(),
        });
    }
    Ok(file)
}

/// Hashes a piece, part by part. Its memory is kept from one piece to the next.
pub(crate) struct PieceHasher {
    digest: Sha1,
    buffer: Box<[u8]>,
}

impl Default for PieceHasher {
    fn default() -> Self {
        PieceHasher {
            digest: Sha1::new(),
            buffer: vec![0; HASHED_BYTES].into_boxed_slice(),
        }
    }
}

impl PieceHasher {
    /// Adds bytes of a file.
    pub(crate) fn add(&mut self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        self.add_parts(length, |part, at| file.read_exact_at(part, offset + at))
    }

    /// Adds the bytes of padding (BEP 47).
    pub(crate) fn add_zeros(&mut self, length: u64) {
        let zeros = self.add_parts(length, |part, _| {
            part.fill(0);
            Ok(())
        });
        zeros.expect("nothing is read");
    }

    fn add_parts(
        &mut self,
        length: u64,
        fill: impl Fn(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = 0;
        while at < length {
            let left = usize::try_from(length - at).unwrap_or(HASHED_BYTES);
            let (part, _) = self.buffer.split_at_mut(left.min(HASHED_BYTES));
            fill(part, at)?;
            self.digest.update(&*part);
            at += part.len() as u64;
        }
        Ok(())
    }

    /// The hash of all that was added, and a new beginning.
    pub(crate) fn finish(&mut self) -> [u8; 20] {
        self.digest.finalize_reset().into()
    }
}

/// A link leads out of the sandbox, or a disk was mounted where the sandbox could not allow one.
const SANDBOX_REFUSES: &str =
    "the sandbox refuses it, see --content-root; restart if a disk was mounted there";

/// An error of opening a file or a directory, with a message of its own if the sandbox was the cause:
/// the permissions of the path can be checked without opening it, and the sandbox does not change
/// them.
#[must_use]
pub fn explain(path: &Path, error: io::Error) -> io::Error {
    let kind = error.kind();
    match kind == ErrorKind::PermissionDenied && process::permissions_allow_reading(path) {
        true => io::Error::new(kind, SANDBOX_REFUSES),
        false => error,
    }
}

fn failed(relative: &Path, error: io::Error) -> ContentError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            ContentError::Missing(relative.to_path_buf())
        }
        _ => ContentError::Unreadable(relative.to_path_buf(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use tempfile::TempDir;

    /// `root/` with `a` and `d/e/f`, and `outside` beside it.
    fn tree() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let root = base.join("root");
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::create_dir(base.join("root-beside")).unwrap();
        for file in ["root/a", "root/d/e/f", "outside", "root-beside/f"] {
            fs::write(base.join(file), "12345").unwrap();
        }
        (directory, root)
    }

    fn error(root: &Path, relative: &str) -> String {
        let (content, relative) = (ContentDirectories::default(), Path::new(relative));
        let line = resolve(&content, root, relative).unwrap_err().to_string();
        let mut checker = Checker::default();
        let checked = checker.check(&content, root, relative, 5).unwrap_err();
        assert_eq!(checked.to_string(), line);
        line
    }

    #[test]
    fn a_file_below_the_root_is_found_and_opened() {
        let (_directory, root) = tree();
        for name in ["a", "d/e/f"] {
            let path = Path::new(name);
            assert_eq!(
                resolve(&ContentDirectories::default(), &root, path).unwrap(),
                root.join(name)
            );
            let mut content = String::new();
            let mut file = open(&ContentDirectories::default(), &root, path, 5).unwrap();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, "12345");
        }
    }

    #[test]
    fn the_size_must_be_right() {
        let (_directory, root) = tree();
        let line = |length| {
            open(
                &ContentDirectories::default(),
                &root,
                Path::new("a"),
                length,
            )
            .unwrap_err()
            .to_string()
        };
        assert_eq!(line(4), "content a has 5 bytes, not 4");
        assert_eq!(line(6), "content a has 5 bytes, not 6");
        let mut checker = Checker::default();
        assert!(
            checker
                .check(&ContentDirectories::default(), &root, Path::new("a"), 5)
                .is_ok()
        );
        assert!(
            checker
                .check(&ContentDirectories::default(), &root, Path::new("a"), 4)
                .is_err()
        );
    }

    #[test]
    fn only_plain_names_are_accepted() {
        let (_directory, root) = tree();
        for path in [
            "",
            "../outside",
            "d/../a",
            "./a",
            "/etc/passwd",
            "..",
            "d/e/../../../outside",
        ] {
            let line = error(&root, path);
            assert!(line.ends_with("is not made of plain names"), "{line}");
        }
    }

    #[test]
    fn absent_files_are_missing() {
        let (_directory, root) = tree();
        for path in ["b", "d/x/f", "a/f", "d\n"] {
            assert!(error(&root, path).ends_with(" is missing"));
        }
        assert_eq!(error(&root, "d\n"), "content d\\n is missing");
        // Both are printed alike.
        let [composed, decomposed] = ["\u{e9}", "e\u{301}"].map(|name| error(&root, name));
        assert_eq!(composed, "content \u{e9} is missing, in bytes \\xc3\\xa9");
        assert_eq!(
            decomposed,
            "content e\u{301} is missing, in bytes e\\xcc\\x81"
        );
    }

    #[test]
    fn only_regular_files_are_content() {
        let (_directory, root) = tree();
        let _listener = UnixListener::bind(root.join("socket")).unwrap();
        symlink("/dev/zero", root.join("device")).unwrap();
        symlink("d", root.join("link")).unwrap();
        assert_eq!(error(&root, "d"), "content d is not a regular file");
        assert_eq!(error(&root, "link"), "content link is not a regular file");
        assert_eq!(
            error(&root, "socket"),
            "content socket is not a regular file"
        );
        assert!(
            error(&root, "device").contains("a link to /dev/zero, which is below no directory")
        );
    }

    #[test]
    fn symlinks_within_the_root_are_followed() {
        let (_directory, root) = tree();
        symlink("d/e/f", root.join("file")).unwrap();
        symlink(root.join("d"), root.join("directory")).unwrap();
        symlink("../../a", root.join("d/e/up")).unwrap();
        let found = |path| resolve(&ContentDirectories::default(), &root, Path::new(path)).unwrap();
        assert_eq!(found("file"), root.join("d/e/f"));
        assert_eq!(found("directory/e/f"), root.join("d/e/f"));
        assert_eq!(found("d/e/up"), root.join("a"));
        assert!(
            open(
                &ContentDirectories::default(),
                &root,
                Path::new("directory/e/up"),
                5
            )
            .is_ok()
        );
    }

    #[test]
    fn a_root_that_is_a_symlink_is_no_escape() {
        let (_directory, root) = tree();
        let alias = root.with_file_name("alias");
        symlink(&root, &alias).unwrap();
        symlink("d/e/f", root.join("file")).unwrap();
        assert!(open(&ContentDirectories::default(), &alias, Path::new("a"), 5).is_ok());
        assert!(open(&ContentDirectories::default(), &alias, Path::new("file"), 5).is_ok());
    }

    #[test]
    fn symlinks_that_leave_the_root_are_refused() {
        let (_directory, root) = tree();
        symlink("../outside", root.join("file")).unwrap();
        symlink("../root-beside", root.join("beside")).unwrap();
        symlink("..", root.join("d/e/top")).unwrap();
        symlink("../../..", root.join("d/e/out")).unwrap();
        symlink("file", root.join("twice")).unwrap();
        for path in ["file", "beside/f", "d/e/out/outside", "twice"] {
            let line = error(&root, path);
            assert!(
                line.contains("which is below no directory that was named"),
                "{line}"
            );
            assert!(line.contains("--content-root"), "{line}");
        }
        // Out and in again ends below the root, and only the end counts.
        assert!(
            resolve(
                &ContentDirectories::default(),
                &root,
                Path::new("d/e/out/root/a")
            )
            .is_ok()
        );
        assert!(
            resolve(
                &ContentDirectories::default(),
                &root,
                Path::new("d/e/top/e/f")
            )
            .is_ok()
        );
    }

    #[test]
    fn symlinks_to_any_named_directory_are_followed() {
        let (_directory, root) = tree();
        let beside = root.with_file_name("root-beside");
        let alias = root.with_file_name("alias");
        symlink(&beside, &alias).unwrap();
        symlink("../alias", root.join("directory")).unwrap();
        symlink("directory/f", root.join("twice")).unwrap();
        symlink(beside.join("gone"), root.join("gone")).unwrap();
        symlink("../outside", root.join("outside")).unwrap();
        // A name that is a link itself counts as what it leads to.
        for named in [&beside, &alias] {
            let content = ContentDirectories::below(named);
            for path in ["directory/f", "twice"] {
                assert_eq!(
                    resolve(&content, &root, Path::new(path)).unwrap(),
                    beside.join("f")
                );
            }
            let outside = resolve(&content, &root, Path::new("outside")).unwrap_err();
            assert!(matches!(outside, ContentError::Escapes { .. }));
        }
        let line = error(&root, "gone");
        let expected = format!(
            "content gone is a link to {}/gone, which is missing",
            beside.display()
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn a_loop_of_symlinks_is_unreadable() {
        let (_directory, root) = tree();
        symlink("loop", root.join("loop")).unwrap();
        assert!(error(&root, "loop").contains("is unreadable: "));
        assert!(error(&root, &"x".repeat(300)).contains("is unreadable: "));
    }

    #[test]
    fn the_remembered_directory_is_no_way_around_the_check() {
        let (_directory, root) = tree();
        symlink("../root-beside", root.join("d/beside")).unwrap();
        symlink("../../../outside", root.join("d/e/file")).unwrap();
        let mut checker = Checker::default();
        for _ in 0..2 {
            assert!(
                checker
                    .check(&ContentDirectories::default(), &root, Path::new("d/e/f"), 5)
                    .is_ok()
            );
            assert!(
                checker
                    .check(
                        &ContentDirectories::default(),
                        &root,
                        Path::new("d/e/file"),
                        5
                    )
                    .is_err()
            );
            assert!(
                checker
                    .check(
                        &ContentDirectories::default(),
                        &root,
                        Path::new("d/beside/f"),
                        5
                    )
                    .is_err()
            );
            assert!(
                checker
                    .check(
                        &ContentDirectories::default(),
                        &root.join("d"),
                        Path::new("beside/f"),
                        5
                    )
                    .is_err()
            );
            assert!(
                checker
                    .check(&ContentDirectories::default(), &root, Path::new("a"), 5)
                    .is_ok()
            );
        }
    }
}
