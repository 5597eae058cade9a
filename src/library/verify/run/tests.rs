//! What is missing, short, long, corrupt or extra is found, and nothing else is.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use sha1::{Digest, Sha1};
use tempfile::TempDir;

use super::{Finding, Report, Subject, verify};
use crate::library::index::Index;
use crate::library::scan::build::{self, Plan, Progress};
use crate::library::verify::report;
use crate::torrent::content_directories::ContentDirectories;
use crate::torrent::metainfo::samples::entry;

const PIECE_BYTES: usize = 1000;

/// A torrent `m` of the files `a` (2500 bytes), padding (500), `d/b` (1), `d/c` (3000), and its
/// content: seven pieces, of which the third ends with padding.
struct Library {
    directory: TempDir,
    paths: Vec<PathBuf>,
}

impl Library {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let parts = [("a", 2500), ("", 500), ("d/b", 1), ("d/c", 3000)];
        let mut random = fastrand::Rng::with_seed(4);
        let (mut content, mut files) = (Vec::new(), String::new());
        fs::create_dir_all(directory.path().join("m/d")).unwrap();
        for (path, length) in parts {
            if path.is_empty() {
                content.extend(vec![0; length]);
                files += &entry(length as u64, &[".pad"], "4:attr1:p");
            } else {
                let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
                fs::write(directory.path().join("m").join(path), &bytes).unwrap();
                content.extend(bytes);
                let path: Vec<&str> = path.split('/').collect();
                files += &entry(length as u64, &path, "");
            }
        }
        let hashes: Vec<u8> = content.chunks(PIECE_BYTES).flat_map(Sha1::digest).collect();
        let head = format!(
            "d4:infod5:filesl{files}e4:name1:m12:piece lengthi{PIECE_BYTES}e6:pieces{}:",
            hashes.len()
        );
        let raw = [head.as_bytes(), &hashes, b"ee"].concat();
        let path = directory.path().join("m.torrent");
        fs::write(&path, raw).unwrap();
        Library {
            paths: vec![directory.path().canonicalize().unwrap()],
            directory,
        }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.directory.path().join("m").join(path)
    }

    fn verify(&self) -> Report {
        let found = run(&Subject::Paths(&self.paths), 3);
        let [Finding::Torrent(_)] = &found[..] else {
            panic!("{found:?}");
        };
        found
            .into_iter()
            .find_map(|finding| match finding {
                Finding::Torrent(report) => Some(report),
                _ => None,
            })
            .unwrap()
    }
}

