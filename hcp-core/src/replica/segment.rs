//! Segments: what is signed, what is hashed, and what makes one unacceptable whoever sent it.
//!
//! The header is signed over the exact bytes that travel; the payload is bound by its root in the header.

use bytes::Bytes;
use prost::Message;

use super::place::{Incarnation, LogId, NodeId, Stamp};
use crate::identity::{LogKey, OnionAddress};
use crate::wire::replica_proto as proto;

/// The longest entry, in bytes.
pub const MAX_ENTRY: usize = 64 * 1024;
/// The longest payload of a segment, in bytes; a segment is cut before its entries exceed it.
pub(crate) const MAX_PAYLOAD: usize = 256 * 1024;
/// The longest header: it names at most about 2,000 logs.
pub(crate) const MAX_HEADER: usize = 192 * 1024;
const SALT: usize = 16;

const SEGMENT_CONTEXT: &[u8] = b"HCP/1 segment\0";
const RECEIPT_CONTEXT: &[u8] = b"HCP/1 receipt\0";
const HASH_CONTEXT: &str = "HCP/1 segment hash";

/// A segment's hash: of its header, which names the payload's root.
pub(crate) type Hash = [u8; 32];

/// A place in the log and the hash of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
}

/// A segment whose form was checked: sizes, root, entries. Whether its signature holds is [`Segment::verify`]'s.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
    pub(crate) previous: Option<Hash>,
    pub(crate) stamp: Stamp,
    pub(crate) dependencies: Vec<Tip>,
    pub(crate) hash: Hash,
    pub(crate) wire: proto::Segment,
}

/// Why bytes are not an acceptable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error("malformed segment: {0}")]
    Malformed(&'static str),
    #[error("the segment's signature does not hold")]
    Signature,
}

impl Segment {
    /// Signs a new segment. The caller keeps entries and dependencies within the limits.
    pub(crate) fn sign(
        key: &LogKey,
        service: &OnionAddress,
        log: LogId,
        previous: Option<Tip>,
        stamp: Stamp,
        dependencies: &[Tip],
        entries: Vec<Bytes>,
    ) -> Self {
        let salt: [u8; SALT] = rand::random();
        let payload = proto::Payload { salt: Bytes::copy_from_slice(&salt), entries }.encode_to_vec();
        let seq = previous.map_or(1, |tip| tip.seq + 1);
        let header = proto::Header {
            node: Bytes::copy_from_slice(&log.node.0),
            incarnation: Bytes::copy_from_slice(&log.incarnation.0),
            seq,
            previous: previous.map_or(Bytes::new(), |tip| Bytes::copy_from_slice(&tip.hash)),
            millis: stamp.millis,
            counter: stamp.counter,
            dependencies: dependencies.iter().map(|tip| tip.to_proto()).collect(),
            payload_root: Bytes::copy_from_slice(blake3::hash(&payload).as_bytes()),
        }
        .encode_to_vec();
        let signature = key.sign(&signed(SEGMENT_CONTEXT, service, &header));
        Self {
            log,
            seq,
            previous: previous.map(|tip| tip.hash),
            stamp,
            dependencies: dependencies.to_vec(),
            hash: hash(&header),
            wire: proto::Segment {
                header: header.into(),
                signature: Bytes::copy_from_slice(&signature),
                payload: payload.into(),
            },
        }
    }

    /// Checks the form of a segment from outside.
    pub(crate) fn parse(wire: proto::Segment) -> Result<Self, SegmentError> {
        use SegmentError::Malformed;
        if wire.header.len() > MAX_HEADER || wire.payload.len() > MAX_PAYLOAD {
            return Err(Malformed("too long"));
        }
        let header = proto::Header::decode(&wire.header[..]).map_err(|_| Malformed("header"))?;
        let log = log_id(&header.node, &header.incarnation).ok_or(Malformed("log"))?;
        let first = header.seq == 1;
        let previous =
            if first { None } else { Some(header.previous[..].try_into().map_err(|_| Malformed("previous"))?) };
        if header.seq == 0 || (first && !header.previous.is_empty()) {
            return Err(Malformed("sequence"));
        }
        let dependencies: Option<Vec<Tip>> = header.dependencies.iter().map(Tip::from_proto).collect();
        let dependencies = dependencies.ok_or(Malformed("dependency"))?;
        if dependencies.iter().any(|tip| tip.log == log) {
            return Err(Malformed("dependency on its own log"));
        }
        if header.payload_root != blake3::hash(&wire.payload).as_bytes()[..] {
            return Err(Malformed("payload root"));
        }
        let segment = Self {
            log,
            seq: header.seq,
            previous,
            stamp: Stamp { millis: header.millis, counter: header.counter },
            dependencies,
            hash: hash(&wire.header),
            wire,
        };
        segment.entries()?;
        Ok(segment)
    }

    /// Checks that the author of the log signed this segment for this service.
    pub(crate) fn verify(&self, service: &OnionAddress) -> Result<(), SegmentError> {
        let signature = self.wire.signature[..].try_into().map_err(|_| SegmentError::Signature)?;
        LogKey::verify(&self.log.node.0, &signed(SEGMENT_CONTEXT, service, &self.wire.header), &signature)
            .map_err(|_| SegmentError::Signature)
    }

