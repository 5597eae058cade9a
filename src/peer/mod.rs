//! One peer's protocol, as a pure state machine.
//!
//! Owns what is legal now, what is queued and what must be sent next. It must not know sockets,
//! files or the clock: messages and times come in as values, and answers go out as values.
//!
//! [`machine`] is the protocol, with its two halves `extended` (BEP 9, 10, 21) and [`transmit`];
//! [`queue`] holds what waits; [`close`] names every end.

pub mod close;
mod extended;
#[cfg(test)]
mod fixture;
pub mod machine;
pub mod queue;
pub mod transmit;

/// Names one connection for ever: the slot is used again, the pair never is.
///
/// It travels with read jobs and timers, so that a late result cannot reach a new peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerKey {
    /// The slot in the slab.
    pub index: u32,
    /// How many connections have been accepted when this one was.
    pub generation: u32,
}
