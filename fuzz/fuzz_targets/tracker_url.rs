//! Runs `hekate_fuzz::tracker_url`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::tracker_url::check(data));
