//! What an owner gives a node for a stated time: delegations, and for publishers the certificates of some time periods.
//!
//! No secret key travels: what is certified was derived by the node from its own seed. A [`Grant`] that came from somewhere
//! was verified for the node that holds it, part by part; the owner key signs the whole besides, so that nobody can put parts
//! of two together. The bytes are those of section 17 of `docs/protocol.md`.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use super::period::{PeriodCertificate, PeriodClock};
use super::request::{Request, descriptor_key};
use crate::error::ErrorKind;
use crate::identity::delegation::{Delegation, OwnerCertificate, OwnerKey, ReplicaCredentials, signed};
use crate::identity::fields::Fields;
use crate::identity::manifest::{Manifest, ManifestError};
use crate::identity::{OnionAddress, ReplicaSeed};
use crate::network::Period;
use crate::network::onion::PeriodMaterial;

/// Whom grants are for: a node, by its own address, at a service, with the seed that its keys come from.
#[derive(Clone, Debug)]
pub struct Recipient {
    pub(super) service: OnionAddress,
    pub(super) node: OnionAddress,
    pub(super) seed: ReplicaSeed,
}

impl Recipient {
    /// Puts them together.
    pub fn new(service: OnionAddress, node: OnionAddress, seed: ReplicaSeed) -> Self {
        Self { service, node, seed }
    }

    /// The service.
    pub fn service(&self) -> OnionAddress {
        self.service
    }

    /// The node's own address.
    pub fn node(&self) -> OnionAddress {
        self.node
    }
}

/// What one node may do for a service, until when.
pub struct Grant {
    pub(super) service: OnionAddress,
    pub(super) node: OnionAddress,
    pub(super) certificate: OwnerCertificate,
    pub(super) manifest: Manifest,
    /// In the order of their serials, which ascend.
    pub(super) rounds: Vec<GrantedRound>,
    pub(super) clock: PeriodClock,
    pub(super) first_period: u64,
    /// One for each period from the first on.
    pub(super) periods: Vec<GrantedPeriod>,
    signature: [u8; SIGNATURE_LEN],
}

/// A delegation, and the number of the session key that it is for.
pub(super) struct GrantedRound {
    pub(super) number: u64,
    pub(super) delegation: Delegation,
}

/// What a publisher needs in one period, besides its own key.
pub(super) struct GrantedPeriod {
    pub(super) certificate: PeriodCertificate,
    pub(super) revision_secret: Zeroizing<[u8; 32]>,
}

/// What a grant is made of; the signature comes last.
pub(super) struct Parts {
    pub(super) node: OnionAddress,
    pub(super) certificate: OwnerCertificate,
    pub(super) manifest: Manifest,
    pub(super) rounds: Vec<GrantedRound>,
    pub(super) clock: PeriodClock,
    pub(super) first_period: u64,
    pub(super) periods: Vec<GrantedPeriod>,
}

impl Grant {
    /// The longest one.
    pub const MAX_LEN: usize = HEAD_LEN
        + Manifest::MAX_LEN
        + ROUND_LEN * Request::MAX_SESSION_KEYS as usize
        + PERIOD_LEN * Request::MAX_PERIODS as usize
        + SIGNATURE_LEN;

    /// Signs what its maker has put together rightly.
    pub(super) fn sign(owner: &OwnerKey, parts: Parts) -> Self {
        let mut grant = Self {
            service: parts.manifest.service(),
            node: parts.node,
            certificate: parts.certificate,
            manifest: parts.manifest,
            rounds: parts.rounds,
            clock: parts.clock,
            first_period: parts.first_period,
            periods: parts.periods,
            signature: [0; SIGNATURE_LEN],
        };
        let message = Zeroizing::new(signed(PURPOSE, grant.service, &grant.content()));
        grant.signature = owner.sign(&message);
        grant
    }

    /// Takes the bytes of a grant for `recipient`, when everything in it is good and something of it still counts at
    /// `unix_now` (Unix seconds).
    ///
    /// # Errors
    /// [`GrantError`], one variant for each reason.
    pub fn verify(recipient: &Recipient, bytes: &[u8], unix_now: u64) -> Result<Self, GrantError> {
        let grant = Self::verify_even_over(recipient, bytes, unix_now)?;
        if grant.is_over(unix_now) { Err(GrantError::Over) } else { Ok(grant) }
    }

