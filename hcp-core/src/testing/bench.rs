//! The codec of frames, to be measured: what a frame costs on top of its bytes.

use std::borrow::Cow;

use crate::session::FrameError;
use crate::wire::{Decoder, FrameKind, Head};

/// Appends a frame of a stream's data to `out`. A payload has at most 65,536 bytes.
///
/// # Panics
/// When the payload is longer.
pub fn encode_data(stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= 65_536, "a frame's payload has at most 65,536 bytes");
    Head::new(FrameKind::Data, 0, stream, 0, payload.len()).encode(payload, out);
}

/// Cuts bytes into frames.
#[derive(Debug, Default)]
pub struct FrameReader(Decoder);

impl FrameReader {
    /// A reader that has read nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off `input` up to the end of the next frame, whose payload it gives, where it lies when all of it is there;
    /// or all of them, when none is whole.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are not a frame.
    pub fn next_payload<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, FrameError> {
        Ok(self.0.next(input)?.map(|frame| frame.payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_encodes() {
        let mut out = Vec::new();
        for length in [0, 1, 20_000] {
            encode_data(1, &vec![length as u8; length], &mut out);
        }
        let mut reader = FrameReader::new();
        let mut input = &out[..];
        for length in [0, 1, 20_000] {
            assert_eq!(reader.next_payload(&mut input), Ok(Some(vec![length as u8; length].into())));
        }
        assert_eq!(reader.next_payload(&mut input), Ok(None));
        assert_eq!(reader.next_payload(&mut &[99; 10][..]), Err(FrameError::UnknownKind(99)));
    }
}
