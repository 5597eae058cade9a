//! Where indexes are kept, and making them: the first one, and the next from the one before.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::index_cache;
use super::source::{Settings, Source, log_refusals};
use crate::library::index::{Fault, Index, IndexError, MetainfoPath};
use crate::library::scan::build::{self, BuildError, Depth, Plan, Previous, Progress};
use crate::library::scan::parallel;
use crate::library::scan::walk::is_away;
use crate::torrent::catalogue::Refusal;
use crate::torrent::printable::Printable;

/// Only we may read an index: it tells what is served.
const STATE_MODE: u32 = 0o700;

/// A refresh.
pub(super) struct Task {
    pub(super) settings: Settings,
    pub(super) previous: Arc<Index>,
    pub(super) depth: Depth,
    /// See [`Previous::quiet`].
    pub(super) quiet: bool,
    /// See [`Previous::gone`].
    pub(super) gone: Vec<MetainfoPath>,
}

/// The file in which the index of these inputs is kept below a state directory.
#[must_use]
pub fn state_path(directory: &Path, inputs: &[PathBuf], content: Option<&Path>) -> PathBuf {
    let mut digest = Sha1::new();
    for path in inputs.iter().map(PathBuf::as_path).chain(content) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let bytes = path.as_os_str().as_bytes();
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
    digest.update([u8::from(content.is_some())]);
    let name: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    directory.join(name + ".index")
}

/// Opens the index of earlier runs, if there is one, or the given one.
pub(super) fn open(settings: &Settings) -> Result<Option<Index>, String> {
    let state = match &settings.source {
        Source::Inputs { state, .. } => state,
        Source::Given { .. } => return given(settings).map(Some),
    };
    match Index::open(state) {
        Ok(index) => {
            index_cache::hold(&index);
            return Ok(Some(index));
        }
        Err(error) if is_absent(&error) => {}
        // It is only a cache.
        Err(error) => log::warn!("{error}: rebuilding it"),
    }
    Ok(None)
}

/// Makes the first index.
pub(super) fn first(settings: &Settings, progress: &Progress) -> Result<Index, String> {
    let Source::Inputs { inputs, state } = &settings.source else {
        return given(settings);
    };
    warn_of_away(inputs, settings);
    // An index of other inputs may know many of the same files.
    let other = index_cache::nearest(state, inputs, settings.content.as_deref());
    let previous = other.as_ref().map(|index| Previous {
        index,
        depth: Depth::Metainfo,
        quiet: false,
        gone: &[],
    });
    let how = How {
        previous,
        threads: parallel::cores(),
    };
    make(settings, state, how, progress)
}

/// Makes the next index, or opens the one that somebody else has made.
pub(super) fn again(task: &Task) -> Result<Index, String> {
    match &task.settings.source {
        Source::Inputs { inputs, state } => {
            warn_of_away(inputs, &task.settings);
            let previous = Previous {
                index: &task.previous,
                depth: task.depth,
                quiet: task.quiet,
                gone: &task.gone,
            };
            // A wrong byte would be copied into every later index.
            let whole = task.previous.check();
            let previous = match whole {
                Ok(()) => Some(previous),
                Err(error) => {
                    log::warn!("{error}; reading every metainfo file again");
                    None
                }
            };
            let how = How {
                previous,
                // The loop keeps a core while it serves peers.
                threads: parallel::cores().div_ceil(2),
            };
            make(&task.settings, state, how, &Progress::default())
        }
        Source::Given { .. } => {
            warn_of_away(&[], &task.settings);
            given(&task.settings)
        }
    }
}

/// How an index is made.
#[derive(Clone, Copy)]
struct How<'a> {
    previous: Option<Previous<'a>>,
    threads: usize,
}

fn given(settings: &Settings) -> Result<Index, String> {
    let Source::Given { index, root } = &settings.source else {
        return Err("no index is given".to_owned());
    };
    let index = Index::open(index).map_err(|error| error.to_string())?;
    Ok(match root {
        Some(root) => index.at_root(root.clone()),
        None => index,
    })
}

