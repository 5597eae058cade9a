//! A torrent that is loaded and served.
//!
//! A [`Torrent`] stays in memory while peers want it. Loading one blocks.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content_directories::ContentDirectories;
use super::id::TorrentId;
use super::layout::{Layout, Shape};
use super::metainfo::Metainfo;
use super::reader::{FileStamp, Reader, StampedMetainfo};
pub use super::refusal::{Refusal, RefusalReason};
use crate::wire::message::InfoHash;

/// A torrent that is served.
#[derive(Debug)]
pub struct Torrent {
    /// Unique in the process: a torrent that changes on disk gets another.
    pub id: TorrentId,
    /// Its name on the wire.
    pub info_hash: InfoHash,
    /// Which requests are legal.
    pub shape: Shape,
    /// Where each byte is.
    pub layout: Layout,
    /// The content root, without symlinks and absolute.
    pub root: Arc<Path>,
    /// Where links in its content may lead.
    pub content: ContentDirectories,
    /// Where the raw `info` dictionary starts in the metainfo file, in bytes. Its length is
    /// [`Shape::metadata_length`].
    pub info_offset: u64,
    /// The stamp of the metainfo file when it was read.
    pub metainfo_stamp: FileStamp,
    paths: Paths,
    metainfo_directory: Arc<Path>,
    metainfo_name: Box<OsStr>,
}

/// A torrent whose metainfo file is read, and whose content is not checked yet: that may be on another
/// disk.
#[derive(Debug)]
pub struct UncheckedTorrent {
    metainfo: Metainfo,
    stamp: FileStamp,
    /// The metainfo file, absolute.
    path: PathBuf,
}

impl UncheckedTorrent {
    /// Reads a metainfo file. `None` if it is that of another torrent.
    ///
    /// # Errors
    /// A [`RefusalReason`] when the torrent cannot be served.
    pub fn read(path: &Path, info_hash: InfoHash) -> Result<Option<Self>, RefusalReason> {
        // Opening a socket would fail with a message that names no file type.
        if !path.metadata()?.is_file() {
            return Err(RefusalReason::NotRegular);
        }
        let StampedMetainfo { metainfo, stamp } = Reader::default().read(path)?;
        if metainfo.info_hash != info_hash {
            return Ok(None);
        }
        let directory = path.parent().unwrap_or(Path::new("/")).canonicalize()?;
        let path = directory.join(path.file_name().expect("the path of a file has a name"));
        Ok(Some(UncheckedTorrent {
            metainfo,
            stamp,
            path,
        }))
    }

    /// Where the first file of its content is looked for first.
    #[must_use]
    pub fn content_path(&self, content: &ContentDirectories) -> PathBuf {
        let roots = content.roots_of(self.directory());
        let root = roots.first().copied().unwrap_or_else(|| self.directory());
        let mut paths = self.metainfo.files.iter().map(|file| &file.path);
        let first = paths.find(|path| !path.is_empty());
        root.join(OsStr::from_bytes(first.map_or(&[], Vec::as_slice)))
    }

    /// Checks the content. The torrent gets this id, see [`Torrent::id`].
    ///
    /// # Errors
    /// A [`RefusalReason`] when it cannot be served.
    pub fn check(
        mut self,
        id: TorrentId,
        content: &ContentDirectories,
    ) -> Result<Torrent, RefusalReason> {
        let directory = self.directory().to_path_buf();
        let named = content.roots_of(&directory);
        let real = named.iter().map(|root| root.canonicalize());
        let (found, lost): (Vec<_>, Vec<_>) = real.partition(Result::is_ok);
        let roots: Vec<PathBuf> = found.into_iter().flatten().collect();
        if let (true, Some(Err(error))) = (roots.is_empty(), lost.into_iter().next()) {
            return Err(error.into());
        }
        let roots: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
        let root = Reader::default().check(content, &roots, &mut self.metainfo)?;
        Ok(Torrent::new(
            id,
            &self.metainfo,
            self.stamp,
            &self.path,
            root,
            content.clone(),
        ))
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

/// One file of a [`Torrent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentFile<'a> {
    /// Relative to [`Torrent::root`]; empty for padding and symlinks, which are not on disk.
    pub path: &'a Path,
    /// Bytes.
    pub length: u64,
    /// Whether the file is zeros that need not exist (BEP 47).
    pub padding: bool,
}

impl Torrent {
    /// Reads a torrent and checks its content, which lies where `content` says. It gets this id, see
    /// [`Torrent::id`]. `None` if the metainfo file is that of another torrent.
    ///
    /// # Errors
    /// A [`RefusalReason`] when it cannot be served.
    pub fn load(
        id: TorrentId,
        path: &Path,
        content: &ContentDirectories,
        info_hash: InfoHash,
    ) -> Result<Option<Self>, RefusalReason> {
        let read = UncheckedTorrent::read(path, info_hash)?;
        read.map(|torrent| torrent.check(id, content)).transpose()
    }

