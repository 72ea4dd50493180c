//! What a member says of itself, signed with its address key, so that others can pass it on.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use prost::Message as _;

use super::codec::{encode_record, record_of};
use super::{GossipError, Period, PointDescription, PointId, PointSecrets, Publication, Roster};
use crate::identity::OnionAddress;
use crate::wire::service_proto as proto;

/// Signs with the node's address key.
pub(crate) type Sign = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// Whatever one member says of itself. Of two the one with the later incarnation and version counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Which run of the node's process: its wall clock at the start, in milliseconds, so that later runs come later.
    pub(crate) incarnation: u64,
    pub(crate) version: u64,
    /// Its points, at most [`MAX_POINTS`](super::super::tuning::MAX_POINTS).
    pub(crate) points: Vec<PointDescription>,
    /// Periods whose descriptors it can sign; none while it gathers points.
    pub(crate) holds: Vec<Period>,
    pub(crate) publications: Vec<Publication>,
    /// Points of others that it has taken over.
    pub(crate) taken: Vec<PointId>,
    /// It is about to leave.
    pub(crate) stopping: bool,
}

/// A [`Record`] with its author and signature, which fit.
#[derive(Clone)]
pub(crate) struct SignedRecord {
    member: OnionAddress,
    record: Arc<Record>,
    bytes: Bytes,
    signature: [u8; 64],
}

impl SignedRecord {
    /// Signs what `member` says. `proofs` has the proof of each point, in their order.
    pub(crate) fn sign(
        service: OnionAddress,
        member: OnionAddress,
        record: Record,
        proofs: &[[u8; 64]],
        sign: &Sign,
    ) -> Self {
        let bytes = Bytes::from(encode_record(&record, proofs));
        let signature = sign(&record_message(service, member, &bytes));
        Self { member, record: Arc::new(record), bytes, signature }
    }

    /// Checks the signature before the content.
    pub(super) fn from_proto(
        signed: proto::Signed,
        service: OnionAddress,
        roster: &Roster,
    ) -> Result<Self, GossipError> {
        let member = roster.by_key(&signed.member).ok_or(GossipError::Stranger)?;
        let signature = signed.signature[..].try_into().map_err(|_| GossipError::Malformed)?;
        member
            .verify(&record_message(service, member, &signed.record), &signature)
            .map_err(|_| GossipError::Signature)?;
        let decoded = proto::Record::decode(&signed.record[..]).map_err(|_| GossipError::Malformed)?;
        let record = record_of(decoded, service, member, roster)?;
        Ok(Self { member, record: Arc::new(record), bytes: signed.record, signature })
    }

    pub(super) fn to_proto(&self) -> proto::Signed {
        proto::Signed {
            member: Bytes::copy_from_slice(self.member.public_key()),
            record: self.bytes.clone(),
            signature: Bytes::copy_from_slice(&self.signature),
        }
    }

    pub(crate) fn member(&self) -> OnionAddress {
        self.member
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }
}

/// Shows that a member lived when it signed it; passed on to those who do not hear it themselves.
#[derive(Clone)]
pub(crate) struct Pulse {
    pub(super) member: OnionAddress,
    pub(super) incarnation: u64,
    pub(super) count: u64,
    pub(super) signature: [u8; 64],
}

impl Pulse {
    pub(crate) fn sign(service: OnionAddress, member: OnionAddress, incarnation: u64, count: u64, sign: &Sign) -> Self {
        let signature = sign(&pulse_message(service, member, incarnation, count));
        Self { member, incarnation, count, signature }
    }

    pub(super) fn verify(&self, service: OnionAddress) -> Result<(), GossipError> {
        let message = pulse_message(service, self.member, self.incarnation, self.count);
        self.member.verify(&message, &self.signature).map_err(|_| GossipError::Signature)
    }

    pub(crate) fn member(&self) -> OnionAddress {
        self.member
    }

    /// Which run of the process, and which of its pulses: later ones are greater.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.incarnation, self.count)
    }
}

/// Shows that who knows a point's secrets gives it to a member, at that relay.
pub(crate) fn prove_point(
    service: OnionAddress,
    member: OnionAddress,
    point: &PointDescription,
    secrets: &PointSecrets,
) -> [u8; 64] {
    SigningKey::from_bytes(secrets.sid_seed()).sign(&point_message(service, member, point)).to_bytes()
}

/// Whether the proof holds, which needs a key that is one.
pub(super) fn verify_point(
    service: OnionAddress,
    member: OnionAddress,
    point: &PointDescription,
    proof: &[u8; 64],
) -> Result<(), GossipError> {
    let key = VerifyingKey::from_bytes(&point.id.0).map_err(|_| GossipError::Point)?;
    key.verify_strict(&point_message(service, member, point), &proof.into()).map_err(|_| GossipError::Signature)
}

fn record_message(service: OnionAddress, member: OnionAddress, record: &[u8]) -> Vec<u8> {
    [&b"HCP/1 service record\0"[..], service.public_key(), member.public_key(), record].concat()
}

fn pulse_message(service: OnionAddress, member: OnionAddress, incarnation: u64, count: u64) -> Vec<u8> {
    let (incarnation, count) = (incarnation.to_be_bytes(), count.to_be_bytes());
    [&b"HCP/1 service pulse\0"[..], service.public_key(), member.public_key(), &incarnation, &count].concat()
}

fn point_message(service: OnionAddress, member: OnionAddress, point: &PointDescription) -> Vec<u8> {
    let (service, member) = (service.public_key(), member.public_key());
    [&b"HCP/1 service point\0"[..], service, member, &point.relay.0, &point.ntor].concat()
}

impl fmt::Debug for SignedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedRecord").field(&self.record).finish()
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("count", &self.count).finish_non_exhaustive()
    }
}
