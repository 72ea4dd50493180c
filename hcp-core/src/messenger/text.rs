//! What people and peers write: names, greetings, texts, file names; bounded and made harmless at the edge.
//!
//! Names and file names lose everything that could make them look like something else: control characters, marks that
//! turn the direction of writing, invisible characters. Texts keep their lines and lose control characters, so that none
//! can steer a terminal.

use std::fmt;

use crate::error::ErrorKind;

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME: usize = 128;
/// The longest greeting of a contact request, in bytes of UTF-8.
pub const MAX_GREETING: usize = 1024;
/// The longest text message, in bytes of UTF-8.
pub const MAX_TEXT: usize = 32 * 1024;
/// The longest name of a file, in bytes of UTF-8: what common file systems take, with room for a suffix.
pub const MAX_FILE_NAME: usize = 240;

/// Why a name, greeting or text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// It is longer than its limit.
    #[error("{length} bytes are more than the limit of {limit}")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Nothing that can be seen is in it.
    #[error("it is empty, or nothing in it can be seen")]
    Empty,
}

impl TextError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// A name for a person: one line, possibly empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Name(String);

/// A text message: not empty, with its lines.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Text(String);

/// The last part of a path, which names a file in whatever folder it is joined to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct FileName(String);

impl Name {
    pub(super) fn new(text: &str) -> Result<Self, TextError> {
        check(text, MAX_NAME)?;
        Ok(Self(visible_line(text)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text {
    pub(super) fn new(text: &str) -> Result<Self, TextError> {
        check(text, MAX_TEXT)?;
        let lines = lines(text);
        if lines.trim().is_empty() { Err(TextError::Empty) } else { Ok(Self(lines)) }
    }

    /// A greeting: like a text, shorter, possibly empty.
    pub(super) fn greeting(text: &str) -> Result<Self, TextError> {
        check(text, MAX_GREETING)?;
        Ok(Self(lines(text)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FileName {
    /// Takes what follows the last separator of either kind, harmless characters only; `file` when nothing is left.
    pub(super) fn new(text: &str) -> Result<Self, TextError> {
        check(text, MAX_FILE_NAME)?;
        let base = text.rsplit(['/', '\\']).next().unwrap_or_default();
        let name: String =
            visible_line(base).chars().filter(|c| !matches!(c, ':' | '*' | '?' | '"' | '<' | '>' | '|')).collect();
        // A leading dot hides a file, a trailing one vanishes on Windows.
        let name = name.trim_matches(is_edge);
        Ok(Self(match name {
            "" => "file".to_owned(),
            name if is_device(name) => defused(name),
            name => name.to_owned(),
        }))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name([redacted])")
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text([redacted])")
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileName([redacted])")
    }
}

fn check(text: &str, limit: usize) -> Result<(), TextError> {
    if text.len() > limit { Err(TextError::TooLong { length: text.len(), limit }) } else { Ok(()) }
}

/// What a file's name does not begin or end with.
fn is_edge(c: char) -> bool {
    c == '.' || c.is_whitespace()
}

/// Whether Windows takes a file's name for a device, in whatever folder it stands and whatever extensions follow.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    match stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")) {
        // The last three count as digits there.
        Some(port) => {
            let mut digits = port.chars();
            matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
        }
        None => matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$"),
    }
}

/// A device's name as one of a file, not longer than names may be.
fn defused(name: &str) -> String {
    let mut name = format!("_{name}");
    while name.len() > MAX_FILE_NAME {
        name.pop();
    }
    name.trim_end_matches(is_edge).to_owned()
}

/// One line of characters that can be seen, with single spaces.
fn visible_line(text: &str) -> String {
    let visible: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text without control characters other than line ends and tabs.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// Marks that turn the direction of writing, and characters without a shape of their own: Unicode's Bidi_Control, the
/// zero-width ones, variation selectors, fillers and tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_could_disguise_them() {
        for (written, kept) in [
            ("Alice", "Alice"),
            ("  Alice\t\n of  Wonderland ", "Alice of Wonderland"),
            ("\u{202e}ecilA\u{202c}", "ecilA"),
            ("Al\u{200b}ice\u{feff}\u{1b}[31m", "Alice[31m"),
            ("\u{2028}\u{e0041}", ""),
            ("Zoë 🦊", "Zoë 🦊"),
        ] {
            assert_eq!(Name::new(written).unwrap().as_str(), kept, "{written:?}");
        }
        assert_eq!(Name::new(&"a".repeat(129)).err(), Some(TextError::TooLong { length: 129, limit: MAX_NAME }));
    }

    #[test]
    fn file_names_name_a_file_in_the_folder_they_are_joined_to() {
        for (offered, kept) in [
            ("cat.jpg", "cat.jpg"),
            ("../../etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("/", "file"),
            ("..", "file"),
            ("", "file"),
            (".bashrc", "bashrc"),
            ("C:evil", "Cevil"),
            ("gpj.\u{202e}exe", "gpj.exe"),
            ("a\u{0}b\n.txt ", "ab .txt"),
            ("folder/", "file"),
        ] {
            assert_eq!(FileName::new(offered).unwrap().as_str(), kept, "{offered:?}");
        }
        assert!(FileName::new(&"x".repeat(MAX_FILE_NAME + 1)).is_err());
    }

    #[test]
    fn no_file_name_is_that_of_a_device() {
        for (offered, kept) in [
            ("CON", "_CON"),
            ("nul.txt", "_nul.txt"),
            ("Aux.tar.gz", "_Aux.tar.gz"),
            ("prn . . ", "_prn"),
            ("COM1 .txt", "_COM1 .txt"),
            ("lpt9.", "_lpt9"),
            ("COM².log", "_COM².log"),
            ("conin$", "_conin$"),
            ("folder/CON", "_CON"),
            ("C\u{200b}ON", "_CON"),
            ("co:n", "_con"),
            ("console", "console"),
            ("COM", "COM"),
            ("COM10", "COM10"),
            ("my.con", "my.con"),
            ("_CON", "_CON"),
        ] {
            assert_eq!(FileName::new(offered).unwrap().as_str(), kept, "{offered:?}");
        }
        // As long as names may be, and not longer: the other side takes it, and leaves it as it is.
        for end in ["x", ".x", "é"] {
            let mut longest = format!("CON.{}", end.repeat(MAX_FILE_NAME));
            while longest.len() > MAX_FILE_NAME {
                longest.pop();
            }
            let name = FileName::new(&longest).unwrap();
            assert!(name.as_str().starts_with("_CON.") && name.as_str().len() <= MAX_FILE_NAME);
            assert!(FileName::new(name.as_str()).unwrap() == name, "{end}");
        }
    }

    #[test]
    fn texts_keep_their_lines_and_cannot_steer_a_terminal() {
        assert_eq!(Text::new("a\r\nb\tc\u{1b}[2J\u{9b}").unwrap().as_str(), "a\nb\tc[2J");
        assert_eq!(Text::new(" \u{1b}\n ").err(), Some(TextError::Empty));
        assert!(Text::new(&"x".repeat(MAX_TEXT)).is_ok());
        assert!(Text::new(&"x".repeat(MAX_TEXT + 1)).is_err());
        assert_eq!(Text::greeting("").unwrap().as_str(), "");
    }
}
