//! Runs `hekate_fuzz::index`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::index::check(data));