    /// As [`verify`](Self::verify), also when all of its delegations have ended: what it says of members and of the floor was
    /// said for good.
    pub(super) fn verify_even_over(recipient: &Recipient, bytes: &[u8], unix_now: u64) -> Result<Self, GrantError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(GrantError::Malformed);
        }
        let (content, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(GrantError::Malformed)?;
        let mut fields = Fields::new(content);
        if fields.u8().ok_or(GrantError::Malformed)? != LAYOUT {
            return Err(GrantError::UnknownLayout);
        }
        let Recipient { service, node, .. } = *recipient;
        if fields.address().ok_or(GrantError::Malformed)? != service {
            return Err(GrantError::ForeignService);
        }
        if fields.address().ok_or(GrantError::Malformed)? != node {
            return Err(GrantError::ForeignNode);
        }
        let certificate = fields.bytes(OwnerCertificate::LEN).ok_or(GrantError::Malformed)?;
        let certificate = OwnerCertificate::from_bytes(certificate).map_err(|_| GrantError::Malformed)?;
        if !certificate.is_signed_for(service) {
            return Err(GrantError::TamperedCertificate);
        }
        let early = GrantError::CertificateNotYetValid;
        certificate.validity().check(unix_now, early, GrantError::CertificateExpired)?;
        if !certificate.owner_key().has_signed(&Zeroizing::new(signed(PURPOSE, service, content)), signature) {
            return Err(GrantError::Tampered);
        }
        // From here on the owner is to blame for whatever is wrong.
        let len = usize::try_from(fields.u32().ok_or(GrantError::Malformed)?).map_err(|_| GrantError::Malformed)?;
        let manifest = fields.bytes(len).ok_or(GrantError::Malformed)?;
        let manifest = Manifest::signed_by(service, certificate.owner_key(), manifest)?;
        let rounds = read_rounds(&mut fields).ok_or(GrantError::Malformed)?;
        let clock = PeriodClock::read(&mut fields).ok_or(GrantError::Malformed)?;
        let (first_period, periods) = read_periods(&mut fields).ok_or(GrantError::Malformed)?;
        fields.end().ok_or(GrantError::Malformed)?;
        let grant =
            Self { service, node, certificate, manifest, rounds, clock, first_period, periods, signature: *signature };
        grant.check(&recipient.seed).map(|()| grant)
    }

    /// What [`verify`](Self::verify) takes. It holds what a directory could read upload times with: keep it from strangers.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = self.content();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// The node that it is for.
    pub fn node(&self) -> OnionAddress {
        self.node
    }

    /// What the service's identity signed.
    pub fn certificate(&self) -> &OwnerCertificate {
        &self.certificate
    }

    /// The manifest that was in force when it was made.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The serial of its last round, by which one grant is newer than another.
    pub fn serial(&self) -> u64 {
        self.rounds.last().map_or(0, |round| round.delegation.serial())
    }

    /// The last second of its last delegation: so long could whoever seizes the node speak for the service.
    pub fn speaks_until(&self) -> u64 {
        self.rounds.iter().map(|round| round.delegation.validity().not_after()).max().unwrap_or(0)
    }

    /// Whether all of its delegations have ended, by more than clocks differ.
    pub(super) fn is_over(&self, unix_now: u64) -> bool {
        self.speaks_until().saturating_add(crate::identity::delegation::CLOCK_SKEW) < unix_now
    }

    /// When the last of its certificates ends: so long could whoever seizes the node publish descriptors. None for a node
    /// that does not publish.
    pub fn publishes_until(&self) -> Option<u64> {
        self.periods.iter().map(|period| period.certificate.ends()).max()
    }

    /// The credentials of one of its rounds.
    pub(super) fn credentials(&self, seed: &ReplicaSeed, round: &GrantedRound) -> Option<ReplicaCredentials> {
        let session_key = seed.session_key(self.service, round.number);
        ReplicaCredentials::new(self.service, self.certificate.clone(), round.delegation.clone(), session_key).ok()
    }

    /// What a publisher needs to sign the descriptors of `period`.
    pub(super) fn material(&self, seed: &ReplicaSeed, period: Period) -> Option<PeriodMaterial> {
        let granted = self.granted(period)?;
        let Period { number, length, offset } = period;
        Some(PeriodMaterial {
            period,
            signing_seed: seed.descriptor_signing_seed(self.service, number, length, offset),
            certificate: granted.certificate.as_bytes().to_vec(),
            revision_secret: granted.revision_secret.clone(),
        })
    }

    /// Whether it lets its node publish in `period`.
    pub(super) fn granted(&self, period: Period) -> Option<&GrantedPeriod> {
        let place = period.number.checked_sub(self.first_period).filter(|_| self.clock.has(period))?;
        self.periods.get(usize::try_from(place).ok()?)
    }

    /// What must hold of a grant that its owner signed.
    fn check(&self, seed: &ReplicaSeed) -> Result<(), GrantError> {
        let member = self.manifest.contents().member(self.node).ok_or(GrantError::NotAMember)?;
        if !self.periods.is_empty() && !member.is_publisher() {
            return Err(GrantError::NotAPublisher);
        }
        for GrantedRound { number, delegation } in &self.rounds {
            if !delegation.is_signed_for(self.service, self.certificate.owner_key()) {
                return Err(GrantError::TamperedDelegation);
            }
            if delegation.session_key() != seed.session_key(self.service, *number).public_key() {
                return Err(GrantError::OtherSessionKey);
            }
            if delegation.lowest_serial() > delegation.serial() {
                return Err(GrantError::BelowFloor);
            }
        }
        for (place, granted) in self.periods.iter().enumerate() {
            let period = self.clock.period(self.first_period + place as u64);
            let key = descriptor_key(seed, self.service, period);
            if !granted.certificate.is_for(self.service, period, &key) {
                return Err(GrantError::PeriodCertificate);
            }
        }
        Ok(())
    }

    fn content(&self) -> Zeroizing<Vec<u8>> {
        let manifest = self.manifest.to_bytes();
        let (rounds, periods) = (self.rounds.len(), self.periods.len());
        // Never grows, so that no copy of a secret stays behind in memory.
        let len = HEAD_LEN + manifest.len() + ROUND_LEN * rounds + PERIOD_LEN * periods + SIGNATURE_LEN;
        let mut out = Zeroizing::new(Vec::with_capacity(len));
        out.push(LAYOUT);
        out.extend_from_slice(self.service.public_key());
        out.extend_from_slice(self.node.public_key());
        out.extend_from_slice(&self.certificate.to_bytes());
        // All counts are bounded far below what their fields hold.
        out.extend_from_slice(&(manifest.len() as u32).to_be_bytes());
        out.extend_from_slice(&manifest);
        out.extend_from_slice(&(rounds as u16).to_be_bytes());
        for GrantedRound { number, delegation } in &self.rounds {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&delegation.to_bytes());
        }
        out.extend_from_slice(&self.clock.to_bytes());
        out.extend_from_slice(&self.first_period.to_be_bytes());
        out.extend_from_slice(&(periods as u16).to_be_bytes());
        for GrantedPeriod { certificate, revision_secret } in &self.periods {
            out.extend_from_slice(certificate.as_bytes());
            out.extend_from_slice(revision_secret.as_slice());
        }
        out
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("serial", &self.serial())
            .field("rounds", &self.rounds.len())
            .field("periods", &self.periods.len())
            .finish_non_exhaustive()
    }
}

