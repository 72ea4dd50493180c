//! All that a replica needs to speak for a service.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Delegation, DelegationError, OwnerCertificate, SessionKey, whose};
use crate::identity::OnionAddress;

/// A session key with the certificate and the delegation that let it speak for a service; they belong together.
///
/// A [`KeyFile`](crate::identity::keyfile::KeyFile) holds it. Clones share it; the key is overwritten when the last one is
/// dropped.
#[derive(Clone)]
pub struct ReplicaCredentials(Arc<Parts>);

struct Parts {
    service: OnionAddress,
    certificate: OwnerCertificate,
    delegation: Delegation,
    session_key: SessionKey,
}

impl ReplicaCredentials {
    /// Puts together what the owner sent and the session key that the delegation was made for.
    ///
    /// # Errors
    /// [`DelegationError`] when no dialler would take them together, ever: a signature or the session key does not fit,
    /// or the serial is below the delegation's own floor. Whether they count now is [`check`](Self::check)'s to say.
    pub fn new(
        service: OnionAddress,
        certificate: OwnerCertificate,
        delegation: Delegation,
        session_key: SessionKey,
    ) -> Result<Self, DelegationError> {
        if !certificate.is_signed_for(service) {
            return Err(whose(service, &certificate, &delegation));
        }
        if !delegation.is_signed_for(service, certificate.owner_key()) {
            return Err(DelegationError::TamperedDelegation);
        }
        if delegation.session_key() != session_key.public_key() {
            return Err(DelegationError::OtherSessionKey);
        }
        if delegation.serial() < delegation.lowest_serial() {
            return Err(DelegationError::BelowFloor);
        }
        Ok(Self(Arc::new(Parts { service, certificate, delegation, session_key })))
    }

    /// Checks that diallers whose clock says `unix_now` (Unix seconds) still take them.
    ///
    /// # Errors
    /// The [`DelegationError`] that they would see.
    pub fn check(&self, unix_now: u64) -> Result<(), DelegationError> {
        self.0.certificate.validity().check(
            unix_now,
            DelegationError::CertificateNotYetValid,
            DelegationError::CertificateExpired,
        )?;
        self.0.delegation.validity().check(unix_now, DelegationError::NotYetValid, DelegationError::Expired)
    }

    /// The service that they speak for.
    pub fn service(&self) -> OnionAddress {
        self.0.service
    }

    /// What the service's identity signed.
    pub fn certificate(&self) -> &OwnerCertificate {
        &self.0.certificate
    }

    /// What the owner key signed.
    pub fn delegation(&self) -> &Delegation {
        &self.0.delegation
    }

    /// What TLS shows.
    pub fn session_key(&self) -> &SessionKey {
        &self.0.session_key
    }

    /// The length of [`stored`](Self::stored).
    pub(in crate::identity) const STORED_LEN: usize = 32 + OwnerCertificate::LEN + Delegation::LEN + 64;

    /// The content of a key file: service, certificate, delegation, expanded session key.
    pub(in crate::identity) fn stored(&self) -> Zeroizing<Vec<u8>> {
        // Never grows, so that no copy of the key stays behind in memory.
        let mut out = Zeroizing::new(Vec::with_capacity(Self::STORED_LEN));
        out.extend_from_slice(self.0.service.public_key());
        out.extend_from_slice(&self.0.certificate.to_bytes());
        out.extend_from_slice(&self.0.delegation.to_bytes());
        out.extend_from_slice(self.0.session_key.expanded().as_slice());
        out
    }

    pub(in crate::identity) fn from_stored(bytes: &[u8]) -> Option<Self> {
        let (service, rest) = bytes.split_first_chunk::<32>()?;
        let (certificate, rest) = rest.split_first_chunk::<{ OwnerCertificate::LEN }>()?;
        let (delegation, key) = rest.split_first_chunk::<{ Delegation::LEN }>()?;
        let service = OnionAddress::from_public_key(*service).ok()?;
        let certificate = OwnerCertificate::from_bytes(certificate).ok()?;
        let delegation = Delegation::from_bytes(delegation).ok()?;
        let session_key = SessionKey::from_expanded(key.try_into().ok()?).ok()?;
        Self::new(service, certificate, delegation, session_key).ok()
    }
}

impl fmt::Debug for ReplicaCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplicaCredentials([redacted])")
    }
}
