//! Where torrents come from, as configured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::library::index::Index;
use crate::torrent::catalogue::Refusal;
use crate::torrent::content_directories::ContentDirectories;

/// The log target of lines that are never held back as repetitions: why a torrent is not served.
pub const EACH_COUNTS: &str = "hekate::library";

/// Which torrents are served, and how often their directories are scanned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where torrents come from.
    pub source: Source,
    /// Where content lies. If nothing is named, it lies where the index says, or else beside each metainfo
    /// file.
    pub content: ContentDirectories,
    /// How often everything is scanned again; `None` is never.
    pub rescan: Option<Duration>,
}

/// Where torrents come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Directories and metainfo files, with an index that Hekate keeps.
    Inputs {
        /// Directories that are searched, and metainfo files.
        inputs: Vec<PathBuf>,
        /// The index file.
        state: PathBuf,
    },
    /// An index that somebody else makes.
    Given {
        /// The index file.
        index: PathBuf,
        /// Where its paths start, unless where the index says.
        root: Option<PathBuf>,
    },
}

impl Settings {
    /// The directories and files that are searched; none for a given index.
    pub(super) fn inputs(&self) -> Vec<PathBuf> {
        match &self.source {
            Source::Inputs { inputs, .. } => inputs.clone(),
            Source::Given { .. } => Vec::new(),
        }
    }

    /// Directories of which only presence matters: where all content lies, and where the paths of a
    /// given index start.
    pub(super) fn presence_roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<PathBuf> = self.content.roots().map(Path::to_path_buf).collect();
        if let Source::Given { index, root } = &self.source
            // The error of an unreadable index is reported when it is opened.
            && let Ok(mut origin) = Index::origin_of(index)
        {
            if let Some(root) = root {
                origin.root.clone_from(root);
            }
            if roots.is_empty() {
                roots = origin.content_roots();
            }
            roots.push(origin.root);
        }
        roots
    }
}

/// Logs why torrents are not served, a line for each.
pub(super) fn log_refusals(refusals: &[Refusal]) {
    for refusal in refusals {
        log::warn!(target: EACH_COUNTS, "refused: {refusal}");
    }
}
