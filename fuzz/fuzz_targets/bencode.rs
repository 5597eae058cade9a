//! The walk over bencode and the sorting of keys agree on what is well-formed, and sorting is done
//! when it says so.

#![no_main]

use hekate::torrent::bencode::{sort_keys, survey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let found = match survey(data) {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(sort_keys(data), Err(error));
            return;
        }
    };
    if let Some(info) = &found.info {
        assert!(info.start < info.end && info.end < found.end);
    }
    let whole = &data[..found.end];
    assert_eq!(survey(whole).as_ref(), Ok(&found));
    let sorted = sort_keys(data).expect("the walk found it well-formed");
    assert_eq!(found.sorted, sorted == whole);
    let again = survey(&sorted).expect("what is sorted is well-formed");
    assert!(again.sorted && again.end == sorted.len());
    assert_eq!(again.info.is_some(), found.info.is_some());
});
