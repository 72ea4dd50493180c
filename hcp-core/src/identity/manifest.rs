//! The manifest: who the nodes of a service are, which of them publish its descriptor, and what they have in common; signed by
//! the service's owner key.
//!
//! A [`Manifest`] that exists was verified: there is no way to one but [`Manifest::sign`] and [`Manifest::verify`]. Of two the
//! one with the higher version counts, and of two with one version that whose hash is smaller, so that all nodes agree
//! whatever they see first ([`Manifest::supersedes`]). One manifest has one form: equal content is equal bytes. The bytes are
//! those of section 15 of `docs/protocol.md`.
//!
//! ```
//! use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey, Validity};
//! use hcp_core::identity::manifest::{Contents, Manifest, Member, Role, SoftwareVersion};
//! use hcp_core::identity::{Identity, LogKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (now, day) = (1_790_000_000, 86_400);
//! let (service, owner) = (Identity::generate(), OwnerKey::generate());
//! let certificate = OwnerCertificate::issue(&service, owner.public_key(), Validity::new(now, now + 365 * day)?);
//! let (node, log) = (Identity::generate(), LogKey::generate());
//! let member = Member::new(node.address(), log.public_key(), Role::Publisher)?.named("paris")?;
//! let contents = Contents::new(1, vec![member])?.lowest_software(SoftwareVersion::new(0, 1, 0)).shared(b"motd".to_vec())?;
//! let manifest = Manifest::sign(&owner, service.address(), contents)?;
//!
//! // What a node does with the bytes.
//! let verified = Manifest::verify(service.address(), &certificate, &manifest.to_bytes(), now)?;
//! assert!(verified.contents().member(node.address()).is_some_and(|member| member.is_publisher()));
//! # Ok(())
//! # }
//! ```

mod contents;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use self::contents::{Contents, Member, Role, SoftwareVersion};
use super::delegation::{OwnerCertificate, OwnerKey, PublicKey, signed};
use super::{MAX_CLIENTS, OnionAddress};
use crate::error::ErrorKind;

/// A manifest that the owner of a service has signed. Clones share it.
#[derive(Clone)]
pub struct Manifest(Arc<Signed>);

struct Signed {
    service: OnionAddress,
    contents: Contents,
    signature: [u8; SIGNATURE_LEN],
    /// Of what is signed: two signatures on one content make no two manifests.
    hash: [u8; 32],
}

impl Manifest {
    /// The longest one: every member with the longest name, and the longest configuration.
    pub const MAX_LEN: usize = Contents::MAX_LEN + SIGNATURE_LEN;

    /// Signs what the nodes of `service` shall know.
    ///
    /// # Errors
    /// [`ManifestError::ServiceAsMember`] when a member has the service's own address.
    pub fn sign(owner: &OwnerKey, service: OnionAddress, contents: Contents) -> Result<Self, ManifestError> {
        let message = message(service, &contents)?;
        let signature = owner.sign(&message);
        Ok(Self::of(service, contents, signature, &message))
    }

    /// Takes the bytes of a manifest of `service` whose owner key is that of `certificate`, when everything about them is
    /// good at `unix_now` (Unix seconds).
    ///
    /// # Errors
    /// [`ManifestError`], one variant for each reason.
    pub fn verify(
        service: OnionAddress,
        certificate: &OwnerCertificate,
        bytes: &[u8],
        unix_now: u64,
    ) -> Result<Self, ManifestError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(ManifestError::Malformed);
        }
        if !certificate.is_signed_for(service) {
            return Err(ManifestError::ForeignCertificate);
        }
        certificate.validity().check(
            unix_now,
            ManifestError::CertificateNotYetValid,
            ManifestError::CertificateExpired,
        )?;
        Self::signed_by(service, certificate.owner_key(), bytes)
    }

    /// As [`verify`](Self::verify), for whoever has looked at the certificate already.
    pub(crate) fn signed_by(service: OnionAddress, owner: PublicKey, bytes: &[u8]) -> Result<Self, ManifestError> {
        let (content, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(ManifestError::Malformed)?;
        // Before anything that takes time with each member.
        if !owner.has_signed(&signed(PURPOSE, service, content), signature) {
            return Err(ManifestError::Tampered);
        }
        let contents = Contents::from_bytes(content)?;
        let message = message(service, &contents)?;
        Ok(Self::of(service, contents, *signature, &message))
    }

    /// What [`verify`](Self::verify) takes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.contents.to_bytes();
        bytes.extend_from_slice(&self.0.signature);
        bytes
    }

    /// Whose nodes they are.
    pub fn service(&self) -> OnionAddress {
        self.0.service
    }

    /// What the owner signed.
    pub fn contents(&self) -> &Contents {
        &self.0.contents
    }

    /// Whether this one counts where both are known: its version is higher, or the same and its hash smaller.
    pub fn supersedes(&self, other: &Self) -> bool {
        let rank = |manifest: &Self| (manifest.0.contents.version(), std::cmp::Reverse(manifest.0.hash));
        rank(self) > rank(other)
    }

    fn of(service: OnionAddress, contents: Contents, signature: [u8; SIGNATURE_LEN], message: &[u8]) -> Self {
        Self(Arc::new(Signed { service, contents, signature, hash: Sha256::digest(message).into() }))
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest").field("contents", &self.0.contents).finish_non_exhaustive()
    }
}

