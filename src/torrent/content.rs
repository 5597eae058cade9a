//! Whether the content of a torrent is where it should be.
