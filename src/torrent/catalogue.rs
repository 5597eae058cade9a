//! The library: info-hash to torrent.
//!
//! Owns what is known of every served torrent, held small because there may be tens of millions.
//! It must not know how torrents are found on disk, nor peers.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::{Layout, Shape};
use super::metainfo::Metainfo;
pub use super::reader::METAINFO_MAX_BYTES;
pub use super::scan::{Refusal, RefusalReason, rescan, scan};
use crate::wire::message::InfoHash;

/// A torrent that is served.
#[derive(Debug)]
pub struct Torrent {
    /// Unique in the process: a torrent that changes on disk gets another.
    pub id: u32,
    /// What names the torrent on the wire.
    pub info_hash: InfoHash,
    /// What tells legal requests.
    pub shape: Shape,
    /// Where each byte is.
    pub layout: Layout,
    /// The content root, without symlinks and absolute.
    pub root: Arc<Path>,
    /// Where the raw `info` dictionary starts in the metainfo file, in bytes. Its length is
    /// [`Shape::metadata_length`].
    pub info_offset: u64,
    /// Announce URLs in tiers (BEP 12), shared by all torrents that have the same.
    pub announce: Arc<[Vec<String>]>,
    paths: Paths,
    metainfo_directory: Arc<Path>,
    metainfo_name: Box<OsStr>,
}

/// One file of a [`Torrent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentFile<'a> {
    /// Relative to [`Torrent::root`]; empty for what is not on disk (padding and symlinks).
    pub path: &'a Path,
    /// Bytes.
    pub length: u64,
    /// Whether the file is zeros that need not exist (BEP 47).
    pub padding: bool,
}

/// Where a metainfo file and its content were found.
pub(super) struct Place<'a> {
    pub(super) metainfo_directory: &'a Arc<Path>,
    pub(super) metainfo_name: &'a OsStr,
    pub(super) root: &'a Arc<Path>,
}

impl Torrent {
    pub(super) fn new(
        id: u32,
        metainfo: &Metainfo,
        place: &Place<'_>,
        announce: Arc<[Vec<String>]>,
    ) -> Self {
        let metadata_length = metainfo.info.end - metainfo.info.start;
        Torrent {
            id,
            info_hash: metainfo.info_hash,
            shape: Shape {
                piece_length: metainfo.piece_length,
                pieces: metainfo.pieces,
                total_length: metainfo.total_length,
                // A metainfo file has at most METAINFO_MAX_BYTES, which 32 bits hold.
                metadata_length: u32::try_from(metadata_length).unwrap_or(u32::MAX),
                private: metainfo.private,
            },
            layout: Layout::new(
                metainfo
                    .files
                    .iter()
                    .map(|file| (file.length, file.padding)),
            ),
            root: Arc::clone(place.root),
            info_offset: metainfo.info.start,
            announce,
            paths: Paths::new(metainfo.files.iter().map(|file| file.path.as_slice())),
            metainfo_directory: Arc::clone(place.metainfo_directory),
            metainfo_name: place.metainfo_name.into(),
        }
    }

    /// The file with this index, which is the one of [`super::layout::Source::File`].
    #[must_use]
    pub fn file(&self, index: u32) -> Option<ContentFile<'_>> {
        let index = usize::try_from(index).ok()?;
        let (length, padding) = self.layout.file(index)?;
        Some(ContentFile {
            path: self.paths.at(index)?,
            length,
            padding,
        })
    }

    /// All files in their order, padding included.
    pub fn files(&self) -> impl Iterator<Item = ContentFile<'_>> {
        (0..).map_while(|index| self.file(index))
    }

    /// The file or directory that holds the content, as it may be shown.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        self.files()
            .find_map(|file| file.path.iter().next())
            .unwrap_or_default()
            .to_string_lossy()
    }

    /// The metainfo file, absolute.
    #[must_use]
    pub fn metainfo_path(&self) -> PathBuf {
        self.metainfo_directory
            .join(Path::new(&*self.metainfo_name))
    }

    /// Whether everything but the id is the same.
    fn is_same(&self, other: &Torrent) -> bool {
        self.info_hash == other.info_hash
            && self.shape == other.shape
            && self.layout == other.layout
            && self.root == other.root
            && self.info_offset == other.info_offset
            && self.announce == other.announce
            && self.paths == other.paths
            && self.metainfo_directory == other.metainfo_directory
            && self.metainfo_name == other.metainfo_name
    }
}

