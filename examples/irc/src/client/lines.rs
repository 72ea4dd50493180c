//! Cuts a stream of bytes into lines, within fixed memory.

use crate::message::{MAX_BODY, MAX_TAGS, ParseMessageError};

/// Bytes of the longest line that is kept, with its line end.
const MAX_LINE: usize = MAX_TAGS + MAX_BODY + 2;
/// Bytes read at once; also what a silent client costs.
const CHUNK: usize = 1024;

/// The bytes that make no whole line yet.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// How many of `bytes` were read; the rest is room.
    len: usize,
    /// How many of them hold no line end.
    searched: usize,
    /// Whether the rest of a line that was too long is being passed over.
    skipping: bool,
}

impl LineBuffer {
    /// Room for the next read. Call [`LineBuffer::next_line`] until it returns `None` first.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.bytes.len() < self.len + CHUNK {
            self.bytes.resize(self.len + CHUNK, 0);
        }
        &mut self.bytes[self.len..]
    }

    /// Says how much of the room was filled.
    pub(super) fn filled(&mut self, len: usize) {
        self.len = (self.len + len).min(self.bytes.len());
    }

    /// The next line without its line end (LF, or CR and LF); for one that was too long an error, once.
    pub(super) fn next_line(&mut self) -> Option<Result<Vec<u8>, ParseMessageError>> {
        loop {
            let found = self.bytes[self.searched..self.len].iter().position(|byte| *byte == b'\n');
            let Some(end) = found.map(|at| self.searched + at) else {
                self.searched = self.len;
                if self.len > MAX_LINE {
                    self.len = 0;
                    self.searched = 0;
                    if !std::mem::replace(&mut self.skipping, true) {
                        return Some(Err(ParseMessageError::TooLong));
                    }
                }
                if self.len == 0 && self.bytes.len() > CHUNK {
                    self.bytes = Vec::new();
                }
                return None;
            };
            let line = self.bytes[..end].strip_suffix(b"\r").unwrap_or(&self.bytes[..end]).to_vec();
            self.bytes.copy_within(end + 1..self.len, 0);
            self.len -= end + 1;
            self.searched = 0;
            if !std::mem::take(&mut self.skipping) {
                return Some(Ok(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(buffer: &mut LineBuffer, mut bytes: &[u8]) -> Vec<Result<String, ParseMessageError>> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let space = buffer.space();
            let len = space.len().min(bytes.len());
            space[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            buffer.filled(len);
            while let Some(line) = buffer.next_line() {
                lines.push(line.map(|line| String::from_utf8_lossy(&line).into_owned()));
            }
        }
        lines
    }

    #[test]
    fn accepts_both_line_ends_and_lines_in_pieces() {
        let mut buffer = LineBuffer::default();
        assert_eq!(feed(&mut buffer, b"a\r\nb\n\nc"), [Ok("a".into()), Ok("b".into()), Ok(String::new())]);
        assert_eq!(feed(&mut buffer, b"d\r"), []);
        assert_eq!(feed(&mut buffer, b"\ne\n"), [Ok("cd".into()), Ok("e".into())]);
    }

    #[test]
    fn reports_a_line_that_is_too_long_once_and_goes_on_after_it() {
        let mut buffer = LineBuffer::default();
        let mut bytes = vec![b'x'; 5 * MAX_LINE];
        bytes.extend(b"\nnext\n");
        assert_eq!(feed(&mut buffer, &bytes), [Err(ParseMessageError::TooLong), Ok("next".into())]);
        assert!(buffer.bytes.len() <= MAX_LINE + 2 * CHUNK);
    }
}
