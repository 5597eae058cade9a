//! Thousands of random changes, and then the same torrents as a plain scan finds, which has nothing of
//! the product in it. Refreshes go on meanwhile, and each round has a restart.
//!
//! Owns the changes, which are the same for the same seed. What it leaves out is what only a rescan
//! finds: symlinks whose target changes.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::scene::{Scene, is_served, torrent};
use crate::support::torrent::Sample;

/// Torrents that are ever made.
const TORRENTS: u64 = 40;

/// Changes between two comparisons.
const ROUND: usize = 60;

const ROUNDS: usize = 50;

/// How long the daemon may take to agree: its bar, and the time of forty handshakes on a busy
/// machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Directories of the library are kept to so many.
const DIRECTORIES: usize = 30;

struct Chaos {
    random: fastrand::Rng,
    samples: Vec<Sample>,
    base: PathBuf,
    /// What was done since the last comparison.
    done: Vec<String>,
    made: usize,
}

#[test]
fn after_random_changes_it_serves_what_a_scan_finds() {
    let seed = std::env::var("HEKATE_SEED").map_or(5, |seed| seed.parse().unwrap());
    let mut scene = Scene::new(|base| {
        for seed in 0..TORRENTS {
            torrent(seed, &base.join("store"));
        }
        // Another store, which symlinks lead to.
        for seed in 0..3 {
            torrent(seed, &base.join("apart/deep"));
        }
        // The first index has links to directories already, among others and among files.
        for directory in ["lib/a", "lib/c", "lib/c/d"] {
            torrent(7, &base.join(directory));
        }
        for link in ["lib/b", "lib/c/c", "lib/sample-0", "lib/z"] {
            symlink(base.join("apart"), base.join(link)).unwrap();
        }
        torrent(8, &base.join("lib"));
    });
    let samples = (0..TORRENTS).map(|seed| scene.torrent(seed, "store"));
    let mut chaos = Chaos {
        random: fastrand::Rng::with_seed(seed),
        samples: samples.collect(),
        base: scene.path(""),
        done: Vec::new(),
        made: 0,
    };
    for round in 0..ROUNDS {
        let restart = chaos.random.usize(..ROUND);
        for number in 0..ROUND {
            // Others may have removed what it was about to change: no harm.
            chaos.change().ok();
            if chaos.random.u8(..20) == 0 {
                scene.daemon.signal("HUP");
                chaos.done.push("refresh".to_owned());
            }
            if number == restart {
                scene.restart();
                chaos.done.push("restart".to_owned());
            }
        }
        // Twice in one round, so that what is in the making is seen as well.
        chaos.compare(&mut scene, &format!("seed {seed}, round {round}"));
        chaos.done.clear();
    }
    assert!(chaos.made > ROUND * ROUNDS / 2, "only {}", chaos.made);
}

impl Chaos {
    /// All below `lib` that `wanted` accepts, without what is behind symlinks.
    fn find(&self, wanted: impl Fn(&Path, fs::FileType) -> bool) -> Vec<PathBuf> {
        walkdir::WalkDir::new(self.base.join("lib"))
            .sort_by_file_name()
            .into_iter()
            .flatten()
            .filter(|entry| wanted(entry.path(), entry.file_type()))
            .map(walkdir::DirEntry::into_path)
            .collect()
    }

