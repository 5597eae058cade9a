//! The types that the coordinator exchanges with both transports.
//!
//! Room is reserved for each family before an announce leaves its queue, since it waits until all
//! families that are awaited have room. It is then used or released.

use std::net::{IpAddr, SocketAddr};

use crate::timers::Time;
use crate::tracker::announce::Answer;
use crate::tracker::request::{Request, RouteId};
use crate::tracker::response::Response;
use crate::tracker::url::Site;

/// Where a tracker is reached now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint<'a> {
    pub(super) site: &'a Site,
    pub(super) address: IpAddr,
    /// It is known to answer.
    pub(super) is_up: bool,
    /// The time-out of a UDP connect request.
    pub(super) connect_timeout_ms: u64,
}

impl Endpoint<'_> {
    pub(super) fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.site.port)
    }
}

/// Why no slot can be reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// Until an event of the same route.
    UntilEvent,
    /// Until then: other trackers use all connections.
    Until(Time),
}

/// What has happened on a transport.
#[derive(Debug)]
pub(super) enum TransportEvent {
    /// A request brought a response (HTTP).
    Responded(Request, Response),
    /// A request was answered (UDP). The answer named these peers, if the request wants any.
    Answered(Request, Answer, Vec<SocketAddr>),
    /// A request was not answered, though others were.
    Unanswered(Request),
    /// Requests are to be sent again at once: what they were sent over broke.
    Again(RouteId, Vec<Request>),
    /// The tracker failed.
    Failed {
        route: RouteId,
        /// The request that brought it about.
        blamed: Option<Request>,
        /// Requests that only lost time.
        returned: Vec<Request>,
        why: String,
    },
    /// The tracker does not answer at all (UDP).
    Silent(RouteId),
    /// A request was sent again (UDP).
    Resent(RouteId),
    /// There may be room for another request.
    Room(RouteId),
}
