//! Segments: their bytes, what is signed of them, what is hashed, and what makes one unacceptable whoever sent it.
//!
//! A header has one form and is kept as it came. Its hash names the segment; what the author signs is the segment's place
//! with that hash, so that two signatures and two hashes are all the proof that a fork takes.

use bytes::Bytes;

use super::storage::Hash;
use crate::identity::fields::Fields;
use crate::replica::place::{Incarnation, LogId, NodeId, Stamp};

/// A place in the log and the hash of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tip {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
}

/// A segment whose form was checked; whether its author signed it is checked apart, with [`Tip::signed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) head: Head,
    pub(crate) hash: Hash,
    pub(crate) header: Bytes,
    pub(crate) signature: [u8; SIGNATURE],
    pub(crate) payload: Bytes,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) log: LogId,
    /// From 1.
    pub(crate) seq: u64,
    /// Hash of the segment before; zero for the first.
    pub(crate) previous: Hash,
    pub(crate) stamp: Stamp,
    /// The version of the newest manifest that the author knew; 0 if none.
    pub(crate) manifest: u64,
    /// There are entries of the log's own kinds in the payload.
    pub(crate) system: bool,
    /// What the author had newly seen since its previous segment; of a first segment, all that it had seen.
    pub(crate) dependencies: Vec<Tip>,
    pub(crate) payload_root: Hash,
}

/// Why bytes are no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error("a segment beyond its limits")]
    TooLong,
    #[error("a segment of a layout that this version does not know")]
    Layout,
    #[error("a malformed header")]
    Header,
    #[error("a payload that its header does not name")]
    Root,
    #[error("a malformed payload")]
    Payload,
}

impl Head {
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEAD_LEN + self.dependencies.len() * TIP_LEN);
        out.push(LAYOUT);
        out.push(if self.system { SYSTEM } else { 0 });
        put_log(&mut out, &self.log);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(&self.stamp.millis.to_be_bytes());
        out.extend_from_slice(&self.stamp.counter.to_be_bytes());
        out.extend_from_slice(&self.manifest.to_be_bytes());
        out.extend_from_slice(&self.payload_root);
        // At most MAX_DEPENDENCIES, which fits.
        out.extend_from_slice(&(self.dependencies.len() as u16).to_be_bytes());
        self.dependencies.iter().for_each(|tip| tip.put(&mut out));
        out.into()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SegmentError> {
        if bytes.len() > MAX_HEADER {
            return Err(SegmentError::TooLong);
        }
        if bytes.first() != Some(&LAYOUT) {
            return Err(SegmentError::Layout);
        }
        read_head(Fields::new(&bytes[1..])).ok_or(SegmentError::Header)
    }

    /// The segment that stands before this one.
    pub(crate) fn before(&self) -> Option<Tip> {
        (self.seq > 1).then(|| Tip { log: self.log, seq: self.seq - 1, hash: self.previous })
    }
}

fn read_head(mut fields: Fields<'_>) -> Option<Head> {
    // Flags that are not known here are somebody's newer ones.
    let system = fields.u8()? & SYSTEM != 0;
    let log = take_log(&mut fields)?;
    let seq = fields.u64()?;
    let previous: Hash = fields.take()?;
    if seq == 0 || seq == u64::MAX || (seq == 1) != (previous == [0; 32]) {
        return None;
    }
    let stamp = Stamp { millis: fields.u64()?, counter: fields.u32()? };
    let manifest = fields.u64()?;
    let payload_root = fields.take()?;
    let count = usize::from(fields.u16()?);
    if count > MAX_DEPENDENCIES {
        return None;
    }
    let dependencies: Vec<Tip> = (0..count).map(|_| Tip::take(&mut fields)).collect::<Option<_>>()?;
    // In order, so that one content has one form and none comes twice.
    if dependencies.windows(2).any(|pair| pair[0] >= pair[1]) || dependencies.iter().any(|tip| tip.log == log) {
        return None;
    }
    fields.end()?;
    Some(Head { log, seq, previous, stamp, manifest, system, dependencies, payload_root })
}

impl Segment {
    /// Makes a segment of a head, whose payload root is filled in, and of its payload.
    pub(crate) fn make(mut head: Head, payload: Bytes, sign: impl FnOnce(&Tip) -> [u8; SIGNATURE]) -> Self {
        head.payload_root = payload_root(&payload);
        let header = head.to_bytes();
        let hash = segment_hash(&header);
        let signature = sign(&Tip { log: head.log, seq: head.seq, hash });
        Self { head, hash, header, signature, payload }
    }

