//! The library that a configuration asks for.
//!
//! Owns where its state is kept when nothing is said. It must not know how a library is served.

use std::path::PathBuf;
use std::time::Duration;

use super::{LibraryConfig, Verify};
use crate::library::live::{Settings, Source};
use crate::library::refresh;

/// The file of a state directory that remembers what was verified, whatever library it is of: what is
/// known of a piece holds for its torrent and the files, and not for where they were found.
const VERIFIED: &str = "verified";

impl LibraryConfig {
    /// The directory where state is kept.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(refresh::state_home)
    }

    /// The file that remembers what was verified, when anything is.
    #[must_use]
    pub fn verified(&self) -> Option<PathBuf> {
        (self.verify == Verify::Lazy).then(|| self.state_directory().join(VERIFIED))
    }

    /// Whether anything is kept in the state directory.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.index.is_none() || self.verify == Verify::Lazy
    }
}

impl From<&LibraryConfig> for Settings {
    fn from(config: &LibraryConfig) -> Self {
        let content = config.content.clone();
        Settings {
            source: match &config.index {
                Some(index) => Source::Given {
                    index: index.clone(),
                    root: config.root.clone(),
                },
                None => {
                    let directory = config.state_directory();
                    Source::Inputs {
                        state: refresh::state_path(&directory, &config.dirs, content.as_deref()),
                        inputs: config.dirs.clone(),
                    }
                }
            },
            content,
            rescan: config.rescan_s.map(Duration::from_secs),
        }
    }
}
