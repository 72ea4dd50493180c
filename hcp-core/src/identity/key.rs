//! The one Ed25519 secret key under every purpose-bound type.
//!
//! The key is kept expanded, byte for byte as it came, because Tor's key files hold no seed; the public key beside
//! it is always derived from it, never given, so that a signature cannot be made over somebody else's key.

use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, VerifyingKey};
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha512};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::error::ErrorKind;

/// A signature that was not made by the key over the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the signature does not match the key and the message")]
pub struct SignatureError;

impl SignatureError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Authentication
    }
}

/// An expanded secret key whose scalar is not clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an expanded ed25519 secret key: its scalar is not clamped; was a seed or a damaged file given?")]
pub struct ExpandedKeyError;

impl ExpandedKeyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// An expanded secret key with its public key.
pub(super) struct SecretKey {
    expanded: Zeroizing<[u8; 64]>,
    signing: ExpandedSecretKey,
    public: VerifyingKey,
}

impl SecretKey {
    pub(super) fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        random(&mut *seed);
        Self::from_seed(&seed)
    }

    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        let mut hash = Sha512::digest(seed);
        let mut expanded = Zeroizing::new([0; 64]);
        expanded.copy_from_slice(&hash);
        hash.as_mut_slice().zeroize();
        let scalar = Zeroizing::new(clamp_integer(scalar_half(&expanded)));
        expanded[..32].copy_from_slice(&*scalar);
        Self::from_clamped(expanded)
    }

    pub(super) fn from_expanded(expanded: &[u8; 64]) -> Result<Self, ExpandedKeyError> {
        let scalar = Zeroizing::new(scalar_half(expanded));
        let clamped = Zeroizing::new(clamp_integer(*scalar));
        if *scalar != *clamped {
            return Err(ExpandedKeyError);
        }
        Ok(Self::from_clamped(Zeroizing::new(*expanded)))
    }

    pub(super) fn public_key(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    pub(super) fn expanded(&self) -> Zeroizing<[u8; 64]> {
        self.expanded.clone()
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        raw_sign::<Sha512>(&self.signing, message, &self.public).to_bytes()
    }

    /// Signs with the key that `factor` blinds this one to (rend-spec-v3, appendix A.2).
    pub(super) fn sign_blinded(&self, factor: Scalar, message: &[u8]) -> [u8; 64] {
        let hash = Sha512::new().chain_update(BLINDED_PREFIX).chain_update(self.signing.hash_prefix);
        let hash = Zeroizing::new(<[u8; 64]>::from(hash.finalize()));
        let mut secret = ExpandedSecretKey { scalar: self.signing.scalar * factor, hash_prefix: [0; 32] };
        secret.hash_prefix.copy_from_slice(&hash[..32]);
        let public = VerifyingKey::from(&secret);
        raw_sign::<Sha512>(&secret, message, &public).to_bytes()
    }

    fn from_clamped(expanded: Zeroizing<[u8; 64]>) -> Self {
        let signing = ExpandedSecretKey::from_bytes(&expanded);
        let public = VerifyingKey::from(&signing);
        Self { expanded, signing, public }
    }
}

/// What the specification puts before the prefix that a blinded key's is hashed from.
const BLINDED_PREFIX: &[u8] = b"Derive temporary signing key hash input";

/// Verifies strictly: a small-order key, a small-order nonce and a non-canonical scalar are refused.
pub(super) fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureError> {
    VerifyingKey::from_bytes(public)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .map_err(|_| SignatureError)
}

/// Fills `bytes` from the operating system's random source.
pub(super) fn random(bytes: &mut [u8]) {
    SysRng.try_fill_bytes(bytes).expect("the operating system has a random source, without which no key is safe");
}

fn scalar_half(expanded: &[u8; 64]) -> [u8; 32] {
    let mut scalar = [0; 32];
    scalar.copy_from_slice(&expanded[..32]);
    scalar
}