/// The paths of a torrent's files in one piece of memory.
#[derive(PartialEq, Eq, Debug)]
struct Paths {
    bytes: Box<[u8]>,
    /// Where each path ends. Empty when there is one path.
    ends: Box<[u32]>,
}

impl Paths {
    fn new<'a>(paths: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for path in paths {
            bytes.extend_from_slice(path);
            ends.push(bytes.len());
        }
        if ends.len() == 1 {
            ends.clear();
        }
        Paths {
            bytes: bytes.into_boxed_slice(),
            // METAINFO_MAX_BYTES of paths, with the torrent's name of at most 255 bytes before each,
            // end below 2^32.
            ends: ends
                .into_iter()
                .map(|end| u32::try_from(end).unwrap_or(u32::MAX))
                .collect(),
        }
    }

    fn at(&self, index: usize) -> Option<&Path> {
        let bytes = if self.ends.is_empty() {
            self.bytes.get(..).filter(|_| index == 0)
        } else {
            let start = index
                .checked_sub(1)
                .and_then(|before| self.ends.get(before));
            let start = start.copied().unwrap_or(0) as usize;
            self.bytes.get(start..*self.ends.get(index)? as usize)
        };
        Some(Path::new(OsStr::from_bytes(bytes?)))
    }
}

/// Every served torrent.
#[derive(Clone, Default, Debug)]
pub struct Catalogue {
    /// In the order in which they were found.
    torrents: Vec<Arc<Torrent>>,
    /// The first four bytes of each info-hash with its position in `torrents`, ascending: eight
    /// bytes for each torrent where a hash table would take fifty.
    index: Vec<(u32, u32)>,
    /// No torrent has or had this id or a higher one.
    next_id: u32,
}

impl Catalogue {
    /// The torrent with this info-hash.
    #[must_use]
    pub fn find(&self, info_hash: &InfoHash) -> Option<&Arc<Torrent>> {
        let prefix = prefix(info_hash);
        let first = self.index.partition_point(|(other, _)| *other < prefix);
        self.index
            .get(first..)?
            .iter()
            .take_while(|(other, _)| *other == prefix)
            .filter_map(|(_, position)| self.torrents.get(*position as usize))
            .find(|torrent| torrent.info_hash == *info_hash)
    }

    /// At most so many torrents in the order of their info-hashes, from the first after this one.
    #[must_use]
    pub fn after(&self, after: Option<&InfoHash>, limit: usize) -> Vec<&Arc<Torrent>> {
        let start = after.map_or(0, prefix);
        let first = self.index.partition_point(|(other, _)| *other < start);
        let mut found: Vec<&Arc<Torrent>> = Vec::new();
        let mut last = None;
        for (prefix, position) in self.index.get(first..).unwrap_or_default() {
            // Those with the same prefix are not in order, so none of them is left behind.
            if found.len() >= limit && last != Some(prefix) {
                break;
            }
            last = Some(prefix);
            let torrent = self.torrents.get(*position as usize);
            found.extend(
                torrent.filter(|torrent| after.is_none_or(|after| torrent.info_hash > *after)),
            );
        }
        found.sort_unstable_by_key(|torrent| torrent.info_hash);
        found.truncate(limit);
        found
    }

