//! Block to file extents.
//!
//! The arithmetic of pieces (BEP 3) and of the files that follow each other in a torrent (BEP 47 for
//! padding). Pure.

use std::ops::Range;

use crate::wire::message::Request;

/// The longest block that is served. BEP 3 says 16 KiB; aria2 and rtorrent ask for as much as this.
pub const MAX_BLOCK_BYTES: u32 = 128 * 1024;

/// The sizes of a torrent, which decide whether a request is legal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Bytes in each piece but the last. Never zero in a torrent that is served.
    pub piece_length: u32,
    /// The number of pieces.
    pub pieces: u32,
    /// Bytes in all files together, padding included.
    pub total_length: u64,
    /// Bytes in the raw `info` dictionary (BEP 9).
    pub metadata_length: u32,
    /// Whether peers may come from the trackers only (BEP 27).
    pub private: bool,
}

impl Shape {
    /// Bytes in the piece `index`, `None` when there is no such piece.
    #[must_use]
    pub fn piece_length_of(&self, index: u32) -> Option<u32> {
        if index >= self.pieces {
            return None;
        }
        let start = u64::from(index) * u64::from(self.piece_length);
        let left = self.total_length.checked_sub(start)?;
        let length =
            u32::try_from(left).map_or(self.piece_length, |left| left.min(self.piece_length));
        (length > 0).then_some(length)
    }

    /// Returns true if the block lies within one piece and has 1 to [`MAX_BLOCK_BYTES`] bytes.
    #[must_use]
    pub fn accepts(&self, request: &Request) -> bool {
        (1..=MAX_BLOCK_BYTES).contains(&request.length)
            && self.piece_length_of(request.index).is_some_and(|piece| {
                u64::from(request.begin) + u64::from(request.length) <= u64::from(piece)
            })
    }

    /// Where the block starts, in bytes from the start of the torrent.
    #[must_use]
    pub fn offset_of(&self, request: &Request) -> u64 {
        u64::from(request.index) * u64::from(self.piece_length) + u64::from(request.begin)
    }
}

/// Where the bytes of an extent come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtentSource {
    /// The file with this index in the torrent.
    File(u32),
    /// A padding file: zeros, which need not be on disk (BEP 47).
    Zeros,
}

/// Bytes that lie together in one file. Never empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where the bytes come from.
    pub source: ExtentSource,
    /// The first byte in that file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Marks the start of a padding file. Lengths come from signed numbers, so the bit is free.
const PADDING: u64 = 1 << 63;

/// Where each file of a torrent starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    total_length: u64,
    /// The offset of each file, with [`PADDING`]. Empty for a torrent of one file, as most torrents of
    /// a large library are.
    starts: Box<[u64]>,
}

impl Layout {
    /// Lays files, given as length in bytes and whether they are padding, one after the other.
    /// [`super::metainfo`] ensures that the sum is below 2^63.
    #[must_use]
    pub fn new(files: impl Iterator<Item = (u64, bool)>) -> Self {
        let mut total_length = 0_u64;
        let mut starts: Vec<u64> = files
            .map(|(length, padding)| {
                let start = total_length | if padding { PADDING } else { 0 };
                total_length += length;
                start
            })
            .collect();
        if starts == [0] {
            starts = Vec::new();
        }
        Layout {
            total_length,
            starts: starts.into_boxed_slice(),
        }
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.starts)
    }

    /// The length in bytes of a file and whether it is padding, `None` when there is no such file.
    #[must_use]
    pub fn file(&self, index: usize) -> Option<(u64, bool)> {
        if self.starts.is_empty() {
            return (index == 0).then_some((self.total_length, false));
        }
        let start = *self.starts.get(index)?;
        let length = self.start_after(index) - (start & !PADDING);
        Some((length, start & PADDING != 0))
    }

    /// Where a file lies in the torrent, in bytes; `None` when there is no such file.
    #[must_use]
    pub fn span(&self, index: usize) -> Option<Range<u64>> {
        let (length, _) = self.file(index)?;
        let start = self.starts.get(index).map_or(0, |start| start & !PADDING);
        Some(start..start + length)
    }

    /// The extents of a range of the torrent, in order. Bytes beyond the end are left out. The first is
    /// found by binary search.
    #[must_use]
    pub fn extents(&self, offset: u64, length: u64) -> Extents<'_> {
        // If several files start at the same byte, only the last can have any.
        let file = self
            .starts
            .partition_point(|start| start & !PADDING <= offset)
            .saturating_sub(1);
        Extents {
            layout: self,
            file,
            offset,
            end: offset.saturating_add(length).min(self.total_length),
        }
    }

    fn start_after(&self, file: usize) -> u64 {
        self.starts
            .get(file + 1)
            .map_or(self.total_length, |start| start & !PADDING)
    }
}

