//! Entries: what a payload holds, of which kinds, and which of them rule the log itself.
//!
//! A payload is a salt and entries, each with its kind and length. Kinds that are not known here are kept and passed on.

use bytes::Bytes;

use super::storage::Hash;
use super::wire::{MAX_ENTRY, MAX_PAYLOAD, SIGNATURE, SegmentError, Tip, put_log, take_log};
use crate::identity::fields::Fields;
use crate::replica::place::{Place, Stamp};

/// One entry of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The application's.
    Plain(Bytes),
    /// The application's, appended again by its author, since the first copy is behind a checkpoint that does not have it.
    Again { first: Place, stamp: Stamp, body: Bytes },
    /// The owner's word on members and configuration.
    Manifest(Bytes),
    /// Two segments stand at one place.
    Fork(Fork),
    /// What its author had seen may be replaced by a state: a checkpoint is asked for.
    Retain {
        /// The statement of the checkpoint that its author holds, from which the next one is made; zero if it holds none.
        base: Hash,
    },
    /// A member's signature under a checkpoint.
    Vote(Vote),
    /// A kind that this version does not know.
    Unknown { kind: u16, body: Bytes },
}

/// The proof that a node signed two segments for one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    pub(crate) one: Tip,
    pub(crate) one_signature: [u8; SIGNATURE],
    /// Has the log and the number of `one`.
    pub(crate) other: Hash,
    pub(crate) other_signature: [u8; SIGNATURE],
}

/// A signature under the checkpoint that the retention entry's segment asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    /// The segment that asked.
    pub(crate) asked: Tip,
    /// The hash of the statement that is signed.
    pub(crate) statement: Hash,
    pub(crate) signature: [u8; SIGNATURE],
}

impl Fork {
    pub(crate) fn other(&self) -> Tip {
        Tip { hash: self.other, ..self.one }
    }
}

impl Entry {
    pub(crate) fn is_system(&self) -> bool {
        matches!(self, Self::Manifest(_) | Self::Fork(_) | Self::Retain { .. } | Self::Vote(_) | Self::Again { .. })
    }

    /// Bytes in a payload.
    pub(crate) fn len(&self) -> usize {
        ENTRY_HEAD
            + match self {
                Self::Plain(body) | Self::Manifest(body) | Self::Unknown { body, .. } => body.len(),
                Self::Again { body, .. } => AGAIN_HEAD + body.len(),
                Self::Fork(_) => FORK_LEN,
                Self::Retain { .. } => RETAIN_LEN,
                Self::Vote(_) => VOTE_LEN,
            }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, kind: u16| {
            out.extend_from_slice(&kind.to_be_bytes());
            // An entry fits into a payload.
            out.extend_from_slice(&((self.len() - ENTRY_HEAD) as u32).to_be_bytes());
        };
        match self {
            Self::Plain(body) => {
                head(out, PLAIN);
                out.extend_from_slice(body);
            }
            Self::Again { first, stamp, body } => {
                head(out, AGAIN);
                put_log(out, &first.log);
                out.extend_from_slice(&first.seq.to_be_bytes());
                out.extend_from_slice(&first.index.to_be_bytes());
                out.extend_from_slice(&stamp.millis.to_be_bytes());
                out.extend_from_slice(&stamp.counter.to_be_bytes());
                out.extend_from_slice(body);
            }
            Self::Manifest(body) => {
                head(out, MANIFEST);
                out.extend_from_slice(body);
            }
            Self::Fork(fork) => {
                head(out, FORK);
                fork.one.put(out);
                out.extend_from_slice(&fork.one_signature);
                out.extend_from_slice(&fork.other);
                out.extend_from_slice(&fork.other_signature);
            }
            Self::Retain { base } => {
                head(out, RETAIN);
                out.extend_from_slice(base);
            }
            Self::Vote(vote) => {
                head(out, VOTE);
                vote.asked.put(out);
                out.extend_from_slice(&vote.statement);
                out.extend_from_slice(&vote.signature);
            }
            Self::Unknown { kind, body } => {
                head(out, *kind);
                out.extend_from_slice(body);
            }
        }
    }

