//! What a proof needs on the machine, and what is said when it is not there.
//!
//! Owns: looking for programs, Python's libtorrent and node's webtorrent; the difference between a
//! failure and a permitted skip. Must not know: how any of them is run.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sandbox;

/// When set to 1, a missing client is a line on stderr and no failure.
const SKIP_VARIABLE: &str = "HEKATE_SKIP_MISSING_CLIENTS";
/// The interpreter for which Debian packages the binding; another one found first in `PATH`
/// does not see it.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// One thing that must be installed.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    /// A program in [`search_path`].
    Program(&'static str),
    /// libtorrent's binding for [`PYTHON`].
    PythonLibtorrent,
    /// webtorrent, where `make test-deps` puts it.
    NodeWebtorrent,
}

impl Need {
    fn is_installed(self) -> bool {
        match self {
            Self::Program(name) => {
                env::split_paths(&search_path()).any(|dir| dir.join(name).is_file())
            }
            Self::PythonLibtorrent => Command::new(PYTHON)
                .args(["-c", "import libtorrent"])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
            Self::NodeWebtorrent => node_modules().join("webtorrent/package.json").is_file(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Program(name) => name,
            Self::PythonLibtorrent => "libtorrent for /usr/bin/python3",
            Self::NodeWebtorrent => "webtorrent for node",
        }
    }
}

/// Whether `test` can run; when not, fails or says that it is skipped.
pub(crate) fn are_met(test: &str, needs: &[Need]) -> bool {
    let common = ["opentracker", "ip", "unshare"].map(Need::Program);
    let absent: Vec<_> = common
        .iter()
        .chain(needs)
        .filter(|need| !need.is_installed())
        .map(|need| need.name())
        .collect();
    if !absent.is_empty() {
        missing(test, &absent.join(", "));
    }
    absent.is_empty()
}

/// Fails for want of `what`, or skips with one line when that is permitted.
pub(crate) fn missing(test: &str, what: &str) {
    assert!(
        env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1"),
        "{test} needs {what}: install with `make test-deps`, or set {SKIP_VARIABLE}=1 to go without"
    );
    sandbox::announce(&format!("{test}: SKIPPED, missing: {what}"));
}

/// The caller's `PATH`, then the places where Debian keeps `ip` and daemons.
pub(crate) fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    path
}

/// Where `make test-deps` installs what comes from npm: in the target directory, of which Cargo
/// tells a test one known part.
pub(crate) fn node_modules() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("clients")
        .join("node_modules")
}
