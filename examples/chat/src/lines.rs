//! Lines of bounded length, cut from a flow of bytes.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line of a request, in bytes: the longest text with each of its bytes written as `\u00xx`, and its frame.
pub(crate) const MAX_LINE: usize = 256 * 1024;
/// The longest line of a reply, in bytes: [`crate::execute::MAX_HISTORY`] with every byte escaped, and its frame.
pub(crate) const MAX_REPLY: usize = 16 * 1024 * 1024;
/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// A line without its end, or the news that one was too long and is left out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// Cuts lines; holds at most the limit of one unfinished line and the lines of the chunk that was pushed last.
#[derive(Debug)]
pub(crate) struct Splitter {
    limit: usize,
    unfinished: Vec<u8>,
    skipping: bool,
    ready: VecDeque<Line>,
}

impl Splitter {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, unfinished: Vec::new(), skipping: false, ready: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.take_in(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.unfinished);
            match std::mem::take(&mut self.skipping) {
                true => self.ready.push_back(Line::TooLong),
                false if line.iter().all(u8::is_ascii_whitespace) => {}
                false => self.ready.push_back(Line::Whole(line)),
            }
        }
        self.take_in(bytes);
    }

    /// What follows the last line end counts as a line when everything has come.
    pub(crate) fn finish(&mut self) {
        if self.skipping || !self.unfinished.is_empty() {
            self.push(b"\n");
        }
    }

    pub(crate) fn next(&mut self) -> Option<Line> {
        self.ready.pop_front()
    }

    fn take_in(&mut self, bytes: &[u8]) {
        if self.skipping || self.unfinished.len() + bytes.len() > self.limit {
            self.skipping = true;
            self.unfinished = Vec::new();
        } else {
            self.unfinished.extend_from_slice(bytes);
        }
    }
}

/// Reads lines.
pub(crate) struct Lines<R> {
    reader: R,
    splitter: Splitter,
    chunk: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader, splitter: Splitter::new(limit), chunk: vec![0; CHUNK].into() }
    }

    /// The next line; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.splitter.next() {
                return Ok(Some(line));
            }
            match self.reader.read(&mut self.chunk).await? {
                0 => {
                    self.splitter.finish();
                    return Ok(self.splitter.next());
                }
                len => self.splitter.push(&self.chunk[..len]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(limit: usize, chunks: &[&str]) -> Vec<Line> {
        let mut splitter = Splitter::new(limit);
        chunks.iter().for_each(|chunk| splitter.push(chunk.as_bytes()));
        splitter.finish();
        std::iter::from_fn(|| splitter.next()).collect()
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.into())
    }

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        assert_eq!(lines(10, &["a", "b\nc\n", "\n \r\nd"]), [whole("ab"), whole("c"), whole("d")]);
        assert_eq!(lines(10, &[]), []);
    }

    #[test]
    fn a_line_beyond_the_limit_is_left_out_and_the_next_one_is_read() {
        assert_eq!(lines(3, &["abc\nabcd\nef\n"]), [whole("abc"), Line::TooLong, whole("ef")]);
        assert_eq!(lines(3, &["ab", "cd", "ef\ngh"]), [Line::TooLong, whole("gh")]);
        assert_eq!(lines(3, &["abcd"]), [Line::TooLong]);
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut splitter = Splitter::new(1000);
        for _ in 0..1000 {
            splitter.push(&[b'x'; 100]);
            assert!(splitter.unfinished.capacity() <= 2000);
        }
    }
}
