//! The keys below a service's identity: the owner's, and those that replicas show in TLS.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Delegation, IssueError, Round};
use crate::identity::OnionAddress;
use crate::identity::key::{self, ExpandedKeyError, SecretKey};

/// The public half of an [`OwnerKey`] or a [`SessionKey`]: canonical and in the prime-order group.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the 32 bytes of RFC 8032 after checking them.
    ///
    /// # Errors
    /// [`IssueError::NotAKey`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, IssueError> {
        // An address is under the same rule.
        OnionAddress::from_public_key(bytes).map(|_| Self(bytes)).map_err(|_| IssueError::NotAKey)
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the secret of this key signed `message`.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        key::verify(&self.0, message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey([redacted])")
    }
}

/// The secret key with which the owner of a service signs delegations, certified by the service's identity.
///
/// It is kept offline, as the identity is; unlike the identity it can be replaced, by another certificate.
/// Clones share the key; it is overwritten when the last one is dropped.
#[derive(Clone)]
pub struct OwnerKey(Arc<SecretKey>);

impl OwnerKey {
    /// Makes a new key from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source: no key may be made then.
    pub fn generate() -> Self {
        Self(Arc::new(SecretKey::generate()))
    }

    /// Derives the key of an RFC 8032 seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Arc::new(SecretKey::from_seed(seed)))
    }

    /// The public key, for [`OwnerCertificate::issue`](super::OwnerCertificate::issue).
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    /// Signs that the holder of `session_key` may speak for `service`, as one of `round`.
    ///
    /// Give all replicas of a round the same [`Round`]: a serial or a time of its own would tell strangers which
    /// replica they have reached, beyond the life of its session key.
    pub fn delegate(&self, service: OnionAddress, session_key: PublicKey, round: Round) -> Delegation {
        Delegation::sign(service, session_key, round, |message| self.0.sign(message))
    }

    /// Signs a document of the owner's, which begins with its purpose.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }

    pub(in crate::identity) fn from_expanded(expanded: &[u8; 64]) -> Result<Self, ExpandedKeyError> {
        SecretKey::from_expanded(expanded).map(|key| Self(Arc::new(key)))
    }

    pub(in crate::identity) fn expanded(&self) -> Zeroizing<[u8; 64]> {
        self.0.expanded()
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerKey([redacted])")
    }
}

/// The secret key that a replica shows in TLS when it speaks for a service; made for one delegation, thrown away with it.
///
/// Clones share the key; it is overwritten when the last one is dropped.
#[derive(Clone)]
pub struct SessionKey(Arc<SecretKey>);

impl SessionKey {
    /// Makes a new key from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source: no key may be made then.
    pub fn generate() -> Self {
        Self(Arc::new(SecretKey::generate()))
    }

    /// Derives the key of an RFC 8032 seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Arc::new(SecretKey::from_seed(seed)))
    }

    /// The public key, for [`OwnerKey::delegate`].
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    /// Signs TLS's handshake, and nothing else.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }

    pub(in crate::identity) fn from_expanded(expanded: &[u8; 64]) -> Result<Self, ExpandedKeyError> {
        SecretKey::from_expanded(expanded).map(|key| Self(Arc::new(key)))
    }

    pub(in crate::identity) fn expanded(&self) -> Zeroizing<[u8; 64]> {
        self.0.expanded()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey([redacted])")
    }
}
