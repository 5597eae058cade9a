//! The table is consistent, and values are read as they are meant.

use super::*;
use std::collections::BTreeSet;

fn apply(setting: &Setting, config: &mut Config, value: &str) {
    let values = [value.to_owned()];
    setting.apply(config, &values, Path::new("")).unwrap();
}

#[test]
fn what_is_written_as_the_default_is_the_default() {
    for setting in SETTINGS {
        let mut config = Config::default();
        if let Value(value) = setting.default {
            apply(setting, &mut config, value);
        }
        assert_eq!(config, Config::default(), "{}", setting.name);
    }
}

#[test]
fn every_example_is_a_legal_value_that_changes_something() {
    for setting in SETTINGS {
        if let Words(_, example) = setting.default {
            let mut config = Config::default();
            apply(setting, &mut config, example);
            assert_ne!(config, Config::default(), "{}", setting.name);
        }
    }
}

#[test]
fn no_two_settings_share_a_name() {
    let names: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    let shorts: BTreeSet<char> = SETTINGS
        .iter()
        .filter_map(|setting| setting.short)
        .collect();
    assert_eq!(names.len(), SETTINGS.len());
    let short = SETTINGS.iter().filter(|setting| setting.short.is_some());
    assert_eq!(shorts.len(), short.count());
    for setting in SETTINGS {
        assert!(setting.excludes.is_none_or(|other| names.contains(other)));
    }
}

#[test]
fn bytes_are_read_with_units_and_without() {
    assert_eq!(bytes("100"), Ok(100));
    assert_eq!(bytes("2k"), Ok(2048));
    assert_eq!(bytes("1MiB"), Ok(1 << 20));
    assert_eq!(bytes("3G"), Ok(3 << 30));
    for wrong in [
        "",
        "K",
        "-1",
        "1.5M",
        "0",
        "0K",
        "5 lightyears",
        "99999999T",
    ] {
        assert!(bytes(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn values_out_of_their_bounds_are_refused() {
    for (name, value) in [
        ("max-unchoked", "0"),
        ("max-unchoked-time", "0"),
        ("max-unchoked-time", "99999999999"),
        ("port", "65536"),
        ("bind", "everywhere"),
        ("ipv4", "yes"),
        ("verify", "sizes"),
        ("status", "6970"),
        ("status", "unix:"),
        ("user", ":group"),
        ("user", "name:"),
    ] {
        assert!(
            Setting::find(name)
                .unwrap()
                .check(&[value.to_owned()])
                .is_err(),
            "{name}"
        );
    }
}
