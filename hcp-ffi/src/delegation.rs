//! The right to speak for a service: what its owner issues offline, what a replica shows, what a dialler remembers.

use std::fmt;
use std::sync::Arc;

use hcp_core::identity::delegation as core;
use zeroize::Zeroizing;

use crate::error::HcpError;
use crate::identity::{Identity, OnionAddress, exactly};

/// The public half of an [`OwnerKey`] or a [`SessionKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, uniffi::Object)]
#[uniffi::export(Eq, Hash)]
pub struct PublicKey {
    inner: core::PublicKey,
}

#[uniffi::export]
impl PublicKey {
    /// Takes the 32 bytes of RFC 8032 after checking them.
    ///
    /// # Errors
    /// `InvalidInput`.
    #[uniffi::constructor]
    pub fn from_bytes(key: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(core::PublicKey::from_bytes(exactly("a public key", &key)?)?))
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> Vec<u8> {
        self.inner.as_bytes().to_vec()
    }
}

impl PublicKey {
    pub(crate) fn shared(inner: core::PublicKey) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// The secret key with which the owner of a service signs delegations, certified by the service's identity. It is kept
/// offline, as the identity is; unlike the identity it can be replaced, by another certificate.
#[derive(Debug, uniffi::Object)]
pub struct OwnerKey {
    pub(crate) inner: core::OwnerKey,
}

#[uniffi::export]
impl OwnerKey {
    /// Makes a new key from the operating system's random source.
    #[uniffi::constructor]
    pub fn generate() -> Arc<Self> {
        Self::shared(core::OwnerKey::generate())
    }

    /// Derives the key of an RFC 8032 seed of 32 bytes.
    ///
    /// # Errors
    /// `InvalidInput` when the seed has another length.
    #[uniffi::constructor]
    pub fn from_seed(seed: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        let seed = Zeroizing::new(seed);
        Ok(Self::shared(core::OwnerKey::from_seed(&Zeroizing::new(exactly("a seed", &seed)?))))
    }

    /// The public key, for `OwnerCertificate.issue`.
    pub fn public_key(&self) -> Arc<PublicKey> {
        PublicKey::shared(self.inner.public_key())
    }

    /// Signs that the holder of `session_key` may speak for `service`, as one of `round`.
    ///
    /// Give all replicas of a round the same [`Round`]: a serial or a time of its own would tell strangers which replica
    /// they have reached, beyond the life of its session key.
    pub fn delegate(
        &self,
        service: Arc<OnionAddress>,
        session_key: Arc<PublicKey>,
        round: Arc<Round>,
    ) -> Arc<Delegation> {
        Delegation::shared(self.inner.delegate(service.inner, session_key.inner, round.inner))
    }
}

impl OwnerKey {
    pub(crate) fn shared(inner: core::OwnerKey) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

/// The secret key that a replica shows in TLS when it speaks for a service; made for one delegation, thrown away with it.
#[derive(Debug, uniffi::Object)]
pub struct SessionKey {
    pub(crate) inner: core::SessionKey,
}

#[uniffi::export]
impl SessionKey {
    /// Makes a new key from the operating system's random source.
    #[uniffi::constructor]
    pub fn generate() -> Arc<Self> {
        Self::shared(core::SessionKey::generate())
    }

    /// Derives the key of an RFC 8032 seed of 32 bytes.
    ///
    /// # Errors
    /// `InvalidInput` when the seed has another length.
    #[uniffi::constructor]
    pub fn from_seed(seed: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        let seed = Zeroizing::new(seed);
        Ok(Self::shared(core::SessionKey::from_seed(&Zeroizing::new(exactly("a seed", &seed)?))))
    }

    /// The public key, for `OwnerKey.delegate`.
    pub fn public_key(&self) -> Arc<PublicKey> {
        PublicKey::shared(self.inner.public_key())
    }
}

impl SessionKey {
    pub(crate) fn shared(inner: core::SessionKey) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

/// From when to when something counts, in Unix seconds; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Object)]
#[uniffi::export(Eq)]
pub struct Validity {
    inner: core::Validity,
}

#[uniffi::export]
impl Validity {
    /// Takes both ends, in Unix seconds. Round them, to the day: a time to the second shows when the owner was at work.
    ///
    /// # Errors
    /// `InvalidInput` when it ends before it begins.
    #[uniffi::constructor]
    pub fn new(not_before: u64, not_after: u64) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(core::Validity::new(not_before, not_after)?))
    }

