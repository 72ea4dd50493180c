//! Keys and the addresses made of them: onion addresses, log keys, the right to speak for a service and the list of who may,
//! sealed key files, C tor's key files.
//!
//! A key has one purpose: an [`Identity`] answers for an onion address, a [`LogKey`] signs log entries, an
//! [`OwnerKey`](delegation::OwnerKey) lets a [`SessionKey`](delegation::SessionKey) speak for a service, a [`DiscoveryKey`]
//! finds services that are hidden from others, and none can be made from another's file. An [`OnionAddress`] is always a canonical key in the prime-order
//! group, so that equal addresses are equal bytes and no two addresses share a secret. Secrets are overwritten
//! when the last handle is dropped, and nothing here prints them.

mod address;
pub(crate) mod blinded;
pub mod ctor;
#[cfg(feature = "messenger")]
mod dbkey;
pub mod delegation;
mod discovery;
pub(crate) mod fields;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod key;
pub mod keyfile;
mod logkey;
pub mod manifest;
mod passphrase;
mod seeds;

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

pub use self::address::{AddressError, OnionAddress};
#[cfg(feature = "messenger")]
pub(crate) use self::dbkey::DatabaseKey;
pub(crate) use self::discovery::MAX_CLIENTS;
pub use self::discovery::{DiscoveryKey, DiscoveryKeyError, DiscoveryPublicKey};
use self::key::SecretKey;
pub use self::key::{ExpandedKeyError, SignatureError};
pub use self::logkey::LogKey;
pub use self::passphrase::{EmptyPassphrase, Passphrase};
pub use self::seeds::{ReplicaSeed, RevisionSeed};

/// The secret key of an onion address.
///
/// Clones share the key; it is overwritten when the last one is dropped.
///
/// ```
/// use hcp_core::identity::Identity;
///
/// let identity = Identity::generate();
/// let signature = identity.sign(b"HCP/1 example\0hello");
/// assert!(identity.address().verify(b"HCP/1 example\0hello", &signature).is_ok());
/// ```
#[derive(Clone)]
pub struct Identity {
    key: Arc<SecretKey>,
    address: OnionAddress,
}

impl Identity {
    /// Makes a new identity from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source: no key may be made then.
    pub fn generate() -> Self {
        Self::from_key(SecretKey::generate())
    }

    /// Derives the identity of an RFC 8032 seed; the same seed always gives the same address.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_key(SecretKey::from_seed(seed))
    }

    /// Takes an expanded key: a clamped scalar, then the prefix that signing hashes, as C tor stores it.
    ///
    /// # Errors
    /// [`ExpandedKeyError`] when the scalar is not clamped: its public key would not be the one that its maker saw.
    pub fn from_expanded_secret_key(expanded: &[u8; 64]) -> Result<Self, ExpandedKeyError> {
        SecretKey::from_expanded(expanded).map(Self::from_key)
    }

    /// The address that this identity answers for.
    pub fn address(&self) -> OnionAddress {
        self.address
    }

    /// Signs `message` with plain Ed25519.
    ///
    /// Everything that HCP signs begins with `HCP/1 <purpose>` and a zero byte; keep to that for messages of your
    /// own, with a purpose of your own, or a signature made for one thing may count as another.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message)
    }

    /// The expanded secret key, 64 bytes, for a Tor implementation or a backup; overwritten when dropped.
    pub fn expanded_secret_key(&self) -> Zeroizing<[u8; 64]> {
        self.key.expanded()
    }

    fn from_key(key: SecretKey) -> Self {
        let address = OnionAddress::from_key_of_secret(&key);
        Self { key: Arc::new(key), address }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_like_any_ed25519_implementation() {
        // RFC 8032, section 7.1, test 2.
        let seed: [u8; 32] = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let public: [u8; 32] = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature: [u8; 64] = hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
        let identity = Identity::from_seed(&seed);
        assert_eq!(identity.address().public_key(), &public);
        assert_eq!(identity.sign(&[0x72]), signature);
    }

    #[test]
    fn expanded_key_round_trips_to_the_same_identity() {
        let identity = Identity::generate();
        let copy = Identity::from_expanded_secret_key(&identity.expanded_secret_key()).expect("own key is clamped");
        assert_eq!(copy.address(), identity.address());
        assert_eq!(copy.expanded_secret_key(), identity.expanded_secret_key());
        assert_eq!(copy.sign(b"m"), identity.sign(b"m"));
    }

    #[test]
    fn refuses_expanded_key_with_any_clamped_bit_wrong() {
        let good = Identity::from_seed(&[7; 32]).expanded_secret_key();
        for (byte, bit) in [(0, 0), (0, 1), (0, 2), (31, 6), (31, 7)] {
            let mut bad = good.clone();
            bad[byte] ^= 1 << bit;
            assert_eq!(Identity::from_expanded_secret_key(&bad).err(), Some(ExpandedKeyError), "{byte}.{bit}");
        }
    }

    #[test]
    fn generated_identities_differ() {
        assert_ne!(Identity::generate().address(), Identity::generate().address());
    }

    #[test]
    fn debug_shows_neither_key_nor_address() {
        let identity = Identity::from_seed(&[1; 32]);
        assert_eq!(format!("{identity:?}"), "Identity([redacted])");
        assert_eq!(format!("{:?}", identity.address()), "OnionAddress([redacted])");
        assert_eq!(format!("{:?}", LogKey::from_seed(&[1; 32])), "LogKey([redacted])");
    }

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).expect("valid hex");
        bytes.try_into().expect("right length")
    }
}
