//! The index that is served: opened where it is kept, made where there is none, made anew.
//!
//! Owns where an index is kept, and what happens when it cannot be. It must not know who is told. It
//! blocks for as long as it takes.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::index_cache;
use super::live::{Settings, Source, anchors, say};
use crate::library::index::{Fault, Index, IndexError};
use crate::library::scan::build::{self, Base, BuildError, Look, Plan, Progress};
use crate::library::scan::parallel;
use crate::library::scan::walk::is_away;
use crate::torrent::catalogue::Refusal;
use crate::torrent::printable::Printable;

/// An index is nobody else's business: it tells what is served.
const STATE_MODE: u32 = 0o700;

/// What is looked at again.
pub(super) struct Task {
    pub(super) settings: Settings,
    pub(super) base: Arc<Index>,
    pub(super) look: Look,
    /// See [`Base::quiet`].
    pub(super) quiet: bool,
    /// See [`Base::gone`].
    pub(super) gone: Vec<PathBuf>,
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

/// Opens the index that is served, if there is one.
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
        // It is a cache.
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
    // Other directories were served before, perhaps all but one of these.
    let other = index_cache::nearest(state, inputs, settings.content.as_deref());
    let base = other.as_ref().map(|index| Base {
        index,
        look: Look::Metainfo,
        quiet: false,
        gone: &[],
    });
    make(settings, state, (base, parallel::cores()), progress)
}

/// Makes the index anew, or opens the one that was made by somebody else.
pub(super) fn again(task: &Task) -> Result<Index, String> {
    match &task.settings.source {
        Source::Inputs { inputs, state } => {
            warn_of_away(inputs, &task.settings);
            let base = Base {
                index: &task.base,
                look: task.look,
                quiet: task.quiet,
                gone: &task.gone,
            };
            // One wrong byte would be taken over into each index that is made from it.
            let whole = task.base.check();
            let base = match whole {
                Ok(()) => Some(base),
                Err(error) => {
                    log::warn!("{error}; reading every metainfo file again");
                    None
                }
            };
            // While peers are served the loop has a core of its own.
            let threads = parallel::cores().div_ceil(2);
            make(&task.settings, state, (base, threads), &Progress::default())
        }
        Source::Given { .. } => {
            warn_of_away(&[], &task.settings);
            given(&task.settings)
        }
    }
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
    (base, threads): (Option<Base<'_>>, usize),
    progress: &Progress,
) -> Result<Index, String> {
    let mut said = 0;
    let refuse = |refusal: Refusal| {
        said += 1;
        say(std::slice::from_ref(&refusal));
    };
    let made = match prepare(state) {
        Ok(()) => {
            let target = state.to_path_buf();
            write(settings, target, (base, threads), progress, refuse)
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
    // They come in the same order as before.
    let mut again = 0;
    let refuse = |refusal: Refusal| {
        again += 1;
        if again > said {
            say(std::slice::from_ref(&refusal));
        }
    };
    nowhere(settings, (base, threads), refuse)
}

/// Makes an index that has no name.
///
/// # Errors
/// One line that says why there is none.
pub fn make_nowhere(
    settings: &Settings,
    base: Option<Base<'_>>,
    refuse: impl FnMut(Refusal),
) -> Result<Index, String> {
    nowhere(settings, (base, parallel::cores()), refuse)
}

fn nowhere(
    settings: &Settings,
    (base, threads): (Option<Base<'_>>, usize),
    refuse: impl FnMut(Refusal),
) -> Result<Index, String> {
    // Whoever else may write there cannot have made this directory.
    let name = format!("hekate-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let directory = std::env::temp_dir().join(name);
    let made = DirBuilder::new().mode(STATE_MODE).create(&directory);
    let made = made
        .map_err(|error| BuildError::Write(directory.clone(), error))
        .and_then(|()| {
            let (progress, target) = (Progress::default(), directory.join("index"));
            write(settings, target, (base, threads), &progress, refuse)
        });
    // An index that is open does not need its name.
    let _ = fs::remove_dir_all(&directory);
    made.map_err(|error| error.to_string())
}

/// Makes the state directory, unless it is there.
fn prepare(state: &Path) -> io::Result<()> {
    make_directory(state.parent().unwrap_or(Path::new("/")))
}

/// Makes a state directory, unless it is there.
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
    (base, threads): (Option<Base<'_>>, usize),
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Index, BuildError> {
    let Source::Inputs { inputs, .. } = &settings.source else {
        return Err(BuildError::Nothing(None));
    };
    let plan = Plan {
        inputs: inputs.clone(),
        content: settings.content.clone(),
        threads,
        target,
    };
    build::refresh(&plan, base, progress, refuse)?;
    Ok(Index::open(&plan.target)?)
}

/// Says which disks are away.
pub(super) fn warn_of_away(inputs: &[PathBuf], settings: &Settings) {
    let anchors = anchors(settings);
    let places = inputs.iter().chain(&anchors);
    for path in places.filter(|path| is_away(path)) {
        let path = Printable::path(&path);
        log::warn!("{path} is empty or missing: its torrents are served when they appear");
    }
}

fn is_absent(error: &IndexError) -> bool {
    matches!(&error.fault, Fault::Unreadable(error) if error.kind() == ErrorKind::NotFound)
}
