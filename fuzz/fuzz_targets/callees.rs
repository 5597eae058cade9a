//! Runs `hekate_fuzz::callees`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::callees::check(data));
