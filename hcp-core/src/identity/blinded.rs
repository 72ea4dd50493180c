//! Blinded keys (rend-spec-v3, appendix A.2): what an identity signs with in one time period of Tor's, and what everybody can
//! compute of it from the address.

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use sha3::{Digest, Sha3_256};
#[cfg(feature = "testing")]
use zeroize::Zeroizing;

use super::{Identity, OnionAddress};

/// The blinded public key of `service` in the time period with this number and length in minutes.
pub(crate) fn blinded_public_key(service: OnionAddress, number: u64, length: u32) -> [u8; 32] {
    let point = CompressedEdwardsY(*service.public_key()).decompress();
    let point = point.expect("an address holds the encoding of a point");
    (factor(service, number, length) * point).compress().0
}

impl Identity {
    /// Signs with the blinded key of the time period with this number and length in minutes.
    pub(crate) fn sign_blinded(&self, number: u64, length: u32, message: &[u8]) -> [u8; 64] {
        self.key.sign_blinded(factor(self.address, number, length), message)
    }
}

/// The secret scalar of a blinded key, for tests that look for it where it must not be: with it and what is public the identity's
/// own can be computed.
#[cfg(feature = "testing")]
pub(crate) fn blinded_secret_scalar(identity: &Identity, number: u64, length: u32) -> Zeroizing<[u8; 32]> {
    let expanded = identity.expanded_secret_key();
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(&expanded[..32]);
    let secret = Scalar::from_bytes_mod_order(*secret);
    Zeroizing::new((factor(identity.address(), number, length) * secret).to_bytes())
}

/// `h` of the specification, without the optional secret, as the scalar that it becomes.
fn factor(service: OnionAddress, number: u64, length: u32) -> Scalar {
    let hash = Sha3_256::new()
        .chain_update(b"Derive temporary signing key\0")
        .chain_update(service.public_key())
        .chain_update(BASE_POINT)
        .chain_update(b"key-blind")
        .chain_update(number.to_be_bytes())
        .chain_update(u64::from(length).to_be_bytes())
        .finalize();
    Scalar::from_bytes_mod_order(clamp_integer(hash.into()))
}

/// The base point of Ed25519 in decimal, as the specification hashes it.
const BASE_POINT: &[u8] = b"(15112221349535400772501151409588531511454012693041857206046113283949847762202, \
    46316835694926478169428394003475163141307993866256225615783033603165251855960)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::key;

    #[test]
    fn a_blinded_key_is_what_c_tor_makes_of_it() {
        // Made with C tor; tor-hscrypto has the same in its tests. The identity's secret is not clamped, hence only the public half.
        let service = hex("833990b085c1a688c1d4c8b1f6b56afaf5a2eca674449e1d704f83765ccb7bc6");
        let service = OnionAddress::from_public_key(service).expect("a key");
        let blinded = blinded_public_key(service, 1234, 1440);
        assert_eq!(blinded, hex("3a50bf210e8f9ee955ae0014f7a6917fb65ebf098a86305abb508d1a7291b6d5"));
    }

    #[cfg(feature = "testing")]
    #[test]
    fn the_blinded_secret_belongs_to_the_blinded_key() {
        let identity = Identity::from_seed(&[6; 32]);
        let secret = blinded_secret_scalar(&identity, 20_000, 1440);
        let public = curve25519_dalek::EdwardsPoint::mul_base(&Scalar::from_bytes_mod_order(*secret)).compress().0;
        assert_eq!(public, blinded_public_key(identity.address(), 20_000, 1440));
    }

    #[test]
    fn what_a_blinded_key_signs_is_its_own_alone() {
        let identity = Identity::from_seed(&[5; 32]);
        let signature = identity.sign_blinded(20_000, 1440, b"message");
        let public = |number, length| blinded_public_key(identity.address(), number, length);
        assert_eq!(key::verify(&public(20_000, 1440), b"message", &signature), Ok(()));
        for (other, message) in [
            (public(20_001, 1440), &b"message"[..]),
            (public(20_000, 8), b"message"),
            (public(20_000, 1440), b"another"),
            (*identity.address().public_key(), b"message"),
        ] {
            assert!(key::verify(&other, message, &signature).is_err());
        }
    }

    #[cfg(feature = "tor")]
    #[test]
    fn blinded_keys_are_those_of_arti() {
        use tor_hscrypto::pk::{HsIdKey, HsIdKeypair};
        use tor_hscrypto::time::TimePeriod;
        use tor_llcrypto::pk::ed25519::ExpandedKeypair;

        for seed in 0..8 {
            let identity = Identity::from_seed(&[seed; 32]);
            let pair = ExpandedKeypair::from_secret_key_bytes(*identity.expanded_secret_key()).expect("a key");
            let pair = HsIdKeypair::from(pair);
            for (number, length) in [(20_000, 1440), (7, 8), (u64::from(u32::MAX), 30)] {
                let period = TimePeriod::from_parts(length, number, 0);
                let (public, secret, _) = pair.compute_blinded_key(period).expect("blinds");
                let (again, _) = HsIdKey::from(&pair).compute_blinded_key(period).expect("blinds");
                let ours = blinded_public_key(identity.address(), number, length);
                assert_eq!((public.id().as_ref(), again.id().as_ref()), (&ours, &ours));
                assert_eq!(secret.as_ref().sign(b"m").to_bytes(), identity.sign_blinded(number, length, b"m"));
            }
        }
    }

    fn hex(text: &str) -> [u8; 32] {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).expect("hex");
        bytes.try_into().expect("32 bytes")
    }
}
