//! A lenient reader of bencoded dictionaries (BEP 3), for what peers send.
//!
//! Real clients send unsorted keys, repeated keys and integers of any size, so a strict parser
//! would refuse half of them. This one borrows, allocates nothing and never recurses: its cost is
//! one pass over the input, whatever the input. It must not know what the keys mean.

use thiserror::Error;

/// How deep lists and dictionaries may nest in a value. Known extensions use three levels.
pub const MAX_DEPTH: u32 = 32;

/// Why bytes are not a bencoded dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BencodeError {
    /// The input ends inside a value, or a string claims more bytes than follow.
    #[error("the dictionary is cut short")]
    Truncated,
    /// A byte stands where no bencoded value allows it.
    #[error("not a bencoded dictionary")]
    Malformed,
    /// Lists and dictionaries nest deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// One value of a dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// An integer; one that does not fit is the nearest that does.
    Integer(i64),
    /// A string of bytes.
    Bytes(&'a [u8]),
    /// A whole dictionary, `d` and `e` included, to be opened or passed over.
    Dictionary(&'a [u8]),
    /// A whole list, `l` and `e` included.
    List(&'a [u8]),
}

/// The entries of one dictionary in the order they were sent.
///
/// After the iterator has answered `None`, [`Dictionary::rest`] is what follows the dictionary.
#[derive(Clone, Debug)]
pub struct Dictionary<'a> {
    rest: &'a [u8],
    ended: bool,
}

impl<'a> Dictionary<'a> {
    /// Starts reading at the `d`. Nothing after it has been checked yet.
    pub fn open(input: &'a [u8]) -> Result<Self, BencodeError> {
        match input.split_first() {
            Some((b'd', rest)) => Ok(Self { rest, ended: false }),
            Some(_) => Err(BencodeError::Malformed),
            None => Err(BencodeError::Truncated),
        }
    }

    /// The bytes that have not been read: after the last entry, what follows the dictionary.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn read_entry(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, BencodeError> {
        if let Some((b'e', rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(None);
        }
        let key = read_bytes(&mut self.rest)?;
        let value = read_value(&mut self.rest)?;
        Ok(Some((key, value)))
    }
}

impl<'a> Iterator for Dictionary<'a> {
    type Item = Result<(&'a [u8], Value<'a>), BencodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let entry = self.read_entry();
        // An error ends the reading too: where the next entry starts is unknown.
        self.ended = !matches!(entry, Ok(Some(_)));
        entry.transpose()
    }
}

fn read_value<'a>(rest: &mut &'a [u8]) -> Result<Value<'a>, BencodeError> {
    match rest.first() {
        Some(b'i') => Ok(Value::Integer(read_integer(rest)?)),
        Some(b'd') => Ok(Value::Dictionary(read_nested(rest)?)),
        Some(b'l') => Ok(Value::List(read_nested(rest)?)),
        _ => Ok(Value::Bytes(read_bytes(rest)?)),
    }
}

/// Passes over a list or dictionary with a counter in place of a stack. Whether the inside of a
/// dictionary alternates keys and values is seen only by who opens it.
fn read_nested<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BencodeError> {
    let start = *rest;
    let mut depth = 0;
    loop {
        match rest.split_first() {
            Some((b'd' | b'l', tail)) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(BencodeError::TooDeep);
                }
                *rest = tail;
            }
            Some((b'e', tail)) => {
                depth -= 1;
                *rest = tail;
            }
            Some((b'i', _)) => {
                read_integer(rest)?;
            }
            Some(_) => {
                read_bytes(rest)?;
            }
            None => return Err(BencodeError::Truncated),
        }
        if depth == 0 {
            let length = start.len() - rest.len();
            return start.get(..length).ok_or(BencodeError::Truncated);
        }
    }
}

/// `4:spam`. Leading zeros are let pass.
fn read_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BencodeError> {
    let mut length: usize = 0;
    let mut digits = false;
    loop {
        let (&byte, tail) = rest.split_first().ok_or(BencodeError::Truncated)?;
        *rest = tail;
        match byte {
            b'0'..=b'9' => {
                digits = true;
                // A length beyond the address space cannot be in the input either.
                length = length
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_add(usize::from(byte - b'0')))
                    .ok_or(BencodeError::Truncated)?;
            }
            b':' if digits => break,
            _ => return Err(BencodeError::Malformed),
        }
    }
    let (bytes, tail) = rest
        .split_at_checked(length)
        .ok_or(BencodeError::Truncated)?;
    *rest = tail;
    Ok(bytes)
}