    /// The first second, in Unix seconds.
    pub fn not_before(&self) -> u64 {
        self.inner.not_before()
    }

    /// The last second, in Unix seconds.
    pub fn not_after(&self) -> u64 {
        self.inner.not_after()
    }
}

impl Validity {
    fn shared(inner: core::Validity) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

/// What all delegations have in common that an owner issues at one time. The serial counts such rounds, so that it tells
/// nothing about a single replica.
#[derive(Debug, uniffi::Object)]
pub struct Round {
    inner: core::Round,
}

#[uniffi::export]
impl Round {
    /// Takes the round's number, the lowest number that is still valid with it, and its time.
    ///
    /// Raising `lowest_serial` withdraws the rounds below it, at every dialler that has seen a delegation of this one. It
    /// cannot be lowered again: a dialler keeps the highest that it has verified.
    ///
    /// # Errors
    /// `InvalidInput` when the lowest number is above the round's own.
    #[uniffi::constructor]
    pub fn new(serial: u64, lowest_serial: u64, validity: Arc<Validity>) -> Result<Arc<Self>, HcpError> {
        Ok(Arc::new(Self { inner: core::Round::new(serial, lowest_serial, validity.inner)? }))
    }
}

/// The word of a service's identity that an owner key speaks for its owner.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Object)]
#[uniffi::export(Eq)]
pub struct OwnerCertificate {
    inner: core::OwnerCertificate,
}

#[uniffi::export]
impl OwnerCertificate {
    /// Signs with the service's identity that `owner_key` is the owner's.
    #[uniffi::constructor]
    pub fn issue(service: Arc<Identity>, owner_key: Arc<PublicKey>, validity: Arc<Validity>) -> Arc<Self> {
        Self::shared(core::OwnerCertificate::issue(&service.inner, owner_key.inner, validity.inner))
    }

    /// Takes the bytes apart; whose signature it is remains to be seen.
    ///
    /// # Errors
    /// `ProtocolViolation` when they are not those of a certificate.
    #[uniffi::constructor]
    pub fn from_bytes(content: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(core::OwnerCertificate::from_bytes(&content)?))
    }

    /// Owner key, not before, not after, signature: `ownerCertificateLen` bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.inner.to_bytes().to_vec()
    }

    /// The key that signs delegations.
    pub fn owner_key(&self) -> Arc<PublicKey> {
        PublicKey::shared(self.inner.owner_key())
    }

    /// When it counts.
    pub fn validity(&self) -> Arc<Validity> {
        Validity::shared(self.inner.validity())
    }
}

impl OwnerCertificate {
    fn shared(inner: core::OwnerCertificate) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

/// The word of an owner key that a session key speaks for a service.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Object)]
#[uniffi::export(Eq)]
pub struct Delegation {
    inner: core::Delegation,
}

#[uniffi::export]
impl Delegation {
    /// Checks that whoever holds the secret of `server_key` (32 bytes) speaks for `service` at `unix_now` (Unix seconds), by
    /// the bytes that the server sent, and remembers the delegation's floor in `floors` when it is higher than the one held.
    ///
    /// # Errors
    /// `Authentication`, whose message says which check failed; `ProtocolViolation` for other bytes. The floor is
    /// remembered only when everything is good.
    #[uniffi::constructor]
    pub fn verify(
        service: Arc<OnionAddress>,
        certificate: Vec<u8>,
        delegation: Vec<u8>,
        server_key: Vec<u8>,
        unix_now: u64,
        floors: Arc<SerialFloors>,
    ) -> Result<Arc<Self>, HcpError> {
        let server_key = exactly("a server's key", &server_key)?;
        let verified = core::verify(service.inner, &certificate, &delegation, &server_key, unix_now, &floors.inner)?;
        Ok(Self::shared(verified))
    }

    /// Takes the bytes apart; whose signature it is, and whether its serial still counts, remains to be seen.
    ///
    /// # Errors
    /// `ProtocolViolation` when they are not those of a delegation.
    #[uniffi::constructor]
    pub fn from_bytes(content: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(core::Delegation::from_bytes(&content)?))
    }

