//! An announce that is under way, as sockets remember it.
//!
//! Owns four small facts. It must not know how it travels.

use super::announce::Event;

/// Which entry of the schedule is announced, and what it said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) entry: u32,
    pub(super) told: Event,
    /// Whether it has been refused for a connection id that was too old (BEP 15).
    pub(super) renewed: bool,
    /// Its redirect, by the number that the announcer has given it.
    pub(super) detour: Option<usize>,
}
