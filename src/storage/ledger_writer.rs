//! The file of verified pieces, and the thread that writes it.
//!
//! Entries are appended, and the last one of a torrent holds. A file that has grown too long is
//! rewritten without superseded entries. It is a cache: an entry that a crash has cut is removed, and a
//! file of another format is overwritten. The thread may wait for a disk; the loop waits for it only at
//! the end of the process, for [`END_PATIENCE`].

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::ledger::ledger_file::{self, LedgerEntry};
use crate::locked;
use crate::torrent::printable::Printable;
use crate::wire::message::InfoHash;
use crate::workers;

/// What the file begins with. The number is that of the form.
const MAGIC: &[u8] = b"hekate verified 1\n";

/// A longer file is written anew. It is read whole at the start, before there are peers.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How much stays then, the newest: as much as the ledger holds.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// How long the end waits for what is not written yet. A disk that hangs costs some hashing later.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// The loop's end of the thread.
pub(super) struct LedgerWriter {
    batches: SyncSender<Vec<u8>>,
    ended: Receiver<()>,
}

impl LedgerWriter {
    /// Opens the file, starts the thread, and hands out what was remembered, oldest first.
    ///
    /// # Errors
    /// Those of the file system; `WouldBlock` while another process has the file.
    pub(super) fn begin(path: PathBuf) -> io::Result<(Self, Vec<LedgerEntry>)> {
        let (mut file, known) = LedgerFile::open(path)?;
        let (batches, queue) = sync_channel::<Vec<u8>>(1);
        let (end, ended) = sync_channel(1);
        let work = move || {
            for batch in queue {
                if let Err(error) = file.append(&batch) {
                    let path = Printable::path(&file.path);
                    log::warn!("{path}: {error}: verified pieces are not saved");
                    break;
                }
            }
            // Nobody listens unless the process ends.
            let _ = end.send(());
        };
        workers::spawn("verified", work)?;
        Ok((Self { batches, ended }, known))
    }

    /// Has entries written. Never blocks.
    ///
    /// # Errors
    /// The entries, when those before are being written still; `None` when nothing is written any
    /// more, which the log has said.
    pub(super) fn write(&self, batch: Vec<u8>) -> Result<(), Option<Vec<u8>>> {
        self.batches.try_send(batch).map_err(|error| match error {
            TrySendError::Full(batch) => Some(batch),
            TrySendError::Disconnected(_) => None,
        })
    }

    /// Writes the last entries, for a moment at most.
    pub(super) fn end(self, batch: Vec<u8>) {
        // Full when the disk is slow: then those are lost.
        let _ = self.batches.try_send(batch);
        drop(self.batches);
        let _ = self.ended.recv_timeout(END_PATIENCE);
    }
}

/// The file.
struct LedgerFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LedgerFile {
    fn open(path: PathBuf) -> io::Result<(Self, Vec<LedgerEntry>)> {
        let mut file = locked::open(&path)?;
        let mut bytes = Vec::new();
        // It is longer than it should be when a crash came before it was written anew.
        if file.metadata()?.len() <= 2 * FILE_BYTES_MAX {
            file.read_to_end(&mut bytes)?;
        }
        let (known, mut length) = newest(&bytes);
        if length == 0 {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(MAGIC)?;
            length = MAGIC.len();
        }
        let length = length as u64;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        let known = known.into_iter().map(|(kept, _)| kept).collect();
        Ok((Self { path, file, length }, known))
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        self.file.write_all(batch)?;
        self.length += batch.len() as u64;
        match self.length > FILE_BYTES_MAX {
            true => self.shorten(),
            false => Ok(()),
        }
    }

    /// Writes the file anew with what holds.
    fn shorten(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut bytes)?;
        let (known, _) = newest(&bytes);
        let mut room = KEPT_BYTES_MAX;
        let fits = known.iter().rev().take_while(|(_, entry)| {
            let left = room.checked_sub(entry.len());
            room = left.unwrap_or(room);
            left.is_some()
        });
        let stay: Vec<&[u8]> = fits.map(|(_, entry)| *entry).collect();
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let mut new = locked::open(Path::new(&name))?;
        new.set_len(0)?;
        new.write_all(MAGIC)?;
        for entry in stay.iter().rev() {
            new.write_all(entry)?;
        }
        new.sync_all()?;
        fs::rename(&name, &self.path)?;
        self.length = new.stream_position()?;
        self.file = new;
        Ok(())
    }
}

