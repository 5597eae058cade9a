//! A metadata message, however hostile, is read or refused; what follows it changes nothing.

#![no_main]

use hekate::wire::extension;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let read = extension::parse_metadata(payload);
    if read.is_ok() {
        let followed = [payload, b"metadata"].concat();
        assert_eq!(extension::parse_metadata(&followed), read);
    }
});