    fn choose(&mut self, paths: Vec<PathBuf>) -> io::Result<PathBuf> {
        self.random
            .choice(paths)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn directory(&mut self) -> io::Result<PathBuf> {
        let all = self.find(|_, kind| kind.is_dir());
        self.choose(all)
    }

    /// A directory that is not the root.
    fn lower_directory(&mut self) -> io::Result<PathBuf> {
        let root = self.base.join("lib");
        let all = self.find(|path, kind| kind.is_dir() && path != root);
        self.choose(all)
    }

    fn metainfo(&mut self) -> io::Result<PathBuf> {
        let all = self.find(|path, kind| {
            !kind.is_dir()
                && path
                    .extension()
                    .is_some_and(|extension| extension == "torrent")
        });
        self.choose(all)
    }

    fn content(&mut self) -> io::Result<PathBuf> {
        let all = self.find(|path, kind| kind.is_file() && path.extension().is_none());
        self.choose(all)
    }

    fn sample(&mut self) -> Sample {
        let number = self.random.usize(..self.samples.len());
        self.samples[number].clone()
    }

    /// A file name that is new.
    fn name(&mut self) -> String {
        format!("{}.torrent", self.random.u32(..))
    }

    fn change(&mut self) -> io::Result<()> {
        let (what, path) = match self.random.u8(..24) {
            0..=7 => ("add", self.add()?),
            8 => ("remove", self.remove_metainfo()?),
            9 => ("remove content", self.remove_content()?),
            10 => ("truncate", self.truncate()?),
            11..=12 => ("replace", self.replace()?),
            13 => ("rename", self.rename_metainfo()?),
            14..=15 => ("make directory", self.make_directory()?),
            16..=17 => ("move directory", self.move_directory()?),
            18 => ("move directory out", self.move_out()?),
            19..=20 => ("move directory in", self.move_in()?),
            21 => ("remove directory", self.remove_directory()?),
            22 => ("touch", self.touch()?),
            _ => ("link directory", self.link_directory()?),
        };
        self.made += 1;
        self.done.push(format!("{what} {}", path.display()));
        Ok(())
    }

    /// Content first, as one who copies a library should, or last.
    fn add(&mut self) -> io::Result<PathBuf> {
        let (sample, directory, name) = (self.sample(), self.directory()?, self.name());
        let content = sample.files[0].path.clone();
        let target = directory.join(content.file_name().unwrap());
        let is_first = self.random.bool();
        if is_first {
            fs::copy(&content, &target)?;
        }
        let path = directory.join(name);
        match self.random.u8(..4) {
            0 => fs::write(&path, &sample.metainfo)?,
            1 => {
                fs::write(self.base.join("away/new"), &sample.metainfo)?;
                fs::rename(self.base.join("away/new"), &path)?;
            }
            2 => fs::hard_link(&sample.metainfo_path, &path)?,
            _ => symlink(&sample.metainfo_path, &path)?,
        }
        if !is_first {
            fs::copy(&content, &target)?;
        }
        Ok(path)
    }

    fn remove_metainfo(&mut self) -> io::Result<PathBuf> {
        let path = self.metainfo()?;
        fs::remove_file(&path)?;
        Ok(path)
    }

    fn remove_content(&mut self) -> io::Result<PathBuf> {
        let path = self.content()?;
        fs::remove_file(&path)?;
        Ok(path)
    }

    fn truncate(&mut self) -> io::Result<PathBuf> {
        let path = self.content()?;
        File::options().write(true).open(&path)?.set_len(7)?;
        Ok(path)
    }

    /// Another torrent under the same name.
    fn replace(&mut self) -> io::Result<PathBuf> {
        let (path, sample) = (self.metainfo()?, self.sample());
        let new = self.base.join("away/new");
        fs::write(&new, &sample.metainfo)?;
        fs::rename(new, &path)?;
        let content = &sample.files[0].path;
        fs::copy(content, path.with_file_name(content.file_name().unwrap()))?;
        Ok(path)
    }

    fn rename_metainfo(&mut self) -> io::Result<PathBuf> {
        let (path, directory, name) = (self.metainfo()?, self.directory()?, self.name());
        fs::rename(&path, directory.join(name))?;
        Ok(path)
    }

    fn make_directory(&mut self) -> io::Result<PathBuf> {
        if self.find(|_, kind| kind.is_dir()).len() > DIRECTORIES {
            return self.remove_directory();
        }
        let path = self.directory()?.join(format!("d{}", self.random.u16(..)));
        fs::create_dir(&path)?;
        Ok(path)
    }

    fn move_directory(&mut self) -> io::Result<PathBuf> {
        let (path, target) = (self.lower_directory()?, self.directory()?);
        fs::rename(&path, target.join(format!("d{}", self.random.u16(..))))?;
        Ok(path)
    }

    fn move_out(&mut self) -> io::Result<PathBuf> {
        let path = self.lower_directory()?;
        fs::rename(
            &path,
            self.base.join(format!("away/d{}", self.random.u16(..))),
        )?;
        Ok(path)
    }

    fn move_in(&mut self) -> io::Result<PathBuf> {
        let mut all: Vec<PathBuf> = fs::read_dir(self.base.join("away"))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect();
        all.sort();
        let (path, target) = (self.choose(all)?, self.directory()?);
        let target = target.join(path.file_name().unwrap());
        fs::rename(&path, &target)?;
        Ok(target)
    }

    fn remove_directory(&mut self) -> io::Result<PathBuf> {
        let path = self.lower_directory()?;
        fs::remove_dir_all(&path)?;
        Ok(path)
    }

    fn touch(&mut self) -> io::Result<PathBuf> {
        let path = self.content()?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.random.u32(..).into());
        let file = File::options().write(true).open(&path)?;
        file.set_times(FileTimes::new().set_modified(time))?;
        Ok(path)
    }