    /// `None` when it is malformed: of a kind that is known, or too long.
    fn read(kind: u16, body: Bytes) -> Option<Self> {
        let mut fields = Fields::new(&body);
        let entry = match kind {
            PLAIN => Self::Plain(body),
            AGAIN => {
                let first = Place { log: take_log(&mut fields)?, seq: fields.u64()?, index: fields.u32()? };
                let stamp = Stamp { millis: fields.u64()?, counter: fields.u32()? };
                if first.seq == 0 {
                    return None;
                }
                Self::Again { first, stamp, body: body.slice(AGAIN_HEAD..) }
            }
            MANIFEST => Self::Manifest(body),
            FORK => {
                let fork = Fork {
                    one: Tip::take(&mut fields)?,
                    one_signature: fields.take()?,
                    other: fields.take()?,
                    other_signature: fields.take()?,
                };
                fields.end()?;
                Self::Fork(fork)
            }
            RETAIN => {
                let base = fields.take()?;
                fields.end()?;
                Self::Retain { base }
            }
            VOTE => {
                let vote =
                    Vote { asked: Tip::take(&mut fields)?, statement: fields.take()?, signature: fields.take()? };
                fields.end()?;
                Self::Vote(vote)
            }
            kind => Self::Unknown { kind, body },
        };
        let most = match entry {
            Self::Plain(_) => MAX_ENTRY,
            Self::Manifest(_) => MAX_MANIFEST,
            _ => MAX_ENTRY + AGAIN_HEAD,
        };
        (entry.len() - ENTRY_HEAD <= most).then_some(entry)
    }
}

/// The payload of these entries, which fit.
pub(crate) fn payload(salt: [u8; SALT], entries: &[Entry]) -> Bytes {
    let mut out = Vec::with_capacity(SALT + entries.iter().map(Entry::len).sum::<usize>());
    out.extend_from_slice(&salt);
    entries.iter().for_each(|entry| entry.put(&mut out));
    out.into()
}

/// The entries of a payload.
pub(crate) fn entries(payload: &Bytes) -> Result<Vec<Entry>, SegmentError> {
    let mut rest = SALT;
    let mut entries = Vec::new();
    if payload.len() < SALT {
        return Err(SegmentError::Payload);
    }
    while rest < payload.len() {
        let mut fields = Fields::new(&payload[rest..]);
        let head = fields.u16().zip(fields.u32());
        let (kind, len) = head.ok_or(SegmentError::Payload)?;
        let (from, to) = (rest + ENTRY_HEAD, rest + ENTRY_HEAD + len as usize);
        if len as usize > MAX_PAYLOAD || to > payload.len() {
            return Err(SegmentError::Payload);
        }
        entries.push(Entry::read(kind, payload.slice(from..to)).ok_or(SegmentError::Payload)?);
        rest = to;
    }
    Ok(entries)
}

/// Checks a payload's form, and that its header does not hide entries of the log's own kinds; of kinds that are not known
/// here it may say so.
pub(crate) fn check(payload: &Bytes, system: bool) -> Result<(), SegmentError> {
    let hidden = entries(payload)?.iter().any(Entry::is_system) && !system;
    if hidden { Err(SegmentError::Payload) } else { Ok(()) }
}

/// Random bytes in front of a payload, so that what was pruned cannot be guessed from its root.
pub(crate) const SALT: usize = 16;
/// A manifest with its shared configuration and all members' longest names: 77 KB.
pub(crate) const MAX_MANIFEST: usize = 80 * 1024;
/// Kind and length.
const ENTRY_HEAD: usize = 6;
/// First place and stamp.
const AGAIN_HEAD: usize = 48 + 8 + 4 + 8 + 4;
const FORK_LEN: usize = 88 + 64 + 32 + 64;
const RETAIN_LEN: usize = 32;
const VOTE_LEN: usize = 88 + 32 + 64;

const PLAIN: u16 = 0;
const AGAIN: u16 = 1;
const MANIFEST: u16 = 2;
const FORK: u16 = 3;
const RETAIN: u16 = 4;
const VOTE: u16 = 5;
