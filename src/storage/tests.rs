//! The whole of storage against real files, by the waker and by deadlines.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Token};
use tempfile::TempDir;

use super::*;
use crate::sys;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::metainfo::Metainfo;

/// No wait of a test takes longer, unless what is tested is broken.
const DEADLINE: Duration = Duration::from_secs(20);
const START: Time = Time(1_000_000);
const LIMITS: StorageLimits = StorageLimits {
    mappings: 100,
    readers: 4,
};

struct Rig {
    poll: Poll,
    storage: Storage,
    torrent: Arc<Torrent>,
    directory: PathBuf,
    _directory: TempDir,
}

/// What the byte at `offset` of a file is.
fn byte(file: u32, offset: u64) -> u8 {
    let mixed = offset * 31 + offset / 256 + u64::from(file) * 77;
    mixed.to_le_bytes()[0]
}

fn bytes(file: u32, range: Range<u64>) -> Vec<u8> {
    range.map(|offset| byte(file, offset)).collect()
}

fn peer(index: u32) -> PeerKey {
    let generation = index + 100;
    PeerKey { index, generation }
}

impl Rig {
    /// A torrent of files with these lengths, the marked ones being padding. They lie beside the
    /// test program, on a real disk.
    fn new(files: &[(u64, bool)], limits: StorageLimits) -> Self {
        let beside = std::env::current_exe().unwrap();
        let temporary = tempfile::tempdir_in(beside.parent().unwrap()).unwrap();
        let directory = temporary.path().canonicalize().unwrap();
        fs::create_dir(directory.join("t")).unwrap();
        let (mut list, mut total) = (String::new(), 0);
        for (&(length, padding), number) in files.iter().zip(0..) {
            let attributes = if padding { "4:attr1:p" } else { "" };
            let name = format!("{number:03}");
            list += &format!("d{attributes}6:lengthi{length}e4:pathl3:{name}ee");
            total += length;
            if !padding {
                fs::write(directory.join("t").join(name), bytes(number, 0..length)).unwrap();
            }
        }
        let hashes = total.div_ceil(16_384) * 20;
        let mut raw =
            format!("d4:infod5:filesl{list}e4:name1:t12:piece lengthi16384e6:pieces{hashes}:")
                .into_bytes();
        raw.extend((0..hashes).map(|offset| byte(0, offset)));
        raw.extend(b"ee");
        fs::write(directory.join("t.torrent"), &raw).unwrap();
        let info_hash = Metainfo::parse(&raw).unwrap().info_hash;
        let path = directory.join("t.torrent");
        let torrent = Torrent::load(
            TorrentId(0),
            &path,
            &ContentDirectories::default(),
            info_hash,
        )
        .unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        Rig {
            poll,
            storage: Storage::new(waker, limits, Disks::read()),
            torrent: Arc::new(torrent.unwrap()),
            directory,
            _directory: temporary,
        }
    }

    fn path(&self, file: u32) -> PathBuf {
        self.directory.join(format!("t/{file:03}"))
    }

    fn key(&self, file: u32) -> FileKey {
        FileKey::new(&self.torrent, file)
    }

    fn lookup(&mut self, file: u32, now: Time) -> Lookup {
        self.storage.lookup(self.key(file), now)
    }

