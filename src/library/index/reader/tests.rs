//! What was written is read, and what is damaged is refused.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use tempfile::TempDir;

use super::{Entry, Fault, Index, MetainfoPath, ObfuscatedHash, SectionReader};
use crate::library::index::format::{
    ContentName, Facts, Part, RecordNo, Section, State, TrackerListNo,
};
use crate::library::index::writer::{NewRecord, Origin, Writer};
use crate::torrent::reader::FileStamp;
use crate::wire::message::InfoHash;

/// A directory, and the path of an index in it.
fn scratch() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("index");
    (directory, target)
}

fn entries(index: &Index) -> Vec<Entry> {
    index.entries().map(Result::unwrap).collect()
}

fn lookup(index: &Index, info_hash: InfoHash) -> Option<Entry> {
    index.entry(index.find(&info_hash)?, &info_hash).unwrap()
}

fn hash(number: u64) -> InfoHash {
    let mut random = fastrand::Rng::with_seed(number);
    InfoHash(std::array::from_fn(|_| random.u8(..)))
}

/// An index of `count` made-up records, a hundred in each directory.
fn made_up(target: &Path, count: u32) {
    made_up_of(target, count, |number| hash(number.into()));
}

/// The same with other info-hashes.
fn made_up_of(target: &Path, count: u32, hash: impl Fn(u32) -> InfoHash) {
    let mut writer = Writer::create(target).unwrap();
    for number in 0..count {
        let trackers = writer
            .trackers(&[vec![format!("http://{}/", number % 3)]])
            .unwrap();
        let directory = format!("d/{:06}", number / 100);
        let name = format!("{number:09}.torrent");
        let record = NewRecord {
            facts: Facts {
                info_hash: hash(number),
                state: State::Served,
                private: false,
                content_name: ContentName {
                    tag: 5,
                    hash: !number,
                },
                stamp: FileStamp {
                    length: number,
                    modified_ns: -i64::from(number),
                },
            },
            directory: Path::new(&directory),
            name: name.as_bytes(),
            trackers,
        };
        assert_eq!(writer.record(&record).unwrap(), RecordNo(number));
    }
    let origin = Origin {
        root: "/srv".into(),
        content: vec!["content".into(), "/other".into(), "=rest".into()],
        searched: vec!["d".into()],
    };
    let written = writer.finish(&origin, 0).unwrap();
    let different: BTreeSet<[u8; 20]> = (0..count).map(|number| hash(number).0).collect();
    assert_eq!(written.torrents as usize, different.len());
    assert_eq!(written.bytes, fs::metadata(target).unwrap().len());
}

#[test]
fn every_record_is_read_as_it_was_written() {
    let (_directory, target) = scratch();
    for count in [0, 1, 100, 3000] {
        made_up(&target, count);
        let index = Index::open(&target).unwrap();
        index.check().unwrap();
        assert_eq!((index.torrents(), index.records()), (count.into(), count));
        assert_eq!(index.origin().root, Path::new("/srv"));
        let content = ["content", "/other", "=rest"].map(PathBuf::from);
        assert_eq!(index.origin().content, content);
        let roots = ["/srv/content", "/other"].map(PathBuf::from);
        assert_eq!(index.origin().content_roots(), roots);
        assert_eq!(index.origin().searched, [Path::new("d")]);
        let all = entries(&index);
        assert_eq!(all.len(), count as usize);
        for (number, entry) in (0..).zip(all) {
            let expected = Entry {
                facts: Facts {
                    info_hash: hash(number.into()),
                    state: State::Served,
                    private: false,
                    content_name: ContentName {
                        tag: 5,
                        hash: !number,
                    },
                    stamp: FileStamp {
                        length: number,
                        modified_ns: -i64::from(number),
                    },
                },
                record: RecordNo(number),
                path: MetainfoPath {
                    directory: format!("/srv/d/{:06}", number / 100).into(),
                    name: format!("{number:09}.torrent").into(),
                },
                duplicate: false,
                trackers: TrackerListNo(number % 3),
            };
            assert_eq!(entry, expected);
            assert_eq!(lookup(&index, expected.facts.info_hash), Some(entry));
            let trackers = index.trackers(expected.trackers).unwrap();
            assert_eq!(trackers, [[format!("http://{}/", number % 3)]]);
        }
        for number in 0..1000 {
            assert_eq!(index.find(&hash((1 << 32) + number)), None);
        }
        assert!(index.trackers(TrackerListNo(3)).is_err());
        assert!(index.record(RecordNo(count)).is_err());
    }
}

