//! Loading one torrent whose metainfo file is known.
//!
//! Blocks: not for the loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalogue::{Location, RefusalReason, Torrent};
use super::id::TorrentId;
use super::reader::{Reader, StampedMetainfo};
use crate::wire::message::InfoHash;

/// Where a torrent is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TorrentSource {
    /// The metainfo file.
    pub metainfo: PathBuf,
    /// The directory that holds its content; `None` means beside it.
    pub content: Option<PathBuf>,
}

/// Reads the torrent and checks its content. It gets this id, see [`Torrent::id`]. `None` if the
/// metainfo file is that of another torrent.
///
/// # Errors
/// A [`RefusalReason`] when it cannot be served.
pub fn load(
    id: TorrentId,
    source: &TorrentSource,
    info_hash: InfoHash,
) -> Result<Option<Torrent>, RefusalReason> {
    // Opening a socket would fail with a message that names no file type.
    if !source.metainfo.metadata()?.is_file() {
        return Err(RefusalReason::NotRegular);
    }
    let mut reader = Reader::default();
    let StampedMetainfo { metainfo, stamp } = reader.read(&source.metainfo)?;
    if metainfo.info_hash != info_hash {
        return Ok(None);
    }
    let directory = source.metainfo.parent().unwrap_or(Path::new("/"));
    let directory: Arc<Path> = directory.canonicalize()?.into();
    let root = match &source.content {
        Some(content) => content.canonicalize()?.into(),
        None => Arc::clone(&directory),
    };
    reader.check(&root, &metainfo)?;
    let location = Location {
        metainfo_directory: &directory,
        metainfo_name: source.metainfo.file_name().unwrap_or_default(),
        metainfo_stamp: stamp,
        root: &root,
    };
    Ok(Some(Torrent::new(id, &metainfo, &location)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::metainfo::Metainfo;
    use crate::torrent::metainfo::samples::single;
    use std::fs;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_torrent_is_served_when_its_content_is_right() {
        let directory = tempfile::tempdir().unwrap();
        let (metainfo, content) = (
            directory.path().join("a.torrent"),
            directory.path().join("c"),
        );
        fs::write(&metainfo, single(5, "")).unwrap();
        fs::create_dir(&content).unwrap();
        fs::write(content.join("n"), "12345").unwrap();
        let mut source = TorrentSource {
            metainfo,
            content: None,
        };
        let info_hash = Metainfo::parse(single(5, "").as_bytes()).unwrap().info_hash;
        let missing = load(TorrentId(3), &source, info_hash).unwrap_err();
        assert_eq!(missing.to_string(), "content n is missing");
        source.content = Some(content.clone());
        assert!(
            load(TorrentId(3), &source, InfoHash([0; 20]))
                .unwrap()
                .is_none()
        );
        let torrent = load(TorrentId(3), &source, info_hash).unwrap().unwrap();
        assert_eq!((torrent.id, torrent.shape.total_length), (TorrentId(3), 5));
        assert_eq!(*torrent.root, *content.canonicalize().unwrap());
        let real = source.metainfo.canonicalize().unwrap();
        assert_eq!(torrent.metainfo_path(), real);
    }

    #[test]
    fn a_socket_is_not_opened_as_a_metainfo_file() {
        let directory = tempfile::tempdir().unwrap();
        let metainfo = directory.path().join("a.torrent");
        let _socket = UnixListener::bind(&metainfo).unwrap();
        let content = None;
        let refused = load(
            TorrentId(0),
            &TorrentSource { metainfo, content },
            InfoHash([0; 20]),
        )
        .unwrap_err();
        assert!(matches!(refused, RefusalReason::NotRegular));
    }
}
