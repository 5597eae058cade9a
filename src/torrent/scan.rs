//! Reading the library from disk.
//!
//! Owns the walk over directories and the list of what was refused on the way. It must not know
//! what becomes of the catalogue. It blocks, so the loop must not call it.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use walkdir::{DirEntry, WalkDir};

use super::catalogue::{Catalogue, Place, Torrent};
use super::content::ContentError;
use super::metainfo::MetainfoError;
use super::printable::Printable;
use super::reader::{METAINFO_MAX_BYTES, Reader};

/// Something in the library that is not served.
#[derive(Debug)]
pub struct Refusal {
    /// The metainfo file or directory.
    pub path: PathBuf,
    /// Why.
    pub reason: RefusalReason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", show(&self.path), self.reason)
    }
}

/// Why it is not served. Each is shown as one line.
#[derive(Debug, Error)]
pub enum RefusalReason {
    /// A directory or metainfo file that the file system does not let us read.
    #[error("unreadable: {0}")]
    Unreadable(#[from] io::Error),
    /// A symlink to a directory that the walk is in.
    #[error("a symlink leads back to {}", show(.0))]
    Loop(PathBuf),
    /// A pipe, socket or device with the name of a metainfo file.
    #[error("not a regular file")]
    NotRegular,
    /// More than [`METAINFO_MAX_BYTES`].
    #[error("metainfo file of more than {METAINFO_MAX_BYTES} bytes")]
    TooLarge,
    /// The metainfo file cannot be used.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// The content is not there.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The torrent is served already.
    #[error("the same info-hash as {}", show(.0))]
    Duplicate(PathBuf),
}

fn show(path: &Path) -> Printable<'_> {
    Printable(path.as_os_str().as_bytes())
}

/// Reads every `*.torrent` file below `dirs`, in the order of their names. The content lies below
/// `content`, or else beside each metainfo file. Symlinks to files and directories are followed.
/// What cannot be served is listed, and costs no other torrent.
#[must_use]
pub fn scan(dirs: &[PathBuf], content: Option<&Path>) -> (Catalogue, Vec<Refusal>) {
    rescan(&Catalogue::default(), dirs, content)
}

/// Like [`scan`]; torrents that are as they were in `previous` keep their id and their memory.
#[must_use]
pub fn rescan(
    previous: &Catalogue,
    dirs: &[PathBuf],
    content: Option<&Path>,
) -> (Catalogue, Vec<Refusal>) {
    let mut scan = Scan::default();
    if let Some(path) = content {
        match path.canonicalize() {
            Ok(root) => scan.content = Some(root.into()),
            Err(error) => {
                scan.refuse(path, error.into());
                return (Catalogue::default(), scan.refusals);
            }
        }
    }
    for dir in dirs {
        // Sorted, so that of two equal torrents it is always the same one that stays.
        for entry in WalkDir::new(dir).follow_links(true).sort_by_file_name() {
            match entry {
                Ok(entry) => scan.visit(&entry),
                Err(error) => scan.refusals.extend(walk_refusal(error)),
            }
        }
    }
    let mut refusals = scan.refusals;
    let catalogue = previous.followed_by(scan.found, |later, first| {
        let (path, first) = (later.metainfo_path(), first.metainfo_path());
        // Directories that overlap lead to one file twice, which is no second torrent.
        if path != first {
            let reason = RefusalReason::Duplicate(first);
            refusals.push(Refusal { path, reason });
        }
    });
    (catalogue, refusals)
}

/// What an error of the walk costs; `None` when no torrent is lost by it.
pub(crate) fn walk_refusal(error: walkdir::Error) -> Option<Refusal> {
    let path = error.path().unwrap_or(Path::new("")).to_path_buf();
    if let Some(ancestor) = error.loop_ancestor() {
        let reason = RefusalReason::Loop(ancestor.to_path_buf());
        return Some(Refusal { path, reason });
    }
    let depth = error.depth();
    let error = error.into_io_error()?;
    // Content may hold symlinks to nothing, and files vanish while we walk: no torrent is lost.
    let lost = depth == 0 || error.kind() != ErrorKind::NotFound || is_metainfo_name(&path);
    let reason = error.into();
    lost.then_some(Refusal { path, reason })
}

/// The directory that the walk is in, as it was walked and without symlinks.
struct Directory {
    walked: PathBuf,
    real: Arc<Path>,
}

#[derive(Default)]
struct Scan {
    content: Option<Arc<Path>>,
    found: Vec<Torrent>,
    refusals: Vec<Refusal>,
    directory: Option<Directory>,
    /// A library has few different lists of trackers.
    announce: HashSet<Arc<[Vec<String>]>>,
    reader: Reader,
}

