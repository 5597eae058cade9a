//! `hekate index` and `hekate verify` as they are run: files, output and exit codes.
//!
//! Owns the check that a refresh of an index that is killed at any of its writes leaves the old
//! index as it was. What an index holds is tested beside the code.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test, in its helpers too"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hekate::library::index::Index;
use support::torrent::{Sample, TorrentBuilder};
use tempfile::TempDir;

/// The signal of a process that writes beyond its limit on the size of files.
const SIGXFSZ: i32 = 25;

struct Fixture {
    directory: TempDir,
    samples: Vec<Sample>,
}

impl Fixture {
    fn new(torrents: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |seed| {
            let builder = TorrentBuilder::new(seed).length(100 + seed);
            builder.write(&directory.path().join("lib")).unwrap()
        };
        let samples = (0..torrents).map(write).collect();
        Fixture { directory, samples }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn hekate(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hekate"));
        command.current_dir(self.directory.path());
        command.args(arguments).output().unwrap()
    }

    /// Indexes the library into `index`; with no file larger than so many blocks of 512 bytes.
    fn index(&self, limit_blocks: Option<u64>) -> Output {
        let limit = limit_blocks.map(|blocks| format!("ulimit -c 0; ulimit -f {blocks}; "));
        let script = limit.unwrap_or_default() + "exec \"$0\" index lib -o index";
        Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_hekate")])
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

fn hashes(path: &Path) -> Vec<[u8; 20]> {
    let index = Index::open(path).unwrap();
    index.check().unwrap();
    let mut hashes: Vec<[u8; 20]> = index
        .entries()
        .map(|entry| entry.unwrap().facts.info_hash.0)
        .collect();
    hashes.sort_unstable();
    hashes
}

#[test]
fn the_index_of_a_library_holds_every_torrent() {
    let fixture = Fixture::new(30);
    fs::remove_file(&fixture.samples[3].files[0].path).unwrap();
    let output = fixture.index(None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = fs::metadata(fixture.path("index")).unwrap().len();
    let lines = text(&output.stdout);
    assert!(
        lines.contains("sample-3.torrent: content sample-3 is missing\n"),
        "{lines}"
    );
    assert!(
        lines.ends_with(&format!(
            "30 torrents, 1 without content, 1 refused; {bytes} bytes\n"
        )),
        "{lines}"
    );
    let mut expected: Vec<[u8; 20]> = fixture.samples.iter().map(|made| made.info_hash).collect();
    expected.sort_unstable();
    assert_eq!(hashes(&fixture.path("index")), expected);
}

#[test]
fn killed_at_any_write_the_old_index_is_as_it_was() {
    let fixture = Fixture::new(20);
    assert!(fixture.index(None).status.success());
    let old = fs::read(fixture.path("index")).unwrap();
    for seed in 20..150 {
        let builder = TorrentBuilder::new(seed).length(10);
        builder.write(&fixture.path("lib")).unwrap();
    }
    let mut limit_blocks = 0;
    loop {
        let output = fixture.index(Some(limit_blocks));
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.signal(), Some(SIGXFSZ), "{output:?}");
        assert!(
            fs::read(fixture.path("index")).unwrap() == old,
            "{limit_blocks}"
        );
        limit_blocks += 1;
    }
    let size = fs::metadata(fixture.path("index")).unwrap().len();
    assert_eq!(limit_blocks, size.div_ceil(512));
    assert_eq!(hashes(&fixture.path("index")).len(), 150);
    assert!(!fixture.path("index.new").exists());
}

#[test]
fn index_errors_are_one_line() {
    let fixture = Fixture::new(1);
    for (arguments, line) in [
        (
            ["index", "gone", "-o", "index"],
            "nothing to index: gone: unreadable: ",
        ),
        (
            ["index", "lib", "-o", "no/index"],
            "cannot write no/index: ",
        ),
    ] {
        let output = fixture.hekate(&arguments);
        assert_eq!(output.status.code(), Some(1));
        let lines = text(&output.stderr);
        assert!(
            lines.contains(line) && lines.lines().count() == 1,
            "{lines}"
        );
    }
}

#[test]
fn verify_exits_with_0_for_good_and_3_for_bad_content() {
    let fixture = Fixture::new(5);
    let output = fixture.hekate(&["verify", "lib"]);
    let good = "5 torrents, 0 bad, 0 refused; 0 pieces missing, 0 corrupt; 0 extra files\n";
    assert_eq!(text(&output.stdout), good);
    assert_eq!(output.status.code(), Some(0));

    fixture.index(None);
    fs::write(&fixture.samples[2].files[0].path, [0; 102]).unwrap();
    for arguments in [&["verify", "lib"][..], &["verify", "--index", "index"]] {
        let output = fixture.hekate(arguments);
        let lines = text(&output.stdout);
        assert!(
            lines.ends_with(
                "/lib/sample-2.torrent: of 1 pieces corrupt: 0\n\
                 5 torrents, 1 bad, 0 refused; 0 pieces missing, 1 corrupt; 0 extra files\n"
            ),
            "{lines}"
        );
        assert_eq!(output.status.code(), Some(3));
    }
    let output = fixture.hekate(&["verify", "--json", "lib/sample-2.torrent"]);
    let lines = text(&output.stdout);
    assert!(
        lines.contains("\"state\":\"bad\",\"pieces\":1,\"files\":[],\"absent\":[],\"corrupt\":[0]")
    );
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(output.status.code(), Some(3));

    let output = fixture.hekate(&["verify", "--index", "lib"]);
    assert_eq!(output.status.code(), Some(1));
    let output = fixture.hekate(&["verify", "gone"]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn an_index_that_was_copied_is_verified_where_its_library_is_now() {
    let fixture = Fixture::new(3);
    fixture.index(None);
    fs::rename(fixture.path("lib"), fixture.path("moved")).unwrap();
    let output = fixture.hekate(&["verify", "--index", "index"]);
    assert_eq!(output.status.code(), Some(3));
    let output = fixture.hekate(&["verify", "--index", "index", "--root", "moved"]);
    let good = "3 torrents, 0 bad, 0 refused; 0 pieces missing, 0 corrupt; 0 extra files\n";
    assert_eq!(text(&output.stdout), good);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_terminal_shows_a_progress_bar_for_the_first_index() {
    let fixture = Fixture::new(4);
    // It waits for the disk when all files are in it, for longer than the bar is drawn again.
    let hekate = env!("CARGO_BIN_EXE_hekate");
    let strace = "strace -D -f -o /dev/null -e inject=fsync:delay_enter=2000000:when=1";
    let output = Command::new("script")
        .args([
            "-qec",
            &format!("{strace} {hekate} index lib -o index"),
            "/dev/null",
        ])
        .current_dir(fixture.directory.path())
        .output()
        .unwrap();
    let shown = text(&output.stdout);
    assert!(shown.contains("##] 100 %  4 torrents, "), "{shown}");
    assert!(
        shown.contains("4 torrents, 0 without content, 0 refused; "),
        "{shown}"
    );
}

#[test]
fn verifying_no_torrent_is_a_failure() {
    let fixture = Fixture::new(1);
    fs::create_dir_all(fixture.path("unmounted")).unwrap();
    let output = fixture.hekate(&["verify", "unmounted", "lib"]);
    assert_eq!(
        text(&output.stdout),
        "unmounted: an empty directory: is a disk not mounted?\n\
         1 torrents, 0 bad, 1 refused; 0 pieces missing, 0 corrupt; 0 extra files\n"
    );
    assert_eq!(output.status.code(), Some(3));

    fs::create_dir_all(fixture.path("unmounted/lost+found")).unwrap();
    let output = fixture.hekate(&["verify", "unmounted"]);
    assert_eq!(output.status.code(), Some(1));
    let error = "hekate: no torrents to verify\n";
    assert!(text(&output.stderr).ends_with(error));
}

/// A user that has no process: a limit of processes is one for each user, and not for root.
const NOBODY_ELSE: &str = "64999";

#[test]
fn a_limit_of_processes_is_an_error_that_says_so() {
    let fixture = Fixture::new(3);
    let everybody = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let (program, out) = (fixture.path("hekate"), fixture.path("out"));
    fs::copy(env!("CARGO_BIN_EXE_hekate"), &program).unwrap();
    fs::create_dir(&out).unwrap();
    everybody(fixture.directory.path(), 0o755);
    everybody(&out, 0o777);
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    for limit in 1..=4 {
        for arguments in [
            ["index", "lib", "-o", "out/index"].as_slice(),
            &["verify", "lib"],
            &[
                "seed",
                "lib",
                "--config",
                "/dev/null",
                "--port",
                "0",
                "--no-tracker",
                "--status",
                "off",
            ],
        ] {
            let mut command = match is_root {
                true => Command::new("setpriv"),
                false => Command::new("env"),
            };
            if is_root {
                command.args(["--clear-groups", "--reuid", NOBODY_ELSE]);
                command.args(["--regid", NOBODY_ELSE]);
            }
            let run = command
                .args(["timeout", "--signal=TERM", "20"])
                .args(["prlimit", &format!("--nproc={}", limit + 1)])
                .arg(&program)
                .args(arguments)
                .env("STATE_DIRECTORY", &out)
                .current_dir(fixture.directory.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&run.stderr);
            assert!(!said.contains("panicked"), "{limit} {arguments:?}: {said}");
            if limit == 1 {
                assert!(
                    !run.status.success() && said.contains("cannot start a"),
                    "{said}"
                );
            }
        }
    }
}