/// The last entry of each torrent with its bytes, in their order, and where the last whole one ends;
/// 0 when the file is none of ours.
fn newest(bytes: &[u8]) -> (Vec<(LedgerEntry, &[u8])>, usize) {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return (Vec::new(), 0);
    };
    let mut places: HashMap<InfoHash, usize> = HashMap::new();
    let mut all = Vec::new();
    while let Some((kept, length)) = ledger_file::decode(rest) {
        let (entry, after) = rest.split_at(length);
        if let Some(before) = places.insert(kept.info_hash, all.len())
            && let Some(superseded) = all.get_mut(before)
        {
            *superseded = None;
        }
        all.push(Some((kept, entry)));
        rest = after;
    }
    let end = bytes.len() - rest.len();
    (all.into_iter().flatten().collect(), end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locked::tests::soon;
    use crate::storage::ledger::ledger_file::samples::entry;
    use std::io::ErrorKind;

    fn names(known: &[LedgerEntry]) -> Vec<u8> {
        known.iter().map(|kept| kept.info_hash.0[0]).collect()
    }

    fn open(path: &Path) -> (LedgerFile, Vec<u8>) {
        let (file, known) = soon(|| LedgerFile::open(path.to_path_buf()));
        (file, names(&known))
    }

    #[test]
    fn entries_are_read_back_and_the_last_of_each_torrent_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verified");
        let (ledger_writer, known) = LedgerWriter::begin(path.clone()).unwrap();
        assert!(known.is_empty());
        let held = LedgerWriter::begin(path.clone()).err().unwrap();
        assert_eq!(held.kind(), ErrorKind::WouldBlock);
        ledger_writer.end([entry(1, 5), entry(2, 6), entry(1, 7)].concat());
        let (file, known) = soon(|| LedgerFile::open(path.clone()));
        assert_eq!(names(&known), [2, 1]);
        assert_eq!(ledger_file::decode(&entry(1, 7)).unwrap().0, known[1]);
        assert_eq!(file.length, file.file.metadata().unwrap().len());
    }

    #[test]
    fn an_entry_cut_by_a_crash_is_removed_and_the_file_continues() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verified");
        let whole = [MAGIC, &entry(1, 5), &entry(2, 5)].concat();
        let second = MAGIC.len() + entry(1, 5).len();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (mut file, known) = open(&path);
            let expected: &[u8] = match length {
                _ if length == whole.len() => &[1, 2],
                _ if length >= second => &[1],
                _ => &[],
            };
            assert_eq!(known, expected, "{length}");
            file.append(&entry(3, 5)).unwrap();
            drop(file);
            assert_eq!(open(&path).1, [expected, &[3]].concat(), "{length}");
        }
    }

    #[test]
    fn a_file_of_another_format_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verified");
        fs::write(&path, "hekate verified 2\nsomething else").unwrap();
        assert!(open(&path).1.is_empty());
        assert_eq!(fs::read(&path).unwrap(), MAGIC);
    }

    #[test]
    fn a_file_that_is_too_long_is_rewritten_without_superseded_entries() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verified");
        let (mut file, _) = open(&path);
        let batch = [entry(1, 5), entry(2, 5)].concat().repeat(9000);
        while file.length + batch.len() as u64 <= FILE_BYTES_MAX {
            file.append(&batch).unwrap();
        }
        file.append(&entry(3, 5)).unwrap();
        file.append(&batch).unwrap();
        let short = (MAGIC.len() + 3 * entry(1, 5).len()) as u64;
        assert_eq!(file.length, short);
        file.append(&entry(4, 5)).unwrap();
        assert!(locked::open(&path).is_err(), "the new one is not ours");
        drop(file);
        assert_eq!(open(&path).1, [3, 1, 2, 4]);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn the_newest_entries_stay_when_not_all_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verified");
        let (mut file, _) = open(&path);
        let large = 40_000_000;
        for name in 1..=14 {
            file.append(&entry(name, large)).unwrap();
        }
        drop(file);
        let known = open(&path).1;
        assert!(
            known.ends_with(&[13, 14]) && !known.contains(&1),
            "{known:?}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_ends_the_thread_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verified");
        let (mut file, _) = open(&path);
        file.file = File::open("/dev/full").unwrap();
        assert!(file.append(&entry(1, 5)).is_err());
    }
}
