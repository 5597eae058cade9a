//! The announcer's part for peers that are to be called.
//!
//! Owns what trackers have named until it is fetched. It must not know who calls them, nor how.

use std::net::SocketAddr;

use super::Announcer;
use crate::tracker::announce::Request;
use crate::tracker::announce::{PEERS_TO_CALL, PEERS_WANTED};
use crate::tracker::family::Family;
use crate::tracker::lists::TrackerId;
use crate::tracker::peers::may_be_called;
use crate::wire::message::InfoHash;

/// Peers that wait to be fetched. They are fetched each turn, so only a flood of answers is cut.
const MAX_FOUND: usize = 4096;

/// What trackers have named since it was asked for last.
#[derive(Debug, Default)]
pub(super) struct Callable {
    found: Vec<(InfoHash, SocketAddr)>,
}

impl Announcer {
    /// The peers that trackers have named since this was asked last, each with its torrent.
    pub fn take_peers(&mut self) -> Vec<(InfoHash, SocketAddr)> {
        std::mem::take(&mut self.callable.found)
    }

    /// How many peers an announce asks for.
    pub(super) fn peers_wanted(&self, info_hash: &InfoHash) -> u32 {
        if self.config.callees.has(info_hash) {
            PEERS_TO_CALL
        } else {
            PEERS_WANTED
        }
    }

    /// Keeps the peers that an answer has named and that may be called, if anybody wants them.
    pub(super) fn named_peers(
        &mut self,
        number: TrackerId,
        family: Family,
        request: Request,
        peers: impl FnOnce() -> Vec<SocketAddr>,
    ) {
        if self.config.callees.is_empty() {
            return;
        }
        let due = self.schedule.due(request.entry, family);
        let info_hash = due.map(|due| due.announce.info_hash);
        let info_hash = info_hash.filter(|info_hash| self.config.callees.has(info_hash));
        let address = self.route(number, family).address();
        let (Some(info_hash), Some(address)) = (info_hash, address) else {
            return;
        };
        let room = MAX_FOUND.saturating_sub(self.callable.found.len());
        let peers = peers().into_iter();
        let callable = peers.filter(|peer| may_be_called(*peer, address));
        let found = callable.map(|peer| (info_hash, peer)).take(room);
        self.callable.found.extend(found);
    }
}