/// Why something is no manifest of a service, or cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the bytes of a manifest: too short or too long, members out of order, an unknown role.
    #[error("malformed manifest")]
    Malformed,
    /// A layout that this version does not know.
    #[error("the manifest has a layout that this version does not know; update the program")]
    UnknownLayout,
    /// No members.
    #[error("the manifest names no members")]
    NoMembers,
    /// More than [`Contents::MAX_MEMBERS`].
    #[error("the manifest names more than 128 members")]
    TooManyMembers,
    /// Two members have an address, a key or a name in common, or one's log key is another's address.
    #[error("two members of the manifest have an address, a key or a name in common")]
    DuplicateMember,
    /// An address or a log key is no key that may be used: no canonical point, or one with a torsion component.
    #[error("the manifest holds a key that is none, or one that must not be used")]
    NotAKey,
    /// A name that is empty, longer than 32 characters or not made of small letters, digits and hyphens.
    #[error("a member's name must be 1 to 32 characters of the letters a to z, digits and hyphens")]
    Name,
    /// No member publishes, so that nobody could reach the service.
    #[error("no member of the manifest publishes the service's descriptor")]
    NoPublisher,
    /// A member has the address of the service itself, whose key no node may hold.
    #[error("a member has the service's own address; a node needs one of its own")]
    ServiceAsMember,
    /// The shared configuration is longer than [`Contents::MAX_SHARED`].
    #[error("the shared configuration is longer than 64 KiB")]
    SharedTooLong,
    /// The service is restricted to no clients, or to more than fit, or one comes twice or is a member's.
    #[error("a service is restricted to 1 to {MAX_CLIENTS} clients, members included, each named once")]
    Clients,
    /// The service is restricted to clients, and a member has no discovery key to find it with.
    #[error("the service is restricted to some clients, and a member has no discovery key to find it with")]
    HiddenFromMember,
    /// The owner certificate was not signed by this service's identity.
    #[error("the owner certificate is not what this service's identity signed")]
    ForeignCertificate,
    /// The owner certificate's time has not begun.
    #[error("the owner certificate is not valid yet; is the clock right?")]
    CertificateNotYetValid,
    /// The owner certificate's time is over.
    #[error("the owner certificate has expired; is the clock right?")]
    CertificateExpired,
    /// The manifest is not what the owner key signed for this service.
    #[error("the manifest is not what the owner key signed for this service")]
    Tampered,
}

impl ManifestError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed => ErrorKind::ProtocolViolation,
            Self::ForeignCertificate | Self::CertificateNotYetValid | Self::CertificateExpired | Self::Tampered => {
                ErrorKind::Authentication
            }
            _ => ErrorKind::InvalidInput,
        }
    }
}

fn message(service: OnionAddress, contents: &Contents) -> Result<Vec<u8>, ManifestError> {
    if contents.member(service).is_some() {
        return Err(ManifestError::ServiceAsMember);
    }
    Ok(signed(PURPOSE, service, &contents.to_bytes()))
}

const PURPOSE: &[u8] = b"HCP/1 manifest\0";
const SIGNATURE_LEN: usize = 64;
