//! Compares received content with the piece hashes.
//!
//! A *sample* is a range of one piece that is kept instead of discarded. It is compared block by block
//! with the content when `--content` is given, else piece by piece with the hashes of the metainfo
//! file.

use crate::library::{Library, Target};
use hekate::torrent::layout::ExtentSource;
use hekate::torrent::metainfo::Metainfo;
use hekate::wire::message::Request;
use sha1::{Digest, Sha1};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, Error};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Content files held open; all are closed when there are more.
const OPEN_FILES: usize = 64;
/// Bytes of a hash in the metainfo file.
const HASH_BYTES: usize = 20;

/// A range of one piece that is being collected.
pub(crate) struct Sample {
    torrent: usize,
    request: Request,
    bytes: Vec<u8>,
    missing: usize,
}

impl Sample {
    /// Where to read the rest of `block`, of which `left` bytes are missing; `None` if the block is
    /// not in the sample.
    pub(crate) fn room(&mut self, block: &Request, left: usize) -> Option<&mut [u8]> {
        if block.index != self.request.index {
            return None;
        }
        let start = block.begin.checked_sub(self.request.begin)? as usize;
        let end = start + block.length as usize;
        self.bytes.get_mut(end.checked_sub(left)?..end)
    }

    /// `bytes` were read. Returns true when the sample is complete.
    pub(crate) fn filled(&mut self, bytes: usize) -> bool {
        self.missing = self.missing.saturating_sub(bytes);
        self.missing == 0
    }
}

/// Chooses and compares samples.
pub(crate) struct Verifier {
    content: Option<PathBuf>,
    share: f64,
    files: HashMap<(usize, u32), File>,
    hashes: HashMap<usize, Vec<[u8; HASH_BYTES]>>,
}

impl Verifier {
    /// Samples a `share` of all blocks, and compares with the content in `root` if given.
    pub(crate) fn new(content: Option<PathBuf>, share: f64) -> Verifier {
        Verifier {
            content,
            share,
            files: HashMap::new(),
            hashes: HashMap::new(),
        }
    }

    /// Starts a sample with `block` if chance chooses it.
    pub(crate) fn begin(
        &self,
        library: &Library,
        torrent: usize,
        block: &Request,
        random: &mut fastrand::Rng,
    ) -> Option<Sample> {
        if self.share <= 0.0 || random.f64() >= self.share {
            return None;
        }
        let mut request = *block;
        if self.content.is_none() {
            // A hash covers a whole piece, so a sample starts at its beginning.
            if block.begin != 0 {
                return None;
            }
            let shape = library.target(torrent)?.shape;
            request.length = shape.piece_length_of(block.index)?;
        }
        let missing = request.length as usize;
        Some(Sample {
            torrent,
            request,
            bytes: vec![0; missing],
            missing,
        })
    }

    /// Returns true when the sample is correct.
    pub(crate) fn matches(&mut self, library: &Library, sample: &Sample) -> io::Result<bool> {
        let target = library
            .target(sample.torrent)
            .ok_or_else(|| Error::other("a sample of no torrent"))?;
        if self.content.is_some() {
            Ok(self.read(target, sample)? == sample.bytes)
        } else {
            let hash = Sha1::digest(&sample.bytes);
            Ok(self.hash(target, sample)? == Some(hash.as_slice()))
        }
    }

    fn read(&mut self, target: &Target, sample: &Sample) -> io::Result<Vec<u8>> {
        let root = self.content.clone().unwrap_or_default();
        let mut expected = vec![0; sample.bytes.len()];
        let mut rest = expected.as_mut_slice();
        let offset = target.shape.offset_of(&sample.request);
        for extent in target.layout.extents(offset, rest.len() as u64) {
            let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
            let (part, later) = rest.split_at_mut(length.min(rest.len()));
            rest = later;
            let ExtentSource::File(index) = extent.source else {
                continue;
            };
            if self.files.len() > OPEN_FILES {
                self.files.clear();
            }
            let file = match self.files.entry((sample.torrent, index)) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(vacant) => {
                    let path = target.files.get(index as usize);
                    let path = path.ok_or_else(|| Error::other("an extent of no file"))?;
                    vacant.insert(File::open(root.join(path))?)
                }
            };
            file.read_exact_at(part, extent.offset)?;
        }
        Ok(expected)
    }

    fn hash(&mut self, target: &Target, sample: &Sample) -> io::Result<Option<&[u8]>> {
        let hashes = match self.hashes.entry(sample.torrent) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(vacant) => {
                let raw = fs::read(&target.metainfo)?;
                vacant.insert(Metainfo::piece_hashes(&raw).map_err(Error::other)?)
            }
        };
        let hash = hashes.get(sample.request.index as usize);
        Ok(hash.map(<[u8; HASH_BYTES]>::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::tests::{content, write_torrent};

    /// Collects a sample that begins with block 0 of piece 1, in parts of `step` bytes.
    fn collect(verifier: &Verifier, library: &Library, content: &[u8], step: usize) -> Sample {
        let mut random = fastrand::Rng::with_seed(1);
        let block = |begin| Request {
            index: 1,
            begin,
            length: 16384,
        };
        let mut sample = verifier
            .begin(library, 0, &block(0), &mut random)
            .expect("the share is all");
        for begin in [0, 16384] {
            let offset = 32768 + begin as usize;
            let mut left = 16384;
            while left > 0 {
                let Some(room) = sample.room(&block(begin), left) else {
                    return sample;
                };
                let taken = step.min(room.len());
                let from = offset + 16384 - left;
                room[..taken].copy_from_slice(&content[from..from + taken]);
                left -= taken;
                if sample.filled(taken) {
                    return sample;
                }
            }
        }
        sample
    }

    #[test]
    fn samples_match_the_content_and_the_hashes() {
        let directory = tempfile::tempdir().unwrap();
        let content = content(100_000);
        let torrent = write_torrent(directory.path(), &content, 32768);
        let library = Library::open(&[torrent], 1.0).unwrap();
        for (root, length) in [(Some(directory.path().to_owned()), 16384), (None, 32768)] {
            let mut verifier = Verifier::new(root, 1.0);
            let mut sample = collect(&verifier, &library, &content, 1000);
            assert_eq!((sample.bytes.len(), sample.missing), (length, 0));
            assert!(verifier.matches(&library, &sample).unwrap());
            sample.bytes[12_000] ^= 1;
            assert!(!verifier.matches(&library, &sample).unwrap());
        }
    }

    #[test]
    fn other_blocks_are_no_part_of_a_sample() {
        let directory = tempfile::tempdir().unwrap();
        let content = content(100_000);
        let torrent = write_torrent(directory.path(), &content, 32768);
        let library = Library::open(&[torrent], 1.0).unwrap();
        let verifier = Verifier::new(Some(directory.path().to_owned()), 1.0);
        let mut sample = collect(&verifier, &library, &content, 16384);
        for (index, begin) in [(0, 0), (1, 16384), (2, 0)] {
            let other = Request {
                index,
                begin,
                length: 16384,
            };
            assert_eq!(sample.room(&other, 16384), None);
        }
        let mut random = fastrand::Rng::with_seed(1);
        let nobody = Verifier::new(None, 0.0);
        assert!(
            nobody
                .begin(&library, 0, &sample.request, &mut random)
                .is_none()
        );
    }
}
