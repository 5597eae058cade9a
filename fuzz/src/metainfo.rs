//! Whatever a metainfo file holds, what is accepted can be served: names are plain, lengths add up,
//! and the extents of the pieces cover every byte once.

use hekate::torrent::layout::{ExtentSource, Layout, Shape};
use hekate::torrent::metainfo::{MAX_PIECE_LENGTH_BYTES, Metainfo};
use hekate::torrent::names::paths_of;

/// Covering all pieces of all inputs would be slow: a piece length of one byte is legal.
const MAX_PIECES: u32 = 1000;

/// Panics when it does not hold for these bytes.
pub fn check(data: &[u8]) {
    let metainfo = match Metainfo::parse(data) {
        Ok(metainfo) => metainfo,
        Err(error) => {
            assert!(!error.to_string().contains('\n'));
            return;
        }
    };
    let info = &data[metainfo.info.start as usize..metainfo.info.end as usize];
    assert!(info.starts_with(b"d") && info.ends_with(b"e"));
    assert!((1..=MAX_PIECE_LENGTH_BYTES).contains(&metainfo.piece_length));
    let files = 0..metainfo.files.len();
    for path in files.flat_map(|index| paths_of(&metainfo, index)) {
        for name in path.split(|byte| *byte == b'/') {
            assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&0));
        }
    }
    let lengths = metainfo.files.iter().map(|file| file.length);
    assert_eq!(lengths.sum::<u64>(), metainfo.total_length);
    assert!(
        metainfo
            .files
            .iter()
            .all(|file| { file.padding || file.length == 0 || !file.path.is_empty() })
    );

    let shape = Shape {
        piece_length: metainfo.piece_length,
        pieces: metainfo.pieces,
        total_length: metainfo.total_length,
        metadata_length: info.len() as u32,
        private: metainfo.private,
    };
    let layout = Layout::new(
        metainfo
            .files
            .iter()
            .map(|file| (file.length, file.padding)),
    );
    let mut covered = vec![0; metainfo.files.len()];
    let mut offset = 0;
    for index in 0..shape.pieces.min(MAX_PIECES) {
        let length = u64::from(shape.piece_length_of(index).expect("it is below the count"));
        let mut left = length;
        for extent in layout.extents(offset, length) {
            left -= extent.length;
            if let ExtentSource::File(file) = extent.source {
                assert_eq!(covered[file as usize], extent.offset);
                covered[file as usize] += extent.length;
            }
        }
        assert_eq!(left, 0);
        offset += length;
    }
    if shape.pieces <= MAX_PIECES {
        assert_eq!(offset, shape.total_length);
        for (file, covered) in metainfo.files.iter().zip(covered) {
            assert!(file.padding || covered == file.length);
        }
    }
}
