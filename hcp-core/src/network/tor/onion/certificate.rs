//! The certificate of a period's blinded key on a descriptor-signing key (cert-spec, type 8), which somebody else made.
//!
//! Arti's builder of descriptors takes only certificates that it has built itself. So it builds the same one again, with a
//! signer that gives the signature that is there; a certificate that does not come out byte by byte is not used.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tor_cert::{CertType, CertifiedKey, Ed25519Cert, EncodedEd25519Cert};
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::{HsBlindIdKey, HsIdKey};
use tor_llcrypto::pk::ed25519;

use super::view;
use crate::network::onion::PeriodMaterial;

/// Why a publisher's material cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum CertificateError {
    /// The period cannot be one.
    #[error("the time period is out of range")]
    Period,
    /// It is no certificate of the kind that descriptors hold, or of another period, service or key.
    #[error("the certificate is not the one of this service, period and key")]
    Different,
    /// The blinded key did not sign it.
    #[error("the certificate's signature is wrong")]
    Signature,
    /// Directories would refuse it.
    #[error("the certificate has expired")]
    Expired,
}

/// What signs the descriptors of a period, and what they are encrypted with.
pub(super) struct Signer {
    pub(super) key: ed25519::Keypair,
    pub(super) certificate: EncodedEd25519Cert,
    pub(super) blinded: HsBlindIdKey,
    pub(super) subcredential: Subcredential,
}

impl Signer {
    pub(super) fn new(
        identity: &HsIdKey,
        material: &PeriodMaterial,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let period = view::arti_period(material.period).ok_or(CertificateError::Period)?;
        let (blinded, subcredential) = identity.compute_blinded_key(period).map_err(|_| CertificateError::Different)?;
        let key = ed25519::Keypair::from_bytes(&material.signing_seed);
        let certificate = rebuild(&material.certificate, blinded.as_ref(), &key.verifying_key())?;
        if expiration(&material.certificate).is_none_or(|expiration| expiration <= now) {
            return Err(CertificateError::Expired);
        }
        Ok(Self { key, certificate, blinded, subcredential })
    }
}

/// Builds the certificate again of which `bytes` is one.
pub(super) fn rebuild(
    bytes: &[u8],
    blinded: &ed25519::PublicKey,
    key: &ed25519::PublicKey,
) -> Result<EncodedEd25519Cert, CertificateError> {
    let different = CertificateError::Different;
    let (signed, signature) = bytes.split_last_chunk().ok_or(different)?;
    let signature = ed25519::Signature::from_bytes(signature);
    let certificate = Ed25519Cert::builder()
        .cert_type(CertType::HS_BLINDED_ID_V_SIGNING)
        .expiration(expiration(bytes).ok_or(different)?)
        .signing_key((*blinded).into())
        .cert_key(CertifiedKey::Ed25519((*key).into()))
        .encode_and_sign(&Replay { key: *blinded, signature })
        .map_err(|_| different)?;
    if **certificate != *bytes {
        return Err(different);
    }
    blinded.verify(signed, &signature).map_err(|_| CertificateError::Signature)?;
    Ok(certificate)
}

/// Hours since the epoch, after the version and the type.
fn expiration(certificate: &[u8]) -> Option<SystemTime> {
    let hours = u32::from_be_bytes(*certificate.get(2..)?.first_chunk()?);
    Some(UNIX_EPOCH + Duration::from_secs(u64::from(hours) * 3600))
}

/// Stands in for the blinded key, whose signature is known.
struct Replay {
    key: ed25519::PublicKey,
    signature: ed25519::Signature,
}

impl ed25519::Ed25519PublicKey for Replay {
    fn public_key(&self) -> ed25519::PublicKey {
        self.key
    }
}

