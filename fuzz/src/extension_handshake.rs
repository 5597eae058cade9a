//! A peer's extension handshake, however hostile, is read or refused.

use hekate::wire::extension;

/// Panics when it does not hold for these bytes.
pub fn check(payload: &[u8]) {
    if let Ok(theirs) = extension::parse_handshake(payload) {
        assert_ne!(theirs.ut_metadata, Some(0));
    }
}
