//! The name of a connection, which read jobs, timers and the choker carry.

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
