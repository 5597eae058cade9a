//! Foreign bytes in a line of the log.
//!
//! Owns how names from metainfo files and directories are shown. It must not know what they name.

use std::fmt::{self, Write};

/// More characters than this of one name say nothing more, and a hostile name may have millions.
const MAX_SHOWN_CHARS: usize = 200;

/// Shows bytes on one line: UTF-8 as it is, anything else and every control character escaped.
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = MAX_SHOWN_CHARS;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if left == 0 {
                    return formatter.write_char('…');
                }
                left -= 1;
                // The separators U+2028 and U+2029 end a line for some readers of a log.
                if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
                    write!(formatter, "{}", character.escape_default())?;
                } else {
                    formatter.write_char(character)?;
                }
            }
            for byte in chunk.invalid() {
                if left == 0 {
                    return formatter.write_char('…');
                }
                left -= 1;
                write!(formatter, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_it_is() {
        assert_eq!(
            Printable("naïve 猫.bin".as_bytes()).to_string(),
            "naïve 猫.bin"
        );
    }

    #[test]
    fn control_characters_and_foreign_bytes_are_escaped() {
        assert_eq!(
            Printable(b"a\nb\x1b\xff\xc3").to_string(),
            "a\\nb\\u{1b}\\xff\\xc3"
        );
        assert_eq!(
            Printable("a\u{2028}b".as_bytes()).to_string(),
            "a\\u{2028}b"
        );
    }

    #[test]
    fn a_long_name_is_cut() {
        let shown = Printable(&[b'a'; 1000]).to_string();
        assert_eq!(shown.chars().count(), MAX_SHOWN_CHARS + 1);
        let shown = Printable(&[0xff; 1000]).to_string();
        assert_eq!(shown.chars().count(), MAX_SHOWN_CHARS * 4 + 1);
    }
}
