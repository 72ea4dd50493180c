//! The frame: a header of 10 bytes and a payload of at most 64 KiB (protocol.md, section 3).
//!
//! ```text
//! 0      1       2            6           10
//! +------+-------+------------+-----------+---------
//! | kind | flags | stream u32 | length u32| payload
//! +------+-------+------------+-----------+---------
//! ```
//! Integers are big-endian; a zero byte in place of a kind is padding. A decoder fails on the first header that breaks a
//! rule, before it makes room for a payload.

use std::borrow::Cow;

use bytes::{Buf, Bytes};

use crate::error::ErrorKind;

/// Bytes of a frame header.
pub(crate) const HEADER_LEN: usize = 10;
/// Bytes of the place that every BULK payload begins with.
pub(crate) const PLACE_LEN: usize = 8;
/// The most content of a DATA or BULK frame, in bytes, that a receiver takes.
pub(crate) const MAX_CONTENT: usize = 65_536;
/// The longest HELLO: a certificate, a delegation and limits have some 600 bytes, and later versions may say more.
const MAX_HELLO: usize = 4_096;
/// The longest PROOF, and OPEN: a key and a signature, a protocol's name of 255 bytes, and room for later versions.
const MAX_PROOF: usize = 1_024;
/// JOIN: a session's id, a number and a MAC, of fixed lengths.
const JOIN_LEN: usize = 52;
/// What PING asks to be given back: enough to tell answers apart.
const PING_LEN: usize = 8;
/// Numbers, two at the most, and room for later versions.
const MAX_CONTROL: usize = 64;
/// Room that is made for a payload on its header's word: one TLS record, what this version's frames have at most.
const ROOM_AHEAD: usize = 16 * 1024;
/// The message goes on in the stream's next frame.
pub(crate) const FLAG_MORE: u8 = 1;
/// The sender will send nothing more on this stream.
pub(crate) const FLAG_FIN: u8 = 2;
/// The byte of [`FrameKind::Data`].
const DATA: u8 = 5;
/// Kinds from here on are skipped by who does not know them.
const FIRST_OPTIONAL: u8 = 128;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Hello,
    Proof,
    Join,
    Open,
    Data,
    Bulk,
    Credit,
    Reset,
    Ping,
    Pong,
    Drain,
    Close,
    /// One of those that this version does not know and may skip. Its payload is dropped.
    Optional(u8),
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Proof,
            3 => Self::Join,
            4 => Self::Open,
            DATA => Self::Data,
            6 => Self::Bulk,
            7 => Self::Credit,
            8 => Self::Reset,
            9 => Self::Ping,
            10 => Self::Pong,
            11 => Self::Drain,
            12 => Self::Close,
            FIRST_OPTIONAL.. => Self::Optional(byte),
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Proof => 2,
            Self::Join => 3,
            Self::Open => 4,
            Self::Data => DATA,
            Self::Bulk => 6,
            Self::Credit => 7,
            Self::Reset => 8,
            Self::Ping => 9,
            Self::Pong => 10,
            Self::Drain => 11,
            Self::Close => 12,
            Self::Optional(byte) => byte,
        }
    }

    /// The lengths that a payload of this kind may have: control messages are small.
    fn payload_limits(self) -> (usize, usize) {
        match self {
            Self::Hello => (0, MAX_HELLO),
            Self::Proof | Self::Open => (0, MAX_PROOF),
            Self::Join => (JOIN_LEN, JOIN_LEN),
            Self::Data | Self::Optional(_) => (0, MAX_CONTENT),
            Self::Bulk => (PLACE_LEN, PLACE_LEN + MAX_CONTENT),
            Self::Ping | Self::Pong => (PING_LEN, PING_LEN),
            Self::Credit | Self::Reset | Self::Drain | Self::Close => (0, MAX_CONTROL),
        }
    }

    /// Whether a header of this kind may have these flags on a payload of this length: the end of a stream carries nothing.
    fn allows(self, flags: u8, length: usize) -> bool {
        match self {
            Self::Data | Self::Bulk if flags == FLAG_FIN => length == self.payload_limits().0,
            Self::Data | Self::Bulk => flags & !FLAG_MORE == 0,
            Self::Optional(_) => true,
            _ => flags == 0,
        }
    }

    /// Whether a frame of this kind may name this stream: some concern one, the others the connection.
    fn may_name(self, stream: u32) -> bool {
        match self {
            Self::Open | Self::Data | Self::Bulk | Self::Credit | Self::Reset => stream != 0,
            Self::Optional(_) => true,
            _ => stream == 0,
        }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// Of a BULK frame; 0 in any other.
    pub(crate) place: u64,
    /// Without the place.
    pub(crate) payload: Bytes,
}

/// A frame as it came, its payload where it was read if it lies there whole.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    header: Header,
    pub(crate) payload: Cow<'a, [u8]>,
}

