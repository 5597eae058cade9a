//! Untrusted bytes made safe for a line of the log.

use std::fmt::{self, Write};
use std::path::Path;

/// A longer name tells an operator nothing more, and a hostile one may have millions of characters.
const MAX_SHOWN_CHARS: usize = 200;

/// Displays bytes on one line: UTF-8 unchanged, control characters and all other bytes escaped.
/// The text is cut after 200 characters.
pub struct Printable<'a>(pub &'a [u8]);

impl<'a> Printable<'a> {
    /// Displays a path.
    pub fn path(path: &'a (impl AsRef<Path> + ?Sized)) -> Self {
        Printable(path.as_ref().as_os_str().as_encoded_bytes())
    }
}

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
