//! The v3 onion address: a public key that is also the id of a person, a node or a service.
//!
//! Tor's rend-spec-v3, "Encoding onion addresses [ONIONADDRESS]":
//! `base32(PUBKEY | CHECKSUM | VERSION) + ".onion"`, where `CHECKSUM` is the first two bytes of
//! `SHA3-256(".onion checksum" | PUBKEY | VERSION)` and `VERSION` is 3.

use std::fmt;
use std::str::FromStr;

use curve25519_dalek::Scalar;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use data_encoding::BASE32_NOPAD;
use sha3::{Digest, Sha3_256};
use thiserror::Error;

use super::key::{self, SecretKey, SignatureError};
use crate::error::ErrorKind;

/// A v3 onion address, held as its 32-byte Ed25519 public key.
///
/// The key is canonically encoded and has no torsion component. Without that rule one secret would answer for eight
/// addresses, and a ban or a contact list could be walked around.
///
/// `Display` gives the 62 characters with `.onion`, in lower case; `Debug` gives nothing away, so that a log of a
/// struct that holds an address does not hold it too.
///
/// ```
/// use hcp_core::identity::OnionAddress;
///
/// let text = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion";
/// let address: OnionAddress = text.parse()?;
/// assert_eq!(address.to_string(), text);
/// # Ok::<(), hcp_core::identity::AddressError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnionAddress([u8; 32]);

impl OnionAddress {
    /// Takes a public key after checking that it is one that an address may hold.
    ///
    /// # Errors
    /// [`AddressError::NotAKey`], [`AddressError::SmallOrder`] or [`AddressError::Torsion`].
    pub fn from_public_key(key: [u8; 32]) -> Result<Self, AddressError> {
        let compressed = CompressedEdwardsY(key);
        let point = compressed.decompress().ok_or(AddressError::NotAKey)?;
        if point.compress() != compressed {
            return Err(AddressError::NotAKey);
        }
        if point.is_small_order() {
            return Err(AddressError::SmallOrder);
        }
        if !is_torsion_free(&point) {
            return Err(AddressError::Torsion);
        }
        Ok(Self(key))
    }

    /// The Ed25519 public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// Verifies strictly that the holder of this address signed `message`.
    ///
    /// # Errors
    /// [`SignatureError`] when the signature was not made by this address's key over this message.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureError> {
        key::verify(&self.0, message, signature)
    }

    /// The public key of a clamped scalar is a multiple of the base point: checking it again would always pass.
    pub(super) fn from_key_of_secret(key: &SecretKey) -> Self {
        Self(key.public_key())
    }
}

impl FromStr for OnionAddress {
    type Err = AddressError;

    /// Parses a v3 address, in either case, with or without `.onion`.
    ///
    /// Without the suffix the checksum still tells an address from a slip, and people do paste it that way.
    /// Subdomains, ports and surrounding space are refused.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let upper = text.to_ascii_uppercase();
        let encoded = upper.strip_suffix(".ONION").unwrap_or(&upper);
        if encoded.len() != ENCODED_LEN {
            return Err(AddressError::Length);
        }
        let mut bytes = [0; DECODED_LEN];
        BASE32_NOPAD.decode_mut(encoded.as_bytes(), &mut bytes).map_err(|_| AddressError::Alphabet)?;
        let [key @ .., check0, check1, version] = bytes;
        if version != VERSION {
            return Err(AddressError::Version);
        }
        if [check0, check1] != checksum(&key) {
            return Err(AddressError::Checksum);
        }
        Self::from_public_key(key)
    }
}

impl fmt::Display for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; DECODED_LEN];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..34].copy_from_slice(&checksum(&self.0));
        bytes[34] = VERSION;
        let mut encoded = BASE32_NOPAD.encode(&bytes);
        encoded.make_ascii_lowercase();
        encoded.push_str(".onion");
        f.pad(&encoded)
    }
}

impl fmt::Debug for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnionAddress([redacted])")
    }
}

/// Why something is not an onion address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not 56 characters before `.onion`.
    #[error("a v3 onion address has 56 characters before .onion; check that it was copied whole")]
    Length,
    /// A character that base32 does not have.
    #[error("an onion address holds only the letters a to z and the digits 2 to 7")]
    Alphabet,
    /// A version other than 3.
    #[error("not a version 3 onion address; check that it was copied whole")]
    Version,
    /// The checksum does not fit.
    #[error("the onion address has a typing error: its checksum does not fit")]
    Checksum,
    /// Not the canonical encoding of a point on the curve.
    #[error("the onion address holds no valid ed25519 public key")]
    NotAKey,
    /// A point of small order, under which anybody can sign.
    #[error("the onion address holds a public key of small order, which protects nothing")]
    SmallOrder,
    /// A point with a torsion component, one of eight addresses with the same secret.
    #[error("the onion address holds a public key with a torsion component, a disguise of another address")]
    Torsion,
}

impl AddressError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// Whether a point has no torsion component: whether the group's order times the point is the identity, in other words the
/// order less one times the point is its negative. A scalar is below the order, and that one is written `-1`.
///
/// [`EdwardsPoint::is_torsion_free`] takes the time of a secret scalar for it; an address is none.
fn is_torsion_free(point: &EdwardsPoint) -> bool {
    EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, point, &Scalar::ZERO) == -point
}

const VERSION: u8 = 3;
const DECODED_LEN: usize = 35;
const ENCODED_LEN: usize = 56;

