//! What is signed: the owner certificate and the delegation, with the bytes of section 5 of `docs/protocol.md`.

use std::fmt;

use super::{CLOCK_SKEW, DelegationError, IssueError, PublicKey};
use crate::identity::fields::Fields;
use crate::identity::{Identity, OnionAddress};

/// From when to when something counts, in Unix seconds; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: u64,
    not_after: u64,
}

impl Validity {
    /// Takes both ends, in Unix seconds.
    ///
    /// Round them, to the day or to Tor's time period: a time to the second shows when the owner was at work.
    ///
    /// # Errors
    /// [`IssueError::EmptyTime`] when `not_after` is before `not_before`.
    pub fn new(not_before: u64, not_after: u64) -> Result<Self, IssueError> {
        if not_before > not_after { Err(IssueError::EmptyTime) } else { Ok(Self { not_before, not_after }) }
    }

    /// The first second, in Unix seconds.
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// The last second, in Unix seconds.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Checks that `unix_now` is in it, give or take [`CLOCK_SKEW`].
    pub(crate) fn check<E>(&self, unix_now: u64, early: E, late: E) -> Result<(), E> {
        if unix_now.saturating_add(CLOCK_SKEW) < self.not_before {
            Err(early)
        } else if unix_now > self.not_after.saturating_add(CLOCK_SKEW) {
            Err(late)
        } else {
            Ok(())
        }
    }
}

/// What all delegations have in common that an owner issues at one time.
///
/// The serial counts such rounds, so that it tells nothing about a single replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    serial: u64,
    lowest_serial: u64,
    validity: Validity,
}

impl Round {
    /// Takes the round's number, the lowest number that is still valid with it, and its time.
    ///
    /// Raising `lowest_serial` withdraws the rounds below it, at every dialler that has seen a delegation of this one.
    /// It cannot be lowered again: a dialler keeps the highest that it has verified.
    ///
    /// # Errors
    /// [`IssueError::FloorAboveSerial`].
    pub fn new(serial: u64, lowest_serial: u64, validity: Validity) -> Result<Self, IssueError> {
        if lowest_serial > serial {
            return Err(IssueError::FloorAboveSerial);
        }
        Ok(Self { serial, lowest_serial, validity })
    }
}

/// The word of a service's identity that an owner key speaks for its owner.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnerCertificate {
    owner_key: PublicKey,
    validity: Validity,
    signature: [u8; 64],
}

impl OwnerCertificate {
    /// The length of [`to_bytes`](Self::to_bytes).
    pub const LEN: usize = CERTIFIED_LEN + SIGNATURE_LEN;

    /// Signs with the service's identity that `owner_key` is the owner's.
    pub fn issue(service: &Identity, owner_key: PublicKey, validity: Validity) -> Self {
        let mut certificate = Self { owner_key, validity, signature: [0; SIGNATURE_LEN] };
        certificate.signature = service.sign(&certificate.message(service.address()));
        certificate
    }

    /// What the identity of `service` has to sign, for a signer that is somewhere else.
    pub(crate) fn to_sign(service: OnionAddress, owner_key: PublicKey, validity: Validity) -> Vec<u8> {
        Self { owner_key, validity, signature: [0; SIGNATURE_LEN] }.message(service)
    }

    /// Takes the signature that was made over [`to_sign`](Self::to_sign); none when it was not.
    pub(crate) fn signed(
        service: OnionAddress,
        owner_key: PublicKey,
        validity: Validity,
        signature: [u8; SIGNATURE_LEN],
    ) -> Option<Self> {
        let certificate = Self { owner_key, validity, signature };
        certificate.is_signed_for(service).then_some(certificate)
    }

