//! Runs `hekate_fuzz::utp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::utp::check(data));
