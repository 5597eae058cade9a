//! A reader of bencode (BEP 3): what peers and trackers send, and metainfo files.
//!
//! It borrows from its input, allocates nothing and never recurses: any input costs one pass. There
//! are two grammars, because programs on the network write what a metainfo file must not contain. See
//! `Grammar`.

use thiserror::Error;

/// Lists and dictionaries inside each other, the outermost dictionary included. libtorrent has the
/// same limit; a hybrid torrent needs one level for each directory in its `file tree` (BEP 52),
/// everything else needs five.
pub const MAX_DEPTH: u32 = 100;

const _: () = assert!(MAX_DEPTH <= u128::BITS, "there is a bit for each level");

/// What is well-formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Grammar {
    /// Real clients and trackers send leading zeros and `-0`, which a strict reader would refuse.
    /// A nested dictionary is checked when it is opened.
    Lenient,
    /// The numbers of BEP 3 only, and every nested dictionary is checked. Keys may be unsorted and
    /// may repeat, as they do in real metainfo files.
    Strict,
}

/// Why bytes are not a bencoded dictionary. Offsets are in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BencodeError {
    /// The input ends inside a value, or a string claims more bytes than follow.
    #[error("the dictionary is cut short")]
    Truncated,
    /// The first value is not a dictionary.
    #[error("not a bencoded dictionary")]
    NotADictionary,
    /// A byte that cannot start a value.
    #[error("unexpected byte at offset {0}")]
    Unexpected(usize),
    /// A number that is empty or holds something other than digits; in a strict dictionary also
    /// one with leading zeros.
    #[error("malformed number at offset {0}")]
    Number(usize),
    /// A dictionary key that is not a byte string.
    #[error("a dictionary key at offset {0} is not a byte string")]
    Key(usize),
    /// More than [`MAX_DEPTH`] levels.
    #[error("nested too deeply at offset {0}")]
    TooDeep(usize),
}

/// One value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// An integer.
    Integer(Integer<'a>),
    /// A string of bytes.
    Bytes(&'a [u8]),
    /// A whole dictionary, from `d` to `e`, for [`Dictionary::open`].
    Dictionary(&'a [u8]),
    /// A whole list, from `l` to `e`, for [`List::open`].
    List(&'a [u8]),
}

/// An integer of any size, as its digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Integer<'a> {
    is_negative: bool,
    digits: &'a [u8],
}

impl Integer<'_> {
    /// Its value, `None` when 64 bits do not hold it.
    #[must_use]
    pub fn exact(self) -> Option<i64> {
        let sign = if self.is_negative { -1 } else { 1 };
        self.digits.iter().try_fold(0_i64, |value, digit| {
            let unit = sign * i64::from(digit - b'0');
            value.checked_mul(10)?.checked_add(unit)
        })
    }

    /// Its value, or the nearest that 64 bits hold.
    #[must_use]
    pub fn saturated(self) -> i64 {
        let bound = if self.is_negative { i64::MIN } else { i64::MAX };
        self.exact().unwrap_or(bound)
    }
}

/// The entries of one dictionary, in the order of the input, even if keys are unsorted or repeat.
///
/// After the iterator has returned `None`, [`Dictionary::rest`] is what follows the dictionary. An
/// error ends the iteration.
#[derive(Clone, Debug)]
pub struct Dictionary<'a> {
    cursor: Cursor<'a>,
    is_over: bool,
}

impl<'a> Dictionary<'a> {
    /// Starts a lenient dictionary. Nothing after its first byte has been checked yet.
    ///
    /// # Errors
    /// When the input does not start with a `d`.
    pub fn open(input: &'a [u8]) -> Result<Self, BencodeError> {
        Self::start(input, Grammar::Lenient)
    }

    /// Starts a strict dictionary. The values that it yields may be opened as lenient ones: they
    /// have been checked whole.
    ///
    /// # Errors
    /// When the input does not start with a `d`.
    pub fn open_strict(input: &'a [u8]) -> Result<Self, BencodeError> {
        Self::start(input, Grammar::Strict)
    }

    fn start(input: &'a [u8], grammar: Grammar) -> Result<Self, BencodeError> {
        let mut cursor = Cursor::new(input, grammar);
        match cursor.token()? {
            Token::Dictionary => Ok(Self {
                cursor,
                is_over: false,
            }),
            _ => Err(BencodeError::NotADictionary),
        }
    }

