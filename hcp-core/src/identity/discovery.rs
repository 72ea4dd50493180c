//! The keys of restricted discovery: who has none of those that a service lists cannot read its descriptor, and so does
//! not find its introduction points; that it was up lately still shows (Tor's rend-spec-v3, "client authorization").
//!
//! The public half is always one that a service may list: canonical, and of an order at which nobody guesses the shared
//! secret. Both halves are plain X25519, and their text is the one that C tor has in its files.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use curve25519_dalek::MontgomeryPoint;
use curve25519_dalek::scalar::clamp_integer;
use data_encoding::BASE32_NOPAD;
use thiserror::Error;
use zeroize::Zeroizing;

use super::OnionAddress;
use super::key::random;
use crate::error::ErrorKind;

/// The secret key with which a client reads the descriptors of services that list its public half.
///
/// It finds a service and proves nothing to it: the session does that, with other keys. A service, and whoever seizes it,
/// sees the public half, so use one key for each service that should not learn that two of its kind have a client in common.
/// Clones share the key; it is overwritten when the last one is dropped.
///
/// ```
/// use hcp_core::identity::{DiscoveryKey, DiscoveryPublicKey};
///
/// let key = DiscoveryKey::generate();
/// // What the service's owner gets, who may run C tor: it goes into authorized_clients/NAME.auth as it is.
/// let text = key.public_key().to_string();
/// assert!(text.starts_with("descriptor:x25519:"));
/// assert_eq!(text.parse::<DiscoveryPublicKey>()?, key.public_key());
/// # Ok::<(), hcp_core::identity::DiscoveryKeyError>(())
/// ```
#[derive(Clone)]
pub struct DiscoveryKey(Arc<Zeroizing<[u8; 32]>>);

impl DiscoveryKey {
    /// Makes a new key from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source: no key may be made then.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        random(bytes.as_mut_slice());
        Self::from_secret_bytes(&bytes)
    }

    /// Takes the 32 bytes of an X25519 secret (RFC 7748), and clamps them as every use of them would.
    pub fn from_secret_bytes(bytes: &[u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(clamp_integer(*bytes))))
    }

    /// The 32 bytes of the secret, clamped, for a Tor implementation or a backup; overwritten when dropped.
    pub fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(**self.0)
    }

    /// The public half, for whoever serves the address.
    pub fn public_key(&self) -> DiscoveryPublicKey {
        DiscoveryPublicKey(MontgomeryPoint::mul_base_clamped(**self.0).to_bytes())
    }

    /// The line that gives C tor this key for `address`, in a file NAME.auth_private of its `ClientOnionAuthDir`; its last part
    /// is what Tor Browser asks for. It holds the secret; overwritten when dropped.
    pub fn c_tor_line(&self, address: OnionAddress) -> Zeroizing<String> {
        let address = address.to_string();
        let address = address.trim_end_matches(".onion");
        let mut line = Zeroizing::new(String::with_capacity(address.len() + 1 + PREFIX.len() + ENCODED_LEN));
        line.push_str(address);
        line.push(':');
        line.push_str(PREFIX);
        let mut secret = Zeroizing::new([0; ENCODED_LEN]);
        BASE32_NOPAD.encode_mut(self.0.as_slice(), secret.as_mut_slice());
        line.extend(secret.iter().map(|letter| char::from(*letter)));
        line
    }
}

impl fmt::Debug for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoveryKey([redacted])")
    }
}

/// The public half of a [`DiscoveryKey`].
///
/// `Display` gives `descriptor:x25519:` and 52 characters of base32, as a line of C tor's `authorized_clients`; `Debug` gives
/// nothing away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoveryPublicKey([u8; 32]);

impl DiscoveryPublicKey {
    /// Takes the 32 bytes of RFC 7748 after checking them.
    ///
    /// # Errors
    /// [`DiscoveryKeyError::NotAKey`] for bytes that no [`DiscoveryKey`] has as its public half, or under which everybody could
    /// read what is meant for its holder.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, DiscoveryKeyError> {
        let [first, middle @ .., last] = bytes;
        let beyond_the_field = first >= 0xed && last == 0x7f && middle.iter().all(|byte| *byte == 0xff);
        // A clamped scalar is a multiple of eight, and that many times a point of small order is the neutral one.
        let small_order = MontgomeryPoint(bytes).mul_clamped([0; 32]).to_bytes() == [0; 32];
        if last > 0x7f || beyond_the_field || small_order { Err(DiscoveryKeyError::NotAKey) } else { Ok(Self(bytes)) }
    }

    /// The 32 bytes of RFC 7748.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for DiscoveryPublicKey {
    type Err = DiscoveryKeyError;

    /// Parses `descriptor:x25519:` and 52 characters of base32 in either case. Surrounding space is refused.
    fn from_str(text: &str) -> Result<Self, DiscoveryKeyError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(DiscoveryKeyError::Prefix)?;
        if encoded.len() != ENCODED_LEN {
            return Err(DiscoveryKeyError::Length);
        }
        let mut bytes = [0; 32];
        let upper = encoded.to_ascii_uppercase();
        BASE32_NOPAD.decode_mut(upper.as_bytes(), &mut bytes).map_err(|_| DiscoveryKeyError::Alphabet)?;
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for DiscoveryPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{PREFIX}{}", BASE32_NOPAD.encode(&self.0)))
    }
}

impl fmt::Debug for DiscoveryPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoveryPublicKey([redacted])")
    }
}

