//! The frame: a header of 10 bytes and a payload of at most 64 KiB.
//!
//! ```text
//! 0      1       2            6           10
//! +------+-------+------------+-----------+---------
//! | kind | flags | stream u32 | length u32| payload
//! +------+-------+------------+-----------+---------
//! ```
//! Integers are big-endian. A decoder fails on the first header that breaks a rule and stays failed.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::ErrorKind;

/// Bytes of a frame header.
pub(crate) const HEADER_LEN: usize = 10;
/// The longest payload of a frame, in bytes.
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;
/// Payloads shorter than this are copied out of the read buffer.
const COPY_BELOW: usize = 16 * 1024;
/// The message goes on in the stream's next DATA frame.
pub(crate) const FLAG_MORE: u8 = 1;
/// The sender will send nothing more on this stream.
pub(crate) const FLAG_FIN: u8 = 2;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Hello = 1,
    Proof = 2,
    Open = 3,
    Data = 4,
    Credit = 5,
    Reset = 6,
    Ping = 7,
    Pong = 8,
    Close = 9,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Proof,
            3 => Self::Open,
            4 => Self::Data,
            5 => Self::Credit,
            6 => Self::Reset,
            7 => Self::Ping,
            8 => Self::Pong,
            9 => Self::Close,
            _ => return None,
        })
    }

    /// The longest payload that this kind may carry; control messages are small.
    fn max_payload(self) -> usize {
        match self {
            Self::Data => MAX_PAYLOAD,
            Self::Hello => 16 * 1024,
            Self::Proof | Self::Open => 1024,
            Self::Credit | Self::Reset | Self::Ping | Self::Pong | Self::Close => 64,
        }
    }

    fn flags_allowed(self) -> u8 {
        if self == Self::Data { FLAG_MORE | FLAG_FIN } else { 0 }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Bytes,
}

impl Frame {
    pub(crate) fn control(kind: FrameKind, stream: u32, message: &impl prost::Message) -> Self {
        Self { kind, flags: 0, stream, payload: message.encode_to_vec().into() }
    }

    pub(crate) fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        let mut out = &mut header[..];
        out.put_u8(self.kind as u8);
        out.put_u8(self.flags);
        out.put_u32(self.stream);
        // A payload never exceeds MAX_PAYLOAD, which fits.
        out.put_u32(self.payload.len() as u32);
        header
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The kind is not one of this protocol version.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A flag is set that this kind does not have.
    #[error("frame flags {0:#04x} are not allowed here")]
    Flags(u8),
    /// The payload is longer than the kind may carry.
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// The length that the header declares, in bytes.
        length: u64,
        /// The most that this kind of frame may carry, in bytes.
        limit: usize,
    },
}

impl FrameError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::ProtocolViolation
    }
}

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes bytes in; the caller bounds them by draining [`Self::next`] after each call.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.len() < HEADER_LEN {
            return Ok(None);
        }
        let mut header = &self.buffer[..HEADER_LEN];
        let kind_byte = header.get_u8();
        let kind = FrameKind::from_byte(kind_byte).ok_or(FrameError::UnknownKind(kind_byte))?;
        let flags = header.get_u8();
        if flags & !kind.flags_allowed() != 0 {
            return Err(FrameError::Flags(flags));
        }
        let stream = header.get_u32();
        let length = header.get_u32() as usize;
        if length > kind.max_payload() {
            return Err(FrameError::TooLong { length: length as u64, limit: kind.max_payload() });
        }
        if self.buffer.len() < HEADER_LEN + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        // A small payload that waits somewhere must not keep the whole read buffer alive.
        let payload = if length < COPY_BELOW {
            let copy = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            copy
        } else {
            self.buffer.split_to(length).freeze()
        };
        Ok(Some(Frame { kind, flags, stream, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(frame: &Frame) -> Vec<u8> {
        [&frame.header()[..], &frame.payload[..]].concat()
    }

    #[test]
    fn frames_survive_every_split_of_the_input() {
        let frames = [
            Frame { kind: FrameKind::Data, flags: FLAG_MORE, stream: 7, payload: Bytes::from_static(b"hello") },
            Frame { kind: FrameKind::Ping, flags: 0, stream: 0, payload: Bytes::new() },
            Frame { kind: FrameKind::Data, flags: FLAG_FIN, stream: u32::MAX, payload: Bytes::from_static(b"!") },
        ];
        let all: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
        for split in 0..=all.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for part in [&all[..split], &all[split..]] {
                decoder.extend(part);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "split at {split}");
        }
    }

    #[test]
    fn refuses_a_frame_longer_than_its_kind_allows_before_its_payload_arrives() {
        let mut header = Frame { kind: FrameKind::Data, flags: 0, stream: 1, payload: Bytes::new() }.header();
        header[6..].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_be_bytes());
        let mut decoder = Decoder::default();
        decoder.extend(&header);
        assert_eq!(decoder.next(), Err(FrameError::TooLong { length: MAX_PAYLOAD as u64 + 1, limit: MAX_PAYLOAD }));
    }

    #[test]
    fn refuses_unknown_kinds_and_flags() {
        let mut decoder = Decoder::default();
        decoder.extend(&[0; HEADER_LEN]);
        assert_eq!(decoder.next(), Err(FrameError::UnknownKind(0)));
        let mut decoder = Decoder::default();
        decoder.extend(&[FrameKind::Ping as u8, FLAG_FIN, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decoder.next(), Err(FrameError::Flags(FLAG_FIN)));
    }
}