/// What a grant says of itself, read and not verified: for a warden, who has to know whom to give it to.
pub(super) struct Label {
    pub(super) service: OnionAddress,
    pub(super) node: OnionAddress,
    pub(super) serial: u64,
    pub(super) speaks_until: u64,
}

impl Label {
    /// Layout, service, node.
    pub(super) const HEAD: usize = 1 + 32 + 32;

    /// Service and node, from the beginning of a grant.
    pub(super) fn head(bytes: &[u8; Self::HEAD]) -> Option<(OnionAddress, OnionAddress)> {
        let mut fields = Fields::new(bytes);
        fields.u8().filter(|layout| *layout == LAYOUT)?;
        Some((fields.address()?, fields.address()?))
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (service, node, _, _, mut fields) = Self::parts(bytes)?;
        let rounds = read_rounds(&mut fields)?;
        let serial = rounds.last()?.delegation.serial();
        let speaks_until = rounds.iter().map(|round| round.delegation.validity().not_after()).max()?;
        Some(Self { service, node, serial, speaks_until })
    }

    /// The manifest in a grant, which whoever the certificate beside it names has signed.
    pub(super) fn manifest(bytes: &[u8]) -> Option<Manifest> {
        let (service, _, certificate, manifest, _) = Self::parts(bytes)?;
        let is_signed = certificate.is_signed_for(service);
        Manifest::signed_by(service, certificate.owner_key(), manifest).ok().filter(|_| is_signed)
    }

    /// Service, node, certificate, manifest, and what is behind.
    fn parts(bytes: &[u8]) -> Option<(OnionAddress, OnionAddress, OwnerCertificate, &[u8], Fields<'_>)> {
        let (service, node) = Self::head(bytes.first_chunk()?)?;
        let mut fields = Fields::new(bytes.get(Self::HEAD..)?);
        let certificate = OwnerCertificate::from_bytes(fields.bytes(OwnerCertificate::LEN)?).ok()?;
        let len = usize::try_from(fields.u32()?).ok()?;
        let manifest = fields.bytes(len)?;
        Some((service, node, certificate, manifest, fields))
    }
}

