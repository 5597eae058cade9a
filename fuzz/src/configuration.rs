//! A configuration file is taken or refused with one message, and the values that are taken can be
//! applied.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use hekate::config::file::Sources;

/// Panics when it does not hold for these bytes.
pub fn check(text: &[u8]) {
    let path = scratch("toml");
    fs::write(&path, text).expect("the directory for temporary files can be written to");
    let sources = Sources {
        path: Some(path.clone()),
        flags: Vec::new(),
        directory: PathBuf::from("/"),
        state_dir: None,
    };
    match sources.load_any() {
        Ok(configured) => {
            assert_eq!(configured.needs_restart(&configured), Vec::<&str>::new());
            let merged = sources.merge(&configured, &configured);
            assert_eq!(merged.config, configured.config);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A file of this process and thread for what can only be read from a file.
pub(crate) fn scratch(extension: &str) -> PathBuf {
    // The same for each input: a fuzzer makes millions.
    let directory: &Path = &env::temp_dir();
    let thread = format!("{:?}", std::thread::current().id());
    let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
    directory.join(format!(
        "hekate-fuzz-{}-{digits}.{extension}",
        process::id()
    ))
}
