//! Hekate, a BitTorrent seeder: it only uploads.
//!
//! The modules in reading order, from bytes to the loop:
//!
//! | module       | subject                                                                |
//! |--------------|------------------------------------------------------------------------|
//! | [`bencode`]  | a reader of bencode, lenient or strict; pure                           |
//! | [`wire`]     | bytes ↔ messages; pure                                                 |
//! | [`mse`]      | encrypted connections (MSE/PE): the handshake, RC4; pure               |
//! | [`timers`]   | the time, each connection's deadlines, the alarms for them; pure   |
//! | [`peer`]     | one peer's protocol: legal messages, messages to send; pure            |
//! | [`choker`]   | upload slots, credit and turn order: all of fairness; pure             |
//! | [`super_seeding`] | which leecher is shown which piece, while we are the only source; pure |
//! | [`rate`]     | rate limits: one token bucket, for uploads and announces; pure         |
//! | [`torrent`]  | metainfo, block → file extents, why a torrent is refused               |
//! | [`library`]  | the index of all torrents on disk, made and read                       |
//! | [`tracker`]  | announces: their content, their schedule, and the sockets for them     |
//! | [`storage`]  | mapped content, its residency, reads, verified pieces                  |
//! | [`metrics`]  | counters, the snapshot of them, and the text for Prometheus            |
//! | [`status`]   | the status listener: HTTP, JSON, a page                                |
//! | [`daemon`]   | start-up, dropping privileges, the service manager                     |
//! | [`reactor`]  | the loop: sockets, slab, and every part above as a plain field         |
//! | [`config`]   | the options with their meaning and bounds                              |
//! | [`cli`]      | the command line                                                       |
//! | [`commands`] | the commands that read a library and do not seed                       |
//! | [`progress`] | the progress of a long run, on standard error                          |
//! | [`logging`]  | the log: its file, its format, repeated messages                       |
//! | [`locked`]   | a file that one process locks                                          |
//! | [`net`]      | non-blocking sockets as every part opens them                          |
//! | [`disks`]    | which disk a path lies on, told by the mount table                     |
//! | [`workers`]  | bounded pools of threads for what may block                           |
//! | [`fuzzing`]  | doors for the fuzz targets to private parsers                          |
//! | [`sys`]      | every `unsafe` line: system calls that no library makes safe           |
//!
//! Calls go down; answers come back as values. Only [`reactor`] imports everything.

pub mod bencode;
pub mod choker;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod disks;
pub mod fuzzing;
pub mod library;
pub mod locked;
pub mod logging;
pub mod metrics;
mod mounts;
pub mod mse;
pub mod net;
pub mod peer;
pub mod progress;
pub mod rate;
pub mod reactor;
pub mod status;
pub mod storage;
pub mod super_seeding;
pub mod sys;
pub mod timers;
pub mod torrent;
pub mod tracker;
pub mod wire;
pub mod workers;