    /// Takes the bytes apart; whose signature it is remains to be seen.
    ///
    /// # Errors
    /// [`DelegationError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DelegationError> {
        Self::read(bytes).ok_or(DelegationError::Malformed)
    }

    /// Owner key, not before, not after, signature.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        joined(&[&self.content(), &self.signature])
    }

    /// The key that signs delegations.
    pub fn owner_key(&self) -> PublicKey {
        self.owner_key
    }

    /// When it counts.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether the identity of `service` signed it.
    pub(crate) fn is_signed_for(&self, service: OnionAddress) -> bool {
        service.verify(&self.message(service), &self.signature).is_ok()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let certificate = Self { owner_key: fields.key()?, validity: fields.validity()?, signature: fields.take()? };
        fields.end().map(|()| certificate)
    }

    fn message(&self, service: OnionAddress) -> Vec<u8> {
        signed(CERTIFICATE_PURPOSE, service, &self.content())
    }

    fn content(&self) -> [u8; CERTIFIED_LEN] {
        let Validity { not_before, not_after } = self.validity;
        joined(&[self.owner_key.as_bytes(), &not_before.to_be_bytes(), &not_after.to_be_bytes()])
    }
}

impl fmt::Debug for OwnerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerCertificate").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// The word of an owner key that a session key speaks for a service.
#[derive(Clone, PartialEq, Eq)]
pub struct Delegation {
    session_key: PublicKey,
    round: Round,
    signature: [u8; 64],
}

impl Delegation {
    /// The length of [`to_bytes`](Self::to_bytes).
    pub const LEN: usize = DELEGATED_LEN + SIGNATURE_LEN;

    /// Takes the bytes apart; whose signature it is, and whether its serial still counts, remains to be seen.
    ///
    /// # Errors
    /// [`DelegationError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DelegationError> {
        Self::read(bytes).ok_or(DelegationError::Malformed)
    }

    /// Session key, not before, not after, serial, lowest serial still valid, signature.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        joined(&[&self.content(), &self.signature])
    }

    /// The key that may speak for the service.
    pub fn session_key(&self) -> PublicKey {
        self.session_key
    }

    /// When it counts.
    pub fn validity(&self) -> Validity {
        self.round.validity
    }

    /// The number of the round of issue.
    pub fn serial(&self) -> u64 {
        self.round.serial
    }

    /// The lowest serial that is still valid, as the owner saw it when it issued this one.
    pub fn lowest_serial(&self) -> u64 {
        self.round.lowest_serial
    }

    pub(super) fn sign(
        service: OnionAddress,
        session_key: PublicKey,
        round: Round,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Self {
        let mut delegation = Self { session_key, round, signature: [0; SIGNATURE_LEN] };
        delegation.signature = sign(&signed(DELEGATION_PURPOSE, service, &delegation.content()));
        delegation
    }

    /// Whether `owner` signed it for `service`.
    pub(crate) fn is_signed_for(&self, service: OnionAddress, owner: PublicKey) -> bool {
        owner.has_signed(&signed(DELEGATION_PURPOSE, service, &self.content()), &self.signature)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let (session_key, validity) = (fields.key()?, fields.validity()?);
        let round = Round { serial: fields.u64()?, lowest_serial: fields.u64()?, validity };
        let delegation = Self { session_key, round, signature: fields.take()? };
        fields.end().map(|()| delegation)
    }

    fn content(&self) -> [u8; DELEGATED_LEN] {
        let Round { serial, lowest_serial, validity: Validity { not_before, not_after } } = self.round;
        let [not_before, not_after, serial, lowest_serial] =
            [not_before, not_after, serial, lowest_serial].map(u64::to_be_bytes);
        joined(&[self.session_key.as_bytes(), &not_before, &not_after, &serial, &lowest_serial])
    }
}

impl fmt::Debug for Delegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delegation").field("round", &self.round).finish_non_exhaustive()
    }
}

const CERTIFICATE_PURPOSE: &[u8] = b"HCP/1 owner certificate\0";
const DELEGATION_PURPOSE: &[u8] = b"HCP/1 delegation\0";
/// Owner key, not before, not after.
const CERTIFIED_LEN: usize = 48;
/// Session key, not before, not after, serial, lowest serial.
const DELEGATED_LEN: usize = 64;
const SIGNATURE_LEN: usize = 64;

/// What is signed: never the bare content, which another purpose or another service might read in its own way.
pub(crate) fn signed(purpose: &[u8], service: OnionAddress, content: &[u8]) -> Vec<u8> {
    [purpose, service.public_key(), content].concat()
}

fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    parts.concat().try_into().expect("the lengths of the parts are constants that add up to N")
}
