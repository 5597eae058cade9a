//! One metainfo file and its content, as the library knows them.
//!
//! Owns what is remembered of a file that cannot be used. It must not know where that is kept. It
//! blocks.

use std::path::Path;

use super::format::{self, State};
use crate::torrent::catalogue::RefusalReason;
use crate::torrent::metainfo::Metainfo;
use crate::torrent::reader::{FileStamp, Reader};
use crate::wire::message::InfoHash;

/// What was seen.
pub(super) struct Looked {
    /// Meaningless for [`State::Unusable`].
    pub(super) info_hash: InfoHash,
    pub(super) state: State,
    pub(super) content_tag: u16,
    pub(super) announce: Vec<Vec<String>>,
    pub(super) stamp: FileStamp,
    pub(super) content_stamp: u32,
    /// Why it is not served; also `None` when its content is away.
    pub(super) refusal: Option<RefusalReason>,
}

impl Looked {
    /// Reads a metainfo file and looks at its content below `root`, unless that is away.
    pub(super) fn at(reader: &mut Reader, path: &Path, root: Option<&Path>) -> Self {
        let mut looked = Looked {
            info_hash: InfoHash([0; 20]),
            state: State::Unusable,
            content_tag: 0,
            announce: Vec::new(),
            stamp: FileStamp::default(),
            content_stamp: 0,
            refusal: None,
        };
        match reader.read(path) {
            Err(reason) => {
                // A file that could not be read at all keeps a stamp that no file has.
                let readable = !matches!(reason, RefusalReason::Unreadable(_));
                let metadata = path.metadata().ok().filter(|_| readable);
                looked.stamp = metadata.as_ref().map(FileStamp::new).unwrap_or_default();
                looked.refusal = Some(reason);
            }
            Ok(found) => {
                looked.info_hash = found.metainfo.info_hash;
                looked.stamp = found.stamp;
                looked.content_tag = tag(&found.metainfo);
                looked.state = State::Withdrawn;
                match root.map(|root| reader.check(root, &found.metainfo)) {
                    Some(Ok(stamp)) => {
                        (looked.state, looked.content_stamp) = (State::Served, stamp);
                    }
                    Some(Err(error)) => looked.refusal = Some(error.into()),
                    None => {}
                }
                looked.announce = found.metainfo.announce;
            }
        }
        looked
    }
}

/// Of the file or directory that holds the content.
fn tag(metainfo: &Metainfo) -> u16 {
    let mut paths = metainfo.files.iter().map(|file| file.path.as_slice());
    let path = paths.find(|path| !path.is_empty()).unwrap_or_default();
    let name = path.split(|byte| *byte == b'/').next();
    format::content_tag(name.unwrap_or_default())
}
