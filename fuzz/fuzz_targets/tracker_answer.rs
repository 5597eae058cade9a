//! Runs `hekate_fuzz::tracker_answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::tracker_answer::check(data));