    /// How many torrents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.torrents.len()
    }

    /// Whether there is no torrent at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.torrents.is_empty()
    }

    /// The torrents in the order in which they were found.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Torrent>> {
        self.torrents.iter()
    }

    /// The catalogue that follows this one. A torrent that is the same in both is shared and keeps
    /// its id, so whatever is kept by id stays valid; any other gets an id never used before.
    ///
    /// `found` is in the order of discovery. Of torrents with the same info-hash the first stays;
    /// the others are given to `refuse` together with it.
    pub(super) fn followed_by(
        &self,
        mut found: Vec<Torrent>,
        mut refuse: impl FnMut(&Torrent, &Torrent),
    ) -> Catalogue {
        // Until here the id is the order of discovery.
        found.sort_unstable_by_key(|torrent| (torrent.info_hash, torrent.id));
        found.dedup_by(|later, first| {
            let repeated = later.info_hash == first.info_hash;
            if repeated {
                refuse(later, first);
            }
            repeated
        });
        found.sort_unstable_by_key(|torrent| torrent.id);

        let mut next_id = self.next_id;
        let mut torrents = Vec::with_capacity(found.len());
        for mut torrent in found {
            match self
                .find(&torrent.info_hash)
                .filter(|known| known.is_same(&torrent))
            {
                Some(known) => torrents.push(Arc::clone(known)),
                None => {
                    torrent.id = next_id;
                    // Ids come round only after four thousand million changes.
                    next_id = next_id.wrapping_add(1);
                    torrents.push(Arc::new(torrent));
                }
            }
        }
        let mut index: Vec<(u32, u32)> = (0..)
            .zip(&torrents)
            .map(|(position, torrent)| (prefix(&torrent.info_hash), position))
            .collect();
        index.sort_unstable();
        Catalogue {
            torrents,
            index,
            next_id,
        }
    }
}

