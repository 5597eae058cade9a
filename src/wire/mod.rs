//! The peer wire protocol: bytes ↔ messages (BEP 3, 6, 9, 10, 21, 29).
//!
//! Framing, encoding and the types of messages. Pure.

pub mod decoder;
pub mod encoder;
pub mod extension;
pub mod handshake;
pub mod message;
pub mod utp;