impl Received<'_> {
    pub(crate) fn kind(&self) -> FrameKind {
        self.header.kind
    }

    pub(crate) fn flags(&self) -> u8 {
        self.header.flags
    }

    pub(crate) fn stream(&self) -> u32 {
        self.header.stream
    }

    pub(crate) fn place(&self) -> u64 {
        self.header.place
    }

    /// The frame with a payload of its own: one that waits somewhere keeps no more alive than itself.
    pub(crate) fn into_frame(self) -> Frame {
        let Header { kind, flags, stream, place, .. } = self.header;
        Frame { kind, flags, stream, place, payload: owned(self.payload) }
    }
}

/// Bytes that keep no more alive than themselves.
pub(crate) fn owned(payload: Cow<'_, [u8]>) -> Bytes {
    match payload {
        Cow::Borrowed(payload) => Bytes::copy_from_slice(payload),
        Cow::Owned(payload) => payload.into(),
    }
}

/// What stands in front of a frame's payload, the place included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    bytes: [u8; HEADER_LEN + PLACE_LEN],
    length: usize,
}

impl Head {
    /// `length` is the payload's without the place, which of other frames than BULK is not there.
    pub(crate) fn new(kind: FrameKind, flags: u8, stream: u32, place: u64, length: usize) -> Self {
        let mut head = Self { bytes: [0; HEADER_LEN + PLACE_LEN], length: HEADER_LEN };
        if kind == FrameKind::Bulk {
            head.length += PLACE_LEN;
            head.bytes[HEADER_LEN..].copy_from_slice(&place.to_be_bytes());
        }
        head.bytes[0] = kind.byte();
        head.bytes[1] = flags;
        head.bytes[2..6].copy_from_slice(&stream.to_be_bytes());
        // Nothing that makes frames makes one whose length does not fit.
        let length = (length + head.length - HEADER_LEN) as u32;
        head.bytes[6..HEADER_LEN].copy_from_slice(&length.to_be_bytes());
        head
    }

    /// Appends the frame of this payload to `out`.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn encode(&self, payload: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.length + payload.len());
        out.extend_from_slice(self.as_ref());
        out.extend_from_slice(payload);
    }
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Frame {
    pub(crate) fn new(kind: FrameKind, flags: u8, stream: u32, payload: Bytes) -> Self {
        Self { kind, flags, stream, place: 0, payload }
    }

    pub(crate) fn control(kind: FrameKind, stream: u32, message: &impl prost::Message) -> Self {
        Self::new(kind, 0, stream, message.encode_to_vec().into())
    }

    pub(crate) fn head(&self) -> Head {
        let Self { kind, flags, stream, place, payload } = self;
        Head::new(*kind, *flags, *stream, *place, payload.len())
    }

    /// Bytes on the wire.
    pub(crate) fn encoded_len(&self) -> usize {
        HEADER_LEN + if self.kind == FrameKind::Bulk { PLACE_LEN } else { 0 } + self.payload.len()
    }

    /// Appends the frame to `out`.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.head().encode(&self.payload, out);
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The kind is not one of this protocol version.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A flag is set that this kind does not have, or not with such a payload.
    #[error("frame flags {0:#04x} are not allowed here")]
    Flags(u8),
    /// The frame names a stream and must not, or the other way round.
    #[error("a frame of this kind cannot name stream {0}")]
    Stream(u32),
    /// The payload is shorter than this kind's is.
    #[error("frame of {length} bytes where {least} are the least")]
    TooShort {
        /// The length that the header declares, in bytes.
        length: usize,
        /// The least that this kind of frame carries, in bytes.
        least: usize,
    },
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

/// Cuts a byte stream into frames. It holds no more than the frame that is under way.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// A head that is not whole, place included.
    head: [u8; HEADER_LEN + PLACE_LEN],
    held: usize,
    /// A frame whose payload is not whole.
    partial: Option<Partial>,
    /// What is still to come of an optional frame.
    skip: usize,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: FrameKind,
    flags: u8,
    stream: u32,
    /// Bytes of the payload without the place.
    length: usize,
    place: u64,
}

#[derive(Debug)]
struct Partial {
    header: Header,
    payload: Vec<u8>,
}