/// The iterator that [`Layout::extents`] gives. It allocates nothing.
#[derive(Clone, Debug)]
pub struct Extents<'a> {
    layout: &'a Layout,
    file: usize,
    offset: u64,
    end: u64,
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        while self.offset < self.end {
            // A torrent of one file has no entry here: its file starts at 0 and ends with the torrent.
            let entry = self.layout.starts.get(self.file).copied().unwrap_or(0);
            let start = entry & !PADDING;
            let length = self.layout.start_after(self.file).min(self.end) - self.offset;
            let extent = Extent {
                source: match entry & PADDING {
                    0 => ExtentSource::File(
                        u32::try_from(self.file).expect("a torrent has fewer files"),
                    ),
                    _ => ExtentSource::Zeros,
                },
                offset: self.offset - start,
                length,
            };
            self.offset += length;
            self.file += 1;
            if length > 0 {
                return Some(extent);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(piece_length: u32, total_length: u64) -> Shape {
        Shape {
            piece_length,
            pieces: u32::try_from(total_length.div_ceil(u64::from(piece_length))).unwrap(),
            total_length,
            metadata_length: 100,
            private: false,
        }
    }

    fn request(index: u32, begin: u32, length: u32) -> Request {
        Request {
            index,
            begin,
            length,
        }
    }

    #[test]
    fn the_last_piece_is_what_is_left() {
        let odd = shape(16384, 40000);
        assert_eq!(odd.piece_length_of(0), Some(16384));
        assert_eq!(odd.piece_length_of(2), Some(40000 - 32768));
        assert_eq!(odd.piece_length_of(3), None);
        let even = shape(16384, 32768);
        assert_eq!(even.piece_length_of(1), Some(16384));
        assert_eq!(even.piece_length_of(u32::MAX), None);
        let empty = Shape { pieces: 3, ..even };
        assert_eq!(empty.piece_length_of(2), None, "a piece has bytes");
    }

    #[test]
    fn a_request_must_lie_within_one_piece() {
        let shape = shape(32768, 80000);
        assert!(shape.accepts(&request(0, 0, 16384)));
        assert!(shape.accepts(&request(0, 16384, 16384)));
        assert!(shape.accepts(&request(0, 32767, 1)));
        assert!(shape.accepts(&request(2, 0, 80000 - 65536)));
        for outside in [
            request(0, 0, 0),
            request(0, 16385, 16384),
            request(0, 32768, 1),
            request(2, 1, 80000 - 65536),
            request(3, 0, 1),
            request(u32::MAX, u32::MAX, 1),
            request(0, u32::MAX, u32::MAX),
            request(0, u32::MAX, 16384),
        ] {
            assert!(!shape.accepts(&outside), "{outside:?}");
        }
    }

    #[test]
    fn a_block_has_at_most_128_kib() {
        let shape = shape(1 << 20, 1 << 21);
        assert!(shape.accepts(&request(1, 0, MAX_BLOCK_BYTES)));
        assert!(!shape.accepts(&request(1, 0, MAX_BLOCK_BYTES + 1)));
    }

    #[test]
    fn offsets_go_beyond_four_gigabytes() {
        let shape = shape(1 << 26, 1 << 40);
        assert_eq!(
            shape.offset_of(&request(10_000, 5, 1)),
            10_000 * (1 << 26) + 5
        );
        assert_eq!(shape.piece_length_of(10_000), Some(1 << 26));
    }

    #[test]
    fn one_file_needs_no_table() {
        let layout = Layout::new([(1000, false)].into_iter());
        assert!(layout.starts.is_empty());
        assert_eq!(
            (layout.file(0), layout.file(1)),
            (Some((1000, false)), None)
        );
        assert_eq!(layout.file(1), None);
        let all = |offset, length| layout.extents(offset, length).collect::<Vec<_>>();
        assert_eq!(
            all(100, 900),
            [Extent {
                source: ExtentSource::File(0),
                offset: 100,
                length: 900
            }]
        );
        assert_eq!(all(990, 100)[0].length, 10);
        assert_eq!(all(1000, 1), []);
        assert_eq!(all(u64::MAX, u64::MAX), []);
        assert_eq!(all(0, 0), []);
    }

    #[test]
    fn lengths_spans_and_padding_are_kept() {
        let files = [(0, false), (7, false), (9, true), (0, true), (5, false)];
        let layout = Layout::new(files.into_iter());
        let mut start = 0;
        for (index, file) in files.into_iter().enumerate() {
            assert_eq!(layout.file(index), Some(file));
            assert_eq!(layout.span(index), Some(start..start + file.0));
            start += file.0;
        }
        assert_eq!(layout.file(files.len()), None);
        assert_eq!(layout.span(files.len()), None);
        let single = Layout::new([(7, false)].into_iter());
        assert_eq!((single.span(0), single.span(1)), (Some(0..7), None));
    }

    /// Every range against the plain way: one entry for each byte of the torrent.
    #[test]
    fn every_range_gives_the_bytes_of_the_files() {
        let cases: [&[(u64, bool)]; 6] = [
            &[
                (3, false),
                (0, false),
                (5, true),
                (0, true),
                (1, false),
                (4, false),
            ],
            &[(0, false), (0, false), (6, false), (0, false)],
            &[(4, true), (4, false), (4, true)],
            &[(0, true), (6, false)],
            &[(6, true)],
            &[(6, false)],
        ];
        for files in cases {
            let bytes: Vec<(ExtentSource, u64)> = (0_u32..)
                .zip(files)
                .flat_map(|(index, (length, padding))| {
                    (0..*length).map(move |offset| match padding {
                        true => (ExtentSource::Zeros, offset),
                        false => (ExtentSource::File(index), offset),
                    })
                })
                .collect();
            let layout = Layout::new(files.iter().copied());
            for start in 0..=bytes.len() + 1 {
                for end in start..=bytes.len() + 1 {
                    let extents: Vec<Extent> =
                        layout.extents(start as u64, (end - start) as u64).collect();
                    assert!(extents.iter().all(|extent| extent.length > 0));
                    let got: Vec<_> = extents
                        .iter()
                        .flat_map(|extent| {
                            (extent.offset..extent.offset + extent.length)
                                .map(|offset| (extent.source, offset))
                        })
                        .collect();
                    let expected = &bytes[start.min(bytes.len())..end.min(bytes.len())];
                    assert_eq!(got, expected, "{files:?} {start}..{end}");
                }
            }
        }
    }
}
