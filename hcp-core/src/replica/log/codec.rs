//! The bytes of a link's messages: one byte says which, fields follow in a fixed order.

use bytes::Bytes;

use super::checkpoint::{Certificate, MAX_PIECES, MAX_SUMMARY};
use super::message::{Frontier, Hello, MAX_TIPS, Message, Need, Offer, Receipt};
use super::storage::{PIECE, Piece};
use super::wire::{MAX_HEADER, MAX_PAYLOAD, SIGNATURE, Segment, SegmentError, Tip, take_log};
use crate::identity::fields::Fields;
use crate::identity::manifest::{Contents, SoftwareVersion};
use crate::replica::place::NodeId;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("a message longer than any may be")]
    TooLong,
    #[error("a malformed message")]
    Malformed,
    #[error("a message beyond the limit on {0}")]
    Limit(&'static str),
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl Message {
    /// Reads a message; `None` for one of a kind that this version does not know and may skip.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Option<Self>, MessageError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(MessageError::TooLong);
        }
        let kind = *bytes.first().ok_or(MessageError::Malformed)?;
        if kind >= OPTIONAL {
            return Ok(None);
        }
        if kind == SEGMENT {
            return segment(bytes).map(Some);
        }
        let fields = Fields::new(&bytes[1..]);
        let message = match kind {
            HELLO => hello(fields),
            FRONTIER => return frontier(fields).map(Some),
            RECEIPT => receipt(fields),
            CREDIT => credit(fields),
            NEED => need(fields),
            OFFER => return offer(bytes).map(Some),
            FETCH => fetch(fields),
            PIECE_OF => piece(bytes),
            HOLDS => holds(fields),
            _ => None,
        };
        message.map(Some).ok_or(MessageError::Malformed)
    }

    /// The bytes of a message.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Hello(hello) => {
                out.push(HELLO);
                out.extend_from_slice(&hello.service);
                out.extend_from_slice(&hello.node.0);
                out.extend_from_slice(&hello.incarnation.0);
                for number in hello.software.numbers().into_iter().chain(hello.lowest.numbers()) {
                    out.extend_from_slice(&number.to_be_bytes());
                }
                out.extend_from_slice(&hello.manifest.to_be_bytes());
            }
            Self::Frontier(frontier) => {
                out.push(FRONTIER);
                // Both counts are bounded far below what the fields hold.
                out.extend_from_slice(&(frontier.tips.len() as u16).to_be_bytes());
                frontier.tips.iter().for_each(|tip| tip.put(&mut out));
                out.push(u8::from(frontier.direct.is_some()));
                if let Some(direct) = &frontier.direct {
                    out.extend_from_slice(&(direct.len() as u16).to_be_bytes());
                    direct.iter().for_each(|node| out.extend_from_slice(&node.0));
                }
            }
            Self::Segment(segment) => {
                out.reserve(1 + 4 + segment.header.len() + SIGNATURE + segment.payload.len());
                out.push(SEGMENT);
                out.extend_from_slice(&(segment.header.len() as u32).to_be_bytes());
                out.extend_from_slice(&segment.header);
                out.extend_from_slice(&segment.signature);
                out.extend_from_slice(&segment.payload);
            }
            Self::Receipt(receipt) => {
                out.push(RECEIPT);
                receipt.tip.put(&mut out);
                out.extend_from_slice(&receipt.signature);
            }
            Self::Credit(bytes) => {
                out.push(CREDIT);
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Self::Need(need) => {
                out.push(NEED);
                need.tip.put(&mut out);
                out.extend_from_slice(&need.back.to_be_bytes());
            }
            Self::Offer(offer) => {
                out.push(OFFER);
                out.extend_from_slice(&(offer.certificate.len() as u32).to_be_bytes());
                out.extend_from_slice(&(offer.summary.len() as u32).to_be_bytes());
                out.extend_from_slice(&offer.certificate);
                out.extend_from_slice(&offer.summary);
                out.extend_from_slice(&offer.pieces);
            }
            Self::Fetch { root, index } => {
                out.push(FETCH);
                out.extend_from_slice(root);
                out.extend_from_slice(&index.to_be_bytes());
            }
            Self::Piece(piece) => {
                out.push(PIECE_OF);
                out.extend_from_slice(&piece.root);
                out.extend_from_slice(&piece.index.to_be_bytes());
                out.extend_from_slice(&piece.bytes);
            }
            Self::Holds(statement) => {
                out.push(HOLDS);
                out.extend_from_slice(statement);
            }
        }
        out.into()
    }
}

fn hello(mut fields: Fields<'_>) -> Option<Message> {
    let service = fields.take()?;
    let log = take_log(&mut fields)?;
    let mut version = || Some(SoftwareVersion::new(fields.u16()?, fields.u16()?, fields.u16()?));
    let (software, lowest) = (version()?, version()?);
    let manifest = fields.u64()?;
    fields.end()?;
    Some(Message::Hello(Hello { service, node: log.node, incarnation: log.incarnation, software, lowest, manifest }))
}