impl Scan {
    fn refuse(&mut self, path: &Path, reason: RefusalReason) {
        self.refusals.push(Refusal {
            path: path.to_path_buf(),
            reason,
        });
    }

    fn visit(&mut self, entry: &DirEntry) {
        // A metainfo file that is given by itself may have any name.
        let wanted = entry.depth() == 0 || is_metainfo_name(entry.path());
        if !wanted || entry.file_type().is_dir() {
            return;
        }
        let result = match entry.file_type().is_file() {
            true => self.read(entry.path()),
            false => Err(RefusalReason::NotRegular),
        };
        if let Err(reason) = result {
            self.refuse(entry.path(), reason);
        }
    }

    fn read(&mut self, path: &Path) -> Result<(), RefusalReason> {
        let metainfo = self.reader.read(path)?.metainfo;
        let directory = self.real_directory(path)?;
        let root = self
            .content
            .clone()
            .unwrap_or_else(|| Arc::clone(&directory));
        self.reader.check(&root, &metainfo)?;
        let announce = self.shared(&metainfo.announce);
        let place = Place {
            metainfo_directory: &directory,
            metainfo_name: path.file_name().unwrap_or_default(),
            root: &root,
        };
        // The order of discovery for now; the catalogue gives out ids.
        let id = u32::try_from(self.found.len()).unwrap_or(u32::MAX);
        self.found
            .push(Torrent::new(id, &metainfo, &place, announce));
        Ok(())
    }

    /// The directory of `path` without symlinks, looked up once for all files in a row.
    fn real_directory(&mut self, path: &Path) -> io::Result<Arc<Path>> {
        let walked = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match &self.directory {
            Some(directory) if directory.walked.as_os_str() == walked.as_os_str() => {
                Ok(Arc::clone(&directory.real))
            }
            _ => {
                let real: Arc<Path> = walked.canonicalize()?.into();
                self.directory = Some(Directory {
                    walked: walked.to_path_buf(),
                    real: Arc::clone(&real),
                });
                Ok(real)
            }
        }
    }

    fn shared(&mut self, announce: &[Vec<String>]) -> Arc<[Vec<String>]> {
        if let Some(known) = self.announce.get(announce) {
            return Arc::clone(known);
        }
        let announce: Arc<[Vec<String>]> = announce.into();
        self.announce.insert(Arc::clone(&announce));
        announce
    }
}

