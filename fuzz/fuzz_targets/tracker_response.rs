//! Runs `hekate_fuzz::tracker_response`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::tracker_response::check(data));
