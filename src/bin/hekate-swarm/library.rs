//! The torrents that leechers download, and which of them the next leecher gets.
//!
//! The content is not needed: it may not be on this machine.

use crate::crowd::Zipf;
use hekate::torrent::layout::{Layout, Shape};
use hekate::torrent::metainfo::Metainfo;
use hekate::wire::message::InfoHash;
use std::ffi::OsStr;
use std::io::{Error, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fs, io};
use walkdir::WalkDir;

/// One torrent.
pub(crate) struct Target {
    pub(crate) info_hash: InfoHash,
    pub(crate) shape: Shape,
    pub(crate) layout: Layout,
    /// The path of each file, relative to the directory of the content.
    pub(crate) files: Vec<PathBuf>,
    /// The metainfo file.
    pub(crate) metainfo: PathBuf,
}

impl Target {
    /// Reads the metainfo file at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Target> {
        let raw = fs::read(path)?;
        let metainfo = Metainfo::parse(&raw)
            .map_err(|problem| Error::new(ErrorKind::InvalidData, problem.to_string()))?;
        let info_bytes = metainfo.info.end - metainfo.info.start;
        let files = metainfo.files.iter();
        Ok(Target {
            info_hash: metainfo.info_hash,
            shape: Shape {
                piece_length: metainfo.piece_length,
                pieces: metainfo.pieces,
                total_length: metainfo.total_length,
                metadata_length: u32::try_from(info_bytes).unwrap_or(u32::MAX),
                private: metainfo.private,
            },
            layout: Layout::new(files.clone().map(|file| (file.length, file.padding))),
            files: files
                .map(|file| PathBuf::from(OsStr::from_bytes(&file.path)))
                .collect(),
            metainfo: path.to_owned(),
        })
    }
}

/// All torrents, the most popular first.
pub(crate) struct Library {
    targets: Vec<Target>,
    popularity: Zipf,
}

impl Library {
    /// Reads each file of `paths`, and each `.torrent` file below each directory of them in the order of
    /// paths, which is also the order of popularity.
    pub(crate) fn open(paths: &[PathBuf], zipf_exponent: f64) -> io::Result<Library> {
        let mut targets = Vec::new();
        for path in paths {
            for entry in WalkDir::new(path).follow_links(true).sort_by_file_name() {
                let entry = entry?;
                let named = entry.depth() == 0;
                let torrent = entry.path().extension() == Some(OsStr::new("torrent"));
                if entry.file_type().is_file() && (named || torrent) {
                    let target = Target::open(entry.path()).map_err(|problem| {
                        Error::new(
                            problem.kind(),
                            format!("{}: {problem}", entry.path().display()),
                        )
                    })?;
                    targets.push(target);
                }
            }
        }
        if targets.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "no torrent is given"));
        }
        let popularity = Zipf::new(targets.len(), zipf_exponent);
        Ok(Library {
            targets,
            popularity,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.targets.len()
    }

    pub(crate) fn target(&self, index: usize) -> Option<&Target> {
        self.targets.get(index)
    }

    /// The torrent for a random number of `0..1`.
    pub(crate) fn choose(&self, uniform: f64) -> usize {
        self.popularity.rank(uniform)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sha1::{Digest, Sha1};

    /// Bytes that differ from block to block.
    pub(crate) fn content(bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        fastrand::Rng::with_seed(1).fill(&mut content);
        content
    }

    /// Writes a torrent of two files with some content below `directory`, and names it.
    pub(crate) fn write_torrent(directory: &Path, content: &[u8], piece_bytes: usize) -> PathBuf {
        let (first, second) = content.split_at(content.len() / 3);
        fs::create_dir_all(directory.join("n")).unwrap();
        fs::write(directory.join("n/a"), first).unwrap();
        fs::write(directory.join("n/b"), second).unwrap();
        let hashes: Vec<u8> = content.chunks(piece_bytes).flat_map(Sha1::digest).collect();
        let mut raw = format!(
            "d4:infod5:filesld6:lengthi{}e4:pathl1:aeed6:lengthi{}e4:pathl1:beee4:name1:n12:piece lengthi{piece_bytes}e6:pieces{}:",
            first.len(),
            second.len(),
            hashes.len(),
        )
        .into_bytes();
        raw.extend(hashes);
        raw.extend(b"ee");
        let path = directory.join("n.torrent");
        fs::write(&path, raw).unwrap();
        path
    }

    #[test]
    fn a_directory_is_read_in_order() {
        let directory = tempfile::tempdir().unwrap();
        write_torrent(directory.path(), &content(100_000), 32768);
        fs::create_dir(directory.path().join("more")).unwrap();
        write_torrent(&directory.path().join("more"), &content(50_000), 32768);
        let library = Library::open(&[directory.path().to_owned()], 1.0).unwrap();
        assert_eq!(library.len(), 2);
        let lengths = [0, 1].map(|index| library.target(index).unwrap().shape.total_length);
        assert_eq!(lengths, [50_000, 100_000]);
        assert_eq!((library.choose(0.6), library.choose(0.7)), (0, 1));
    }

    #[test]
    fn a_broken_torrent_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broken");
        fs::write(&path, "de").unwrap();
        let problem = Library::open(&[path], 1.0).err().unwrap().to_string();
        assert!(problem.contains("/broken: "), "{problem}");
        assert!(Library::open(&[directory.path().to_owned()], 1.0).is_err());
    }
}