impl Decoder {
    /// Room that a payload has which is not whole, in bytes.
    pub(crate) fn partial(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.payload.capacity())
    }

    /// Takes bytes off `input` up to the end of the next frame, which it gives; or all of them, when none is whole. An
    /// optional frame is given as soon as its header is there.
    #[inline]
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Received<'a>>, FrameError> {
        if self.held == 0 && self.skip == 0 && self.partial.is_none() {
            // What there is most of: DATA that is there whole.
            if let Some((head, rest)) = input.split_first_chunk()
                && let Some(header) = Header::of_data(head)
                && let Some((payload, rest)) = rest.split_at_checked(header.length)
            {
                *input = rest;
                return Ok(Some(Received { header, payload: Cow::Borrowed(payload) }));
            }
        }
        self.next_of_any(input)
    }

    fn next_of_any<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Received<'a>>, FrameError> {
        if let Some(Partial { header, mut payload }) = self.partial.take() {
            let (more, rest) = input.split_at(input.len().min(header.length - payload.len()));
            payload.extend_from_slice(more);
            *input = rest;
            if payload.len() == header.length {
                return Ok(Some(Received { header, payload: Cow::Owned(payload) }));
            }
            self.partial = Some(Partial { header, payload });
            return Ok(None);
        }
        self.skip_padding(input);
        let Some(header) = self.header(input)? else { return Ok(None) };
        if let FrameKind::Optional(_) = header.kind {
            self.skip = header.length;
            return Ok(Some(Received { header, payload: Cow::Borrowed(&[]) }));
        }
        if let Some((payload, rest)) = input.split_at_checked(header.length) {
            *input = rest;
            return Ok(Some(Received { header, payload: Cow::Borrowed(payload) }));
        }
        // Room for what frames of this version have at most; for more than that, only as it comes.
        let mut payload = Vec::with_capacity(header.length.min(ROOM_AHEAD.max(input.len())));
        payload.extend_from_slice(input);
        *input = &[];
        self.partial = Some(Partial { header, payload });
        Ok(None)
    }

    fn skip_padding(&mut self, input: &mut &[u8]) {
        if self.skip > 0 {
            let skipped = self.skip.min(input.len());
            self.skip -= skipped;
            *input = &input[skipped..];
        }
        if self.held == 0 && input.first() == Some(&0) {
            // Word by word, since most of what a quiet session receives is padding.
            let words = input.chunks_exact(8).take_while(|word| **word == [0; 8]).count();
            let rest = input[words * 8..].iter().take_while(|byte| **byte == 0).count();
            *input = &input[words * 8 + rest..];
        }
    }

    /// The next header, once it is whole and good, off `input` or what is held of it.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, FrameError> {
        if self.held == 0 {
            let length = head_len(input);
            if let Some((head, rest)) = input.split_at_checked(length) {
                *input = rest;
                return Header::parse(head).map(Some);
            }
        }
        // In two steps for BULK, so that a header is refused before its place is there.
        for length in [HEADER_LEN, HEADER_LEN + PLACE_LEN] {
            let (more, rest) = input.split_at(input.len().min(length.saturating_sub(self.held)));
            self.head[self.held..self.held + more.len()].copy_from_slice(more);
            self.held += more.len();
            *input = rest;
            if self.held < length {
                break;
            }
            let header = Header::parse(&self.head[..self.held])?;
            if self.held == head_len(&self.head[..self.held]) {
                self.held = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}

/// How long the head is that begins with these bytes.
fn head_len(bytes: &[u8]) -> usize {
    if bytes.first() == Some(&FrameKind::Bulk.byte()) { HEADER_LEN + PLACE_LEN } else { HEADER_LEN }
}

impl Header {
    /// That of DATA with at most 65,535 bytes and not the end of a stream, if it is one and good.
    #[inline]
    fn of_data(head: &[u8; HEADER_LEN]) -> Option<Self> {
        let [DATA, flags @ (0 | FLAG_MORE), s0, s1, s2, s3, 0, 0, l0, l1] = *head else { return None };
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let length = u16::from_be_bytes([l0, l1]).into();
        (stream != 0).then_some(Self { kind: FrameKind::Data, flags, stream, length, place: 0 })
    }

    /// Parses a header and, of BULK, the place behind it if it is there.
    fn parse(mut head: &[u8]) -> Result<Self, FrameError> {
        let byte = head.get_u8();
        let kind = FrameKind::from_byte(byte).ok_or(FrameError::UnknownKind(byte))?;
        let flags = head.get_u8();
        let stream = head.get_u32();
        if !kind.may_name(stream) {
            return Err(FrameError::Stream(stream));
        }
        let declared = head.get_u32();
        let (least, limit) = kind.payload_limits();
        let length = match usize::try_from(declared) {
            Ok(length) if length < least => return Err(FrameError::TooShort { length, least }),
            Ok(length) if length <= limit => length,
            _ => return Err(FrameError::TooLong { length: declared.into(), limit }),
        };
        if !kind.allows(flags, length) {
            return Err(FrameError::Flags(flags));
        }
        let place = if head.len() == PLACE_LEN { head.get_u64() } else { 0 };
        let length = if kind == FrameKind::Bulk { length - PLACE_LEN } else { length };
        Ok(Self { kind, flags, stream, length, place })
    }
}

#[cfg(test)]
mod tests;
