//! The head of a request to the status listener is read or refused, and more bytes never change what
//! was read.

use hekate::status::http::{Hosts, MAX_REQUEST_BYTES, Parsed, parse};
use hekate::torrent::printable::is_hidden;

/// Panics when it does not hold for these bytes.
pub fn check(received: &[u8]) {
    let hosts = Hosts::default();
    let parsed = parse(received, &hosts);
    match &parsed {
        Parsed::Incomplete => assert!(received.len() < MAX_REQUEST_BYTES),
        Parsed::Request(request) => {
            assert!(!request.path.contains(['?', ' ', '\r', '\n']));
            let _ = request.query("after");
            let followed = [received, b"more"].concat();
            assert_eq!(parse(&followed, &hosts), parsed);
        }
        Parsed::Misdirected(host) => assert!(!host.contains(is_hidden)),
        Parsed::Refused(status) => assert!(!status.line().starts_with('2')),
    }
}
