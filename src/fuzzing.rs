//! Doors for the fuzz targets and for the test of their corpus to parsers that are private.

use std::path::PathBuf;

use crate::mounts;
use crate::storage::ledger::ledger_file;
use crate::wire::message::InfoHash;

/// The mount points in a table as `proc_pid_mountinfo(5)` describes it.
#[must_use]
pub fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let mounts = mounts::parse(table).into_iter();
    mounts.map(|mount| mount.point).collect()
}

/// The torrent of the entry that the bytes begin with, in the file of verified pieces without its
/// first line, and the length of the entry in bytes. `None` when there is no whole entry.
#[must_use]
pub fn verified_entry(bytes: &[u8]) -> Option<(InfoHash, usize)> {
    let (kept, length) = ledger_file::decode(bytes)?;
    Some((kept.info_hash, length))
}
