//! Runs `hekate_fuzz::metadata_message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::metadata_message::check(data));
