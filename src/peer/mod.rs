//! One peer's protocol, as a pure state machine.
//!
//! [`session`] is the door: bytes and times come in as values, events and bytes to write go out. It
//! holds `machine`, the protocol, with its part `extended` (BEP 9, 10, 21); `queue` holds what waits to
//! be sent; [`close`] names every end.

pub mod close;
mod extended;
#[cfg(test)]
mod fixture;
pub mod key;
mod machine;
mod queue;
pub mod session;