    /// To a store that never changes, or to the root, which is a loop.
    fn link_directory(&mut self) -> io::Result<PathBuf> {
        let target = match self.random.u8(..3) {
            0 => "lib",
            _ => "apart",
        };
        let path = self.directory()?.join(format!("l{}", self.random.u16(..)));
        symlink(self.base.join(target), &path)?;
        Ok(path)
    }

    /// What a scan of now finds: the info-hashes of metainfo files beside which their content lies.
    fn scan(&self) -> BTreeSet<String> {
        let walk = walkdir::WalkDir::new(self.base.join("lib")).follow_links(true);
        let paths = walk.into_iter().flatten().map(walkdir::DirEntry::into_path);
        let is_metainfo = |path: &PathBuf| {
            path.extension().is_some_and(|name| name == "torrent") && path.is_file()
        };
        let mut found = BTreeSet::new();
        for path in paths.filter(is_metainfo) {
            let raw = fs::read(&path).unwrap();
            let sample = self.samples.iter().find(|sample| sample.metainfo == raw);
            let Some(sample) = sample else { continue };
            let content = sample.files[0].path.file_name().unwrap();
            let length = path.with_file_name(content).metadata();
            if length.is_ok_and(|content| content.is_file() && content.len() == sample.total_length)
            {
                found.insert(sample.info_hash_hex());
            }
        }
        found
    }

    fn compare(&self, scene: &mut Scene, when: &str) {
        let expected = self.scan();
        let start = Instant::now();
        let address = scene.daemon.address;
        let wrong = || {
            let mut samples = self.samples.iter();
            samples.find(|sample| {
                is_served(address, sample.info_hash) != expected.contains(&sample.info_hash_hex())
            })
        };
        while let Some(sample) = wrong() {
            assert!(
                start.elapsed() < PATIENCE,
                "{when}: {} should {}be served; done:\n{}\n{}\n{}",
                sample.metainfo_path.display(),
                if expected.contains(&sample.info_hash_hex()) {
                    ""
                } else {
                    "not "
                },
                self.done.join("\n"),
                scene.daemon.log(),
                self.explain(sample),
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where the metainfo file of a torrent is and what is beside it, for who reads a failure.
    fn explain(&self, sample: &Sample) -> String {
        let walk = walkdir::WalkDir::new(self.base.join("lib")).follow_links(true);
        let mut lines = Vec::new();
        for path in walk.into_iter().flatten().map(walkdir::DirEntry::into_path) {
            if path.is_file() && fs::read(&path).is_ok_and(|raw| raw == sample.metainfo) {
                let content = path.with_file_name(sample.files[0].path.file_name().unwrap());
                let length = content.metadata().map(|metadata| metadata.len());
                lines.push(format!("{} beside {length:?}", path.display()));
            }
        }
        lines.join("\n")
    }
}
