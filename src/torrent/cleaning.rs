//! How programs make names of files from what stands in a torrent. Pure.
//!
//! A torrent file may call its files what no file can be called, and programs that download clean such names in
//! different ways. No name leads out of the content root: no component is empty, `.` or `..`, or holds `/`.
//!
//! The rules are those of the programs' sources: `sanitize_append_path_element` in libtorrent's
//! `torrent_info.cpp`, `tr_metainfo_sanitize_path_component` in `metainfo.c` of Transmission 3,
//! `appendSanitizedComponent` in `torrent-files.cc` of Transmission 4.0.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// No file system of Linux has longer names. The torrent's name is repeated in the path of each
/// file, so a long one would also cost memory without bound.
const MAX_NAME_BYTES: usize = 255;

/// libtorrent ends a name when it has so many bytes, and adds the extension then.
const LIBTORRENT_NAME_BYTES: usize = 240;

/// The longest extension that libtorrent keeps of a name that it cuts, with its dot. Unit: bytes.
const LIBTORRENT_EXTENSION_BYTES: usize = 9;

/// What stands for a path of which nothing remains, as in libtorrent.
const NOTHING: &[u8] = b"_";

/// What a torrent file says in both of its encodings: in `name.utf-8` and `path.utf-8`, which are preferred, and
/// in `name` and `path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Encodings<T> {
    pub(super) preferred: T,
    /// `None` when both are the same.
    pub(super) other: Option<T>,
}

/// The raw names, where they say more than the paths that were made of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RawNames {
    /// Of the torrent.
    pub(super) torrent: Option<Encodings<Vec<u8>>>,
    /// The components of a file's path, by the index of the file.
    pub(super) files: BTreeMap<usize, Encodings<Vec<Vec<u8>>>>,
    /// Files with the path of an earlier file.
    pub(super) repeated: Vec<usize>,
}

impl RawNames {
    /// Returns true if a file has the path of an earlier file.
    pub(super) fn is_repeated(&self, index: usize) -> bool {
        self.repeated.binary_search(&index).is_ok()
    }
}

/// Returns true if a component may name an entry of a directory.
pub(super) fn is_plain(component: &[u8]) -> bool {
    !matches!(component, b"" | b"." | b"..")
        && component.len() <= MAX_NAME_BYTES
        && !component.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// The first path where a file is looked for: the torrent's name, or its info-hash if that cannot be one, and
/// the components of a file in a torrent of several.
pub(super) fn first_path(
    name: &[u8],
    components: Option<&[&[u8]]>,
    info_hash: impl Fn() -> String,
) -> Vec<u8> {
    Style::Underscore.path(name, components, info_hash)
}

/// How a program makes the names of files of the components of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    /// `/` becomes `_`, everything else stays.
    Underscore,
    /// libtorrent 2.0, and with it qBittorrent and Deluge.
    Libtorrent20,
    /// libtorrent 2.1.
    Libtorrent21,
    /// Transmission 3.
    Transmission3,
    /// Transmission 4.0.
    Transmission40,
    /// libtorrent on Windows.
    Windows,
}

pub(super) const STYLES: [Style; 6] = [
    Style::Underscore,
    Style::Libtorrent20,
    Style::Libtorrent21,
    Style::Transmission3,
    Style::Transmission40,
    Style::Windows,
];

impl Style {
    /// Returns true if a file with the name of another gets a new one.
    pub(super) fn is_renaming(self) -> bool {
        matches!(self, Style::Libtorrent20 | Style::Libtorrent21)
    }

    pub(super) fn path(
        self,
        name: &[u8],
        components: Option<&[&[u8]]>,
        info_hash: impl Fn() -> String,
    ) -> Vec<u8> {
        let name = self.clean(name, true);
        let mut path = name.map_or_else(|| info_hash().into_bytes(), Cow::into_owned);
        let Some(components) = components else {
            return path;
        };
        let end = path.len();
        for component in components {
            if let Some(component) = self.clean(component, false) {
                path.push(b'/');
                path.extend_from_slice(&component);
            }
        }
        if path.len() == end {
            path.push(b'/');
            path.extend_from_slice(NOTHING);
        }
        path
    }

