//! Runs `hekate_fuzz::metainfo`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::metainfo::check(data));