/// Whether a file found in a directory is taken for a metainfo file.
pub(crate) fn is_metainfo_name(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::metainfo::samples::{entry, multi, s, single};
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use tempfile::TempDir;

    struct Library {
        _directory: TempDir,
        path: PathBuf,
    }

    impl Library {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().canonicalize().unwrap();
            Library {
                _directory: directory,
                path,
            }
        }

        fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
            let path = self.path.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
            self
        }

        /// A torrent `directory/name.torrent` of the file `name`, without its content.
        fn torrent(&self, directory: &str, name: &str, length: usize) -> &Self {
            let raw = single(length as u64, "").replace("4:name1:n", &(s("name") + &s(name)));
            self.write(&format!("{directory}/{name}.torrent"), raw)
        }

        /// The same with its content beside it.
        fn served(&self, directory: &str, name: &str, length: usize) -> &Self {
            self.torrent(directory, name, length);
            self.write(&format!("{directory}/{name}"), vec![1; length])
        }

        /// The names that are served and the lines about the others.
        fn scan(&self) -> (Vec<String>, Vec<String>) {
            self.outcome(scan(std::slice::from_ref(&self.path), None))
        }

        fn outcome(
            &self,
            (catalogue, refusals): (Catalogue, Vec<Refusal>),
        ) -> (Vec<String>, Vec<String>) {
            let base = format!("{}/", self.path.display());
            let lines = refusals
                .iter()
                .map(|refusal| refusal.to_string().replace(&base, ""));
            let names = catalogue.iter().map(|torrent| torrent.name().into_owned());
            (names.collect(), lines.collect())
        }
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn torrents_are_found_below_every_directory_in_order() {
        let library = Library::new();
        library
            .served("b", "two", 5)
            .served("a/deep/er", "one", 6)
            .served("b", "three", 7);
        library
            .write("b/notes.txt", "d4:info")
            .write("b/torrent", "no");
        let dirs = [library.path.join("b"), library.path.join("a")];
        let (catalogue, refusals) = scan(&dirs, None);
        assert!(refusals.is_empty());
        let one = catalogue.iter().last().unwrap();
        assert_eq!(*one.root, *library.path.join("a/deep/er"));
        assert_eq!(
            one.metainfo_path(),
            library.path.join("a/deep/er/one.torrent")
        );
        assert_eq!(
            library.outcome((catalogue, refusals)).0,
            ["three", "two", "one"]
        );
        assert_eq!(library.scan().0, ["one", "three", "two"]);
    }

    #[test]
    fn the_span_of_the_info_dictionary_is_that_in_the_file() {
        let library = Library::new();
        library.served(".", "n", 5);
        let (catalogue, _) = scan(std::slice::from_ref(&library.path), None);
        let torrent = catalogue.iter().next().unwrap();
        let raw = fs::read(torrent.metainfo_path()).unwrap();
        let start = usize::try_from(torrent.info_offset).unwrap();
        let info = &raw[start..start + torrent.shape.metadata_length as usize];
        assert!(info.starts_with(b"d6:length") && info.ends_with(b"e"));
        assert_eq!(info.len(), raw.len() - 8);
    }

    #[test]
    fn content_may_lie_elsewhere() {
        let library = Library::new();
        library
            .torrent("t", "n", 5)
            .served("t", "m", 5)
            .write("c/n", "12345");
        let dirs = [library.path.join("t")];
        let (names, lines) = library.outcome(scan(&dirs, Some(&library.path.join("c"))));
        assert_eq!(names, ["n"]);
        assert_eq!(lines, ["t/m.torrent: content m is missing"]);
        let (names, lines) = library.outcome(scan(&dirs, Some(&library.path.join("x"))));
        assert_eq!(names, NONE);
        assert!(
            lines.len() == 1 && lines[0].starts_with("x: unreadable: "),
            "{lines:?}"
        );
    }

    #[test]
    fn a_refused_torrent_never_loses_the_others() {
        let library = Library::new();
        library.served(".", "a", 5).served(".", "z", 6);
        library
            .write("b.torrent", "no bencode")
            .write("c.torrent", "");
        library.torrent(".", "missing", 5);
        library.torrent(".", "short", 5).write("short", "1234");
        library.torrent(".", "long", 5).write("long", "123456");
        library
            .torrent(".", "directory", 5)
            .write("directory/x", "");
        let (names, lines) = library.scan();
        assert_eq!(names, ["a", "z"]);
        assert_eq!(
            lines,
            [
                "b.torrent: malformed bencode: unexpected byte at offset 0",
                "c.torrent: malformed bencode: the file ends in the middle of a value",
                "directory.torrent: content directory is not a regular file",
                "long.torrent: content long has 6 bytes, not 5",
                "missing.torrent: content missing is missing",
                "short.torrent: content short has 4 bytes, not 5",
            ]
        );
    }

    #[test]
    fn every_file_of_a_torrent_is_checked_but_those_without_bytes_on_disk() {
        let files = entry(5, &["d", "a"], "")
            + &entry(3, &[".pad", "3"], "4:attr1:p")
            + &entry(0, &["empty"], "")
            + &entry(0, &["link"], "4:attr1:l")
            + &entry(4, &["d", "b"], "");
        let library = Library::new();
        library
            .write("m.torrent", multi(12, &files, ""))
            .write("m/d/a", "12345");
        assert_eq!(library.scan().1, ["m.torrent: content m/d/b is missing"]);
        library.write("m/d/b", "1234");
        assert_eq!(library.scan(), (vec!["m".to_owned()], vec![]));
        library.write("m/d/b", "123");
        assert_eq!(
            library.scan().1,
            ["m.torrent: content m/d/b has 3 bytes, not 4"]
        );
    }

    #[test]
    fn content_outside_the_root_is_refused() {
        let library = Library::new();
        library
            .write("outside", "12345")
            .torrent("t", "n", 5)
            .served("t", "m", 5);
        symlink("../outside", library.path.join("t/n")).unwrap();
        let (names, lines) = library.scan();
        assert_eq!(names, ["m"]);
        assert_eq!(
            lines,
            ["t/n.torrent: content n leaves the content root through a symlink"]
        );
    }

    #[test]
    fn the_second_of_equal_torrents_is_refused_naming_the_first() {
        let library = Library::new();
        library.served("a", "n", 5).served("b", "n", 5);
        let (names, lines) = library.scan();
        assert_eq!(names, ["n"]);
        assert_eq!(lines, ["b/n.torrent: the same info-hash as a/n.torrent"]);
    }

    #[test]
    fn directories_that_overlap_serve_a_torrent_once() {
        let library = Library::new();
        library.served("a", "n", 5);
        symlink("a", library.path.join("alias")).unwrap();
        let dirs = [library.path.join("a"), library.path.clone()];
        let (catalogue, refusals) = scan(&dirs, None);
        assert_eq!((catalogue.len(), refusals.len()), (1, 0));
    }

    #[test]
    fn symlinks_to_torrents_and_directories_are_followed() {
        let library = Library::new();
        library
            .served("far/d", "n", 5)
            .torrent("far/e", "m", 5)
            .write("near/m", "12345");
        symlink("../far/d", library.path.join("near/d")).unwrap();
        symlink("../far/e/m.torrent", library.path.join("near/m.torrent")).unwrap();
        let (names, lines) = library.outcome(scan(&[library.path.join("near")], None));
        assert_eq!(
            (names.as_slice(), lines.as_slice()),
            (&["n".to_owned(), "m".to_owned()][..], &[][..])
        );
    }

    #[test]
    fn a_loop_of_directories_ends() {
        let library = Library::new();
        library.served("a", "n", 5);
        symlink("..", library.path.join("a/up")).unwrap();
        let (names, lines) = library.scan();
        assert_eq!(names, ["n"]);
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with("a/up: a symlink leads back to /"),
            "{lines:?}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let library = Library::new();
        library.served(".", "n", 5).write("d.torrent/x", "");
        symlink("gone", library.path.join("dangling.torrent")).unwrap();
        symlink("gone", library.path.join("content that is gone")).unwrap();
        symlink("loop.torrent", library.path.join("loop.torrent")).unwrap();
        let _listener = UnixListener::bind(library.path.join("s.torrent")).unwrap();
        let dirs = [library.path.clone(), library.path.join("no such directory")];
        let (names, lines) = library.outcome(scan(&dirs, None));
        assert_eq!(names, ["n"]);
        let starts = [
            "dangling.torrent: unreadable: ",
            "loop.torrent: unreadable: ",
            "s.torrent: not a regular file",
            "no such directory: unreadable: ",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }

    #[test]
    fn a_metainfo_file_over_the_limit_is_not_read() {
        let library = Library::new();
        library.served(".", "n", 5).write("big.torrent", "");
        let big = File::options()
            .write(true)
            .open(library.path.join("big.torrent"))
            .unwrap();
        big.set_len(METAINFO_MAX_BYTES + 1).unwrap();
        let (names, lines) = library.scan();
        assert_eq!(names, ["n"]);
        assert_eq!(
            lines,
            ["big.torrent: metainfo file of more than 134217728 bytes"]
        );
    }

    #[test]
    fn a_metainfo_file_by_itself_may_have_any_name() {
        let library = Library::new();
        library.served(".", "n", 5);
        fs::rename(library.path.join("n.torrent"), library.path.join("n.meta")).unwrap();
        assert_eq!(library.scan().0, NONE);
        let (names, _) = library.outcome(scan(&[library.path.join("n.meta")], None));
        assert_eq!(names, ["n"]);
        fs::rename(library.path.join("n.meta"), library.path.join("n.TORRENT")).unwrap();
        assert_eq!(library.scan().0, ["n"]);
    }

    #[test]
    fn names_in_other_encodings_are_found() {
        let library = Library::new();
        let raw = single(5, "").into_bytes();
        let at = raw.windows(3).position(|bytes| bytes == b"1:n").unwrap();
        let raw = [&raw[..at], b"2:\xc4\xe3", &raw[at + 3..]].concat();
        library.write("n.torrent", raw);
        fs::write(library.path.join(OsStr::from_bytes(b"\xc4\xe3")), "12345").unwrap();
        let (names, lines) = library.scan();
        assert_eq!(
            (names.as_slice(), lines.len()),
            (&["\u{fffd}\u{fffd}".to_owned()][..], 0)
        );
    }

    #[test]
    fn a_refusal_is_one_line() {
        let library = Library::new();
        library.torrent(".", "two\nlines", 5);
        let (_, lines) = library.scan();
        assert_eq!(
            lines,
            ["two\\nlines.torrent: content two\\nlines is missing"]
        );
    }

    #[test]
    fn equal_announce_lists_are_kept_once() {
        let library = Library::new();
        library.served(".", "a", 5).served(".", "b", 5);
        let (catalogue, _) = scan(std::slice::from_ref(&library.path), None);
        let torrents: Vec<&Arc<Torrent>> = catalogue.iter().collect();
        assert!(Arc::ptr_eq(&torrents[0].announce, &torrents[1].announce));
        assert!(Arc::ptr_eq(&torrents[0].root, &torrents[1].root));
    }

    #[test]
    fn a_second_scan_keeps_what_has_not_changed() {
        let library = Library::new();
        library.served(".", "a", 5).served(".", "b", 5);
        let dirs = [library.path.clone()];
        let (first, _) = scan(&dirs, None);
        library.served(".", "c", 5).write("a", "changed");
        let (second, refusals) = rescan(&first, &dirs, None);
        assert_eq!((second.len(), refusals.len()), (2, 1));
        let ids: Vec<u32> = second.iter().map(|torrent| torrent.id).collect();
        assert_eq!(ids, [1, 2]);
    }
}
