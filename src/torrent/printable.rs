//! Foreign text made safe for the log, a terminal, the page and JSON: nothing in it is hidden.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::path::Path;

/// A longer name tells an operator nothing more, and a hostile one may have millions of characters.
const MAX_SHOWN_CHARS: usize = 200;

/// Returns true if a character is not seen as such, but may change how the text around it is seen: control
/// characters, which terminals obey; the separators U+2028 and U+2029, which end a line for some
/// readers; and what is drawn as nothing, like the marks that reverse the order of letters. These are the
/// ranges of `Default_Ignorable_Code_Point` in Unicode's `DerivedCoreProperties.txt`, and the
/// annotations of U+FFF9 to U+FFFB.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Displays a text with hidden characters escaped, lines excepted if there are several.
#[derive(Clone, Copy, Debug)]
pub struct Visible<T> {
    /// The text.
    pub text: T,
    /// Line feeds are kept.
    pub has_lines: bool,
}

impl<T: fmt::Display> fmt::Display for Visible<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(formatter, self.has_lines), "{}", self.text)
    }
}

/// Escapes what is written through it.
struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>, bool);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Self(formatter, has_lines) = self;
        let mut rest = text;
        let is_escaped =
            |character: char| is_hidden(character) && !(*has_lines && character == '\n');
        while let Some(at) = rest.find(is_escaped) {
            let (before, hidden) = rest.split_at(at);
            formatter.write_str(before)?;
            let mut characters = hidden.chars();
            if let Some(character) = characters.next() {
                write!(formatter, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        formatter.write_str(rest)
    }
}

/// A JSON text whose bytes hide nothing, and that means the same: hidden characters are inside strings
/// only, and become the escapes of JSON (RFC 8259, section 7).
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut visible = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        if is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                visible.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            visible.push(character);
        }
    }
    Cow::Owned(visible)
}

/// Displays bytes on one line: UTF-8 as it is, hidden characters and all other bytes escaped.
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
                if is_hidden(character) {
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

    /// A marker of each kind, in the midst of letters.
    const HIDING: &str = "a\u{202e}fdp\u{2066}.\u{200b}\u{200d}\u{feff}\u{ad}\u{e0041}\u{9b}z";

    #[test]
    fn nothing_hides_in_any_form() {
        let escaped = "a\\u{202e}fdp\\u{2066}.\\u{200b}\\u{200d}\\u{feff}\\u{ad}\\u{e0041}\\u{9b}z";
        assert_eq!(Printable(HIDING.as_bytes()).to_string(), escaped);
        let visible = |text, has_lines| Visible { text, has_lines }.to_string();
        assert_eq!(visible(HIDING, false), escaped);
        assert_eq!(visible("a\nb\x1b", false), "a\\nb\\u{1b}");
        assert_eq!(visible("a\nb\r\x1b\n", true), "a\nb\\r\\u{1b}\n");
        let json = serde_json::json!({ "name": HIDING }).to_string();
        let shown = visible_json(&json);
        assert!(
            !shown.contains(is_hidden) && shown.contains("\\udb40\\udc41"),
            "{shown}"
        );
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&shown), parse(&json));
        assert!(matches!(visible_json("{\"猫\":1}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_long_name_is_cut() {
        let shown = Printable(&[b'a'; 1000]).to_string();
        assert_eq!(shown.chars().count(), MAX_SHOWN_CHARS + 1);
        let shown = Printable(&[0xff; 1000]).to_string();
        assert_eq!(shown.chars().count(), MAX_SHOWN_CHARS * 4 + 1);
    }
}
