//! From an info-hash to a torrent: at once when it is loaded, else by a reader, while the peer waits.
//!
//! Owns what happens between [`Phase::Loading`] and the answer to the handshake.

use std::sync::Arc;

use super::Reactor;
use super::connection::Connection;
use super::shared::Shared;
use crate::library::catalogue::lookup::{Answer, LoadError, Loaded};
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::peer::session::Phase;
use crate::torrent::catalogue::Torrent;
use crate::wire::message::InfoHash;

impl Connection {
    /// Finds the torrent that the peer has named, or has it loaded: then nothing is read from the peer
    /// until [`Connection::resume`], which the time-out of the handshake bounds.
    pub(super) fn find_torrent(
        &mut self,
        info_hash: InfoHash,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        match shared.library.find(&info_hash, shared.now) {
            Answer::Unknown => Err(CloseReason::UnknownTorrent),
            Answer::Loaded(torrent) => self.resume(&torrent, shared),
            Answer::Known(query) => {
                // The peer may come again, like one that found us at capacity.
                if shared.storage.load(self.key, query).is_err() {
                    shared.library.give_up(&info_hash);
                    return Err(CloseReason::AtCapacity);
                }
                Ok(())
            }
        }
    }

    /// Goes on with a peer whose torrent is loaded, and with what it has sent behind its info-hash.
    pub(super) fn resume(
        &mut self,
        torrent: &Arc<Torrent>,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        self.torrent = Some(Arc::clone(torrent));
        let tail = (self.session).torrent_loaded(torrent.shape, shared.identity);
        match tail.is_empty() {
            true => Ok(()),
            false => self.take(&tail, shared),
        }
    }
}

/// Logs why a torrent could not be loaded. Peers can cause this line often, so it is limited like any
/// other; a change that follows from it has a line of its own.
fn log_failure(error: &LoadError) {
    match error {
        LoadError::Withdrawn(_) => log::debug!("not served: {error}"),
        _ => log::warn!("not served: {error}"),
    }
}

impl Reactor {
    /// Hands a torrent to those who wait for it, or lets them go when there is none.
    pub(super) fn hand_out(
        &mut self,
        peers: &[PeerKey],
        info_hash: InfoHash,
        result: Result<Option<Arc<Torrent>>, LoadError>,
    ) {
        let shared = &mut self.shared;
        if let Err(error) = &result {
            log_failure(error);
            if let (Some(live), Some(path)) = (&self.live, error.path())
                && !error.is_lack_of_descriptors()
            {
                live.examine(path);
            }
        }
        let loaded = shared.library.finish_load(info_hash, result, shared.now);
        for &key in peers {
            self.connections.visit(key, shared, |connection, shared| {
                let Phase::Loading(asked) = connection.session.phase() else {
                    unreachable!("a torrent is loaded for a peer that waits for it");
                };
                let asked = asked.info_hash;
                match &loaded {
                    Loaded::Torrent(torrent) => connection.resume(torrent, shared),
                    Loaded::Gone => Err(CloseReason::UnknownTorrent),
                    Loaded::ContentFailed => Err(CloseReason::ContentFailed),
                    // It has come or gone while it was loaded: the peer may have asked after that.
                    Loaded::Stale => connection.find_torrent(asked, shared),
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
