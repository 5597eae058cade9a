//! Runs `hekate_fuzz::bencode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::bencode::check(data));
