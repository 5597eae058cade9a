//! Whether a range of a file is in memory, asked without waiting.
//!
//! Owns which question the kernel answers truthfully for which file. Nothing is read in: the loop asks,
//! and the loop may not wait.
//!
//! There are two probes. mincore(2) knows the page cache, but answers "resident" about
//! everything to a process that neither owns the file nor may write it, which is how a seeder
//! should run. Such a process looks into its own page table, where it finds what its readers have
//! populated and memory pressure has not taken away again. Both are true for pages that are in
//! memory and *read*: cachestat(2) also counts those whose read is under way, and
//! `preadv2(RWF_NOWAIT)` starts reads of its own, which wait for a busy disk.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;

use crate::sys::{self, Mapping, PageTable};

/// Who is asked about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ResidencyProbe {
    /// The kernel's page cache.
    PageCache,
    /// Our page table.
    PageTable,
}

impl ResidencyProbe {
    /// Chooses for an open file.
    pub(super) fn for_file(file: &File, metadata: &Metadata) -> Self {
        match sys::may_ask_page_cache(file, metadata) {
            true => Self::PageCache,
            false => Self::PageTable,
        }
    }
}

/// Answers for all files of the process.
pub(super) struct Residency {
    /// `None` where there is no `/proc`: then such content goes through the readers every time.
    page_table: Option<PageTable>,
}

impl Residency {
    pub(super) fn new() -> Self {
        let page_table = PageTable::open()
            .inspect_err(|error| log::warn!("cannot open /proc/self/pagemap: {error}"));
        Self {
            page_table: page_table.ok(),
        }
    }

    /// Whether all pages of the range are in memory. In doubt the answer is no.
    pub(super) fn is_resident(
        &self,
        probe: ResidencyProbe,
        mapping: &Mapping,
        range: Range<u64>,
    ) -> bool {
        let answer = match (probe, &self.page_table) {
            (ResidencyProbe::PageCache, _) => mapping.is_in_page_cache(range),
            (ResidencyProbe::PageTable, Some(page_table)) => page_table.has(mapping, range),
            (ResidencyProbe::PageTable, None) => Err(io::ErrorKind::Unsupported.into()),
        };
        answer.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;
    use tempfile::TempDir;

    /// More than one question to the kernel, and a last page that is not full.
    const LENGTH: u64 = 2 * 1024 * 1024 + 100;

    /// Names the file to the process of another user.
    const FILE_VARIABLE: &str = "HEKATE_TEST_CONTENT";
    const NOBODY: u32 = 65534;

    /// A file that is not in the page cache. It lies beside the test program, since the directory
    /// for temporary files may be in memory, whence nothing is evicted.
    fn cold_file() -> (TempDir, std::path::PathBuf) {
        let beside = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(beside.parent().unwrap()).unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = directory.path().join("content");
        fs::write(&path, vec![7; usize::try_from(LENGTH).unwrap()]).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        sys::evict(&File::open(&path).unwrap()).unwrap();
        (directory, path)
    }

    fn opened(path: &Path) -> (ResidencyProbe, Mapping) {
        let file = File::open(path).unwrap();
        let probe = ResidencyProbe::for_file(&file, &file.metadata().unwrap());
        (probe, sys::map(&file, LENGTH).unwrap())
    }

    /// What any probe must say of a cold file.
    fn assert_true_answers(probe: ResidencyProbe, mapping: &Mapping) {
        let residency = Residency::new();
        let ask = |range| residency.is_resident(probe, mapping, range);
        let (third, tail) = (32_768..49_152, LENGTH - 100..LENGTH);
        for range in [0..LENGTH, 0..1, third.clone(), tail.clone()] {
            assert!(!ask(range.clone()), "cold, {range:?}");
        }
        mapping.will_need(third.clone()).unwrap();
        mapping.populate(third.clone()).unwrap();
        assert!(ask(third.clone()), "read");
        assert!(ask(third.start + 1..third.end - 1), "read, within");
        assert!(!ask(tail.clone()), "the end is still cold");
        assert!(!ask(0..LENGTH), "partly read");
        // In steps that the kernel does not cut, so that no read-ahead fills the rest.
        for start in (0..3 << 19).step_by(1 << 19) {
            mapping.will_need(start..start + (1 << 19)).unwrap();
            mapping.populate(start..start + (1 << 19)).unwrap();
        }
        assert!(ask(0..3 << 19), "over more than one question");
        assert!(!ask(0..LENGTH), "all but the end read");
        mapping.populate(0..LENGTH).unwrap();
        for range in [0..LENGTH, 0..1, third, tail, 5..5] {
            assert!(ask(range.clone()), "all read, {range:?}");
        }
        assert!(!ask(0..LENGTH + 1), "beyond the end");
    }

    #[test]
    fn an_owner_asks_the_page_cache() {
        let (_directory, path) = cold_file();
        let (probe, mapping) = opened(&path);
        assert_eq!(probe, ResidencyProbe::PageCache);
        assert_true_answers(probe, &mapping);
        // What another mapping has read needs no reader.
        let (_, other) = opened(&path);
        assert!(Residency::new().is_resident(probe, &other, 0..LENGTH));
    }

    #[test]
    fn the_page_table_knows_what_was_populated() {
        let (_directory, path) = cold_file();
        let (_, mapping) = opened(&path);
        assert_true_answers(ResidencyProbe::PageTable, &mapping);
        let (_, other) = opened(&path);
        assert!(!Residency::new().is_resident(ResidencyProbe::PageTable, &other, 0..LENGTH));
    }

    #[test]
    fn without_a_page_table_nothing_is_resident() {
        let (_directory, path) = cold_file();
        let (_, mapping) = opened(&path);
        mapping.populate(0..LENGTH).unwrap();
        let residency = Residency { page_table: None };
        assert!(!residency.is_resident(ResidencyProbe::PageTable, &mapping, 0..LENGTH));
        assert!(residency.is_resident(ResidencyProbe::PageCache, &mapping, 0..LENGTH));
    }

    /// Runs this test again as a user who does not own the content.
    #[test]
    fn another_user_gets_true_answers() {
        if let Ok(path) = std::env::var(FILE_VARIABLE) {
            let (probe, mapping) = opened(Path::new(&path));
            assert_eq!(probe, ResidencyProbe::PageTable);
            assert!(
                mapping.is_in_page_cache(0..LENGTH).unwrap(),
                "mincore says yes about a cold file, which is why it is not asked"
            );
            assert_true_answers(probe, &mapping);
            println!("asked as another user");
            return;
        }
        let (_directory, path) = cold_file();
        let owner = fs::metadata(&path).unwrap().uid();
        let other = if owner == NOBODY { NOBODY - 1 } else { NOBODY };
        let name = "storage::residency::tests::another_user_gets_true_answers";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(FILE_VARIABLE, &path)
            .uid(other)
            .gid(other)
            .output();
        match output {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                println!("skipped: this test cannot run as another user: {error}");
            }
            output => {
                let output = output.unwrap();
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{said}{output:?}");
                assert!(said.contains("asked as another user"), "{said}");
            }
        }
    }
}
