//! The library that a configuration asks for.
//!
//! Owns where its index is kept when nothing is said. It must not know how a library is served.

use std::time::Duration;

use super::Config;
use crate::library::live::{Settings, Source};
use crate::library::refresh;

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let content = config.content.clone();
        Settings {
            source: match &config.index {
                Some(index) => Source::Given {
                    index: index.clone(),
                    root: config.root.clone(),
                },
                None => {
                    let directory = config.state_dir.clone();
                    let directory = directory.unwrap_or_else(refresh::state_home);
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
