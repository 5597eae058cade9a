//! A peer's extension handshake, however hostile, is read or refused, and its name can be logged.

use hekate::wire::extension;

/// Panics when it does not hold for these bytes.
pub fn check(payload: &[u8]) {
    if let Ok(theirs) = extension::parse_handshake(payload) {
        assert_ne!(theirs.ut_metadata, Some(0));
        if let Some(client) = theirs.client {
            let name = client.to_string();
            assert!(name.chars().count() <= 64);
            assert!(!name.contains(char::is_control));
        }
    }
}