impl ed25519::Ed25519SigningKey for Replay {
    fn sign(&self, _: &[u8]) -> ed25519::Signature {
        self.signature
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tor_hscrypto::pk::{HsId, HsIdKeypair};
    use tor_llcrypto::pk::ed25519::ExpandedKeypair;
    use tor_netdoc::doc::hsdesc::create_desc_sign_key_cert;
    use zeroize::Zeroizing;

    use super::*;
    use crate::identity::{Identity, OnionAddress};
    use crate::network::onion::Period;

    pub(in super::super) const PERIOD: Period = Period { number: 20_000, length: 1_440, offset: 43_200 };

    /// What an owner makes for a publisher.
    pub(in super::super) fn material(identity: &Identity, period: Period, signing_seed: [u8; 32]) -> PeriodMaterial {
        let keys = HsIdKeypair::from(
            ExpandedKeypair::from_secret_key_bytes(*identity.expanded_secret_key()).expect("an identity has a key"),
        );
        let arti = view::arti_period(period).unwrap();
        let (_, blinded, _) = keys.compute_blinded_key(arti).unwrap();
        let key = ed25519::Keypair::from_bytes(&signing_seed).verifying_key();
        let expires = arti.range().unwrap().end + Duration::from_secs(54 * 3600);
        let certificate = create_desc_sign_key_cert(&key, &blinded, expires).unwrap();
        PeriodMaterial {
            period,
            signing_seed: Zeroizing::new(signing_seed),
            certificate: certificate.to_vec(),
            revision_secret: Zeroizing::new([9; 32]),
        }
    }

    /// Whether this service's descriptors can be signed with it at `now`, in Unix seconds.
    fn check(service: OnionAddress, material: &PeriodMaterial, now: u64) -> Result<(), CertificateError> {
        let identity = HsIdKey::try_from(HsId::from(*service.public_key())).unwrap();
        Signer::new(&identity, material, UNIX_EPOCH + Duration::from_secs(now)).map(|_| ())
    }

    #[test]
    fn a_certificate_is_rebuilt_from_its_bytes_and_no_other_is() {
        let identity = Identity::from_seed(&[1; 32]);
        let during = PERIOD.start() + 60;
        let check = |material: &PeriodMaterial| self::check(identity.address(), material, during);
        let good = || material(&identity, PERIOD, [5; 32]);
        assert_eq!(check(&good()), Ok(()));

        let length = good().certificate.len();
        for place in 0..length {
            let mut broken = good();
            broken.certificate[place] ^= 1;
            let expected = match place {
                // The expiration is read from it, and it is signed.
                2..6 => CertificateError::Signature,
                _ if place >= length - 64 => CertificateError::Signature,
                _ => CertificateError::Different,
            };
            assert_eq!(check(&broken), Err(expected), "byte {place}");
        }
        for length in 0..length {
            let mut broken = good();
            broken.certificate.truncate(length);
            assert_eq!(check(&broken), Err(CertificateError::Different));
        }
        let longer = PeriodMaterial { certificate: [good().certificate, vec![0]].concat(), ..good() };
        assert_eq!(check(&longer), Err(CertificateError::Different));
    }

    #[test]
    fn material_of_another_service_period_or_key_is_refused() {
        let identity = Identity::from_seed(&[1; 32]);
        let during = PERIOD.start() + 60;
        let good = || material(&identity, PERIOD, [5; 32]);
        let check = |material: &PeriodMaterial| self::check(identity.address(), material, during);
        let other = Identity::from_seed(&[2; 32]).address();
        assert_eq!(self::check(other, &good(), during), Err(CertificateError::Different));
        let other = PeriodMaterial { period: PERIOD.next().unwrap(), ..good() };
        assert_eq!(check(&other), Err(CertificateError::Different));
        let other = PeriodMaterial { signing_seed: Zeroizing::new([6; 32]), ..good() };
        assert_eq!(check(&other), Err(CertificateError::Different));
        let never = PeriodMaterial { period: Period { length: u32::MAX, ..PERIOD }, ..good() };
        assert_eq!(check(&never), Err(CertificateError::Period));
        let late = PERIOD.end() + 60 * 3600;
        assert_eq!(self::check(identity.address(), &good(), late), Err(CertificateError::Expired));
    }
}
