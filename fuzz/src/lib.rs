//! What each fuzz target asserts of its input, one module for each.
//!
//! `tests/corpus.rs` includes this file too and runs the kept inputs in `corpus/` through it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a fuzz target fails by panicking"
)]

pub mod bencode;
pub mod configuration;
pub mod decoder;
pub mod dialled_torrents;
pub mod extension_handshake;
pub mod index;
pub mod metadata_message;
pub mod metainfo;
pub mod mountinfo;
pub mod mse;
pub mod session;
pub mod status_request;
pub mod tracker_answer;
pub mod tracker_packet;
pub mod tracker_response;
pub mod tracker_url;
pub mod utp;
pub mod verified;

/// Checks one input and panics when it does not hold.
pub type Check = fn(&[u8]);

/// The targets by name.
pub const TARGETS: &[(&str, Check)] = &[
    ("bencode", bencode::check),
    ("configuration", configuration::check),
    ("decoder", decoder::check),
    ("dialled_torrents", dialled_torrents::check),
    ("extension_handshake", extension_handshake::check),
    ("index", index::check),
    ("metadata_message", metadata_message::check),
    ("metainfo", metainfo::check),
    ("mountinfo", mountinfo::check),
    ("mse", mse::check),
    ("session", session::check),
    ("status_request", status_request::check),
    ("tracker_answer", tracker_answer::check),
    ("tracker_packet", tracker_packet::check),
    ("tracker_response", tracker_response::check),
    ("tracker_url", tracker_url::check),
    ("utp", utp::check),
    ("verified", verified::check),
];
