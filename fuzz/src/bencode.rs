//! What the strict grammar accepts, the lenient one accepts with the same values, and every value
//! lies in the input.

use hekate::bencode::{BencodeError, Dictionary, List, Value, offset_in};

type Entries<'a> = Result<(Vec<(&'a [u8], Value<'a>)>, &'a [u8]), BencodeError>;

fn entries<'a>(dictionary: Result<Dictionary<'a>, BencodeError>) -> Entries<'a> {
    let mut dictionary = dictionary?;
    let entries: Result<Vec<_>, _> = dictionary.by_ref().collect();
    Ok((entries?, dictionary.rest()))
}

/// Opens every value inside. What the strict grammar accepts opens without an error.
fn walk(value: Value<'_>, is_strict: bool) {
    match value {
        Value::Integer(integer) => {
            assert!(
                integer
                    .exact()
                    .is_none_or(|exact| exact == integer.saturated())
            );
        }
        Value::Bytes(_) => {}
        Value::List(list) => {
            for item in List::open(list) {
                match item {
                    Ok(item) => walk(item, is_strict),
                    Err(error) => assert!(!is_strict, "{error}"),
                }
            }
        }
        Value::Dictionary(dictionary) => match entries(Dictionary::open(dictionary)) {
            Ok((entries, rest)) => {
                assert!(rest.is_empty());
                for (_, value) in entries {
                    walk(value, is_strict);
                }
            }
            Err(error) => assert!(!is_strict, "{error}"),
        },
    }
}

/// Panics when it does not hold for these bytes.
pub fn check(data: &[u8]) {
    let lenient = entries(Dictionary::open(data));
    if let Ok((lenient, _)) = &lenient {
        lenient.iter().for_each(|(_, value)| walk(*value, false));
    }
    let Ok((strict, rest)) = entries(Dictionary::open_strict(data)) else {
        return;
    };
    assert_eq!(rest.len(), data.len() - offset_in(data, rest));
    let whole = &data[..offset_in(data, rest)];
    assert_eq!(
        entries(Dictionary::open_strict(whole)),
        Ok((strict.clone(), &[][..]))
    );
    assert_eq!(lenient, Ok((strict.clone(), rest)));
    for (key, value) in strict {
        assert!(offset_in(data, key) < whole.len());
        walk(value, true);
    }
}
