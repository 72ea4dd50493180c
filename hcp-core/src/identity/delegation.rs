//! The right of a node to speak for a service: owner key, owner certificate, delegation.
//!
//! A service's identity stays offline. It signs one [`OwnerCertificate`] for an [`OwnerKey`]; that key signs a
//! [`Delegation`] for the [`SessionKey`] of each replica. Whoever dials the service and sees a session key in TLS
//! [`verify`]s both. Every signature names the service, so that none counts in another; a delegation that is stolen
//! with its session key ends with its time, or as soon as a dialler has seen a higher floor ([`SerialFloors`]).
//! The bytes are those of section 5 of `docs/protocol.md`.
//!
//! The owner, offline, and a replica that it lets speak for the service until a time:
//!
//! ```
//! use hcp_core::identity::Identity;
//! use hcp_core::identity::delegation::{
//!     Delegation, OwnerCertificate, OwnerKey, ReplicaCredentials, Round, SerialFloors, SessionKey, Validity, verify,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (today, day) = (1_790_000_000, 86_400);
//! let service = Identity::generate();
//! let owner = OwnerKey::generate();
//! let certificate = OwnerCertificate::issue(&service, owner.public_key(), Validity::new(today, today + 365 * day)?);
//!
//! // The replica makes its session key itself and sends the public one to the owner.
//! let session_key = SessionKey::generate();
//! let round = Round::new(7, 6, Validity::new(today, today + 14 * day)?)?;
//! let delegation = owner.delegate(service.address(), session_key.public_key(), round);
//! let replica = ReplicaCredentials::new(service.address(), certificate, delegation, session_key)?;
//!
//! // What a dialler does with what the replica shows.
//! let floors = SerialFloors::new();
//! let (certificate, delegation) = (replica.certificate().to_bytes(), replica.delegation().to_bytes());
//! let shown = replica.session_key().public_key();
//! let verified = verify(service.address(), &certificate, &delegation, shown.as_bytes(), today + day, &floors)?;
//! assert_eq!(verified.serial(), 7);
//! assert_eq!(floors.floor(service.address()), 6);
//! # Ok(())
//! # }
//! ```

mod credentials;
mod documents;
mod floors;
mod keys;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use thiserror::Error;

pub use self::credentials::ReplicaCredentials;
pub(crate) use self::documents::signed;
pub use self::documents::{Delegation, OwnerCertificate, Round, Validity};
pub use self::floors::SerialFloors;
pub use self::keys::{OwnerKey, PublicKey, SessionKey};
use super::OnionAddress;
use crate::error::ErrorKind;

/// How far the clocks of an owner and of a dialler may be apart, in seconds, before a time counts as not yet or no
/// longer good: Tor itself needs clocks that are right to within minutes.
pub const CLOCK_SKEW: u64 = 300;

/// Checks that whoever holds the secret of `server_key` speaks for `service` at `unix_now` (Unix seconds), and
/// remembers the delegation's floor in `floors` when it is higher than the one held.
///
/// `certificate` and `delegation` are the bytes that the server sent.
///
/// # Errors
/// [`DelegationError`], one variant for each reason; the floor is remembered only when everything is good.
pub fn verify(
    service: OnionAddress,
    certificate: &[u8],
    delegation: &[u8],
    server_key: &[u8; 32],
    unix_now: u64,
    floors: &SerialFloors,
) -> Result<Delegation, DelegationError> {
    let certificate = OwnerCertificate::from_bytes(certificate)?;
    let delegation = Delegation::from_bytes(delegation)?;
    if !certificate.is_signed_for(service) {
        return Err(whose(service, &certificate, &delegation));
    }
    certificate.validity().check(
        unix_now,
        DelegationError::CertificateNotYetValid,
        DelegationError::CertificateExpired,
    )?;
    if !delegation.is_signed_for(service, certificate.owner_key()) {
        return Err(DelegationError::TamperedDelegation);
    }
    delegation.validity().check(unix_now, DelegationError::NotYetValid, DelegationError::Expired)?;
    if delegation.session_key().as_bytes() != server_key {
        return Err(DelegationError::OtherSessionKey);
    }
    floors.admit(service, &delegation)?;
    Ok(delegation)
}

/// Names what is wrong with a pair whose certificate `service` did not sign: when its owner key has signed the delegation
/// for this service, the certificate was altered; when it has not, nothing of the pair was made for this service.
fn whose(service: OnionAddress, certificate: &OwnerCertificate, delegation: &Delegation) -> DelegationError {
    if delegation.is_signed_for(service, certificate.owner_key()) {
        DelegationError::TamperedCertificate
    } else {
        DelegationError::ForeignService
    }
}

/// Why somebody does not speak for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DelegationError {
    /// Not the bytes of a certificate and a delegation: a wrong length, a key that is none, times in the wrong order.
    #[error("malformed certificate or delegation")]
    Malformed,
    /// Neither the certificate nor the delegation was signed for this service.
    #[error("the certificate and the delegation belong to another service")]
    ForeignService,
    /// The certificate is not what the service's identity signed.
    #[error("the owner certificate is not what the service's identity signed")]
    TamperedCertificate,
    /// The certificate's time has not begun.
    #[error("the owner certificate is not valid yet; is the clock right?")]
    CertificateNotYetValid,
    /// The certificate's time is over.
    #[error("the owner certificate has expired; is the clock right?")]
    CertificateExpired,
    /// The delegation is not what the owner key signed for this service.
    #[error("the delegation is not what the owner key signed")]
    TamperedDelegation,
    /// The delegation's time has not begun.
    #[error("the delegation is not valid yet; is the clock right?")]
    NotYetValid,
    /// The delegation's time is over.
    #[error("the delegation has expired; is the clock right?")]
    Expired,
    /// The delegation is for another session key than the one that the server shows.
    #[error("the delegation is for another session key")]
    OtherSessionKey,
    /// The owner has withdrawn the round of this delegation: its serial is below a floor.
    #[error("the delegation was withdrawn: its serial is below the lowest that is still valid")]
    BelowFloor,
}

impl DelegationError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed => ErrorKind::ProtocolViolation,
            _ => ErrorKind::Authentication,
        }
    }
}

/// Why a key or a time cannot be put into a certificate or a delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// Not a public key: no canonical point, one of small order, or one with a torsion component.
    #[error("not an ed25519 public key that may be used")]
    NotAKey,
    /// The time ends before it begins.
    #[error("the time of validity ends before it begins")]
    EmptyTime,
    /// The lowest serial still valid is higher than the serial itself.
    #[error("the lowest serial still valid is above the serial of the round, which nobody would accept")]
    FloorAboveSerial,
}

impl IssueError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}