#[test]
fn info_hashes_with_one_prefix_are_distinguished() {
    let (_directory, target) = scratch();
    let mut writer = Writer::create(&target).unwrap();
    let mut alike = |last: u8, name: &str| {
        let mut info_hash = InfoHash([7; 20]);
        info_hash.0[19] = last;
        let record = NewRecord {
            facts: Facts {
                info_hash,
                state: State::Served,
                private: false,
                content_name: ContentName { tag: 0, hash: 0 },
                stamp: FileStamp::default(),
            },
            directory: Path::new(""),
            name: name.as_bytes(),
            trackers: TrackerListNo(0),
        };
        writer.record(&record).unwrap();
        info_hash
    };
    let (one, two) = (alike(1, "a"), alike(2, "b"));
    alike(1, "c");
    alike(2, "d");
    let three = alike(3, "e");
    let written = writer.finish(&Origin::default(), 0).unwrap();
    assert_eq!(
        written.duplicates,
        [(2, 0), (3, 1)].map(|(later, first)| (RecordNo(later), RecordNo(first)))
    );
    let index = Index::open(&target).unwrap();
    assert_eq!((index.torrents(), index.records()), (3, 5));
    for (info_hash, name) in [(one, "a"), (two, "b"), (three, "e")] {
        assert_eq!(lookup(&index, info_hash).unwrap().path.name, name);
    }
    // The same first eight bytes are not enough.
    assert_eq!(lookup(&index, InfoHash([7; 20])), None);
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused() {
    let (_directory, target) = scratch();
    made_up(&target, 50);
    let whole = fs::read(&target).unwrap();
    for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        fs::write(&target, &whole[..length]).unwrap();
        let error = Index::open(&target).unwrap_err();
        let line = error.to_string();
        match error.fault {
            Fault::NotAnIndex => assert!(length < 8),
            Fault::Truncated { expected, found } => {
                assert_eq!(found, length as u64);
                assert!(expected == 4096 || expected == whole.len() as u64);
            }
            fault => panic!("{fault}"),
        }
        assert!(line.starts_with(&format!("index {}: ", &target.display())));
        assert!(!line.contains('\n'));
    }
}

#[test]
fn every_damaged_byte_is_an_error_and_no_path_leaves_the_root() {
    let (_directory, target) = scratch();
    made_up(&target, 12);
    let whole = fs::read(&target).unwrap();
    let used = 8 + 4 + 14 * 36 + 20;
    let origin = Index::open(&target).unwrap().header().section(Part::Origin);
    let origin = origin.offset..origin.offset + origin.length;
    let file = File::options().write(true).open(&target).unwrap();
    for at in (0..used).chain(4096..whole.len()) {
        for change in [1, 0x80] {
            file.write_all_at(&[whole[at] ^ change], at as u64).unwrap();
            match Index::open(&target) {
                // Nothing else keeps it from being served, and the error says which it is.
                Err(error) if at < used => match error.fault {
                    Fault::NotAnIndex | Fault::Version(..) => assert!(at < 12, "{error}"),
                    fault => assert!(matches!(fault, Fault::Damaged("header")), "{fault}"),
                },
                Err(error) => {
                    assert!(origin.contains(&(at as u64)), "{at}: {error}");
                    assert!(matches!(error.fault, Fault::Damaged("origin")), "{error}");
                }
                Ok(index) => {
                    let error = index.check().unwrap_err();
                    assert!(matches!(error.fault, Fault::Damaged(_)), "{error}");
                    // Whatever is read stays in the file and below the root.
                    for entry in index.entries().flatten() {
                        assert!(entry.path.directory.starts_with("/srv"));
                        assert!(!entry.path.name.as_bytes().contains(&b'/'));
                        let _ = index.trackers(entry.trackers);
                    }
                    for number in 0..12 {
                        let info_hash = hash(number);
                        if let Some(candidates) = index.find(&info_hash) {
                            let _ = index.entry(candidates, &info_hash);
                        }
                    }
                    let index = index.with_obfuscated();
                    for number in 0..12 {
                        let hash = ObfuscatedHash::new(&hash(number));
                        if let Some(candidates) = index.find_obfuscated(&hash) {
                            let _ = index.info_hash_of(candidates, &hash);
                        }
                    }
                }
            }
        }
        file.write_all_at(&[whole[at]], at as u64).unwrap();
    }
    Index::open(&target).unwrap().check().unwrap();
}

