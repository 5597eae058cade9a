//! A peer waits for its torrent, and what it has sent meanwhile is not lost.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};
use tempfile::TempDir;

use super::*;
use crate::choker::origin::Origin;
use crate::config::Config;
use crate::library::catalogue::lookup::Library;
use crate::library::index::Index;
use crate::library::scan::build::{self, Plan, Progress};
use crate::peer::key::PeerKey;
use crate::peer::session::{Phase, Upload};
use crate::reactor::loading::{Finished, LoadOutcome, PendingLoad};
use crate::timers::Time;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::id::TorrentId;
use crate::wire::handshake::PROTOCOL;

/// No wait of a test takes longer, unless what is tested is broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// A library of one torrent in an index, and what the loop would have of it.
struct Rig {
    poll: Poll,
    shared: Shared,
    listener: TcpListener,
    info_hash: InfoHash,
    directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hashes = "x".repeat(20);
        let info = format!("d6:lengthi5e4:name1:n12:piece lengthi16384e6:pieces20:{hashes}e");
        let raw = format!("d4:info{info}e");
        fs::write(directory.path().join("t.torrent"), raw).unwrap();
        fs::write(directory.path().join("n"), "12345").unwrap();
        let plan = Plan {
            inputs: vec![directory.path().to_path_buf()],
            content: ContentDirectories::default(),
            target: directory.path().join("index"),
            threads: 1,
        };
        build::build(&plan, &Progress::default(), |_| ()).unwrap();
        let index = Index::open(&plan.target).unwrap();
        let info_hash = index.entries().next().unwrap().unwrap().facts.info_hash;
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let library = Library::of_index(index, &ContentDirectories::default());
        let mut config = Config::default();
        config.trackers.disabled = true;
        let shared = Shared::new(&config, poll.registry(), Arc::new(waker), 6969);
        let mut shared = shared.unwrap();
        shared.process.library = library;
        Rig {
            poll,
            shared,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            info_hash,
            directory,
        }
    }

    /// A connection, and the peer's end of it.
    fn connect(&mut self, key: PeerKey) -> (Connection, std::net::TcpStream) {
        let address = self.listener.local_addr().unwrap();
        let theirs = std::net::TcpStream::connect(address).unwrap();
        let (ours, from) = self.listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = mio::net::TcpStream::from_std(ours);
        let ours = Connection::accepted(key, stream, from.ip(), Time(0));
        let origin = Origin::of(from.ip());
        self.shared.choker.begun(key, origin, Time(0));
        (ours, theirs)
    }

    fn handshake(&self) -> Vec<u8> {
        let mut bytes = PROTOCOL.to_vec();
        bytes.extend([0; 8]);
        bytes.extend(self.info_hash.0);
        bytes.extend(b"-TE0000-abcdefghijkl");
        bytes
    }

    /// The one load that has ended.
    fn finished(&mut self) -> (LoadOutcome, PendingLoad) {
        let mut events = Events::with_capacity(1);
        self.poll.poll(&mut events, Some(DEADLINE)).unwrap();
        let mut finished = self.shared.process.loads.take_finished();
        assert_eq!(finished.len(), 1);
        let Finished::Load(outcome) = finished.remove(0) else {
            panic!("a load has ended");
        };
        let pending = self.shared.process.loads.take_pending(&outcome.info_hash);
        (outcome, pending)
    }

    fn library_path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn key(index: u32) -> PeerKey {
    PeerKey {
        index,
        generation: 0,
    }
}

fn is_loading(connection: &Connection) -> bool {
    matches!(connection.session.phase(), Phase::Loading(_))
}

fn is_interested(connection: &Connection) -> bool {
    connection.session.upload() != Upload::Choked
        && connection.session.upload() != (Upload::Unchoked { interested: false })
}

fn receive(connection: &mut Connection, shared: &mut Shared) {
    connection.transport.set_readable();
    connection.receive(shared).unwrap();
}

#[test]
fn a_handshake_may_be_cut_anywhere_while_the_torrent_is_loaded() {
    let interested = [0, 0, 0, 1, 2];
    for cut in [48, 50, 67, 68, 5000] {
        let mut rig = Rig::new();
        let (mut connection, mut theirs) = rig.connect(key(0));
        let mut bytes = rig.handshake();
        bytes.extend(interested.repeat(20_000));
        theirs.write_all(&bytes[..cut]).unwrap();
        receive(&mut connection, &mut rig.shared);
        assert!(is_loading(&connection) && connection.torrent.is_none());
        assert!(!connection.session.has_control());

        theirs.write_all(&bytes[cut..]).unwrap();
        receive(&mut connection, &mut rig.shared);
        let end = cut.min(68);
        let held = connection.session.prepare(&mut rig.shared.buffer).start;
        assert_eq!(held, end - 48, "nothing is read meanwhile");
        assert!(!connection.wants_to_receive(), "the loop would spin");

        let (outcome, load) = rig.finished();
        assert_eq!(load.waiting, BTreeSet::from([key(0)]));
        let torrent = outcome.result.unwrap().unwrap();
        connection.resume(&torrent, &mut rig.shared).unwrap();
        for _ in 0..10 {
            if !is_interested(&connection) {
                receive(&mut connection, &mut rig.shared);
            }
        }
        assert!(is_interested(&connection), "{cut}");
    }
}