    /// Checks the form of a segment from outside.
    pub(crate) fn parse(header: Bytes, signature: &[u8], payload: Bytes) -> Result<Self, SegmentError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(SegmentError::TooLong);
        }
        let head = Head::parse(&header)?;
        let signature = signature.try_into().map_err(|_| SegmentError::Header)?;
        if payload_root(&payload) != head.payload_root {
            return Err(SegmentError::Root);
        }
        super::entry::check(&payload, head.system)?;
        let hash = segment_hash(&header);
        Ok(Self { head, hash, header, signature, payload })
    }

    pub(crate) fn tip(&self) -> Tip {
        Tip { log: self.head.log, seq: self.head.seq, hash: self.hash }
    }

    /// What it costs on a link and in memory.
    pub(crate) fn cost(&self) -> usize {
        self.header.len() + self.payload.len() + OVERHEAD
    }
}

impl Tip {
    /// What the author of the log signs of the segment here; `service` is the key of the service's address.
    pub(crate) fn signed(&self, service: &[u8; 32]) -> Vec<u8> {
        self.message(SEGMENT_PURPOSE, service)
    }

    /// What a node signs that holds the log durably up to here.
    pub(crate) fn receipted(&self, service: &[u8; 32]) -> Vec<u8> {
        self.message(RECEIPT_PURPOSE, service)
    }

    fn message(&self, purpose: &[u8], service: &[u8; 32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(purpose.len() + 32 + TIP_LEN);
        out.extend_from_slice(purpose);
        out.extend_from_slice(service);
        self.put(&mut out);
        out
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_log(out, &self.log);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.hash);
    }

    /// `None` when something else is there.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let tip = Self { log: take_log(fields)?, seq: fields.u64()?, hash: fields.take()? };
        (tip.seq > 0 && tip.seq < u64::MAX).then_some(tip)
    }
}

pub(crate) fn put_log(out: &mut Vec<u8>, log: &LogId) {
    out.extend_from_slice(&log.node.0);
    out.extend_from_slice(&log.incarnation.0);
}

pub(crate) fn take_log(fields: &mut Fields<'_>) -> Option<LogId> {
    Some(LogId { node: NodeId(fields.take()?), incarnation: Incarnation(fields.take()?) })
}

/// The hash that names a segment, of its header.
pub(crate) fn segment_hash(header: &[u8]) -> Hash {
    blake3::derive_key(HASH_CONTEXT, header)
}

/// Binds a payload, which begins with its salt, to its header.
pub(crate) fn payload_root(payload: &[u8]) -> Hash {
    blake3::derive_key(ROOT_CONTEXT, payload)
}

/// The longest entry, in bytes.
pub const MAX_ENTRY: usize = 64 * 1024;
/// The longest payload: four of the longest entries, so that the fixed cost of a segment disappears, and no more, since a
/// link holds whole segments.
pub(crate) const MAX_PAYLOAD: usize = 256 * 1024;
/// A first segment names every log that its author holds: 128 members with 16 runs each.
pub(crate) const MAX_DEPENDENCIES: usize = 2_048;
/// The longest header.
pub(crate) const MAX_HEADER: usize = HEAD_LEN + MAX_DEPENDENCIES * TIP_LEN;
/// What a segment costs beyond its bytes.
pub(crate) const OVERHEAD: usize = 512;
/// Log, number and hash.
pub(crate) const TIP_LEN: usize = 32 + 16 + 8 + 32;
pub(crate) const SIGNATURE: usize = 64;
/// Layout, flags, log, number, previous, clock, manifest, root, count.
const HEAD_LEN: usize = 1 + 1 + 48 + 8 + 32 + 12 + 8 + 32 + 2;
const LAYOUT: u8 = 1;
const SYSTEM: u8 = 1;
const SEGMENT_PURPOSE: &[u8] = b"HCP/1 segment\0";
const RECEIPT_PURPOSE: &[u8] = b"HCP/1 receipt\0";
const HASH_CONTEXT: &str = "HCP/1 segment hash";
const ROOT_CONTEXT: &str = "HCP/1 payload root";