fn unmasked(index: &Index, info_hash: InfoHash) -> Option<InfoHash> {
    let hash = ObfuscatedHash::new(&info_hash);
    index
        .info_hash_of(index.find_obfuscated(&hash)?, &hash)
        .unwrap()
}

#[test]
fn torrents_are_found_by_their_obfuscated_hashes_if_these_are_read() {
    let (_directory, target) = scratch();
    for count in [0, 1, 12, 3000] {
        // The last tenth are copies.
        let different = (count * 9_u32).div_ceil(10);
        made_up_of(&target, count, |number| hash((number % different).into()));
        let index = Index::open(&target).unwrap();
        assert_eq!(unmasked(&index, hash(0)), None);
        let index = index.with_obfuscated();
        for number in 0..different {
            let info_hash = hash(number.into());
            assert_eq!(unmasked(&index, info_hash), Some(info_hash));
        }
        for number in 0..1000 {
            assert_eq!(unmasked(&index, hash((1 << 32) + number)), None);
        }
    }
}

#[test]
fn without_its_obfuscated_hashes_an_index_has_everything_else() {
    let (_directory, target) = scratch();
    made_up(&target, 12);
    let section = Index::open(&target)
        .unwrap()
        .header()
        .section(Part::Obfuscated);
    let file = File::options().write(true).open(&target).unwrap();
    file.write_all_at(&[0x55; 5], section.offset + 7).unwrap();
    let index = Index::open(&target).unwrap().with_obfuscated();
    for number in 0..12 {
        assert_eq!(unmasked(&index, hash(number)), None);
        assert!(lookup(&index, hash(number)).is_some());
    }
    let error = index.check().unwrap_err();
    assert!(matches!(error.fault, Fault::Damaged("obfuscated hashes")));
}

/// The suffixes are for a walk over all info-hashes: with the prefixes they are these.
#[test]
fn the_info_hashes_are_stored_in_their_order() {
    let (_directory, target) = scratch();
    made_up(&target, 300);
    let index = Index::open(&target).unwrap();
    let mut wanted: Vec<InfoHash> = (0..300).map(hash).collect();
    wanted.sort_unstable();
    for (position, info_hash) in (0..).zip(wanted) {
        let prefix = index.fixed::<8>(Part::Prefixes, position).unwrap();
        let suffix = index.fixed::<12>(Part::Suffixes, position).unwrap();
        let [prefix, suffix] = [&u64::from_le_bytes(prefix).to_be_bytes()[..], &suffix];
        assert_eq!([prefix, suffix].concat(), info_hash.0);
        let record = index.record_at(usize::try_from(position).unwrap()).unwrap();
        assert_eq!(index.record(record).unwrap().facts.info_hash, info_hash);
    }
}

