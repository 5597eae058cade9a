//! Inspecting one metainfo file and its content.
//!
//! Blocks.

use std::io;
use std::path::{Path, PathBuf};

use super::walk::{DescriptorWait, is_away};
use crate::library::index::format::{ContentName, Facts, State};
use crate::torrent::catalogue::RefusalReason;
use crate::torrent::content::ContentError;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::metainfo::Metainfo;
use crate::torrent::reader::{FileStamp, Reader};
use crate::wire::message::InfoHash;
use crate::workers::contained;

/// Where content lies, and which of these directories are there now.
#[derive(Clone, Debug)]
pub(in crate::library) struct ContentRoots {
    content: ContentDirectories,
    /// Directories whose disks are not mounted.
    away: Vec<PathBuf>,
}

/// Where the content of the metainfo files of one directory is looked for.
#[derive(Debug)]
pub(in crate::library) struct RootsOf<'a> {
    content: &'a ContentDirectories,
    /// Those that are there; at least one.
    roots: Vec<PathBuf>,
    /// Others are away.
    are_some_away: bool,
}

impl ContentRoots {
    /// Looks which of them are there.
    pub(in crate::library) fn new(content: ContentDirectories) -> Self {
        let away = content.roots().filter(|root| is_away(root));
        ContentRoots {
            away: away.map(Path::to_path_buf).collect(),
            content,
        }
    }

    /// Where the content of metainfo files in this directory is looked for; `None` while all of that is away.
    pub(in crate::library) fn of(&self, directory: &Path) -> Option<RootsOf<'_>> {
        let named = self.content.roots_of(directory);
        let is_present = |root: &&&Path| !self.away.iter().any(|away| away == *root);
        let present = named.iter().filter(is_present);
        // If the directory of the metainfo files is gone, each file in it will be reported as gone.
        let real = |root: &&Path| root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
        let roots: Vec<PathBuf> = present.map(real).collect();
        (!roots.is_empty()).then_some(RootsOf {
            are_some_away: roots.len() < named.len(),
            content: &self.content,
            roots,
        })
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

    /// Reads a metainfo file and checks its content below `roots`, unless these are away (`None`).
    ///
    /// # Errors
    /// A lack of descriptors, with which nothing is known of either.
    pub(in crate::library) fn of(
        reader: &mut Reader,
        path: &Path,
        roots: Option<&RootsOf<'_>>,
    ) -> Result<Self, RefusalReason> {
        Self::catch_panic(reader, |reader| Self::read(reader, path, roots))
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

    fn read(
        reader: &mut Reader,
        path: &Path,
        roots: Option<&RootsOf<'_>>,
    ) -> Result<Self, RefusalReason> {
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
        let checked = roots.map(|among| {
            let roots: Vec<&Path> = among.roots.iter().map(PathBuf::as_path).collect();
            let checked = reader.check(among.content, &roots, &mut found.metainfo);
            (checked.map(drop), among.are_some_away)
        });
        let (state, mut refusal) = match checked {
            Some((Ok(()), _)) => (State::Served, None),
            // It may be in one of the others.
            Some((Err(ContentError::Missing(_)), true)) => (State::Withdrawn, None),
            Some((Err(error), _)) => (State::Withdrawn, Some(RefusalReason::from(error))),
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
        roots: Option<&RootsOf<'_>>,
    ) -> Self {
        let mut lack = DescriptorWait::default();
        loop {
            match Self::of(reader, path, roots) {
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