/// Why something is no grant for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Not the bytes of a grant.
    #[error("malformed grant")]
    Malformed,
    /// A layout that this version does not know.
    #[error("the grant has a layout that this version does not know; update the program")]
    UnknownLayout,
    /// It is for another service.
    #[error("the grant is for another service")]
    ForeignService,
    /// It is for another node.
    #[error("the grant is for another node")]
    ForeignNode,
    /// The owner certificate was not signed by the service's identity.
    #[error("the grant's owner certificate is not what the service's identity signed")]
    TamperedCertificate,
    /// The owner certificate's time has not begun.
    #[error("the grant's owner certificate is not valid yet; is the clock right?")]
    CertificateNotYetValid,
    /// The owner certificate's time is over.
    #[error("the grant's owner certificate has expired; is the clock right?")]
    CertificateExpired,
    /// It is not what the owner key signed.
    #[error("the grant is not what the owner key signed")]
    Tampered,
    /// Its manifest is not good.
    #[error("the grant's manifest is not good")]
    Manifest(#[from] ManifestError),
    /// Its manifest does not name the node.
    #[error("the grant's manifest does not name this node as a member")]
    NotAMember,
    /// It lets a node publish that its manifest names as no publisher.
    #[error("the grant holds material of time periods although its manifest says that this node does not publish")]
    NotAPublisher,
    /// A delegation in it is not what the owner key signed for this service.
    #[error("a delegation in the grant is not what the owner key signed")]
    TamperedDelegation,
    /// A delegation in it is for a key that does not come from the node's seed.
    #[error("a delegation in the grant is not for a session key of this node; was its seed replaced?")]
    OtherSessionKey,
    /// The serial of a delegation in it is below its own floor.
    #[error("a delegation in the grant is withdrawn by itself: its serial is below its lowest that is still valid")]
    BelowFloor,
    /// A certificate in it was not signed by its period's blinded key, or not for this node's key, or ends too early.
    #[error("a certificate in the grant is not what the service's blinded key signed for this node")]
    PeriodCertificate,
    /// All of its delegations have ended.
    #[error("the grant is over: all of its delegations have ended; is the clock right?")]
    Over,
}

impl GrantError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed => ErrorKind::ProtocolViolation,
            Self::UnknownLayout => ErrorKind::InvalidInput,
            Self::Manifest(error) => error.kind(),
            _ => ErrorKind::Authentication,
        }
    }
}

fn read_rounds(fields: &mut Fields<'_>) -> Option<Vec<GrantedRound>> {
    let count = fields.u16().filter(|count| (1..=Request::MAX_SESSION_KEYS).contains(count))?;
    let read = |_| {
        let number = fields.u64()?;
        let delegation = Delegation::from_bytes(fields.bytes(Delegation::LEN)?).ok()?;
        Some(GrantedRound { number, delegation })
    };
    let rounds: Vec<_> = (0..count).map(read).collect::<Option<_>>()?;
    let ascend = |pair: &[GrantedRound]| pair[0].delegation.serial() < pair[1].delegation.serial();
    rounds.windows(2).all(ascend).then_some(rounds)
}

fn read_periods(fields: &mut Fields<'_>) -> Option<(u64, Vec<GrantedPeriod>)> {
    let first = fields.u64()?;
    let count = fields.u16().filter(|count| *count <= Request::MAX_PERIODS)?;
    first.checked_add(count.into())?;
    let read = |_| {
        let certificate = PeriodCertificate::from_bytes(fields.take()?);
        Some(GrantedPeriod { certificate, revision_secret: Zeroizing::new(fields.take()?) })
    };
    Some((first, (0..count).map(read).collect::<Option<_>>()?))
}

const PURPOSE: &[u8] = b"HCP/1 grant\0";
const LAYOUT: u8 = 1;
const SIGNATURE_LEN: usize = 64;
/// Layout, service, node, certificate, length of the manifest; count of rounds; clock, first and count of periods.
const HEAD_LEN: usize = 1 + 32 + 32 + OwnerCertificate::LEN + 4 + 2 + PeriodClock::LEN + 8 + 2;
const ROUND_LEN: usize = 8 + Delegation::LEN;
const PERIOD_LEN: usize = PeriodCertificate::LEN + 32;
