//! Runs `hekate_fuzz::status_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::status_request::check(data));
