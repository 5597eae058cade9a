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
pub mod key;
pub mod machine;
pub mod queue;
pub mod transmit;
