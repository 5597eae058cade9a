//! What is asked for is loaded, and what is not is no work.

use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::library::catalogue::listing::Listed;
use crate::library::scan::build::{self, Plan, Progress};
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::metainfo::Metainfo;
use crate::torrent::metainfo::samples::{multi, single};
use crate::workers::FAILED_RETRY_MS;

const NOW: Time = Time(1_000_000);

/// Torrents of one file each, that differ in their length, every one in a directory of its own.
struct NumberedTorrents {
    directory: TempDir,
    hashes: Vec<InfoHash>,
}

impl NumberedTorrents {
    fn new(torrents: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut hashes = Vec::new();
        for number in 0..torrents {
            let path = directory.path().join(format!("{number:06}"));
            fs::create_dir(&path).unwrap();
            let raw = single(number + 1, "");
            hashes.push(Metainfo::parse(raw.as_bytes()).unwrap().info_hash);
            fs::write(path.join("t.torrent"), raw).unwrap();
            fs::write(path.join("n"), vec![b'x'; hashes.len()]).unwrap();
        }
        NumberedTorrents { directory, hashes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn library(&self) -> Library {
        let plan = Plan {
            inputs: vec![self.directory.path().to_path_buf()],
            content: ContentDirectories::default(),
            target: self.path("index"),
            threads: 1,
        };
        build::build(&plan, &Progress::default(), |_| ()).unwrap();
        Library::of_index(
            Index::open(&plan.target).unwrap(),
            &ContentDirectories::default(),
        )
    }
}

fn query(answer: Answer) -> Query {
    match answer {
        Answer::Known(query) => query,
        other => panic!("{other:?}"),
    }
}

/// What a load comes to.
fn read(query: Query) -> Result<Option<Arc<Torrent>>, LoadError> {
    let located = query.locate()?;
    located.map(|located| located.read()?.check()).transpose()
}

/// Loads a torrent as the loop and a reader do it together.
fn load(library: &mut Library, info_hash: &InfoHash) -> Arc<Torrent> {
    let loaded = read(query(library.find(info_hash, NOW)));
    match library.finish_load(*info_hash, loaded, NOW) {
        Loaded::Torrent(torrent) => torrent,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_torrent_is_loaded_once_and_an_unknown_one_is_no_work() {
    let torrents = NumberedTorrents::new(20);
    let mut library = torrents.library();
    // Nothing of what follows needs the file.
    let mut other = torrents.hashes[7];
    other.0[0] ^= 1;
    assert!(matches!(library.find(&other, NOW), Answer::Unknown));
    let first = load(&mut library, &torrents.hashes[7]);
    assert_eq!(first.shape.total_length, 8);
    match library.find(&torrents.hashes[7], NOW) {
        Answer::Loaded(again) => assert!(Arc::ptr_eq(&again, &first)),
        other => panic!("{other:?}"),
    }
    assert_ne!(load(&mut library, &torrents.hashes[8]).id, first.id);
}

#[test]
fn the_same_beginning_is_not_enough() {
    let torrents = NumberedTorrents::new(2);
    let mut library = torrents.library();
    let mut other = torrents.hashes[1];
    other.0[19] ^= 1;
    let nothing = read(query(library.find(&other, NOW))).unwrap();
    assert!(nothing.is_none());
    library.finish_load(other, Ok(None), NOW);
    assert!(matches!(library.find(&other, NOW), Answer::Unknown));
    load(&mut library, &torrents.hashes[1]);
}

#[test]
fn what_is_not_as_it_was_is_refused_and_tried_again_later() {
    let torrents = NumberedTorrents::new(4);
    let mut library = torrents.library();
    fs::copy(
        torrents.path("000001/t.torrent"),
        torrents.path("000000/t.torrent"),
    )
    .unwrap();
    fs::write(torrents.path("000002/n"), "longer than it was").unwrap();
    fs::remove_file(torrents.path("000003/t.torrent")).unwrap();
    let mut fail = |number: usize| {
        let found = library.find(&torrents.hashes[number], NOW);
        read(query(found)).unwrap_err()
    };
    let replaced = fail(0);
    assert!(matches!(replaced, LoadError::Replaced(_)), "{replaced}");
    let (content, gone) = (fail(2), fail(3));
    assert!(content.is_of_content() && !gone.is_of_content() && !replaced.is_of_content());

    library.finish_load(torrents.hashes[2], Ok(None), NOW);
    let just_before = NOW.after(FAILED_RETRY_MS - 1);
    let found = library.find(&torrents.hashes[2], just_before);
    assert!(matches!(found, Answer::Unknown));
    fs::write(torrents.path("000002/n"), "abc").unwrap();
    let found = library.find(&torrents.hashes[2], NOW.after(FAILED_RETRY_MS));
    assert!(read(query(found)).unwrap().is_some());
}

#[test]
fn what_is_added_is_asked_for_again_whatever_came_of_it_before() {
    let torrents = NumberedTorrents::new(2);
    let mut library = torrents.library();
    let hashes = &torrents.hashes;
    let metainfo: Arc<Path> = torrents.path("000000/t.torrent").into();
    library.find(&hashes[0], NOW);
    let loaded = library.finish_load(hashes[0], Ok(None), NOW);
    assert!(matches!(loaded, Loaded::Gone));
    assert!(matches!(library.find(&hashes[0], NOW), Answer::Unknown));
    library.add(hashes[0], TorrentId(7), Some(metainfo));
    assert_eq!(load(&mut library, &hashes[0]).id, TorrentId(7));

    // An index that says so is no different.
    library.find(&hashes[1], NOW);
    let loaded = library.finish_load(hashes[1], Ok(None), NOW);
    assert!(matches!(loaded, Loaded::Gone));
    assert!(matches!(library.find(&hashes[1], NOW), Answer::Unknown));
    library.add(hashes[1], TorrentId(1), None);
    load(&mut library, &hashes[1]);
}

#[test]
fn what_nobody_uses_is_forgotten_and_what_somebody_does_is_not() {
    let torrents = NumberedTorrents::new(1);
    let mut library = torrents.library();
    let torrent = load(&mut library, &torrents.hashes[0]);
    let hash = |number: usize| {
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0[..8].copy_from_slice(&number.to_be_bytes());
        info_hash
    };
    let unused = |number| query_copy(&torrents, number);
    for number in 0..2 * LOADED_MAX {
        library.finish_load(hash(number), Ok(Some(unused(0))), NOW);
    }
    assert_eq!(library.loaded.len(), LOADED_MAX);
    match library.find(&torrents.hashes[0], NOW) {
        Answer::Loaded(kept) => assert!(Arc::ptr_eq(&kept, &torrent)),
        other => panic!("{other:?}"),
    }
    drop(torrent);
    for number in 0..2 * LOADED_MAX {
        library.finish_load(hash(usize::MAX - number), Ok(Some(unused(0))), NOW);
    }
    query(library.find(&torrents.hashes[0], NOW));
}

#[test]
fn what_nobody_uses_is_forgotten_when_it_takes_too_much_memory() {
    let torrents = NumberedTorrents::new(3);
    let mut library = torrents.library();
    let [used, unused, new] = [0, 1, 2].map(|number| torrents.hashes[number]);
    let _held = load(&mut library, &used);
    load(&mut library, &unused);
    // As if these had millions of files.
    library.loaded_bytes = LOADED_BYTES_MAX;
    load(&mut library, &new);
    let is_loaded = |hash| library.loaded.peek(&hash).is_some();
    assert!(is_loaded(used) && !is_loaded(unused) && is_loaded(new));
}

#[test]
fn large_torrents_are_refused_while_those_in_use_take_too_much_memory() {
    let torrents = NumberedTorrents::new(2);
    let mut library = torrents.library();
    let directory = tempfile::tempdir().unwrap();
    let files: String = (0..6_000)
        .map(|number| format!("d6:lengthi1e4:pathl4:{number:04}ee"))
        .collect();
    let raw = multi(1, &files, "");
    let path = directory.path().join("l.torrent");
    fs::write(&path, &raw).unwrap();
    let info_hash = Metainfo::parse(raw.as_bytes()).unwrap().info_hash;
    fs::create_dir(directory.path().join("m")).unwrap();
    for number in 0..6_000 {
        fs::write(directory.path().join(format!("m/{number:04}")), "x").unwrap();
    }
    let large = Torrent::load(
        TorrentId(7),
        &path,
        &ContentDirectories::default(),
        info_hash,
    )
    .unwrap();
    let large = Arc::new(large.unwrap());
    assert!(large.memory_bytes() > SMALL_BYTES);
    let held = load(&mut library, &torrents.hashes[0]);
    // As if it had millions of files.
    library.loaded_bytes = IN_USE_BYTES_MAX;
    let outcome = library.finish_load(info_hash, Ok(Some(Arc::clone(&large))), NOW);
    assert!(matches!(outcome, Loaded::NoMemory), "{outcome:?}");
    load(&mut library, &torrents.hashes[1]);
    library.loaded_bytes = 0;
    drop(held);
    let outcome = library.finish_load(info_hash, Ok(Some(large)), NOW);
    assert!(matches!(outcome, Loaded::Torrent(_)), "{outcome:?}");
}

/// A torrent that nobody else holds.
fn query_copy(torrents: &NumberedTorrents, number: usize) -> Arc<Torrent> {
    let path = torrents.path(&format!("{number:06}/t.torrent"));
    let loaded = Torrent::load(
        TorrentId(0),
        &path,
        &ContentDirectories::default(),
        torrents.hashes[number],
    );
    Arc::new(loaded.unwrap().unwrap())
}

#[test]
fn content_lies_where_the_index_says_or_where_one_is_told() {
    let torrents = NumberedTorrents::new(1);
    let elsewhere = torrents.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(torrents.path("000000/n"), elsewhere.join("n")).unwrap();
    let plan = Plan {
        inputs: vec![torrents.path("000000")],
        content: ContentDirectories::below(elsewhere.clone()),
        target: torrents.path("index"),
        threads: 1,
    };
    build::build(&plan, &Progress::default(), |_| ()).unwrap();
    let mut library = Library::of_index(
        Index::open(&plan.target).unwrap(),
        &ContentDirectories::default(),
    );
    let torrent = load(&mut library, &torrents.hashes[0]);
    assert_eq!(*torrent.root, *elsewhere.canonicalize().unwrap());

    let moved = torrents.path("moved");
    fs::rename(&elsewhere, &moved).unwrap();
    let index = Index::open(&plan.target).unwrap();
    let mut library = Library::of_index(index, &ContentDirectories::below(moved.clone()));
    let torrent = load(&mut library, &torrents.hashes[0]);
    assert_eq!(*torrent.root, *moved.canonicalize().unwrap());
}

/// All pages, one after the other.
fn pages(library: &Library, limit: usize) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = library.list(after, limit).unwrap().read().unwrap();
        assert!(page.torrents.len() <= limit);
        listed.extend(page.torrents);
        after = page.next;
        if after.is_none() {
            return listed;
        }
    }
}

/// The torrent of an obfuscated hash, and whether the index had to be read for it.
fn find_obfuscated(library: &mut Library, hash: &ObfuscatedHash) -> (Option<InfoHash>, bool) {
    match library.find_obfuscated(hash) {
        ObfuscatedAnswer::Unknown => (None, false),
        ObfuscatedAnswer::Known(info_hash) => (Some(info_hash), false),
        ObfuscatedAnswer::Query(query) => (query.info_hash().unwrap(), true),
    }
}

#[test]
fn torrents_are_found_by_their_obfuscated_hashes() {
    let torrents = NumberedTorrents::new(20);
    let index = |library: Library| {
        let snapshot = library.snapshot.expect("it was replaced");
        Arc::try_unwrap(snapshot.index).unwrap().with_obfuscated()
    };
    let mut library = Library::of_index(index(torrents.library()), &ContentDirectories::default());
    let hashes: Vec<_> = torrents.hashes.iter().map(ObfuscatedHash::new).collect();
    for (info_hash, hash) in torrents.hashes.iter().zip(&hashes) {
        let found = find_obfuscated(&mut library, hash);
        assert_eq!(found, (Some(*info_hash), true));
    }
    let foreign = ObfuscatedHash::new(&InfoHash([9; 20]));
    assert_eq!(find_obfuscated(&mut library, &foreign), (None, false));
    // Bits that the table does not have are compared in the index.
    let mut alike = hashes[7];
    alike.0[19] ^= 1;
    assert_eq!(find_obfuscated(&mut library, &alike), (None, true));
    // What is loaded needs no read.
    load(&mut library, &torrents.hashes[3]);
    let found = find_obfuscated(&mut library, &hashes[3]);
    assert_eq!(found, (Some(torrents.hashes[3]), false));
    // Nor does what has come since, until it goes.
    let (new, id) = (InfoHash([5; 20]), TorrentId(77));
    let hash = ObfuscatedHash::new(&new);
    library.add(new, id, Some(Path::new("/new.torrent").into()));
    assert_eq!(find_obfuscated(&mut library, &hash), (Some(new), false));
    library.remove(new);
    assert_eq!(find_obfuscated(&mut library, &hash), (None, false));
    // Without the table, only what is loaded is known.
    let mut without = torrents.library();
    assert_eq!(find_obfuscated(&mut without, &hashes[3]), (None, false));
}

#[test]
fn all_that_is_served_is_listed_in_the_order_of_info_hashes() {
    let torrents = NumberedTorrents::new(40);
    fs::remove_file(torrents.path("000003/n")).unwrap();
    let mut library = torrents.library();
    let mut wanted: BTreeMap<InfoHash, (u32, PathBuf)> = (0..)
        .zip(&torrents.hashes)
        .map(|(number, hash)| {
            let path = torrents.path(&format!("{number:06}/t.torrent"));
            (*hash, (number, path))
        })
        .collect();
    wanted.remove(&torrents.hashes[3]);
    let check = |library: &Library, wanted: &BTreeMap<InfoHash, (u32, PathBuf)>| {
        for limit in [1, 2, 7, 39, 40, 1000] {
            let listed = pages(library, limit);
            let listed = listed.into_iter();
            let listed: Vec<_> = listed
                .map(|one| (one.info_hash, (one.id.0, one.metainfo)))
                .collect();
            let wanted: Vec<_> = wanted.clone().into_iter().collect();
            assert_eq!(listed, wanted, "{limit} in a page");
        }
    };
    check(&library, &wanted);
    // Some go, some move, some come.
    let mut random = fastrand::Rng::with_seed(5);
    for (number, hash) in (100..).zip(&torrents.hashes) {
        match random.u8(..4) {
            0 => {
                library.remove(*hash);
                wanted.remove(hash);
            }
            1 => {
                library.add(
                    *hash,
                    TorrentId(number),
                    Some(Path::new("/elsewhere").into()),
                );
                wanted.insert(*hash, (number, PathBuf::from("/elsewhere")));
            }
            2 => {
                let new = InfoHash(std::array::from_fn(|_| random.u8(..)));
                library.add(new, TorrentId(100 + number), Some(Path::new("/new").into()));
                wanted.insert(new, (100 + number, PathBuf::from("/new")));
            }
            _ => {}
        }
    }
    check(&library, &wanted);
    assert!(Library::default().list(None, 10).is_none());
}

#[test]
fn info_hashes_that_begin_alike_are_listed_in_order() {
    let torrents = NumberedTorrents::new(1);
    let mut library = torrents.library();
    let [one, two] = [1, 2].map(|last| {
        let mut hash = torrents.hashes[0];
        hash.0[19] = hash.0[19].wrapping_add(last);
        hash
    });
    for (number, hash) in [(8, two), (9, one)] {
        library.add(hash, TorrentId(number), Some(Path::new("/x").into()));
    }
    let mut wanted = [torrents.hashes[0], one, two];
    wanted.sort_unstable();
    for limit in [1, 2, 3] {
        let listed: Vec<_> = pages(&library, limit)
            .iter()
            .map(|one| one.info_hash)
            .collect();
        assert_eq!(listed, wanted);
    }
}

#[test]
fn what_the_index_says_is_withdrawn_is_read_once_and_then_refused_from_memory() {
    let torrents = NumberedTorrents::new(3);
    let content = torrents.path("000001/n");
    fs::write(&content, "too long by far").unwrap();
    let plan = Plan {
        inputs: vec![torrents.directory.path().to_path_buf()],
        content: ContentDirectories::default(),
        target: torrents.path("index"),
        threads: 1,
    };
    build::build(&plan, &Progress::default(), |_| ()).unwrap();
    let index = || Index::open(&plan.target).unwrap();
    let mut library = Library::of_index(index(), &ContentDirectories::default());
    let (withdrawn, other) = (torrents.hashes[1], torrents.hashes[2]);
    let error = read(query(library.find(&withdrawn, NOW))).unwrap_err();
    assert!(matches!(error, LoadError::Withdrawn(_)), "{error}");
    let loaded = library.finish_load(withdrawn, Err(error), NOW);
    assert!(matches!(loaded, Loaded::Gone));
    let later = NOW.after(10 * FAILED_RETRY_MS);
    assert!(matches!(library.find(&withdrawn, later), Answer::Unknown));
    load(&mut library, &other);
    // It is served again when it is added, and asked for when another index may say so.
    library.add(withdrawn, TorrentId(7), Some(Path::new("/a").into()));
    assert!(matches!(library.find(&withdrawn, later), Answer::Known(_)));
    drop(library.replace(
        Snapshot::new(index()),
        &ContentDirectories::default(),
        Overrides::default(),
    ));
    assert!(matches!(library.find(&withdrawn, later), Answer::Known(_)));
}
