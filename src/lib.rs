//! Hekate, a BitTorrent seeder: it only uploads.
//!
//! The modules in reading order, from bytes to the machine that turns:
//!
//! | module       | reason to exist                                                        |
//! |--------------|------------------------------------------------------------------------|
//! | [`bencode`]  | a reader of bencode, lenient or strict; pure                           |
//! | [`wire`]     | bytes ↔ messages; pure                                                 |
//! | [`timers`]   | the time, each connection's deadlines, the wheel that finds them; pure |
//! | [`peer`]     | one peer's protocol: what is legal now, what must be sent; pure        |
//! | [`choker`]   | upload slots, credit and turn order: all of fairness; pure             |
//! | [`rate`]     | rate limits: one token bucket, for uploads and announces; pure         |
//! | [`torrent`]  | metainfo, block → file extents, the catalogue of what is served        |
//! | [`library`]  | the index of all torrents on disk, made and read                       |
//! | [`tracker`]  | announces: what is said to trackers, when, and the sockets for it      |
//! | [`storage`]  | mapped content, "would this block?", the bounded pool of readers       |
//! | [`metrics`]  | what is counted, and how Prometheus reads it                           |
//! | [`status`]   | what the status listener says                                          |
//! | [`daemon`]   | how the process is started, what it gives up, whom it tells             |
//! | [`reactor`]  | the loop: sockets, slab, and every part above as a plain field         |
//! | [`config`]   | the options with their meaning and bounds                              |
//! | [`cli`]      | which command, and what it was given                                   |
//! | [`commands`] | the commands that read a library and do not seed                       |
//! | [`progress`] | how far a long run is, on standard error                               |
//! | [`logging`]  | where the log goes, how a line looks, what is held back                |
//! | [`locked`]   | a file that one process has for itself                                 |
//! | [`net`]      | non-blocking sockets as every part opens them                          |
//! | [`workers`]  | bounded pools of threads for what may block                           |
//! | [`table`]    | rows that are found by an id of their own type                         |
//! | [`fuzzing`]  | doors for the fuzz targets to private parsers                          |
//! | [`sys`]      | every `unsafe` line, and the system calls that rustix lacks            |
//!
//! Calls go down; answers come back as values. Only [`reactor`] imports everything.

pub mod bencode;
pub mod choker;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod fuzzing;
pub mod library;
pub mod locked;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod peer;
pub mod progress;
pub mod rate;
pub mod reactor;
pub mod status;
pub mod storage;
pub mod sys;
pub mod table;
pub mod timers;
pub mod torrent;
pub mod tracker;
pub mod wire;
pub mod workers;
