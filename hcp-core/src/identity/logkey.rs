//! The key that signs a node's log entries, apart from its address so that one can be replaced without the other.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::key::{self, ExpandedKeyError, SecretKey, SignatureError};

/// The secret key with which a node signs what it writes to a log.
///
/// Clones share the key; it is overwritten when the last one is dropped.
#[derive(Clone)]
pub struct LogKey(Arc<SecretKey>);

impl LogKey {
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

    /// The public key, by which others [`verify`](Self::verify).
    pub fn public_key(&self) -> [u8; 32] {
        self.0.public_key()
    }

    /// Signs `message` with plain Ed25519; the message begins with its purpose, as everything that HCP signs.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }

    /// Verifies strictly that `signature` was made over `message` with the secret of `public`.
    ///
    /// # Errors
    /// [`SignatureError`] when it was not, or when `public` is no key or one of small order.
    pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureError> {
        key::verify(public, message, signature)
    }

    pub(super) fn from_expanded(expanded: &[u8; 64]) -> Result<Self, ExpandedKeyError> {
        SecretKey::from_expanded(expanded).map(|key| Self(Arc::new(key)))
    }

    pub(super) fn expanded(&self) -> Zeroizing<[u8; 64]> {
        self.0.expanded()
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifies_its_own_signature_and_no_other() {
        let key = LogKey::from_seed(&[3; 32]);
        let signature = key.sign(b"entry");
        assert_eq!(LogKey::verify(&key.public_key(), b"entry", &signature), Ok(()));
        assert_eq!(LogKey::verify(&key.public_key(), b"other", &signature), Err(SignatureError));
        assert_eq!(LogKey::verify(&LogKey::generate().public_key(), b"entry", &signature), Err(SignatureError));
        for byte in 0..64 {
            let mut bad = signature;
            bad[byte] ^= 1;
            assert_eq!(LogKey::verify(&key.public_key(), b"entry", &bad), Err(SignatureError), "byte {byte}");
        }
    }

    #[test]
    fn refuses_small_order_key_that_fits_every_message() {
        // The neutral element as key and as nonce, with a zero scalar, satisfies the lax equation for any message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert_eq!(LogKey::verify(&neutral, b"anything", &signature), Err(SignatureError));
    }
}
