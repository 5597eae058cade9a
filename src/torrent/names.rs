//! The paths where the files of a torrent may lie on disk. Pure.
//!
//! The first is [`MetainfoFile::path`](super::metainfo::MetainfoFile::path); the others are made only when no file
//! lies there. Files with the name of another are called as in libtorrent's `resolve_duplicate_filenames.cpp`.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use unicode_normalization::UnicodeNormalization;

use super::cleaning::{STYLES, Style};
use super::content_directories::without_subfolder;
use super::metainfo::Metainfo;

/// The normal forms of Unicode in which a name may be on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    AsItIs,
    Composed,
    Decomposed,
}

const FORMS: [Form; 3] = [Form::AsItIs, Form::Composed, Form::Decomposed];

/// All paths below the content root where a file is looked for, in their order; none for one that is not
/// expected on disk.
#[must_use]
pub fn paths_of(metainfo: &Metainfo, index: usize) -> Vec<Vec<u8>> {
    let first = metainfo.files.get(index).map(|file| file.path.clone());
    let others = OtherPaths::default().of(metainfo, index);
    let others = others.into_iter().map(|(_, path)| path);
    let first = first.filter(|path| !path.is_empty());
    first.into_iter().chain(others).collect()
}

/// How one of the other names of a file is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Way {
    is_other_encoding: bool,
    style: Style,
    form: Form,
    is_without_subfolder: bool,
}

impl Way {
    const FIRST: Way = Way {
        is_other_encoding: false,
        style: Style::Underscore,
        form: Form::AsItIs,
        is_without_subfolder: false,
    };
}

/// The other paths where the files of one torrent may lie.
#[derive(Default)]
pub(super) struct OtherPaths {
    /// Files are looked for also without the directory that has the torrent's name.
    without_subfolder: bool,
    /// What libtorrent calls files that have the name of another.
    renamed: OnceCell<HashMap<usize, Vec<u8>>>,
    /// The way that the last file was found.
    last: Option<Way>,
}

impl OtherPaths {
    pub(super) fn new(without_subfolder: bool) -> Self {
        OtherPaths {
            without_subfolder,
            ..OtherPaths::default()
        }
    }

    /// The paths where a file may lie beside its first, in the order in which they are tried. Empty for files
    /// that are not expected on disk.
    pub(super) fn of(&self, metainfo: &Metainfo, index: usize) -> Vec<(Way, Vec<u8>)> {
        let mut paths: Vec<(Way, Vec<u8>)> = Vec::new();
        let file = metainfo.files.get(index).map(|file| file.path.as_slice());
        let Some(first) = file.filter(|path| !path.is_empty()) else {
            return paths;
        };
        for is_other_encoding in [false, true] {
            let Some(raw) = RawPath::of(metainfo, index, is_other_encoding) else {
                continue;
            };
            for style in STYLES {
                let path = match style {
                    style if style.is_renaming() && !is_other_encoding => {
                        let renamed = self.renamed.get_or_init(|| renamed(metainfo, style));
                        renamed.get(&index).cloned()
                    }
                    _ => None,
                };
                let path = path.unwrap_or_else(|| raw.path(style, metainfo));
                for form in FORMS {
                    let Some(path) = form.of(&path) else { continue };
                    if *path != *first && !paths.iter().any(|(_, known)| *known == *path) {
                        let way = Way {
                            is_other_encoding,
                            style,
                            form,
                            is_without_subfolder: false,
                        };
                        paths.push((way, path.into_owned()));
                    }
                }
            }
        }
        if self.without_subfolder {
            let shorter = |(way, path): &(Way, Vec<u8>)| {
                let way = Way {
                    is_without_subfolder: true,
                    ..*way
                };
                Some((way, without_subfolder(path)?.into_owned()))
            };
            let first = (Way::FIRST, first.to_vec());
            let shorter: Vec<_> = [&first]
                .into_iter()
                .chain(&paths)
                .filter_map(shorter)
                .collect();
            paths.extend(shorter);
        }
        let is_repeated = metainfo.raw_names.is_repeated(index);
        paths.sort_by_key(|(way, _)| match is_repeated {
            // Under the names that others make, the earlier file would be found.
            true => !way.style.is_renaming(),
            // The files of a torrent were written by one program.
            false => Some(*way) != self.last,
        });
        paths
    }

