//! The indexes of other inputs in the state directory: which one to start from, and which to delete.
//!
//! Blocks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::library::index::Index;
use crate::library::scan::walk::resolved;
use crate::torrent::content_directories::ContentDirectories;

/// How long an index is kept that no process has open, from when it was last made, as each start does:
/// longer than a library is away for a holiday or a repair.
const UNUSED_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// The end of the name of an index, and of one that is being made.
const INDEX: &str = "index";
const NEW: &str = "index.new";

/// Shows other processes that an index is in use, for as long as it is open.
pub(super) fn hold(index: &Index) {
    // Without the lock it is removed when it is old, which costs a scan at the next start.
    let _ = index.file().try_lock_shared();
}

/// The files beside `state` whose name is that of one, with this behind it.
fn others(state: &Path, ending: &str) -> Vec<PathBuf> {
    let directory = state.parent().unwrap_or(Path::new("/"));
    let own = state.file_stem();
    let is_other = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.split_once('.'));
        stem.is_some_and(|(stem, behind)| {
            let is_digest = stem.len() == 40 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
            behind == ending && is_digest && own.is_none_or(|own| own != stem)
        })
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_other).collect();
    found.sort();
    found
}

/// The index of other inputs that has most of these in common, each above or below one of its own.
pub(super) fn nearest(
    state: &Path,
    inputs: &[PathBuf],
    content: &ContentDirectories,
) -> Option<Index> {
    let wanted: Vec<PathBuf> = inputs.iter().map(|input| resolved(input)).collect();
    let content = ContentDirectories::map_roots(content.record(), resolved);
    let known = |path: &PathBuf| {
        let origin = Index::origin_of(path).ok()?;
        let searched = origin.searched.iter().map(|start| origin.root.join(start));
        let searched: Vec<PathBuf> = searched.collect();
        let common = wanted.iter().filter(|wanted| {
            let mut searched = searched.iter();
            searched.any(|start| wanted.starts_with(start) || start.starts_with(wanted))
        });
        let common = common.count();
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        (common > 0 && origin.record() == content).then_some((common, modified.ok()))
    };
    let found = others(state, INDEX).into_iter();
    let found = found.filter_map(|path| Some((known(&path)?, path)));
    let (_, path) = found.max()?;
    let index = Index::open(&path).ok().filter(|index| !index.is_old())?;
    index.check().ok()?;
    hold(&index);
    Some(index)
}

/// Removes indexes that were not used for long, and unfinished ones of killed processes.
pub(super) fn remove_unused(state: &Path) {
    let now = SystemTime::now();
    let is_old = |path: &PathBuf| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        let age = modified.map(|modified| now.duration_since(modified).unwrap_or_default());
        age.is_ok_and(|age| age > UNUSED_MAX)
    };
    let old = others(state, INDEX).into_iter().filter(is_old);
    for path in old.chain(others(state, NEW)) {
        let Ok(file) = File::open(&path) else {
            continue;
        };
        // A process that has it open, or is writing it, has locked it.
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests;
