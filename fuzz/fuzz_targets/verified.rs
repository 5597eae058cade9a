//! Runs `hekate_fuzz::verified`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::verified::check(data));