#[test]
fn a_peer_that_floods_is_received_from_in_parts_and_marked() {
    let mut rig = Rig::new();
    let (mut connection, mut theirs) = rig.connect(key(0));
    theirs.write_all(&rig.handshake()).unwrap();
    receive(&mut connection, &mut rig.shared);
    let (outcome, _) = rig.finished();
    let torrent = outcome.result.unwrap().unwrap();
    connection.resume(&torrent, &mut rig.shared).unwrap();
    receive(&mut connection, &mut rig.shared);
    assert!(
        !connection.queued.has_filled_buffer,
        "a handshake is little"
    );
    theirs
        .write_all(&vec![0; RECEIVE_AT_ONCE_BYTES + 400])
        .unwrap();
    // The kernel may not have all of it at first.
    let mut parts = 0;
    while !connection.queued.has_filled_buffer {
        assert!(parts < 1000, "it is never filled");
        parts += 1;
        theirs.write_all(&[0; 4]).unwrap();
        receive(&mut connection, &mut rig.shared);
    }
    assert!(
        connection.wants_to_receive(),
        "the rest is for the next turn"
    );
}

#[test]
fn whoever_asks_for_a_torrent_that_is_being_loaded_joins() {
    let mut rig = Rig::new();
    let peers: Vec<_> = (0..3)
        .map(|index| {
            let (mut connection, mut theirs) = rig.connect(key(index));
            theirs.write_all(&rig.handshake()).unwrap();
            receive(&mut connection, &mut rig.shared);
            (connection, theirs)
        })
        .collect();
    assert!(peers.iter().all(|(peer, _)| is_loading(peer)));
    let (outcome, load) = rig.finished();
    assert_eq!(load.waiting, BTreeSet::from([key(0), key(1), key(2)]));
    let library = &mut rig.shared.process.library;
    library.finish_load(rig.info_hash, outcome.result, Time(1));

    // Whoever comes now waits for nobody, even if the file is gone.
    fs::remove_file(rig.library_path("t.torrent")).unwrap();
    let (mut connection, mut theirs) = rig.connect(key(3));
    theirs.write_all(&rig.handshake()).unwrap();
    receive(&mut connection, &mut rig.shared);
    assert!(!is_loading(&connection) && connection.torrent.is_some());
}

#[test]
fn whoever_waits_for_a_torrent_that_comes_meanwhile_has_it() {
    let mut rig = Rig::new();
    let (old, new) = (rig.library_path("t.torrent"), rig.library_path("u.torrent"));
    fs::rename(&old, &new).unwrap();
    let (mut connection, mut theirs) = rig.connect(key(0));
    theirs.write_all(&rig.handshake()).unwrap();
    receive(&mut connection, &mut rig.shared);
    let library = &mut rig.shared.process.library;
    library.add(rig.info_hash, TorrentId(5), Some(new.into()));
    rig.shared.process.loads.outdate(&rig.info_hash);
    let (outcome, load) = rig.finished();
    let error = outcome.result.unwrap_err();
    assert!(error.path().is_some_and(|path| path.ends_with("t.torrent")));
    assert!(load.is_stale);
    let asked = rig.info_hash;
    connection.find_torrent(asked, &mut rig.shared).unwrap();
    let (outcome, load) = rig.finished();
    assert_eq!(load.waiting, BTreeSet::from([key(0)]));
    assert!(!load.is_stale);
    let torrent = outcome.result.unwrap().unwrap();
    connection.resume(&torrent, &mut rig.shared).unwrap();
    assert_eq!(
        connection.torrent.as_ref().map(|torrent| torrent.id),
        Some(TorrentId(5))
    );
}

#[test]
fn an_unknown_torrent_is_refused_without_a_reader() {
    let mut rig = Rig::new();
    let known = rig.info_hash;
    for byte in 0..=255 {
        let (mut connection, mut theirs) = rig.connect(key(0));
        rig.info_hash = InfoHash([byte; 20]);
        theirs.write_all(&rig.handshake()).unwrap();
        let outcome = connection.receive(&mut rig.shared);
        assert_eq!(outcome, Err(CloseReason::UnknownTorrent));
        rig.shared.choker.disconnected(key(0));
    }
    // The readers have nothing to tell but what is asked of them now.
    rig.info_hash = known;
    let (mut connection, mut theirs) = rig.connect(key(1));
    theirs.write_all(&rig.handshake()).unwrap();
    receive(&mut connection, &mut rig.shared);
    let (_, load) = rig.finished();
    assert_eq!(load.waiting, BTreeSet::from([key(1)]));
}

#[test]
fn a_peer_that_leaves_does_not_wait_and_its_torrent_is_loaded_once() {
    let mut rig = Rig::new();
    let query = |rig: &mut Rig| match rig.shared.process.library.find(&rig.info_hash, Time(0)) {
        Answer::Known(query) => query,
        other => panic!("{other:?}"),
    };
    for index in 0..3 {
        let query = query(&mut rig);
        rig.shared.process.loads.request(key(index), query).unwrap();
    }
    rig.shared.process.loads.leave(&rig.info_hash, key(1));
    rig.shared.process.loads.outdate_all();
    let (_, load) = rig.finished();
    assert_eq!(load.waiting, BTreeSet::from([key(0), key(2)]));
    assert!(load.is_stale);
}