/// `i-3e`. Leading zeros and a negative zero are let pass.
fn read_integer(rest: &mut &[u8]) -> Result<i64, BencodeError> {
    let mut input = rest.strip_prefix(b"i").ok_or(BencodeError::Malformed)?;
    let sign = match input.strip_prefix(b"-") {
        Some(tail) => {
            input = tail;
            -1
        }
        None => 1,
    };
    let mut value: i64 = 0;
    let mut digits = false;
    loop {
        let (&byte, tail) = input.split_first().ok_or(BencodeError::Truncated)?;
        input = tail;
        match byte {
            b'0'..=b'9' => {
                digits = true;
                value = value
                    .saturating_mul(10)
                    .saturating_add(sign * i64::from(byte - b'0'));
            }
            b'e' if digits => break,
            _ => return Err(BencodeError::Malformed),
        }
    }
    *rest = input;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entries<'a> = Result<Vec<(&'a [u8], Value<'a>)>, BencodeError>;

    fn entries(input: &[u8]) -> Entries<'_> {
        Dictionary::open(input)?.collect()
    }

    fn value(input: &[u8]) -> Result<Value<'_>, BencodeError> {
        Ok(entries(input)?.first().expect("one entry").1)
    }

    #[test]
    fn entries_come_in_the_order_sent_even_unsorted_and_repeated() {
        let read = entries(b"d1:zi1e1:a2:bc1:zi-2e1:lli1ee1:dd1:xi0eee").unwrap();
        let expected: [(&[u8], Value<'_>); 5] = [
            (b"z", Value::Integer(1)),
            (b"a", Value::Bytes(b"bc")),
            (b"z", Value::Integer(-2)),
            (b"l", Value::List(b"li1ee")),
            (b"d", Value::Dictionary(b"d1:xi0ee")),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_follows_the_dictionary_is_left() {
        let mut dictionary = Dictionary::open(b"d1:ai1eexyz").unwrap();
        assert!(dictionary.by_ref().all(|entry| entry.is_ok()));
        assert_eq!(dictionary.rest(), b"xyz");
        assert_eq!(entries(b"de"), Ok(vec![]));
    }

    #[test]
    fn integers_saturate_and_odd_spellings_pass() {
        assert_eq!(value(b"d1:ai007ee"), Ok(Value::Integer(7)));
        assert_eq!(value(b"d1:ai-0ee"), Ok(Value::Integer(0)));
        assert_eq!(
            value(b"d1:ai-9223372036854775808ee"),
            Ok(Value::Integer(i64::MIN))
        );
        assert_eq!(
            value(b"d1:ai99999999999999999999999999ee"),
            Ok(Value::Integer(i64::MAX))
        );
        assert_eq!(
            value(b"d1:ai-99999999999999999999999999ee"),
            Ok(Value::Integer(i64::MIN))
        );
    }

    #[test]
    fn malformed_values_are_refused() {
        let malformed: [&[u8]; 11] = [
            b"i1e",
            b"le",
            b"x",
            b"di1ei2ee",
            b"d1:ae",
            b"d1:aiee",
            b"d1:ai-ee",
            b"d1:ai1-ee",
            b"d1:ai 1ee",
            b"d:i1ee",
            b"d-1:ai1ee",
        ];
        for input in malformed {
            assert_eq!(
                entries(input),
                Err(BencodeError::Malformed),
                "{}",
                input.escape_ascii()
            );
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = b"d1:ai12e2:bbl3:abcd1:xi-4eee1:c4:spame";
        assert!(entries(whole).is_ok());
        for length in 0..whole.len() {
            assert_eq!(entries(&whole[..length]), Err(BencodeError::Truncated));
        }
    }

    #[test]
    fn lengths_beyond_the_input_or_the_address_space_are_refused() {
        for input in [
            &b"d5:abce"[..],
            b"d4294967296:abce",
            b"d18446744073709551615:abce",
            b"d99999999999999999999999999999999:abce",
        ] {
            assert_eq!(entries(input), Err(BencodeError::Truncated));
        }
    }

    #[test]
    fn nesting_is_bounded_without_recursion() {
        let nested =
            |depth: usize| [b"d1:a".to_vec(), b"l".repeat(depth), b"e".repeat(depth + 1)].concat();
        assert!(entries(&nested(MAX_DEPTH as usize)).is_ok());
        assert_eq!(
            entries(&nested(MAX_DEPTH as usize + 1)),
            Err(BencodeError::TooDeep)
        );
        assert_eq!(entries(&nested(1_000_000)), Err(BencodeError::TooDeep));
    }

    #[test]
    fn an_error_ends_the_entries() {
        let mut dictionary = Dictionary::open(b"d1:ax1:bi1ee").unwrap();
        assert_eq!(dictionary.next(), Some(Err(BencodeError::Malformed)));
        assert_eq!(dictionary.next(), None);
    }
}
