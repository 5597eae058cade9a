//! A metadata message, however hostile, is read or refused; what follows it changes nothing.

use hekate::wire::extension;

/// Panics when it does not hold for these bytes.
pub fn check(payload: &[u8]) {
    let read = extension::parse_metadata(payload);
    if read.is_ok() {
        let followed = [payload, b"metadata"].concat();
        assert_eq!(extension::parse_metadata(&followed), read);
    }
}
