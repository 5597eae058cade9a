//! Where indexes are kept, and making them: the first one, and the next from the one before.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use super::index_cache;
use super::source::{Settings, Source, log_refusals};
use crate::library::index::{Fault, Index, IndexError};
use crate::library::scan::build::{self, BuildError, Depth, Plan, Previous, Progress};
use crate::library::scan::parallel;
use crate::library::scan::probe::Probed;
use crate::library::scan::walk::is_away;
use crate::torrent::catalogue::Refusal;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::printable::Printable;

/// Only the daemon may read an index: it lists the served torrents.
const STATE_MODE: u32 = 0o700;

/// The file in which the index of these inputs is kept below a state directory.
#[must_use]
pub fn state_path(directory: &Path, inputs: &[PathBuf], content: &ContentDirectories) -> PathBuf {
    let mut digest = Sha1::new();
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let record = ContentDirectories::map_roots(content.record(), absolute);
    for path in inputs
        .iter()
        .map(|input| absolute(input))
        .chain(record.clone())
    {
        let bytes = path.as_os_str().as_bytes();
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
    // With one root or none, the byte that it always was.
    digest.update([u8::try_from(record.len()).unwrap_or(u8::MAX)]);
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
        Err(IndexError {
            path,
            fault: Fault::Version(..),
        }) => {
            let path = Printable::path(&path);
            log::info!("index {path} is of another version: it is made again");
        }
        // It is only a cache.
        Err(error) => log::warn!("{error}: rebuilding it"),
    }
    Ok(None)
}

/// How the index of these settings is made; `None` if somebody else makes it.
fn plan(settings: &Settings, threads: usize) -> Option<Plan> {
    let Source::Inputs { inputs, state } = &settings.source else {
        return None;
    };
    Some(Plan {
        inputs: inputs.clone(),
        content: settings.content.clone(),
        target: state.clone(),
        threads,
    })
}

/// Makes the first index.
pub(super) fn first(
    settings: &Settings,
    probed: &Probed,
    progress: &Progress,
) -> Result<Index, String> {
    let Some(plan) = plan(settings, parallel::cores()) else {
        return given(settings);
    };
    warn_of_away(settings, probed);
    refuse_hung_content(settings, probed)?;
    // An index of other inputs may know many of the same files.
    let other = index_cache::nearest(&plan.target, &plan.inputs, &plan.content);
    let previous = other.as_ref().map(|index| Previous {
        index,
        depth: Depth::Metainfo,
        quiet: false,
        gone: &[],
    });
    make(plan, previous, probed, progress)
}

/// Makes the next index, or opens the one that somebody else has made.
pub(super) fn again(
    settings: &Settings,
    probed: &Probed,
    previous: Previous<'_>,
) -> Result<Index, String> {
    warn_of_away(settings, probed);
    refuse_hung_content(settings, probed)?;
    // The loop keeps a core while it serves peers.
    let Some(plan) = plan(settings, parallel::cores().div_ceil(2)) else {
        return given(settings);
    };
    // A wrong byte would be copied into every later index.
    let checked = previous.index.check().inspect_err(|error| {
        log::warn!("{error}; reading every metainfo file again");
    });
    let previous = checked.ok().map(|()| previous);
    make(plan, previous, probed, &Progress::default())
}

/// Opens the index that somebody else makes.
fn given(settings: &Settings) -> Result<Index, String> {
    let Source::Given { index, root } = &settings.source else {
        return Err("no index is given".to_owned());
    };
    let index = Index::open(index).map_err(|error| error.to_string())?;
    if index.is_old() {
        let path = index.path();
        let path = Printable::path(&path);
        log::info!(
            "index {path} is of an earlier version: encrypted connections find no torrent of it until it is made again with `hekate index`"
        );
    }
    Ok(match root {
        Some(root) => index.at_root(root.clone()),
        None => index,
    })
}