    /// Keeps in mind that a file was found in this way.
    pub(super) fn remember(&mut self, way: Way) {
        self.last = Some(way);
    }
}

/// The raw names of one file.
struct RawPath<'a> {
    name: &'a [u8],
    /// `None` for a torrent of one file.
    components: Option<Vec<&'a [u8]>>,
}

impl<'a> RawPath<'a> {
    /// `None` when there is no other encoding.
    fn of(metainfo: &'a Metainfo, index: usize, is_other_encoding: bool) -> Option<Self> {
        let raw = &metainfo.raw_names;
        let path = metainfo.files.get(index)?.path.as_slice();
        let mut split = path.split(|byte| *byte == b'/');
        let name = split.next()?;
        let rest: Vec<&[u8]> = split.collect();
        let (torrent, file) = (raw.torrent.as_ref(), raw.files.get(&index));
        let other_name = torrent.and_then(|names| names.other.as_deref());
        let other_file = file.and_then(|names| names.other.as_ref());
        if is_other_encoding && other_name.is_none() && other_file.is_none() {
            return None;
        }
        let preferred = torrent.map_or(name, |names| &names.preferred);
        let name = match is_other_encoding {
            true => other_name.unwrap_or(preferred),
            false => preferred,
        };
        let preferred = file.map(|names| &names.preferred);
        let components = match is_other_encoding {
            true => other_file.or(preferred),
            false => preferred,
        };
        let components = match components {
            Some(components) => components.iter().map(Vec::as_slice).collect(),
            None => rest,
        };
        Some(RawPath {
            name,
            components: (!components.is_empty()).then_some(components),
        })
    }

    fn path(&self, style: Style, metainfo: &Metainfo) -> Vec<u8> {
        let info_hash = || metainfo.info_hash.to_string();
        style.path(self.name, self.components.as_deref(), info_hash)
    }
}

/// The paths of files that libtorrent renames since an earlier file or a directory has their name, upper and
/// lower case of ASCII being the same.
fn renamed(metainfo: &Metainfo, style: Style) -> HashMap<usize, Vec<u8>> {
    let paths = (0..metainfo.files.len()).filter_map(|index| {
        let file = metainfo.files.get(index)?;
        let raw = RawPath::of(metainfo, index, false)?;
        (!file.path.is_empty()).then(|| (index, raw.path(style, metainfo)))
    });
    let paths: Vec<(usize, Vec<u8>)> = paths.collect();
    let mut taken = HashSet::with_capacity(paths.len());
    for (_, path) in &paths {
        let mut above = path.to_ascii_lowercase();
        while let Some(end) = above.iter().rposition(|byte| *byte == b'/') {
            above.truncate(end);
            if !taken.insert(above.clone()) {
                break;
            }
        }
    }
    // A hostile torrent has one path a million times.
    let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut renamed = HashMap::new();
    for (index, path) in paths {
        let lower = path.to_ascii_lowercase();
        if taken.insert(lower.clone()) {
            continue;
        }
        let count = counts.entry(lower).or_default();
        let name = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let dot = path.iter().rposition(|byte| *byte == b'.');
        let (base, extension) = path.split_at(dot.filter(|dot| *dot > name).unwrap_or(path.len()));
        let new = loop {
            *count += 1;
            let new = [base, format!(".{count}").as_bytes(), extension].concat();
            if taken.insert(new.to_ascii_lowercase()) {
                break new;
            }
        };
        renamed.insert(index, new);
    }
    renamed
}

impl Form {
    /// `None` when the path has no other form.
    fn of(self, path: &[u8]) -> Option<Cow<'_, [u8]>> {
        let text = || match path.is_ascii() {
            true => None,
            false => std::str::from_utf8(path).ok(),
        };
        match self {
            Form::AsItIs => Some(Cow::Borrowed(path)),
            Form::Composed => Some(text()?.nfc().collect::<String>().into_bytes().into()),
            Form::Decomposed => Some(text()?.nfd().collect::<String>().into_bytes().into()),
        }
    }
}

#[cfg(test)]
mod tests;