    /// The torrent of a metainfo file at this path, with its content below `root`.
    fn new(
        id: TorrentId,
        metainfo: &Metainfo,
        metainfo_stamp: FileStamp,
        path: &Path,
        root: &Path,
        content: ContentDirectories,
    ) -> Self {
        let metadata_length = metainfo.info.end - metainfo.info.start;
        let metainfo_directory: Arc<Path> = path.parent().unwrap_or(Path::new("/")).into();
        let files = metainfo.files.iter();
        Torrent {
            id,
            info_hash: metainfo.info_hash,
            shape: Shape {
                piece_length: metainfo.piece_length,
                pieces: metainfo.pieces,
                total_length: metainfo.total_length,
                metadata_length: u32::try_from(metadata_length)
                    .expect("a metainfo file has at most METAINFO_MAX_BYTES"),
                private: metainfo.private,
            },
            layout: Layout::new(files.clone().map(|file| (file.length, file.padding))),
            root: match *root == *metainfo_directory {
                true => Arc::clone(&metainfo_directory),
                false => root.into(),
            },
            content,
            info_offset: metainfo.info.start,
            metainfo_stamp,
            paths: Paths::new(files.map(|file| file.path.as_slice())),
            metainfo_directory,
            metainfo_name: path
                .file_name()
                .expect("the path of a file has a name")
                .into(),
        }
    }

    /// The file with this index, see [`super::layout::ExtentSource::File`].
    #[must_use]
    pub fn file(&self, index: u32) -> Option<ContentFile<'_>> {
        let index = usize::try_from(index).ok()?;
        let (length, padding) = self.layout.file(index)?;
        Some(ContentFile {
            path: self.paths.at(index)?,
            length,
            padding,
        })
    }

    /// All files in their order, padding included.
    pub fn files(&self) -> impl Iterator<Item = ContentFile<'_>> {
        (0..).map_while(|index| self.file(index))
    }

    /// Where a file is, with what symlinks there are below the root.
    #[must_use]
    pub fn content_path(&self, index: u32) -> PathBuf {
        let file = self.file(index);
        self.root.join(file.map_or(Path::new(""), |file| file.path))
    }

    /// Bytes of memory that its list of files takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.layout.memory_bytes() + self.paths.bytes.len() + size_of_val(&*self.paths.ends)
    }

    /// The name of the file or directory that holds the content, for people.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        self.files()
            .find_map(|file| file.path.iter().next())
            .unwrap_or_default()
            .to_string_lossy()
    }

    /// The metainfo file, absolute.
    #[must_use]
    pub fn metainfo_path(&self) -> PathBuf {
        self.metainfo_directory
            .join(Path::new(&*self.metainfo_name))
    }
}

/// The paths of a torrent's files in one piece of memory.
#[derive(Debug)]
struct Paths {
    bytes: Box<[u8]>,
    /// Where each path ends. Empty when there is one path.
    ends: Box<[u32]>,
}

