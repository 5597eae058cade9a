//! The peer wire protocol: bytes ↔ messages (BEP 3, 6, 9, 10, 21, 29).
//!
//! Owns framing, encoding and the vocabulary of messages. It is pure: it must not know sockets,
//! clocks, torrents or anything else of this crate.

pub mod decoder;
pub mod encoder;
pub mod extension;
pub mod handshake;
mod id;
pub mod message;
pub mod utp;