fn prefix(info_hash: &InfoHash) -> u32 {
    let [a, b, c, d, ..] = info_hash.0;
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::metainfo::samples::{entry, multi, s, single};
    use std::ops::Range;

    fn torrent(id: u32, raw: &str, root: &str) -> Torrent {
        let (root, directory) = (Arc::from(Path::new(root)), Arc::from(Path::new("/library")));
        let place = Place {
            metainfo_directory: &directory,
            metainfo_name: OsStr::new("x.torrent"),
            root: &root,
        };
        let metainfo = Metainfo::parse(raw.as_bytes()).unwrap();
        Torrent::new(id, &metainfo, &place, metainfo.announce.clone().into())
    }

    /// Torrents that differ in length, found in this order.
    fn found(lengths: Range<u64>) -> Vec<Torrent> {
        (0..)
            .zip(lengths)
            .map(|(id, length)| torrent(id, &single(length, ""), "/r"))
            .collect()
    }

    fn no_refusal(later: &Torrent, _: &Torrent) {
        panic!("{} was refused", later.info_hash);
    }

    #[test]
    fn a_torrent_holds_what_the_metainfo_file_says() {
        let raw = single(20000, &(s("private") + "i1e")).replacen('d', "d8:announce3:url", 1);
        let torrent = torrent(7, &raw, "/r");
        assert_eq!((torrent.id, torrent.name().as_ref()), (7, "n"));
        assert_eq!(torrent.metainfo_path(), Path::new("/library/x.torrent"));
        assert_eq!(*torrent.root, *Path::new("/r"));
        assert_eq!(*torrent.announce, [vec!["url".to_owned()]]);
        let info = raw.find("d6:length").unwrap();
        assert_eq!(torrent.info_offset, info as u64);
        let shape = Shape {
            piece_length: 16384,
            pieces: 2,
            total_length: 20000,
            metadata_length: u32::try_from(raw.len() - 1 - info).unwrap(),
            private: true,
        };
        assert_eq!(torrent.shape, shape);
    }

    #[test]
    fn torrents_can_be_leafed_through_in_the_order_of_their_hashes() {
        let catalogue = Catalogue::default().followed_by(found(1..30), no_refusal);
        let mut seen: Vec<InfoHash> = Vec::new();
        loop {
            let page = catalogue.after(seen.last(), 7);
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= 7);
            seen.extend(page.iter().map(|torrent| torrent.info_hash));
        }
        assert_eq!(seen.len(), 29);
        assert!(seen.is_sorted());
    }

    #[test]
    fn files_are_found_by_index() {
        let files = entry(7, &["b", "c"], "") + &entry(9, &[], "4:attr1:p") + &entry(0, &["a"], "");
        let many = torrent(0, &multi(16, &files, ""), "/r");
        let file = |path, length, padding| ContentFile {
            path: Path::new(path),
            length,
            padding,
        };
        let expected = [
            file("m/b/c", 7, false),
            file("", 9, true),
            file("m/a", 0, false),
        ];
        assert_eq!(many.files().collect::<Vec<_>>(), expected);
        assert_eq!(many.name(), "m");
        assert_eq!((many.file(3), many.file(u32::MAX)), (None, None));
        let one = torrent(0, &single(5, ""), "/r");
        assert_eq!(one.files().collect::<Vec<_>>(), [file("n", 5, false)]);
    }

    #[test]
    fn a_torrent_of_one_file_is_small() {
        let one = torrent(0, &single(5, ""), "/r");
        assert_eq!((&*one.paths.bytes, one.paths.ends.len()), (&b"n"[..], 0));
        assert!(size_of::<Torrent>() <= 176, "{}", size_of::<Torrent>());
    }

    #[test]
    fn every_torrent_is_found_by_its_info_hash_and_listed_in_order() {
        let torrents = found(1..200);
        let hashes: Vec<InfoHash> = torrents.iter().map(|torrent| torrent.info_hash).collect();
        let catalogue = Catalogue::default().followed_by(torrents, no_refusal);
        assert_eq!((catalogue.len(), catalogue.is_empty()), (199, false));
        assert!(
            catalogue
                .iter()
                .map(|torrent| torrent.info_hash)
                .eq(hashes.iter().copied())
        );
        for hash in &hashes {
            assert_eq!(catalogue.find(hash).unwrap().info_hash, *hash);
            // The same first four bytes are not enough.
            let mut other = *hash;
            other.0[19] ^= 1;
            assert!(catalogue.find(&other).is_none());
        }
        for other in [InfoHash([0; 20]), InfoHash([0xff; 20])] {
            assert!(catalogue.find(&other).is_none());
        }
        assert!(Catalogue::default().find(&hashes[0]).is_none());
    }

    #[test]
    fn info_hashes_with_equal_beginnings_are_told_apart() {
        let mut torrents = found(1..4);
        for (torrent, last) in torrents.iter_mut().zip(1..) {
            torrent.info_hash = InfoHash([7; 20]);
            torrent.info_hash.0[19] = last;
        }
        let catalogue = Catalogue::default().followed_by(torrents, no_refusal);
        for torrent in catalogue.iter() {
            assert_eq!(catalogue.find(&torrent.info_hash).unwrap().id, torrent.id);
        }
        assert_eq!(catalogue.len(), 3);
    }

    #[test]
    fn of_equal_torrents_the_first_found_stays() {
        let torrents = vec![
            torrent(0, &single(2, ""), "/a"),
            torrent(1, &single(1, ""), "/b"),
            torrent(2, &single(2, ""), "/c"),
            torrent(3, &single(2, ""), "/d"),
        ];
        let mut refused = Vec::new();
        let catalogue = Catalogue::default().followed_by(torrents, |later, first| {
            refused.push((later.root.to_path_buf(), first.root.to_path_buf()));
        });
        let roots: Vec<&Path> = catalogue.iter().map(|torrent| &*torrent.root).collect();
        assert_eq!(roots, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(
            refused,
            [("/c".into(), "/a".into()), ("/d".into(), "/a".into())]
        );
    }

    #[test]
    fn what_has_not_changed_keeps_its_id_and_what_has_gets_a_new_one() {
        let first = Catalogue::default().followed_by(found(1..4), no_refusal);
        let ids: Vec<u32> = first.iter().map(|torrent| torrent.id).collect();
        assert_eq!(ids, [0, 1, 2]);

        let moved = torrent(0, &single(3, ""), "/elsewhere");
        let mut again = vec![moved];
        again.extend(found(2..3));
        again.extend(found(4..5));
        for (torrent, order) in again.iter_mut().zip(0..) {
            torrent.id = order;
        }
        let second = first.followed_by(again, no_refusal);
        let ids: Vec<u32> = second.iter().map(|torrent| torrent.id).collect();
        assert_eq!(ids, [3, 1, 4]);
        let kept = second.iter().nth(1).unwrap();
        assert!(Arc::ptr_eq(kept, first.find(&kept.info_hash).unwrap()));
    }
}