    /// The bytes that have not been read: after the last entry, what follows the dictionary.
    pub fn rest(&self) -> &'a [u8] {
        self.cursor.rest()
    }

    /// Reads all entries. Returns the first value of each of these keys.
    ///
    /// # Errors
    /// A [`BencodeError`] for the first entry that is not well-formed.
    pub fn first_values<const N: usize>(
        self,
        keys: [&[u8]; N],
    ) -> Result<[Option<Value<'a>>; N], BencodeError> {
        let mut values = [None; N];
        for entry in self {
            let (key, value) = entry?;
            let mut slots = keys.iter().zip(&mut values);
            if let Some((_, slot)) = slots.find(|(wanted, _)| **wanted == key) {
                slot.get_or_insert(value);
            }
        }
        Ok(values)
    }

    fn read_entry(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, BencodeError> {
        let start = self.cursor.at;
        match self.cursor.token()? {
            Token::Bytes(key) => Ok(Some((key, self.cursor.value()?))),
            Token::End => Ok(None),
            _ => Err(BencodeError::Key(start)),
        }
    }
}

impl<'a> Iterator for Dictionary<'a> {
    type Item = Result<(&'a [u8], Value<'a>), BencodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let entry = self.read_entry();
        self.is_over = !matches!(entry, Ok(Some(_)));
        entry.transpose()
    }
}

/// The items of a list. An error ends the iteration.
#[derive(Clone, Debug)]
pub struct List<'a> {
    cursor: Cursor<'a>,
    is_over: bool,
}

impl<'a> List<'a> {
    /// Starts a list, the content of a [`Value::List`]. Anything else has no items.
    pub fn open(input: &'a [u8]) -> Self {
        let mut cursor = Cursor::new(input, Grammar::Lenient);
        let is_over = !matches!(cursor.token(), Ok(Token::List));
        Self { cursor, is_over }
    }
}

impl<'a> Iterator for List<'a> {
    type Item = Result<Value<'a>, BencodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        if self.cursor.rest().first() == Some(&b'e') {
            self.is_over = true;
            return None;
        }
        let item = self.cursor.value();
        self.is_over = item.is_err();
        Some(item)
    }
}

/// Where `part`, which was borrowed from `whole`, starts in it. Unit: bytes.
///
/// # Panics
/// When it was borrowed from something else.
#[must_use]
pub fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    let offset = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    assert!(
        offset <= whole.len(),
        "the part was borrowed from the whole"
    );
    offset
}

/// The tokens of bencode.
#[derive(Clone, Copy)]
enum Token<'a> {
    Integer(Integer<'a>),
    Bytes(&'a [u8]),
    List,
    Dictionary,
    End,
}

#[derive(Clone, Debug)]
struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
    grammar: Grammar,
}

impl<'a> Cursor<'a> {
    fn new(input: &'a [u8], grammar: Grammar) -> Self {
        Self {
            input,
            at: 0,
            grammar,
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.input
            .get(self.at..)
            .expect("the cursor stays within its input")
    }

    // The three that follow are inlined because parsing a torrent of many files takes 10 % longer
    // otherwise.
    #[inline(always)]
    fn token(&mut self) -> Result<Token<'a>, BencodeError> {
        let start = self.at;
        let first = *self.input.get(start).ok_or(BencodeError::Truncated)?;
        if first.is_ascii_digit() {
            return self.bytes().map(Token::Bytes);
        }
        self.at += 1;
        match first {
            b'l' => Ok(Token::List),
            b'd' => Ok(Token::Dictionary),
            b'e' => Ok(Token::End),
            b'i' => {
                let is_negative = self.input.get(self.at) == Some(&b'-');
                self.at += usize::from(is_negative);
                let digits = self.digits(b'e')?;
                if is_negative && digits == b"0" && self.grammar == Grammar::Strict {
                    return Err(BencodeError::Number(start));
                }
                Ok(Token::Integer(Integer {
                    is_negative,
                    digits,
                }))
            }
            _ => Err(BencodeError::Unexpected(start)),
        }
    }

