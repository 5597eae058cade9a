//! Inspecting one metainfo file and its content.
//!
//! Blocks.

use std::io;
use std::path::{Path, PathBuf};

use super::walk::{DescriptorWait, is_away};
use crate::library::index::format::{ContentName, Facts, State};
use crate::torrent::catalogue::RefusalReason;
use crate::torrent::metainfo::Metainfo;
use crate::torrent::reader::{FileStamp, Reader};
use crate::wire::message::InfoHash;
use crate::workers::contained;

/// Where content lies.
#[derive(Clone, Debug)]
pub(in crate::library) enum ContentRoot {
    /// Beside each metainfo file.
    Beside,
    /// Below this directory.
    Below(PathBuf),
    /// Below this directory, whose disk is not mounted.
    Away(PathBuf),
}

impl ContentRoot {
    /// Below the directory, if there is one.
    pub(in crate::library) fn new(directory: Option<PathBuf>) -> Self {
        match directory {
            None => ContentRoot::Beside,
            Some(path) if is_away(&path) => ContentRoot::Away(path),
            Some(path) => ContentRoot::Below(path),
        }
    }

    /// The directory of the content of metainfo files in this one; `None` while it is away.
    pub(in crate::library) fn of(&self, directory: &Path) -> Option<PathBuf> {
        match self {
            ContentRoot::Below(root) => Some(root.clone()),
            ContentRoot::Away(_) => None,
            // If the directory is gone, each file in it will be reported as gone.
            ContentRoot::Beside => {
                let real = directory.canonicalize();
                Some(real.unwrap_or_else(|_| directory.to_path_buf()))
            }
        }
    }
}

/// The result of inspecting a metainfo file.
pub(in crate::library) struct Inspection {
    pub(in crate::library) facts: Facts,
    pub(in crate::library) announce: Vec<Vec<String>>,
    /// Why it is not served; also `None` when its content is away.
    pub(in crate::library) refusal: Option<RefusalReason>,
}

impl Inspection {
    /// A metainfo file that cannot be used.
    pub(in crate::library) fn refused(reason: RefusalReason) -> Self {
        Inspection {
            facts: Facts {
                info_hash: InfoHash([0; 20]),
                state: State::Unusable,
                private: false,
                content_name: ContentName::default(),
                stamp: FileStamp::default(),
            },
            announce: Vec::new(),
            refusal: Some(reason),
        }
    }

    /// Reads a metainfo file and checks its content below `root`, unless that is away (`None`).
    ///
    /// # Errors
    /// A lack of descriptors, with which nothing is known of either.
    pub(in crate::library) fn of(
        reader: &mut Reader,
        path: &Path,
        root: Option<&Path>,
    ) -> Result<Self, RefusalReason> {
        Self::catch_panic(reader, |reader| Self::read(reader, path, root))
    }

    /// A file that makes a parser panic costs no other torrent. The panic itself has been reported on
    /// standard error.
    fn catch_panic(
        reader: &mut Reader,
        read: impl FnOnce(&mut Reader) -> Result<Self, RefusalReason>,
    ) -> Result<Self, RefusalReason> {
        contained(|| read(reader)).unwrap_or_else(|_| {
            *reader = Reader::default();
            let defect = io::Error::other("reading it panicked, a defect of hekate");
            Ok(Self::refused(defect.into()))
        })
    }

    fn read(reader: &mut Reader, path: &Path, root: Option<&Path>) -> Result<Self, RefusalReason> {
        let mut found = match reader.read(path) {
            Ok(found) => found,
            Err(reason) if reason.is_lack_of_descriptors() => return Err(reason),
            Err(reason) => {
                // A file that could not be read at all keeps a stamp that no file has.
                let readable = !matches!(reason, RefusalReason::Unreadable(_));
                let metadata = path.metadata().ok().filter(|_| readable);
                let stamp = metadata.as_ref().map(FileStamp::new).unwrap_or_default();
                let mut refused = Self::refused(reason);
                refused.facts.stamp = stamp;
                return Ok(refused);
            }
        };
        let checked = root.map(|root| reader.check(root, &mut found.metainfo));
        let (state, mut refusal) = match checked {
            Some(Ok(())) => (State::Served, None),
            Some(Err(error)) => (State::Withdrawn, Some(RefusalReason::from(error))),
            None => (State::Withdrawn, None),
        };
        if let Some(reason) = refusal.take_if(|reason| reason.is_lack_of_descriptors()) {
            return Err(reason);
        }
        Ok(Inspection {
            facts: Facts {
                info_hash: found.metainfo.info_hash,
                state,
                private: found.metainfo.private,
                content_name: content_name(&found.metainfo),
                stamp: found.stamp,
            },
            announce: found.metainfo.announce,
            refusal,
        })
    }

    /// The same; tries again while no descriptor is left, so that no torrent is lost by that.
    pub(in crate::library) fn with_retries(
        reader: &mut Reader,
        path: &Path,
        root: Option<&Path>,
    ) -> Self {
        let mut lack = DescriptorWait::default();
        loop {
            match Self::of(reader, path, root) {
                Ok(inspection) => return inspection,
                Err(reason) if lack.wait(&reason) => {}
                Err(reason) => return Self::refused(reason),
            }
        }
    }
}

/// Of the file or directory that holds the content.
fn content_name(metainfo: &Metainfo) -> ContentName {
    let mut paths = metainfo.files.iter().map(|file| file.path.as_slice());
    let path = paths.find(|path| !path.is_empty()).unwrap_or_default();
    let name = path.split(|byte| *byte == b'/').next();
    ContentName::new(name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_makes_a_parser_panic_is_refused() {
        let mut reader = Reader::default();
        let inspection = Inspection::catch_panic(&mut reader, |_| panic!("on purpose")).unwrap();
        assert_eq!(inspection.facts.state, State::Unusable);
        let reason = inspection.refusal.map(|reason| reason.to_string());
        assert!(reason.unwrap().contains("a defect of hekate"));
    }
}
