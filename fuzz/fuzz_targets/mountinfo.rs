//! Runs `hekate_fuzz::mountinfo`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::mountinfo::check(data));