fn make(
    settings: &Settings,
    state: &Path,
    how: How<'_>,
    progress: &Progress,
) -> Result<Index, String> {
    let mut logged = 0;
    let refuse = |refusal: Refusal| {
        logged += 1;
        log_refusals(std::slice::from_ref(&refusal));
    };
    let made = match prepare(state) {
        Ok(()) => {
            let target = state.to_path_buf();
            write(settings, target, how, progress, refuse)
        }
        Err(error) => Err(BuildError::Write(state.to_path_buf(), error)),
    };
    match made {
        Err(error @ (BuildError::Write(..) | BuildError::Busy(_))) => {
            log::warn!("{error}: the index is not saved, and is rebuilt at the next start");
        }
        Ok(index) => {
            index_cache::hold(&index);
            index_cache::remove_unused(state);
            return Ok(index);
        }
        Err(error) => return Err(error.to_string()),
    }
    // The second run has the same refusals in the same order: log only what the first did not reach.
    let mut again = 0;
    let refuse = |refusal: Refusal| {
        again += 1;
        if again > logged {
            log_refusals(std::slice::from_ref(&refusal));
        }
    };
    nowhere(settings, how, refuse)
}

/// Makes an index in a file that is removed at once and stays open.
///
/// # Errors
/// One line that says why there is none.
pub fn make_nowhere(
    settings: &Settings,
    previous: Option<Previous<'_>>,
    refuse: impl FnMut(Refusal),
) -> Result<Index, String> {
    let threads = parallel::cores();
    nowhere(settings, How { previous, threads }, refuse)
}

fn nowhere(
    settings: &Settings,
    how: How<'_>,
    refuse: impl FnMut(Refusal),
) -> Result<Index, String> {
    // Creating it fails if somebody else has made it, so nobody else can write to it.
    let name = format!("hekate-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let directory = std::env::temp_dir().join(name);
    let made = DirBuilder::new().mode(STATE_MODE).create(&directory);
    let made = made
        .map_err(|error| BuildError::Write(directory.clone(), error))
        .and_then(|()| {
            let (progress, target) = (Progress::default(), directory.join("index"));
            write(settings, target, how, &progress, refuse)
        });
    // An open file does not need its name.
    let _ = fs::remove_dir_all(&directory);
    made.map_err(|error| error.to_string())
}

/// Makes the directory of the index, unless it exists.
fn prepare(state: &Path) -> io::Result<()> {
    make_directory(state.parent().unwrap_or(Path::new("/")))
}

/// Makes a state directory with its parents, unless it exists.
///
/// # Errors
/// Those of mkdir(2).
pub fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(STATE_MODE).recursive(true).create(directory)
}

fn write(
    settings: &Settings,
    target: PathBuf,
    how: How<'_>,
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Index, BuildError> {
    let Source::Inputs { inputs, .. } = &settings.source else {
        return Err(BuildError::Nothing(None));
    };
    let plan = Plan {
        inputs: inputs.clone(),
        content: settings.content.clone(),
        threads: how.threads,
        target,
    };
    build::refresh(&plan, how.previous, progress, refuse)?;
    Ok(Index::open(&plan.target)?)
}

/// Logs which disks are not mounted.
pub(super) fn warn_of_away(inputs: &[PathBuf], settings: &Settings) {
    let presence_roots = settings.presence_roots();
    let directories = inputs.iter().chain(&presence_roots);
    for path in directories.filter(|path| is_away(path)) {
        let path = Printable::path(&path);
        log::warn!("{path} is empty or missing: its torrents are served when they appear");
    }
}

fn is_absent(error: &IndexError) -> bool {
    matches!(&error.fault, Fault::Unreadable(error) if error.kind() == ErrorKind::NotFound)
}
