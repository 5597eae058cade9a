//! Runs `hekate_fuzz::session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::session::check(data));
