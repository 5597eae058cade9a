//! A peer's extension handshake, however hostile, is read or refused, and its name can be logged.

#![no_main]

use hekate::wire::extension;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    if let Ok(theirs) = extension::parse_handshake(payload) {
        assert_ne!(theirs.ut_metadata, Some(0));
        if let Some(client) = theirs.client {
            let name = client.to_string();
            assert!(name.chars().count() <= 64);
            assert!(!name.contains(char::is_control));
        }
    }
});
