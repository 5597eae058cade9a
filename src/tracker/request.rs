//! An announce on its way to a tracker, resolved once when it leaves its queue.

use std::sync::Arc;

use super::announce::{Announce, PEERS_TO_DIAL, PEERS_WANTED};
use super::entries::EntryId;
use super::family::Family;
use super::lists::TrackerId;

/// One tracker by one family of addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct RouteId {
    pub(super) tracker: TrackerId,
    pub(super) family: Family,
}

impl RouteId {
    /// A tracker by each family.
    pub(super) fn all_of(tracker: TrackerId) -> [Self; 2] {
        Family::ALL.map(|family| Self { tracker, family })
    }
}

/// Where redirects have led a request.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct RedirectTarget {
    /// The tracker at that site.
    pub(super) tracker: TrackerId,
    /// Path and query there.
    pub(super) path: Box<str>,
    /// Redirects that were followed.
    pub(super) hops: u32,
}

/// An announce on its way.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Request {
    /// Its entry in the schedule.
    pub(super) entry: EntryId,
    /// The tracker in whose queue the entry is.
    pub(super) origin: RouteId,
    pub(super) announce: Announce,
    /// Path and query at the origin.
    pub(super) path: Arc<str>,
    /// Peers of the torrent are dialled.
    pub(super) wants_peers: bool,
    /// It was refused once because its connection id was too old (BEP 15).
    pub(super) is_renewed: bool,
    pub(super) redirect: Option<Box<RedirectTarget>>,
}

impl Request {
    /// Where it is sent.
    pub(super) fn route(&self) -> RouteId {
        let redirect = self.redirect.as_ref();
        RouteId {
            tracker: redirect.map_or(self.origin.tracker, |redirect| redirect.tracker),
            ..self.origin
        }
    }

    /// Path and query where it is sent.
    pub(super) fn target_path(&self) -> &str {
        let redirect = self.redirect.as_ref();
        redirect.map_or(&*self.path, |redirect| &*redirect.path)
    }

    /// How many peers the tracker is asked for.
    pub(super) fn peers_wanted(&self) -> u32 {
        if self.wants_peers {
            PEERS_TO_DIAL
        } else {
            PEERS_WANTED
        }
    }

    /// Redirects that were followed.
    pub(super) fn hops(&self) -> u32 {
        self.redirect.as_ref().map_or(0, |redirect| redirect.hops)
    }
}