    /// A byte string: `4:spam`.
    #[inline(always)]
    fn bytes(&mut self) -> Result<&'a [u8], BencodeError> {
        // A length beyond the address space cannot be in the input either.
        let length = self.digits(b':')?.iter().fold(0_usize, |sum, digit| {
            let unit = usize::from(digit - b'0');
            sum.saturating_mul(10).saturating_add(unit)
        });
        let (bytes, _) = self
            .rest()
            .split_at_checked(length)
            .ok_or(BencodeError::Truncated)?;
        self.at += length;
        Ok(bytes)
    }

    /// Takes digits and the byte that must follow them.
    #[inline(always)]
    fn digits(&mut self, end: u8) -> Result<&'a [u8], BencodeError> {
        let start = self.at;
        let rest = self.rest();
        let mut count = 0;
        let stop = loop {
            match rest.get(count) {
                Some(b'0'..=b'9') => count += 1,
                Some(&stop) => break stop,
                None => return Err(BencodeError::Truncated),
            }
        };
        match rest.split_at_checked(count) {
            Some((digits @ [first, ..], _))
                if stop == end
                    && (*first != b'0' || count == 1 || self.grammar == Grammar::Lenient) =>
            {
                self.at += count + 1;
                Ok(digits)
            }
            _ => Err(BencodeError::Number(start)),
        }
    }

    fn value(&mut self) -> Result<Value<'a>, BencodeError> {
        let start = self.at;
        match self.token()? {
            Token::Integer(integer) => Ok(Value::Integer(integer)),
            Token::Bytes(bytes) => Ok(Value::Bytes(bytes)),
            Token::List => self.whole(start, false).map(Value::List),
            Token::Dictionary => self.whole(start, true).map(Value::Dictionary),
            Token::End => Err(BencodeError::Unexpected(start)),
        }
    }

    /// Returns the whole list or dictionary that starts at `start`, whose first byte was taken.
    fn whole(&mut self, start: usize, is_dictionary: bool) -> Result<&'a [u8], BencodeError> {
        match self.grammar {
            Grammar::Lenient => self.pass_over::<false>(start, is_dictionary),
            Grammar::Strict => self.pass_over::<true>(start, is_dictionary),
        }
    }

    /// Passes over the rest of a list or dictionary, with a bit for each open level in place of a
    /// stack. Compiled once for each grammar: torrents of many files spend most of their time here.
    fn pass_over<const STRICT: bool>(
        &mut self,
        start: usize,
        is_dictionary: bool,
    ) -> Result<&'a [u8], BencodeError> {
        let mut depth = 1;
        // The lowest bit is the innermost level: set when its keys are checked.
        let mut checked = u128::from(STRICT && is_dictionary);
        let mut expects_key = checked & 1 == 1;
        loop {
            let at = self.at;
            match self.token()? {
                Token::Bytes(_) if expects_key => {
                    expects_key = false;
                    continue;
                }
                Token::End if expects_key || checked & 1 == 0 => {
                    depth -= 1;
                    checked >>= 1;
                }
                _ if expects_key => return Err(BencodeError::Key(at)),
                Token::End => return Err(BencodeError::Unexpected(at)),
                Token::Integer(_) | Token::Bytes(_) => {}
                token @ (Token::List | Token::Dictionary) => {
                    // The dictionary around this value is a level too.
                    if depth == MAX_DEPTH - 1 {
                        return Err(BencodeError::TooDeep(at));
                    }
                    depth += 1;
                    let is_dictionary = matches!(token, Token::Dictionary);
                    checked = checked << 1 | u128::from(STRICT && is_dictionary);
                }
            }
            if depth == 0 {
                let whole = self.input.get(start..self.at);
                return Ok(whole.expect("the cursor stays within its input"));
            }
            expects_key = checked & 1 == 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entries<'a> = Result<Vec<(&'a [u8], Value<'a>)>, BencodeError>;

    fn entries(input: &[u8]) -> Entries<'_> {
        Dictionary::open(input)?.collect()
    }

    fn strict(input: &[u8]) -> Entries<'_> {
        Dictionary::open_strict(input)?.collect()
    }

    fn value(input: &[u8]) -> Result<Value<'_>, BencodeError> {
        Ok(entries(input)?.first().expect("one entry").1)
    }

    fn integer(digits: &[u8]) -> Value<'_> {
        Value::Integer(Integer {
            is_negative: false,
            digits,
        })
    }

    fn saturated(input: &[u8]) -> i64 {
        match value(input) {
            Ok(Value::Integer(integer)) => integer.saturated(),
            other => panic!("{other:?}"),
        }
    }

    fn nested(levels: u32) -> Vec<u8> {
        let levels = levels as usize;
        [
            b"d1:a".to_vec(),
            b"l".repeat(levels),
            b"e".repeat(levels + 1),
        ]
        .concat()
    }

    #[test]
    fn entries_come_in_the_order_sent_even_unsorted_and_repeated() {
        let input = b"d1:zi1e1:a2:bc1:zi2e1:lli1ee1:dd1:xi0eee";
        let expected: [(&[u8], Value<'_>); 5] = [
            (b"z", integer(b"1")),
            (b"a", Value::Bytes(b"bc")),
            (b"z", integer(b"2")),
            (b"l", Value::List(b"li1ee")),
            (b"d", Value::Dictionary(b"d1:xi0ee")),
        ];
        assert_eq!(entries(input).unwrap(), expected);
        assert_eq!(strict(input).unwrap(), expected);
    }

    #[test]
    fn bytes_after_the_dictionary_are_left() {
        for open in [Dictionary::open, Dictionary::open_strict] {
            let mut dictionary = open(b"d1:ai1eexyz").unwrap();
            assert!(dictionary.by_ref().all(|entry| entry.is_ok()));
            assert_eq!(dictionary.rest(), b"xyz");
        }
        assert_eq!(entries(b"de"), Ok(vec![]));
    }

    #[test]
    fn of_a_repeated_key_the_first_value_is_returned() {
        let dictionary = Dictionary::open(b"d1:bi1e1:a1:x1:ai2e1:ci3ee").unwrap();
        let [a, b, d] = dictionary.first_values([b"a", b"b", b"d"]).unwrap();
        assert_eq!(
            (a, b, d),
            (Some(Value::Bytes(b"x")), Some(integer(b"1")), None)
        );
        let cut = Dictionary::open(b"d1:ai1e").unwrap();
        assert_eq!(cut.first_values([b"a"]), Err(BencodeError::Truncated));
    }

    #[test]
    fn items_of_a_list_come_in_order() {
        let items: Result<Vec<_>, _> = List::open(b"l1:xli1eedei-1ee").collect();
        let items = items.unwrap();
        let expected = [
            Value::Bytes(b"x"),
            Value::List(b"li1ee"),
            Value::Dictionary(b"de"),
        ];
        assert_eq!(items.get(..3), Some(&expected[..]));
        assert_eq!(items.len(), 4);
        assert_eq!(List::open(b"le").count(), 0);
        assert_eq!(List::open(b"d1:ai1ee").count(), 0);
        let mut cut = List::open(b"l1:x5:y");
        assert_eq!(cut.next(), Some(Ok(Value::Bytes(b"x"))));
        assert_eq!(cut.next(), Some(Err(BencodeError::Truncated)));
        assert_eq!(cut.next(), None);
    }

    #[test]
    fn integers_saturate_and_odd_spellings_pass() {
        assert_eq!(saturated(b"d1:ai007ee"), 7);
        assert_eq!(saturated(b"d1:ai-2ee"), -2);
        assert_eq!(saturated(b"d1:ai-0ee"), 0);
        assert_eq!(saturated(b"d1:ai-9223372036854775808ee"), i64::MIN);
        assert_eq!(saturated(b"d1:ai99999999999999999999999999ee"), i64::MAX);
        assert_eq!(saturated(b"d1:ai-99999999999999999999999999ee"), i64::MIN);
        assert_eq!(value(b"d02:abi1ee"), Ok(integer(b"1")));
    }

    #[test]
    fn an_integer_beyond_64_bits_has_no_exact_value() {
        for (input, exact) in [
            (&b"d1:ai9223372036854775807ee"[..], Some(i64::MAX)),
            (b"d1:ai9223372036854775808ee", None),
            (b"d1:ai-9223372036854775808ee", Some(i64::MIN)),
            (b"d1:ai-9223372036854775809ee", None),
        ] {
            let Ok(Value::Integer(integer)) = value(input) else {
                panic!("{}", input.escape_ascii());
            };
            assert_eq!(integer.exact(), exact);
        }
    }

    #[test]
    fn malformed_values_are_refused_by_both_grammars() {
        let cases: [(&[u8], BencodeError); 18] = [
            (b"", BencodeError::Truncated),
            (b"d1:a99999999999999999999999:e", BencodeError::Truncated),
            (b"d1:a18446744073709551615:e", BencodeError::Truncated),
            (b"d5:abce", BencodeError::Truncated),
            (b"d4294967296:abce", BencodeError::Truncated),
            (b"i1e", BencodeError::NotADictionary),
            (b"le", BencodeError::NotADictionary),
            (b"4:spam", BencodeError::NotADictionary),
            (b"x", BencodeError::Unexpected(0)),
            (b"d1:ax", BencodeError::Unexpected(4)),
            (b"d1:ae", BencodeError::Unexpected(4)),
            (b"d:i1ee", BencodeError::Unexpected(1)),
            (b"d-1:ai1ee", BencodeError::Unexpected(1)),
            (b"di1ei2ee", BencodeError::Key(1)),
            (b"d1:aiee", BencodeError::Number(5)),
            (b"d1:ai-ee", BencodeError::Number(6)),
            (b"d1:ai1-ee", BencodeError::Number(5)),
            (b"d1:ai 1ee", BencodeError::Number(5)),
        ];
        for (input, error) in cases {
            assert_eq!(entries(input), Err(error), "{}", input.escape_ascii());
            assert_eq!(strict(input), Err(error), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn odd_spellings_are_refused_by_the_strict_grammar() {
        for (input, error) in [
            (&b"d1:ai-0ee"[..], BencodeError::Number(4)),
            (b"d1:ai01ee", BencodeError::Number(5)),
            (b"d01:ai1ee", BencodeError::Number(1)),
            (b"d1:ali01eee", BencodeError::Number(6)),
        ] {
            assert!(entries(input).is_ok(), "{}", input.escape_ascii());
            assert_eq!(strict(input), Err(error), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn the_strict_grammar_checks_keys_at_every_level() {
        for (input, error) in [
            (&b"d1:adi1ei2eee"[..], BencodeError::Key(5)),
            (b"d1:ad1:xeee", BencodeError::Unexpected(8)),
            (b"d1:ald1:xi1eledeeee", BencodeError::Key(12)),
            (b"d1:ad1:xlei1ei2eee", BencodeError::Key(10)),
        ] {
            assert_eq!(strict(input), Err(error), "{}", input.escape_ascii());
        }
        assert!(entries(b"d1:adi1ei2eee").is_ok());
        assert!(strict(b"d1:ad1:xld0:i1eel0:eee1:bi2ee").is_ok());
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = b"d1:ai12e2:bbl3:abcd1:xi-4eee1:c4:spame";
        assert!(entries(whole).is_ok() && strict(whole).is_ok());
        for length in 0..whole.len() {
            let cut = &whole[..length];
            assert_eq!(entries(cut), Err(BencodeError::Truncated));
            assert_eq!(strict(cut), Err(BencodeError::Truncated));
        }
    }

    #[test]
    fn nesting_is_bounded_without_recursion() {
        for read in [entries, strict] {
            assert!(read(&nested(MAX_DEPTH - 1)).is_ok());
            let one_more = BencodeError::TooDeep(3 + MAX_DEPTH as usize);
            assert_eq!(read(&nested(MAX_DEPTH)), Err(one_more));
            let deep = nested(1_000_000);
            assert!(matches!(read(&deep), Err(BencodeError::TooDeep(_))));
        }
    }

    #[test]
    fn an_error_ends_the_entries() {
        let mut dictionary = Dictionary::open(b"d1:ax1:bi1ee").unwrap();
        assert_eq!(dictionary.next(), Some(Err(BencodeError::Unexpected(4))));
        assert_eq!(dictionary.next(), None);
    }

    #[test]
    fn the_offset_of_a_part_is_where_it_starts() {
        let whole = b"d4:infode1:zi1ee";
        let mut dictionary = Dictionary::open(whole).unwrap();
        let Some(Ok((_, Value::Dictionary(info)))) = dictionary.next() else {
            panic!("info comes first");
        };
        assert_eq!(offset_in(whole, info), 7);
        assert_eq!(offset_in(whole, &whole[whole.len()..]), whole.len());
    }
}
