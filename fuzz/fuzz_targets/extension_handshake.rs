//! Runs `hekate_fuzz::extension_handshake`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::extension_handshake::check(data));
