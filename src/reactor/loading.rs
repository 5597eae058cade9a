//! From an info-hash to a torrent: at once when it is loaded, else by a reader, while the peer waits.
//!
//! Owns the state between the first 48 bytes of a handshake and the answer to it. It must not know
//! what a torrent is read from.

use std::mem;
use std::sync::Arc;

use super::connection::{Asked, Connection};
use super::shared::Shared;
use super::{Reactor, live, mark};
use crate::library::catalogue::lookup::{Answer, LoadError, Loaded};
use crate::peer::close::CloseReason;
use crate::peer::key::PeerKey;
use crate::torrent::catalogue::Torrent;
use crate::wire::message::InfoHash;

impl Connection {
    /// Answers a handshake, or has its torrent loaded: then nothing is read from the peer until
    /// [`Connection::resume`], which the time-out of the handshake bounds.
    pub(super) fn ask(
        &mut self,
        key: PeerKey,
        asked: Asked,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        match shared.library.find(&asked.info_hash, shared.now) {
            Answer::Unknown => Err(CloseReason::UnknownTorrent),
            Answer::Loaded(torrent) => {
                self.begin(&asked, torrent, shared);
                Ok(())
            }
            Answer::Known(query) => {
                // It may come again, as one who found no place.
                if shared.storage.load(key, query).is_err() {
                    shared.library.give_up(&asked.info_hash);
                    return Err(CloseReason::AtCapacity);
                }
                self.loading = Some(Box::new(asked));
                Ok(())
            }
        }
    }

    /// Goes on with a peer whose torrent was loaded, and with what it has sent behind its info-hash.
    pub(super) fn resume(
        &mut self,
        key: PeerKey,
        torrent: &Arc<Torrent>,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        let Some(asked) = self.loading.take() else {
            return Ok(());
        };
        self.begin(&asked, Arc::clone(torrent), shared);
        self.go_on(key, shared)
    }

    /// Asks again for a torrent that has come or gone while it was loaded: the peer may have asked
    /// after that.
    fn ask_again(&mut self, key: PeerKey, shared: &mut Shared) -> Result<(), CloseReason> {
        let Some(asked) = self.loading.take() else {
            return Ok(());
        };
        self.ask(key, *asked, shared)?;
        match self.loading {
            Some(_) => Ok(()),
            None => self.go_on(key, shared),
        }
    }

    /// Takes what the peer has sent while it waited.
    fn go_on(&mut self, key: PeerKey, shared: &mut Shared) -> Result<(), CloseReason> {
        let tail = mem::take(&mut self.tail);
        let outcome = self.take(key, &tail, shared);
        self.deadlines.arm(key, &shared.timeouts, &mut shared.wheel);
        outcome
    }

    fn begin(&mut self, asked: &Asked, torrent: Arc<Torrent>, shared: &mut Shared) {
        self.torrent = Some(torrent);
        if self.called.is_some() {
            // Ours was said when the peer was called.
            self.peer.handle_extensions(asked.reserved);
            return;
        }
        self.peer
            .handle_handshake(asked.reserved, asked.info_hash, shared.identity);
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
            let Some(connection) = live(&mut self.connections, key) else {
                continue;
            };
            let outcome = match &loaded {
                Loaded::Torrent(torrent) => connection.resume(key, torrent, shared),
                Loaded::Gone => Err(CloseReason::UnknownTorrent),
                Loaded::ContentFailed => Err(CloseReason::ContentFailed),
                Loaded::Stale => connection.ask_again(key, shared),
            };
            match outcome {
                Ok(()) => self.run_queue.enqueue(connection, key),
                Err(reason) => mark(&mut self.closing, connection, key, reason),
            }
        }
    }
}

#[cfg(test)]
mod tests;
