//! The library: info-hash to torrent.
