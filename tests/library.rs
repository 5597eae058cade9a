//! Sample torrents of every kind, made without the program, must be read by it as they were made.
//!
//! Owns the agreement between `support::torrent` and `hekate::torrent`: info-hash, metadata, and
//! every byte of the content by way of the extents. Hostile input is tested beside the code.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test, in its helpers too"
)]

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use hekate::torrent::catalogue::Torrent;
use hekate::torrent::content;
use hekate::torrent::content_directories::ContentDirectories;
use hekate::torrent::id::TorrentId;
use hekate::torrent::layout::ExtentSource;
use hekate::torrent::metainfo::Metainfo;
use hekate::wire::message::InfoHash;
use support::torrent::{Sample, TorrentBuilder};

/// Every piece of a torrent as its extents lead to it, against the bytes that were made.
fn assert_served(torrent: &Torrent, sample: &Sample) {
    assert_eq!(torrent.info_hash.0, sample.info_hash);
    assert_eq!(torrent.info_hash.to_string(), sample.info_hash_hex());
    assert_eq!(torrent.shape.pieces, sample.pieces);
    assert_eq!(torrent.shape.total_length, sample.total_length);
    assert_eq!(*torrent.root, sample.root.canonicalize().unwrap());
    let mut file = File::open(torrent.metainfo_path()).unwrap();
    let mut info = vec![0; torrent.shape.metadata_length as usize];
    file.seek(SeekFrom::Start(torrent.info_offset)).unwrap();
    file.read_exact(&mut info).unwrap();
    assert_eq!(info, sample.info);

    for index in 0..torrent.shape.pieces {
        let length = torrent.shape.piece_length_of(index).unwrap();
        let offset = u64::from(index) * u64::from(torrent.shape.piece_length);
        let mut piece = Vec::new();
        for extent in torrent.layout.extents(offset, length.into()) {
            let start = piece.len();
            piece.resize(start + usize::try_from(extent.length).unwrap(), 0);
            if let ExtentSource::File(index) = extent.source {
                let file = torrent.file(index).unwrap();
                let mut file =
                    content::open(&torrent.content, &torrent.root, file.path, file.length).unwrap();
                file.seek(SeekFrom::Start(extent.offset)).unwrap();
                file.read_exact(&mut piece[start..]).unwrap();
            }
        }
        assert!(piece == sample.block(index, 0, length), "piece {index}");
    }
}

/// The torrent as it is loaded, with its content below another directory or beside it.
fn loaded(sample: &Sample, content: &ContentDirectories) -> Torrent {
    let info_hash = InfoHash(sample.info_hash);
    let torrent = Torrent::load(TorrentId(0), &sample.metainfo_path, content, info_hash);
    torrent.unwrap().unwrap()
}

fn assert_read_as_made(builder: &TorrentBuilder) {
    let directory = tempfile::tempdir().unwrap();
    let sample = builder.write(directory.path()).unwrap();
    let torrent = loaded(&sample, &ContentDirectories::default());
    assert_served(&torrent, &sample);
    assert_eq!(torrent.files().count(), sample.files.len());
    for (file, made) in torrent.files().zip(&sample.files) {
        assert_eq!((file.length, file.padding), (made.length, made.padding));
    }
}

fn many_files() -> TorrentBuilder {
    TorrentBuilder::new(2)
        .file("z/first", 1)
        .file("z/deep/er/and/deeper", 50_001)
        .file("empty", 0)
        .file("a b", 16_384)
        .file("also empty", 0)
        .file("tail", 7)
}

#[test]
fn single_file_torrents_load() {
    for length in [1, 16_383, 16_384, 16_385, 40_000, 65_536] {
        assert_read_as_made(&TorrentBuilder::new(length).length(length));
    }
}

#[test]
fn torrents_with_unusual_piece_lengths_load() {
    for piece_length in [1000, 1 << 14, 12_345, 1 << 20, 64 << 20] {
        assert_read_as_made(&many_files().piece_length(piece_length));
    }
}

#[test]
fn torrents_with_padding_files_load() {
    let pad = |length| {
        many_files()
            .padding(length)
            .file("b", 100)
            .legacy_padding(5)
            .file("c", 9)
    };
    assert_read_as_made(&pad(0));
    assert_read_as_made(&pad(20_000));
    assert_read_as_made(&many_files().aligned());
    assert_read_as_made(&many_files().aligned().hybrid());
}

#[test]
fn torrents_with_unusual_names_load() {
    assert_read_as_made(&many_files().name("naïve 猫").file("ä/ö.ü", 12));
    assert_read_as_made(&many_files().name(b"\xc4\xe3").file(b"\xff/\xfe", 12));
    let both = many_files().name(b"\xc4\xe3").name_utf8("你");
    assert_read_as_made(&both.file_utf8(b"\xba\xc3", "好", 12));
}

#[test]
fn private_unsorted_and_newline_terminated_torrents_load() {
    let builder = many_files().private().unsorted().trailing(b"\n");
    let builder = builder
        .announce(&["http://a/x", "http://b/x"])
        .announce(&["udp://c"]);
    assert_read_as_made(&builder);
    let directory = tempfile::tempdir().unwrap();
    let sample = builder.write(directory.path()).unwrap();
    let torrent = loaded(&sample, &ContentDirectories::default());
    assert!(torrent.shape.private);
    let metainfo = Metainfo::parse(&sample.metainfo).unwrap();
    assert_eq!(
        metainfo.announce,
        [vec!["http://a/x", "http://b/x"], vec!["udp://c"]]
    );
    assert!(
        sample.info.starts_with(b"d7:private"),
        "the sample is not unsorted"
    );
}

#[test]
fn content_is_found_below_a_content_directory() {
    let (torrents, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sample = many_files()
        .write_apart(torrents.path(), root.path())
        .unwrap();
    assert_served(
        &loaded(&sample, &ContentDirectories::below(root.path())),
        &sample,
    );
}

#[test]
fn equal_seeds_make_equal_samples() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (
        many_files().write(one.path()).unwrap(),
        many_files().write(two.path()).unwrap(),
    );
    assert_eq!(first.metainfo, second.metainfo);
    assert_eq!(
        fs::read(&first.files[1].path).unwrap(),
        fs::read(&second.files[1].path).unwrap()
    );
    let other = TorrentBuilder::new(3).write(one.path()).unwrap();
    assert_ne!(other.block(0, 0, 64), first.block(0, 0, 64));
}
