//! Runs `hekate_fuzz::dialled_torrents`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hekate_fuzz::dialled_torrents::check(data));
