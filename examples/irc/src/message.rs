//! An IRC line: parsing and writing.
//!
//! Invariants: parsing never panics, whatever the bytes; what it accepts is UTF-8 without NUL, CR or LF, has at most
//! [`MAX_PARAMS`] parameters, and written back parses to the same message.

use std::fmt;

/// Bytes of a line without tags and without its line end (512 with CRLF).
pub const MAX_BODY: usize = 510;
/// Bytes of the tag section, with its `@` and the space that ends it (IRCv3 message-tags).
pub const MAX_TAGS: usize = 8191;
/// Bytes of tag data that a client may send.
pub const MAX_CLIENT_TAGS: usize = 4094;
/// Bytes of client-only tags that are passed on. They enter the log with each message: enough for a reply's id, a
/// reaction and a typing notice, and no more than the text itself may hold.
pub const MAX_PASSED_TAGS: usize = 512;
/// Parameters of one message (RFC 1459).
pub const MAX_PARAMS: usize = 15;

/// A parsed line of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The tag section as sent, still escaped, without `@`.
    tags: String,
    /// The command in upper case.
    command: String,
    /// The parameters; only the last may be empty or hold spaces.
    params: Vec<String>,
}

/// Why a line was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseMessageError {
    /// Tags or body exceed their limit.
    #[error("the line is too long")]
    TooLong,
    /// Not UTF-8.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// A NUL or a carriage return within the line.
    #[error("the line holds a control character that IRC does not allow")]
    ControlCharacter,
    /// No command, or one that is neither letters nor three digits.
    #[error("the line holds no valid command")]
    NoCommand,
    /// Nothing but white space.
    #[error("the line is empty")]
    Empty,
}

