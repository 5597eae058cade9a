//! The directories for content that an operator has named: where it lies, and where links may lead. Pure.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a part of a record starts with that is no root.
const NO_ROOT: &str = "=";

/// What an operator has named. A copy costs a pointer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ContentDirectories(Arc<Named>);

/// The directories, absolute.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Named {
    /// Where content is looked for, in this order. Empty means beside each metainfo file.
    pub roots: Vec<PathBuf>,
    /// Instead of `roots` for the metainfo files below the first directory of a pair: the second. The longest
    /// first directory counts; of several pairs with it, each second in its order.
    pub roots_for: Vec<(PathBuf, PathBuf)>,
    /// Where links in content may lead, beside the root in which they are found: all directories that were
    /// named for anything.
    pub links: Vec<PathBuf>,
    /// Look for content also without the directory that has the torrent's name.
    pub without_subfolder: bool,
}

impl From<Named> for ContentDirectories {
    fn from(named: Named) -> Self {
        ContentDirectories(Arc::new(named))
    }
}

impl ContentDirectories {
    /// All content lies below this directory.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        let roots = vec![root.into()];
        let links = roots.clone();
        Named {
            roots,
            links,
            ..Named::default()
        }
        .into()
    }

    /// What was named.
    #[must_use]
    pub fn named(&self) -> &Named {
        &self.0
    }

    /// Where the content of metainfo files in this directory is looked for, in this order: below the directory
    /// itself if nothing was named for it.
    pub fn roots_of<'a>(&'a self, directory: &'a Path) -> Vec<&'a Path> {
        let pairs = self.0.roots_for.iter();
        let pairs = pairs.filter(|(above, _)| directory.starts_with(above));
        let longest = pairs.clone().map(|(above, _)| above.components().count());
        if let Some(longest) = longest.max() {
            let nearest = pairs.filter(|(above, _)| above.components().count() == longest);
            return nearest.map(|(_, root)| root.as_path()).collect();
        }
        match &*self.0.roots {
            [] => vec![directory],
            roots => roots.iter().map(PathBuf::as_path).collect(),
        }
    }

    /// All directories that were named as roots.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        let below = self.0.roots_for.iter().map(|(_, root)| root);
        self.0.roots.iter().chain(below).map(PathBuf::as_path)
    }

    /// Returns true if all content lies beside its metainfo file.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        self.roots().next().is_none()
    }

    /// These with what an index adds: the roots in its [record](Self::record) if none were named, and the
    /// directories that were searched.
    #[must_use]
    pub fn with_index(
        &self,
        record: Vec<PathBuf>,
        searched: impl Iterator<Item = PathBuf>,
    ) -> Self {
        let mut named = Named::clone(&self.0);
        if self.is_beside() {
            let roots = record.into_iter().filter(|path| Self::is_root(path));
            let roots: Vec<PathBuf> = roots.collect();
            named.links.extend(roots.iter().cloned());
            named.roots = roots;
        }
        named.links.extend(searched);
        named.links.sort();
        named.links.dedup();
        named.into()
    }

    /// Returns true if a part of a record is a root.
    #[must_use]
    pub fn is_root(part: &Path) -> bool {
        !part
            .as_os_str()
            .as_encoded_bytes()
            .starts_with(NO_ROOT.as_bytes())
    }

    /// A record with each of its roots replaced.
    pub fn map_roots(
        record: impl IntoIterator<Item = PathBuf>,
        replace: impl Fn(&Path) -> PathBuf,
    ) -> Vec<PathBuf> {
        let replaced = |part: PathBuf| match Self::is_root(&part) {
            true => replace(&part),
            false => part,
        };
        record.into_iter().map(replaced).collect()
    }

    /// What an index records of them: the roots, and what else decides which content is found. An index made
    /// with others says nothing about what is served with these.
    #[must_use]
    pub fn record(&self) -> Vec<PathBuf> {
        let mut record = self.0.roots.clone();
        for (above, root) in &self.0.roots_for {
            let mut pair = OsString::from(NO_ROOT);
            pair.push(above);
            pair.push(NO_ROOT);
            pair.push(root);
            record.push(pair.into());
        }
        if self.0.without_subfolder {
            record.push(format!("{NO_ROOT}no subfolder").into());
        }
        record
    }
}

/// A path below the content root without its first directory, the torrent's own. `None` for a torrent of one
/// file.
pub(super) fn without_subfolder(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let end = path.iter().position(|byte| *byte == b'/')?;
    Some(Cow::Borrowed(path.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_directory_counts() {
        let pair = |above: &str, root: &str| (above.into(), root.into());
        let content = ContentDirectories::from(Named {
            roots: vec!["/data".into(), "/more".into()],
            roots_for: vec![
                pair("/lib/films", "/films"),
                pair("/lib/films/old", "/old"),
                pair("/lib/films", "/films2"),
            ],
            ..Named::default()
        });
        let roots = |directory: &'static str| {
            let roots = content.roots_of(Path::new(directory)).into_iter();
            roots.map(|root| root.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(roots("/lib"), ["/data", "/more"]);
        assert_eq!(roots("/lib/films"), ["/films", "/films2"]);
        assert_eq!(roots("/lib/films-new"), ["/data", "/more"]);
        assert_eq!(roots("/lib/films/old/a"), ["/old"]);
        assert_eq!(content.roots().count(), 5);
        let beside = ContentDirectories::default();
        assert!(beside.is_beside() && !content.is_beside());
        assert_eq!(beside.roots_of(Path::new("/lib")), [Path::new("/lib")]);
    }

    #[test]
    fn an_index_says_where_content_lies_unless_it_was_named() {
        let index = |content: &ContentDirectories| {
            let searched = ["/lib".into()].into_iter();
            content.with_index(vec!["/old".into()], searched)
        };
        let from_index = index(&ContentDirectories::default());
        assert_eq!(from_index.named().roots, [Path::new("/old")]);
        assert_eq!(
            from_index.named().links,
            ["/lib", "/old"].map(PathBuf::from)
        );
        let named = index(&ContentDirectories::below("/new"));
        assert_eq!(named.named().roots, [Path::new("/new")]);
        assert_eq!(named.named().links, ["/lib", "/new"].map(PathBuf::from));
    }
}