/// Why something is not the public half of a discovery key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DiscoveryKeyError {
    /// It does not begin as such a key does.
    #[error("a discovery key begins with descriptor:x25519: and goes on with 52 characters")]
    Prefix,
    /// Not 52 characters behind the prefix.
    #[error("a discovery key has 52 characters after descriptor:x25519:; check that it was copied whole")]
    Length,
    /// A character that base32 does not have, or bits behind the last byte.
    #[error("a discovery key holds only the letters a to z and the digits 2 to 7; check that it was copied whole")]
    Alphabet,
    /// No X25519 public key, or one that protects nothing.
    #[error("the discovery key is no x25519 public key, or one that protects nothing")]
    NotAKey,
}

impl DiscoveryKeyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// Clients that an address may be restricted to: more do not fit into a descriptor.
pub(crate) const MAX_CLIENTS: usize = 160;
/// As C tor has it: the type of authorisation, the type of key.
const PREFIX: &str = "descriptor:x25519:";
/// 32 bytes in base32 without padding.
const ENCODED_LEN: usize = 52;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn derives_the_public_half_as_rfc_7748_does() {
        // RFC 7748, section 6.1.
        let secret = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let key = DiscoveryKey::from_secret_bytes(&secret);
        assert_eq!(key.public_key().as_bytes(), &public);
        assert_eq!(DiscoveryPublicKey::from_bytes(public), Ok(key.public_key()));
        let again = DiscoveryKey::from_secret_bytes(&key.secret_bytes());
        assert_eq!(again.public_key(), key.public_key());
        assert_ne!(DiscoveryKey::generate().public_key(), DiscoveryKey::generate().public_key());
    }

    #[test]
    fn prints_and_parses_the_lines_of_c_tor() {
        // What `openssl pkey` and `base32` make of this secret, as C tor's manual tells people to make theirs.
        let key = DiscoveryKey::from_secret_bytes(&[1; 32]);
        let public = "descriptor:x25519:UTQJFEVWKHBHROLXFRLJ6X5JXMJ5SBVUNK3IZHPZ3QVUICPYUIEQ";
        let text = key.public_key().to_string();
        assert_eq!(text, public);
        assert_eq!(text.parse(), Ok(key.public_key()));
        let lower = format!("{PREFIX}{}", text[PREFIX.len()..].to_ascii_lowercase());
        assert_eq!(lower.parse(), Ok(key.public_key()));

        let address = Identity::from_seed(&[1; 32]).address();
        let line = key.c_tor_line(address);
        let (name, secret) = line.split_once(':').expect("a colon");
        assert_eq!(format!("{name}.onion"), address.to_string());
        let secret = secret.strip_prefix(PREFIX).expect("the prefix");
        assert_eq!(BASE32_NOPAD.decode(secret.as_bytes()).expect("base32"), key.secret_bytes().as_slice());
    }

    #[test]
    fn refuses_what_is_no_line_of_c_tor() {
        let good = DiscoveryKey::from_secret_bytes(&[1; 32]).public_key().to_string();
        let parse = |text: &str| text.parse::<DiscoveryPublicKey>();
        for text in ["", &good[1..], &format!(" {good}"), "descriptor:ed25519:AA", &good[PREFIX.len()..]] {
            assert_eq!(parse(text), Err(DiscoveryKeyError::Prefix), "{text}");
        }
        for text in [PREFIX, &good[..good.len() - 1], &format!("{good}="), &format!("{good}\n")] {
            assert_eq!(parse(text), Err(DiscoveryKeyError::Length), "{text}");
        }
        for wrong in ['0', '1', '8', '=', ' '] {
            let text = format!("{}{wrong}", &good[..good.len() - 1]);
            assert_eq!(parse(&text), Err(DiscoveryKeyError::Alphabet), "{text}");
        }
        // The last letter holds one bit of the key; with another one set it is not what would be printed.
        let text = format!("{}B", &good[..good.len() - 1]);
        assert_eq!(parse(&text), Err(DiscoveryKeyError::Alphabet));
        assert_eq!(parse(&format!("{}é", &good[..good.len() - 2])), Err(DiscoveryKeyError::Alphabet));
    }

    #[test]
    fn refuses_keys_under_which_everybody_could_read() {
        // The points of small order, as RFC 7748 and its errata list them: 0, 1, two of order 8, p - 1.
        let order_8 = [
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        ];
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        for bytes in [[0; 32], one, minus_one, hex(order_8[0]), hex(order_8[1])] {
            assert_eq!(DiscoveryPublicKey::from_bytes(bytes), Err(DiscoveryKeyError::NotAKey), "{bytes:?}");
        }
    }

    #[test]
    fn refuses_two_spellings_of_one_key() {
        // 9, the base point, and 9 + p; and with the bit that X25519 ignores.
        let mut base = [0; 32];
        base[0] = 9;
        assert!(DiscoveryPublicKey::from_bytes(base).is_ok());
        let mut beyond = [0xff; 32];
        (beyond[0], beyond[31]) = (0xed + 9, 0x7f);
        assert_eq!(DiscoveryPublicKey::from_bytes(beyond), Err(DiscoveryKeyError::NotAKey));
        base[31] = 0x80;
        assert_eq!(DiscoveryPublicKey::from_bytes(base), Err(DiscoveryKeyError::NotAKey));
    }

    #[test]
    fn debug_shows_neither_half() {
        let key = DiscoveryKey::from_secret_bytes(&[1; 32]);
        assert_eq!(format!("{key:?}"), "DiscoveryKey([redacted])");
        assert_eq!(format!("{:?}", key.public_key()), "DiscoveryPublicKey([redacted])");
    }

    fn hex(text: &str) -> [u8; 32] {
        data_encoding::HEXLOWER.decode(text.as_bytes()).expect("valid hex").try_into().expect("32 bytes")
    }
}