impl Message {
    /// Parses one line, given without its line end.
    ///
    /// # Errors
    /// [`ParseMessageError`] says what is wrong with the line; the connection may go on.
    pub fn parse(line: &[u8]) -> Result<Self, ParseMessageError> {
        if line.len() > MAX_TAGS + MAX_BODY {
            return Err(ParseMessageError::TooLong);
        }
        let line = std::str::from_utf8(line).map_err(|_| ParseMessageError::NotUtf8)?;
        if line.contains(['\0', '\r', '\n']) {
            return Err(ParseMessageError::ControlCharacter);
        }
        let mut rest = line.trim_start_matches(' ');
        let mut tags = "";
        if let Some(tagged) = rest.strip_prefix('@') {
            (tags, rest) = tagged.split_once(' ').ok_or(ParseMessageError::NoCommand)?;
            if tags.len() > MAX_CLIENT_TAGS {
                return Err(ParseMessageError::TooLong);
            }
            rest = rest.trim_start_matches(' ');
        }
        if rest.len() > MAX_BODY {
            return Err(ParseMessageError::TooLong);
        }
        // A client's own prefix says nothing that the server would believe.
        if let Some(sourced) = rest.strip_prefix(':') {
            rest = sourced.split_once(' ').map_or("", |(_, rest)| rest).trim_start_matches(' ');
        }
        if rest.is_empty() && tags.is_empty() && line.trim().is_empty() {
            return Err(ParseMessageError::Empty);
        }
        let (command, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let numeric = command.len() == 3 && command.bytes().all(|b| b.is_ascii_digit());
        if command.is_empty() || !(numeric || command.bytes().all(|b| b.is_ascii_alphabetic())) {
            return Err(ParseMessageError::NoCommand);
        }
        Ok(Self { tags: tags.to_owned(), command: command.to_ascii_uppercase(), params: split_params(rest) })
    }

    /// The command in upper case.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// All parameters.
    pub fn params(&self) -> &[String] {
        &self.params
    }

    /// The parameter at `index`, unless it is missing or empty.
    pub fn param(&self, index: usize) -> Option<&str> {
        self.params.get(index).map(String::as_str).filter(|param| !param.is_empty())
    }

    /// The client-only tags (those that begin with `+`), still escaped, ready to be passed on; tags that do not fit in
    /// [`MAX_PASSED_TAGS`] are left out whole.
    pub fn client_tags(&self) -> String {
        let mut kept = String::new();
        for tag in self.tags.split(';').filter(|tag| tag.len() > 1 && tag.starts_with('+')) {
            let separator = usize::from(!kept.is_empty());
            if kept.len() + separator + tag.len() > MAX_PASSED_TAGS {
                continue;
            }
            if separator > 0 {
                kept.push(';');
            }
            kept.push_str(tag);
        }
        kept
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tags.is_empty() {
            write!(f, "@{} ", self.tags)?;
        }
        f.write_str(&self.command)?;
        if let Some((last, first)) = self.params.split_last() {
            for param in first {
                write!(f, " {param}")?;
            }
            write!(f, " :{last}")?;
        }
        Ok(())
    }
}

/// Shortens `text` to at most `limit` bytes without cutting a character.
pub fn truncate(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn split_params(mut rest: &str) -> Vec<String> {
    let mut params = Vec::new();
    loop {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return params;
        }
        if let Some(trailing) = rest.strip_prefix(':') {
            params.push(trailing.to_owned());
            return params;
        }
        if params.len() + 1 == MAX_PARAMS {
            params.push(rest.to_owned());
            return params;
        }
        let (param, after) = rest.split_once(' ').unwrap_or((rest, ""));
        params.push(param.to_owned());
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn parsed(line: &str) -> Message {
        Message::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    #[test]
    fn splits_tags_command_and_parameters() {
        let message = parsed("@+typing=active;time=x;+a :me!u@h  privmsg  #c   :hello  there ");
        assert_eq!(message.command(), "PRIVMSG");
        assert_eq!(message.params(), ["#c", "hello  there "]);
        assert_eq!(message.client_tags(), "+typing=active;+a");
    }

    #[test]
    fn passes_on_only_whole_tags_that_fit() {
        let tag = |len: usize| format!("+{}", "a".repeat(len - 1));
        let message = parsed(&format!("@+a;{};{};+b TAGMSG #c", tag(MAX_PASSED_TAGS), tag(MAX_PASSED_TAGS - 6)));
        assert_eq!(message.client_tags(), format!("+a;{};+b", tag(MAX_PASSED_TAGS - 6)));
        assert_eq!(message.client_tags().len(), MAX_PASSED_TAGS);
    }

    #[test]
    fn takes_the_rest_as_the_fifteenth_parameter() {
        let message = parsed("MODE 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16");
        assert_eq!(message.params().len(), MAX_PARAMS);
        assert_eq!(message.params()[14], "15 16");
    }

    #[test]
    fn refuses_what_exceeds_a_limit() {
        let body = |len: usize| format!("PING {}", "x".repeat(len - 5));
        assert!(Message::parse(body(MAX_BODY).as_bytes()).is_ok());
        assert_eq!(Message::parse(body(MAX_BODY + 1).as_bytes()), Err(ParseMessageError::TooLong));
        let tags = |len: usize| format!("@{} PING x", "t".repeat(len));
        assert!(Message::parse(tags(MAX_CLIENT_TAGS).as_bytes()).is_ok());
        assert_eq!(Message::parse(tags(MAX_CLIENT_TAGS + 1).as_bytes()), Err(ParseMessageError::TooLong));
    }

    #[test]
    fn refuses_what_is_no_message() {
        for (line, error) in [
            (&b"   "[..], ParseMessageError::Empty),
            (b"", ParseMessageError::Empty),
            (b"\xff\xfe", ParseMessageError::NotUtf8),
            (b"PING a\0b", ParseMessageError::ControlCharacter),
            (b"PING a\rQUIT", ParseMessageError::ControlCharacter),
            (b"PI_NG a", ParseMessageError::NoCommand),
            (b"1234 a", ParseMessageError::NoCommand),
            (b"@tag", ParseMessageError::NoCommand),
            (b":only!a@source", ParseMessageError::NoCommand),
        ] {
            assert_eq!(Message::parse(line), Err(error), "{line:?}");
        }
    }

    #[test]
    fn truncates_between_characters() {
        assert_eq!(truncate("aé", 2), "a");
        assert_eq!(truncate("aé", 3), "aé");
    }

    #[test]
    fn survives_seeded_mutation_and_writes_back_what_it_read() {
        let seed = rand::random::<u64>();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let corpus: [&[u8]; 5] = [
            b"@+a=b;c :n!u@h PRIVMSG #chan :some text",
            b"MODE #c +kl key 10",
            b"USER a 0 * :real name",
            b"CAP LS 302",
            "PRIVMSG #\u{e9} :\u{1f600}".as_bytes(),
        ];
        let mut accepted = 0;
        for _ in 0..50_000 {
            let mut line = corpus[rng.random_range(0..corpus.len())].to_vec();
            for _ in 0..rng.random_range(0..6) {
                let at = rng.random_range(0..=line.len());
                match rng.random_range(0..4) {
                    0 => line.insert(at, rng.random()),
                    1 => line.insert(at, b"@ :;=+\r\n\0"[rng.random_range(0..9)]),
                    2 if at < line.len() => drop(line.remove(at)),
                    _ => line.truncate(at),
                }
            }
            if let Ok(message) = Message::parse(&line) {
                accepted += 1;
                let written = message.to_string();
                assert_eq!(Message::parse(written.as_bytes()), Ok(message), "seed {seed}: {written:?}");
            }
        }
        assert!(accepted > 10_000, "only {accepted} lines were accepted: seed {seed}");
    }
}