    /// Session key, not before, not after, serial, lowest serial still valid, signature: `delegationLen` bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.inner.to_bytes().to_vec()
    }

    /// The key that may speak for the service.
    pub fn session_key(&self) -> Arc<PublicKey> {
        PublicKey::shared(self.inner.session_key())
    }

    /// When it counts.
    pub fn validity(&self) -> Arc<Validity> {
        Validity::shared(self.inner.validity())
    }

    /// The number of the round of issue.
    pub fn serial(&self) -> u64 {
        self.inner.serial()
    }

    /// The lowest serial that is still valid, as the owner saw it when it issued this one.
    pub fn lowest_serial(&self) -> u64 {
        self.inner.lowest_serial()
    }
}

impl Delegation {
    pub(crate) fn shared(inner: core::Delegation) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

/// A session key with the certificate and the delegation that let it speak for a service; they belong together.
#[derive(Debug, uniffi::Object)]
pub struct ReplicaCredentials {
    pub(crate) inner: core::ReplicaCredentials,
}

#[uniffi::export]
impl ReplicaCredentials {
    /// Puts together what the owner sent and the session key that the delegation was made for.
    ///
    /// # Errors
    /// `Authentication` when no dialler would take them together, ever. Whether they count now is `check`'s to say.
    #[uniffi::constructor]
    pub fn new(
        service: Arc<OnionAddress>,
        certificate: Arc<OwnerCertificate>,
        delegation: Arc<Delegation>,
        session_key: Arc<SessionKey>,
    ) -> Result<Arc<Self>, HcpError> {
        let (certificate, delegation) = (certificate.inner.clone(), delegation.inner.clone());
        let key = session_key.inner.clone();
        Ok(Self::shared(core::ReplicaCredentials::new(service.inner, certificate, delegation, key)?))
    }

    /// Checks that diallers whose clock says `unix_now` (Unix seconds) still take them.
    ///
    /// # Errors
    /// `Authentication`, with what they would see.
    pub fn check(&self, unix_now: u64) -> Result<(), HcpError> {
        Ok(self.inner.check(unix_now)?)
    }

    /// The service that they speak for.
    pub fn service(&self) -> Arc<OnionAddress> {
        OnionAddress::shared(self.inner.service())
    }

    /// What the service's identity signed.
    pub fn certificate(&self) -> Arc<OwnerCertificate> {
        OwnerCertificate::shared(self.inner.certificate().clone())
    }

    /// What the owner key signed.
    pub fn delegation(&self) -> Arc<Delegation> {
        Delegation::shared(self.inner.delegation().clone())
    }

    /// What TLS shows.
    pub fn session_key(&self) -> Arc<SessionKey> {
        SessionKey::shared(self.inner.session_key().clone())
    }
}

impl ReplicaCredentials {
    pub(crate) fn shared(inner: core::ReplicaCredentials) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

/// The floor of a service: the lowest serial that is still valid.
#[derive(Clone, Debug, uniffi::Record)]
pub struct SerialFloor {
    /// The service.
    pub service: Arc<OnionAddress>,
    /// The highest floor that was verified for it.
    pub floor: u64,
}

/// The highest floor that was verified for each service; give the same to all nodes of a person.
///
/// It remembers `serialFloorsCapacity` services and forgets the one that was not reached for longest; towards a service
/// that it does not know, a dialler relies on expiry. What it exports is a list of services that were dialled: keep it as
/// carefully as other traces of that.
#[derive(Debug, uniffi::Object)]
pub struct SerialFloors {
    pub(crate) inner: core::SerialFloors,
}

#[uniffi::export]
impl SerialFloors {
    /// Knows nothing yet.
    #[uniffi::constructor]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: core::SerialFloors::new() })
    }

    /// The floor of `service`; 0, below which no serial is, when none is known.
    pub fn floor(&self, service: Arc<OnionAddress>) -> u64 {
        self.inner.floor(service.inner)
    }

    /// What is known, the service that was reached last at the end.
    pub fn export(&self) -> Vec<SerialFloor> {
        let known = self.inner.export().into_iter();
        known.map(|(service, floor)| SerialFloor { service: OnionAddress::shared(service), floor }).collect()
    }

    /// Takes what was exported; a floor that is known already is raised, never lowered.
    pub fn import(&self, floors: Vec<SerialFloor>) {
        self.inner.import(floors.into_iter().map(|known| (known.service.inner, known.floor)));
    }

    /// Forgets the floor of `service`: for when its owner key was stolen, and the thief has raised the floor out of reach.
    pub fn forget(&self, service: Arc<OnionAddress>) {
        self.inner.forget(service.inner);
    }
}
