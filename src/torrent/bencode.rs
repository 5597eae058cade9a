//! What bendy does not do: the raw span of a value, and dictionaries whose keys are out of order.
//!
//! Owns one strict walk over bencoded bytes (BEP 3). It must not know what the keys mean, except
//! that the span of the top-level `info` is what an info-hash is made of.

use std::ops::Range;

use thiserror::Error;

/// Dictionaries and lists inside each other. libtorrent reads as many; a hybrid torrent spends one
/// for each directory in its `file tree` (BEP 52), everything else needs five.
pub const MAX_DEPTH: usize = 100;

/// Why bytes are not bencode. Offsets are bytes from the start of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BencodeError {
    /// The bytes end inside a value.
    #[error("the file ends in the middle of a value")]
    Truncated,
    /// The first value is not a dictionary.
    #[error("the file does not start with a dictionary")]
    NotADictionary,
    /// A byte that starts no value.
    #[error("unexpected byte at offset {0}")]
    Unexpected(usize),
    /// A number that is empty, has leading zeros or holds something other than digits.
    #[error("malformed number at offset {0}")]
    Number(usize),
    /// A dictionary key that is not a byte string.
    #[error("a dictionary key at offset {0} is not a byte string")]
    Key(usize),
    /// More than [`MAX_DEPTH`] levels.
    #[error("nested too deeply at offset {0}")]
    TooDeep(usize),
}

/// What one walk over a whole metainfo file finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// Where the top-level dictionary ends. Bytes may follow: some real files end with a newline.
    pub end: usize,
    /// The raw value of the first top-level `info`.
    pub info: Option<Range<usize>>,
    /// Whether the keys of every dictionary ascend and none repeats, as bendy demands.
    pub sorted: bool,
}

/// Walks the top-level dictionary.
///
/// # Errors
/// A [`BencodeError`] when the bytes do not start with one well-formed dictionary.
pub fn survey(raw: &[u8]) -> Result<Survey, BencodeError> {
    let mut cursor = Cursor::new(raw);
    if cursor.token()? != Token::Dictionary {
        return Err(BencodeError::NotADictionary);
    }
    let info = cursor.dictionary(1, b"info")?;
    Ok(Survey {
        end: cursor.at,
        info,
        sorted: cursor.sorted,
    })
}

/// Copies the top-level dictionary with the keys of every dictionary in ascending order. Of a
/// repeated key the first value stays, which is also what libtorrent reads.
///
/// # Errors
/// A [`BencodeError`] as from [`survey`].
pub fn sort_keys(raw: &[u8]) -> Result<Vec<u8>, BencodeError> {
    let mut cursor = Cursor::new(raw);
    let mut out = Vec::with_capacity(raw.len());
    match cursor.token()? {
        Token::Dictionary => cursor.copy_dictionary(1, &mut out)?,
        _ => return Err(BencodeError::NotADictionary),
    }
    Ok(out)
}

