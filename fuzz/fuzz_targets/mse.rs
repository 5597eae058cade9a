//! Runs `hekate_fuzz::mse`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::mse::check(data));