    fn mapped(&mut self, file: u32, now: Time) -> Arc<Content> {
        match self.lookup(file, now) {
            Lookup::Mapped(content) => content,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, index: u32, file: u32, range: Range<u64>) {
        let torrent = Arc::clone(&self.torrent);
        self.storage
            .read(peer(index), &torrent, file, range)
            .unwrap();
    }

    /// Sleeps until a reader has something to tell.
    fn collect(&mut self, now: Time) -> Vec<Completion> {
        let mut events = Events::with_capacity(1);
        self.poll.poll(&mut events, Some(DEADLINE)).unwrap();
        assert!(!events.is_empty(), "woken before the deadline");
        let mut completions = Vec::new();
        self.storage.collect(now, &mut completions);
        completions
    }

    fn complete(&mut self, now: Time) -> Completion {
        let mut completions = self.collect(now);
        assert_eq!(completions.len(), 1, "{completions:?}");
        completions.remove(0)
    }

    /// Reads a range in for one peer.
    fn read(&mut self, file: u32, range: Range<u64>, now: Time) -> Result<Arc<Content>, ReadError> {
        self.ask(1, file, range.clone());
        match self.complete(now) {
            Completion::Read {
                peers,
                key,
                range: read,
                result,
            } => {
                assert_eq!((peers, key, read), (vec![peer(1)], self.key(file), range));
                result
            }
            other => panic!("{other:?}"),
        }
    }

    fn gather(&mut self, offset: u64, length: u32, now: Time) -> Result<Box<[u8]>, ReadError> {
        let torrent = Arc::clone(&self.torrent);
        self.storage
            .gather(peer(2), &torrent, offset, length)
            .unwrap();
        match self.complete(now) {
            Completion::Gathered {
                peer: to,
                offset: at,
                length: of,
                result,
            } => {
                assert_eq!((to, at, of), (peer(2), offset, length));
                result
            }
            other => panic!("{other:?}"),
        }
    }

    fn metadata(&mut self, piece: u32, now: Time) -> Result<Vec<u8>, ReadError> {
        let torrent = Arc::clone(&self.torrent);
        self.storage.metadata(peer(3), &torrent, piece);
        match self.complete(now) {
            Completion::Metadata {
                peer: to,
                piece: at,
                result,
            } => {
                assert_eq!((to, at), (peer(3), piece));
                result
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a socket gets.
fn sent(content: &Content, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    let (near, mut far) = UnixStream::pair()?;
    sys::writev(near.as_fd(), &[content.slice(range)])?;
    drop(near);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_is_mapped_by_its_first_read() {
    let mut rig = Rig::new(&[(50_000, false), (7, false)], LIMITS);
    assert!(matches!(rig.lookup(1, START), Lookup::Absent));
    let content = rig.read(1, 0..7, START).unwrap();
    assert!(Arc::ptr_eq(&content, &rig.mapped(1, START)));
    assert_eq!(content.length(), 7);
    assert_eq!(sent(&content, 2..6).unwrap(), bytes(1, 2..6));
    assert!(matches!(rig.lookup(0, START), Lookup::Absent));
}

#[test]
fn what_is_read_is_resident_and_nothing_else_is() {
    let length = 4 << 20;
    let mut rig = Rig::new(&[(length, false)], LIMITS);
    sys::evict(&File::open(rig.path(0)).unwrap()).unwrap();
    let content = rig.read(0, 0..16_384, START).unwrap();
    assert!(rig.storage.is_resident(&content, 0..16_384));
    let range = 1 << 20..(1 << 20) + 600_000;
    assert!(!rig.storage.is_resident(&content, range.clone()));
    rig.read(0, range.clone(), START).unwrap();
    assert!(rig.storage.is_resident(&content, range));
    assert!(!rig.storage.is_resident(&content, 3 << 20..length));
}

#[test]
fn one_job_for_each_range_however_many_peers_wait() {
    let mut rig = Rig::new(&[(50_000, false), (50_000, false)], LIMITS);
    for index in 0..3 {
        rig.ask(index, 0, 0..16_384);
        rig.ask(index + 10, 0, 16_384..32_768);
        rig.ask(index + 20, 1, 0..16_384);
    }
    let mut completions = Vec::new();
    let mut waiting = 9;
    while waiting > 0 {
        for completion in rig.collect(START) {
            let Completion::Read {
                peers, key, range, ..
            } = completion
            else {
                panic!("{completion:?}");
            };
            waiting -= peers.len();
            completions.push((key.file, range.start, peers));
        }
    }
    completions.sort();
    let peers = |first: u32| (first..first + 3).map(peer).collect::<Vec<_>>();
    let expected = [(0, 0, peers(0)), (0, 16_384, peers(10)), (1, 0, peers(20))];
    assert_eq!(completions, expected);
    // What was asked for once may be asked for again.
    rig.read(0, 0..16_384, START).unwrap();
    assert_eq!(rig.storage.files.len(), 2);
}

#[test]
fn mappings_are_bounded_and_the_longest_unused_goes() {
    let limits = StorageLimits {
        mappings: 2,
        ..LIMITS
    };
    let mut rig = Rig::new(&[(100, false), (100, false), (100, false)], limits);
    let first = rig.read(0, 0..100, START).unwrap();
    let second = rig.read(1, 0..100, START).unwrap();
    rig.mapped(0, START);
    rig.read(2, 0..100, START).unwrap();
    assert!(matches!(rig.lookup(1, START), Lookup::Absent));
    assert!(Arc::ptr_eq(&first, &rig.mapped(0, START)));
    rig.mapped(2, START);
    // A batch under way is not cut off.
    assert_eq!(sent(&second, 0..100).unwrap(), bytes(1, 0..100));
    let unmapped = Arc::downgrade(&second);
    drop(second);
    wait_until("unmapped", || unmapped.strong_count() == 0);
}

#[test]
fn a_vanished_file_fails_is_left_alone_and_heals() {
    let mut rig = Rig::new(&[(100, false)], LIMITS);
    let away = rig.directory.join("away");
    fs::rename(rig.path(0), &away).unwrap();
    let error = rig.read(0, 0..100, START).unwrap_err();
    let below = rig.directory.display();
    let line = format!("content t/000 is missing, below {below}");
    assert_eq!(error.to_string(), line);
    fs::rename(&away, rig.path(0)).unwrap();
    let almost = START.after(FAILED_RETRY_MS - 1);
    assert!(matches!(rig.lookup(0, almost), Lookup::Failed));
    let later = START.after(FAILED_RETRY_MS);
    assert!(matches!(rig.lookup(0, later), Lookup::Absent));
    rig.read(0, 0..100, later).unwrap();
    rig.mapped(0, later);
}

#[test]
fn a_file_truncated_while_mapped_is_an_error() {
    let mut rig = Rig::new(&[(100_000, false)], LIMITS);
    let content = rig.read(0, 0..100_000, START).unwrap();
    let file = File::options().write(true).open(rig.path(0)).unwrap();
    file.set_len(10_000).unwrap();
    let error = sent(&content, 50_000..60_000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    let error = rig.read(0, 50_000..60_000, START).unwrap_err();
    assert!(matches!(&error, ReadError::Truncated(_)), "{error}");
    assert!(error.to_string().contains("t/000"), "{error}");
    assert!(matches!(rig.lookup(0, START), Lookup::Failed));
    let later = START.after(FAILED_RETRY_MS);
    let error = rig.read(0, 50_000..60_000, later).unwrap_err();
    let line = "content t/000 has 10000 bytes, not 100000, below /";
    assert!(error.to_string().starts_with(line), "{error}");
}

#[test]
fn a_replaced_file_is_noticed_without_holding_up() {
    let mut rig = Rig::new(&[(100, false)], LIMITS);
    let old = rig.read(0, 0..100, START).unwrap();
    let other = rig.directory.join("other");
    fs::write(&other, [1; 100]).unwrap();
    fs::rename(other, rig.path(0)).unwrap();
    let later = START.after(REVALIDATE_MS);
    assert!(Arc::ptr_eq(&old, &rig.mapped(0, later)), "not held up");
    assert!(rig.collect(later).is_empty(), "nobody waits for the check");
    assert!(matches!(rig.lookup(0, later), Lookup::Absent));
    let new = rig.read(0, 0..100, later).unwrap();
    assert_eq!(sent(&new, 0..100).unwrap(), [1; 100]);
}

#[test]
fn an_unchanged_file_stays_mapped_and_is_checked_at_times() {
    let mut rig = Rig::new(&[(100, false)], LIMITS);
    let content = rig.read(0, 0..100, START).unwrap();
    let key = rig.key(0);
    rig.mapped(0, START.after(REVALIDATE_MS - 1));
    assert!(!rig.storage.files.is_being_checked(&key), "too soon");
    let later = START.after(REVALIDATE_MS);
    rig.mapped(0, later);
    assert!(rig.storage.files.is_being_checked(&key));
    assert!(rig.collect(later).is_empty());
    assert!(Arc::ptr_eq(&content, &rig.mapped(0, later)));
    assert!(!rig.storage.files.is_being_checked(&key), "just checked");
    // A file that is gone is not served for ever either.
    fs::remove_file(rig.path(0)).unwrap();
    let later = later.after(REVALIDATE_MS);
    rig.mapped(0, later);
    rig.collect(later);
    assert!(matches!(rig.lookup(0, later), Lookup::Absent));
    assert!(rig.read(0, 0..100, later).is_err());
}

#[test]
fn a_file_that_is_written_to_is_opened_again() {
    let mut rig = Rig::new(&[(100, false)], LIMITS);
    let content = rig.read(0, 0..100, START).unwrap();
    let mut file = File::options().append(true).open(rig.path(0)).unwrap();
    file.write_all(b"more").unwrap();
    assert!(!content.is_current());
    file.set_len(100).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(!content.is_current());
}

#[test]
fn an_invalidated_file_is_opened_again() {
    let mut rig = Rig::new(&[(100, false)], LIMITS);
    let old = rig.read(0, 0..100, START).unwrap();
    rig.storage.invalidate(rig.key(0));
    assert!(matches!(rig.lookup(0, START), Lookup::Absent));
    let new = rig.read(0, 0..100, START).unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    // A read that was under way with the forgotten mapping does not bring it back.
    rig.ask(1, 0, 0..100);
    rig.storage.invalidate(rig.key(0));
    rig.complete(START);
    assert!(matches!(rig.lookup(0, START), Lookup::Absent));
}

#[test]
fn a_file_opened_by_two_readers_at_once_is_mapped_once() {
    let mut rig = Rig::new(&[(50_000, false)], LIMITS);
    rig.ask(1, 0, 0..100);
    rig.ask(1, 0, 100..200);
    let mut completions = Vec::new();
    while completions.len() < 2 {
        completions.append(&mut rig.collect(START));
    }
    let contents: Vec<_> = completions
        .into_iter()
        .map(|completion| match completion {
            Completion::Read { result, .. } => result.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(!Arc::ptr_eq(&contents[0], &contents[1]));
    assert!(Arc::ptr_eq(&contents[0], &rig.mapped(0, START)));
}

#[test]
fn ranges_and_files_that_do_not_exist_are_errors() {
    let mut rig = Rig::new(&[(100, false)], LIMITS);
    for (offset, length) in [(50, 51), (100, 1), (u64::MAX, 1)] {
        let error = rig.gather(offset, length, START).unwrap_err();
        assert!(matches!(error, ReadError::NoSuchRange), "{error}");
    }
    for (file, range) in [(0, 0..101), (0, u64::MAX - 1..u64::MAX), (1, 0..1)] {
        let error = rig.read(file, range, START).unwrap_err();
        assert!(matches!(error, ReadError::NoSuchRange), "{error}");
    }
}

#[test]
fn a_block_over_many_files_is_copied_together() {
    // Padding, an empty file, and padding that would be on disk if it were content.
    let files = [
        (10, false),
        (6, true),
        (0, false),
        (3, false),
        (13, true),
        (20, false),
    ];
    let mut rig = Rig::new(&files, LIMITS);
    let whole = [
        bytes(0, 0..10),
        vec![0; 6],
        bytes(3, 0..3),
        vec![0; 13],
        bytes(5, 0..20),
    ]
    .concat();
    for (start, end) in [(0, 52), (5, 40), (17, 18), (12, 16)] {
        let block = rig.gather(u64::from(start), end - start, START).unwrap();
        assert_eq!(*block, whole[start as usize..end as usize]);
    }
    assert_eq!(rig.storage.files.len(), 0, "nothing is mapped for it");
}

#[test]
fn a_block_over_a_failed_file_names_it_is_left_alone_and_heals() {
    let mut rig = Rig::new(&[(10, false), (10, false), (10, false)], LIMITS);
    fs::write(rig.path(1), b"short").unwrap();
    let error = rig.gather(0, 30, START).unwrap_err();
    let line = "content t/001 has 5 bytes, not 10, below /";
    assert!(error.to_string().starts_with(line), "{error}");
    let error = rig.gather(15, 10, START).unwrap_err();
    assert!(matches!(error, ReadError::FailedBefore), "{error}");
    assert_eq!(*rig.gather(0, 10, START).unwrap(), bytes(0, 0..10));
    fs::write(rig.path(1), bytes(1, 0..10)).unwrap();
    // The refusal itself brings the later time.
    let later = START.after(FAILED_RETRY_MS);
    assert!(rig.gather(15, 10, later).is_err());
    let block = rig.gather(10, 10, later).unwrap();
    assert_eq!(*block, bytes(1, 0..10));
}

#[test]
fn the_info_dictionary_is_read_in_pieces() {
    let mut rig = Rig::new(&[(20_000_000, false)], LIMITS);
    let raw = fs::read(rig.directory.join("t.torrent")).unwrap();
    let info = &raw[usize::try_from(rig.torrent.info_offset).unwrap()..raw.len() - 1];
    assert_eq!(info.len(), rig.torrent.shape.metadata_length as usize);
    assert_eq!(info.len().div_ceil(16_384), 2);
    assert_eq!(rig.metadata(0, START).unwrap(), info[..16_384]);
    assert_eq!(rig.metadata(1, START).unwrap(), info[16_384..]);
    for piece in [2, u32::MAX] {
        let error = rig.metadata(piece, START).unwrap_err();
        assert!(matches!(error, ReadError::NoSuchRange), "{error}");
    }
}

#[test]
fn a_vanished_metainfo_file_fails_is_left_alone_and_heals() {
    let mut rig = Rig::new(&[(100, false)], LIMITS);
    let path = rig.directory.join("t.torrent");
    let raw = fs::read(&path).unwrap();
    fs::write(&path, &raw[..raw.len() / 2]).unwrap();
    let error = rig.metadata(0, START).unwrap_err();
    assert!(matches!(&error, ReadError::Metainfo(..)), "{error}");
    assert!(error.to_string().contains("t.torrent"), "{error}");
    fs::write(&path, &raw).unwrap();
    let error = rig.metadata(0, START).unwrap_err();
    assert!(matches!(error, ReadError::FailedBefore), "{error}");
    rig.lookup(0, START.after(FAILED_RETRY_MS));
    assert!(rig.metadata(0, START).is_ok());
}

#[test]
fn a_metainfo_file_that_was_replaced_is_read_when_it_has_the_same_info_dictionary() {
    let mut rig = Rig::new(&[(100, false)], LIMITS);
    let path = rig.directory.join("t.torrent");
    let raw = fs::read(&path).unwrap();
    let whole = rig.metadata(0, START).unwrap();
    let touched = |raw: &[u8]| {
        fs::write(&path, raw).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(60))
            .unwrap();
    };
    touched(&raw);
    assert_eq!(rig.metadata(0, START).unwrap(), whole);
    let mut other = raw.clone();
    other[raw.len() - 3] ^= 1;
    touched(&other);
    let error = rig.metadata(0, START).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("it is that of another torrent now"),
        "{error}"
    );
}

#[test]
fn a_failure_is_reported_once() {
    let completion = |result| Completion::Metadata {
        peer: peer(1),
        piece: 0,
        result,
    };
    assert!(completion(Ok(Vec::new())).failure().is_none());
    let failed = completion(Err(ReadError::NoSuchRange));
    assert!(failed.failure().is_some());
    for known in [ReadError::FailedBefore, ReadError::from(QueueFull)] {
        assert!(completion(Err(known)).failure().is_none());
    }
}

#[test]
fn a_mapping_that_nobody_uses_is_let_go() {
    let mut rig = Rig::new(&[(100, false), (100, false)], LIMITS);
    assert_eq!(rig.storage.poll_at(), None);
    for file in [0, 1] {
        rig.read(file, 0..100, START).unwrap();
    }
    assert_eq!(rig.storage.poll_at(), Some(START.after(IDLE_MS)));
    let used = START.after(5_000);
    rig.mapped(0, used);
    rig.storage.run_due(START.after(IDLE_MS - 1));
    assert_eq!(rig.storage.counters().mappings, 2);
    rig.storage.run_due(START.after(IDLE_MS));
    assert!(matches!(rig.lookup(1, used), Lookup::Absent));
    assert_eq!(rig.storage.poll_at(), Some(used.after(IDLE_MS)));
    rig.storage.run_due(used.after(IDLE_MS));
    assert_eq!(
        (rig.storage.counters().mappings, rig.storage.poll_at()),
        (0, None)
    );
}

#[test]
fn nothing_stays_mapped_of_a_torrent_that_is_gone() {
    let mut rig = Rig::new(&[(100, false), (100, false)], LIMITS);
    rig.read(0, 0..100, START).unwrap();
    // One that is being opened when the torrent goes.
    rig.ask(1, 1, 0..100);
    rig.storage
        .forget(&HashSet::from([TorrentId(rig.torrent.id.0 + 1)]));
    assert_eq!(rig.storage.counters().mappings, 1);
    rig.storage.forget(&HashSet::from([rig.torrent.id]));
    assert_eq!(rig.storage.counters().mappings, 0);
    rig.complete(START);
    assert_eq!(rig.storage.counters().mappings, 0);
    // The number is another's from now on, and means nothing.
    rig.read(1, 0..100, START).unwrap();
    assert_eq!(rig.storage.counters().mappings, 1);
}