#[test]
fn tables_that_are_damaged_are_made_again_from_the_records() {
    let (_directory, target) = scratch();
    // Two of them twice.
    made_up_of(&target, 14, |number| hash((number % 12).into()));
    let whole = Index::open(&target).unwrap();
    assert_eq!(whole.duplicates.len(), 2);
    for part in [Part::Prefixes, Part::Counts, Part::Duplicates] {
        let section = whole.header().section(part);
        let file = File::options().read(true).write(true).open(&target);
        let file = file.unwrap();
        for at in section.offset..section.offset + section.length {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
            let index = Index::open(&target).unwrap();
            for number in 0..12 {
                let found = |index: &Index| index.find(&hash(number));
                assert_eq!(found(&index), found(&whole));
            }
            assert_eq!(index.counts().served, whole.counts().served);
            assert_eq!(index.duplicates, whole.duplicates);
            assert!(index.check().is_err());
            file.write_all_at(&byte, at).unwrap();
        }
    }
}

#[test]
fn other_files_and_other_versions_are_refused_by_name() {
    let (_directory, target) = scratch();
    let line = || Index::open(&target).unwrap_err().fault.to_string();
    assert!(line().starts_with("unreadable: "));
    fs::write(&target, [b'x'; 5000]).unwrap();
    assert_eq!(line(), "not an index file of hekate");
    made_up(&target, 1);
    let file = File::options().write(true).open(&target).unwrap();
    file.write_all_at(&[9], 8).unwrap();
    assert_eq!(
        line(),
        "has format 9, this version reads format 4: make it again with `hekate index`"
    );
}

/// An index as the version before wrote it, without its padding.
const VERSION_BEFORE: &[u8] = include_bytes!("../../../../fuzz/corpus/index/version_3");

#[test]
fn an_index_of_the_version_before_is_read_and_says_less() {
    let (_directory, target) = scratch();
    let (header, body) = VERSION_BEFORE.split_at(408);
    let mut file = [header, &Sha1::digest(header)].concat();
    file.resize(4096, 0);
    file.extend_from_slice(body);
    fs::write(&target, &file).unwrap();
    let index = Index::open(&target).unwrap().with_obfuscated();
    index.check().unwrap();
    assert!(index.is_old());
    assert_eq!((index.torrents(), index.records()), (5, 5));
    let root = Path::new("/srv/example/library-01");
    for entry in entries(&index) {
        assert!(entry.facts.private, "nothing is known");
        assert_eq!(entry.path.directory, root);
        assert!(lookup(&index, entry.facts.info_hash).is_some());
        assert_eq!(unmasked(&index, entry.facts.info_hash), None);
    }
    for at in 0..428 {
        file[at] ^= 1;
        fs::write(&target, &file).unwrap();
        Index::open(&target).unwrap_err();
        file[at] ^= 1;
    }
}

#[test]
fn the_old_index_stays_until_the_new_one_is_whole() {
    let (directory, target) = scratch();
    made_up(&target, 5);
    let mut writer = Writer::create(&target).unwrap();
    let busy = Writer::create(&target).map(drop).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::WouldBlock);
    writer.trackers(&[]).unwrap();
    assert_eq!(Index::open(&target).unwrap().records(), 5);
    drop(writer);
    assert_eq!(Index::open(&target).unwrap().records(), 5);
    assert!(!directory.path().join("index.new").exists());
    // Nor does it stay where it cannot be put in place.
    let writer = Writer::create(&directory.path().join("taken")).unwrap();
    fs::create_dir(directory.path().join("taken")).unwrap();
    assert!(writer.finish(&Origin::default(), 0).is_err());
    fs::remove_dir(directory.path().join("taken")).unwrap();
    // A link of somebody else is no way to another file.
    fs::write(directory.path().join("victim"), "his").unwrap();
    std::os::unix::fs::symlink("victim", directory.path().join("index.new.scratch")).unwrap();
    made_up(&target, 5);
    assert_eq!(fs::read(directory.path().join("victim")).unwrap(), b"his");
    fs::remove_file(directory.path().join("victim")).unwrap();
    // What is left of a writer that was killed is no hindrance, and does not stay.
    made_up(&target, 6);
    assert_eq!(Index::open(&target).unwrap().records(), 6);
    let names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["index"]);
}

#[test]
fn a_reader_keeps_the_index_that_it_has_opened() {
    let (_directory, target) = scratch();
    made_up(&target, 5);
    let index = Index::open(&target).unwrap();
    made_up(&target, 9);
    index.check().unwrap();
    assert_eq!(entries(&index).len(), 5);
}