fn checksum(key: &[u8; 32]) -> [u8; 2] {
    let digest = Sha3_256::new().chain_update(b".onion checksum").chain_update(key).chain_update([VERSION]).finalize();
    [digest[0], digest[1]]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use curve25519_dalek::constants::EIGHT_TORSION;

    use super::*;
    use crate::identity::Identity;

    /// The examples of rend-spec-v3, [ONIONADDRESS].
    const SPEC: [&str; 3] = [
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
        "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd.onion",
        "xa4r2iadxm55fbnqgwwi5mymqdcofiu3w6rpbtqn7b2dyn7mgwj64jyd.onion",
    ];
    const WELL_KNOWN: [&str; 2] = [
        "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion",
        "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion",
    ];

    #[test]
    fn parses_and_prints_addresses_of_the_specification_and_of_the_network() {
        for text in SPEC.into_iter().chain(WELL_KNOWN) {
            let address: OnionAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
            assert_eq!(OnionAddress::from_public_key(*address.public_key()), Ok(address));
        }
    }

    #[test]
    fn accepts_upper_case_and_a_missing_suffix() {
        let address: OnionAddress = SPEC[0].parse().expect("valid");
        assert_eq!(SPEC[0].to_ascii_uppercase().parse(), Ok(address));
        assert_eq!(SPEC[0].trim_end_matches(".onion").parse(), Ok(address));
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        let parse = |text: &str| text.parse::<OnionAddress>();
        let bare = SPEC[0].trim_end_matches(".onion");
        for text in ["", ".onion", "expyuzz4wqqyqhjn.onion", &bare[1..], " ", &format!("www.{}", SPEC[0])] {
            assert_eq!(parse(text), Err(AddressError::Length), "{text}");
        }
        for text in [format!("{}.onion.onion", bare), format!(" {}", SPEC[0]), format!("{}:80", SPEC[0])] {
            assert_eq!(parse(&text), Err(AddressError::Length), "{text}");
        }
        for wrong in ['1', '8', '=', ' ', '.'] {
            assert_eq!(parse(&format!("{}{wrong}.onion", &bare[..55])), Err(AddressError::Alphabet), "{wrong}");
        }
        // 56 bytes of which two are not ASCII.
        assert_eq!(parse(&format!("{}é", &bare[..54])), Err(AddressError::Alphabet));
        assert_eq!(parse(&format!("{}e", &bare[..55])), Err(AddressError::Version));
    }

    #[test]
    fn refuses_every_single_wrong_character() {
        let text = SPEC[1].trim_end_matches(".onion");
        for place in 0..text.len() {
            for letter in b'a'..=b'z' {
                let mut wrong = text.as_bytes().to_vec();
                if wrong[place] != letter {
                    wrong[place] = letter;
                    let wrong = String::from_utf8(wrong).expect("ASCII");
                    assert!(wrong.parse::<OnionAddress>().is_err(), "{wrong}");
                }
            }
        }
    }

    #[test]
    fn refuses_small_order_keys() {
        for point in EIGHT_TORSION {
            assert_eq!(OnionAddress::from_public_key(point.compress().0), Err(AddressError::SmallOrder));
        }
    }

    #[test]
    fn refuses_a_key_plus_a_small_order_point_even_with_a_right_checksum() {
        let key = *Identity::from_seed(&[9; 32]).address().public_key();
        let point = CompressedEdwardsY(key).decompress().expect("a key");
        assert!(OnionAddress::from_public_key(point.compress().0).is_ok());
        for torsion in &EIGHT_TORSION[1..] {
            let disguise = (point + torsion).compress().0;
            assert_eq!(OnionAddress::from_public_key(disguise), Err(AddressError::Torsion));
            assert_eq!(OnionAddress(disguise).to_string().parse::<OnionAddress>(), Err(AddressError::Torsion));
        }
    }

    #[test]
    fn a_point_has_torsion_where_the_constant_time_test_says_so() {
        for seed in 0..20 {
            let key = *Identity::from_seed(&[seed; 32]).address().public_key();
            let point = CompressedEdwardsY(key).decompress().expect("a key");
            for torsion in &EIGHT_TORSION {
                let sum = point + torsion;
                assert_eq!(is_torsion_free(&sum), sum.is_torsion_free());
            }
        }
    }

    #[test]
    fn refuses_keys_that_are_not_canonical_points() {
        // y = p and y = p + 1 stand for 0 and 1.
        let mut p = [0xff; 32];
        p[0] = 0xed;
        p[31] = 0x7f;
        assert_eq!(OnionAddress::from_public_key(p), Err(AddressError::NotAKey));
        p[0] = 0xee;
        assert_eq!(OnionAddress::from_public_key(p), Err(AddressError::NotAKey));
        // x = 0 has no sign.
        let mut minus_zero = [0; 32];
        minus_zero[0] = 1;
        minus_zero[31] = 0x80;
        assert_eq!(OnionAddress::from_public_key(minus_zero), Err(AddressError::NotAKey));
        // y = 2 is on no point.
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert_eq!(OnionAddress::from_public_key(off_curve), Err(AddressError::NotAKey));
    }

    #[test]
    fn orders_and_compares_by_key() {
        let set: BTreeSet<OnionAddress> = SPEC.iter().chain(&SPEC).map(|text| text.parse().expect("valid")).collect();
        assert_eq!(set.len(), SPEC.len());
    }
}