    /// The name of a file or directory; `None` when nothing remains of it.
    fn clean(self, component: &[u8], is_torrent: bool) -> Option<Cow<'_, [u8]>> {
        match self {
            Style::Underscore if is_plain(component) => Some(Cow::Borrowed(component)),
            Style::Underscore => underscored(component).map(Cow::Owned),
            Style::Libtorrent20 | Style::Libtorrent21 | Style::Windows => {
                let name = self.libtorrent(component);
                let is_kept = component.is_empty() || (self != Style::Libtorrent20 && !is_torrent);
                name.or_else(|| is_kept.then(|| NOTHING.to_vec()))
                    .map(Cow::Owned)
            }
            Style::Transmission3 | Style::Transmission40 => {
                let is_before = self == Style::Transmission40;
                transmission(component, is_before).map(Cow::Owned)
            }
        }
    }

    /// `None` when nothing remains, or one or two dots.
    fn libtorrent(self, component: &[u8]) -> Option<Vec<u8>> {
        let mut name = Vec::with_capacity(component.len());
        let mut rest = component;
        let mut is_cut = false;
        while let Some((character, length)) = first_character(rest) {
            let (bytes, after) = rest.split_at(length);
            rest = after;
            match character {
                Some(character) if self.removes(character) => continue,
                Some(character) if !self.replaces(character) => name.extend_from_slice(bytes),
                _ => {
                    name.push(b'_');
                    continue;
                }
            }
            if name.len() >= LIBTORRENT_NAME_BYTES && !is_cut {
                let dot = rest.iter().rposition(|byte| *byte == b'.');
                let extension = dot.and_then(|dot| rest.get(dot..));
                rest = extension
                    .filter(|extension| extension.len() <= LIBTORRENT_EXTENSION_BYTES)
                    .unwrap_or_default();
                is_cut = true;
            }
        }
        if self == Style::Windows {
            let is_kept = |byte: &u8| !matches!(byte, b' ' | b'.');
            name.truncate(name.iter().rposition(is_kept).map_or(0, |last| last + 1));
        }
        (!matches!(&*name, b"" | b"." | b"..")).then_some(name)
    }

    /// Characters that libtorrent leaves out: separators, and those that are not seen.
    fn removes(self, character: char) -> bool {
        match character {
            '/' | '\\' | '\0' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' => true,
            '\u{61c}'
            | '\u{200b}'..='\u{200d}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => self != Style::Libtorrent20,
            _ => false,
        }
    }

    /// Characters for which libtorrent writes `_`.
    fn replaces(self, character: char) -> bool {
        let windows = ['?', '<', '>', '"', '|', '*', ':'];
        character.is_control() || (self == Style::Windows && windows.contains(&character))
    }
}

/// The first character and its length in bytes, or what libtorrent skips where there is none: as many bytes as
/// the first one asks for. `None` at the end.
fn first_character(bytes: &[u8]) -> Option<(Option<char>, usize)> {
    let length = match bytes.first()? {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    let bytes = bytes.get(..length).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).ok();
    let character = text.and_then(|text| text.chars().next());
    Some((character, bytes.len()))
}

/// `/` as `_`, without NUL, and cut to what a file system takes: before the extension, as libtorrent cuts.
fn underscored(component: &[u8]) -> Option<Vec<u8>> {
    let bytes = component.iter().filter(|byte| **byte != 0);
    let bytes = bytes.map(|byte| if *byte == b'/' { b'_' } else { *byte });
    let name: Vec<u8> = bytes.collect();
    if name.len() <= MAX_NAME_BYTES {
        return is_plain(&name).then_some(name);
    }
    Style::Libtorrent20.libtorrent(&name)
}

/// Transmission writes the characters that Windows forbids as `_`, and marks the names of Windows's devices,
/// version 4.0 in front.
fn transmission(component: &[u8], is_before: bool) -> Option<Vec<u8>> {
    let is_reserved = |byte: u8| byte < b' ' || b"<>:\"/\\|?*".contains(&byte);
    let bytes = component.iter();
    let mut name: Vec<u8> = bytes
        .map(|byte| if is_reserved(*byte) { b'_' } else { *byte })
        .collect();
    let is_space = |byte: &u8| *byte == b' ';
    let is_tail = |byte: &u8| matches!(byte, b' ' | b'.');
    if is_before {
        name = trimmed(&name, is_space, is_tail);
        if device_length(&name).is_some() {
            name.insert(0, b'_');
        }
    } else {
        if let Some(end) = device_length(&name) {
            name.insert(end, b'_');
        }
        name = trimmed(&name, is_space, is_tail);
    }
    is_plain(&name).then_some(name)
}

fn trimmed(name: &[u8], is_head: impl Fn(&u8) -> bool, is_tail: impl Fn(&u8) -> bool) -> Vec<u8> {
    let start = name.iter().position(|byte| !is_head(byte));
    let end = name.iter().rposition(|byte| !is_tail(byte));
    let kept = start
        .zip(end)
        .and_then(|(start, end)| name.get(start..=end));
    kept.unwrap_or_default().to_vec()
}

/// The length of the name of a device of Windows with which a name starts, in bytes.
fn device_length(name: &[u8]) -> Option<usize> {
    let stem = name.split(|byte| *byte == b'.').next().unwrap_or_default();
    let upper = stem.to_ascii_uppercase();
    let is_device = match &*upper {
        b"CON" | b"PRN" | b"AUX" | b"NUL" => true,
        [kind @ .., b'1'..=b'9'] => matches!(kind, b"COM" | b"LPT"),
        _ => false,
    };
    is_device.then_some(stem.len())
}