    /// The entries, in order.
    pub(crate) fn entries(&self) -> Result<Vec<Bytes>, SegmentError> {
        let payload =
            proto::Payload::decode(self.wire.payload.clone()).map_err(|_| SegmentError::Malformed("payload"))?;
        if payload.salt.len() != SALT || payload.entries.iter().any(|entry| entry.len() > MAX_ENTRY) {
            return Err(SegmentError::Malformed("payload"));
        }
        Ok(payload.entries)
    }

    pub(crate) fn tip(&self) -> Tip {
        Tip { log: self.log, seq: self.seq, hash: self.hash }
    }
}

impl Tip {
    pub(crate) fn to_proto(self) -> proto::Tip {
        proto::Tip {
            node: Bytes::copy_from_slice(&self.log.node.0),
            incarnation: Bytes::copy_from_slice(&self.log.incarnation.0),
            seq: self.seq,
            hash: Bytes::copy_from_slice(&self.hash),
        }
    }

    pub(crate) fn from_proto(tip: &proto::Tip) -> Option<Self> {
        let log = log_id(&tip.node, &tip.incarnation)?;
        let hash = tip.hash[..].try_into().ok()?;
        (tip.seq > 0).then_some(Self { log, seq: tip.seq, hash })
    }
}

/// The clock reading of an encoded header.
pub(crate) fn stamp_of(header: &[u8]) -> Option<Stamp> {
    let header = proto::Header::decode(header).ok()?;
    Some(Stamp { millis: header.millis, counter: header.counter })
}

/// A receipt of the holder of `key`: it holds the log durably up to `tip`.
pub(crate) fn sign_receipt(key: &LogKey, service: &OnionAddress, tip: &Tip) -> proto::Receipt {
    let body = tip.to_proto();
    let signature = key.sign(&signed(RECEIPT_CONTEXT, service, &body.encode_to_vec()));
    proto::Receipt { tip: Some(body), signature: Bytes::copy_from_slice(&signature) }
}

/// The tip of a receipt that `node` signed for this service.
pub(crate) fn verify_receipt(receipt: &proto::Receipt, service: &OnionAddress, node: &NodeId) -> Option<Tip> {
    let body = receipt.tip.as_ref()?;
    let signature = receipt.signature[..].try_into().ok()?;
    LogKey::verify(&node.0, &signed(RECEIPT_CONTEXT, service, &body.encode_to_vec()), &signature).ok()?;
    Tip::from_proto(body)
}

fn log_id(node: &[u8], incarnation: &[u8]) -> Option<LogId> {
    Some(LogId { node: NodeId(node.try_into().ok()?), incarnation: Incarnation(incarnation.try_into().ok()?) })
}

fn signed(context: &[u8], service: &OnionAddress, body: &[u8]) -> Vec<u8> {
    [context, service.public_key(), body].concat()
}

fn hash(header: &[u8]) -> Hash {
    blake3::derive_key(HASH_CONTEXT, header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn signed_segment() -> (OnionAddress, Segment) {
        let key = LogKey::generate();
        let service = Identity::generate().address();
        let log = LogId { node: NodeId(key.public_key()), incarnation: Incarnation([1; 16]) };
        let entries = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        (service, Segment::sign(&key, &service, log, None, Stamp::default(), &[], entries))
    }

    #[test]
    fn a_segment_survives_the_wire() {
        let (service, segment) = signed_segment();
        let wire = proto::Segment::decode(&segment.wire.encode_to_vec()[..]).unwrap();
        let parsed = Segment::parse(wire).unwrap();
        parsed.verify(&service).unwrap();
        assert_eq!((parsed.tip(), parsed.entries().unwrap()), (segment.tip(), segment.entries().unwrap()));
    }

    #[test]
    fn no_byte_of_a_segment_can_be_changed() {
        let (service, segment) = signed_segment();
        let bytes = segment.wire.encode_to_vec();
        for i in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[i] ^= 1;
            let accepted = proto::Segment::decode(&bytes[..])
                .ok()
                .and_then(|wire| Segment::parse(wire).ok())
                .is_some_and(|parsed| parsed.verify(&service).is_ok());
            assert!(!accepted, "byte {i}");
        }
    }

    #[test]
    fn what_is_signed_for_one_service_does_not_count_in_another() {
        let (_, segment) = signed_segment();
        assert_eq!(segment.verify(&Identity::generate().address()), Err(SegmentError::Signature));
        let (key, service) = (LogKey::generate(), Identity::generate().address());
        let receipt = sign_receipt(&key, &service, &segment.tip());
        let node = NodeId(key.public_key());
        assert_eq!(verify_receipt(&receipt, &service, &node), Some(segment.tip()));
        assert_eq!(verify_receipt(&receipt, &Identity::generate().address(), &node), None);
        assert_eq!(verify_receipt(&receipt, &service, &NodeId([9; 32])), None);
    }
}
