//! Resolving a path name by name, with every directory on the way, up to the first missing name.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many symlinks the kernel follows in one path (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// A path, resolved as far as it exists.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct ResolvedPath {
    /// Each directory on the way with the name that is resolved in it. The last name may be missing.
    pub(super) steps: Vec<(PathBuf, OsString)>,
    /// The path without symlinks; `None` when it does not exist.
    pub(super) end: Option<PathBuf>,
}

/// Resolves an absolute path.
pub(super) fn resolve(path: &Path) -> ResolvedPath {
    let mut steps = Vec::new();
    let mut links = 0;
    let mut current = PathBuf::from("/");
    let mut left = components(path);
    while let Some(name) = left.pop_front() {
        if name == ".." {
            current.pop();
            continue;
        }
        let next = current.join(&name);
        steps.push((current.clone(), name));
        let Ok(metadata) = fs::symlink_metadata(&next) else {
            return ResolvedPath { steps, end: None };
        };
        if !metadata.is_symlink() {
            current = next;
            continue;
        }
        links += 1;
        let Some(target) = fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS) else {
            return ResolvedPath { steps, end: None };
        };
        if target.is_absolute() {
            current = PathBuf::from("/");
        }
        let mut names = components(&target);
        names.append(&mut left);
        left = names;
    }
    ResolvedPath {
        steps,
        end: Some(current),
    }
}

/// The names of a path; `..` is kept, since what it means depends on symlinks.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn steps_name_every_directory_and_symlink() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("a/b")).unwrap();
        symlink("../a/./b", base.join("a/l")).unwrap();
        let resolved = resolve(&base.join("a/l"));
        assert_eq!(resolved.end, Some(base.join("a/b")));
        let steps: Vec<PathBuf> = resolved
            .steps
            .iter()
            .map(|(directory, name)| directory.join(name))
            .filter(|path| path.starts_with(&base) && *path != base)
            .collect();
        let expected = ["a", "a/l", "a", "a/b"].map(|path| base.join(path));
        assert_eq!(steps, expected);
    }

    #[test]
    fn the_last_step_names_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir(base.join("a")).unwrap();
        symlink(base.join("a/gone/x"), base.join("l")).unwrap();
        let resolved = resolve(&base.join("l/y"));
        assert_eq!(resolved.end, None);
        assert_eq!(
            resolved.steps.last(),
            Some(&(base.join("a"), "gone".into()))
        );
        symlink("m", base.join("m")).unwrap();
        assert_eq!(resolve(&base.join("m")).end, None);
        fs::write(base.join("f"), "").unwrap();
        assert_eq!(resolve(&base.join("f/x")).end, None);
        assert_eq!(resolve(&base.join("f")).end, Some(base.join("f")));
    }
}