fn frontier(mut fields: Fields<'_>) -> Result<Message, MessageError> {
    let mut read = || {
        let count = usize::from(fields.u16()?);
        if count > MAX_TIPS {
            return Some(Err(MessageError::Limit("tips")));
        }
        let tips: Vec<Tip> = (0..count).map(|_| Tip::take(&mut fields)).collect::<Option<_>>()?;
        let direct = match fields.u8()? {
            0 => None,
            1 => {
                let count = usize::from(fields.u16()?);
                if count > Contents::MAX_MEMBERS {
                    return Some(Err(MessageError::Limit("links")));
                }
                Some((0..count).map(|_| fields.take().map(NodeId)).collect::<Option<Vec<_>>>()?)
            }
            _ => return None,
        };
        Some(Ok(Frontier { tips, direct }))
    };
    let frontier = read().ok_or(MessageError::Malformed)??;
    fields.end().ok_or(MessageError::Malformed)?;
    Ok(Message::Frontier(frontier))
}

fn segment(bytes: &Bytes) -> Result<Message, MessageError> {
    let mut fields = Fields::new(&bytes[1..]);
    let len = fields.u32().ok_or(MessageError::Malformed)? as usize;
    let header_ends = 5 + len;
    let signature_ends = header_ends + SIGNATURE;
    if len > MAX_HEADER || bytes.len() < signature_ends {
        return Err(MessageError::Malformed);
    }
    let signature = &bytes[header_ends..signature_ends];
    let segment = Segment::parse(bytes.slice(5..header_ends), signature, bytes.slice(signature_ends..))?;
    Ok(Message::Segment(segment.into()))
}

fn receipt(mut fields: Fields<'_>) -> Option<Message> {
    let receipt = Receipt { tip: Tip::take(&mut fields)?, signature: fields.take()? };
    fields.end()?;
    Some(Message::Receipt(receipt))
}

fn credit(mut fields: Fields<'_>) -> Option<Message> {
    let bytes = fields.u64()?;
    fields.end()?;
    Some(Message::Credit(bytes))
}

fn need(mut fields: Fields<'_>) -> Option<Message> {
    let need = Need { tip: Tip::take(&mut fields)?, back: fields.u32()? };
    fields.end()?;
    Some(Message::Need(need))
}

fn offer(bytes: &Bytes) -> Result<Message, MessageError> {
    let mut fields = Fields::new(&bytes[1..]);
    let lens = fields.u32().zip(fields.u32()).ok_or(MessageError::Malformed)?;
    let (certificate, summary) = (lens.0 as usize, lens.1 as usize);
    if summary > MAX_SUMMARY {
        return Err(MessageError::Limit("the summary"));
    }
    let (one, two) = (9 + certificate, 9 + certificate + summary);
    if certificate > MAX_MESSAGE || bytes.len() < two || Certificate::parse(&bytes[9..one]).is_none() {
        return Err(MessageError::Malformed);
    }
    let pieces = bytes.slice(two..);
    if !pieces.len().is_multiple_of(32) || pieces.len() / 32 > MAX_PIECES {
        return Err(MessageError::Limit("pieces"));
    }
    let offer = Offer { certificate: bytes.slice(9..one), summary: bytes.slice(one..two), pieces };
    Ok(Message::Offer(Box::new(offer)))
}

fn holds(mut fields: Fields<'_>) -> Option<Message> {
    let statement = fields.take()?;
    fields.end()?;
    Some(Message::Holds(statement))
}

fn fetch(mut fields: Fields<'_>) -> Option<Message> {
    let (root, index) = (fields.take()?, fields.u32()?);
    fields.end()?;
    Some(Message::Fetch { root, index })
}

fn piece(bytes: &Bytes) -> Option<Message> {
    let mut fields = Fields::new(&bytes[1..]);
    let (root, index) = (fields.take()?, fields.u32()?);
    let bytes = bytes.slice(37..);
    (bytes.len() <= PIECE).then_some(Message::Piece(Piece { root, index, bytes }))
}

/// The longest message: a segment with the longest header and payload, or an offer; below a stream's 512 KiB.
pub(crate) const MAX_MESSAGE: usize = 1 + 4 + MAX_HEADER + SIGNATURE + MAX_PAYLOAD;
/// Kinds from here on are skipped by who does not know them.
const OPTIONAL: u8 = 128;
const HELLO: u8 = 1;
const FRONTIER: u8 = 2;
const SEGMENT: u8 = 3;
const RECEIPT: u8 = 4;
const CREDIT: u8 = 5;
const NEED: u8 = 6;
const OFFER: u8 = 7;
const FETCH: u8 = 8;
const PIECE_OF: u8 = 9;
const HOLDS: u8 = 10;