fn make(
    plan: Plan,
    previous: Option<Previous<'_>>,
    probed: &Probed,
    progress: &Progress,
) -> Result<Index, String> {
    let mut refusals = EachOnce::new(|refusal| log_refusals(&[refusal]));
    let made = make_directory(plan.target.parent().unwrap_or(Path::new("/")))
        .map_err(|error| BuildError::Write(plan.target.clone(), error))
        .and_then(|()| write(&plan, previous, probed, progress, refusals.of_a_run()));
    match made {
        Ok(index) => {
            index_cache::hold(&index);
            index_cache::remove_unused(&plan.target);
            Ok(index)
        }
        Err(error @ (BuildError::Write(..) | BuildError::Busy(_))) => {
            log::warn!("{error}: the index is not saved, and is rebuilt at the next start");
            nowhere(plan, previous, probed, progress, refusals)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Passes each refusal on once, although several attempts find the same ones in the same order.
struct EachOnce<F> {
    refuse: F,
    passed: usize,
}

impl<F: FnMut(Refusal)> EachOnce<F> {
    fn new(refuse: F) -> Self {
        EachOnce { refuse, passed: 0 }
    }

    /// Takes the refusals of one attempt, and passes on those that no earlier one has reached.
    fn of_a_run(&mut self) -> impl FnMut(Refusal) {
        let mut seen = 0;
        move |refusal| {
            seen += 1;
            if seen > self.passed {
                self.passed = seen;
                (self.refuse)(refusal);
            }
        }
    }
}

/// Makes an index that is gone when it is closed.
///
/// # Errors
/// One line that says why no index was made.
pub fn make_nowhere(settings: &Settings, refuse: impl FnMut(Refusal)) -> Result<Index, String> {
    let plan = plan(settings, parallel::cores()).ok_or("nothing to index: an index is given")?;
    let refusals = EachOnce::new(refuse);
    nowhere(
        plan,
        None,
        &Probed::default(),
        &Progress::default(),
        refusals,
    )
}

/// Makes an index in a temporary file that is removed at once and stays open; in memory where none can be
/// written.
fn nowhere(
    mut plan: Plan,
    previous: Option<Previous<'_>>,
    probed: &Probed,
    progress: &Progress,
    mut refusals: EachOnce<impl FnMut(Refusal)>,
) -> Result<Index, String> {
    let name = format!("hekate-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let directory = std::env::temp_dir().join(name);
    plan.target = directory.join("index");
    progress.begin_again();
    // Creating it fails if somebody else has made it, so nobody else can write to it.
    let made = DirBuilder::new().mode(STATE_MODE).create(&directory);
    let made = made
        .map_err(|error| BuildError::Write(directory.clone(), error))
        .and_then(|()| write(&plan, previous, probed, progress, refusals.of_a_run()));
    // An open file does not need its name.
    let _ = fs::remove_dir_all(&directory);
    let made = match made {
        Err(error @ (BuildError::Write(..) | BuildError::Busy(_))) => {
            log::warn!("{error}: the index is kept in memory");
            progress.begin_again();
            build::refresh_in_memory(&plan, previous, probed, progress, refusals.of_a_run())
        }
        made => made,
    };
    made.map_err(|error| error.to_string())
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
    plan: &Plan,
    previous: Option<Previous<'_>>,
    probed: &Probed,
    progress: &Progress,
    refuse: impl FnMut(Refusal),
) -> Result<Index, BuildError> {
    build::refresh(plan, previous, probed, progress, refuse)?;
    Ok(Index::open(&plan.target)?)
}

/// Where content may be on a disk that hangs, nothing can be found out about any torrent.
fn refuse_hung_content(settings: &Settings, probed: &Probed) -> Result<(), String> {
    let mut roots = settings.content.roots();
    match roots.find_map(|root| probed.hung(root)) {
        Some(path) => Err(format!("{} hangs", Printable::path(&path))),
        None => Ok(()),
    }
}

/// Everything that is searched, or of which presence matters.
pub(super) fn directories(settings: &Settings) -> Vec<PathBuf> {
    let inputs = settings.inputs().into_iter();
    inputs.chain(settings.presence_roots()).collect()
}

/// Logs which disks are not mounted, and which hang.
pub(super) fn warn_of_away(settings: &Settings, probed: &Probed) {
    for path in probed.hung_directories().iter() {
        let path = Printable::path(path);
        log::warn!(
            "{path} hangs: it is searched when it answers, and its torrents stay as they are"
        );
    }
    let directories = directories(settings).into_iter();
    let answering = directories.filter(|path| probed.hung(path).is_none());
    for path in answering.filter(|path| is_away(path)) {
        let path = Printable::path(&path);
        log::warn!("{path} is empty or missing: its torrents are served when they appear");
    }
}

fn is_absent(error: &IndexError) -> bool {
    matches!(&error.fault, Fault::Unreadable(error) if error.kind() == ErrorKind::NotFound)
}