/// Where the bytes of the first value of `key` lie, in the dictionary that starts at `start`; `None`
/// when there is none, or it is no byte string.
///
/// # Errors
/// A [`BencodeError`] when there is no well-formed dictionary.
pub fn string_in(
    raw: &[u8],
    start: usize,
    key: &[u8],
) -> Result<Option<Range<usize>>, BencodeError> {
    let mut cursor = Cursor::new(raw);
    cursor.at = start;
    if cursor.token()? != Token::Dictionary {
        return Err(BencodeError::NotADictionary);
    }
    let Some(span) = cursor.dictionary(1, key)? else {
        return Ok(None);
    };
    cursor.at = span.start;
    Ok(match cursor.token()? {
        Token::Bytes(bytes) => Some(cursor.at - bytes.len()..cursor.at),
        _ => None,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Integer,
    Bytes(&'a [u8]),
    List,
    Dictionary,
    End,
}

struct Cursor<'a> {
    raw: &'a [u8],
    at: usize,
    sorted: bool,
}

impl<'a> Cursor<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Cursor {
            raw,
            at: 0,
            sorted: true,
        }
    }

    fn token(&mut self) -> Result<Token<'a>, BencodeError> {
        let first = *self.raw.get(self.at).ok_or(BencodeError::Truncated)?;
        let start = self.at;
        self.at += 1;
        match first {
            b'l' => Ok(Token::List),
            b'd' => Ok(Token::Dictionary),
            b'e' => Ok(Token::End),
            b'i' => {
                let negative = self.raw.get(self.at) == Some(&b'-');
                self.at += usize::from(negative);
                let digits = self.digits(b'e')?;
                if negative && digits == b"0" {
                    return Err(BencodeError::Number(start));
                }
                Ok(Token::Integer)
            }
            b'0'..=b'9' => {
                self.at = start;
                let length = self
                    .digits(b':')?
                    .iter()
                    .try_fold(0_usize, |sum, digit| {
                        sum.checked_mul(10)?.checked_add(usize::from(digit - b'0'))
                    })
                    .ok_or(BencodeError::Truncated)?;
                let end = self.at.checked_add(length).ok_or(BencodeError::Truncated)?;
                let bytes = self.raw.get(self.at..end).ok_or(BencodeError::Truncated)?;
                self.at = end;
                Ok(Token::Bytes(bytes))
            }
            _ => Err(BencodeError::Unexpected(start)),
        }
    }

    /// Takes digits without leading zeros, and what ends them.
    fn digits(&mut self, end: u8) -> Result<&'a [u8], BencodeError> {
        let rest = self.raw.get(self.at..).ok_or(BencodeError::Truncated)?;
        let count = rest
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .ok_or(BencodeError::Truncated)?;
        match rest.split_at_checked(count) {
            Some((digits, [stop, ..]))
                if *stop == end
                    && !digits.is_empty()
                    && (digits.len() == 1 || digits.first() != Some(&b'0')) =>
            {
                self.at += count + 1;
                Ok(digits)
            }
            _ => Err(BencodeError::Number(self.at)),
        }
    }

    /// The next key of a dictionary, `None` at its end.
    fn key(&mut self) -> Result<Option<&'a [u8]>, BencodeError> {
        let start = self.at;
        match self.token()? {
            Token::Bytes(key) => Ok(Some(key)),
            Token::End => Ok(None),
            _ => Err(BencodeError::Key(start)),
        }
    }

    /// Walks to the end of what a token has started, `depth` levels being open around it.
    fn rest_of(&mut self, token: Token<'a>, depth: usize) -> Result<(), BencodeError> {
        let depth = self.deeper(token, depth)?;
        match token {
            Token::Integer | Token::Bytes(_) => Ok(()),
            Token::End => Err(BencodeError::Unexpected(self.at.saturating_sub(1))),
            Token::Dictionary => self.dictionary(depth, b"").map(drop),
            Token::List => loop {
                match self.token()? {
                    Token::End => return Ok(()),
                    token => self.rest_of(token, depth)?,
                }
            },
        }
    }

    /// How many levels are open inside the value that a token has started.
    fn deeper(&self, token: Token<'_>, depth: usize) -> Result<usize, BencodeError> {
        match token {
            Token::List | Token::Dictionary if depth >= MAX_DEPTH => {
                Err(BencodeError::TooDeep(self.at.saturating_sub(1)))
            }
            Token::List | Token::Dictionary => Ok(depth + 1),
            _ => Ok(depth),
        }
    }

    /// Walks to the end of a dictionary. Answers where the first value of the key `wanted` lies.
    fn dictionary(
        &mut self,
        depth: usize,
        wanted: &[u8],
    ) -> Result<Option<Range<usize>>, BencodeError> {
        let mut found = None;
        let mut last: Option<&[u8]> = None;
        while let Some(key) = self.key()? {
            self.sorted &= last.is_none_or(|last| last < key);
            last = Some(key);
            let start = self.at;
            let value = self.token()?;
            self.rest_of(value, depth)?;
            if key == wanted && found.is_none() {
                found = Some(start..self.at);
            }
        }
        Ok(found)
    }

    /// Appends the bytes since `start` as they are.
    fn copy_since(&self, start: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.raw.get(start..self.at).unwrap_or_default());
    }

    /// Appends the value that a token starting at `start` has begun.
    fn copy_rest_of(
        &mut self,
        token: Token<'a>,
        start: usize,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), BencodeError> {
        let depth = self.deeper(token, depth)?;
        match token {
            Token::Integer | Token::Bytes(_) => self.copy_since(start, out),
            Token::End => return Err(BencodeError::Unexpected(start)),
            Token::Dictionary => self.copy_dictionary(depth, out)?,
            Token::List => {
                out.push(b'l');
                loop {
                    let start = self.at;
                    match self.token()? {
                        Token::End => break,
                        token => self.copy_rest_of(token, start, depth, out)?,
                    }
                }
                out.push(b'e');
            }
        }
        Ok(())
    }

    /// Appends a dictionary, then puts its entries in order where they were not.
    fn copy_dictionary(&mut self, depth: usize, out: &mut Vec<u8>) -> Result<(), BencodeError> {
        out.push(b'd');
        let body = out.len();
        let mut entries: Vec<(&[u8], Range<usize>)> = Vec::new();
        loop {
            let (start, entry) = (self.at, out.len());
            let Some(key) = self.key()? else { break };
            self.copy_since(start, out);
            let start = self.at;
            let value = self.token()?;
            self.copy_rest_of(value, start, depth, out)?;
            entries.push((key, entry - body..out.len() - body));
        }
        if !entries.is_sorted_by(|(first, _), (second, _)| first < second) {
            let unsorted = out.split_off(body);
            // The sort is stable, so that the first of equal keys is the one that stays.
            entries.sort_by_key(|(key, _)| *key);
            entries.dedup_by_key(|(key, _)| *key);
            for (_, entry) in entries {
                out.extend_from_slice(unsorted.get(entry).unwrap_or_default());
            }
        }
        out.push(b'e');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bendy::decoding::Decoder;

    #[test]
    fn the_raw_info_is_found_wherever_it_stands() {
        let raw = b"d8:announce3:url4:infod1:bi1e1:ai2ee1:zlee";
        let survey = survey(raw).unwrap();
        assert_eq!(&raw[survey.info.unwrap()], b"d1:bi1e1:ai2ee");
        assert_eq!(survey.end, raw.len());
    }

    #[test]
    fn only_the_first_top_level_info_counts() {
        let raw = b"d1:ad4:infoi1ee4:infoi2e4:infoi3ee";
        assert_eq!(&raw[survey(raw).unwrap().info.unwrap()], b"i2e");
        assert_eq!(survey(b"d1:ad4:infoi1eee").unwrap().info, None);
    }

    #[test]
    fn order_is_noticed_at_every_level() {
        assert!(survey(b"d1:ad1:ai1e1:bi2ee1:bi1ee").unwrap().sorted);
        for raw in [
            &b"d1:bi1e1:ai1ee"[..],
            b"d1:ai1e1:ai1ee",
            b"d1:ald1:bi1e1:ai1eeee",
            b"d1:ai1e2:aai1e1:bi1e2:abi1ee",
        ] {
            assert!(!survey(raw).unwrap().sorted, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn bytes_after_the_dictionary_are_left_alone() {
        assert_eq!(survey(b"d1:ai1ee\n\xff").unwrap().end, 8);
        assert_eq!(sort_keys(b"d1:ai1ee\n").unwrap(), b"d1:ai1ee");
    }

    #[test]
    fn keys_are_sorted_at_every_level_and_the_first_of_equals_stays() {
        let raw = b"d1:bld1:yi-1e1:x0:ee1:a3:one1:ai2e2:aalee";
        let sorted = sort_keys(raw).unwrap();
        assert_eq!(sorted, b"d1:a3:one2:aale1:bld1:x0:1:yi-1eeee");
        assert!(Decoder::new(&sorted).tokens().all(|token| token.is_ok()));
        assert_eq!(sort_keys(&sorted).unwrap(), sorted);
    }

    #[test]
    fn what_is_not_bencode_is_refused() {
        let cases: [(&[u8], BencodeError); 17] = [
            (b"", BencodeError::Truncated),
            (b"d", BencodeError::Truncated),
            (b"d1:a", BencodeError::Truncated),
            (b"d1:a5:abc", BencodeError::Truncated),
            (b"d1:ai12", BencodeError::Truncated),
            (b"d1:a99999999999999999999999:e", BencodeError::Truncated),
            (b"d1:a18446744073709551615:e", BencodeError::Truncated),
            (b"le", BencodeError::NotADictionary),
            (b"4:spam", BencodeError::NotADictionary),
            (b"d1:ax", BencodeError::Unexpected(4)),
            (b"d1:ae", BencodeError::Unexpected(4)),
            (b"di1ei1ee", BencodeError::Key(1)),
            (b"d1:aiee", BencodeError::Number(5)),
            (b"d1:ai-0ee", BencodeError::Number(4)),
            (b"d1:ai01ee", BencodeError::Number(5)),
            (b"d01:ai1ee", BencodeError::Number(1)),
            (b"d1:ai1-ee", BencodeError::Number(5)),
        ];
        for (raw, error) in cases {
            assert_eq!(survey(raw), Err(error), "{}", raw.escape_ascii());
            assert_eq!(sort_keys(raw), Err(error), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn nesting_is_bounded_where_it_says() {
        let nested = |levels: usize| {
            let mut raw = b"d1:a".to_vec();
            raw.extend(std::iter::repeat_n(b'l', levels));
            raw.extend(std::iter::repeat_n(b'e', levels + 1));
            raw
        };
        assert!(survey(&nested(MAX_DEPTH - 1)).is_ok());
        assert!(sort_keys(&nested(MAX_DEPTH - 1)).is_ok());
        let deep = nested(1_000_000);
        assert!(matches!(survey(&deep), Err(BencodeError::TooDeep(_))));
        assert!(matches!(sort_keys(&deep), Err(BencodeError::TooDeep(_))));
        assert!(survey(&nested(MAX_DEPTH)).is_err());
    }
}