impl Paths {
    fn new<'a>(paths: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for path in paths {
            bytes.extend_from_slice(path);
            ends.push(bytes.len());
        }
        if ends.len() == 1 {
            ends.clear();
        }
        Paths {
            bytes: bytes.into_boxed_slice(),
            ends: (ends.into_iter())
                .map(|end| u32::try_from(end).expect("paths are bounded by the parser"))
                .collect(),
        }
    }

    fn at(&self, index: usize) -> Option<&Path> {
        let bytes = if self.ends.is_empty() {
            self.bytes.get(..).filter(|_| index == 0)
        } else {
            let start = index
                .checked_sub(1)
                .and_then(|before| self.ends.get(before));
            let start = start.copied().unwrap_or(0) as usize;
            self.bytes.get(start..*self.ends.get(index)? as usize)
        };
        Some(Path::new(OsStr::from_bytes(bytes?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::content_directories::Named;
    use crate::torrent::metainfo::samples::{entry, multi, s, single};
    use std::fs;
    use std::os::unix::net::UnixListener;

    fn torrent(id: u32, raw: &str, root: &str) -> Torrent {
        let (path, root) = (Path::new("/library/x.torrent"), Path::new(root));
        let metainfo = Metainfo::parse(raw.as_bytes()).unwrap();
        let stamp = FileStamp::default();
        Torrent::new(
            TorrentId(id),
            &metainfo,
            stamp,
            path,
            root,
            ContentDirectories::default(),
        )
    }

    #[test]
    fn a_torrent_is_served_when_its_content_is_right() {
        let directory = tempfile::tempdir().unwrap();
        let [path, content] = ["a.torrent", "c"].map(|name| directory.path().join(name));
        fs::write(&path, single(5, "")).unwrap();
        fs::create_dir(&content).unwrap();
        fs::write(content.join("n"), "12345").unwrap();
        let info_hash = Metainfo::parse(single(5, "").as_bytes()).unwrap().info_hash;
        let load = |content: &ContentDirectories, info_hash| {
            Torrent::load(TorrentId(3), &path, content, info_hash)
        };
        let missing = load(&ContentDirectories::default(), info_hash).unwrap_err();
        let named = ContentDirectories::from(Named {
            roots: [
                directory.path().join("gone"),
                directory.path().into(),
                content.clone(),
            ]
            .into(),
            ..Named::default()
        });
        assert_eq!(missing.to_string(), "content n is missing");
        assert!(load(&named, InfoHash([0; 20])).unwrap().is_none());
        let torrent = load(&named, info_hash).unwrap().unwrap();
        assert_eq!((torrent.id, torrent.shape.total_length), (TorrentId(3), 5));
        assert_eq!(*torrent.root, *content.canonicalize().unwrap());
        assert_eq!(torrent.metainfo_path(), path.canonicalize().unwrap());
    }

    #[test]
    fn a_socket_is_not_opened_as_a_metainfo_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.torrent");
        let _socket = UnixListener::bind(&path).unwrap();
        let refused = Torrent::load(
            TorrentId(0),
            &path,
            &ContentDirectories::default(),
            InfoHash([0; 20]),
        )
        .unwrap_err();
        assert!(matches!(refused, RefusalReason::NotRegular));
    }

    #[test]
    fn a_torrent_holds_what_the_metainfo_file_says() {
        let raw = single(20000, &(s("private") + "i1e"));
        let torrent = torrent(7, &raw, "/r");
        assert_eq!((torrent.id, torrent.name().as_ref()), (TorrentId(7), "n"));
        assert_eq!(torrent.metainfo_path(), Path::new("/library/x.torrent"));
        assert_eq!(*torrent.root, *Path::new("/r"));
        let info = raw.find("d6:length").unwrap();
        assert_eq!(torrent.info_offset, info as u64);
        let shape = Shape {
            piece_length: 16384,
            pieces: 2,
            total_length: 20000,
            metadata_length: u32::try_from(raw.len() - 1 - info).unwrap(),
            private: true,
        };
        assert_eq!(torrent.shape, shape);
    }

    #[test]
    fn files_are_found_by_index() {
        let files = entry(7, &["b", "c"], "") + &entry(9, &[], "4:attr1:p") + &entry(0, &["a"], "");
        let many = torrent(0, &multi(16, &files, ""), "/r");
        let file = |path, length, padding| ContentFile {
            path: Path::new(path),
            length,
            padding,
        };
        let expected = [
            file("m/b/c", 7, false),
            file("", 9, true),
            file("m/a", 0, false),
        ];
        assert_eq!(many.files().collect::<Vec<_>>(), expected);
        assert_eq!(many.name(), "m");
        assert_eq!((many.file(3), many.file(u32::MAX)), (None, None));
        let one = torrent(0, &single(5, ""), "/r");
        assert_eq!(one.files().collect::<Vec<_>>(), [file("n", 5, false)]);
    }

    #[test]
    fn a_torrent_of_one_file_is_small() {
        let one = torrent(0, &single(5, ""), "/r");
        assert_eq!((&*one.paths.bytes, one.paths.ends.len()), (&b"n"[..], 0));
        assert!(size_of::<Torrent>() <= 184, "{}", size_of::<Torrent>());
    }
}