#[test]
fn info_hashes_are_read_by_the_batch_whatever_the_gaps() {
    let (_directory, target) = scratch();
    made_up(&target, 20_000);
    let index = Index::open(&target).unwrap();
    let mut random = fastrand::Rng::with_seed(8);
    for step in [1, 2, 50, 79, 80, 81, 3000] {
        let mut records: Vec<u32> = Vec::new();
        let mut next = random.u32(..step);
        while next < 20_500 {
            records.push(next);
            next += random.u32(1..=step);
        }
        let found = index
            .info_hashes(&records.iter().copied().map(RecordNo).collect::<Vec<_>>())
            .unwrap();
        let expected = records
            .iter()
            .map(|record| (*record < 20_000).then(|| hash((*record).into())));
        assert!(found.into_iter().eq(expected), "{step}");
    }
    assert_eq!(index.info_hashes(&[]).unwrap(), []);
    assert_eq!(
        index
            .info_hashes(&[20_000, u32::MAX].map(RecordNo))
            .unwrap(),
        [None, None]
    );
}

#[test]
fn served_yields_each_served_torrent_once() {
    let (_directory, target) = scratch();
    let mut writer = Writer::create(&target).unwrap();
    let trackers = writer.trackers(&[]).unwrap();
    let states = [State::Served, State::Withdrawn, State::Unusable];
    let mut expected = Vec::new();
    for number in 0..700_u32 {
        // The last hundred are copies of the first.
        let of = number % 600;
        let state = states[(of % 3) as usize];
        let name = format!("{number:09}.torrent");
        let record = NewRecord {
            facts: Facts {
                info_hash: hash(of.into()),
                state,
                private: false,
                content_name: ContentName { tag: 0, hash: 1 },
                stamp: FileStamp {
                    length: 1,
                    modified_ns: 1,
                },
            },
            directory: Path::new("d"),
            name: name.as_bytes(),
            trackers,
        };
        writer.record(&record).unwrap();
        if state == State::Served && number < 600 {
            expected.push((number, hash(of.into())));
        }
    }
    writer.finish(&Origin::default(), 0).unwrap();
    let index = Index::open(&target).unwrap();
    let served = index.served().map(Result::unwrap);
    let served: Vec<_> = served
        .map(|served| (served.record.0, served.info_hash))
        .collect();
    assert_eq!(served, expected);
}

fn reader(file: &File, section: Section, ahead_bytes: usize) -> SectionReader<'_> {
    SectionReader {
        file,
        path: Path::new("index"),
        part: Part::Names,
        section,
        ahead_bytes,
        start: 0,
        bytes: Vec::new(),
    }
}

#[test]
fn every_range_of_the_section_is_read_and_nothing_beyond() {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..200).collect();
    file.write_all(&bytes).unwrap();
    let section = Section {
        offset: 20,
        length: 150,
        ..Section::default()
    };
    for ahead in [0, 7, 1000] {
        let mut reader = reader(&file, section, ahead);
        for (offset, length) in [(0, 10), (5, 10), (149, 1), (150, 0), (3, 147), (0, 1)] {
            let expected = &bytes[20 + offset..20 + offset + length];
            let found = reader.at(offset as u64, length as u64).unwrap();
            assert_eq!(found, expected);
        }
        for (offset, length) in [(150, 1), (0, 151), (u64::MAX, 1), (1, u64::MAX)] {
            let error = reader.read(offset, length).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let error = reader.at(offset, length).unwrap_err();
            assert!(matches!(error.fault, Fault::Damaged("names")), "{error}");
        }
    }
}

#[test]
fn a_file_that_was_cut_short_is_an_error() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(10).unwrap();
    let section = Section {
        offset: 0,
        length: 20,
        ..Section::default()
    };
    let mut reader = reader(&file, section, 4);
    assert_eq!(reader.at(0, 8).unwrap(), [0; 8]);
    let error = reader.read(5, 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(reader.at(0, 2).unwrap(), [0; 2]);
}
