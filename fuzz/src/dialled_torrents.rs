//! The option `--connect`: an accepted value applies to the torrents that it names and no other.

use hekate::tracker::peers::DialledTorrents;
use hekate::wire::message::InfoHash;

/// Panics when it does not hold for these bytes.
pub fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let values: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let Ok(dialled) = DialledTorrents::parse(&values) else {
        return;
    };
    assert!(!dialled.is_empty());
    let is_all = values.iter().any(|value| value == "all");
    for value in &values {
        let info_hash = InfoHash::from_hex(value);
        assert_eq!(info_hash.is_none(), value == "all");
        assert!(info_hash.is_none_or(|info_hash| dialled.has(&info_hash)));
    }
    // Twenty bytes that no list of hexadecimal digits was made of.
    let other = InfoHash([0x5a; 20]);
    let is_named = values
        .iter()
        .any(|value| InfoHash::from_hex(value) == Some(other));
    assert_eq!(dialled.has(&other), is_all || is_named);
}