fn run(subject: &Subject<'_>, threads: usize) -> Vec<Finding> {
    let mut found = Vec::new();
    verify(
        subject,
        &ContentDirectories::default(),
        threads,
        &Progress::default(),
        |finding| {
            found.push(finding);
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    found
}

fn faults(report: &Report) -> Vec<String> {
    report.faults.iter().map(ToString::to_string).collect()
}

fn pieces(report: &Report) -> (&[u32], &[u32]) {
    (&report.absent, &report.corrupt)
}

#[test]
fn what_is_right_is_good() {
    let library = Library::new();
    let progress = Progress::default();
    let mut reports = 0;
    verify(
        &Subject::Paths(&library.paths),
        &ContentDirectories::default(),
        2,
        &progress,
        |finding| {
            let Finding::Torrent(report) = finding else {
                panic!("{finding:?}");
            };
            assert!(report.is_good() && report.extra.is_empty(), "{report:?}");
            assert_eq!(report.pieces, 7);
            assert_eq!(report.path, library.paths[0].join("m.torrent"));
            reports += 1;
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    assert_eq!(reports, 1);
    assert_eq!(progress.files.load(Ordering::Relaxed), 1);
    assert_eq!(progress.bytes.load(Ordering::Relaxed), 6001);
}

#[test]
fn a_changed_byte_is_found_in_its_piece() {
    for (path, at, piece) in [("a", 0, 0), ("a", 2499, 2), ("d/b", 0, 3), ("d/c", 2999, 6)] {
        let library = Library::new();
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .open(library.file(path))
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let report = library.verify();
        assert!(!report.is_good());
        assert_eq!(pieces(&report), (&[][..], &[piece][..]), "{path} {at}");
        assert!(report.faults.is_empty());
    }
}

#[test]
fn a_missing_file_takes_the_pieces_that_it_shares() {
    let library = Library::new();
    fs::remove_file(library.file("d/b")).unwrap();
    let report = library.verify();
    assert_eq!(faults(&report), ["content m/d/b is missing"]);
    assert_eq!(pieces(&report), (&[3][..], &[][..]));
}

#[test]
fn pieces_within_a_short_file_are_compared() {
    let library = Library::new();
    let file = File::options().write(true).open(library.file("a")).unwrap();
    file.set_len(2100).unwrap();
    file.write_all_at(b"x", 1500).unwrap();
    let report = library.verify();
    assert_eq!(faults(&report), ["content m/a has 2100 bytes, not 2500"]);
    assert_eq!(pieces(&report), (&[2][..], &[1][..]));
}

#[test]
fn a_long_file_is_a_fault_although_its_pieces_are_right() {
    let library = Library::new();
    let file = File::options().write(true).open(library.file("a")).unwrap();
    file.set_len(2501).unwrap();
    let report = library.verify();
    assert_eq!(faults(&report), ["content m/a has 2501 bytes, not 2500"]);
    assert_eq!(pieces(&report), (&[][..], &[][..]));
    assert!(!report.is_good());
}

#[test]
fn extra_files_are_named_and_are_no_fault() {
    let library = Library::new();
    fs::write(library.file("d/notes"), "").unwrap();
    let report = library.verify();
    assert_eq!(report.extra, [PathBuf::from("m/d/notes")]);
    assert!(report.is_good() && !report.more_extra);
}

#[test]
fn extra_files_that_are_not_named_are_said_to_be() {
    let library = Library::new();
    for number in 0..1000 {
        fs::write(library.file(&format!("x{number:04}")), "").unwrap();
    }
    let report = library.verify();
    assert_eq!((report.extra.len(), report.more_extra), (1000, false));
    fs::write(library.file("y"), "").unwrap();
    let report = library.verify();
    assert_eq!((report.extra.len(), report.more_extra), (1000, true));
    let finding = Finding::Torrent(report);
    let text = report::text(&finding);
    assert!(text.ends_with(": and more extra files, not listed\n"));
    assert!(report::json(&finding).ends_with(",\"more_extra\":true}\n"));
    let mut sums = report::Sums::default();
    sums.add(&finding);
    assert!(sums.to_string().ends_with("; more than 1000 extra files\n"));
    assert!(sums.json().ends_with(",\"more_extra\":true}\n"));
}

/// Address 0 of a process cannot be read, by anybody: `/proc/PID/mem` is a regular file that fails.
#[test]
fn a_file_that_the_disk_does_not_give_is_named_once_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let piece = 16 * 1024 * 1024;
    let head = format!(
        "d4:infod6:lengthi{}e4:name3:mem12:piece lengthi{piece}e6:pieces100:",
        5 * piece
    );
    let raw = [head.as_bytes(), &[0; 100], b"ee"].concat();
    fs::write(directory.path().join("m.torrent"), raw).unwrap();
    let mut found = Vec::new();
    let paths = [directory.path().to_path_buf()];
    let content = PathBuf::from(format!("/proc/{}", std::process::id()));
    verify(
        &Subject::Paths(&paths),
        &ContentDirectories::below(&content),
        2,
        &Progress::default(),
        |finding| {
            found.push(finding);
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    let [Finding::Torrent(report)] = &found[..] else {
        panic!("{found:?}");
    };
    let unreadable = "content mem is unreadable: Input/output error (os error 5)";
    let length = 5 * piece;
    assert_eq!(
        faults(report),
        [
            &format!("content mem has 0 bytes, not {length}"),
            unreadable
        ]
    );
    assert_eq!(pieces(report), (&[0, 1, 2, 3, 4][..], &[][..]));
}

#[test]
fn refused_files_are_found_among_the_others() {
    let library = Library::new();
    fs::write(library.directory.path().join("a.torrent"), "no bencode").unwrap();
    let found = run(&Subject::Paths(&library.paths), 2);
    assert!(
        matches!(&found[..], [Finding::Refused(refusal), Finding::Torrent(_)]
            if refusal.path.ends_with("a.torrent")),
        "{found:?}"
    );
}

#[test]
fn the_torrents_of_an_index_are_verified() {
    let library = Library::new();
    let position = tempfile::tempdir().unwrap();
    let plan = Plan {
        inputs: library.paths.clone(),
        content: ContentDirectories::default(),
        target: position.path().join("index"),
        threads: 1,
    };
    build::build(&plan, &Progress::default(), |_| ()).unwrap();
    fs::remove_file(library.file("d/c")).unwrap();
    let index = Index::open(&plan.target).unwrap();
    let found = run(&Subject::Index(&index), 2);
    let [Finding::Torrent(report)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(faults(report), ["content m/d/c is missing"]);
    assert_eq!(pieces(report), (&[3, 4, 5, 6][..], &[][..]));
}

#[test]
fn a_large_torrent_is_shared_by_all_threads_and_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let length = 80 * 1024 * 1024_u64;
    let piece = 4 * 1024 * 1024;
    let hash = Sha1::digest(vec![0; piece]);
    let hashes: Vec<u8> = std::iter::repeat_n(hash, 20).flatten().collect();
    let head = format!("d4:infod6:lengthi{length}e4:name1:n12:piece lengthi{piece}e6:pieces400:");
    fs::write(
        directory.path().join("n.torrent"),
        [head.as_bytes(), &hashes, b"ee"].concat(),
    )
    .unwrap();
    let content = File::create(directory.path().join("n")).unwrap();
    content.set_len(length).unwrap();
    for piece in [0, 7, 8, 19] {
        content.write_all_at(b"x", piece * 4 * 1024 * 1024).unwrap();
    }
    let found = run(&Subject::Paths(&[directory.path().to_path_buf()]), 4);
    let [Finding::Torrent(report)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(pieces(report), (&[][..], &[0, 7, 8, 19][..]));
}
