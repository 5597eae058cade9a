//! Applying the library's updates to peers, mappings and announces.

use std::collections::HashMap;
use std::sync::Arc;

use super::connections::Connections;
use super::shared::Shared;
use crate::library::catalogue::live::{Change, NewSnapshot, Removed};
use crate::library::catalogue::lookup::Library;
use crate::peer::close::CloseReason;
use crate::torrent::id::TorrentId;
use crate::workers;

/// Serves the first snapshot, and begins to announce its torrents.
pub(super) fn first_snapshot(shared: &mut Shared, new: NewSnapshot) {
    shared.process.announcing.add_index(&new.snapshot);
    let mut library = Library::default();
    drop(library.replace(new.snapshot, &new.content, new.overrides));
    shared.process.library = library;
}

/// Replaces the snapshot. Torrents that are in both keep their ids.
pub(super) fn replace_snapshot(shared: &mut Shared, new: NewSnapshot) {
    let process = &mut shared.process;
    process.announcing.replace_index(new.snapshot.clone());
    let old = (process.library).replace(new.snapshot, &new.content, new.overrides);
    process.loads.outdate_all();
    // Dropping millions of torrents takes long. Without a thread, the loop does it.
    if let Err(error) = workers::spawn("drop", move || drop(old)) {
        log::warn!("cannot start a thread that drops the old index: {error}");
    }
}

/// Applies changes of single torrents. `in_snapshot`: the current snapshot has them already.
pub(super) fn apply_changes(
    connections: &mut Connections,
    shared: &mut Shared,
    changes: Vec<Change>,
    in_snapshot: bool,
) {
    let (process, now) = (&mut shared.process, shared.now);
    let mut removed: Vec<Removed> = Vec::new();
    for change in changes {
        let library = &mut process.library;
        match change {
            Change::Removed(one) => {
                if !in_snapshot {
                    library.remove(one.info_hash);
                }
                library.forget(&one.info_hash, one.id);
                process.loads.outdate(&one.info_hash);
                process.announcing.remove(one.id, one.info_hash, now);
                removed.push(one);
            }
            Change::Relisted(one) => process.announcing.relist(&one, now),
            Change::Added(one) => {
                let metainfo = one.metainfo.as_ref().filter(|_| !in_snapshot);
                library.add(one.info_hash, one.id, metainfo.map(Arc::clone));
                process.loads.outdate(&one.info_hash);
                process.announcing.add(&one, now);
            }
        }
    }
    if !removed.is_empty() {
        close_peers_of(connections, shared, &removed);
        let ids = removed.iter().map(|removed| removed.id).collect();
        shared.process.storage.forget(&ids);
    }
}

/// Closes the peers of torrents that were removed.
fn close_peers_of(connections: &mut Connections, shared: &mut Shared, removed: &[Removed]) {
    let activity = &shared.process.activity;
    let active = removed
        .iter()
        .filter(|removed| activity.find(removed.id).is_some());
    // A map, since each of thousands of connections is checked against it.
    let reasons: HashMap<TorrentId, CloseReason> = active
        .map(|removed| match removed.of_content {
            true => (removed.id, CloseReason::ContentFailed),
            false => (removed.id, CloseReason::TorrentRemoved),
        })
        .collect();
    if reasons.is_empty() {
        return;
    }
    for key in connections.keys() {
        connections.visit(key, shared, |connection, _| {
            let torrent = connection.torrent.as_ref();
            match torrent.and_then(|torrent| reasons.get(&torrent.id)) {
                Some(reason) => Err(*reason),
                None => Ok(()),
            }
        });
    }
}
